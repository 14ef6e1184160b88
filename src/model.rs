//! A model file, checked once and borrowed from then on.
//!
//! `Model::parse` checks header, metadata, the tensor table against the canonical list of [`crate::layout`], and the
//! scales; it does not read the weights. After that every tensor's place follows from the hyperparameters (and a pruned network's
//! masks), so taking one apart costs an addition and can not fail.

use crate::bytes::{self, Plain};
use crate::config::{CONVNEXT_KERNEL, Config, Family, LayerScale, Named, Precision, StageConfig, pad16};
use crate::error::Error;
use crate::gguf::{File, TensorInfo, Value};
use crate::kernels::attention::talking::TalkingHeads;
use crate::kernels::isa::{F16x16, F32x16, I8x16x4, I32x16, U8x16};
use crate::layout::{self, ALIGNMENT, Kept, TensorSpec, keys};
use crate::picture::{CropRounding, Interpolation, Preprocess, Resize};

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

impl<'a> Model<'a> {
    /// Checks a model file; `bytes` must start on a 64-byte boundary (a memory map does, [`crate::include_model!`] too).
    ///
    /// # Errors
    /// Whatever is wrong with the file; see [`Error`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let file = File::parse(bytes)?;
        if !bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return Err(Error::Misaligned);
        }
        let meta = Metadata(&file);
        meta.check_origin()?;
        let config = meta.config()?;
        config.check()?;
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
            positions: c.has_positions().then(|| cursor.chunks(c.patches() * pad16(c.dim) / 16)),
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

/// LayerNorm's parameters, each `[pad16(n)]`.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'a> {
    pub(crate) weight: &'a [F32x16],
    pub(crate) bias: &'a [F32x16],
    /// Channels that are normalised over.
    pub(crate) n: usize,
    pub(crate) eps: f32,
}

/// A matrix `[N, K]`, packed as docs/format.md says, with its per-channel vectors `[pad16(N)]`.
#[derive(Clone, Copy)]
pub(crate) struct Linear<'a> {
    pub(crate) k: usize,
    pub(crate) weight: Weight<'a>,
    pub(crate) bias: &'a [F32x16],
}

#[derive(Clone, Copy)]
pub(crate) enum Weight<'a> {
    Int8 { codes: &'a [I8x16x4], scale: &'a [F32x16], sums: &'a [I32x16] },
    F16 { values: &'a [F16x16], scale: &'a [F32x16] },
    F32 { values: &'a [F32x16] },
}

/// What turns pictures into tokens.
pub(crate) struct Embedding<'a> {
    /// XCiT's convolutions before that which is `patch`, their kernels as rows `[tap, channel]`, those of the first `[channel, tap]`.
    pub(crate) stem: [Option<Linear<'a>>; layout::STEM.len()],
    pub(crate) patch: Linear<'a>,
    /// `[patches, pad16(dim)]`.
    pub(crate) positions: Option<&'a [F32x16]>,
    pub(crate) rotation: Option<Rotation<'a>>,
    /// `[prefix tokens, pad16(dim)]`, with their positions added.
    pub(crate) prefix: &'a [F32x16],
    pub(crate) norm_pre: Option<Norm<'a>>,
}

/// Rotary position embedding: by which angle each pair of q's and k's channels is rotated, `[patches, pad16(head_dim / 2)]` each.
#[derive(Clone, Copy)]
pub(crate) struct Rotation<'a> {
    pub(crate) cos: &'a [F32x16],
    pub(crate) sin: &'a [F32x16],
}

/// One transformer block.
pub(crate) struct Block<'a> {
    /// `None` where the branch reads the stream itself.
    pub(crate) norm1: Option<Norm<'a>>,
    pub(crate) qkv: Linear<'a>,
    /// q's and k's LayerNorm.
    pub(crate) qk_norm: Option<(Norm<'a>, Norm<'a>)>,
    /// Relative position tables `[heads, pad16(relative_len)]`.
    pub(crate) bias: Option<&'a [F32x16]>,
    pub(crate) talking: Option<TalkingHeads<'a>>,
    /// XCiT's factors on the scores `[pad16(heads)]`: the attention is between channels.
    pub(crate) temperature: Option<&'a [F32x16]>,
    pub(crate) out: Linear<'a>,
    /// The channels that `out` has rows for; `None` if for all.
    pub(crate) kept1: Option<&'a [[u8; 2]]>,
    pub(crate) gamma1: Option<&'a [F32x16]>,
    /// What XCiT's class attention adds to the patches, in place of attention.
    pub(crate) patches_norm: Option<Norm<'a>>,
    pub(crate) local: Option<Local<'a>>,
    /// XCiT's class attention: a norm of the stream itself, before the MLP, which then has none of its own.
    pub(crate) stream_norm: Option<Norm<'a>>,
    pub(crate) mlp: Mlp<'a>,
}

