//! How pictures become a network's input: hyperparameters too. `picture` computes with them.

use crate::config::Named;

/// The longest edge of a source: Pillow keeps the source box in f32, exact up to here.
pub(crate) const MAX_EDGE: u32 = 1 << 24;

/// The resampling filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Triangle, support 1, widened by the scale when the picture shrinks (antialiased), as in Pillow.
    Bilinear,
    /// Cubic convolution with a = -0.5, support 2, widened in the same way.
    Bicubic,
    /// Cubic convolution with a = -0.75 over the nearest four pixels, also when the picture shrinks; the pixels at the
    /// border are repeated beyond it. OpenCV's `INTER_CUBIC`.
    BicubicOpencv,
}

/// The size, in pixels, to which a picture is resized before the crop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// The shorter edge to this length, the longer one in proportion, rounded down: torchvision's `Resize(size)` and
    /// transformers' `shortest_edge`.
    ShorterEdge(u32),
    /// Exactly to this size; the aspect ratio is lost. timm's crop mode `squash`.
    Exact {
        /// Rows.
        height: u32,
        /// Pixels per row.
        width: u32,
    },
    /// In proportion, so that both edges are at least this long: timm's `ResizeKeepRatio(size, longest=0)`, crop mode
    /// `center` for networks that are not square.
    Cover {
        /// Rows.
        height: u32,
        /// Pixels per row.
        width: u32,
    },
    /// In proportion, so that both edges are at most this long: timm's `ResizeKeepRatio(size, longest=1)`, crop mode
    /// `border`. What the picture does not fill gets the mean colour, `round(255 * mean)`. An edge that would vanish
    /// stays one pixel (timm fails there).
    Contain {
        /// Rows.
        height: u32,
        /// Pixels per row.
        width: u32,
    },
}

/// Where an odd difference between the resized picture and the network's input goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CropRounding {
    /// The crop starts at half the difference, half to even; padding puts the smaller part first. torchvision and timm.
    Even,
    /// The crop starts at half the difference, rounded towards minus infinity. transformers.
    Floor,
}

/// How the input's size follows a picture's, for networks that take any size: the picture keeps its proportions but for
/// rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeRule {
    /// Which factor the picture's edges are multiplied with.
    pub scale: Scale,
    /// Edges are rounded to a multiple of this many pixels.
    pub multiple: u32,
}

/// The factor of a [`SizeRule`], of the two that would make one edge as long as the preparation's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// The one that is nearer to 1: transformers' `DPTImageProcessor` with `keep_aspect_ratio`.
    Nearer,
    /// The larger one, so that no edge is shorter than the input's: Depth Anything's own code, `lower_bound`.
    Larger,
}

impl Named for Scale {
    const NAMES: &'static [(Self, &'static str)] = &[(Self::Nearer, "nearer"), (Self::Larger, "larger")];
}

impl Named for Interpolation {
    const NAMES: &'static [(Self, &'static str)] =
        &[(Self::Bilinear, "bilinear"), (Self::Bicubic, "bicubic"), (Self::BicubicOpencv, "bicubic_opencv")];
}

impl Named for CropRounding {
    const NAMES: &'static [(Self, &'static str)] = &[(Self::Even, "even"), (Self::Floor, "floor")];
}

/// How a network wants its pictures, part of the model file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preprocess {
    /// Rows of the network's input.
    pub height: u32,
    /// Pixels per row of the network's input.
    pub width: u32,
    /// The size before the center crop. Where it is smaller than the input, the picture is centered and padded with
    /// black ([`Resize::Contain`]: with the mean colour).
    pub resize: Resize,
    /// The resampling filter.
    pub interpolation: Interpolation,
    /// Where the crop starts.
    pub crop_rounding: CropRounding,
    /// timm's `crop_pct`, the input's part of the resized picture, which [`at_size`](Self::at_size) goes by. `None`
    /// where the proportion of `resize` to the input says as much.
    pub crop_pct: Option<f64>,
    /// How the input's size follows a picture's. `None` where every picture becomes the same size. A session has one
    /// size: whoever opens it asks [`size_for`](Self::size_for).
    pub size_rule: Option<SizeRule>,
    /// Mean of R, G, B in [0, 1].
    pub mean: [f32; 3],
    /// Standard deviation of R, G, B.
    pub std: [f32; 3],
}
