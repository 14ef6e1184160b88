//! The format of frames in a stream without headers: `FORMAT:WIDTHxHEIGHT[:STRIDE]`.

use std::fmt;
use std::str::FromStr;

use vitlet::{Format, Named, Picture, Plane};

/// Longer edges are a slip of the keyboard.
const LONGEST_EDGE: u32 = 16_384;
/// Bytes of the longest row: four for each pixel, and as many again as padding.
const LONGEST_ROW: usize = 8 * LONGEST_EDGE as usize;

/// ffmpeg's and rpicam-apps' names for formats, and the engine's.
const ALIASES: [(&str, &str); 4] = [("rgb24", "rgb"), ("bgr24", "bgr"), ("yuv420p", "i420"), ("yuv420", "i420")];

/// Bytes to which cameras and video hardware pad rows, the likeliest first.
const ALIGNMENTS: [usize; 6] = [64, 32, 128, 256, 16, 512];

/// What the frames of a stream are: `FORMAT:WIDTHxHEIGHT[:STRIDE]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RawFormat {
    format: Format,
    width: u32,
    height: u32,
    /// Bytes from the start of one row of the first plane to the next; without it, rows follow one another. Rows of
    /// nv12's second plane are as far apart, those of i420's second and third half as far.
    stride: Option<usize>,
    bytes: usize,
}

impl FromStr for RawFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (format, size) = text.split_once(':').ok_or("FORMAT:WIDTHxHEIGHT, such as i420:640x480")?;
        let (size, stride) = size.split_once(':').map_or((size, None), |(size, stride)| (size, Some(stride)));
        let own_name = ALIASES.iter().find(|(alias, _)| *alias == format).map_or(format, |&(_, name)| name);
        let format = Format::from_name(own_name).ok_or_else(|| {
            let known: Vec<_> = Format::NAMES.iter().map(|&(_, name)| name).collect();
            format!("formats are {}", known.join(", "))
        })?;
        let edge = |text: &str| text.parse().ok().filter(|edge| (1..=LONGEST_EDGE).contains(edge));
        let size = size.split_once('x').and_then(|(width, height)| edge(width).zip(edge(height)));
        let (width, height) = size.ok_or(format!("a size is WIDTHxHEIGHT, each 1 to {LONGEST_EDGE}"))?;
        let tight = Self { format, width, height, stride: None, bytes: 0 };
        let row = tight.planes()[0].0;
        let stride = match stride.map(str::parse) {
            None => None,
            Some(Ok(stride))
                if (row..=LONGEST_ROW).contains(&stride) && !(format == Format::I420 && stride % 2 == 1) =>
            {
                Some(stride)
            }
            Some(_) => {
                let even = if format == Format::I420 { ", even since chroma rows have half of it" } else { "" };
                return Err(format!("a stride is the bytes of a row of the first plane, {row} to {LONGEST_ROW}{even}"));
            }
        };
        Ok(tight.with_stride(stride))
    }
}

/// As `--raw` takes it.
impl fmt::Display for RawFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}x{}", self.name(), self.width, self.height)?;
        self.stride.map_or(Ok(()), |stride| write!(f, ":{stride}"))
    }
}

impl RawFormat {
    /// What a camera is asked for that gives any size: its rows need no padding.
    pub const I420_640X480: Self =
        Self { format: Format::I420, width: 640, height: 480, stride: None, bytes: 640 * 480 * 3 / 2 };

    /// Bytes of a frame.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Width and height.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Whether they are I420, the only raw frames that rpicam-vid writes.
    pub fn is_i420(&self) -> bool {
        self.format == Format::I420
    }

    /// The same pictures with rows that lie this far apart.
    fn with_stride(self, stride: Option<usize>) -> Self {
        let frames = Self { stride, ..self };
        Self { bytes: frames.planes().iter().map(|(stride, rows)| stride * rows).sum(), ..frames }
    }

    /// Stride and rows of each plane.
    fn planes(&self) -> [(usize, usize); 3] {
        // The edges' limit leaves room in every number.
        let mut planes = self.format.plane_sizes(self.width, self.height).unwrap_or_default();
        if let Some(stride) = self.stride {
            let strides = if self.format == Format::I420 { [stride, stride / 2, stride / 2] } else { [stride; 3] };
            planes
                .iter_mut()
                .zip(strides)
                .filter(|(plane, _)| plane.1 > 0)
                .for_each(|(plane, stride)| plane.0 = stride);
        }
        planes
    }

