//! A worker, and what it does to a block of rows of the residual stream. Each step has its memory, its time and its tap
//! here, so that the forward passes read like their papers.

use core::ops::Range;

use super::{Block, Mlp, Pass, ROWS, Rotation, normalize_in_place};
use crate::arena::{Arena, counted};
use crate::bytes::{floats, floats_mut};
use crate::config::{Attention, Config, Family};
use crate::kernels::linear::{Add, Store};
use crate::lanes::{F32x16, pad16};
use crate::ops::attention::{AttentionScratch, KeysValues, KeysValuesBlock, Queries, QueriesBlock, ScoreChange};
use crate::ops::mixing::MixingScratch;
use crate::ops::{Operand, OperandScratch, Residual, multiply};
use crate::parts::{InFile, Linear, Norm};
use crate::profile::{Laps, Stage};
use crate::tap::Place;

/// A worker's memory, for one block of rows.
pub(crate) struct Memory<'w> {
    pub(crate) operand: OperandScratch<'w>,
    /// Patches, then q | k | v, then the MLP's hidden layer: `[ROWS, wide]`.
    pub(crate) wide: &'w mut [F32x16],
    /// The heads' outputs side by side: `[ROWS, attention_width]`.
    pub(crate) attended: &'w mut [F32x16],
    /// A branch's output, where it is not added to the stream at once: `[ROWS, pad16(dim)]`.
    pub(crate) branch: &'w mut [F32x16],
    attention: AttentionScratch<'w>,
    pub(crate) mixing: MixingScratch<'w>,
}

impl<'w> Memory<'w> {
    pub(crate) fn carve(c: &Config, arena: &mut Arena<'w>) -> Self {
        let dim = pad16(c.dim) / 16;
        let patch = pad16(c.patch_len()) / 16;
        let heads = c.attention_width() / 16;
        let widest_operand = patch.max(c.parts() * dim).max(heads).max(pad16(c.hidden) / 16);
        let wide = patch.max(3 * heads).max(c.ffn_up_width() / 16);
        let mixes_heads = cfg!(feature = "cait") && matches!(c.family, Family::Cait(_));
        Self {
            operand: OperandScratch::carve(ROWS, widest_operand, dim, c.precision, arena),
            wide: arena.take(ROWS * wide),
            attended: arena.take(ROWS * heads),
            branch: arena.take(if c.keeps_gamma() || c.pruned { ROWS * dim } else { 0 }),
            attention: AttentionScratch::carve(&attention(c), c.precision, c.tokens(), mixes_heads, arena),
            mixing: MixingScratch::carve(c, arena),
        }
    }

    pub(crate) fn bytes(c: &Config) -> usize {
        counted(|arena| Self::carve(c, arena))
    }
}

/// The network's attention; without heads where it has none.
pub(crate) fn attention(c: &Config) -> Attention {
    c.family.attention().copied().unwrap_or(Attention::EMPTY)
}

/// A worker on a block of rows.
pub(crate) struct Worker<'w, 'p> {
    pass: &'w Pass<'p>,
    pub(crate) memory: Memory<'w>,
    /// The token of the first row.
    pub(crate) first: usize,
    pub(crate) laps: Laps<'p>,
}

impl<'w, 'p> Worker<'w, 'p> {
    pub(crate) fn new(pass: &'w Pass<'p>, first: usize, memory: &'w mut [u8]) -> Self {
        let laps = Laps::start(pass.watch.profile);
        Self { pass, memory: Memory::carve(pass.c, &mut Arena::over(memory)), first, laps }
    }

    /// Shows the rows `x` to the tap.
    pub(crate) fn show(&self, place: Place, x: &[F32x16]) {
        self.pass.watch.show(place, self.first, x, self.dim());
    }

    /// Chunks of a row of the stream.
    fn dim(&self) -> usize {
        pad16(self.pass.c.dim) / 16
    }

    /// Chunks of a row of q.
    fn width(&self) -> usize {
        self.pass.c.attention_width() / 16
    }

    /// x = x + Linear(patches), for the rows `x` from patch `first` on; `gather` copies the patch of a number.
    pub(crate) fn add_patches(
        &mut self,
        x: &mut [F32x16],
        linear: &Linear<'_>,
        first: usize,
        gather: impl Fn(usize, &mut [f32]),
    ) {
        let (dim, patch) = (self.dim(), pad16(self.pass.c.patch_len()) / 16);
        let rows = x.len() / dim;
        let pixels = &mut self.memory.wide[..rows * patch];
        for (row, pixels) in pixels.chunks_exact_mut(patch).enumerate() {
            gather(first + row, floats_mut(pixels));
        }
        let a = self.memory.operand.pixels(self.pass.k, pixels, rows, linear);
        multiply(self.pass.k, a, rows, linear, 0..dim, Add { x, stride: dim });
    }

    /// A norm of the rows in their place.
    pub(crate) fn normalize(&mut self, norm: Option<&Norm<'_>>, x: &mut [F32x16]) {
        if let Some(norm) = norm {
            normalize_in_place(self.pass.k, norm, x, self.memory.operand.normed);
        }
    }

