//! transformers' convnext (facebook/convnext-tiny-224 and the like).

use vitlet::Config;

use super::{activation, scores};
use crate::checkpoint::Checkpoint;
use crate::convnext::{self, Stated};
use crate::error::Error;
use crate::json::Object;
use crate::network::Network;
use crate::options::Options;

/// # Errors
/// A variant that is not supported.
pub(super) fn stated(json: &Object) -> Result<Stated, Error> {
    if json.len("num_channels")?.unwrap_or(3) != 3 {
        return Err(json.error("num_channels", "vitlet takes RGB pictures, 3 channels"));
    }
    if json.size("patch_size")?.unwrap_or((4, 4)) != (4, 4) {
        return Err(json.error("patch_size", "ConvNeXt is supported with patches of 4 x 4"));
    }
    // The last norm's alone; the others have 1e-6 whatever it says. Beside variances of order 1 there is no difference
    // between 1e-12 and 1e-6 that f32 would show.
    if json.number("layer_norm_eps")?.unwrap_or(1e-12) > 1e-6 {
        return Err(json.error("layer_norm_eps", "ConvNeXt is supported with 1e-6, as all its other norms are"));
    }
    let stages = convnext::stages(json, ["hidden_sizes", "depths"])?;
    let size = json.size("image_size")?.unwrap_or((224, 224));
    let config = Config { activation: activation(json)?, scores: scores(json)?, ..convnext::config(stages, size) };
    let layerscale = json.number("layer_scale_init_value")?.unwrap_or(1e-6) > 0.0;
    Ok(Stated { config, layerscale, conv_mlp: false, conv_bias: true })
}

/// The network with its classifier, or a wrapper's own for as many classes as config.json has `labels`: the base model
/// has but one vector that a head can read, the norm of the mean of the patches.
///
/// # Errors
/// A checkpoint that contradicts what is stated.
pub(super) fn network(
    checkpoint: &mut Checkpoint,
    mut stated: Stated,
    labels: usize,
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<Network, Error> {
    let own = checkpoint.shape("classifier.weight").and_then(|s| s.first().copied());
    let is_beside = labels > 0 && checkpoint.layer_left(labels, stated.config.dim, &options.ignore).is_some();
    stated.config.classes = own.or(is_beside.then_some(labels)).unwrap_or(0);
    convnext::network(checkpoint, &stated, options, announcements)
}
