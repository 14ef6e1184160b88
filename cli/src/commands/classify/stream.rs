//! Raw frames, one after the other without headers, as `rpicam-vid --codec yuv420 -o -` and `ffmpeg -f rawvideo -`
//! write them: each is classified when it is whole, and told on one line at once.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;
use std::time::Instant;

use serde::Serialize;
use vitlet::{Format, Named, Picture, Plane};

use super::{ClassifyArgs, Guess, digest, guesses};
use crate::backend::{Facts, Network};
use crate::error::{Error, Inputs, Result, why};
use crate::inference::{Answer, Inference, Times};
use crate::output::{self, QUIET, STRONG};

/// Longer edges are a slip of the keyboard.
const LONGEST_EDGE: u32 = 16_384;
/// Bytes of the longest row: four for each pixel, and as many again as padding.
const LONGEST_ROW: usize = 8 * LONGEST_EDGE as usize;

/// Frames per second are counted over so many frames.
const FPS_FRAMES: usize = 30;

/// ffmpeg's and rpicam-apps' names for formats, and the engine's.
const ALIASES: [(&str, &str); 4] = [("rgb24", "rgb"), ("bgr24", "bgr"), ("yuv420p", "i420"), ("yuv420", "i420")];

/// Bytes to which cameras and video hardware pad rows, the likeliest first.
const ALIGNMENTS: [usize; 6] = [64, 32, 128, 256, 16, 512];

/// What the frames of a stream are: `FORMAT:WIDTHxHEIGHT[:STRIDE]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frames {
    format: Format,
    width: u32,
    height: u32,
    /// Bytes from the start of one row of the first plane to the next; without it, rows follow one another. Rows of
    /// nv12's second plane are as far apart, those of i420's second and third half as far.
    stride: Option<usize>,
    bytes: usize,
}

impl FromStr for Frames {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (format, size) = text.split_once(':').ok_or("FORMAT:WIDTHxHEIGHT, such as i420:640x480")?;
        let (size, stride) = size.split_once(':').map_or((size, None), |(size, stride)| (size, Some(stride)));
        let own_name = ALIASES.iter().find(|(alias, _)| *alias == format).map_or(format, |&(_, name)| name);
        let format = Format::from_name(own_name).ok_or_else(|| {
            let known: Vec<_> = Format::NAMES.iter().map(|&(_, name)| name).collect();
            format!("formats are {}", known.join(", "))
        })?;
        let edge = |text: &str| text.parse().ok().filter(|edge| (1..=LONGEST_EDGE).contains(edge));
        let size = size.split_once('x').and_then(|(width, height)| edge(width).zip(edge(height)));
        let (width, height) = size.ok_or(format!("a size is WIDTHxHEIGHT, each 1 to {LONGEST_EDGE}"))?;
        let tight = Self { format, width, height, stride: None, bytes: 0 };
        let row = tight.planes()[0].0;
        let stride = match stride.map(str::parse) {
            None => None,
            Some(Ok(stride))
                if (row..=LONGEST_ROW).contains(&stride) && !(format == Format::I420 && stride % 2 == 1) =>
            {
                Some(stride)
            }
            Some(_) => {
                let even = if format == Format::I420 { ", even since chroma rows have half of it" } else { "" };
                return Err(format!("a stride is the bytes of a row of the first plane, {row} to {LONGEST_ROW}{even}"));
            }
        };
        Ok(tight.with_stride(stride))
    }
}

impl Frames {
    /// The same pictures with rows that lie this far apart.
    fn with_stride(self, stride: Option<usize>) -> Self {
        let frames = Self { stride, ..self };
        Self { bytes: frames.planes().iter().map(|(stride, rows)| stride * rows).sum(), ..frames }
    }

    /// Stride and rows of each plane.
    fn planes(&self) -> [(usize, usize); 3] {
        // The edges' limit leaves room in every number.
        let mut planes = self.format.plane_sizes(self.width, self.height).unwrap_or_default();
        if let Some(stride) = self.stride {
            let strides = if self.format == Format::I420 { [stride, stride / 2, stride / 2] } else { [stride; 3] };
            planes
                .iter_mut()
                .zip(strides)
                .filter(|(plane, _)| plane.1 > 0)
                .for_each(|(plane, stride)| plane.0 = stride);
        }
        planes
    }

