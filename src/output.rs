//! What a network gives: outputs with a name and a shape, known before a run.

use core::ops::Range;

use crate::config::{Answer, Config, Head, Named};

/// An output of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Output {
    /// One number a class, `[classes]`. A network without a classifier has none.
    Logits,
    /// The pooled features before the classifier, `[features]`.
    Features,
    /// The patch tokens after the last norm, `[patches, dim]`.
    Tokens,
    /// For each pixel of the input its distance in metres, or its inverse up to a scale and a shift of the picture,
    /// `[height, width]`. Networks with a depth head have it.
    Depth,
    /// For each patch of the input one number a class, `[classes, height, width]` in patches. Networks with a linear
    /// head for classes have it.
    LogitsMap,
}

impl Named for Output {
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self::Logits, "logits"),
        (Self::Features, "features"),
        (Self::Tokens, "tokens"),
        (Self::Depth, "depth"),
        (Self::LogitsMap, "logits_map"),
    ];
}

impl Output {
    /// Every output that a network has.
    pub fn of(c: &Config) -> impl Iterator<Item = Self> {
        let all = Self::NAMES.iter().map(|(output, _)| *output);
        all.filter(move |output| OutputInfo::of(c, *output).is_some())
    }
}

/// An output's name and shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputInfo {
    output: Output,
    dims: [usize; 3],
    rank: usize,
}

impl OutputInfo {
    /// As the network `c` has it; `None` if it has no such output.
    pub(crate) fn of(c: &Config, output: Output) -> Option<Self> {
        let (dims, rank) = match output {
            Output::Logits if c.classes == 0 => return None,
            Output::Logits => ([c.classes, 1, 1], 1),
            Output::Features => ([c.features(), 1, 1], 1),
            Output::Tokens => ([c.patches(), c.dim, 1], 2),
            Output::Depth => {
                c.head.depth()?;
                ([c.image_height, c.image_width, 1], 2)
            }
            Output::LogitsMap if c.head.patch_classes() == 0 => return None,
            Output::LogitsMap => ([c.head.patch_classes(), c.grid().0, c.grid().1], 3),
        };
        Some(Self { output, dims, rank })
    }

    /// Which output it is.
    pub fn output(&self) -> Output {
        self.output
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.output.name()
    }

    /// Its dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// Its elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Its chunks of 16 floats in memory.
    fn chunks(&self) -> usize {
        self.elements().div_ceil(16)
    }
}

/// Outputs that are asked for. None of them stands for the network's first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outputs(u8);

impl Outputs {
    pub(crate) fn of(outputs: &[Output]) -> Self {
        Self(outputs.iter().fold(0, |bits, output| bits | 1 << *output as u8))
    }

    /// These outputs, or the network's first if there are none. `None` if the network lacks one of them.
    pub(crate) fn or_first(self, c: &Config) -> Option<Self> {
        if self.0 == 0 {
            let first = match c.head {
                Head::Depth(_) => Output::Depth,
                Head::Linear(linear) if linear.answer == Answer::Classes => Output::LogitsMap,
                Head::Linear(_) => Output::Depth,
                Head::Classifier if c.classes > 0 => Output::Logits,
                Head::Classifier => Output::Features,
            };
            return Some(Self::of(&[first]));
        }
        let asked = Output::NAMES.iter().filter(|(output, _)| self.has(*output));
        asked.into_iter().all(|(output, _)| OutputInfo::of(c, *output).is_some()).then_some(self)
    }

    pub(crate) fn has(self, output: Output) -> bool {
        self.0 & 1 << output as u8 != 0
    }

    /// Whether there is one that the pooled features are needed for.
    pub(crate) fn pools(self) -> bool {
        self.has(Output::Logits) || self.has(Output::Features)
    }

    /// Whether there is one that a head beside the classifier computes.
    pub(crate) fn has_map(self) -> bool {
        self.has(Output::Depth) || self.has(Output::LogitsMap)
    }

    /// Tokens that the last block has to compute.
    pub(crate) fn rows_read(self, c: &Config) -> usize {
        let all = self.has(Output::Tokens) || self.has_map();
        if all { c.tokens() } else { c.rows_read() }
    }

    /// In their order, with their names and shapes.
    pub(crate) fn infos(self, c: &Config) -> impl Iterator<Item = OutputInfo> {
        let asked = Output::NAMES.iter().filter(move |(output, _)| self.has(*output));
        asked.filter_map(move |(output, _)| OutputInfo::of(c, *output))
    }

    /// Chunks of memory for those before `end`, in their order.
    #[inline(never)]
    fn chunks_before(self, c: &Config, end: usize) -> usize {
        let before = Output::NAMES.iter().take(end).filter(|(output, _)| self.has(*output));
        before.filter_map(|(output, _)| OutputInfo::of(c, *output)).map(|info| info.chunks()).sum()
    }

    /// Chunks of memory for all of them.
    pub(crate) fn chunks(self, c: &Config) -> usize {
        self.chunks_before(c, Output::NAMES.len())
    }

    /// Where one of them stands in that memory.
    pub(crate) fn place(self, c: &Config, output: Output) -> Option<Range<usize>> {
        let number = output as usize;
        let place = || self.chunks_before(c, number)..self.chunks_before(c, number + 1);
        self.has(output).then(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_outputs_fit_the_set() {
        assert!(Output::NAMES.len() <= 8);
        assert!(Output::NAMES.iter().enumerate().all(|(i, (output, _))| i == *output as usize));
    }
}
