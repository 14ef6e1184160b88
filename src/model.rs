//! A model file, checked once and borrowed from then on.
//!
//! `Model::parse` checks header, metadata, the tensor table against the canonical list of [`crate::layout`], and the
//! scales; it does not read the weights. After that every tensor's place follows from the hyperparameters (and a pruned network's
//! masks), so taking one apart costs an addition and can not fail.

mod metadata;
mod parts;

use crate::config::{Config, Family, Precision, Preprocess};
use crate::error::Error;
use crate::fpenv::exact;
use crate::gguf::{F32s, File, Places, TensorInfo, Value};
use crate::lanes::{ALIGNMENT, pad16};
use crate::layout::{self, DType, Kept, TensorSpec, keys};

use metadata::Metadata;
use parts::Cursor;
pub(crate) use parts::{
    Affine, Block, ConvBlock, Depthwise, Downsampling, Embedding, Linear, Local, Mixer, MixerBlock, MixerWeight, Mlp,
    Norm, Rotation, Stages, Tail, Talking, Weight,
};

/// A parsed model, borrowing the file's bytes.
#[derive(Clone, Copy)]
pub struct Model<'a> {
    config: Config,
    preprocess: Preprocess,
    file: File<'a>,
    kept: Kept<'a>,
    /// Offset of block 0.
    blocks_at: usize,
    /// Offset of what follows the last block.
    tail_at: usize,
}

/// A parsed model without the file's bytes, for owners that keep both: parsing is not done twice.
#[derive(Clone, Copy, Debug)]
pub struct ModelParts {
    config: Config,
    preprocess: Preprocess,
    file: Places,
    /// Where the masks stand in the file.
    kept: (usize, usize),
    blocks_at: usize,
    tail_at: usize,
}

impl ModelParts {
    /// The model again, of the bytes that it was parsed from. Of other bytes that are as many, it computes numbers
    /// without meaning or panics.
    ///
    /// # Errors
    /// `Truncated`, if the bytes are not as many; `Misaligned`.
    pub fn model<'a>(&self, bytes: &'a [u8]) -> Result<Model<'a>, Error> {
        let Self { config, preprocess, blocks_at, tail_at, .. } = *self;
        if !bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return Err(Error::Misaligned);
        }
        let file = self.file.file(bytes).ok_or(Error::Truncated)?;
        let kept = Kept::from_bytes(bytes.get(self.kept.0..self.kept.1).ok_or(Error::Truncated)?);
        Ok(Model { config, preprocess, file, kept, blocks_at, tail_at })
    }
}

impl<'a> Model<'a> {
    /// Checks a model file; `bytes` must start on a 64-byte boundary (a memory map does, [`crate::include_model!`] too).
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
        meta.check_periods(&config)?;
        let preprocess = meta.preprocess(&config)?;
        if let Some(Value::Strs(labels)) = file.get(keys::LABELS)
            && labels.len() != config.classes as u64
        {
            return Err(Error::Metadata { key: keys::LABELS, why: "not one label a class" });
        }
        let kept = meta.kept(&config)?;
        check_tensors(&file, &config, kept)?;

