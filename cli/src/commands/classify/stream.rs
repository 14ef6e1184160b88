//! Raw frames, one after the other without headers, as `rpicam-vid --codec yuv420 -o -` and `ffmpeg -f rawvideo -` write them: each is classified
//! when it is whole, and told on one line at once.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;
use std::time::Instant;

use serde::Serialize;
use vitlet::{Format, Named, Picture};

use super::{ClassifyArgs, Guess, digest, guesses};
use crate::backend::Facts;
use crate::error::{Error, Inputs, Result, why};
use crate::inference::{Answer, Inference, Times};
use crate::output::{self, QUIET, STRONG};

/// Longer edges are a slip of the keyboard.
const LONGEST_EDGE: u32 = 16_384;

/// Frames per second are counted over so many frames.
const FPS_FRAMES: usize = 30;

/// ffmpeg's and rpicam-apps' names for formats, and the engine's.
const ALIASES: [(&str, &str); 4] = [("rgb24", "rgb"), ("bgr24", "bgr"), ("yuv420p", "i420"), ("yuv420", "i420")];

/// What the frames of a stream are: `FORMAT:WIDTHxHEIGHT`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frames {
    format: Format,
    width: u32,
    height: u32,
    bytes: usize,
}

impl FromStr for Frames {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (format, size) = text.split_once(':').ok_or("FORMAT:WIDTHxHEIGHT, such as i420:640x480")?;
        let own_name = ALIASES.iter().find(|(alias, _)| *alias == format).map_or(format, |&(_, name)| name);
        let format = Format::from_name(own_name).ok_or_else(|| {
            let known: Vec<_> = Format::NAMES.iter().map(|&(_, name)| name).collect();
            format!("formats are {}", known.join(", "))
        })?;
        let edge = |text: &str| text.parse().ok().filter(|edge| (1..=LONGEST_EDGE).contains(edge));
        let size = size.split_once('x').and_then(|(width, height)| edge(width).zip(edge(height)));
        let (width, height) = size.ok_or(format!("a size is WIDTHxHEIGHT, each 1 to {LONGEST_EDGE}"))?;
        let bytes = format.frame_bytes(width, height).ok_or("this format has no frames of this size")?;
        Ok(Self { format, width, height, bytes })
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
struct LeftOut {
    frame: u64,
    error: String,
}

/// Classifies every frame of every stream that the arguments name.
pub fn run(args: &ClassifyArgs, frames: Frames, facts: &Facts, inference: &mut Inference) -> Result<()> {
    let mut inputs = Inputs::default();
    for path in &args.images {
        match classify(path, args, frames, facts, inference, &mut inputs) {
            Err(Error::BrokenPipe) => return Err(Error::BrokenPipe),
            Err(e) => inputs.failed(&e),
            Ok(()) => {}
        }
    }
    inputs.end()
}

/// Classifies the frames of one stream; errors are the stream's, those of frames are counted.
fn classify(
    path: &Path,
    args: &ClassifyArgs,
    frames: Frames,
    facts: &Facts,
    inference: &mut Inference,
    inputs: &mut Inputs,
) -> Result<()> {
    let (name, mut stream) = open(path)?;
    let mut bytes = vec![0; frames.bytes];
    let mut ends = VecDeque::with_capacity(FPS_FRAMES + 1);
    for frame in 0.. {
        let len = fill(&mut stream, &mut bytes).map_err(|e| Error::new(&name, why(&e)))?;
        if len < bytes.len() {
            return end(&name, frame, len, bytes.len());
        }
        let picture = Picture::frame(frames.format, &bytes, frames.width, frames.height);
        let answer = inference.frame(&picture);
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
                    output::json_line(&LeftOut { frame, error })?;
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

/// A stream that ends with `len` bytes after `frames` whole frames: as it should, as a camera that was stopped, or wrong.
fn end(name: &str, frames: u64, len: usize, frame_bytes: usize) -> Result<()> {
    match (frames, len) {
        (0, 0) => Err(Error::new(name, "no frames")),
        (0, _) => Err(Error::new(name, format!("{len} bytes, less than one frame of {frame_bytes}"))),
        (_, 0) => Ok(()),
        _ => {
            output::warn(&format!("{name}: ends within frame {frames}, {len} of {frame_bytes} bytes"));
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
        for wrong in ["i420", "i420:640", "h264:640x480", "i420:0x480", "i420:640x99999", "i420:-1x2", ""] {
            assert!(wrong.parse::<Frames>().is_err(), "{wrong}");
        }
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
