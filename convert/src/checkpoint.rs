//! The tensors of a checkpoint: safetensors or PyTorch's own files, one or sharded.
//!
//! Vectors are read when they are taken; matrices stay in their files until their [`Layer`] is read. Shapes and types
//! are checked at once. Every tensor is accounted for: `take` marks it, and `finish` refuses what nobody took, so a
//! network that is not what its config says can not be converted by accident. `wrapper` finds the network where its
//! names have a prefix. Not here: which tensors a network has (`timm`, `transformers`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use safetensors::{Dtype, SafeTensors};

use crate::error::Error;
use crate::network::{Layer, Norm};
use crate::pickle;
use crate::tensor::{self, Tensor};

mod files;

use files::is_named_as_torch;
pub(crate) use files::{is_weights, weight_files};

mod wrapper;

/// Tensors that checkpoints of these networks carry and that the forward pass does not read: the token that replaces
/// masked patches in pre-training, the pooler of transformers' headless models, timm's removed pre-logits layer, BEiT's
/// table of indices into its tables.
const UNUSED: [&str; 4] = ["*mask_token", "*pooler.dense.*", "pre_logits.*", "*relative_position_index"];

/// What says which tensors there must be, if nothing else does.
const CONFIG: &str = "config.json";

/// The tensors of one checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Checkpoint {
    /// What the file has before each of the names in `tensors`.
    prefix: String,
    tensors: BTreeMap<String, Entry>,
    /// Tensors whose names do not begin with the prefix, by their whole names.
    outside: BTreeMap<String, Entry>,
    /// What a training checkpoint says about the network: `arch` and `args`.
    settings: serde_json::Map<String, serde_json::Value>,
    /// What says which tensors there must be instead of [`CONFIG`], for errors.
    description: Option<String>,
}

#[derive(Debug)]
struct Entry {
    tensor: Tensor,
    /// Why the tensor can not be read.
    fault: Option<String>,
    taken: bool,
}

impl Entry {
    /// Whether the elements are no weights: steps that were counted (`num_batches_tracked`), positions, masks.
    fn counts(&self) -> bool {
        use Dtype::{BOOL, I8, I16, I32, I64, U8, U16, U32, U64};
        matches!(self.tensor.dtype, BOOL | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64)
    }
}

impl Checkpoint {
    /// Opens the tensors of these files; `ema` asks for the averaged weights of PyTorch's files. Says which weights
    /// were taken where a file has several.
    ///
    /// # Errors
    /// A git-LFS pointer, a damaged or truncated file, a file of PyTorch's without weights, two tensors of one name.
    pub(crate) fn open(paths: &[PathBuf], ema: bool, announcements: &mut Vec<String>) -> Result<Self, Error> {
        let mut all = Self::default();
        for path in paths {
            let bytes = tensor::map(path)?;
            if pickle::is_torch(&bytes) || is_named_as_torch(path) {
                all.add_torch(path, &bytes, ema, announcements)?;
            } else if ema {
                return Err(Error::file(path, "--ema is for PyTorch files; this file has only one set of weights"));
            } else {
                all.add_safetensors(path, &bytes)?;
            }
        }
        Ok(all)
    }

    fn add_safetensors(&mut self, path: &Path, bytes: &Bytes) -> Result<(), Error> {
        let damaged = |e| Error::file(path, format!("not a whole safetensors file ({e}); download it again"));
        let (header_len, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        SafeTensors::deserialize(bytes).map_err(damaged)?;
        let data_at = 8 + header_len;
        for (name, info) in metadata.tensors() {
            let range = data_at + info.data_offsets.0..data_at + info.data_offsets.1;
            let shape = info.shape.clone();
            self.insert(&name, pickle::Tensor { dtype: info.dtype, shape, strides: None, bytes: range }, bytes, None)?;
        }
        Ok(())
    }

    fn add_torch(
        &mut self,
        path: &Path,
        bytes: &Bytes,
        ema: bool,
        announcements: &mut Vec<String>,
    ) -> Result<(), Error> {
        let state = pickle::read(bytes, ema, announcements).map_err(|why| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            Error::file(path, why.replace("FILE", &name))
        })?;
        self.settings.extend(state.settings);
        for (name, tensor) in state.tensors {
            match tensor {
                Ok(tensor) => self.insert(&name, tensor, bytes, None)?,
                Err(fault) => self.insert(&name, pickle::Tensor::default(), bytes, Some(fault))?,
            }
        }
        Ok(())
    }

