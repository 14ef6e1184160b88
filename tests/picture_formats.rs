//! Cameras' formats, regions and rotations: each gives exactly what converting, cutting and turning the whole picture
//! first gives.

use vitlet::picture::{CropRounding, Interpolation, Preprocess, Resize};
use vitlet::{Format, Kernels, Named, Picture, PictureError, Plane, Region, Rotation, Yuv};

const FORMATS: [Format; 7] =
    [Format::Rgb8, Format::Bgr8, Format::Rgba8, Format::Gray8, Format::Yuyv, Format::Nv12, Format::I420];
const ROTATIONS: [Rotation; 4] = [Rotation::None, Rotation::Quarter, Rotation::Half, Rotation::ThreeQuarters];

fn preprocess(interpolation: Interpolation) -> Preprocess {
    let (resize, crop_rounding) = (Resize::ShorterEdge(20), CropRounding::Even);
    Preprocess {
        height: 17,
        width: 19,
        resize,
        interpolation,
        crop_rounding,
        crop_pct: None,
        size_rule: None,
        mean: [0.0; 3],
        std: [1.0; 3],
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn prepare(preprocess: &Preprocess, picture: &Picture<'_>) -> Result<Vec<u8>, PictureError> {
    let region = picture.region.map_or((picture.width, picture.height), |r| (r.width, r.height));
    let mut scratch = vec![0xA5; preprocess.scratch_bytes(region).expect("sizes are not zero")];
    let mut out = vec![0x5A; (preprocess.height * preprocess.width * 3) as usize];
    let result = preprocess.prepare(Kernels::scalar(), picture, &mut scratch, &mut out).map(|()| out);
    for kernels in Kernels::available() {
        let mut again = vec![0x5A; (preprocess.height * preprocess.width * 3) as usize];
        let other = preprocess.prepare(kernels, picture, &mut scratch, &mut again).map(|()| again);
        assert!(other == result, "{} gives other bytes", kernels.name());
    }
    result
}

/// One pixel, by the plain reading of the format's definition.
fn pixel(picture: &Picture<'_>, x: usize, y: usize) -> [u8; 3] {
    let byte = |plane: usize, x: usize, y: usize| picture.planes[plane].data[y * picture.planes[plane].stride + x];
    match picture.format {
        Format::Rgb8 => [0, 1, 2].map(|c| byte(0, 3 * x + c, y)),
        Format::Bgr8 => [2, 1, 0].map(|c| byte(0, 3 * x + c, y)),
        Format::Rgba8 => [0, 1, 2].map(|c| byte(0, 4 * x + c, y)),
        Format::Gray8 => [byte(0, x, y); 3],
        Format::Yuyv => rgb(picture.yuv, byte(0, 2 * x, y), byte(0, x / 2 * 4 + 1, y), byte(0, x / 2 * 4 + 3, y)),
        Format::Nv12 => rgb(picture.yuv, byte(0, x, y), byte(1, x / 2 * 2, y / 2), byte(1, x / 2 * 2 + 1, y / 2)),
        Format::I420 => rgb(picture.yuv, byte(0, x, y), byte(1, x / 2, y / 2), byte(2, x / 2, y / 2)),
    }
}

/// BT.601, limited or full range, in 13 fractional bits (BT.709 is checked against its formula where it is computed).
fn rgb(yuv: Yuv, y: u8, u: u8, v: u8) -> [u8; 3] {
    let [black, luma, v_to_r, u_to_g, v_to_g, u_to_b] = match yuv {
        Yuv::Bt601 => [16, 9539, 13075, 3209, 6660, 16525],
        _ => [0, 8192, 11485, 2819, 5850, 14516],
    };
    let (y, u, v) = (luma * (i32::from(y) - black), i32::from(u) - 128, i32::from(v) - 128);
    [y + v_to_r * v, y - u_to_g * u - v_to_g * v, y + u_to_b * u].map(|sum| ((sum + 4096) >> 13).clamp(0, 255) as u8)
}

/// The region, converted and turned: RGB8 with its size.
fn upright(picture: &Picture<'_>) -> (Vec<u8>, u32, u32) {
    let whole = Region { x: 0, y: 0, width: picture.width, height: picture.height };
    let r = picture.region.unwrap_or(whole);
    let (w, h) = (r.width as usize, r.height as usize);
    let (width, height) = match picture.rotation {
        Rotation::None | Rotation::Half => (w, h),
        Rotation::Quarter | Rotation::ThreeQuarters => (h, w),
    };
    let mut data = Vec::new();
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        let (sx, sy) = match picture.rotation {
            Rotation::None => (x, y),
            Rotation::Quarter => (y, h - 1 - x),
            Rotation::Half => (w - 1 - x, h - 1 - y),
            Rotation::ThreeQuarters => (w - 1 - y, x),
        };
        data.extend(pixel(picture, r.x as usize + sx, r.y as usize + sy));
    }
    (data, width as u32, height as u32)
}

#[test]
fn every_format_region_and_rotation_equals_the_upright_rgb_picture() {
    let sizes = [(1, 1), (2, 3), (37, 23), (64, 48), (15, 140), (141, 16), (40, 22)];
    for ((width, height), format) in sizes.into_iter().flat_map(|size| FORMATS.map(|format| (size, format))) {
        let frame = noise(format.frame_bytes(width, height).expect("small"));
        let part = Region { x: width / 3, y: height / 4, width: (width / 2).max(1), height: (height / 2).max(1) };
        for (rotation, region) in ROTATIONS.into_iter().flat_map(|r| [(r, None), (r, Some(part))]) {
            for yuv in [Yuv::Bt601, Yuv::Bt601Full] {
                let picture = Picture { rotation, region, yuv, ..Picture::frame(format, &frame, width, height) };
                let (rgb, w, h) = upright(&picture);
                for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
                    let preprocess = preprocess(interpolation);
                    let expected = prepare(&preprocess, &Picture::rgb8(&rgb, w, h, 3 * w as usize));
                    assert_eq!(prepare(&preprocess, &picture), expected, "{format:?} {width}x{height} {rotation:?}");
                }
            }
        }
    }
}