    /// The picture that the bytes of a frame are.
    fn picture<'b>(&self, bytes: &'b [u8]) -> Picture<'b> {
        let mut rest = bytes;
        let planes = self.planes().map(|(stride, rows)| {
            let (data, after) = rest.split_at(stride * rows);
            rest = after;
            Plane { data, stride }
        });
        Picture { planes, ..Picture::frame(self.format, &[], self.width, self.height) }
    }

    /// As `--raw` takes it.
    fn argument(&self) -> String {
        let name = Format::NAMES.iter().find(|(format, _)| *format == self.format).map_or("", |(_, name)| name);
        let stride = self.stride.map_or(String::new(), |stride| format!(":{stride}"));
        format!("{name}:{}x{}{stride}", self.width, self.height)
    }

    /// The same frames with rows padded as a camera may have padded them, the likeliest first.
    fn padded(&self) -> impl Iterator<Item = Self> {
        let row = self.planes()[0].0;
        let strides = ALIGNMENTS.map(|alignment| row.next_multiple_of(alignment));
        strides.into_iter().filter(move |stride| *stride > row).map(|stride| self.with_stride(Some(stride)))
    }

    /// A doubt about rows whose width cameras pad, before the first frame.
    fn doubt(&self) -> Option<String> {
        let camera = matches!(self.format, Format::I420 | Format::Nv12);
        let padded =
            self.padded().next().filter(|_| camera && self.stride.is_none() && !self.width.is_multiple_of(64))?;
        Some(format!(
            "cameras pad rows of {} pixels: if frames are skewed or the answers wrong, try --raw {}, or a width that is a multiple of 64",
            self.width,
            padded.argument()
        ))
    }

    /// Which stride makes whole frames of all `bytes` of a stream.
    fn fit(&self, bytes: u64) -> Option<String> {
        let whole = |frames: &Self| bytes.is_multiple_of(frames.bytes as u64);
        let fits = self.padded().find(whole).filter(|_| self.stride.is_none())?;
        Some(format!("with padded rows, --raw {}, it is {} whole frames", fits.argument(), bytes / fits.bytes as u64))
    }
}

