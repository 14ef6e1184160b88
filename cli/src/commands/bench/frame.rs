//! From a camera's frame to its answer: preparation and network together, as `classify --camera` runs them.

use std::io;

use serde::Serialize;

use crate::camera::RawFormat;
use crate::error::{Context, Result};
use crate::inference::{Inference, Times};
use crate::output::{Out, QUIET};
use crate::stats;

/// Frames that are measured. The same number with every `--iters`, so that two runs differ by inferences alone.
const FRAMES: usize = 5;

/// Medians in milliseconds.
#[derive(Serialize)]
pub(super) struct FrameTime {
    /// As `--raw` takes it.
    raw: String,
    frames: usize,
    prepare_ms: f64,
    run_ms: f64,
    /// From the whole frame to the answer.
    ms: f64,
}

impl FrameTime {
    /// Measures frames of this format, after one to warm up.
    pub(super) fn measure(inference: &mut Inference<'_>, raw: RawFormat) -> Result<Self> {
        // No two neighbours are equal, as in pictures.
        let bytes: Vec<u8> = (0..raw.bytes()).map(|i| (i * 37 % 251) as u8).collect();
        let mut times = Vec::new();
        for _ in 0..=FRAMES {
            times.push(inference.frame(&raw.picture(&bytes)).about(format!("a frame of {raw}"))?.times);
        }
        times.remove(0);
        let median = |ms: fn(&Times) -> f64| stats::median(&times.iter().map(ms).collect::<Vec<_>>());
        let [prepare_ms, run_ms, ms] = [median(|t| t.prepare_ms), median(|t| t.run_ms), median(|t| t.ms)];
        Ok(Self { raw: raw.to_string(), frames: FRAMES, prepare_ms, run_ms, ms })
    }

    pub(super) fn print(&self, out: &mut Out) -> io::Result<()> {
        let Self { raw, prepare_ms, ms, .. } = self;
        writeln!(
            out,
            "  frame   {ms:9.3} ms  {QUIET}a frame of {raw} to its answer, {prepare_ms:.3} ms to prepare it{QUIET:#}"
        )
    }
}
