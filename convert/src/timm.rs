//! timm's checkpoints: config.json with `architecture`, `model_args` and `pretrained_cfg`, beside model.safetensors.
//!
//! An architecture is its constructor arguments: data/timm_architectures.json has those of timm's plain ViTs,
//! config.json's `model_args` win over them, and an unknown name works when its `model_args` say enough. Source of the
//! facts: timm's `VisionTransformer`, `VisionTransformerDistilled`, `Beit`, `Eva`, `Cait` and `Xcit` (timm 1.0);
//! `ConvNeXt` is in convnext.rs, `MlpMixer` in resmlp.rs.

use std::sync::OnceLock;

use serde_json::{Map, Value};
use vitlet::config::Vit;
use vitlet::{Activation, Config, Family, Pooling};

use crate::branch::Residual;
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::json::Object;
use crate::network::{Block, Embedding, Layer, Mlp, Network, Source, Tail, Talking};
use crate::options::Options;
use crate::{labels, position, position_bias, preprocess};

mod beit_cait_dinov3_xcit;
mod convnext;
pub(crate) mod dinov2;
mod resmlp;
mod xcit;

use beit_cait_dinov3_xcit::Relative;

const ARCHITECTURES: &str = include_str!("../data/timm_architectures.json");

/// Constructor arguments by architecture.
pub(crate) fn architectures() -> &'static Map<String, Value> {
    static TABLE: OnceLock<Map<String, Value>> = OnceLock::new();
    TABLE.get_or_init(|| serde_json::from_str(ARCHITECTURES).unwrap_or_default())
}

/// What the configuration states of a checkpoint: the network, and what [`Config`] does not say of its tensors.
struct Stated {
    config: Config,
    /// The picture size that the checkpoint's position embedding is for.
    native: (usize, usize),
    qkv_bias: bool,
    proj_bias: bool,
    residual: Residual,
    /// Of parallel blocks, which have no other residual.
    layerscale: bool,
    class_token: bool,
    registers: usize,
    distilled: bool,
    position: Position,
    relative: Relative,
}

#[derive(Clone, Copy, PartialEq)]
enum Position {
    None,
    /// XCiT's functions of the position, through a layer.
    Fourier,
    /// A row for each patch (`no_embed_class`).
    Patches,
    /// Rows for the prefix tokens, then for the patches.
    All,
}

/// Reads a checkpoint of timm's whose config.json is `json`.
///
/// # Errors
/// An architecture that is not supported, or a checkpoint that contradicts config.json.
pub(crate) fn read(mut checkpoint: Checkpoint, json: &Object, options: &Options) -> Result<Source, Error> {
    let mut announcements = Vec::new();
    let name = json.text("architecture")?.unwrap_or_default().to_owned();
    let pretrained = preprocess::pretrained_cfg(json);
    let mut args = arguments(&name, json, &pretrained)?;
    let network = if name.starts_with("convnext") {
        let mut stated = convnext::stated(&args, json, &pretrained, &mut announcements)?;
        set_size(&mut stated.config, options)?;
        crate::convnext::unwrap(&mut checkpoint, options, &mut announcements)?;
        crate::convnext::network(&mut checkpoint, &stated, options, &mut announcements)?
    } else if name.starts_with("resmlp") {
        let stated = resmlp::stated(&args, json, &pretrained, options, &mut announcements)?;
        resmlp::network(&mut checkpoint, stated, options, &mut announcements)?
    } else {
        let relative = beit_cait_dinov3_xcit::translate(&name, &mut args)?;
        let mut stated = stated(&name, &args, relative, json, &pretrained, &mut announcements)?;
        set_size(&mut stated.config, options)?;
        network(&mut checkpoint, &stated, options, &mut announcements)?
    };
    crate::checkpoint::announce_left_out(checkpoint.finish(&options.ignore)?, &mut announcements);
    let size = (network.config.image_height, network.config.image_width);
    if args.value("img_size").or(pretrained.value("input_size")).is_none() && options.image_size.is_none() {
        announcements
            .push(format!("config.json does not say the size of pictures: {}x{}, timm's default", size.0, size.1));
    }
    let preprocess = preprocess::timm(&pretrained, size, options, &mut announcements)?;
    Ok(Source {
        network,
        preprocess,
        labels: labels::timm(json, &pretrained),
        name: match pretrained.text("tag")? {
            Some(tag) if !name.contains('.') && !tag.is_empty() => format!("{name}.{tag}"),
            _ => name,
        },
        license: pretrained.text("license")?.map(str::to_owned),
        url: pretrained.text("origin_url")?.map(str::to_owned),
        folded_gammas: None,
        announcements,
    })
}

