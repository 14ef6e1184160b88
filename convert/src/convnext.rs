//! ConvNeXt's tensors, under the names of timm, of the authors (facebookresearch/ConvNeXt) and of transformers.

use serde_json::Value;
use vitlet::config::{CONVNEXT_KERNEL, ConvNeXt, StageConfig};
use vitlet::{Config, Family, Pooling};

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::json::Object;
use crate::network::{ConvBlock, Depthwise, Downsampling, Embedding, Mlp, Network, Tail};
use crate::options::Options;

/// What the configuration states of a checkpoint: the network, and what [`Config`] does not say of its tensors.
pub(crate) struct Stated {
    pub(crate) config: Config,
    pub(crate) layerscale: bool,
    /// The MLP's layers are stored as convolutions of 1 x 1.
    pub(crate) conv_mlp: bool,
    /// Of the convolutions; the MLP's layers have one in any case.
    pub(crate) conv_bias: bool,
}

/// The paper's network for pictures of `size` (height, width), without a head.
pub(crate) fn config(stages: [StageConfig; 4], size: (usize, usize)) -> Config {
    let [.., last] = stages;
    Config {
        image_height: size.0,
        image_width: size.1,
        patch_height: 4,
        patch_width: 4,
        dim: last.dim,
        depth: stages.iter().map(|stage| stage.depth).sum(),
        hidden: last.hidden(),
        norm_eps: 1e-6,
        fc_norm: true,
        pooling: Pooling::Avg,
        ..Config::of(Family::ConvNeXt(ConvNeXt { stages }))
    }
}

/// Widths and depths of the four stages, by their keys.
///
/// # Errors
/// Missing, or not four counts.
pub(crate) fn stages(json: &Object, [dims, depths]: [&str; 2]) -> Result<[StageConfig; 4], Error> {
    let four = |key: &str| -> Result<[usize; 4], Error> {
        let counts = json.value(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let counts: Option<Vec<usize>> =
            counts.iter().map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok())).collect();
        let four = counts.and_then(|counts| counts.try_into().ok());
        four.ok_or_else(|| json.error(key, "ConvNeXt is supported with four stages: four counts"))
    };
    let (dims, depths) = (four(dims)?, four(depths)?);
    Ok(std::array::from_fn(|i| StageConfig { dim: dims[i], depth: depths[i] }))
}

