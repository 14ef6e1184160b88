//! Pictures: which ones the arguments name, and their decoding to RGB8 as Pillow's `convert("RGB")` does it (alpha dropped,
//! gray repeated, the high byte of 16 bits), turned upright by their EXIF orientation. The format is known by content,
//! except that a directory lists only files with a picture's extension.

use std::fmt;
use std::fs;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};

use crate::error::{Context, Error, Result, why};

const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "webp", "bmp"];

/// Where a picture comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    File(PathBuf),
    Stdin,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Stdin => f.write_str("standard input"),
        }
    }
}

/// `[height, width, 3]` bytes.
pub struct Rgb8 {
    pub data: Vec<u8>,
    pub width: u32,
    pub height: u32,
}

/// The pictures that the arguments name: files as they stand, `-` for standard input, and for a directory every
/// picture below it in the order of their names.
pub fn list(arguments: &[PathBuf]) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for argument in arguments {
        if argument.as_os_str() == "-" {
            sources.push(Source::Stdin);
        } else if argument.is_dir() {
            let found = in_directory(argument)?;
            if found.is_empty() {
                return Err(Error::new(argument.display(), "no JPEG, PNG, WebP or BMP in this directory"));
            }
            sources.extend(found.into_iter().map(Source::File));
        } else {
            sources.push(Source::File(argument.clone()));
        }
    }
    Ok(sources)
}

/// Every picture at or below `directory`, in the order of their paths; hidden files and links to directories are left out.
pub fn in_directory(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(|e| Error::new(directory.display(), why(&e)))? {
        let entry = entry.map_err(|e| Error::new(directory.display(), why(&e)))?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        } else if entry.file_type().is_ok_and(|t| t.is_dir()) {
            found.extend(in_directory(&path)?);
        } else if has_picture_extension(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether the name ends as a picture's does.
pub fn has_picture_extension(path: &Path) -> bool {
    path.extension().is_some_and(|e| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known)))
}

/// Reads and decodes one picture.
pub fn load(source: &Source) -> Result<Rgb8> {
    let bytes = match source {
        Source::File(path) => fs::read(path),
        Source::Stdin => {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
        }
    };
    let bytes = bytes.map_err(|e| Error::new(source, why(&e)))?;
    decode(&bytes).about(source)
}

/// Decodes the bytes of a picture's file.
pub fn decode(bytes: &[u8]) -> Result<Rgb8, String> {
    if bytes.is_empty() {
        return Err("empty file".to_string());
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| why(&e))?;
    let format = reader.format().ok_or("not a picture: JPEG, PNG, WebP and BMP are read")?;
    if format == ImageFormat::Jpeg && !jpeg_is_whole(bytes) {
        return Err("truncated JPEG".to_string());
    }
    let name = format!("{format:?}").to_uppercase();
    let explain = |e: ImageError| match e {
        ImageError::Unsupported(_) => format!("a {name} of a kind that is not read: JPEG, PNG, WebP and BMP are"),
        ImageError::Limits(_) => format!("a {name} too large to decode"),
        other => format!("broken {name}: {other}"),
    };
    let mut decoder = reader.into_decoder().map_err(explain)?;
    let orientation = decoder.orientation().map_err(explain)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(explain)?;
    picture.apply_orientation(orientation);

    let (width, height) = (picture.width(), picture.height());
    let color = picture.color();
    let data = if color.bytes_per_pixel() > color.channel_count() {
        picture.into_rgb16().iter().map(|&v| (v >> 8) as u8).collect()
    } else {
        picture.into_rgb8().into_raw()
    };
    Ok(Rgb8 { data, width, height })
}

/// Whether an end-of-image marker follows the last start of a scan: the decoder itself paints what is missing gray.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let last = |marker: [u8; 2]| bytes.windows(2).rposition(|pair| pair == marker);
    last([0xFF, 0xD9]) > last([0xFF, 0xDA])
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ExtendedColorType, ImageEncoder};

    fn png(data: &[u8], width: u32, color: ExtendedColorType) -> Vec<u8> {
        let mut bytes = Vec::new();
        image::codecs::png::PngEncoder::new(&mut bytes).write_image(data, width, 1, color).unwrap();
        bytes
    }

    fn jpeg(exif_orientation: Option<u8>) -> Vec<u8> {
        // 32 x 16: left half black, right half white.
        let pixels: Vec<u8> = (0..32 * 16).flat_map(|i| [if i % 32 < 16 { 0 } else { 255 }; 3]).collect();
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95);
        if let Some(orientation) = exif_orientation {
            // Little-endian TIFF, one IFD entry: tag 0x0112, type 3 (short), one value.
            let tiff = [b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0", &[orientation, 0, 0, 0, 0, 0, 0, 0][..]];
            encoder.set_exif_metadata(tiff.concat()).unwrap();
        }
        encoder.encode(&pixels, 32, 16, ExtendedColorType::Rgb8).unwrap();
        bytes
    }

    #[test]
    fn colors_become_rgb_as_in_pillow() {
        assert_eq!(decode(&png(&[7, 200], 2, ExtendedColorType::L8)).unwrap().data, [7, 7, 7, 200, 200, 200]);
        assert_eq!(decode(&png(&[1, 2, 3, 0], 1, ExtendedColorType::Rgba8)).unwrap().data, [1, 2, 3]);
        assert_eq!(decode(&png(&[9, 128], 1, ExtendedColorType::La8)).unwrap().data, [9, 9, 9]);
        let deep: Vec<u8> = [0x12ffu16, 0x80ff, 0xff00].iter().flat_map(|v| v.to_ne_bytes()).collect();
        assert_eq!(decode(&png(&deep, 1, ExtendedColorType::Rgb16)).unwrap().data, [0x12, 0x80, 0xff]);
    }

    #[test]
    fn exif_turns_pictures_upright() {
        let side = |p: &Rgb8, x: usize, y: usize| p.data[(y * p.width as usize + x) * 3] > 127;
        let upright = decode(&jpeg(None)).unwrap();
        assert_eq!((upright.width, upright.height), (32, 16));
        assert!(!side(&upright, 2, 8) && side(&upright, 29, 8));
        // 3: half a turn; 6: stored a quarter turn counterclockwise, so the left half comes to the top.
        let half_turn = decode(&jpeg(Some(3))).unwrap();
        assert!(side(&half_turn, 2, 8) && !side(&half_turn, 29, 8));
        let quarter = decode(&jpeg(Some(6))).unwrap();
        assert_eq!((quarter.width, quarter.height), (16, 32));
        assert!(!side(&quarter, 8, 2) && side(&quarter, 8, 29));
    }

    #[test]
    fn broken_pictures_are_named() {
        let error = |bytes: &[u8]| decode(bytes).err().unwrap();
        assert_eq!(error(b""), "empty file");
        assert!(error(b"hello").contains("JPEG, PNG, WebP and BMP"));
        assert!(error(b"GIF89a\x01\0\x01\0\0\0\0").contains("a GIF"));
        let whole = jpeg(None);
        assert_eq!(error(&whole[..whole.len() - 2]), "truncated JPEG");
        assert_eq!(error(&whole[..whole.len() / 2]), "truncated JPEG");
        let whole = png(&[7, 200], 2, ExtendedColorType::L8);
        assert!(error(&whole[..whole.len() / 2]).contains("broken PNG"));
    }
}
