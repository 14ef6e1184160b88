//! What functions return: one number for each thing that a caller can do something about.

use core::ffi::{CStr, c_char};

use engine::{Error, PictureError};

use crate::error::Failure;

/// The result of a function; vitlet_status_string() describes it in words.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum vitlet_status {
    /// Done.
    Ok = 0,
    /// A pointer is NULL, but must not be.
    Null,
    /// A pointer is not aligned. Model files and the memory of handles need VITLET_ALIGNMENT, everything else the
    /// alignment of its type in C.
    Misaligned,
    /// The memory is smaller than vitlet_model_bytes() or vitlet_session_bytes() says.
    Memory,
    /// A number is not in its enum, an index is out of range, the size of a struct belongs to no version, or a field is
    /// set that this library is too old for.
    Value,
    /// The file cannot be opened or mapped.
    File,
    /// Not a model file: no GGUF magic at the start.
    NotGguf,
    /// The model file ends too early.
    Truncated,
    /// A GGUF file that is not well-formed, or of another version.
    Malformed,
    /// A GGUF file of another architecture, or a model that this library is too old for.
    Unsupported,
    /// The model's metadata, hyperparameters or tensors contradict each other; `vitlet inspect FILE` says where.
    Model,
    /// The options ask for more than 256 threads, for a number of threads that the executor does not have, for a
    /// largest picture that is too large, or for more memory than a system can have.
    Options,
    /// This CPU has no kernels of that name.
    Kernels,
    /// An array has the wrong number of elements.
    Length,
    /// An edge of the picture is 0 or more than 2^24 pixels.
    PictureSize,
    /// A stride is shorter than a row, or longer than memory can be.
    PictureStride,
    /// The region is not inside the picture.
    PictureRegion,
    /// The picture is larger than the session's largest.
    PictureTooLarge,
    /// The executor returned before the work was done.
    Executor,
    /// The system could not start a thread, or refused its CPUs or its priority.
    Threads,
    /// The flag of vitlet_options.stop ended the run.
    Stopped,
}

use vitlet_status as Status;

const TEXTS: [(Status, &CStr); 21] = [
    (Status::Ok, c"done"),
    (Status::Null, c"a pointer is NULL"),
    (Status::Misaligned, c"a pointer is misaligned: models and memory start at a multiple of 64 bytes"),
    (Status::Memory, c"the memory is too small"),
    (Status::Value, c"a number is out of range"),
    (Status::File, c"the file cannot be opened"),
    (Status::NotGguf, c"not a model file: no GGUF magic at the start"),
    (Status::Truncated, c"truncated model file: it ends before its last tensor does"),
    (Status::Malformed, c"malformed GGUF"),
    (Status::Unsupported, c"not a model file that this version supports (`vitlet convert` writes one)"),
    (Status::Model, c"broken model: its metadata or tensors contradict each other (`vitlet inspect` says where)"),
    (
        Status::Options,
        c"options: at most 256 threads, as many as the executor has, and a picture of at most 2^24 pixels an edge",
    ),
    (Status::Kernels, c"this CPU has no kernels of that name"),
    (Status::Length, c"an array has the wrong number of elements"),
    (Status::PictureSize, c"picture: an edge is 0 or more than 2^24 pixels"),
    (Status::PictureStride, c"picture: a stride is shorter than a row, or too long"),
    (Status::PictureRegion, c"picture: the region is empty or not inside the picture"),
    (Status::PictureTooLarge, c"picture: larger than the session's largest"),
    (Status::Executor, c"executor: it returned before the work was done"),
    (Status::Threads, c"the system could not start a thread as it was asked for"),
    (Status::Stopped, c"stopped: the caller ended the run"),
];

impl Status {
    /// The status in words.
    pub(crate) fn words(self) -> &'static str {
        text(self as u32).and_then(|text| text.to_str().ok()).unwrap_or_default()
    }
}

fn text(status: u32) -> Option<&'static CStr> {
    Some(TEXTS.iter().find(|(known, _)| *known as u32 == status)?.1)
}

/// One line for people, for any number; vitlet_error has more to say.
#[unsafe(no_mangle)]
pub extern "C" fn vitlet_status_string(status: u32) -> *const c_char {
    text(status).unwrap_or(c"unknown status").as_ptr()
}

impl From<&Error> for Status {
    fn from(e: &Error) -> Self {
        match e {
            Error::NotGguf => Self::NotGguf,
            Error::Truncated => Self::Truncated,
            Error::Misaligned => Self::Misaligned,
            Error::GgufVersion(_) | Error::Malformed(_) => Self::Malformed,
            Error::Architecture | Error::FormatVersion(_) => Self::Unsupported,
            Error::Metadata { .. } | Error::Config(_) | Error::Tensor { .. } => Self::Model,
            Error::Scratch { .. } => Self::Memory,
            Error::RunConfig(_) => Self::Options,
            Error::InputLen { .. } => Self::Length,
            Error::Picture(e) => match e {
                PictureError::ZeroSize | PictureError::SizeOutOfRange => Self::PictureSize,
                PictureError::StrideTooShort | PictureError::DataTooShort => Self::PictureStride,
                PictureError::Region => Self::PictureRegion,
                PictureError::TooLarge => Self::PictureTooLarge,
                PictureError::OutputLength => Self::Length,
            },
            Error::Executor => Self::Executor,
            Error::Stopped => Self::Stopped,
            _ => Self::Unsupported,
        }
    }
}

/// The status of what `work` does.
pub(crate) fn status(work: impl FnOnce() -> Result<(), Failure>) -> Status {
    work().err().map_or(Status::Ok, |failure| failure.status())
}
