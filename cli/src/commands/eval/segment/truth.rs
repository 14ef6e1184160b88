//! The true classes of a picture's pixels: a PNG of their numbers.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use crate::error::{Context, Error, Result, why};

/// What stands for no class.
const NONE: u16 = 255;

/// Classes `[height, width]`; none where nothing is known.
pub struct Truth {
    pub width: usize,
    pub height: usize,
    pub classes: Vec<Option<u16>>,
}

impl Truth {
    /// Reads a gray PNG, or one with a palette, whose numbers count then. 255 is no class, unless there are so many.
    /// Where `zero_is_none`, 0 is no class and 1 the first one.
    ///
    /// # Errors
    /// A file of another kind, or a number that is no class.
    pub fn read(path: &Path, classes: usize, zero_is_none: bool) -> Result<Self> {
        let bytes = fs::read(path).map_err(|e| Error::new(path.display(), why(&e)))?;
        decode(&bytes, classes, zero_is_none).about(path.display())
    }
}

fn decode(bytes: &[u8], classes: usize, zero_is_none: bool) -> Result<Truth, String> {
    let broken = |e: png::DecodingError| format!("not a PNG that can be read: {e}");
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: 1 << 30 });
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(broken)?;
    let (color, depth) = reader.output_color_type();
    if !matches!(color, ColorType::Grayscale | ColorType::Indexed) {
        return Err(format!("{color:?}: classes are a gray PNG or one with a palette"));
    }
    let mut data = vec![0; reader.output_buffer_size().ok_or("too large")?];
    let info = reader.next_frame(&mut data).map_err(broken)?;
    let (width, height) = (info.width as usize, info.height as usize);
    let line = info.line_size;
    let number = |x: usize, y: usize| {
        let row = &data[y * line..][..line];
        match depth {
            BitDepth::Sixteen => u16::from_be_bytes([row[2 * x], row[2 * x + 1]]),
            BitDepth::Eight => row[x].into(),
            // Several in a byte, the first in the highest bits.
            _ => {
                let bits = depth as usize;
                let (at, shift) = (x * bits / 8, 8 - bits - x * bits % 8);
                u16::from(row[at] >> shift) & ((1 << bits) - 1)
            }
        }
    };
    let class = |number: u16| match (number, zero_is_none) {
        (0, true) => Ok(None),
        (NONE, _) if classes <= usize::from(NONE) => Ok(None),
        (n, _) if usize::from(n) - usize::from(zero_is_none) < classes => Ok(Some(n - u16::from(zero_is_none))),
        (n, _) => {
            Err(format!("label {n}, but the model has {classes} classes, counted from {}", u8::from(zero_is_none)))
        }
    };
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let classes = pixels.map(|(x, y)| class(number(x, y))).collect::<Result<_, _>>()?;
    Ok(Truth { width, height, classes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(color: ColorType, depth: BitDepth, size: (u32, u32), data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, size.0, size.1);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            encoder.set_palette([0; 768].as_slice());
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        bytes
    }

    #[test]
    fn numbers_are_read_from_gray_and_from_palettes() {
        let eight = |color| png(color, BitDepth::Eight, (3, 2), &[0, 1, 2, 255, 4, 0]);
        let want = [Some(0), Some(1), Some(2), None, Some(4), Some(0)];
        for color in [ColorType::Grayscale, ColorType::Indexed] {
            let truth = decode(&eight(color), 5, false).unwrap();
            assert_eq!((truth.width, truth.height, &truth.classes[..]), (3, 2, &want[..]));
        }
        let shifted = decode(&eight(ColorType::Grayscale), 4, true).unwrap().classes;
        assert_eq!(shifted, [None, Some(0), Some(1), None, Some(3), None]);
        // 0 1 2 3 3 in two bits each, and 300 in sixteen.
        let packed = png(ColorType::Indexed, BitDepth::Two, (5, 1), &[0b00_01_10_11, 0b11_00_00_00]);
        assert_eq!(decode(&packed, 5, false).unwrap().classes, [0, 1, 2, 3, 3].map(Some));
        let sixteen = png(ColorType::Grayscale, BitDepth::Sixteen, (1, 1), &[1, 44]);
        assert_eq!(decode(&sixteen, 400, false).unwrap().classes, [Some(300)]);
        let refused = |bytes: &[u8], classes| decode(bytes, classes, false).err().unwrap();
        assert!(refused(&eight(ColorType::Grayscale), 4).contains("label 4, but the model has 4 classes"));
        assert!(refused(&png(ColorType::Rgb, BitDepth::Eight, (1, 1), &[0; 3]), 4).contains("Rgb"));
        assert!(refused(b"no", 4).contains("not a PNG"));
    }
}
