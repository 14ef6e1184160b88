//! Parts as slices of a model file.

use core::marker::PhantomData;

use crate::bytes::{self, Plain};
use crate::config::{Config, Precision};
use crate::error::Error;
use crate::lanes::{ALIGNMENT, F16x16, F32x16, I8x16x4, I32x16, U8x16, channels, pad16};
use crate::layout::{Kept, k8};
use crate::parts::{Axis, Branch, Scope, Storage, Walk};

/// Parts that lie in a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFile<'a>(PhantomData<&'a [u8]>);

impl<'a> Storage for InFile<'a> {
    type Vectors = &'a [F32x16];
    type Norm = Norm<'a>;
    type Linear = Linear<'a>;
    type Depthwise = Depthwise<'a>;
    type Mixer = Mixer<'a>;
}

/// A norm's parameters, each `[pad16(n)]`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Norm<'a> {
    pub(crate) weight: &'a [F32x16],
    pub(crate) bias: &'a [F32x16],
    /// Channels that are normalised over.
    pub(crate) n: usize,
    pub(crate) eps: f32,
    /// Whether the mean is taken out (LayerNorm) or not (RMSNorm).
    pub(crate) centered: bool,
}

/// A matrix `[N, K]`, packed as docs/format.md says, with its per-channel vectors `[pad16(N)]`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Linear<'a> {
    pub(crate) k: usize,
    pub(crate) weight: Weight<'a>,
    pub(crate) bias: &'a [F32x16],
    /// The channels of the stream that it has rows for; `None` if for all.
    pub(crate) kept: Option<&'a [[u8; 2]]>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Weight<'a> {
    Int8 { codes: &'a [I8x16x4], scale: &'a [F32x16], sums: &'a [I32x16] },
    F16 { values: &'a [F16x16], scale: &'a [F32x16] },
    F32 { values: &'a [F32x16] },
}

impl Default for Weight<'_> {
    fn default() -> Self {
        Self::F32 { values: &[] }
    }
}

/// A depthwise convolution.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Depthwise<'a> {
    /// Edge of the kernel.
    pub(crate) kernel: usize,
    /// `[kernel * kernel, pad16(n)]`.
    pub(crate) weight: &'a [F32x16],
    /// `[pad16(n)]`.
    pub(crate) bias: &'a [F32x16],
}

/// A matrix over the T tokens, row by row, and the diagonals around it:
/// `factor_c (W x)[t][c] + offset_c row_sum_t + bias_factor_c bias_t`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mixer<'a> {
    pub(crate) weight: MixerWeight<'a>,
    /// `[pad16(T)]`.
    pub(crate) bias: &'a [F32x16],
    /// `[pad16(T)]`: the sums of W's rows.
    pub(crate) row_sum: &'a [F32x16],
    /// `[pad16(dim)]`.
    pub(crate) factor: &'a [F32x16],
    /// `[pad16(dim)]`.
    pub(crate) offset: &'a [F32x16],
    /// `[pad16(dim)]`.
    pub(crate) bias_factor: &'a [F32x16],
}

/// Rows `[T, pad16(T)]`, with their scales and sums.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MixerWeight<'a> {
    /// Codes as signed bytes.
    Int8 {
        codes: &'a [U8x16],
        scale: &'a [F32x16],
        sums: &'a [I32x16],
    },
    F16 {
        values: &'a [F16x16],
        scale: &'a [F32x16],
    },
    F32 {
        values: &'a [F32x16],
    },
}

impl Default for MixerWeight<'_> {
    fn default() -> Self {
        Self::F32 { values: &[] }
    }
}

/// The file has no more bytes, though it was checked. Smaller than [`Error`]: it is passed on at every tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Missing;

impl From<Missing> for Error {
    fn from(_: Missing) -> Self {
        Self::Truncated
    }
}

/// Goes through the tensor data of a file in its order, which `Model::parse` has checked, from an offset on.
/// What is called most is out of line: bytes count on bare metal.
pub(crate) struct Cut<'a> {
    config: &'a Config,
    precision: Precision,
    kept: Kept<'a>,
    data: &'a [u8],
    at: usize,
}

impl<'a> Cut<'a> {
    pub(crate) fn new(config: &'a Config, kept: Kept<'a>, data: &'a [u8], at: usize) -> Self {
        Self { config, precision: config.precision, kept, data, at }
    }

