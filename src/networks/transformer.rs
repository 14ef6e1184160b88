//! What the families with transformer blocks share: memory, patch embedding, the phases of a block, and the head.
//!
//! Between two attentions everything is local to a token, so work is split into blocks of [`ROWS`] tokens. A block has
//! three phases, with all threads meeting after each: q, k and v of all tokens; v quantized by channel over all tokens
//! (int8 only); attention, projection and MLP, token block by token block.

use core::ops::Range;

use crate::arena::Arena;
use crate::bytes::{floats, floats_mut};
use crate::config::{Activation, Config, Family, Pooling};
use crate::error::Error;
use crate::kernels::Kernels;
use crate::kernels::attention::RelativeBias;
use crate::kernels::attention::talking::TalkingHeads;
use crate::kernels::linear::{Add, Store};
use crate::kernels::rows;
use crate::lanes::{F32x16, pad16};
use crate::networks::{Run, Weights, xcit::Local};
use crate::ops::attention::{AttentionScratch, Cache, Mixing, Queries};
use crate::ops::mixing::MixingScratch;
use crate::ops::{OperandScratch, Residual, multiply, normalize};
use crate::output::{Output, Outputs};
use crate::parallel::{Chunks, Executor, Sequential, for_each};
use crate::parts::{Axis, Branch, InFile, Missing, Norm, Scope, Storage, Walk};
use crate::profile::{Laps, Stage, Watch};
use crate::tap::Place;

/// Convolutions of XCiT's stem at most. The last one, the patch embedding, is not among them.
const STEM: [&str; 3] = ["stem.0", "stem.1", "stem.2"];

/// What turns pictures into tokens.
#[derive(Clone, Debug, Default)]
pub struct Embedding<M: Storage> {
    /// XCiT's convolutions before the last one, which is `patch`. Inputs of the first are `[channel][dy][dx]`, inputs
    /// of the others and of `patch` after them are `[dy][dx][channel]`.
    pub stem: [Option<M::Linear>; STEM.len()],
    /// The patch convolution as a matrix: outputs `[dim]`, inputs `[channel][dy][dx]`.
    pub patch: M::Linear,
    /// Position embedding of the patches, `[patches, dim]`.
    pub positions: Option<M::Vectors>,
    /// DINOv3's and ViT-5's.
    pub rotation: Option<Rotation<M>>,
    /// Class, distillation and register tokens with their position embedding added, `[prefix_tokens, dim]`.
    pub prefix: M::Vectors,
    /// On the embedded tokens, `[dim]`.
    pub norm_pre: Option<M::Norm>,
}

/// Rotary position embedding: by which angle each pair of q's and k's channels is rotated,
/// `[rotated_tokens, head_dim / 2]` each.
#[derive(Clone, Debug, Default)]
pub struct Rotation<M: Storage> {
    /// Cosines of the angles.
    pub cos: M::Vectors,
    /// Their sines.
    pub sin: M::Vectors,
}

impl Copy for Rotation<InFile<'_>> {}

impl<M: Storage> Embedding<M> {
    /// # Errors
    /// The walk's.
    pub fn walk<W: Walk<Storage = M>>(&mut self, c: &Config, w: &mut W) -> Result<(), W::Error> {
        let layers = c.stem_layers();
        // Each convolution reads 3 x 3 pixels of what the one before it made.
        let inputs = |i: usize| match i.checked_sub(1) {
            Some(before) => Axis::padded(9, c.stem_channels(before)),
            None if layers > 0 => Axis::dense(27),
            None => Axis::dense(c.patch_len()),
        };
        w.enter(Scope::Network);
        for (i, (name, layer)) in STEM.iter().zip(&mut self.stem).enumerate().take(layers) {
            let (height, width) = c.stem_size(i);
            w.rows(Stage::PatchEmbed, height * width);
            w.linear(name, Axis::dense(c.stem_channels(i)), inputs(i), layer.get_or_insert_default())?;
        }
        let (height, width) = if c.has_stages() { c.stage_grid(0) } else { c.grid() };
        w.rows(Stage::PatchEmbed, height * width);
        w.linear("patch_embd", Axis::dense(c.embedding_dim()), inputs(layers), &mut self.patch)?;
        if c.has_positions() {
            let (rows, columns) = c.table_grid();
            w.table("pos_embd", rows * columns, c.dim, self.positions.get_or_insert_default())?;
        }
        let rotated = c.rotated_tokens();
        if rotated > 0 {
            let rotation = self.rotation.get_or_insert_default();
            w.trained(false);
            w.table("rope_cos", rotated, c.head_dim / 2, &mut rotation.cos)?;
            w.table("rope_sin", rotated, c.head_dim / 2, &mut rotation.sin)?;
            w.trained(true);
        }
        if c.prefix_tokens > 0 {
            w.table("prefix_embd", c.prefix_tokens, c.dim, &mut self.prefix)?;
        }
        if c.norm_pre {
            w.norm("norm_pre", c.embedding_dim(), self.norm_pre.get_or_insert_default())?;
        }
        Ok(())
    }
}

