//! The errors of the engine's two boundaries: reading a model file, and running it.

use core::fmt;

use crate::lanes::FORMAT_VERSION;

/// Why a model file was refused or a run could not be done. Every message is one line, `what: why`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The bytes do not start with GGUF's magic.
    NotGguf,
    /// A GGUF version other than 3.
    GgufVersion(u32),
    /// The file ends inside its header, metadata, tensor table or tensor data.
    Truncated,
    /// The bytes do not start on a 64-byte boundary.
    Misaligned,
    /// The header, metadata or tensor table is not well-formed GGUF.
    Malformed(&'static str),
    /// A GGUF file, of another architecture.
    Architecture,
    /// Written by a newer vitlet.
    FormatVersion(u32),
    /// A metadata key is missing or has a wrong type or value.
    Metadata {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Hyperparameters that contradict each other or exceed the limits within which the engine is proved.
    Config(&'static str),
    /// A tensor is missing, or contradicts the hyperparameters.
    Tensor {
        /// Its name.
        name: TensorName,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The scratch memory is too small or not 64-byte aligned.
    Scratch {
        /// Bytes needed, at a 64-byte aligned address.
        need: usize,
        /// Bytes given.
        have: usize,
    },
    /// Threads, sizes or outputs that the model cannot be run with, or a run that needs too much memory.
    RunConfig(&'static str),
    /// The system has not so many bytes of memory left.
    Memory(usize),
    /// An input tensor of the wrong length.
    InputLen {
        /// Elements needed.
        need: usize,
        /// Elements given.
        have: usize,
    },
    /// The picture was refused.
    Picture(PictureError),
    /// The executor returned before its work was done.
    Executor,
    /// The caller's flag ended the run.
    Stopped,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGguf => write!(f, "not a model file: no GGUF magic at the start"),
            Self::GgufVersion(v) => write!(f, "GGUF version {v}: only version 3 is read"),
            Self::Truncated => write!(f, "truncated model file: it ends before its last tensor does"),
            Self::Misaligned => write!(f, "misaligned model: its bytes must start on a 64-byte boundary"),
            Self::Malformed(why) => write!(f, "malformed GGUF: {why}"),
            Self::Architecture => {
                write!(f, "not a vitlet model: a GGUF file of another architecture (make one with `vitlet convert`)")
            }
            Self::FormatVersion(v) => {
                write!(f, "model format version {v}: newer than this vitlet reads ({FORMAT_VERSION})")
            }
            Self::Metadata { key, why } => write!(f, "metadata {key}: {why}"),
            Self::Config(why) => write!(f, "hyperparameters: {why}"),
            Self::Tensor { name, why } => write!(f, "tensor {name}: {why}"),
            Self::Scratch { need, have } => {
                write!(f, "scratch memory: {need} bytes at a 64-byte boundary needed, {have} given")
            }
            Self::RunConfig(why) => write!(f, "run configuration: {why}"),
            Self::Memory(bytes) => write!(f, "memory: {bytes} bytes are more than the system has left"),
            Self::InputLen { need, have } => write!(f, "input tensor: {need} elements needed, {have} given"),
            Self::Picture(why) => write!(f, "picture: {why}"),
            Self::Executor => write!(f, "executor: it returned before the work was done"),
            Self::Stopped => write!(f, "stopped: the caller ended the run"),
        }
    }
}

impl core::error::Error for Error {}

impl From<PictureError> for Error {
    fn from(e: PictureError) -> Self {
        Self::Picture(e)
    }
}

/// Why a picture cannot be prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureError {
    /// An edge of the picture, of [`Preprocess::resize`](crate::Preprocess::resize) or of the network's input is zero.
    ZeroSize,
    /// The stride of a plane is less than the bytes of its rows.
    StrideTooShort,
    /// A plane ends before its last row does.
    DataTooShort,
    /// The region is empty, or not all of it is inside the picture.
    Region,
    /// An edge of the picture is longer than 2^24 pixels, or would be longer than 2^31 when resized.
    SizeOutOfRange,
    /// The picture needs more scratch than there is: it is larger than the `max_picture` that the scratch was measured
    /// for.
    TooLarge,
    /// The output is not `height * width * 3` bytes of the network's input.
    OutputLength,
}

impl fmt::Display for PictureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroSize => "an edge is zero pixels long",
            Self::StrideTooShort => "the stride is shorter than a row",
            Self::DataTooShort => "the data ends before the last row",
            Self::Region => "the region of interest is empty or not inside the picture",
            Self::SizeOutOfRange => "an edge is too long, before or after resizing",
            Self::TooLarge => "larger than the largest picture announced",
            Self::OutputLength => "the output is not height * width * 3 bytes long",
        })
    }
}

impl core::error::Error for PictureError {}

/// A tensor's name, without allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TensorName {
    bytes: [u8; 32],
    len: u8,
}

impl TensorName {
    /// Empty at first: text that is written to it becomes the name. It has room for 32 bytes.
    pub(crate) const EMPTY: Self = Self { bytes: [0; 32], len: 0 };

    /// The name.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or("")
    }
}

impl fmt::Write for TensorName {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let start = usize::from(self.len);
        let end = start + s.len();
        self.bytes.get_mut(start..end).ok_or(fmt::Error)?.copy_from_slice(s.as_bytes());
        self.len = end as u8;
        Ok(())
    }
}

impl fmt::Display for TensorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TensorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
