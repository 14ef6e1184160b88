//! exp and the activation functions over sixteen lanes, one implementation for every instruction set.
//!
//! Each function is a fixed sequence of IEEE operations: the sequence and the coefficients are the specification
//! (docs/numerics.md repeats them), so all instruction sets give the same bits. Coefficients are minimax fits in f64
//! (Lawson's iteration on 3,000 Chebyshev nodes), rounded to f32 one after another, lowest power first, the remaining
//! ones refitted each time. The tests below measure errors against f64; their bounds are promises.
//!
//! No table look-ups, no division where a polynomial does: division runs at a quarter or less of the speed of fused
//! multiply-add on every core that we care about.

use super::isa::{Isa, ROUND};
use crate::lanes::F32x16;

const LOG2_E: f32 = core::f32::consts::LOG2_E;
/// ln 2 in two parts; the second is what f32 loses.
const LN_2_HIGH: f32 = core::f32::consts::LN_2;
const LN_2_LOW: f32 = -1.904_654_2e-9;
/// exp(r) for |r| <= ln(2) / 2, powers 5 to 0; relative error of the fit 1.05e-7, exact at 0.
static EXP: [F32x16; 6] = splat([0.008_312_697, 0.041_890_193, 0.166_671_13, 0.499_992_3, 1.0, 1.0]);
/// [`ROUND`] in all lanes.
static ROUND_LANES: [F32x16; 1] = splat([ROUND]);
/// Results stay normal numbers, and 2^n has n in [-126, 127].
const EXP_MIN: f32 = -87.3;
const EXP_MAX: f32 = 88.0;

/// `Phi(b)^(1/4)` for -5.5 <= b <= 0, powers 8 to 0 (Phi: the normal distribution function).
///
/// The fourth root is so tame that eight powers bring Phi itself to 1.1e-7 (absolute), where a polynomial
/// for Phi needs more than twelve.
static TAIL: [F32x16; 9] = splat([
    -3.448_900_5e-6,
    -5.911_007e-5,
    -0.000_311_356_68,
    2.386_019_9e-5,
    0.003_777_720_7,
    -0.004_665_097,
    -0.050_204_463,
    0.167_732_78,
    0.840_896_37,
]);
const TAIL_MIN: f32 = -5.5;

/// Each coefficient in all lanes.
const fn splat<const N: usize>(coefficients: [f32; N]) -> [F32x16; N] {
    let mut lanes = [F32x16([0.0; 16]); N];
    let mut i = 0;
    while i < N {
        lanes[i] = F32x16([coefficients[i]; 16]);
        i += 1;
    }
    lanes
}

/// Horner's rule with fused multiply-add, the highest power first.
#[inline(always)]
fn polynomial<S: Isa, const N: usize>(s: S, x: S::F, coefficients: &'static [F32x16; N]) -> S::F {
    let mut sum = s.load(&coefficients[0]);
    for coefficient in &coefficients[1..] {
        sum = s.fma_constant(sum, x, coefficient);
    }
    sum
}

/// e^x for x <= 0 (below -87.3, and where x is NaN, e^-87.3): relative error below 1.9e-7, exactly 1 at 0.
#[inline(always)]
pub(crate) fn exp_nonpositive<S: Isa>(s: S, x: S::F) -> S::F {
    let x = s.max(x, s.splat(EXP_MIN));
    let rounded = s.fma_constant(x, s.splat(LOG2_E), &ROUND_LANES[0]);
    let n = s.sub(rounded, s.splat(ROUND));
    let r = s.fma(n, s.splat(-LN_2_HIGH), x);
    let r = s.fma(n, s.splat(-LN_2_LOW), r);
    // n is also in the low bits of `rounded`, and nothing but zeros up to bit 22: added to the exponent it multiplies
    // by 2^n, exactly, since the result is a normal number.
    s.float(s.add_i(s.bits(polynomial(s, r, &EXP)), s.shl_i(s.bits(rounded), 23)))
}

/// e^x, x clamped to [-87.3, 88]: relative error below 1.9e-7.
#[inline(always)]
pub(crate) fn exp<S: Isa>(s: S, x: S::F) -> S::F {
    exp_nonpositive(s, s.min(x, s.splat(EXP_MAX)))
}

