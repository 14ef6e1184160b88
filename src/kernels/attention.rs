//! Multi-head attention, a block of query rows at a time: softmax(Q K^T / sqrt(d)) V.
//!
//! Sizes: `heads` h; dp, the head width padded to 16; T tokens, Tb = ceil(T / 16) blocks of them, T16 = 16 Tb. All
//! buffers are chunks of 16 lanes: a row of all heads is h * dp / 16 chunks.
//!
//! The qkv layer's rows are `[3][h][dp]`. Packing turns the k third into the layout of weights whose output channels
//! are tokens, so that scores are a linear layer over q rows (`int8`: also quantized, per token and head); v stays in
//! rows until all tokens are there, then `int8` quantizes it per channel into the layout of weights whose inputs are
//! tokens. K and V of all tokens are complete before the first query row is attended; query rows are independent of
//! each other.
//!
//! Scores never exist for more than the rows of a register tile: `[8][T]` f32 and 8-bit, kilobytes that stay in the
//! first-level cache. Heads are the outer loop, so K and V of a head (2 T dp bytes in int8) stay there as well.
//!
//! What does not belong here: the qkv and output projections, qk-norm.

pub(crate) mod cross;
pub(crate) mod float;
pub(crate) mod int8;
pub(crate) mod talking;

use crate::bytes::{floats, floats_mut};
use crate::lanes::F32x16;

/// Where the scores of a query row end: the last block of 16 may be partly padding.
struct Tokens {
    /// Tb.
    blocks: usize,
    /// The bias of all blocks but the last, and of the last.
    bias: [F32x16; 2],
}

impl Tokens {
    fn new(tokens: usize) -> Self {
        let blocks = tokens.div_ceil(16);
        let mut last = F32x16([0.0; 16]);
        last.0[tokens + 16 - 16 * blocks..].fill(f32::NEG_INFINITY);
        Self { blocks, bias: [F32x16([0.0; 16]), last] }
    }

    /// What is added to the scores of a block: 0 for tokens, minus infinity for padding, which is then never the
    /// largest, and of which the exponential is below 2e-38: 0 in 8 bits, and nothing in an f32 sum that is at least 1.
    #[inline(always)]
    fn bias(&self, block: usize) -> &F32x16 {
        &self.bias[usize::from(block + 1 == self.blocks)]
    }
}

/// What relative position adds to the scores (Bao et al. 2021, "BEiT"): tokens are one class token and a grid of
/// patches.
#[derive(Clone, Copy)]
pub(crate) struct RelativeBias<'a> {
    /// A table for each head, of equal length: first the grid `[2 height - 1, 2 width - 1]` by key minus query
    /// position, (-(height - 1), -(width - 1)) first; then class token to patch, patch to class token, class token to
    /// itself.
    pub tables: &'a [F32x16],
    /// Patches along height and width.
    pub grid: (usize, usize),
}

impl RelativeBias<'_> {
    /// The bias of all scores of one query token `[Tb]`; minus infinity past the last token. The keys of one line of
    /// patches stand side by side in the table, too.
    #[inline(always)]
    fn row(&self, heads: usize, head: usize, query: usize, out: &mut [F32x16]) {
        let (height, width) = self.grid;
        let stride = self.tables.len() / heads;
        let table = floats(&self.tables[head * stride..][..stride]);
        let across = 2 * width - 1;
        let of_class = &table[(2 * height - 1) * across..];
        let (row, padding) = floats_mut(out).split_at_mut(1 + height * width);
        padding.fill(f32::NEG_INFINITY);
        let (to_class, to_patches) = row.split_at_mut(1);
        let Some(patch) = query.checked_sub(1) else {
            to_class[0] = of_class[2];
            return to_patches.fill(of_class[0]);
        };
        to_class[0] = of_class[1];
        let (y, x) = (patch / width, patch % width);
        for (key, line) in to_patches.chunks_exact_mut(width).enumerate() {
            line.copy_from_slice(&table[(height - 1 + key - y) * across + width - 1 - x..][..width]);
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests;
