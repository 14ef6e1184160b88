//! Pointers from C, checked as far as a pointer can be.

use core::ffi::{CStr, c_char, c_void};
use core::slice;

use crate::error::Failure;
use crate::status::vitlet_status as Status;

/// The boundary, in bytes, on which models and the memory for handles start.
pub const VITLET_ALIGNMENT: usize = 64;

/// Not null, and aligned for `T`.
pub(crate) fn check<T>(pointer: *const T) -> Result<(), Status> {
    match pointer {
        p if p.is_null() => Err(Status::Null),
        p if !p.is_aligned() => Err(Status::Misaligned),
        _ => Ok(()),
    }
}

/// # Safety
/// Unless null or misaligned, the pointer leads to a `T` that is valid, and not written, for `'a`.
pub(crate) unsafe fn shared<'a, T>(pointer: *const T) -> Result<&'a T, Status> {
    check(pointer)?;
    // SAFETY: not null and aligned; the rest is the caller's promise.
    Ok(unsafe { &*pointer })
}

/// # Safety
/// Unless null or misaligned, the pointer leads to a `T` that is valid, and nobody else's, for `'a`.
pub(crate) unsafe fn exclusive<'a, T>(pointer: *mut T) -> Result<&'a mut T, Status> {
    check(pointer)?;
    // SAFETY: not null and aligned; the rest is the caller's promise.
    Ok(unsafe { &mut *pointer })
}

/// # Safety
/// Unless null or misaligned, the pointer leads to `len` elements that are valid, and not written, for `'a`.
pub(crate) unsafe fn elements<'a, T>(pointer: *const T, len: usize) -> Result<&'a [T], Status> {
    check(pointer)?;
    if len.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(Status::Length);
    }
    // SAFETY: not null, aligned, and a size that slices may have; the rest is the caller's promise.
    Ok(unsafe { slice::from_raw_parts(pointer, len) })
}

/// # Safety
/// Unless null or misaligned, the pointer leads to `len` elements that are valid, and nobody else's, for `'a`.
pub(crate) unsafe fn elements_mut<'a, T>(pointer: *mut T, len: usize) -> Result<&'a mut [T], Status> {
    check(pointer)?;
    if len.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(Status::Length);
    }
    // SAFETY: not null, aligned, and a size that slices may have; the rest is the caller's promise.
    Ok(unsafe { slice::from_raw_parts_mut(pointer, len) })
}

/// Stores a result where the caller wants it.
///
/// # Safety
/// Unless null or misaligned, a `T` can be written there.
pub(crate) unsafe fn store<T>(pointer: *mut T, value: T) -> Result<(), Status> {
    check(pointer)?;
    // SAFETY: not null and aligned; the rest is the caller's promise.
    unsafe { pointer.write(value) };
    Ok(())
}

/// The caller's memory for a handle, as zeroed bytes: it has the alignment that handles need, and `need` bytes at
/// least.
///
/// # Safety
/// Unless null, `memory` leads to `have` bytes that are nobody else's for `'a`.
pub(crate) unsafe fn memory<'a>(memory: *mut c_void, have: usize, need: usize) -> Result<&'a mut [u8], Failure> {
    if memory.is_null() {
        return Err(Status::Null.into());
    }
    if !memory.addr().is_multiple_of(VITLET_ALIGNMENT) {
        return Err(Failure::Because(Status::Misaligned, "the memory does not start at a multiple of 64 bytes"));
    }
    // No slice is longer than isize::MAX.
    if have < need || need > isize::MAX as usize {
        return Err(Failure::Memory { need, have });
    }
    // SAFETY: `need` of the caller's bytes. Zeroed first, since memory from malloc has no values yet.
    unsafe {
        memory.cast::<u8>().write_bytes(0, need);
        Ok(slice::from_raw_parts_mut(memory.cast(), need))
    }
}

/// A string of C; None if it is null or not UTF-8.
///
/// # Safety
/// Unless null, the pointer leads to characters that end with a NUL, and are not written, for `'a`.
pub(crate) unsafe fn text<'a>(pointer: *const c_char) -> Option<&'a str> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: not null; the rest is the caller's promise.
    unsafe { CStr::from_ptr(pointer) }.to_str().ok()
}

/// Copies `text` as snprintf does: cut to the buffer (at a character), always with a NUL, and returns the bytes of all
/// of it.
///
/// # Safety
/// Unless null, `buffer` leads to `buffer_bytes` bytes that are nobody else's.
pub(crate) unsafe fn copy_text(text: &str, buffer: *mut c_char, buffer_bytes: usize) -> usize {
    if !buffer.is_null() && buffer_bytes > 0 {
        let cut = text.floor_char_boundary(buffer_bytes - 1);
        // SAFETY: `cut` is less than `buffer_bytes`, so that the text and the NUL lie within the buffer.
        unsafe {
            buffer.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), cut);
            buffer.add(cut).write(0);
        }
    }
    text.len()
}
