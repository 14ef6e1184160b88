//! Frames, for every command that takes pictures: of a camera (`--camera`), or raw ones of a file or a pipe (`--raw`),
//! as `rpicam-vid --codec yuv420 -o -` and `ffmpeg -f rawvideo -` write them. Each is looked at when it is whole, and
//! told at once: a line, or with `--json` a document on its own line.
//!
//! A command flattens [`FrameArgs`] into its arguments, with `required_unless_present = "camera"` at its list of
//! pictures. It hands over what it does with one frame:
//!
//!     if args.frames.is_some() {
//!         return args.frames.each(&args.images, Tell::new(args.json, []), &|| file.unchanged(), &mut |frame| {
//!             let Answer { values, times } = inference.frame(&frame.picture)?;
//!             let fields = Fields { mean: mean(&values) };
//!             Ok(Found { times, text: format!("mean {:.3}", fields.mean), fields })
//!         });
//!     }
//!
//! `frame.picture` is already cut and turned as the arguments say. An error of the function is an error of this frame:
//! it is told, and the next frame follows. The command has its exit status from [`FrameArgs::each`].

mod tell;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::{ArgGroup, Args};
use serde::Serialize;
use vitlet::{Named, Picture, Region, Rotation, Yuv};

use crate::camera::{self, Camera, Keep, RawFormat};
use crate::error::{Error, Inputs, Result, why};
use crate::inference::Times;
use crate::{output, pictures};
pub use tell::Tell;
use tell::{Teller, Which};

/// The group of options of which one makes frames.
pub const STREAM: &str = "stream";
const HEADING: &str = "Frames of a camera or a stream";

/// Frames of a camera or of a stream, and what of them is looked at.
#[derive(Args)]
#[command(group = ArgGroup::new(STREAM).multiple(true))]
pub struct FrameArgs {
    /// Read raw frames, one after the other, as cameras give them: i420:640x480, nv12, yuyv, rgb24, bgr24, gray, ...;
    /// one line per frame. STRIDE is the bytes of a row of the first plane where rows are padded
    #[arg(long, value_name = "FORMAT:WxH[:STRIDE]", group = STREAM, help_heading = HEADING)]
    raw: Option<RawFormat>,

    /// Take the newest frame of a camera, again and again: rpicam or rpicam:N (a camera of a Raspberry Pi),
    /// v4l2:/dev/videoN (a webcam), mjpeg:http://HOST/PATH, or exec:COMMAND, which writes JPEGs, or frames of --raw
    #[arg(long, value_name = "SOURCE", group = STREAM, help_heading = HEADING)]
    camera: Option<camera::Source>,

    /// Take at most so many frames in a second
    #[arg(long, value_name = "N", requires = STREAM, help_heading = HEADING, value_parser = rate)]
    fps: Option<f64>,

    /// Stop after so many frames
    #[arg(long, value_name = "N", requires = STREAM, help_heading = HEADING, value_parser = clap::value_parser!(u64).range(1..))]
    frames: Option<u64>,

    /// Take every frame, and let the camera or the pipe wait, instead of the newest; files always give every frame
    #[arg(long, requires = STREAM, help_heading = HEADING)]
    every_frame: bool,

    /// Look at this part of each frame only, in pixels, before it is turned
    #[arg(long, value_name = "X,Y,W,H", requires = STREAM, help_heading = HEADING, value_parser = region)]
    region: Option<Region>,

    /// Turn each frame clockwise
    #[arg(long, value_name = "90|180|270", requires = STREAM, help_heading = HEADING, value_parser = rotation)]
    rotate: Option<Rotation>,

    /// How luma and chroma of raw frames become colours: bt601 (the default), bt601-full, bt709 or bt709-full
    #[arg(long, value_name = "MATRIX", requires = STREAM, help_heading = HEADING, value_parser = yuv)]
    yuv: Option<Yuv>,
}

/// A frame that a command looks at.
pub struct Frame<'f> {
    /// The camera, the file or the pipe, as messages name it.
    pub source: &'f str,
    /// Counted from 0, those that were dropped included.
    pub number: u64,
    /// When it was whole: seconds since 1970, in UTC.
    pub time: f64,
    /// The part that was asked for, turned as was asked for.
    pub picture: Picture<'f>,
}

