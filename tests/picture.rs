//! Image preparation against Pillow, torchvision, timm and transformers: tests/fixtures/picture/make.py writes
//! cases.txt from them, over pictures that both sides compute.

use vitlet::picture::{CropRounding, Interpolation, Picture, PictureError, Preprocess, Resize};
use vitlet::{Kernels, Named};

/// All filters.
const INTERPOLATIONS: [Interpolation; 3] =
    [Interpolation::Bilinear, Interpolation::Bicubic, Interpolation::BicubicOpencv];

/// `source` of make.py: RGB8 `[height, width, 3]`.
fn source(kind: &str, width: u32, height: u32) -> Vec<u8> {
    let mut data = Vec::with_capacity((width * height * 3) as usize);
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        for c in 0..3 {
            let noise = splitmix64(u64::from((y * width + x) * 3 + c + 1));
            data.push(match kind {
                "noise" => noise,
                "binary" if noise < 128 => 0,
                "binary" => 255,
                "soft" => 64 + noise / 2,
                "ramps" => (x * (2 * c + 1) + y * 3 + c * 50) as u8,
                other => panic!("unknown picture {other}"),
            });
        }
    }
    data
}

fn splitmix64(index: u64) -> u8 {
    let z = index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 56) as u8
}

fn fnv1a(data: impl IntoIterator<Item = u8>) -> u64 {
    data.into_iter().fold(0xCBF2_9CE4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// A resize to `height` x `width` without a crop, unless fields are changed.
fn exact(height: u32, width: u32, interpolation: Interpolation) -> Preprocess {
    let (resize, crop_rounding) = (Resize::Exact { height, width }, CropRounding::Even);
    Preprocess {
        height,
        width,
        resize,
        interpolation,
        crop_rounding,
        crop_pct: None,
        size_rule: None,
        mean: [0.0; 3],
        std: [1.0; 3],
    }
}

/// Scratch measured for exactly this picture, and filled, as a used one would be.
fn prepare(preprocess: &Preprocess, picture: &Picture) -> Result<Vec<u8>, PictureError> {
    let mut scratch =
        vec![0xA5; preprocess.scratch_bytes((picture.width, picture.height)).expect("sizes are not zero")];
    let mut out = vec![0x5A; (preprocess.height * preprocess.width * 3) as usize];
    let result = preprocess.prepare(Kernels::scalar(), picture, &mut scratch, &mut out).map(|()| out);
    for kernels in Kernels::available() {
        let mut again = vec![0x5A; (preprocess.height * preprocess.width * 3) as usize];
        let other = preprocess.prepare(kernels, picture, &mut scratch, &mut again).map(|()| again);
        assert!(other == result, "{} gives other bytes", kernels.name());
    }
    result
}

fn packed(data: &[u8], width: u32, height: u32) -> Picture<'_> {
    Picture::rgb8(data, width, height, 3 * width as usize)
}

/// Lines of cases.txt that start with `kind`, without it, split at blanks.
fn cases(kind: &str) -> impl Iterator<Item = Vec<&'static str>> {
    let lines = include_str!("fixtures/picture/cases.txt").lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.filter(move |fields| fields[0] == kind).map(|fields| fields[1..].to_vec())
}

fn number(field: &str) -> u32 {
    field.parse().expect("an integer")
}

fn triple(fields: &[&str]) -> [f32; 3] {
    core::array::from_fn(|i| fields[i].parse().expect("a number"))
}

fn preprocess_of(fields: &[&str]) -> Preprocess {
    let (height, width) = (number(fields[5 + 2]), number(fields[5 + 3]));
    let resize = match fields[4 + 2] {
        "shorter_edge" => Resize::ShorterEdge(height),
        "exact" => Resize::Exact { height, width },
        "cover" => Resize::Cover { height, width },
        "contain" => Resize::Contain { height, width },
        other => panic!("unknown resize {other}"),
    };
    Preprocess {
        height: number(fields[4]),
        width: number(fields[5]),
        resize,
        interpolation: Interpolation::from_name(fields[9]).expect("a filter"),
        crop_rounding: CropRounding::from_name(fields[10]).expect("a rounding"),
        crop_pct: None,
        size_rule: None,
        mean: triple(&fields[11..14]),
        std: [1.0; 3],
    }
}

#[test]
fn equals_pillow_torchvision_timm_and_transformers() {
    let mut count = 0;
    for fields in cases("picture") {
        let (width, height) = (number(fields[2]), number(fields[3]));
        let data = source(fields[1], width, height);
        let out = prepare(&preprocess_of(&fields), &packed(&data, width, height)).expect("a valid picture");
        if let Some(expected) = fields.get(15) {
            let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(&hex, expected, "{fields:?}");
        }
        assert_eq!(format!("{:016x}", fnv1a(out)), fields[14], "{fields:?}");
        count += 1;
    }
    assert!(count > 200, "{count} cases");
}

