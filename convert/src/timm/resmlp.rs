//! ResMLP in timm: `MlpMixer` of `ResBlock`s with `Affine` in the place of norms, and the names of the authors' own
//! checkpoints.
//!
//! Everything affine is absorbed here: before the mixing into its diagonals, before the MLP into its first matrix,
//! after the stem (`stem_norm`) into the patch embedding. The last one stays, since features and tokens are what comes
//! after it.

use serde_json::Value;
use vitlet::{Activation, Config, Family, Positions};

use crate::checkpoint::Checkpoint;
use crate::diagonal;
use crate::error::Error;
use crate::json::Object;
use crate::network::{Affine, Embedding, MixerBlock, Mlp, Network, Tail};
use crate::options::Options;

/// What config.json says.
pub(super) struct Stated {
    config: Config,
    stem_norm: bool,
}

/// `MlpMixer`'s arguments that are read, or that change nothing at inference.
const KNOWN: [&str; 11] = [
    "img_size",
    "patch_size",
    "in_chans",
    "num_classes",
    "global_pool",
    "num_blocks",
    "embed_dim",
    "mlp_ratio",
    "act_layer",
    "stem_norm",
    "nlhb",
];

/// # Errors
/// A variant that is not supported.
pub(super) fn stated(
    args: &Object,
    json: &Object,
    pretrained: &Object,
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<Stated, Error> {
    if let Some(key) = args.keys().find(|key| !KNOWN.contains(key) && !key.contains("drop")) {
        let given = args.value(key).map_or(String::new(), Value::to_string);
        return Err(args.error(key, format!("{given} is not supported for ResMLP; {} are", KNOWN.join(", "))));
    }
    let size = super::native_size(args, pretrained)?;
    if options.image_size.is_some_and(|wanted| wanted != size) {
        let why = format!("ResMLP's matrices over patches are for pictures of {}x{} alone", size.0, size.1);
        return Err(Error::new("--image-size", why));
    }
    let (patch, dim) = (args.size("patch_size")?.unwrap_or((16, 16)), args.required_len("embed_dim")?);
    let classes = super::classes(args, json, pretrained)?;
    let pool = super::pool(args, pretrained, "avg")?;
    let config = Config {
        image_height: size.0,
        image_width: size.1,
        patch_height: patch.0,
        patch_width: patch.1,
        dim,
        depth: args.required_len("num_blocks")?,
        hidden: (dim as f64 * args.number("mlp_ratio")?.unwrap_or(4.0)) as usize,
        positions: Positions::Fixed,
        norm_eps: 0.0,
        norm: true,
        activation: match args.text("act_layer")?.unwrap_or("gelu") {
            "gelu" => Activation::Gelu,
            "gelu_tanh" => Activation::GeluTanh,
            "quick_gelu" => Activation::GeluQuick,
            other => return Err(args.error("act_layer", format!("{other} is not supported with this MLP"))),
        },
        pooling: super::pooling(args, pool, false, false, classes, announcements)?,
        classes,
        ..Config::of(Family::ResMlp)
    };
    crate::config::check_size(&config)?;
    Ok(Stated { config, stem_norm: args.flag("stem_norm")?.unwrap_or(false) })
}

/// # Errors
/// A checkpoint that is not what config.json describes.
pub(super) fn network(
    checkpoint: &mut Checkpoint,
    stated: Stated,
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<Network, Error> {
    let Stated { mut config, stem_norm } = stated;
    let anchors = [Names::TIMM, Names::AUTHORS]
        .map(|names| vec![format!("{}.proj.weight", names.stem), super::below_last_block(&config)]);
    checkpoint.unwrap(&anchors, &options.ignore, announcements)?;
    let names = Names::of(checkpoint);
    let (dim, patch_size) = (config.dim, (config.patch_height, config.patch_width));
    let mut patch = checkpoint.patch(&format!("{}.proj", names.stem), dim, patch_size, true)?;
    if stem_norm {
        let after = names.affine(checkpoint, &format!("{}.norm", names.stem), dim)?;
        patch.change(move |patch| diagonal::absorb_output(patch, &after));
    }
    let mixer_blocks = (0..config.depth).map(|i| names.block(checkpoint, &config, i)).collect::<Result<_, _>>()?;
    let norm = names.affine(checkpoint, "norm", dim)?;
    let head = match &options.head {
        Some(path) => {
            ["head.weight", "head.bias"].into_iter().for_each(|name| checkpoint.drop_tensor(name));
            Some(crate::head::replace(path, &mut config, announcements)?)
        }
        None => super::head(checkpoint, &config, &options.ignore, announcements)?,
    };
    Ok(Network {
        embedding: Embedding { patch, ..Embedding::default() },
        mixer_blocks,
        tail: Tail { norm: Some(norm.into()), head, ..Tail::default() },
        ..Network::new(config)
    })
}

/// What timm and the authors call differently.
struct Names {
    stem: &'static str,
    mixer: &'static str,
    mlp: &'static str,
    gamma: &'static str,
    /// timm's factors and offsets are `[1, 1, dim]`.
    expanded: bool,
}

impl Names {
    const TIMM: Self = Self { stem: "stem", mixer: "linear_tokens", mlp: "mlp_channels", gamma: "ls", expanded: true };
    const AUTHORS: Self = Self { stem: "patch_embed", mixer: "attn", mlp: "mlp", gamma: "gamma_", expanded: false };

    fn of(checkpoint: &Checkpoint) -> Self {
        if checkpoint.has("patch_embed.proj.weight") { Self::AUTHORS } else { Self::TIMM }
    }

    fn affine(&self, checkpoint: &mut Checkpoint, name: &str, dim: usize) -> Result<Affine, Error> {
        let shape = if self.expanded { &[1, 1, dim][..] } else { &[dim] };
        let mut take = |leaf: &str| checkpoint.take(&format!("{name}.{leaf}"), shape);
        Ok(Affine { scale: take("alpha")?, offset: take("beta")? })
    }

    fn block(&self, checkpoint: &mut Checkpoint, c: &Config, i: usize) -> Result<MixerBlock, Error> {
        let at = |name: &str| format!("blocks.{i}.{name}");
        let tokens = c.tokens();
        let mixer = checkpoint.linear(&at(self.mixer), tokens, tokens, true)?;
        let mixer = diagonal::through_tokens(mixer, self.affine(checkpoint, &at("norm1"), c.dim)?);
        let mut up = checkpoint.linear(&at(&format!("{}.fc1", self.mlp)), c.hidden, c.dim, true)?;
        let before = self.affine(checkpoint, &at("norm2"), c.dim)?;
        up.change(move |up| diagonal::absorb_input(up, &before));
        let down = checkpoint.linear(&at(&format!("{}.fc2", self.mlp)), c.dim, c.hidden, true)?;
        let mut gamma = |branch: usize| checkpoint.gamma(&at(&format!("{}{branch}", self.gamma)), c.dim);
        let gamma1 = Some(gamma(1)?);
        Ok(MixerBlock { mixer, gamma1, mlp: Mlp { norm: None, up, down, gamma: Some(gamma(2)?) } })
    }
}
