//! The DPT head of Depth Anything (Yang et al. 2024, "Depth Anything V2"; transformers' modeling_depth_anything.py).
//!
//! ```text
//! r_k = Conv3x3(Resize_k(Conv1x1(LayerNorm(tokens after block taps_k))))       k = 0 .. 3; Resize: x4, x2, x1, x1/2
//! x   = r_3                                                                     then, from k = 3 to 0:
//! x   = x + Unit(r_k)                                                           but for k = 3
//! x   = Upsample(Conv1x1(Unit(x)))                                              to the size of r_(k-1), at the end x2
//! y   = Conv1x1(ReLU(Conv3x3(Upsample(Conv3x3(x)))))                            to the size of the input
//! depth = max_depth sigmoid(y), or max_depth ReLU(y) for an inverse depth
//!
//! Unit(x) = x + Conv3x3(ReLU(Conv3x3(ReLU(x))))
//! ```
//!
//! Upsampling is bilinear with aligned corners. The paper has it before the convolution of 1 x 1. They commute, and
//! this way the convolution has a quarter of the pixels. From the last upsampling on, a worker takes bands of lines, so
//! there is no map of the input's size with many channels.

use crate::arena::Arena;
use crate::bytes::floats_mut;
use crate::config::{Config, Dpt as Widths};
use crate::error::Error;
use crate::heads::Taps;
use crate::kernels::Kernels;
use crate::kernels::bilinear::{Corners, Resize};
use crate::kernels::linear::Store;
use crate::kernels::map::{Map, MapMut, Patches, Relu};
use crate::lanes::{F32x16, pad16};
use crate::ops::map::{Conv3x3, End, Workers, worker_bytes};
use crate::ops::{OperandScratch, multiply};
use crate::parallel::Chunks;
use crate::parts::{Axis, InFile, Linear, Scope, Storage, Walk};
use crate::profile::Stage;

/// The head.
#[derive(Clone, Debug, Default)]
pub struct Dpt<M: Storage> {
    /// What each tap goes through, from the shallowest to the deepest.
    pub taps: [Tap<M>; 4],
    /// 3 x 3, `fused` to `fused / 2` channels.
    pub conv1: M::Linear,
    /// 3 x 3, to `hidden` channels, after the upsampling.
    pub conv2: M::Linear,
    /// 1 x 1, to one channel.
    pub conv3: M::Linear,
}

/// What the tokens of one tap go through. Inputs of 3 x 3 convolutions are `[dy][dx][channels]`.
#[derive(Clone, Debug, Default)]
pub struct Tap<M: Storage> {
    /// 1 x 1, `dim` to `reassembled` channels.
    pub project: M::Linear,
    /// Transposed, outputs `[dy][dx][channels]`, for the first two taps; 3 x 3 with a stride of 2 for the last.
    pub resize: Option<M::Linear>,
    /// 3 x 3, to `fused` channels.
    pub conv: M::Linear,
    /// On the tap's map; none for the last.
    pub unit1: Option<Unit<M>>,
    /// On the sum.
    pub unit2: Unit<M>,
    /// 1 x 1.
    pub fuse: M::Linear,
}

/// A residual unit of two 3 x 3 convolutions.
#[derive(Clone, Debug, Default)]
pub struct Unit<M: Storage> {
    /// The first.
    pub conv1: M::Linear,
    /// The second.
    pub conv2: M::Linear,
}

/// The scale of the transposed convolution of a tap.
const fn transposed(tap: usize) -> Option<usize> {
    match tap {
        0 => Some(4),
        1 => Some(2),
        _ => None,
    }
}

/// The last tap, whose map becomes smaller.
const LAST: usize = 3;