/// The second residual branch of a block.
pub(crate) struct Mlp<'a> {
    /// `None` where the branch reads the stream itself.
    pub(crate) norm: Option<Norm<'a>>,
    pub(crate) up: Linear<'a>,
    pub(crate) down: Linear<'a>,
    /// The channels that `down` has rows for; `None` if for all.
    pub(crate) kept: Option<&'a [[u8; 2]]>,
    pub(crate) gamma: Option<&'a [F32x16]>,
}

/// One block of ResMLP.
pub(crate) struct MixerBlock<'a> {
    pub(crate) mixer: Mixer<'a>,
    pub(crate) gamma1: Option<&'a [F32x16]>,
    pub(crate) mlp: Mlp<'a>,
}

/// A matrix over the T tokens, row by row, and the diagonals around it: `factor_c (W x)[t][c] + offset_c row_sum_t + bias_factor_c bias_t`.
#[derive(Clone, Copy)]
pub(crate) struct Mixer<'a> {
    pub(crate) weight: MixerWeight<'a>,
    /// `[pad16(T)]`.
    pub(crate) bias: &'a [F32x16],
    /// `[pad16(T)]`: the sums of W's rows.
    pub(crate) row_sum: &'a [F32x16],
    /// `[pad16(dim)]`.
    pub(crate) factor: &'a [F32x16],
    /// `[pad16(dim)]`.
    pub(crate) offset: &'a [F32x16],
    /// `[pad16(dim)]`.
    pub(crate) bias_factor: &'a [F32x16],
}

/// Rows `[T, pad16(T)]`, with their scales and sums.
#[derive(Clone, Copy)]
pub(crate) enum MixerWeight<'a> {
    /// Codes as signed bytes.
    Int8 {
        codes: &'a [U8x16],
        scale: &'a [F32x16],
        sums: &'a [I32x16],
    },
    F16 {
        values: &'a [F16x16],
        scale: &'a [F32x16],
    },
    F32 {
        values: &'a [F32x16],
    },
}

/// ConvNeXt's stages, to be taken in the order of the file: [`downsampling`](Self::downsampling) of each but the first, then its blocks.
pub(crate) struct Stages<'a> {
    config: Config,
    cursor: Cursor<'a>,
}

impl<'a> Stages<'a> {
    /// What comes before stage `stage`, which is not the first.
    pub(crate) fn downsampling(&mut self, stage: usize) -> Downsampling<'a> {
        let (c, before) = (&self.config, self.config.stages[stage - 1].dim);
        Downsampling {
            norm: self.cursor.norm(before, c),
            linear: self.cursor.linear(c.stages[stage].dim, 4 * pad16(before), c),
        }
    }

    /// The next block of stage `stage`.
    pub(crate) fn block(&mut self, stage: usize) -> ConvBlock<'a> {
        let (c, StageConfig { dim, .. }) = (&self.config, self.config.stages[stage]);
        let hidden = pad16(self.config.stages[stage].hidden());
        ConvBlock {
            conv: self.cursor.depthwise(dim, CONVNEXT_KERNEL),
            norm: self.cursor.norm(dim, c),
            up: self.cursor.linear(hidden, dim, c),
            down: self.cursor.linear(dim, hidden, c),
            gamma: c.keeps_gamma().then(|| self.cursor.chunks(pad16(dim) / 16)),
        }
    }

    /// The offset after the last block.
    fn end(mut self) -> usize {
        for (i, stage) in self.config.stages.into_iter().enumerate() {
            if i > 0 {
                let _ = self.downsampling(i);
            }
            for _ in 0..stage.depth {
                let _ = self.block(i);
            }
        }
        self.cursor.at
    }
}

/// What halves height and width between two stages.
pub(crate) struct Downsampling<'a> {
    pub(crate) norm: Norm<'a>,
    /// Of 2 x 2 tokens side by side, `[dy][dx][pad16(dim)]`.
    pub(crate) linear: Linear<'a>,
}

