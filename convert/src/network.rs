//! A network in f32: what every importer produces and the packer consumes.
//!
//! Nothing here is padded or reordered; matrices are `[outputs, inputs]` row by row, as the frameworks have them.
//! Vectors are in memory; each matrix is read when it is needed ([`Layer`]). Quantization, gamma folding and the file's
//! layout come later (`quantize`, `diagonal`, `pack`).

use vitlet::Config;
use vitlet::heads::{dpt, linear};
use vitlet::networks::{Part, convnext, for_each_part, resmlp, transformer, xcit};
use vitlet::parts::{Storage, Walk};
use vitlet::picture::Preprocess;

use crate::labels::Given;

mod layer;

pub use layer::Layer;

/// `y = weight x + bias`, in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
    /// `[n, k]`.
    pub weight: Vec<f32>,
    /// `[n]`, zeros where the network has none.
    pub bias: Vec<f32>,
}

impl Linear {
    /// The rows of the matrix, `[k]` each.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.weight.chunks_exact(self.k)
    }

    /// Reorders the inputs of a convolution with `taps` places, from `[channel][tap]` to `[tap][channel]`.
    pub(crate) fn taps_outside(&mut self, taps: usize) {
        let mut row_before = Vec::with_capacity(self.k);
        for row in self.weight.chunks_exact_mut(self.k) {
            row_before.clear();
            row_before.extend_from_slice(row);
            let by_tap = (0..taps).flat_map(|tap| row_before.iter().skip(tap).step_by(taps));
            row.iter_mut().zip(by_tap).for_each(|(to, from)| *to = *from);
        }
    }
}

/// LayerNorm's affine part, `[n]` each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Norm {
    /// Factors.
    pub weight: Vec<f32>,
    /// Offsets.
    pub bias: Vec<f32>,
}

impl From<Affine> for Norm {
    fn from(Affine { scale: weight, offset: bias }: Affine) -> Self {
        Self { weight, bias }
    }
}

/// `diag(scale) x + offset` on the channels of x: LayerNorm's affine part, BatchNorm at inference, ActNorm, Fixup's
/// scalars. `[n]` each.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    /// Factors.
    pub scale: Vec<f32>,
    /// Offsets.
    pub offset: Vec<f32>,
}

impl Affine {
    /// The same for all of `n` channels.
    pub fn scalar(scale: f32, offset: f32, n: usize) -> Self {
        Self { scale: vec![scale; n], offset: vec![offset; n] }
    }

    /// BatchNorm at inference (Ioffe and Szegedy 2015): `weight (x - mean) / sqrt(variance + eps) + bias`, in f64.
    pub fn batch_norm(weight: &[f32], bias: &[f32], mean: &[f32], variance: &[f32], eps: f64) -> Self {
        let factors: Vec<f64> =
            weight.iter().zip(variance).map(|(&w, &v)| f64::from(w) / (f64::from(v) + eps).sqrt()).collect();
        let offsets = factors.iter().zip(bias).zip(mean).map(|((f, &b), &m)| (f64::from(b) - f * f64::from(m)) as f32);
        Self { offset: offsets.collect(), scale: factors.iter().map(|f| *f as f32).collect() }
    }

    /// ActNorm (Kingma and Dhariwal 2018): `scale (x + loc)`.
    pub fn act_norm(loc: &[f32], scale: &[f32]) -> Self {
        Self { offset: loc.iter().zip(scale).map(|(l, s)| l * s).collect(), scale: scale.to_vec() }
    }
}

/// A depthwise convolution over the picture of tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Depthwise {
    /// Edge of the kernel.
    pub kernel: usize,
    /// `[channels, kernel * kernel]`.
    pub weight: Vec<f32>,
    /// `[channels]`.
    pub bias: Vec<f32>,
}

/// Parts of a network as importers make them: vectors in memory, matrices to be read when they are needed.
#[derive(Clone, Debug, Default)]
pub struct InSource;

impl Storage for InSource {
    type Vectors = Vec<f32>;
    type Norm = Norm;
    type Linear = Layer;
    type Depthwise = Depthwise;
    type Mixer = Mixer;
}

/// See [`transformer::Embedding`].
pub type Embedding = transformer::Embedding<InSource>;
/// See [`transformer::Rotation`].
pub type Rotation = transformer::Rotation<InSource>;
/// See [`transformer::Block`].
pub type Block = transformer::Block<InSource>;
/// See [`transformer::Talking`].
pub type Talking = transformer::Talking<InSource>;
/// See [`transformer::Mlp`].
pub type Mlp = transformer::Mlp<InSource>;
/// See [`transformer::Tail`].
pub type Tail = transformer::Tail<InSource>;
/// See [`dpt::Dpt`].
pub type Dpt = dpt::Dpt<InSource>;
/// See [`dpt::Tap`].
pub type Tap = dpt::Tap<InSource>;
/// See [`dpt::Unit`].
pub type Unit = dpt::Unit<InSource>;
/// See [`linear::LinearHead`].
pub type LinearHead = linear::LinearHead<InSource>;
/// See [`linear::Tap`].
pub type LinearTap = linear::Tap<InSource>;
/// See [`xcit::Local`].
pub type Local = xcit::Local<InSource>;
/// See [`convnext::Downsampling`].
pub type Downsampling = convnext::Downsampling<InSource>;
/// See [`convnext::ConvBlock`].
pub type ConvBlock = convnext::ConvBlock<InSource>;
/// See [`resmlp::MixerBlock`].
pub type MixerBlock = resmlp::MixerBlock<InSource>;

