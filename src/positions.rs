//! Positions for another grid of patches than the one that a network was trained on.
//!
//! A position embedding is resampled as PyTorch's `interpolate(align_corners=False)` does it: separably, each line a
//! weighted sum of lines, first along the width, then along the height. Weights are computed in f64 and rounded to
//! f32; sums are f32, in the order of the taps. So the result is the same bits everywhere, in a session and in a file.

use crate::config::Resampling;
use crate::fpenv::exact;

/// Resamples `table` `[from.0, from.1, row]` into `out` `[to.0, to.1, row]`. Grids are (height, width).
pub fn resample(
    table: &[f32],
    from: (usize, usize),
    to: (usize, usize),
    row: usize,
    rule: Resampling,
    out: &mut [f32],
) {
    exact(|| {
        if from == to {
            return out.copy_from_slice(table);
        }
        for (y, line) in out.chunks_exact_mut(to.1 * row).enumerate() {
            let down = Taps::new(y, from.0, to.0, rule);
            for (x, place) in line.chunks_exact_mut(row).enumerate() {
                let across = Taps::new(x, from.1, to.1, rule);
                for (at, out) in (0..).step_by(LANES).zip(place.chunks_mut(LANES)) {
                    let narrowed = |y: usize| across.sum(|x| &table[(y * from.1 + x) * row + at..][..out.len()]);
                    let sum = down.sum(narrowed);
                    out.copy_from_slice(&sum[..out.len()]);
                }
            }
        }
    });
}

/// Channels that are summed side by side.
const LANES: usize = 16;

/// One line of the output: lines of the input, with their weights.
struct Taps {
    rule: Resampling,
    /// The first tap and the one after the last; where borders are repeated they may lie outside.
    first: isize,
    end: isize,
    /// Lines of the input.
    from: usize,
    center: f64,
    /// What the kernel is widened by.
    stretch: f64,
    /// What the weights are divided by.
    total: f64,
}

impl Taps {
    fn new(i: usize, from: usize, to: usize, rule: Resampling) -> Self {
        let spread = if rule == Resampling::BicubicOffset { to as f64 + 0.1 } else { to as f64 };
        let scale = from as f64 / spread;
        let middle = scale * (i as f64 + 0.5);
        let around = |center: f64, reach: isize| {
            let base = libm::floor(center) as isize;
            Self { rule, first: base + 1 - reach, end: base + reach + 1, from, center, stretch: 1.0, total: 1.0 }
        };
        match rule {
            Resampling::BicubicAntialias => {
                let stretch = scale.max(1.0);
                let support = 2.0 * stretch;
                let first = ((middle - support + 0.5) as isize).max(0);
                let end = ((middle + support + 0.5) as isize).min(from as isize);
                let mut taps = Self { rule, first, end, from, center: middle, stretch, total: 1.0 };
                taps.total = (first..end).map(|j| taps.weight(j)).sum();
                taps
            }
            Resampling::Bicubic | Resampling::BicubicOffset => around(middle - 0.5, 2),
            // PyTorch keeps the center inside for linear modes only.
            Resampling::Bilinear => around((middle - 0.5).max(0.0), 1),
        }
    }

    fn weight(&self, j: isize) -> f64 {
        match self.rule {
            Resampling::BicubicAntialias => cubic((j as f64 - self.center + 0.5) / self.stretch, -0.5) / self.total,
            Resampling::Bicubic | Resampling::BicubicOffset => cubic(j as f64 - self.center, -0.75),
            Resampling::Bilinear => (1.0 - libm::fabs(j as f64 - self.center)).max(0.0),
        }
    }

    /// The weighted sum over the taps of what `line` gives.
    fn sum<L: AsRef<[f32]>>(&self, line: impl Fn(usize) -> L) -> [f32; LANES] {
        let (last, mut sum) = (self.from as isize - 1, [0.0; LANES]);
        for j in self.first..self.end {
            let weight = self.weight(j) as f32;
            let line = line(j.clamp(0, last) as usize);
            sum.iter_mut().zip(line.as_ref()).for_each(|(sum, x)| *sum += weight * x);
        }
        sum
    }
}

