//! The bytes of a picture's file become RGB8, as Pillow 13 does it with `convert("RGB")`: alpha is dropped, gray
//! repeated, 16 bits lose their low byte, and 16 bits of gray alone are clipped at 255. The EXIF orientation, which
//! Pillow leaves to its caller, is applied.
//!
//! Files come from anywhere, so nothing here trusts them. What a header promises is compared with limits before memory
//! is taken, and a decoder that panics has failed on one picture, no more.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Cursor;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use super::kind::{Format, HEAD_BYTES, Kind};
use super::memory::{self, Share};
use super::{Rgb8, jpeg, webp};

/// Pixels of the largest picture that is decoded: Pillow's limit.
pub const MAX_PIXELS: u64 = 178_956_970;
/// Bytes that a decoder may take for one row and for metadata, such as colour profiles.
const MAX_METADATA: u64 = 64 << 20;
/// A JPEG whose end is not marked is whole if it does not need so many of its last bytes.
const JPEG_TAIL: usize = 8;
/// What a person can do with a picture that is too large.
const SHRINK: &str = "make it smaller, e.g. magick a.jpg -resize 4096x4096 b.jpg";

/// Decodes the bytes of a picture's file.
pub fn decode(bytes: &[u8]) -> Result<Rgb8, String> {
    if bytes.is_empty() {
        return Err("empty file".to_string());
    }
    let format = Kind::of(&bytes[..bytes.len().min(HEAD_BYTES)]).decodable()?;
    catching(format, || match format {
        Format::Jpeg => decode_jpeg(bytes),
        Format::WebP => {
            let chunks = webp::chunks(bytes)?;
            let content = Content { largest_frame: chunks.largest_frame, buffer: 4, ..Content::default() };
            decode_as(format, &bytes[..chunks.end], content)
        }
        Format::Png => decode_as(format, bytes, png_content(bytes)),
        Format::Bmp => decode_as(format, bytes, Content::default()),
    })
}

/// The first picture in the file. Where its end is not marked, it is whole only if the last bytes make no difference:
/// they belong to what follows it then.
fn decode_jpeg(bytes: &[u8]) -> Result<Rgb8, String> {
    const TRUNCATED: &str = "truncated JPEG";
    let extent = jpeg::extent(bytes).ok_or(TRUNCATED)?;
    // Coefficients of 16 bits. Every block of 64 has at least a bit.
    let (buffer, most_pixels) = (2 * u64::from(extent.buffered), 8 * 64 * extent.end as u64);
    let content = Content { buffer, most_pixels, ..Content::default() };
    if extent.marked {
        return decode_as(Format::Jpeg, &bytes[..extent.end], content);
    }
    let ended_at = |end: usize| decode_as(Format::Jpeg, &[&bytes[..end], b"\xff\xd9"].concat(), content);
    let digest = |picture: &Rgb8| {
        let mut hasher = DefaultHasher::new();
        picture.data.hash(&mut hasher);
        hasher.finish()
    };
    let without_tail = ended_at(extent.end.saturating_sub(JPEG_TAIL)).map(|picture| digest(&picture));
    let without_tail = without_tail.map_err(|why| truncated_or(why, TRUNCATED))?;
    let picture = ended_at(extent.end)?;
    if digest(&picture) == without_tail { Ok(picture) } else { Err(TRUNCATED.to_string()) }
}

/// Why a JPEG could not be decoded without its last bytes: it is too large, or else those bytes were needed.
fn truncated_or(why: String, truncated: &str) -> String {
    if why.contains(TOO_LARGE) { why } else { truncated.to_string() }
}

const TOO_LARGE: &str = "too large to decode";

/// What is known of a file before its decoder is asked.
#[derive(Clone, Copy)]
struct Content {
    /// Pixels of a frame, where one may be larger than the picture.
    largest_frame: u64,
    /// Bytes for each pixel that the decoder takes besides its output.
    buffer: u64,
    /// Pixels that the file has bytes for, at the most that its format can compress.
    most_pixels: u64,
    /// Whether pixels have alpha of their own. A PNG without may name one value transparent, which decodes to alpha,
    /// too.
    alpha: bool,
}

impl Default for Content {
    fn default() -> Self {
        Self { largest_frame: 0, buffer: 0, most_pixels: u64::MAX, alpha: true }
    }
}

/// What a PNG's header says. Deflate makes 1032 bytes of one at most.
fn png_content(bytes: &[u8]) -> Content {
    let Some(&[depth, color]) = bytes.get(24..26) else { return Content { most_pixels: 0, ..Content::default() } };
    let channels = match color {
        2 => 3,
        4 => 2,
        6 => 4,
        _ => 1,
    };
    let most_pixels = 8 * 1032 * bytes.len() as u64 / (u64::from(depth) * channels).max(1);
    Content { most_pixels, alpha: matches!(color, 4 | 6), ..Content::default() }
}

