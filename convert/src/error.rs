//! The converter's error type: the thing that cannot be used, and why, with the cure in the same line.

use std::fmt::{self, Write as _};
use std::io;
use std::path::Path;

/// Why a conversion failed. Displays as one line, `what: why`: names from files stand in it, so control characters are
/// shown as escapes.
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

    /// An error about a file or directory. Of the operating system's message, only the words are kept.
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
        for c in self.what.chars().chain(": ".chars()).chain(self.why.chars()) {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line() {
        let error = Error::file(Path::new("a\nb.onnx"), "node \u{7}x\r\n is \u{1b}[31m caf\u{e9}");
        assert_eq!(error.to_string(), r"a\nb.onnx: node \u{7}x\r\n is \u{1b}[31m café");
    }
}