/// One of ConvNeXt's blocks.
pub(crate) struct ConvBlock<'a> {
    pub(crate) conv: Depthwise<'a>,
    pub(crate) norm: Norm<'a>,
    pub(crate) up: Linear<'a>,
    pub(crate) down: Linear<'a>,
    pub(crate) gamma: Option<&'a [F32x16]>,
}

/// XCiT's local patch interaction: a depthwise convolution, GELU, BatchNorm, a depthwise convolution.
pub(crate) struct Local<'a> {
    pub(crate) norm: Norm<'a>,
    pub(crate) first: Depthwise<'a>,
    /// What BatchNorm is at inference.
    pub(crate) affine: Affine<'a>,
    pub(crate) second: Depthwise<'a>,
    pub(crate) gamma: Option<&'a [F32x16]>,
}

/// A depthwise convolution.
#[derive(Clone, Copy)]
pub(crate) struct Depthwise<'a> {
    /// Edge of the kernel.
    pub(crate) kernel: usize,
    /// `[kernel * kernel, pad16(n)]`.
    pub(crate) weight: &'a [F32x16],
    /// `[pad16(n)]`.
    pub(crate) bias: &'a [F32x16],
}

/// Factors and offsets of channels, `[pad16(n)]` each.
pub(crate) struct Affine<'a> {
    pub(crate) factor: &'a [F32x16],
    pub(crate) offset: &'a [F32x16],
}

/// What turns tokens into logits.
pub(crate) struct Tail<'a> {
    /// What ResMLP has in the place of a norm.
    pub(crate) affine: Option<Affine<'a>>,
    pub(crate) norm: Option<Norm<'a>>,
    pub(crate) fc_norm: Option<Norm<'a>>,
    pub(crate) head: Option<Linear<'a>>,
}

/// Walks the tensor data in the canonical order, which `parse` has checked.
struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn chunks<T: Plain>(&mut self, count: usize) -> &'a [T] {
        let bytes = count * size_of::<T>();
        let start = self.at;
        self.at += bytes.next_multiple_of(ALIGNMENT);
        // `parse` has checked that every tensor lies within the data; an empty slice can only follow from a bug here.
        self.data.get(start..start + bytes).and_then(bytes::cast).unwrap_or(&[])
    }

    fn norm(&mut self, n: usize, c: &Config) -> Norm<'a> {
        let chunks = pad16(n) / 16;
        Norm { weight: self.chunks(chunks), bias: self.chunks(chunks), n, eps: c.norm_eps }
    }

    fn depthwise(&mut self, n: usize, kernel: usize) -> Depthwise<'a> {
        let chunks = pad16(n) / 16;
        Depthwise { kernel, weight: self.chunks(kernel * kernel * chunks), bias: self.chunks(chunks) }
    }

    fn affine(&mut self, n: usize) -> Affine<'a> {
        let chunks = pad16(n) / 16;
        Affine { factor: self.chunks(chunks), offset: self.chunks(chunks) }
    }

    fn mlp(&mut self, norm: bool, c: &Config, kept: Kept<'a>, block: usize) -> Mlp<'a> {
        Mlp {
            norm: norm.then(|| self.norm(c.dim, c)),
            up: self.linear(c.ffn_up_width(), c.dim, c),
            down: self.linear(kept.rows(c, block, 1), pad16(c.hidden), c),
            kept: kept.mask(c, block, 1),
            gamma: c.keeps_gamma().then(|| self.chunks(pad16(c.dim) / 16)),
        }
    }

    fn mixer(&mut self, c: &Config) -> Mixer<'a> {
        let (tokens, dim) = (pad16(c.tokens()) / 16, pad16(c.dim) / 16);
        let chunks = c.tokens() * tokens;
        let weight = match c.precision {
            Precision::Int8 => {
                MixerWeight::Int8 { codes: self.chunks(chunks), scale: self.chunks(tokens), sums: self.chunks(tokens) }
            }
            Precision::F16 => MixerWeight::F16 { values: self.chunks(chunks), scale: self.chunks(tokens) },
            Precision::F32 => MixerWeight::F32 { values: self.chunks(chunks) },
        };
        Mixer {
            weight,
            bias: self.chunks(tokens),
            row_sum: self.chunks(tokens),
            factor: self.chunks(dim),
            offset: self.chunks(dim),
            bias_factor: self.chunks(dim),
        }
    }

    fn talking(&mut self, heads: usize) -> TalkingHeads<'a> {
        let chunks = pad16(heads) / 16;
        TalkingHeads {
            logits: self.chunks(heads * chunks),
            logits_bias: self.chunks(chunks),
            weights: self.chunks(heads * chunks),
            weights_bias: self.chunks(chunks),
        }
    }

    fn linear(&mut self, n: usize, k: usize, c: &Config) -> Linear<'a> {
        let blocks = pad16(n) / 16;
        let weight = match c.precision {
            Precision::Int8 => Weight::Int8 {
                codes: self.chunks(blocks * layout::k8(k) / 4),
                scale: self.chunks(blocks),
                sums: self.chunks(blocks),
            },
            Precision::F16 => Weight::F16 { values: self.chunks(blocks * k), scale: self.chunks(blocks) },
            Precision::F32 => Weight::F32 { values: self.chunks(blocks * k) },
        };
        Linear { k, weight, bias: self.chunks(blocks) }
    }
}