/// One transformer block. Both branches read a norm of the stream, or the stream itself where there is none.
#[derive(Clone, Debug, Default)]
pub struct Block<M: Storage> {
    /// Before the attention, `[dim]`.
    pub norm1: Option<M::Norm>,
    /// Outputs `[3][heads][head_dim]` (q, k, v), inputs `[dim]`.
    pub qkv: M::Linear,
    /// Norms of q and of k over one head, `[head_dim]`.
    pub qk_norm: Option<(M::Norm, M::Norm)>,
    /// BEiT's relative position tables, `[heads, relative_len]`.
    pub bias: Option<M::Vectors>,
    /// XCiT's factors on the scores between channels, `[heads]`.
    pub temperature: Option<M::Vectors>,
    /// CaiT's.
    pub talking: Option<Talking<M>>,
    /// Outputs `[dim]`, inputs `[heads][head_dim]`.
    pub proj: M::Linear,
    /// LayerScale of the attention branch, `[dim]`.
    pub gamma1: Option<M::Vectors>,
    /// XCiT's class attention: the norm that is the patches' branch, with the same LayerScale, `[dim]`.
    pub patches_norm: Option<M::Norm>,
    /// XCiT's branch between these two.
    pub local: Option<Local<M>>,
    /// XCiT's class attention: a norm of the stream itself before the MLP, which then has none of its own, `[dim]`.
    pub stream_norm: Option<M::Norm>,
    /// The second branch.
    pub mlp: Mlp<M>,
}

/// CaiT's two mixings of heads, before and after the softmax: a matrix `[heads, heads]` and a bias `[heads]` each.
#[derive(Clone, Debug, Default)]
pub struct Talking<M: Storage> {
    /// Of the logits.
    pub logits: M::Vectors,
    /// See `logits`.
    pub logits_bias: M::Vectors,
    /// Of the weights.
    pub weights: M::Vectors,
    /// See `weights`.
    pub weights_bias: M::Vectors,
}

impl<'a> Talking<InFile<'a>> {
    fn heads(&self) -> TalkingHeads<'a> {
        let Self { logits, logits_bias, weights, weights_bias } = *self;
        TalkingHeads { logits, logits_bias, weights, weights_bias }
    }
}

/// The residual branch without attention.
#[derive(Clone, Debug, Default)]
pub struct Mlp<M: Storage> {
    /// Before it, `[dim]`.
    pub norm: Option<M::Norm>,
    /// Outputs `[hidden]`, or `[gate: hidden][up: hidden]` for SwiGLU; inputs `[dim]`.
    pub up: M::Linear,
    /// Outputs `[dim]`, inputs `[hidden]`.
    pub down: M::Linear,
    /// LayerScale, `[dim]`.
    pub gamma: Option<M::Vectors>,
}

/// Names of attention's matrices.
pub const ATTENTION: [&str; 2] = ["attn_qkv", "attn_out"];
/// Names of the MLP's matrices.
pub const MLP: [&str; 2] = ["ffn_up", "ffn_down"];
/// The norm before the second branch, or of the stream there.
const NORM2: &str = "norm2";