/// What a command found in a frame.
pub struct Found<T> {
    pub times: Times,
    /// The end of its line for people.
    pub text: String,
    /// The fields of its JSON document.
    pub fields: T,
}

/// What a command does with a frame. Errors say why only.
pub type Look<'l, T> = dyn FnMut(&Frame<'_>) -> Result<Found<T>, String> + 'l;

impl FrameArgs {
    /// Whether frames are taken, and no pictures.
    pub fn is_some(&self) -> bool {
        self.raw.is_some() || self.camera.is_some()
    }

    /// Whether frames go on coming until somebody stops the program.
    pub fn is_endless(&self) -> bool {
        self.frames.is_none() && self.is_live()
    }

    fn is_live(&self) -> bool {
        self.camera.as_ref().is_some_and(camera::Source::is_live)
    }

    /// At most `frames` frames, where the arguments do not say how many.
    pub fn or_frames(self, frames: u64) -> Self {
        Self { frames: self.frames.or(Some(frames)), ..self }
    }

    /// Shows the newest frames of the camera, or the frames of the streams that `paths` name, to `look`, and tells what
    /// it found. `unchanged` is asked after each: an error, such as a model file that was overwritten, ends everything.
    pub fn each<T: Serialize>(
        &self,
        paths: &[PathBuf],
        mut tell: Tell,
        unchanged: &dyn Fn() -> Result<()>,
        look: &mut Look<'_, T>,
    ) -> Result<()> {
        // A conflict that clap knows of would switch off what other options require.
        if self.camera.is_some() && !paths.is_empty() {
            return Err(Error::Usage("--camera cannot be used with pictures or files".to_string()));
        }
        if let Some(raw) = self.raw {
            self.check(raw)?;
            raw.doubt().iter().for_each(|doubt| output::warn(doubt));
        }
        let (mut streams, mut seen) = (Inputs::default(), Inputs::default());
        let origins: Vec<_> = match &self.camera {
            Some(source) => vec![Origin::Camera(source)],
            None => paths.iter().map(|path| Origin::Path(path)).collect(),
        };
        for origin in origins {
            let teller = Teller::new(&mut tell, unchanged, &mut seen);
            match self.open(origin).and_then(|camera| self.watch(camera, teller, look)) {
                // Every other stream would fail as well.
                Err(e @ (Error::BrokenPipe | Error::Stdout(_) | Error::Usage(_))) => return Err(e),
                Err(e) if unchanged().is_err() => return Err(e),
                Err(e) => streams.failed(&e),
                Ok(()) => streams.done(),
            }
            if self.frames == Some(seen.total() as u64) {
                break;
            }
        }
        result(&streams, &seen)
    }

    fn open(&self, origin: Origin<'_>) -> Result<Camera> {
        match (origin, self.raw) {
            (Origin::Camera(source), raw) => {
                let opening = source.opening(raw)?;
                match opening.raw {
                    Some(raw) => self.check(raw)?,
                    None if self.yuv.is_some() => {
                        return Err(Error::Usage(
                            "--yuv is for raw frames; a JPEG says how its colours are meant".to_string(),
                        ));
                    }
                    None => {}
                }
                Camera::open(source, opening, if self.every_frame { Keep::Every } else { Keep::Newest })
            }
            (Origin::Path(path), Some(raw)) => {
                let (stream, is_file) = open(path).map_err(|e| Error::new(name(path), why(&e)))?;
                let keep = if self.every_frame || is_file { Keep::Every } else { Keep::Newest };
                Camera::read(name(path), stream, raw, keep)
            }
            // Without either, frames are not asked for.
            (Origin::Path(path), None) => Err(Error::new(name(path), "--raw says what its frames are")),
        }
    }

