//! Writes depth maps as the command line asks for: colours, 16 bits, or arrays.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::colors::{Colormap, Palette, Scale};
use super::legend::Legend;
use super::map::{DepthMap, Summary, Unit};
use super::picture;
use super::targets::{Format, Output};
use crate::error::{Context, Error, Result, why};
use crate::{files, npy, output};

/// Where and how depths are written.
#[derive(Args)]
pub struct WriterArgs {
    /// Where to write the depth of every pixel, at the picture's own size: FILE.png in colours, FILE.npy, or a folder
    /// with a file for each picture
    #[arg(short, long, value_name = "FILE|DIR")]
    output: Option<PathBuf>,

    /// What to write, instead of what the ending of -o says
    #[arg(long, value_enum, value_name = "FORMAT", requires = "output")]
    format: Option<Format>,

    /// Colours, of which the light or warm end is near [default: inferno]
    #[arg(long, value_enum, value_name = "NAME", requires = "output")]
    colormap: Option<Colormap>,

    /// Give the colours (or the 16 bits of inverse depths) to these numbers, the least and the greatest; by default
    /// each picture's own
    #[arg(long, value_name = "MIN,MAX", requires = "output", allow_hyphen_values = true, value_parser = range)]
    range: Option<(f32, f32)>,

    /// Draw no legend on colours in metres
    #[arg(long, requires = "output")]
    no_legend: bool,
}

fn range(text: &str) -> Result<(f32, f32), &'static str> {
    let ends = text.split_once(',').and_then(|(min, max)| Some((min.trim().parse().ok()?, max.trim().parse().ok()?)));
    let usable = |(min, max): &(f32, f32)| min.is_finite() && max.is_finite() && min < max;
    ends.filter(usable).ok_or("MIN,MAX are two numbers, as in 0.5,10")
}

/// What `-o` and the options beside it ask for.
pub struct Writer {
    pub output: Output,
    pub format: Format,
    palette: Palette,
    range: Option<(f32, f32)>,
    legend: bool,
    /// Whether a picture had distances that do not fit into 16 bits, which is said once.
    clipped: bool,
}

impl Writer {
    /// None without `-o`.
    ///
    /// # Errors
    /// Options that do not go together.
    pub fn new(args: &WriterArgs, unit: Unit) -> Result<Option<Self>> {
        let Some(path) = &args.output else { return Ok(None) };
        let (output, format) = Output::new(path, args.format)?;
        let wrong = |option: &str, why: &str| Err(Error::Usage(format!("{option} is for {why}")));
        match (format, unit) {
            (Format::Color, _) => {}
            _ if args.colormap.is_some() => return wrong("--colormap", "colours, FILE.png"),
            _ if args.no_legend => return wrong("--no-legend", "colours, FILE.png"),
            (Format::Npy, _) if args.range.is_some() => return wrong("--range", "pictures, FILE.png"),
            (Format::Png16, Unit::Metres) if args.range.is_some() => {
                return wrong("--range", "colours; 16 bits of distances are always millimetres");
            }
            _ => {}
        }
        Ok(Some(Self {
            output,
            format,
            palette: Palette::new(args.colormap.unwrap_or(Colormap::Inferno)),
            range: args.range,
            legend: unit == Unit::Metres && !args.no_legend,
            clipped: false,
        }))
    }

    /// Writes one map to `path`, whose folder is made.
    ///
    /// # Errors
    /// The system's, in one line that names the path.
    pub fn write(&mut self, map: &DepthMap, summary: &Summary, path: &Path) -> Result<()> {
        if let (Output::Folder(_), Some(folder)) = (&self.output, path.parent()) {
            fs::create_dir_all(folder).map_err(|e| Error::new(folder.display(), why(&e)))?;
        }
        let scale = Scale::new(summary, self.range);
        let bytes = match self.format {
            Format::Npy => return npy::write(path, &[map.height, map.width], &map.data),
            Format::Png16 => {
                self.tell_clipped(summary, path);
                picture::sixteen_bits(map, summary.unit, scale)
            }
            Format::Color => {
                let size = (map.width, map.height);
                let legend = self.legend.then(|| Legend::new(scale, &self.palette, size)).flatten();
                picture::colors(map, scale, &self.palette, legend.as_ref())
            }
        };
        files::write(path, &bytes.about(path.display())?)
    }

    fn tell_clipped(&mut self, summary: &Summary, path: &Path) {
        let beyond = summary.unit == Unit::Metres && summary.max > picture::FARTHEST_METRES;
        if beyond && !self.clipped {
            self.clipped = true;
            output::warn(&format!(
                "{}: 16 bits of millimetres end at {} m, farther pixels get that value; .npy has all of them",
                path.display(),
                picture::FARTHEST_METRES
            ));
        }
    }
}

impl Format {
    /// As `--format` takes it.
    pub fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_string())
    }
}
