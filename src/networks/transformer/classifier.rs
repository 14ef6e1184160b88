//! The classifier, which every encoder has: from the tokens after the last block to tokens, features and logits.

use super::{ROWS, Tail, normalize_in_place};
use crate::bytes::{floats, floats_mut};
use crate::config::{Config, Family, Pooling};
use crate::kernels::Kernels;
use crate::kernels::linear::Store;
use crate::kernels::rows;
use crate::lanes::{F32x16, pad16};
use crate::ops::{OperandScratch, multiply};
use crate::output::{Output, Outputs};
use crate::parts::{InFile, Norm};

/// What comes after the last block.
pub(crate) struct Head<'h> {
    pub(crate) c: &'h Config,
    pub(crate) k: Kernels,
    pub(crate) tail: &'h Tail<InFile<'h>>,
    pub(crate) outputs: Outputs,
}

impl Head<'_> {
    /// Norm, tokens, pooling, norm, features, head. `x`, the tokens that are read, is overwritten; `features` is
    /// `[parts, pad16(dim)]`.
    pub(crate) fn run(
        self,
        x: &mut [F32x16],
        features: &mut [F32x16],
        mut operand: OperandScratch<'_>,
        out: &mut [F32x16],
    ) {
        let Self { c, k, tail, outputs } = self;
        let dim = pad16(c.dim) / 16;
        match &tail.norm {
            Some(Norm { weight: factor, bias: offset, .. })
                if cfg!(feature = "resmlp") && c.family == Family::ResMlp =>
            {
                k.run(rows::Affine { x, factor, offset });
            }
            Some(norm) => x.chunks_mut(ROWS * dim).for_each(|block| normalize_in_place(k, norm, block, operand.normed)),
            None => {}
        }
        if let Some(place) = outputs.place(c, Output::Tokens) {
            compact(&x[c.prefix_tokens() * dim..], c.dim, &mut out[place]);
        }
        if !outputs.pools() {
            return;
        }
        pool(c, x, features);
        if let Some(norm) = &tail.fc_norm {
            normalize_in_place(k, norm, features, operand.normed);
        }
        if let Some(place) = outputs.place(c, Output::Features) {
            compact(features, c.dim, &mut out[place]);
        }
        if let (Some(place), Some(head)) = (outputs.place(c, Output::Logits), &tail.head) {
            let out = &mut out[place];
            let stride = out.len();
            if let Some(gamma) = tail.head_factor {
                k.run(rows::Scale { y: features, gamma });
            }
            let a = operand.plain(k, features, 1, head);
            multiply(k, a, 1, head, 0..stride, Store { out, stride });
        }
    }
}

/// Tokens to features `[parts, pad16(dim)]`.
fn pool(c: &Config, x: &[F32x16], features: &mut [F32x16]) {
    let dim = pad16(c.dim) / 16;
    let (first, second) = features.split_at_mut(dim);
    let patches = &x[(c.prefix_tokens() * dim).min(x.len())..];
    match c.pooling {
        Pooling::Cls => first.copy_from_slice(&x[..dim]),
        Pooling::Avg => mean(patches, first),
        Pooling::All => mean(x, first),
        Pooling::ClsAvg => {
            first.copy_from_slice(&x[..dim]);
            mean(patches, second);
        }
        Pooling::ClsDist => {
            first.copy_from_slice(&x[..dim]);
            second.copy_from_slice(&x[dim..2 * dim]);
        }
    }
}

/// Mean of rows as long as `out`: added in order, times 1 / rows.
fn mean(rows: &[F32x16], out: &mut [F32x16]) {
    out.fill(F32x16([0.0; 16]));
    for row in rows.chunks_exact(out.len()) {
        for (sum, x) in out.iter_mut().zip(row) {
            sum.0.iter_mut().zip(&x.0).for_each(|(sum, x)| *sum += x);
        }
    }
    let scale = 1.0 / (rows.len() / out.len()) as f32;
    out.iter_mut().flat_map(|chunk| &mut chunk.0).for_each(|sum| *sum *= scale);
}

/// Rows of `pad16(n)` to rows of `n`, one after another.
fn compact(rows: &[F32x16], n: usize, out: &mut [F32x16]) {
    let out = floats_mut(out).chunks_exact_mut(n);
    for (row, out) in rows.chunks_exact(pad16(n) / 16).zip(out) {
        out.copy_from_slice(&floats(row)[..n]);
    }
}
