//! What the families with transformer blocks share: memory, patch embedding, the phases of a block. Beside it, their
//! parts and the classifier.
//!
//! Between two attentions everything is local to a token, so work is split into blocks of [`ROWS`] tokens. A block has
//! three phases, with all threads meeting after each: q, k and v of all tokens; v quantized by channel over all tokens
//! (int8 only); attention, projection and MLP, token block by token block.

use core::ops::Range;

mod classifier;
mod parts;

pub(crate) use classifier::Head;
pub use parts::{ATTENTION, Block, Embedding, MLP, Mlp, Rotation, Tail, Talking};

use crate::arena::Arena;
use crate::bytes::{floats, floats_mut};
use crate::config::{Config, Family};
use crate::error::Error;
use crate::kernels::Kernels;
use crate::kernels::attention::RelativeBias;
use crate::kernels::linear::{Add, Store};
use crate::lanes::{F32x16, pad16};
use crate::networks::{Run, Weights};
use crate::ops::attention::{AttentionScratch, Cache, Mixing, Queries};
use crate::ops::mixing::MixingScratch;
use crate::ops::{OperandScratch, Residual, multiply, normalize};
use crate::output::Outputs;
use crate::parallel::{Chunks, Executor, Sequential, for_each};
use crate::parts::{InFile, Missing, Norm};
use crate::profile::{Laps, Stage, Watch};
use crate::tap::Place;

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
            let prefix_rows = c.prefix_tokens().saturating_sub(first).min(x.len() / dim);
            let (prefix, patches) = x.split_at_mut(prefix_rows * dim);
            if !prefix.is_empty() {
                prefix.copy_from_slice(&embedding.prefix[first * dim..][..prefix.len()]);
            }
            if !patches.is_empty() {
                let first_patch = (first + prefix_rows) - c.prefix_tokens();
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
                (None, Some(talking)) if cfg!(feature = "cait") => Mixing::Heads(talking.heads()),
                (None, _) => Mixing::None,
            };
            let queries = Queries { rows: i * ROWS..i * ROWS + tokens, tokens: span.len() };
            cache.attend(k, c, queries, mixing, &mut w.attention, attended);
            laps.end(Stage::Attention);
            if matches!(c.family, Family::ParallelVit(_)) {
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
            if !matches!(c.family, Family::ParallelVit(_)) {
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
        let patches = &b.x[c.prefix_tokens() * dim..];
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

/// Rotates q (part 0) and k (part 1) of the rows q | k | v of the tokens from `first` on by their position, where it
/// rotates them: in each head, channel l and channel l + head_dim / 2 are the two coordinates of a point.
fn rotate(c: &Config, rotation: &Rotation<InFile<'_>>, first: usize, qkv: &mut [F32x16], parts: Range<usize>) {
    let (width, half) = (c.attention_width(), c.head_dim() / 2);
    for (row, qkv) in floats_mut(qkv).chunks_exact_mut(3 * width).enumerate() {
        let Some(rotated) = (first + row).checked_sub(c.tokens() - c.rotated_tokens()) else { continue };
        let angle = rotated * pad16(half);
        let (cos, sin) = (&floats(rotation.cos)[angle..][..half], &floats(rotation.sin)[angle..][..half]);
        for head in qkv[parts.start * width..parts.end * width].chunks_exact_mut(pad16(c.head_dim())) {
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
