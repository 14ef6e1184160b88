//! The hyperparameters of a network, as plain data: one forward pass serves every plain ViT from this struct.
//!
//! Lengths are in elements. `pad16` is the padding that every vector over channels has in the file and in memory.

use core::ops::Range;

mod check;
mod family;
mod head;
mod preprocess;

pub use family::{Attention, Cait, ConvNeXt, Family, StageConfig, Vit, Xcit};
pub use head::{Answer, Depth, Dpt, Enlarging, Head, LinearHead};
pub(crate) use preprocess::MAX_EDGE;
pub use preprocess::{CropRounding, Interpolation, Preprocess, Resize, Scale, SizeRule};

use crate::error::Error;
pub use crate::lanes::pad16;

/// Edge of the kernel of ConvNeXt's depthwise convolutions.
pub const CONVNEXT_KERNEL: usize = 7;

/// What the weights are stored as and what the matrices are computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// int8 weights with a scale per output channel, 8-bit activations quantized per token at run time.
    Int8,
    /// f16 weights with a scale per output channel.
    F16,
    /// f32 weights.
    F32,
}

/// Where LayerScale's gamma is; the names are those of the command line and of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerScale {
    /// The network has none.
    None,
    /// In the per-channel scale and the bias.
    Fold,
    /// In the weights, quantized afterwards.
    FoldWeights,
    /// A per-channel multiply fused into the residual add.
    Keep,
    /// A pass of its own over the branch's output.
    KeepPass,
}

/// The non-linearity of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// GELU by erf.
    Gelu,
    /// GELU by tanh.
    GeluTanh,
    /// `x * sigmoid(1.702 x)`.
    GeluQuick,
    /// `silu(gate) * up`; the first linear layer is twice as wide.
    SwiGlu,
}

/// How the tokens become one feature vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Token 0.
    Cls,
    /// Mean of the patch tokens.
    Avg,
    /// Token 0, then the mean of the patch tokens.
    ClsAvg,
    /// Token 0, then token 1 (DeiT's distillation token).
    ClsDist,
    /// Mean of all tokens.
    All,
}

/// By which rule a library resamples a network's position embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resampling {
    /// Cubic with a = -0.5, widened by the scale where the grid shrinks (`mode="bicubic", antialias=True`): timm,
    /// DINOv2 with registers in transformers, RF-DETR.
    BicubicAntialias,
    /// Cubic with a = -0.75, four taps, borders repeated (`mode="bicubic"`): ViT, DeiT and DINOv2 in transformers.
    Bicubic,
    /// The same with the scale that DINOv2's own code computes, `(patches + 0.1) / trained patches`.
    BicubicOffset,
    /// Linear, two taps: FlexiViT in timm.
    Bilinear,
}

/// How the positions of a network follow another grid of patches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Positions {
    /// There are none, or none that depend on the grid.
    Free,
    /// A position embedding is resampled.
    Resampled {
        /// How.
        rule: Resampling,
        /// Rows and columns of the table in the file; `None` for the grid of the file's own input size.
        grid: Option<(usize, usize)>,
    },
    /// DINOv3's rotations are computed anew, from the periods in the file.
    Rotated,
    /// The file does not say how, or they are part of what was learnt.
    Fixed,
}

/// How logits become scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scores {
    /// One label a picture.
    Softmax,
    /// Each label on its own.
    Sigmoid,
}

/// Names as they stand in the file and on the command line.
pub trait Named: Sized + Copy + PartialEq + 'static {
    /// Every value with its name.
    const NAMES: &'static [(Self, &'static str)];

    /// The value of that name.
    fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, n)| *n == name).map(|(v, _)| *v)
    }

    /// The name of this value.
    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(v, _)| *v == self).map_or("", |(_, n)| n)
    }
}

impl Named for Precision {
    const NAMES: &'static [(Self, &'static str)] = &[(Self::Int8, "int8"), (Self::F16, "f16"), (Self::F32, "f32")];
}

impl Named for LayerScale {
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self::None, "none"),
        (Self::Fold, "fold"),
        (Self::FoldWeights, "fold-weights"),
        (Self::Keep, "keep"),
        (Self::KeepPass, "keep-pass"),
    ];
}

impl Named for Activation {
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self::Gelu, "gelu"),
        (Self::GeluTanh, "gelu_tanh"),
        (Self::GeluQuick, "gelu_quick"),
        (Self::SwiGlu, "swiglu"),
    ];
}

impl Named for Pooling {
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self::Cls, "cls"),
        (Self::Avg, "avg"),
        (Self::ClsAvg, "cls_avg"),
        (Self::ClsDist, "cls_dist"),
        (Self::All, "all"),
    ];
}

