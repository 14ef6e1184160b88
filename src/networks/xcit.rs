//! XCiT (El-Nouby et al. 2021, "Cross-Covariance Image Transformers"): attention between the channels of a head, whose
//! cost is linear in the patches, convolutions where neighbours have to meet, and CaiT's class attention at the end.
//!
//! ```text
//! x = Conv(GELU(Conv(GELU(... Conv(picture))))) + positions                    3 x 3, stride 2
//! x = x + gamma_1 * CrossCovariance(LayerNorm(x))                              depth times
//! x = x + gamma_3 * Depthwise(BatchNorm(GELU(Depthwise(LayerNorm(x)))))
//! x = x + gamma_2 * MLP(LayerNorm(x))
//! [c; x] = [c; x] + gamma_1 * [Attention(u); u], u = LayerNorm([c; x])         class_blocks times, c the class token
//! [c; x] = LayerNorm([c; x]), or [LayerNorm(c); x]                             tokens_norm
//! [c; x] = [c + gamma_2 * MLP(c); x + x]
//! logits = head(LayerNorm(c))
//!
//! CrossCovariance: P v for each token and head, P = softmax(q k^T temperature) from q and k [d, tokens] of unit rows
//! ```
//!
//! Patches meet in every step but the MLP and the matrices, so a block has five phases, with all threads meeting after
//! each.

use core::mem::swap;

use crate::arena::{Arena, counted};
use crate::bytes::floats_mut;
use crate::config::{Activation, Config, Xcit};
use crate::error::Error;
use crate::kernels::depthwise::DepthwiseConv;
use crate::kernels::linear::Store;
use crate::kernels::rows::{Activate, Affine};
use crate::lanes::{F32x16, pad16};
use crate::networks::transformer::{self, Block, Input, Memory, Pass, ROWS};
use crate::ops::attention::{KeysValues, Queries};
use crate::ops::cross::{self, Channels, Matrices};
use crate::ops::map::{self, Conv3x3, End, Map, MapMut, Workers};
use crate::ops::{Residual, Scheme, multiply, normalize};
use crate::parallel::Chunks;
use crate::parts::{Depthwise, InFile, Linear, Missing, Storage, Walk};
use crate::profile::Stage;
use crate::tap::Place;

/// Edge of the depthwise convolutions' kernels.
const KERNEL: usize = 3;

/// Local patch interaction: a residual branch between attention and MLP.
#[derive(Clone, Debug, Default)]
pub struct Local<M: Storage> {
    /// Before it, `[dim]`.
    pub norm: M::Norm,
    /// Before GELU.
    pub first: M::Depthwise,
    /// After GELU: BatchNorm as factors and offsets. Its offsets do not reach the border that the second convolution
    /// reads, so they are not in the bias of that convolution.
    pub affine: M::Norm,
    /// At the end.
    pub second: M::Depthwise,
    /// LayerScale, `[dim]`.
    pub gamma: Option<M::Vectors>,
}

impl<M: Storage> Local<M> {
    /// # Errors
    /// The walk's.
    pub(crate) fn walk<W: Walk<Storage = M>>(&mut self, c: &Config, w: &mut W) -> Result<(), W::Error> {
        w.norm("norm3", c.dim, &mut self.norm)?;
        w.rows(Stage::Depthwise, c.patches());
        w.depthwise("local_conv1", c.dim, KERNEL, &mut self.first)?;
        w.norm("local_norm", c.dim, &mut self.affine)?;
        w.depthwise("local_conv2", c.dim, KERNEL, &mut self.second)?;
        w.gamma(c, "gamma3", c.dim, &mut self.gamma)
    }
}

/// Memory that all workers share, and each worker's own.
pub(crate) struct Buffers<'a> {
    /// The residual stream `[1 + patches, pad16(dim)]`, the class token first.
    x: &'a mut [F32x16],
    /// `[pad16(dim)]`.
    features: &'a mut [F32x16],
    /// `[threads][worker_bytes]`.
    workers: &'a mut [u8],
    worker_bytes: usize,
    /// [`Maps`], then [`Patches`], then class attention's q, k and v.
    phases: &'a mut [u8],
}

