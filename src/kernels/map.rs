//! Maps: pictures of any number of channels, the patches that convolutions read, and ReLU.
//!
//! A map is its pixels, line by line, `[height, width, channels]`: channels last, padded to whole chunks of 16 with
//! zeros. So a pixel is a row of channels, as a token is, and whatever works on rows (`linear`, `rows`) works on maps.
//!
//! A 3 x 3 convolution is a linear layer over rows of patches: [`Patches`] gathers them, `linear` multiplies. A number
//! that is copied once is then multiplied once for each output channel: from 64 channels to 64, in f32 with AVX-512,
//! the convolution takes no longer than its product alone.
//!
//! What does not belong here: matrices (`linear`), threads (`ops`).

use core::ops::Range;

use super::isa::Isa;
use super::rows;
use super::{Op, Uses};
use crate::lanes::{F32x16, U8x16, pad16};

/// A map to be read.
#[derive(Clone, Copy)]
pub(crate) struct Map<'a> {
    /// `[height, width, pad16(channels) / 16]`, zero in the lanes past `channels`.
    pub data: &'a [F32x16],
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

/// A map to be written.
pub(crate) struct MapMut<'a> {
    /// As [`Map::data`].
    pub data: &'a mut [F32x16],
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

impl<'a> Map<'a> {
    /// The first chunks of `data`, as many as a map of this height and width has. Panics if there are fewer.
    pub(crate) fn new(data: &'a [F32x16], (height, width): (usize, usize), channels: usize) -> Self {
        Self { data: &data[..Self::data_len((height, width), channels)], height, width, channels }
    }

    /// Chunks of a map of this height and width.
    pub(crate) const fn data_len((height, width): (usize, usize), channels: usize) -> usize {
        height * width * (pad16(channels) / 16)
    }

    /// Height and width.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// Chunks of a pixel.
    pub(crate) fn chunks(&self) -> usize {
        pad16(self.channels) / 16
    }

    /// Some lines.
    pub(crate) fn lines(&self, lines: Range<usize>) -> Self {
        let (line, height) = (self.width * self.chunks(), lines.len());
        Self { data: &self.data[lines.start * line..lines.end * line], height, ..*self }
    }

    /// The pixels of line `y`.
    #[inline(always)]
    pub(super) fn line(&self, y: usize) -> &'a [F32x16] {
        let len = self.width * self.chunks();
        &self.data[y * len..][..len]
    }

    /// Pixel (`x`, `y`); `None` outside of the map.
    #[inline(always)]
    pub(super) fn pixel(&self, x: usize, y: usize) -> Option<&'a [F32x16]> {
        let chunks = self.chunks();
        let is_inside = x < self.width && y < self.height;
        is_inside.then(|| &self.data[(y * self.width + x) * chunks..][..chunks])
    }

    /// Panics unless `data` has the length that the sizes state.
    pub(super) fn check(&self) {
        assert_eq!(self.data.len(), Self::data_len(self.size(), self.channels), "data is the whole map");
    }
}

impl<'a> MapMut<'a> {
    /// As [`Map::new`].
    pub(crate) fn new(data: &'a mut [F32x16], (height, width): (usize, usize), channels: usize) -> Self {
        Self { data: &mut data[..Map::data_len((height, width), channels)], height, width, channels }
    }

    /// To be read.
    pub(crate) fn view(&self) -> Map<'_> {
        let Self { ref data, height, width, channels } = *self;
        Map { data, height, width, channels }
    }
}

/// max(x, 0), the same zero on every instruction set, and NaN for NaN (and for minus infinity).
#[inline(always)]
fn relu<S: Isa>(s: S, x: S::F) -> S::F {
    // x - min(x, 0): 0 is added so that -0 becomes 0, whichever zero the minimum is.
    let zero = s.splat(0.0);
    s.sub(s.add(x, zero), s.min(x, zero))
}

/// `x = max(x, 0)`.
pub(crate) struct Relu<'a> {
    pub x: &'a mut [F32x16],
}

impl Op for Relu<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        for x in self.x {
            s.store(relu(s, s.load(x)), x);
        }
    }
}

