//! ConvNeXt (Liu et al. 2022, "A ConvNet for the 2020s"): a pyramid of four stages, each with half the height and width
//! of the one before.
//!
//! ```text
//! x = LayerNorm(patches W + b)                                          patches of 4 x 4 pixels
//! x = [LayerNorm(x) of 2 x 2 tokens side by side] W + b                 before each stage but the first
//! x = x + gamma * MLP(LayerNorm(DepthwiseConv(x)))                      depth times in each stage; 7 x 7
//! logits = head(LayerNorm(mean(x)))
//! ```
//!
//! Everything but the convolution is local to a token, and a block of tokens goes through all of a block at once: the
//! convolution reads the stream of all tokens, the result goes into a second stream, and all threads meet once a block.

use core::mem::swap;

use crate::arena::Arena;
use crate::bytes::floats_mut;
use crate::config::{CONVNEXT_KERNEL, Config, StageConfig};
use crate::error::Error;
use crate::kernels::Kernels;
use crate::kernels::depthwise::DepthwiseConv;
use crate::kernels::linear::Store;
use crate::lanes::{F32x16, pad16};
use crate::networks::transformer::{Head, Input, Mlp, ROWS, normalize_in_place};
use crate::networks::{Run, Weights};
use crate::ops::map::Map;
use crate::ops::{OperandScratch, Residual, multiply, normalize};
use crate::output::Outputs;
use crate::parallel::{Chunks, Executor, Sequential, for_each};
use crate::parts::{Axis, InFile, Scope, Storage, Walk};
use crate::profile::{Laps, Stage, Watch};
use crate::tap::Place;

/// What halves height and width between two stages.
#[derive(Clone, Debug, Default)]
pub struct Downsampling<M: Storage> {
    /// Of the stage before.
    pub norm: M::Norm,
    /// Of 2 x 2 tokens side by side, inputs `[dy][dx][dim]`.
    pub linear: M::Linear,
}

impl<M: Storage> Downsampling<M> {
    /// Through what comes before stage `stage`.
    ///
    /// # Errors
    /// The walk's.
    pub fn walk<W: Walk<Storage = M>>(&mut self, c: &Config, stage: usize, w: &mut W) -> Result<(), W::Error> {
        let before = c.stages()[stage - 1].dim;
        w.enter(Scope::Stage(stage));
        w.norm("norm", before, &mut self.norm)?;
        w.rows(Stage::Downsample, stage_tokens(c, stage));
        w.linear("downsample", Axis::dense(c.stages()[stage].dim), Axis::padded(4, before), &mut self.linear)
    }
}

/// One block: a branch of the convolution and the MLP, with a norm between them.
#[derive(Clone, Debug, Default)]
pub struct ConvBlock<M: Storage> {
    /// Over the stage's channels.
    pub conv: M::Depthwise,
    /// After it.
    pub mlp: Mlp<M>,
}

impl<M: Storage> ConvBlock<M> {
    /// Through block `block`, which is one of stage `stage`.
    ///
    /// # Errors
    /// The walk's.
    pub fn walk<W: Walk<Storage = M>>(
        &mut self,
        c: &Config,
        stage: usize,
        block: usize,
        w: &mut W,
    ) -> Result<(), W::Error> {
        let (tokens, StageConfig { dim, .. }) = (stage_tokens(c, stage), c.stages()[stage]);
        w.enter(Scope::Block(block));
        w.rows(Stage::Depthwise, tokens);
        w.depthwise("dwconv", dim, CONVNEXT_KERNEL, &mut self.conv)?;
        self.mlp.walk_norm(dim, w)?;
        self.mlp.walk(c, block, (dim, c.stages()[stage].hidden()), tokens, w)
    }
}

/// Memory that all workers share, and each worker's own.
pub(crate) struct Buffers<'a> {
    /// The residual stream of a stage `[tokens, pad16(dim)]`, with room for any.
    x: &'a mut [F32x16],
    /// What it becomes.
    next: &'a mut [F32x16],
    /// `[pad16(dim)]`.
    features: &'a mut [F32x16],
    /// `[threads][worker_bytes]`.
    workers: &'a mut [u8],
    worker_bytes: usize,
}

impl<'a> Buffers<'a> {
    pub(crate) fn carve(c: &Config, threads: usize, arena: &mut Arena<'a>) -> Self {
        let mut worker = Arena::counting();
        let _ = Worker::carve(c, &mut worker);
        let worker_bytes = worker.used();
        let stream = most(c, |stage| stage_tokens(c, stage) * stage_width(c, stage));
        Self {
            x: arena.take(stream),
            next: arena.take(stream),
            features: arena.take(pad16(c.dim) / 16),
            workers: arena.take(threads.saturating_mul(worker_bytes)),
            worker_bytes,
        }
    }
}

