//! Looking at activations while a network runs, to compare two models layer by layer. Costs nothing when unused: one
//! test of an `Option` per place and block of rows, outside the kernels.

/// Where in the network activations are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The residual stream before the first block: patches with their positions, prefix tokens, the optional first
    /// norm.
    Embedding,
    /// The input of a stage's first block, after downsampling (ConvNeXt).
    Downsampled(usize),
    /// The heads' outputs in a block, before the projection.
    Heads(usize),
    /// The residual stream after a block's attention branch, LayerScale included. Subtract the stream before the block
    /// to get what the branch added.
    Attention(usize),
    /// The residual stream after XCiT's branch between attention and MLP, LayerScale included.
    Local(usize),
    /// The residual stream after a block's MLP branch, LayerScale included.
    Mlp(usize),
}

/// Some tokens at one place.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'r> {
    /// Where.
    pub place: Place,
    /// The number of the first token, prefix tokens counted; in ConvNeXt, among the tokens of the block's stage.
    pub first: usize,
    /// `[tokens, width]`. Heads are padded to a multiple of 16 channels each, the residual stream as a whole; what
    /// stands in the padding means nothing.
    pub values: &'r [f32],
    /// Channels of a row with the padding.
    pub width: usize,
}

/// Receives activations during [`Session::tap_tensor`](crate::Session::tap_tensor).
pub trait Tap: Sync {
    /// Called once for each place and block of rows, on the thread that computed it, in no fixed order; every token
    /// that the network computes comes exactly once. The last block computes only the tokens that its output needs.
    fn rows(&self, rows: Rows<'_>);
}