impl Named for Scores {
    const NAMES: &'static [(Self, &'static str)] = &[(Self::Softmax, "softmax"), (Self::Sigmoid, "sigmoid")];
}

impl Named for Resampling {
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self::BicubicAntialias, "bicubic_antialias"),
        (Self::Bicubic, "bicubic"),
        (Self::BicubicOffset, "bicubic_offset"),
        (Self::Bilinear, "bilinear"),
    ];
}

/// A Vision Transformer (Dosovitskiy et al. 2020; Touvron et al. 2021 for LayerScale; Oquab et al. 2023).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Which network it is, with what only some networks have.
    pub family: Family,
    /// Input height and width in pixels, multiples of the patch.
    pub image_height: usize,
    /// See `image_height`.
    pub image_width: usize,
    /// Patch height and width in pixels.
    pub patch_height: usize,
    /// See `patch_height`.
    pub patch_width: usize,
    /// Width D of the residual stream; in ConvNeXt of the last stage's.
    pub dim: usize,
    /// Number of blocks; in ConvNeXt of all stages.
    pub depth: usize,
    /// Width of the MLP (of the gate, and of its twin, for SwiGLU).
    pub hidden: usize,
    /// How positions follow another input size than the file's.
    pub positions: Positions,
    /// Epsilon of every LayerNorm.
    pub norm_eps: f32,
    /// LayerNorm on the tokens after the last block; in ResMLP, which has no other, factors and offsets alone.
    pub norm: bool,
    /// LayerNorm on the pooled features.
    pub fc_norm: bool,
    /// The MLP's non-linearity.
    pub activation: Activation,
    /// Tokens to features.
    pub pooling: Pooling,
    /// Logits; 0 where there is no head and the output is the features.
    pub classes: usize,
    /// Factors on the features before they enter the head, which is divided by them: they even out channels for int8.
    pub head_factors: bool,
    /// Logits to scores.
    pub scores: Scores,
    /// Storage of the matrices.
    pub precision: Precision,
    /// Where gamma is.
    pub layerscale: LayerScale,
    /// What stands on the encoder.
    pub head: Head,
    /// Whether the last matrices of branches lack rows: those of channels that a branch does not reach (see
    /// [`crate::layout::Kept`]).
    pub pruned: bool,
}

impl Config {
    /// A network of this family without anything else that is not said: lengths are 0, and there is neither head nor
    /// norm but the family's. To be filled in.
    pub const fn of(family: Family) -> Self {
        Self {
            family,
            image_height: 0,
            image_width: 0,
            patch_height: 0,
            patch_width: 0,
            dim: 0,
            depth: 0,
            hidden: 0,
            positions: Positions::Free,
            norm_eps: 0.0,
            norm: false,
            fc_norm: false,
            activation: Activation::Gelu,
            pooling: Pooling::Cls,
            classes: 0,
            head_factors: false,
            scores: Scores::Softmax,
            precision: Precision::F32,
            layerscale: LayerScale::None,
            head: Head::Classifier,
            pruned: false,
        }
    }

    /// Attention heads; 0 where there is no attention (ConvNeXt, ResMLP).
    pub const fn heads(&self) -> usize {
        match self.family.attention() {
            Some(attention) => attention.heads,
            None => 0,
        }
    }

    /// Width d of one head.
    pub const fn head_dim(&self) -> usize {
        match self.family.attention() {
            Some(attention) => attention.head_dim,
            None => 0,
        }
    }

    /// Tokens before the patch tokens.
    pub const fn prefix_tokens(&self) -> usize {
        match &self.family {
            Family::Cait(_) | Family::Xcit(_) => 1,
            family => match family.vit() {
                Some(vit) => vit.prefix_tokens,
                None => 0,
            },
        }
    }

    /// Blocks of class attention after those of the patches (CaiT, XCiT).
    pub const fn class_blocks(&self) -> usize {
        match &self.family {
            Family::Cait(cait) => cait.class_blocks,
            Family::Xcit(xcit) => xcit.class_blocks,
            _ => 0,
        }
    }

    /// Whether each head's q and k are normalized.
    pub const fn qk_norm(&self) -> bool {
        matches!(self.family.vit(), Some(vit) if vit.qk_norm)
    }

    /// Whether the embedded tokens are normalized before the first block.
    pub const fn norm_pre(&self) -> bool {
        match &self.family {
            Family::ConvNeXt(_) => true,
            family => matches!(family.vit(), Some(vit) if vit.norm_pre),
        }
    }