impl<M: Storage> Block<M> {
    /// Through block `i`.
    ///
    /// # Errors
    /// The walk's.
    pub fn walk<W: Walk<Storage = M>>(&mut self, c: &Config, i: usize, w: &mut W) -> Result<(), W::Error> {
        let (stream, heads) = (Axis::dense(c.dim), Axis::padded(c.heads, c.head_dim));
        let is_class = i >= c.depth;
        let (cross, carries) = (c.is(Family::Xcit) && !is_class, c.is(Family::Xcit) && is_class);
        let talks = c.is(Family::Cait) && !is_class;
        // The class token comes after the blocks of CaiT's and XCiT's patches.
        let (queries, keys) = match c.family {
            Family::Cait | Family::Xcit if !is_class => (c.patches(), c.patches()),
            _ if is_class => (1, c.tokens()),
            _ => (c.tokens(), c.tokens()),
        };
        w.enter(Scope::Block(i));
        if c.block_norm {
            w.norm("norm1", c.dim, self.norm1.get_or_insert_default())?;
        }
        w.rows(Stage::Qkv, queries);
        w.linear(ATTENTION[0], Axis::padded(3 * c.heads, c.head_dim), stream, &mut self.qkv)?;
        let pairs = if cross { c.patches() * c.head_dim } else { queries * keys } as u64;
        let width = heads.elements() as u64;
        w.multiply_adds(Stage::Qkv, (keys - queries) as u64 * 2 * width * c.dim as u64);
        w.multiply_adds(Stage::Attention, pairs * 2 * width);
        if c.qk_norm {
            let (q, k) = self.qk_norm.get_or_insert_default();
            w.norm("attn_q_norm", c.head_dim, q)?;
            w.norm("attn_k_norm", c.head_dim, k)?;
        }
        if c.family == Family::Beit {
            w.table("attn_bias", c.heads, c.relative_len(), self.bias.get_or_insert_default())?;
        }
        if cross {
            w.vector("attn_temperature", c.heads, self.temperature.get_or_insert_default())?;
        }
        if talks {
            let talking = self.talking.get_or_insert_default();
            w.table("heads_logits.weight", c.heads, c.heads, &mut talking.logits)?;
            w.vector("heads_logits.bias", c.heads, &mut talking.logits_bias)?;
            w.table("heads_weights.weight", c.heads, c.heads, &mut talking.weights)?;
            w.vector("heads_weights.bias", c.heads, &mut talking.weights_bias)?;
            // Both mix the heads of every pair.
            w.multiply_adds(Stage::Attention, pairs * 2 * (c.heads * c.heads) as u64);
        }
        w.rows(Stage::Projection, queries);
        let end = Branch { block: i, branch: 0 };
        w.branch_end(ATTENTION[1], end, c.dim, heads, &mut self.proj, self.gamma1.as_ref())?;
        w.gamma(c, "gamma1", c.dim, &mut self.gamma1)?;
        if carries {
            // The same norm as before the attention.
            w.trained(false);
            w.norm("patches_norm", c.dim, self.patches_norm.get_or_insert_default())?;
            w.trained(true);
        }
        if cross {
            self.local.get_or_insert_default().walk(c, w)?;
        }
        // A parallel ViT has one norm and one gamma for both branches.
        w.trained(c.family != Family::ParallelVit);
        if carries {
            w.norm(NORM2, c.dim, self.stream_norm.get_or_insert_default())?;
        }
        if c.block_norm && !carries {
            self.mlp.walk_norm(c.dim, w)?;
        }
        w.trained(true);
        self.mlp.walk(c, i, (c.dim, c.hidden), queries, w)
    }
}

impl<M: Storage> Mlp<M> {
    /// Through the norm before it.
    pub(crate) fn walk_norm<W: Walk<Storage = M>>(&mut self, dim: usize, w: &mut W) -> Result<(), W::Error> {
        w.norm(NORM2, dim, self.norm.get_or_insert_default())
    }

    /// Through the MLP of block `i`, after its norm: `dim` and `hidden` wide, for `rows` tokens.
    ///
    /// # Errors
    /// The walk's.
    pub(crate) fn walk<W: Walk<Storage = M>>(
        &mut self,
        c: &Config,
        i: usize,
        (dim, hidden): (usize, usize),
        rows: usize,
        w: &mut W,
    ) -> Result<(), W::Error> {
        let halves = if c.activation == Activation::SwiGlu { 2 } else { 1 };
        w.rows(Stage::MlpUp, rows);
        w.linear(MLP[0], Axis::padded(halves, hidden), Axis::dense(dim), &mut self.up)?;
        w.rows(Stage::MlpDown, rows);
        let end = Branch { block: i, branch: 1 };
        w.branch_end(MLP[1], end, dim, Axis::padded(1, hidden), &mut self.down, self.gamma.as_ref())?;
        w.trained(c.family != Family::ParallelVit);
        w.gamma(c, "gamma2", dim, &mut self.gamma)?;
        w.trained(true);
        Ok(())
    }
}

/// What turns tokens into logits.
#[derive(Clone, Debug, Default)]
pub struct Tail<M: Storage> {
    /// On the tokens after the last block, `[dim]`; in ResMLP factors and offsets alone.
    pub norm: Option<M::Norm>,
    /// On the pooled features, `[dim]`.
    pub fc_norm: Option<M::Norm>,
    /// On the features before they enter the head, whose columns are divided by it, `[parts][dim]`. Balancing sets it;
    /// no source has it.
    pub head_factor: Option<M::Vectors>,
    /// Outputs `[classes]`, inputs `[parts][dim]`.
    pub head: Option<M::Linear>,
}