/// What the tensors are called. `{base}`, `{stage}` and `{block}` (of the stage) stand for what their names say.
struct Names {
    /// The patch convolution and its norm.
    stem: [&'static str; 2],
    /// The norm and the convolution that halve height and width.
    downsampling: [&'static str; 2],
    block: &'static str,
    /// In the block.
    conv: &'static str,
    norm: &'static str,
    mlp: [&'static str; 2],
    gamma: &'static str,
    /// Before pooling and after it.
    last_norms: [&'static str; 2],
    head: &'static str,
}

const TIMM: Names = Names {
    stem: ["stem.0", "stem.1"],
    downsampling: ["stages.{stage}.downsample.0", "stages.{stage}.downsample.1"],
    block: "stages.{stage}.blocks.{block}",
    conv: "conv_dw",
    norm: "norm",
    mlp: ["mlp.fc1", "mlp.fc2"],
    gamma: "gamma",
    last_norms: ["norm_pre", "head.norm"],
    head: "head.fc",
};

const AUTHORS: Names = Names {
    stem: ["downsample_layers.0.0", "downsample_layers.0.1"],
    downsampling: ["downsample_layers.{stage}.0", "downsample_layers.{stage}.1"],
    block: "stages.{stage}.{block}",
    conv: "dwconv",
    norm: "norm",
    mlp: ["pwconv1", "pwconv2"],
    gamma: "gamma",
    last_norms: ["norm", "norm"],
    head: "head",
};

const TRANSFORMERS: Names = Names {
    stem: ["{base}embeddings.patch_embeddings", "{base}embeddings.layernorm"],
    downsampling: [
        "{base}encoder.stages.{stage}.downsampling_layer.0",
        "{base}encoder.stages.{stage}.downsampling_layer.1",
    ],
    block: "{base}encoder.stages.{stage}.layers.{block}",
    conv: "dwconv",
    norm: "layernorm",
    mlp: ["pwconv1", "pwconv2"],
    gamma: "layer_scale_parameter",
    last_norms: ["{base}layernorm", "{base}layernorm"],
    head: "classifier",
};

/// The tensors of one checkpoint, by their role.
struct Tensors<'c> {
    checkpoint: &'c mut Checkpoint,
    names: &'static Names,
    /// What stands before transformers' names.
    base: String,
}

/// # Errors
/// A checkpoint that contradicts what is stated.
pub(crate) fn network(
    checkpoint: &mut Checkpoint,
    stated: &Stated,
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<Network, Error> {
    let mut config = stated.config;
    let mut tensors = Tensors::new(checkpoint);
    let names = tensors.names;
    let [stem, stem_norm] = names.stem.map(|name| tensors.name(name, 0, 0));
    let [before, after] = names.last_norms.map(|name| tensors.name(name, 0, 0));
    let patch = (config.patch_height, config.patch_width);
    let patch = tensors.checkpoint.patch(&stem, config.embedding_dim(), patch, stated.conv_bias)?;
    let norm_pre = Some(tensors.checkpoint.norm(&stem_norm, config.embedding_dim())?);
    let stages = 0..config.stages().len();
    let downsamplings =
        stages.clone().skip(1).map(|i| stated.downsampling(&mut tensors, i)).collect::<Result<_, _>>()?;
    let places = stages.flat_map(|i| (0..config.stages()[i].depth).map(move |j| (i, j)));
    let conv_blocks = places.map(|(i, j)| stated.block(&mut tensors, i, j)).collect::<Result<_, _>>()?;
    let norm = config.norm.then(|| checkpoint.norm(&before, config.dim)).transpose()?;
    let fc_norm = config.fc_norm.then(|| checkpoint.norm(&after, config.dim)).transpose()?;
    let head = match &options.head {
        Some(path) => {
            [".weight", ".bias"].iter().for_each(|leaf| checkpoint.drop_tensor(&format!("{}{leaf}", names.head)));
            Some(crate::head::replace(path, &mut config, announcements)?)
        }
        None if config.classes == 0 => None,
        None => Some(checkpoint.head(names.head, config.classes, config.dim, &options.ignore, announcements)?),
    };
    Ok(Network {
        embedding: Embedding { patch, norm_pre, ..Embedding::default() },
        downsamplings,
        conv_blocks,
        tail: Tail { norm, fc_norm, head, ..Tail::default() },
        ..Network::new(config)
    })
}

/// Finds the network in a checkpoint.
///
/// # Errors
/// As [`Checkpoint::unwrap`].
pub(crate) fn unwrap(
    checkpoint: &mut Checkpoint,
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<(), Error> {
    let in_base =
        |base: &str| vec![format!("{base}embeddings.patch_embeddings.weight"), format!("{base}encoder.stages.3.")];
    let of = |names: &Names| vec![format!("{}.weight", names.stem[0]), "stages.3.".to_owned()];
    let anchors = [of(&TIMM), of(&AUTHORS), in_base("convnext."), in_base("")];
    checkpoint.unwrap(&anchors, &options.ignore, announcements)
}

impl<'c> Tensors<'c> {
    fn new(checkpoint: &'c mut Checkpoint) -> Self {
        let patch = "embeddings.patch_embeddings.weight";
        let (names, base) = match checkpoint.names().find_map(|name| name.strip_suffix(patch)) {
            Some(base) => (&TRANSFORMERS, base.to_owned()),
            None if checkpoint.has("downsample_layers.0.0.weight") => (&AUTHORS, String::new()),
            None => (&TIMM, String::new()),
        };
        Self { checkpoint, names, base }
    }

    fn name(&self, pattern: &str, stage: usize, block: usize) -> String {
        let name = pattern.replace("{base}", &self.base).replace("{stage}", &stage.to_string());
        name.replace("{block}", &block.to_string())
    }
}

impl Stated {
    /// What comes before stage `i`.
    fn downsampling(&self, tensors: &mut Tensors, i: usize) -> Result<Downsampling, Error> {
        let [norm, conv] = tensors.names.downsampling.map(|name| tensors.name(name, i, 0));
        let (dim, before) = (self.config.stages()[i].dim, self.config.stages()[i - 1].dim);
        let norm = tensors.checkpoint.norm(&norm, before)?;
        let mut linear = tensors.checkpoint.layer(&conv, &[dim, before, 2, 2], self.conv_bias)?;
        linear.change(|conv| conv.taps_outside(4));
        Ok(Downsampling { norm, linear })
    }

    /// Block `j` of stage `i`.
    fn block(&self, tensors: &mut Tensors, i: usize, j: usize) -> Result<ConvBlock, Error> {
        let (dim, at) = (self.config.stages()[i].dim, &tensors.name(tensors.names.block, i, j));
        let (kernel, hidden, names) = (CONVNEXT_KERNEL, 4 * dim, tensors.names);
        let mut linear = |name: &str, n: usize, k: usize| {
            let shape = if self.conv_mlp { vec![n, k, 1, 1] } else { vec![n, k] };
            tensors.checkpoint.layer(&format!("{at}.{name}"), &shape, true)
        };
        let (up, down) = (linear(names.mlp[0], hidden, dim)?, linear(names.mlp[1], dim, hidden)?);
        let conv = format!("{at}.{}", names.conv);
        Ok(ConvBlock {
            conv: Depthwise {
                kernel,
                weight: tensors.checkpoint.take(&format!("{conv}.weight"), &[dim, 1, kernel, kernel])?,
                bias: self.bias(tensors, &conv, dim)?,
            },
            mlp: Mlp {
                norm: Some(tensors.checkpoint.norm(&format!("{at}.{}", names.norm), dim)?),
                up,
                down,
                gamma: match self.layerscale {
                    true => Some(tensors.checkpoint.gamma(&format!("{at}.{}", names.gamma), dim)?),
                    false => None,
                },
            },
        })
    }

    /// A convolution's bias; zeros where it has none.
    fn bias(&self, tensors: &mut Tensors, name: &str, n: usize) -> Result<Vec<f32>, Error> {
        if self.conv_bias { tensors.checkpoint.take(&format!("{name}.bias"), &[n]) } else { Ok(vec![0.0; n]) }
    }
}