/// Keys' cubic convolution kernel.
fn cubic(x: f64, a: f64) -> f64 {
    let x = libm::fabs(x);
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((x - 5.0) * x + 8.0) * x * a - 4.0 * a
    } else {
        0.0
    }
}

/// Angles of DINOv3's rotations: 2 pi times a patch's center in [-1, 1], over each of `periods`, which are at least 1;
/// for each patch first those of its row, then those of its column. In f32 as the original, but for the functions
/// themselves, which are rounded from f64. `cos` and `sin` are `[grid.0 * grid.1, row]`.
pub fn rotations(
    grid: (usize, usize),
    periods: impl ExactSizeIterator<Item = f32>,
    row: usize,
    cos: &mut [f32],
    sin: &mut [f32],
) {
    let center = |i: usize, n: usize| 2.0 * ((i as f32 + 0.5) / n as f32) - 1.0;
    let angle = |i, n, _, period| core::f32::consts::TAU * center(i, n) / period;
    turned(grid, grid, periods, row, cos, sin, angle);
}

/// Angles of ViT-5's rotations: a patch's place times each of `frequencies`, which are at most 1; for each patch first
/// those of its row, then those of its column. Places are those of the grid `trained`, over which `grid` is stretched.
/// In f32 as the original, but for the functions themselves, which are rounded from f64. `cos` and `sin` are
/// `[grid.0 * grid.1, row]`.
pub fn stretched_rotations(
    grid: (usize, usize),
    trained: (usize, usize),
    frequencies: impl ExactSizeIterator<Item = f32>,
    row: usize,
    cos: &mut [f32],
    sin: &mut [f32],
) {
    let angle = |i, n, of, frequency| i as f32 / n as f32 * of as f32 * frequency;
    turned(grid, trained, frequencies, row, cos, sin, angle);
}

/// Cosine and sine of `angle(line, lines, lines of trained, number)` for each of `numbers`, of a patch's row and of its
/// column.
fn turned(
    grid: (usize, usize),
    trained: (usize, usize),
    numbers: impl ExactSizeIterator<Item = f32>,
    row: usize,
    cos: &mut [f32],
    sin: &mut [f32],
    angle: impl Fn(usize, usize, usize, f32) -> f32,
) {
    let count = numbers.len();
    exact(|| {
        for (i, number) in numbers.enumerate().take(row / 2) {
            for (patch, (cos, sin)) in cos.chunks_exact_mut(row).zip(sin.chunks_exact_mut(row)).enumerate() {
                (cos[i], sin[i]) = cos_sin(angle(patch / grid.1, grid.0, trained.0, number));
                let l = count + i;
                (cos[l], sin[l]) = cos_sin(angle(patch % grid.1, grid.1, trained.1, number));
            }
        }
    });
}