/// One worker's memory, for one block of rows.
struct Worker<'w> {
    operand: OperandScratch<'w>,
    /// Patches, or 2 x 2 tokens, or the MLP's hidden layer: `[ROWS, wide]`.
    wide: &'w mut [F32x16],
    /// The convolution's output, then a branch's for `keep-pass`: `[ROWS, pad16(dim)]`.
    branch: &'w mut [F32x16],
}

impl<'w> Worker<'w> {
    fn carve(c: &Config, arena: &mut Arena<'w>) -> Self {
        let dim = most(c, |stage| stage_width(c, stage));
        // 4 dim, padded: 2 x 2 tokens; the hidden layer is not wider.
        let wide = (pad16(c.patch_len()) / 16).max(4 * dim);
        Self {
            operand: OperandScratch::carve(ROWS, wide, dim, c.precision, arena),
            wide: arena.take(ROWS * wide),
            branch: arena.take(ROWS * dim),
        }
    }

    fn of(c: &Config, memory: &'w mut [u8]) -> Self {
        Self::carve(c, &mut Arena::over(memory))
    }
}

/// The largest of all stages.
fn most(c: &Config, of: impl Fn(usize) -> usize) -> usize {
    (0..c.stages().len()).map(of).max().unwrap_or(0)
}

/// Tokens of a stage.
fn stage_tokens(c: &Config, stage: usize) -> usize {
    let (height, width) = c.stage_grid(stage);
    height * width
}

/// Chunks of a stage's stream.
fn stage_width(c: &Config, stage: usize) -> usize {
    pad16(c.stages()[stage].dim) / 16
}

/// What every phase needs.
struct Pass<'p> {
    weights: Weights<'p>,
    k: Kernels,
    threads: usize,
    executor: &'p dyn Executor,
    watch: Watch<'p>,
}

/// One inference. `out` receives the outputs.
pub(crate) fn forward(run: &Run<'_>, input: Input<'_>, b: &mut Buffers<'_>, out: &mut [F32x16]) -> Result<(), Error> {
    let Run { weights, config: c, kernels: k, threads, outputs, executor, watch, .. } = *run;
    let pass = Pass { weights, k, threads, executor, watch };
    let (mut stages, mut block) = (weights.stages(), 0);
    pass.embed(c, input, b)?;
    for stage in 0..c.stages().len() {
        if stage > 0 {
            pass.downsample(c, stage, block, &stages.downsampling(stage)?, b)?;
        }
        for _ in 0..c.stages()[stage].depth {
            pass.watch.go_on()?;
            pass.block(c, stage, block, &stages.block(stage, block)?, b)?;
            block += 1;
        }
    }
    pass.head(c, outputs, b, out)
}

