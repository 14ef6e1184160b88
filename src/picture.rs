//! From a picture to the bytes that the network sees: resize, crop or pad, normalize.
//!
//! The result equals, to the bit, the result of the Python libraries that trained and evaluated the network: Pillow's
//! 8-bit `Image.resize`, cropped as torchvision, timm or transformers do. An accuracy measured here is then comparable
//! with theirs.
//!
//! Pictures stream by rows: rows that are resized horizontally, only inside the crop, go into a ring as tall as the
//! vertical filter, from which one output row at a time is summed (or the other way round, where Pillow does so).
//! Neither the resized picture nor a copy of the source ever exists, so [`Preprocess::scratch_bytes`] stays small: 0.1
//! MB from 12 megapixels to 224 x 224.
//!
//! Cameras' formats are converted row by row within the stream, and pictures that are turned are read along their
//! columns: the result is the same as converting, cutting and turning first.
//!
//! `source` says what a picture is, `pixels` reads it, `geometry` decides sizes and the crop, `resample` computes.
//! Decoding files does not belong here.

mod geometry;
mod pixels;
mod resample;
mod source;

use crate::config::MAX_EDGE;
pub use crate::config::{CropRounding, Interpolation, Preprocess, Resize, Scale, SizeRule};
pub use crate::error::PictureError;
use crate::fpenv::exact;
use crate::kernels::Kernels;
use geometry::Span;
use pixels::Reader;
use resample::{Filter, Layout};
pub use source::{Format, Picture, Plane, Region, Rotation, Yuv};

impl Preprocess {
    /// The same preparation for an input of another size: what pictures are resized to is the new size divided by
    /// [`crop_pct`](Self::crop_pct), or keeps its proportion to the input; both rounded down. It has no
    /// [`SizeRule`]: the size is chosen.
    pub fn at_size(mut self, height: u32, width: u32) -> Self {
        self.size_rule = None;
        let (own_height, own_width) = (self.height, self.width);
        if (height, width) == (own_height, own_width) {
            return self;
        }
        let scaled = |n: u32, own: u32, new: u32| {
            let n = match self.crop_pct {
                Some(pct) => exact(|| libm::floor(f64::from(new) / pct)) as u64,
                None => u64::from(n) * u64::from(new) / u64::from(own.max(1)),
            };
            n.clamp(1, MAX_EDGE.into()) as u32
        };
        let (tall, wide) = (|n| scaled(n, own_height, height), |n| scaled(n, own_width, width));
        // timm's center crop keeps the ratio by one rule where the input is square and by another where it is not.
        let by_edge = height == width && self.crop_rounding == CropRounding::Even;
        self.resize = match self.resize {
            Resize::ShorterEdge(edge) if height == width => Resize::ShorterEdge(tall(edge)),
            Resize::ShorterEdge(edge) => Resize::Cover { height: tall(edge), width: wide(edge) },
            Resize::Cover { height, .. } if by_edge => Resize::ShorterEdge(tall(height)),
            Resize::Exact { height, width } => Resize::Exact { height: tall(height), width: wide(width) },
            Resize::Cover { height, width } => Resize::Cover { height: tall(height), width: wide(width) },
            Resize::Contain { height, width } => Resize::Contain { height: tall(height), width: wide(width) },
        };
        (self.height, self.width, self.size_rule) = (height, width, None);
        self
    }

    /// The input size (height, width) that the checkpoint's own code takes for a picture of `size` (height, width):
    /// where there is a [`SizeRule`], that of the picture, else that of the preparation. It may be larger than a
    /// network allows; none of its edges is 0.
    pub fn size_for(&self, size: (u32, u32)) -> (u32, u32) {
        match self.size_rule {
            Some(rule) if size.0 > 0 && size.1 > 0 => {
                exact(|| geometry::proportional(rule, (self.height, self.width), size))
            }
            _ => (self.height, self.width),
        }
    }

