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

    /// An error about a file or directory. Of what the operating system says, the words are kept.
    pub fn file(path: &Path, why: impl fmt::Display) -> Self {
        let why = why.to_string();
        let words = why.split_once(" (os error ").and_then(|(words, rest)| Some((words, rest.split_once(')')?.1)));
        Self::new(path.display().to_string(), words.map_or(why.clone(), |(words, rest)| format!("{words}{rest}")))
    }

    /// An error about a tensor of the checkpoint.
    pub fn tensor(name: &str, why: impl Into<String>) -> Self {
        Self::new(format!("tensor {}", shown(name)), why)
    }

    /// An error about a setting in a checkpoint's JSON file of this name.
    pub fn setting(file: &str, key: &str, why: impl Into<String>) -> Self {
        Self::new(format!("{file}, {key}"), why)
    }
}

/// A name from a file as messages show it: short, and without control characters.
pub(crate) fn shown(name: &str) -> String {
    name.chars().flat_map(char::escape_debug).take(120).collect()
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
