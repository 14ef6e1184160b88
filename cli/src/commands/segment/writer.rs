//! Writes segmentations: colours over the picture with a legend, class ids as a gray PNG, or arrays.

use std::path::{Path, PathBuf};

use ::png::{BitDepth, ColorType};
use clap::{Args, ValueEnum};
use vitlet::picture::{CropRounding, Interpolation, Preprocess, Resize};
use vitlet::{Kernels, Picture};

use super::classes::{ClassMap, Share};
use super::{Looker, Seen, Told};
use crate::error::{Context, Result};
use crate::maps::png;
use crate::maps::targets::{Format, Output};
use crate::panel::{self, LETTER, PAD, Panel};
use crate::{files, maps, npy};

/// How segmentations are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SegmentFormat {
    /// A PNG: the picture under the colours of its classes, with their names
    Overlay,
    /// A gray PNG of 8 bits (16 with more than 256 classes): the number of each pixel's class
    Ids,
    /// A NumPy array i32 [height, width] of these numbers
    Npy,
}

impl Format for SegmentFormat {
    const PNG: Self = Self::Overlay;
    const NPY: Self = Self::Npy;
}

/// Where and how segmentations are written.
#[derive(Args)]
pub struct WriterArgs {
    /// Where to write the class of every pixel, at the picture's own size: FILE.png over the picture, FILE.npy, or a
    /// folder with a file for each picture
    #[arg(short, long, value_name = "FILE|DIR")]
    output: Option<PathBuf>,

    /// What to write, instead of what the ending of -o says
    #[arg(long, value_enum, value_name = "FORMAT", requires = "output")]
    format: Option<SegmentFormat>,

    /// Draw no legend
    #[arg(long, requires = "output")]
    no_legend: bool,
}

/// What `-o` and the options beside it ask for.
pub struct Writer {
    output: Output,
    format: SegmentFormat,
    legend: bool,
    /// Of the network.
    classes: usize,
}

impl Writer {
    /// None without `-o`.
    ///
    /// # Errors
    /// Options that do not go together.
    pub fn new(args: &WriterArgs, classes: usize) -> Result<Option<Self>> {
        let Some(path) = &args.output else { return Ok(None) };
        let (output, format) = Output::new(path, args.format)?;
        Ok(Some(Self { output, format, legend: !args.no_legend, classes }))
    }
}

impl Writer {
    /// Whether the picture is seen under the classes.
    pub fn needs_picture(&self) -> bool {
        self.format == SegmentFormat::Overlay
    }
}

impl maps::Writer<Looker<'_>> for Writer {
    type Map = Seen;

    fn output(&self) -> &Output {
        &self.output
    }

    fn ending(&self) -> &'static str {
        self.format.ending()
    }

    fn map(&self, seen: Seen) -> Result<Seen, String> {
        Ok(seen)
    }

    fn write(&mut self, seen: &Seen, told: &Told, path: &Path) -> Result<()> {
        let map = &seen.map;
        let ClassMap { width, height, ids } = map;
        let bytes = match self.format {
            SegmentFormat::Npy => {
                return npy::write_i32(path, &[*height, *width], ids.iter().map(|id| i32::from(*id)));
            }
            SegmentFormat::Ids if self.classes > 256 => {
                png::encode(&map.ids, map.width, (ColorType::Grayscale, BitDepth::Sixteen), &[], |_, ids, row| {
                    row.extend(ids.iter().flat_map(|id| id.to_be_bytes()));
                })
            }
            SegmentFormat::Ids => {
                png::encode(&map.ids, map.width, (ColorType::Grayscale, BitDepth::Eight), &[], |_, ids, row| {
                    row.extend(ids.iter().map(|id| *id as u8));
                })
            }
            SegmentFormat::Overlay => {
                let legend = self.legend.then(|| legend(&told.classes, (*width, *height))).flatten();
                overlay(map, &seen.under, legend.as_ref())
            }
        };
        files::write(path, &bytes.about(path.display())?)
    }
}

/// How much of the picture is seen under the colours, of 256.
const UNDER: u32 = 128;

/// Classes in a legend; the others have small shares.
const ROWS: usize = 12;

