//! Networks: one file each, with what it is made of and a forward pass that reads like its paper.

mod cait;
pub mod convnext;
pub mod resmlp;
pub mod transformer;
mod vit;
mod weights;
pub mod xcit;

pub(crate) use weights::{Offsets, Weights};

use crate::arena::Arena;
use crate::config::{Config, Family};
use crate::error::Error;
use crate::heads::Taps;
use crate::heads::dpt::{self, Dpt};
use crate::heads::linear::{self, LinearHead};
use crate::kernels::Kernels;
use crate::lanes::F32x16;
use crate::layout::{Kept, TensorSpec};
use crate::ops::Scheme;
use crate::ops::map::Workers;
use crate::output::{Output, Outputs};
use crate::parallel::Executor;
use crate::parts::{Count, InFile, List, Walk};
use crate::profile::{Stage, Watch};
use convnext::{ConvBlock, Downsampling};
use resmlp::MixerBlock;
use transformer::{Block, Buffers, Embedding, Input, Pass, Rotation, Tail};

/// What a network is made of. [`for_each_part`] says in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// [`Embedding`].
    Embedding,
    /// [`Block`] of this number.
    Block(usize),
    /// [`Downsampling`] before this stage.
    Downsampling(usize),
    /// [`ConvBlock`] of this number.
    ConvBlock {
        /// Its stage.
        stage: usize,
        /// Its number in the network.
        block: usize,
    },
    /// [`MixerBlock`] of this number.
    MixerBlock(usize),
    /// [`Tail`].
    Tail,
    /// [`Dpt`].
    Dpt,
    /// [`LinearHead`].
    LinearHead,
}

/// Calls `visit` with every part of a network, in the order in which they stand in the file; stops at the first error.
///
/// # Errors
/// The first that `visit` returns.
pub fn for_each_part<E>(c: &Config, mut visit: impl FnMut(Part) -> Result<(), E>) -> Result<(), E> {
    visit(Part::Embedding)?;
    match c.family {
        Family::ConvNeXt(_) if cfg!(feature = "convnext") => {
            let mut blocks = 0..;
            for (i, stage) in c.stages().iter().enumerate() {
                if i > 0 {
                    visit(Part::Downsampling(i))?;
                }
                for block in blocks.by_ref().take(stage.depth) {
                    visit(Part::ConvBlock { stage: i, block })?;
                }
            }
        }
        Family::ResMlp if cfg!(feature = "resmlp") => (0..c.depth).try_for_each(|i| visit(Part::MixerBlock(i)))?,
        _ => (0..c.blocks()).try_for_each(|i| visit(Part::Block(i)))?,
    }
    visit(Part::Tail)?;
    if c.depth_head().is_some() {
        visit(Part::Dpt)?;
    }
    if c.linear_head().is_some() { visit(Part::LinearHead) } else { Ok(()) }
}

impl Part {
    /// A walk through a part that holds nothing.
    ///
    /// # Errors
    /// The walk's.
    pub(crate) fn walk<W: Walk<Storage = ()>>(self, c: &Config, w: &mut W) -> Result<(), W::Error> {
        match self {
            Self::Embedding => Embedding::default().walk(c, w),
            Self::Block(i) => Block::default().walk(c, i, w),
            Self::Downsampling(stage) if cfg!(feature = "convnext") => Downsampling::default().walk(c, stage, w),
            Self::ConvBlock { stage, block } if cfg!(feature = "convnext") => {
                ConvBlock::default().walk(c, stage, block, w)
            }
            Self::MixerBlock(i) if cfg!(feature = "resmlp") => MixerBlock::default().walk(c, i, w),
            Self::Tail => Tail::default().walk(c, w),
            Self::Dpt => c.depth_head().map_or(Ok(()), |dpt| Dpt::default().walk(c, dpt, w)),
            Self::LinearHead => c.linear_head().map_or(Ok(()), |head| LinearHead::default().walk(c, head, w)),
            // Of networks that the build does not have.
            Self::Downsampling(_) | Self::ConvBlock { .. } | Self::MixerBlock(_) => Ok(()),
        }
    }
}

/// Calls `visit` with every tensor of a network, in the order in which they stand in the file; stops at the first
/// error.
///
/// # Errors
/// The first that `visit` returns.
pub fn for_each_tensor<E>(
    config: &Config,
    kept: Kept<'_>,
    visit: impl FnMut(TensorSpec) -> Result<(), E>,
) -> Result<(), E> {
    let mut list = List::new(config, kept, visit);
    for_each_part(config, |part| part.walk(config, &mut list))
}

