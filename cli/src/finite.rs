//! Numbers that are not finite are an error of the picture, never a probability.
//!
//! Logits in f32 show by themselves that something overflowed. The rounding of activations to int8 or f16 hides it: NaN
//! becomes code 0, an infinite row becomes zeros. So models of these precisions are looked at in two more places: their
//! scales, biases and norms, which are small tensors of f32, and the residual stream and the heads' outputs of the
//! first picture, in which NaN and infinity stay.

use std::sync::OnceLock;

use vitlet::config::pad16;
use vitlet::layout::DType;
use vitlet::{Config, Model, Place, Rows, Tap};

/// No parameter of a network in order is larger; products of larger ones leave f32's range, in scores of attention
/// first.
const LARGEST: f32 = 1.0e9;

const CAUSE: &str = "the input or the weights are broken, or too large for this precision";

/// Passes on `values`, which are `what`, if they are finite.
pub fn finite(values: Vec<f32>, what: &str) -> Result<Vec<f32>, String> {
    match values.iter().position(|x| !x.is_finite()) {
        None => Ok(values),
        Some(at) => Err(format!("{what} are not finite: number {at} is {}; {CAUSE}", values[at])),
    }
}

/// Looks at the scales, biases and norms of a model whose weights are int8 or f16; `what` the model gives.
pub fn parameters(model: &Model, what: &str) -> Result<(), String> {
    let mut fault = None;
    model.for_each_tensor(|spec, bytes| {
        if fault.is_some() || spec.dtype != DType::F32 {
            return;
        }
        let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        let bad = values.enumerate().find(|(_, x)| x.is_nan() || x.abs() > LARGEST);
        fault = bad.map(|(at, x)| format!("element {at} of tensor {} is {x:e}", spec.name));
    });
    fault.map_or(Ok(()), |fault| Err(format!("{what} are not finite: {fault}; {CAUSE}")))
}

/// A tap that remembers the first place whose activations are not finite.
pub struct Watch<'c> {
    config: &'c Config,
    found: OnceLock<Place>,
}

impl<'c> Watch<'c> {
    pub fn new(config: &'c Config) -> Self {
        Self { config, found: OnceLock::new() }
    }

    /// What was seen during a run that gives `what`.
    pub fn end(self, what: &str) -> Result<(), String> {
        let Some(place) = self.found.into_inner() else { return Ok(()) };
        let place = match place {
            Place::Embedding => "the patches' embedding".to_string(),
            Place::Downsampled(block) => format!("the downsampling before block {block}"),
            Place::Heads(block) => format!("the heads of block {block}"),
            Place::Attention(block) => format!("the attention branch of block {block}"),
            Place::Local(block) => format!("the local branch of block {block}"),
            Place::Mlp(block) => format!("the MLP branch of block {block}"),
        };
        Err(format!("{what} are not finite: {place} overflows; {CAUSE}"))
    }
}

impl Tap for Watch<'_> {
    fn rows(&self, rows: Rows<'_>) {
        let is_finite = |part: &[f32]| part.iter().all(|x| x.is_finite());
        let mut all = rows.values.chunks_exact(rows.width);
        if !all.all(|row| channels(self.config, rows.place, row).all(is_finite)) {
            self.found.get_or_init(|| rows.place);
        }
    }
}

/// A row of [`Rows`] without its padding: the stream, or the heads one after another.
pub fn channels<'r>(c: &Config, place: Place, row: &'r [f32]) -> impl Iterator<Item = &'r [f32]> {
    let (padded, width) = match place {
        Place::Heads(_) => (pad16(c.head_dim), c.head_dim),
        Place::Embedding => (row.len(), c.block_dim(0)),
        Place::Downsampled(i) | Place::Attention(i) | Place::Local(i) | Place::Mlp(i) => (row.len(), c.block_dim(i)),
    };
    row.chunks(padded).map(move |part| &part[..width.min(part.len())])
}