impl<M: Storage> Tail<M> {
    /// # Errors
    /// The walk's.
    pub fn walk<W: Walk<Storage = M>>(&mut self, c: &Config, w: &mut W) -> Result<(), W::Error> {
        w.enter(Scope::Network);
        if c.norm {
            w.norm("norm", c.dim, self.norm.get_or_insert_default())?;
        }
        if c.fc_norm {
            w.norm("fc_norm", c.dim, self.fc_norm.get_or_insert_default())?;
        }
        if c.head_factors {
            w.trained(false);
            w.table("head.factor", c.parts(), c.dim, self.head_factor.get_or_insert_default())?;
            w.trained(true);
        }
        if c.classes > 0 {
            w.rows(Stage::Head, 1);
            let features = Axis::padded(c.parts(), c.dim);
            w.linear("head", Axis::dense(c.classes), features, self.head.get_or_insert_default())?;
        }
        Ok(())
    }
}

/// Tokens that a worker takes at a time: a multiple of 16, few enough that a block's activations stay in L2.
pub(crate) const ROWS: usize = 48;

/// What the network looks at.
#[derive(Clone, Copy)]
pub(crate) enum Input<'i> {
    /// `[3, height, width]`, normalized.
    Tensor(&'i [f32]),
    /// `[height, width, 3]`, and each channel's normalized value of a byte.
    Rgb8 { pixels: &'i [u8], normalized: &'i [[f32; 256]] },
}

impl Input<'_> {
    /// Patch `index` as the row `[channel, dy, dx]`, zero-padded to the length of `row`.
    pub(crate) fn patch(&self, c: &Config, index: usize, row: &mut [f32]) {
        let (ph, pw) = (c.patch_height, c.patch_width);
        let across = c.image_width / pw;
        let (top, left) = (index / across * ph, index % across * pw);
        let (values, padding) = row.split_at_mut(c.patch_len());
        padding.fill(0.0);
        for (i, line) in values.chunks_exact_mut(pw).enumerate() {
            self.line(c, i / ph, top + i % ph, left, line);
        }
    }

    /// Neighbouring pixels of one channel, from (`y`, `left`) on.
    pub(super) fn line(&self, c: &Config, channel: usize, y: usize, left: usize, line: &mut [f32]) {
        let start = y * c.image_width + left;
        match self {
            Self::Tensor(x) => {
                let start = channel * c.image_height * c.image_width + start;
                line.copy_from_slice(&x[start..start + line.len()]);
            }
            Self::Rgb8 { pixels, normalized } => {
                let pixels = pixels[3 * start..3 * (start + line.len())].as_chunks::<3>().0;
                let table = &normalized[channel];
                line.iter_mut().zip(pixels).for_each(|(v, p)| *v = table[usize::from(p[channel])]);
            }
        }
    }
}

/// Memory that all workers share, and each worker's own.
pub(crate) struct Buffers<'a> {
    /// The residual stream `[tokens, pad16(dim)]`.
    pub(super) x: &'a mut [F32x16],
    /// q, k and v of all tokens, ready for attention.
    pub(super) cache: Cache<'a>,
    /// `[parts, pad16(dim)]`.
    pub(super) features: &'a mut [F32x16],
    /// `[threads][worker_bytes]`.
    pub(super) workers: &'a mut [u8],
    pub(super) worker_bytes: usize,
}

impl<'a> Buffers<'a> {
    pub(crate) fn carve(c: &Config, threads: usize, arena: &mut Arena<'a>) -> Self {
        let dim = pad16(c.dim) / 16;
        let worker_bytes = Worker::bytes(c);
        Self {
            x: arena.take(c.tokens() * dim),
            cache: Cache::carve(c, arena),
            features: arena.take(c.parts() * dim),
            workers: arena.take(threads.saturating_mul(worker_bytes)),
            worker_bytes,
        }
    }
}

/// One worker's memory, for one block of rows.
pub(super) struct Worker<'w> {
    pub(super) operand: OperandScratch<'w>,
    /// Patches, then q | k | v, then the MLP's hidden layer: `[ROWS, wide]`.
    pub(super) wide: &'w mut [F32x16],
    /// The heads' outputs side by side: `[ROWS, attention_width]`.
    pub(super) attended: &'w mut [F32x16],
    /// A branch's output, where it is not added to the stream at once: `[ROWS, pad16(dim)]`.
    pub(super) branch: &'w mut [F32x16],
    attention: AttentionScratch<'w>,
    pub(super) mixing: MixingScratch<'w>,
}