    /// Bytes of scratch that [`Preprocess::prepare`] needs at most for a picture whose region fits into `max_picture`,
    /// (width, height) or turned by a quarter. None where an edge is zero or longer than [`Picture::MAX_EDGE`], or the
    /// number does not fit.
    pub fn scratch_bytes(&self, max_picture: (u32, u32)) -> Option<usize> {
        let (long, short) = (max_picture.0.max(max_picture.1), max_picture.0.min(max_picture.1));
        if self.height == 0 || self.width == 0 || short == 0 || long > MAX_EDGE {
            return None;
        }
        exact(|| self.scratch_for(long, short))
    }

    fn scratch_for(&self, long: u32, short: u32) -> Option<usize> {
        let (across, down) = geometry::largest_scales(self.resize, long, short)?;
        let taps = [across, down].map(|scale| resample::tap_capacity(self.interpolation, scale));
        Layout::new(self.width as usize, taps.into(), (long, long))?.bytes()
    }

    /// Resizes and crops or pads `picture` into `out`, RGB8 `[height, width, 3]`; the same bytes with any kernels.
    ///
    /// `scratch` needs [`Preprocess::scratch_bytes`] for a `max_picture` that holds this picture; no alignment.
    ///
    /// # Errors
    /// What is wrong with the picture, or with the length of `out`.
    pub fn prepare(
        &self,
        kernels: Kernels,
        picture: &Picture<'_>,
        scratch: &mut [u8],
        out: &mut [u8],
    ) -> Result<(), PictureError> {
        exact(|| self.resample(kernels, picture, scratch, out))
    }

    fn resample(
        &self,
        kernels: Kernels,
        picture: &Picture<'_>,
        scratch: &mut [u8],
        out: &mut [u8],
    ) -> Result<(), PictureError> {
        picture.check()?;
        let input_len =
            (self.height as usize).checked_mul(self.width as usize).and_then(|pixels| pixels.checked_mul(3));
        if Some(out.len()) != input_len {
            return Err(PictureError::OutputLength);
        }
        let (seen_width, seen_height) = picture.seen();
        let (height, width) = geometry::resized(self.resize, seen_height, seen_width)?;
        let x = Span::centered(width, self.width, self.crop_rounding).ok_or(PictureError::ZeroSize)?;
        let y = Span::centered(height, self.height, self.crop_rounding).ok_or(PictureError::ZeroSize)?;
        if x.count < self.width as usize || y.count < self.height as usize {
            let colour = self.padding();
            out.as_chunks_mut::<3>().0.fill(colour);
        }
        let across = Filter::new(self.interpolation, seen_width, width, x.first);
        let down = Filter::new(self.interpolation, seen_height, height, y.first);
        let taps = (across.tap_capacity(), down.tap_capacity());
        let scratch = Layout::new(x.count, taps, (seen_width, seen_height))
            .and_then(|layout| layout.split(scratch))
            .ok_or(PictureError::TooLarge)?;
        let out_rows = out.chunks_exact_mut(3 * self.width as usize).skip(y.at).take(y.count);
        let out_rows = out_rows.map(|row| &mut row[3 * x.at..][..3 * x.count]);
        resample::resample(kernels, &Reader::new(picture), &across, &down, scratch, out_rows);
        Ok(())
    }

    /// The f32 that the network sees for each byte, per channel R, G, B: `(byte / 255 - mean) / std`, each step rounded
    /// to f32, as torchvision's ToTensor and Normalize compute it.
    pub fn normalized(&self) -> [[f32; 256]; 3] {
        let value = |c: usize, byte: usize| (byte as f32 / 255.0 - self.mean[c]) / self.std[c];
        exact(|| core::array::from_fn(|c| core::array::from_fn(|byte| value(c, byte))))
    }

    /// The colour around a picture that does not fill the input.
    fn padding(&self) -> [u8; 3] {
        match self.resize {
            Resize::Contain { .. } => self.mean.map(|mean| libm::rint(255.0 * f64::from(mean)) as u8),
            _ => [0; 3],
        }
    }
}
