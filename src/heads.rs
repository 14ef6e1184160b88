//! Heads: what turns an encoder's tokens, or the tokens after some of its blocks, into outputs. The classifier is with
//! the transformers (`networks::transformer`), since every encoder has one.

pub mod dpt;

use crate::arena::Arena;
use crate::config::Config;
use crate::lanes::{F32x16, pad16};
use crate::output::{Output, Outputs};

/// The tokens that a head reads: after some blocks, patches alone, normalized.
pub(crate) struct Taps<'a> {
    /// The blocks, in order; none where no output needs them.
    blocks: &'a [usize],
    /// `[blocks, patches, pad16(dim)]`.
    tokens: &'a mut [F32x16],
}

impl<'a> Taps<'a> {
    pub(crate) fn carve(c: &'a Config, outputs: Outputs, arena: &mut Arena<'a>) -> Self {
        let blocks = match c.depth_head() {
            Some(dpt) if outputs.has(Output::Depth) => &dpt.taps[..],
            _ => &[],
        };
        Self { blocks, tokens: arena.take(blocks.len() * Self::len(c)) }
    }

    /// Chunks of the tokens of one block.
    fn len(c: &Config) -> usize {
        c.patches() * (pad16(c.dim) / 16)
    }

    /// Where the tokens after `block` go, if they are read.
    pub(crate) fn of(&mut self, c: &Config, block: usize) -> Option<&mut [F32x16]> {
        let number = self.blocks.iter().position(|tap| *tap == block)?;
        self.tokens.chunks_exact_mut(Self::len(c)).nth(number)
    }

    /// Their tokens, block by block.
    fn maps(&self, c: &Config) -> impl Iterator<Item = &[F32x16]> {
        self.tokens.chunks_exact(Self::len(c))
    }
}
