//! The depth of every pixel of a picture, from the network's output, which has the size of its input.

use serde::Serialize;
use vitlet::Config;
use vitlet::config::Enlarging;

/// What the numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// Distances: small is near.
    #[serde(rename = "metres")]
    Metres,
    /// Inverse distances up to a scale and a shift of the picture: large is near.
    #[serde(rename = "relative inverse depth")]
    Inverse,
}

impl Unit {
    /// Of a network's output; none where it has no depth head.
    pub fn of(c: &Config) -> Option<Self> {
        c.head.depth().map(|depth| if depth.metric { Self::Metres } else { Self::Inverse })
    }
}

/// The network's output for a picture.
pub struct Depths {
    /// `[rows, columns]`.
    pub output: Vec<f32>,
    /// Rows and columns.
    pub input: (usize, usize),
    /// Width and height of the picture.
    pub size: (usize, usize),
    /// From one to the other.
    pub enlarging: Enlarging,
}

impl Depths {
    /// A number for each pixel of the picture. Errors say why only.
    pub fn map(&self) -> Result<DepthMap, String> {
        DepthMap::resized(self.enlarging, &self.output, self.input, self.size)
    }
}

/// A number for each pixel.
pub struct DepthMap {
    pub width: usize,
    pub height: usize,
    /// `[height, width]`.
    pub data: Vec<f32>,
}

/// What is told of a picture: of the network's output, which has the size of its input. Resizing adds no knowledge, and
/// its filter makes nearer and farther points at sharp edges.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub unit: Unit,
    pub min: f32,
    pub max: f32,
    /// The lower of the two middle ones of an even number.
    pub median: f32,
    /// x and y in the picture of the first point, in rows from the top, that is as near as any.
    pub nearest: [usize; 2],
    /// The same of the farthest.
    pub farthest: [usize; 2],
}

impl Summary {
    /// Of an output `[rows, columns]` for a picture of `width` x `height` pixels.
    pub fn new(unit: Unit, output: &[f32], (rows, columns): (usize, usize), (width, height): (usize, usize)) -> Self {
        let first = |better: fn(f32, f32) -> bool| {
            let best =
                output.iter().enumerate().reduce(|best, next| if better(*next.1, *best.1) { next } else { best });
            best.map_or((0, f32::NAN), |(at, x)| (at, *x))
        };
        let ((lowest, min), (highest, max)) = (first(|a, b| a < b), first(|a, b| a > b));
        // The pixel in which the middle of an output's element lies.
        let place = |at: usize| {
            [(2 * (at % columns) + 1) * width / (2 * columns), (2 * (at / columns) + 1) * height / (2 * rows)]
        };
        let (nearest, farthest) = match unit {
            Unit::Metres => (lowest, highest),
            Unit::Inverse => (highest, lowest),
        };
        Self { unit, min, max, median: median(output), nearest: place(nearest), farthest: place(farthest) }
    }
}

impl DepthMap {
    /// The network's output `[rows, columns]` at the size of the picture, in f32, as the file says that the network's
    /// own code resizes it. As there, a bicubic number may lie a little outside of the range of the output.
    ///
    /// # Errors
    /// No memory for that many pixels.
    pub fn resized(
        enlarging: Enlarging,
        output: &[f32],
        (rows, columns): (usize, usize),
        (width, height): (usize, usize),
    ) -> Result<Self, String> {
        let mut data = Vec::new();
        let pixels = width.saturating_mul(height);
        data.try_reserve_exact(pixels).map_err(|_| format!("no memory is free for the depth of {pixels} pixels"))?;
        let (across, down) = (taps(enlarging, columns, width), taps(enlarging, rows, height));
        // Rows of the output that are resized across already, each in the place of its number modulo 4.
        let mut ring: [(Option<usize>, Vec<f32>); 4] = Default::default();
        for Taps { at, weights } in &down {
            for &row in at {
                let (held, resized) = &mut ring[row % 4];
                if *held != Some(row) {
                    let source = &output[row * columns..][..columns];
                    resized.clear();
                    resized.extend(across.iter().map(|taps| taps.sum(|i| source[i])));
                    *held = Some(row);
                }
            }
            let four = at.map(|row| ring[row % 4].1.as_slice());
            data.extend((0..width).map(|x| four.iter().zip(weights).map(|(row, w)| row[x] * w).sum::<f32>()));
        }
        Ok(Self { width, height, data })
    }
}