    /// The next `count` chunks.
    fn chunks<T: Plain>(&mut self, count: usize) -> Result<&'a [T], Missing> {
        bytes::cast(self.bytes(count.saturating_mul(size_of::<T>()))?).ok_or(Missing)
    }

    #[inline(never)]
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], Missing> {
        let start = self.at;
        let end = start.checked_add(len).ok_or(Missing)?;
        self.at = end.checked_next_multiple_of(ALIGNMENT).ok_or(Missing)?;
        self.data.get(start..end).ok_or(Missing)
    }

    #[inline(never)]
    fn floats(&mut self, rows: usize, n: usize) -> Result<&'a [F32x16], Missing> {
        self.chunks(rows * (pad16(n) / 16))
    }

    #[inline(never)]
    fn matrix(&mut self, n: usize, k: usize) -> Result<Linear<'a>, Missing> {
        let blocks = pad16(n) / 16;
        let weight = match self.precision {
            Precision::Int8 => Weight::Int8 {
                codes: self.chunks(blocks * (k8(k) / 4))?,
                scale: self.floats(1, n)?,
                sums: self.chunks(blocks)?,
            },
            Precision::F16 => Weight::F16 { values: self.chunks(blocks * k)?, scale: self.floats(1, n)? },
            Precision::F32 => Weight::F32 { values: self.chunks(blocks * k)? },
        };
        Ok(Linear { k, weight, bias: self.floats(1, n)?, kept: None })
    }
}

impl<'a> Walk for Cut<'a> {
    type Storage = InFile<'a>;
    type Error = Missing;

    fn enter(&mut self, _: Scope) {}

    fn stored_as(&mut self, precision: Precision) {
        self.precision = precision;
    }

    fn vector(&mut self, _: &str, n: usize, part: &mut &'a [F32x16]) -> Result<(), Missing> {
        *part = self.floats(1, n)?;
        Ok(())
    }

    fn table(&mut self, _: &str, rows: usize, n: usize, part: &mut &'a [F32x16]) -> Result<(), Missing> {
        *part = self.floats(rows, n)?;
        Ok(())
    }

    #[inline(never)]
    fn norm(&mut self, _: &str, n: usize, part: &mut Norm<'a>) -> Result<(), Missing> {
        let (eps, centered) = (self.config.norm_eps, self.config.centered_norms());
        *part = Norm { weight: self.floats(1, n)?, bias: self.floats(1, n)?, n, eps, centered };
        Ok(())
    }

    fn linear(&mut self, _: &str, outputs: Axis, inputs: Axis, part: &mut Linear<'a>) -> Result<(), Missing> {
        *part = self.matrix(outputs.stored(), inputs.stored())?;
        Ok(())
    }

    #[inline(never)]
    fn branch_end(
        &mut self,
        _: &str,
        branch: Branch,
        dim: usize,
        inputs: Axis,
        part: &mut Linear<'a>,
        _: Option<&&'a [F32x16]>,
    ) -> Result<(), Missing> {
        let kept = self.kept.mask(self.config, branch.block, branch.branch);
        *part = Linear { kept, ..self.matrix(kept.map_or(dim, channels), inputs.stored())? };
        Ok(())
    }

    fn depthwise(&mut self, _: &str, n: usize, kernel: usize, part: &mut Depthwise<'a>) -> Result<(), Missing> {
        *part = Depthwise { kernel, weight: self.floats(kernel * kernel, n)?, bias: self.floats(1, n)? };
        Ok(())
    }

    fn mixer(&mut self, _: &str, tokens: usize, dim: usize, part: &mut Mixer<'a>) -> Result<(), Missing> {
        let blocks = pad16(tokens) / 16;
        let weight = match self.precision {
            Precision::Int8 => MixerWeight::Int8 {
                codes: self.chunks(tokens * blocks)?,
                scale: self.floats(1, tokens)?,
                sums: self.chunks(blocks)?,
            },
            Precision::F16 => {
                MixerWeight::F16 { values: self.chunks(tokens * blocks)?, scale: self.floats(1, tokens)? }
            }
            Precision::F32 => MixerWeight::F32 { values: self.chunks(tokens * blocks)? },
        };
        *part = Mixer {
            weight,
            bias: self.floats(1, tokens)?,
            row_sum: self.floats(1, tokens)?,
            factor: self.floats(1, dim)?,
            offset: self.floats(1, dim)?,
            bias_factor: self.floats(1, dim)?,
        };
        Ok(())
    }
}
