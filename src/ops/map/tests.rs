//! Every operation against its definition, one float after another: to the bit, on every instruction set, with one
//! thread and with three.

use std::vec;
use std::vec::Vec;

use super::*;
use crate::kernels::map::WeightedMean;
use crate::kernels::rows::LayerNorm;
use crate::kernels::test_data::{Random, bits};
use crate::lanes::{F16x16, I8x16x4, I32x16, pad16};
use crate::layout::k8;
use crate::parallel::Sequential;

mod bands;
mod torch;

/// Weights and products in 16 lanes, the lanes added by halves, as docs/numerics.md has it; lanes past the channels
/// hold what must not count.
#[test]
fn weighted_means_are_those_of_their_definition() {
    let mut random = Random::new(71);
    for channels in [1, 15, 16, 33, 256] {
        let (chunks, pixels) = (pad16(channels) / 16, 9);
        let (weights, mut values) = (random.chunks(pixels * chunks), random.chunks(chunks));
        for (c, value) in values.iter_mut().flat_map(|chunk| &mut chunk.0).enumerate() {
            *value = if c < channels { *value } else { 0.0 };
        }
        let halves = |mut lanes: [f32; 16]| {
            for half in [8, 4, 2, 1] {
                (0..half).for_each(|l| lanes[l] += lanes[l + half]);
            }
            lanes[0]
        };
        let expected: Vec<f32> = weights
            .chunks_exact(chunks)
            .map(|pixel| {
                let (mut sum, mut weighted) = ([0.0; 16], [0.0; 16]);
                for (c, (x, value)) in pixel.iter().flat_map(|x| x.0).zip(values.iter().flat_map(|v| v.0)).enumerate() {
                    let weight = if c < channels { x.max(0.0) + 0.1 } else { 0.0 };
                    sum[c % 16] += weight;
                    weighted[c % 16] = f32::mul_add(weight, value, weighted[c % 16]);
                }
                halves(weighted) / halves(sum)
            })
            .collect();
        for kernels in Kernels::available() {
            let mut out = vec![F32x16([f32::NAN; 16]); pixels];
            kernels.run(WeightedMean { weights: &weights, offset: 0.1, values: &values, channels, out: &mut out });
            for (got, want) in out.iter().zip(&expected) {
                assert_eq!((got.0[0].to_bits(), got.0[1]), (want.to_bits(), 0.0), "{channels} {}", kernels.name());
            }
        }
    }
}

const SIZES: [(usize, usize); 5] = [(1, 1), (1, 9), (9, 1), (7, 5), (13, 11)];
const CHANNELS: [usize; 4] = [1, 15, 16, 33];
const ZERO: F32x16 = F32x16([0.0; 16]);

/// Three threads, started anew each time.
struct Three;

impl Executor for Three {
    fn threads(&self) -> usize {
        3
    }

    fn run(&self, job: &(dyn Fn() + Sync)) {
        std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(job);
            }
        });
    }
}

/// Pixels in memory, with the sizes of their map.
#[derive(Clone)]
struct Pixels {
    data: Vec<F32x16>,
    size: (usize, usize),
    channels: usize,
}

impl Pixels {
    /// `value(y, x, channel)` everywhere.
    fn of(size: (usize, usize), channels: usize, mut value: impl FnMut(usize, usize, usize) -> f32) -> Self {
        let mut pixels = Self { data: vec![ZERO; Map::data_len(size, channels)], size, channels };
        for y in 0..size.0 {
            for x in 0..size.1 {
                for c in 0..channels {
                    let at = (y * size.1 + x) * (pad16(channels) / 16) + c / 16;
                    pixels.data[at].0[c % 16] = value(y, x, c);
                }
            }
        }
        pixels
    }

    fn random(size: (usize, usize), channels: usize, random: &mut Random) -> Self {
        Self::of(size, channels, |_, _, _| random.signed())
    }

