//! Commands that find something for every pixel: pictures or frames, a line each, and with `-o` a file each. A command
//! says what it sees in one picture ([`Looker`]) and how that is written ([`Writer`]).

pub mod png;
pub mod targets;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use vitlet::Picture;

use crate::error::{Context, Error, Inputs, Result, why};
use crate::files;
use crate::frames::{Found, FrameArgs, Tell};
use crate::inference::{ComputeArgs, SizeArgs, Times};
use crate::model::ModelFile;
use crate::output::{self, NAME, Out, QUIET};
use crate::pictures::{self, Source};
use crate::results::{Done, PictureResult};
use targets::Output;

/// Looks at pictures.
pub trait Looker {
    /// What there is in a picture.
    type Seen;
    /// The fields of a picture's result.
    type Told: Told;

    /// Looks at a picture. Errors say why only.
    fn look(&mut self, picture: &Picture<'_>) -> Result<(Self::Seen, Times, Self::Told), String>;
}

/// What is told of a picture.
pub trait Told: Serialize {
    /// The end of a line for people.
    fn text(&self) -> String;

    /// It was written to `path`.
    fn set_output(&mut self, path: &Path);
}

/// Writes what a [`Looker`] sees.
pub trait Writer<L: Looker> {
    /// What is written of a picture.
    type Map;

    /// Where to.
    fn output(&self) -> &Output;

    /// Of the files' names.
    fn ending(&self) -> &'static str;

    /// What is to be written. Errors say why only.
    fn map(&self, seen: L::Seen) -> Result<Self::Map, String>;

    /// Writes one picture's to `path`, whose folder is there.
    ///
    /// # Errors
    /// The system's, in one line that names the path.
    fn write(&mut self, map: &Self::Map, told: &L::Told, path: &Path) -> Result<()>;
}

/// The arguments that these commands share.
#[derive(Args)]
pub struct MapArgs {
    /// Model file, or hf:OWNER/NAME
    #[arg(short, long, value_name = "FILE")]
    pub model: PathBuf,

    /// JPEG, PNG, WebP or BMP files, directories, or - for standard input
    #[arg(required_unless_present = "camera", value_name = "IMAGE")]
    pub images: Vec<PathBuf>,

    #[command(flatten)]
    pub frames: FrameArgs,

    #[command(flatten)]
    pub size: SizeArgs,

    #[command(flatten)]
    pub compute: ComputeArgs,

    /// Show a hash of the bits of the network's output: equal on every machine for int8 models
    #[arg(long)]
    pub digest: bool,

    /// Print one JSON document, or one per line and frame with --raw and --camera
    #[arg(long)]
    pub json: bool,
}

/// What is done with them.
pub struct Job<'j> {
    pub args: &'j MapArgs,
    pub file: &'j ModelFile,
}

#[derive(Serialize)]
struct Document<'d, T> {
    model: &'d str,
    results: Vec<PictureResult<T>>,
}

