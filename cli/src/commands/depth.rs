//! `vitlet depth`: how near every pixel of a picture is, as a picture in colours, as an array, or in a line.

mod colors;
mod frames;
mod legend;
pub mod map;
mod picture;
mod targets;
mod writer;

use std::path::PathBuf;

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use vitlet::Picture;

use crate::backend;
use crate::error::{Context, Error, Inputs, Result};
use crate::files;
use crate::frames::FrameArgs;
use crate::inference::{Answer, Compute, ComputeArgs, SizeArgs, Times};
use crate::model::ModelFile;
use crate::output::{self, NAME, Out, QUIET, STRONG};
use crate::pictures::{self, Source};
use crate::results::{Done, PictureResult};
use crate::sessions::{InputSize, Sessions};

use map::{DepthMap, Depths, Summary, Unit};
use writer::{Writer, WriterArgs};

#[derive(Args)]
pub struct DepthArgs {
    /// Model file, or hf:OWNER/NAME
    #[arg(short, long, value_name = "FILE")]
    model: PathBuf,

    /// JPEG, PNG, WebP or BMP files, directories, or - for standard input
    #[arg(required_unless_present = "camera", value_name = "IMAGE")]
    images: Vec<PathBuf>,

    #[command(flatten)]
    writer: WriterArgs,

    #[command(flatten)]
    frames: FrameArgs,

    #[command(flatten)]
    size: SizeArgs,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Show a hash of the bits of the network's output: equal on every machine for int8 models
    #[arg(long)]
    digest: bool,

    /// Print one JSON document, or one per line and frame with --raw and --camera
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document {
    model: String,
    results: Vec<PictureResult<Told>>,
}

/// The fields of `depth` for one picture or frame.
#[derive(Serialize)]
struct Told {
    /// Width and height of the network's input.
    input: [usize; 2],
    depth: Summary,
    /// Where it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

/// What all pictures of a command have in common.
struct Looker<'m> {
    unit: Unit,
    sessions: Sessions<'m>,
    digest: bool,
}

pub fn run(args: DepthArgs) -> Result<()> {
    let file = ModelFile::open(&args.model)?;
    let model = file.parse()?;
    let Some(unit) = Unit::of(model.config()) else {
        return Err(Error::new(&file.name, format!("no depth head: {}", backend::commands_for(model.config()))));
    };
    let writer = Writer::new(&args.writer, unit)?;
    let compute = Compute::new(&args.compute)?;
    let sessions = Sessions::new(&file, &compute, InputSize::new(&model, args.size.fitting(&file)?));
    let looker = Looker { unit, sessions, digest: args.digest };
    match args.frames.is_some() {
        true => frames::run(&args, &file, looker, writer),
        false => pictures(&args, file.name.clone(), looker, writer),
    }
}

fn pictures(args: &DepthArgs, model: String, mut looker: Looker<'_>, mut writer: Option<Writer>) -> Result<()> {
    let sources = pictures::list(&args.images)?;
    let targets = match &writer {
        Some(writer) => targets::targets(&writer.output, writer.format, &args.images, &sources, &args.model)?,
        None => Vec::new(),
    };
    files::refuse_stdout(args.json, &targets)?;

    let mut out = output::beside(&targets);
    let mut document = Document { model, results: Vec::new() };
    let mut inputs = Inputs::default();
    let bar = match sources.len() {
        ..2 => ProgressBar::hidden(),
        len => output::progress(len as u64, "{bar:40.cyan} {pos}/{len} pictures, {eta} left"),
    };
    for (i, source) in sources.iter().enumerate() {
        match looker.picture(source, writer.is_some()) {
            Ok((map, mut done)) => {
                if let (Some(writer), Some(path), Some(map)) = (&mut writer, targets.get(i), map) {
                    writer.write(&map, &done.rest.depth, path)?;
                    done.rest.output = Some(path.display().to_string());
                }
                inputs.done();
                match args.json {
                    true => document.results.push(PictureResult::Done(done)),
                    false => bar.suspend(|| print(&mut out, &done))?,
                }
            }
            Err(e) => {
                bar.suspend(|| inputs.failed(&e));
                document.results.push(PictureResult::failed(source.to_string(), &e));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if args.json {
        drop(out);
        output::json(&document)?;
    }
    inputs.end()
}

impl Looker<'_> {
    /// The depth of one picture, and of each of its pixels if `each` is true.
    fn picture(&mut self, source: &Source, each: bool) -> Result<(Option<DepthMap>, Done<Told>)> {
        let picture = pictures::load(source)?;
        let (depths, times, told) = self.look(&picture.borrow()).about(source)?;
        let (width, height) = (picture.width, picture.height);
        // The picture's memory is free when that of the map is taken.
        drop(picture);
        let map = if each { Some(depths.map().about(source)?) } else { None };
        Ok((map, Done { image: source.to_string(), width, height, times, rest: told }))
    }

    /// The depth of pixels. Errors say why only.
    fn look(&mut self, picture: &Picture<'_>) -> Result<(Depths, Times, Told), String> {
        let (width, height) = picture.seen();
        let inference = self.sessions.of_picture(width, height)?;
        let Answer { values, times } = inference.frame(picture)?;
        let c = inference.plan().config();
        let (input, size) = ((c.image_height, c.image_width), (width as usize, height as usize));
        let told = Told {
            input: [c.image_width, c.image_height],
            depth: Summary::new(self.unit, &values, input, size),
            output: None,
            digest: self.digest.then(|| format!("{:016x}", vitlet::digest(&values))),
        };
        Ok((Depths { output: values, input, size }, times, told))
    }
}

fn print(out: &mut Out, done: &Done<Told>) -> Result<()> {
    let (image, ms, text) = (&done.image, done.times.ms, done.rest.text());
    Ok(writeln!(out, "{NAME}{image}{NAME:#}  {QUIET}{ms:.2} ms{QUIET:#}  {text}")?)
}

impl Told {
    /// The end of a line for people.
    fn text(&self) -> String {
        let output = self.output.as_ref().map_or(String::new(), |path| format!("  {QUIET}->{QUIET:#} {path}"));
        let digest = self.digest.as_ref().map_or(String::new(), |digest| format!("  digest {digest}"));
        format!("{}{digest}{output}", words(&self.depth))
    }
}

/// What a line says of a map.
fn words(depth: &Summary) -> String {
    let Summary { min, max, median, nearest: [x, y], .. } = *depth;
    match depth.unit {
        Unit::Metres => {
            format!("{STRONG}nearest {min:.2} m{STRONG:#} at {x},{y}, median {median:.2} m, farthest {max:.2} m")
        }
        Unit::Inverse => format!(
            "{STRONG}nearest at {x},{y}{STRONG:#}, relative inverse depth {} to {}, median {}",
            four_digits(min),
            four_digits(max),
            four_digits(median)
        ),
    }
}

/// A number with four digits that say something: its unit is unknown, and so is its order of magnitude.
fn four_digits(x: f32) -> String {
    match x.abs() {
        0.0 => "0".to_string(),
        size if (1e-3..1e5).contains(&size) => {
            let decimals = (3.0 - size.log10().floor()).max(0.0) as usize;
            format!("{x:.decimals$}")
        }
        _ => format!("{x:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        let shown = [0.0, 1.0, -0.012345, 98.764, 12345.6, 1e-7, 2.5e9].map(four_digits);
        assert_eq!(shown, ["0", "1.000", "-0.01235", "98.76", "12346", "1.000e-7", "2.500e9"]);
    }
}