    /// Whether a norm stands before each residual branch.
    pub const fn block_norm(&self) -> bool {
        match &self.family {
            Family::Cait(cait) => cait.block_norm,
            Family::ConvNeXt(_) | Family::Xcit(_) => true,
            family => matches!(family.vit(), Some(vit) if vit.block_norm),
        }
    }

    /// ConvNeXt's stages, none in the other families.
    pub const fn stages(&self) -> &[StageConfig] {
        match &self.family {
            Family::ConvNeXt(convnext) if cfg!(feature = "convnext") => &convnext.stages,
            _ => &[],
        }
    }

    /// Height and width in pixels of what becomes one token of the output: a patch; 8 x 8 of them in ConvNeXt.
    pub const fn token_size(&self) -> (usize, usize) {
        let patches = 1 << self.stages().len().saturating_sub(1);
        (self.patch_height * patches, self.patch_width * patches)
    }

    /// Patch tokens along height and width; in ConvNeXt those of the last stage.
    pub const fn grid(&self) -> (usize, usize) {
        let (height, width) = self.token_size();
        (self.image_height / height, self.image_width / width)
    }

    /// Tokens along height and width in a stage: patches in the first.
    pub const fn stage_grid(&self, stage: usize) -> (usize, usize) {
        ((self.image_height / self.patch_height) >> stage, (self.image_width / self.patch_width) >> stage)
    }

    /// Width of the residual stream in a block.
    pub fn block_dim(&self, block: usize) -> usize {
        let mut last = 0;
        let stage = self.stages().iter().find(|stage| {
            last += stage.depth;
            block < last
        });
        stage.map_or(self.dim, |stage| stage.dim)
    }

    /// Widths of the residual stream in all blocks, added up.
    pub fn stream_channels(&self) -> usize {
        match self.stages() {
            [] => self.blocks() * self.dim,
            stages => stages.iter().map(|stage| stage.depth * stage.dim).sum(),
        }
    }

    /// Where a block's channels stand in an array over those of all blocks.
    pub fn block_channels(&self, block: usize) -> Range<usize> {
        let start = (0..block).map(|before| self.block_dim(before)).sum();
        start..start + self.block_dim(block)
    }

    /// Width of the embedded patches.
    pub const fn embedding_dim(&self) -> usize {
        match self.stages() {
            [first, ..] => first.dim,
            [] => self.dim,
        }
    }

    /// Patch tokens of the output.
    pub const fn patches(&self) -> usize {
        self.grid().0 * self.grid().1
    }

    /// Rows and columns of the position embedding in the file.
    pub const fn table_grid(&self) -> (usize, usize) {
        match self.positions {
            Positions::Resampled { grid: Some(grid), .. } => grid,
            _ => self.grid(),
        }
    }

    /// Whether the patches have a position embedding.
    pub const fn has_positions(&self) -> bool {
        use Family::{Cait, ParallelVit, Vit, Vit5, Xcit};
        matches!(self.family, Vit(_) | ParallelVit(_) | Vit5(_) | Cait(_) | Xcit(_))
    }

    /// Tokens whose queries and keys are rotated by their position, the last ones: in DINOv3 the patches, in ViT-5 all
    /// but the class token.
    pub const fn rotated_tokens(&self) -> usize {
        match self.family {
            Family::Dinov3(_) => self.patches(),
            Family::Vit5(_) => self.tokens() - 1,
            _ => 0,
        }
    }

    /// Whether norms take the mean out of their rows (LayerNorm) or not (RMSNorm).
    pub const fn centered_norms(&self) -> bool {
        !(cfg!(feature = "vit5") && matches!(self.family, Family::Vit5(_)))
    }

    /// Blocks of all kinds.
    pub const fn blocks(&self) -> usize {
        self.depth + self.class_blocks()
    }

    /// Entries of a head's relative position table: one for each offset between two patches, then class token to
    /// patch, patch to class token, class token to itself.
    pub const fn relative_len(&self) -> usize {
        let (height, width) = self.grid();
        (2 * height - 1) * (2 * width - 1) + 3
    }

    /// All tokens: prefix, then patches.
    pub const fn tokens(&self) -> usize {
        self.prefix_tokens() + self.patches()
    }

    /// Inputs of the patch embedding: channels * patch height * patch width, or those of the stem's last convolution.
    pub const fn patch_len(&self) -> usize {
        match self.stem_layers() {
            0 => 3 * self.patch_height * self.patch_width,
            layers => self.stem_inputs(layers),
        }
    }

