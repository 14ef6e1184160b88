//! transformers' checkpoints: config.json with `model_type`, preprocessor_config.json, model.safetensors.
//!
//! vit, deit, dinov2, dinov2_with_registers, dinov3_vit, beit and data2vec-vision are nearly the same network with
//! other names and heads. convnext and depth_anything have files of their own below transformers/. Source of the facts:
//! transformers' modeling files (transformers 5). The tensor names are those that its checkpoints have on disk
//! (transformers/names.rs has the others).

use std::path::Path;

use vitlet::config::Vit;
use vitlet::picture::{Preprocess, Resize, SizeRule};
use vitlet::{Activation, Config, Named, Pooling, Positions, Resampling, Scores};

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::json::Object;
use crate::network::{Block, Dpt, Embedding, Layer, Mlp, Network, Source, Tail};
use crate::options::Options;
use crate::preprocess::{self, Processor};
use crate::{labels, position, position_bias, timm};

mod convnext;
pub(crate) mod depth_anything;
mod names;

/// What config.json calls `model_type`; ConvNeXt and Depth Anything stand beside it.
#[derive(Clone, Copy, PartialEq)]
enum ModelType {
    Vit,
    Deit,
    Dinov2,
    Dinov2WithRegisters,
    Dinov3,
    /// data2vec-vision too.
    Beit,
}

impl ModelType {
    fn of(json: &Object) -> Result<Self, Error> {
        Ok(match json.text("model_type")?.unwrap_or_default() {
            "vit" => Self::Vit,
            "deit" => Self::Deit,
            "dinov2" => Self::Dinov2,
            "dinov2_with_registers" => Self::Dinov2WithRegisters,
            "dinov3_vit" => Self::Dinov3,
            "beit" | "data2vec-vision" => Self::Beit,
            other => {
                return Err(
                    json.error("model_type", format!("{other} is not supported; these are: {}", timm::what_we_run()))
                );
            }
        })
    }

    fn is_dino(self) -> bool {
        matches!(self, Self::Dinov2 | Self::Dinov2WithRegisters)
    }

    fn engine(self, vit: Vit) -> vitlet::Family {
        match self {
            Self::Beit => vitlet::Family::Beit(vit),
            Self::Dinov3 => vitlet::Family::Dinov3(vit),
            _ => vitlet::Family::Vit(vit),
        }
    }

    /// The patch convolution, below `embeddings`.
    fn projection(self) -> &'static str {
        if self == Self::Dinov3 { "patch_embeddings" } else { "patch_embeddings.projection" }
    }

    /// How positions follow another size: as `interpolate_pos_encoding` resamples, or as rotations are computed.
    fn positions(self) -> Positions {
        match self {
            Self::Beit => Positions::Fixed,
            Self::Dinov2WithRegisters => Positions::Resampled { rule: Resampling::BicubicAntialias, grid: None },
            Self::Dinov3 => Positions::Rotated,
            Self::Vit | Self::Deit | Self::Dinov2 => Positions::Resampled { rule: Resampling::Bicubic, grid: None },
        }
    }
}

/// What the configuration states of a checkpoint: the network, and what [`Config`] does not say of its tensors.
struct Stated {
    model_type: ModelType,
    config: Config,
    /// The picture size that the checkpoint's position embedding is for.
    native: (usize, usize),
    /// Of q, k and v.
    qkv_bias: [bool; 3],
    proj_bias: bool,
    mlp_bias: bool,
    layerscale: bool,
    /// BEiT: a table in each block; one for all blocks.
    tables: (bool, bool),
    /// DINOv3: the longest period of the rotations.
    rope_base: f64,
    /// How many labels config.json has.
    labels: usize,
    /// What stands before the base model's names: `vit.` and the like, nothing in a headless model.
    base: String,
}

/// The same for either kind of network.
enum AnyStated {
    Vit(Box<Stated>),
    ConvNeXt(Box<crate::convnext::Stated>),
}

