//! Heads: what turns an encoder's tokens, or the tokens after some of its blocks, into outputs. The classifier is with
//! the transformers (`networks::transformer`), since every encoder has one.

pub mod dpt;
pub mod linear;

use crate::arena::Arena;
use crate::config::Config;
use crate::lanes::{F32x16, pad16};
use crate::output::Outputs;

/// The tokens that a head reads: after some blocks, patches alone or behind the class token, normalized or not.
pub(crate) struct Taps<'a> {
    /// The blocks, in order; none where no output needs them.
    blocks: &'a [usize],
    /// Whether the encoder's last norm is on them.
    pub(crate) normalized: bool,
    /// 1 with the class token, else 0.
    class: usize,
    /// Chunks of a token.
    chunks: usize,
    /// `[blocks, class + patches, chunks]`.
    tokens: &'a mut [F32x16],
}

/// What was read after one block.
#[derive(Clone, Copy)]
pub(crate) struct Tokens<'t> {
    /// `[pad16(dim)]`.
    pub(crate) class: Option<&'t [F32x16]>,
    /// `[patches, pad16(dim)]`.
    pub(crate) patches: &'t [F32x16],
}

/// Where they go.
pub(crate) struct TokensMut<'t> {
    pub(crate) class: Option<&'t mut [F32x16]>,
    pub(crate) patches: &'t mut [F32x16],
}

impl<'a> Taps<'a> {
    pub(crate) fn carve(c: &'a Config, outputs: Outputs, arena: &mut Arena<'a>) -> Self {
        let (blocks, normalized, class) = match (c.depth_head(), c.linear_head()) {
            (Some(dpt), _) if outputs.has_map() => (&dpt.taps[..], true, false),
            (_, Some(linear)) if outputs.has_map() => (linear.taps(), linear.norm, linear.class_token),
            _ => (&[][..], true, false),
        };
        let (class, chunks) = (usize::from(class), pad16(c.dim) / 16);
        let tokens = arena.take(blocks.len() * (class + c.patches()) * chunks);
        Self { blocks, normalized, class, chunks, tokens }
    }

    /// Chunks of the tokens of one block; 1 where there are none.
    fn len(&self) -> usize {
        (self.tokens.len() / self.blocks.len().max(1)).max(1)
    }

    /// Where the tokens after `block` go, if they are read.
    pub(crate) fn of(&mut self, block: usize) -> Option<TokensMut<'_>> {
        let number = self.blocks.iter().position(|tap| *tap == block)?;
        let (len, class) = (self.len(), self.class * self.chunks);
        let (class, patches) = self.tokens.chunks_exact_mut(len).nth(number)?.split_at_mut(class);
        Some(TokensMut { class: (!class.is_empty()).then_some(class), patches })
    }

    /// Their tokens, block by block.
    fn maps(&self) -> impl Iterator<Item = Tokens<'_>> {
        self.tokens.chunks_exact(self.len()).map(|tokens| {
            let (class, patches) = tokens.split_at(self.class * self.chunks);
            Tokens { class: (!class.is_empty()).then_some(class), patches }
        })
    }
}
