//! The layout of a model file: what a tensor of it is, and how matrices are packed. docs/format.md says the same in
//! words. Which tensors a network has is said by its [parts](crate::parts).

mod kept;
pub mod keys;

pub use kept::Kept;

pub use crate::error::TensorName;
pub use crate::lanes::{ALIGNMENT, FORMAT_VERSION};

/// Element types of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// Signed byte.
    I8,
    /// Signed 32-bit integer.
    I32,
}

impl DType {
    /// GGML's number of this type.
    pub const fn ggml(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::I8 => 24,
            Self::I32 => 26,
        }
    }

    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F16 => 2,
            Self::I8 => 1,
        }
    }
}

/// One tensor of the canonical list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorSpec {
    /// Its name.
    pub name: TensorName,
    /// Its element type.
    pub dtype: DType,
    dims: [usize; 4],
    rank: u8,
}

impl TensorSpec {
    /// A tensor of at most four dimensions, innermost first.
    pub(crate) fn new(name: TensorName, dtype: DType, dims: &[usize]) -> Self {
        let mut all = [1; 4];
        all[..dims.len()].copy_from_slice(dims);
        Self { name, dtype, dims: all, rank: dims.len() as u8 }
    }

    /// GGUF dimensions, innermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..usize::from(self.rank)]
    }

    /// Bytes without padding; `usize::MAX`, which no file has, where this machine cannot address as many.
    pub fn bytes(&self) -> usize {
        self.dims().iter().fold(self.dtype.bytes(), |bytes, dim| bytes.saturating_mul(*dim))
    }

    /// Bytes up to the next tensor, as [`bytes`](Self::bytes).
    pub fn padded_bytes(&self) -> usize {
        self.bytes().checked_next_multiple_of(ALIGNMENT).unwrap_or(usize::MAX)
    }
}

/// K rounded up as int8 weights store it.
pub const fn k8(k: usize) -> usize {
    k.div_ceil(8) * 8
}

/// Where W[n, k] stands in a packed int8 matrix with K inputs: `[N/16][K8/4][16][4]`.
pub const fn index_i8(n: usize, k: usize, k_len: usize) -> usize {
    ((n / 16) * (k8(k_len) / 4) + k / 4) * 64 + (n % 16) * 4 + k % 4
}

/// Where W[n, k] stands in a packed f16 or f32 matrix with K inputs: `[N/16][K][16]`.
pub const fn index_float(n: usize, k: usize, k_len: usize) -> usize {
    ((n / 16) * k_len + k) * 16 + n % 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_cannot_be_addressed_saturate() {
        let spec = |dims: [usize; 4]| TensorSpec::new(TensorName::EMPTY, DType::F32, &dims);
        let half = 1 << (usize::BITS / 2);
        assert_eq!((spec([4, 16, 3, 5]).bytes(), spec([4, 16, 3, 5]).padded_bytes()), (3840, 3840));
        assert_eq!((spec([3, 1, 1, 1]).bytes(), spec([3, 1, 1, 1]).padded_bytes()), (12, 64));
        // 2^32 or 2^64: a product that wraps is 0.
        assert_eq!(spec([half, half, 1, 1]).bytes(), usize::MAX);
        assert_eq!(spec([half, half / 4, 1, 1]).padded_bytes(), usize::MAX);
    }
}