    /// Number of 3 x 3 convolutions with a stride of 2 in XCiT's stem, without the last one, the patch embedding.
    pub const fn stem_layers(&self) -> usize {
        match (&self.family, self.patch_height) {
            (Family::Xcit(_), 8) if cfg!(feature = "xcit") => 2,
            (Family::Xcit(_), 16) if cfg!(feature = "xcit") => 3,
            _ => 0,
        }
    }

    /// Outputs of convolution `i` of the stem, of which each has twice as many as the one before.
    pub const fn stem_channels(&self, i: usize) -> usize {
        self.dim >> (self.stem_layers() - i)
    }

    /// Inputs of convolution `i` of the stem: 3 x 3 pixels, or 3 x 3 times the padded channels of the one before.
    pub const fn stem_inputs(&self, i: usize) -> usize {
        match i {
            0 => 27,
            _ => 9 * pad16(self.stem_channels(i - 1)),
        }
    }

    /// Height and width of what convolution `i` of the stem makes.
    pub const fn stem_size(&self, i: usize) -> (usize, usize) {
        (self.image_height >> (i + 1), self.image_width >> (i + 1))
    }

    /// Elements of an input tensor `[3, height, width]`.
    pub const fn input_len(&self) -> usize {
        3 * self.image_height * self.image_width
    }

    /// `heads * pad16(head_dim)`: width of q, of k, of v and of the attention's output as stored.
    pub const fn attention_width(&self) -> usize {
        self.heads() * pad16(self.head_dim())
    }

    /// Outputs of the MLP's first linear layer as stored.
    pub const fn ffn_up_width(&self) -> usize {
        match self.activation {
            Activation::SwiGlu => 2 * pad16(self.hidden),
            _ => pad16(self.hidden),
        }
    }

    /// Vectors of `dim` that pooling puts side by side.
    pub const fn parts(&self) -> usize {
        match self.pooling {
            Pooling::ClsAvg | Pooling::ClsDist => 2,
            Pooling::Cls | Pooling::Avg | Pooling::All => 1,
        }
    }

    /// Length of the pooled features, without padding.
    pub const fn features(&self) -> usize {
        self.parts() * self.dim
    }

    /// Tokens that the head reads: the last block computes no others.
    pub const fn rows_read(&self) -> usize {
        match self.pooling {
            Pooling::Cls => 1,
            Pooling::ClsDist => 2,
            Pooling::Avg | Pooling::ClsAvg | Pooling::All => self.tokens(),
        }
    }

    /// Whether gamma is a tensor of the file.
    pub const fn keeps_gamma(&self) -> bool {
        matches!(self.layerscale, LayerScale::Keep | LayerScale::KeepPass)
    }

    /// The head, if its output is a distance for each pixel and the build has it.
    pub const fn depth_head(&self) -> Option<&Dpt> {
        match &self.head {
            Head::Depth(dpt) if cfg!(feature = "depth") => Some(dpt),
            _ => None,
        }
    }

    /// The head, if it is a linear one over the patches and the build has it.
    pub const fn linear_head(&self) -> Option<&LinearHead> {
        match &self.head {
            Head::Linear(linear) if cfg!(feature = "linear") => Some(linear),
            _ => None,
        }
    }

    /// What can have labels: classes of the picture, or of its patches.
    pub const fn labelled_classes(&self) -> usize {
        if self.classes > 0 { self.classes } else { self.head.patch_classes() }
    }

    /// What the matrix is stored as that ends a head for dense outputs: in int8 models f32, since its errors would be
    /// the output's.
    pub const fn output_precision(&self) -> Precision {
        match self.precision {
            Precision::Int8 | Precision::F32 => Precision::F32,
            Precision::F16 => Precision::F16,
        }
    }

    /// The same network for pictures of another size, in pixels.
    ///
    /// # Errors
    /// `RunConfig`, if its positions do not follow, or what [`Config::check`] finds.
    pub fn at_size(mut self, height: usize, width: usize) -> Result<Self, Error> {
        if (height, width) == (self.image_height, self.image_width) {
            return Ok(self);
        }
        if self.positions == Positions::Fixed {
            return Err(Error::RunConfig(
                "this file is for one input size; `vitlet convert --image-size` makes one for another size, of the \
                 checkpoint or of an ONNX file that was exported at that size (ResMLP has one size alone)",
            ));
        }
        let stored = self.table_grid();
        if let Positions::Resampled { grid, .. } = &mut self.positions {
            *grid = Some(stored);
        }
        (self.image_height, self.image_width) = (height, width);
        self.check().map_err(|e| if let Error::Config(why) = e { Error::RunConfig(why) } else { e })?;
        Ok(self)
    }
}
