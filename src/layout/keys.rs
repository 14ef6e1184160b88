//! Metadata keys of a model file; docs/format.md says what each holds.
#![allow(missing_docs)]

use crate::config::Family;

pub const ARCHITECTURE: &str = "general.architecture";
pub const ALIGNMENT: &str = "general.alignment";
pub const NAME: &str = "general.name";
pub const LICENSE: &str = "general.license";
pub const SOURCE_URL: &str = "general.source.url";

pub const FORMAT_VERSION: &str = "vitlet.format_version";
pub const PRECISION: &str = "vitlet.precision";
pub const CHECKSUM: &str = "vitlet.checksum";
pub const LABELS: &str = "vitlet.labels";
pub const LAYERSCALE_MODE: &str = "vitlet.layerscale.mode";
pub const LAYERSCALE_WEIGHT_SCALE: &str = "vitlet.layerscale.weight_scale";
pub const LAYERSCALE_GAMMA1: &str = "vitlet.layerscale.gamma1";
pub const LAYERSCALE_GAMMA2: &str = "vitlet.layerscale.gamma2";
pub const LAYERSCALE_GAMMA3: &str = "vitlet.layerscale.gamma3";
pub const KEPT: &str = "vitlet.pruned.kept";

pub const MEAN: &str = "vitlet.preprocess.mean";
pub const STD: &str = "vitlet.preprocess.std";
pub const INTERPOLATION: &str = "vitlet.preprocess.interpolation";
pub const RESIZE: &str = "vitlet.preprocess.resize";
pub const RESIZE_HEIGHT: &str = "vitlet.preprocess.resize_height";
pub const RESIZE_WIDTH: &str = "vitlet.preprocess.resize_width";
pub const CROP_PCT: &str = "vitlet.preprocess.crop_pct";
pub const SIZE_RULE: &str = "vitlet.preprocess.size_rule";
pub const SIZE_MULTIPLE: &str = "vitlet.preprocess.size_multiple";
pub const CROP_ROUNDING: &str = "vitlet.preprocess.crop_rounding";

pub const IMAGE_HEIGHT: &str = "vit.image_height";
pub const IMAGE_WIDTH: &str = "vit.image_width";
pub const PATCH_HEIGHT: &str = "vit.patch_height";
pub const PATCH_WIDTH: &str = "vit.patch_width";
pub const CHANNELS: &str = "vit.channels";
pub const DIM: &str = "vit.embedding_length";
pub const DEPTH: &str = "vit.block_count";
pub const CLASS_BLOCKS: &str = "cait.class_block_count";
pub const STAGE_DIMS: &str = "convnext.embedding_lengths";
pub const STAGE_DEPTHS: &str = "convnext.block_counts";
pub const TOKENS_NORM: &str = "xcit.tokens_norm";
pub const HEADS: &str = "vit.attention.head_count";
pub const HEAD_DIM: &str = "vit.attention.head_length";
pub const HIDDEN: &str = "vit.feed_forward_length";
pub const PREFIX_TOKENS: &str = "vit.prefix_tokens";
pub const POSITION_RESAMPLING: &str = "vit.position_resampling";
pub const POSITION_GRID: &str = "vit.position_grid";
pub const ROPE_PERIODS: &str = "dinov3.rope_periods";
pub const ROPE_FREQUENCIES: &str = "vit5.rope_frequencies";
pub const NORM_EPS: &str = "vit.attention.layer_norm_epsilon";
pub const ATTENTION_SCALE: &str = "vit.attention.scale";
pub const QK_NORM: &str = "vit.attention.qk_norm";
pub const NORM_PRE: &str = "vit.norm_pre";
pub const BLOCK_NORM: &str = "vit.block_norm";
pub const NORM: &str = "vit.norm";
pub const FC_NORM: &str = "vit.fc_norm";
pub const ACTIVATION: &str = "vit.activation";
pub const POOLING: &str = "vit.pooling";
pub const CLASSES: &str = "vit.class_count";
pub const HEAD_FACTORS: &str = "vit.head_factors";
pub const HEAD: &str = "vitlet.head";
pub const DEPTH_TAPS: &str = "vitlet.depth.taps";
pub const DEPTH_REASSEMBLED: &str = "vitlet.depth.reassembled";
pub const DEPTH_FUSED: &str = "vitlet.depth.fused";
pub const DEPTH_HIDDEN: &str = "vitlet.depth.hidden";
pub const DEPTH_METRIC: &str = "vitlet.depth.metric";
pub const DEPTH_ENLARGING: &str = "vitlet.depth.enlarging";
pub const DEPTH_MAX: &str = "vitlet.depth.max";
pub const LINEAR_TAPS: &str = "vitlet.linear.taps";
pub const LINEAR_NORM: &str = "vitlet.linear.norm";
pub const LINEAR_CLASS_TOKEN: &str = "vitlet.linear.class_token";
pub const LINEAR_CHANNELS: &str = "vitlet.linear.channels";
pub const LINEAR_MIN: &str = "vitlet.linear.min_depth";
pub const LINEAR_MAX: &str = "vitlet.linear.max_depth";
pub const SCORES: &str = "vit.scores";

/// Where the numbers stand that a family's rotations are computed from.
pub fn rope(family: &Family) -> &'static str {
    if matches!(family, Family::Vit5(_)) { ROPE_FREQUENCIES } else { ROPE_PERIODS }
}
