//! Reads runs of pixels of any format, along a row or, where the picture is turned, along a column, as RGB.
//!
//! Y, U and V become R, G and B in integers, so the bytes are the same everywhere: the matrix's coefficients are
//! rounded to 13 fractional bits, the sum is rounded to the nearest byte (half up) and clamped. It is within 1 of the
//! real-valued formula.

use crate::kernels::resample::Pixel;

use super::source::{Format, Picture, Plane, Region, Rotation, Yuv};

/// Pixels that are converted at a time, in registers.
pub(super) const RUN: usize = 16;

/// Pairs of pixels with a chroma in common among them.
const PAIRS: usize = RUN / 2;

/// A checked picture, cut and turned.
pub(super) struct Reader<'a> {
    picture: &'a Picture<'a>,
    matrix: &'static Matrix,
}

/// The way through the picture from one pixel of a run to the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Right,
    Left,
    Down,
    Up,
}

impl Step {
    /// `at`, moved by `by` of the units in which a pixel to the right is `right`, and a row down is `down`.
    fn advance(self, at: usize, right: usize, down: usize) -> usize {
        match self {
            Self::Right => at.wrapping_add(right),
            Self::Left => at.wrapping_sub(right),
            Self::Down => at.wrapping_add(down),
            Self::Up => at.wrapping_sub(down),
        }
    }
}

impl<'a> Reader<'a> {
    /// `picture` has passed `Picture::check`: every read within its turned region then lies within its planes.
    pub(super) fn new(picture: &'a Picture<'a>) -> Self {
        Self { picture, matrix: Matrix::of(picture.yuv) }
    }

    /// Pixels `(x, y)`, `(x + 1, y)`, ... of the picture as it is seen.
    pub(super) fn read(&self, x: usize, y: usize, out: &mut [Pixel]) {
        let Region { x: left, y: top, width, height } = self.picture.region();
        let (left, top) = (left as usize, top as usize);
        let (right, bottom) = (left + width as usize - 1, top + height as usize - 1);
        let (x, y, step) = match self.picture.rotation {
            Rotation::None => (left + x, top + y, Step::Right),
            Rotation::Half => (right - x, bottom - y, Step::Left),
            Rotation::Quarter => (left + y, bottom - x, Step::Up),
            Rotation::ThreeQuarters => (right - y, top + x, Step::Down),
        };
        let first = &self.picture.planes[0];
        match self.picture.format {
            Format::Rgb8 => packed(first, x, y, step, out, |[r, g, b]| [r, g, b, 0]),
            Format::Bgr8 => packed(first, x, y, step, out, |[b, g, r]| [r, g, b, 0]),
            Format::Rgba8 => packed(first, x, y, step, out, |rgba| rgba),
            Format::Gray8 => packed(first, x, y, step, out, |[gray]| [gray; 4]),
            Format::Yuyv | Format::Nv12 | Format::I420 => self.luma_chroma(x, y, step, out),
        }
    }

    fn luma_chroma(&self, mut x: usize, mut y: usize, step: Step, mut out: &mut [Pixel]) {
        if step == Step::Right {
            // Runs along a row start at a pair of pixels that share their chroma.
            let alone = (x % 2).min(out.len());
            let (first, rest) = out.split_at_mut(alone);
            self.one_by_one(x, y, step, first);
            let (runs, rest) = rest.as_chunks_mut::<RUN>();
            x += alone;
            for run in runs {
                let (luma, pairs) = self.along_row(x, y);
                *run = self.matrix.rgb(&luma, &self.matrix.tints(&pairs).each_pixel());
                x += RUN;
            }
            out = rest;
        }
        for run in out.chunks_mut(RUN) {
            self.one_by_one(x, y, step, run);
            (x, y) = (step.advance(x, run.len(), 0), step.advance(y, 0, run.len()));
        }
    }

    /// At most [`RUN`] pixels, each looked up.
    fn one_by_one(&self, mut x: usize, mut y: usize, step: Step, out: &mut [Pixel]) {
        let (mut luma, mut chroma) = ([0; RUN], Chroma { u: [0; RUN], v: [0; RUN] });
        let samples = luma.iter_mut().zip(&mut chroma.u).zip(&mut chroma.v);
        for ((luma, u), v) in samples.take(out.len()) {
            (*luma, *u, *v) = self.at(x, y);
            (x, y) = (step.advance(x, 1, 0), step.advance(y, 0, 1));
        }
        let run = self.matrix.rgb(&luma, &self.matrix.tints(&chroma));
        out.copy_from_slice(&run[..out.len()]);
    }

