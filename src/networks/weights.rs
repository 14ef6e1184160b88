//! The parts of a network, cut out of its file as the forward pass needs them.

use crate::config::{Config, Dpt as Widths, LinearHead as LinearWidths};
use crate::error::Error;
use crate::heads::dpt::Dpt;
use crate::heads::linear::LinearHead;
use crate::layout::Kept;
use crate::networks::convnext::{ConvBlock, Downsampling};
use crate::networks::resmlp::MixerBlock;
use crate::networks::transformer::{Block, Embedding, Tail};
use crate::parts::{Cut, InFile};

/// Tensor data that was checked against its network.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    /// As the file has it.
    pub(crate) config: &'a Config,
    pub(crate) kept: Kept<'a>,
    pub(crate) data: &'a [u8],
    pub(crate) at: Offsets,
}

/// Where parts begin in the tensor data.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Offsets {
    /// The first block.
    pub(crate) blocks: usize,
    /// What follows the last block.
    pub(crate) tail: usize,
    /// A head that is no classifier.
    pub(crate) head: usize,
}

impl<'a> Weights<'a> {
    fn cut(self, at: usize) -> Cut<'a> {
        Cut::new(self.config, self.kept, self.data, at)
    }

    pub(crate) fn embedding(self) -> Result<Embedding<InFile<'a>>, Error> {
        let mut embedding = Embedding::default();
        embedding.walk(self.config, &mut self.cut(0))?;
        Ok(embedding)
    }

    /// The blocks of every family but ConvNeXt and ResMLP.
    pub(crate) fn blocks(self) -> impl Iterator<Item = Result<Block<InFile<'a>>, Error>> {
        let mut cut = self.cut(self.at.blocks);
        (0..self.config.blocks()).map(move |i| {
            let mut block = Block::default();
            block.walk(self.config, i, &mut cut)?;
            Ok(block)
        })
    }

    /// ResMLP's blocks.
    pub(crate) fn mixer_blocks(self) -> impl Iterator<Item = Result<MixerBlock<InFile<'a>>, Error>> {
        let mut cut = self.cut(self.at.blocks);
        (0..self.config.depth).map(move |i| {
            let mut block = MixerBlock::default();
            block.walk(self.config, i, &mut cut)?;
            Ok(block)
        })
    }

    /// ConvNeXt's stages.
    pub(crate) fn stages(self) -> Stages<'a> {
        Stages { config: self.config, cut: self.cut(self.at.blocks) }
    }

    pub(crate) fn tail(self) -> Result<Tail<InFile<'a>>, Error> {
        let mut tail = Tail::default();
        tail.walk(self.config, &mut self.cut(self.at.tail))?;
        Ok(tail)
    }

    /// The depth head, of these widths.
    pub(crate) fn dpt(self, dpt: &Widths) -> Result<Dpt<InFile<'a>>, Error> {
        let mut head = Dpt::default();
        head.walk(self.config, dpt, &mut self.cut(self.at.head))?;
        Ok(head)
    }

    /// The linear head, of these widths.
    pub(crate) fn linear_head(self, widths: &LinearWidths) -> Result<LinearHead<InFile<'a>>, Error> {
        let mut head = LinearHead::default();
        head.walk(self.config, widths, &mut self.cut(self.at.head))?;
        Ok(head)
    }
}

/// ConvNeXt's stages, to be taken in the order of the file: [`downsampling`](Self::downsampling) of each but the first,
/// then its blocks.
pub(crate) struct Stages<'a> {
    config: &'a Config,
    cut: Cut<'a>,
}

impl<'a> Stages<'a> {
    /// What comes before stage `stage`, which is not the first.
    pub(crate) fn downsampling(&mut self, stage: usize) -> Result<Downsampling<InFile<'a>>, Error> {
        let mut part = Downsampling::default();
        part.walk(self.config, stage, &mut self.cut)?;
        Ok(part)
    }

    /// The next block of stage `stage`.
    pub(crate) fn block(&mut self, stage: usize, block: usize) -> Result<ConvBlock<InFile<'a>>, Error> {
        let mut part = ConvBlock::default();
        part.walk(self.config, stage, block, &mut self.cut)?;
        Ok(part)
    }
}