/// For each pixel the mean of `values` under the weights max(x, 0) + `offset` of its channels, x. Weights and products
/// are added up in 16 lanes, channel after channel; then the lanes, and then one sum is divided by the other.
pub(crate) struct WeightedMean<'a> {
    /// x, `[pixels][pad16(channels) / 16]`.
    pub weights: &'a [F32x16],
    /// Positive.
    pub offset: f32,
    /// `[channels]`, zero in the lanes past them.
    pub values: &'a [F32x16],
    pub channels: usize,
    /// `[pixels]`: a map of one channel.
    pub out: &'a mut [F32x16],
}

impl Op for WeightedMean<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let Self { weights, offset, values, channels, out } = self;
        assert_eq!(weights.len(), out.len() * values.len(), "a mean for each pixel");
        for (pixel, out) in weights.chunks_exact(values.len()).zip(out) {
            let (mut sum, mut weighted) = (s.splat(0.0), s.splat(0.0));
            for (i, (x, value)) in pixel.iter().zip(values).enumerate() {
                let weight = s.add(relu(s, s.load(x)), s.splat(offset));
                let weight = s.keep_first(weight, (channels - 16 * i).min(16));
                sum = s.add(sum, weight);
                weighted = s.fma(weight, s.load(value), weighted);
            }
            let mut mean = ZERO;
            mean.0[0] = s.sum(weighted) / s.sum(sum);
            *out = mean;
        }
    }
}

/// A convolution of 1 x 1 to one channel: `out = scale * sum(x w) + bias` for the rows of `x`. The sum is lane by lane
/// over the chunks of a row, fused, then that of [`Isa::sum`].
pub(crate) struct ToOneChannel<'a> {
    /// `[rows, pad16(channels) / 16]`.
    pub x: &'a [F32x16],
    /// `[pad16(channels) / 16]`.
    pub w: &'a [F32x16],
    pub scale: f32,
    pub bias: f32,
    /// `[rows]`.
    pub out: &'a mut [f32],
}

impl Op for ToOneChannel<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let Self { x, w, scale, bias, out } = self;
        assert_eq!(x.len(), out.len() * w.len(), "a row for each output");
        for (row, out) in x.chunks_exact(w.len()).zip(out) {
            let mut sum = s.splat(0.0);
            for (x, w) in row.iter().zip(w) {
                sum = s.fma(s.load(x), s.load(w), sum);
            }
            let mut y = F32x16([0.0; 16]);
            s.store(s.fma(s.splat(s.sum(sum)), s.splat(scale), s.splat(bias)), &mut y);
            *out = y.0[0];
        }
    }
}

/// Height and width of the output of a 3 x 3 convolution with a border of one zero.
pub(crate) const fn convolved((height, width): (usize, usize), stride: usize) -> (usize, usize) {
    (height.div_ceil(stride), width.div_ceil(stride))
}

/// The 3 x 3 pixels that each pixel of a convolution's output reads, from output `first` of the map on, as many as
/// `out` holds.
/// Those of output (v, u) are around pixel (`stride` v, `stride` u); outside of the map they are zero.
pub(crate) struct Patches<'a> {
    /// The lines that the outputs read, as many as the map has of them.
    pub x: Map<'a>,
    /// The number of its first line in the map.
    pub top: usize,
    pub stride: usize,
    /// Whether max(x, 0) is read in the place of x.
    pub relu: bool,
    pub first: usize,
    /// `[pixels][3][3][pad16(channels) / 16]`.
    pub out: &'a mut [F32x16],
}

impl Op for Patches<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let Self { x, top, stride, relu, first, out } = self;
        x.check();
        assert!(out.len().is_multiple_of(9 * x.chunks()), "out is pixels of the output");
        let lines = Lines { data: x.data, top, width: x.width, chunks: x.chunks() };
        gather(lines, stride, first, ZERO, out, |x, out| copy(s, relu, x, out));
    }
}

/// Some lines of a map.
#[derive(Clone, Copy)]
struct Lines<'a, T> {
    /// `[lines, width, chunks]`.
    data: &'a [T],
    /// The first line's number in the map.
    top: usize,
    width: usize,
    chunks: usize,
}

