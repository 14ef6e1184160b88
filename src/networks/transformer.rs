//! What the families with transformer blocks share: memory, patch embedding, the phases of a block. Beside it, their
//! parts and the classifier.
//!
//! Between two attentions everything is local to a token, so work is split into blocks of [`ROWS`] tokens. A block has
//! three phases, with all threads meeting after each: q, k and v of all tokens; v quantized by channel over all tokens
//! (int8 only); attention, projection and MLP, token block by token block.

use core::ops::Range;

mod classifier;
mod parts;
mod worker;

pub(crate) use classifier::Head;
pub use parts::{ATTENTION, Block, Embedding, MLP, Mlp, Rotation, Tail, Talking};
pub(super) use worker::{Memory, Worker, attention};

use crate::arena::Arena;
use crate::config::{Attention, Config, Family};
use crate::error::Error;
use crate::heads::TokensMut;
use crate::kernels::Kernels;
use crate::lanes::{F32x16, pad16};
use crate::networks::{Run, Weights};
use crate::ops::attention::{KeysValues, Queries};
use crate::ops::normalize;
use crate::output::Outputs;
use crate::parallel::{Chunks, Executor, Sequential, Split, for_each};
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
    /// q of all tokens, ready for attention.
    pub(super) queries: Queries<'a>,
    /// k and v of all tokens.
    pub(super) keys: KeysValues<'a>,
    /// `[parts, pad16(dim)]`.
    pub(super) features: &'a mut [F32x16],
    /// `[threads][worker_bytes]`.
    pub(super) workers: &'a mut [u8],
    pub(super) worker_bytes: usize,
}

impl<'a> Buffers<'a> {
    pub(crate) fn carve(c: &Config, threads: usize, arena: &mut Arena<'a>) -> Self {
        let (dim, attention) = (pad16(c.dim) / 16, attention(c));
        let worker_bytes = Memory::bytes(c);
        Self {
            x: arena.take(c.tokens() * dim),
            queries: Queries::carve(&attention, c.precision, c.tokens(), arena),
            keys: KeysValues::carve(&attention, c.precision, c.tokens(), arena),
            features: arena.take(c.parts() * dim),
            workers: arena.take(threads.saturating_mul(worker_bytes)),
            worker_bytes,
        }
    }
}