/// Decodes `bytes`, which are of this format.
fn decode_as(format: Format, bytes: &[u8], content: Content) -> Result<Rgb8, String> {
    let name = format.name();
    let explain = |e: ImageError| match e {
        ImageError::Unsupported(_) => {
            format!("this kind of {name} is not supported; save it again as a plain JPEG or PNG")
        }
        ImageError::Limits(_) => format!("this {name} is {TOO_LARGE}: a row or its metadata takes more than 64 MiB"),
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => format!("truncated {name}"),
        other if other.to_string().contains("too large") => format!("this {name} is {TOO_LARGE}: {other}"),
        other => format!("broken {name}: {other}"),
    };
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_METADATA);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), image_format(format));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(explain)?;
    let orientation = decoder.orientation().map_err(explain)?;
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    let (file, decoded) = (bytes.len() as u64, decoder.total_bytes());
    let promise = Promise { name, width, height, file, decoded, orientation, content };
    let (mut share, mut data) = zeroed_share(promise.memory(memory::limit())?, promise.decoded)?;
    decoder.read_image(&mut data).map_err(explain)?;
    let clipped = color == ColorType::L16 || (color == ColorType::La16 && !content.alpha);
    let data = to_rgb8(data, color, clipped, width as usize * height as usize)?;
    let picture = RgbImage::from_raw(width, height, data).ok_or("broken sizes")?;
    let mut picture = DynamicImage::ImageRgb8(picture);
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width(), picture.height());
    let data = picture.into_rgb8().into_raw();
    share.shrink(data.capacity() as u64);
    Ok(Rgb8 { data, width, height, clipped, _memory: share })
}

fn image_format(format: Format) -> ImageFormat {
    match format {
        Format::Jpeg => ImageFormat::Jpeg,
        Format::Png => ImageFormat::Png,
        Format::WebP => ImageFormat::WebP,
        Format::Bmp => ImageFormat::Bmp,
    }
}

/// What the header says, before any of it is believed.
struct Promise {
    name: &'static str,
    width: u32,
    height: u32,
    /// Bytes of the file.
    file: u64,
    /// Bytes that the decoder writes.
    decoded: u64,
    orientation: Orientation,
    content: Content,
}

impl Promise {
    /// Bytes that decoding takes, or why it is not done.
    fn memory(&self, limit: u64) -> Result<u64, String> {
        let Self { name, width, height, .. } = self;
        let pixels = (u64::from(*width) * u64::from(*height)).max(self.content.largest_frame);
        let refuse =
            |why: String| Err(format!("this {name} of {width} x {height} pixels is {TOO_LARGE}: {why}; {SHRINK}"));
        if pixels > MAX_PIXELS {
            return refuse(format!("more than {} million pixels", MAX_PIXELS / 1_000_000));
        }
        let rgb8 = 3 * pixels;
        let converted = if self.decoded < rgb8 { rgb8 } else { 0 };
        let turned = if turns_edges(self.orientation) { rgb8 } else { 0 };
        // The file's bytes are there three times: decoders copy them, and so does whoever marks the end of a JPEG.
        let memory = 3 * self.file + self.decoded + converted.max(turned) + self.content.buffer * pixels;
        if memory > limit {
            let megabytes = |bytes: u64| bytes / 1_000_000;
            return refuse(format!("it takes {} MB of memory, more than {}", megabytes(memory), megabytes(limit)));
        }
        if pixels > self.content.most_pixels {
            return Err(format!("truncated {name}"));
        }
        Ok(memory)
    }
}

/// Whether width and height change places, which takes a second copy of the picture.
fn turns_edges(orientation: Orientation) -> bool {
    !matches!(
        orientation,
        Orientation::NoTransforms | Orientation::Rotate180 | Orientation::FlipHorizontal | Orientation::FlipVertical
    )
}

/// Takes `memory` bytes of what there is for pictures, and makes `len` of them zeros. Where the system has not even so
/// much, it may once no other picture is there.
fn zeroed_share(memory: u64, len: u64) -> Result<(Share, Vec<u8>), String> {
    let share = memory::take(memory);
    if let Ok(data) = zeroed(len) {
        return Ok((share, data));
    }
    drop(share);
    let share = memory::take(memory::limit());
    Ok((share, zeroed(len)?))
}

