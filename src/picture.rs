//! From a picture to the bytes that the network sees: resize, crop or pad, normalize.
//!
//! The result is that of the Python libraries that trained and evaluated the network, to the bit: Pillow's 8-bit
//! `Image.resize`, cropped as torchvision, timm or transformers do. An accuracy measured here is then comparable with theirs.
//!
//! Pictures stream by rows: rows that are resized horizontally, only inside the crop, go into a ring as tall as the vertical
//! filter, from which one output row at a time is summed (or the other way round, where Pillow does so). Neither the resized
//! picture nor a copy of the source ever exists, so [`Preprocess::scratch_bytes`] stays small: 0.1 MB from 12 megapixels to 224 x 224.
//!
//! Cameras' formats are converted row by row within the stream, and pictures that are turned are read along their columns: the result is that of
//! converting, cutting and turning first.
//!
//! `source` says what a picture is, `pixels` reads it, `geometry` decides sizes and the crop, `resample` computes. Decoding files
//! does not belong here.

mod geometry;
mod pixels;
mod resample;
mod source;

use core::fmt;

use crate::config::Named;
use crate::kernels::Kernels;
use crate::kernels::fpenv::exact;
use geometry::Span;
use pixels::Reader;
use resample::{Filter, Layout};
pub use source::{Format, Picture, Plane, Region, Rotation, Yuv};

/// The resampling filter, widened by the scale when the picture shrinks (antialiased), as in Pillow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Triangle, support 1.
    Bilinear,
    /// Cubic convolution with a = -0.5, support 2.
    Bicubic,
}

/// The size, in pixels, to which a picture is resized before the crop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// The shorter edge to this length, the longer one in proportion, rounded down: torchvision's `Resize(size)` and transformers' `shortest_edge`.
    ShorterEdge(u32),
    /// Exactly to this size; the aspect ratio is lost. timm's crop mode `squash`.
    Exact {
        /// Rows.
        height: u32,
        /// Pixels per row.
        width: u32,
    },
    /// In proportion, so that both edges are at least this long: timm's `ResizeKeepRatio(size, longest=0)`, crop mode `center`
    /// for networks that are not square.
    Cover {
        /// Rows.
        height: u32,
        /// Pixels per row.
        width: u32,
    },
    /// In proportion, so that both edges are at most this long: timm's `ResizeKeepRatio(size, longest=1)`, crop mode `border`.
    /// What the picture does not fill gets the mean colour, `round(255 * mean)`. An edge that would vanish stays one pixel (timm fails there).
    Contain {
        /// Rows.
        height: u32,
        /// Pixels per row.
        width: u32,
    },
}

/// Where an odd difference between the resized picture and the network's input goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CropRounding {
    /// The crop starts at half the difference, half to even; padding puts the smaller part first. torchvision and timm.
    Even,
    /// The crop starts at half the difference, rounded towards minus infinity. transformers.
    Floor,
}

impl Named for Interpolation {
    const NAMES: &'static [(Self, &'static str)] = &[(Self::Bilinear, "bilinear"), (Self::Bicubic, "bicubic")];
}

impl Named for CropRounding {
    const NAMES: &'static [(Self, &'static str)] = &[(Self::Even, "even"), (Self::Floor, "floor")];
}

/// How a network wants its pictures, part of the model file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preprocess {
    /// Rows of the network's input.
    pub height: u32,
    /// Pixels per row of the network's input.
    pub width: u32,
    /// The size before the center crop. Where it is smaller than the input, the picture is centered and padded with black
    /// ([`Resize::Contain`]: with the mean colour).
    pub resize: Resize,
    /// The resampling filter.
    pub interpolation: Interpolation,
    /// Where the crop starts.
    pub crop_rounding: CropRounding,
    /// timm's `crop_pct`, the input's part of the resized picture, which [`at_size`](Self::at_size) goes by. `None` where
    /// the proportion of `resize` to the input says as much.
    pub crop_pct: Option<f64>,
    /// Mean of R, G, B in [0, 1].
    pub mean: [f32; 3],
    /// Standard deviation of R, G, B.
    pub std: [f32; 3],
}

/// Why a picture cannot be prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureError {
    /// An edge of the picture, of [`Preprocess::resize`] or of the network's input is zero.
    ZeroSize,
    /// The stride of a plane is less than the bytes of its rows.
    StrideTooShort,
    /// A plane ends before its last row does.
    DataTooShort,
    /// The region is empty, or not all of it is inside the picture.
    Region,
    /// An edge of the picture is longer than 2^24 pixels, or would be longer than 2^31 when resized.
    SizeOutOfRange,
    /// The picture needs more scratch than there is: it is larger than the `max_picture` that the scratch was measured for.
    TooLarge,
    /// The output is not `height * width * 3` bytes of the network's input.
    OutputLength,
}

impl fmt::Display for PictureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroSize => "an edge is zero pixels long",
            Self::StrideTooShort => "the stride is shorter than a row",
            Self::DataTooShort => "the data ends before the last row",
            Self::Region => "the region of interest is empty or not inside the picture",
            Self::SizeOutOfRange => "an edge is too long, before or after resizing",
            Self::TooLarge => "larger than the largest picture announced",
            Self::OutputLength => "the output is not height * width * 3 bytes long",
        })
    }
}

impl core::error::Error for PictureError {}

impl Preprocess {
    /// The same preparation for an input of another size: what pictures are resized to is the new size divided by
    /// [`crop_pct`](Self::crop_pct), or keeps its proportion to the input; both rounded down.
    pub fn at_size(mut self, height: u32, width: u32) -> Self {
        let (own_height, own_width) = (self.height, self.width);
        if (height, width) == (own_height, own_width) {
            return self;
        }
        let scaled = |n: u32, own: u32, new: u32| {
            let n = match self.crop_pct {
                Some(pct) => exact(|| libm::floor(f64::from(new) / pct)) as u64,
                None => u64::from(n) * u64::from(new) / u64::from(own.max(1)),
            };
            n.clamp(1, Picture::MAX_EDGE.into()) as u32
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
        (self.height, self.width) = (height, width);
        self
    }

    /// Bytes of scratch that [`Preprocess::prepare`] needs at most for a picture whose region fits into `max_picture`,
    /// (width, height) or turned by a quarter. None where an edge is zero or longer than [`Picture::MAX_EDGE`], or the
    /// number does not fit.
    pub fn scratch_bytes(&self, max_picture: (u32, u32)) -> Option<usize> {
        let (long, short) = (max_picture.0.max(max_picture.1), max_picture.0.min(max_picture.1));
        if self.height == 0 || self.width == 0 || short == 0 || long > Picture::MAX_EDGE {
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

    /// The f32 that the network sees for each byte, per channel R, G, B: `(byte / 255 - mean) / std`, each step rounded to f32,
    /// as torchvision's ToTensor and Normalize compute it.
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
