//! `vitlet segment`: the class of every pixel of a picture, as colours over it, as an array, or in a line.

pub(crate) mod classes;
mod writer;

use std::path::Path;

use clap::Args;
use serde::Serialize;
use vitlet::{Model, Picture};

use crate::backend;
use crate::error::{Error, Result};
use crate::inference::{Answer, Compute, Times};
use crate::maps::{self, Job, MapArgs};
use crate::model::ModelFile;
use crate::output::STRONG;
use crate::sessions::{InputSize, Sessions};

use classes::{ClassMap, Share};
use writer::{Writer, WriterArgs, percent, rgb};

#[derive(Args)]
pub struct SegmentArgs {
    #[command(flatten)]
    maps: MapArgs,

    #[command(flatten)]
    writer: WriterArgs,
}

/// The fields of `segment` for one picture or frame.
#[derive(Serialize)]
pub struct Told {
    /// Width and height of the network's input.
    input: [usize; 2],
    /// Those with most pixels first.
    classes: Vec<Share>,
    /// Where it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

/// What all pictures of a command have in common.
pub struct Looker<'m> {
    sessions: Sessions<'m>,
    labels: Vec<String>,
    digest: bool,
    keeps_pictures: bool,
}

/// What there is in a picture.
pub struct Seen {
    map: ClassMap,
    /// The picture, RGB8 `[height, width, 3]`, where it is written.
    under: Vec<u8>,
}

/// Classes in a line for people.
const SHOWN: usize = 5;

/// The names of the classes of patches.
///
/// # Errors
/// A network without such classes.
pub(crate) fn labels(model: &Model<'_>, name: &str) -> Result<Vec<String>> {
    let classes = model.config().head.patch_classes();
    if classes == 0 {
        let commands = backend::commands_for(model.config());
        return Err(Error::new(name, format!("no head for the classes of patches: {commands}")));
    }
    Ok((0..classes).map(|i| model.label(i).map_or_else(|| format!("class {i}"), str::to_owned)).collect())
}

pub fn run(args: SegmentArgs) -> Result<()> {
    let file = ModelFile::open(&args.maps.model)?;
    let model = file.parse()?;
    let labels = labels(&model, &file.name)?;
    let writer = Writer::new(&args.writer, labels.len())?;
    let compute = Compute::new(&args.maps.compute)?;
    let sessions = Sessions::new(&file, &compute, InputSize::new(&model, args.maps.size.fitting(&file)?));
    let keeps_pictures = writer.as_ref().is_some_and(Writer::needs_picture);
    let looker = Looker { sessions, labels, digest: args.maps.digest, keeps_pictures };
    Job { args: &args.maps, file: &file }.run(looker, writer)
}

impl maps::Looker for Looker<'_> {
    type Seen = Seen;
    type Told = Told;

    fn look(&mut self, picture: &Picture<'_>) -> Result<(Seen, Times, Told), String> {
        let (width, height) = picture.seen();
        let inference = self.sessions.of_picture(width, height)?;
        let Answer { values, times } = inference.frame(picture)?;
        let c = inference.plan().config();
        let map = ClassMap::new(&values, c.grid(), (width as usize, height as usize))?;
        let told = Told {
            input: [c.image_width, c.image_height],
            classes: map.shares(|class| self.labels[class].clone()),
            output: None,
            digest: self.digest.then(|| format!("{:016x}", vitlet::digest(&values))),
        };
        let under = if self.keeps_pictures { rgb(picture)? } else { Vec::new() };
        Ok((Seen { map, under }, times, told))
    }
}

impl maps::Told for Told {
    fn text(&self) -> String {
        let shown: Vec<String> = self
            .classes
            .iter()
            .take(SHOWN)
            .enumerate()
            .map(|(i, Share { label, share, .. })| match i {
                0 => format!("{STRONG}{label} {}{STRONG:#}", percent(*share)),
                _ => format!("{label} {}", percent(*share)),
            })
            .collect();
        let more = match self.classes.len().saturating_sub(SHOWN) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let digest = self.digest.as_ref().map_or(String::new(), |digest| format!("  digest {digest}"));
        format!("{}{more}{digest}{}", shown.join(", "), maps::written(self.output.as_ref()))
    }

    fn set_output(&mut self, path: &Path) {
        self.output = Some(path.display().to_string());
    }
}
