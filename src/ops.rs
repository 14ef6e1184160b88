//! The operations of a transformer block over a block of rows, whatever the precision: what a row becomes before a
//! matrix ([`Operand`]), the matrix, and what its output is added to. `family` reads like the paper because of these.
//!
//! Rows are `[rows, pad16(n) / 16]` chunks. In int8 models an operand is quantized per row; otherwise it stays f32.

use core::ops::Range;

pub(crate) mod attention;

use crate::arena::Arena;
use crate::config::{Activation, LayerScale};
use crate::kernels::Kernels;
use crate::kernels::isa::{F32x16, U8x16};
use crate::kernels::linear::{Add, AddScaled, Epilogue, LinearFloat, LinearI8, Store, WeightsI8};
use crate::kernels::rows::{
    Activate, ActivateQuantize, Codes, CodesMut, LayerNorm, LayerNormQuantize, Quantize, Scale,
};
use crate::model::{Linear, Norm, Weight};

/// A worker's memory for operands, enough for its block of rows and the widest matrix.
pub(crate) struct OperandScratch<'w> {
    /// `[rows, widest K / 16]`.
    pub(crate) codes: &'w mut [U8x16],
    /// `[rows]`.
    pub(crate) scale: &'w mut [f32],
    /// `[rows]`.
    pub(crate) zero: &'w mut [i32],
    /// `[rows, pad16(dim) / 16]`.
    pub(crate) normed: &'w mut [F32x16],
}

/// Rows that a matrix can be multiplied with.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'s> {
    Int8(Codes<'s>),
    Float { rows: &'s [F32x16], stride: usize },
}

fn is_int8(linear: &Linear<'_>) -> bool {
    matches!(linear.weight, Weight::Int8 { .. })
}

impl<'w> OperandScratch<'w> {
    /// For blocks of at most `rows` rows, operands of at most `widest` chunks, norms over at most `dim` chunks.
    pub(crate) fn carve(rows: usize, widest: usize, dim: usize, arena: &mut Arena<'w>) -> Self {
        Self {
            codes: arena.take(rows * widest),
            scale: arena.take(rows),
            zero: arena.take(rows),
            normed: arena.take(rows * dim),
        }
    }

    fn codes_mut(&mut self, rows: usize, stride: usize) -> CodesMut<'_> {
        CodesMut {
            codes: &mut self.codes[..rows * stride],
            stride,
            scale: &mut self.scale[..rows],
            zero: &mut self.zero[..rows],
        }
    }

    fn codes(&self, rows: usize, stride: usize) -> Operand<'_> {
        Operand::Int8(Codes {
            codes: &self.codes[..rows * stride],
            stride,
            scale: &self.scale[..rows],
            zero: &self.zero[..rows],
        })
    }

    /// The rows as they are.
    pub(crate) fn plain<'s>(&'s mut self, k: Kernels, x: &'s [F32x16], rows: usize, into: &Linear<'_>) -> Operand<'s> {
        let stride = x.len() / rows;
        if !is_int8(into) {
            return Operand::Float { rows: x, stride };
        }
        k.run(Quantize { x, chunks: stride, out: self.codes_mut(rows, stride) });
        self.codes(rows, stride)
    }

    /// LayerNorm of the rows.
    pub(crate) fn layer_norm<'s>(
        &'s mut self,
        k: Kernels,
        x: &[F32x16],
        norm: &Norm<'_>,
        into: &Linear<'_>,
    ) -> Operand<'s> {
        let &Norm { weight, bias, n, eps } = norm;
        let stride = weight.len();
        let rows = x.len() / stride;
        if !is_int8(into) {
            let out = &mut self.normed[..x.len()];
            k.run(LayerNorm { x, weight, bias, n, eps, out });
            return Operand::Float { rows: &self.normed[..x.len()], stride };
        }
        let out = CodesMut {
            codes: &mut self.codes[..rows * stride],
            stride,
            scale: &mut self.scale[..rows],
            zero: &mut self.zero[..rows],
        };
        k.run(LayerNormQuantize { x, weight, bias, n, eps, row: &mut self.normed[..stride], out });
        self.codes(rows, stride)
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
        let chunks = x.len() / rows;
        if !is_int8(into) {
            k.run(Activate { x, chunks, activation });
            return Operand::Float { rows: x, stride: chunks };
        }
        let stride = into.k / 16;
        k.run(ActivateQuantize { x, chunks, activation, out: self.codes_mut(rows, stride) });
        self.codes(rows, stride)
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
        (Operand::Int8(a), Weight::Int8 { codes, scale, sums }) => {
            let groups = crate::layout::k8(w.k) / 4;
            k.run(LinearI8 { a, rows, weights: WeightsI8 { codes, groups, scale, sums, bias }, blocks, epilogue });
        }
        (Operand::Float { rows: a, stride: a_stride }, Weight::F16 { values: weights, scale }) => {
            let scale = Some(scale);
            k.run(LinearFloat { a, a_stride, k: w.k, rows, weights, scale, bias, blocks, epilogue });
        }
        (Operand::Float { rows: a, stride: a_stride }, Weight::F32 { values: weights }) => {
            let scale = None;
            k.run(LinearFloat { a, a_stride, k: w.k, rows, weights, scale, bias, blocks, epilogue });
        }
        // `OperandScratch` makes int8 operands for int8 matrices and float operands for the others.
        (Operand::Int8(_), _) | (Operand::Float { .. }, Weight::Int8 { .. }) => {
            debug_assert!(false, "operand and matrix differ in precision");
        }
    }
}

/// A residual branch's end: `x + diag(gamma) (a W^T + b)`, with gamma where the mode has it.
pub(crate) struct Residual<'r> {
    /// `None` where gamma is folded away.
    pub(crate) gamma: Option<&'r [F32x16]>,
    pub(crate) mode: LayerScale,
    /// `[rows, pad16(dim) / 16]`, for `keep-pass`.
    pub(crate) branch: &'r mut [F32x16],
}

impl Residual<'_> {
    /// Adds the branch to the rows `x`.
    pub(crate) fn add(self, k: Kernels, a: Operand<'_>, w: &Linear<'_>, x: &mut [F32x16]) {
        let stride = w.bias.len();
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
}
