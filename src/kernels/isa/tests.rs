//! Every method of every instruction set against `scalar`, bit for bit (any NaN equals any NaN).

use std::vec::Vec;

use super::{Isa, ROUND, Scalar, rounded};
use crate::kernels::dot_i8::{pair_groups_in_place, pair_rows_in_place};
use crate::kernels::{Kernels, Op};
use crate::lanes::{F16x16, F32x16, I8x16x4, I32x16, U8x16};

/// Values at the edges of everything: signs of zero, denormals, halves (ties), huge, infinite, NaN.
const EDGES: [f32; 24] = [
    0.0,
    -0.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    1.0,
    -1.0,
    1.0e-40,
    -1.0e-40,
    f32::MIN_POSITIVE,
    0.333_333_34,
    254.499_98,
    254.5,
    8_388_607.5,
    -16_777_217.0,
    3.0e38,
    -3.0e38,
    1.0e-30,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    65_504.0,
];

fn bits(x: f32) -> u32 {
    if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }
}

/// Zeros of either sign compare equal where the sign is unspecified.
fn unsigned_zero(x: f32) -> u32 {
    if x == 0.0 { 0 } else { bits(x) }
}

/// Runs every f32 method on one triple of vectors and returns the bits of all results.
struct Floats(F32x16, F32x16, F32x16);

impl Op for Floats {
    type Output = Vec<u32>;
    #[inline(always)]
    fn run<S: Isa>(self, s: S) -> Vec<u32> {
        let (a, b, c) = (s.load(&self.0), s.load(&self.1), s.load(&self.2));
        let number = s.splat(7.0);
        let mut all = Vec::new();
        let mut push = |x: S::F, to_bits: fn(f32) -> u32| {
            let mut out = F32x16([0.0; 16]);
            s.store(x, &mut out);
            all.extend(out.0.map(to_bits));
        };
        for x in [
            s.add(a, b),
            s.sub(a, b),
            s.mul(a, b),
            s.div(a, b),
            s.fma(a, b, c),
            s.abs(a),
            s.copysign(a, b),
            s.splat(self.0.0[3]),
        ] {
            push(x, bits);
        }
        push(s.min(a, number), unsigned_zero);
        push(s.max(a, number), unsigned_zero);
        for n in 0..=16 {
            push(s.keep_first(a, n), bits);
        }
        for mask in [0x0000, 0xffff, 0x8001, 0x137f, 0xeca5] {
            push(s.expand(&self.0.0, mask), bits);
        }
        // What callers do before they round: a finite range, NaN included.
        let clamped = s.min(s.max(b, s.splat(-1.0e6)), s.splat(1.0e6));
        push(s.float(rounded(s, clamped)), bits);
        all.push(bits(s.sum(a)));
        all.push(unsigned_zero(s.min_lane(clamped)));
        all.push(unsigned_zero(s.max_lane(clamped)));
        all
    }
}

/// Also 16 bytes of pixels, at an odd address.
struct Ints(I32x16, I32x16, [u8; 17]);

impl Op for Ints {
    type Output = (Vec<I32x16>, F32x16, U8x16);
    #[inline(always)]
    fn run<S: Isa>(self, s: S) -> Self::Output {
        let (a, b) = (s.load_i(&self.0), s.load_i(&self.1));
        let mut ints = Vec::new();
        for x in [s.add_i(a, b), s.mul_i(a, b), s.splat_i(self.0.0[1]), s.shl_i(a, 8), s.shl_i(a, 23)] {
            let mut out = I32x16([0; 16]);
            s.store_i(x, &mut out);
            ints.push(out);
        }
        let pixels = self.2[1..].as_chunks::<4>().0.as_array().expect("four pixels");
        let weights = self.1.0[3..].first_chunk().expect("four weights");
        let mut sums = I32x16([0; 16]);
        s.store_i(s.add_weighted_pixels(a, pixels, weights), &mut sums);
        ints.push(sums);
        let (mut float, mut bytes) = (F32x16([0.0; 16]), U8x16([0; 16]));
        s.store(s.to_f32(a), &mut float);
        s.store_low_bytes(a, 0x80, &mut bytes);
        (ints, float, bytes)
    }
}

/// Activation codes of one vector, as u8.
struct StoreCodes(F32x16);

