//! NumPy's .npy files of f32 (written: of i32, too), in C order, little-endian: versions 1 to 3 are read, 1 is written
//! (numpy/lib/format.py). A file starts with the magic, the version, the header's length and a Python dictionary:
//!
//!     \x93NUMPY 01 00 76 00 {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n

use std::fs;
use std::path::Path;

use crate::error::{Context, Error, Result, why};
use crate::files;

const MAGIC: &[u8] = b"\x93NUMPY";

/// An array in C order.
#[derive(Debug, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

/// Reads `path`.
pub fn read(path: &Path) -> Result<Array> {
    let bytes = fs::read(path).map_err(|e| Error::new(path.display(), why(&e)))?;
    parse(&bytes).about(path.display())
}

/// Writes `data` of `shape` to `path`.
pub fn write(path: &Path, shape: &[usize], data: &[f32]) -> Result<()> {
    files::write(path, &format(shape, data))
}

/// Writes `data` of `shape` to `path`, as i32.
pub fn write_i32(path: &Path, shape: &[usize], data: impl Iterator<Item = i32>) -> Result<()> {
    let mut bytes = header("<i4", shape);
    data.for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
    files::write(path, &bytes)
}

/// Refuses the name of a file that ends as another kind of file does: what is written to it is .npy all the same.
pub fn check_name(path: &Path) -> Result<()> {
    let other = path.extension().filter(|ending| !ending.eq_ignore_ascii_case("npy"));
    match other.filter(|_| vitlet_convert::output::is_regular(path)) {
        None => Ok(()),
        Some(_) => Err(Error::Usage(format!("{}: arrays are written as .npy; name it NAME.npy", path.display()))),
    }
}

fn parse(bytes: &[u8]) -> Result<Array, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("not a .npy file: save one with numpy.save")?;
    let truncated = "truncated .npy file";
    let (version, rest) = rest.split_at_checked(2).ok_or(truncated)?;
    let length_bytes = match version[0] {
        1 => 2,
        2 | 3 => 4,
        v => return Err(format!(".npy version {v}: versions 1 to 3 are supported")),
    };
    let (length, rest) = rest.split_at_checked(length_bytes).ok_or(truncated)?;
    let length = length.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b));
    let (header, data) = rest.split_at_checked(length).ok_or(truncated)?;
    let header = std::str::from_utf8(header).map_err(|_| "malformed .npy header")?;

    match entry(header, "descr")?.split(',').next().unwrap_or("").trim_matches(['\'', '"']) {
        "<f4" => {}
        other => return Err(format!("elements are {other}: only f32 is supported, save x.astype(numpy.float32)")),
    }
    if entry(header, "fortran_order")?.starts_with("True") {
        return Err("Fortran order: save numpy.ascontiguousarray(x)".to_string());
    }
    let shape = parse_shape(entry(header, "shape")?).ok_or("malformed .npy header: shape")?;
    let len = shape.iter().try_fold(4usize, |n, &d| n.checked_mul(d)).ok_or("malformed .npy header: shape")?;
    if data.len() != len {
        return Err(format!("{} bytes of data where shape {shape:?} has {len}", data.len()));
    }
    let data = data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Ok(Array { shape, data })
}

/// What stands after `'key':` in the header.
fn entry<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let malformed = || format!("malformed .npy header: {key}");
    let at = header.find(&format!("'{key}'")).ok_or_else(malformed)?;
    let value = header[at + key.len() + 2..].trim_start().strip_prefix(':').ok_or_else(malformed)?;
    Ok(value.trim_start())
}

/// `(2, 3)`, `(2,)` or `()` at the start of `text`.
fn parse_shape(text: &str) -> Option<Vec<usize>> {
    let (inner, _) = text.strip_prefix('(')?.split_once(')')?;
    inner.split(',').map(str::trim).filter(|s| !s.is_empty()).map(|s| s.parse().ok()).collect()
}

fn format(shape: &[usize], data: &[f32]) -> Vec<u8> {
    let mut bytes = header("<f4", shape);
    data.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
    bytes
}

/// All before the data, of elements `descr`.
fn header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let dims: String = shape.iter().map(|d| format!("{d}, ")).collect();
    let dims = if shape.len() == 1 { dims.trim_end() } else { dims.trim_end_matches(", ") };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    // The data starts at a multiple of 64, after magic, version, length, the header and its line break.
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');

    let mut bytes = Vec::with_capacity(MAGIC.len() + 4 + header.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for shape in [vec![], vec![3], vec![0, 4], vec![2, 3], vec![1, 3, 4, 5]] {
            let len = shape.iter().product::<usize>();
            let data: Vec<f32> = (0..len).map(|i| i as f32 - 0.5).collect();
            let bytes = format(&shape, &data);
            assert_eq!((bytes.len() - 4 * len) % 64, 0);
            assert_eq!(parse(&bytes), Ok(Array { shape, data }));
        }
    }

    /// What numpy itself writes for numpy.arange(6, dtype=numpy.float32).reshape(2, 3).
    #[test]
    fn written_as_numpy_writes() {
        let mut want = b"\x93NUMPY\x01\0v\0{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }".to_vec();
        want.resize(127, b' ');
        want.push(b'\n');
        (0..6).for_each(|i| want.extend_from_slice(&(i as f32).to_le_bytes()));
        assert_eq!(format(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), want);
    }

    #[test]
    fn version_2_is_read() {
        let v1 = format(&[2], &[1.0, 2.0]);
        let mut v2 = [&v1[..6], &[2, 0], &v1[8..10], &[0, 0], &v1[10..]].concat();
        assert_eq!(parse(&v2).unwrap().data, [1.0, 2.0]);
        v2[6] = 9;
        assert!(parse(&v2).unwrap_err().contains("version 9"));
    }

    #[test]
    fn refused_in_one_line() {
        let good = format(&[2, 3], &[0.0; 6]);
        let with = |from: &str, to: &str| {
            assert_eq!(from.len(), to.len());
            let text = String::from_utf8_lossy(&good[10..]).replace(from, to);
            parse(&[&good[..10], text.as_bytes()].concat()).unwrap_err()
        };
        assert!(with("<f4", "<f8").contains("astype(numpy.float32)"));
        assert!(with("False", "True ").contains("ascontiguousarray"));
        assert!(with("(2, 3)", "(2, 4)").contains("24 bytes of data where shape [2, 4] has 32"));
        assert!(with("(2, 3)", "(2, x)").contains("shape"));
        assert!(with("shape", "shade").contains("shape"));
        assert!(parse(b"PK\x03\x04").unwrap_err().contains("not a .npy file"));
        for end in 0..good.len() {
            assert!(parse(&good[..end]).is_err());
        }
    }

    #[test]
    fn a_shape_too_large_for_memory_is_refused() {
        let dims = format!("({}, 16)", usize::MAX / 8);
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {dims}, }}\n");
        let mut bytes = [MAGIC, &[1, 0]].concat();
        bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
        bytes.extend_from_slice(header.as_bytes());
        assert!(parse(&bytes).is_err());
    }
}