/// Zeros, or an error where the memory is not to be had.
fn zeroed(len: u64) -> Result<Vec<u8>, String> {
    let mut data = Vec::new();
    grow(&mut data, len)?;
    Ok(data)
}

fn grow(data: &mut Vec<u8>, len: u64) -> Result<(), String> {
    let why = || format!("no {} MB of memory are free for this picture", len / 1_000_000);
    let len = usize::try_from(len).map_err(|_| why())?;
    data.try_reserve_exact(len.saturating_sub(data.len())).map_err(|_| why())?;
    data.resize(len, 0);
    Ok(())
}

/// `pixels` of `color` become RGB8 in place, samples of 16 bits in the machine's order; gray of 16 bits is clipped or
/// loses its low byte.
fn to_rgb8(mut data: Vec<u8>, color: ColorType, clipped: bool, pixels: usize) -> Result<Vec<u8>, String> {
    let sample = |bytes: &[u8], i: usize| u16::from_ne_bytes([bytes[2 * i], bytes[2 * i + 1]]);
    let high = |bytes: &[u8], i: usize| (sample(bytes, i) >> 8) as u8;
    let clip = |bytes: &[u8]| sample(bytes, 0).min(255) as u8;
    match color {
        ColorType::Rgb8 => {}
        ColorType::L8 => repack::<1>(&mut data, pixels, |p| [p[0]; 3])?,
        ColorType::La8 => repack::<2>(&mut data, pixels, |p| [p[0]; 3])?,
        ColorType::Rgba8 => repack::<4>(&mut data, pixels, |p| [p[0], p[1], p[2]])?,
        ColorType::L16 => repack::<2>(&mut data, pixels, |p| [clip(p); 3])?,
        ColorType::La16 if clipped => repack::<4>(&mut data, pixels, |p| [clip(p); 3])?,
        ColorType::La16 => repack::<4>(&mut data, pixels, |p| [high(p, 0); 3])?,
        ColorType::Rgb16 => repack::<6>(&mut data, pixels, |p| [high(p, 0), high(p, 1), high(p, 2)])?,
        ColorType::Rgba16 => repack::<8>(&mut data, pixels, |p| [high(p, 0), high(p, 1), high(p, 2)])?,
        _ => return Err("its samples are not supported; save it again with 8 or 16 bits".to_string()),
    }
    Ok(data)
}

/// Replaces each of `pixels` groups of `N` bytes by three, in place.
fn repack<const N: usize>(data: &mut Vec<u8>, pixels: usize, rgb: impl Fn(&[u8; N]) -> [u8; 3]) -> Result<(), String> {
    let move_pixel = |data: &mut [u8], i: usize| {
        let mut pixel = [0; N];
        pixel.copy_from_slice(&data[N * i..N * (i + 1)]);
        data[3 * i..3 * (i + 1)].copy_from_slice(&rgb(&pixel));
    };
    // No pixel may be overwritten before it is read: pixels that shrink go first to last, growing ones last to first.
    if N > 3 {
        (0..pixels).for_each(|i| move_pixel(data, i));
        data.truncate(3 * pixels);
    } else {
        grow(data, 3 * pixels as u64)?;
        (0..pixels).rev().for_each(|i| move_pixel(data, i));
    }
    Ok(())
}

