//! The user's choices for a conversion.

use std::path::PathBuf;

use vitlet::Precision;
use vitlet::picture::Interpolation;

/// Where LayerScale's gamma goes; without LayerScale the mode has no effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Into the per-channel scale and the bias: exact, free.
    #[default]
    Fold,
    /// Into the weights, quantized afterwards (a study of the damage).
    FoldWeights,
    /// A multiply fused into the residual add.
    Keep,
    /// A separate pass.
    KeepPass,
}

impl From<Mode> for vitlet::LayerScale {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Fold => Self::Fold,
            Mode::FoldWeights => Self::FoldWeights,
            Mode::Keep => Self::Keep,
            Mode::KeepPass => Self::KeepPass,
        }
    }
}

impl vitlet::Named for Mode {
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self::Fold, "fold"),
        (Self::FoldWeights, "fold-weights"),
        (Self::Keep, "keep"),
        (Self::KeepPass, "keep-pass"),
    ];
}

/// One quantization scale for each output channel, or one for the whole matrix (a study of what that costs).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightScale {
    /// `s[n] = max_k |W[n,k]| / 127`.
    #[default]
    PerChannel,
    /// `s = max |W| / 127`.
    PerTensor,
}

impl vitlet::Named for WeightScale {
    const NAMES: &'static [(Self, &'static str)] =
        &[(Self::PerChannel, "per-channel"), (Self::PerTensor, "per-tensor")];
}

/// Whether the channels of int8 networks are balanced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Where an estimate from the weights says that the error falls.
    #[default]
    Auto,
    /// Nowhere (a study of what that costs).
    Off,
}

impl vitlet::Named for Balance {
    const NAMES: &'static [(Self, &'static str)] = &[(Self::Auto, "auto"), (Self::Off, "off")];
}

/// Where a checkpoint was downloaded from. It stands in the model file, with the converter's version, so that a cache
/// can tell whether its file is still the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// The repository's address.
    pub repository: String,
    /// The commit.
    pub revision: String,
}

impl Provenance {
    /// The metadata's key of [`Provenance::repository`], as GGUF names it.
    pub const REPOSITORY: &str = "general.source.repo_url";
    /// The key of [`Provenance::revision`].
    pub const REVISION: &str = "vitlet.source.revision";
    /// The key of [`Provenance::THIS`].
    pub const CONVERTER: &str = "vitlet.converter";
    /// This converter.
    pub const THIS: &str = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
}

/// The options of [`crate::convert`]. The default is int8, `fold`, one scale per channel, everything else from the
/// source.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Storage of the matrices.
    pub precision: Precision,
    /// Where gamma goes.
    pub layerscale: Mode,
    /// Scales of int8 weights.
    pub weight_scale: WeightScale,
    /// Whether channels are balanced between matrices, in int8.
    pub balance: Balance,
    /// LayerNorm's affine part goes into the next matrix (a study: exact in f32, but the columns of that matrix lose
    /// their balance). No channels are balanced then.
    pub fold_norm: bool,
    /// Takes out the rows of channels to which a branch adds less than this part of the stream's root mean square (see
    /// [`crate::prune`]).
    pub prune_dead: Option<f64>,
    /// timm's name of the architecture, `NAME` or `NAME.TAG`, for weights without a config.json.
    pub arch: Option<String>,
    /// Classes of the head, instead of those of `arch`.
    pub num_classes: Option<usize>,
    /// The averaged weights (EMA) of PyTorch files, instead of the plain weights.
    pub ema: bool,
    /// A text file with one label a line, instead of the source's labels.
    pub labels: Option<PathBuf>,
    /// Input height and width, instead of the source's; position embeddings are resampled.
    pub image_size: Option<(usize, usize)>,
    /// A file with a linear layer, instead of the source's head: of the picture, or of its patches.
    pub head: Option<PathBuf>,
    /// The largest depth in metres, for depth networks whose files do not say it.
    pub max_depth: Option<f32>,
    /// Names of tensors that need not be understood; `*` stands for any characters.
    pub ignore: Vec<String>,
    /// Subtracted from pixels in [0, 1].
    pub mean: Option<[f32; 3]>,
    /// Divides them afterwards.
    pub std: Option<[f32; 3]>,
    /// The part of the resized picture's edge that the crop keeps.
    pub crop_pct: Option<f64>,
    /// The filter of the resize.
    pub interpolation: Option<Interpolation>,
    /// A checkpoint directory whose configuration says how pictures are prepared, for sources that do not say it
    /// (ONNX).
    pub preprocess_from: Option<PathBuf>,
    /// Written into the model file, for caches. Without it, the file's bytes depend on the network and the other
    /// options alone.
    pub provenance: Option<Provenance>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            precision: Precision::Int8,
            layerscale: Mode::default(),
            weight_scale: WeightScale::default(),
            balance: Balance::default(),
            fold_norm: false,
            prune_dead: None,
            arch: None,
            num_classes: None,
            ema: false,
            labels: None,
            image_size: None,
            head: None,
            max_depth: None,
            ignore: Vec::new(),
            mean: None,
            std: None,
            crop_pct: None,
            interpolation: None,
            preprocess_from: None,
            provenance: None,
        }
    }
}
