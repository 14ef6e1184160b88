//! ConvNeXt's arguments in timm (`timm.models.convnext.ConvNeXt`, timm 1.0): the variants of the paper, timm's smaller
//! ones, and variants that normalize before pooling. ConvNeXt V2's GRN, stems whose convolutions overlap, other kernels
//! than 7 x 7 and heads with a hidden layer are not supported.

use serde_json::Value;
use vitlet::config::CONVNEXT_KERNEL;
use vitlet::{Activation, Config};

use super::{classes, native_size, pool, pooling};
use crate::convnext::{self, Stated};
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

/// Arguments of which only these values are supported.
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
            return Err(args.error(key, format!("{given} is not supported in ConvNeXt")));
        }
    }
    Ok(())
}

/// # Errors
/// A variant that is not supported.
pub(super) fn stated(
    args: &Object,
    json: &Object,
    pretrained: &Object,
    announcements: &mut Vec<String>,
) -> Result<Stated, Error> {
    check_arguments(args)?;
    let stages = convnext::stages(args, ["dims", "depths"])?;
    let classes = classes(args, json, pretrained)?;
    let flag = |key: &str, default: bool| args.flag(key).map(|f| f.unwrap_or(default));
    let norm_first = flag("head_norm_first", false)?;
    let activation = match args.text("act_layer")?.unwrap_or("gelu") {
        "gelu" => Activation::Gelu,
        "gelu_tanh" => Activation::GeluTanh,
        "quick_gelu" => Activation::GeluQuick,
        other => {
            return Err(
                args.error("act_layer", format!("{other} is not supported; gelu, gelu_tanh and quick_gelu are"))
            );
        }
    };
    let config = Config {
        norm_eps: args.number("norm_eps")?.unwrap_or(1e-6) as f32,
        norm: norm_first,
        fc_norm: !norm_first,
        activation,
        pooling: pooling(args, pool(args, pretrained, "avg")?, false, false, classes, announcements)?,
        classes,
        ..convnext::config(stages, native_size(args, pretrained)?)
    };
    Ok(Stated {
        config,
        layerscale: args.number("ls_init_value")?.is_some(),
        conv_mlp: flag("conv_mlp", false)?,
        conv_bias: flag("conv_bias", true)?,
    })
}
