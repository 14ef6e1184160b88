//! A plain Vision Transformer in f32: what every importer produces and the packer consumes.
//!
//! Nothing here is padded or reordered; matrices are `[outputs, inputs]` row by row, as the frameworks have them.
//! Vectors are in memory; each matrix is read when it is needed ([`Layer`]). Quantization, gamma folding and the file's
//! layout come later (`quantize`, `diagonal`, `pack`).

use vitlet::picture::Preprocess;
use vitlet::{Config, Family};

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
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    /// Factors.
    pub weight: Vec<f32>,
    /// Offsets.
    pub bias: Vec<f32>,
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
#[derive(Clone, Debug, PartialEq)]
pub struct Depthwise {
    /// Edge of the kernel.
    pub kernel: usize,
    /// `[channels, kernel * kernel]`.
    pub weight: Vec<f32>,
    /// `[channels]`.
    pub bias: Vec<f32>,
}

/// XCiT's local patch interaction: a residual branch between attention and MLP.
#[derive(Clone, Debug, PartialEq)]
pub struct Local {
    /// Before it, `[dim]`.
    pub norm: Norm,
    /// Before GELU.
    pub first: Depthwise,
    /// BatchNorm after GELU. Its offset does not reach the border that the second convolution reads, so it is not in that one's bias.
    pub affine: Affine,
    /// After it.
    pub second: Depthwise,
    /// LayerScale, `[dim]`.
    pub gamma: Option<Vec<f32>>,
}

/// One transformer block.
#[derive(Clone, Debug)]
pub struct Block {
    /// Before the attention, `[dim]`; none where the network has no norms or they are folded away.
    pub norm1: Option<Norm>,
    /// Rows `[3][heads][head_dim]` (q, k, v), inputs `[dim]`.
    pub qkv: Layer,
    /// BEiT's relative position tables, `[heads, relative_len]` as the model file has them.
    pub bias: Option<Vec<f32>>,
    /// CaiT's talking heads: the layers over heads before and after the softmax.
    pub talking: Option<[Layer; 2]>,
    /// XCiT's factors on the scores between channels, `[heads]`.
    pub temperature: Option<Vec<f32>>,
    /// LayerNorms of q and of k over one head, `[head_dim]`.
    pub qk_norm: Option<(Norm, Norm)>,
    /// Outputs `[dim]`, inputs `[heads][head_dim]`.
    pub proj: Layer,
    /// LayerScale of the attention branch, `[dim]`.
    pub gamma1: Option<Vec<f32>>,
    /// XCiT's class attention: the norm that is the patches' branch, with the same LayerScale, `[dim]`.
    pub patches_norm: Option<Norm>,
    /// XCiT's branch between these two.
    pub local: Option<Local>,
    /// Before the MLP, `[dim]`; in XCiT's class attention, over the stream itself.
    pub norm2: Option<Norm>,
    /// Outputs `[hidden]`, or `[gate: hidden][up: hidden]` for SwiGLU; inputs `[dim]`.
    pub up: Layer,
    /// Outputs `[dim]`, inputs `[hidden]`.
    pub down: Layer,
    /// LayerScale of the MLP branch, `[dim]`.
    pub gamma2: Option<Vec<f32>>,
}

/// One of ConvNeXt's blocks.
#[derive(Clone, Debug)]
pub struct ConvBlock {
    /// Over the stage's channels.
    pub conv: Depthwise,
    /// After the convolution, `[dim]`.
    pub norm: Norm,
    /// Outputs `[4 dim]`, inputs `[dim]`.
    pub up: Layer,
    /// Outputs `[dim]`, inputs `[4 dim]`.
    pub down: Layer,
    /// LayerScale, `[dim]`.
    pub gamma: Option<Vec<f32>>,
}

/// One of ConvNeXt's stages.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Before all but the first: the norm of the stage before, and what makes one token of 2 x 2; inputs `[dy][dx][dim]`.
    pub downsampling: Option<(Norm, Layer)>,
    /// In order.
    pub blocks: Vec<ConvBlock>,
}

/// One block of ResMLP. What is affine before the MLP is in `up` already.
#[derive(Clone, Debug)]
pub struct MixerBlock {
    /// The first branch.
    pub mixer: Mixer,
    /// LayerScale of the first branch, `[dim]`.
    pub gamma1: Option<Vec<f32>>,
    /// Outputs `[hidden]`, inputs `[dim]`.
    pub up: Layer,
    /// Outputs `[dim]`, inputs `[hidden]`.
    pub down: Layer,
    /// LayerScale of the MLP branch, `[dim]`.
    pub gamma2: Option<Vec<f32>>,
}

/// A layer over tokens, the same for every channel c, with the diagonals around it, whose vectors are `[dim]`:
/// `y[t][c] = factor_c (W x)[t][c] + offset_c r_t + bias_factor_c b_t`, r the sums of W's rows and b the layer's bias.
#[derive(Clone, Debug)]
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

/// Rotary position embedding.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// `[head_dim / 4]`; empty where the source does not have them.
    pub periods: Vec<f32>,
    /// Cosines of the angles, `[patches, head_dim / 2]`.
    pub cos: Vec<f32>,
    /// Their sines, of the same shape.
    pub sin: Vec<f32>,
}

