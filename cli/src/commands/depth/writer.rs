//! Writes depth maps as the command line asks for: colours, 16 bits, or arrays.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::colors::{Colormap, Palette, Scale};
use super::legend::legend;
use super::map::{DepthMap, Depths, Summary, Unit};
use super::picture;
use super::{Looker, Told};
use crate::error::{Context, Error, Result};
use crate::maps;
use crate::maps::targets::{Format, Output};
use crate::{files, npy, output};

/// How depths are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DepthFormat {
    /// A PNG in colours
    Color,
    /// A gray PNG of 16 bits: millimetres, or relative inverse depth from 0 to 65535
    Png16,
    /// A NumPy array f32 [height, width]
    Npy,
}

impl Format for DepthFormat {
    const PNG: Self = Self::Color;
    const NPY: Self = Self::Npy;
}

/// Where and how depths are written.
#[derive(Args)]
pub struct WriterArgs {
    /// Where to write the depth of every pixel, at the picture's own size: FILE.png in colours, FILE.npy, or a folder
    /// with a file for each picture
    #[arg(short, long, value_name = "FILE|DIR")]
    output: Option<PathBuf>,

    /// What to write, instead of what the ending of -o says
    #[arg(long, value_enum, value_name = "FORMAT", requires = "output")]
    format: Option<DepthFormat>,

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
    output: Output,
    format: DepthFormat,
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
            (DepthFormat::Color, _) => {}
            _ if args.colormap.is_some() => return wrong("--colormap", "colours, FILE.png"),
            _ if args.no_legend => return wrong("--no-legend", "colours, FILE.png"),
            (DepthFormat::Npy, _) if args.range.is_some() => return wrong("--range", "pictures, FILE.png"),
            (DepthFormat::Png16, Unit::Metres) if args.range.is_some() => {
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

impl maps::Writer<Looker<'_>> for Writer {
    type Map = DepthMap;

    fn output(&self) -> &Output {
        &self.output
    }

    fn ending(&self) -> &'static str {
        self.format.ending()
    }

    fn map(&self, depths: Depths) -> Result<DepthMap, String> {
        depths.map()
    }

    fn write(&mut self, map: &DepthMap, told: &Told, path: &Path) -> Result<()> {
        let summary = &told.depth;
        let scale = Scale::new(summary, self.range);
        let bytes = match self.format {
            DepthFormat::Npy => return npy::write(path, &[map.height, map.width], &map.data),
            DepthFormat::Png16 => {
                self.tell_clipped(summary, path);
                picture::sixteen_bits(map, summary.unit, scale)
            }
            DepthFormat::Color => {
                let size = (map.width, map.height);
                let legend = self.legend.then(|| legend(scale, &self.palette, size)).flatten();
                picture::colors(map, scale, &self.palette, legend.as_ref())
            }
        };
        files::write(path, &bytes.about(path.display())?)
    }
}
