//! The kind of a file, by its first bytes, and the cure for pictures in formats that are not decoded.

/// Bytes from the start of a file that suffice to tell.
pub const HEAD_BYTES: usize = 64;

/// The formats that are decoded, for messages.
pub const DECODED: &str = "JPEG, PNG, WebP and BMP";

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A picture that is decoded.
    Picture(Format),
    /// A picture or document in another format, and a command that converts it.
    Foreign(Foreign),
    /// A file that often bears a picture's name by accident, and why it is there.
    Mistake(&'static str),
    /// Everything else.
    Unknown,
}

/// A format that is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Jpeg,
    Png,
    WebP,
    Bmp,
}

/// A format that is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// As in "HEIC is not supported".
    pub name: &'static str,
    /// What it is converted to.
    to: &'static str,
    /// The command, without the program's options that depend on taste.
    command: &'static str,
    /// Whether a folder of pictures may hold it as a picture: documents and films are left out.
    pub is_picture: bool,
}

impl Format {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
        }
    }
}

impl Foreign {
    const fn picture(name: &'static str, to: &'static str, command: &'static str) -> Self {
        Self { name, to, command, is_picture: true }
    }

    /// Why it is not decoded, and the cure.
    pub fn why(self) -> String {
        format!("{} is not supported; convert it to {}, e.g. {}", self.name, self.to, self.command)
    }
}

const HEIC: Foreign = Foreign::picture("HEIC", "JPEG", "heif-convert a.heic a.jpg");
const AVIF: Foreign = Foreign::picture("AVIF", "PNG", "avifdec a.avif a.png");
const TIFF: Foreign = Foreign::picture("TIFF", "PNG", "magick 'a.tif[0]' a.png");
const RAW: Foreign = Foreign::picture("A camera's raw format", "JPEG", "dcraw -e a.cr3");
const JPEG_XL: Foreign = Foreign::picture("JPEG XL", "PNG", "djxl a.jxl a.png");
const JPEG_2000: Foreign = Foreign::picture("JPEG 2000", "PNG", "opj_decompress -i a.jp2 -o a.png");
const VIDEO: Foreign =
    Foreign { name: "Video", to: "JPEG", command: "ffmpeg -i a.mp4 -frames:v 1 a.jpg", is_picture: false };

/// Formats whose files begin with fixed bytes.
const MAGIC: [(&[u8], Foreign); 18] = [
    (b"GIF8", Foreign::picture("GIF", "PNG", "magick 'a.gif[0]' a.png")),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"II+\0", TIFF),
    (b"MM\0+", TIFF),
    (b"\xff\x0a", JPEG_XL),
    (b"\0\0\0\x0cJXL \r\n\x87\n", JPEG_XL),
    (b"\0\0\0\x0cjP  \r\n\x87\n", JPEG_2000),
    (b"\xff\x4f\xff\x51", JPEG_2000),
    (b"8BPS", Foreign::picture("Photoshop's PSD", "PNG", "magick 'a.psd[0]' a.png")),
    (b"\x76\x2f\x31\x01", Foreign::picture("OpenEXR", "PNG", "magick a.exr a.png")),
    (b"#?RADIANCE", Foreign::picture("Radiance HDR", "PNG", "magick a.hdr a.png")),
    (b"qoif", Foreign::picture("QOI", "PNG", "magick a.qoi a.png")),
    (b"DDS ", Foreign::picture("DDS", "PNG", "magick a.dds a.png")),
    (b"\0\0\x01\0", Foreign::picture("ICO", "PNG", "magick 'a.ico[0]' a.png")),
    (b"%PDF-", Foreign { name: "PDF", to: "PNG", command: "pdftoppm -png a.pdf a", is_picture: false }),
    (b"\x1a\x45\xdf\xa3", VIDEO),
    (b"<svg", Foreign { name: "SVG", to: "PNG", command: "rsvg-convert a.svg -o a.png", is_picture: true }),
];

/// Files that are no pictures and often stand where pictures should.
const MISTAKES: [(&[u8], &str); 6] = [
    (b"version https://git-lfs", "a git-LFS pointer, not the picture itself: fetch it with `git lfs pull`"),
    (b"<!doctype html", "an HTML page, not a picture: its download went wrong"),
    (b"<html", "an HTML page, not a picture: its download went wrong"),
    (b"pk\x03\x04", "a zip archive, not a picture: unpack it"),
    (b"\x1f\x8b", "a gzip archive, not a picture: unpack it"),
    (b"\0\x05\x16\x07", "a macOS resource fork, not a picture"),
];

impl Kind {
    /// Tells from the first [`HEAD_BYTES`] of a file, or all of a shorter one.
    pub fn of(head: &[u8]) -> Self {
        if let Some(format) = decoded(head) {
            return Self::Picture(format);
        }
        if let Some(foreign) = media_container(head) {
            return Self::Foreign(foreign);
        }
        if let Some((_, foreign)) = MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
            return Self::Foreign(*foreign);
        }
        if is_netpbm(head) {
            return Self::Foreign(Foreign::picture("Netpbm", "PNG", "magick a.ppm a.png"));
        }
        let text = head.trim_ascii_start().to_ascii_lowercase();
        let mistake = MISTAKES.iter().find(|(magic, _)| text.starts_with(magic));
        mistake.map_or(Self::Unknown, |(_, why)| Self::Mistake(why))
    }

    /// Whether a folder of pictures offers such a file as one of them.
    pub fn is_picture(self) -> bool {
        match self {
            Self::Picture(_) => true,
            Self::Foreign(foreign) => foreign.is_picture,
            Self::Mistake(_) | Self::Unknown => false,
        }
    }

    /// The format, or why such a file is not decoded.
    pub fn decodable(self) -> Result<Format, String> {
        match self {
            Self::Picture(format) => Ok(format),
            Self::Foreign(foreign) => Err(foreign.why()),
            Self::Mistake(why) => Err(why.to_string()),
            Self::Unknown => Err(format!("not a picture: {DECODED} are supported")),
        }
    }
}

