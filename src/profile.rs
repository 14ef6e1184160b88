//! Where the time of a run goes. Costs nothing when unused: one test of an `Option` per operation and block of rows.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::bytes::floats;
use crate::error::Error;
use crate::lanes::F32x16;
use crate::tap::{Place, Rows, Tap};

/// The operations that time is told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Patches gathered, quantized and projected, positions added.
    PatchEmbed,
    /// ConvNeXt's tokens put together two by two between stages, normalized and projected.
    Downsample,
    /// Depthwise convolution.
    Depthwise,
    /// LayerNorm before q, k, v and before the MLP, with quantization of its rows.
    Norm,
    /// The matrix for q, k and v.
    Qkv,
    /// q, k and v quantized and packed.
    Pack,
    /// Scores, softmax and weighted values.
    Attention,
    /// The matrix over tokens, with quantization of their channels.
    Mixing,
    /// The matrix after attention, with quantization before and the residual add after it.
    Projection,
    /// The MLP's first matrix.
    MlpUp,
    /// The MLP's non-linearity, with quantization.
    Activation,
    /// The MLP's second matrix and the residual add.
    MlpDown,
    /// Last norm, pooling, head.
    Head,
}

impl Stage {
    /// Every stage, in the order of the network, with its name.
    pub const ALL: [(Self, &'static str); 13] = [
        (Self::PatchEmbed, "patch embedding"),
        (Self::Downsample, "downsampling"),
        (Self::Depthwise, "depthwise convolution"),
        (Self::Norm, "LayerNorm, quantize"),
        (Self::Qkv, "qkv"),
        (Self::Pack, "q, k, v packing"),
        (Self::Attention, "attention"),
        (Self::Mixing, "token mixing"),
        (Self::Projection, "projection"),
        (Self::MlpUp, "MLP up"),
        (Self::Activation, "activation, quantize"),
        (Self::MlpDown, "MLP down"),
        (Self::Head, "head"),
    ];
}

/// Ticks of the caller's clock per stage, added up over runs and over threads.
pub struct Profile<'c> {
    clock: &'c (dyn Fn() -> u64 + Sync),
    ticks: [AtomicU64; Stage::ALL.len()],
}

impl<'c> Profile<'c> {
    /// `clock` counts up, from any start and in any unit.
    pub fn new(clock: &'c (dyn Fn() -> u64 + Sync)) -> Self {
        Self { clock, ticks: Default::default() }
    }

    /// Ticks so far.
    pub fn ticks(&self, stage: Stage) -> u64 {
        self.ticks[stage as usize].load(Ordering::Relaxed)
    }
}

/// What looks on while a network runs.
#[derive(Clone, Copy, Default)]
pub(crate) struct Watch<'w> {
    pub(crate) profile: Option<&'w Profile<'w>>,
    pub(crate) tap: Option<&'w dyn Tap>,
    /// The caller's wish to end the run.
    pub(crate) stop: Option<&'w AtomicBool>,
}

impl Watch<'_> {
    /// Asked between blocks.
    pub(crate) fn go_on(&self) -> Result<(), Error> {
        let stopped = self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed));
        if stopped { Err(Error::Stopped) } else { Ok(()) }
    }

    /// Shows the rows `x` of width `chunks` to the tap, if there is one.
    pub(crate) fn show(&self, place: Place, first: usize, x: &[F32x16], chunks: usize) {
        if let Some(tap) = self.tap {
            tap.rows(Rows { place, first, values: floats(x), width: 16 * chunks });
        }
    }
}

/// A stopwatch of one thread.
pub(crate) struct Laps<'p> {
    profile: Option<&'p Profile<'p>>,
    last: u64,
}

impl<'p> Laps<'p> {
    pub(crate) fn start(profile: Option<&'p Profile<'p>>) -> Self {
        Self { profile, last: profile.map_or(0, |p| (p.clock)()) }
    }

    /// The time since the last call was `stage`'s.
    pub(crate) fn end(&mut self, stage: Stage) {
        if let Some(profile) = self.profile {
            let now = (profile.clock)();
            profile.ticks[stage as usize].fetch_add(now.wrapping_sub(self.last), Ordering::Relaxed);
            self.last = now;
        }
    }
}
