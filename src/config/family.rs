//! Families of networks: what each has that the others do not.

use super::Named;

/// Which network it is: its forward pass, and its hyperparameters and tensors beside those that all have. Its name is
/// `general.architecture` of the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Family {
    /// The plain Vision Transformer: a position embedding is added to the patches.
    Vit(Vit),
    /// The same with attention and MLP side by side (Dehghani et al. 2023, "Scaling Vision Transformers to 22 Billion
    /// Parameters"): both read the stream before the block.
    ParallelVit(Vit),
    /// BEiT (Bao et al. 2021): a bias by relative position is added to the scores of every attention.
    Beit(Vit),
    /// DINOv3 (Simeoni et al. 2025): queries and keys of patches are rotated by their position.
    Dinov3(Vit),
    /// ViT-5 (Wang et al. 2026): RMSNorm, also over each head's q and k; queries and keys of patches and registers are
    /// rotated by their position.
    Vit5(Vit),
    /// CaiT (Touvron et al. 2021): talking heads between the patches, then class attention.
    Cait(Cait),
    /// ConvNeXt (Liu et al. 2022): four stages of depthwise convolutions and MLPs, each with half the height and width
    /// of the one before.
    ConvNeXt(ConvNeXt),
    /// XCiT (El-Nouby et al. 2021): a stem of convolutions, attention between the channels of a head, depthwise
    /// convolutions between neighbouring patches, then class attention.
    Xcit(Xcit),
    /// ResMLP (Touvron et al. 2021): a matrix over the tokens in the place of attention, and no LayerNorm.
    ResMlp,
}

impl Family {
    /// Whether this build of the engine runs it: a firmware names its networks by cargo features.
    pub const fn is_built(&self) -> bool {
        match self {
            Self::Vit(_) | Self::ParallelVit(_) | Self::Beit(_) | Self::Dinov3(_) => true,
            Self::Vit5(_) => cfg!(feature = "vit5"),
            Self::Cait(_) => cfg!(feature = "cait"),
            Self::ConvNeXt(_) => cfg!(feature = "convnext"),
            Self::Xcit(_) => cfg!(feature = "xcit"),
            Self::ResMlp => cfg!(feature = "resmlp"),
        }
    }

    /// The hyperparameters of a Vision Transformer and of those that differ from it in how attention knows positions.
    pub const fn vit(&self) -> Option<&Vit> {
        match self {
            Self::Vit(vit) | Self::ParallelVit(vit) | Self::Beit(vit) | Self::Dinov3(vit) | Self::Vit5(vit) => {
                Some(vit)
            }
            Self::Cait(_) | Self::ConvNeXt(_) | Self::Xcit(_) | Self::ResMlp => None,
        }
    }

    /// The same, to be filled in.
    pub const fn vit_mut(&mut self) -> Option<&mut Vit> {
        match self {
            Self::Vit(vit) | Self::ParallelVit(vit) | Self::Beit(vit) | Self::Dinov3(vit) | Self::Vit5(vit) => {
                Some(vit)
            }
            Self::Cait(_) | Self::ConvNeXt(_) | Self::Xcit(_) | Self::ResMlp => None,
        }
    }

    /// Its attention; ConvNeXt and ResMLP have none.
    pub const fn attention(&self) -> Option<&Attention> {
        match self {
            Self::Cait(cait) => Some(&cait.attention),
            Self::Xcit(xcit) => Some(&xcit.attention),
            _ => match self.vit() {
                Some(vit) => Some(&vit.attention),
                None => None,
            },
        }
    }
}

/// Names with nothing filled in.
impl Named for Family {
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self::Vit(Vit::EMPTY), "vit"),
        (Self::ParallelVit(Vit::EMPTY), "parallel_vit"),
        (Self::Beit(Vit::EMPTY), "beit"),
        (Self::Dinov3(Vit::EMPTY), "dinov3"),
        (Self::Vit5(Vit::EMPTY), "vit5"),
        (Self::Cait(Cait::EMPTY), "cait"),
        (Self::ConvNeXt(ConvNeXt::EMPTY), "convnext"),
        (Self::Xcit(Xcit::EMPTY), "xcit"),
        (Self::ResMlp, "resmlp"),
    ];

    fn name(self) -> &'static str {
        let kind = core::mem::discriminant(&self);
        Self::NAMES.iter().find(|(family, _)| core::mem::discriminant(family) == kind).map_or("", |(_, name)| name)
    }
}

/// Attention with several heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Heads.
    pub heads: usize,
    /// Width d of one head.
    pub head_dim: usize,
    /// Factor on q k before the softmax, 1 / sqrt(head_dim).
    pub scale: f32,
}

impl Attention {
    /// Nothing filled in.
    pub const EMPTY: Self = Self { heads: 0, head_dim: 0, scale: 0.0 };
}

/// A Vision Transformer (Dosovitskiy et al. 2020), and networks that differ from it in how attention knows positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vit {
    /// In every block.
    pub attention: Attention,
    /// Norms of each head's q and k.
    pub qk_norm: bool,
    /// Class, distillation and register tokens before the patch tokens.
    pub prefix_tokens: usize,
    /// LayerNorm on the embedded tokens, before the first block.
    pub norm_pre: bool,
    /// LayerNorm before each residual branch; without it the branch reads the stream itself (Fixup, ReZero).
    pub block_norm: bool,
}

impl Vit {
    /// Norms before the branches, and nothing else filled in.
    pub const EMPTY: Self =
        Self { attention: Attention::EMPTY, qk_norm: false, prefix_tokens: 0, norm_pre: false, block_norm: true };
}

/// CaiT (Touvron et al. 2021). It has one class token, which is pooled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cait {
    /// In every block.
    pub attention: Attention,
    /// Blocks of class attention after those of the patches.
    pub class_blocks: usize,
    /// As [`Vit::block_norm`].
    pub block_norm: bool,
}

impl Cait {
    /// Nothing filled in.
    pub const EMPTY: Self = Self { attention: Attention::EMPTY, class_blocks: 0, block_norm: true };
}

/// XCiT (El-Nouby et al. 2021). It has one class token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Xcit {
    /// Between the channels of a head, then of the class token.
    pub attention: Attention,
    /// Blocks of class attention after those of the patches.
    pub class_blocks: usize,
    /// Whether class attention's second norm is over all tokens, not the class token alone.
    pub tokens_norm: bool,
}

impl Xcit {
    /// Nothing filled in.
    pub const EMPTY: Self = Self { attention: Attention::EMPTY, class_blocks: 0, tokens_norm: false };
}

/// ConvNeXt (Liu et al. 2022). Width and block count of [`super::Config`] are the last stage's and all stages'.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvNeXt {
    /// From the finest to the coarsest.
    pub stages: [StageConfig; 4],
}

impl ConvNeXt {
    /// Nothing filled in.
    pub const EMPTY: Self = Self { stages: [StageConfig { dim: 0, depth: 0 }; 4] };
}

/// One of ConvNeXt's stages: blocks of the same width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageConfig {
    /// Width of the residual stream.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
}

impl StageConfig {
    /// Width of the MLP.
    pub const fn hidden(&self) -> usize {
        4 * self.dim
    }
}
