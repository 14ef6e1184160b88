//! What can go wrong between two files and an answer.

use core::fmt;

/// Displays as one line.
#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// An error in the picture.
    Picture(&'static str),
    /// The engine's: the model file, or a run of it.
    Engine(vitlet::Error),
    /// The heap has no room for this many bytes.
    Memory(usize),
    /// The model has no classes to print.
    NoHead,
    /// The console did not take the text.
    Console,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Picture(what) => write!(f, "picture: {what}"),
            Self::Engine(e) => write!(f, "model: {e}"),
            Self::Memory(bytes) => write!(f, "memory: no {bytes} bytes free"),
            Self::NoHead => f.write_str("model: no classification head"),
            Self::Console => f.write_str("console: not writable"),
        }
    }
}

impl core::error::Error for Error {}

impl From<vitlet::Error> for Error {
    fn from(e: vitlet::Error) -> Self {
        Self::Engine(e)
    }
}

impl From<fmt::Error> for Error {
    fn from(_: fmt::Error) -> Self {
        Self::Console
    }
}
