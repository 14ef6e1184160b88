//! Token mixing over a block of channels of all tokens, whatever the precision: int8 models mix in int8, the others in
//! f32.
//!
//! A block of channels is `[tokens, chunks]`: rows as in the stream, cut to at most [`BLOCK`] chunks of 16 channels.

use core::ops::Range;

use crate::arena::Arena;
use crate::config::{Config, Family, Precision};
use crate::kernels::Kernels;
use crate::kernels::mixing::{Columns, ColumnsMut, Diagonals, MixFloat, MixI8, PackColumns};
use crate::kernels::tiles::MAX_ROWS;
use crate::lanes::{F32x16, I8x16x4, I32x16, U8x16, pad16};
use crate::layout::k8;
use crate::parts::{Mixer, MixerWeight};

/// Chunks of channels that a worker takes at a time: few, so that their columns stay in L1 and there are blocks for all
/// workers.
pub(crate) const BLOCK: usize = 2;

/// One worker's memory for mixing a block of channels.
pub(crate) struct MixingScratch<'w> {
    /// What the branch adds, `[tokens, BLOCK]`.
    y: &'w mut [F32x16],
    /// Codes of the columns, `[BLOCK, K8 / 4]` in int8 models.
    codes: &'w mut [I8x16x4],
    /// `[BLOCK]` each.
    scale: &'w mut [F32x16],
    zero: &'w mut [I32x16],
    sums: &'w mut [I32x16],
    /// Rows of a tile of the matrix in the form that multiplies, `[MAX_ROWS, pad16(tokens) / 16]`: int8 and f16 models.
    rows_i8: &'w mut [U8x16],
    rows_f32: &'w mut [F32x16],
}

impl<'w> MixingScratch<'w> {
    /// Empty where tokens are not mixed.
    pub(crate) fn carve(c: &Config, arena: &mut Arena<'w>) -> Self {
        let mixes = |len| if cfg!(feature = "resmlp") && c.family == Family::ResMlp { len } else { 0 };
        let of = |precision, len| if c.precision == precision { mixes(len) } else { 0 };
        let (int8, rows) = (|len| of(Precision::Int8, len), MAX_ROWS * pad16(c.tokens()) / 16);
        Self {
            y: arena.take(mixes(BLOCK * c.tokens())),
            codes: arena.take(int8(BLOCK * k8(c.tokens()) / 4)),
            scale: arena.take(int8(BLOCK)),
            zero: arena.take(int8(BLOCK)),
            sums: arena.take(int8(BLOCK)),
            rows_i8: arena.take(int8(rows)),
            rows_f32: arena.take(of(Precision::F16, rows)),
        }
    }

    /// What the branch adds to `x`, the chunks `channels` of the stream, but for a gamma that is kept.
    pub(crate) fn mix(self, k: Kernels, mixer: &Mixer<'_>, channels: Range<usize>, x: &[F32x16]) -> &'w mut [F32x16] {
        let chunks = channels.len();
        let tokens = x.len() / chunks;
        let Mixer { weight, bias, row_sum, .. } = *mixer;
        let [factor, offset, bias_factor] =
            [mixer.factor, mixer.offset, mixer.bias_factor].map(|values| &values[channels.clone()]);
        let diagonals = |scale| Diagonals { scale, bias, row_sum, offset, bias_factor };
        let y = &mut self.y[..x.len()];
        let (out, wide) = (&mut *y, self.rows_f32);
        match weight {
            MixerWeight::Int8 { codes: rows, scale: row_scale, sums: row_sums } => {
                let groups = k8(tokens) / 4;
                let Self { codes, scale, zero, sums, rows_i8: scratch, .. } = self;
                let codes = &mut codes[..chunks * groups];
                k.run(PackColumns { x, tokens, factor, out: ColumnsMut { codes, groups, scale, zero, sums } });
                let (x, diagonals) = (Columns { codes, groups, scale, zero, sums }, diagonals(Some(row_scale)));
                k.run(MixI8 { rows, tokens, sums: row_sums, x, diagonals, scratch, out });
            }
            MixerWeight::F16 { values: rows, scale } => {
                k.run(MixFloat { rows, tokens, x, factor, diagonals: diagonals(Some(scale)), wide, out });
            }
            MixerWeight::F32 { values: rows } => {
                k.run(MixFloat { rows, tokens, x, factor, diagonals: diagonals(None), wide, out });
            }
        }
        y
    }
}