fn check_tensors(file: &File<'_>, config: &Config, kept: Kept<'_>) -> Result<(), Error> {
    let mut table = file.tensors();
    let mut at = 0;
    layout::for_each_tensor(config, kept, |spec| {
        let wrong = |why| Error::Tensor { name: spec.name, why };
        let info = table.next().ok_or(wrong("missing"))?;
        check_tensor(&info, &spec, at).map_err(wrong)?;
        let bytes = file.data.get(at..at + spec.bytes()).ok_or(Error::Truncated)?;
        if spec.name.as_str().ends_with(".scale") {
            check_scales(bytes, config.precision).map_err(wrong)?;
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

fn check_scales(bytes: &[u8], precision: Precision) -> Result<(), &'static str> {
    for scale in bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)) {
        if !scale.is_finite() {
            return Err("a scale is not finite");
        }
        if precision == Precision::Int8 && scale < 0.0 {
            return Err("a scale is negative");
        }
    }
    Ok(())
}

/// Typed access to the metadata.
struct Metadata<'f, 'a>(&'f File<'a>);

impl<'a> Metadata<'_, 'a> {
    fn get<T>(&self, key: &'static str, pick: impl Fn(Value<'a>) -> Option<T>) -> Result<T, Error> {
        let value = self.0.get(key).ok_or(Error::Metadata { key, why: "missing" })?;
        pick(value).ok_or(Error::Metadata { key, why: "wrong type or value" })
    }

    fn len(&self, key: &'static str) -> Result<usize, Error> {
        self.get(key, |v| if let Value::U32(n) = v { usize::try_from(n).ok() } else { None })
    }

    fn f32(&self, key: &'static str) -> Result<f32, Error> {
        self.get(key, |v| if let Value::F32(x) = v { Some(x) } else { None })
    }

    fn flag(&self, key: &'static str) -> Result<bool, Error> {
        self.get(key, |v| if let Value::Bool(b) = v { Some(b) } else { None })
    }

    fn text(&self, key: &'static str) -> Result<&'a str, Error> {
        self.get(key, |v| if let Value::Str(s) = v { Some(s) } else { None })
    }

    fn named<T: Named>(&self, key: &'static str) -> Result<T, Error> {
        self.get(key, |v| if let Value::Str(s) = v { T::from_name(s) } else { None })
    }

    fn rgb(&self, key: &'static str) -> Result<[f32; 3], Error> {
        self.get(key, |v| {
            let Value::F32s(values) = v else { return None };
            let mut rgb = [0.0; 3];
            (values.len() == 3).then(|| rgb.iter_mut().zip(values.iter()).for_each(|(c, x)| *c = x))?;
            Some(rgb)
        })
    }

    fn check_origin(&self) -> Result<(), Error> {
        if self.named::<Family>(keys::ARCHITECTURE).is_err() || self.0.get(keys::FORMAT_VERSION).is_none() {
            return Err(Error::Architecture);
        }
        let version = self.len(keys::FORMAT_VERSION)?;
        if version != layout::FORMAT_VERSION as usize {
            return Err(Error::FormatVersion(version as u32));
        }
        if self.len(keys::ALIGNMENT)? != ALIGNMENT {
            return Err(Error::Metadata { key: keys::ALIGNMENT, why: "must be 64" });
        }
        Ok(())
    }

    fn config(&self) -> Result<Config, Error> {
        if self.len(keys::CHANNELS)? != 3 {
            return Err(Error::Metadata { key: keys::CHANNELS, why: "must be 3" });
        }
        let family = self.named(keys::ARCHITECTURE)?;
        Ok(Config {
            family,
            image_height: self.len(keys::IMAGE_HEIGHT)?,
            image_width: self.len(keys::IMAGE_WIDTH)?,
            patch_height: self.len(keys::PATCH_HEIGHT)?,
            patch_width: self.len(keys::PATCH_WIDTH)?,
            dim: self.len(keys::DIM)?,
            depth: self.len(keys::DEPTH)?,
            stages: if family == Family::ConvNeXt { self.stages()? } else { Default::default() },
            class_blocks: match family {
                Family::Cait | Family::Xcit => self.len(keys::CLASS_BLOCKS)?,
                _ => 0,
            },
            tokens_norm: family == Family::Xcit && self.flag(keys::TOKENS_NORM)?,
            heads: self.len(keys::HEADS)?,
            head_dim: self.len(keys::HEAD_DIM)?,
            hidden: self.len(keys::HIDDEN)?,
            prefix_tokens: self.len(keys::PREFIX_TOKENS)?,
            norm_eps: self.f32(keys::NORM_EPS)?,
            attention_scale: self.f32(keys::ATTENTION_SCALE)?,
            qk_norm: self.flag(keys::QK_NORM)?,
            norm_pre: self.flag(keys::NORM_PRE)?,
            block_norm: self.0.get(keys::BLOCK_NORM).is_none() || self.flag(keys::BLOCK_NORM)?,
            norm: self.flag(keys::NORM)?,
            fc_norm: self.flag(keys::FC_NORM)?,
            activation: self.named(keys::ACTIVATION)?,
            pooling: self.named(keys::POOLING)?,
            classes: self.len(keys::CLASSES)?,
            scores: self.named(keys::SCORES)?,
            precision: self.named(keys::PRECISION)?,
            layerscale: self.named::<LayerScale>(keys::LAYERSCALE_MODE)?,
            pruned: self.0.get(keys::KEPT).is_some(),
        })
    }

    /// Which rows the last matrices of branches have left.
    fn kept(&self, config: &Config) -> Result<Kept<'a>, Error> {
        let masks = |v| if let Value::U32s(masks) = v { Some(masks) } else { None };
        let masks = if config.pruned { self.get(keys::KEPT, masks)? } else { &[] };
        Kept::new(masks, config).map_err(|why| Error::Metadata { key: keys::KEPT, why })
    }

    /// ConvNeXt's widths and depths.
    fn stages(&self) -> Result<[StageConfig; 4], Error> {
        let four = |key| self.get(key, |v| if let Value::U32s(n) = v { n.try_into().ok() } else { None });
        let [dims, depths]: [[[u8; 4]; 4]; 2] = [four(keys::STAGE_DIMS)?, four(keys::STAGE_DEPTHS)?];
        let len = |bytes| u32::from_le_bytes(bytes) as usize;
        Ok(core::array::from_fn(|i| StageConfig { dim: len(dims[i]), depth: len(depths[i]) }))
    }

    fn preprocess(&self, config: &Config) -> Result<Preprocess, Error> {
        let size = |key| self.len(key).map(|n| n as u32);
        let resize = match self.text(keys::RESIZE)? {
            "shorter_edge" => Resize::ShorterEdge(size(keys::RESIZE_HEIGHT)?),
            "exact" => Resize::Exact { height: size(keys::RESIZE_HEIGHT)?, width: size(keys::RESIZE_WIDTH)? },
            "cover" => Resize::Cover { height: size(keys::RESIZE_HEIGHT)?, width: size(keys::RESIZE_WIDTH)? },
            "contain" => Resize::Contain { height: size(keys::RESIZE_HEIGHT)?, width: size(keys::RESIZE_WIDTH)? },
            _ => return Err(Error::Metadata { key: keys::RESIZE, why: "unknown" }),
        };
        let interpolation = match self.text(keys::INTERPOLATION)? {
            "bicubic" => Interpolation::Bicubic,
            "bilinear" => Interpolation::Bilinear,
            _ => return Err(Error::Metadata { key: keys::INTERPOLATION, why: "unknown" }),
        };
        let crop_rounding = match self.text(keys::CROP_ROUNDING)? {
            "even" => CropRounding::Even,
            "floor" => CropRounding::Floor,
            _ => return Err(Error::Metadata { key: keys::CROP_ROUNDING, why: "unknown" }),
        };
        Ok(Preprocess {
            height: config.image_height as u32,
            width: config.image_width as u32,
            resize,
            interpolation,
            crop_rounding,
            mean: self.rgb(keys::MEAN)?,
            std: self.rgb(keys::STD)?,
        })
    }
}
