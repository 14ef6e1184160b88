//! A picture as the caller has it: its pixel format, planes, region of interest, and rotation.

use crate::config::{MAX_EDGE, Named};
use crate::error::PictureError;

/// How pixels lie in memory.
///
/// Cameras and video decoders give the luma and chroma formats; a chroma value belongs to two pixels of a row
/// (`Yuyv`) or for 2 x 2 pixels, and is repeated, not interpolated. An odd width or height has chroma for the half pair
/// at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// R, G, B.
    Rgb8,
    /// B, G, R, as OpenCV has it.
    Bgr8,
    /// R, G, B and a byte that is ignored.
    Rgba8,
    /// One byte, repeated for R, G and B.
    Gray8,
    /// One plane, Y U Y V for two pixels (V4L2's `YUYV`).
    Yuyv,
    /// A plane of Y, and one of U V pairs with half as many rows.
    Nv12,
    /// Planes of Y, U and V; the last two half as wide and half as high (`rpicam-vid --codec yuv420`).
    I420,
}

impl Named for Format {
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self::Rgb8, "rgb"),
        (Self::Bgr8, "bgr"),
        (Self::Rgba8, "rgba"),
        (Self::Gray8, "gray"),
        (Self::Yuyv, "yuyv"),
        (Self::Nv12, "nv12"),
        (Self::I420, "i420"),
    ];
}

impl Format {
    /// Bytes of a row and the number of rows, for each plane of a picture of this size; `(0, 0)` where there is no such
    /// plane. None where a number does not fit.
    pub fn plane_sizes(self, width: u32, height: u32) -> Option<[(usize, usize); 3]> {
        const NONE: (usize, usize) = (0, 0);
        let (w, h) = (width as usize, height as usize);
        let (half_w, half_h) = (w.div_ceil(2), h.div_ceil(2));
        Some(match self {
            Self::Rgb8 | Self::Bgr8 => [(w.checked_mul(3)?, h), NONE, NONE],
            Self::Rgba8 => [(w.checked_mul(4)?, h), NONE, NONE],
            Self::Gray8 => [(w, h), NONE, NONE],
            Self::Yuyv => [(half_w.checked_mul(4)?, h), NONE, NONE],
            Self::Nv12 => [(w, h), (half_w.checked_mul(2)?, half_h), NONE],
            Self::I420 => [(w, h), (half_w, half_h), (half_w, half_h)],
        })
    }

    /// Bytes of a picture whose planes follow one another without gaps, as [`Picture::frame`] takes it; None where the
    /// number does not fit.
    pub fn frame_bytes(self, width: u32, height: u32) -> Option<usize> {
        let planes = self.plane_sizes(width, height)?;
        planes.iter().try_fold(0_usize, |sum, (row, rows)| sum.checked_add(row.checked_mul(*rows)?))
    }
}

/// Rows of bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plane<'a> {
    /// The rows, top to bottom. The last one may end with its last pixel.
    pub data: &'a [u8],
    /// Bytes from the start of one row to the start of the next.
    pub stride: usize,
}

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Pixels to the left of it.
    pub x: u32,
    /// Rows above it.
    pub y: u32,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// By how much a picture is turned clockwise before the network sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    /// Not at all.
    #[default]
    None,
    /// 90 degrees, as EXIF's orientation 6 asks for.
    Quarter,
    /// 180 degrees: EXIF's 3.
    Half,
    /// 270 degrees: EXIF's 8.
    ThreeQuarters,
}

/// What Y, U and V mean: the matrix (ITU-R BT.601-7 or BT.709-6), and whether black and white are 16 and 235 (limited)
/// or 0 and 255 (full).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Yuv {
    /// Standard definition, and most cameras unless told otherwise.
    #[default]
    Bt601,
    /// BT.601 with full range: JPEG files, and webcams that send MJPEG.
    Bt601Full,
    /// High definition video.
    Bt709,
    /// BT.709 with full range.
    Bt709Full,
}

impl Named for Yuv {
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self::Bt601, "bt601"),
        (Self::Bt601Full, "bt601-full"),
        (Self::Bt709, "bt709"),
        (Self::Bt709Full, "bt709-full"),
    ];
}

