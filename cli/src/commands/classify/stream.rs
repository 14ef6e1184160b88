//! Raw frames, one after the other without headers, as `rpicam-vid --codec yuv420 -o -` and `ffmpeg -f rawvideo -`
//! write them: each is classified when it is whole, and told on one line at once. And frames of a camera, of which the
//! newest is classified.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;
use vitlet::{Named, Picture, Region, Rotation, Yuv};

use super::frames::Frames;
use super::{ClassifyArgs, Guess, digest, guesses};
use crate::backend::{Facts, Network};
use crate::camera::{self, Camera, Framing};
use crate::error::{Error, Inputs, Result, why};
use crate::inference::{Answer, Inference, Times};
use crate::output::{self, QUIET, STRONG};
use crate::pictures;

/// Frames per second are counted over so many frames.
const FPS_FRAMES: usize = 30;

/// Frames of a camera or of a stream, and what of them is looked at.
#[derive(Args)]
pub struct StreamArgs {
    /// Read raw frames, one after the other, as cameras give them: i420:640x480, nv12, yuyv, rgb24, bgr24, gray, ...;
    /// one line per frame. STRIDE is the bytes of a row of the first plane where rows are padded
    #[arg(long, value_name = "FORMAT:WxH[:STRIDE]", group = STREAM)]
    pub raw: Option<Frames>,

    /// Classify the newest frame of a camera, again and again: rpicam or rpicam:N (a camera of a Raspberry Pi),
    /// mjpeg:http://HOST/PATH, or exec:COMMAND, which writes JPEGs, or frames of --raw
    #[arg(long, value_name = "SOURCE", group = STREAM)]
    pub camera: Option<camera::Source>,

    /// Classify at most so many frames of the camera in a second
    #[arg(long, value_name = "N", requires = "camera", value_parser = rate)]
    fps: Option<f64>,

    /// Look at this part of each frame only, in pixels, before it is turned
    #[arg(long, value_name = "X,Y,W,H", requires = STREAM, value_parser = region)]
    region: Option<Region>,

    /// Turn each frame clockwise
    #[arg(long, value_name = "90|180|270", requires = STREAM, value_parser = rotation)]
    rotate: Option<Rotation>,

    /// How luma and chroma of raw frames become colours: bt601, bt601-full, bt709, bt709-full
    #[arg(long, value_name = "MATRIX", requires = "raw", default_value = "bt601", hide_default_value = true,
          value_parser = |name: &str| Yuv::from_name(name).ok_or("bt601, bt601-full, bt709 or bt709-full"))]
    yuv: Yuv,
}

/// The group of options of which one makes a stream.
pub const STREAM: &str = "stream";

impl StreamArgs {
    /// Whether frames are classified, and no pictures.
    pub fn is_some(&self) -> bool {
        self.raw.is_some() || self.camera.is_some()
    }

    /// What is looked at of a frame.
    fn view<'p>(&self, picture: Picture<'p>) -> Picture<'p> {
        Picture { region: self.region, rotation: self.rotate.unwrap_or_default(), yuv: self.yuv, ..picture }
    }

    /// Where it is known before a frame comes that the region lies outside of it.
    fn check(&self, frames: Frames) -> Result<()> {
        let (width, height) = frames.size();
        let fits = |at: u32, len: u32, edge: u32| at.checked_add(len).is_some_and(|end| end <= edge);
        match self.region {
            Some(r) if !fits(r.x, r.width, width) || !fits(r.y, r.height, height) => {
                Err(Error::Usage(format!("--region: frames have {width} x {height} pixels, it is not within them")))
            }
            _ => Ok(()),
        }
    }
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

fn rotation(text: &str) -> Result<Rotation, &'static str> {
    match text {
        "90" => Ok(Rotation::Quarter),
        "180" => Ok(Rotation::Half),
        "270" => Ok(Rotation::ThreeQuarters),
        _ => Err("90, 180 or 270 degrees"),
    }
}

/// Which frame.
#[derive(Clone, Copy, Serialize)]
struct Which {
    /// Counted from 0, those that were dropped included.
    frame: u64,
    /// Frames of a camera that came and went since the last line.
    dropped: u64,
    /// When the frame was whole: seconds since 1970, in UTC.
    time: f64,
}

impl Which {
    fn new(frame: u64, dropped: u64, time: SystemTime) -> Self {
        let time = time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Self { frame, dropped, time }
    }
}

/// What is known of one frame.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    which: Which,
    /// From the whole frame on; a JPEG's decoding does not count.
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
    #[serde(flatten)]
    which: Which,
    error: String,
}

/// Tells what became of the frames of one stream, and counts them.
struct Teller<'a> {
    name: String,
    args: &'a ClassifyArgs,
    model: &'a Network,
    facts: &'a Facts<'a>,
    ends: VecDeque<Instant>,
    inputs: &'a mut Inputs,
}

impl Teller<'_> {
    fn tell(&mut self, which: Which, answer: Result<Answer, String>) -> Result<()> {
        self.model.unchanged()?;
        self.ends.push_back(Instant::now());
        let fps = per_second(&mut self.ends);
        match answer {
            Ok(Answer { values, times }) => {
                let top = guesses(&values, self.facts, self.args.top_k());
                let told = Told { which, times, fps, top, digest: self.args.digest.then(|| digest(&values)) };
                if self.args.json {
                    output::json_line(&told)?
                } else {
                    print(&told)?
                }
                self.inputs.done();
            }
            Err(error) => {
                self.inputs.failed(&Error::new(format!("{}, frame {}", self.name, which.frame), &error));
                if self.args.json {
                    output::json_line(&FailedFrame { which, error })?;
                }
            }
        }
        Ok(())
    }
}

