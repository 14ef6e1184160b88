//! The tensors of a checkpoint: safetensors or PyTorch's own files, one or sharded, made f32 as they are taken.
//!
//! Every tensor is accounted for: `take` marks it, and `finish` refuses what nobody took, so a network that is not
//! what its config says can not be converted by accident. `wrapper` finds the network where its names have a prefix.
//! Not here: which tensors a network has (`timm`, `transformers`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use crate::error::Error;
use crate::network::{Linear, Norm};
use crate::pickle;

mod files;

use files::is_named_as_torch;
pub(crate) use files::{is_weights, weight_files};

mod wrapper;

/// Tensors that checkpoints of these networks carry and that the forward pass does not read: the token that
/// replaces masked patches in pre-training, the pooler of transformers' headless models, timm's removed pre-logits layer,
/// BEiT's table of indices into its tables.
const UNUSED: [&str; 4] = ["*mask_token", "*pooler.dense.*", "pre_logits.*", "*relative_position_index"];

/// What says which tensors there must be, if nothing else does.
const CONFIG: &str = "config.json";

/// The tensors of one checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Checkpoint {
    files: Vec<Mmap>,
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
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
    /// Of PyTorch's files: steps between elements, where rows do not follow each other without gaps.
    strides: Option<Vec<usize>>,
    /// Why the tensor can not be read.
    fault: Option<String>,
    taken: bool,
}

impl Entry {
    /// Whether the elements are no weights: steps that were counted (`num_batches_tracked`), positions, masks.
    fn counts(&self) -> bool {
        use Dtype::{BOOL, I8, I16, I32, I64, U8, U16, U32, U64};
        matches!(self.dtype, BOOL | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64)
    }

