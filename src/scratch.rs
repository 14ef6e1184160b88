//! Memory at a 64-byte boundary: for sessions, and for model files that are not mapped.

use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

use crate::bytes::{bytes_of, scratch_from};
use crate::error::Error;
use crate::lanes::F32x16;

/// Bytes at a 64-byte boundary.
#[derive(Debug)]
pub struct Scratch {
    chunks: Vec<F32x16>,
    len: usize,
}

impl Scratch {
    /// So many zeros.
    ///
    /// # Errors
    /// `Memory`, if the system has not as much.
    pub fn new(bytes: usize) -> Result<Self, Error> {
        let (count, mut chunks) = (bytes.div_ceil(size_of::<F32x16>()), Vec::new());
        chunks.try_reserve_exact(count).map_err(|_| Error::Memory(bytes))?;
        chunks.resize(count, F32x16([0.0; 16]));
        Ok(Self { chunks, len: bytes })
    }

    /// A copy of `bytes`.
    ///
    /// # Errors
    /// As [`Scratch::new`].
    pub fn copied(bytes: &[u8]) -> Result<Self, Error> {
        let mut copy = Self::new(bytes.len())?;
        copy.copy_from_slice(bytes);
        Ok(copy)
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &bytes_of(&self.chunks)[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut scratch_from(&mut self.chunks)[..self.len]
    }
}

impl AsRef<[u8]> for Scratch {
    fn as_ref(&self) -> &[u8] {
        self
    }
}