impl AnyStated {
    fn new(json: &Object) -> Result<Self, Error> {
        Ok(match json.text("model_type")? {
            Some("convnext") => Self::ConvNeXt(Box::new(convnext::stated(json)?)),
            Some("depth_anything") => Self::Vit(Box::new(depth_anything::stated(json)?)),
            _ => Self::Vit(Box::new(stated(json)?)),
        })
    }

    fn config(&mut self) -> &mut Config {
        match self {
            Self::Vit(stated) => &mut stated.config,
            Self::ConvNeXt(stated) => &mut stated.config,
        }
    }
}

/// Reads a checkpoint of transformers' in the directory `dir`, whose config.json is `json`.
///
/// # Errors
/// A model type that is not supported, or a checkpoint that contradicts config.json.
pub(crate) fn read(mut checkpoint: Checkpoint, dir: &Path, json: &Object, options: &Options) -> Result<Source, Error> {
    let mut announcements = Vec::new();
    let mut stated = AnyStated::new(json)?;
    match json.text("problem_type")? {
        Some("multi_label_classification") => {
            announcements.push("multi-label: every class has a score of its own, a sigmoid".to_owned());
        }
        Some("regression") => {
            let text = "problem_type is regression: the logits are the answer, the scores are only their sigmoids";
            announcements.push(text.to_owned());
        }
        _ => {}
    }
    let config = stated.config();
    let native = (config.image_height, config.image_width);
    let model_type = json.text("model_type")?.unwrap_or_default();
    let given = Processor::read(dir, model_type)?;
    let guessed = given.is_none();
    let processor = given.unwrap_or_else(|| Processor::usual(model_type, options.image_size.unwrap_or(native)));
    let size = input_size(&processor, native, options, &mut announcements)?;
    (config.image_height, config.image_width) = size;
    crate::config::check_size(config)?;

    let network = match stated {
        AnyStated::Vit(mut stated) => {
            stated.base = names::unify(&mut checkpoint, stated.model_type, options, &mut announcements)?;
            network(&mut checkpoint, &stated, options, &mut announcements)?
        }
        AnyStated::ConvNeXt(stated) => {
            crate::convnext::unwrap(&mut checkpoint, options, &mut announcements)?;
            convnext::network(&mut checkpoint, *stated, labels::count(json), options, &mut announcements)?
        }
    };
    crate::checkpoint::announce_left_out(checkpoint.finish(&options.ignore)?, &mut announcements);
    let mut preprocess = processor.preprocess(size, options, &mut announcements)?;
    preprocess.size_rule = fitting(preprocess.size_rule, &network.config, &mut announcements);
    if guessed {
        announcements.push(guess(model_type, &preprocess));
    }
    let named = json.text("_name_or_path")?.filter(|n| !n.is_empty()).or(json.text("model_type")?);
    Ok(Source {
        network,
        preprocess,
        labels: labels::transformers(json),
        name: named.unwrap_or_default().to_owned(),
        license: None,
        url: None,
        folded_gammas: None,
        announcements,
    })
}

/// The rule, if its sizes are the network's: transformers would leave out pixels of others.
fn fitting(rule: Option<SizeRule>, c: &Config, announcements: &mut Vec<String>) -> Option<SizeRule> {
    let SizeRule { multiple, .. } = rule?;
    let (height, width) = c.token_size();
    let fits = (multiple as usize).is_multiple_of(height) && (multiple as usize).is_multiple_of(width);
    announcements.push(match fits {
        true => preprocess::size_rule_in_words((c.image_height, c.image_width)),
        false => format!(
            "ensure_multiple_of of the processor is {multiple}, no multiple of the patch of {height}x{width} pixels: \
             every picture becomes the file's size"
        ),
    });
    rule.filter(|_| fits)
}