impl<'w> Worker<'w> {
    fn carve(c: &Config, arena: &mut Arena<'w>) -> Self {
        let dim = pad16(c.dim) / 16;
        let patch = pad16(c.patch_len()) / 16;
        let heads = c.attention_width() / 16;
        let widest_operand = patch.max(c.parts() * dim).max(heads).max(pad16(c.hidden) / 16);
        let wide = patch.max(3 * heads).max(c.ffn_up_width() / 16);
        Self {
            operand: OperandScratch::carve(ROWS, widest_operand, dim, c.precision, arena),
            wide: arena.take(ROWS * wide),
            attended: arena.take(ROWS * heads),
            branch: arena.take(if c.keeps_gamma() || c.pruned { ROWS * dim } else { 0 }),
            attention: AttentionScratch::carve(c, arena),
            mixing: MixingScratch::carve(c, arena),
        }
    }

    pub(super) fn of(c: &Config, memory: &'w mut [u8]) -> Self {
        Self::carve(c, &mut Arena::over(memory))
    }

    pub(super) fn bytes(c: &Config) -> usize {
        let mut arena = Arena::counting();
        let _ = Self::carve(c, &mut arena);
        arena.used()
    }
}

/// What every phase needs.
pub(crate) struct Pass<'p> {
    pub(super) weights: Weights<'p>,
    pub(super) c: &'p Config,
    pub(super) k: Kernels,
    outputs: Outputs,
    /// At the session's input size.
    pub(super) embedding: Embedding<InFile<'p>>,
    pub(super) executor: &'p dyn Executor,
    pub(super) watch: Watch<'p>,
}

impl<'p> Pass<'p> {
    pub(crate) fn new(run: &Run<'p>) -> Result<Self, Error> {
        let Run { weights, config: c, kernels: k, outputs, executor, tables, watch, .. } = *run;
        let stated = weights.embedding()?;
        let (positions, rotation) = (tables.positions.or(stated.positions), tables.rotation.or(stated.rotation));
        let embedding = Embedding { positions, rotation, ..stated };
        Ok(Self { weights, c, k, outputs, embedding, executor, watch })
    }

    /// Tokens that the last block has to compute.
    pub(super) fn rows_read(&self) -> usize {
        self.outputs.rows_read(self.c)
    }

    /// x = [prefix; Linear(patch) + position], then the optional first norm.
    pub(crate) fn embed(&self, input: Input<'_>, b: &mut Buffers<'_>) -> Result<(), Error> {
        let (c, k) = (self.c, self.k);
        let embedding = &self.embedding;
        let dim = pad16(c.dim) / 16;
        let patch = pad16(c.patch_len()) / 16;
        let workers = Chunks::new(b.workers, b.worker_bytes);
        for_each(self.executor, workers, Chunks::new(b.x, ROWS * dim), |memory, i, x| {
            let mut laps = Laps::start(self.watch.profile);
            let mut w = Worker::of(c, memory);
            let first = i * ROWS;
            let prefix_rows = c.prefix_tokens.saturating_sub(first).min(x.len() / dim);
            let (prefix, patches) = x.split_at_mut(prefix_rows * dim);
            if !prefix.is_empty() {
                prefix.copy_from_slice(&embedding.prefix[first * dim..][..prefix.len()]);
            }
            if !patches.is_empty() {
                let first_patch = (first + prefix_rows) - c.prefix_tokens;
                match embedding.positions {
                    Some(positions) => patches.copy_from_slice(&positions[first_patch * dim..][..patches.len()]),
                    None => patches.fill(F32x16([0.0; 16])),
                }
                let rows = patches.len() / dim;
                let pixels = &mut w.wide[..rows * patch];
                for (row, pixels) in pixels.chunks_exact_mut(patch).enumerate() {
                    input.patch(c, first_patch + row, floats_mut(pixels));
                }
                let a = w.operand.pixels(k, pixels, rows, &embedding.patch);
                multiply(k, a, rows, &embedding.patch, 0..dim, Add { x: patches, stride: dim });
            }
            if let Some(norm) = &embedding.norm_pre {
                normalize_in_place(k, norm, x, w.operand.normed);
            }
            laps.end(Stage::PatchEmbed);
            self.watch.show(Place::Embedding, first, x, dim);
        })
    }

    /// One block over the tokens `span`, of which it computes the first `rows`: the last block those that the head
    /// reads, class attention the class token.
    pub(crate) fn block(
        &self,
        index: usize,
        block: &Block<InFile<'_>>,
        span: Range<usize>,
        rows: usize,
        b: &mut Buffers<'_>,
    ) -> Result<(), Error> {
        self.project_qkv(block, &span, rows, b)?;
        let workers = Chunks::new(b.workers, b.worker_bytes);
        b.cache.pack_values(self.k, self.c, span.len(), self.executor, workers, self.watch.profile)?;
        self.attend_and_transform(index, block, &span, rows, b)
    }

