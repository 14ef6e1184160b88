//! The operations of a transformer block over a block of rows, whatever the precision: what a row becomes before a
//! matrix ([`Operand`]), the matrix, and what its output is added to. `family` reads like the paper because of these.
//!
//! Rows are `[rows, pad16(n) / 16]` chunks. In int8 models an operand is quantized per row; in f16 models it is rounded
//! to f16 where the CPU computes in f16; otherwise it stays f32.

use core::ops::Range;

pub(crate) mod attention;
pub(crate) mod cross;
#[cfg_attr(not(all(test, feature = "std")), expect(dead_code, reason = "detection and segmentation heads use it"))]
pub(crate) mod map;
pub(crate) mod mixing;

use crate::arena::Arena;
use crate::config::{Activation, LayerScale, Precision};
use crate::kernels::Kernels;
use crate::kernels::linear::{
    Add, AddScaled, Epilogue, LinearF16, LinearFloat, LinearI8, PairScratch, Store, WeightsI8,
};
use crate::kernels::rows::{
    Activate, ActivateQuantize, AddKept, AddRows, Codes, CodesMut, Encode, Halves, HalvesMut, LayerNorm,
    LayerNormQuantize, Quantize, RowNorm, RowNormQuantize, Scale,
};
use crate::lanes::{F16x16, F32x16, I8x16x4, U8x16};
use crate::parts::{Linear, Norm, Weight};

/// A worker's memory for operands, enough for its block of rows and the widest matrix.
pub(crate) struct OperandScratch<'w> {
    encoded: Encoded<'w>,
    /// `[rows, pad16(dim) / 16]`.
    pub(crate) normed: &'w mut [F32x16],
}

/// Memory for rows of 8-bit codes or of f16.
struct Encoded<'w> {
    /// `[rows, widest K / 16]` in int8 models.
    codes: &'w mut [U8x16],
    /// As large as `codes`.
    paired_codes: &'w mut [U8x16],
    /// `[widest K / 4]` in int8 models.
    paired_weights: &'w mut [I8x16x4],
    /// `[rows, widest K / 16]` in f16 models.
    halves: &'w mut [F16x16],
    /// `[rows]`.
    scale: &'w mut [f32],
    /// `[rows]`.
    zero: &'w mut [i32],
}

impl Encoded<'_> {
    fn codes_mut(&mut self, rows: usize, stride: usize) -> CodesMut<'_> {
        CodesMut {
            codes: &mut self.codes[..rows * stride],
            stride,
            scale: &mut self.scale[..rows],
            zero: &mut self.zero[..rows],
        }
    }

    fn codes(&mut self, rows: usize, stride: usize) -> Operand<'_> {
        let codes =
            Codes { codes: &self.codes[..rows * stride], stride, scale: &self.scale[..rows], zero: &self.zero[..rows] };
        Operand::Int8(codes, PairScratch { rows: self.paired_codes, weights: self.paired_weights })
    }

    fn halves_mut(&mut self, rows: usize, stride: usize) -> HalvesMut<'_> {
        HalvesMut { values: &mut self.halves[..rows * stride], stride, scale: &mut self.scale[..rows] }
    }

    fn halves(&self, rows: usize, stride: usize) -> Operand<'_> {
        Operand::F16(Halves { values: &self.halves[..rows * stride], stride, scale: &self.scale[..rows] })
    }
}

/// Rows that a matrix can be multiplied with.
pub(crate) enum Operand<'s> {
    Int8(Codes<'s>, PairScratch<'s>),
    F16(Halves<'s>),
    Float { rows: &'s [F32x16], stride: usize },
}

impl Operand<'_> {
    /// The same rows, for one matrix of several.
    fn again(&mut self) -> Operand<'_> {
        match self {
            Self::Int8(codes, PairScratch { rows, weights }) => Operand::Int8(*codes, PairScratch { rows, weights }),
            Self::F16(halves) => Operand::F16(*halves),
            &mut Self::Float { rows, stride } => Operand::Float { rows, stride },
        }
    }
}

/// How convolutions over maps are computed, beside the precision of their weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// XCiT's stem: every patch of an int8 convolution has a scale of its own, f16 is multiplied in f16 where the CPU
    /// can.
    Stem,
    /// A head for dense outputs: a band of lines has one scale, f16 weights are widened and multiplied in f32.
    Head,
}

/// Which [`Operand`] a matrix takes.
#[derive(Clone, Copy)]
enum Form {
    Int8,
    F16,
    Float,
}

fn form(k: Kernels, linear: &Linear<'_>) -> Form {
    match linear.weight {
        Weight::Int8 { .. } => Form::Int8,
        Weight::F16 { .. } if k.computes_f16() => Form::F16,
        Weight::F16 { .. } | Weight::F32 { .. } => Form::Float,
    }
}