    fn map(&self) -> Map<'_> {
        Map::new(&self.data, self.size, self.channels)
    }

    fn map_mut(&mut self) -> MapMut<'_> {
        MapMut::new(&mut self.data, self.size, self.channels)
    }

    fn at(&self, y: usize, x: usize, c: usize) -> f32 {
        self.data[(y * self.size.1 + x) * (pad16(self.channels) / 16) + c / 16].0[c % 16]
    }

    /// Zero outside.
    fn around(&self, y: Option<usize>, x: Option<usize>, c: usize) -> f32 {
        let inside = y.filter(|y| *y < self.size.0).zip(x.filter(|x| *x < self.size.1));
        inside.map_or(0.0, |(y, x)| self.at(y, x, c))
    }

    /// Channel by channel, as PyTorch has them.
    fn planes(&self) -> Vec<f32> {
        let mut values = Vec::new();
        for c in 0..self.channels {
            for pixel in 0..self.size.0 * self.size.1 {
                values.push(self.at(pixel / self.size.1, pixel % self.size.1, c));
            }
        }
        values
    }
}

/// A matrix in the order of the model file.
struct Packed {
    k: usize,
    bias: Vec<F32x16>,
    f32: Vec<F32x16>,
    f16: Vec<F16x16>,
    scale: Vec<F32x16>,
    int8: Vec<I8x16x4>,
    sums: Vec<I32x16>,
    precision: Precision,
}

impl Packed {
    /// `[n][k]` times `scale` (f16 and int8), plus `bias`.
    fn new(precision: Precision, w: &[f32], scale: &[f32], bias: &[f32]) -> Self {
        let (n, k) = (bias.len(), w.len() / bias.len());
        let blocks = n.div_ceil(16);
        let groups = k8(k) / 4;
        let vector = |values: &[f32]| -> Vec<F32x16> {
            let lane = |i: usize| values.get(i).copied().unwrap_or(0.0);
            (0..blocks).map(|block| F32x16(core::array::from_fn(|l| lane(16 * block + l)))).collect()
        };
        let mut packed = Self {
            k,
            bias: vector(bias),
            f32: vec![ZERO; blocks * k],
            f16: vec![F16x16([0; 16]); blocks * k],
            scale: vector(scale),
            int8: vec![I8x16x4([0; 64]); blocks * groups],
            sums: vec![I32x16([0; 16]); blocks],
            precision,
        };
        for (i, &w) in w.iter().enumerate() {
            let (block, lane, k) = (i / k / 16, i / k % 16, i % k);
            packed.f32[block * packed.k + k].0[lane] = w;
            packed.f16[block * packed.k + k].0[lane] = half::f16::from_f32(w).to_bits();
            packed.int8[block * groups + k / 4].0[4 * lane + k % 4] = w as i8;
            packed.sums[block].0[lane] += i32::from(w as i8);
        }
        packed
    }

    fn linear(&self) -> Linear<'_> {
        let Self { k, ref bias, ref scale, ref sums, .. } = *self;
        let weight = match self.precision {
            Precision::F32 => Weight::F32 { values: &self.f32 },
            Precision::F16 => Weight::F16 { values: &self.f16, scale },
            Precision::Int8 => Weight::Int8 { codes: &self.int8, scale, sums },
        };
        Linear { k, weight, bias, kept: None }
    }
}

/// A matrix whose rows are `taps` times padded channels, and what it is made of.
struct Weights {
    /// `[n][taps][channels]`: numbers that f16 has, or codes.
    w: Vec<f32>,
    scale: Vec<f32>,
    bias: Vec<f32>,
    taps: usize,
    channels: usize,
    packed: Packed,
}

impl Weights {
    fn new(precision: Precision, n: usize, taps: usize, channels: usize, random: &mut Random) -> Self {
        let mut weight = || match precision {
            Precision::Int8 => (random.signed() * 127.0).round(),
            Precision::F16 | Precision::F32 => half::f16::from_f32(random.signed()).to_f32(),
        };
        let w: Vec<f32> = (0..n * taps * channels).map(|_| weight()).collect();
        let scale: Vec<f32> = match precision {
            Precision::F32 => vec![1.0; n],
            Precision::F16 | Precision::Int8 => (0..n).map(|_| random.signed()).collect(),
        };
        let bias: Vec<f32> = (0..n).map(|_| random.signed()).collect();
        // One tap is a plain matrix, whose inputs are not padded.
        let padded = if taps == 1 { channels } else { pad16(channels) };
        let mut rows = vec![0.0; n * taps * padded];
        for (row, w) in rows.chunks_exact_mut(padded).zip(w.chunks_exact(channels)) {
            row[..channels].copy_from_slice(w);
        }
        let packed = Packed::new(precision, &rows, &scale, &bias);
        Self { w, scale, bias, taps, channels, packed }
    }