    /// q, k, v = Linear(LayerNorm(x)); q only for the first `rows` tokens.
    fn project_qkv(
        &self,
        block: &Block<InFile<'_>>,
        span: &Range<usize>,
        rows: usize,
        b: &mut Buffers<'_>,
    ) -> Result<(), Error> {
        let (c, k) = (self.c, self.k);
        let dim = pad16(c.dim) / 16;
        let width = c.attention_width() / 16;
        let workers = Chunks::new(b.workers, b.worker_bytes);
        let x = Chunks::new(&mut b.x[span.start * dim..span.end * dim], ROWS * dim);
        for_each(self.executor, workers, (x, b.cache.blocks(c, ROWS)), |memory, i, (x, mut cache)| {
            let mut laps = Laps::start(self.watch.profile);
            let mut w = Worker::of(c, memory);
            let tokens = x.len() / dim;
            let qkv = &mut w.wide[..tokens * 3 * width];
            let needs_q = i * ROWS < rows;
            let first = if needs_q { 0 } else { width };
            let a = w.operand.branch(k, x, block.norm1.as_ref(), tokens, &block.qkv);
            laps.end(Stage::Norm);
            multiply(k, a, tokens, &block.qkv, first..3 * width, Store { out: &mut qkv[first..], stride: 3 * width });
            laps.end(Stage::Qkv);
            if let Some((q_norm, k_norm)) = &block.qk_norm {
                for row in qkv.chunks_exact_mut(3 * width) {
                    let (q, rest) = row.split_at_mut(width);
                    if needs_q {
                        normalize_in_place(k, q_norm, q, w.attended);
                    }
                    normalize_in_place(k, k_norm, &mut rest[..width], w.attended);
                }
            }
            if let Some(rotation) = &self.embedding.rotation {
                let first = if needs_q { 0 } else { 1 };
                rotate(c, rotation, span.start + i * ROWS, qkv, first..2);
            }
            cache.pack(k, c, qkv, needs_q);
            laps.end(Stage::Pack);
        })
    }

    /// x = x + Linear(Attention(q, k, v)), x = x + MLP(LayerNorm(x)), for the first `rows` tokens.
    fn attend_and_transform(
        &self,
        index: usize,
        block: &Block<InFile<'_>>,
        span: &Range<usize>,
        rows: usize,
        b: &mut Buffers<'_>,
    ) -> Result<(), Error> {
        let (c, k) = (self.c, self.k);
        let dim = pad16(c.dim) / 16;
        let width = c.attention_width() / 16;
        let mode = c.layerscale;
        let workers = Chunks::new(b.workers, b.worker_bytes);
        let cache = &b.cache;
        let x = Chunks::new(&mut b.x[span.start * dim..][..rows * dim], ROWS * dim);
        for_each(self.executor, workers, x, |memory, i, x| {
            let mut laps = Laps::start(self.watch.profile);
            let mut w = Worker::of(c, memory);
            let tokens = x.len() / dim;
            let first = span.start + i * ROWS;

            let attended = &mut w.attended[..tokens * width];
            let mixing = match (block.bias, &block.talking) {
                (Some(tables), _) => Mixing::Relative(RelativeBias { tables, grid: c.grid() }),
                (None, Some(talking)) if Family::Cait.is_built() => Mixing::Heads(talking.heads()),
                (None, _) => Mixing::None,
            };
            let queries = Queries { rows: i * ROWS..i * ROWS + tokens, tokens: span.len() };
            cache.attend(k, c, queries, mixing, &mut w.attention, attended);
            laps.end(Stage::Attention);
            if c.family == Family::ParallelVit {
                self.expand(&block.mlp, x, &mut w, &mut laps);
            }
            let attended = &w.attended[..tokens * width];
            self.watch.show(Place::Heads(index), first, attended, width);
            let a = w.operand.plain(k, attended, tokens, &block.proj);
            Residual { gamma: block.gamma1, mode, branch: w.branch }.add(k, a, &block.proj, x);
            laps.end(Stage::Projection);
            self.watch.show(Place::Attention(index), first, x, dim);
            if let Some(norm) = &block.stream_norm {
                normalize_in_place(k, norm, x, w.operand.normed);
            }
            if c.family != Family::ParallelVit {
                self.expand(&block.mlp, x, &mut w, &mut laps);
            }
            self.contract(index, &block.mlp, first, x, w, &mut laps);
        })
    }

