//! transformers' checkpoints: config.json with `model_type`, preprocessor_config.json, model.safetensors.
//!
//! vit, deit, dinov2 and dinov2_with_registers are the same network with other names and heads. Source of the facts:
//! transformers' modeling files of these four (transformers 5); the tensor names are those that its checkpoints have on disk.

use std::path::Path;

use vitlet::{Activation, Config, LayerScale, Pooling, Precision, Scores};

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::json::Object;
use crate::network::{Block, Linear, Network, Source};
use crate::options::Options;
use crate::position::Resampling;
use crate::preprocess::Processor;
use crate::{labels, position, timm};

#[derive(Clone, Copy, PartialEq)]
enum Family {
    Vit,
    Deit,
    Dinov2,
    Dinov2WithRegisters,
}

impl Family {
    fn of(json: &Object) -> Result<Self, Error> {
        Ok(match json.text("model_type")?.unwrap_or_default() {
            "vit" => Self::Vit,
            "deit" => Self::Deit,
            "dinov2" => Self::Dinov2,
            "dinov2_with_registers" => Self::Dinov2WithRegisters,
            other => {
                return Err(
                    json.error("model_type", format!("{other} is not one that vitlet runs: {}", timm::what_we_run()))
                );
            }
        })
    }

    fn is_dino(self) -> bool {
        matches!(self, Self::Dinov2 | Self::Dinov2WithRegisters)
    }

    /// How `interpolate_pos_encoding` resamples.
    fn resampling(self) -> Resampling {
        if self == Self::Dinov2WithRegisters { Resampling::BicubicAntialias } else { Resampling::Bicubic }
    }
}

/// What a checkpoint holds beyond what [`Config`] says.
struct Plan {
    family: Family,
    config: Config,
    /// The picture size that the checkpoint's position embedding is for.
    native: (usize, usize),
    qkv_bias: bool,
    /// What stands before the base model's names: `vit.` and the like, nothing in a headless model.
    base: String,
}

/// Reads a transformers directory whose config.json is `json`.
///
/// # Errors
/// A model type that we do not run, or a checkpoint that is not what config.json describes.
pub(crate) fn read(dir: &Path, json: &Object, options: &Options) -> Result<Source, Error> {
    let mut announcements = Vec::new();
    let mut plan = plan(json)?;
    let file = dir.join("preprocessor_config.json");
    let processor_json = if file.is_file() { Object::read(&file)? } else { Object::new("", default_processor(&plan)) };
    if !file.is_file() {
        announcements
            .push("no preprocessor_config.json: the image processor's defaults at config.json's size".to_owned());
    }
    let processor = Processor::new(&processor_json)?;
    let size = input_size(&processor, plan.native, options, &mut announcements)?;
    (plan.config.image_height, plan.config.image_width) = size;
    crate::check_size(&plan.config)?;

    let mut checkpoint = Checkpoint::open_dir(dir)?;
    plan.base = base(&checkpoint);
    let network = network(&mut checkpoint, &plan, options, &mut announcements)?;
    crate::announce_left_out(checkpoint.finish(&options.ignore)?, &mut announcements);
    let named = json.text("_name_or_path")?.filter(|n| !n.is_empty()).or(json.text("model_type")?);
    Ok(Source {
        network,
        preprocess: processor.preprocess(size, options, &mut announcements)?,
        labels: labels::transformers(json),
        name: named.unwrap_or_default().to_owned(),
        license: None,
        url: None,
        folded_gammas: None,
        announcements,
    })
}