impl Op for StoreCodes {
    type Output = [u8; 16];
    #[inline(always)]
    fn run<S: Isa>(self, s: S) -> [u8; 16] {
        let mut out = U8x16([0; 16]);
        s.store_codes(s.load(&self.0), &mut out);
        out.0.map(|code| code ^ S::CODE_XOR)
    }
}

struct LoadF16(F16x16);

impl Op for LoadF16 {
    type Output = [u32; 16];
    #[inline(always)]
    fn run<S: Isa>(self, s: S) -> [u32; 16] {
        let mut out = F32x16([0.0; 16]);
        s.store(s.load_f16(&self.0), &mut out);
        out.0.map(bits)
    }
}

/// Three rows of u8 codes, stored as the instruction set wants them; their sums are those of the codes
/// minus, for signed activations, 128 times the weight sums.
struct Dot<'a> {
    codes: &'a [Vec<u8>; 3],
    w: &'a [I8x16x4],
}

impl Op for Dot<'_> {
    type Output = [I32x16; 3];
    #[inline(always)]
    fn run<S: Isa>(self, s: S) -> [I32x16; 3] {
        let mut rows: Vec<U8x16> = Vec::new();
        for row in self.codes {
            let chunk = |chunk: &[u8]| U8x16(core::array::from_fn(|i| chunk[i] ^ S::CODE_XOR));
            rows.extend(row.chunks_exact(16).map(chunk));
        }
        let (chunks, mut w) = (rows.len() / 3, self.w.to_vec());
        pair_rows_in_place(s, &mut rows, chunks);
        pair_groups_in_place(s, &mut w);
        let rows: Vec<&[U8x16]> = rows.chunks_exact(chunks).collect();
        let start = I32x16(core::array::from_fn(|n| n as i32 - 5));
        let acc = s.dot_i8([rows[0], rows[1], rows[2]], [&w], [[s.load_i(&start)]; 3]);
        acc.map(|[acc]| {
            let mut out = start;
            s.store_i(acc, &mut out);
            for (n, sum) in out.0.iter_mut().enumerate() {
                let weights = self.w.iter().flat_map(|w| &w.0[4 * n..][..4]);
                *sum += i32::from(S::CODE_XOR) * weights.map(|&w| i32::from(w)).sum::<i32>();
            }
            out
        })
    }
}

fn others() -> impl Iterator<Item = Kernels> {
    Kernels::available().filter(|&kernels| kernels != Kernels::scalar())
}

/// A small generator: the high bits of a multiplicative congruence.
fn random(seed: &mut u64) -> u32 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 32) as u32
}

#[test]
fn float_methods_equal_scalar() {
    let mut seed = 1;
    for round in 0..400 {
        let mut vector = || {
            F32x16(core::array::from_fn(|_| {
                let r = random(&mut seed);
                if round % 2 == 0 { EDGES[r as usize % EDGES.len()] } else { f32::from_bits(r) }
            }))
        };
        // Arithmetic first: a signaling NaN is outside the contract of min and max.
        let (a, b, c) = (vector(), vector(), vector());
        let (a, b, c) = [a, b, c].map(|v| F32x16(v.0.map(|x| if x.is_nan() { f32::NAN } else { x }))).into();
        let expected = Kernels::scalar().run(Floats(a, b, c));
        for kernels in others() {
            assert_eq!(kernels.run(Floats(a, b, c)), expected, "{}: {a:?} {b:?} {c:?}", kernels.name());
        }
    }
}

#[test]
fn scalar_rounds_ties_to_even_and_sums_by_halves() {
    let mut x = F32x16([0.0; 16]);
    x.0[..6].copy_from_slice(&[0.5, 1.5, 2.5, -0.5, 4_194_303.5, -2.5]);
    let integers = rounded(Scalar, x).0.map(|x| x.wrapping_sub(ROUND.to_bits().cast_signed()));
    assert_eq!(integers[..6], [0, 2, 2, 0, 4_194_304, -2]);
    // 1e8 and -1e8 stand 8 lanes apart and cancel first; in any other order the small ones are lost.
    let mut x = F32x16([0.25; 16]);
    (x.0[0], x.0[8]) = (1.0e8, -1.0e8);
    assert_eq!(Scalar.sum(x), 14.0 * 0.25);
}