    /// x = x + MLP(LayerNorm(x)), for some rows, the first of which is that of token `first`.
    pub(super) fn transform(
        &self,
        index: usize,
        mlp: &Mlp<InFile<'_>>,
        first: usize,
        x: &mut [F32x16],
        mut w: Worker<'_>,
        laps: &mut Laps<'_>,
    ) {
        self.expand(mlp, x, &mut w, laps);
        self.contract(index, mlp, first, x, w, laps);
    }

    /// The first half of [`Self::transform`]: the hidden layer of the rows, before its non-linearity.
    fn expand(&self, mlp: &Mlp<InFile<'_>>, x: &[F32x16], w: &mut Worker<'_>, laps: &mut Laps<'_>) {
        let (c, k) = (self.c, self.k);
        let (dim, up_width) = (pad16(c.dim) / 16, c.ffn_up_width() / 16);
        let tokens = x.len() / dim;
        let hidden = &mut w.wide[..tokens * up_width];
        let a = w.operand.branch(k, x, mlp.norm.as_ref(), tokens, &mlp.up);
        laps.end(Stage::Norm);
        multiply(k, a, tokens, &mlp.up, 0..up_width, Store { out: hidden, stride: up_width });
        laps.end(Stage::MlpUp);
    }

    /// The second half.
    fn contract(
        &self,
        index: usize,
        mlp: &Mlp<InFile<'_>>,
        first: usize,
        x: &mut [F32x16],
        mut w: Worker<'_>,
        laps: &mut Laps<'_>,
    ) {
        let (c, k) = (self.c, self.k);
        let (dim, up_width) = (pad16(c.dim) / 16, c.ffn_up_width() / 16);
        let tokens = x.len() / dim;
        let hidden = &mut w.wide[..tokens * up_width];
        let a = w.operand.activated(k, hidden, tokens, c.activation, &mlp.down);
        laps.end(Stage::Activation);
        Residual { gamma: mlp.gamma, mode: c.layerscale, branch: w.branch }.add(k, a, &mlp.down, x);
        laps.end(Stage::MlpDown);
        self.watch.show(Place::Mlp(index), first, x, dim);
    }

    /// The patches of the stream after the last norm, `[patches, pad16(dim)]`, for another head.
    pub(crate) fn keep(&self, b: &mut Buffers<'_>, tokens: &mut [F32x16]) -> Result<(), Error> {
        let (c, k) = (self.c, self.k);
        let dim = pad16(c.dim) / 16;
        let norm = self.weights.tail()?.norm.ok_or(Missing)?;
        let patches = &b.x[c.prefix_tokens * dim..];
        let workers = Chunks::new(b.workers, b.worker_bytes);
        for_each(self.executor, workers, Chunks::new(tokens, ROWS * dim), |_, i, out| {
            let mut laps = Laps::start(self.watch.profile);
            normalize(k, &norm, &patches[i * ROWS * dim..][..out.len()], out);
            laps.end(Stage::Head);
        })
    }

    /// Norm, tokens, pooling, norm, features, head.
    pub(crate) fn head(&self, b: &mut Buffers<'_>, out: &mut [F32x16]) -> Result<(), Error> {
        let (c, k) = (self.c, self.k);
        let dim = pad16(c.dim) / 16;
        let tail = self.weights.tail()?;
        let rows = self.rows_read();
        // One worker for a few rows; through `for_each` for the floating-point environment.
        let workers = Chunks::new(&mut b.workers[..b.worker_bytes], usize::MAX);
        let x = Chunks::new(&mut b.x[..rows * dim], usize::MAX);
        let pieces = ((x, Chunks::new(b.features, usize::MAX)), Chunks::new(out, usize::MAX));
        for_each(&Sequential, workers, pieces, |memory, _, ((x, features), out)| {
            let mut laps = Laps::start(self.watch.profile);
            let w = Worker::of(c, memory);
            Head { c, k, tail: &tail, outputs: self.outputs }.run(x, features, w.operand, out);
            laps.end(Stage::Head);
        })
    }
}

/// What comes after the last block.
pub(crate) struct Head<'h> {
    pub(crate) c: &'h Config,
    pub(crate) k: Kernels,
    pub(crate) tail: &'h Tail<InFile<'h>>,
    pub(crate) outputs: Outputs,
}