/// `--image-size` instead of the network's own.
fn set_size(config: &mut Config, options: &Options) -> Result<(), Error> {
    if let Some(size) = options.image_size {
        (config.image_height, config.image_width) = size;
    }
    crate::config::check_size(config)
}

/// The architecture's own arguments, overridden by `model_args`.
fn arguments(name: &str, json: &Object, pretrained: &Object) -> Result<Object, Error> {
    let given = json.object("model_args");
    let stem = name.split('.').next().unwrap_or(name);
    let Some(known) = architectures().get(stem).and_then(Value::as_object) else {
        let enough = ["embed_dim", "depth", "num_heads", "patch_size"].iter().all(|key| given.value(key).is_some());
        let sized = given.value("img_size").or(pretrained.value("input_size")).is_some();
        return match enough && sized {
            true => Ok(given),
            false => Err(json.error("architecture", format!("{name} is not supported; these are: {}", what_we_run()))),
        };
    };
    let mut args = Object::new(json.file(), "model_args.", known.clone());
    args.update(&given);
    Ok(args)
}

/// For errors.
pub(crate) fn what_we_run() -> &'static str {
    "timm's vit_*, deit_*, deit3_*, vit_*_dinov2, vit_*_dinov3, vit_*_reg*_gap*, vit_*_clip_*, beit_*, beitv2_*, cait_*, xcit_*, resmlp_*, \
     convnext_atto to convnext_xlarge (not _ols, _rms, _mlp nor V2) or any plain ViT with \
     embed_dim, depth, num_heads, patch_size and img_size in model_args, and transformers' vit, deit, dinov2, \
     dinov2_with_registers, dinov3_vit, beit, data2vec-vision, depth_anything and convnext; and \
     DINOv2, Depth Anything and ViT-5 from their authors' state dicts"
}

/// Arguments that change nothing at inference, or that are read elsewhere.
const READ_ELSEWHERE: [&str; 28] = [
    "img_size",
    "patch_size",
    "in_chans",
    "num_classes",
    "global_pool",
    "embed_dim",
    "depth",
    "num_heads",
    "mlp_ratio",
    "qkv_bias",
    "qk_norm",
    "proj_bias",
    "init_values",
    "residual",
    "block_norm",
    "class_token",
    "no_embed_class",
    "reg_tokens",
    "pre_norm",
    "final_norm",
    "fc_norm",
    "pool_include_prefix",
    "norm_eps",
    "distilled",
    "weight_init",
    "fix_init",
    "swiglu_mlp",
    "swiglu_align_to",
];

/// Arguments of which only these values are supported.
const ONLY: [(&str, &[&str]); 11] = [
    ("act_layer", &["gelu", "gelu_tanh", "quick_gelu", "silu"]),
    ("mlp_layer", &["SwiGLUPacked"]),
    ("pos_embed", &["learn", "none", ""]),
    ("norm_layer", &["layernorm"]),
    ("attn_layer", &["attn", ""]),
    ("block_fn", &["parallel_scaling"]),
    ("embed_layer", &[]),
    ("embed_norm_layer", &[]),
    ("scale_attn_norm", &[]),
    ("scale_mlp_norm", &[]),
    ("dynamic_img_pad", &[]),
];

fn check_arguments(args: &Object) -> Result<(), Error> {
    for key in args.keys() {
        let harmless = READ_ELSEWHERE.contains(&key) || key == "dynamic_img_size" || key.contains("drop");
        let off = args.value(key).and_then(Value::as_bool) == Some(false);
        if harmless || off {
            continue;
        }
        let only = ONLY.iter().find(|(k, _)| *k == key).map_or(&[][..], |(_, values)| *values);
        if !args.value(key).and_then(Value::as_str).is_some_and(|v| only.contains(&v)) {
            let given = args.value(key).map_or(String::new(), Value::to_string);
            return Err(args.error(key, format!("{given} is not supported; supported are {}", what_we_run())));
        }
    }
    Ok(())
}

