//! The plain Vision Transformer (Dosovitskiy et al. 2020), with LayerScale (Touvron et al. 2021), registers, any
//! pooling; the one whose branches stand side by side; and the families that differ from it in how attention knows
//! positions. ViT-5 (Wang et al. 2026) has RMSNorm in the place of LayerNorm.
//!
//! ```text
//! x = [prefix; patches W + b + positions]          no positions in BEiT and DINOv3
//! x = x + gamma_1 * Attention(LayerNorm(x))        depth times
//! x = x + gamma_2 * MLP(LayerNorm(x))              parallel: of the x before attention was added (Dehghani et al. 2023)
//! logits = head(pool(LayerNorm(x)))
//!
//! Attention: softmax(q k^T / sqrt(d)) v            q, k, v = Linear(x)
//! BEiT:      softmax(q k^T / sqrt(d) + B) v        B[i, j] by the offset from patch i to patch j (Bao et al. 2021)
//! DINOv3:    softmax(R q (R k)^T / sqrt(d)) v      R rotates pairs of channels by a patch's place (Simeoni et al. 2025)
//! ViT-5:     the same, q and k through RMSNorm     R rotates the channels of registers, too
//! ```

use crate::error::Error;
use crate::heads::Taps;
use crate::lanes::F32x16;
use crate::networks::transformer::{Buffers, Input, Pass};

/// One inference. `out` receives the outputs, `taps` what another head reads.
pub(crate) fn forward(
    pass: &Pass<'_>,
    input: Input<'_>,
    taps: &mut Taps<'_>,
    b: &mut Buffers<'_>,
    out: &mut [F32x16],
) -> Result<(), Error> {
    let c = pass.c;
    pass.embed(input, b)?;
    for (i, block) in pass.weights.blocks().enumerate() {
        pass.watch.go_on()?;
        let rows = if i + 1 == c.depth { pass.rows_read() } else { c.tokens() };
        pass.block(i, &block?, 0..c.tokens(), rows, b)?;
        let normalized = taps.normalized;
        if let Some(tokens) = taps.of(i) {
            pass.keep(b, normalized, tokens)?;
        }
    }
    pass.head(b, out)
}