#[test]
fn integer_methods_equal_scalar() {
    let mut seed = 2;
    for _ in 0..200 {
        let mut vector = || I32x16(core::array::from_fn(|_| random(&mut seed) as i32));
        let (a, b) = (vector(), vector());
        let bytes = core::array::from_fn(|_| random(&mut seed) as u8);
        let expected = Kernels::scalar().run(Ints(a, b, bytes));
        // Bytes are specified for values in u8 or i8 range.
        let small = I32x16(a.0.map(|x| x & 0xff));
        let expected_small = Kernels::scalar().run(Ints(small, b, bytes));
        for kernels in others() {
            let got = kernels.run(Ints(a, b, bytes));
            assert_eq!((&got.0, got.1), (&expected.0, expected.1), "{}", kernels.name());
            assert_eq!(kernels.run(Ints(small, b, bytes)), expected_small, "{}", kernels.name());
        }
    }
}

#[test]
fn codes_are_rounded_and_clamped() {
    let payload = f32::from_bits(0x7fc0_1234);
    let x = [0.5, 1.5, 254.5, 255.5, 300.0, -0.5, -0.500_1, -1.0e30, f32::NEG_INFINITY, f32::NAN, payload, -0.0, 127.5];
    let expected = [0, 2, 254, 255, 255, 0, 0, 0, 0, 0, 0, 0, 128];
    let vector = |first: f32| F32x16(core::array::from_fn(|i| x.get(i).copied().unwrap_or(first + i as f32 / 16.0)));
    for kernels in Kernels::available() {
        assert_eq!(kernels.run(StoreCodes(vector(0.0)))[..x.len()], expected, "{}", kernels.name());
        for first in -20..2 * 255 + 20 {
            let x = F32x16([first as f32 / 2.0 + 1.0e-5; 16]);
            let expected = x.0.map(|x| libm::rintf(x.clamp(0.0, 255.0)) as u8);
            assert_eq!(kernels.run(StoreCodes(x)), expected, "{} {first}", kernels.name());
        }
    }
}

#[test]
fn every_f16_widens_equally() {
    for first in (0..=u16::MAX).step_by(16) {
        let x = F16x16(core::array::from_fn(|i| first + i as u16));
        let expected = Kernels::scalar().run(LoadF16(x));
        for kernels in others() {
            assert_eq!(kernels.run(LoadF16(x)), expected, "{} {first:#x}", kernels.name());
        }
    }
}

#[test]
fn int8_tiles_equal_the_definition() {
    let mut seed = 3;
    for (k8, extreme) in [(8, false), (16, true), (24, false), (40, true), (192, false), (3072, true)] {
        let mut code = || {
            let r = random(&mut seed);
            if extreme { [0, 255, 128, 127][r as usize % 4] } else { r as u8 }
        };
        let padded = usize::next_multiple_of(k8, 16);
        let codes: [Vec<u8>; 3] = core::array::from_fn(|_| (0..padded).map(|_| code()).collect());
        let mut weight = || {
            let r = random(&mut seed);
            if extreme { [-127, 127, 0, -1][r as usize % 4] } else { (r % 255) as i32 as i8 }
        };
        let weight_of = |w: i8| if w == i8::MIN { -127 } else { w };
        let w: Vec<I8x16x4> = (0..k8 / 4).map(|_| I8x16x4(core::array::from_fn(|_| weight_of(weight())))).collect();
        let expected: [I32x16; 3] = core::array::from_fn(|row| {
            I32x16(core::array::from_fn(|n| {
                let products = (0..k8).map(|k| i32::from(codes[row][k]) * i32::from(w[k / 4].0[4 * n + k % 4]));
                n as i32 - 5 + products.sum::<i32>()
            }))
        });
        for kernels in Kernels::available() {
            let got = kernels.run(Dot { codes: &codes, w: &w });
            assert_eq!(got, expected, "{} K8 = {k8}", kernels.name());
        }
    }
}

#[test]
#[should_panic(expected = "shorter")]
fn a_short_row_is_refused() {
    let (row, w) = ([U8x16([0; 16])], [I8x16x4([0; 64]); 6]);
    Scalar.dot_i8([&row], [&w], [[I32x16([0; 16])]]);
}
