//! Tells what became of the frames of one stream, and counts them.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Instant, UNIX_EPOCH};

use serde::Serialize;

use super::Found;
use crate::camera;
use crate::error::{Error, Inputs, Result};
use crate::inference::Times;
use crate::output::{self, Out, QUIET};

/// Frames per second are counted over so many frames.
const FPS_FRAMES: usize = 30;

/// Which frame.
#[derive(Clone, Copy, Serialize)]
pub struct Which<'c> {
    /// The camera, the file or the pipe.
    source: &'c str,
    /// Counted from 0, those that were dropped included.
    frame: u64,
    /// Frames that came and went since the last line.
    dropped: u64,
    /// When the frame was whole: seconds since 1970, in UTC.
    pub time: f64,
}

impl<'c> Which<'c> {
    pub fn new(source: &'c str, frame: &camera::Frame) -> Self {
        let time = frame.time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Self { source, frame: frame.number, dropped: frame.dropped, time }
    }
}

/// What is known of one frame.
#[derive(Serialize)]
struct Told<'w, T> {
    #[serde(flatten)]
    which: &'w Which<'w>,
    /// From the whole frame on; a JPEG's decoding does not count.
    #[serde(flatten)]
    times: Times,
    /// Of the last frames, waiting for the camera included; null for the first.
    fps: Option<f64>,
    #[serde(flatten)]
    fields: T,
}

/// A frame without a result.
#[derive(Serialize)]
struct FailedFrame<'w> {
    #[serde(flatten)]
    which: &'w Which<'w>,
    error: String,
}

/// How frames are told.
pub enum Tell {
    /// A JSON document on a line of standard output.
    Json,
    /// A line for people.
    Text(Out),
}

impl Tell {
    /// For a command with `--json` or without, that also writes `outputs`: where one of them is standard output, lines
    /// go to standard error.
    pub fn new<'p>(json: bool, outputs: impl IntoIterator<Item = &'p PathBuf>) -> Self {
        if json { Self::Json } else { Self::Text(output::beside(outputs)) }
    }
}

pub struct Teller<'a> {
    tell: &'a mut Tell,
    unchanged: &'a dyn Fn() -> Result<()>,
    ends: VecDeque<Instant>,
    inputs: &'a mut Inputs,
    drops_announced: bool,
}

impl<'a> Teller<'a> {
    pub fn new(tell: &'a mut Tell, unchanged: &'a dyn Fn() -> Result<()>, inputs: &'a mut Inputs) -> Self {
        let ends = VecDeque::with_capacity(FPS_FRAMES + 1);
        Self { tell, unchanged, ends, inputs, drops_announced: false }
    }

    /// Frames that were looked at, those of the streams before this one included.
    pub fn total(&self) -> u64 {
        self.inputs.total() as u64
    }

    /// Says once that frames are dropped whose sender would have waited.
    pub fn announce_drops(&mut self, source: &str) {
        if !self.drops_announced {
            output::note(&format!(
                "{source}: frames come faster than they are looked at, and the newest is taken; --every-frame takes all"
            ));
        }
        self.drops_announced = true;
    }

    pub fn tell<T: Serialize>(&mut self, which: &Which<'_>, found: Result<Found<T>, String>) -> Result<()> {
        (self.unchanged)()?;
        self.ends.push_back(Instant::now());
        let fps = per_second(&mut self.ends);
        match found {
            Ok(Found { times, text, fields }) => {
                match self.tell {
                    Tell::Json => output::json_line(&Told { which, times, fps, fields })?,
                    Tell::Text(out) => print(out, which, &times, fps, &text)?,
                }
                self.inputs.done();
            }
            Err(error) => {
                self.inputs.failed(&Error::new(format!("{}, frame {}", which.source, which.frame), &error));
                if let Tell::Json = self.tell {
                    output::json_line(&FailedFrame { which, error })?;
                }
            }
        }
        Ok(())
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

fn print(out: &mut Out, which: &Which<'_>, times: &Times, fps: Option<f64>, text: &str) -> Result<()> {
    let fps = fps.map_or("  -  ".to_string(), |fps| format!("{fps:5.1}"));
    let Which { frame, dropped, .. } = which;
    let dropped = if *dropped > 0 { format!("  {QUIET}{dropped} dropped{QUIET:#}") } else { String::new() };
    Ok(writeln!(out, "{frame:6}  {fps} fps  {QUIET}{:8.2} ms{QUIET:#}  {text}{dropped}", times.ms)?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
