//! Measured distances in metres.

use std::fs;
use std::io::{BufReader, Cursor};
use std::path::Path;

use image::{DynamicImage, ImageFormat, ImageReader, Limits};

use crate::commands::eval::samples;
use crate::error::{Context, Error, Result, why};
use crate::npy;

/// Distances `[height, width]` in metres; 0, negative and other numbers mean that nothing was measured.
pub struct Truth {
    pub width: usize,
    pub height: usize,
    pub metres: Vec<f32>,
}

impl Truth {
    /// Reads an array in metres, or a gray PNG of 16 bits in `units` a metre.
    ///
    /// # Errors
    /// A file of another kind or shape.
    pub fn read(path: &Path, units: f32) -> Result<Self> {
        if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npy")) {
            let array = npy::read(path)?;
            let (height, width) = match array.shape[..] {
                [height, width] | [1, height, width] | [height, width, 1] => (height, width),
                _ => return Err(Error::new(path.display(), format!("shape {:?}, not [height, width]", array.shape))),
            };
            return Ok(Self { width, height, metres: array.data });
        }
        let bytes = fs::read(path).map_err(|e| Error::new(path.display(), why(&e)))?;
        png(&bytes, units).about(path.display())
    }

    /// Refuses a map of another shape than the picture's: its pixels would be compared with other ones.
    ///
    /// # Errors
    /// Both sizes.
    pub fn check_shape(&self, width: u32, height: u32) -> Result<(), String> {
        samples::check_shape("depth", (self.width, self.height), (width, height))
    }
}

fn png(bytes: &[u8], units: f32) -> Result<Truth, String> {
    let mut reader = ImageReader::with_format(BufReader::new(Cursor::new(bytes)), ImageFormat::Png);
    reader.limits(Limits::default());
    match reader.decode() {
        Ok(DynamicImage::ImageLuma16(gray)) => Ok(Truth {
            width: gray.width() as usize,
            height: gray.height() as usize,
            metres: gray.into_raw().into_iter().map(|code| f32::from(code) / units).collect(),
        }),
        Ok(other) => Err(format!("{:?}: depth is a gray PNG of 16 bits, or .npy", other.color())),
        Err(e) => Err(format!("not a PNG that can be read: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_may_differ_in_scale_alone() {
        let truth = |width, height| Truth { width, height, metres: vec![1.0; width * height] };
        assert!(truth(320, 240).check_shape(640, 480).is_ok() && truth(321, 240).check_shape(641, 480).is_ok());
        assert!(truth(240, 320).check_shape(640, 480).is_err() && truth(320, 200).check_shape(640, 480).is_err());
        assert!(truth(0, 0).check_shape(640, 480).is_err());
    }
}