fn stated(
    name: &str,
    args: &Object,
    relative: Relative,
    json: &Object,
    pretrained: &Object,
    announcements: &mut Vec<String>,
) -> Result<Stated, Error> {
    check_arguments(args)?;
    let native = native_size(args, pretrained)?;
    let patch = args.size("patch_size")?.unwrap_or((16, 16));
    let (dim, depth, heads) =
        (args.required_len("embed_dim")?, args.required_len("depth")?, args.required_len("num_heads")?);
    if heads == 0 || !dim.is_multiple_of(heads) {
        return Err(args.error("num_heads", format!("{heads} heads do not divide {dim} channels")));
    }
    let head_dim = dim / heads;
    let flag = |key: &str, default: bool| args.flag(key).map(|f| f.unwrap_or(default));

    let class_token = flag("class_token", true)?;
    let registers = args.len("reg_tokens")?.unwrap_or(0);
    let distilled = flag("distilled", name.contains("_distilled"))?;
    let classes = classes(args, json, pretrained)?;
    let pool = pool(args, pretrained, "token")?;
    let pooling = pooling(args, pool, class_token, distilled, classes, announcements)?;
    let fc_norm = flag("fc_norm", pool == "avg")?;
    let final_norm = flag("final_norm", true)?;
    let (activation, hidden) = mlp(args, dim)?;
    let residual = Residual::new(args)?;
    let vit = Vit {
        attention: crate::config::attention(heads, head_dim),
        qk_norm: flag("qk_norm", false)?,
        prefix_tokens: usize::from(class_token) + usize::from(distilled) + registers,
        norm_pre: flag("pre_norm", false)?,
        block_norm: residual.layer_norm(),
    };
    let config = Config {
        image_height: native.0,
        image_width: native.1,
        patch_height: patch.0,
        patch_width: patch.1,
        dim,
        depth,
        hidden,
        positions: relative.positions,
        norm_eps: args.number("norm_eps")?.unwrap_or(1e-6) as f32,
        norm: final_norm && !fc_norm,
        fc_norm: final_norm && fc_norm,
        activation,
        pooling,
        classes,
        ..Config::of(relative.family(vit))
    };
    let position = match args.text("pos_embed")?.unwrap_or("learn") {
        "learn" if relative.fourier => Position::Fourier,
        "learn" if flag("no_embed_class", false)? => Position::Patches,
        "learn" => Position::All,
        _ => Position::None,
    };
    Ok(Stated {
        config,
        native,
        qkv_bias: flag("qkv_bias", true)?,
        proj_bias: flag("proj_bias", true)?,
        residual,
        layerscale: args.number("init_values")?.is_some(),
        class_token,
        registers,
        distilled,
        position,
        relative,
    })
}

/// The picture size (height, width) that the network is for.
fn native_size(args: &Object, pretrained: &Object) -> Result<(usize, usize), Error> {
    let input = pretrained.input("input_size")?;
    if args.len("in_chans")?.or(input.map(|[channels, ..]| channels)).unwrap_or(3) != 3 {
        return Err(args.error("in_chans", "vitlet takes RGB pictures, 3 channels"));
    }
    Ok(args.size("img_size")?.or(input.map(|[_, height, width]| (height, width))).unwrap_or((224, 224)))
}

fn classes(args: &Object, json: &Object, pretrained: &Object) -> Result<usize, Error> {
    Ok(match (args.len("num_classes")?, json.len("num_classes")?, pretrained.len("num_classes")?) {
        (Some(n), _, _) | (_, Some(n), _) | (_, _, Some(n)) => n,
        _ => 1000,
    })
}

fn pool<'o>(args: &'o Object, pretrained: &'o Object, default: &'static str) -> Result<&'o str, Error> {
    Ok(args.text("global_pool")?.or(pretrained.text("global_pool")?).unwrap_or(default))
}

fn pooling(
    args: &Object,
    pool: &str,
    class_token: bool,
    distilled: bool,
    classes: usize,
    announcements: &mut Vec<String>,
) -> Result<Pooling, Error> {
    match pool {
        "token" if distilled && classes == 0 => {
            let why = "0: a distilled network without its heads is not supported; convert the one with them";
            Err(args.error("num_classes", why))
        }
        "token" if distilled => Ok(Pooling::ClsDist),
        "token" if class_token => Ok(Pooling::Cls),
        "token" => Err(args.error("global_pool", "token, but class_token is false")),
        "avg" if args.flag("pool_include_prefix")?.unwrap_or(false) => Ok(Pooling::All),
        "avg" => Ok(Pooling::Avg),
        "" if classes == 0 => {
            let (pooling, what) =
                if class_token { (Pooling::Cls, "the class token") } else { (Pooling::Avg, "the mean of the patches") };
            announcements
                .push(format!("no pooling in config.json: the features are {what} (patch tokens come with --tokens)"));
            Ok(pooling)
        }
        other => Err(args.error("global_pool", format!("{other:?} is not supported; token and avg are"))),
    }
}

