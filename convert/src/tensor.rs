//! A tensor in a file: where its elements stand and what they are. Only [`Tensor::read`] touches them.
//!
//! `data` is a range of a mapped file, shared by reference: the operating system reads its pages when they are looked
//! at, and takes them back as it likes. So a checkpoint costs no memory but for the tensors that are being worked on.

use std::borrow::Cow;
use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::Dtype;

use crate::error::Error;
use crate::pickle;

/// Elements of one type, under the name that errors say.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Of PyTorch's files: steps between elements, where rows do not follow each other without gaps.
    pub(crate) strides: Option<Vec<usize>>,
    /// From the first element to the last, little endian; as many bytes as the shape, the strides and the type need.
    pub(crate) data: Bytes,
}

impl Tensor {
    /// Whether [`Self::read`] knows the type of the elements.
    ///
    /// # Errors
    /// A type that it does not know.
    pub(crate) fn check_type(&self) -> Result<(), Error> {
        match self.dtype {
            Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok(()),
            other => Err(Error::tensor(&self.name, format!("{other:?} values; f64, f32, f16 and bf16 are read"))),
        }
    }

    /// The elements as f32, row by row.
    ///
    /// # Errors
    /// Values that are not finite in f32, and as [`Self::check_type`].
    pub(crate) fn read(&self) -> Result<Vec<f32>, Error> {
        self.check_type()?;
        let elements = self.elements();
        let values = match self.dtype {
            Dtype::F64 => to_f32(&elements, |b| f64::from_le_bytes(b) as f32),
            Dtype::F16 => to_f32(&elements, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => to_f32(&elements, |b| bf16::from_le_bytes(b).to_f32()),
            _ => to_f32(&elements, f32::from_le_bytes),
        };
        match values.iter().position(|x| !x.is_finite()) {
            Some(at) => Err(Error::tensor(&self.name, not_finite(self.dtype, &elements, at, values[at]))),
            None => Ok(values),
        }
    }

    /// The bytes of the elements, row by row.
    fn elements(&self) -> Cow<'_, [u8]> {
        match &self.strides {
            Some(strides) => Cow::Owned(pickle::gather(&self.data, &self.shape, strides, self.dtype.bitsize() / 8)),
            None => Cow::Borrowed(&self.data),
        }
    }
}

/// What is wrong with element `at` of a tensor, which is `value` in f32.
fn not_finite(dtype: Dtype, bytes: &[u8], at: usize, value: f32) -> String {
    let double = bytes.as_chunks::<8>().0.get(at).map(|b| f64::from_le_bytes(*b));
    match double.filter(|x| dtype == Dtype::F64 && x.is_finite()) {
        Some(x) => format!("value {x:e} at element {at} is beyond what f32 holds (3.4e38)"),
        None => format!("value {value} at element {at}; the weights are broken"),
    }
}

fn to_f32<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|b| convert(*b)).collect()
}

/// Maps a file into memory. The map ends with the last range of it.
///
/// # Errors
/// What the operating system says, and a git-LFS pointer.
pub(crate) fn map(path: &Path) -> Result<Bytes, Error> {
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    // SAFETY: the map is only read; as with every memory-mapped file, whoever truncates it meanwhile ends this process
    // with a bus error, and whoever writes to it meanwhile gets other weights: no reference outlives the conversion.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::file(path, e))?;
    refuse_lfs_pointer(path, &map)?;
    Ok(Bytes::from_owner(map))
}

/// A clone without `git lfs` leaves a small text file in the place of each large one.
pub(crate) fn refuse_lfs_pointer(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(Error::file(
            path,
            "a git-LFS pointer instead of the file itself; run `git lfs pull` in its repository",
        ));
    }
    Ok(())
}