impl<'w> OperandScratch<'w> {
    /// For blocks of at most `rows` rows, operands of at most `widest` chunks, norms over at most `dim` chunks.
    pub(crate) fn carve(rows: usize, widest: usize, dim: usize, precision: Precision, arena: &mut Arena<'w>) -> Self {
        let of = |this| if precision == this { rows * widest } else { 0 };
        let encoded = Encoded {
            codes: arena.take(of(Precision::Int8)),
            paired_codes: arena.take(of(Precision::Int8)),
            paired_weights: arena.take(if precision == Precision::Int8 { 4 * widest } else { 0 }),
            halves: arena.take(of(Precision::F16)),
            scale: arena.take(rows),
            zero: arena.take(rows),
        };
        Self { encoded, normed: arena.take(rows * dim) }
    }

    /// The rows as they are.
    pub(crate) fn plain<'s>(&'s mut self, k: Kernels, x: &'s [F32x16], rows: usize, into: &Linear<'_>) -> Operand<'s> {
        let (stride, encoded) = (x.len() / rows, &mut self.encoded);
        match form(k, into) {
            Form::Int8 => {
                k.run(Quantize { x, chunks: stride, out: encoded.codes_mut(rows, stride) });
                encoded.codes(rows, stride)
            }
            Form::F16 => {
                k.run(Quantize { x, chunks: stride, out: encoded.halves_mut(rows, stride) });
                encoded.halves(rows, stride)
            }
            Form::Float => Operand::Float { rows: x, stride },
        }
    }

    /// Rows of codes that `fill` writes, `[rows, chunks]`, with one scale and zero point for all.
    fn coded(
        &mut self,
        (rows, chunks): (usize, usize),
        (scale, zero): (f32, i32),
        fill: impl FnOnce(&mut [U8x16]),
    ) -> Operand<'_> {
        let encoded = &mut self.encoded;
        fill(&mut encoded.codes[..rows * chunks]);
        encoded.scale[..rows].fill(scale);
        encoded.zero[..rows].fill(zero);
        encoded.codes(rows, chunks)
    }

    /// The rows as they are, rounded to f16 for a CPU that computes in it except in heads.
    fn rows<'s>(
        &'s mut self,
        k: Kernels,
        scheme: Scheme,
        x: &'s [F32x16],
        rows: usize,
        into: &Linear<'_>,
    ) -> Operand<'s> {
        if scheme == Scheme::Head { self.pixels(k, x, rows, into) } else { self.plain(k, x, rows, into) }
    }

    /// Pixels: as [`plain`](Self::plain), but never rounded to f16. Neighbours are nearly equal, so that the sums of a
    /// patch grow and f16 would lose more here than in all that follows.
    pub(crate) fn pixels<'s>(&'s mut self, k: Kernels, x: &'s [F32x16], rows: usize, into: &Linear<'_>) -> Operand<'s> {
        match form(k, into) {
            Form::Int8 => self.plain(k, x, rows, into),
            Form::F16 | Form::Float => Operand::Float { rows: x, stride: x.len() / rows },
        }
    }

    /// What a residual branch reads: a norm of the rows, or the rows themselves.
    pub(crate) fn branch<'s>(
        &'s mut self,
        k: Kernels,
        x: &'s [F32x16],
        norm: Option<&Norm<'_>>,
        rows: usize,
        into: &Linear<'_>,
    ) -> Operand<'s> {
        match norm {
            Some(norm) => self.normalized(k, x, norm, into),
            None => self.plain(k, x, rows, into),
        }
    }

    /// A norm of the rows.
    fn normalized<'s>(&'s mut self, k: Kernels, x: &[F32x16], norm: &Norm<'_>, into: &Linear<'_>) -> Operand<'s> {
        let stride = norm.weight.len();
        let rows = x.len() / stride;
        let encoded = &mut self.encoded;
        match form(k, into) {
            Form::Int8 => {
                let (row, out) = (&mut self.normed[..stride], encoded.codes_mut(rows, stride));
                normalize_and_encode(k, norm, x, row, out);
                encoded.codes(rows, stride)
            }
            Form::F16 => {
                let (row, out) = (&mut self.normed[..stride], encoded.halves_mut(rows, stride));
                normalize_and_encode(k, norm, x, row, out);
                encoded.halves(rows, stride)
            }
            Form::Float => {
                let out = &mut self.normed[..x.len()];
                normalize(k, norm, x, out);
                Operand::Float { rows: &self.normed[..x.len()], stride }
            }
        }
    }

    /// The non-linearity of the rows, which are overwritten.
    pub(crate) fn activated<'s>(
        &'s mut self,
        k: Kernels,
        x: &'s mut [F32x16],
        rows: usize,
        activation: Activation,
        into: &Linear<'_>,
    ) -> Operand<'s> {
        let (chunks, stride) = (x.len() / rows, into.k / 16);
        let encoded = &mut self.encoded;
        match form(k, into) {
            Form::Int8 => {
                k.run(ActivateQuantize { x, chunks, activation, out: encoded.codes_mut(rows, stride) });
                encoded.codes(rows, stride)
            }
            Form::F16 => {
                k.run(ActivateQuantize { x, chunks, activation, out: encoded.halves_mut(rows, stride) });
                encoded.halves(rows, stride)
            }
            Form::Float => {
                k.run(Activate { x, chunks, activation });
                Operand::Float { rows: x, stride: chunks }
            }
        }
    }
}

