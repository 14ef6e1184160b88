//! Pictures: which ones the arguments name, and their reading. docs/pictures.md lists formats and limits.

mod decode;
mod folder;
mod jpeg;
mod kind;
mod memory;
#[cfg(test)]
mod mutated;
mod webp;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Mutex, Once, PoisonError};

use crate::error::{Context, Result, why};
use crate::output;
use kind::{HEAD_BYTES, Kind};

pub use decode::decode;
pub use folder::{Found, Item, OtherFiles, below, items};
pub use kind::is_pictures_name;

/// Bytes of the largest file that is read; from a stream, no more are.
const MAX_FILE: u64 = 256 << 20;
/// Files of more bytes, and streams, are read and decoded one at a time: their bytes are there before a header says how
/// much memory is to be counted.
const SMALL_FILE: u64 = 16 << 20;

/// Where a picture comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    File(PathBuf),
    Stdin,
    /// Found in a folder, or the folder itself, and why no picture comes from it.
    Unusable {
        path: PathBuf,
        why: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Unusable { path, .. } => path.display().fmt(f),
            Self::Stdin => f.write_str("standard input"),
        }
    }
}

/// `[height, width, 3]` bytes.
pub struct Rgb8 {
    pub data: Vec<u8>,
    pub width: u32,
    pub height: u32,
    /// Whether it was 16-bit gray, of which values above 255 are clipped.
    pub clipped: bool,
    /// Of the process's memory for pictures.
    _memory: memory::Share,
}

/// The pictures that the arguments name: files as they stand, `-` for standard input, and for a directory every
/// picture below it in the order of their names. Says what is left out of directories.
pub fn list(arguments: &[PathBuf]) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for argument in arguments {
        if argument.as_os_str() == "-" {
            sources.push(Source::Stdin);
        } else if argument.is_dir() {
            let Found { pictures, left_out } = below(argument);
            let note = left_out.note(argument);
            match (pictures.is_empty(), note) {
                (true, note) => {
                    let left_out = note.map_or(String::new(), |_| format!("; {left_out}"));
                    let why = format!("no {} in this directory{left_out}", kind::DECODED.replace(" and", " or"));
                    sources.push(Source::Unusable { path: argument.clone(), why });
                }
                (false, Some(note)) => output::note(&note),
                (false, None) => {}
            }
            sources.extend(pictures);
        } else {
            sources.push(Source::File(argument.clone()));
        }
    }
    Ok(sources)
}

/// Reads and decodes one picture. The caller drops the picture, or hands it on, before it loads the next: together they
/// may have all memory that there is for pictures.
pub fn load(source: &Source) -> Result<Rgb8> {
    static LARGE: Mutex<()> = Mutex::new(());
    let _alone = is_large(source).then(|| LARGE.lock().unwrap_or_else(PoisonError::into_inner));
    let picture = read(source).and_then(|bytes| decode(&bytes)).about(source)?;
    if picture.clipped {
        static SAID: Once = Once::new();
        let note = "16-bit gray: values above 255 become white, as with Pillow's convert(\"RGB\"); if you do not want \
                    this, scale it to 8 bits";
        SAID.call_once(|| output::note(&format!("{source}: {note}")));
    }
    Ok(picture)
}

fn is_large(source: &Source) -> bool {
    match source {
        Source::File(path) => fs::metadata(path).is_ok_and(|m| !m.is_file() || m.len() > SMALL_FILE),
        Source::Stdin => true,
        Source::Unusable { .. } => false,
    }
}

/// The bytes of a picture's file.
fn read(source: &Source) -> Result<Vec<u8>, String> {
    match source {
        Source::Unusable { why, .. } => Err(why.clone()),
        Source::Stdin => read_picture(&mut io::stdin().lock(), 0),
        Source::File(path) => {
            let mut file = File::open(path).map_err(|e| why(&e))?;
            let len = file.metadata().map_or(0, |m| m.len());
            read_picture(&mut file, len)
        }
    }
}

/// Reads to the end, `expected` bytes as far as one knows. What does not begin as a picture does, or goes on for too
/// long, is not read.
fn read_picture(reader: &mut impl Read, expected: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    reader.take(HEAD_BYTES as u64).read_to_end(&mut bytes).map_err(|e| why(&e))?;
    if !bytes.is_empty() {
        Kind::of(&bytes).decodable()?;
    }
    let rest = usize::try_from(expected.min(MAX_FILE)).unwrap_or(0);
    bytes.try_reserve_exact(rest.saturating_sub(bytes.len())).map_err(|_| "no memory is free for this file")?;
    reader.take(MAX_FILE + 1 - bytes.len() as u64).read_to_end(&mut bytes).map_err(|e| why(&e))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("more than {} MiB: too large for a picture", MAX_FILE >> 20));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_streams_are_not_read_to_their_end() {
        let read = |bytes: &mut dyn Read| read_picture(&mut { bytes }, 0);
        assert!(read(&mut io::repeat(0)).unwrap_err().starts_with("not a picture"));
        let endless = read(&mut (&b"\xff\xd8\xff"[..]).chain(io::repeat(0)));
        assert_eq!(endless.unwrap_err(), "more than 256 MiB: too large for a picture");
        assert_eq!(read(&mut io::empty()), Ok(Vec::new()));
        assert_eq!(read(&mut &b"\xff\xd8\xff\xe0"[..]), Ok(b"\xff\xd8\xff\xe0".to_vec()));
    }
}
