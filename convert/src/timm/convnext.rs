//! ConvNeXt in timm (`timm.models.convnext.ConvNeXt`, timm 1.0): the variants of the paper, smaller ones of timm's, and those that normalize before
//! pooling. ConvNeXt V2's GRN, stems whose convolutions overlap, other kernels than 7 x 7 and heads with a hidden layer are not run.

use serde_json::Value;
use vitlet::config::{CONVNEXT_KERNEL, StageConfig};
use vitlet::{Activation, Config, Family, LayerScale, Precision, Scores};

use super::{classes, native_size, pool, pooling};
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::json::Object;
use crate::network::{ConvBlock, Depthwise, Linear, Network, Stage};
use crate::options::Options;

/// What a checkpoint holds beyond what [`Config`] says.
pub(super) struct Plan {
    pub(super) config: Config,
    layerscale: bool,
    /// The MLP's layers are stored as convolutions of 1 x 1.
    conv_mlp: bool,
    /// Of the convolutions; the MLP's layers have one in any case.
    conv_bias: bool,
}

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

/// # Errors
/// A checkpoint that is not what the plan says.
pub(super) fn network(
    checkpoint: &mut Checkpoint,
    plan: &Plan,
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<Network, Error> {
    let mut config = plan.config;
    let patch = (config.patch_height, config.patch_width);
    let patch = checkpoint.patch("stem.0", config.embedding_dim(), patch, plan.conv_bias)?;
    let norm_pre = Some(checkpoint.norm("stem.1", config.embedding_dim())?);
    let stages = (0..config.stages.len()).map(|i| plan.stage(checkpoint, i)).collect::<Result<_, _>>()?;
    let norm = config.norm.then(|| checkpoint.norm("norm_pre", config.dim)).transpose()?;
    let fc_norm = config.fc_norm.then(|| checkpoint.norm("head.norm", config.dim)).transpose()?;
    let head = match &options.head {
        Some(path) => {
            ["head.fc.weight", "head.fc.bias"].into_iter().for_each(|name| checkpoint.drop_tensor(name));
            Some(crate::head::replace(path, &mut config, announcements)?)
        }
        None if config.classes == 0 => None,
        None => Some(checkpoint.linear("head.fc", config.classes, config.dim, true)?),
    };
    Ok(Network {
        config,
        stem: Vec::new(),
        patch,
        positions: Vec::new(),
        rotation: None,
        prefix: Vec::new(),
        norm_pre,
        blocks: Vec::new(),
        stages,
        mixer_blocks: Vec::new(),
        norm,
        fc_norm,
        head,
    })
}

impl Plan {
    fn stage(&self, checkpoint: &mut Checkpoint, i: usize) -> Result<Stage, Error> {
        let StageConfig { dim, depth } = self.config.stages[i];
        let downsampling = match i.checked_sub(1) {
            Some(before) => {
                let (name, before) = (format!("stages.{i}.downsample"), self.config.stages[before].dim);
                let norm = checkpoint.norm(&format!("{name}.0"), before)?;
                let weight = checkpoint.take(&format!("{name}.1.weight"), &[dim, before, 2, 2])?;
                // From [channel][dy][dx] to [dy][dx][channel].
                let rows = weight.chunks_exact(4 * before);
                let weight = rows.flat_map(|row| (0..4).flat_map(|tap| row.iter().skip(tap).step_by(4))).copied();
                let (weight, bias) = (weight.collect(), self.bias(checkpoint, &format!("{name}.1"), dim)?);
                Some((norm, Linear { n: dim, k: 4 * before, weight, bias }))
            }
            None => None,
        };
        let blocks = (0..depth).map(|j| self.block(checkpoint, dim, &format!("stages.{i}.blocks.{j}")));
        Ok(Stage { downsampling, blocks: blocks.collect::<Result<_, _>>()? })
    }

    fn block(&self, checkpoint: &mut Checkpoint, dim: usize, at: &str) -> Result<ConvBlock, Error> {
        let (kernel, hidden) = (CONVNEXT_KERNEL, 4 * dim);
        let mut linear = |name: &str, n: usize, k: usize| {
            let shape = if self.conv_mlp { vec![n, k, 1, 1] } else { vec![n, k] };
            let weight = checkpoint.take(&format!("{at}.mlp.{name}.weight"), &shape)?;
            Ok(Linear { n, k, weight, bias: checkpoint.take(&format!("{at}.mlp.{name}.bias"), &[n])? })
        };
        let (up, down) = (linear("fc1", hidden, dim)?, linear("fc2", dim, hidden)?);
        let conv = format!("{at}.conv_dw");
        Ok(ConvBlock {
            conv: Depthwise {
                kernel,
                weight: checkpoint.take(&format!("{conv}.weight"), &[dim, 1, kernel, kernel])?,
                bias: self.bias(checkpoint, &conv, dim)?,
            },
            norm: checkpoint.norm(&format!("{at}.norm"), dim)?,
            up,
            down,
            gamma: self.layerscale.then(|| checkpoint.gamma(&format!("{at}.gamma"), dim)).transpose()?,
        })
    }

    /// A convolution's bias; zeros where it has none.
    fn bias(&self, checkpoint: &mut Checkpoint, name: &str, n: usize) -> Result<Vec<f32>, Error> {
        if self.conv_bias { checkpoint.take(&format!("{name}.bias"), &[n]) } else { Ok(vec![0.0; n]) }
    }
}