    /// Output `n` for the values `x(tap, channel)`, in the precision of the matrix; nothing is quantized.
    fn output(&self, n: usize, x: impl Fn(usize, usize) -> f32) -> f32 {
        let mut sum = 0.0;
        for (i, &w) in self.w[n * self.taps * self.channels..][..self.taps * self.channels].iter().enumerate() {
            sum = libm::fmaf(x(i / self.channels, i % self.channels), w, sum);
        }
        match self.packed.precision {
            Precision::F32 => sum + self.bias[n],
            Precision::F16 | Precision::Int8 => libm::fmaf(sum, self.scale[n], self.bias[n]),
        }
    }

    /// How far an output may be from [`Self::output`] where the inputs, within [-1, 1], are rounded: a code is at most
    /// 1 / 255 off, f16 loses 2^-11 in every operand and sum.
    fn tolerance(&self, n: usize) -> f32 {
        let row = &self.w[n * self.taps * self.channels..][..self.taps * self.channels];
        let magnitude = self.scale[n].abs() * row.iter().map(|w| w.abs()).sum::<f32>();
        match self.packed.precision {
            Precision::Int8 => magnitude / 200.0,
            Precision::F16 | Precision::F32 => magnitude / 100.0,
        }
    }
}

/// Runs `work` on every instruction set with one thread and three, each time from the pixels `start` on. All results
/// have the same bits as the first; what kernels that compute in f16 make of f16 follows it.
fn everywhere(
    inputs: usize,
    precision: Precision,
    scheme: Scheme,
    start: &Pixels,
    work: impl Fn(&mut Workers<'_>, &mut MapMut<'_>),
) -> Vec<Pixels> {
    let mut results: Vec<Pixels> = Vec::new();
    let widest = SIZES.into_iter().map(|(_, width)| width).fold(0, usize::max);
    let bytes = worker_bytes(inputs, precision).max(band_bytes(widest, inputs.div_ceil(9), 2, precision));
    for k in Kernels::available() {
        let mut of_these = Vec::new();
        for executor in [&Sequential as &dyn Executor, &Three] {
            let mut y = start.clone();
            let mut memory = vec![F32x16([f32::NAN; 16]); executor.threads() * bytes / 64];
            let memory = crate::bytes::scratch_from(&mut memory);
            let (worker_bytes, profile, stage) = (bytes, None, Stage::Head);
            let mut workers = Workers { k, executor, memory, worker_bytes, profile, stage, scheme };
            work(&mut workers, &mut y.map_mut());
            of_these.push(y);
        }
        assert_eq!(bits(&of_these[0].data), bits(&of_these[1].data), "{}: threads", k.name());
        match results.first() {
            Some(first) if precision != Precision::F16 || scheme == Scheme::Head || !k.computes_f16() => {
                assert_eq!(bits(&of_these[0].data), bits(&first.data), "{}", k.name());
            }
            _ => results.push(of_these.remove(0)),
        }
    }
    results
}

/// The pixels that `work` leaves, the same everywhere.
fn floats_everywhere(start: &Pixels, work: impl Fn(&mut Workers<'_>, &mut MapMut<'_>)) -> Pixels {
    everywhere(16, Precision::F32, Scheme::Head, start, work).remove(0)
}

/// As `end` says, `y` being what was there and `z` the convolution.
fn ended(end: End, y: f32, z: f32) -> f32 {
    match end {
        End::Store => z,
        End::Add => y + z,
        End::Relu => z.max(0.0) + 0.0,
        End::Activate(_) => unreachable!("compared with a pass of its own"),
    }
}

/// `work` against `value(y, x, n)` and its tolerance where inputs are rounded.
fn assert_convolution(
    inputs: usize,
    precision: Precision,
    start: &Pixels,
    value: impl Fn(usize, usize, usize) -> (f32, f32),
    work: impl Fn(&mut Workers<'_>, &mut MapMut<'_>),
) {
    let schemes = [Scheme::Stem, Scheme::Head];
    let results = schemes.map(|scheme| everywhere(inputs, precision, scheme, start, &work).into_iter().enumerate());
    for (i, result) in results.into_iter().flatten() {
        let expected = Pixels::of(start.size, start.channels, |y, x, n| value(y, x, n).0);
        if precision != Precision::Int8 && i == 0 {
            assert_eq!(bits(&result.data), bits(&expected.data));
            continue;
        }
        let _ = Pixels::of(start.size, start.channels, |y, x, n| {
            let (expected, tolerance) = value(y, x, n);
            let difference = (result.at(y, x, n) - expected).abs();
            assert!(difference <= tolerance, "{difference} of {tolerance}");
            0.0
        });
    }
}

