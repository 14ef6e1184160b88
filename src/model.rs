//! A model file, checked once and borrowed from then on.
//!
//! `Model::parse` checks header, metadata, the tensor table against the network's [parts](crate::parts), and the
//! scales; it does not read the weights. After that every tensor's place follows from the hyperparameters (and a pruned
//! network's masks).

mod metadata;

use crate::config::{Config, Precision, Preprocess};
use crate::error::Error;
use crate::fpenv::exact;
use crate::gguf::{F32s, File, Places, TensorInfo, Value};
use crate::lanes::ALIGNMENT;
use crate::layout::{DType, Kept, TensorSpec, keys};
use crate::networks::{self, Offsets, Part, Weights};
use crate::parts::List;

use metadata::Metadata;
/// A parsed model, borrowing the file's bytes.
#[derive(Clone, Copy)]
pub struct Model<'a> {
    config: Config,
    preprocess: Preprocess,
    file: File<'a>,
    kept: Kept<'a>,
    at: Offsets,
}

/// A parsed model without the file's bytes, for owners that keep both: parsing is not done twice.
#[derive(Clone, Copy, Debug)]
pub struct ModelParts {
    config: Config,
    preprocess: Preprocess,
    file: Places,
    /// Where the masks stand in the file.
    kept: (usize, usize),
    at: Offsets,
}

impl ModelParts {
    /// The model again, of the bytes that it was parsed from. Of other bytes that are as many, it computes numbers
    /// without meaning or panics.
    ///
    /// # Errors
    /// `Truncated`, if the bytes are not as many; `Misaligned`.
    pub fn model<'a>(&self, bytes: &'a [u8]) -> Result<Model<'a>, Error> {
        let Self { config, preprocess, at, .. } = *self;
        if !bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return Err(Error::Misaligned);
        }
        let file = self.file.file(bytes).ok_or(Error::Truncated)?;
        let kept = Kept::from_bytes(bytes.get(self.kept.0..self.kept.1).ok_or(Error::Truncated)?);
        Ok(Model { config, preprocess, file, kept, at })
    }
}

impl<'a> Model<'a> {
    /// Checks a model file; `bytes` must start on a 64-byte boundary (a memory map does, [`crate::include_model!`]
    /// too).
    ///
    /// # Errors
    /// Whatever is wrong with the file; see [`Error`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        // Hyperparameters and scales are compared with zero: a host that flushes denormals would let negative ones
        // pass.
        exact(|| Self::read(bytes))
    }

    fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        // Before the contents, which a caller may not have at their place yet. No bytes at all have no place.
        if !bytes.is_empty() && !bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return Err(Error::Misaligned);
        }
        let file = File::parse(bytes)?;
        let meta = Metadata(&file);
        meta.check_origin()?;
        let config = meta.config()?;
        config.check()?;
        meta.check_rope(&config)?;
        let preprocess = meta.preprocess(&config)?;
        if let Some(Value::Strs(labels)) = file.get(keys::LABELS)
            && labels.len() != config.labelled_classes() as u64
        {
            return Err(Error::Metadata { key: keys::LABELS, why: "not one label a class" });
        }
        let kept = meta.kept(&config)?;
        let at = check_tensors(&file, &config, kept)?;
        Ok(Self { config, preprocess, file, kept, at })
    }

    /// All but the bytes.
    pub fn parts(&self) -> ModelParts {
        let Self { config, preprocess, file, kept, at } = *self;
        let kept = kept.bytes();
        let start = if kept.is_empty() { 0 } else { kept.as_ptr().addr() - file.bytes().as_ptr().addr() };
        let kept = (start, start + kept.len());
        ModelParts { config, preprocess, file: file.places(), kept, at }
    }

    /// The network's hyperparameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How a picture becomes the network's input.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// `general.name`.
    pub fn name(&self) -> Option<&'a str> {
        self.text(keys::NAME)
    }

    /// A string of the metadata, by its key (see [`keys`]).
    pub fn text(&self, key: &str) -> Option<&'a str> {
        match self.file.get(key)? {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }

    /// The checksum that the file states (docs/format.md); `None` if it states none.
    pub fn stated_checksum(&self) -> Option<u64> {
        match self.file.get(keys::CHECKSUM)? {
            Value::U64(v) => Some(v),
            _ => None,
        }
    }

    /// The labels in order of their class; empty where the file has none.
    pub fn labels(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let labels = match self.file.get(keys::LABELS) {
            Some(Value::Strs(labels)) => Some(labels),
            _ => None,
        };
        labels.into_iter().flatten()
    }

    /// The label of one class.
    pub fn label(&self, class: usize) -> Option<&'a str> {
        self.labels().nth(class)
    }

    /// The original gammas `[blocks, dim]` of the attention branches (0), the MLP branches (1) or XCiT's local branches
    /// (2, `[depth, dim]`), also when folded; `None` where the network has no such branch, or no gammas. In ConvNeXt
    /// each block's are as many as its stage is wide.
    pub fn original_gamma(&self, branch: usize) -> Option<impl Iterator<Item = f32> + use<'a>> {
        let (key, channels) = match branch {
            0 => (keys::LAYERSCALE_GAMMA1, self.config.stream_channels()),
            1 => (keys::LAYERSCALE_GAMMA2, self.config.stream_channels()),
            _ => (keys::LAYERSCALE_GAMMA3, self.config.depth * self.config.dim),
        };
        match self.file.get(key)? {
            Value::F32s(values) if values.len() == channels => Some(values.iter()),
            _ => None,
        }
    }

    /// What angles of rotations are computed from, `[head_dim / 4]`: DINOv3's periods or ViT-5's frequencies; none
    /// where the file does not have them.
    pub fn rope(&self) -> impl ExactSizeIterator<Item = f32> + use<'a> {
        let numbers = match self.file.get(keys::rope(&self.config.family)) {
            Some(Value::F32s(numbers)) => numbers,
            _ => F32s::default(),
        };
        numbers.iter()
    }

    /// Which rows the last matrices of the branches have left.
    pub fn kept(&self) -> Kept<'a> {
        self.kept
    }

    /// Calls `visit` with every tensor and its bytes, in file order.
    pub fn for_each_tensor(&self, mut visit: impl FnMut(&TensorSpec, &'a [u8])) {
        let mut at = 0;
        let all = networks::for_each_tensor(&self.config, self.kept, |spec| {
            // `parse` has checked that all of them are there.
            let bytes = self.file.data.get(at..at + spec.bytes()).ok_or(())?;
            at += spec.padded_bytes();
            visit(&spec, bytes);
            Ok::<(), ()>(())
        });
        debug_assert!(all.is_ok(), "a tensor of a checked model is missing");
    }

    /// All tensor data, for checksums.
    pub fn data(&self) -> &'a [u8] {
        self.file.data
    }

    pub(crate) fn weights(&self) -> Weights<'_> {
        let Self { config, kept, at, .. } = self;
        Weights { config, kept: *kept, data: self.file.data, at: *at }
    }
}