    /// Adds a tensor of `file`.
    fn insert(&mut self, name: &str, tensor: pickle::Tensor, file: &Bytes, fault: Option<String>) -> Result<(), Error> {
        let pickle::Tensor { dtype, shape, strides, bytes } = tensor;
        let tensor = Tensor { name: name.to_owned(), dtype, shape, strides, data: file.slice(bytes) };
        let short = wrapper::without_infixes(name);
        if self.tensors.insert(short.clone(), Entry { tensor, fault, taken: false }).is_some() {
            return Err(Error::tensor(name, format!("there are two tensors named {short}")));
        }
        Ok(())
    }

    /// Sets the source of the network's description, if it is not config.json.
    pub(crate) fn describe(&mut self, by: &str) {
        self.description = Some(by.to_owned());
    }

    /// What a training checkpoint says about the network: `arch` and `args`, where they are there.
    pub(crate) fn settings(&self) -> &serde_json::Map<String, serde_json::Value> {
        &self.settings
    }

    /// Whether a tensor of that name is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor, if it is there.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| entry.tensor.shape.as_slice())
    }

    /// The names of the network's tensors, without a wrapper's prefix.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Takes a LayerScale gamma `[dim]`; one number (shape `[1]` or `[]`) stands for all channels.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(crate) fn gamma(&mut self, name: &str, dim: usize) -> Result<Vec<f32>, Error> {
        match self.shape(name) {
            Some(&[]) => self.take(name, &[]).map(|one| one.repeat(dim)),
            Some(&[1]) => self.take(name, &[1]).map(|one| one.repeat(dim)),
            _ => self.take(name, &[dim]),
        }
    }

    /// Takes a tensor of this shape, without reading it.
    ///
    /// # Errors
    /// Missing, of another shape or of an integer type.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, Error> {
        let refused = |why: String| Error::tensor(&format!("{}{name}", self.prefix), why);
        let asker = self.description.as_deref().unwrap_or(CONFIG);
        let Some(Entry { tensor, fault, taken }) = self.tensors.get_mut(name) else {
            let others = self.others(name);
            return Err(refused(format!("missing; {asker} asks for one of shape {shape:?}{others}")));
        };
        if let Some(fault) = fault {
            return Err(refused(fault.clone()));
        }
        if tensor.shape != shape {
            return Err(refused(format!("shape {:?}, but {asker} asks for {shape:?}", tensor.shape)));
        }
        tensor.check_type()?;
        *taken = true;
        Ok(tensor.clone())
    }

    /// Takes a tensor of this shape as f32, row by row.
    ///
    /// # Errors
    /// As [`Self::tensor`], and values that are NaN or infinite.
    pub(crate) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        self.tensor(name, shape)?.read()
    }

    /// Takes `{name}.weight` `[n, k]` and, where `bias`, `{name}.bias` `[n]`.
    ///
    /// # Errors
    /// As [`Checkpoint::take`].
    pub(crate) fn linear(&mut self, name: &str, n: usize, k: usize, bias: bool) -> Result<Layer, Error> {
        self.layer(name, &[n, k], bias)
    }

    /// Takes a patch convolution `{name}.weight` `[n, 3, height, width]` as a matrix, and its bias where `bias`.
    ///
    /// # Errors
    /// As [`Checkpoint::take`].
    pub(crate) fn patch(&mut self, name: &str, n: usize, patch: (usize, usize), bias: bool) -> Result<Layer, Error> {
        self.layer(name, &[n, 3, patch.0, patch.1], bias)
    }

    /// Takes `{name}.weight` of a shape `[n, ...]` as a matrix of n rows and, where `bias`, `{name}.bias` `[n]`.
    ///
    /// # Errors
    /// As [`Checkpoint::take`].
    pub(crate) fn layer(&mut self, name: &str, shape: &[usize], bias: bool) -> Result<Layer, Error> {
        let weight = self.tensor(&format!("{name}.weight"), shape)?;
        let n = shape[0];
        let bias = if bias { self.take(&format!("{name}.bias"), &[n])? } else { vec![0.0; n] };
        Ok(Layer::stored(weight, bias))
    }

    /// Takes `{name}.weight` and `{name}.bias`, `[n]` each.
    ///
    /// # Errors
    /// As [`Checkpoint::take`].
    pub(crate) fn norm(&mut self, name: &str, n: usize) -> Result<Norm, Error> {
        Ok(Norm {
            weight: self.take(&format!("{name}.weight"), &[n])?,
            bias: self.take(&format!("{name}.bias"), &[n])?,
        })
    }

    /// Marks a tensor as dealt with without reading it.
    pub(crate) fn drop_tensor(&mut self, name: &str) {
        if let Some(entry) = self.tensors.get_mut(name) {
            entry.taken = true;
        }
    }

    /// Ends the reading: every tensor must have been taken, be known not to matter, or match a pattern of `ignore`
    /// (`*` stands for any characters). Returns the names that were left out.
    ///
    /// # Errors
    /// Names the tensors that nobody took.
    pub(crate) fn finish(self, ignore: &[String]) -> Result<Vec<String>, Error> {
        let known = |(name, entry): &(String, &Entry)| {
            let short = name.strip_prefix(&self.prefix).unwrap_or(name);
            entry.counts() || is_left_out(name, ignore) || is_left_out(short, ignore)
        };
        let left = self.entries().filter(|(_, entry)| !entry.taken);
        let (left_out, unknown): (Vec<_>, Vec<_>) = left.partition(known);
        let [left_out, unknown]: [Vec<String>; 2] =
            [left_out, unknown].map(|tensors| tensors.into_iter().map(|(name, _)| name).collect());
        let Some(first) = unknown.first() else {
            return Ok(left_out);
        };
        let more = match unknown.len() - 1 {
            0 => String::new(),
            n => format!(" (nor are {n} more: {})", wrapper::listed(&unknown[1..])),
        };
        let by = self.description.as_deref().unwrap_or(CONFIG);
        let why = format!(
            "not a part of this architecture as {by} describes it{more}; correct {by}, or name it with --ignore"
        );
        Err(Error::tensor(first, why))
    }
}

/// Whether a tensor of this name need not be understood: it is known not to matter, or matches a pattern of `ignore`.
fn is_left_out(name: &str, ignore: &[String]) -> bool {
    UNUSED.into_iter().chain(ignore.iter().map(String::as_str)).any(|pattern| matches_pattern(pattern, name))
}

/// Whether `name` is `pattern` with each `*` replaced by some characters.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            rest.char_indices().map(|(i, _)| i).chain([rest.len()]).any(|i| matches_pattern(tail, &rest[i..]))
        }),
    }
}

/// Announces the tensors that [`Checkpoint::finish`] left out.
pub(crate) fn announce_left_out(names: Vec<String>, announcements: &mut Vec<String>) {
    if !names.is_empty() {
        announcements.push(format!("left out, not read at inference: {}", names.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(matches_pattern("*mask_token", "dinov2.embeddings.mask_token"));
        assert!(matches_pattern("*mask_token", "mask_token"));
        assert!(matches_pattern("aux.*.weight", "aux.head.fc.weight"));
        assert!(!matches_pattern("aux.*.weight", "aux.head.fc.bias"));
        assert!(!matches_pattern("mask_token", "mask_token2"));
    }
}