thread_local! {
    /// Whether a panic of this thread is a decoder's, which [`catching`] reports.
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a decoder; its panic is the picture's error, and is not printed.
fn catching(format: Format, decoder: impl FnOnce() -> Result<Rgb8, String>) -> Result<Rgb8, String> {
    static SILENCER: Once = Once::new();
    SILENCER.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !DECODING.get() {
                print(panic);
            }
        }));
    });
    DECODING.set(true);
    let decoded = panic::catch_unwind(AssertUnwindSafe(decoder));
    DECODING.set(false);
    let decoded = decoded.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        Err(format!("broken {}: the decoder gave up ({text})", format.name()))
    });
    // Decoders write what they like.
    decoded.map_err(|why| why.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ExtendedColorType, ImageEncoder};

    fn png(data: &[u8], width: u32, color: ExtendedColorType) -> Vec<u8> {
        let mut bytes = Vec::new();
        image::codecs::png::PngEncoder::new(&mut bytes).write_image(data, width, 1, color).unwrap();
        bytes
    }

    fn jpeg(exif_orientation: Option<u8>) -> Vec<u8> {
        // 32 x 16: left half black, right half white.
        let pixels: Vec<u8> = (0..32 * 16).flat_map(|i| [if i % 32 < 16 { 0 } else { 255 }; 3]).collect();
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95);
        if let Some(orientation) = exif_orientation {
            // Little-endian TIFF, one IFD entry: tag 0x0112, type 3 (short), one value.
            let tiff = [b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0", &[orientation, 0, 0, 0, 0, 0, 0, 0][..]];
            encoder.set_exif_metadata(tiff.concat()).unwrap();
        }
        encoder.encode(&pixels, 32, 16, ExtendedColorType::Rgb8).unwrap();
        bytes
    }

    #[test]
    fn colors_become_rgb_as_in_pillow() {
        assert_eq!(decode(&png(&[7, 200], 2, ExtendedColorType::L8)).unwrap().data, [7, 7, 7, 200, 200, 200]);
        assert_eq!(decode(&png(&[1, 2, 3, 0], 1, ExtendedColorType::Rgba8)).unwrap().data, [1, 2, 3]);
        assert_eq!(decode(&png(&[9, 128], 1, ExtendedColorType::La8)).unwrap().data, [9, 9, 9]);
        let deep: Vec<u8> = [0x12ffu16, 0x80ff, 0xff00].iter().flat_map(|v| v.to_ne_bytes()).collect();
        assert_eq!(decode(&png(&deep, 1, ExtendedColorType::Rgb16)).unwrap().data, [0x12, 0x80, 0xff]);
    }

    #[test]
    fn exif_turns_pictures_upright() {
        let side = |p: &Rgb8, x: usize, y: usize| p.data[(y * p.width as usize + x) * 3] > 127;
        let upright = decode(&jpeg(None)).unwrap();
        assert_eq!((upright.width, upright.height), (32, 16));
        assert!(!side(&upright, 2, 8) && side(&upright, 29, 8));
        // 3: half a turn; 6: stored a quarter turn counterclockwise, so the left half comes to the top.
        let half_turn = decode(&jpeg(Some(3))).unwrap();
        assert!(side(&half_turn, 2, 8) && !side(&half_turn, 29, 8));
        let quarter = decode(&jpeg(Some(6))).unwrap();
        assert_eq!((quarter.width, quarter.height), (16, 32));
        assert!(!side(&quarter, 8, 2) && side(&quarter, 8, 29));
    }

    #[test]
    fn gray_of_16_bits_is_clipped_as_pillow_does() {
        let deep = |values: &[u16]| values.iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<u8>>();
        let gray = decode(&png(&deep(&[0, 200, 255, 256, 65_535]), 5, ExtendedColorType::L16)).unwrap();
        assert_eq!(gray.data, [0, 200, 255, 255, 255].map(|v| [v; 3]).concat());
        assert!(gray.clipped);
        // One value is transparent: still gray alone.
        let mut transparent = png(&deep(&[100, 300]), 2, ExtendedColorType::L16);
        transparent.splice(33..33, *b"\0\0\0\x02tRNS\x01\x2c\0\0\0\0");
        let checksum = crc(&transparent[37..43]);
        transparent[43..47].copy_from_slice(&checksum);
        let transparent = decode(&transparent).unwrap();
        assert_eq!((transparent.data, transparent.clipped), (vec![100, 100, 100, 255, 255, 255], true));
        let alpha = decode(&png(&deep(&[0x12ff, 0, 0xfe00, 0xffff]), 2, ExtendedColorType::La16)).unwrap();
        assert_eq!((alpha.data, alpha.clipped), (vec![0x12, 0x12, 0x12, 0xfe, 0xfe, 0xfe], false));
        let color = decode(&png(&deep(&[0x12ff, 0x80ff, 0xff00, 0]), 1, ExtendedColorType::Rgba16)).unwrap();
        assert_eq!(color.data, [0x12, 0x80, 0xff]);
    }

    #[test]
    fn broken_pictures_are_named() {
        let error = |bytes: &[u8]| decode(bytes).err().unwrap();
        assert_eq!(error(b""), "empty file");
        assert!(error(b"hello").contains("JPEG, PNG, WebP and BMP"));
        assert!(error(b"GIF89a\x01\0\x01\0\0\0\0").contains("GIF is not supported"));
        let whole = png(&[7, 200], 2, ExtendedColorType::L8);
        assert_eq!(error(&whole[..whole.len() / 2]), "truncated PNG");
    }

    #[test]
    fn jpegs_end_where_their_first_picture_does() {
        let whole = jpeg(None);
        let pixels = decode(&whole).unwrap().data;
        let film: Vec<u8> = (0..5000u32).flat_map(|i| [((i * 7919) >> 5) as u8, 0xFF, 0xDA, 0xFF]).collect();
        for trailer in [&film[..], b"\xff\xd8\xff\xda", b"\xff\xda\0\x08"] {
            assert!(decode(&[&whole[..], trailer].concat()).unwrap().data == pixels);
        }
        // Samsung's trailers may follow without the marker of the end.
        let open = &whole[..whole.len() - 2];
        for trailer in [&[0; 300][..], b"\0\0\x01\x0a\x0e\0\0\0Image_UTC_Data1700000000000SEFH\xff\x02"] {
            assert!(decode(&[open, trailer].concat()).unwrap().data == pixels);
        }
        for cut in [2, 3, 5, 9, whole.len() / 2, whole.len() - 30] {
            assert_eq!(decode(&whole[..whole.len() - cut]).err().unwrap(), "truncated JPEG", "{cut} bytes are missing");
        }
    }

    /// PNG's checksum.
    fn crc(bytes: &[u8]) -> [u8; 4] {
        let bit = |crc: u32, _| (crc >> 1) ^ ((crc & 1) * 0xEDB8_8320);
        let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), bit);
        (!bytes.iter().fold(!0, byte)).to_be_bytes()
    }

    /// A PNG of this size whose data is missing.
    fn promised_png(width: u32, height: u32, bits: u8, color: u8) -> Vec<u8> {
        let header = [&b"IHDR"[..], &width.to_be_bytes(), &height.to_be_bytes(), &[bits, color, 0, 0, 0]].concat();
        let idat = b"\0\0\0\0IDAT\x35\xaf\x06\x1e";
        [b"\x89PNG\r\n\x1a\n\0\0\0\x0d", &header[..], &crc(&header), idat].concat()
    }

    /// Nothing of the size is taken: the test would need hundreds of gigabytes.
    #[test]
    fn headers_that_promise_too_much_are_refused() {
        let mut jpeg = jpeg(None);
        let frame = jpeg.array_windows().position(|pair| *pair == [0xFF, 0xC0]).unwrap();
        jpeg[frame + 5..frame + 9].fill(0xFF);
        let bmp =
            [b"BM", &[0; 8][..], &[54, 0, 0, 0, 40, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF, 0, 0, 1, 0, 24], &[0; 25]];
        let lossless = b"RIFF\x12\0\0\0WEBPVP8L\x05\0\0\0\x2f\xff\xff\xff\x0f\0";
        for picture in [jpeg.clone(), bmp.concat(), lossless.to_vec(), promised_png(60_000, 60_000, 8, 6)] {
            let why = decode(&picture).err().unwrap();
            assert!(why.contains("too large to decode: more than 178 million pixels; make it smaller"), "{why}");
        }
        let wide = decode(&promised_png(1 << 30, 1, 16, 6)).err().unwrap();
        assert!(wide.contains("too large to decode"), "{wide}");
        // Within the pixels, and not within the memory: 8 bytes a pixel.
        let deep = decode(&promised_png(13_300, 13_400, 16, 6)).err().unwrap();
        assert!(deep.contains("too large to decode: it takes 1425 MB of memory, more than"), "{deep}");
        // Within both, and more than so few bytes can hold.
        jpeg[frame + 5..frame + 9].copy_from_slice(&[0x20, 0, 0x20, 0]);
        assert_eq!(decode(&jpeg).err().unwrap(), "truncated JPEG");
        assert_eq!(decode(&promised_png(9000, 9000, 8, 2)).err().unwrap(), "truncated PNG");
    }

    #[test]
    fn memory_is_counted_with_its_copies() {
        let promise = |decoded: u64, orientation: Orientation, content: Content| Promise {
            name: "PNG",
            width: 1000,
            height: 1000,
            file: 1000,
            decoded,
            orientation,
            content,
        };
        let (upright, turned) = (Orientation::NoTransforms, Orientation::Rotate90);
        let buffered = Content { buffer: 8, ..Content::default() };
        let cases = [
            (promise(3_000_000, upright, Content::default()), 3_003_000),
            (promise(1_000_000, upright, Content::default()), 4_003_000),
            (promise(4_000_000, upright, Content::default()), 4_003_000),
            (promise(3_000_000, turned, Content::default()), 6_003_000),
            (promise(3_000_000, upright, buffered), 11_003_000),
        ];
        for (promise, memory) in cases {
            assert_eq!(promise.memory(memory), Ok(memory));
            assert!(promise.memory(memory - 1).unwrap_err().contains("of memory"));
        }
    }

    #[test]
    fn a_decoders_panic_is_the_pictures_error() {
        let why = catching(Format::Png, || panic!("index {} out of bounds", 7)).err().unwrap();
        assert_eq!(why, "broken PNG: the decoder gave up (index 7 out of bounds)");
        assert!(decode(&jpeg(None)).is_ok());
    }
}