        let mut model = Self { config, preprocess, file, kept, blocks_at: 0, tail_at: 0 };
        let mut cursor = Cursor { data: file.data, at: 0 };
        let _ = model.embedding_at(&mut cursor);
        model.blocks_at = cursor.at;
        model.tail_at = if config.has_stages() {
            model.stages().end()
        } else {
            (0..config.blocks()).for_each(|i| model.pass_block(i, &mut cursor));
            cursor.at
        };
        Ok(model)
    }

    /// All but the bytes.
    pub fn parts(&self) -> ModelParts {
        let Self { config, preprocess, file, kept, blocks_at, tail_at } = *self;
        let kept = kept.bytes();
        let start = if kept.is_empty() { 0 } else { kept.as_ptr().addr() - file.bytes().as_ptr().addr() };
        let kept = (start, start + kept.len());
        ModelParts { config, preprocess, file: file.places(), kept, blocks_at, tail_at }
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

    /// The original gammas `[blocks, dim]` of the attention branches (0), the MLP branches (1) or XCiT's local branches (2, `[depth, dim]`),
    /// also when folded; `None` where the network has no such branch, or no gammas. In ConvNeXt each block's are as many as its stage is wide.
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

    /// Periods of DINOv3's rotations; none where the file does not have them.
    pub fn rope_periods(&self) -> impl ExactSizeIterator<Item = f32> + use<'a> {
        let periods = match self.file.get(keys::ROPE_PERIODS) {
            Some(Value::F32s(periods)) => periods,
            _ => F32s::default(),
        };
        periods.iter()
    }

    /// Which rows the last matrices of the branches have left.
    pub fn kept(&self) -> Kept<'a> {
        self.kept
    }

    /// Calls `visit` with every tensor and its bytes, in file order.
    pub fn for_each_tensor(&self, mut visit: impl FnMut(&TensorSpec, &'a [u8])) {
        let mut at = 0;
        let Ok(()) = layout::for_each_tensor(&self.config, self.kept, |spec| {
            visit(&spec, self.file.data.get(at..at + spec.bytes()).unwrap_or(&[]));
            at += spec.padded_bytes();
            Ok::<(), core::convert::Infallible>(())
        });
    }

    /// All tensor data, for checksums.
    pub fn data(&self) -> &'a [u8] {
        self.file.data
    }

    pub(crate) fn embedding(&self) -> Embedding<'a> {
        self.embedding_at(&mut Cursor { data: self.file.data, at: 0 })
    }

    /// The blocks of every family but ConvNeXt and ResMLP.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = Block<'a>> {
        let mut cursor = self.at_blocks();
        (0..self.config.blocks()).map(move |i| self.block_from(i, &mut cursor))
    }

    /// ResMLP's blocks.
    pub(crate) fn mixer_blocks(&self) -> impl Iterator<Item = MixerBlock<'a>> {
        let mut cursor = self.at_blocks();
        (0..self.config.depth).map(move |_| self.mixer_block_from(&mut cursor))
    }

    fn at_blocks(&self) -> Cursor<'a> {
        Cursor { data: self.file.data, at: self.blocks_at }
    }

    fn pass_block(&self, i: usize, cursor: &mut Cursor<'a>) {
        if self.config.family == Family::ResMlp {
            let _ = self.mixer_block_from(cursor);
        } else {
            let _ = self.block_from(i, cursor);
        }
    }

    /// ConvNeXt's stages, in their order.
    pub(crate) fn stages(&self) -> Stages<'a> {
        Stages { config: self.config, cursor: self.at_blocks() }
    }

    pub(crate) fn tail(&self) -> Tail<'a> {
        let c = &self.config;
        let mut cursor = Cursor { data: self.file.data, at: self.tail_at };
        let affine = c.norm && c.family == Family::ResMlp;
        Tail {
            affine: affine.then(|| cursor.affine(c.dim)),
            norm: (c.norm && !affine).then(|| cursor.norm(c.dim, c)),
            fc_norm: c.fc_norm.then(|| cursor.norm(c.dim, c)),
            head_factor: c.head_factors.then(|| cursor.chunks(c.parts() * pad16(c.dim) / 16)),
            head: (c.classes > 0).then(|| cursor.linear(c.classes, c.parts() * pad16(c.dim), c)),
        }
    }

    fn embedding_at(&self, cursor: &mut Cursor<'a>) -> Embedding<'a> {
        let c = &self.config;
        let mut stem = [None; layout::STEM.len()];
        for (i, layer) in stem.iter_mut().enumerate().take(c.stem_layers()) {
            *layer = Some(cursor.linear(c.stem_channels(i), c.stem_inputs(i), c));
        }
        Embedding {
            stem,
            patch: cursor.linear(c.embedding_dim(), c.patch_len(), c),
            positions: c.has_positions().then(|| {
                let (rows, columns) = c.table_grid();
                cursor.chunks(rows * columns * pad16(c.dim) / 16)
            }),
            rotation: (c.family == Family::Dinov3).then(|| {
                let chunks = c.patches() * pad16(c.head_dim / 2) / 16;
                Rotation { cos: cursor.chunks(chunks), sin: cursor.chunks(chunks) }
            }),
            prefix: cursor.chunks(c.prefix_tokens * pad16(c.dim) / 16),
            norm_pre: c.norm_pre.then(|| cursor.norm(c.embedding_dim(), c)),
        }
    }

    fn block_from(&self, i: usize, cursor: &mut Cursor<'a>) -> Block<'a> {
        let c = &self.config;
        let talks = c.family == Family::Cait && i < c.depth;
        let (cross, class) = (c.family == Family::Xcit && i < c.depth, c.family == Family::Xcit && i >= c.depth);
        Block {
            norm1: c.block_norm.then(|| cursor.norm(c.dim, c)),
            qkv: cursor.linear(3 * c.attention_width(), c.dim, c),
            qk_norm: c.qk_norm.then(|| (cursor.norm(c.head_dim, c), cursor.norm(c.head_dim, c))),
            bias: (c.family == Family::Beit).then(|| cursor.chunks(c.heads * pad16(c.relative_len()) / 16)),
            talking: talks.then(|| cursor.talking(c.heads)),
            temperature: cross.then(|| cursor.chunks(pad16(c.heads) / 16)),
            out: cursor.linear(self.kept.rows(c, i, 0), c.attention_width(), c),
            kept1: self.kept.mask(c, i, 0),
            gamma1: c.keeps_gamma().then(|| cursor.chunks(pad16(c.dim) / 16)),
            patches_norm: class.then(|| cursor.norm(c.dim, c)),
            local: cross.then(|| Local {
                norm: cursor.norm(c.dim, c),
                first: cursor.depthwise(c.dim, 3),
                affine: cursor.affine(c.dim),
                second: cursor.depthwise(c.dim, 3),
                gamma: c.keeps_gamma().then(|| cursor.chunks(pad16(c.dim) / 16)),
            }),
            stream_norm: class.then(|| cursor.norm(c.dim, c)),
            mlp: cursor.mlp(c.block_norm && !class, c, self.kept, i),
        }
    }

    fn mixer_block_from(&self, cursor: &mut Cursor<'a>) -> MixerBlock<'a> {
        let c = &self.config;
        MixerBlock {
            mixer: cursor.mixer(c),
            gamma1: c.keeps_gamma().then(|| cursor.chunks(pad16(c.dim) / 16)),
            mlp: cursor.mlp(c.block_norm, c, Kept::default(), 0),
        }
    }
}

fn check_tensors(file: &File<'_>, config: &Config, kept: Kept<'_>) -> Result<(), Error> {
    let mut table = file.tensors();
    let mut at = 0;
    layout::for_each_tensor(config, kept, |spec| {
        let wrong = |why| Error::Tensor { name: spec.name, why };
        let info = table.next().ok_or(wrong("missing"))?;
        check_tensor(&info, &spec, at).map_err(wrong)?;
        let end = at.checked_add(spec.bytes()).ok_or(Error::Truncated)?;
        let bytes = file.data.get(at..end).ok_or(Error::Truncated)?;
        let is_scale = spec.name.as_str().ends_with(".scale");
        // The floats of an f32 model are all of it, too much to read here; they show in its results.
        if is_scale || (spec.dtype == DType::F32 && config.precision != Precision::F32) {
            check_floats(bytes, is_scale && config.precision == Precision::Int8).map_err(wrong)?;
        }
        at += spec.padded_bytes();
        Ok::<(), Error>(())
    })?;
    match table.next() {
        Some(_) => Err(Error::Malformed("more tensors than the hyperparameters ask for")),
        None => Ok(()),
    }
}

fn check_tensor(info: &TensorInfo<'_>, spec: &TensorSpec, at: usize) -> Result<(), &'static str> {
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