impl<M: Storage> Dpt<M> {
    /// # Errors
    /// The walk's.
    pub fn walk<W: Walk<Storage = M>>(&mut self, c: &Config, dpt: &Widths, w: &mut W) -> Result<(), W::Error> {
        let pixels = |(height, width): (usize, usize)| height * width;
        let (sizes, fused) = (dpt.sizes(c.grid()), Axis::dense(dpt.fused));
        let around = |channels: usize| Axis::padded(9, channels);
        w.stored_as(c.map_precision());
        for (k, tap) in self.taps.iter_mut().enumerate() {
            let (n, size) = (dpt.reassembled[k], pixels(sizes[k]));
            w.enter(Scope::Tap(k));
            w.rows(Stage::Head, c.patches());
            w.linear("project", Axis::dense(n), Axis::dense(c.dim), &mut tap.project)?;
            if let Some(times) = transposed(k) {
                let outputs = Axis::padded(times * times, n);
                w.linear("resize", outputs, Axis::dense(n), tap.resize.get_or_insert_default())?;
            }
            w.rows(Stage::Head, size);
            if k == LAST {
                w.linear("downsize", Axis::dense(n), around(n), tap.resize.get_or_insert_default())?;
            }
            w.linear("conv", fused, around(n), &mut tap.conv)?;
            if k < LAST {
                tap.unit1.get_or_insert_default().walk(["unit1.conv1", "unit1.conv2"], dpt.fused, w)?;
            }
            tap.unit2.walk(["unit2.conv1", "unit2.conv2"], dpt.fused, w)?;
            w.linear("fuse", fused, fused, &mut tap.fuse)?;
        }
        w.enter(Scope::Network);
        w.rows(Stage::Head, 4 * pixels(sizes[0]));
        w.linear("depth.conv1", Axis::dense(dpt.fused / 2), around(dpt.fused), &mut self.conv1)?;
        w.rows(Stage::Head, c.image_height * c.image_width);
        w.linear("depth.conv2", Axis::dense(dpt.hidden), around(dpt.fused / 2), &mut self.conv2)?;
        w.linear("depth.conv3", Axis::dense(1), Axis::dense(dpt.hidden), &mut self.conv3)?;
        w.stored_as(c.precision);
        Ok(())
    }
}

impl<M: Storage> Unit<M> {
    /// Through its matrices of these names.
    fn walk<W: Walk<Storage = M>>(
        &mut self,
        [first, second]: [&str; 2],
        channels: usize,
        w: &mut W,
    ) -> Result<(), W::Error> {
        let (outputs, inputs) = (Axis::dense(channels), Axis::padded(9, channels));
        w.linear(first, outputs, inputs, &mut self.conv1)?;
        w.linear(second, outputs, inputs, &mut self.conv2)
    }
}

/// Memory from the taps to the first convolution of the end.
struct Fusion<'a> {
    /// The reassembled maps.
    taps: [&'a mut [F32x16]; 4],
    /// A tap after its projection, and after it is resized.
    projected: &'a mut [F32x16],
    resized: &'a mut [F32x16],
    /// The fused map.
    x: &'a mut [F32x16],
    /// What is between the convolutions of a unit, and before an upsampling.
    y: &'a mut [F32x16],
}

impl<'a> Fusion<'a> {
    fn carve(c: &Config, dpt: &Widths, arena: &mut Arena<'a>) -> Self {
        let (grid, sizes) = (c.grid(), dpt.sizes(c.grid()));
        let most = |of: &dyn Fn(usize) -> usize| (0..=LAST).map(of).fold(0, usize::max);
        Self {
            taps: sizes.map(|size| arena.take(Map::data_len(size, dpt.fused))),
            projected: arena.take(most(&|k| Map::data_len(grid, dpt.reassembled[k]))),
            resized: arena.take(most(&|k| Map::data_len(sizes[k], dpt.reassembled[k]))),
            x: arena.take(Map::data_len(twice(sizes[0]), dpt.fused)),
            y: arena.take(Map::data_len(sizes[0], dpt.fused)),
        }
    }
}

const fn twice((height, width): (usize, usize)) -> (usize, usize) {
    (2 * height, 2 * width)
}

/// What the head needs beside [`Taps`].
struct Buffers<'a> {
    /// The first convolution of the end, `[8 height, 8 width, fused / 2]` for a grid of height x width patches.
    end: &'a mut [F32x16],
    fusion: Fusion<'a>,
    /// `[threads][worker_bytes]`.
    workers: &'a mut [u8],
    worker_bytes: usize,
}