/// The middle of `values`, which is one of them.
fn median(values: &[f32]) -> f32 {
    let mut values = values.to_vec();
    let middle = values.len().saturating_sub(1) / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

/// What a pixel is computed from: numbers of source pixels, and their weights.
struct Taps {
    at: [usize; 4],
    weights: [f32; 4],
}

impl Taps {
    fn sum(&self, source: impl Fn(usize) -> f32) -> f32 {
        self.at.iter().zip(&self.weights).map(|(at, weight)| source(*at) * weight).sum()
    }
}

/// For `to` pixels from `from`: Keys' cubic convolution with a = -0.75, or linear interpolation; the border is
/// repeated.
fn taps(enlarging: Enlarging, from: usize, to: usize) -> Vec<Taps> {
    const A: f32 = -0.75;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let scale = from as f32 / to as f32;
    let last = from as isize - 1;
    let tap = |i: usize| {
        let x = match enlarging {
            Enlarging::Bicubic => scale * (i as f32 + 0.5) - 0.5,
            Enlarging::Bilinear => (scale * (i as f32 + 0.5) - 0.5).max(0.0),
            Enlarging::BilinearAligned => i as f32 * (last as f32 / to.saturating_sub(1).max(1) as f32),
        };
        let first = x.floor();
        let t = x - first;
        let at = [-1, 0, 1, 2].map(|step| (first as isize + step).clamp(0, last) as usize);
        let weights = match enlarging {
            Enlarging::Bicubic => [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)],
            Enlarging::Bilinear | Enlarging::BilinearAligned => [0.0, 1.0 - t, t, 0.0],
        };
        Taps { at, weights }
    };
    (0..to).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vitlet::Named;

    #[test]
    fn the_same_size_is_the_same_map() {
        let data: Vec<f32> = (0..35).map(|i| (i * 37 % 11) as f32).collect();
        for (enlarging, _) in Enlarging::NAMES {
            assert_eq!(DepthMap::resized(*enlarging, &data, (5, 7), (7, 5)).unwrap().data, data);
            assert_eq!(DepthMap::resized(*enlarging, &[3.0], (1, 1), (4, 2)).unwrap().data, [3.0; 8]);
        }
        let endless = DepthMap::resized(Enlarging::Bicubic, &[3.0], (1, 1), (1, usize::MAX / 4));
        assert!(endless.is_err_and(|why| why.contains("no memory")));
    }

    /// `torch.nn.functional.interpolate(mode="bilinear")` on `[[0, 3, 1], [4, 2, 7]]`, to 3 x 5.
    #[test]
    fn resized_as_the_authors_codes_do() {
        let want = [
            (Enlarging::BilinearAligned, [0.0, 1.5, 3.0, 2.0, 1.0, 2.0, 2.25, 2.5, 3.25, 4.0, 4.0, 3.0, 2.0, 4.5, 7.0]),
            (Enlarging::Bilinear, [0.0, 1.2, 3.0, 1.8, 1.0, 2.0, 2.2, 2.5, 3.4, 4.0, 4.0, 3.2, 2.0, 5.0, 7.0]),
        ];
        for (enlarging, want) in want {
            let got = DepthMap::resized(enlarging, &[0.0, 3.0, 1.0, 4.0, 2.0, 7.0], (2, 3), (5, 3)).unwrap().data;
            assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{enlarging:?}: {got:?}");
        }
    }

    /// `post_process_depth_estimation` of transformers 5.23 on `[[0, 3, 1], [4, 2, 7]]`.
    #[test]
    fn resized_as_transformers_does() {
        let output = [0.0, 3.0, 1.0, 4.0, 2.0, 7.0];
        for ((width, height), want) in WANT {
            let got = DepthMap::resized(Enlarging::Bicubic, &output, (2, 3), (*width, *height)).unwrap().data;
            assert_eq!(got.len(), want.len());
            let off = got.iter().zip(*want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 2e-5, "{width} x {height}: {off}");
        }
    }

    #[test]
    fn near_and_far_depend_on_the_unit() {
        let of = |unit| Summary::new(unit, &[2.0, 5.0, 1.0, 5.0, 1.0, 4.0], (2, 3), (30, 4));
        let metres = of(Unit::Metres);
        assert_eq!((metres.min, metres.max, metres.median), (1.0, 5.0, 2.0));
        assert_eq!((metres.nearest, metres.farthest), ([25, 1], [15, 1]));
        let inverse = of(Unit::Inverse);
        assert_eq!((inverse.nearest, inverse.farthest), ([15, 1], [25, 1]));
        // Fewer pixels than elements: a place in the picture all the same.
        let small = Summary::new(Unit::Metres, &[2.0, 5.0, 1.0, 5.0, 3.0, 1.0], (2, 3), (1, 1));
        assert_eq!((small.nearest, small.farthest), ([0, 0], [0, 0]));
    }

    #[rustfmt::skip]
    const WANT: &[((usize, usize), &[f32])] = &[
        ((5, 4), &[
            -0.760500, 1.143891, 3.105469, 1.683609, 0.104313, 0.727, 1.660532, 2.773438, 2.654469, 2.319625,
            3.177, 2.511469, 2.226562, 4.253532, 5.968376, 4.6645, 3.02811, 1.894531, 5.224392, 8.183687,
        ]),
        ((2, 1), &[
            2.060547, 3.677734,
        ]),
        ((1, 3), &[
            3.086806, 2.5, 1.913195,
        ]),
        ((7, 2), &[
            -0.327988, 0.389213, 1.950438, 3.0, 2.475219, 1.281341, 0.781341, 4.218658, 3.692424, 2.314868,
            2.0, 3.889212, 6.368805, 7.546648,
        ]),
    ];
}
