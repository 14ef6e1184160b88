//! The caller's scratch memory, handed out front to back in 64-byte steps.
//!
//! `Config::check` bounds lengths so that the elements of every buffer can be counted in 32 bits. Their bytes may be
//! more than a 32-bit machine can address: sizes saturate, and `Plan::new` refuses the run.

use crate::bytes::{Plain, cast_mut};
use crate::lanes::ALIGNMENT;

/// Memory to take slices from. Over nothing, it only counts, so one list of `take`s serves to size and to carve.
pub(crate) struct Arena<'a> {
    rest: Option<&'a mut [u8]>,
    used: usize,
}

impl<'a> Arena<'a> {
    /// Counts; every slice taken is empty.
    pub(crate) fn counting() -> Self {
        Self { rest: None, used: 0 }
    }

    /// Takes from `memory`, which starts on a 64-byte boundary.
    pub(crate) fn over(memory: &'a mut [u8]) -> Self {
        Self { rest: Some(memory), used: 0 }
    }

    /// The next `len` elements, of unspecified value; empty once the memory is used up (`Plan::open` has checked that
    /// it is not).
    pub(crate) fn take<T: Plain>(&mut self, len: usize) -> &'a mut [T] {
        cast_mut(self.take_bytes(len.saturating_mul(size_of::<T>()))).unwrap_or(&mut [])
    }

    /// Out of line: it is called for every buffer.
    #[inline(never)]
    fn take_bytes(&mut self, bytes: usize) -> &'a mut [u8] {
        let padded = bytes.checked_next_multiple_of(ALIGNMENT).unwrap_or(usize::MAX);
        self.used = self.used.saturating_add(padded);
        let Some((taken, rest)) = self.rest.take().and_then(|memory| memory.split_at_mut_checked(padded)) else {
            return &mut [];
        };
        self.rest = Some(rest);
        &mut taken[..bytes]
    }

    /// Bytes taken so far; `usize::MAX` where this machine cannot address as many.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// What is left.
    pub(crate) fn into_rest(self) -> &'a mut [u8] {
        self.rest.unwrap_or(&mut [])
    }
}

/// Bytes that `carve` takes.
pub(crate) fn counted<'a, T>(carve: impl FnOnce(&mut Arena<'a>) -> T) -> usize {
    let mut arena = Arena::counting();
    let _ = carve(&mut arena);
    arena.used()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::F32x16;

    #[test]
    fn sizes_that_cannot_be_addressed_saturate() {
        let mut arena = Arena::counting();
        let _ = arena.take::<u8>(1);
        assert_eq!(arena.used(), ALIGNMENT);
        // 2^32 or 2^64 bytes: a product that wraps is 0.
        let _ = arena.take::<F32x16>(1 << (usize::BITS - 6));
        assert_eq!(arena.used(), usize::MAX);
        let _ = arena.take::<u8>(usize::MAX);
        assert_eq!(arena.used(), usize::MAX);
    }
}