/// Classifies every frame of every stream that the arguments name, or the newest frames of a camera.
pub fn run(args: &ClassifyArgs, model: &Network, facts: &Facts, inference: &mut Inference) -> Result<()> {
    let (mut streams, mut seen) = (Inputs::default(), Inputs::default());
    if let Some(frames) = args.stream.raw {
        args.stream.check(frames)?;
        frames.doubt().iter().for_each(|doubt| output::warn(doubt));
    }
    let mut done = |name: String, each: &mut dyn FnMut(&mut Teller) -> Result<()>| {
        let mut teller =
            Teller { name, args, model, facts, ends: VecDeque::with_capacity(FPS_FRAMES + 1), inputs: &mut seen };
        match each(&mut teller) {
            // Every other stream would fail as well.
            Err(e @ (Error::BrokenPipe | Error::Stdout(_) | Error::Usage(_))) => return Err(e),
            Err(e) if model.unchanged().is_err() => return Err(e),
            Err(e) => streams.failed(&e),
            Ok(()) => streams.done(),
        }
        Ok(())
    };
    match (&args.stream.camera, args.stream.raw) {
        (Some(source), raw) => done(source.to_string(), &mut |teller| watch(source, raw, inference, teller))?,
        (None, Some(frames)) => {
            for path in &args.images {
                done(name(path), &mut |teller| classify(path, frames, inference, teller))?;
            }
        }
        (None, None) => {}
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

/// Classifies the newest frame of a camera until there is no other.
fn watch(
    source: &camera::Source,
    raw: Option<Frames>,
    inference: &mut Inference,
    teller: &mut Teller<'_>,
) -> Result<()> {
    let raw = match source {
        camera::Source::Rpicam(_) => Some(raw.unwrap_or(Frames::RPICAM)),
        _ => raw,
    };
    if matches!(source, camera::Source::Rpicam(_)) && raw.is_some_and(|frames| !frames.is_rpicams()) {
        return Err(Error::Usage(format!("--camera {source}: rpicam-vid writes i420, as in --raw i420:1280x704")));
    }
    let stream = &teller.args.stream;
    raw.map_or(Ok(()), |frames| stream.check(frames))?;
    let framing = raw.map_or(Framing::Jpeg, |frames| Framing::Bytes(frames.bytes()));
    let size = raw.unwrap_or(Frames::RPICAM).size();
    let mut camera = Camera::open(source, framing, size)?;
    let pause = stream.fps.map(|fps| Duration::from_secs_f64(1.0 / fps));
    let mut began: Option<Instant> = None;
    loop {
        if let (Some(began), Some(pause)) = (began, pause) {
            thread::sleep(pause.saturating_sub(began.elapsed()));
        }
        let Some(frame) = camera.newest()? else { return Ok(()) };
        began = Some(Instant::now());
        let answer = match raw {
            Some(frames) => inference.frame(&stream.view(frames.picture(&frame.bytes))),
            None => pictures::decode(&frame.bytes).and_then(|jpeg| inference.frame(&stream.view(jpeg.borrow()))),
        };
        teller.tell(Which::new(frame.number, frame.dropped, frame.time), answer)?;
    }
}

/// Classifies the frames of one stream; errors are the stream's, those of frames are counted.
fn classify(path: &Path, frames: Frames, inference: &mut Inference, teller: &mut Teller<'_>) -> Result<()> {
    let mut stream = open(path)?;
    let mut bytes = vec![0; frames.bytes()];
    for frame in 0.. {
        let len = fill(&mut stream, &mut bytes).map_err(|e| Error::new(&teller.name, why(&e)))?;
        if len < bytes.len() {
            return end(&teller.name, frames, frame, len);
        }
        let which = Which::new(frame, 0, SystemTime::now());
        let answer = inference.frame(&teller.args.stream.view(frames.picture(&bytes)));
        teller.tell(which, answer)?;
    }
    Ok(())
}

/// What messages call a stream.
fn name(path: &Path) -> String {
    if path.as_os_str() == "-" { "standard input".to_string() } else { path.display().to_string() }
}

fn open(path: &Path) -> Result<Box<dyn Read>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(File::open(path).map_err(|e| Error::new(name(path), why(&e)))?))
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
    let frame_bytes = frames.bytes();
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

fn print(told: &Told) -> Result<()> {
    let fps = told.fps.map_or("  -  ".to_string(), |fps| format!("{fps:5.1}"));
    let guess = |guess: &Guess| {
        let label = guess.label.clone().unwrap_or_else(|| guess.index.to_string());
        format!("{:6.2} %  {STRONG}{label}{STRONG:#}", guess.probability * 100.0)
    };
    let guesses: Vec<String> = told.top.iter().map(guess).collect();
    let digest = told.digest.as_ref().map_or(String::new(), |digest| format!("  digest {digest}"));
    let Which { frame, dropped, .. } = told.which;
    let dropped = if dropped > 0 { format!("  {QUIET}{dropped} dropped{QUIET:#}") } else { String::new() };
    let (ms, guesses) = (told.times.ms, guesses.join("  "));
    Ok(writeln!(output::stdout(), "{frame:6}  {fps} fps  {QUIET}{ms:8.2} ms{QUIET:#}  {guesses}{digest}{dropped}")?)
}

#[cfg(test)]
mod tests {
    use super::*;

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