/// An announcement that there is no processor, with the preparation that is taken instead and its risk.
fn guess(model_type: &str, p: &Preprocess) -> String {
    let resize = match p.resize {
        Resize::ShorterEdge(edge) => format!("shorter edge to {edge}"),
        Resize::Exact { height, width } => format!("stretched to {height}x{width}"),
        Resize::Cover { height, width } | Resize::Contain { height, width } => format!("resized to {height}x{width}"),
    };
    format!(
        "no preprocessor_config.json: pictures are prepared as the published {model_type} checkpoints have it ({resize}, \
         {}, crop {}x{}, mean {:?}, std {:?}); if this network was trained otherwise, its answers are wrong: put the file \
         beside config.json",
        p.interpolation.name(),
        p.height,
        p.width,
        p.mean,
        p.std
    )
}

/// `--image-size`, else the processor's size, else config.json's.
fn input_size(
    processor: &Processor,
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
            "the image processor makes {}x{} pictures, config.json says {}x{}: {}x{} is used",
            size.0, size.1, native.0, native.1, size.0, size.1
        ));
    }
    Ok(size)
}

fn stated(json: &Object) -> Result<Stated, Error> {
    let model_type = ModelType::of(json)?;
    let len = |key: &str, default: usize| json.len(key).map(|n| n.unwrap_or(default));
    if len("num_channels", 3)? != 3 {
        return Err(json.error("num_channels", "vitlet takes RGB pictures, 3 channels"));
    }
    let native = json.size("image_size")?.unwrap_or((224, 224));
    let patch = json.size("patch_size")?.unwrap_or(if model_type == ModelType::Dinov2 { (14, 14) } else { (16, 16) });
    let (dim, heads) = (len("hidden_size", 768)?, len("num_attention_heads", 12)?);
    if heads == 0 || !dim.is_multiple_of(heads) {
        return Err(json.error("num_attention_heads", format!("{heads} heads do not divide {dim} channels")));
    }
    let head_dim = dim / heads;
    let (activation, hidden) = mlp(json, model_type, dim)?;
    let registers = match model_type {
        ModelType::Dinov2WithRegisters => len("num_register_tokens", 4)?,
        ModelType::Dinov3 => len("num_register_tokens", 0)?,
        _ => 0,
    };
    let scores = scores(json)?;
    let eps = match model_type {
        ModelType::Dinov2 | ModelType::Dinov2WithRegisters => 1e-6,
        ModelType::Dinov3 => 1e-5,
        ModelType::Vit | ModelType::Deit | ModelType::Beit => 1e-12,
    };
    let vit = Vit {
        attention: crate::config::attention(heads, head_dim),
        prefix_tokens: 1 + usize::from(model_type == ModelType::Deit) + registers,
        ..Vit::EMPTY
    };
    let mean_pooling = model_type == ModelType::Beit && json.flag("use_mean_pooling")?.unwrap_or(true);
    let config = Config {
        image_height: native.0,
        image_width: native.1,
        patch_height: patch.0,
        patch_width: patch.1,
        dim,
        depth: len("num_hidden_layers", 12)?,
        hidden,
        positions: model_type.positions(),
        norm_eps: json.number("layer_norm_eps")?.unwrap_or(eps) as f32,
        norm: !mean_pooling,
        fc_norm: mean_pooling,
        activation,
        pooling: if mean_pooling { Pooling::Avg } else { Pooling::Cls },
        scores,
        ..Config::of(model_type.engine(vit))
    };
    let flag = |key: &str, default: bool| json.flag(key).map(|f| f.unwrap_or(default));
    let tables = (flag("use_relative_position_bias", false)?, flag("use_shared_relative_position_bias", false)?);
    if model_type == ModelType::Beit && (flag("use_absolute_position_embeddings", false)? || tables == (false, false)) {
        let why =
            "BEiT needs relative positions alone: use_relative_position_bias or use_shared_relative_position_bias";
        return Err(json.error("use_absolute_position_embeddings", why));
    }
    let is_dino3 = model_type == ModelType::Dinov3;
    Ok(Stated {
        model_type,
        config,
        native,
        qkv_bias: match model_type {
            ModelType::Dinov3 => [flag("query_bias", true)?, flag("key_bias", false)?, flag("value_bias", true)?],
            ModelType::Beit => [true, false, true],
            _ => [flag("qkv_bias", true)?; 3],
        },
        proj_bias: !is_dino3 || flag("proj_bias", true)?,
        mlp_bias: !is_dino3 || flag("mlp_bias", true)?,
        layerscale: match model_type {
            ModelType::Beit => json.number("layer_scale_init_value")?.unwrap_or(0.1) > 0.0,
            other => other.is_dino() || is_dino3,
        },
        tables,
        rope_base: json.number("rope_theta")?.unwrap_or(100.0),
        labels: labels::count(json),
        base: String::new(),
    })
}