/// x Phi(x) = x (1 + erf(x / sqrt 2)) / 2, as max(x, 0) + b Phi(b) with b = max(-|x|, -5.5).
/// The error is below 3.0e-7 |x| and below 5e-7; far from zero the result is max(x, 0) - 4e-9.
#[inline(always)]
pub(crate) fn gelu<S: Isa>(s: S, x: S::F) -> S::F {
    let minus = s.copysign(x, s.splat(-1.0));
    let b = s.max(minus, s.splat(TAIL_MIN));
    let root = polynomial(s, b, &TAIL);
    let square = s.mul(root, root);
    let phi = s.mul(square, square);
    // (x - -|x|) / 2 is exactly max(x, 0), and keeps a NaN.
    s.fma(s.sub(x, minus), s.splat(0.5), s.mul(b, phi))
}

/// x / (1 + exp(minus_z)).
#[inline(always)]
fn over_one_plus_exp<S: Isa>(s: S, x: S::F, minus_z: S::F) -> S::F {
    s.div(x, s.add(s.splat(1.0), exp(s, minus_z)))
}

/// GELU by tanh, x (1 + tanh(y)) / 2 with y = sqrt(2 / pi) (x + 0.044715 x^3), as x / (1 + exp(-2 y)).
/// The error is below 1.5e-7 |x|.
#[inline(always)]
pub(crate) fn gelu_tanh<S: Isa>(s: S, x: S::F) -> S::F {
    let square = s.mul(x, x);
    let slope = s.fma(square, s.splat(-0.071_354_814), s.splat(-1.595_769_2));
    over_one_plus_exp(s, x, s.mul(x, slope))
}

/// x / (1 + exp(-1.702 x)). The error is below 1.5e-7 |x|.
#[inline(always)]
pub(crate) fn gelu_quick<S: Isa>(s: S, x: S::F) -> S::F {
    over_one_plus_exp(s, x, s.mul(x, s.splat(-1.702)))
}