/// Counts a network's parameters and the multiply-adds of one inference.
pub fn count<'c, 'k>(config: &'c Config, kept: Kept<'k>) -> Count<'c, 'k> {
    let mut count = Count::new(config, kept);
    let Ok(()) = for_each_part(config, |part| part.walk(config, &mut count));
    count
}

/// What a session has computed beforehand.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'t> {
    /// Each channel's network input for each pixel value.
    pub(crate) normalized: &'t [[f32; 256]],
    /// For another grid than the file's: the position embedding `[patches, pad16(dim)]`.
    pub(crate) positions: Option<&'t [F32x16]>,
    /// The same for DINOv3.
    pub(crate) rotation: Option<Rotation<InFile<'t>>>,
}

/// One inference: what it is of, and with what.
#[derive(Clone, Copy)]
pub(crate) struct Run<'r> {
    pub(crate) weights: Weights<'r>,
    /// The network at the session's input size.
    pub(crate) config: &'r Config,
    pub(crate) kernels: Kernels,
    /// Workers that there is memory for.
    pub(crate) threads: usize,
    pub(crate) outputs: Outputs,
    pub(crate) executor: &'r dyn Executor,
    pub(crate) tables: Tables<'r>,
    pub(crate) watch: Watch<'r>,
}

impl<'r> Run<'r> {
    /// Who works on the maps of a head; their memory is the head's to give.
    fn workers(&self) -> Workers<'r> {
        let Self { kernels: k, executor, watch, .. } = *self;
        let (profile, stage) = (watch.profile, Stage::Head);
        Workers { k, executor, memory: &mut [], worker_bytes: 0, profile, stage, scheme: Scheme::Head }
    }
}

/// Bytes that [`forward`] needs.
pub(crate) fn bytes(c: &Config, outputs: Outputs, threads: usize) -> usize {
    let mut arena = Arena::counting();
    let _ = Taps::carve(c, outputs, &mut arena);
    let head = match (c.depth_head(), c.linear_head()) {
        (Some(dpt), _) if outputs.has_map() => dpt::bytes(c, dpt, threads),
        (_, Some(head)) if outputs.has_map() => linear::bytes(c, head, threads),
        _ => 0,
    };
    arena.used().saturating_add(head.max(encoder_bytes(c, threads)))
}

fn encoder_bytes(c: &Config, threads: usize) -> usize {
    let mut arena = Arena::counting();
    match c.family {
        Family::ResMlp if cfg!(feature = "resmlp") => {
            let _ = resmlp::Buffers::carve(c, threads, &mut arena);
        }
        Family::ConvNeXt(_) if cfg!(feature = "convnext") => {
            let _ = convnext::Buffers::carve(c, threads, &mut arena);
        }
        Family::Xcit(_) if cfg!(feature = "xcit") => {
            let _ = xcit::Buffers::carve(c, threads, &mut arena);
        }
        _ => {
            let _ = Buffers::carve(c, threads, &mut arena);
        }
    }
    arena.used()
}

/// Computes the outputs that the run asks for into `out`; `memory` holds [`bytes`] bytes.
pub(crate) fn forward(run: &Run<'_>, input: Input<'_>, memory: &mut [u8], out: &mut [F32x16]) -> Result<(), Error> {
    let Run { config: c, outputs, .. } = *run;
    let mut arena = Arena::over(memory);
    let mut taps = Taps::carve(c, outputs, &mut arena);
    let memory = arena.into_rest();
    encode(run, input, &mut taps, memory, out)?;
    let Some(place) = outputs.place(c, Output::Depth).or(outputs.place(c, Output::LogitsMap)) else { return Ok(()) };
    run.watch.go_on()?;
    let (workers, out) = ((run.workers(), run.threads), &mut out[place]);
    match (c.depth_head(), c.linear_head()) {
        (Some(dpt), _) => dpt::forward(c, dpt, &run.weights.dpt(dpt)?, &taps, workers, memory, out),
        (_, Some(head)) => linear::forward(c, head, &run.weights.linear_head(head)?, &taps, workers, memory, out),
        _ => Ok(()),
    }
}