/// The activation, and the width after it.
fn mlp(args: &Object, dim: usize) -> Result<(Activation, usize), Error> {
    let width = (dim as f64 * args.number("mlp_ratio")?.unwrap_or(4.0)) as usize;
    if args.flag("swiglu_mlp")?.unwrap_or(false) {
        let multiple = args.len("swiglu_align_to")?.unwrap_or(0).max(1);
        return Ok((Activation::SwiGlu, width.next_multiple_of(multiple)));
    }
    let activation = match (args.text("mlp_layer")?, args.text("act_layer")?.unwrap_or("gelu")) {
        (Some(_), "silu") => return Ok((Activation::SwiGlu, width / 2)),
        (None, "gelu") => Activation::Gelu,
        (None, "gelu_tanh") => Activation::GeluTanh,
        (None, "quick_gelu") => Activation::GeluQuick,
        (_, other) => return Err(args.error("act_layer", format!("{other} is not supported with this MLP"))),
    };
    Ok((activation, width))
}

fn network(
    checkpoint: &mut Checkpoint,
    stated: &Stated,
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<Network, Error> {
    let mut config = stated.config;
    let embedding = if matches!(config.family, Family::Xcit(_)) {
        "patch_embed.proj.0.0.weight"
    } else {
        "patch_embed.proj.weight"
    };
    checkpoint.unwrap(&[vec![embedding.to_owned(), below_last_block(&config)]], &options.ignore, announcements)?;
    let embedding = match config.family {
        Family::Xcit(_) => xcit::embedding(checkpoint, &config)?,
        _ => {
            let patch = (config.patch_height, config.patch_width);
            let patch = checkpoint.patch("patch_embed.proj", config.dim, patch, !config.norm_pre())?;
            Embedding { patch, ..Embedding::default() }
        }
    };
    let mut prefix = Vec::new();
    for (there, name, rows) in [
        (stated.class_token, "cls_token", 1),
        (stated.distilled, "dist_token", 1),
        (stated.registers > 0, "reg_token", stated.registers),
    ] {
        if there {
            prefix.extend(checkpoint.take(name, &[1, rows, config.dim])?);
        }
    }
    let with_position = match stated.position {
        Position::All => &mut prefix[..],
        Position::None | Position::Fourier | Position::Patches => &mut [],
    };
    let positions = match stated.position {
        Position::None if !config.has_positions() => None,
        Position::None => Some(vec![0.0; config.patches() * config.dim]),
        Position::Fourier => Some(xcit::positions(checkpoint, &config)?),
        _ => {
            let chosen = options.image_size.is_some();
            let table = "pos_embed";
            Some(position::take(checkpoint, table, &mut config, chosen, stated.native, with_position, announcements)?)
        }
    };
    let norm_pre = config.norm_pre().then(|| checkpoint.norm("norm_pre", config.dim)).transpose()?;
    let (rotation, rope) = match config.family {
        Family::Dinov3(_) => position_bias::rotation(&config, stated.relative.rope_base),
        _ => (None, Vec::new()),
    };
    let shared = match stated.relative.tables.1 {
        true => Some(stated.table(checkpoint, "rel_pos_bias.relative_position_bias_table")?),
        false => None,
    };
    let blocks =
        (0..config.blocks()).map(|i| block(checkpoint, stated, shared.as_deref(), i)).collect::<Result<_, _>>()?;
    let norm = config.norm.then(|| checkpoint.norm("norm", config.dim)).transpose()?;
    let fc_norm = config.fc_norm.then(|| checkpoint.norm("fc_norm", config.dim)).transpose()?;
    let head = match &options.head {
        Some(path) => {
            for name in ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"] {
                checkpoint.drop_tensor(name);
            }
            Some(crate::head::replace(path, &mut config, announcements)?)
        }
        None => head(checkpoint, &config, &options.ignore, announcements)?,
    };
    Ok(Network {
        embedding: Embedding { positions, rotation, prefix, norm_pre, ..embedding },
        rope,
        blocks,
        tail: Tail { norm, fc_norm, head, ..Tail::default() },
        ..Network::new(config)
    })
}

