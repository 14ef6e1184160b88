//! Times of inferences in milliseconds, and of the way to the first one.

use std::io;
use std::time::Instant;

use serde::Serialize;

use crate::output::{Out, QUIET, STRONG};
use crate::stats;

/// Order statistics of the measured inferences. The tail counts where a frame must not be late.
#[derive(Serialize)]
pub(super) struct Times {
    pub(super) median_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    min_ms: f64,
    max_ms: f64,
}

impl Times {
    /// The heading of [`Times::cells`] in a Markdown table.
    pub(super) const HEADING: &str = "median, ms | p95, ms | p99, ms | max, ms | min, ms";

    pub(super) fn of(ms: &[f64]) -> Self {
        let [min_ms, median_ms, p95_ms, p99_ms, max_ms] =
            [0.0, 50.0, 95.0, 99.0, 100.0].map(|p| stats::percentile(ms, p));
        Self { median_ms, p95_ms, p99_ms, min_ms, max_ms }
    }

    pub(super) fn cells(&self) -> String {
        [self.median_ms, self.p95_ms, self.p99_ms, self.max_ms, self.min_ms].map(|ms| format!("{ms:.3}")).join(" | ")
    }

    /// A line each; `remark` stands behind the median.
    pub(super) fn print(&self, out: &mut Out, remark: &str) -> io::Result<()> {
        writeln!(out, "  median  {STRONG}{:9.3} ms{STRONG:#}{remark}", self.median_ms)?;
        let others = [("p95", self.p95_ms), ("p99", self.p99_ms), ("max", self.max_ms), ("min", self.min_ms)];
        others.iter().try_for_each(|(name, ms)| writeln!(out, "  {name:<6}  {ms:9.3} ms"))
    }
}

/// What a program waits for that answers once.
#[derive(Serialize)]
pub(super) struct Start {
    /// From the model's name to a session that is ready: mapping and checking the file, threads, memory.
    load_ms: f64,
    /// The first inference of the process. It meets cold caches, and pages of the file that are not mapped yet.
    first_ms: f64,
}

impl Start {
    /// `began`: before the file was opened; `ready` and `answered`: before the first inference, and after it.
    pub(super) fn between(began: Instant, ready: Instant, answered: Instant) -> Self {
        let ms = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
        Self { load_ms: ms(began, ready), first_ms: ms(ready, answered) }
    }

    pub(super) fn print(&self, out: &mut Out) -> io::Result<()> {
        writeln!(
            out,
            "  load    {:9.3} ms  {QUIET}open the file, start the threads, take the memory{QUIET:#}",
            self.load_ms
        )?;
        writeln!(out, "  first   {:9.3} ms  {QUIET}the first inference of this process{QUIET:#}", self.first_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_interpolated_and_the_maximum_is_not() {
        let ms: Vec<f64> = (1..=101).rev().map(f64::from).collect();
        let times = Times::of(&ms);
        let got = [times.min_ms, times.median_ms, times.p95_ms, times.p99_ms, times.max_ms];
        assert_eq!(got, [1.0, 51.0, 96.0, 100.0, 101.0]);
        assert_eq!(times.cells().matches('|').count(), Times::HEADING.matches('|').count());
    }
}