    /// The picture that the bytes of a frame are.
    pub fn picture<'b>(&self, bytes: &'b [u8]) -> Picture<'b> {
        let mut rest = bytes;
        let planes = self.planes().map(|(stride, rows)| {
            let (data, after) = rest.split_at(stride * rows);
            rest = after;
            Plane { data, stride }
        });
        Picture { planes, ..Picture::frame(self.format, &[], self.width, self.height) }
    }

    /// The format's name.
    pub fn name(&self) -> &'static str {
        Format::NAMES.iter().find(|(format, _)| *format == self.format).map_or("", |(_, name)| name)
    }

    /// The name that ffmpeg has for the format.
    pub fn ffmpeg_name(&self) -> &'static str {
        match self.format {
            Format::Yuyv => "yuyv422",
            _ => ALIASES.iter().find(|(_, name)| *name == self.name()).map_or(self.name(), |(alias, _)| alias),
        }
    }

    /// The same pictures with rows that follow one another.
    pub fn tight(self) -> Self {
        self.with_stride(None)
    }

    /// The same frames with rows padded as a camera may have padded them, the likeliest first.
    fn padded(&self) -> impl Iterator<Item = Self> {
        let row = self.planes()[0].0;
        let strides = ALIGNMENTS.map(|alignment| row.next_multiple_of(alignment));
        strides.into_iter().filter(move |stride| *stride > row).map(|stride| self.with_stride(Some(stride)))
    }

    /// A doubt about rows whose width cameras pad, before the first frame.
    pub fn doubt(&self) -> Option<String> {
        let camera = matches!(self.format, Format::I420 | Format::Nv12);
        let padded =
            self.padded().next().filter(|_| camera && self.stride.is_none() && !self.width.is_multiple_of(64))?;
        Some(format!(
            "cameras pad rows of {} pixels: if frames are skewed or the answers wrong, try --raw {}, or a width that is a \
             multiple of 64",
            self.width, padded
        ))
    }

    /// Which stride makes whole frames of all `bytes` of a stream.
    pub fn fit(&self, bytes: u64) -> Option<String> {
        let whole = |frames: &Self| bytes.is_multiple_of(frames.bytes as u64);
        let fits = self.padded().find(whole).filter(|_| self.stride.is_none())?;
        Some(format!("with padded rows, --raw {fits}, it is {} whole frames", bytes / fits.bytes as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_described_by_format_and_size() {
        let frames: RawFormat = "i420:640x480".parse().unwrap();
        assert_eq!((frames.width, frames.height, frames.bytes), (640, 480, 460_800));
        assert_eq!("rgb24:4x4".parse::<RawFormat>(), "rgb:4x4".parse());
        assert_eq!("gray:3x2".parse::<RawFormat>().unwrap().bytes, 6);
        for (padded, bytes) in [
            ("i420:100x64:128", 128 * 64 + 2 * 64 * 32),
            ("i420:99x63:128", 128 * 63 + 2 * 64 * 32),
            ("nv12:100x64:128", 128 * 64 + 128 * 32),
            ("rgb:100x64:320", 320 * 64),
            ("yuyv:3x2:8", 16),
        ] {
            let frames: RawFormat = padded.parse().unwrap();
            assert_eq!((frames.bytes, frames.to_string()), (bytes, padded.to_string()));
        }
        for wrong in ["i420:100x64:99", "i420:100x64:101", "rgb:100x64:299", "gray:4x4:x", "gray:4x4:", "gray:4x4:9:9"]
        {
            assert!(wrong.parse::<RawFormat>().unwrap_err().starts_with("a stride is"), "{wrong}");
        }
        for wrong in ["i420", "i420:640", "h264:640x480", "i420:0x480", "i420:640x99999", "i420:-1x2", ""] {
            assert!(wrong.parse::<RawFormat>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn padded_rows_are_suspected() {
        let frames = |text: &str| text.parse::<RawFormat>().unwrap();
        assert!(frames("i420:100x64").doubt().unwrap().contains("--raw i420:100x64:128"));
        for sure in ["i420:640x480", "i420:100x64:128", "rgb:100x64"] {
            assert_eq!(frames(sure).doubt(), None, "{sure}");
        }
        let fit = frames("i420:100x64").fit(5 * frames("i420:100x64:128").bytes as u64).unwrap();
        assert_eq!(fit, "with padded rows, --raw i420:100x64:128, it is 5 whole frames");
        let fit = frames("rgb:90x64").fit(3 * frames("rgb:90x64:288").bytes as u64).unwrap();
        assert!(fit.contains("--raw rgb:90x64:288, it is 3"), "{fit}");
        assert_eq!(frames("i420:100x64").fit(12_345), None);
    }
}
