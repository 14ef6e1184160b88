//! The linear heads of DINOv2 (Oquab et al. 2023, "DINOv2: Learning Robust Visual Features without Supervision"): one
//! matrix over the tokens after one block or four.
//!
//! ```text
//! y       = b + sum over k of W_k (token after block taps_k) [+ V_k (class token after it)]     for each patch
//! logits  = y
//! depth   = Resize(mean of the bins' depths, weighted with max(Upsample(y), 0) + 0.1)             to the input's size
//! ```
//!
//! Upsampling is by 4 and bilinear, as resizing is, with the outer corners aligned. The original concatenates the
//! tokens, upsamples them and has the matrix then. They commute, and this way the matrix has a sixteenth of the pixels,
//! and the class token, the same for all, is multiplied once. BatchNorm before the matrix is folded by the converter.

use crate::arena::Arena;
use crate::bytes::{floats, floats_mut};
use crate::config::{Answer, Config, LinearHead as Widths};
use crate::error::Error;
use crate::heads::Taps;
use crate::kernels::Kernels;
use crate::kernels::bilinear::{Corners, Resize};
use crate::kernels::map::{Map, MapMut, WeightedMean};
use crate::lanes::{F32x16, pad16};
use crate::ops::map::{End, Workers, worker_bytes};
use crate::parallel::Chunks;
use crate::parts::{Axis, InFile, Scope, Storage, Walk};
use crate::profile::Stage;

/// The head.
#[derive(Clone, Debug, Default)]
pub struct LinearHead<M: Storage> {
    /// By tap; those past [`Widths::taps`] are empty.
    pub taps: [Tap<M>; 4],
}

/// What the tokens of one tap are multiplied with.
#[derive(Clone, Debug, Default)]
pub struct Tap<M: Storage> {
    /// Of each patch, `dim` to `channels`; the first one has the head's bias.
    pub patches: M::Linear,
    /// Of the class token, likewise, where the head reads it.
    pub class: Option<M::Linear>,
}

impl<M: Storage> LinearHead<M> {
    /// # Errors
    /// The walk's.
    pub fn walk<W: Walk<Storage = M>>(&mut self, c: &Config, head: &Widths, w: &mut W) -> Result<(), W::Error> {
        let (outputs, inputs) = (Axis::dense(head.channels), Axis::dense(c.dim));
        w.stored_as(c.output_precision());
        for (k, tap) in self.taps.iter_mut().enumerate().take(head.taps().len()) {
            w.enter(Scope::Tap(k));
            w.rows(Stage::Head, c.patches());
            w.linear("patches", outputs, inputs, &mut tap.patches)?;
            if head.class_token {
                w.rows(Stage::Head, 1);
                w.linear("class", outputs, inputs, tap.class.get_or_insert_default())?;
            }
        }
        w.enter(Scope::Network);
        w.stored_as(c.precision);
        Ok(())
    }
}

/// By how much the map grows before its bins become a depth.
const TIMES: usize = 4;

/// What every bin's weight has in addition.
const OFFSET: f32 = 0.1;

/// Lines of a band of the output: 16, so that each band starts at a chunk.
const LINES: usize = 16;

/// What the head needs beside [`Taps`].
struct Buffers<'a> {
    /// y, `[height, width, channels]` of the patches.
    y: &'a mut [F32x16],
    /// What the class tokens add, `[channels]`.
    class: &'a mut [F32x16],
    /// The depths of the bins, `[channels]`; empty for other answers, as the next one.
    bins: &'a mut [F32x16],
    /// `[TIMES height, TIMES width, 1]`.
    depth: &'a mut [F32x16],
    /// `[threads][worker_bytes]`.
    workers: &'a mut [u8],
    worker_bytes: usize,
}

impl<'a> Buffers<'a> {
    fn carve(c: &Config, head: &Widths, threads: usize, arena: &mut Arena<'a>) -> Self {
        let (grid, channels) = (c.grid(), pad16(head.channels) / 16);
        let is_depth = matches!(head.answer, Answer::Depth { .. });
        let for_depth = |chunks: usize| if is_depth { chunks } else { 0 };
        // A line of the larger map, or lines of the output.
        let band = for_depth(Map::data_len((1, TIMES * grid.1), head.channels).max(LINES * c.image_width));
        let worker_bytes = worker_bytes(pad16(c.dim), c.output_precision()).max(band * size_of::<F32x16>());
        Self {
            y: arena.take(Map::data_len(grid, head.channels)),
            class: arena.take(channels),
            bins: arena.take(for_depth(channels)),
            depth: arena.take(for_depth(Map::data_len(larger(grid), 1))),
            workers: arena.take(threads.saturating_mul(worker_bytes)),
            worker_bytes,
        }
    }
}

