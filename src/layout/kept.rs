//! Which rows the last matrix of each residual branch has left, where conversion took the others out.

use crate::config::Config;
use crate::lanes::{channels, pad16};

/// Bits of one word of the masks.
const BITS: usize = u32::BITS as usize;

/// A mask over the residual stream for each branch: bit `j % 32` of word `j / 32` says whether the branch reaches
/// channel j, little-endian as in the file (`vitlet.pruned.kept`), attention's branch and then the MLP's of each block.
/// Empty where nothing was taken out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept<'a> {
    masks: &'a [[u8; 4]],
}

impl<'a> Kept<'a> {
    /// Words of one branch's mask, for a stream of `dim` channels.
    const fn words(dim: usize) -> usize {
        dim.div_ceil(BITS)
    }

    /// Takes the masks of a network: none unless it is [pruned](Config::pruned).
    ///
    /// # Errors
    /// What is wrong with them: another length, or a channel that the stream does not have.
    pub fn new(masks: &'a [[u8; 4]], config: &Config) -> Result<Self, &'static str> {
        let words = Self::words(config.dim);
        let expected = if config.pruned { 2 * config.blocks() * words } else { 0 };
        if masks.len() != expected {
            return Err("not one bit for each channel of each branch");
        }
        let last = u32::MAX >> (words * BITS - config.dim);
        if masks.chunks_exact(words).any(|mask| mask.last().is_some_and(|word| u32::from_le_bytes(*word) & !last != 0))
        {
            return Err("a channel beyond the embedding length");
        }
        Ok(Self { masks })
    }

    /// The bytes of all masks.
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.masks.as_flattened()
    }

    /// The masks that [`bytes`](Self::bytes) gave once.
    pub(crate) fn from_bytes(bytes: &'a [u8]) -> Self {
        Self { masks: bytes.as_chunks().0 }
    }

    /// The mask of a branch of `block`, attention's (0) or the MLP's (1), as 16 bits for each 16 channels; `None` if it
    /// has all of its rows.
    #[inline(never)]
    pub fn mask(self, config: &Config, block: usize, branch: usize) -> Option<&'a [[u8; 2]]> {
        let words = Self::words(config.dim);
        let mask = self.masks.get((2 * block + branch) * words..)?.get(..words)?;
        // The last word may have more than the stream has chunks of.
        let mask = mask.as_flattened().as_chunks().0.get(..pad16(config.dim) / 16)?;
        (channels(mask) < config.dim).then_some(mask)
    }

    /// For each channel of the stream whether that branch has a row.
    pub fn keeps(self, config: &Config, block: usize, branch: usize) -> impl Iterator<Item = bool> + use<'a> {
        let mask = self.mask(config, block, branch);
        let keeps = move |mask: &[[u8; 2]], j: usize| u16::from_le_bytes(mask[j / 16]) >> (j % 16) & 1 == 1;
        (0..config.dim).map(move |channel| mask.is_none_or(|mask| keeps(mask, channel)))
    }

    /// Rows of the last matrix of that branch.
    #[inline(never)]
    pub fn rows(self, config: &Config, block: usize, branch: usize) -> usize {
        self.mask(config, block, branch).map_or(config.dim, channels)
    }
}