/// Every precision, size, number of channels and of outputs.
fn for_cases(mut case: impl FnMut(Precision, (usize, usize), usize, usize, &mut Random)) {
    let mut random = Random::new(1);
    for precision in [Precision::F32, Precision::F16, Precision::Int8] {
        for size in SIZES {
            for (i, channels) in CHANNELS.into_iter().enumerate() {
                case(precision, size, channels, CHANNELS[CHANNELS.len() - 1 - i], &mut random);
            }
        }
    }
}

#[test]
fn convolutions_of_1x1() {
    for_cases(|precision, size, channels, n, random| {
        let (x, start) = (Pixels::random(size, channels, random), Pixels::random(size, n, random));
        let weights = Weights::new(precision, n, 1, channels, random);
        for end in [End::Store, End::Add, End::Relu] {
            let value = |y, u, n| {
                let z = weights.output(n, |_, c| x.at(y, u, c));
                (ended(end, start.at(y, u, n), z), weights.tolerance(n))
            };
            assert_convolution(channels, precision, &start, value, |workers, y| {
                workers.conv1x1(x.map(), &weights.packed.linear(), end, y).unwrap();
            });
        }
    });
}

#[test]
fn convolutions_of_3x3() {
    for_cases(|precision, size, channels, n, random| {
        let x = Pixels::random(size, channels, random);
        let weights = Weights::new(precision, n, 9, channels, random);
        let linear = &weights.packed.linear();
        for (stride, relu, end) in
            [(1, false, End::Store), (1, true, End::Add), (2, false, End::Relu), (2, true, End::Store)]
        {
            let start = Pixels::random(convolved(size, stride), n, random);
            let value = |y: usize, u: usize, n| {
                let z = weights.output(n, |tap, c| {
                    let (y, u) = (stride * y + tap / 3, stride * u + tap % 3);
                    let x = x.around(y.checked_sub(1), u.checked_sub(1), c);
                    if relu { x.max(0.0) } else { x }
                });
                (ended(end, start.at(y, u, n), z), weights.tolerance(n))
            };
            assert_convolution(9 * pad16(channels), precision, &start, value, |workers, y| {
                workers.conv3x3(x.map(), Conv3x3 { linear, stride, relu, end }, y).unwrap();
            });
        }
    });
}

#[test]
fn transposed_convolutions() {
    for_cases(|precision, size, channels, n, random| {
        for (kernel, end) in [(2, End::Store), (4, End::Relu), (2, End::Add)] {
            let x = Pixels::random(size, channels, random);
            let start = Pixels::random((kernel * size.0, kernel * size.1), n, random);
            // A row of outputs for each tap of the kernel, padded.
            let weights = Weights::new(precision, kernel * kernel * pad16(n), 1, channels, random);
            let value = |y: usize, u: usize, n: usize| {
                let output = (y % kernel * kernel + u % kernel) * pad16(start.channels) + n;
                let z = weights.output(output, |_, c| x.at(y / kernel, u / kernel, c));
                (ended(end, start.at(y, u, n), z), weights.tolerance(output))
            };
            // What pads the outputs is no zero here: it is a row as any other.
            let clear = |y: &mut MapMut<'_>| {
                for chunk in y.data.chunks_exact_mut(pad16(n) / 16) {
                    chunk[n / 16..].iter_mut().for_each(|last| last.0[n % 16..].fill(0.0));
                }
            };
            assert_convolution(channels, precision, &start, value, |workers, y| {
                workers.transposed(x.map(), &weights.packed.linear(), kernel, end, y).unwrap();
                clear(y);
            });
        }
    });
}

#[test]
fn activations_are_a_pass_over_the_output() {
    let mut random = Random::new(2);
    let (x, start) = (Pixels::random((7, 5), 16, &mut random), Pixels::random((7, 5), 33, &mut random));
    let weights = Weights::new(Precision::F32, 33, 9, 16, &mut random);
    let linear = &weights.packed.linear();
    let convolve = |end| {
        let conv = Conv3x3 { linear, stride: 1, relu: false, end };
        everywhere(linear.k, Precision::F32, Scheme::Head, &start, |workers, y| {
            workers.conv3x3(x.map(), conv, y).unwrap()
        })
        .remove(0)
    };
    let mut expected = convolve(End::Store);
    Kernels::scalar().run(Activate { x: &mut expected.data, chunks: 3, activation: Activation::Gelu });
    assert_eq!(bits(&convolve(End::Activate(Activation::Gelu)).data), bits(&expected.data));
}