/// A picture borrowed from the caller.
///
/// [`Picture::rgb8`] and [`Picture::frame`] make one; a part of it, or another rotation, is a changed field:
/// `Picture { rotation: Rotation::Half, ..Picture::frame(Format::Nv12, &frame, 1920, 1080) }`.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// How pixels lie in memory.
    pub format: Format,
    /// As many as the format has; the others are ignored.
    pub planes: [Plane<'a>; 3],
    /// Pixels per row, 1 to 2^24.
    pub width: u32,
    /// Rows, 1 to 2^24.
    pub height: u32,
    /// The part of the picture that is looked at, before it is turned; None for all of it.
    pub region: Option<Region>,
    /// Which way is up.
    pub rotation: Rotation,
    /// For the formats with luma and chroma.
    pub yuv: Yuv,
}

impl<'a> Picture<'a> {
    /// The longest edge, in pixels.
    pub const MAX_EDGE: u32 = MAX_EDGE;

    /// `height` rows of `stride` bytes, of which the first `3 * width` are R, G, B, R, G, B, ... The last row may end
    /// after `3 * width` bytes.
    pub const fn rgb8(data: &'a [u8], width: u32, height: u32, stride: usize) -> Self {
        const EMPTY: Plane<'_> = Plane { data: &[], stride: 0 };
        Self {
            format: Format::Rgb8,
            planes: [Plane { data, stride }, EMPTY, EMPTY],
            width,
            height,
            region: None,
            rotation: Rotation::None,
            yuv: Yuv::Bt601,
        }
    }

    /// A frame of [`Format::frame_bytes`] bytes, as a camera or a pipe delivers it: plane after plane, row after row
    /// without gaps.
    pub fn frame(format: Format, data: &'a [u8], width: u32, height: u32) -> Self {
        let mut rest = data;
        let planes = format.plane_sizes(width, height).unwrap_or_default().map(|(stride, rows)| {
            // A frame that is too short leaves a plane that is too short: `check` refuses it.
            let (data, after) = rest.split_at(stride.saturating_mul(rows).min(rest.len()));
            rest = after;
            Plane { data, stride }
        });
        Self { format, planes, ..Self::rgb8(&[], width, height, 0) }
    }

    /// The part of the picture that is looked at.
    pub(crate) fn region(&self) -> Region {
        self.region.unwrap_or(Region { x: 0, y: 0, width: self.width, height: self.height })
    }

    /// (width, height) of the part that the network sees, before resizing.
    pub fn seen(&self) -> (u32, u32) {
        let Region { width, height, .. } = self.region();
        match self.rotation {
            Rotation::None | Rotation::Half => (width, height),
            Rotation::Quarter | Rotation::ThreeQuarters => (height, width),
        }
    }

    pub(crate) fn check(&self) -> Result<(), PictureError> {
        if self.width == 0 || self.height == 0 {
            return Err(PictureError::ZeroSize);
        }
        if self.width > Self::MAX_EDGE || self.height > Self::MAX_EDGE {
            return Err(PictureError::SizeOutOfRange);
        }
        let sizes = self.format.plane_sizes(self.width, self.height).ok_or(PictureError::SizeOutOfRange)?;
        for (plane, (row_bytes, rows)) in self.planes.iter().zip(sizes) {
            plane.check(row_bytes, rows)?;
        }
        let Region { x, y, width, height } = self.region();
        let fits = |at: u32, len: u32, edge: u32| len > 0 && at.checked_add(len).is_some_and(|end| end <= edge);
        if fits(x, width, self.width) && fits(y, height, self.height) { Ok(()) } else { Err(PictureError::Region) }
    }
}

impl Plane<'_> {
    fn check(&self, row_bytes: usize, rows: usize) -> Result<(), PictureError> {
        let Some(rows_before) = rows.checked_sub(1) else {
            return Ok(());
        };
        if self.stride < row_bytes {
            return Err(PictureError::StrideTooShort);
        }
        match self.stride.checked_mul(rows_before).and_then(|skip| skip.checked_add(row_bytes)) {
            Some(needed) if needed <= self.data.len() => Ok(()),
            _ => Err(PictureError::DataTooShort),
        }
    }
}
