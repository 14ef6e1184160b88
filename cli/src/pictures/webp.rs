//! The chunks of a WebP file (RFC 9649): the decoder takes memory for sizes that they state before it has their bytes.

use std::ops::Range;

/// Bytes of a chunk's header: four letters and the size of what follows.
const HEADER: usize = 8;
/// Bytes of a frame of an animation before its own chunks.
const FRAME_HEADER: usize = 16;

/// What the chunks promise.
pub struct Chunks {
    /// The file up to the end of its RIFF container.
    pub end: usize,
    /// Pixels of the largest frame.
    pub largest_frame: u64,
}

/// Walks through all chunks of `bytes`, which begin as a WebP file does; an error is why the file is not whole.
pub fn chunks(bytes: &[u8]) -> Result<Chunks, &'static str> {
    let stated = bytes.get(4..8).map_or(0, le32);
    let end = (HEADER + stated).min(bytes.len());
    let mut largest_frame = 0;
    walk(bytes, 12..end, &mut |name, data| {
        largest_frame = largest_frame.max(frame_pixels(name, &bytes[data]));
    })?;
    Ok(Chunks { end, largest_frame })
}

/// Calls `see` with the name and the place of every chunk in `range`, and of those in frames of an animation.
fn walk(bytes: &[u8], range: Range<usize>, see: &mut dyn FnMut(&[u8], Range<usize>)) -> Result<(), &'static str> {
    let mut at = range.start;
    while at + HEADER <= range.end {
        let (name, size) = (&bytes[at..at + 4], le32(&bytes[at + 4..at + HEADER]));
        let data = at + HEADER..at + HEADER + size;
        if data.end > range.end {
            return Err("truncated WebP");
        }
        see(name, data.clone());
        if name == b"ANMF" {
            walk(bytes, (data.start + FRAME_HEADER).min(data.end)..data.end, see)?;
        }
        at = data.end + size % 2;
    }
    Ok(())
}

/// Pixels of a frame that a chunk holds; 0 for other chunks.
fn frame_pixels(name: &[u8], data: &[u8]) -> u64 {
    let size = match (name, data) {
        // Lossy: a frame tag of three bytes, the start code, width and height of 14 bits each.
        (b"VP8 ", [_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..]) => {
            [u16::from_le_bytes([*w0, *w1]) & 0x3fff, u16::from_le_bytes([*h0, *h1]) & 0x3fff].map(u64::from)
        }
        // Lossless: a signature, then 14 bits each of width and height less one.
        (b"VP8L", [0x2f, a, b, c, d, ..]) => {
            let bits = u32::from_le_bytes([*a, *b, *c, *d]);
            [1 + (bits & 0x3fff), 1 + (bits >> 14 & 0x3fff)].map(u64::from)
        }
        // A frame of an animation: width and height less one after its position, 24 bits each.
        (b"ANMF", [_, _, _, _, _, _, w0, w1, w2, h0, h1, h2, ..]) => {
            [[*w0, *w1, *w2, 0], [*h0, *h1, *h2, 0]].map(|edge| 1 + u64::from(u32::from_le_bytes(edge)))
        }
        _ => return 0,
    };
    size[0] * size[1]
}

fn le32(bytes: &[u8]) -> usize {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(chunks: &[u8]) -> Vec<u8> {
        let size = u32::try_from(4 + chunks.len()).unwrap();
        [b"RIFF", &size.to_le_bytes()[..], b"WEBP", chunks].concat()
    }

    #[test]
    fn chunks_stay_within_the_file() {
        let lossless = b"VP8L\x05\0\0\0\x2f\x63\xc0\x31\0\0";
        let whole = file(lossless);
        let found = chunks(&whole).unwrap();
        assert_eq!((found.end, found.largest_frame), (whole.len(), 100 * 200));
        let trailer = [&whole[..], b"EXIF\xff\xff\xff\x7f"].concat();
        assert_eq!(chunks(&trailer).unwrap().end, whole.len(), "what follows the container does not count");
        for promise in [&b"EXIF\xff\xff\xff\x7fII*\0"[..], b"ANMF\x20\0\0\0"] {
            assert_eq!(chunks(&file(&[&lossless[..], promise].concat())).err(), Some("truncated WebP"));
        }
        let nested = [b"ANMF\x18\0\0\0", &[0; 6][..], &[9, 0, 0, 4, 0, 0, 0, 0, 0, 0], b"EXIF\xff\xff\0\0"].concat();
        assert_eq!(chunks(&file(&nested)).err(), Some("truncated WebP"));
        assert_eq!(chunks(b"RIFF\0\0\0\0WEBP").unwrap().largest_frame, 0);
    }
}
