//! Where the first picture of a JPEG file ends (ITU T.81, annex B). Phones append films, depth maps and notes to it,
//! some of them without the marker that ends a picture; the decoder paints missing parts gray. Within a scan, FF 00
//! and the restart markers FF D0 to FF D7 are data.

const START_OF_IMAGE: u8 = 0xD8;
const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;

/// The first picture in a JPEG file.
#[derive(Debug, PartialEq, Eq)]
pub struct Extent {
    /// The file up to here is the picture.
    pub end: usize,
    /// Whether the marker of its end stands there. Otherwise something else follows, or the file ends.
    pub marked: bool,
    /// Components of which the decoder holds the coefficients of the whole picture: all where it comes in several
    /// scans, else none.
    pub buffered: u8,
}

/// Follows the segments of `bytes`, which begin as a JPEG does; none without a scan.
pub fn extent(bytes: &[u8]) -> Option<Extent> {
    let mut at = 2;
    let mut frame = None;
    let mut scanned = false;
    let mut buffered = 0;
    loop {
        let Some((marker, segment)) = next_marker(bytes, at) else {
            return scanned.then_some(Extent { end: bytes.len(), marked: false, buffered });
        };
        // Between scans only tables and comments may stand; anything else is what follows the picture.
        let foreign =
            scanned && !matches!(marker, END_OF_IMAGE | START_OF_SCAN | 0xC4 | 0xDB..=0xDD | 0xE0..=0xEF | 0xFE);
        let length = bytes.get(segment..segment + 2).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
        let body = bytes.get(segment + 2..segment + length);
        match (marker, body) {
            (END_OF_IMAGE, _) => return scanned.then_some(Extent { end: segment, marked: true, buffered }),
            (START_OF_IMAGE | 0x01 | 0xD0..=0xD7, _) if !scanned => at = segment,
            (_, Some(body)) if !foreign => {
                at = segment + length;
                if is_frame(marker) {
                    frame = Some((marker, body.get(5).copied()));
                } else if marker == START_OF_SCAN {
                    at = end_of_scan(bytes, at);
                    scanned = true;
                    // A sequential picture whose only scan has all components is at its end, whatever stands there.
                    let whole = matches!(frame, Some((0xC0 | 0xC1, components)) if components == body.first().copied());
                    let marked = bytes.get(at..at + 2) == Some(&[0xFF, END_OF_IMAGE]);
                    if whole && buffered == 0 {
                        return Some(Extent { end: if marked { at + 2 } else { at }, marked, buffered });
                    }
                    buffered = frame.and_then(|(_, components)| components).unwrap_or_default();
                }
            }
            _ => return scanned.then_some(Extent { end: segment - 2, marked: false, buffered }),
        }
    }
}

/// The next marker at or after `at`, fill bytes and stray bytes skipped, and where its segment begins.
fn next_marker(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let found = bytes.get(at..)?.array_windows().position(|&[a, b]| a == 0xFF && b != 0xFF && b != 0)?;
    Some((bytes[at + found + 1], at + found + 2))
}

/// The first marker at or after `at` that is not data of a scan, or the end of the file.
fn end_of_scan(bytes: &[u8], at: usize) -> usize {
    let scan = bytes.get(at..).unwrap_or_default();
    let ends = |&[a, b]: &[u8; 2]| a == 0xFF && !matches!(b, 0 | 0xFF | 0xD0..=0xD7);
    scan.array_windows().position(ends).map_or(bytes.len(), |found| at + found)
}

/// Frame headers: `[precision, height, width, components ...]`.
fn is_frame(marker: u8) -> bool {
    matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of `components`, and scans of `1` to all of them with the given data.
    fn file(frame: u8, scans: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xE1, 0, 6, 0xFF, 0xD9, 0xFF, 0xDA];
        bytes.extend([0xFF, frame, 0, 8, 8, 0, 1, 0, 1, 3]);
        for (components, data) in scans {
            bytes.extend([0xFF, 0xDA, 0, 3, *components]);
            bytes.extend_from_slice(data);
        }
        bytes
    }

    #[test]
    fn the_first_pictures_end_is_found() {
        let whole = file(0xC0, &[(3, b"ab\xff\0c\xff\xd3d\xff\xd9")]);
        let plain = Extent { end: whole.len(), marked: true, buffered: 0 };
        assert_eq!(extent(&whole), Some(Extent { ..plain }));
        for trailer in [&b"\xff\xda\xff\xd9"[..], b"\xff\xd8\xff\xda", b"film"] {
            let long = [&whole[..], trailer].concat();
            assert_eq!(extent(&long), Some(Extent { ..plain }));
        }
        // Without the marker: up to the first byte that is no data, or to the end.
        let open = &whole[..whole.len() - 2];
        assert_eq!(extent(open), Some(Extent { end: open.len(), marked: false, buffered: 0 }));
        let followed = [open, b"SEFH\xff\xe5x"].concat();
        assert_eq!(extent(&followed), Some(Extent { end: open.len() + 4, marked: false, buffered: 0 }));
        assert_eq!(extent(&whole[..12]), None);
    }

    #[test]
    fn pictures_of_several_scans_are_followed_to_the_last() {
        for frame in [0xC0, 0xC2] {
            let whole = file(frame, &[(1, b"a"), (1, b"b\xff\xc4\0\x04xy"), (1, b"c\xff\xd9")]);
            let end = whole.len();
            assert_eq!(extent(&[&whole[..], b"film"].concat()), Some(Extent { end, marked: true, buffered: 3 }));
            let open = [&whole[..end - 2], b"\xff\xd8"].concat();
            assert_eq!(extent(&open), Some(Extent { end: end - 2, marked: false, buffered: 3 }));
        }
        let mut cmyk = file(0xC2, &[(4, b"a"), (4, b"b\xff\xd9")]);
        cmyk[19] = 4;
        assert_eq!(extent(&cmyk).unwrap().buffered, 4);
    }
}
