//! The two passes of a picture's resize: sums of weight times byte, exact in i32. `crate::picture` says whose weights
//! these are.

use super::isa::Isa;
use super::{Op, Uses};
use crate::lanes::I32x16;

/// R, G, B and a byte of no meaning.
pub(crate) type Pixel = [u8; 4];

/// Fractional bits of a weight: 8 bits of a byte, and 2 for sign and overshoot, leave 22 of 32.
pub(crate) const FRACTION_BITS: u32 = 32 - 8 - 2;

/// One half: sums start with it, so that the shift rounds.
pub(crate) const HALF: i32 = 1 << (FRACTION_BITS - 1);

/// Words before the weights of an output column: the first source pixel, the number of weights.
pub(crate) const HEADER: usize = 2;

/// Pixels that an output column is summed from at a time: columns have whole groups of weights.
pub(crate) const GROUP: usize = 4;

/// Bytes of a row that the vertical pass sums at a time, in registers.
const BLOCK: usize = 16;

/// A sum to the byte that it rounds to.
#[inline(always)]
pub(crate) fn to_byte(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

/// Resizes one row: every output pixel is the weighted sum of some of the row's pixels.
pub(crate) struct ResizeRow<'a> {
    /// For each output pixel its [`HEADER`], then up to `entry_len` in all, whole groups of weights, of which the last
    /// may be zeros.
    pub table: &'a [i32],
    pub entry_len: usize,
    /// The source pixel with which `line` begins.
    pub start: usize,
    /// As far as any group of weights reaches.
    pub line: &'a [Pixel],
    /// RGB.
    pub out: &'a mut [u8],
}

impl Op for ResizeRow<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let entries = self.table.chunks_exact(self.entry_len);
        for (entry, out) in entries.zip(self.out.as_chunks_mut::<3>().0) {
            let [first, count, weights @ ..] = entry else { continue };
            let groups = weights.as_chunks::<GROUP>().0.iter().take((*count as usize).div_ceil(GROUP));
            let mut sums = s.splat_i(0);
            for (weights, pixels) in groups.zip(self.line[*first as usize - self.start..].as_chunks::<GROUP>().0) {
                sums = s.add_weighted_pixels(sums, pixels, weights);
            }
            let mut lanes = I32x16([0; 16]);
            s.store_i(sums, &mut lanes);
            let [a, b, c, d] = lanes.0.as_chunks::<4>().0 else { continue };
            let [r, g, b, _] = core::array::from_fn(|i| to_byte(HALF + (a[i] + b[i]) + (c[i] + d[i])));
            *out = [r, g, b];
        }
    }
}

/// The weighted sum of `row(0)`, `row(1)`, ..., each at least as long as `out`.
pub(crate) struct SumRows<'a, R> {
    pub weights: &'a [i32],
    pub row: R,
    pub out: &'a mut [u8],
}

impl<'r, R: Fn(usize) -> &'r [u8]> Op for SumRows<'_, R> {
    type Output = ();
    const USES: Uses = Uses::Lanes;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let (blocks, rest) = self.out.as_chunks_mut::<BLOCK>();
        let rest_at = blocks.len() * BLOCK;
        for (i, block) in blocks.iter_mut().enumerate() {
            let mut sums = s.splat_i(HALF);
            for (t, weight) in self.weights.iter().enumerate() {
                // Bytes are bytes: four times four with the same weight.
                let bytes = (self.row)(t)[i * BLOCK..].as_chunks::<4>().0;
                let Some(bytes) = bytes.first_chunk() else { continue };
                sums = s.add_weighted_pixels(sums, bytes, &[*weight; 4]);
            }
            let mut lanes = I32x16([0; 16]);
            s.store_i(sums, &mut lanes);
            block.iter_mut().zip(lanes.0).for_each(|(byte, sum)| *byte = to_byte(sum));
        }
        for (i, byte) in rest.iter_mut().enumerate() {
            let products = self.weights.iter().enumerate().map(|(t, w)| w * i32::from((self.row)(t)[rest_at + i]));
            *byte = to_byte(HALF + products.sum::<i32>());
        }
    }
}