impl Head<'_> {
    /// Norm, tokens, pooling, norm, features, head. `x`, the tokens that are read, is overwritten; `features` is
    /// `[parts, pad16(dim)]`.
    pub(crate) fn run(
        self,
        x: &mut [F32x16],
        features: &mut [F32x16],
        mut operand: OperandScratch<'_>,
        out: &mut [F32x16],
    ) {
        let Self { c, k, tail, outputs } = self;
        let dim = pad16(c.dim) / 16;
        match &tail.norm {
            Some(Norm { weight: factor, bias: offset, .. }) if c.is(Family::ResMlp) => {
                k.run(rows::Affine { x, factor, offset });
            }
            Some(norm) => x.chunks_mut(ROWS * dim).for_each(|block| normalize_in_place(k, norm, block, operand.normed)),
            None => {}
        }
        if let Some(place) = outputs.place(c, Output::Tokens) {
            compact(&x[c.prefix_tokens * dim..], c.dim, &mut out[place]);
        }
        if !outputs.pools() {
            return;
        }
        pool(c, x, features);
        if let Some(norm) = &tail.fc_norm {
            normalize_in_place(k, norm, features, operand.normed);
        }
        if let Some(place) = outputs.place(c, Output::Features) {
            compact(features, c.dim, &mut out[place]);
        }
        if let (Some(place), Some(head)) = (outputs.place(c, Output::Logits), &tail.head) {
            let out = &mut out[place];
            let stride = out.len();
            if let Some(gamma) = tail.head_factor {
                k.run(rows::Scale { y: features, gamma });
            }
            let a = operand.plain(k, features, 1, head);
            multiply(k, a, 1, head, 0..stride, Store { out, stride });
        }
    }
}

/// Rotates q (part 0) and k (part 1) of the rows q | k | v of the tokens from `first` on by their position, where it
/// rotates them: in each head, channel l and channel l + head_dim / 2 are the two coordinates of a point.
fn rotate(c: &Config, rotation: &Rotation<InFile<'_>>, first: usize, qkv: &mut [F32x16], parts: Range<usize>) {
    let (width, half) = (c.attention_width(), c.head_dim / 2);
    for (row, qkv) in floats_mut(qkv).chunks_exact_mut(3 * width).enumerate() {
        let Some(rotated) = (first + row).checked_sub(c.tokens() - c.rotated_tokens()) else { continue };
        let angle = rotated * pad16(half);
        let (cos, sin) = (&floats(rotation.cos)[angle..][..half], &floats(rotation.sin)[angle..][..half]);
        for head in qkv[parts.start * width..parts.end * width].chunks_exact_mut(pad16(c.head_dim)) {
            let (x, y) = head.split_at_mut(half);
            for ((x, y), (cos, sin)) in x.iter_mut().zip(y).zip(cos.iter().zip(sin)) {
                (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
            }
        }
    }
}

/// A norm of rows that replaces them; `copy` holds at least as much as `x`.
pub(crate) fn normalize_in_place(k: Kernels, norm: &Norm<'_>, x: &mut [F32x16], copy: &mut [F32x16]) {
    let copy = &mut copy[..x.len()];
    copy.copy_from_slice(x);
    normalize(k, norm, copy, x);
}

/// Tokens to features `[parts, pad16(dim)]`.
fn pool(c: &Config, x: &[F32x16], features: &mut [F32x16]) {
    let dim = pad16(c.dim) / 16;
    let (first, second) = features.split_at_mut(dim);
    let patches = &x[(c.prefix_tokens * dim).min(x.len())..];
    match c.pooling {
        Pooling::Cls => first.copy_from_slice(&x[..dim]),
        Pooling::Avg => mean(patches, first),
        Pooling::All => mean(x, first),
        Pooling::ClsAvg => {
            first.copy_from_slice(&x[..dim]);
            mean(patches, second);
        }
        Pooling::ClsDist => {
            first.copy_from_slice(&x[..dim]);
            second.copy_from_slice(&x[dim..2 * dim]);
        }
    }
}

/// Mean of rows as long as `out`: added in order, times 1 / rows.
fn mean(rows: &[F32x16], out: &mut [F32x16]) {
    out.fill(F32x16([0.0; 16]));
    for row in rows.chunks_exact(out.len()) {
        for (sum, x) in out.iter_mut().zip(row) {
            sum.0.iter_mut().zip(&x.0).for_each(|(sum, x)| *sum += x);
        }
    }
    let scale = 1.0 / (rows.len() / out.len()) as f32;
    out.iter_mut().flat_map(|chunk| &mut chunk.0).for_each(|sum| *sum *= scale);
}

/// Rows of `pad16(n)` to rows of `n`, one after another.
fn compact(rows: &[F32x16], n: usize, out: &mut [F32x16]) {
    let out = floats_mut(out).chunks_exact_mut(n);
    for (row, out) in rows.chunks_exact(pad16(n) / 16).zip(out) {
        out.copy_from_slice(&floats(row)[..n]);
    }
}
