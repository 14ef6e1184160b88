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

pub(crate) mod float;
pub(crate) mod int8;

use super::isa::F32x16;

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

#[cfg(all(test, feature = "std"))]
mod tests;