impl<'a> Buffers<'a> {
    pub(crate) fn carve(c: &Config, threads: usize, arena: &mut Arena<'a>) -> Self {
        let dim = pad16(c.dim) / 16;
        let stem = map::worker_bytes(c.patch_len(), c.precision);
        let worker_bytes = Memory::bytes(c).max(cross::worker_bytes(c)).max(stem);
        let phases = [
            counted(|arena| Maps::carve(c, arena)),
            counted(|arena| Patches::carve(c, arena)),
            counted(|arena| class_attention(c, arena)),
        ];
        Self {
            x: arena.take(c.tokens() * dim),
            features: arena.take(dim),
            workers: arena.take(threads.saturating_mul(worker_bytes)),
            worker_bytes,
            phases: arena.take(phases.into_iter().fold(0, usize::max)),
        }
    }

    /// As class attention and the head take it.
    fn transformer(&mut self, c: &Config) -> transformer::Buffers<'_> {
        let (queries, keys) = class_attention(c, &mut Arena::over(self.phases));
        transformer::Buffers {
            x: self.x,
            queries,
            keys,
            features: self.features,
            workers: self.workers,
            worker_bytes: self.worker_bytes,
        }
    }
}

/// q of the class token, k and v of all tokens.
fn class_attention<'a>(c: &Config, arena: &mut Arena<'a>) -> (Queries<'a>, KeysValues<'a>) {
    let attention = transformer::attention(c);
    let queries = Queries::carve(&attention, c.precision, 1, arena);
    (queries, KeysValues::carve(&attention, c.precision, c.tokens(), arena))
}

/// What the stem's convolutions make, every other one in the same place.
struct Maps<'a>([&'a mut [F32x16]; 2]);

impl<'a> Maps<'a> {
    fn carve(c: &Config, arena: &mut Arena<'a>) -> Self {
        let largest = |first: usize| {
            let maps = (first..c.stem_layers()).step_by(2).map(|i| Map::data_len(c.stem_size(i), c.stem_channels(i)));
            maps.fold(0, usize::max)
        };
        Self([arena.take(largest(0)), arena.take(largest(1))])
    }
}

/// What a block's phases leave for each other.
struct Patches<'a> {
    /// `[patches, 3 * attention_width]`; then, in the same place, the picture between the depthwise convolutions.
    qkv: &'a mut [F32x16],
    matrices: Matrices<'a>,
    /// What the first depthwise convolution reads, `[patches, pad16(dim)]`.
    normed: &'a mut [F32x16],
}

impl<'a> Patches<'a> {
    fn carve(c: &Config, arena: &mut Arena<'a>) -> Self {
        let map = c.patches() * pad16(c.dim) / 16;
        Self {
            qkv: arena.take((c.patches() * (3 * c.attention_width() / 16)).max(map)),
            matrices: Matrices::carve(c, arena),
            normed: arena.take(map),
        }
    }
}

/// One inference. `out` receives the outputs.
pub(crate) fn forward(
    xcit: &Xcit,
    pass: &Pass<'_>,
    input: Input<'_>,
    b: &mut Buffers<'_>,
    out: &mut [F32x16],
) -> Result<(), Error> {
    let c = pass.c;
    pass.embed_by_convolutions(input, b)?;
    let mut blocks = pass.weights.blocks().enumerate();
    for (i, block) in blocks.by_ref().take(c.depth) {
        pass.watch.go_on()?;
        let block = block?;
        pass.cross_covariance(i, &block, b)?;
        pass.interact_and_transform(i, &block, b)?;
    }
    let reads_patches = pass.rows_read() > 1;
    for (i, block) in blocks {
        pass.watch.go_on()?;
        let block = block?;
        pass.block(i, &block, 0..c.tokens(), 1, &mut b.transformer(c))?;
        if i + 1 < c.blocks() || reads_patches {
            pass.carry_patches(xcit, i, &block, b)?;
        }
    }
    pass.head(&mut b.transformer(c), out)
}

