//! Cross-covariance attention: from q and k of all tokens a matrix for each head, which then is a linear layer over v.
//!
//! In int8 models the matrices are int8, in the others f32.

use crate::arena::{Arena, counted};
use crate::config::{Config, Precision};
use crate::error::Error;
use crate::kernels::Kernels;
use crate::kernels::attention::cross::{CrossF32, CrossF32Scratch, CrossHead, CrossI8, CrossI8Scratch};
use crate::kernels::linear::Store;
use crate::kernels::tiles::MAX_ROWS;
use crate::lanes::{F32x16, I8x16x4, I32x16, U8x16, pad16};
use crate::ops::{OperandScratch, multiply};
use crate::parallel::{Chunks, Either, Executor, for_each};
use crate::parts::{Linear, Weight};
use crate::profile::{Laps, Profile, Stage};

/// The matrices of all heads, packed as the model file's are; dp is the head's width padded to 16.
pub(crate) enum Matrices<'a> {
    Int8 {
        /// `[heads, dp / 16, dp / 4]`.
        codes: &'a mut [I8x16x4],
        /// `[heads, dp / 16]`.
        scale: &'a mut [F32x16],
        /// `[heads, dp / 16]`.
        sums: &'a mut [I32x16],
    },
    Float {
        /// `[heads, dp / 16, dp]`.
        values: &'a mut [F32x16],
    },
}

/// One worker's memory to make a head's matrix.
enum Scratch<'w> {
    Int8(CrossI8Scratch<'w>),
    Float(CrossF32Scratch<'w>),
}

impl<'w> Scratch<'w> {
    fn carve(c: &Config, arena: &mut Arena<'w>) -> Self {
        let (dp, chunks, token_blocks) = (pad16(c.head_dim()), pad16(c.head_dim()) / 16, pad16(c.patches()) / 16);
        match c.precision {
            Precision::Int8 => Self::Int8(CrossI8Scratch {
                q: arena.take::<U8x16>(dp * token_blocks),
                k: arena.take(chunks * 4 * token_blocks),
                k_sums: arena.take(chunks),
                scale: [arena.take(chunks), arena.take(chunks)],
                scores: arena.take(MAX_ROWS * chunks),
            }),
            Precision::F16 | Precision::F32 => Self::Float(CrossF32Scratch {
                q: arena.take(dp * token_blocks),
                inverse_norm: [arena.take(chunks), arena.take(chunks)],
                scores: arena.take(MAX_ROWS * chunks),
            }),
        }
    }
}

/// Bytes that a worker needs for [`Matrices::make`].
pub(crate) fn worker_bytes(c: &Config) -> usize {
    counted(|arena| Scratch::carve(c, arena))
}

/// What the matrices are made of.
pub(crate) struct Channels<'a> {
    /// `[patches, 3 * heads * dp / 16]`.
    pub(crate) qkv: &'a [F32x16],
    /// `[pad16(heads) / 16]`.
    pub(crate) temperature: &'a [F32x16],
}

impl<'a> Matrices<'a> {
    pub(crate) fn carve(c: &Config, arena: &mut Arena<'a>) -> Self {
        let (heads, dp) = (c.heads(), pad16(c.head_dim()));
        match c.precision {
            Precision::Int8 => Self::Int8 {
                codes: arena.take(heads * dp / 16 * dp / 4),
                scale: arena.take(heads * dp / 16),
                sums: arena.take(heads * dp / 16),
            },
            Precision::F16 | Precision::F32 => Self::Float { values: arena.take(heads * dp / 16 * dp) },
        }
    }

    /// Makes them, head by head.
    pub(crate) fn make(
        &mut self,
        k: Kernels,
        c: &Config,
        from: Channels<'_>,
        executor: &dyn Executor,
        workers: Chunks<'_, u8>,
        profile: Option<&Profile<'_>>,
    ) -> Result<(), Error> {
        let (chunks, tokens, heads, width) = (pad16(c.head_dim()) / 16, c.patches(), c.heads(), c.head_dim());
        let Channels { qkv, temperature } = from;
        let heads_of = match self {
            Self::Int8 { codes, scale, sums } => {
                let vectors = (Chunks::new(scale, chunks), Chunks::new(sums, chunks));
                Either::Left((Chunks::new(codes, chunks * 4 * chunks), vectors))
            }
            Self::Float { values } => Either::Right(Chunks::new(values, chunks * 16 * chunks)),
        };
        for_each(executor, workers, heads_of, |memory, head, matrix| {
            let mut laps = Laps::start(profile);
            let temperature = temperature[head / 16].0[head % 16];
            let of = CrossHead { qkv, tokens, heads, width, head, temperature };
            match (matrix, Scratch::carve(c, &mut Arena::over(memory))) {
                (Either::Left((codes, (scale, sums))), Scratch::Int8(scratch)) => {
                    k.run(CrossI8 { of, scratch, codes, scale, sums });
                }
                (Either::Right(values), Scratch::Float(scratch)) => k.run(CrossF32 { of, scratch, values }),
                // Both follow the model's precision.
                (Either::Left(_), Scratch::Float(_)) | (Either::Right(_), Scratch::Int8(_)) => {
                    debug_assert!(false, "matrix and scratch differ in precision");
                }
            }
            laps.end(Stage::Attention);
        })
    }

    /// One head's.
    fn head(&self, c: &Config, head: usize) -> Linear<'_> {
        let (dp, chunks) = (pad16(c.head_dim()), pad16(c.head_dim()) / 16);
        let weight = match self {
            Self::Int8 { codes, scale, sums } => Weight::Int8 {
                codes: &codes[head * chunks * dp / 4..][..chunks * dp / 4],
                scale: &scale[head * chunks..][..chunks],
                sums: &sums[head * chunks..][..chunks],
            },
            Self::Float { values } => Weight::F32 { values: &values[head * chunks * dp..][..chunks * dp] },
        };
        Linear { k: dp, weight, bias: &ZERO[..chunks], kept: None }
    }

    /// The heads' outputs `[rows, heads * dp / 16]` for rows of q | k | v. `values` has room for v of one head, `[rows,
    /// dp / 16]`.
    pub(crate) fn apply(
        &self,
        k: Kernels,
        c: &Config,
        qkv: &[F32x16],
        operand: &mut OperandScratch<'_>,
        values: &mut [F32x16],
        out: &mut [F32x16],
    ) {
        let (chunks, width) = (pad16(c.head_dim()) / 16, c.attention_width() / 16);
        let rows = out.len() / width;
        let values = &mut values[..rows * chunks];
        for head in 0..c.heads() {
            for (row, values) in qkv.chunks_exact(3 * width).zip(values.chunks_exact_mut(chunks)) {
                values.copy_from_slice(&row[2 * width + head * chunks..][..chunks]);
            }
            let matrix = self.head(c, head);
            let a = operand.plain(k, values, rows, &matrix);
            multiply(k, a, rows, &matrix, 0..chunks, Store { out: &mut out[head * chunks..], stride: width });
        }
    }
}

/// The matrices have no bias. As long as the widest head.
static ZERO: [F32x16; 64] = [F32x16([0.0; 16]); 64];
