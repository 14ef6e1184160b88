//! ResMLP (Touvron et al. 2021, "ResMLP: Feedforward networks for image classification with data-efficient training"):
//! a matrix over the tokens in the place of attention, and factors and offsets per channel in the place of LayerNorm.
//! No position embedding, no class token.
//!
//! ```text
//! x = patches W + b
//! x = x + gamma_1 * (M (alpha_1 * x + beta_1) + b)              depth times; M [tokens, tokens]
//! x = x + gamma_2 * MLP(alpha_2 * x + beta_2)
//! logits = head(mean(alpha * x + beta))
//! ```
//!
//! alpha_1, beta_1 and (folded) gamma_1 are factors on M's columns and a bias of rank two, alpha_2 and beta_2 are in
//! the MLP's first matrix: no norm is left in a block. The mixing works on blocks of channels of all tokens, the MLP on
//! blocks of tokens of all channels, with all threads meeting after each; the stream goes from one form to the other
//! and back.

use crate::arena::Arena;
use crate::config::Config;
use crate::error::Error;
use crate::lanes::{F32x16, pad16};
use crate::networks::transformer::{self, Input, Memory, Mlp, Pass, ROWS};
use crate::ops::Residual;
use crate::ops::mixing::BLOCK;
use crate::parallel::{Chunks, for_each};
use crate::parts::{InFile, Scope, Storage, Walk};
use crate::profile::{Laps, Stage};
use crate::tap::Place;

/// One block. The factors and offsets before the MLP are in its first matrix already.
#[derive(Clone, Debug, Default)]
pub struct MixerBlock<M: Storage> {
    /// The first branch.
    pub mixer: M::Mixer,
    /// LayerScale of the first branch, `[dim]`.
    pub gamma1: Option<M::Vectors>,
    /// The second branch.
    pub mlp: Mlp<M>,
}

/// Name of the matrix over tokens.
pub const MIX: &str = "mix";

impl<M: Storage> MixerBlock<M> {
    /// Through block `i`.
    ///
    /// # Errors
    /// The walk's.
    pub fn walk<W: Walk<Storage = M>>(&mut self, c: &Config, i: usize, w: &mut W) -> Result<(), W::Error> {
        w.enter(Scope::Block(i));
        w.rows(Stage::Mixing, 1);
        w.mixer(MIX, c.tokens(), c.dim, &mut self.mixer)?;
        w.gamma(c, "gamma1", c.dim, &mut self.gamma1)?;
        // alpha_2 and beta_2.
        w.absorbed(2 * c.dim);
        self.mlp.walk(c, i, (c.dim, c.hidden), c.tokens(), w)
    }
}

/// Memory that all workers share.
pub(crate) struct Buffers<'a> {
    transformer: transformer::Buffers<'a>,
    /// The residual stream after tokens are mixed: blocks of [`BLOCK`] chunks of channels one after another, `[tokens,
    /// BLOCK]` each.
    mixed: &'a mut [F32x16],
}

impl<'a> Buffers<'a> {
    pub(crate) fn carve(c: &Config, threads: usize, arena: &mut Arena<'a>) -> Self {
        let mixed = arena.take(c.tokens() * pad16(c.dim) / 16);
        Self { transformer: transformer::Buffers::carve(c, threads, arena), mixed }
    }
}

/// One inference. `out` receives the outputs.
pub(crate) fn forward(pass: &Pass<'_>, input: Input<'_>, b: &mut Buffers<'_>, out: &mut [F32x16]) -> Result<(), Error> {
    pass.embed(input, &mut b.transformer)?;
    for (i, block) in pass.weights.mixer_blocks().enumerate() {
        pass.watch.go_on()?;
        let block = block?;
        mix(pass, &block, b)?;
        transform(pass, i, &block.mlp, b)?;
    }
    pass.head(&mut b.transformer, out)
}

/// x = x + gamma_1 * (M x + b).
fn mix(pass: &Pass<'_>, block: &MixerBlock<InFile<'_>>, b: &mut Buffers<'_>) -> Result<(), Error> {
    let (c, tokens, dim) = (pass.c, pass.c.tokens(), pass.dim());
    let (b, mixed) = (&mut b.transformer, &mut *b.mixed);
    let x = &*b.x;
    let workers = Chunks::new(b.workers, b.worker_bytes);
    for_each(pass.executor, workers, Chunks::new(mixed, tokens * BLOCK), |memory, i, mixed| {
        let mut laps = Laps::start(pass.watch.profile);
        let w = Memory::carve(c, &mut Arena::over(memory));
        let channels = BLOCK * i..BLOCK * i + mixed.len() / tokens;
        for (mixed, x) in mixed.chunks_exact_mut(channels.len()).zip(x.chunks_exact(dim)) {
            mixed.copy_from_slice(&x[channels.clone()]);
        }
        let gamma = block.gamma1.map(|gamma| &gamma[channels.clone()]);
        let y = w.mixing.mix(pass.k, &block.mixer, channels, mixed);
        Residual { gamma, mode: c.layerscale, branch: w.branch }.add_rows(pass.k, y, mixed);
        laps.end(Stage::Mixing);
    })
}

/// x = x + gamma_2 * MLP(x).
fn transform(pass: &Pass<'_>, index: usize, mlp: &Mlp<InFile<'_>>, b: &mut Buffers<'_>) -> Result<(), Error> {
    let (tokens, dim) = (pass.c.tokens(), pass.dim());
    let (b, mixed) = (&mut b.transformer, &*b.mixed);
    let workers = Chunks::new(b.workers, b.worker_bytes);
    pass.for_rows(workers, 0, Chunks::new(b.x, ROWS * dim), |mut w, x| {
        for (token, x) in (w.first..).zip(x.chunks_exact_mut(dim)) {
            for (mixed, x) in mixed.chunks(tokens * BLOCK).zip(x.chunks_mut(BLOCK)) {
                x.copy_from_slice(&mixed[token * x.len()..][..x.len()]);
            }
        }
        w.laps.end(Stage::Mixing);
        w.show(Place::Attention(index), x);
        w.transform(index, mlp, x);
    })
}
