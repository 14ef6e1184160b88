//! `--minutes`: minute by minute, what an inference takes and how hot the board is. A board that throttles shows it
//! here: the medians rise as the temperature reaches its limit.

use std::time::Instant;

use serde::Serialize;

use super::times::Times;
use crate::board::{self, Board};
use crate::output::Out;
use crate::plot::{Axis, Color, Figure};
use crate::{output, stats};

const SECONDS: u64 = 60;

/// One minute.
#[derive(Serialize)]
pub(super) struct Minute {
    pub(super) median_ms: f64,
    max_ms: f64,
    /// At its end; absent on machines that do not say what they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    board: Option<board::State>,
    #[serde(skip)]
    pub(super) ms: Vec<f64>,
}

impl Minute {
    /// Runs inferences for a minute, one at least, and notes their median.
    pub(super) fn measure(
        (minute, minutes): (u64, u64),
        board: Option<&Board>,
        timed: &mut impl FnMut() -> Result<f64, vitlet::Error>,
    ) -> Result<Self, vitlet::Error> {
        let (start, mut ms) = (Instant::now(), Vec::new());
        while ms.is_empty() || start.elapsed().as_secs() < SECONDS {
            ms.push(timed()?);
        }
        let minute_of = Self {
            median_ms: stats::median(&ms),
            max_ms: stats::percentile(&ms, 100.0),
            board: board.map(|board| board.state(&board::system)),
            ms,
        };
        output::note(&format!("minute {minute} of {minutes}: {}", minute_of.line()));
        Ok(minute_of)
    }

    fn celsius(&self) -> Option<f64> {
        self.board.as_ref().and_then(|state| state.celsius())
    }

    fn line(&self) -> String {
        let celsius = self.celsius().map_or(String::new(), |celsius| format!(", {celsius:.0} °C"));
        format!("median {:.3} ms, max {:.3} ms{celsius}", self.median_ms, self.max_ms)
    }
}

/// A line for each minute.
pub(super) fn print(out: &mut Out, minutes: &[Minute]) -> std::io::Result<()> {
    minutes.iter().enumerate().try_for_each(|(i, minute)| writeln!(out, "  minute {:3}  {}", i + 1, minute.line()))
}

/// Medians and maxima over time, and below them the temperature where the board tells it: an SVG file.
pub(super) fn draw(subtitle: &str, times: &Times, minutes: &[Minute]) -> String {
    let mut figure = Figure::new("Inference times, minute by minute", subtitle);
    let points = |value: &dyn Fn(&Minute) -> Option<f64>| -> Vec<(f64, f64)> {
        let points = minutes.iter().enumerate();
        points.filter_map(|(i, minute)| Some(((i + 1) as f64, value(minute)?))).collect()
    };
    let x = Axis::linear("minute", 0.0, minutes.len() as f64);
    let highest = minutes.iter().map(|minute| minute.max_ms).fold(times.median_ms, f64::max);
    let mut panel = figure.panel("time of an inference", 220.0, &x, &Axis::linear("ms", 0.0, highest));
    panel.legend(&[(Color::Blue, "median"), (Color::Orange, "maximum")]);
    panel.line(Color::Orange, &points(&|minute| Some(minute.max_ms)));
    panel.line(Color::Blue, &points(&|minute| Some(minute.median_ms)));
    let celsius = points(&|minute| minute.celsius());
    if !celsius.is_empty() {
        let highest = celsius.iter().map(|point| point.1).fold(0.0, f64::max);
        let mut panel = figure.panel("temperature", 180.0, &x, &Axis::linear("°C", 0.0, highest));
        panel.line(Color::Red, &celsius);
    }
    figure.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_an_inference_and_its_plot_a_temperature_where_there_is_one() {
        let minute = |ms: f64, celsius: Option<f64>| Minute {
            median_ms: ms,
            max_ms: 2.0 * ms,
            board: celsius.map(board::State::at),
            ms: vec![ms],
        };
        let hot = [minute(7.0, Some(60.0)), minute(9.0, Some(85.0))];
        let svg = draw("board", &Times::of(&[7.0, 9.0]), &hot);
        assert!(svg.contains("<title>85</title>") && svg.contains("<title>18</title>") && svg.contains("°C"), "{svg}");
        assert_eq!(hot[1].line(), "median 9.000 ms, max 18.000 ms, 85 °C");
        let svg = draw("board", &Times::of(&[7.0]), &[minute(7.0, None)]);
        assert!(svg.contains("<title>14</title>") && !svg.contains("°C"), "{svg}");
    }
}
