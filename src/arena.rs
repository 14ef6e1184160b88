//! The caller's scratch memory, handed out front to back in 64-byte steps.

use crate::bytes::{Plain, cast_mut};
use crate::layout::ALIGNMENT;

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

    /// The next `len` elements, of unspecified value; empty once the memory is used up (`Session::new` has checked that it is not).
    pub(crate) fn take<T: Plain>(&mut self, len: usize) -> &'a mut [T] {
        let bytes = len * size_of::<T>();
        let padded = bytes.next_multiple_of(ALIGNMENT);
        self.used += padded;
        let Some((taken, rest)) = self.rest.take().and_then(|memory| memory.split_at_mut_checked(padded)) else {
            return &mut [];
        };
        self.rest = Some(rest);
        cast_mut(&mut taken[..bytes]).unwrap_or(&mut [])
    }

    /// Bytes taken so far.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// What is left.
    pub(crate) fn into_rest(self) -> &'a mut [u8] {
        self.rest.unwrap_or(&mut [])
    }
}
