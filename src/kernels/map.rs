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

use super::isa::Isa;
use super::{Op, Uses};
use crate::lanes::{F32x16, pad16};

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

/// Height and width of the output of a 3 x 3 convolution with a border of one zero.
pub(crate) const fn convolved((height, width): (usize, usize), stride: usize) -> (usize, usize) {
    (height.div_ceil(stride), width.div_ceil(stride))
}

/// The 3 x 3 pixels that each pixel of a convolution's output reads, from output `first` on, as many as `out` holds.
/// Those of output (v, u) are around pixel (`stride` v, `stride` u); outside of the map they are zero.
pub(crate) struct Patches<'a> {
    pub x: Map<'a>,
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
        let Self { x, stride, relu, first, out } = self;
        x.check();
        let chunks = x.chunks();
        let (lines, across) = convolved(x.size(), stride);
        let pixels = out.len() / (9 * chunks);
        assert!(out.len() == pixels * 9 * chunks && first + pixels <= lines * across, "out is pixels of the output");
        for (pixel, patch) in (first..).zip(out.chunks_exact_mut(9 * chunks)) {
            let (y, center) = (stride * (pixel / across), stride * (pixel % across));
            // Columns that there are; the first is missing left of the map.
            let (left, right) = (center.saturating_sub(1), (center + 2).min(x.width));
            let missing = left + 1 - center;
            for (dy, taps) in patch.chunks_exact_mut(3 * chunks).enumerate() {
                let line = (y + dy).wrapping_sub(1);
                if line >= x.height {
                    taps.fill(ZERO);
                    continue;
                }
                let inside = &x.line(line)[left * chunks..right * chunks];
                let (outside, rest) = taps.split_at_mut(missing * chunks);
                let (taps, beyond) = rest.split_at_mut(inside.len());
                outside.fill(ZERO);
                beyond.fill(ZERO);
                copy(s, relu, inside, taps);
            }
        }
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
