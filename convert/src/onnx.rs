//! ONNX files: a plain Vision Transformer is recognized in the graph that PyTorch's exporters (or simplifiers after
//! them) wrote.
//!
//! `graph` reads the file, `fold` computes what does not depend on the picture, `patterns` knows linear layers, norms
//! and activations in all their spellings, `stem`, `attention` and `vit` put them together. Recognition works on what
//! flows where, never on names. Other networks are refused with the node at which the known structure ended.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use vitlet::picture::Preprocess;

use crate::error::Error;
use crate::network::Source;
use crate::options::Options;
use crate::{labels, preprocess};
use graph::Graph;
use vit::{Stop, Vit};

mod array;
mod attention;
mod fold;
mod graph;
mod operators;
mod patterns;
mod pixels;
mod proto;
mod stem;
#[cfg(test)]
mod tests;
mod vit;

/// Names of the values in a graph that a comparison of two implementations looks at, for one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockTaps {
    /// Of the attention.
    pub attention: BranchTaps,
    /// Of the MLP.
    pub mlp: BranchTaps,
}

/// Names of the values of one residual branch, `[tokens, dim]` each (whatever axes of length 1 the graph has before).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchTaps {
    /// The branch's output after LayerScale, before it is added.
    pub branch: String,
    /// The residual stream after the addition.
    pub stream: String,
}

/// Recognizes the ViT in an ONNX file and names its inner values, block by block: what
/// `vitlet_convert::reference::Reference::open_tapped` takes.
///
/// # Errors
/// As the import of the file.
pub fn taps(path: &Path, size: Option<(usize, usize)>) -> Result<Vec<BlockTaps>, Error> {
    recognize(path, size).map(|vit| vit.taps)
}

/// Reads an ONNX file as a network.
///
/// # Errors
/// A file that is not whole, or not a plain ViT.
pub(crate) fn read(path: &Path, options: &Options) -> Result<Source, Error> {
    let Vit { mut network, mut announcements, normalization, .. } = recognize(path, options.image_size)?;
    crate::config::check_size(&network.config)?;
    let size = (network.config.image_height, network.config.image_width);
    if let Some(head) = &options.head {
        network.tail.head = Some(crate::head::replace(head, &mut network.config, &mut announcements)?);
    }
    let (preprocess, labels) = match normalization {
        Some(own) => prepared(size, &normalizing(path, own, options, &mut announcements)?, &mut announcements)?,
        None => prepared(size, options, &mut announcements)?,
    };
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Source { network, preprocess, labels, name, license: None, url: None, folded_gammas: None, announcements })
}