/// Cosine and sine of an angle of at most 2^16, rounded from f64: for every f32 in [-2 pi, 2 pi] but -0 what
/// `libm::cos` and `libm::sin` give, whose reduction of larger angles is left out. Reduction in two parts and
/// polynomials are fdlibm's.
fn cos_sin(angle: f32) -> (f32, f32) {
    const PIO2: [f64; 2] = [1.570_796_326_734_125_6, 6.077_100_506_506_192e-11];
    const COS: [f64; 6] = [
        0.041_666_666_666_666_6,
        -0.001_388_888_888_887_411,
        2.480_158_728_947_673e-5,
        -2.755_731_435_139_066_3e-7,
        2.087_572_321_298_175e-9,
        -1.135_964_755_778_819_5e-11,
    ];
    const SIN: [f64; 6] = [
        -0.166_666_666_666_666_32,
        0.008_333_333_333_322_49,
        -0.000_198_412_698_298_579_5,
        2.755_731_370_707_006_8e-6,
        -2.505_076_025_340_686_3e-8,
        1.589_690_995_211_55e-10,
    ];
    let x = f64::from(angle);
    let quarters = libm::rint(x * core::f64::consts::FRAC_2_PI);
    let x = (x - quarters * PIO2[0]) - quarters * PIO2[1];
    let z = x * x;
    let polynomial = |c: &[f64; 6]| c.iter().rev().fold(0.0, |sum, c| sum * z + c);
    let cos = 1.0 - (0.5 * z - z * z * polynomial(&COS));
    let sin = x + x * z * polynomial(&SIN);
    let (cos, sin) = match quarters as i32 & 3 {
        0 => (cos, sin),
        1 => (-sin, cos),
        2 => (-cos, -sin),
        _ => (sin, -cos),
    };
    (cos as f32, sin as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_libms(angle: f32) -> bool {
        let x = f64::from(angle);
        let (cos, sin) = cos_sin(angle);
        (cos.to_bits(), sin.to_bits()) == ((libm::cos(x) as f32).to_bits(), (libm::sin(x) as f32).to_bits())
    }

    #[test]
    fn angles_are_those_of_libm() {
        let most = core::f32::consts::TAU.to_bits();
        for angle in (0..=most).step_by(1009).map(f32::from_bits) {
            assert!(is_libms(angle) && (angle == 0.0 || is_libms(-angle)), "{angle}");
        }
    }

    /// The grid that a network was trained on has at most 65,536 lines, and no frequency is above 1.
    #[test]
    fn larger_angles_are_those_of_libm() {
        let bits = core::f32::consts::TAU.to_bits()..=65_536_f32.to_bits();
        for angle in bits.step_by(1009).map(f32::from_bits) {
            assert!(is_libms(angle) && is_libms(-angle), "{angle}");
        }
    }

    #[test]
    fn a_stretched_grid_has_fractions_of_places() {
        let (mut cos, mut sin) = ([f32::NAN; 4 * 6 * 2], [f32::NAN; 4 * 6 * 2]);
        stretched_rotations((4, 6), (2, 3), [0.5].into_iter(), 2, &mut cos, &mut sin);
        for (patch, (cos, sin)) in cos.as_chunks::<2>().0.iter().zip(sin.as_chunks::<2>().0).enumerate() {
            let angles = [(patch / 6) as f64 / 4.0 * 2.0 * 0.5, (patch % 6) as f64 / 6.0 * 3.0 * 0.5];
            for ((cos, sin), angle) in cos.iter().zip(sin).zip(angles) {
                assert!((f64::from(*cos) - angle.cos()).abs() < 1e-6 && (f64::from(*sin) - angle.sin()).abs() < 1e-6);
            }
        }
    }

    /// Half a minute on two cores, in a release build.
    #[test]
    #[ignore = "for the deep tier: every f32 of the range"]
    fn every_angle_is_that_of_libm() {
        let most = core::f32::consts::TAU.to_bits();
        std::thread::scope(|scope| {
            for start in 0..4 {
                scope.spawn(move || {
                    for angle in (start..=most).step_by(4).map(f32::from_bits) {
                        assert!(is_libms(angle) && (angle == 0.0 || is_libms(-angle)), "{angle}");
                    }
                });
            }
        });
    }

    /// `[3, 4]`, one channel.
    const TABLE: [f32; 12] = [0.0, 0.3, 0.6, 0.9, 0.7, 1.1, 1.5, 1.9, 2.8, 3.3, 3.8, 3.8];

    /// What `torch.nn.functional.interpolate(align_corners=False)` (PyTorch 2.15) makes of it; with the offset by
    /// `scale_factor=((height + 0.1) / 3, (width + 0.1) / 4)`.
    #[rustfmt::skip]
    const WANT: [(Resampling, (usize, usize), &[f32]); 10] = [
        (Resampling::BicubicAntialias, (5, 6), &[
            -0.07207, 0.067592, 0.288365, 0.483333, 0.704107, 0.843769, 0.129743, 0.287621, 0.53693, 0.756292, 1.019008,
            1.188894, 0.673684, 0.864706, 1.166667, 1.433333, 1.735294, 1.926316, 2.063895, 2.28806, 2.646171, 2.974135,
            3.137841, 3.187883, 2.925099, 3.16748, 3.556853, 3.920113, 3.987458, 3.94141,
        ]),
        (Resampling::Bicubic, (5, 6), &[
            -0.092408, 0.050775, 0.285044, 0.451756, 0.686025, 0.829209, 0.091616, 0.255113, 0.521994, 0.709857, 0.998488,
            1.18311, 0.665278, 0.8625, 1.185185, 1.414815, 1.7375, 1.934722, 1.994941, 2.225888, 2.609065, 2.899211,
            3.097512, 3.148898, 2.957365, 3.208625, 3.629241, 3.959845, 4.049376, 3.979068,
        ]),
        (Resampling::Bilinear, (5, 6), &[
            0.0, 0.15, 0.35, 0.55, 0.75, 0.9, 0.28, 0.45, 0.676667, 0.903333, 1.13, 1.3, 0.7, 0.9, 1.166667, 1.433333, 1.7,
            1.9, 1.96, 2.19, 2.496667, 2.803334, 2.96, 3.04, 2.8, 3.05, 3.383333, 3.716666, 3.8, 3.8,
        ]),
        (Resampling::BicubicOffset, (5, 6), &[
            -0.093845, 0.045324, 0.2751, 0.438927, 0.67105, 0.821141, 0.086501, 0.244758, 0.505626, 0.689057, 0.971366,
            1.163005, 0.605468, 0.795167, 1.108242, 1.330672, 1.652706, 1.863724, 1.904737, 2.127574, 2.499037, 2.785305,
            3.003604, 3.068709, 2.923555, 3.167133, 3.576062, 3.908501, 4.022085, 3.950409,
        ]),
        (Resampling::BicubicOffset, (2, 3), &[0.11102, 0.53434, 0.968737, 2.179244, 2.839099, 3.197547]),
        (Resampling::BicubicAntialias, (2, 3), &[0.223537, 0.656436, 1.105854, 2.18234, 2.808232, 3.16653]),
        (Resampling::Bicubic, (2, 3), &[0.125028, 0.561829, 1.016981, 2.409492, 3.106372, 3.399526]),
        (Resampling::Bilinear, (2, 3), &[0.229167, 0.6625, 1.095833, 2.354167, 2.9875, 3.308333]),
        (Resampling::BicubicAntialias, (1, 2), &[1.366457, 2.021578]),
        (Resampling::Bicubic, (1, 2), &[0.8625, 1.7375]),
    ];

    #[test]
    fn resampling_is_that_of_pytorch() {
        for (how, to, want) in WANT {
            // Twice, as two channels, the second negated: channels must not mix.
            let table: std::vec::Vec<f32> = TABLE.iter().flat_map(|x| [*x, -*x]).collect();
            let mut got = std::vec![f32::NAN; 2 * to.0 * to.1];
            resample(&table, (3, 4), to, 2, how, &mut got);
            assert_eq!(got.len(), 2 * want.len(), "{how:?} {to:?}");
            for (i, (pair, want)) in got.chunks_exact(2).zip(want).enumerate() {
                assert!(
                    (pair[0] - want).abs() < 5e-6 && pair[1] == -pair[0],
                    "{how:?} {to:?} {i}: {} for {want}",
                    pair[0]
                );
            }
        }
        let mut same = [f32::NAN; 12];
        resample(&TABLE, (3, 4), (3, 4), 1, Resampling::BicubicAntialias, &mut same);
        assert_eq!(same, TABLE);
    }
}
