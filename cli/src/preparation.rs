//! How pictures become the input: options for sources that do not describe it, and its description in words.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use vitlet::Named;
use vitlet::picture::{CropRounding, Interpolation, Preprocess, Resize};
use vitlet_convert::Options;

use crate::error::Result;
use crate::files;

/// Shared by `convert` and by the commands that run an ONNX file.
#[derive(Args, Clone)]
pub struct PreparationArgs {
    /// Input size in pixels, instead of the checkpoint's (position embeddings are resampled), or where an ONNX file
    /// leaves it open
    #[arg(long, value_name = "HxW", value_parser = image_size)]
    image_size: Option<(usize, usize)>,

    /// Labels instead of the checkpoint's: one a line, lines of index,label, or JSON (a list, or id2label)
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,

    /// Mean of R, G, B in [0, 1], as in 0.485,0.456,0.406
    #[arg(long, value_name = "R,G,B", value_parser = rgb)]
    mean: Option<[f32; 3]>,

    /// Standard deviation of R, G, B
    #[arg(long, value_name = "R,G,B", value_parser = positive_rgb)]
    std: Option<[f32; 3]>,

    /// Part of the resized picture's edge that the crop keeps
    #[arg(long, value_name = "SHARE", value_parser = crop_pct)]
    crop_pct: Option<f64>,

    /// Filter of the resize
    #[arg(long, value_name = "FILTER", value_parser = PossibleValuesParser::new(Interpolation::NAMES.iter().map(|(_, name)| name)).map(interpolation))]
    interpolation: Option<Interpolation>,

    /// For ONNX files: a checkpoint directory whose configuration says how pictures are prepared
    #[arg(long, value_name = "DIR")]
    preprocess_from: Option<PathBuf>,
}

impl PreparationArgs {
    /// The converter's options with these choices, and its defaults otherwise.
    pub fn options(self) -> Options {
        Options {
            image_size: self.image_size,
            labels: self.labels,
            mean: self.mean,
            std: self.std,
            crop_pct: self.crop_pct,
            interpolation: self.interpolation,
            preprocess_from: self.preprocess_from,
            ..Options::default()
        }
    }

    /// Refuses an output that is the file of labels, or one of the files of the directory for the preparation.
    pub fn refuse_inputs(&self, output: &Path) -> Result<()> {
        files::refuse_inputs(output, &self.labels)?;
        self.preprocess_from.as_ref().map_or(Ok(()), |folder| files::refuse_checkpoint(output, folder))
    }

    /// The name of an option that was given, if any was.
    pub fn given(&self) -> Option<&'static str> {
        let given = [
            (self.image_size.is_some(), "--image-size"),
            (self.labels.is_some(), "--labels"),
            (self.mean.is_some(), "--mean"),
            (self.std.is_some(), "--std"),
            (self.crop_pct.is_some(), "--crop-pct"),
            (self.interpolation.is_some(), "--interpolation"),
            (self.preprocess_from.is_some(), "--preprocess-from"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, name)| name)
    }
}

/// How pictures become the input, in words; equal words are equal preparations.
pub fn words(p: &Preprocess) -> String {
    let (resize, to) = match p.resize {
        Resize::ShorterEdge(edge) => ("shorter edge", edge.to_string()),
        Resize::Exact { height, width } => ("exact", format!("{height} x {width}")),
        Resize::Cover { height, width } => ("cover", format!("{height} x {width}")),
        Resize::Contain { height, width } => ("contain", format!("{height} x {width}")),
    };
    let filter = p.interpolation.name();
    // Where a crop starts that is half a pixel off.
    let rounding = match p.crop_rounding {
        CropRounding::Even => "",
        CropRounding::Floor => " rounded down",
    };
    let Preprocess { height, width, mean, std, .. } = p;
    format!("{filter} {resize} to {to}, crop {height} x {width}{rounding}, mean {mean:?}, std {std:?}")
}

fn image_size(text: &str) -> Result<(usize, usize), &'static str> {
    let size = text.split_once('x').and_then(|(h, w)| Some((h.parse().ok()?, w.parse().ok()?)));
    size.ok_or("write height x width, as in 224x224")
}

fn interpolation(name: String) -> Interpolation {
    Interpolation::from_name(&name).unwrap_or(Interpolation::Bicubic)
}

fn rgb(text: &str) -> Result<[f32; 3], &'static str> {
    let values: Option<Vec<f32>> =
        text.split(',').map(|v| v.trim().parse().ok().filter(|v: &f32| v.is_finite())).collect();
    values.and_then(|v| v.try_into().ok()).ok_or("write three numbers, as in 0.485,0.456,0.406")
}

fn positive_rgb(text: &str) -> Result<[f32; 3], &'static str> {
    rgb(text).and_then(|v| if v.iter().all(|&s| s > 0.0) { Ok(v) } else { Err("write three numbers above 0") })
}

fn crop_pct(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|p| (0.01..=1.0).contains(p)).ok_or("write a share between 0.01 and 1, as in 0.9")
}