/// The encoder, and the outputs that need no other head than the classifier.
fn encode(
    run: &Run<'_>,
    input: Input<'_>,
    taps: &mut Taps<'_>,
    memory: &mut [u8],
    out: &mut [F32x16],
) -> Result<(), Error> {
    let (c, threads, mut arena) = (run.config, run.threads, Arena::over(memory));
    match &c.family {
        Family::Cait(_) if cfg!(feature = "cait") => {
            cait::forward(&Pass::new(run)?, input, &mut Buffers::carve(c, threads, &mut arena), out)
        }
        Family::ResMlp if cfg!(feature = "resmlp") => {
            resmlp::forward(&Pass::new(run)?, input, &mut resmlp::Buffers::carve(c, threads, &mut arena), out)
        }
        Family::ConvNeXt(_) if cfg!(feature = "convnext") => {
            convnext::forward(run, input, &mut convnext::Buffers::carve(c, threads, &mut arena), out)
        }
        Family::Xcit(xcit) if cfg!(feature = "xcit") => {
            xcit::forward(xcit, &Pass::new(run)?, input, &mut xcit::Buffers::carve(c, threads, &mut arena), out)
        }
        // `Config::check` has refused what the build does not have.
        _ => vit::forward(&Pass::new(run)?, input, taps, &mut Buffers::carve(c, threads, &mut arena), out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Attention, Cait, ConvNeXt, Pooling, Precision, StageConfig, Vit, Xcit};
    use crate::parts::Work;

    fn work(c: &Config) -> Work {
        count(c, Kept::default()).work
    }

    fn attention(heads: usize, head_dim: usize) -> Attention {
        Attention { heads, head_dim, scale: 0.125 }
    }

    fn deit_tiny() -> Config {
        Config {
            image_height: 224,
            image_width: 224,
            patch_height: 16,
            patch_width: 16,
            dim: 192,
            depth: 12,
            hidden: 768,
            norm_eps: 1e-6,
            norm: true,
            classes: 1000,
            precision: Precision::Int8,
            ..Config::of(Family::Vit(Vit { attention: attention(3, 64), prefix_tokens: 1, ..Vit::EMPTY }))
        }
    }

    #[test]
    fn deit_tiny_has_1_3_gmac() {
        // 28.9 M in the patches, 12 * (87.1 M + 14.9 M) in the blocks, 0.2 M in the head; fvcore says the same.
        assert_eq!(work(&deit_tiny()).total(), 1_253_683_200);
    }

    #[test]
    fn convnext_tiny_has_4_5_gmac() {
        let depths = [3, 3, 9, 3];
        let stages = std::array::from_fn(|i| StageConfig { dim: 96 << i, depth: depths[i] });
        let convnext_tiny = Config {
            family: Family::ConvNeXt(ConvNeXt { stages }),
            patch_height: 4,
            patch_width: 4,
            dim: 768,
            depth: 18,
            hidden: 3072,
            norm: false,
            fc_norm: true,
            pooling: Pooling::Avg,
            ..deit_tiny()
        };
        // 14.5 M in the stem, 173.4 M between the stages, 4161.8 M in the MLPs, 105.1 M in the depthwise convolutions,
        // 0.8 M in the head.
        assert_eq!(work(&convnext_tiny).total(), 4_455_531_264);
        assert_eq!(work(&convnext_tiny).of(Stage::Depthwise), 105_106_176);
    }

    #[test]
    fn cait_xxs24_has_2_5_gmac() {
        let family = Family::Cait(Cait { attention: attention(4, 48), class_blocks: 2, block_norm: true });
        let cait = Config { family, depth: 24, ..deit_tiny() };
        // 28.9 M in the patches, 549.3 M in qkv, 383.7 M in the attentions (29.5 M of them the mixing of heads), 173.5
        // M in the projections, 1387.9 M in the MLPs, 0.2 M in the head; the paper says 2.5 G.
        assert_eq!(work(&cait).total(), 2_523_475_200);
    }

    #[test]
    fn xcit_tiny_has_1_2_gmac() {
        let family = Family::Xcit(Xcit { attention: attention(4, 48), class_blocks: 2, tokens_norm: true });
        let xcit_tiny = Config { family, ..deit_tiny() };
        // 105.7 M in the stem, 376.0 M in the matrices around the attentions, 43.5 M in these, 694.2 M in the MLPs, 8.1
        // M in the depthwise convolutions, 0.2 M in the head.
        assert_eq!(work(&xcit_tiny).total(), 1_227_730_176);
        assert_eq!(work(&xcit_tiny).of(Stage::Attention), 43_503_360);
    }
}