const fn larger((height, width): (usize, usize)) -> (usize, usize) {
    (TIMES * height, TIMES * width)
}

/// Bytes that [`forward`] needs.
pub(crate) fn bytes(c: &Config, head: &Widths, threads: usize) -> usize {
    let mut arena = Arena::counting();
    let _ = Buffers::carve(c, head, threads, &mut arena);
    arena.used()
}

/// Computes the head's output into `out`: `[channels, height, width]` of the patches, or the depth of every pixel of
/// the input, `[height, width]`. `workers` come without memory.
pub(crate) fn forward(
    c: &Config,
    head: &Widths,
    parts: &LinearHead<InFile<'_>>,
    taps: &Taps<'_>,
    (workers, threads): (Workers<'_>, usize),
    memory: &mut [u8],
    out: &mut [F32x16],
) -> Result<(), Error> {
    let b = Buffers::carve(c, head, threads, &mut Arena::over(memory));
    let mut w = Workers { memory: b.workers, worker_bytes: b.worker_bytes, ..workers };
    let mut y = MapMut::new(b.y, c.grid(), head.channels);
    let mut class = MapMut::new(b.class, (1, 1), head.channels);
    class.data.fill(F32x16([0.0; 16]));
    for (part, tokens) in parts.taps.iter().zip(taps.maps()) {
        if let (Some(linear), Some(token)) = (&part.class, tokens.class) {
            w.conv1x1(Map::new(token, (1, 1), c.dim), linear, End::Add, &mut class)?;
        }
    }
    for pixel in y.data.chunks_exact_mut(class.data.len()) {
        pixel.copy_from_slice(class.data);
    }
    for (part, tokens) in parts.taps.iter().zip(taps.maps()) {
        w.conv1x1(Map::new(tokens.patches, c.grid(), c.dim), &part.patches, End::Add, &mut y)?;
    }
    match head.answer {
        Answer::Classes => planes(y.view(), floats_mut(out)),
        Answer::Depth { min, max } => {
            b.bins.fill(F32x16([0.0; 16]));
            linspace(min, max, &mut floats_mut(b.bins)[..head.channels]);
            let mut depth = MapMut::new(b.depth, larger(c.grid()), 1);
            expect(&mut w, y.view(), b.bins, &mut depth)?;
            enlarge(&mut w, depth.view(), (c.image_height, c.image_width), out)?;
        }
    }
    Ok(())
}

/// Channel by channel, without padding.
fn planes(y: Map<'_>, out: &mut [f32]) {
    let size = y.height * y.width;
    for (i, pixel) in y.data.chunks_exact(y.chunks()).enumerate() {
        for (channel, value) in floats(pixel).iter().take(y.channels).enumerate() {
            out[channel * size + i] = *value;
        }
    }
}

/// `torch.linspace`, in f32: from both ends to the middle.
fn linspace(min: f32, max: f32, out: &mut [f32]) {
    let (n, last) = (out.len(), out.len().saturating_sub(1));
    let step = (max - min) / last.max(1) as f32;
    for (i, x) in out.iter_mut().enumerate() {
        *x = if i < n / 2 || n == 1 { min + step * i as f32 } else { max - step * (last - i) as f32 };
    }
}

/// The mean of `bins` for each pixel of the larger map.
fn expect(w: &mut Workers<'_>, y: Map<'_>, bins: &[F32x16], depth: &mut MapMut<'_>) -> Result<(), Error> {
    let (size, line) = (depth.view().size(), Map::data_len((1, depth.width), y.channels));
    w.for_each(Chunks::new(depth.data, size.1), |k: Kernels, memory, first, out| {
        let upsampled: &mut [F32x16] = Arena::over(memory).take(line);
        k.run(Resize { x: y, corners: Corners::Outer, size, first, out: upsampled });
        k.run(WeightedMean { weights: upsampled, offset: OFFSET, values: bins, channels: y.channels, out });
    })
}

/// The depth at `size`, without padding.
fn enlarge(w: &mut Workers<'_>, depth: Map<'_>, size: (usize, usize), out: &mut [F32x16]) -> Result<(), Error> {
    w.for_each(Chunks::new(out, LINES * size.1 / 16), |k: Kernels, memory, band, out| {
        let lines = LINES.min(size.0 - LINES * band);
        let resized: &mut [F32x16] = Arena::over(memory).take(lines * size.1);
        k.run(Resize { x: depth, corners: Corners::Outer, size, first: LINES * band, out: resized });
        for (out, F32x16([value, ..])) in floats_mut(out).iter_mut().zip(resized) {
            *out = *value;
        }
    })
}
