//! Sizes: how large the resized picture is, and which part of it the network sees.
//!
//! The arithmetic follows torchvision (`Resize`, `center_crop`), timm (`ResizeKeepRatio`, `center_crop_or_pad`) and
//! transformers (`center_crop`, `DPTImageProcessor`) in IEEE f64, in their order of operations, so that every size and
//! offset is theirs.

use crate::config::{CropRounding, Resize, Scale, SizeRule};
use crate::error::PictureError;

/// The longest edge of a resized picture, as in Pillow.
const MAX_RESIZED: f64 = i32::MAX as f64;

/// (height, width) of the resized picture.
pub(super) fn resized(resize: Resize, height: u32, width: u32) -> Result<(u32, u32), PictureError> {
    if smallest_target(resize) == 0 {
        return Err(PictureError::ZeroSize);
    }
    let (h, w) = (f64::from(height), f64::from(width));
    let (new_h, new_w) = match resize {
        Resize::ShorterEdge(size) => {
            let size = f64::from(size);
            if width <= height { (libm::trunc(size * h / w), size) } else { (size, libm::trunc(size * w / h)) }
        }
        Resize::Exact { height, width } => (f64::from(height), f64::from(width)),
        Resize::Cover { height, width } => {
            let ratio = (h / f64::from(height)).min(w / f64::from(width));
            (libm::rint(h / ratio), libm::rint(w / ratio))
        }
        Resize::Contain { height, width } => {
            let ratio = (h / f64::from(height)).max(w / f64::from(width));
            (libm::rint(h / ratio).max(1.0), libm::rint(w / ratio).max(1.0))
        }
    };
    if new_h > MAX_RESIZED || new_w > MAX_RESIZED {
        return Err(PictureError::SizeOutOfRange);
    }
    Ok((new_h as u32, new_w as u32))
}

/// (height, width) of the input for a picture of `size`, where `own` is the input's as the preparation states it.
pub(super) fn proportional(rule: SizeRule, own: (u32, u32), size: (u32, u32)) -> (u32, u32) {
    let factor = |own: u32, edge: u32| f64::from(own) / f64::from(edge);
    let (down, across) = (factor(own.0, size.0), factor(own.1, size.1));
    let factor = match rule.scale {
        Scale::Nearer if libm::fabs(1.0 - across) < libm::fabs(1.0 - down) => across,
        Scale::Nearer => down,
        Scale::Larger => down.max(across),
    };
    let edge = |edge: u32, own: u32| {
        let multiple = f64::from(rule.multiple);
        let multiples = factor * f64::from(edge) / multiple;
        let rounded = libm::rint(multiples) * multiple;
        let is_short = rule.scale == Scale::Larger && rounded < f64::from(own);
        let length = if is_short { libm::ceil(multiples) * multiple } else { rounded };
        // Of a narrow picture, transformers' rule makes nothing at all.
        length.clamp(multiple, f64::from(u32::MAX)) as u32
    };
    (edge(size.0, own.0), edge(size.1, own.1))
}

/// Upper bounds of source pixels per resized pixel, (horizontally, vertically), over all pictures of at most `long` by
/// `short` pixels in either orientation. None where the target is empty.
///
/// An edge is `v * ratio` long and becomes `v` pixels, rounded to an integer n; so the scale is ratio * v / n, and the
/// bounds on v / n follow from how v is rounded and from the least v that the mode allows.
pub(super) fn largest_scales(resize: Resize, long: u32, short: u32) -> Option<(f64, f64)> {
    if smallest_target(resize) == 0 {
        return None;
    }
    let (long, short) = (f64::from(long), f64::from(short));
    let (across, down) = match resize {
        // v >= size is rounded down, so v < n + 1 and n >= size.
        Resize::ShorterEdge(size) => {
            let size = f64::from(size);
            let scale = short / size * ((size + 1.0) / size);
            (scale, scale)
        }
        Resize::Exact { height, width } => (long / f64::from(width), long / f64::from(height)),
        // n >= target, and v <= n + 1/2.
        Resize::Cover { height, width } => {
            let (h, w) = (f64::from(height), f64::from(width));
            let ratio = (short / h).min(long / w).max((long / h).min(short / w));
            (ratio * ((w + 0.5) / w), ratio * ((h + 0.5) / h))
        }
        // n >= 1, and v <= n + 1/2.
        Resize::Contain { height, width } => {
            let scale = 1.5 * (long / f64::from(height.min(width)));
            (scale, scale)
        }
    };
    // The bounds themselves are rounded.
    const SLACK: f64 = 1.0 + 1e-9;
    Some((across * SLACK, down * SLACK))
}

fn smallest_target(resize: Resize) -> u32 {
    match resize {
        Resize::ShorterEdge(size) => size,
        Resize::Exact { height, width } | Resize::Cover { height, width } | Resize::Contain { height, width } => {
            height.min(width)
        }
    }
}

/// One axis of the center crop: `count` resized pixels from `first` on are seen at `at` and following in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) at: usize,
}

impl Span {
    /// None where an edge is zero.
    pub(super) fn centered(resized: u32, input: u32, rounding: CropRounding) -> Option<Self> {
        if resized == 0 || input == 0 {
            return None;
        }
        let spare = i64::from(resized) - i64::from(input);
        let start = match rounding {
            CropRounding::Floor => spare.div_euclid(2),
            // Half to even when cropping; when padding, the smaller part comes first.
            CropRounding::Even if spare > 0 && spare % 4 == 3 => spare / 2 + 1,
            CropRounding::Even => spare / 2,
        };
        let (first, at) = (start.max(0) as usize, (-start).max(0) as usize);
        Some(Self { first, at, count: (resized as usize - first).min(input as usize - at) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What transformers 5.23 (`get_resize_output_image_size`) and Depth Anything's `Resize.get_size` give.
    #[test]
    fn sizes_in_proportion_are_those_of_both_libraries() {
        let rule = |scale| SizeRule { scale, multiple: 14 };
        for (size, nearer, larger) in [
            ((480, 640), (518, 686), (518, 686)),
            ((640, 480), (686, 518), (686, 518)),
            ((1080, 1920), (518, 924), (518, 924)),
            ((518, 518), (518, 518), (518, 518)),
            ((300, 400), (392, 518), (518, 686)),
            ((100, 1000), (56, 518), (518, 5180)),
            ((1000, 700), (742, 518), (742, 518)),
            ((600, 400), (518, 350), (784, 518)),
            ((7, 3000), (14, 518), (518, 221_998)),
        ] {
            assert_eq!(proportional(rule(Scale::Nearer), (518, 518), size), nearer, "{size:?}");
            assert_eq!(proportional(rule(Scale::Larger), (518, 518), size), larger, "{size:?}");
        }
        assert_eq!(proportional(rule(Scale::Larger), (252, 336), (480, 640)), (252, 336));
        // No session takes it.
        assert_eq!(proportional(rule(Scale::Larger), (16_384, 16_384), (1, u32::MAX)).1, u32::MAX);
    }
}