/// What [`Patches`] says, of lines: all lines that the outputs read and that the map has are there. A pixel outside of
/// the map is `outside`.
#[inline(always)]
fn gather<T: Copy>(
    lines: Lines<'_, T>,
    stride: usize,
    first: usize,
    outside: T,
    out: &mut [T],
    copy: impl Fn(&[T], &mut [T]),
) {
    let Lines { data, top, width, chunks } = lines;
    let across = width.div_ceil(stride);
    let count = data.len() / (width * chunks);
    for (pixel, patch) in (first..).zip(out.chunks_exact_mut(9 * chunks)) {
        let (y, center) = (stride * (pixel / across), stride * (pixel % across));
        // Columns that there are; the first is missing left of the map.
        let (left, right) = (center.saturating_sub(1), (center + 2).min(width));
        let missing = left + 1 - center;
        for (dy, taps) in patch.chunks_exact_mut(3 * chunks).enumerate() {
            let line = (y + dy).wrapping_sub(top + 1);
            if line >= count {
                taps.fill(outside);
                continue;
            }
            let inside = &data[(line * width + left) * chunks..(line * width + right) * chunks];
            let (before, rest) = taps.split_at_mut(missing * chunks);
            let (taps, beyond) = rest.split_at_mut(inside.len());
            before.fill(outside);
            beyond.fill(outside);
            copy(inside, taps);
        }
    }
}

/// Lines of a map in 8 bits, with one scale and zero point for all; docs/numerics.md, "Convolutions".
#[derive(Clone, Copy)]
pub(crate) struct Band<'a> {
    /// `[lines, width, chunks]`; stored bytes are the u8 codes xor [`Isa::CODE_XOR`].
    pub codes: &'a [U8x16],
    /// The first line's number in the map.
    pub top: usize,
    pub width: usize,
    pub chunks: usize,
    pub zero: i32,
}

/// Quantizes some lines of a map into a [`Band`]. The output is scale and zero point.
pub(crate) struct QuantizeBand<'a> {
    pub x: &'a [F32x16],
    /// Whether max(x, 0) is read in the place of x.
    pub relu: bool,
    /// As many as `x`.
    pub codes: &'a mut [U8x16],
}

impl Op for QuantizeBand<'_> {
    type Output = (f32, i32);
    const USES: Uses = Uses::Lanes;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) -> (f32, i32) {
        assert_eq!(self.x.len(), self.codes.len(), "a code for each value");
        let read = |x: &F32x16| if self.relu { relu(s, s.load(x)) } else { s.load(x) };
        let mut range = rows::Range::zero(s);
        for x in self.x {
            range.include(s, read(x));
        }
        let (scale, inverse, zero) = range.parameters(s);
        let (inverse, zero_point) = (s.splat(inverse), s.splat(zero));
        for (x, code) in self.x.iter().zip(self.codes) {
            s.store_codes(s.fma(read(x), inverse, zero_point), code);
        }
        (scale, zero as i32)
    }
}

/// [`Patches`] of the codes of a band.
pub(crate) struct CodePatches<'a> {
    pub band: Band<'a>,
    pub stride: usize,
    /// The first output, counted in the whole map.
    pub first: usize,
    /// `[pixels][3][3][chunks]`.
    pub out: &'a mut [U8x16],
}

impl Op for CodePatches<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;

    #[inline(always)]
    fn run<S: Isa>(self, _: S) {
        let Band { codes: data, top, width, chunks, zero, .. } = self.band;
        // The code of zero.
        let outside = U8x16([zero as u8 ^ S::CODE_XOR; 16]);
        let lines = Lines { data, top, width, chunks };
        gather(lines, self.stride, self.first, outside, self.out, |x, out| out.copy_from_slice(x));
    }
}

/// `x`, or max(x, 0).
#[inline(always)]
fn copy<S: Isa>(s: S, rectified: bool, x: &[F32x16], out: &mut [F32x16]) {
    if !rectified {
        out.copy_from_slice(x);
        return;
    }
    for (x, out) in x.iter().zip(out) {
        s.store(relu(s, s.load(x)), out);
    }
}

/// What is outside of a map.
pub(super) static ZERO: F32x16 = F32x16([0.0; 16]);
