//! ConvNeXt's arguments in timm (`timm.models.convnext.ConvNeXt`, timm 1.0): the variants of the paper, smaller ones of timm's, and those that normalize before
//! pooling. ConvNeXt V2's GRN, stems whose convolutions overlap, other kernels than 7 x 7 and heads with a hidden layer are not run.

use serde_json::Value;
use vitlet::config::{CONVNEXT_KERNEL, StageConfig};
use vitlet::{Activation, Config, Family, LayerScale, Precision, Scores};

use super::{classes, native_size, pool, pooling};
use crate::convnext::Plan;
use crate::error::Error;
use crate::json::Object;

/// Arguments that change nothing at inference, or that are read below.
const READ: [&str; 12] = [
    "in_chans",
    "num_classes",
    "global_pool",
    "depths",
    "dims",
    "ls_init_value",
    "head_init_scale",
    "head_norm_first",
    "conv_mlp",
    "conv_bias",
    "act_layer",
    "norm_eps",
];

/// Arguments of which we run these values only.
fn only() -> [(&'static str, Vec<Value>); 6] {
    let kernel = CONVNEXT_KERNEL;
    [
        ("output_stride", vec![32.into()]),
        ("kernel_sizes", vec![kernel.into(), vec![kernel; 4].into()]),
        ("stem_type", vec!["patch".into()]),
        ("patch_size", vec![4.into()]),
        ("use_grn", vec![false.into()]),
        ("norm_layer", vec!["layernorm".into(), "layernorm2d".into()]),
    ]
}

fn check_arguments(args: &Object) -> Result<(), Error> {
    for key in args.keys().filter(|key| !READ.contains(key) && !key.contains("drop")) {
        let given = args.value(key).cloned().unwrap_or_default();
        if !only().iter().any(|(known, values)| *known == key && values.contains(&given)) {
            return Err(args.error(key, format!("{given} is not run in ConvNeXt")));
        }
    }
    Ok(())
}

/// The four counts of an argument.
fn four(args: &Object, key: &str) -> Result<[usize; 4], Error> {
    let counts = args.value(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let counts: Option<Vec<usize>> = counts.iter().map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok())).collect();
    let four = counts.and_then(|counts| counts.try_into().ok());
    four.ok_or_else(|| args.error(key, "ConvNeXt is run with four stages: four counts"))
}

/// # Errors
/// A variant that we do not run.
pub(super) fn plan(
    args: &Object,
    json: &Object,
    pretrained: &Object,
    announcements: &mut Vec<String>,
) -> Result<Plan, Error> {
    check_arguments(args)?;
    let (dims, depths) = (four(args, "dims")?, four(args, "depths")?);
    let stages: [StageConfig; 4] = std::array::from_fn(|i| StageConfig { dim: dims[i], depth: depths[i] });
    let [.., last] = stages;
    let native = native_size(args, pretrained)?;
    let classes = classes(args, json, pretrained)?;
    let flag = |key: &str, default: bool| args.flag(key).map(|f| f.unwrap_or(default));
    let norm_first = flag("head_norm_first", false)?;
    let activation = match args.text("act_layer")?.unwrap_or("gelu") {
        "gelu" => Activation::Gelu,
        "gelu_tanh" => Activation::GeluTanh,
        "quick_gelu" => Activation::GeluQuick,
        other => return Err(args.error("act_layer", format!("{other} is not run; gelu, gelu_tanh and quick_gelu are"))),
    };
    let config = Config {
        family: Family::ConvNeXt,
        image_height: native.0,
        image_width: native.1,
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
        norm_eps: args.number("norm_eps")?.unwrap_or(1e-6) as f32,
        attention_scale: 0.0,
        qk_norm: false,
        norm_pre: true,
        block_norm: true,
        norm: norm_first,
        fc_norm: !norm_first,
        activation,
        pooling: pooling(args, pool(args, pretrained, "avg")?, false, false, classes, announcements)?,
        classes,
        scores: Scores::Softmax,
        precision: Precision::F32,
        layerscale: LayerScale::None,
    };
    Ok(Plan {
        config,
        layerscale: args.number("ls_init_value")?.is_some(),
        conv_mlp: flag("conv_mlp", false)?,
        conv_bias: flag("conv_bias", true)?,
    })
}