/// What the names of the last block's tensors begin with.
fn below_last_block(config: &Config) -> String {
    format!("blocks.{}.", config.depth.saturating_sub(1))
}

/// A distilled network's logits are the mean of two heads: one layer over both tokens.
fn head(
    checkpoint: &mut Checkpoint,
    config: &Config,
    ignore: &[String],
    announcements: &mut Vec<String>,
) -> Result<Option<Layer>, Error> {
    let (n, k) = (config.classes, config.dim);
    if n == 0 {
        return Ok(None);
    }
    if config.pooling != Pooling::ClsDist {
        return checkpoint.head("head", n, k, ignore, announcements).map(Some);
    }
    let cls = checkpoint.linear("head", n, k, true)?;
    Ok(Some(crate::head::mean(cls, checkpoint.linear("head_dist", n, k, true)?)))
}

impl Stated {
    /// The name of a tensor of block `i`.
    fn at(&self, i: usize, name: &str) -> String {
        match i.checked_sub(self.config.depth) {
            None => format!("blocks.{i}.{name}"),
            Some(i) if matches!(self.config.family, Family::Xcit(_)) => format!("cls_attn_blocks.{i}.{name}"),
            Some(i) => format!("blocks_token_only.{i}.{name}"),
        }
    }

    /// CaiT's layers over heads.
    fn talking(&self, checkpoint: &mut Checkpoint, i: usize) -> Result<Option<Talking>, Error> {
        if !matches!(self.config.family, Family::Cait(_)) || i >= self.config.depth {
            return Ok(None);
        }
        let heads = self.config.heads();
        let mut take = |name: &str| checkpoint.linear(&self.at(i, name), heads, heads, true)?.load();
        let (logits, weights) = (take("attn.proj_l")?, take("attn.proj_w")?);
        Ok(Some(Talking {
            logits: logits.weight,
            logits_bias: logits.bias,
            weights: weights.weight,
            weights_bias: weights.bias,
        }))
    }

    /// A relative position table for the grid of the config.
    fn table(&self, checkpoint: &mut Checkpoint, name: &str) -> Result<Vec<f32>, Error> {
        let c = &self.config;
        let native = (self.native.0 / c.patch_height, self.native.1 / c.patch_width);
        position_bias::table(checkpoint, name, c, native, position_bias::Rule::Geometric)
    }

    /// BEiT and DINOv3 keep only the biases of q and v; the bias of k is zero. Class attention has three layers (but
    /// for XCiT's authors).
    fn qkv(&self, checkpoint: &mut Checkpoint, i: usize) -> Result<Layer, Error> {
        let c = &self.config;
        if i >= c.depth && !checkpoint.has(&self.at(i, "attn.qkv.weight")) {
            let parts: Result<Vec<Layer>, Error> = ["q", "k", "v"]
                .iter()
                .map(|part| checkpoint.linear(&self.at(i, &format!("attn.{part}")), c.dim, c.dim, self.qkv_bias))
                .collect();
            return Ok(Layer::stack(parts?));
        }
        let attention = self.at(i, "attn");
        let name = format!("{attention}.qkv");
        let separate = matches!(c.family, Family::Beit(_) | Family::Dinov3(_)) && self.qkv_bias;
        let mut qkv = checkpoint.linear(&name, 3 * c.dim, c.dim, self.qkv_bias && !separate)?;
        if separate {
            let mut take = |part: &str| checkpoint.take(&format!("{attention}.{part}_bias"), &[c.dim]);
            let bias = [take("q")?, vec![0.0; c.dim], take("v")?].concat();
            qkv.change(move |qkv| qkv.bias.clone_from(&bias));
        }
        Ok(qkv)
    }

    /// SwiGLU comes as one matrix, the gate first (`gate_last` is false), or as two.
    fn up(&self, checkpoint: &mut Checkpoint, mlp: &str) -> Result<Layer, Error> {
        let c = &self.config;
        let mut take = |name: &str, n: usize| checkpoint.linear(&format!("{mlp}.{name}"), n, c.dim, self.proj_bias);
        match c.activation {
            Activation::SwiGlu if !matches!(c.family, Family::Vit(_)) => {
                Ok(Layer::stack(vec![take("fc1_g", c.hidden)?, take("fc1_x", c.hidden)?]))
            }
            Activation::SwiGlu => take("fc1", 2 * c.hidden),
            _ => take("fc1", c.hidden),
        }
    }
}

