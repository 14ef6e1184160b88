//! Small text files, read into memory of fixed size.

use core::fmt::{self, Write};
use core::ops::ControlFlow;

/// Text of such files: names, governors, paths. What is longer counts as absent.
pub type Text = heapless::String<128>;

/// How files are read. A closure will do: see the crate's documentation.
pub trait Files {
    /// Puts bytes of the file at `path`, from `offset` on, into `buffer` and says how many: 0 at its end; None if it
    /// cannot be read.
    fn read(&self, path: &str, offset: u64, buffer: &mut [u8]) -> Option<usize>;
}

impl<F: Fn(&str, u64, &mut [u8]) -> Option<usize>> Files for F {
    fn read(&self, path: &str, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        self(path, offset, buffer)
    }
}

/// `path` as text.
pub(crate) fn path(path: fmt::Arguments) -> Option<Text> {
    let mut text = Text::new();
    text.write_fmt(path).ok()?;
    Some(text)
}

/// The first line of a file, without white space and NULs around it; None where it is empty.
pub fn text(files: &impl Files, file: fmt::Arguments) -> Option<Text> {
    let mut buffer = [0; 128];
    let len = files.read(&path(file)?, 0, &mut buffer)?;
    let all = core::str::from_utf8(buffer.get(..len)?).ok()?;
    let line = all.split(['\n', '\0']).next()?.trim();
    if line.is_empty() { None } else { Text::try_from(line).ok() }
}

/// The decimal number that a file holds.
pub fn number<T: core::str::FromStr>(files: &impl Files, file: fmt::Arguments) -> Option<T> {
    text(files, file)?.parse().ok()
}

/// The hexadecimal number that a file holds, with or without 0x.
pub fn hexadecimal(files: &impl Files, file: fmt::Arguments) -> Option<u64> {
    parse_hexadecimal(&text(files, file)?)
}

pub(crate) fn parse_hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

/// Calls `each` with the lines of a file until it breaks with a value. Lines longer than 256 bytes are cut into pieces.
pub fn each_line<T>(files: &impl Files, path: &str, mut each: impl FnMut(&str) -> ControlFlow<T>) -> Option<T> {
    let mut buffer = [0; 256];
    let mut offset = 0;
    loop {
        let len = files.read(path, offset, &mut buffer)?;
        let piece = buffer.get(..len)?;
        // Whole lines only; the rest is read again, unless it fills the buffer or ends the file.
        let whole = match piece.iter().rposition(|&byte| byte == b'\n') {
            _ if len == 0 => return None,
            Some(last) => last + 1,
            None => len,
        };
        for line in piece[..whole].split(|&byte| byte == b'\n') {
            if let ControlFlow::Break(value) = each(core::str::from_utf8(line).unwrap_or("").trim()) {
                return Some(value);
            }
        }
        offset += whole as u64;
    }
}