    /// Y, U and V of one pixel.
    fn at(&self, x: usize, y: usize) -> (u8, u8, u8) {
        let [p0, p1, p2] = &self.picture.planes;
        let pair = x / 2;
        match self.picture.format {
            Format::Yuyv => {
                let row = &p0.data[y * p0.stride..];
                (row[2 * x], row[4 * pair + 1], row[4 * pair + 3])
            }
            Format::Nv12 => {
                let chroma = &p1.data[y / 2 * p1.stride..];
                (p0.data[y * p0.stride + x], chroma[2 * pair], chroma[2 * pair + 1])
            }
            _ => {
                let half = y / 2;
                (p0.data[y * p0.stride + x], p1.data[half * p1.stride + pair], p2.data[half * p2.stride + pair])
            }
        }
    }

    /// Y of [`RUN`] pixels to the right of an even `x`, and the chroma of their pairs.
    #[inline(always)]
    fn along_row(&self, x: usize, y: usize) -> ([u8; RUN], Chroma<PAIRS>) {
        let [p0, p1, p2] = &self.picture.planes;
        match self.picture.format {
            Format::Yuyv => {
                let quads = bytes::<{ 2 * RUN }>(p0, 2 * x, y).as_chunks::<4>().0;
                let chroma =
                    Chroma { u: core::array::from_fn(|i| quads[i][1]), v: core::array::from_fn(|i| quads[i][3]) };
                (core::array::from_fn(|i| quads[i / 2][2 * (i % 2)]), chroma)
            }
            Format::Nv12 => {
                let pairs = bytes::<RUN>(p1, x, y / 2).as_chunks::<2>().0;
                let chroma =
                    Chroma { u: core::array::from_fn(|i| pairs[i][0]), v: core::array::from_fn(|i| pairs[i][1]) };
                (*bytes(p0, x, y), chroma)
            }
            _ => (*bytes(p0, x, y), Chroma { u: *bytes(p1, x / 2, y / 2), v: *bytes(p2, x / 2, y / 2) }),
        }
    }
}

/// `N` bytes of row `y`, from byte `at` on.
fn bytes<'a, const N: usize>(plane: &Plane<'a>, at: usize, y: usize) -> &'a [u8; N] {
    // The slice has N bytes: there is a first chunk.
    plane.data[y * plane.stride + at..].first_chunk().unwrap_or(&[0; N])
}

/// Pixels of `N` bytes in one plane.
fn packed<const N: usize>(
    plane: &Plane<'_>,
    x: usize,
    y: usize,
    step: Step,
    out: &mut [Pixel],
    to_rgb: impl Fn([u8; N]) -> Pixel,
) {
    let mut at = y * plane.stride + N * x;
    if step == Step::Right {
        let row = plane.data[at..][..N * out.len()].as_chunks::<N>().0;
        for (out, pixel) in out.iter_mut().zip(row) {
            *out = to_rgb(*pixel);
        }
        return;
    }
    for out in out {
        if let Some(pixel) = plane.data.get(at..).and_then(<[u8]>::first_chunk) {
            *out = to_rgb(*pixel);
        }
        at = step.advance(at, N, plane.stride);
    }
}

/// U and V of `N` pixels, or pairs of pixels.
struct Chroma<const N: usize> {
    u: [u8; N],
    v: [u8; N],
}

/// What chroma adds to R, G and B of `N` pixels or pairs, with [`BITS`] fractional bits.
struct Tints<const N: usize>([[i32; N]; 3]);

impl Tints<PAIRS> {
    /// The same for both pixels of a pair.
    #[inline(always)]
    fn each_pixel(&self) -> Tints<RUN> {
        Tints(core::array::from_fn(|c| core::array::from_fn(|i| self.0[c][i / 2])))
    }
}

/// Fractional bits of the coefficients: as many as let the largest, 2.1, fit 16 bits with a sign.
const BITS: u32 = 13;

/// Coefficients with [`BITS`] fractional bits: `R = luma (Y - black) + v_to_r (V - 128)`,
/// `G = luma (Y - black) - u_to_g (U - 128) - v_to_g (V - 128)`, `B = luma (Y - black) + u_to_b (U - 128)`.
struct Matrix {
    black: i16,
    luma: i16,
    v_to_r: i16,
    u_to_g: i16,
    v_to_g: i16,
    u_to_b: i16,
}