/// `--image-size`, else what the processor makes, else config.json's.
fn input_size(
    processor: &Processor<'_>,
    native: (usize, usize),
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<(usize, usize), Error> {
    if let Some(size) = options.image_size {
        return Ok(size);
    }
    let size = processor.output()?;
    if size != native {
        announcements.push(format!(
            "preprocessor_config.json makes {}x{} pictures, config.json says {}x{}: {}x{} is used",
            size.0, size.1, native.0, native.1, size.0, size.1
        ));
    }
    Ok(size)
}

/// The processor of the model type, without a crop, at the config's size.
fn default_processor(plan: &Plan) -> serde_json::Map<String, serde_json::Value> {
    let size = serde_json::json!({"height": plan.native.0, "width": plan.native.1});
    let kind = match plan.family {
        Family::Vit => "ViT",
        Family::Deit => "DeiT",
        Family::Dinov2 | Family::Dinov2WithRegisters => "Bit",
    };
    [("image_processor_type", kind.into()), ("size", size), ("do_center_crop", false.into())]
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

fn base(checkpoint: &Checkpoint) -> String {
    let tail = "embeddings.cls_token";
    checkpoint.names().find_map(|name| name.strip_suffix(tail)).unwrap_or_default().to_owned()
}

fn plan(json: &Object) -> Result<Plan, Error> {
    let family = Family::of(json)?;
    let len = |key: &str, default: usize| json.len(key).map(|n| n.unwrap_or(default));
    if len("num_channels", 3)? != 3 {
        return Err(json.error("num_channels", "vitlet takes RGB pictures, 3 channels"));
    }
    let native = json.size("image_size")?.unwrap_or((224, 224));
    let patch = json.size("patch_size")?.unwrap_or(if family == Family::Dinov2 { (14, 14) } else { (16, 16) });
    let (dim, heads) = (len("hidden_size", 768)?, len("num_attention_heads", 12)?);
    if heads == 0 || !dim.is_multiple_of(heads) {
        return Err(json.error("num_attention_heads", format!("{heads} heads do not divide {dim} channels")));
    }
    let head_dim = dim / heads;
    let (activation, hidden) = mlp(json, family, dim)?;
    let registers = if family == Family::Dinov2WithRegisters { len("num_register_tokens", 4)? } else { 0 };
    let scores = match json.text("problem_type")? {
        Some("multi_label_classification") => Scores::Sigmoid,
        _ => Scores::Softmax,
    };
    let config = Config {
        image_height: native.0,
        image_width: native.1,
        patch_height: patch.0,
        patch_width: patch.1,
        dim,
        depth: len("num_hidden_layers", 12)?,
        heads,
        head_dim,
        hidden,
        prefix_tokens: 1 + usize::from(family == Family::Deit) + registers,
        norm_eps: json.number("layer_norm_eps")?.unwrap_or(if family.is_dino() { 1e-6 } else { 1e-12 }) as f32,
        attention_scale: crate::attention_scale(head_dim),
        qk_norm: false,
        norm_pre: false,
        norm: true,
        fc_norm: false,
        activation,
        pooling: Pooling::Cls,
        classes: 0,
        scores,
        precision: Precision::F32,
        layerscale: LayerScale::None,
    };
    let qkv_bias = json.flag("qkv_bias")?.unwrap_or(true);
    Ok(Plan { family, config, native, qkv_bias, base: String::new() })
}

/// The activation, and the width after it.
fn mlp(json: &Object, family: Family, dim: usize) -> Result<(Activation, usize), Error> {
    let hidden = match family.is_dino() {
        true => (dim as f64 * json.number("mlp_ratio")?.unwrap_or(4.0)) as usize,
        false => json.len("intermediate_size")?.unwrap_or(3072),
    };
    if family.is_dino() && json.flag("use_swiglu_ffn")?.unwrap_or(false) {
        return Ok((Activation::SwiGlu, (hidden * 2 / 3).next_multiple_of(8)));
    }
    let activation = match json.text("hidden_act")?.unwrap_or("gelu") {
        "gelu" | "gelu_python" => Activation::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_python_tanh" | "gelu_accurate" => Activation::GeluTanh,
        "quick_gelu" => Activation::GeluQuick,
        other => return Err(json.error("hidden_act", format!("{other} is not run; gelu, gelu_new and quick_gelu are"))),
    };
    Ok((activation, hidden))
}

fn network(
    checkpoint: &mut Checkpoint,
    plan: &Plan,
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<Network, Error> {
    let mut config = plan.config;
    let embeddings = |name: &str| format!("{}embeddings.{name}", plan.base);
    let patch = (config.patch_height, config.patch_width);
    let patch = checkpoint.patch(&embeddings("patch_embeddings.projection"), config.dim, patch, true)?;
    let mut prefix = checkpoint.take(&embeddings("cls_token"), &[1, 1, config.dim])?;
    if plan.family == Family::Deit {
        prefix.extend(checkpoint.take(&embeddings("distillation_token"), &[1, 1, config.dim])?);
    }
    let (table, how) = (embeddings("position_embeddings"), plan.family.resampling());
    let positions = position::take(checkpoint, &table, &config, plan.native, &mut prefix, how, announcements)?;
    let registers = config.prefix_tokens - prefix.len() / config.dim;
    if registers > 0 {
        // They come without a position.
        prefix.extend(checkpoint.take(&embeddings("register_tokens"), &[1, registers, config.dim])?);
    }
    let blocks = (0..config.depth).map(|i| block(checkpoint, plan, i)).collect::<Result<_, _>>()?;
    let norm = Some(checkpoint.norm(&format!("{}layernorm", plan.base), config.dim)?);
    let head = head(checkpoint, plan, &mut config, options, announcements)?;
    Ok(Network { config, patch, positions, prefix, norm_pre: None, blocks, norm, fc_norm: None, head })
}

/// The classifier decides classes and pooling: on the class token, on [class token, mean of patches] (DINOv2), or two
/// heads on class and distillation token, averaged.
fn head(
    checkpoint: &mut Checkpoint,
    plan: &Plan,
    config: &mut Config,
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<Option<Linear>, Error> {
    let names = ["classifier", "cls_classifier", "distillation_classifier"];
    let classes = |name: &str| checkpoint.shape(&format!("{name}.weight")).and_then(|s| s.first().copied());
    let (one, two) = (classes(names[0]), classes(names[1]));
    config.classes = one.or(two).unwrap_or(0);
    config.pooling = match (one, two) {
        (Some(_), _) if plan.family.is_dino() => Pooling::ClsAvg,
        (None, Some(_)) => Pooling::ClsDist,
        _ => Pooling::Cls,
    };
    if let Some(path) = &options.head {
        for name in names {
            checkpoint.drop_tensor(&format!("{name}.weight"));
            checkpoint.drop_tensor(&format!("{name}.bias"));
        }
        return crate::head::replace(path, config, announcements).map(Some);
    }
    Ok(match (one, two) {
        (Some(n), _) => Some(checkpoint.linear(names[0], n, config.features(), true)?),
        (None, Some(n)) => {
            let cls = checkpoint.linear(names[1], n, config.dim, true)?;
            Some(crate::head::mean(cls, checkpoint.linear(names[2], n, config.dim, true)?))
        }
        (None, None) => None,
    })
}

fn block(checkpoint: &mut Checkpoint, plan: &Plan, i: usize) -> Result<Block, Error> {
    let c = &plan.config;
    let at = |name: &str| format!("{}encoder.layer.{i}.{name}", plan.base);
    let qkv = ["query", "key", "value"]
        .map(|name| checkpoint.linear(&at(&format!("attention.attention.{name}")), c.dim, c.dim, plan.qkv_bias));
    let [q, k, v] = qkv;
    let names = match (plan.family.is_dino(), c.activation) {
        (false, _) => ["layernorm_before", "layernorm_after", "intermediate.dense", "output.dense"],
        // weights_in has the gate first.
        (true, Activation::SwiGlu) => ["norm1", "norm2", "mlp.weights_in", "mlp.weights_out"],
        (true, _) => ["norm1", "norm2", "mlp.fc1", "mlp.fc2"],
    };
    let up_width = if c.activation == Activation::SwiGlu { 2 * c.hidden } else { c.hidden };
    let mut gamma = |branch: usize| match plan.family.is_dino() {
        true => checkpoint.gamma(&at(&format!("layer_scale{branch}.lambda1")), c.dim).map(Some),
        false => Ok(None),
    };
    let (gamma1, gamma2) = (gamma(1)?, gamma(2)?);
    Ok(Block {
        norm1: checkpoint.norm(&at(names[0]), c.dim)?,
        qkv: Linear::stack(&[q?, k?, v?]),
        qk_norm: None,
        proj: checkpoint.linear(&at("attention.output.dense"), c.dim, c.dim, true)?,
        gamma1,
        norm2: checkpoint.norm(&at(names[1]), c.dim)?,
        up: checkpoint.linear(&at(names[2]), up_width, c.dim, true)?,
        down: checkpoint.linear(&at(names[3]), c.dim, c.hidden, true)?,
        gamma2,
    })
}
