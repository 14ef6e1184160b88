//! Broken pictures: small valid ones of every format that is decoded, damaged in ways that depend on a number alone.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, RgbImage};

/// Pictures that the `image` crate does not write: made with Pillow from a gradient.
const SEEDS: [(&str, &[u8]); 8] = [
    ("jpg", include_bytes!("../seeds/progressive.jpg")),
    ("jpg", include_bytes!("../seeds/restarts.jpg")),
    ("jpg", include_bytes!("../seeds/cmyk.jpg")),
    ("webp", include_bytes!("../seeds/lossy.webp")),
    ("webp", include_bytes!("../seeds/alpha.webp")),
    ("webp", include_bytes!("../seeds/animated.webp")),
    ("png", include_bytes!("../seeds/palette.png")),
    ("bmp", include_bytes!("../seeds/gray.bmp")),
];

/// Valid pictures, each with the ending of its name.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let pixel = |x: u32, y: u32| image::Rgb([(x * 9 + y) as u8, (x * x + y * 5) as u8, (x ^ y) as u8]);
    let picture = DynamicImage::ImageRgb8(RgbImage::from_fn(30, 20, pixel));
    let encode = |picture: &DynamicImage, format: ImageFormat| {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    let mut seeds: Vec<_> = SEEDS.iter().map(|(ending, bytes)| (*ending, bytes.to_vec())).collect();
    seeds.extend([
        ("jpg", encode(&picture, ImageFormat::Jpeg)),
        ("png", encode(&picture, ImageFormat::Png)),
        ("png", encode(&DynamicImage::ImageRgba16(picture.to_rgba16()), ImageFormat::Png)),
        ("webp", encode(&picture, ImageFormat::WebP)),
        ("bmp", encode(&picture, ImageFormat::Bmp)),
    ]);
    seeds
}

/// Numbers that look random (Steele and others 2014, "SplitMix").
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Damages one of `seeds`, which one and how by `number`.
pub fn mutate(seeds: &[(&'static str, Vec<u8>)], number: u64) -> (&'static str, Vec<u8>) {
    let mut random = Random(number);
    let (ending, mut bytes) = seeds[number as usize % seeds.len()].clone();
    for _ in 0..1 + random.below(4) {
        // Half of the damage is done to headers.
        let reach = if random.below(2) == 0 { bytes.len().min(64) } else { bytes.len() };
        let at = random.below(reach);
        let len = 1 + random.below(8).min(bytes.len().saturating_sub(at + 1));
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at..at + len].fill(if random.below(2) == 0 { 0 } else { 0xFF }),
            3 => drop(bytes.drain(at..at + len)),
            4 => {
                let part = bytes[at..at + len].to_vec();
                bytes.splice(at..at, part);
            }
            5 => bytes.truncate(at.max(16)),
            6 => {
                let (_, other) = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
            _ => {
                let to = random.below(bytes.len() - len + 1);
                bytes.copy_within(at..at + len, to);
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    (ending, bytes)
}
