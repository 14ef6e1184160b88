//! The converter's one error: what was looked at, and why it can not be used, with the cure in the same line.

use std::path::Path;
use std::{fmt, io};

/// Why a conversion failed. Displays as one line, `what: why`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The file, tensor or setting that was looked at.
    pub what: String,
    /// What is wrong with it, and what to do about it.
    pub why: String,
}

impl Error {
    /// An error about `what`.
    pub fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into() }
    }

    /// An error about a file or directory.
    pub fn file(path: &Path, why: impl fmt::Display) -> Self {
        Self::new(path.display().to_string(), why.to_string())
    }

    /// An error about a tensor of the checkpoint.
    pub fn tensor(name: &str, why: impl Into<String>) -> Self {
        Self::new(format!("tensor {name}"), why)
    }

    /// An error about a setting of config.json.
    pub fn setting(key: &str, why: impl Into<String>) -> Self {
        Self::new(format!("config.json, {key}"), why)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

impl std::error::Error for Error {}

/// An I/O error in words, without Rust's "(os error 2)".
pub fn why(e: &io::Error) -> String {
    let text = e.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}