/// OpenCV resizes in floating point, vitlet rounds each axis to bytes: half a level times the sum of the absolute
/// weights (at most 1.375), and half a level again.
#[test]
fn is_opencvs_cubic_filter_to_a_level() {
    let mut count = 0;
    for fields in cases("opencv") {
        let [width, height, to_height, to_width] = core::array::from_fn(|i| number(fields[i]));
        let data = source("soft", width, height);
        let preprocess = exact(to_height, to_width, Interpolation::BicubicOpencv);
        let out = prepare(&preprocess, &packed(&data, width, height)).expect("a valid picture");
        let expected = fields[4].split(',').map(|x| x.parse::<f64>().expect("a number"));
        let differences: Vec<f64> =
            out.iter().zip(expected).map(|(got, want)| (f64::from(*got) - want).abs()).collect();
        assert_eq!(differences.len(), out.len());
        let (most, mean) = (differences.iter().copied().fold(0.0, f64::max), differences.iter().sum::<f64>());
        assert!(most < 1.2 && mean / (out.len() as f64) < 0.4, "{fields:?}: {most} {mean}");
        count += 1;
    }
    assert_eq!(count, 7);
}

#[test]
fn normalizes_as_torchvision() {
    let mut count = 0;
    for fields in cases("normalize") {
        let mut preprocess = exact(1, 1, Interpolation::Bilinear);
        (preprocess.mean, preprocess.std) = (triple(&fields), triple(&fields[3..]));
        let table = preprocess.normalized();
        let hash = fnv1a(table.iter().flatten().flat_map(|value| value.to_le_bytes()));
        assert_eq!(format!("{hash:016x}"), fields[6], "{fields:?}");
        count += 1;
    }
    assert_eq!(count, 4);
}

/// The stream computes only what the crop shows; the whole resized picture, cropped or padded here, is the same.
/// (61 x 47 to 140 x 11 goes vertically first, the others horizontally.)
#[test]
fn crop_of_stream_equals_crop_of_whole() {
    let data = source("noise", 61, 47);
    let picture = packed(&data, 61, 47);
    for (resized_h, resized_w) in [(47, 61), (90, 33), (20, 21), (11, 140)] {
        for interpolation in INTERPOLATIONS {
            let whole = prepare(&exact(resized_h, resized_w, interpolation), &picture).expect("a valid picture");
            for (height, width) in [(16, 16), (17, 30), (1, 1), (20, 33), (40, 37)] {
                let mut cropped = exact(resized_h, resized_w, interpolation);
                (cropped.height, cropped.width, cropped.crop_rounding) = (height, width, CropRounding::Floor);
                let out = prepare(&cropped, &picture).expect("a valid picture");
                let (resized_h, resized_w) = (resized_h as i32, resized_w as i32);
                let top = (resized_h - height as i32).div_euclid(2);
                let left = (resized_w - width as i32).div_euclid(2);
                for (i, pixel) in out.as_chunks::<3>().0.iter().enumerate() {
                    let (y, x) = (top + i as i32 / width as i32, left + i as i32 % width as i32);
                    let inside = (0..resized_h).contains(&y) && (0..resized_w).contains(&x);
                    let expected = if inside { &whole[3 * (y * resized_w + x) as usize..][..3] } else { &[0; 3] };
                    assert_eq!(pixel, expected, "{cropped:?} at {y}, {x}");
                }
            }
        }
    }
}

#[test]
fn stride_skips_bytes_between_rows() {
    let (width, height) = (37, 23);
    let data = source("noise", width, height);
    let preprocess = exact(16, 24, Interpolation::Bicubic);
    let expected = prepare(&preprocess, &packed(&data, width, height)).expect("a valid picture");
    for extra in [1, 3, 17] {
        let mut padded: Vec<u8> = data.chunks(111).flat_map(|row| [row, &vec![0xEE; extra]].concat()).collect();
        padded.truncate(padded.len() - extra); // the last row ends with its last pixel
        let picture = Picture::rgb8(&padded, width, height, 111 + extra);
        assert_eq!(prepare(&preprocess, &picture).as_ref(), Ok(&expected));
    }
}

#[test]
fn every_small_size_works_within_its_scratch() {
    let mut sizes = (0..).map(|i| 1 + u32::from(splitmix64(i)) % 40);
    let mut next = || sizes.next().expect("endless");
    let data = source("binary", 40, 40);
    for round in 0..1500 {
        let (width, height) = (next(), next());
        let (target_h, target_w) = (next(), next());
        let resize = match round % 4 {
            0 => Resize::ShorterEdge(target_h),
            1 => Resize::Exact { height: target_h, width: target_w },
            2 => Resize::Cover { height: target_h, width: target_w },
            _ => Resize::Contain { height: target_h, width: target_w },
        };
        let mut preprocess = exact(next(), next(), INTERPOLATIONS[round % 7 % 3]);
        preprocess.resize = resize;
        if round % 3 == 0 {
            preprocess.crop_rounding = CropRounding::Floor;
        }
        let picture = Picture::rgb8(&data, width, height, 120);
        let own =
            prepare(&preprocess, &picture).unwrap_or_else(|error| panic!("{preprocess:?} {width}x{height}: {error}"));
        // Scratch for a larger picture, turned, holds it as well, and gives the same.
        let mut scratch = vec![0; preprocess.scratch_bytes((height.max(7), width + 3)).expect("sizes are not zero")];
        let mut out = vec![0; own.len()];
        assert_eq!(
            preprocess.prepare(Kernels::detect(), &picture, &mut scratch, &mut out),
            Ok(()),
            "{preprocess:?} {width}x{height}"
        );
        assert_eq!(own, out);
    }
}