#[test]
fn a_residual_unit_adds_to_the_map_that_it_reads() {
    // y = x + conv2(relu(conv1(relu(x)))) with x in place.
    let mut random = Random::new(3);
    let x = Pixels::random((7, 5), 33, &mut random);
    let [first, second] = [0; 2].map(|_| Weights::new(Precision::F32, 33, 9, 33, &mut random));
    let result = everywhere(9 * 48, Precision::F32, Scheme::Head, &x, |workers, y| {
        let mut between = Pixels::of(x.size, 33, |_, _, _| 0.0);
        let conv = |weights: &Weights, x: Map<'_>, relu, end, y: &mut MapMut<'_>, workers: &mut Workers<'_>| {
            let linear = &weights.packed.linear();
            workers.conv3x3(x, Conv3x3 { linear, stride: 1, relu, end }, y).unwrap();
        };
        conv(&first, y.view(), true, End::Relu, &mut between.map_mut(), workers);
        conv(&second, between.map(), false, End::Add, y, workers);
    });
    let convolved = |weights: &Weights, x: &Pixels, y: usize, u: usize, n| {
        weights.output(n, |tap, c| x.around((y + tap / 3).checked_sub(1), (u + tap % 3).checked_sub(1), c).max(0.0))
    };
    let between = Pixels::of(x.size, 33, |y, u, n| convolved(&first, &x, y, u, n));
    let expected = Pixels::of(x.size, 33, |y, u, n| x.at(y, u, n) + convolved(&second, &between, y, u, n));
    assert_eq!(bits(&result[0].data), bits(&expected.data));
}

/// Where pixel `i` of `to` lies among `from`: the pixel before it, the one after it, and the fraction between them.
fn place(corners: Corners, i: usize, from: usize, to: usize) -> (usize, usize, f32) {
    let (numerator, denominator) = match corners {
        Corners::Aligned => (i * (from - 1), (to - 1).max(1)),
        Corners::Outer => (((2 * i + 1) * from).saturating_sub(to), 2 * to),
    };
    let first = numerator / denominator;
    (first, (first + 1).min(from - 1), (numerator % denominator) as f32 / denominator as f32)
}

#[test]
fn resizing() {
    let mut random = Random::new(4);
    let lerp = |t: f32, a: f32, b: f32| libm::fmaf(t, b - a, a);
    for (from, channels) in SIZES.into_iter().zip([1, 15, 16, 33, 17]) {
        let x = Pixels::random(from, channels, &mut random);
        for to in [(1, 1), (1, 9), (14, 10), (3, 2), (13, 11), (29, 31)] {
            for corners in [Corners::Aligned, Corners::Outer] {
                let start = Pixels::random(to, channels, &mut random);
                let result = floats_everywhere(&start, |workers, y| workers.resize(x.map(), corners, y).unwrap());
                let expected = Pixels::of(to, channels, |y, u, c| {
                    let (top, bottom, ty) = place(corners, y, from.0, to.0);
                    let (left, right, tx) = place(corners, u, from.1, to.1);
                    let line = |y| lerp(tx, x.at(y, left, c), x.at(y, right, c));
                    lerp(ty, line(top), line(bottom))
                });
                assert_eq!(bits(&result.data), bits(&expected.data), "{from:?} to {to:?}, {corners:?}");
                if from == to {
                    assert_eq!(bits(&result.data), bits(&x.data));
                }
            }
        }
    }
}

