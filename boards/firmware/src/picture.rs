//! Pictures: JPEG, and binary PPM (Netpbm's `P6`, 8 bits) for those who bring pixels.
//!
//! JPEG is decoded by the library, and with the settings, of the `image` crate that the program uses: the same pixels.
//! Not turned by EXIF orientation.

use alloc::vec::Vec;

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use crate::error::Error;

/// `[height, width, 3]` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb8 {
    /// Rows from the top, pixels from the left: red, green, blue.
    pub data: Vec<u8>,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
}

/// Decodes a JPEG or a PPM, known by its first bytes.
///
/// # Errors
/// `Picture`, if it is neither, or broken; `Memory`.
pub fn decode(bytes: &[u8]) -> Result<Rgb8, Error> {
    if bytes.starts_with(&[0xff, 0xd8]) {
        jpeg(bytes)
    } else if bytes.starts_with(b"P6") {
        ppm(bytes)
    } else {
        Err(Error::Picture("neither a JPEG nor a binary PPM (P6)"))
    }
}

fn jpeg(bytes: &[u8]) -> Result<Rgb8, Error> {
    // The decoder itself paints what is missing at the end gray.
    let last = |marker: [u8; 2]| bytes.windows(2).rposition(|pair| pair == marker);
    if last([0xff, 0xd9]) <= last([0xff, 0xda]) {
        return Err(Error::Picture("truncated JPEG"));
    }
    let options = DecoderOptions::default().set_strict_mode(false).jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let broken = |_| Error::Picture("broken JPEG, or of a kind that is not read");
    decoder.decode_headers().map_err(broken)?;
    let info = decoder.info().ok_or(Error::Picture("JPEG without a size"))?;
    let mut data = zeros(usize::from(info.width) * usize::from(info.height) * 3)?;
    decoder.decode_into(&mut data).map_err(broken)?;
    Ok(Rgb8 { data, width: info.width.into(), height: info.height.into() })
}

/// netpbm.sourceforge.net/doc/ppm.html: `P6`, width, height and maximum in decimal, between white space and `#`
/// comments, one white space, then the pixels.
fn ppm(bytes: &[u8]) -> Result<Rgb8, Error> {
    let mut rest = &bytes[2..];
    let mut number = || -> Option<u32> {
        loop {
            rest = rest.trim_ascii_start();
            let Some(comment) = rest.strip_prefix(b"#") else { break };
            rest = &comment[comment.iter().position(|&b| b == b'\n')?..];
        }
        let (digits, after) = rest.split_at(rest.iter().position(|b| !b.is_ascii_digit())?);
        rest = after;
        core::str::from_utf8(digits).ok()?.parse().ok()
    };
    let header = (number(), number(), number());
    let (Some(width), Some(height), Some(255)) = header else {
        return Err(Error::Picture("PPM whose header is not a width, a height and 255"));
    };
    let len = (width as usize).checked_mul(height as usize).and_then(|n| n.checked_mul(3));
    let pixels = len.and_then(|len| rest.get(1..)?.get(..len)).ok_or(Error::Picture("truncated PPM"))?;
    let mut data = zeros(pixels.len())?;
    data.copy_from_slice(pixels);
    Ok(Rgb8 { data, width, height })
}

/// Like `vec![0; len]`, but a full heap is an error.
fn zeros(len: usize) -> Result<Vec<u8>, Error> {
    let mut data = Vec::new();
    data.try_reserve_exact(len).map_err(|_| Error::Memory(len))?;
    data.resize(len, 0);
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vitlet_models::pictures::{CAMERA, CHELSEA, HORSE};

    #[test]
    fn jpegs_are_the_pixels_that_the_program_sees() {
        for (name, bytes) in [("chelsea", CHELSEA), ("camera", CAMERA), ("horse", HORSE)] {
            let expected = image::load_from_memory(bytes).unwrap().into_rgb8();
            let picture = decode(bytes).unwrap();
            assert_eq!((picture.width, picture.height), expected.dimensions(), "{name}");
            assert!(picture.data == *expected.as_raw(), "{name}");
            assert_eq!(decode(&bytes[..bytes.len() - 2]), Err(Error::Picture("truncated JPEG")));
            assert!(decode(&bytes[..bytes.len() / 2]).is_err());
        }
    }

    #[test]
    fn ppm_headers_are_read_as_netpbm_writes_them() {
        let picture = Rgb8 { data: [1, 2, 3, 10, 32, 35].to_vec(), width: 2, height: 1 };
        assert_eq!(decode(b"P6\n2 1\n255\n\x01\x02\x03\x0a\x20\x23").as_ref(), Ok(&picture));
        assert_eq!(decode(b"P6 # two\n2\t# wide\n1 255 \x01\x02\x03\x0a\x20\x23 more").as_ref(), Ok(&picture));
        assert_eq!(decode(b"P6\n2 1\n255\n\x01\x02\x03\x0a\x20"), Err(Error::Picture("truncated PPM")));
        assert_eq!(decode(b"P6\n4294967295 4294967295\n255\n"), Err(Error::Picture("truncated PPM")));
        for header in
            [&b"P6"[..], b"P6 2 1", b"P6 2 1 65535\n", b"P6 -2 1 255\n", b"P6 # no end", b"P6 99999999999 1 255\n"]
        {
            assert!(matches!(decode(header), Err(Error::Picture(_))), "{header:?}");
        }
        assert!(decode(b"P5\n1 1\n255\n\x01").is_err());
        assert!(decode(b"").is_err());
    }
}