/// The options for a file that normalizes pixels in [0, 1] itself, by this mean and standard deviation.
///
/// # Errors
/// Options that say something else.
fn normalizing(
    path: &Path,
    own: ([f64; 3], [f64; 3]),
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<Options, Error> {
    let (mean, std) = (own.0.map(|x| x as f32), own.1.map(|x| x as f32));
    let text = |rgb: [f32; 3]| rgb.map(|x| x.to_string()).join(",");
    let what = format!("mean {} and std {}", text(mean), text(std));
    if options.mean.is_some() || options.std.is_some() {
        return Err(Error::file(
            path,
            format!("the graph normalizes the picture itself, by {what}; leave out --mean and --std"),
        ));
    }
    announcements.push(format!("the graph normalizes the picture itself: {what} for pixels in [0, 1]"));
    Ok(Options { mean: Some(mean), std: Some(std), ..options.clone() })
}

/// Whether the graph of a file normalizes the picture, as far as that can be told.
#[cfg(feature = "tract")]
pub(crate) fn normalizes(path: &Path, size: Option<(usize, usize)>) -> bool {
    Graph::read(&Files::new(path), size)
        .is_ok_and(|graph| graph.pixels().is_ok_and(|pixels| pixels.normalization.is_some()))
}

fn recognize(path: &Path, size: Option<(usize, usize)>) -> Result<Vit, Error> {
    let graph = Graph::read(&Files::new(path), size)?;
    vit::recognize(&graph).map_err(|Stop { node, why }| {
        Error::file(path, format!("not a plain ViT: the structure ends at node {node}: {why}"))
    })
}

/// How pictures become the input of a network whose file does not say it, and what its classes are called.
#[derive(Clone, Debug, PartialEq)]
pub struct Preparation {
    /// From the picture to the input.
    pub preprocess: Preprocess,
    /// One a class, or none.
    pub labels: Option<Vec<String>>,
    /// What was chosen by default, one sentence each.
    pub announcements: Vec<String>,
}

impl Preparation {
    /// For an input of `size` (height, width) and `classes` logits: from the options, else from the directory of
    /// [`Options::preprocess_from`], else ImageNet's, announced.
    ///
    /// # Errors
    /// A directory without a configuration that is understood, or labels that do not fit.
    pub fn new(size: (usize, usize), classes: usize, options: &Options) -> Result<Self, Error> {
        let mut announcements = Vec::new();
        let (preprocess, given) = prepared(size, options, &mut announcements)?;
        let labels = labels::choose(options, given, classes, &mut announcements)?;
        Ok(Self { preprocess, labels, announcements })
    }
}

/// The preparation, and the labels according to the directory.
pub(crate) fn prepared(
    size: (usize, usize),
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<(Preprocess, Option<labels::Given>), Error> {
    if let Some(dir) = &options.preprocess_from {
        return preprocess::from_dir(dir, size, options, announcements);
    }
    let by_default = preprocess::taken_by_default(options, |_| false);
    if !by_default.is_empty() {
        announcements.push(format!(
            "an ONNX file does not say how pictures are prepared: {}, ImageNet's (--preprocess-from DIR reads a checkpoint's)",
            by_default.join(", ")
        ));
    }
    Ok((preprocess::imagenet(size, options)?, None))
}

/// A model and the files beside it that hold its weights, each mapped once.
pub(crate) struct Files<'p> {
    pub model: &'p Path,
    mapped: RefCell<HashMap<PathBuf, Bytes>>,
}

impl<'p> Files<'p> {
    pub(crate) fn new(model: &'p Path) -> Self {
        Self { model, mapped: RefCell::default() }
    }

    /// The bytes of a tensor that stands in another file, by the entries `location`, `offset` and `length`.
    ///
    /// # Errors
    /// No location, one outside the model's directory, a missing file, or a range that is not in it.
    pub(crate) fn external<'e>(&self, entries: impl Iterator<Item = (&'e str, &'e str)>) -> Result<Bytes, Error> {
        let model = self.model;
        let (mut location, mut offset, mut length) = (None, 0u64, None);
        for (key, value) in entries {
            let number =
                || value.parse::<u64>().map_err(|_| Error::file(model, format!("external data with {key} {value}")));
            match key {
                "location" => location = Some(value),
                "offset" => offset = number()?,
                "length" => length = Some(number()?),
                _ => {}
            }
        }
        let location = location.ok_or_else(|| Error::file(model, "external data without a location"))?;
        let inside = Path::new(location).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if !inside {
            return Err(Error::file(model, format!("external data in {location}, outside the model's directory")));
        }
        let path = model.with_file_name(location);
        let bytes = self.map(&path)?;
        let end = bytes.len() as u64;
        let length = length.unwrap_or(end.saturating_sub(offset));
        if offset.checked_add(length).is_none_or(|needed| needed > end) {
            return Err(Error::file(&path, format!("{end} bytes, but {} needs {length} at {offset}", model.display())));
        }
        // Both are within a length in memory.
        Ok(bytes.slice(offset as usize..(offset + length) as usize))
    }

    fn map(&self, path: &Path) -> Result<Bytes, Error> {
        if let Some(bytes) = self.mapped.borrow().get(path) {
            return Ok(bytes.clone());
        }
        let failed = |e| Error::file(path, format!("{e}; it holds the weights of {}", self.model.display()));
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(Error::file(path, format!("not a file; it holds the weights of {}", self.model.display())));
        }
        let bytes = crate::tensor::map(path)?;
        self.mapped.borrow_mut().insert(path.to_owned(), bytes.clone());
        Ok(bytes)
    }
}