/// Tall pictures squashed are resized vertically first, where rows are read in runs.
#[test]
fn formats_are_read_vertically_first_too() {
    let preprocess =
        Preprocess { resize: Resize::Exact { height: 17, width: 45 }, ..preprocess(Interpolation::Bicubic) };
    for format in FORMATS {
        let frame = noise(format.frame_bytes(61, 97).expect("small"));
        for rotation in ROTATIONS {
            let picture = Picture { rotation, ..Picture::frame(format, &frame, 61, 97) };
            let (rgb, w, h) = upright(&picture);
            let expected = prepare(&preprocess, &Picture::rgb8(&rgb, w, h, 3 * w as usize));
            assert_eq!(prepare(&preprocess, &picture), expected, "{format:?} {rotation:?}");
        }
    }
}

#[test]
fn planes_have_strides_of_their_own() {
    let (width, height) = (37, 23);
    for format in FORMATS {
        let frame = noise(format.frame_bytes(width, height).expect("small"));
        let packed = Picture::frame(format, &frame, width, height);
        let expected = prepare(&preprocess(Interpolation::Bicubic), &packed);
        let mut extra = 3;
        let padded = packed.planes.map(|plane| {
            extra += 2;
            let rows = plane.data.chunks(plane.stride.max(1)).map(|row| [row, &vec![0xEE; extra]].concat());
            let mut data = rows.collect::<Vec<_>>().concat();
            data.truncate(data.len().saturating_sub(extra)); // the last row ends with its last pixel
            (data, plane.stride + extra)
        });
        let planes = padded.each_ref().map(|(data, stride)| Plane { data, stride: *stride });
        assert_eq!(prepare(&preprocess(Interpolation::Bicubic), &Picture { planes, ..packed }), expected, "{format:?}");
    }
}

#[test]
fn broken_pictures_are_refused() {
    let preprocess = preprocess(Interpolation::Bilinear);
    for format in FORMATS {
        let bytes = format.frame_bytes(9, 7).expect("small");
        let frame = noise(bytes);
        assert!(prepare(&preprocess, &Picture::frame(format, &frame, 9, 7)).is_ok());
        let short = Picture::frame(format, &frame[..bytes - 1], 9, 7);
        assert_eq!(prepare(&preprocess, &short), Err(PictureError::DataTooShort), "{format:?}");
        let mut narrow = Picture::frame(format, &frame, 9, 7);
        narrow.planes[0].stride -= 1;
        assert_eq!(prepare(&preprocess, &narrow), Err(PictureError::StrideTooShort), "{format:?}");
        assert_eq!(Format::from_name(format.name()), Some(format));
    }
    let frame = noise(9 * 7);
    let part = |x, y, width, height| {
        let region = Some(Region { x, y, width, height });
        let mut scratch = [0; 10_000];
        let picture = Picture { region, ..Picture::frame(Format::Gray8, &frame, 9, 7) };
        preprocess.prepare(Kernels::detect(), &picture, &mut scratch, &mut [0; 17 * 19 * 3])
    };
    assert_eq!(part(0, 0, 9, 7), Ok(()));
    assert_eq!(part(8, 6, 1, 1), Ok(()));
    for (x, y, width, height) in [(0, 0, 10, 7), (1, 0, 9, 7), (0, 7, 1, 1), (3, 3, 0, 1), (u32::MAX, 0, 2, 1)] {
        assert_eq!(part(x, y, width, height), Err(PictureError::Region));
    }
}
