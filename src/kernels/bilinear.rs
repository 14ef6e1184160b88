//! Bilinear interpolation of maps: resize to another size, and sampling at points.
//!
//! ```text
//! resize   y = lerp(ty, lerp(tx, a, b), lerp(tx, c, d))        lerp(t, a, b) = fma(t, b - a, a)        a b
//! sample   y = fma(d, wd, fma(c, wc, fma(b, wb, fma(a, wa, 0))))                                       c d
//! ```
//!
//! with a, b, c, d the pixels around. Both are what PyTorch names bilinear (`interpolate` without antialiasing,
//! `grid_sample` with zeros outside). Where a resized pixel lies is computed in whole numbers, so it is exact, and a
//! map that keeps its size keeps its bits. docs/numerics.md ("Maps") has the formulas.

use super::isa::Isa;
use super::map::{Map, ZERO};
use super::{Op, Uses};
use crate::lanes::F32x16;

/// Which pixels of a map and of the resized one lie in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Corners {
    /// The centers of the pixels in the corners (`align_corners=True`).
    Aligned,
    /// The outer corners of those pixels (`align_corners=False`).
    Outer,
}

/// One axis, from `last + 1` pixels to others: pixel `i` of those lies at (`factor` i + `offset` - `back`) /
/// `denominator`, or at 0 if that is negative.
struct Axis {
    factor: u64,
    offset: u64,
    back: u64,
    denominator: u64,
    last: usize,
}

/// Between which pixels something lies, and how far from the first to the second, in [0, 1).
struct Place {
    between: [usize; 2],
    t: f32,
}

impl Axis {
    fn new(corners: Corners, from: usize, to: usize) -> Self {
        let last = from - 1;
        let (from, to) = (from as u64, to as u64);
        match corners {
            // i (from - 1) / (to - 1)
            Corners::Aligned => Self { factor: from - 1, offset: 0, back: 0, denominator: (to - 1).max(1), last },
            // (i + 1/2) from / to - 1/2
            Corners::Outer => Self { factor: 2 * from, offset: from, back: to, denominator: 2 * to, last },
        }
    }

    #[inline(always)]
    fn place(&self, i: usize) -> Place {
        let numerator = (self.factor * i as u64 + self.offset).saturating_sub(self.back);
        let first = (numerator / self.denominator) as usize;
        let rest = numerator % self.denominator;
        Place { between: [first, (first + 1).min(self.last)], t: rest as f32 / self.denominator as f32 }
    }
}

/// Lines of `x` resized, from line `first` on, as many as `out` holds.
pub(crate) struct Resize<'a> {
    pub x: Map<'a>,
    pub corners: Corners,
    /// Height and width afterwards.
    pub size: (usize, usize),
    pub first: usize,
    /// `[lines][width][pad16(channels) / 16]`.
    pub out: &'a mut [F32x16],
}

impl Op for Resize<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let Self { x, corners, size: (height, width), first, out } = self;
        x.check();
        let chunks = x.chunks();
        let lines = out.len() / (width * chunks);
        assert!(out.len() == lines * width * chunks && first + lines <= height, "out is lines of the resized map");
        let (rows, columns) = (Axis::new(corners, x.height, height), Axis::new(corners, x.width, width));
        for (i, line) in (first..).zip(out.chunks_exact_mut(width * chunks)) {
            let row = rows.place(i);
            let [upper, lower] = [x.line(row.between[0]), x.line(row.between[1])];
            let ty = s.splat(row.t);
            for (i, pixel) in line.chunks_exact_mut(chunks).enumerate() {
                let column = columns.place(i);
                let tx = s.splat(column.t);
                let [left, right] = [column.between[0] * chunks, column.between[1] * chunks];
                let (a, b) = (&upper[left..][..chunks], &upper[right..][..chunks]);
                let (c, d) = (&lower[left..][..chunks], &lower[right..][..chunks]);
                for (i, y) in pixel.iter_mut().enumerate() {
                    let above = lerp(s, tx, s.load(&a[i]), s.load(&b[i]));
                    let below = lerp(s, tx, s.load(&c[i]), s.load(&d[i]));
                    s.store(lerp(s, ty, above, below), y);
                }
            }
        }
    }
}

/// a + t (b - a).
#[inline(always)]
fn lerp<S: Isa>(s: S, t: S::F, a: S::F, b: S::F) -> S::F {
    s.fma(t, s.sub(b, a), a)
}

/// The map at points, zero outside of it; NaN at a point that is not finite.
pub(crate) struct Sample<'a> {
    pub map: Map<'a>,
    /// x and y: -1 is the outer edge of the first pixels, 1 the outer edge of the last ones.
    pub points: &'a [[f32; 2]],
    /// `[points][pad16(channels) / 16]`.
    pub out: &'a mut [F32x16],
}

impl Op for Sample<'_> {
    type Output = ();
    const USES: Uses = Uses::Lanes;

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let Self { map, points, out } = self;
        map.check();
        let chunks = map.chunks();
        assert_eq!(out.len(), points.len() * chunks, "out has a pixel for each point");
        for (&[x, y], out) in points.iter().zip(out.chunks_exact_mut(chunks)) {
            let ([left, right], [from_left, from_right]) = around(x, map.width);
            let ([top, bottom], [from_top, from_bottom]) = around(y, map.height);
            let pixels =
                [map.pixel(left, top), map.pixel(right, top), map.pixel(left, bottom), map.pixel(right, bottom)];
            let weights = [
                s.splat(from_right * from_bottom),
                s.splat(from_left * from_bottom),
                s.splat(from_right * from_top),
                s.splat(from_left * from_top),
            ];
            for (i, out) in out.iter_mut().enumerate() {
                let mut sum = s.splat(0.0);
                for (pixel, weight) in pixels.iter().zip(weights) {
                    let value = pixel.map_or(&ZERO, |pixel| &pixel[i]);
                    sum = s.fma(s.load(value), weight, sum);
                }
                s.store(sum, out);
            }
        }
    }
}

/// The pixels on both sides of a coordinate within [-1, 1] of an axis of `len` pixels, beyond the axis where there are
/// none; and how far it is from both.
#[inline(always)]
fn around(coordinate: f32, len: usize) -> ([usize; 2], [f32; 2]) {
    let position = ((coordinate + 1.0) * len as f32 - 1.0) * 0.5;
    let floor = libm::floorf(position);
    let from_first = position - floor;
    // Saturates, and wraps around to beyond the axis where it is negative.
    let first = floor as i32 as usize;
    ([first, first.wrapping_add(1)], [from_first, 1.0 - from_first])
}