#[test]
fn sampling() {
    let mut random = Random::new(5);
    for (size, channels) in SIZES.into_iter().zip([1, 15, 16, 33, 17]) {
        let map = Pixels::random(size, channels, &mut random);
        let mut points: Vec<[f32; 2]> = (0..40).map(|_| [1.5 * random.signed(), 1.5 * random.signed()]).collect();
        points.extend([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0], [-1e30, 0.5], [3e9, 3e9], [0.5, -7.0]]);
        let chunks = pad16(channels) / 16;
        let expected = Pixels::of((1, points.len()), channels, |_, i, c| {
            let place = |coordinate: f32, len: usize| {
                let position = ((coordinate + 1.0) * len as f32 - 1.0) / 2.0;
                (position.floor(), position - position.floor())
            };
            let ((left, tx), (top, ty)) = (place(points[i][0], size.1), place(points[i][1], size.0));
            let corners = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)];
            let weights = [(1.0 - tx) * (1.0 - ty), tx * (1.0 - ty), (1.0 - tx) * ty, tx * ty];
            corners.into_iter().zip(weights).fold(0.0, |sum, ((dy, dx), weight)| {
                let index = |first: f32, len| (0..len).find(|i| *i as f32 == first);
                libm::fmaf(map.around(index(top + dy, size.0), index(left + dx, size.1), c), weight, sum)
            })
        });
        for k in Kernels::available() {
            let mut out = vec![F32x16([7.0; 16]); points.len() * chunks];
            sample(k, map.map(), &points, &mut out);
            assert_eq!(bits(&out), bits(&expected.data), "{}", k.name());
            for point in [[f32::NAN, 0.0], [0.0, f32::INFINITY]] {
                sample(k, map.map(), &[point], &mut out[..chunks]);
                assert!(out[0].0[0].is_nan());
            }
        }
    }
}

#[test]
fn what_stays_in_its_pixel() {
    let mut random = Random::new(6);
    for (size, channels) in SIZES.into_iter().zip([1, 15, 16, 33, 17]) {
        let [x, y] = [0; 2].map(|_| Pixels::random(size, channels, &mut random));
        let result = floats_everywhere(&y, |workers, y| workers.add(y, x.map()).unwrap());
        assert_eq!(bits(&result.data), bits(&Pixels::of(size, channels, |v, u, c| y.at(v, u, c) + x.at(v, u, c)).data));
        let result = floats_everywhere(&x, |workers, x| workers.relu(x).unwrap());
        assert_eq!(bits(&result.data), bits(&Pixels::of(size, channels, |v, u, c| x.at(v, u, c).max(0.0)).data));

        let [weight, bias] = [0; 2].map(|_| Pixels::random((1, 1), channels, &mut random).data);
        let norm = Norm { weight: &weight, bias: &bias, n: channels, eps: 1e-6, centered: true };
        let result = floats_everywhere(&y, |workers, y| workers.channel_norm(x.map(), &norm, y).unwrap());
        let mut expected = y.clone();
        let (x, out) = (&x.data[..], &mut expected.data[..]);
        Kernels::scalar().run(LayerNorm { x, weight: &weight, bias: &bias, n: channels, eps: 1e-6, out });
        assert_eq!(bits(&result.data), bits(&expected.data));
    }
}

#[test]
fn depthwise_convolutions() {
    let mut random = Random::new(7);
    for (size, channels) in SIZES.into_iter().zip([1, 15, 16, 33, 17]) {
        let [x, start] = [0; 2].map(|_| Pixels::random(size, channels, &mut random));
        for kernel in [3, 7] {
            let weights = Pixels::random((kernel, kernel), channels, &mut random);
            let bias = Pixels::random((1, 1), channels, &mut random);
            let conv = Depthwise { kernel, weight: &weights.data, bias: &bias.data };
            let result = floats_everywhere(&start, |workers, y| workers.depthwise(x.map(), &conv, y).unwrap());
            let expected = Pixels::of(size, channels, |y, u, c| {
                (0..kernel * kernel).fold(bias.at(0, 0, c), |sum, tap| {
                    let (dy, dx) = (tap / kernel, tap % kernel);
                    let x = x.around((y + dy).checked_sub(kernel / 2), (u + dx).checked_sub(kernel / 2), c);
                    libm::fmaf(x, weights.at(dy, dx, c), sum)
                })
            });
            assert_eq!(bits(&result.data), bits(&expected.data));
        }
    }
}

#[test]
fn numbers_that_are_not_finite_stay_visible() {
    let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE, f32::MAX, f32::MIN, -1e-40];
    let x = Pixels::of((1, values.len()), 1, |_, i, _| values[i]);
    let result = floats_everywhere(&x, |workers, x| workers.relu(x).unwrap());
    let expected = [f32::NAN, f32::INFINITY, f32::NAN, 0.0, f32::MIN_POSITIVE, f32::MAX, 0.0, 0.0];
    assert_eq!(bits(&result.data), bits(&Pixels::of((1, values.len()), 1, |_, i, _| expected[i]).data));
}