/// The whole network.
#[derive(Clone, Debug)]
pub struct Network {
    /// Hyperparameters. `precision` and `layerscale` are the packer's to set.
    pub config: Config,
    /// XCiT's convolutions before the last one, which is `patch`. The inputs of the first are `[channel][dy][dx]`, the
    /// inputs of the others and of `patch` are `[dy][dx][channel]`.
    pub stem: Vec<Layer>,
    /// The patch convolution as a matrix: outputs `[dim]`, inputs `[channel][dy][dx]`.
    pub patch: Layer,
    /// Position embedding of the patches, `[patches, dim]`; empty in the families without.
    pub positions: Vec<f32>,
    /// DINOv3's.
    pub rotation: Option<Rotation>,
    /// Class, distillation and register tokens with their position embedding added, `[prefix_tokens, dim]`.
    pub prefix: Vec<f32>,
    /// On the embedded tokens, `[dim]`.
    pub norm_pre: Option<Norm>,
    /// In order; blocks of class attention last.
    pub blocks: Vec<Block>,
    /// ConvNeXt's, which has these instead of blocks.
    pub stages: Vec<Stage>,
    /// ResMLP's, which has these instead of blocks.
    pub mixer_blocks: Vec<MixerBlock>,
    /// On the tokens after the last block, `[dim]`.
    pub norm: Option<Norm>,
    /// On the pooled features, `[dim]`.
    pub fc_norm: Option<Norm>,
    /// On the features before they enter the head, whose columns are divided by it, `[parts][dim]`. Balancing sets it;
    /// no source has it.
    pub head_factor: Option<Vec<f32>>,
    /// Outputs `[classes]`, inputs `[parts][dim]`.
    pub head: Option<Layer>,
}

/// The original gammas of the branches of all blocks, one block after another: attention, MLP, and XCiT's local branch (empty elsewhere).
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

impl Local {
    fn parameters(&self) -> usize {
        let convs: usize = [&self.first, &self.second].iter().map(|c| c.weight.len() + c.bias.len()).sum();
        // The norm's weight and bias, and the affine map's.
        convs + 4 * self.norm.weight.len() + self.gamma.as_ref().map_or(0, Vec::len)
    }
}

impl Network {
    /// Weights, biases, norms, embeddings and gammas, all told.
    pub fn parameters(&self) -> usize {
        let linear = |l: &Layer| l.n * l.k + l.n;
        let norm = |n: &Norm| n.weight.len() + n.bias.len();
        let norms = [&self.norm_pre, &self.norm, &self.fc_norm];
        let blocks: usize = self
            .blocks
            .iter()
            .map(|b| {
                let gammas = b.gamma1.iter().chain(&b.gamma2).chain(&b.temperature).map(Vec::len).sum::<usize>();
                let qk_norms = b.qk_norm.iter().map(|(q, k)| norm(q) + norm(k)).sum::<usize>();
                [&b.qkv, &b.proj, &b.up, &b.down].map(linear).iter().sum::<usize>()
                    + [&b.norm1, &b.norm2].into_iter().flatten().map(norm).sum::<usize>()
                    + gammas
                    + qk_norms
                    + b.talking.iter().flatten().map(linear).sum::<usize>()
                    + b.bias.as_ref().map_or(0, Vec::len)
                    + b.local.as_ref().map_or(0, Local::parameters)
            })
            .sum();
        // The same norm and gamma for both branches.
        let shared = self.blocks.iter().filter(|_| self.config.family == Family::ParallelVit);
        let shared: usize =
            shared.map(|b| b.norm2.as_ref().map_or(0, norm) + b.gamma2.as_ref().map_or(0, Vec::len)).sum();
        let conv_blocks = self.stages.iter().flat_map(|s| &s.blocks);
        let conv_blocks: usize = conv_blocks
            .map(|b| {
                let conv = b.conv.weight.len() + b.conv.bias.len();
                conv + norm(&b.norm) + linear(&b.up) + linear(&b.down) + b.gamma.as_ref().map_or(0, Vec::len)
            })
            .sum();
        let downsamplings = self.stages.iter().filter_map(|s| s.downsampling.as_ref());
        let gamma = |g: &Option<Vec<f32>>| g.as_ref().map_or(0, Vec::len);
        let mixer_blocks: usize = self
            .mixer_blocks
            .iter()
            .map(|b| {
                // Both branches' affine maps; the second is in `up` by now.
                let affine = 2 * (b.mixer.factor.len() + b.mixer.offset.len());
                [&b.mixer.linear, &b.up, &b.down].map(linear).iter().sum::<usize>()
                    + affine
                    + gamma(&b.gamma1)
                    + gamma(&b.gamma2)
            })
            .sum();
        self.stem.iter().map(linear).sum::<usize>()
            + linear(&self.patch)
            + conv_blocks
            + downsamplings.map(|(n, l)| norm(n) + linear(l)).sum::<usize>()
            + self.positions.len()
            + self.prefix.len()
            + norms.into_iter().flatten().map(norm).sum::<usize>()
            + (blocks - shared)
            + mixer_blocks
            + self.head.as_ref().map_or(0, linear)
    }
}