/// The activation, and the width after it.
fn mlp(json: &Object, model_type: ModelType, dim: usize) -> Result<(Activation, usize), Error> {
    let hidden = match model_type {
        ModelType::Dinov2 | ModelType::Dinov2WithRegisters => {
            (dim as f64 * json.number("mlp_ratio")?.unwrap_or(4.0)) as usize
        }
        ModelType::Dinov3 => json.len("intermediate_size")?.unwrap_or(1536),
        ModelType::Vit | ModelType::Deit | ModelType::Beit => json.len("intermediate_size")?.unwrap_or(3072),
    };
    if model_type == ModelType::Dinov3 && json.flag("use_gated_mlp")?.unwrap_or(false) {
        return match json.text("hidden_act")?.unwrap_or("gelu") {
            "silu" | "swish" => Ok((Activation::SwiGlu, hidden)),
            other => Err(json.error("hidden_act", format!("{other} is not supported with a gated MLP; silu is"))),
        };
    }
    if model_type.is_dino() && json.flag("use_swiglu_ffn")?.unwrap_or(false) {
        return Ok((Activation::SwiGlu, (hidden * 2 / 3).next_multiple_of(8)));
    }
    Ok((activation(json)?, hidden))
}

fn activation(json: &Object) -> Result<Activation, Error> {
    match json.text("hidden_act")?.unwrap_or("gelu") {
        "gelu" | "gelu_python" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_python_tanh" | "gelu_accurate" => {
            Ok(Activation::GeluTanh)
        }
        "quick_gelu" => Ok(Activation::GeluQuick),
        other => Err(json.error("hidden_act", format!("{other} is not supported; gelu, gelu_new and quick_gelu are"))),
    }
}

fn scores(json: &Object) -> Result<Scores, Error> {
    Ok(match json.text("problem_type")? {
        Some("multi_label_classification" | "regression") => Scores::Sigmoid,
        _ => Scores::Softmax,
    })
}