impl Pass<'_> {
    /// x = [class token; Conv(GELU(... Conv(picture))) + positions].
    fn embed_by_convolutions(&self, input: Input<'_>, b: &mut Buffers<'_>) -> Result<(), Error> {
        let (c, embedding) = (self.c, &self.embedding);
        let dim = pad16(c.dim) / 16;
        let mut workers = Workers {
            k: self.k,
            executor: self.executor,
            memory: b.workers,
            worker_bytes: b.worker_bytes,
            profile: self.watch.profile,
            stage: Stage::PatchEmbed,
            scheme: Scheme::Stem,
        };
        let conv = |linear, end| Conv3x3 { linear, stride: 2, relu: false, end };
        let Maps([mut to, mut from]) = Maps::carve(c, &mut Arena::over(b.phases));
        for (i, linear) in embedding.stem.iter().flatten().enumerate() {
            let mut y = MapMut::new(to, c.stem_size(i), c.stem_channels(i));
            match i.checked_sub(1) {
                None => self.convolve_picture(input, linear, &mut workers, y.data)?,
                Some(before) => {
                    let x = Map::new(from, c.stem_size(before), c.stem_channels(before));
                    workers.conv3x3(x, conv(linear, End::Activate(Activation::Gelu)), &mut y)?;
                }
            }
            swap(&mut from, &mut to);
        }
        let (class, x) = b.x.split_at_mut(dim);
        class.copy_from_slice(embedding.prefix);
        self.watch.show(Place::Embedding, 0, class, dim);
        let mut y = MapMut::new(x, c.grid(), c.dim);
        let end = match embedding.positions {
            Some(positions) => {
                y.data.copy_from_slice(positions);
                End::Add
            }
            None => End::Store,
        };
        let last = c.stem_layers() - 1;
        let x = Map::new(from, c.stem_size(last), c.stem_channels(last));
        workers.conv3x3(x, conv(&embedding.patch, end), &mut y)?;
        self.watch.show(Place::Embedding, 1, y.data, dim);
        Ok(())
    }

    /// y = GELU(Conv(picture)).
    fn convolve_picture(
        &self,
        input: Input<'_>,
        linear: &Linear<'_>,
        workers: &mut Workers<'_>,
        y: &mut [F32x16],
    ) -> Result<(), Error> {
        let (c, k, channels) = (self.c, self.k, linear.bias.len());
        let (across, stride) = (c.stem_size(0).1, pad16(c.stem_inputs(0)) / 16);
        let memory = Chunks::new(workers.memory, workers.worker_bytes);
        self.for_rows(memory, 0, Chunks::new(y, ROWS * channels), |mut w, y| {
            let rows = y.len() / channels;
            let Memory { operand, wide, .. } = &mut w.memory;
            let windows = &mut wide[..rows * stride];
            for (pixel, window) in (w.first..).zip(windows.chunks_exact_mut(stride)) {
                window_of_picture(c, input, (pixel / across, pixel % across), floats_mut(window));
            }
            let a = operand.pixels(k, windows, rows, linear);
            multiply(k, a, rows, linear, 0..channels, Store { out: y, stride: channels });
            k.run(Activate { x: y, chunks: channels, activation: Activation::Gelu });
            w.laps.end(Stage::PatchEmbed);
        })
    }

    /// x = x + CrossCovariance(LayerNorm(x)), over the patches.
    fn cross_covariance(&self, index: usize, block: &Block<InFile<'_>>, b: &mut Buffers<'_>) -> Result<(), Error> {
        let (c, k) = (self.c, self.k);
        let (dim, width) = (pad16(c.dim) / 16, c.attention_width() / 16);
        let Patches { qkv, mut matrices, normed } = Patches::carve(c, &mut Arena::over(b.phases));
        let qkv = &mut qkv[..c.patches() * 3 * width];
        let x = &mut b.x[dim..];

        let workers = Chunks::new(b.workers, b.worker_bytes);
        let pieces = (Chunks::new(x, ROWS * dim), Chunks::new(qkv, ROWS * 3 * width));
        self.for_rows(workers, 1, pieces, |mut w, (x, qkv)| {
            let tokens = x.len() / dim;
            let a = w.memory.operand.branch(k, x, block.norm1.as_ref(), tokens, &block.qkv);
            w.laps.end(Stage::Norm);
            multiply(k, a, tokens, &block.qkv, 0..3 * width, Store { out: qkv, stride: 3 * width });
            w.laps.end(Stage::Qkv);
        })?;

        let qkv = &*qkv;
        let workers = Chunks::new(b.workers, b.worker_bytes);
        let local = block.local.as_ref().ok_or(Missing)?;
        let from = Channels { qkv, temperature: block.temperature.ok_or(Missing)? };
        matrices.make(k, c, from, self.executor, workers, self.watch.profile)?;

        let workers = Chunks::new(b.workers, b.worker_bytes);
        let pieces = (Chunks::new(x, ROWS * dim), Chunks::new(normed, ROWS * dim));
        self.for_rows(workers, 1, pieces, |mut w, (x, normed)| {
            let (first, Memory { operand, wide, attended, .. }) = (w.first, &mut w.memory);
            let attended = &mut attended[..x.len() / dim * width];
            matrices.apply(k, c, &qkv[(first - 1) * 3 * width..], operand, wide, attended);
            w.laps.end(Stage::Attention);
            self.watch.show(Place::Heads(index), first, attended, width);
            w.project(index, block, x);
            normalize(k, &local.norm, x, normed);
            w.laps.end(Stage::Norm);
        })
    }

    /// x = x + Depthwise(BatchNorm(GELU(Depthwise(LayerNorm(x))))), x = x + MLP(LayerNorm(x)), over the patches. The
    /// norms of the former are there.
    fn interact_and_transform(
        &self,
        index: usize,
        block: &Block<InFile<'_>>,
        b: &mut Buffers<'_>,
    ) -> Result<(), Error> {
        let (c, k) = (self.c, self.k);
        let local = block.local.as_ref().ok_or(Missing)?;
        let dim = pad16(c.dim) / 16;
        let Patches { qkv: between, normed, .. } = Patches::carve(c, &mut Arena::over(b.phases));
        let between = &mut between[..c.patches() * dim];

        let workers = Chunks::new(b.workers, b.worker_bytes);
        self.for_rows(workers, 1, Chunks::new(between, ROWS * dim), |mut w, y| {
            k.run(depthwise(c, normed, &local.first, w.first - 1, y));
            k.run(Activate { x: y, chunks: dim, activation: Activation::Gelu });
            k.run(Affine { x: y, factor: local.affine.weight, offset: local.affine.bias });
            w.laps.end(Stage::Depthwise);
        })?;

        let workers = Chunks::new(b.workers, b.worker_bytes);
        self.for_rows(workers, 1, Chunks::new(&mut b.x[dim..], ROWS * dim), |mut w, x| {
            let y = &mut w.memory.wide[..x.len()];
            k.run(depthwise(c, between, &local.second, w.first - 1, y));
            Residual { gamma: local.gamma, mode: c.layerscale, branch: &mut [] }.add_rows(k, y, x);
            w.laps.end(Stage::Depthwise);
            w.show(Place::Local(index), x);
            w.transform(index, &block.mlp, x);
        })
    }

    /// What class attention makes of the patches, which it has read: x = x + LayerNorm(x), x = LayerNorm(x) where that
    /// is over all tokens, x = x + x.
    fn carry_patches(
        &self,
        xcit: &Xcit,
        index: usize,
        block: &Block<InFile<'_>>,
        b: &mut Buffers<'_>,
    ) -> Result<(), Error> {
        let (c, k) = (self.c, self.k);
        let dim = pad16(c.dim) / 16;
        let (norm, stream_norm) = (block.patches_norm.ok_or(Missing)?, block.stream_norm.ok_or(Missing)?);
        let workers = Chunks::new(b.workers, b.worker_bytes);
        self.for_rows(workers, 1, Chunks::new(&mut b.x[dim..], ROWS * dim), |mut w, x| {
            let y = &mut w.memory.wide[..x.len()];
            normalize(k, &norm, x, y);
            Residual { gamma: block.gamma1, mode: c.layerscale, branch: &mut [] }.add_rows(k, y, x);
            w.normalize(xcit.tokens_norm.then_some(&stream_norm), x);
            floats_mut(x).iter_mut().for_each(|x| *x += *x);
            w.laps.end(Stage::Norm);
            w.show(Place::Mlp(index), x);
        })
    }
}