    /// The elements, row by row.
    fn elements<'f>(&self, files: &'f [Mmap]) -> Cow<'f, [u8]> {
        let bytes = &files[self.file][self.bytes.clone()];
        match &self.strides {
            Some(strides) => Cow::Owned(pickle::gather(bytes, &self.shape, strides, self.dtype.bitsize() / 8)),
            None => Cow::Borrowed(bytes),
        }
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
            let bytes = map(path)?;
            refuse_lfs_pointer(path, &bytes)?;
            if pickle::is_torch(&bytes) || is_named_as_torch(path) {
                all.add_torch(path, &bytes, ema, announcements)?;
            } else if ema {
                return Err(Error::file(path, "--ema is for files of PyTorch's; this one has one kind of weights"));
            } else {
                all.add_safetensors(path, &bytes)?;
            }
            all.files.push(bytes);
        }
        Ok(all)
    }

    fn add_safetensors(&mut self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let damaged = |e| Error::file(path, format!("not a whole safetensors file ({e}); download it again"));
        let (header_len, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        SafeTensors::deserialize(bytes).map_err(damaged)?;
        let data_at = 8 + header_len;
        for (name, info) in metadata.tensors() {
            let bytes = data_at + info.data_offsets.0..data_at + info.data_offsets.1;
            let shape = info.shape.clone();
            self.insert(&name, pickle::Tensor { dtype: info.dtype, shape, strides: None, bytes }, None)?;
        }
        Ok(())
    }

    fn add_torch(
        &mut self,
        path: &Path,
        bytes: &[u8],
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
                Ok(tensor) => self.insert(&name, tensor, None)?,
                Err(fault) => self.insert(&name, pickle::Tensor::default(), Some(fault))?,
            }
        }
        Ok(())
    }

    /// Adds a tensor of the file that is added next to `files`.
    fn insert(&mut self, name: &str, tensor: pickle::Tensor, fault: Option<String>) -> Result<(), Error> {
        let pickle::Tensor { dtype, shape, strides, bytes } = tensor;
        let entry = Entry { file: self.files.len(), dtype, shape, bytes, strides, fault, taken: false };
        let short = wrapper::without_infixes(name);
        if self.tensors.insert(short.clone(), entry).is_some() {
            return Err(Error::tensor(name, format!("there are two tensors named {short}")));
        }
        Ok(())
    }

    /// Says what the network is described by, if not by config.json.
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
        self.tensors.get(name).map(|t| t.shape.as_slice())
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

    /// Takes a tensor of this shape as f32, row by row.
    ///
    /// # Errors
    /// Missing, of another shape or of an integer type, NaN or infinite values.
    pub(crate) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let refused = |why: String| Error::tensor(&format!("{}{name}", self.prefix), why);
        let asker = self.description.as_deref().unwrap_or(CONFIG);
        let Some(entry) = self.tensors.get_mut(name) else {
            let others = self.others(name);
            return Err(refused(format!("missing; {asker} asks for one of shape {shape:?}{others}")));
        };
        if let Some(fault) = &entry.fault {
            return Err(refused(fault.clone()));
        }
        if entry.shape != shape {
            return Err(refused(format!("shape {:?}, but {asker} asks for {shape:?}", entry.shape)));
        }
        entry.taken = true;
        let bytes = entry.elements(&self.files);
        let values = match entry.dtype {
            Dtype::F64 => to_f32(&bytes, |b| f64::from_le_bytes(b) as f32),
            Dtype::F32 => to_f32(&bytes, f32::from_le_bytes),
            Dtype::F16 => to_f32(&bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => to_f32(&bytes, |b| bf16::from_le_bytes(b).to_f32()),
            other => return Err(refused(format!("{other:?} values; f64, f32, f16 and bf16 are read"))),
        };
        match values.iter().position(|x| !x.is_finite()) {
            Some(at) => Err(refused(not_finite(entry.dtype, &bytes, at, values[at]))),
            None => Ok(values),
        }
    }

    /// Takes `{name}.weight` `[n, k]` and, where `bias`, `{name}.bias` `[n]`.
    ///
    /// # Errors
    /// As [`Checkpoint::take`].
    pub(crate) fn linear(&mut self, name: &str, n: usize, k: usize, bias: bool) -> Result<Linear, Error> {
        Ok(Linear {
            n,
            k,
            weight: self.take(&format!("{name}.weight"), &[n, k])?,
            bias: if bias { self.take(&format!("{name}.bias"), &[n])? } else { vec![0.0; n] },
        })
    }

    /// Takes a patch convolution `{name}.weight` `[n, 3, height, width]` as a matrix, and its bias where `bias`.
    ///
    /// # Errors
    /// As [`Checkpoint::take`].
    pub(crate) fn patch(&mut self, name: &str, n: usize, patch: (usize, usize), bias: bool) -> Result<Linear, Error> {
        Ok(Linear {
            n,
            k: 3 * patch.0 * patch.1,
            weight: self.take(&format!("{name}.weight"), &[n, 3, patch.0, patch.1])?,
            bias: if bias { self.take(&format!("{name}.bias"), &[n])? } else { vec![0.0; n] },
        })
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
        let patterns: Vec<&str> = UNUSED.into_iter().chain(ignore.iter().map(String::as_str)).collect();
        let known = |(name, entry): &(String, &Entry)| {
            let short = name.strip_prefix(&self.prefix).unwrap_or(name);
            entry.counts() || patterns.iter().any(|p| matches_pattern(p, name) || matches_pattern(p, short))
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

fn map(path: &Path) -> Result<Mmap, Error> {
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    // SAFETY: the map is only read; as with every memory-mapped file, whoever truncates it meanwhile ends this process
    // with a bus error, and whoever writes to it meanwhile gets other weights: no reference outlives the conversion.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(|e| Error::file(path, e))
}

/// A clone without `git lfs` leaves a small text file in the place of each large one.
pub(crate) fn refuse_lfs_pointer(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(Error::file(
            path,
            "a git-LFS pointer instead of the file itself; run `git lfs pull` in its repository",
        ));
    }
    Ok(())
}

fn to_f32<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|b| convert(*b)).collect()
}

/// What is wrong with element `at` of a tensor, which is `value` in f32.
fn not_finite(dtype: Dtype, bytes: &[u8], at: usize, value: f32) -> String {
    let double = bytes.as_chunks::<8>().0.get(at).map(|b| f64::from_le_bytes(*b));
    match double.filter(|x| dtype == Dtype::F64 && x.is_finite()) {
        Some(x) => format!("value {x:e} at element {at} is beyond what f32 holds (3.4e38)"),
        None => format!("value {value} at element {at}; the weights are broken"),
    }
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