/// Checks the table of tensors.
fn check_tensors(file: &File<'_>, config: &Config, kept: Kept<'_>) -> Result<Offsets, Error> {
    let mut table = file.tensors();
    let (mut at, mut offsets) = (0, Offsets::default());
    // Beside the walk, which passes its result on at every tensor.
    let mut error = None;
    let all = networks::for_each_part(config, |part| {
        match part {
            Part::Block(0) | Part::ConvBlock { block: 0, .. } | Part::MixerBlock(0) => offsets.blocks = at,
            Part::Tail => offsets.tail = at,
            Part::Dpt | Part::LinearHead => offsets.head = at,
            _ => {}
        }
        let mut list = List::new(config, kept, |spec: TensorSpec| {
            match check_tensor(file, table.next(), &spec, at, config.precision) {
                Ok(end) => at = end,
                Err(why) => error = Some(why),
            }
            if error.is_none() { Ok(()) } else { Err(()) }
        });
        part.walk(config, &mut list)
    });
    match (all, error, table.next()) {
        (Err(()), Some(error), _) => Err(error),
        (_, _, Some(_)) => Err(Error::Malformed("more tensors than the hyperparameters ask for")),
        _ => Ok(offsets),
    }
}

/// Checks a tensor of the table and its floats; returns the offset of the next one.
fn check_tensor(
    file: &File<'_>,
    info: Option<TensorInfo<'_>>,
    spec: &TensorSpec,
    at: usize,
    precision: Precision,
) -> Result<usize, Error> {
    let wrong = |why| Error::Tensor { name: spec.name, why };
    check_info(&info.ok_or(wrong("missing"))?, spec, at).map_err(wrong)?;
    let end = at.checked_add(spec.bytes()).ok_or(Error::Truncated)?;
    let bytes = file.data.get(at..end).ok_or(Error::Truncated)?;
    let is_scale = spec.name.as_str().ends_with(".scale");
    // The floats of an f32 model are all of it, too much to read here; they show in its results.
    if is_scale || (spec.dtype == DType::F32 && precision != Precision::F32) {
        check_floats(bytes, is_scale && precision == Precision::Int8).map_err(wrong)?;
    }
    Ok(at + spec.padded_bytes())
}

fn check_info(info: &TensorInfo<'_>, spec: &TensorSpec, at: usize) -> Result<(), &'static str> {
    if info.name != spec.name.as_str() {
        return Err("missing or out of order");
    }
    if info.ggml_type != spec.dtype.ggml() {
        return Err("wrong element type");
    }
    if !info.dims().iter().copied().eq(spec.dims().iter().map(|&d| d as u64)) {
        return Err("wrong shape");
    }
    if info.offset != at as u64 {
        return Err("not at its place in the file");
    }
    Ok(())
}

/// Scales, biases, norms and embeddings: small, and one that is not finite spoils every answer.
fn check_floats(bytes: &[u8], never_negative: bool) -> Result<(), &'static str> {
    for value in bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)) {
        if !value.is_finite() {
            return Err("a value is not finite");
        }
        if never_negative && value < 0.0 {
            return Err("a scale is negative");
        }
    }
    Ok(())
}
