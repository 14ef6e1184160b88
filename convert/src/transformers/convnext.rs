//! transformers' convnext (facebook/convnext-tiny-224 and the like).

use serde_json::Value;
use vitlet::config::StageConfig;
use vitlet::{Config, Family, LayerScale, Pooling, Precision};

use super::{activation, scores};
use crate::checkpoint::Checkpoint;
use crate::convnext::{self, Plan};
use crate::error::Error;
use crate::json::Object;
use crate::network::Network;
use crate::options::Options;

/// What every norm but the last has in transformers, whatever config.json says.
const NORM_EPS: f64 = 1e-6;

/// # Errors
/// A variant that we do not run.
pub(super) fn plan(json: &Object) -> Result<Plan, Error> {
    if json.len("num_channels")?.unwrap_or(3) != 3 {
        return Err(json.error("num_channels", "vitlet takes RGB pictures, 3 channels"));
    }
    if json.size("patch_size")?.unwrap_or((4, 4)) != (4, 4) {
        return Err(json.error("patch_size", "ConvNeXt is run with patches of 4 x 4"));
    }
    // The last norm's alone. Beside variances of order 1 there is no difference between 1e-12 and 1e-6 that f32 would show.
    if json.number("layer_norm_eps")?.unwrap_or(1e-12) > NORM_EPS {
        return Err(json.error("layer_norm_eps", "ConvNeXt is run with 1e-6, as all its other norms are"));
    }
    let four = |key: &str, default: [usize; 4]| match json.value(key).map(Value::as_array) {
        None => Ok(default),
        Some(counts) => {
            let counts = counts.into_iter().flatten().map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok()));
            let counts = counts.collect::<Option<Vec<usize>>>().and_then(|counts| counts.try_into().ok());
            counts.ok_or_else(|| json.error(key, "ConvNeXt is run with four stages: four counts"))
        }
    };
    let (dims, depths) = (four("hidden_sizes", [96, 192, 384, 768])?, four("depths", [3, 3, 9, 3])?);
    let stages: [StageConfig; 4] = std::array::from_fn(|i| StageConfig { dim: dims[i], depth: depths[i] });
    let [.., last] = stages;
    let (image_height, image_width) = json.size("image_size")?.unwrap_or((224, 224));
    let config = Config {
        family: Family::ConvNeXt,
        image_height,
        image_width,
        patch_height: 4,
        patch_width: 4,
        dim: last.dim,
        depth: depths.iter().sum(),
        stages,
        class_blocks: 0,
        tokens_norm: false,
        heads: 0,
        head_dim: 0,
        hidden: last.hidden(),
        prefix_tokens: 0,
        norm_eps: NORM_EPS as f32,
        attention_scale: 0.0,
        qk_norm: false,
        norm_pre: true,
        block_norm: true,
        norm: false,
        fc_norm: true,
        activation: activation(json)?,
        pooling: Pooling::Avg,
        classes: 0,
        scores: scores(json)?,
        precision: Precision::F32,
        layerscale: LayerScale::None,
    };
    let layerscale = json.number("layer_scale_init_value")?.unwrap_or(1e-6) > 0.0;
    Ok(Plan { config, layerscale, conv_mlp: false, conv_bias: true })
}

/// # Errors
/// A checkpoint that is not what the plan says.
pub(super) fn network(
    checkpoint: &mut Checkpoint,
    mut plan: Plan,
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<Network, Error> {
    // A headless model has none.
    plan.config.classes = checkpoint.shape("classifier.weight").and_then(|s| s.first().copied()).unwrap_or(0);
    convnext::network(checkpoint, &plan, options, announcements)
}
