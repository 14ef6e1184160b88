//! The reference for the model's logits: another network on the same pictures, or logits from a file.

use std::path::Path;

use vitlet::picture::Preprocess;
use vitlet::{Named, Precision};

use crate::backend::{Network, Runner};
use crate::error::{Error, Result};
use crate::inference::finite;
use crate::inference::{Compute, SizeArgs};
use crate::npy;
use crate::pictures::Rgb8;

pub struct Reference<'m> {
    pub name: String,
    source: Source<'m>,
}

enum Source<'m> {
    Network(Runner<'m>),
    /// `[pictures, classes]`.
    Logits(npy::Array),
}

impl<'m> Reference<'m> {
    pub fn network(network: &'m Network, compute: &'m Compute, classes: usize) -> Result<Self> {
        let runner = network.start(compute, &SizeArgs::default())?;
        let facts = runner.facts();
        if facts.classes != classes {
            return Err(Error::new(network.name(), format!("{} classes, the model has {classes}", facts.classes)));
        }
        require_f32(network.name(), facts.precision)?;
        Ok(Self { name: network.name().to_string(), source: Source::Network(runner) })
    }

    pub fn logits(path: &Path, pictures: usize, classes: usize) -> Result<Self> {
        let logits = npy::read(path)?;
        if logits.shape != [pictures, classes] {
            let why = format!("shape {:?}, the dataset wants [{pictures}, {classes}]", logits.shape);
            return Err(Error::new(path.display(), why));
        }
        Ok(Self { name: path.display().to_string(), source: Source::Logits(logits) })
    }

    /// How it prepares pictures, if it sees any.
    pub fn preprocess(&self) -> Option<Preprocess> {
        if let Source::Network(runner) = &self.source { runner.preprocess().ok() } else { None }
    }

    /// The logits of picture `index` of the data set.
    pub fn row(&mut self, index: usize, picture: &Rgb8) -> Result<Vec<f32>, String> {
        match &mut self.source {
            Source::Network(runner) => runner.picture(picture).map(|answer| answer.values),
            Source::Logits(logits) => {
                let classes = logits.shape[1];
                finite(logits.data[index * classes..(index + 1) * classes].to_vec(), "the reference's logits")
            }
        }
    }
}

/// Refuses a reference with other weights than f32.
pub fn require_f32(name: &str, precision: &str) -> Result<()> {
    if precision == Precision::F32.name() {
        return Ok(());
    }
    let why = format!("{precision} weights: a reference is f32 (`vitlet convert --precision f32`)");
    Err(Error::new(name, why))
}