    /// Looks at the frames of a camera until there is no other.
    fn watch<T: Serialize>(&self, mut camera: Camera, mut teller: Teller<'_>, look: &mut Look<'_, T>) -> Result<()> {
        let pause = self.fps.map(|fps| Duration::from_secs_f64(1.0 / fps));
        let mut began: Option<Instant> = None;
        while self.frames.is_none_or(|frames| teller.total() < frames) {
            if let (Some(began), Some(pause)) = (began, pause) {
                thread::sleep(pause.saturating_sub(began.elapsed()));
            }
            let Some(frame) = camera.next()? else { return Ok(()) };
            began = Some(Instant::now());
            let which = Which::new(camera.name(), &frame);
            if frame.dropped > 0 && !self.is_live() {
                teller.announce_drops(camera.name());
            }
            let mut seen = |picture: Picture<'_>| {
                let picture = self.view(picture);
                look(&Frame { source: camera.name(), number: frame.number, time: which.time, picture })
            };
            let found = match camera.raw() {
                Some(raw) => seen(raw.picture(&frame.bytes)),
                None => pictures::decode(&camera::complete(&frame.bytes)).and_then(|jpeg| seen(jpeg.borrow())),
            };
            teller.tell(&which, found)?;
        }
        Ok(())
    }

    /// What is looked at of a frame.
    fn view<'p>(&self, picture: Picture<'p>) -> Picture<'p> {
        Picture {
            region: self.region,
            rotation: self.rotate.unwrap_or_default(),
            yuv: self.yuv.unwrap_or_default(),
            ..picture
        }
    }

    /// Where it is known before a frame comes that the region lies outside of it.
    fn check(&self, raw: RawFormat) -> Result<()> {
        let (width, height) = raw.size();
        let fits = |at: u32, len: u32, edge: u32| at.checked_add(len).is_some_and(|end| end <= edge);
        match self.region {
            Some(r) if !fits(r.x, r.width, width) || !fits(r.y, r.height, height) => {
                Err(Error::Usage(format!("--region: frames have {width} x {height} pixels, it is not within them")))
            }
            _ => Ok(()),
        }
    }
}

/// What a stream is read from.
enum Origin<'a> {
    Camera(&'a camera::Source),
    Path(&'a Path),
}

fn rate(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|fps| (0.001..=1000.0).contains(fps)).ok_or("a number of frames, 0.001 to 1000")
}

fn region(text: &str) -> Result<Region, &'static str> {
    let numbers: Vec<u32> = text.split(',').map_while(|number| number.trim().parse().ok()).collect();
    match numbers[..] {
        [x, y, width, height] if width > 0 && height > 0 && text.split(',').count() == 4 => {
            Ok(Region { x, y, width, height })
        }
        _ => Err("X,Y,W,H are four numbers of pixels, as in 0,60,640,360"),
    }
}

fn yuv(name: &str) -> Result<Yuv, &'static str> {
    Yuv::from_name(name).ok_or("bt601, bt601-full, bt709 or bt709-full")
}

fn rotation(text: &str) -> Result<Rotation, &'static str> {
    match text {
        "90" => Ok(Rotation::Quarter),
        "180" => Ok(Rotation::Half),
        "270" => Ok(Rotation::ThreeQuarters),
        _ => Err("90, 180 or 270 degrees"),
    }
}

/// The command's result: streams and frames are counted apart.
fn result(streams: &Inputs, frames: &Inputs) -> Result<()> {
    let failures = [frames.failures("frames left out"), streams.failures("streams failed")];
    let failures: Vec<String> = failures.into_iter().flatten().collect();
    match failures.is_empty() {
        true => Ok(()),
        false if frames.count() == 0 => Err(Error::AllFailed),
        false => Err(Error::Partial(failures.join(", "))),
    }
}

/// What messages call a stream.
fn name(path: &Path) -> String {
    if path.as_os_str() == "-" { "standard input".to_string() } else { path.display().to_string() }
}

/// Opens a stream, and says whether it is a regular file, whose frames can wait for ever.
fn open(path: &Path) -> io::Result<(Box<dyn Read + Send>, bool)> {
    if path.as_os_str() == "-" {
        let is_file = fs::metadata("/dev/stdin").is_ok_and(|input| input.is_file());
        return Ok((Box::new(io::stdin()), is_file));
    }
    let file = File::open(path)?;
    let is_file = file.metadata()?.is_file();
    Ok((Box::new(file), is_file))
}