/// The depthwise convolution `conv` of the picture `x` of all patches, for the patches from `first` on that `out` has
/// room for.
fn depthwise<'a>(
    c: &Config,
    x: &'a [F32x16],
    conv: &Depthwise<'a>,
    first: usize,
    out: &'a mut [F32x16],
) -> DepthwiseConv<'a> {
    let x = Map::new(x, c.grid(), c.dim);
    DepthwiseConv { x, kernel: conv.kernel, weight: conv.weight, bias: conv.bias, first, out }
}

/// The 3 x 3 pixels around (2 y, 2 x) of the picture, channel by channel, zero above and left of it; zero-padded to the
/// length of `window`. Height and width are even, so nothing is read below or right of it.
fn window_of_picture(c: &Config, input: Input<'_>, (y, x): (usize, usize), window: &mut [f32]) {
    let (taps, padding) = window.split_at_mut(27);
    padding.fill(0.0);
    for (i, taps) in taps.chunks_exact_mut(3).enumerate() {
        let (channel, dy) = (i / 3, i % 3);
        let (outside, line) = match (2 * y + dy).checked_sub(1) {
            None => (3, 0),
            Some(line) => (usize::from(x == 0), line),
        };
        let (outside, inside) = taps.split_at_mut(outside);
        outside.fill(0.0);
        input.line(c, channel, line, (2 * x).saturating_sub(1), inside);
    }
}
