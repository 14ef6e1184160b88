//! Models side by side. All are in memory at once and take turns, so that a machine that slows down slows all of them;
//! ratios are of one round. A ratio whose middle half of rounds holds 1 is called noise. And all see the same pictures.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::dataset::Entry;
use crate::error::{Context, Inputs, Result};
use crate::inference::{Inference, synthetic_input};
use crate::output;
use crate::pictures::{self, Source};
use crate::stats::{self, Squares};

/// A model's turn in a round lasts about that long.
const TURN: Duration = Duration::from_millis(10);

/// Of times in the same round: the median and the quartiles.
#[derive(Clone, Copy, Serialize)]
pub struct Ratio {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

/// Against the reference on the same pictures.
#[derive(Clone, Copy, Serialize)]
pub struct Accuracy {
    /// Null without labels.
    pub top1: Option<f64>,
    /// Share of pictures with the reference's first label.
    pub agreement: f64,
    /// sqrt(sum |y - r|^2 / sum |r|^2) over the logits of all pictures.
    pub logit_error: f64,
}

/// Milliseconds of one inference, `[model][round]`; says before how long it and the pictures will take.
pub fn time(inferences: &mut [Inference], rounds: u32, pictures: usize) -> Result<Vec<Vec<f64>>> {
    let input = synthetic_input(inferences.first().map_or(0, |first| first.model().config().input_len()));
    let once = |inference: &mut Inference, runs: usize| -> Result<f64, vitlet::Error> {
        inference.repeat(&input, None, |run| {
            let start = Instant::now();
            (0..runs).try_for_each(|_| run())?;
            Ok(start.elapsed().as_secs_f64() / runs as f64)
        })?
    };
    let mut seconds = Vec::new();
    for inference in inferences.iter_mut() {
        inference.tensor(&input).about("warm-up")?;
        once(inference, 2).about("warm-up")?;
        seconds.push(once(inference, 2).about("warm-up")?);
    }
    let runs: Vec<usize> = seconds.iter().map(|s| (TURN.as_secs_f64() / s).ceil().clamp(1.0, 1e4) as usize).collect();
    let round: f64 = seconds.iter().zip(&runs).map(|(s, n)| s * *n as f64).sum();
    let classify = pictures as f64 * (seconds.iter().sum::<f64>() + 0.02);
    output::note(&format!("this will take about {:.0} s", (f64::from(rounds) * round + classify).ceil()));

    let bar = output::progress(u64::from(rounds), "measuring {bar:40.cyan} {pos}/{len}  {eta} left");
    let mut times = vec![Vec::new(); inferences.len()];
    for first in 0..rounds as usize {
        let models = inferences.len();
        for i in (0..models).map(|i| (i + first) % models) {
            times[i].push(once(&mut inferences[i], runs[i]).about("inference")? * 1e3);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(times)
}

/// What the models made of the pictures.
#[derive(Default)]
pub struct Tallies {
    /// Pictures that all models have seen count as done.
    pub inputs: Inputs,
    labels: usize,
    reference_right: usize,
    models: Vec<Tally>,
}

#[derive(Default)]
struct Tally {
    right: usize,
    agreed: usize,
    /// Sums of squares over all pictures.
    difference: f64,
    norm: f64,
}

/// Shows all pictures to all models; those that cannot be read or run are named and counted.
pub fn classify(inferences: &mut [Inference], mut reference: Inference, pictures: &[Entry]) -> Tallies {
    let mut tallies = Tallies { models: inferences.iter().map(|_| Tally::default()).collect(), ..Tallies::default() };
    let bar = output::progress(pictures.len() as u64, "classifying {bar:40.cyan} {pos}/{len}  {eta} left");
    for Entry { source, label } in pictures {
        match look(source, inferences, &mut reference) {
            Ok((expected, logits)) => {
                tallies.inputs.done();
                tallies.add(*label, &expected, &logits);
            }
            Err(e) => bar.suspend(|| tallies.inputs.failed(&e)),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    tallies
}

/// The reference's logits of a picture, and each model's.
fn look(source: &Source, inferences: &mut [Inference], reference: &mut Inference) -> Result<(Vec<f32>, Vec<Vec<f32>>)> {
    let picture = pictures::load(source)?;
    let logits = |inference: &mut Inference| Ok(inference.picture(&picture).about(source)?.values);
    Ok((logits(reference)?, inferences.iter_mut().map(logits).collect::<Result<_>>()?))
}

impl Tallies {
    fn add(&mut self, label: Option<usize>, expected: &[f32], logits: &[Vec<f32>]) {
        let first = |logits: &[f32]| vitlet::best(logits, 1).first().copied();
        self.labels += usize::from(label.is_some());
        self.reference_right += usize::from(label.is_some() && first(expected) == label);
        for (logits, tally) in logits.iter().zip(&mut self.models) {
            tally.right += usize::from(label.is_some() && first(logits) == label);
            tally.agreed += usize::from(first(logits) == first(expected));
            let Squares { difference, norm } = stats::squares(logits, expected);
            tally.difference += difference;
            tally.norm += norm;
        }
    }

    pub fn accuracy(&self, model: usize) -> Option<Accuracy> {
        let pictures = self.inputs.count();
        let tally = self.models.get(model).filter(|_| pictures > 0)?;
        Some(Accuracy {
            top1: self.share(tally.right),
            agreement: tally.agreed as f64 / pictures as f64,
            logit_error: (tally.difference / tally.norm).sqrt(),
        })
    }

    pub fn reference_top1(&self) -> Option<f64> {
        self.share(self.reference_right)
    }

    /// Of the pictures with a label.
    fn share(&self, right: usize) -> Option<f64> {
        (self.labels > 0).then(|| right as f64 / self.labels as f64)
    }
}

impl Ratio {
    /// Of the times of two models, round by round.
    pub fn new(times: &[f64], of: &[f64]) -> Self {
        let ratios: Vec<f64> = times.iter().zip(of).map(|(t, o)| t / o).collect();
        let [low, median, high] = [25.0, 50.0, 75.0].map(|p| stats::percentile(&ratios, p));
        Self { median, low, high }
    }

    /// The range of the middle half of the rounds, in words; whether that is noise, too.
    pub fn range(self) -> String {
        let noise = if self.is_noise() { ": noise" } else { "" };
        format!("{:.2} to {:.2} in the middle half of the rounds{noise}", self.low, self.high)
    }

    /// See the module's documentation.
    pub fn is_noise(self) -> bool {
        self.low <= 1.0 && self.high >= 1.0
    }
}
