//! Structs that grow: each begins with its size in the caller's version of the header, so that a program runs with a
//! library that is older or newer.

use core::mem::MaybeUninit;
use core::slice;

use crate::error::Failure;
use crate::pointers::check;
use crate::status::vitlet_status as Status;

/// A struct that may get more fields at its end in later versions.
///
/// # Safety
/// `repr(C)`; the first field is the struct's size, a `usize`; every value of its bytes is valid, and so are zeros. No
/// padding follows the last field: a new one would lie in it, where older programs have any value.
pub(crate) unsafe trait Versioned: Sized {
    /// Size in the first version, which a size of 0 stands for.
    const FIRST: usize = size_of::<Self>();
}

/// More than the size of any version: a larger size was never initialized.
const MOST: usize = 4096;

/// The bytes that a caller's struct has, as its first field tells.
fn size<T: Versioned>(told: usize) -> Result<usize, Failure> {
    match told {
        0 => Ok(T::FIRST),
        size if (T::FIRST..=MOST).contains(&size) => Ok(size),
        _ => {
            let text = &["size: ", " is not that of any version of the struct (is it initialized?)"];
            Err(Failure::numbers(Status::Value, text, &[told as u64]))
        }
    }
}

/// A struct that the caller has filled. Fields that its version lacks are zero; fields that this library does not know
/// must be.
///
/// # Safety
/// Unless null or misaligned, the pointer leads to a struct as large as it says.
pub(crate) unsafe fn read<T: Versioned>(from: *const T) -> Result<T, Failure> {
    check(from)?;
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: aligned, and as large as it says; `value` has room for the copy, and any bytes are a value.
    unsafe {
        let size = size::<T>(from.cast::<usize>().read())?;
        let known = size.min(size_of::<T>());
        value.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(from.cast(), known);
        if slice::from_raw_parts(from.cast::<u8>().add(known), size - known).iter().any(|&byte| byte != 0) {
            return Err(Failure::Because(
                Status::Value,
                "a field is set that this version of the library does not know",
            ));
        }
        Ok(value.assume_init())
    }
}

/// Fills a struct of the caller's after its size: as much as it has room for. Fields that this library does not know
/// become zero.
///
/// # Safety
/// Unless null or misaligned, the pointer leads to a struct as large as it says, that is nobody else's.
pub(crate) unsafe fn fill<T: Versioned>(to: *mut T, value: &T) -> Result<(), Failure> {
    check(to)?;
    // SAFETY: aligned, and as large as it says.
    unsafe {
        let told = to.cast::<usize>().read();
        let size = size::<T>(told)?;
        let known = size.min(size_of::<T>());
        to.cast::<u8>().copy_from_nonoverlapping((&raw const *value).cast(), known);
        to.cast::<u8>().add(known).write_bytes(0, size - known);
        to.cast::<usize>().write(told);
    }
    Ok(())
}

/// An array's elements, each as large as the caller says.
pub(crate) struct Elements<T> {
    start: *mut T,
    len: usize,
    element: usize,
}

impl<T> Elements<T> {
    /// # Safety
    /// Unless null or misaligned, `start` leads to `len` elements of `element` bytes that are nobody else's.
    pub(crate) unsafe fn new(start: *mut T, element: usize, len: usize) -> Result<Self, Failure> {
        check(start)?;
        if !(size_of::<T>()..=MOST).contains(&element) || !element.is_multiple_of(align_of::<T>()) {
            return Err(Failure::Because(Status::Value, "the size of an array's elements is not that of any version"));
        }
        if len.checked_mul(element).is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(Status::Length.into());
        }
        Ok(Self { start, len, element })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Writes element `i`, below `len()`. Fields that this library does not know become zero.
    pub(crate) fn set(&mut self, i: usize, value: T) {
        assert!(i < self.len);
        // SAFETY: within the array, whose elements have that size, and aligned as their size is.
        unsafe {
            let place = self.start.byte_add(i * self.element);
            place.write(value);
            place.add(1).cast::<u8>().write_bytes(0, self.element - size_of::<T>());
        }
    }
}