fn block(checkpoint: &mut Checkpoint, stated: &Stated, shared: Option<&[f32]>, i: usize) -> Result<Block, Error> {
    let c = &stated.config;
    if matches!(c.family, Family::ParallelVit(_)) {
        return parallel_block(checkpoint, stated, i);
    }
    let at = |name: &str| stated.at(i, name);
    let own = match stated.relative.tables.0 {
        true => Some(stated.table(checkpoint, &at("attn.relative_position_bias_table"))?),
        false => None,
    };
    let qk_norm = match c.qk_norm() {
        true => Some((
            checkpoint.norm(&at("attn.q_norm"), c.head_dim())?,
            checkpoint.norm(&at("attn.k_norm"), c.head_dim())?,
        )),
        false => None,
    };
    let mut qkv = stated.qkv(checkpoint, i)?;
    let mut proj = checkpoint.linear(&at("attn.proj"), c.dim, c.dim, stated.proj_bias)?;
    let mut up = stated.up(checkpoint, &at("mlp"))?;
    let mut down = checkpoint.linear(&at("mlp.fc2"), c.dim, c.hidden, stated.proj_bias)?;
    // From the stream's side inwards: what is before the branch sees Fixup's offset of the first matrix already
    // absorbed.
    let gamma1 = stated.residual.after(checkpoint, &at, 1, &mut qkv, &mut proj)?;
    let norm1 = stated.residual.before(checkpoint, &at, 1, &mut qkv)?;
    let gamma2 = stated.residual.after(checkpoint, &at, 2, &mut up, &mut down)?;
    let norm2 = stated.residual.before(checkpoint, &at, 2, &mut up)?;
    let (bias, talking) = (position_bias::sum(own, shared), stated.talking(checkpoint, i)?);
    let is_xcit = matches!(c.family, Family::Xcit(_));
    let (temperature, local) = match is_xcit && i < c.depth {
        true => xcit::cross(checkpoint, stated, i).map(|(temperature, local)| (Some(temperature), Some(local)))?,
        false => (None, None),
    };
    // XCiT's class attention adds the norm of the patches to them, and then normalizes the stream itself.
    let carries = is_xcit && i >= c.depth;
    let patches_norm = norm1.clone().filter(|_| carries);
    let (stream_norm, norm) = if carries { (norm2, None) } else { (None, norm2) };
    Ok(Block {
        norm1,
        qkv,
        bias,
        talking,
        temperature,
        qk_norm,
        proj,
        gamma1,
        patches_norm,
        local,
        stream_norm,
        mlp: Mlp { norm, up, down, gamma: gamma2 },
    })
}

/// Attention and MLP side by side: one norm, one matrix before both (the MLP's rows first) and one gamma, which here
/// each branch has.
fn parallel_block(checkpoint: &mut Checkpoint, stated: &Stated, i: usize) -> Result<Block, Error> {
    let c = &stated.config;
    let at = |name: &str| stated.at(i, name);
    let norm = checkpoint.norm(&at("in_norm"), c.dim)?;
    let [mut up, qkv] =
        checkpoint.linear(&at("in_proj"), c.hidden + 3 * c.dim, c.dim, stated.qkv_bias)?.split(c.hidden);
    if !stated.qkv_bias {
        let bias = checkpoint.take(&at("mlp_bias"), &[c.hidden])?;
        up.change(move |up| up.bias.clone_from(&bias));
    }
    let mut head_norm = |name: &str| checkpoint.norm(&at(name), c.head_dim());
    let qk_norm = if c.qk_norm() { Some((head_norm("q_norm")?, head_norm("k_norm")?)) } else { None };
    let proj = checkpoint.linear(&at("attn_out_proj"), c.dim, c.dim, stated.proj_bias)?;
    let down = checkpoint.linear(&at("mlp_out_proj"), c.dim, c.hidden, stated.proj_bias)?;
    let gamma = if stated.layerscale { Some(checkpoint.gamma(&at("ls.gamma"), c.dim)?) } else { None };
    Ok(Block {
        norm1: Some(norm.clone()),
        qkv,
        qk_norm,
        proj,
        gamma1: gamma.clone(),
        mlp: Mlp { norm: Some(norm), up, down, gamma },
        ..Block::default()
    })
}