fn network(
    checkpoint: &mut Checkpoint,
    stated: &Stated,
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<Network, Error> {
    let mut config = stated.config;
    let embeddings = |name: &str| format!("{}embeddings.{name}", stated.base);
    let patch = (config.patch_height, config.patch_width);
    let patch = checkpoint.patch(&embeddings(stated.model_type.projection()), config.dim, patch, true)?;
    let mut prefix = checkpoint.take(&embeddings("cls_token"), &[1, 1, config.dim])?;
    if stated.model_type == ModelType::Deit {
        prefix.extend(checkpoint.take(&embeddings("distillation_token"), &[1, 1, config.dim])?);
    }
    let table = embeddings("position_embeddings");
    let positions = match config.has_positions() {
        true => {
            let chosen = options.image_size.is_some();
            Some(position::take(checkpoint, &table, &mut config, chosen, stated.native, &mut prefix, announcements)?)
        }
        false => None,
    };
    let registers = config.prefix_tokens() - prefix.len() / config.dim;
    if registers > 0 {
        // They come without a position.
        prefix.extend(checkpoint.take(&embeddings("register_tokens"), &[1, registers, config.dim])?);
    }
    let (rotation, rope) = match stated.model_type {
        ModelType::Dinov3 => position_bias::rotation(&config, stated.rope_base),
        _ => (None, Vec::new()),
    };
    let shared = match stated.tables.1 {
        true => Some(stated.table(checkpoint, "relative_position_bias")?),
        false => None,
    };
    let blocks =
        (0..config.depth).map(|i| block(checkpoint, stated, shared.as_deref(), i)).collect::<Result<_, _>>()?;
    let norm = if stated.model_type == ModelType::Dinov3 { "norm" } else { "layernorm" };
    let norm = config.norm.then(|| checkpoint.norm(&format!("{}{norm}", stated.base), config.dim)).transpose()?;
    let fc_norm = format!("{}pooler.layernorm", stated.base);
    let fc_norm = config.fc_norm.then(|| checkpoint.norm(&fc_norm, config.dim)).transpose()?;
    let head = head(checkpoint, stated, &mut config, options, announcements)?;
    let dpt = match config.depth_head() {
        Some(widths) => depth_anything::head(checkpoint, &config, widths, &depth_anything::NAMES)?,
        None => Dpt::default(),
    };
    Ok(Network {
        dpt,
        embedding: Embedding { patch, positions, rotation, prefix, ..Embedding::default() },
        rope,
        blocks,
        tail: Tail { norm, fc_norm, head, ..Tail::default() },
        ..Network::new(config)
    })
}

/// The classifier decides classes and pooling: on the class token, on [class token, mean of patches] (DINOv2), or two
/// heads on class and distillation token, averaged.
fn head(
    checkpoint: &mut Checkpoint,
    stated: &Stated,
    config: &mut Config,
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<Option<Layer>, Error> {
    let names = ["classifier", "cls_classifier", "distillation_classifier"];
    let classes = |name: &str| checkpoint.shape(&format!("{name}.weight")).and_then(|s| s.first().copied());
    let (one, two) = (classes(names[0]), classes(names[1]));
    config.classes = one.or(two).unwrap_or(0);
    config.pooling = match (one, two) {
        (Some(_), _) if stated.model_type.is_dino() => Pooling::ClsAvg,
        (None, Some(_)) => Pooling::ClsDist,
        _ => config.pooling,
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
        (None, None) => head_beside(checkpoint, stated, config, options, announcements)?,
    })
}

/// A wrapper's own head, for as many classes as config.json has labels. The width of DINOv2's over two tokens says what
/// it reads: the class token and the mean of the patches.
///
/// # Errors
/// A head whose shape does not say which features it reads.
fn head_beside(
    checkpoint: &mut Checkpoint,
    stated: &Stated,
    config: &mut Config,
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<Option<Layer>, Error> {
    let (n, k) = (stated.labels, config.dim);
    if n == 0 {
        return Ok(None);
    }
    if stated.model_type.is_dino() && checkpoint.layer_left(n, 2 * k, &options.ignore).is_some() {
        (config.classes, config.pooling) = (n, Pooling::ClsAvg);
        let head = checkpoint.head("classifier", n, 2 * k, &options.ignore, announcements)?;
        announcements.push("the head reads the class token and the mean of the patches, as DINOv2's own".to_owned());
        return Ok(Some(head));
    }
    let Some(name) = checkpoint.layer_left(n, k, &options.ignore) else { return Ok(None) };
    let tokens = if config.pooling == Pooling::Avg { "the mean of the patches" } else { "the class token" };
    let why = format!(
        "a head beside the network, and its shape does not say which tokens it reads; if it reads {tokens}, save it \
         alone for --head FILE, and leave it out here: --ignore '{name}.*'"
    );
    Err(Error::tensor(&name, why))
}

impl Stated {
    /// The name of a tensor of block `i`.
    fn at(&self, i: usize, name: &str) -> String {
        let layers = if self.model_type == ModelType::Dinov3 { "layer" } else { "encoder.layer" };
        format!("{}{layers}.{i}.{name}", self.base)
    }

    /// A relative position table for the grid of the config, by the name below `encoder`.
    fn table(&self, checkpoint: &mut Checkpoint, name: &str) -> Result<Vec<f32>, Error> {
        let c = &self.config;
        let native = (self.native.0 / c.patch_height, self.native.1 / c.patch_width);
        let name = format!("{}encoder.{name}.relative_position_bias_table", self.base);
        position_bias::table(checkpoint, &name, c, native, position_bias::Rule::Bilinear)
    }

    /// Names of the norms and of the MLP's layers: first (the gate before the other half), last.
    fn names(&self, checkpoint: &Checkpoint) -> ([&'static str; 2], &'static [&'static str], &'static str) {
        let gated = self.config.activation == Activation::SwiGlu;
        let separate = checkpoint.has(&self.at(0, "mlp.gate_proj.weight"));
        match self.model_type {
            // DINOv3, and DINOv2 as transformers 5 has it in memory.
            _ if gated && (self.model_type == ModelType::Dinov3 || separate) => {
                (["norm1", "norm2"], &["mlp.gate_proj", "mlp.up_proj"], "mlp.down_proj")
            }
            ModelType::Vit | ModelType::Deit | ModelType::Beit => {
                (["layernorm_before", "layernorm_after"], &["intermediate.dense"], "output.dense")
            }
            ModelType::Dinov3 => (["norm1", "norm2"], &["mlp.up_proj"], "mlp.down_proj"),
            ModelType::Dinov2 | ModelType::Dinov2WithRegisters if gated => {
                (["norm1", "norm2"], &["mlp.weights_in"], "mlp.weights_out")
            }
            ModelType::Dinov2 | ModelType::Dinov2WithRegisters => (["norm1", "norm2"], &["mlp.fc1"], "mlp.fc2"),
        }
    }

    fn gamma(&self, checkpoint: &mut Checkpoint, i: usize, branch: usize) -> Result<Option<Vec<f32>>, Error> {
        let name = match self.model_type {
            _ if !self.layerscale => return Ok(None),
            ModelType::Beit => format!("lambda_{branch}"),
            _ => format!("layer_scale{branch}.lambda1"),
        };
        checkpoint.gamma(&self.at(i, &name), self.config.dim).map(Some)
    }
}

fn block(checkpoint: &mut Checkpoint, stated: &Stated, shared: Option<&[f32]>, i: usize) -> Result<Block, Error> {
    let c = &stated.config;
    let attention = match stated.model_type {
        ModelType::Dinov3 => ["attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj"],
        _ => [
            "attention.attention.query",
            "attention.attention.key",
            "attention.attention.value",
            "attention.output.dense",
        ],
    };
    let (norms, up, down) = stated.names(checkpoint);
    let mut linear = |name: &str, n: usize, k: usize, bias: bool| checkpoint.linear(&stated.at(i, name), n, k, bias);
    let qkv: Vec<Layer> = attention
        .iter()
        .zip(stated.qkv_bias)
        .map(|(name, bias)| linear(name, c.dim, c.dim, bias))
        .collect::<Result<_, _>>()?;
    let proj = linear(attention[3], c.dim, c.dim, stated.proj_bias)?;
    let up_width = if c.activation == Activation::SwiGlu { 2 * c.hidden } else { c.hidden };
    let up: Vec<Layer> =
        up.iter().map(|name| linear(name, up_width / up.len(), c.dim, stated.mlp_bias)).collect::<Result<_, _>>()?;
    let down = linear(down, c.dim, c.hidden, stated.mlp_bias)?;
    let own = match stated.tables.0 {
        true => Some(stated.table(checkpoint, &format!("layer.{i}.attention.attention.relative_position_bias"))?),
        false => None,
    };
    Ok(Block {
        norm1: Some(checkpoint.norm(&stated.at(i, norms[0]), c.dim)?),
        qkv: Layer::stack(qkv),
        bias: position_bias::sum(own, shared),
        proj,
        gamma1: stated.gamma(checkpoint, i, 1)?,
        mlp: Mlp {
            norm: Some(checkpoint.norm(&stated.at(i, norms[1]), c.dim)?),
            up: Layer::stack(up),
            down,
            gamma: stated.gamma(checkpoint, i, 2)?,
        },
        ..Block::default()
    })
}
