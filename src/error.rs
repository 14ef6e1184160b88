//! The errors of the engine's two boundaries: reading a model file, and running it.

use core::fmt;

use crate::layout::TensorName;
use crate::picture::PictureError;

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
    /// Hyperparameters that contradict each other or exceed what the engine is proved for.
    Config(&'static str),
    /// A tensor is missing or not what the hyperparameters ask for.
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
                write!(f, "model format version {v}: newer than this vitlet reads ({})", crate::layout::FORMAT_VERSION)
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
