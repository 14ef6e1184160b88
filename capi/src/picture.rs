//! Pictures as C has them.

use engine::{Format, Picture, Plane, Region, Rotation, Yuv};

use crate::error::Failure;
use crate::pointers::elements;
use crate::status::vitlet_status as Status;
use crate::versions::Versioned;

/// How pixels lie in memory. In the last three formats a chroma value belongs to two pixels of a row, or to 2 x 2
/// pixels, and is repeated for them.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum vitlet_format {
    /// R, G, B.
    Rgb8 = 0,
    /// B, G, R, as OpenCV has it.
    Bgr8,
    /// R, G, B and a byte that is ignored.
    Rgba8,
    /// One byte, repeated for R, G and B.
    Gray8,
    /// Y U Y V for two pixels (V4L2's YUYV).
    Yuyv,
    /// A plane of Y, and one of U V pairs with half as many rows.
    Nv12,
    /// Planes of Y, U and V; the planes of U and V are half as wide and half as high.
    I420,
}

/// How far a picture is turned clockwise before the network sees it.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum vitlet_rotation {
    /// Not at all.
    None = 0,
    /// A quarter turn clockwise.
    Clockwise90 = 90,
    /// Upside down.
    Clockwise180 = 180,
    /// A quarter turn counterclockwise.
    Clockwise270 = 270,
}

/// The meaning of Y, U and V: the matrix, and the range. In limited range black is 16 and white is 235; in full range
/// they are 0 and 255.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum vitlet_yuv {
    /// ITU-R BT.601: most cameras, unless told otherwise.
    Bt601 = 0,
    /// BT.601 with full range, as in JPEG files.
    Bt601Full,
    /// BT.709: high definition video.
    Bt709,
    /// BT.709 with full range.
    Bt709Full,
}

/// A picture. Zeros are good defaults for all but format, size and the first plane.
#[repr(C)]
pub struct vitlet_picture {
    /// sizeof(vitlet_picture), or 0 for the fields of version 1.
    pub size: usize,
    /// A vitlet_format.
    pub format: u32,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The first byte of each plane: one, two (NV12) or three (I420).
    pub planes: [*const u8; 3],
    /// Bytes from the start of a row to the start of the next, for each plane; 0 for rows without gaps.
    pub strides: [usize; 3],
    /// The part that the network looks at, before it is turned; all zero for the whole picture.
    pub region: vitlet_region,
    /// A vitlet_rotation: degrees clockwise.
    pub rotation: u32,
    /// A vitlet_yuv, for the formats with luma and chroma.
    pub yuv: u32,
}

/// A rectangle of pixels.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vitlet_region {
    /// Pixels to the left of it.
    pub x: u32,
    /// Rows above it.
    pub y: u32,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

const FORMATS: [(vitlet_format, Format); 7] = [
    (vitlet_format::Rgb8, Format::Rgb8),
    (vitlet_format::Bgr8, Format::Bgr8),
    (vitlet_format::Rgba8, Format::Rgba8),
    (vitlet_format::Gray8, Format::Gray8),
    (vitlet_format::Yuyv, Format::Yuyv),
    (vitlet_format::Nv12, Format::Nv12),
    (vitlet_format::I420, Format::I420),
];

const ROTATIONS: [(vitlet_rotation, Rotation); 4] = [
    (vitlet_rotation::None, Rotation::None),
    (vitlet_rotation::Clockwise90, Rotation::Quarter),
    (vitlet_rotation::Clockwise180, Rotation::Half),
    (vitlet_rotation::Clockwise270, Rotation::ThreeQuarters),
];

const YUVS: [(vitlet_yuv, Yuv); 4] = [
    (vitlet_yuv::Bt601, Yuv::Bt601),
    (vitlet_yuv::Bt601Full, Yuv::Bt601Full),
    (vitlet_yuv::Bt709, Yuv::Bt709),
    (vitlet_yuv::Bt709Full, Yuv::Bt709Full),
];

// SAFETY: numbers and pointers, the size first; a multiple of their alignment.
unsafe impl Versioned for vitlet_picture {}

impl vitlet_picture {
    /// # Safety
    /// The planes hold the rows that format, size and strides ask for, not written for `'a`.
    pub(crate) unsafe fn borrow<'a>(&self) -> Result<Picture<'a>, Failure> {
        let find_format = FORMATS.iter().find(|(number, _)| *number as u32 == self.format);
        let find_rotation = ROTATIONS.iter().find(|(number, _)| *number as u32 == self.rotation);
        let find_yuv = YUVS.iter().find(|(number, _)| *number as u32 == self.yuv);
        let (Some((_, format)), Some((_, rotation)), Some((_, yuv))) = (find_format, find_rotation, find_yuv) else {
            let why = "format, rotation or yuv: a number that is not one of its enum";
            return Err(Failure::Because(Status::Value, why));
        };
        let edge = 1..=Picture::MAX_EDGE;
        if !edge.contains(&self.width) || !edge.contains(&self.height) {
            return Err(Status::PictureSize.into());
        }
        let sizes = format.plane_sizes(self.width, self.height).ok_or(Status::PictureSize)?;
        let mut planes = [Plane::default(); 3];
        for (i, (row_bytes, rows)) in sizes.into_iter().enumerate() {
            let stride = if self.strides[i] == 0 { row_bytes } else { self.strides[i] };
            if stride < row_bytes {
                return Err(Status::PictureStride.into());
            }
            // Rows, the last one without what follows its pixels. No rows: not a plane of this format.
            let Some(rows_before) = rows.checked_sub(1) else {
                continue;
            };
            let bytes = stride.checked_mul(rows_before).and_then(|skip| skip.checked_add(row_bytes));
            // No memory is as long. Without gaps the picture is too large, and otherwise the gaps are.
            let too_long = if stride == row_bytes { Status::PictureSize } else { Status::PictureStride };
            let bytes = bytes.filter(|&bytes| bytes <= isize::MAX as usize).ok_or(too_long)?;
            // SAFETY: the caller's promise.
            planes[i] = Plane { data: unsafe { elements(self.planes[i], bytes)? }, stride };
        }
        let vitlet_region { x, y, width, height } = self.region;
        let region = (self.region_is_given()).then_some(Region { x, y, width, height });
        let (width, height) = (self.width, self.height);
        Ok(Picture { format: *format, planes, width, height, region, rotation: *rotation, yuv: *yuv })
    }

    fn region_is_given(&self) -> bool {
        let vitlet_region { x, y, width, height } = self.region;
        x | y | width | height != 0
    }
}