impl<'a> Buffers<'a> {
    fn carve(c: &Config, dpt: &Widths, threads: usize, arena: &mut Arena<'a>) -> Self {
        let widest = dpt.reassembled.into_iter().fold(dpt.fused, usize::max);
        let inputs = (9 * pad16(widest)).max(pad16(c.dim));
        let mut band = Arena::counting();
        let _ = Band::carve(c, dpt, &mut band);
        let worker_bytes = worker_bytes(inputs, c.map_precision()).max(band.used());
        Self {
            end: arena.take(Map::data_len(twice(dpt.sizes(c.grid())[0]), dpt.fused / 2)),
            fusion: Fusion::carve(c, dpt, arena),
            workers: arena.take(threads.saturating_mul(worker_bytes)),
            worker_bytes,
        }
    }
}

/// Bytes that [`forward`] needs.
pub(crate) fn bytes(c: &Config, dpt: &Widths, threads: usize) -> usize {
    let mut arena = Arena::counting();
    let _ = Buffers::carve(c, dpt, threads, &mut arena);
    arena.used()
}

/// Computes the depth of every pixel of the input, `[height, width]`, into `out`. `workers` come without memory.
pub(crate) fn forward(
    c: &Config,
    dpt: &Widths,
    parts: &Dpt<InFile<'_>>,
    taps: &Taps<'_>,
    (workers, threads): (Workers<'_>, usize),
    memory: &mut [u8],
    out: &mut [F32x16],
) -> Result<(), Error> {
    let b = Buffers::carve(c, dpt, threads, &mut Arena::over(memory));
    let mut w = Workers { memory: b.workers, worker_bytes: b.worker_bytes, ..workers };
    let (mut fusion, sizes) = (b.fusion, dpt.sizes(c.grid()));
    for (k, tokens) in taps.maps().enumerate() {
        reassemble(&mut w, c, dpt, (k, &parts.taps[k]), tokens.patches, &mut fusion)?;
    }
    let Fusion { taps, x, y, .. } = fusion;
    for (k, part) in parts.taps.iter().enumerate().rev() {
        let mut map = MapMut::new(x, sizes[k], dpt.fused);
        let mut between = MapMut::new(y, sizes[k], dpt.fused);
        let mut tap = MapMut::new(taps[k], sizes[k], dpt.fused);
        match &part.unit1 {
            Some(unit1) => {
                unit(&mut w, unit1, &mut tap, &mut between)?;
                w.add(&mut map, tap.view())?;
            }
            None => map.data.copy_from_slice(tap.data),
        }
        unit(&mut w, &part.unit2, &mut map, &mut between)?;
        w.conv1x1(map.view(), &part.fuse, End::Store, &mut between)?;
        let finer = k.checked_sub(1).map_or(twice(sizes[0]), |k| sizes[k]);
        w.resize(between.view(), Corners::Aligned, &mut MapMut::new(x, finer, dpt.fused))?;
    }
    let x = Map::new(x, twice(sizes[0]), dpt.fused);
    let mut end = MapMut::new(b.end, x.size(), dpt.fused / 2);
    w.conv3x3(x, conv(&parts.conv1, End::Store), &mut end)?;
    let end = end.view();
    w.for_each(Chunks::new(out, LINES * c.image_width / 16), |k, memory, band, out| {
        let lines = LINES * band..(LINES * (band + 1)).min(c.image_height);
        Band::carve(c, dpt, &mut Arena::over(memory)).run(k, c, dpt, parts, end, lines, floats_mut(out));
    })
}

/// r_k.
fn reassemble(
    w: &mut Workers<'_>,
    c: &Config,
    dpt: &Widths,
    (k, part): (usize, &Tap<InFile<'_>>),
    tokens: &[F32x16],
    b: &mut Fusion<'_>,
) -> Result<(), Error> {
    let (n, size) = (dpt.reassembled[k], dpt.sizes(c.grid())[k]);
    let mut projected = MapMut::new(b.projected, c.grid(), n);
    w.conv1x1(Map::new(tokens, c.grid(), c.dim), &part.project, End::Store, &mut projected)?;
    let mut resized = MapMut::new(b.resized, size, n);
    let map = match (&part.resize, transposed(k)) {
        (None, _) => projected.view(),
        (Some(resize), Some(times)) => {
            w.transposed(projected.view(), resize, times, End::Store, &mut resized)?;
            resized.view()
        }
        (Some(resize), None) => {
            w.conv3x3(projected.view(), Conv3x3 { stride: 2, ..conv(resize, End::Store) }, &mut resized)?;
            resized.view()
        }
    };
    w.conv3x3(map, conv(&part.conv, End::Store), &mut MapMut::new(b.taps[k], size, dpt.fused))
}

/// x = Unit(x).
fn unit(
    w: &mut Workers<'_>,
    part: &Unit<InFile<'_>>,
    x: &mut MapMut<'_>,
    between: &mut MapMut<'_>,
) -> Result<(), Error> {
    w.conv3x3(x.view(), Conv3x3 { relu: true, ..conv(&part.conv1, End::Relu) }, between)?;
    w.conv3x3(between.view(), conv(&part.conv2, End::Add), x)
}

fn conv<'c>(linear: &'c Linear<'c>, end: End) -> Conv3x3<'c> {
    Conv3x3 { linear, stride: 1, relu: false, end }
}

/// Lines of a band: 16, so that each band of the output starts at a chunk.
const LINES: usize = 16;

/// Pixels that go through the last convolutions together.
const PIXELS: usize = 48;

/// One worker's memory for a band of lines of the output.
struct Band<'w> {
    /// The lines, and one above and one below, at the size of the input: `[LINES + 2, width, fused / 2]`.
    upsampled: &'w mut [F32x16],
    operand: OperandScratch<'w>,
    /// `[PIXELS, 9, fused / 2]`.
    patches: &'w mut [F32x16],
    /// `[PIXELS, hidden]`.
    hidden: &'w mut [F32x16],
    /// `[PIXELS, 1]`.
    depth: &'w mut [F32x16],
}

impl<'w> Band<'w> {
    fn carve(c: &Config, dpt: &Widths, arena: &mut Arena<'w>) -> Self {
        let (inputs, hidden) = (9 * (pad16(dpt.fused / 2) / 16), pad16(dpt.hidden) / 16);
        Self {
            upsampled: arena.take(Map::data_len((LINES + 2, c.image_width), dpt.fused / 2)),
            operand: OperandScratch::carve(PIXELS, inputs.max(hidden), 0, c.map_precision(), arena),
            patches: arena.take(PIXELS * inputs),
            hidden: arena.take(PIXELS * hidden),
            depth: arena.take(PIXELS),
        }
    }

    /// The `lines` of the output, from the map `end` on.
    #[allow(clippy::too_many_arguments)]
    fn run(
        mut self,
        k: Kernels,
        c: &Config,
        dpt: &Widths,
        parts: &Dpt<InFile<'_>>,
        end: Map<'_>,
        lines: core::ops::Range<usize>,
        out: &mut [f32],
    ) {
        let (size, width) = ((c.image_height, c.image_width), c.image_width);
        // The lines above and below are outside of the picture at its border, where a convolution reads zeros.
        let (top, bottom) = (lines.start.saturating_sub(1), (lines.end + 1).min(c.image_height));
        let upsampled = &mut self.upsampled[..Map::data_len((bottom - top, width), end.channels)];
        k.run(Resize { x: end, corners: Corners::Aligned, size, first: top, out: upsampled });
        let map = Map::new(upsampled, (bottom - top, width), end.channels);
        let first = (lines.start - top) * width;
        let (inputs, hidden) = (9 * map.chunks(), parts.conv2.bias.len());
        for (piece, out) in out[..lines.len() * width].chunks_mut(PIXELS).enumerate() {
            let rows = out.len();
            let patches = &mut self.patches[..rows * inputs];
            k.run(Patches { x: map, stride: 1, relu: false, first: first + piece * PIXELS, out: patches });
            let y = &mut self.hidden[..rows * hidden];
            let a = self.operand.pixels(k, patches, rows, &parts.conv2);
            multiply(k, a, rows, &parts.conv2, 0..hidden, Store { out: y, stride: hidden });
            k.run(Relu { x: y });
            let depth = &mut self.depth[..rows];
            let a = self.operand.pixels(k, y, rows, &parts.conv3);
            multiply(k, a, rows, &parts.conv3, 0..1, Store { out: depth, stride: 1 });
            for (out, F32x16([y, ..])) in out.iter_mut().zip(depth) {
                *out = dpt.max_depth * if dpt.metric { 1.0 / (1.0 + libm::expf(-*y)) } else { positive(*y) };
            }
        }
    }
}

/// ReLU; NaN for NaN.
fn positive(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}