/// x / (1 + exp(-x)). The error is below 1.5e-7 |x|.
#[inline(always)]
pub(crate) fn silu<S: Isa>(s: S, x: S::F) -> S::F {
    over_one_plus_exp(s, x, s.mul(x, s.splat(-1.0)))
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use crate::kernels::{Kernels, Op};

    #[derive(Clone, Copy, Debug)]
    enum Function {
        Exp,
        ExpNonpositive,
        Gelu,
        GeluTanh,
        GeluQuick,
        Silu,
    }

    const ALL: [Function; 6] = [
        Function::Exp,
        Function::ExpNonpositive,
        Function::Gelu,
        Function::GeluTanh,
        Function::GeluQuick,
        Function::Silu,
    ];

    impl Function {
        fn exact(self, x: f64) -> f64 {
            match self {
                Self::Exp | Self::ExpNonpositive => libm::exp(x),
                Self::Gelu => 0.5 * x * libm::erfc(-x * core::f64::consts::FRAC_1_SQRT_2),
                Self::GeluTanh => {
                    let y = libm::sqrt(2.0 / core::f64::consts::PI) * (x + 0.044_715 * x * x * x);
                    x / (1.0 + libm::exp(-2.0 * y))
                }
                Self::GeluQuick => x / (1.0 + libm::exp(-1.702 * x)),
                Self::Silu => x / (1.0 + libm::exp(-x)),
            }
        }
    }

    struct Evaluate<'a>(Function, &'a mut [F32x16]);

    impl Op for Evaluate<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Isa>(self, s: S) {
            for chunk in self.1 {
                let x = s.load(chunk);
                let y = match self.0 {
                    Function::Exp => exp(s, x),
                    Function::ExpNonpositive => exp_nonpositive(s, x),
                    Function::Gelu => gelu(s, x),
                    Function::GeluTanh => gelu_tanh(s, x),
                    Function::GeluQuick => gelu_quick(s, x),
                    Function::Silu => silu(s, x),
                };
                s.store(y, chunk);
            }
        }
    }

    /// Floats from `first` outwards to `last` (of the same sign), in steps of `step` units in the last place, 16 at a
    /// time.
    fn floats(first: f32, last: f32, step: usize) -> impl Iterator<Item = F32x16> {
        let (start, end) = (first.to_bits(), last.to_bits());
        (start..=end)
            .step_by(16 * step)
            .map(move |bits| F32x16(core::array::from_fn(|i| f32::from_bits((bits + (i * step) as u32).min(end)))))
    }

    /// The largest error over dense floats, relative to `unit(x, exact)`.
    fn largest_error(function: Function, first: f32, last: f32, unit: fn(f64, f64) -> f64) -> f64 {
        let kernels = Kernels::detect();
        let mut largest = 0.0_f64;
        for xs in floats(first, last, 4001) {
            let mut ys = [xs];
            kernels.run(Evaluate(function, &mut ys));
            for (&x, y) in xs.0.iter().zip(ys[0].0) {
                let exact = function.exact(f64::from(x));
                let error = (f64::from(y) - exact).abs() / unit(f64::from(x), exact);
                largest = largest.max(if error.is_nan() { f64::INFINITY } else { error });
            }
        }
        largest
    }

    #[test]
    fn exp_is_within_its_bound() {
        let relative = |_, exact: f64| exact;
        for (function, last) in [(Function::Exp, 88.0), (Function::Exp, -87.3), (Function::ExpNonpositive, -87.3)] {
            let first = 0.0_f32.copysign(last);
            let error = largest_error(function, first, last, relative);
            assert!(error < 1.9e-7, "{function:?} to {last}: {error:e}");
        }
    }

    #[test]
    fn activations_are_within_their_bounds() {
        let by_x = |x: f64, _| x.abs();
        let absolute = |_, _| 1.0;
        for sign in [1.0, -1.0] {
            let (first, last) = (sign * 1.0e-30, sign * 1.0e6);
            let error = largest_error(Function::Gelu, first, last, by_x);
            assert!(error < 3.0e-7, "gelu: {error:e}");
            let error = largest_error(Function::Gelu, first, sign * 8.0, absolute);
            assert!(error < 5.0e-7, "gelu, absolute: {error:e}");
            for function in [Function::GeluTanh, Function::GeluQuick, Function::Silu] {
                let error = largest_error(function, first, last, by_x);
                assert!(error < 1.5e-7, "{function:?}: {error:e}");
            }
        }
    }

    #[test]
    fn special_values() {
        let of = |function, x| {
            let mut ys = [F32x16([x; 16])];
            Kernels::scalar().run(Evaluate(function, &mut ys));
            ys[0].0[0]
        };
        let (infinity, nan) = (f32::INFINITY, f32::NAN);
        assert_eq!(of(Function::Exp, 0.0), 1.0);
        assert_eq!(of(Function::ExpNonpositive, -infinity), of(Function::Exp, -87.3));
        assert_eq!(of(Function::ExpNonpositive, nan), of(Function::Exp, -87.3));
        assert!(of(Function::Exp, infinity).is_finite());
        for function in [Function::Gelu, Function::GeluTanh, Function::GeluQuick, Function::Silu] {
            assert_eq!(of(function, 0.0), 0.0, "{function:?}");
            assert_eq!(of(function, infinity), infinity, "{function:?}");
            assert!(of(function, nan).is_nan(), "{function:?}");
            assert!(of(function, -1.0e4).abs() < 1.0e-8, "{function:?}");
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let special = [0.0, -0.0, 1e-40, -1e-40, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 88.5, -87.5, 3e38, -3e38];
        let special = F32x16(core::array::from_fn(|i| special[i % special.len()]));
        let positive = floats(1.0e-6, 100.0, 20_011);
        let negative = floats(-1.0e-6, -100.0, 20_011);
        for xs in positive.chain(negative).chain([special]) {
            for function in ALL {
                let mut expected = [xs];
                Kernels::scalar().run(Evaluate(function, &mut expected));
                for kernels in Kernels::available() {
                    let mut got = [xs];
                    kernels.run(Evaluate(function, &mut got));
                    for (got, expected) in got[0].0.iter().zip(expected[0].0) {
                        let same = got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan());
                        assert!(same, "{} {function:?}: {got} for {expected} in {xs:?}", kernels.name());
                    }
                }
            }
        }
    }
}