/// The bound on scratch covers every size up to it: long and short edges, all shapes, where rounding is worst.
#[test]
fn scratch_for_the_largest_picture_holds_every_smaller_one() {
    let data = source("ramps", 300, 300);
    let resizes = |n| {
        let (height, width) = (n, 2 * n + 1);
        [
            Resize::ShorterEdge(n),
            Resize::Exact { height, width },
            Resize::Cover { height, width },
            Resize::Contain { height, width },
        ]
    };
    for resize in [1, 2, 5, 9].into_iter().flat_map(resizes) {
        let mut preprocess = exact(4, 4, Interpolation::Bicubic);
        preprocess.resize = resize;
        let mut scratch = vec![0; preprocess.scratch_bytes((300, 120)).expect("sizes are not zero")];
        for (long, short) in
            (1..=300).step_by(23).flat_map(|long| (1..=120).step_by(17).map(move |short| (long, short)))
        {
            for (width, height) in [(long, short), (short, long)] {
                let picture = Picture::rgb8(&data, width, height, 900);
                let result = preprocess.prepare(Kernels::detect(), &picture, &mut scratch, &mut [0; 48]);
                assert_eq!(result, Ok(()), "{resize:?} {width}x{height}");
            }
        }
    }
}

#[test]
fn scratch_of_twelve_megapixels_is_small() {
    let mut preprocess = exact(224, 224, Interpolation::Bicubic);
    preprocess.resize = Resize::ShorterEdge(248);
    let bytes = preprocess.scratch_bytes((4096, 3072)).expect("sizes are not zero");
    assert_eq!(preprocess.scratch_bytes((3072, 4096)), Some(bytes));
    assert!(bytes < 128 << 10, "{bytes} bytes");
    preprocess.resize = Resize::Contain { height: 224, width: 224 };
    let bytes = preprocess.scratch_bytes((4096, 3072)).expect("sizes are not zero");
    assert!(bytes < 256 << 10, "{bytes} bytes");
}

#[test]
fn errors_are_typed() {
    let data = [7; 3 * 6 * 4];
    let preprocess = exact(2, 3, Interpolation::Bilinear);
    let mut scratch = vec![0; preprocess.scratch_bytes((6, 4)).expect("sizes are not zero")];
    let mut run = |preprocess: &Preprocess, data: &[u8], size: (u32, u32), stride| {
        let picture = Picture::rgb8(data, size.0, size.1, stride);
        preprocess.prepare(Kernels::detect(), &picture, &mut scratch, &mut [0; 18])
    };
    assert_eq!(run(&preprocess, &data, (6, 4), 18), Ok(()));
    assert_eq!(run(&preprocess, &data, (0, 4), 18), Err(PictureError::ZeroSize));
    assert_eq!(run(&preprocess, &data, (6, 0), 18), Err(PictureError::ZeroSize));
    assert_eq!(run(&preprocess, &data, (6, 4), 17), Err(PictureError::StrideTooShort));
    assert_eq!(run(&preprocess, &data[1..], (6, 4), 18), Err(PictureError::DataTooShort));
    assert_eq!(run(&preprocess, &data, (6, 4), 19), Err(PictureError::DataTooShort));
    assert_eq!(run(&preprocess, &data, (6, 2), usize::MAX), Err(PictureError::DataTooShort));
    assert_eq!(run(&preprocess, &data, (6, u32::MAX), 18), Err(PictureError::SizeOutOfRange));
    assert_eq!(run(&preprocess, &data, (1 << 25, 1), 18), Err(PictureError::SizeOutOfRange));
    assert_eq!(run(&preprocess, &data, (1, 24), 3), Err(PictureError::TooLarge));
    assert_eq!(run(&exact(3, 3, Interpolation::Bilinear), &data, (6, 4), 18), Err(PictureError::OutputLength));
    assert_eq!(
        run(&exact(u32::MAX, u32::MAX, Interpolation::Bilinear), &data, (6, 4), 18),
        Err(PictureError::OutputLength)
    );
    let zero = Resize::Exact { height: 0, width: 3 };
    assert_eq!(run(&Preprocess { resize: zero, ..preprocess }, &data, (6, 4), 18), Err(PictureError::ZeroSize));
    let endless = Resize::ShorterEdge(i32::MAX as u32);
    assert_eq!(
        run(&Preprocess { resize: endless, ..preprocess }, &data, (6, 4), 18),
        Err(PictureError::SizeOutOfRange)
    );
    assert_eq!(preprocess.scratch_bytes((0, 1)), None);
    assert_eq!(Preprocess { resize: zero, ..preprocess }.scratch_bytes((6, 4)), None);
    assert_eq!(exact(0, 3, Interpolation::Bilinear).scratch_bytes((6, 4)), None);
}
