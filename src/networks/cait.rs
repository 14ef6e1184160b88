//! CaiT (Touvron et al. 2021, "Going deeper with Image Transformers"), the network that LayerScale comes from: talking
//! heads (Shazeer et al. 2020) between the patches, then class attention, which changes the class token alone.
//!
//! ```text
//! x = patches W + b + positions
//! x = x + gamma_1 * TalkingHeads(LayerNorm(x))                 depth times
//! x = x + gamma_2 * MLP(LayerNorm(x))
//! cls = cls + gamma_1 * Attention(LayerNorm([cls; x]))         class_blocks times; queries of cls alone
//! cls = cls + gamma_2 * MLP(LayerNorm(cls))
//! logits = head(LayerNorm(cls))
//!
//! TalkingHeads: W_w softmax(W_l q k^T / sqrt(d) + b_l) v + b_w v          W_l, W_w: heads x heads, for each pair of tokens
//! ```

use crate::error::Error;
use crate::lanes::F32x16;
use crate::networks::transformer::{Buffers, Input, Pass};

/// One inference. `out` receives the outputs.
pub(crate) fn forward(pass: &Pass<'_>, input: Input<'_>, b: &mut Buffers<'_>, out: &mut [F32x16]) -> Result<(), Error> {
    let c = pass.c;
    pass.embed(input, b)?;
    let mut blocks = pass.weights.blocks().enumerate();
    for (i, block) in blocks.by_ref().take(c.depth) {
        pass.watch.go_on()?;
        pass.block(i, &block?, c.prefix_tokens()..c.tokens(), c.patches(), b)?;
    }
    for (i, block) in blocks {
        pass.watch.go_on()?;
        pass.block(i, &block?, 0..c.tokens(), 1, b)?;
    }
    pass.head(b, out)
}
