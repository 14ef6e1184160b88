//! Depthwise convolution: every channel of a map with a small kernel of its own, stride 1, the map zero outside.
//!
//! ```text
//! y[v][u][c] = bias[c] + sum over dy, dx of x[v + dy - r][u + dx - r][c] w[dy][dx][c]          r = kernel / 2
//! ```
//!
//! Fused multiply-add in the order of dy, then dx, from the bias on (docs/numerics.md, "Depthwise convolution"); f32 in
//! every precision. Neighbours are read, so the result goes elsewhere.
//!
//! A tile is some tokens side by side and one or two blocks of 16 channels: a weight is loaded once for all of its
//! tokens. Blocks are outside, so that the weights of one stay in the first-level cache for all tokens of a call.

use super::isa::Isa;
use super::map::{Map, ZERO};
use super::tiles::{Tile, for_tiles, slices};
use super::{Op, Uses};
use crate::lanes::F32x16;

/// The tokens from `first` on, as many as `out` holds, of the depthwise convolution of `x`.
pub(crate) struct DepthwiseConv<'a> {
    /// Pixels are tokens, of C channels.
    pub x: Map<'a>,
    /// Edge of the kernel, odd.
    pub kernel: usize,
    /// `[kernel * kernel][C / 16]`.
    pub weight: &'a [F32x16],
    /// `[C / 16]`.
    pub bias: &'a [F32x16],
    pub first: usize,
    /// `[tokens][C / 16]`.
    pub out: &'a mut [F32x16],
}

impl Op for DepthwiseConv<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let Map { height, width, .. } = self.x;
        let (chunks, pixels) = (self.bias.len(), height * width);
        assert!(self.kernel % 2 == 1 && self.weight.len() == self.kernel * self.kernel * chunks, "one weight a tap");
        self.x.check();
        assert_eq!(self.x.chunks(), chunks, "the same channels");
        let tokens = self.out.len() / chunks;
        assert!(self.out.len() == tokens * chunks && self.first + tokens <= pixels, "out is tokens of the map");
        let (first, end) = (self.first, self.first + tokens);
        let mut strip = Strip { token: first, op: self };
        for block in (0..chunks).step_by(S::TILE_BLOCKS) {
            let blocks = block..(block + S::TILE_BLOCKS).min(chunks);
            strip.token = first;
            while strip.token < end {
                let tokens = (width - strip.token % width).min(end - strip.token);
                for_tiles(s, tokens, blocks.clone(), &mut strip);
                strip.token += tokens;
            }
        }
    }
}

/// Tokens of one line, from `token` on.
struct Strip<'a> {
    op: DepthwiseConv<'a>,
    token: usize,
}

impl<S: Isa> Tile<S> for Strip<'_> {
    // Lines of 7, 14, 28 and 56 tokens are fours with a three or a two at the end; four are enough to keep a core's
    // multipliers busy.
    const ROWS: usize = 4;

    #[inline(always)]
    fn tile<const M: usize, const N: usize>(&mut self, s: S, row: usize, block: usize) {
        let DepthwiseConv { x: Map { data: x, height, width, .. }, kernel, weight, bias, .. } = self.op;
        let (chunks, radius) = (bias.len(), kernel / 2);
        let (line, column) = ((self.token + row) / width, (self.token + row) % width);
        let bias: [_; N] = slices(bias, block, 1, 1);
        let weight: [_; N] = slices(weight, block, 1, weight.len() - block - (N - 1));
        let mut acc = [[s.splat(0.0); N]; M];
        for (n, bias) in bias.iter().enumerate() {
            let bias = s.load(&bias[0]);
            for acc in &mut acc {
                acc[n] = bias;
            }
        }
        for dy in 0..kernel {
            let y = (line + dy).wrapping_sub(radius);
            if y >= height {
                continue;
            }
            let x = &x[y * width * chunks..][..width * chunks];
            for dx in 0..kernel {
                // Left of the picture this wraps around to beyond its right.
                let at = (column + dx).wrapping_sub(radius).wrapping_mul(chunks).wrapping_add(block);
                // Written so that the sums stay in registers: with `zip` they go through memory.
                for (n, weight) in weight.iter().enumerate() {
                    let w = s.load(&weight[(dy * kernel + dx) * chunks]);
                    for (m, acc) in acc.iter_mut().enumerate() {
                        let x = x.get(at.wrapping_add(m * chunks + n)).unwrap_or(&ZERO);
                        acc[n] = s.fma(s.load(x), w, acc[n]);
                    }
                }
            }
        }
        let out = &mut self.op.out[(self.token - self.op.first + row) * chunks + block..];
        for (m, acc) in acc.iter().enumerate() {
            for (n, &acc) in acc.iter().enumerate() {
                s.store(acc, &mut out[m * chunks + n]);
            }
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::kernels::Kernels;
    use crate::kernels::test_data::{Random, bits};

    /// The formula, one float after another.
    fn expected(op: &DepthwiseConv<'_>) -> Vec<F32x16> {
        let (chunks, radius) = (op.bias.len(), op.kernel / 2);
        let mut out = vec![F32x16([0.0; 16]); op.out.len()];
        for (i, out) in out.iter_mut().enumerate() {
            let (token, chunk) = (op.first + i / chunks, i % chunks);
            let Map { data, height, width, .. } = op.x;
            let (line, column) = (token / width, token % width);
            for (lane, out) in out.0.iter_mut().enumerate() {
                *out = op.bias[chunk].0[lane];
                for (tap, w) in op.weight.chunks_exact(chunks).enumerate() {
                    let y = (line + tap / op.kernel).checked_sub(radius).filter(|y| *y < height);
                    let x = (column + tap % op.kernel).checked_sub(radius).filter(|x| *x < width);
                    if let Some((y, x)) = y.zip(x) {
                        let x = data[(y * width + x) * chunks + chunk].0[lane];
                        *out = libm::fmaf(x, w[chunk].0[lane], *out);
                    }
                }
            }
        }
        out
    }

    #[test]
    fn every_instruction_set_gives_the_formula() {
        let mut random = Random::new(1);
        for (height, width) in [(1, 1), (1, 9), (7, 1), (2, 3), (7, 7), (5, 13), (3, 28)] {
            for (kernel, chunks) in [(1, 1), (3, 1), (3, 3), (5, 2), (7, 1), (7, 3), (9, 2)] {
                let pixels = height * width;
                let [x, weight, bias] = [pixels, kernel * kernel, 1].map(|rows| random.chunks(rows * chunks));
                for (first, tokens) in [(0, pixels), (0, 0), (pixels - 1, 1), (pixels / 3, pixels - pixels / 3)] {
                    let mut out = vec![F32x16([f32::NAN; 16]); tokens * chunks];
                    let op = DepthwiseConv {
                        x: Map::new(&x, (height, width), 16 * chunks),
                        kernel,
                        weight: &weight,
                        bias: &bias,
                        first,
                        out: &mut out,
                    };
                    let want = bits(&expected(&op));
                    for kernels in Kernels::available() {
                        op.out.fill(F32x16([f32::NAN; 16]));
                        kernels.run(DepthwiseConv { out: &mut *op.out, ..op });
                        let what = (kernels.name(), height, width, kernel, chunks, first, tokens);
                        assert_eq!(bits(op.out), want, "{what:?}");
                    }
                }
            }
        }
    }
}
