//! JPEG after JPEG in a stream, as MJPEG cameras and their servers send them. Whatever stands between two pictures (the
//! boundaries and headers of multipart/x-mixed-replace, for example) is skipped.
//!
//! A picture begins with FF D8 FF. Segments with a length are skipped over, so that a thumbnail inside of one does not
//! end it; within the data of a scan no marker can stand but restarts (ITU T.81, B.1.1.5).

use std::io::Read;

use crate::error::why;

/// Bytes of the largest picture.
const LARGEST: usize = 16 << 20;
/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// What a stream without pictures may need.
const RAW: &str = "for raw frames say which, with --raw FORMAT:WxH";

const BEGIN: [u8; 3] = [0xFF, 0xD8, 0xFF];

pub struct Jpegs<R> {
    stream: R,
    /// Bytes that came and belong to no picture that was given.
    bytes: Vec<u8>,
    /// Whether `bytes` begins with a picture; where the next marker is looked for in it.
    inside: bool,
    at: usize,
    /// Bytes that belong to no picture, since the last one.
    skipped: usize,
    /// Pictures that were given.
    count: u64,
}

impl<R: Read> Jpegs<R> {
    pub fn new(stream: R) -> Self {
        Self { stream, bytes: Vec::new(), inside: false, at: 0, skipped: 0, count: 0 }
    }

    /// The next picture; none at the end of the stream. Errors say why only.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        loop {
            if !self.inside {
                self.seek();
            }
            if self.inside
                && let Some(end) = self.end()
            {
                let rest = self.bytes.split_off(end);
                (self.inside, self.skipped) = (false, 0);
                self.count += 1;
                return Ok(Some(std::mem::replace(&mut self.bytes, rest)));
            }
            if self.skipped > LARGEST {
                return Err(format!("no JPEG came in {} MiB: {RAW}", LARGEST >> 20));
            }
            if self.bytes.len() > LARGEST {
                return Err(format!("a JPEG of more than {} MiB", LARGEST >> 20));
            }
            let len = self.bytes.len();
            self.bytes.resize(len + PIECE, 0);
            let read = loop {
                match self.stream.read(&mut self.bytes[len..]) {
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    read => break read,
                }
            };
            self.bytes.truncate(len + *read.as_ref().unwrap_or(&0));
            match read.map_err(|e| why(&e))? {
                0 if self.inside => return Err("ends within a JPEG".to_string()),
                0 if self.count == 0 && self.skipped > 0 => return Err(format!("no JPEG came: {RAW}")),
                0 => return Ok(None),
                _ => {}
            }
        }
    }

    /// Drops what stands before the next picture.
    fn seek(&mut self) {
        let found = self.bytes.windows(BEGIN.len()).position(|window| window == BEGIN);
        self.inside = found.is_some();
        // The first bytes of a picture may be the last ones that are there.
        let drop = found.unwrap_or(self.bytes.len().saturating_sub(BEGIN.len() - 1));
        self.bytes.drain(..drop);
        self.skipped += drop;
        self.at = 2;
    }

    /// Where the picture ends, if that is there. Goes on where it stopped the last time.
    fn end(&mut self) -> Option<usize> {
        loop {
            let rest = self.bytes.get(self.at..)?;
            let Some(marker) = rest.windows(2).position(|pair| pair[0] == 0xFF && !is_data(pair[1])) else {
                // The last byte may be half of a marker.
                self.at = (self.bytes.len() - 1).max(self.at);
                return None;
            };
            let after = self.at + marker + 2;
            if self.bytes[after - 1] == 0xD9 {
                return Some(after);
            }
            let length = self.bytes.get(after..after + 2).map(|b| usize::from(u16::from_be_bytes([b[0], b[1]])));
            let next = after + length.unwrap_or(usize::MAX / 2);
            if length.is_none() || next > self.bytes.len() {
                // The segment is not whole yet: look at its marker again.
                self.at = after - 2;
                return None;
            }
            self.at = next;
        }
    }
}

/// What may follow FF without being a marker with a segment: stuffing, fill bytes, TEM, restarts, another beginning.
fn is_data(byte: u8) -> bool {
    matches!(byte, 0x00 | 0x01 | 0xD0..=0xD8 | 0xFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out a few bytes at a time.
    struct Slow<'b>(&'b [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let len = self.1.min(self.0.len()).min(into.len());
            into[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    /// A picture with a thumbnail inside of a segment, and a scan with stuffing and a restart.
    fn picture(seed: u8) -> Vec<u8> {
        let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xE1, 0, 8, 0xFF, 0xD8, seed, 1, 0xFF, 0xD9];
        bytes.extend([0xFF, 0xDA, 0, 3, 1, seed, 0xFF, 0, 7, 0xFF, 0xD3, seed, 0xFF, 0xFF, 0xD9]);
        bytes
    }

    #[test]
    fn pictures_are_found_however_the_bytes_arrive() {
        let between = b"\r\n--frame\r\nContent-Type: image/jpeg\r\n\r\n\xff";
        let stream = [&between[..], &picture(1), &picture(2), between, &picture(3), b"\r\n--frame--"].concat();
        for pieces in 1..=stream.len() {
            let mut jpegs = Jpegs::new(Slow(&stream, pieces));
            for seed in 1..=3 {
                assert_eq!(jpegs.next().unwrap(), Some(picture(seed)), "pieces of {pieces}");
            }
            assert_eq!(jpegs.next(), Ok(None));
        }
    }

    #[test]
    fn half_a_picture_and_an_endless_one_are_errors() {
        let half = picture(1);
        let mut jpegs = Jpegs::new(&half[..half.len() - 2]);
        assert_eq!(jpegs.next().unwrap_err(), "ends within a JPEG");
        let endless = b"\xff\xd8\xff\xda\0\x02".chain(std::io::repeat(1));
        assert_eq!(Jpegs::new(endless).next().unwrap_err(), "a JPEG of more than 16 MiB");
        assert_eq!(Jpegs::new(&b""[..]).next(), Ok(None));
        let none = Jpegs::new(&[7; 100_000][..]).next().unwrap_err();
        assert!(none.starts_with("no JPEG came") && none.contains("--raw FORMAT:WxH"), "{none}");
        assert!(Jpegs::new(std::io::repeat(7)).next().unwrap_err().starts_with("no JPEG came in 16 MiB"));
        let stream = [&picture(1), &b"\r\n--frame--"[..]].concat();
        let mut ends = Jpegs::new(&stream[..]);
        assert!(ends.next().is_ok_and(|picture| picture.is_some()));
        assert_eq!(ends.next(), Ok(None));
    }
}