/// What is known of one frame.
#[derive(Serialize)]
struct Frame {
    /// Counted from 0.
    frame: u64,
    /// From the whole frame on.
    #[serde(flatten)]
    times: Times,
    /// Of the last frames, waiting for the camera included; null for the first.
    fps: Option<f64>,
    top: Vec<Guess>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

/// A frame without logits.
#[derive(Serialize)]
struct FailedFrame {
    frame: u64,
    error: String,
}

/// Classifies every frame of every stream that the arguments name.
pub fn run(
    args: &ClassifyArgs,
    frames: Frames,
    model: &Network,
    facts: &Facts,
    inference: &mut Inference,
) -> Result<()> {
    let (mut streams, mut seen) = (Inputs::default(), Inputs::default());
    frames.doubt().iter().for_each(|doubt| output::warn(doubt));
    for path in &args.images {
        match classify(path, args, frames, (model, facts), inference, &mut seen) {
            // Every other stream would fail as well.
            Err(e @ (Error::BrokenPipe | Error::Stdout(_))) => return Err(e),
            Err(e) if model.unchanged().is_err() => return Err(e),
            Err(e) => streams.failed(&e),
            Ok(()) => streams.done(),
        }
    }
    result(&streams, &seen)
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

/// Classifies the frames of one stream; errors are the stream's, those of frames are counted.
fn classify(
    path: &Path,
    args: &ClassifyArgs,
    frames: Frames,
    (model, facts): (&Network, &Facts),
    inference: &mut Inference,
    inputs: &mut Inputs,
) -> Result<()> {
    let (name, mut stream) = open(path)?;
    let mut bytes = vec![0; frames.bytes];
    let mut ends = VecDeque::with_capacity(FPS_FRAMES + 1);
    for frame in 0.. {
        let len = fill(&mut stream, &mut bytes).map_err(|e| Error::new(&name, why(&e)))?;
        if len < bytes.len() {
            return end(&name, frames, frame, len);
        }
        let answer = inference.frame(&frames.picture(&bytes));
        model.unchanged()?;
        ends.push_back(Instant::now());
        let fps = per_second(&mut ends);
        match answer {
            Ok(answer) => {
                let told = tell(frame, &answer, fps, facts, args);
                if args.json {
                    output::json_line(&told)?
                } else {
                    print(&told)?
                }
                inputs.done();
            }
            Err(error) => {
                inputs.failed(&Error::new(format!("{name}, frame {frame}"), &error));
                if args.json {
                    output::json_line(&FailedFrame { frame, error })?;
                }
            }
        }
    }
    Ok(())
}

fn tell(frame: u64, answer: &Answer, fps: Option<f64>, facts: &Facts, args: &ClassifyArgs) -> Frame {
    let Answer { values, times } = answer;
    Frame {
        frame,
        times: *times,
        fps,
        top: guesses(values, facts, args.top_k()),
        digest: args.digest.then(|| digest(values)),
    }
}

fn open(path: &Path) -> Result<(String, Box<dyn Read>)> {
    if path.as_os_str() == "-" {
        return Ok(("standard input".to_string(), Box::new(io::stdin().lock())));
    }
    let name = path.display().to_string();
    let file = File::open(path).map_err(|e| Error::new(&name, why(&e)))?;
    Ok((name, Box::new(file)))
}

/// Reads until `bytes` is full or the stream ends; says how many bytes came.
fn fill(stream: &mut dyn Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        match stream.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}

/// A stream that ends with `len` bytes after `whole` frames: as it should, as a camera that was stopped, or wrong.
fn end(name: &str, frames: Frames, whole: u64, len: usize) -> Result<()> {
    let frame_bytes = frames.bytes;
    match (whole, len) {
        (0, 0) => Err(Error::new(name, "no frames")),
        (0, _) => Err(Error::new(name, format!("{len} bytes, less than one frame of {frame_bytes}"))),
        (_, 0) => Ok(()),
        _ => {
            let fit =
                frames.fit(whole * frame_bytes as u64 + len as u64).map_or(String::new(), |fit| format!("; {fit}"));
            output::warn(&format!("{name}: ends within frame {whole}, {len} of {frame_bytes} bytes{fit}"));
            Ok(())
        }
    }
}

/// The rate at which frames have ended, of which the last is at the back; forgets those that are no longer needed.
fn per_second(ends: &mut VecDeque<Instant>) -> Option<f64> {
    if ends.len() > FPS_FRAMES + 1 {
        ends.pop_front();
    }
    let seconds = (*ends.back()? - *ends.front()?).as_secs_f64();
    (seconds > 0.0).then(|| (ends.len() - 1) as f64 / seconds)
}

fn print(frame: &Frame) -> Result<()> {
    let fps = frame.fps.map_or("  -  ".to_string(), |fps| format!("{fps:5.1}"));
    let guess = |guess: &Guess| {
        let label = guess.label.clone().unwrap_or_else(|| guess.index.to_string());
        format!("{:6.2} %  {STRONG}{label}{STRONG:#}", guess.probability * 100.0)
    };
    let guesses: Vec<String> = frame.top.iter().map(guess).collect();
    let digest = frame.digest.as_ref().map_or(String::new(), |digest| format!("  digest {digest}"));
    let (n, ms) = (frame.frame, frame.times.ms);
    Ok(writeln!(output::stdout(), "{n:6}  {fps} fps  {QUIET}{ms:8.2} ms{QUIET:#}  {}{digest}", guesses.join("  "))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn frames_are_described_by_format_and_size() {
        let frames: Frames = "i420:640x480".parse().unwrap();
        assert_eq!((frames.width, frames.height, frames.bytes), (640, 480, 460_800));
        assert_eq!("rgb24:4x4".parse::<Frames>(), "rgb:4x4".parse());
        assert_eq!("gray:3x2".parse::<Frames>().unwrap().bytes, 6);
        for (padded, bytes) in [
            ("i420:100x64:128", 128 * 64 + 2 * 64 * 32),
            ("i420:99x63:128", 128 * 63 + 2 * 64 * 32),
            ("nv12:100x64:128", 128 * 64 + 128 * 32),
            ("rgb:100x64:320", 320 * 64),
            ("yuyv:3x2:8", 16),
        ] {
            let frames: Frames = padded.parse().unwrap();
            assert_eq!((frames.bytes, frames.argument()), (bytes, padded.to_string()));
        }
        for wrong in ["i420:100x64:99", "i420:100x64:101", "rgb:100x64:299", "gray:4x4:x", "gray:4x4:", "gray:4x4:9:9"]
        {
            assert!(wrong.parse::<Frames>().unwrap_err().starts_with("a stride is"), "{wrong}");
        }
        for wrong in ["i420", "i420:640", "h264:640x480", "i420:0x480", "i420:640x99999", "i420:-1x2", ""] {
            assert!(wrong.parse::<Frames>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn padded_rows_are_suspected() {
        let frames = |text: &str| text.parse::<Frames>().unwrap();
        assert!(frames("i420:100x64").doubt().unwrap().contains("--raw i420:100x64:128"));
        for sure in ["i420:640x480", "i420:100x64:128", "rgb:100x64"] {
            assert_eq!(frames(sure).doubt(), None, "{sure}");
        }
        let fit = frames("i420:100x64").fit(5 * frames("i420:100x64:128").bytes as u64).unwrap();
        assert_eq!(fit, "with padded rows, --raw i420:100x64:128, it is 5 whole frames");
        let fit = frames("rgb:90x64").fit(3 * frames("rgb:90x64:288").bytes as u64).unwrap();
        assert!(fit.contains("--raw rgb:90x64:288, it is 3"), "{fit}");
        assert_eq!(frames("i420:100x64").fit(12_345), None);
    }

    #[test]
    fn the_rate_is_of_the_last_frames() {
        let start = Instant::now();
        let mut ends = VecDeque::from([start]);
        assert_eq!(per_second(&mut ends), None);
        for i in 1..100 {
            ends.push_back(start + Duration::from_millis(if i < 50 { i } else { 50 + (i - 50) * 100 }));
            per_second(&mut ends);
        }
        assert_eq!(ends.len(), FPS_FRAMES + 1);
        assert!((per_second(&mut ends).unwrap() - 10.0).abs() < 0.01);
    }
}
