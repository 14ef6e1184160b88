//! A tensor in a file: where its elements stand and what they are. Only [`Tensor::read`] touches them.
//!
//! `data` is a range of a mapped file, shared by reference: the operating system reads its pages when they are looked
//! at, and takes them back as it likes. So a checkpoint costs memory only for the tensors that are in use.

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
            other => Err(Error::tensor(
                &self.name,
                format!("{other:?} values are not supported; f64, f32, f16 and bf16 are"),
            )),
        }
    }

    /// The elements as f32, row by row.
    ///
    /// # Errors
    /// Values that are not finite in f32, and as [`Self::check_type`].
    pub(crate) fn read(&self) -> Result<Vec<f32>, Error> {
        let mut values = Vec::with_capacity(self.shape.iter().product());
        self.append_to(&mut values)?;
        Ok(values)
    }

    /// These rows of a matrix, one after another.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn read_rows(&self, rows: &[usize]) -> Result<Vec<f32>, Error> {
        let mut values = Vec::with_capacity(rows.len() * self.shape[1]);
        for run in rows.chunk_by(|a, b| a + 1 == *b) {
            self.rows(run[0], run.len()).append_to(&mut values)?;
        }
        Ok(values)
    }

    /// The matrix with rows and columns exchanged; the elements stay where they are.
    pub(crate) fn transposed(&self) -> Self {
        let [down, across] = self.matrix_strides();
        let [n, k] = [self.shape[0], self.shape[1]];
        Self { shape: vec![k, n], strides: Some(vec![across, down]), ..self.clone() }
    }

    /// `count` rows of a matrix, from `first` on: at least one, of at least one element.
    fn rows(&self, first: usize, count: usize) -> Self {
        let ([down, across], k) = (self.matrix_strides(), self.shape[1]);
        let (start, len) = (first * down, (count - 1) * down + (k - 1) * across + 1);
        let size = self.dtype.bitsize() / 8;
        Self { shape: vec![count, k], data: self.data.slice(start * size..(start + len) * size), ..self.clone() }
    }

    /// Steps from row to row and from column to column.
    fn matrix_strides(&self) -> [usize; 2] {
        self.strides.as_ref().map_or([self.shape[1], 1], |strides| [strides[0], strides[1]])
    }

    fn append_to(&self, values: &mut Vec<f32>) -> Result<(), Error> {
        self.check_type()?;
        let first = values.len();
        match self.dtype {
            Dtype::F64 => self.convert(values, |b| f64::from_le_bytes(b) as f32),
            Dtype::F16 => self.convert(values, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => self.convert(values, |b| bf16::from_le_bytes(b).to_f32()),
            _ => self.convert(values, f32::from_le_bytes),
        }
        match values[first..].iter().position(|x| !x.is_finite()) {
            Some(at) => Err(Error::tensor(&self.name, self.not_finite(at, values[first + at]))),
            None => Ok(()),
        }
    }

    fn convert<const N: usize>(&self, values: &mut Vec<f32>, convert: impl Fn([u8; N]) -> f32) {
        let stored = self.data.as_chunks::<N>().0;
        match &self.strides {
            Some(strides) => values.extend(pickle::places(&self.shape, strides).map(|at| convert(stored[at]))),
            None => values.extend(stored.iter().map(|b| convert(*b))),
        }
    }

    /// What is wrong with element `at`, which is `value` in f32.
    fn not_finite(&self, at: usize, value: f32) -> String {
        let place = self.strides.as_ref().and_then(|strides| pickle::places(&self.shape, strides).nth(at));
        let double = self.data.as_chunks::<8>().0.get(place.unwrap_or(at)).map(|b| f64::from_le_bytes(*b));
        match double.filter(|x| self.dtype == Dtype::F64 && x.is_finite()) {
            Some(x) => format!("value {x:e} at element {at} is beyond what f32 holds (3.4e38)"),
            None => format!("value {value} at element {at}; the weights are broken"),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_of_a_matrix() {
        let matrix = |last: f64| {
            let data = [0.0, 1.0, 2.0, 3.0, 4.0, last].iter().flat_map(|x| x.to_le_bytes()).collect();
            Tensor { name: "w".to_owned(), dtype: Dtype::F64, shape: vec![2, 3], strides: None, data }
        };
        let whole = matrix(5.0);
        assert_eq!(whole.read_rows(&[1, 0]), Ok(vec![3.0, 4.0, 5.0, 0.0, 1.0, 2.0]));
        assert_eq!(whole.transposed().read(), Ok(vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0]));
        assert_eq!(whole.transposed().read_rows(&[1, 2, 2, 0]), Ok(vec![1.0, 4.0, 2.0, 5.0, 2.0, 5.0, 0.0, 3.0]));
        assert_eq!(whole.transposed().transposed().read_rows(&[0, 1]), whole.read());
        // The last of a row, where that row was cut out by columns.
        let why = matrix(1e300).transposed().read_rows(&[2]).expect_err("too large").why;
        assert_eq!(why, "value 1e300 at element 1 is beyond what f32 holds (3.4e38)");
    }
}