impl Job<'_> {
    /// Looks at all pictures, or at frames.
    ///
    /// # Errors
    /// Outputs that would be inputs or each other, and pictures that were left out.
    pub fn run<L: Looker, W: Writer<L>>(&self, looker: L, writer: Option<W>) -> Result<()> {
        if self.args.frames.is_some() { self.frames(looker, writer) } else { self.pictures(looker, writer) }
    }

    fn pictures<L: Looker, W: Writer<L>>(&self, mut looker: L, mut writer: Option<W>) -> Result<()> {
        let sources = pictures::list(&self.args.images)?;
        let targets = match &writer {
            Some(writer) => {
                targets::targets(writer.output(), writer.ending(), &self.args.images, &sources, &self.args.model)?
            }
            None => Vec::new(),
        };
        files::refuse_stdout(self.args.json, &targets)?;

        let mut out = output::beside(&targets);
        let mut document = Document { model: &self.file.name, results: Vec::new() };
        let mut inputs = Inputs::default();
        let bar = match sources.len() {
            ..2 => ProgressBar::hidden(),
            len => output::progress(len as u64, "{bar:40.cyan} {pos}/{len} pictures, {eta} left"),
        };
        for (i, source) in sources.iter().enumerate() {
            let target = writer.as_mut().zip(targets.get(i));
            match seen(&mut looker, source, target) {
                Ok(Ok(done)) => {
                    inputs.done();
                    match self.args.json {
                        true => document.results.push(PictureResult::Done(done)),
                        false => bar.suspend(|| print(&mut out, &done))?,
                    }
                }
                Ok(Err(e)) => {
                    bar.suspend(|| inputs.failed(&e));
                    document.results.push(PictureResult::failed(source.to_string(), &e));
                }
                Err(e) => return Err(e),
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        if self.args.json {
            drop(out);
            output::json(&document)?;
        }
        inputs.end()
    }

    /// Writes what is in each frame to DIR/000012.png, or again and again to a device or a pipe. A file that cannot be
    /// written ends everything.
    fn frames<L: Looker, W: Writer<L>>(&self, mut looker: L, mut writer: Option<W>) -> Result<()> {
        let outputs: Vec<_> = writer.iter().map(|writer| writer.output().path().to_path_buf()).collect();
        for output in &outputs {
            files::refuse_inputs(
                output,
                self.args.images.iter().map(PathBuf::as_path).chain([self.args.model.as_path()]),
            )?;
        }
        files::refuse_stdout(self.args.json, &outputs)?;
        let broken = RefCell::new(None);
        let unchanged = || match &*broken.borrow() {
            Some(line) => Err(Error::Failed(String::clone(line))),
            None => self.file.unchanged(),
        };
        let mut count = 0_u64;
        self.args.frames.each(&self.args.images, Tell::new(self.args.json, &outputs), &unchanged, &mut |frame| {
            let (seen, times, mut told) = looker.look(&frame.picture)?;
            if let Some(writer) = &mut writer {
                let path = match writer.output() {
                    Output::File(path) => path.clone(),
                    // Several streams count from 0 each.
                    Output::Folder(folder) => folder.join(format!("{count:06}.{}", writer.ending())),
                };
                if let Err(e) = write(writer, &writer.map(seen)?, &mut told, &path) {
                    let line = e.why("");
                    *broken.borrow_mut() = Some(line.clone());
                    return Err(line);
                }
            }
            count += 1;
            Ok(Found { times, text: told.text(), fields: told })
        })
    }
}

/// What is in one picture, written to its target; within, the error of a picture that is left out.
#[allow(clippy::type_complexity)]
fn seen<L: Looker, W: Writer<L>>(
    looker: &mut L,
    source: &Source,
    target: Option<(&mut W, &PathBuf)>,
) -> Result<Result<Done<L::Told>>> {
    let picture = match pictures::load(source) {
        Ok(picture) => picture,
        Err(e) => return Ok(Err(e)),
    };
    let (seen, times, told) = match looker.look(&picture.borrow()).about(source) {
        Ok(seen) => seen,
        Err(e) => return Ok(Err(e)),
    };
    let mut done = Done::new(source.to_string(), &picture, times, told);
    // The picture's memory is free when that of the map is taken.
    drop(picture);
    if let Some((writer, path)) = target {
        match writer.map(seen).about(source) {
            Ok(map) => write(writer, &map, &mut done.rest, path)?,
            Err(e) => return Ok(Err(e)),
        }
    }
    Ok(Ok(done))
}

fn write<L: Looker, W: Writer<L>>(writer: &mut W, map: &W::Map, told: &mut L::Told, path: &Path) -> Result<()> {
    if let (Output::Folder(_), Some(folder)) = (writer.output(), path.parent()) {
        fs::create_dir_all(folder).map_err(|e| Error::new(folder.display(), why(&e)))?;
    }
    writer.write(map, told, path)?;
    told.set_output(path);
    Ok(())
}

fn print<T: Told>(out: &mut Out, done: &Done<T>) -> Result<()> {
    let (image, ms, text) = (&done.image, done.times.ms, done.rest.text());
    Ok(writeln!(out, "{NAME}{image}{NAME:#}  {QUIET}{ms:.2} ms{QUIET:#}  {text}")?)
}

/// The end of a line that says where something was written.
pub fn written(output: Option<&String>) -> String {
    output.map_or(String::new(), |path| format!("  {QUIET}->{QUIET:#} {path}"))
}