    /// q, k, v = Rotate(Norm(Linear(Norm(x)))), each where the network has it; q for blocks with queries.
    pub(crate) fn project_qkv(
        &mut self,
        block: &Block<InFile<'_>>,
        x: &[F32x16],
        (mut queries, mut keys): (QueriesBlock<'_>, KeysValuesBlock<'_>),
    ) {
        let Pass { c, k, attention, .. } = *self.pass;
        let (width, rows) = (self.width(), x.len() / self.dim());
        // Of q, k and v, by their number.
        let first = usize::from(queries.is_empty());
        let Memory { operand, wide, attended, .. } = &mut self.memory;
        let (qkv, stride) = (&mut wide[..rows * 3 * width], 3 * width);
        let a = operand.branch(k, x, block.norm1.as_ref(), rows, &block.qkv);
        self.laps.end(Stage::Norm);
        multiply(k, a, rows, &block.qkv, first * width..stride, Store { out: &mut qkv[first * width..], stride });
        self.laps.end(Stage::Qkv);
        if let Some((q_norm, k_norm)) = &block.qk_norm {
            for row in qkv.chunks_exact_mut(stride) {
                for (norm, part) in [q_norm, k_norm].into_iter().zip(row.chunks_exact_mut(width)).skip(first) {
                    normalize_in_place(k, norm, part, attended);
                }
            }
        }
        if let Some(rotation) = &self.pass.embedding.rotation {
            rotate(c, rotation, self.first, qkv, first..2);
        }
        queries.pack(k, &attention, qkv, stride);
        keys.pack(k, &attention, &qkv[width..], stride);
        self.laps.end(Stage::Pack);
    }

    /// Attention(q, k, v): the heads' outputs for `rows` rows, the first of which has the query `query`.
    pub(crate) fn attend(
        &mut self,
        index: usize,
        change: ScoreChange<'_>,
        (queries, keys): (&Queries<'_>, &KeysValues<'_>),
        (query, rows): (usize, usize),
    ) {
        let Pass { k, attention, .. } = *self.pass;
        let width = self.width();
        let Memory { attention: scratch, attended, .. } = &mut self.memory;
        let attended = &mut attended[..rows * width];
        let queries = (query, queries.rows(&attention, query..query + rows));
        keys.attend(k, &attention, queries, change, scratch, attended);
        self.laps.end(Stage::Attention);
        self.pass.watch.show(Place::Heads(index), self.first, attended, width);
    }

    /// x = x + gamma_1 * Linear(the heads' outputs).
    pub(crate) fn project(&mut self, index: usize, block: &Block<InFile<'_>>, x: &mut [F32x16]) {
        let (k, width, rows) = (self.pass.k, self.width(), x.len() / self.dim());
        let Memory { operand, attended, branch, .. } = &mut self.memory;
        let a = operand.plain(k, &attended[..rows * width], rows, &block.proj);
        self.pass.add(block.gamma1, branch, a, &block.proj, x);
        self.laps.end(Stage::Projection);
        self.show(Place::Attention(index), x);
    }

    /// x = x + gamma_2 * MLP(Norm(x)).
    pub(crate) fn transform(&mut self, index: usize, mlp: &Mlp<InFile<'_>>, x: &mut [F32x16]) {
        self.expand(mlp, x);
        self.contract(index, mlp, x);
    }

    /// The first half of [`Self::transform`]: the hidden layer of the rows, before its non-linearity.
    pub(crate) fn expand(&mut self, mlp: &Mlp<InFile<'_>>, x: &[F32x16]) {
        let (k, up_width, rows) = (self.pass.k, self.pass.c.ffn_up_width() / 16, x.len() / self.dim());
        let Memory { operand, wide, .. } = &mut self.memory;
        let hidden = &mut wide[..rows * up_width];
        let a = operand.branch(k, x, mlp.norm.as_ref(), rows, &mlp.up);
        self.laps.end(Stage::Norm);
        multiply(k, a, rows, &mlp.up, 0..up_width, Store { out: hidden, stride: up_width });
        self.laps.end(Stage::MlpUp);
    }

    /// The second half.
    pub(crate) fn contract(&mut self, index: usize, mlp: &Mlp<InFile<'_>>, x: &mut [F32x16]) {
        let Pass { c, k, .. } = *self.pass;
        let (up_width, rows) = (c.ffn_up_width() / 16, x.len() / self.dim());
        let Memory { operand, wide, branch, .. } = &mut self.memory;
        let a = operand.activated(k, &mut wide[..rows * up_width], rows, c.activation, &mlp.down);
        self.laps.end(Stage::Activation);
        self.pass.add(mlp.gamma, branch, a, &mlp.down, x);
        self.laps.end(Stage::MlpDown);
        self.show(Place::Mlp(index), x);
    }
}

impl Pass<'_> {
    /// x = x + gamma * Linear(a).
    fn add(
        &self,
        gamma: Option<&[F32x16]>,
        branch: &mut [F32x16],
        a: Operand<'_>,
        linear: &Linear<'_>,
        x: &mut [F32x16],
    ) {
        Residual { gamma, mode: self.c.layerscale, branch }.add(self.k, a, linear, x);
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