/// RMSNorm of every row.
type RmsNorm<'a> = RowNorm<'a, false>;

/// [`RmsNorm`] followed by [`Quantize`].
type RmsNormQuantize<'a, E> = RowNormQuantize<'a, E, false>;

/// LayerNorm or RMSNorm of rows.
pub(crate) fn normalize(k: Kernels, norm: &Norm<'_>, x: &[F32x16], out: &mut [F32x16]) {
    let &Norm { weight, bias, n, eps, centered } = norm;
    match centered {
        false if cfg!(feature = "vit5") => k.run(RmsNorm { x, weight, bias, n, eps, out }),
        _ => k.run(LayerNorm { x, weight, bias, n, eps, out }),
    }
}

/// The same, for a matrix: `row` holds one row.
fn normalize_and_encode(k: Kernels, norm: &Norm<'_>, x: &[F32x16], row: &mut [F32x16], out: impl Encode) {
    let &Norm { weight, bias, n, eps, centered } = norm;
    match centered {
        false if cfg!(feature = "vit5") => k.run(RmsNormQuantize { x, weight, bias, n, eps, row, out }),
        _ => k.run(LayerNormQuantize { x, weight, bias, n, eps, row, out }),
    }
}

/// `epilogue(a W^T + b)` for the 16-column blocks `blocks` of W.
pub(crate) fn multiply<E: Epilogue>(
    k: Kernels,
    a: Operand<'_>,
    rows: usize,
    w: &Linear<'_>,
    blocks: Range<usize>,
    epilogue: E,
) {
    let bias = w.bias;
    match (a, w.weight) {
        (Operand::Int8(a, pairs), Weight::Int8 { codes, scale, sums }) => {
            let groups = crate::layout::k8(w.k) / 4;
            let weights = WeightsI8 { codes, groups, scale, sums, bias };
            k.run(LinearI8 { a, rows, weights, blocks, pairs, epilogue });
        }
        (Operand::F16(a), Weight::F16 { values: weights, scale }) => {
            k.run(LinearF16 { a, rows, k: w.k, weights, scale, bias, blocks, epilogue });
        }
        (Operand::Float { rows: a, stride: a_stride }, Weight::F16 { values: weights, scale }) => {
            let scale = Some(scale);
            k.run(LinearFloat { a, a_stride, k: w.k, rows, weights, scale, bias, blocks, epilogue });
        }
        (Operand::Float { rows: a, stride: a_stride }, Weight::F32 { values: weights }) => {
            let scale = None;
            k.run(LinearFloat { a, a_stride, k: w.k, rows, weights, scale, bias, blocks, epilogue });
        }
        // `OperandScratch` makes the operand that the matrix takes.
        (Operand::Int8(..) | Operand::F16(_), _) | (Operand::Float { .. }, Weight::Int8 { .. }) => {
            debug_assert!(false, "operand and matrix differ in precision");
        }
    }
}

/// A residual branch's end: `x + diag(gamma) (a W^T + b)`, with gamma where the mode has it.
pub(crate) struct Residual<'r> {
    /// `None` where gamma is folded away.
    pub(crate) gamma: Option<&'r [F32x16]>,
    pub(crate) mode: LayerScale,
    /// `[rows, pad16(dim) / 16]`, for `keep-pass` and where rows are missing.
    pub(crate) branch: &'r mut [F32x16],
}

impl Residual<'_> {
    /// Adds the branch to the rows `x`.
    pub(crate) fn add(self, k: Kernels, a: Operand<'_>, w: &Linear<'_>, x: &mut [F32x16]) {
        let stride = w.bias.len();
        if let Some(kept) = w.kept {
            let rows = x.len() / kept.len();
            let branch = &mut self.branch[..rows * stride];
            multiply(k, a, rows, w, 0..stride, Store { out: branch, stride });
            k.run(AddKept { x, y: branch, kept });
            return;
        }
        let rows = x.len() / stride;
        match self.gamma {
            None => multiply(k, a, rows, w, 0..stride, Add { x, stride }),
            Some(gamma) if self.mode == LayerScale::KeepPass => {
                let branch = &mut self.branch[..x.len()];
                multiply(k, a, rows, w, 0..stride, Store { out: branch, stride });
                k.run(Scale { y: branch, gamma });
                for (x, y) in x.iter_mut().zip(branch) {
                    x.0.iter_mut().zip(&y.0).for_each(|(x, y)| *x += y);
                }
            }
            Some(gamma) => multiply(k, a, rows, w, 0..stride, AddScaled { x, stride, gamma }),
        }
    }

    /// Adds a branch that does not end in a matrix, its output the rows `y`, to the rows `x`.
    pub(crate) fn add_rows(self, k: Kernels, y: &mut [F32x16], x: &mut [F32x16]) {
        match self.gamma {
            Some(gamma) if self.mode == LayerScale::KeepPass => {
                k.run(Scale { y, gamma });
                k.run(AddRows { x, y, gamma: None });
            }
            gamma => k.run(AddRows { x, y, gamma }),
        }
    }
}
