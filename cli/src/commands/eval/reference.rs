//! What the model's logits are compared with: another network on the same pictures, or logits from elsewhere.

use std::path::Path;

use vitlet::{Named, Output, Precision};

use crate::error::{Error, Result};
use crate::inference::{Compute, Inference};
use crate::model::ModelFile;
use crate::npy;
use crate::pictures::Rgb8;

pub struct Reference<'m> {
    pub name: String,
    source: Source<'m>,
}

enum Source<'m> {
    Model(Box<Inference<'m>>),
    /// `[pictures, classes]`.
    Logits(npy::Array),
}

impl<'m> Reference<'m> {
    pub fn model(file: &'m ModelFile, compute: &'m Compute, classes: usize) -> Result<Self> {
        let model = file.parse()?;
        let c = model.config();
        if c.classes != classes {
            return Err(Error::new(&file.name, format!("{} classes, the model has {classes}", c.classes)));
        }
        if c.precision != Precision::F32 {
            let why = format!("{} weights: a reference is f32 (`vitlet convert --precision f32`)", c.precision.name());
            return Err(Error::new(&file.name, why));
        }
        let source = Source::Model(Box::new(Inference::new(model, compute, Output::Logits)));
        Ok(Self { name: file.name.clone(), source })
    }

    pub fn logits(path: &Path, pictures: usize, classes: usize) -> Result<Self> {
        let logits = npy::read(path)?;
        if logits.shape != [pictures, classes] {
            let why = format!("shape {:?}, the dataset wants [{pictures}, {classes}]", logits.shape);
            return Err(Error::new(path.display(), why));
        }
        Ok(Self { name: path.display().to_string(), source: Source::Logits(logits) })
    }

    /// The logits of picture `index` of the data set.
    pub fn row(&mut self, index: usize, picture: &Rgb8) -> Result<Vec<f32>, vitlet::Error> {
        match &mut self.source {
            Source::Model(inference) => inference.picture(picture),
            Source::Logits(logits) => {
                let classes = logits.shape[1];
                Ok(logits.data[index * classes..(index + 1) * classes].to_vec())
            }
        }
    }
}
