//! `vitlet depth`: how near every pixel of a picture is, as a picture in colours, as an array, or in a line.

mod colors;
mod legend;
pub mod map;
mod picture;
pub(crate) mod writer;

use std::path::Path;

use clap::Args;
use serde::Serialize;
use vitlet::Picture;

use crate::backend;
use crate::error::{Error, Result};
use crate::inference::{Answer, Compute, Times};
use crate::maps::{self, Job, MapArgs};
use crate::model::ModelFile;
use crate::output::STRONG;
use crate::sessions::{InputSize, Sessions};

use map::{Depths, Summary, Unit};
use writer::{Writer, WriterArgs};

#[derive(Args)]
pub struct DepthArgs {
    #[command(flatten)]
    maps: MapArgs,

    #[command(flatten)]
    writer: WriterArgs,
}

/// The fields of `depth` for one picture or frame.
#[derive(Serialize)]
pub struct Told {
    /// Width and height of the network's input.
    input: [usize; 2],
    depth: Summary,
    /// Where it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

/// What all pictures of a command have in common.
pub struct Looker<'m> {
    unit: Unit,
    sessions: Sessions<'m>,
    digest: bool,
}

pub fn run(args: DepthArgs) -> Result<()> {
    let file = ModelFile::open(&args.maps.model)?;
    let model = file.parse()?;
    let Some(unit) = Unit::of(model.config()) else {
        return Err(Error::new(&file.name, format!("no depth head: {}", backend::commands_for(model.config()))));
    };
    let writer = Writer::new(&args.writer, unit)?;
    let compute = Compute::new(&args.maps.compute)?;
    let sessions = Sessions::new(&file, &compute, InputSize::new(&model, args.maps.size.fitting(&file)?));
    let looker = Looker { unit, sessions, digest: args.maps.digest };
    Job { args: &args.maps, file: &file }.run(looker, writer)
}

impl maps::Looker for Looker<'_> {
    type Seen = Depths;
    type Told = Told;

    fn look(&mut self, picture: &Picture<'_>) -> Result<(Depths, Times, Told), String> {
        let (width, height) = picture.seen();
        let inference = self.sessions.of_picture(width, height)?;
        let Answer { values, times } = inference.frame(picture)?;
        let c = inference.plan().config();
        let (input, size) = ((c.image_height, c.image_width), (width as usize, height as usize));
        let told = Told {
            input: [c.image_width, c.image_height],
            depth: Summary::new(self.unit, &values, input, size),
            output: None,
            digest: self.digest.then(|| format!("{:016x}", vitlet::digest(&values))),
        };
        let enlarging = c.head.depth().map(|depth| depth.enlarging).unwrap_or_default();
        Ok((Depths { output: values, input, size, enlarging }, times, told))
    }
}

impl maps::Told for Told {
    fn text(&self) -> String {
        let output = maps::written(self.output.as_ref());
        let digest = self.digest.as_ref().map_or(String::new(), |digest| format!("  digest {digest}"));
        format!("{}{digest}{output}", words(&self.depth))
    }

    fn set_output(&mut self, path: &Path) {
        self.output = Some(path.display().to_string());
    }
}

/// What a line says of a map.
fn words(depth: &Summary) -> String {
    let Summary { min, max, median, nearest: [x, y], .. } = *depth;
    match depth.unit {
        Unit::Metres => {
            format!("{STRONG}nearest {min:.2} m{STRONG:#} at {x},{y}, median {median:.2} m, farthest {max:.2} m")
        }
        Unit::Inverse => format!(
            "{STRONG}nearest at {x},{y}{STRONG:#}, relative inverse depth {} to {}, median {}",
            four_digits(min),
            four_digits(max),
            four_digits(median)
        ),
    }
}

/// A number with four digits that say something: its unit is unknown, and so is its order of magnitude.
fn four_digits(x: f32) -> String {
    match x.abs() {
        0.0 => "0".to_string(),
        size if (1e-3..1e5).contains(&size) => {
            let decimals = (3.0 - size.log10().floor()).max(0.0) as usize;
            format!("{x:.decimals$}")
        }
        _ => format!("{x:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        let shown = [0.0, 1.0, -0.012345, 98.764, 12345.6, 1e-7, 2.5e9].map(four_digits);
        assert_eq!(shown, ["0", "1.000", "-0.01235", "98.76", "12346", "1.000e-7", "2.500e9"]);
    }
}