/// A class's colour: neighbours in number have hues that are far apart.
pub fn colour(class: usize) -> [u8; 3] {
    // The golden angle; three steps of brightness.
    let hue = (class as f64 * 0.381_966_011_25 + 0.02).fract() * 6.0;
    let value = [255.0, 205.0, 160.0][class % 3];
    let channel = |shift: f64| {
        let k = (shift + hue) % 6.0;
        let share = 1.0 - 0.85 * k.min(4.0 - k).clamp(0.0, 1.0);
        (value * share).round() as u8
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

/// The names of the classes with the largest shares, beside their colours.
fn legend(classes: &[Share], size: (usize, usize)) -> Option<Panel> {
    let square = panel::square(size)?;
    let row = (LETTER.1 + 2) * square;
    let fits = (size.1 / 2).max(row) / row;
    let most = size.0 / 2 / (LETTER.0 * square);
    let words: Vec<(usize, String)> =
        classes.iter().take(ROWS.min(fits)).map(|class| (class.index, words(class, most))).collect();
    let letters = words.iter().map(|(_, words)| words.chars().count()).max()?;
    // A square of colour, a letter high.
    let width = (2 * PAD + LETTER.1 + 2 + letters * LETTER.0) * square;
    let mut panel = Panel::new((width, words.len() * row + (2 * PAD - 2) * square), size, square)?;
    for (i, (class, words)) in words.iter().enumerate() {
        let (x, y) = (PAD * square, PAD * square + i * row);
        panel.fill((x, y), (LETTER.1 * square, LETTER.1 * square), colour(*class));
        panel.write(words, (x + (LETTER.1 + 2) * square, y), square);
    }
    Some(panel)
}

/// `WALL 41 %`, at most so many letters.
fn words(class: &Share, letters: usize) -> String {
    let share = format!(" {}", percent(class.share));
    let room = letters.saturating_sub(share.len()).max(4);
    let name: String = class.label.chars().take(room).collect();
    format!("{}{share}", name.to_uppercase())
}

/// Whole percents, and what is less.
pub fn percent(share: f64) -> String {
    if share < 0.01 { "<1 %".to_string() } else { format!("{:.0} %", 100.0 * share) }
}

/// The picture in RGB8 at its own size, whatever format it has. Errors say why only.
pub fn rgb(picture: &Picture<'_>) -> Result<Vec<u8>, String> {
    let (width, height) = picture.seen();
    let same = Preprocess {
        height,
        width,
        resize: Resize::Exact { height, width },
        interpolation: Interpolation::Bilinear,
        crop_rounding: CropRounding::Floor,
        crop_pct: None,
        size_rule: None,
        mean: [0.0; 3],
        std: [1.0; 3],
    };
    let mut scratch = vec![0; same.scratch_bytes((width, height)).ok_or("too large")?];
    let mut rgb = memory(3 * width as usize * height as usize)?;
    same.prepare(Kernels::detect(), picture, &mut scratch, &mut rgb).map_err(|e| e.to_string())?;
    Ok(rgb)
}

/// Zeros. Errors say why only.
pub fn memory<T: Clone + Default>(len: usize) -> Result<Vec<T>, String> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(len).map_err(|_| format!("no memory is free for {len} numbers"))?;
    memory.resize(len, T::default());
    Ok(memory)
}

/// Colours over the picture `[height, width, 3]`. Errors say why only.
fn overlay(map: &ClassMap, under: &[u8], legend: Option<&Panel>) -> Result<Vec<u8>, String> {
    png::encode(&map.ids, map.width, (ColorType::Rgb, BitDepth::Eight), &[], |y, ids, row| {
        let (pixels, _) = under[3 * y * map.width..][..3 * map.width].as_chunks::<3>();
        for (pixel, id) in pixels.iter().zip(ids) {
            let over = colour(usize::from(*id));
            let mix = |c: usize| (u32::from(pixel[c]) * UNDER + u32::from(over[c]) * (256 - UNDER)) / 256;
            row.extend([mix(0) as u8, mix(1) as u8, mix(2) as u8]);
        }
        if let Some(legend) = legend {
            legend.cover(y, row);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_that_are_near_in_number_are_not_near_in_colour() {
        for class in 0..150 {
            let distance = |other: usize| -> i32 {
                (0..3).map(|c| (i32::from(colour(class)[c]) - i32::from(colour(other)[c])).abs()).sum()
            };
            assert!((1..6).all(|step| distance(class + step) > 60), "{class}: {:?}", colour(class));
        }
    }

    #[test]
    fn legends_fit_into_their_pictures() {
        let class = |index, label: &str, share| Share { label: label.to_owned(), index, share };
        let classes: Vec<Share> = (0..40).map(|i| class(i, "a very long name of a class", 1.0 / 40.0)).collect();
        for size in [(120, 144), (640, 480), (120, 4000), (4000, 150), (4032, 3024)] {
            if let Some(panel) = legend(&classes, size) {
                let rows = panel.pixels.len() / panel.width;
                assert!(panel.x + panel.width <= size.0 && panel.y + rows <= size.1, "{size:?}");
            }
        }
        assert!(legend(&classes, (119, 500)).is_none() && legend(&[], (640, 480)).is_none());
        assert_eq!(words(&class(0, "wall", 0.413), 20), "WALL 41 %");
        assert_eq!(words(&class(0, "television receiver", 0.004), 12), "TELEVIS <1 %");
    }
}
