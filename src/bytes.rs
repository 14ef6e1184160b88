//! Bytes as slices of the aligned chunk types, and back: the only place where memory changes its type.
//!
//! Every chunk type is an array of integers or floats without padding, for which all bit patterns are values.
#![allow(unsafe_code)]

use core::mem::{align_of, size_of};
use core::slice;

use crate::lanes::{F16x16, F32x16, I8x16x4, I32x16, U8x16};

#[cfg(target_endian = "big")]
compile_error!("model files are little-endian and are read in place");

mod sealed {
    /// # Safety
    /// No padding, no pointers, every bit pattern is a value.
    #[allow(unsafe_code)]
    pub unsafe trait Plain: Copy + Send + Sync + 'static {}
}
pub(crate) use sealed::Plain;

// SAFETY: arrays of f32 (bits of any kind), i32, u16, i8 and u8, repr(C), whose size is a multiple of their alignment.
unsafe impl Plain for F32x16 {}
// SAFETY: as above.
unsafe impl Plain for I32x16 {}
// SAFETY: as above.
unsafe impl Plain for F16x16 {}
// SAFETY: as above.
unsafe impl Plain for I8x16x4 {}
// SAFETY: as above.
unsafe impl Plain for U8x16 {}
// SAFETY: plain numbers.
unsafe impl Plain for f32 {}
// SAFETY: plain numbers.
unsafe impl Plain for i32 {}
// SAFETY: plain numbers.
unsafe impl Plain for u8 {}

/// `bytes` as a slice of `T`; `None` if the address or the length does not fit.
pub(crate) fn cast<T: Plain>(bytes: &[u8]) -> Option<&[T]> {
    if !bytes.as_ptr().addr().is_multiple_of(align_of::<T>()) || !bytes.len().is_multiple_of(size_of::<T>()) {
        return None;
    }
    // SAFETY: address and length fit T, every bit pattern is a T, and the lifetime and sharing are those of `bytes`.
    Some(unsafe { slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<T>()) })
}

/// Like [`cast`], exclusive.
pub(crate) fn cast_mut<T: Plain>(bytes: &mut [u8]) -> Option<&mut [T]> {
    if !bytes.as_ptr().addr().is_multiple_of(align_of::<T>()) || !bytes.len().is_multiple_of(size_of::<T>()) {
        return None;
    }
    // SAFETY: as in `cast`, and T has no padding, so whatever is written leaves initialised bytes behind.
    Some(unsafe { slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<T>()) })
}

/// Chunks as their sixteen-fold many floats.
pub(crate) fn floats(chunks: &[F32x16]) -> &[f32] {
    // SAFETY: F32x16 is sixteen f32 without padding, and more strictly aligned than f32.
    unsafe { slice::from_raw_parts(chunks.as_ptr().cast(), chunks.len() * 16) }
}

/// Like [`floats`], exclusive.
pub(crate) fn floats_mut(chunks: &mut [F32x16]) -> &mut [f32] {
    // SAFETY: as in `floats`.
    unsafe { slice::from_raw_parts_mut(chunks.as_mut_ptr().cast(), chunks.len() * 16) }
}

/// Chunks as their bytes.
#[cfg(feature = "alloc")]
pub(crate) fn bytes_of(chunks: &[F32x16]) -> &[u8] {
    // SAFETY: F32x16 has no padding, so all its bytes are initialised.
    unsafe { slice::from_raw_parts(chunks.as_ptr().cast(), size_of_val(chunks)) }
}

/// 64-byte aligned memory as the bytes that [`crate::Plan::open`] takes.
pub fn scratch_from(chunks: &mut [F32x16]) -> &mut [u8] {
    // SAFETY: F32x16 has no padding, so all its bytes are initialised, and any bytes are an F32x16.
    unsafe { slice::from_raw_parts_mut(chunks.as_mut_ptr().cast(), size_of_val(chunks)) }
}