/// A layer over tokens, the same for every channel c, with the diagonals around it, whose vectors are `[dim]`:
/// `y[t][c] = factor_c (W x)[t][c] + offset_c r_t + bias_factor_c b_t`, r the sums of W's rows and b the layer's bias.
#[derive(Clone, Debug, Default)]
pub struct Mixer {
    /// W and b, outputs and inputs `[tokens]`.
    pub linear: Layer,
    /// On each channel.
    pub factor: Vec<f32>,
    /// Times the sums of W's rows.
    pub offset: Vec<f32>,
    /// Times b.
    pub bias_factor: Vec<f32>,
}

/// The whole network.
#[derive(Clone, Debug)]
pub struct Network {
    /// Hyperparameters. `precision` and `layerscale` are the packer's to set.
    pub config: Config,
    /// What turns pictures into tokens.
    pub embedding: Embedding,
    /// What angles of rotations are computed from, `[head_dim / 4]`: DINOv3's periods or ViT-5's frequencies; empty
    /// where a file shall have one input size.
    pub rope: Vec<f32>,
    /// In order; blocks of class attention last.
    pub blocks: Vec<Block>,
    /// What comes before each of ConvNeXt's stages but the first.
    pub downsamplings: Vec<Downsampling>,
    /// ConvNeXt's, which has these instead of blocks, of all stages.
    pub conv_blocks: Vec<ConvBlock>,
    /// ResMLP's, which has these instead of blocks.
    pub mixer_blocks: Vec<MixerBlock>,
    /// What turns tokens into logits.
    pub tail: Tail,
    /// The depth head, where [`Config::head`] is one.
    pub dpt: Dpt,
    /// The linear head over patches, where [`Config::head`] is one.
    pub linear_head: LinearHead,
}

impl Network {
    /// A network of these hyperparameters without any parts.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            embedding: Embedding::default(),
            rope: Vec::new(),
            blocks: Vec::new(),
            downsamplings: Vec::new(),
            conv_blocks: Vec::new(),
            mixer_blocks: Vec::new(),
            tail: Tail::default(),
            dpt: Dpt::default(),
            linear_head: LinearHead::default(),
        }
    }

    /// Goes through all parts in the order of a file of `config`, and makes those that are not there yet.
    pub(crate) fn walk<W: Walk<Storage = InSource>>(&mut self, config: &Config, w: &mut W) -> Result<(), W::Error> {
        for_each_part(config, |part| match part {
            Part::Embedding => self.embedding.walk(config, w),
            Part::Block(i) => at(&mut self.blocks, i).walk(config, i, w),
            Part::Downsampling(stage) => at(&mut self.downsamplings, stage - 1).walk(config, stage, w),
            Part::ConvBlock { stage, block } => at(&mut self.conv_blocks, block).walk(config, stage, block, w),
            Part::MixerBlock(i) => at(&mut self.mixer_blocks, i).walk(config, i, w),
            Part::Tail => self.tail.walk(config, w),
            Part::Dpt => config.depth_head().map_or(Ok(()), |widths| self.dpt.walk(config, widths, w)),
            Part::LinearHead => config.linear_head().map_or(Ok(()), |widths| self.linear_head.walk(config, widths, w)),
        })
    }
}

/// Part `i`, of which those before are there.
fn at<T: Clone + Default>(parts: &mut Vec<T>, i: usize) -> &mut T {
    if i == parts.len() {
        parts.push(T::default());
    }
    &mut parts[i]
}

/// The original gammas of the branches of all blocks, one block after another: attention, MLP, and XCiT's local branch
/// (empty elsewhere).
pub type Gammas = [Vec<f32>; 3];

/// A network with what a model file says beside it.
#[derive(Clone, Debug)]
pub struct Source {
    /// The weights.
    pub network: Network,
    /// How a picture becomes the input.
    pub preprocess: Preprocess,
    /// What the source says of the classes' names.
    pub labels: Option<Given>,
    /// The architecture's name.
    pub name: String,
    /// The weights' licence, where the source states it.
    pub license: Option<String>,
    /// Where the weights come from, where the source states it.
    pub url: Option<String>,
    /// The original gammas where the weights already contain them.
    pub folded_gammas: Option<Gammas>,
    /// What the user should know about choices that were made, one sentence each.
    pub announcements: Vec<String>,
}
