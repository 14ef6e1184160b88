//! What stands on an encoder.

use super::check::ok;
use super::{Config, Family, Named, Vit};
use crate::error::Error;

/// What stands on the encoder.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Head {
    /// Pooling, and a matrix where there are classes.
    #[default]
    Classifier,
    /// A distance for each pixel.
    Depth(Dpt),
    /// A distance for each pixel, or logits for each patch.
    Linear(LinearHead),
}

impl Head {
    /// What its depth is; none without one.
    pub const fn depth(&self) -> Option<Depth> {
        match self {
            Self::Depth(dpt) => Some(Depth { metric: dpt.metric, enlarging: dpt.enlarging }),
            Self::Linear(LinearHead { answer: Answer::Depth { .. }, .. }) => {
                Some(Depth { metric: true, enlarging: Enlarging::Bilinear })
            }
            Self::Linear(_) | Self::Classifier => None,
        }
    }

    /// Classes of the patches; 0 where they have none.
    pub const fn patch_classes(&self) -> usize {
        match self {
            Self::Linear(LinearHead { answer: Answer::Classes, channels, .. }) => *channels,
            _ => 0,
        }
    }
}

/// What a depth is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Whether it is a distance in metres; else it is the inverse of one, up to a scale and a shift of the picture.
    pub metric: bool,
    /// How the depth of the input's pixels becomes that of the picture's.
    pub enlarging: Enlarging,
}

/// A linear head of DINOv2 (Oquab et al. 2023).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearHead {
    /// The blocks after which the encoder's tokens are read, as [`taps`](Self::taps) gives them; 0 past these.
    pub blocks: [usize; 4],
    /// How many they are.
    pub count: usize,
    /// Whether the encoder's last norm is on them.
    pub norm: bool,
    /// Whether each patch is read with the class token beside it.
    pub class_token: bool,
    /// Outputs of the matrix: classes, or bins of depth.
    pub channels: usize,
    /// What the outputs mean.
    pub answer: Answer,
}

/// What the outputs of a [`LinearHead`] mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    /// They are logits of classes.
    Classes,
    /// They are weights of depths that are spread evenly from `min` to `max` metres.
    Depth {
        /// Of the first.
        min: f32,
        /// Of the last.
        max: f32,
    },
}

impl LinearHead {
    /// The blocks, numbered from 0 and ascending, after which tokens are read.
    pub fn taps(&self) -> &[usize] {
        &self.blocks[..self.count.min(4)]
    }

    /// Whether it can stand on the encoder of `c`.
    pub(super) fn check(&self, c: &Config) -> Result<(), Error> {
        let taps = self.taps();
        ok(
            matches!(c.family, Family::Vit(_) | Family::Dinov3(_)) && c.classes == 0,
            "a linear head over patches stands on a ViT without a classifier",
        )?;
        ok(c.norm || !self.norm, "a linear head reads normalized tokens of a network without a last norm")?;
        ok(c.prefix_tokens() > 0 || !self.class_token, "a linear head reads a class token that there is not")?;
        ok(
            (1..=4).contains(&self.count)
                && taps.is_sorted_by(|a, b| a < b)
                && taps.last().is_some_and(|last| *last < c.depth),
            "a linear head reads one to four blocks in their order",
        )?;
        ok((1..=4_096).contains(&self.channels), "a linear head must have 1 to 4096 outputs")?;
        match self.answer {
            Answer::Classes => Ok(()),
            Answer::Depth { min, max } => {
                ok(min >= 0.0 && max > min && max.is_finite(), "depths must be finite, ascending and not negative")
            }
        }
    }
}

/// The DPT head of Depth Anything (Ranftl et al. 2021, "Vision Transformers for Dense Prediction"; Yang et al. 2024,
/// "Depth Anything V2").
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dpt {
    /// The blocks, numbered from 0, after which the encoder's tokens are read, from the shallowest to the deepest.
    pub taps: [usize; 4],
    /// Channels of the maps that they become.
    pub reassembled: [usize; 4],
    /// Channels while these are fused.
    pub fused: usize,
    /// Channels before the last convolution.
    pub hidden: usize,
    /// Whether the output is a distance; else it is the inverse of one, up to a scale and a shift of the picture.
    pub metric: bool,
    /// The factor on the output: in metres where it is a distance.
    pub max_depth: f32,
    /// How the depth of the input's pixels becomes that of the picture's.
    pub enlarging: Enlarging,
}

/// How a map of the input's size becomes one of the picture's size, after the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enlarging {
    /// `interpolate(mode="bicubic", align_corners=False)`: transformers' `post_process_depth_estimation`.
    #[default]
    Bicubic,
    /// `interpolate(mode="bilinear", align_corners=True)`: Depth Anything's own code.
    BilinearAligned,
    /// `interpolate(mode="bilinear", align_corners=False)`: DINOv2's own code.
    Bilinear,
}

impl Named for Enlarging {
    const NAMES: &'static [(Self, &'static str)] =
        &[(Self::Bicubic, "bicubic"), (Self::BilinearAligned, "bilinear_aligned"), (Self::Bilinear, "bilinear")];
}

impl Dpt {
    /// Height and width of the reassembled maps, for a grid of patches.
    pub fn sizes(&self, (height, width): (usize, usize)) -> [(usize, usize); 4] {
        [4, 2, 1, 0].map(|times| match times {
            // A convolution with a stride of 2.
            0 => (height.div_ceil(2), width.div_ceil(2)),
            _ => (times * height, times * width),
        })
    }

    /// Whether it can stand on the encoder of `c`.
    pub(super) fn check(&self, c: &Config) -> Result<(), Error> {
        let within = |n: usize| (1..=4_096).contains(&n);
        ok(
            matches!(c.family, Family::Vit(Vit { norm_pre: false, .. })) && c.norm && c.classes == 0,
            "a depth head stands on a ViT with a last norm and without a classifier",
        )?;
        let [.., last] = self.taps;
        ok(self.taps.is_sorted_by(|a, b| a < b) && last < c.depth, "a depth head reads four blocks in their order")?;
        ok(
            self.reassembled.into_iter().all(within) && within(self.fused) && within(self.hidden),
            "a depth head's maps must have 1 to 4096 channels",
        )?;
        ok(self.fused.is_multiple_of(2), "a depth head halves the channels of its fused maps")?;
        ok(self.max_depth.is_finite() && self.max_depth > 0.0, "the largest depth must be finite and positive")
    }
}
