//! Multi-head attention, a block of query rows at a time: softmax(Q K^T / sqrt(d)) V.
//!
//! Sizes: `heads` h; dp, the head width padded to 16; T tokens, Tb = ceil(T / 16) blocks of them, T16 = 16 Tb. All buffers are
//! chunks of 16 lanes: a row of all heads is h * dp / 16 chunks.
//!
//! The qkv layer's rows are `[3][h][dp]`. Packing turns the k third into the layout of weights whose output channels are tokens, so that
//! scores are a linear layer over q rows (`int8`: also quantized, per token and head); v stays in rows until all tokens
//! are there, then `int8` quantizes it per channel into the layout of weights whose inputs are tokens. K and V of all tokens
//! are complete before the first query row is attended; query rows are independent of each other.
//!
//! Scores never exist for more than the rows of a register tile: `[8][T]` f32 and 8-bit, kilobytes that stay in the
//! first-level cache. Heads are the outer loop, so K and V of a head (2 T dp bytes in int8) stay there as well.
//!
//! What does not belong here: the qkv and output projections, qk-norm.

pub(crate) mod float;
pub(crate) mod int8;

use super::isa::{F32x16, Isa};

/// Where the scores of a query row end: the last block of 16 may be partly padding.
#[derive(Clone, Copy)]
struct Tokens {
    /// Tb.
    blocks: usize,
    /// Tokens in the last block, 1 to 16.
    in_last: usize,
}

impl Tokens {
    fn new(tokens: usize) -> Self {
        let blocks = tokens.div_ceil(16);
        Self { blocks, in_last: tokens + 16 - 16 * blocks }
    }

    /// The larger of `best` and the scores of `block`, padding left out.
    #[inline(always)]
    fn max<S: Isa>(self, s: S, block: usize, scores: S::F, best: S::F) -> S::F {
        if block + 1 < self.blocks {
            return s.max(scores, best);
        }
        let limit = |lane| {
            if lane < self.in_last { f32::INFINITY } else { f32::NEG_INFINITY }
        };
        let limit = s.load(&F32x16(core::array::from_fn(limit)));
        s.max(s.min(scores, limit), best)
    }

    /// `values` of `block` with zeros for padding.
    #[inline(always)]
    fn keep<S: Isa>(self, s: S, block: usize, values: S::F) -> S::F {
        if block + 1 < self.blocks { values } else { s.keep_first(values, self.in_last) }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests;
