//! The reference of a comparison: the engine with an f32 model, or tract with the ONNX file that somebody exported.

use std::path::Path;

use vitlet::{Config, Model};

use super::activations::{Activations, Seen};
use crate::error::{Error, Result};
use crate::inference::{Compute, Inference};
use crate::model::ModelFile;

/// What was named as the reference.
pub enum Source {
    Model(ModelFile),
    #[cfg(feature = "tract")]
    Onnx(tract::Onnx),
}

impl Source {
    /// An ONNX file, a model file, or a checkpoint directory; it must be the network that `model` is.
    pub fn open(path: &Path, model: &Model) -> Result<Self> {
        let c = model.config();
        if crate::backend::is_onnx(path) {
            #[cfg(feature = "tract")]
            return tract::Onnx::open(path, c).map(Self::Onnx);
            #[cfg(not(feature = "tract"))]
            return Err(Error::new(path.display(), crate::backend::WITHOUT_TRACT));
        }
        let file = ModelFile::open_or_convert(path)?;
        if let Some(what) = mismatch(c, file.parse()?.config()) {
            return Err(Error::new(&file.name, format!("another network: {what}")));
        }
        Ok(Self::Model(file))
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Model(file) => &file.name,
            #[cfg(feature = "tract")]
            Self::Onnx(onnx) => &onnx.name,
        }
    }

    pub fn start<'s>(&'s self, compute: &'s Compute) -> Result<Truth<'s>> {
        Ok(match self {
            Self::Model(file) => Truth::Model(Box::new(Inference::new(file, compute)?)),
            #[cfg(feature = "tract")]
            Self::Onnx(onnx) => Truth::Onnx(onnx),
        })
    }
}

/// The reference, ready to run.
pub enum Truth<'s> {
    Model(Box<Inference<'s>>),
    #[cfg(feature = "tract")]
    Onnx(&'s tract::Onnx),
}

impl Truth<'_> {
    /// What it computes from one normalized input.
    pub fn look(&mut self, input: &[f32], c: &Config) -> Result<Activations, String> {
        match self {
            Self::Model(inference) => look(inference, input, c),
            #[cfg(feature = "tract")]
            Self::Onnx(onnx) => onnx.look(input, c),
        }
    }
}

/// What the engine computes from one normalized input.
pub fn look(inference: &mut Inference, input: &[f32], c: &Config) -> Result<Activations, String> {
    let seen = Seen::new(c);
    let output = inference.tap(input, &seen)?;
    Ok(seen.into_activations(output))
}

/// The first way in which two networks are not the same.
fn mismatch(a: &Config, b: &Config) -> Option<String> {
    let facts = |c: &Config| {
        [
            ("image height", c.image_height),
            ("image width", c.image_width),
            ("tokens", c.tokens()),
            ("dim", c.dim),
            ("blocks", c.depth),
            ("channels in all blocks", c.stream_channels()),
            ("heads", c.heads()),
            ("head width", c.head_dim()),
            ("classes", c.classes),
        ]
    };
    let mut pairs = facts(a).into_iter().zip(facts(b));
    let ((name, a), (_, b)) = pairs.find(|((_, a), (_, b))| a != b)?;
    Some(format!("{name} {b}, the model has {a}"))
}

#[cfg(feature = "tract")]
mod tract {
    use std::collections::BTreeMap;
    use std::path::Path;

    use vitlet::Config;
    use vitlet_convert::reference::Reference;

    use super::super::activations::{Activations, Kind, Spot, Table};
    use crate::error::{Error, Result};

    /// An ONNX file, with the values of its graph that are compared.
    pub struct Onnx {
        pub name: String,
        reference: Reference,
        spots: Vec<Spot>,
    }

    impl Onnx {
        pub fn open(path: &Path, c: &Config) -> Result<Self> {
            let failed = |e: vitlet_convert::Error| Error::new(e.what, e.why);
            let other = |why: String| Err(Error::new(path.display(), format!("another network: {why}")));
            let blocks = vitlet_convert::onnx::taps(path, None).map_err(failed)?;
            if blocks.len() != c.depth {
                return other(format!("{} blocks, the model has {}", blocks.len(), c.depth));
            }
            let (mut names, mut spots) = (Vec::new(), Vec::new());
            for (i, block) in blocks.into_iter().enumerate() {
                let places = [Kind::Attention, Kind::Middle, Kind::Mlp, Kind::Stream];
                names.extend([block.attention.branch, block.attention.stream, block.mlp.branch, block.mlp.stream]);
                spots.extend(places.map(|place| Spot::in_block(i, place)));
            }
            let reference =
                Reference::open_tapped(path, Some((c.image_height, c.image_width)), &names).map_err(failed)?;
            let (height, width) = reference.size();
            if (height, width) != (c.image_height, c.image_width) {
                return other(format!("{height}x{width} pixels, the model has {}x{}", c.image_height, c.image_width));
            }
            let outputs = if c.classes > 0 { c.classes } else { c.features() };
            if reference.outputs() != outputs {
                return other(format!("{} outputs, the model has {outputs}", reference.outputs()));
            }
            Ok(Self { name: path.display().to_string(), reference, spots })
        }

        pub fn look(&self, input: &[f32], c: &Config) -> Result<Activations, String> {
            let tapped = self.reference.run_tapped(input).map_err(|e| e.why)?;
            let (len, own) = (tapped.taps.first().map_or(0, Vec::len), c.tokens() * c.dim);
            if len != own {
                let why = format!("{len} values in the residual stream, tokens x dim of the model are {own}");
                return Err(format!("{}: another network: {why}", self.name));
            }
            let tables = self.spots.iter().copied().zip(tapped.taps);
            let tables: BTreeMap<_, _> = tables.map(|(spot, values)| (spot, Table { width: c.dim, values })).collect();
            Ok(Activations { tables, output: tapped.logits })
        }
    }
}