fn decoded(head: &[u8]) -> Option<Format> {
    if head.starts_with(b"\xff\xd8\xff") {
        return Some(Format::Jpeg);
    }
    if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Some(Format::Png);
    }
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        return Some(Format::WebP);
    }
    (head.starts_with(b"BM") && is_bitmap(head)).then_some(Format::Bmp)
}

/// Two letters are not enough to tell a bitmap from a text: its header's size is one of few.
fn is_bitmap(head: &[u8]) -> bool {
    let header = head.get(14..18).map(|size| u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
    matches!(header, Some(12 | 16 | 40 | 52 | 56 | 64 | 108 | 124))
}

/// ISO base media files: `[length, "ftyp", major brand, version, compatible brands ...]`.
fn media_container(head: &[u8]) -> Option<Foreign> {
    if head.get(4..8)? != b"ftyp" {
        return None;
    }
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let brands = &head[8..length.clamp(8, head.len())];
    let has = |known: &[&[u8; 4]]| brands.as_chunks::<4>().0.iter().any(|brand| known.contains(&brand));
    Some(if has(&[b"avif", b"avis"]) {
        AVIF
    } else if has(&[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"]) {
        HEIC
    } else if has(&[b"crx "]) {
        RAW
    } else {
        VIDEO
    })
}

/// `P1` to `P6` before white space and a number, or `P7` before a line's end.
fn is_netpbm(head: &[u8]) -> bool {
    match head {
        [b'P', b'1'..=b'6', space, rest @ ..] => {
            space.is_ascii_whitespace()
                && rest.trim_ascii_start().first().is_some_and(|c| c.is_ascii_digit() || *c == b'#')
        }
        [b'P', b'7', b'\n', ..] => true,
        _ => false,
    }
}

/// Endings of picture names, for formats that are decoded and for formats that are not.
const EXTENSIONS: [&str; 29] = [
    "jpg", "jpeg", "jpe", "jfif", "jif", "png", "apng", "webp", "bmp", "dib", "gif", "tif", "tiff", "heic", "heif",
    "hif", "avif", "jxl", "jp2", "j2k", "jpf", "psd", "exr", "hdr", "qoi", "ico", "cr3", "ppm", "pgm",
];

/// Whether a name ends as pictures' names do.
pub fn is_pictures_name(name: &std::path::Path) -> bool {
    name.extension().is_some_and(|e| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        let ftyp = |brands: &[u8]| {
            let length = u32::try_from(8 + brands.len()).unwrap();
            [&length.to_be_bytes()[..], b"ftyp", brands].concat()
        };
        let name = |bytes: &[u8]| match Kind::of(bytes) {
            Kind::Foreign(foreign) => foreign.name,
            Kind::Picture(format) => format.name(),
            other => panic!("{other:?}"),
        };
        assert_eq!(name(b"\xff\xd8\xff\xe0\0"), "JPEG");
        assert_eq!(name(b"RIFF\x10\0\0\0WEBPVP8 "), "WebP");
        assert_eq!(name(b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0"), "BMP");
        assert_eq!(name(b"II*\0\x08\0\0\0"), "TIFF");
        assert_eq!(name(&ftyp(b"heic\0\0\0\0mif1heic")), "HEIC");
        assert_eq!(name(&ftyp(b"mif1\0\0\0\0mif1avifmiaf")), "AVIF", "the compatible brands decide");
        assert_eq!(name(&ftyp(b"isom\0\0\x02\0isomiso2")), "Video");
        assert_eq!(name(b"\0\0\0\x0cJXL \r\n\x87\n"), "JPEG XL");
        assert_eq!(name(b"P6\n640 480\n255\n"), "Netpbm");
        for unknown in [&b""[..], b"BMW and other cars\nare no bitmaps", b"P5 and so on", b"RIFF\x10\0\0\0WAVE", b"\0"]
        {
            assert_eq!(Kind::of(unknown), Kind::Unknown, "{unknown:?}");
        }
    }

    #[test]
    fn other_formats_come_with_a_cure() {
        let why = |bytes: &[u8]| Kind::of(bytes).decodable().unwrap_err();
        assert_eq!(why(b"GIF89a"), "GIF is not supported; convert it to PNG, e.g. magick 'a.gif[0]' a.png");
        assert!(why(b"\n<!DOCTYPE HTML><title>404").contains("an HTML page"));
        assert!(why(b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
        assert!(why(b"hello").contains(DECODED));
    }

    #[test]
    fn names_of_pictures_end_in_many_ways() {
        assert!(["a.JPG", "a.jfif", "b.jpe", "c.HEIC"].iter().all(|name| is_pictures_name(Path::new(name))));
        assert!(["a", "a.txt", "jpg", ".jpg"].iter().all(|name| !is_pictures_name(Path::new(name))));
    }
}