/// What every phase needs.
pub(crate) struct Pass<'p> {
    pub(super) weights: Weights<'p>,
    pub(super) c: &'p Config,
    pub(super) attention: Attention,
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
        Ok(Self { weights, c, attention: attention(c), k, outputs, embedding, executor, watch })
    }

    /// Tokens that the last block has to compute.
    pub(super) fn rows_read(&self) -> usize {
        self.outputs.rows_read(self.c)
    }

    /// Chunks of a row of the stream.
    pub(super) fn dim(&self) -> usize {
        pad16(self.c.dim) / 16
    }

    /// Calls `work` for each of `pieces`, which belong to blocks of [`ROWS`] tokens from `first` on, with a worker
    /// there.
    pub(super) fn for_rows<P: Split>(
        &self,
        workers: Chunks<'_, u8>,
        first: usize,
        pieces: P,
        work: impl Fn(Worker<'_, 'p>, P::Piece) + Sync,
    ) -> Result<(), Error> {
        for_each(self.executor, workers, pieces, |memory, i, piece| {
            work(Worker::new(self, first + i * ROWS, memory), piece);
        })
    }

    /// x = [prefix; Linear(patch) + position], then the optional first norm.
    pub(crate) fn embed(&self, input: Input<'_>, b: &mut Buffers<'_>) -> Result<(), Error> {
        let (c, embedding, dim) = (self.c, &self.embedding, self.dim());
        let workers = Chunks::new(b.workers, b.worker_bytes);
        self.for_rows(workers, 0, Chunks::new(b.x, ROWS * dim), |mut w, x| {
            let prefix_rows = c.prefix_tokens().saturating_sub(w.first).min(x.len() / dim);
            let (prefix, patches) = x.split_at_mut(prefix_rows * dim);
            if !prefix.is_empty() {
                prefix.copy_from_slice(&embedding.prefix[w.first * dim..][..prefix.len()]);
            }
            if !patches.is_empty() {
                let patch = w.first + prefix_rows - c.prefix_tokens();
                match embedding.positions {
                    Some(positions) => patches.copy_from_slice(&positions[patch * dim..][..patches.len()]),
                    None => patches.fill(F32x16([0.0; 16])),
                }
                w.add_patches(patches, &embedding.patch, patch, |patch, row| input.patch(c, patch, row));
            }
            w.normalize(embedding.norm_pre.as_ref(), x);
            w.laps.end(Stage::PatchEmbed);
            w.show(Place::Embedding, x);
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
        let (c, attention, dim) = (self.c, &self.attention, self.dim());
        let is_parallel = matches!(c.family, Family::ParallelVit(_));
        let x = &mut b.x[span.start * dim..span.end * dim];

        // q, k, v = Linear(Norm(x)), q of the first rows alone.
        let qkv = (b.queries.blocks(attention, rows, ROWS), b.keys.blocks(attention, span.len(), ROWS));
        let workers = Chunks::new(b.workers, b.worker_bytes);
        self.for_rows(workers, span.start, (Chunks::new(x, ROWS * dim), qkv), |mut w, (x, qkv)| {
            w.project_qkv(block, x, qkv);
        })?;
        let workers = Chunks::new(b.workers, b.worker_bytes);
        b.keys.pack_values(self.k, attention, self.executor, workers, self.watch.profile)?;

        // x = x + Linear(Attention(q, k, v)), x = x + MLP(Norm(x)).
        let qkv = (&b.queries, &b.keys);
        let workers = Chunks::new(b.workers, b.worker_bytes);
        self.for_rows(workers, span.start, Chunks::new(&mut x[..rows * dim], ROWS * dim), |mut w, x| {
            let queries = (w.first - span.start, x.len() / dim);
            w.attend(index, block.score_change(c), qkv, queries);
            if is_parallel {
                w.expand(&block.mlp, x);
            }
            w.project(index, block, x);
            w.normalize(block.stream_norm.as_ref(), x);
            if !is_parallel {
                w.expand(&block.mlp, x);
            }
            w.contract(index, &block.mlp, x);
        })
    }

    /// The stream, or what the last norm makes of it, for another head: patches, and the class token if it is read.
    pub(crate) fn keep(&self, b: &mut Buffers<'_>, normalized: bool, tokens: TokensMut<'_>) -> Result<(), Error> {
        let (c, k, dim) = (self.c, self.k, self.dim());
        let norm = if normalized { Some(self.weights.tail()?.norm.ok_or(Missing)?) } else { None };
        let (class, patches) = (&b.x[..dim], &b.x[c.prefix_tokens() * dim..]);
        let mut keep = |x: &[F32x16], out| {
            let workers = Chunks::new(b.workers, b.worker_bytes);
            for_each(self.executor, workers, Chunks::new(out, ROWS * dim), |_, i, out| {
                let mut laps = Laps::start(self.watch.profile);
                let x = &x[i * ROWS * dim..][..out.len()];
                match &norm {
                    Some(norm) => normalize(k, norm, x, out),
                    None => out.copy_from_slice(x),
                }
                laps.end(Stage::Head);
            })
        };
        tokens.class.map_or(Ok(()), |out| keep(class, out))?;
        keep(patches, tokens.patches)
    }

    /// Norm, tokens, pooling, norm, features, head.
    pub(crate) fn head(&self, b: &mut Buffers<'_>, out: &mut [F32x16]) -> Result<(), Error> {
        let (c, k, dim) = (self.c, self.k, self.dim());
        let tail = self.weights.tail()?;
        let rows = self.rows_read();
        // One worker for a few rows; through `for_each` for the floating-point environment.
        let workers = Chunks::new(&mut b.workers[..b.worker_bytes], usize::MAX);
        let x = Chunks::new(&mut b.x[..rows * dim], usize::MAX);
        let pieces = ((x, Chunks::new(b.features, usize::MAX)), Chunks::new(out, usize::MAX));
        for_each(&Sequential, workers, pieces, |memory, _, ((x, features), out)| {
            let mut laps = Laps::start(self.watch.profile);
            let operand = Memory::carve(c, &mut Arena::over(memory)).operand;
            Head { c, k, tail: &tail, outputs: self.outputs }.run(x, features, operand, out);
            laps.end(Stage::Head);
        })
    }
}

/// A norm of rows that replaces them; `copy` holds at least as much as `x`.
pub(crate) fn normalize_in_place(k: Kernels, norm: &Norm<'_>, x: &mut [F32x16], copy: &mut [F32x16]) {
    let copy = &mut copy[..x.len()];
    copy.copy_from_slice(x);
    normalize(k, norm, copy, x);
}