impl Pass<'_> {
    /// Tokens that a worker takes at a time: at most [`ROWS`], and as many for every thread.
    fn rows(&self, tokens: usize) -> usize {
        let pieces = tokens.div_ceil(ROWS).next_multiple_of(self.threads);
        tokens.div_ceil(pieces)
    }

    /// x = LayerNorm(Linear(patch)).
    fn embed(&self, c: &Config, input: Input<'_>, b: &mut Buffers<'_>) -> Result<(), Error> {
        let (k, embedding) = (self.k, self.weights.embedding()?);
        let (tokens, dim, patch) = (stage_tokens(c, 0), stage_width(c, 0), pad16(c.patch_len()) / 16);
        let rows = self.rows(tokens);
        let workers = Chunks::new(b.workers, b.worker_bytes);
        for_each(self.executor, workers, Chunks::new(&mut b.x[..tokens * dim], rows * dim), |memory, i, x| {
            let mut laps = Laps::start(self.watch.profile);
            let mut w = Worker::of(c, memory);
            let (first, rows) = (i * rows, x.len() / dim);
            let pixels = &mut w.wide[..rows * patch];
            for (row, pixels) in pixels.chunks_exact_mut(patch).enumerate() {
                input.patch(c, first + row, floats_mut(pixels));
            }
            let a = w.operand.pixels(k, pixels, rows, &embedding.patch);
            multiply(k, a, rows, &embedding.patch, 0..dim, Store { out: x, stride: dim });
            if let Some(norm) = &embedding.norm_pre {
                normalize_in_place(k, norm, x, w.operand.normed);
            }
            laps.end(Stage::PatchEmbed);
            self.watch.show(Place::Embedding, first, x, dim);
        })
    }

    /// x = Linear(LayerNorm(x) of 2 x 2 tokens side by side), which comes before block `block`.
    fn downsample(
        &self,
        c: &Config,
        stage: usize,
        block: usize,
        down: &Downsampling<InFile<'_>>,
        b: &mut Buffers<'_>,
    ) -> Result<(), Error> {
        let k = self.k;
        let (tokens, across) = (stage_tokens(c, stage), c.stage_grid(stage).1);
        let (before, dim) = (stage_width(c, stage - 1), stage_width(c, stage));
        let rows = self.rows(tokens);
        let workers = Chunks::new(b.workers, b.worker_bytes);
        let x = &*b.x;
        for_each(self.executor, workers, Chunks::new(&mut b.next[..tokens * dim], rows * dim), |memory, i, next| {
            let mut laps = Laps::start(self.watch.profile);
            let mut w = Worker::of(c, memory);
            let (first, rows) = (i * rows, next.len() / dim);
            let gathered = &mut w.wide[..rows * 4 * before];
            for (row, gathered) in gathered.chunks_exact_mut(4 * before).enumerate() {
                let (y, left) = ((first + row) / across, (first + row) % across);
                for (dy, out) in gathered.chunks_exact_mut(2 * before).enumerate() {
                    let from = ((2 * y + dy) * across + left) * 2 * before;
                    let (x, norm) = (&x[from..][..2 * before], &down.norm);
                    normalize(k, norm, x, out);
                }
            }
            let a = w.operand.plain(k, gathered, rows, &down.linear);
            multiply(k, a, rows, &down.linear, 0..dim, Store { out: next, stride: dim });
            laps.end(Stage::Downsample);
            self.watch.show(Place::Downsampled(block), first, next, dim);
        })?;
        swap(&mut b.x, &mut b.next);
        Ok(())
    }

    /// x = x + gamma * MLP(LayerNorm(DepthwiseConv(x))).
    fn block(
        &self,
        c: &Config,
        stage: usize,
        index: usize,
        block: &ConvBlock<InFile<'_>>,
        b: &mut Buffers<'_>,
    ) -> Result<(), Error> {
        let k = self.k;
        let (tokens, dim, up) = (stage_tokens(c, stage), stage_width(c, stage), block.mlp.up.bias.len());
        let rows = self.rows(tokens);
        let workers = Chunks::new(b.workers, b.worker_bytes);
        let x = Map::new(b.x, c.stage_grid(stage), c.stages()[stage].dim);
        for_each(self.executor, workers, Chunks::new(&mut b.next[..tokens * dim], rows * dim), |memory, i, next| {
            let mut laps = Laps::start(self.watch.profile);
            let w = Worker::of(c, memory);
            let (mut operand, branch) = (w.operand, w.branch);
            let (first, rows) = (i * rows, next.len() / dim);
            next.copy_from_slice(&x.data[first * dim..][..next.len()]);

            let (kernel, weight, bias) = (block.conv.kernel, block.conv.weight, block.conv.bias);
            let convolved = &mut branch[..rows * dim];
            k.run(DepthwiseConv { x, kernel, weight, bias, first, out: convolved });
            laps.end(Stage::Depthwise);
            let hidden = &mut w.wide[..rows * up];
            let a = operand.branch(k, convolved, block.mlp.norm.as_ref(), rows, &block.mlp.up);
            laps.end(Stage::Norm);
            multiply(k, a, rows, &block.mlp.up, 0..up, Store { out: hidden, stride: up });
            laps.end(Stage::MlpUp);
            let a = operand.activated(k, hidden, rows, c.activation, &block.mlp.down);
            laps.end(Stage::Activation);
            Residual { gamma: block.mlp.gamma, mode: c.layerscale, branch }.add(k, a, &block.mlp.down, next);
            laps.end(Stage::MlpDown);
            self.watch.show(Place::Mlp(index), first, next, dim);
        })?;
        swap(&mut b.x, &mut b.next);
        Ok(())
    }

    /// Tokens, pooling, norm, features, head.
    fn head(&self, c: &Config, outputs: Outputs, b: &mut Buffers<'_>, out: &mut [F32x16]) -> Result<(), Error> {
        let (k, tail) = (self.k, &self.weights.tail()?);
        let last = c.stages().len() - 1;
        // One worker for a few rows; through `for_each` for the floating-point environment.
        let workers = Chunks::new(&mut b.workers[..b.worker_bytes], usize::MAX);
        let x = Chunks::new(&mut b.x[..stage_tokens(c, last) * stage_width(c, last)], usize::MAX);
        let pieces = ((x, Chunks::new(b.features, usize::MAX)), Chunks::new(out, usize::MAX));
        for_each(&Sequential, workers, pieces, |memory, _, ((x, features), out)| {
            let mut laps = Laps::start(self.watch.profile);
            Head { c, k, tail, outputs }.run(x, features, Worker::of(c, memory).operand, out);
            laps.end(Stage::Head);
        })
    }
}
