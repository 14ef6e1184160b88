//! Why a function failed: a status for the program, and one line for people in memory of the caller's.

use core::ffi::c_char;
use core::fmt::{self, Write};

use crate::pointers::check;
use crate::status::{vitlet_status, vitlet_status as Status};

/// Bytes of an error's text, the NUL included.
pub const VITLET_ERROR_TEXT_BYTES: usize = 252;

/// Why a function failed. It may be on the stack and needs no values before the call; its size stays the same in all
/// versions.
#[repr(C)]
pub struct vitlet_error {
    /// The status that the function returns.
    pub status: vitlet_status,
    /// One line in UTF-8 that ends with a NUL and says what is wrong, and why. Empty after VITLET_STATUS_OK.
    pub text: [c_char; VITLET_ERROR_TEXT_BYTES],
}

/// What went wrong within this library.
pub(crate) enum Failure {
    /// The status says it all.
    Status(Status),
    /// A status, and words for this case.
    Because(Status, &'static str),
    /// A status, and words with the numbers that are wrong: one after each part of the text but the last.
    Numbers(Status, &'static [&'static str], [u64; NUMBERS]),
    Engine(engine::Error),
    /// Bytes for a handle.
    Memory {
        need: usize,
        have: usize,
    },
    /// The operating system's: what could not be done, and the system's number for it, if there is one.
    #[cfg(feature = "std")]
    System(Status, &'static str, Option<i32>),
}

/// The numbers of the longest text, a region that is not inside the picture.
const NUMBERS: usize = 6;

impl Failure {
    /// One number after each part of `text` but the last; [`NUMBERS`] at most.
    #[cold]
    #[inline(never)]
    pub(crate) fn numbers(status: Status, text: &'static [&'static str], numbers: &[u64]) -> Self {
        let mut all = [0; NUMBERS];
        all.iter_mut().zip(numbers).for_each(|(place, number)| *place = *number);
        Self::Numbers(status, text, all)
    }

    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Status(status) | Self::Because(status, _) | Self::Numbers(status, ..) => *status,
            Self::Engine(error) => Status::from(error),
            Self::Memory { .. } => Status::Memory,
            #[cfg(feature = "std")]
            Self::System(status, ..) => *status,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => f.write_str(status.words()),
            Self::Because(_, why) => f.write_str(why),
            Self::Numbers(_, text, numbers) => {
                let (last, parts) = text.split_last().unwrap_or((&"", &[]));
                parts.iter().zip(numbers).try_for_each(|(part, number)| write!(f, "{part}{number}"))?;
                f.write_str(last)
            }
            Self::Engine(error) => error.fmt(f),
            Self::Memory { need, have } => write!(f, "memory: {need} bytes needed, {have} given"),
            #[cfg(feature = "std")]
            Self::System(_, what, None) => f.write_str(what),
            #[cfg(feature = "std")]
            Self::System(_, what, Some(number)) => write!(f, "{what} (the system's error {number})"),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Self {
        Self::Engine(error)
    }
}

/// The status of what `work` does; its words go to `error`, unless that is null.
///
/// # Safety
/// Unless null, `error` leads to memory that is nobody else's.
pub(crate) unsafe fn reported(error: *mut vitlet_error, work: impl FnOnce() -> Result<(), Failure>) -> Status {
    if !error.is_null() && check(error).is_err() {
        return Status::Misaligned;
    }
    // SAFETY: null, or aligned and the caller's promise.
    unsafe { finish(error, work()) }
}

/// # Safety
/// Unless null, `error` is aligned and leads to memory that is nobody else's.
#[inline(never)]
unsafe fn finish(error: *mut vitlet_error, done: Result<(), Failure>) -> Status {
    let status = done.as_ref().err().map_or(Status::Ok, Failure::status);
    if !error.is_null() {
        let mut text = Text { bytes: [0; VITLET_ERROR_TEXT_BYTES], len: 0 };
        if let Err(failure) = done {
            // What does not fit is cut.
            let _ = write!(text, "{failure}");
        }
        // SAFETY: the caller's promise.
        unsafe { error.write(vitlet_error { status, text: text.bytes }) };
    }
    status
}

/// Text in an array: cut at a character, with a NUL at its end.
struct Text {
    bytes: [c_char; VITLET_ERROR_TEXT_BYTES],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = VITLET_ERROR_TEXT_BYTES - 1 - self.len;
        let cut = text.floor_char_boundary(room);
        for (place, byte) in self.bytes[self.len..].iter_mut().zip(&text.as_bytes()[..cut]) {
            *place = *byte as c_char;
        }
        self.len += cut;
        if cut == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
