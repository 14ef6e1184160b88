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
        let unknown = |text, number: u32| move || Failure::numbers(Status::Value, text, &[number.into()]);
        let format = FORMATS.iter().find(|(number, _)| *number as u32 == self.format);
        let (_, format) = format.ok_or_else(unknown(&["format: ", " is no vitlet_format"], self.format))?;
        let rotation = ROTATIONS.iter().find(|(number, _)| *number as u32 == self.rotation);
        let (_, rotation) = rotation.ok_or_else(unknown(&["rotation: ", " is no vitlet_rotation"], self.rotation))?;
        let yuv = YUVS.iter().find(|(number, _)| *number as u32 == self.yuv);
        let (_, yuv) = yuv.ok_or_else(unknown(&["yuv: ", " is no vitlet_yuv"], self.yuv))?;
        check_edge(self.width, Status::PictureSize, &["width: ", EDGES])?;
        check_edge(self.height, Status::PictureSize, &["height: ", EDGES])?;
        let sizes = format.plane_sizes(self.width, self.height).ok_or(Status::PictureSize)?;
        let mut planes = [Plane::default(); 3];
        for (i, (row_bytes, rows)) in sizes.into_iter().enumerate() {
            let stride = if self.strides[i] == 0 { row_bytes } else { self.strides[i] };
            if stride < row_bytes {
                let text = &["plane ", ": stride ", " is smaller than the ", " bytes of a row"];
                return Err(Failure::numbers(Status::PictureStride, text, &[i, stride, row_bytes].map(|n| n as u64)));
            }
            // Rows, the last one without what follows its pixels. No rows: not a plane of this format.
            let Some(rows_before) = rows.checked_sub(1) else {
                continue;
            };
            let bytes = stride.checked_mul(rows_before).and_then(|skip| skip.checked_add(row_bytes));
            // No memory is as long. Without gaps the picture is too large, and otherwise the gaps are.
            let Some(bytes) = bytes.filter(|&bytes| bytes <= isize::MAX as usize) else {
                let status = if stride == row_bytes { Status::PictureSize } else { Status::PictureStride };
                let text = &["plane ", ": ", " rows with stride ", " are more than memory can be"];
                return Err(Failure::numbers(status, text, &[i, rows, stride].map(|n| n as u64)));
            };
            if self.planes[i].is_null() {
                return Err(Failure::numbers(Status::Null, &["plane ", ": NULL, but this format has it"], &[i as u64]));
            }
            // SAFETY: the caller's promise.
            planes[i] = Plane { data: unsafe { elements(self.planes[i], bytes)? }, stride };
        }
        let (region, width, height) = (self.region()?, self.width, self.height);
        Ok(Picture { format: *format, planes, width, height, region, rotation: *rotation, yuv: *yuv })
    }

    /// None for the whole picture.
    fn region(&self) -> Result<Option<Region>, Failure> {
        let vitlet_region { x, y, width, height } = self.region;
        if x | y | width | height == 0 {
            return Ok(None);
        }
        let fits = |at: u32, len: u32, edge: u32| len > 0 && at.checked_add(len).is_some_and(|end| end <= edge);
        if fits(x, width, self.width) && fits(y, height, self.height) {
            return Ok(Some(Region { x, y, width, height }));
        }
        let text = &["region: ", " x ", " at x ", ", y ", " is empty or not inside the picture of ", " x ", ""];
        let numbers = [width, height, x, y, self.width, self.height].map(u64::from);
        Err(Failure::numbers(Status::PictureRegion, text, &numbers))
    }
}

/// What is wrong with an edge's number, for [`check_edge`].
pub(crate) const EDGES: &str = " is not 1 to 16777216";
const _: () = assert!(Picture::MAX_EDGE == 16_777_216);

/// Whether an edge has a length that pictures may have.
#[inline(never)]
pub(crate) fn check_edge(edge: u32, status: Status, text: &'static [&'static str; 2]) -> Result<(), Failure> {
    match edge {
        1..=Picture::MAX_EDGE => Ok(()),
        _ => Err(Failure::numbers(status, text, &[edge.into()])),
    }
}