impl Matrix {
    fn of(yuv: Yuv) -> &'static Self {
        const BT601: (f64, f64) = (0.299, 0.114);
        const BT709: (f64, f64) = (0.2126, 0.0722);
        match yuv {
            Yuv::Bt601 => const { &Self::new(BT601, false) },
            Yuv::Bt601Full => const { &Self::new(BT601, true) },
            Yuv::Bt709 => const { &Self::new(BT709, false) },
            Yuv::Bt709Full => const { &Self::new(BT709, true) },
        }
    }

    /// From the shares of red and blue in luma. Limited range: Y from 16 to 235, U and V from 16 to 240.
    const fn new((red, blue): (f64, f64), is_full: bool) -> Self {
        const fn fixed(x: f64) -> i16 {
            (x * (1 << BITS) as f64 + 0.5) as i16
        }
        let green = 1.0 - red - blue;
        let (luma, chroma) = if is_full { (1.0, 1.0) } else { (255.0 / 219.0, 255.0 / 224.0) };
        let (v_to_r, u_to_b) = (2.0 * (1.0 - red) * chroma, 2.0 * (1.0 - blue) * chroma);
        Self {
            black: if is_full { 0 } else { 16 },
            luma: fixed(luma),
            v_to_r: fixed(v_to_r),
            u_to_g: fixed(u_to_b * blue / green),
            v_to_g: fixed(v_to_r * red / green),
            u_to_b: fixed(u_to_b),
        }
    }

    #[inline(always)]
    fn tints<const N: usize>(&self, chroma: &Chroma<N>) -> Tints<N> {
        let (u, v) = (|i: usize| i16::from(chroma.u[i]) - 128, |i: usize| i16::from(chroma.v[i]) - 128);
        Tints([
            core::array::from_fn(|i| times(self.v_to_r, v(i))),
            core::array::from_fn(|i| -times(self.u_to_g, u(i)) - times(self.v_to_g, v(i))),
            core::array::from_fn(|i| times(self.u_to_b, u(i))),
        ])
    }

    #[inline(always)]
    fn rgb(&self, luma: &[u8; RUN], Tints([r, g, b]): &Tints<RUN>) -> [Pixel; RUN] {
        let to_byte = |sum: i32| (sum >> BITS).clamp(0, 255) as u8;
        let mut pixels = [[0; 4]; RUN];
        for (i, pixel) in pixels.iter_mut().enumerate() {
            let y = times(self.luma, i16::from(luma[i]) - self.black) + (1 << (BITS - 1));
            *pixel = [to_byte(y + r[i]), to_byte(y + g[i]), to_byte(y + b[i]), 0];
        }
        pixels
    }
}

/// A product of two i16: the form that vector instructions have.
#[inline(always)]
fn times(factor: i16, x: i16) -> i32 {
    i32::from(factor) * i32::from(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The formulas of BT.601 and BT.709 in f64.
    fn exact(yuv: Yuv, y: u8, u: u8, v: u8) -> [f64; 3] {
        let (red, blue) = match yuv {
            Yuv::Bt601 | Yuv::Bt601Full => (0.299, 0.114),
            Yuv::Bt709 | Yuv::Bt709Full => (0.2126, 0.0722),
        };
        let (y, cb, cr) = match yuv {
            Yuv::Bt601 | Yuv::Bt709 => {
                ((f64::from(y) - 16.0) / 219.0, (f64::from(u) - 128.0) / 224.0, (f64::from(v) - 128.0) / 224.0)
            }
            _ => (f64::from(y) / 255.0, (f64::from(u) - 128.0) / 255.0, (f64::from(v) - 128.0) / 255.0),
        };
        let (r, b) = (y + 2.0 * (1.0 - red) * cr, y + 2.0 * (1.0 - blue) * cb);
        [r, (y - red * r - blue * b) / (1.0 - red - blue), b].map(|x| (255.0 * x).clamp(0.0, 255.0))
    }

    #[test]
    fn colours_are_those_of_the_standards() {
        for yuv in [Yuv::Bt601, Yuv::Bt601Full, Yuv::Bt709, Yuv::Bt709Full] {
            for (u, v) in (0..=255).step_by(5).flat_map(|u| (0..=255).step_by(3).map(move |v| (u, v))) {
                for y in (0..=255).step_by(RUN) {
                    let y: [u8; RUN] = core::array::from_fn(|i| y + i as u8);
                    let got = Matrix::of(yuv).rgb(&y, &Matrix::of(yuv).tints(&Chroma { u: [u; RUN], v: [v; RUN] }));
                    for (y, got) in y.iter().zip(got) {
                        for (exact, got) in exact(yuv, *y, u, v).into_iter().zip(got) {
                            assert!((f64::from(got) - exact).abs() < 0.55, "{yuv:?} {y} {u} {v}: {got}, {exact}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn black_white_and_gray_are_exact() {
        for (yuv, black, white) in [(Yuv::Bt601, 16, 235), (Yuv::Bt709, 16, 235), (Yuv::Bt601Full, 0, 255)] {
            for (y, byte) in [(black, 0), (white, 255)] {
                let tints = Matrix::of(yuv).tints(&Chroma { u: [128; RUN], v: [128; RUN] });
                assert_eq!(Matrix::of(yuv).rgb(&[y; RUN], &tints)[0][..3], [byte; 3]);
            }
        }
    }
}
