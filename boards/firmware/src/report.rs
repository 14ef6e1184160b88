//! One picture through one model, and the report on the console.

use alloc::vec::Vec;
use core::fmt::Write;

use vitlet::{Executor, Format, Kernels, Model, Picture, Plan, RunConfig, Scratch};

use crate::error::Error;
use crate::picture::Rgb8;

/// Runs per thread count; the median of their times is printed.
const RUNS: usize = 3;

/// A counter that only counts up.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Ticks since any start.
    pub now: fn() -> u64,
    /// Ticks per second.
    pub hz: u64,
}

impl Clock {
    fn milliseconds(&self, ticks: u64) -> f64 {
        ticks as f64 * 1e3 / self.hz as f64
    }
}

/// One line about a model.
///
/// # Errors
/// `Console`.
pub fn describe(out: &mut dyn Write, name: &str, model: &Model<'_>) -> Result<(), Error> {
    let c = model.config();
    writeln!(out, "model    {name}: {} layers, {} wide, {} classes", c.depth, c.dim, c.classes)?;
    Ok(())
}

/// Classifies `picture` on each of `teams`, prints the five best classes, and for each team the time from pixels to
/// logits and the digest of the logits, which `vitlet classify --digest` prints for the same picture.
///
/// # Errors
/// As [`Error`].
pub fn classify(
    out: &mut dyn Write,
    model: &Model<'_>,
    picture: &Rgb8,
    kernels: Kernels,
    teams: &[&dyn Executor],
    clock: Clock,
) -> Result<(), Error> {
    if model.config().classes == 0 {
        return Err(Error::NoHead);
    }
    let view = Picture::frame(Format::Rgb8, &picture.data, picture.width, picture.height);
    for (i, &team) in teams.iter().enumerate() {
        let run = RunConfig::new(kernels).max_picture(picture.width, picture.height);
        let plan = Plan::new(model, &run, team.threads())?;
        let mut scratch = Scratch::new(plan.scratch_bytes())?;
        let mut session = plan.open(model, team, &mut scratch)?;
        let mut ticks = [0; RUNS];
        let mut digests = [0; RUNS];
        for run in 0..RUNS {
            let start = (clock.now)();
            let logits = session.run_picture(&view)?.first();
            ticks[run] = (clock.now)().wrapping_sub(start);
            digests[run] = vitlet::digest(logits);
            if (i, run) == (0, 0) {
                print_best(out, model, logits)?;
            }
        }
        ticks.sort_unstable();
        let (cores, ms) = (team.threads(), clock.milliseconds(ticks[RUNS / 2]));
        let plural = if cores == 1 { "core " } else { "cores" };
        write!(out, "  {cores} {plural} {ms:9.3} ms  digest {:016x}", digests[0])?;
        let same = digests.iter().all(|&digest| digest == digests[0]);
        writeln!(out, "{}", if same { "" } else { ", but not in every run: this machine computes wrongly" })?;
    }
    Ok(())
}

fn print_best(out: &mut dyn Write, model: &Model<'_>, logits: &[f32]) -> Result<(), Error> {
    let mut probabilities = Vec::new();
    let bytes = size_of_val(logits);
    probabilities.try_reserve_exact(logits.len()).map_err(|_| Error::Memory(bytes))?;
    probabilities.extend_from_slice(logits);
    vitlet::scores(&mut probabilities, model.config().scores);
    for (class, _) in vitlet::top_k::<5>(logits) {
        if let Some(probability) = probabilities.get(class) {
            writeln!(out, "  {:6.2} %  {class:3}  {}", probability * 100.0, model.label(class).unwrap_or(""))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;
    use vitlet::Sequential;

    #[test]
    fn the_report_says_what_the_program_says() {
        let picture = crate::decode(vitlet_models::pictures::CHELSEA).unwrap();
        let model = Model::parse(vitlet_models::MODEL).unwrap();
        let clock = Clock { now: || 0, hz: 1 };
        let mut text = String::new();
        classify(&mut text, &model, &picture, Kernels::baseline(), &[&Sequential, &Sequential], clock).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 7, "{text}");
        assert!(lines[0].ends_with("cat"), "{text}");
        assert!(lines[5].contains("1 core  ") && lines[5].contains("digest "), "{text}");
        assert_eq!(lines[5], lines[6]);
    }
}
