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
//! this way the convolution has a quarter of the pixels. The last two upsamplings are made line by line for the
//! convolutions that follow, so there is neither map whole.

use core::ops::Range;

use crate::arena::{Arena, counted};
use crate::bytes::floats_mut;
use crate::config::{Config, Dpt as Widths};
use crate::error::Error;
use crate::heads::Taps;
use crate::kernels::Kernels;
use crate::kernels::bilinear::Corners;
use crate::kernels::linear::Store;
use crate::kernels::map::{Map, MapMut, Relu, ToOneChannel};
use crate::lanes::{F32x16, pad16};
use crate::ops::map::{BAND, Conv3x3, End, PIXELS, ResizedScratch, Workers, band_bytes, worker_bytes};
use crate::ops::multiply;
use crate::parallel::Chunks;
use crate::parts::{Axis, InFile, Linear, Scope, Storage, Walk, Weight};
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
        w.stored_as(c.output_precision());
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

/// Memory of the head's first phase. The phases are one over another, and what one leaves for the next stands first.
struct Reassembly<'a> {
    /// The reassembled maps.
    taps: [&'a mut [F32x16]; 4],
    /// A tap after its projection, and after it is resized.
    projected: &'a mut [F32x16],
    resized: &'a mut [F32x16],
}

impl<'a> Reassembly<'a> {
    fn carve(c: &Config, dpt: &Widths, arena: &mut Arena<'a>) -> Self {
        let (grid, sizes) = (c.grid(), dpt.sizes(c.grid()));
        let most = |of: &dyn Fn(usize) -> usize| (0..=LAST).map(of).fold(0, usize::max);
        Self {
            taps: sizes.map(|size| arena.take(Map::data_len(size, dpt.fused))),
            projected: arena.take(most(&|k| Map::data_len(grid, dpt.reassembled[k]))),
            resized: arena.take(most(&|k| Map::data_len(sizes[k], dpt.reassembled[k]))),
        }
    }
}

/// Memory of the second phase.
struct Fusion<'a> {
    /// [`Reassembly::taps`].
    taps: [&'a mut [F32x16]; 4],
    /// The fused map.
    x: &'a mut [F32x16],
}

impl<'a> Fusion<'a> {
    fn carve(c: &Config, dpt: &Widths, arena: &mut Arena<'a>) -> Self {
        let sizes = dpt.sizes(c.grid());
        Self {
            taps: sizes.map(|size| arena.take(Map::data_len(size, dpt.fused))),
            x: arena.take(Map::data_len(sizes[0], dpt.fused)),
        }
    }
}

/// The map of the third phase: the first convolution of the end, `[8 height, 8 width, fused / 2]` for a grid of height
/// x width patches.
fn carve_end<'a>(c: &Config, dpt: &Widths, arena: &mut Arena<'a>) -> &'a mut [F32x16] {
    arena.take(Map::data_len(twice(dpt.sizes(c.grid())[0]), dpt.fused / 2))
}

const fn twice((height, width): (usize, usize)) -> (usize, usize) {
    (2 * height, 2 * width)
}

/// What the head needs beside [`Taps`].
struct Buffers<'a> {
    /// What is between the convolutions of a unit and before an upsampling, and what the end begins with.
    y: &'a mut [F32x16],
    /// [`Reassembly`], then [`Fusion`], then [`carve_end`].
    phases: &'a mut [u8],
    /// `[threads][worker_bytes]`.
    workers: &'a mut [u8],
    worker_bytes: usize,
}

impl<'a> Buffers<'a> {
    fn carve(c: &Config, dpt: &Widths, threads: usize, arena: &mut Arena<'a>) -> Self {
        let widest = dpt.reassembled.into_iter().fold(dpt.fused, usize::max);
        let (sizes, precision) = (dpt.sizes(c.grid()), c.precision);
        let of = |(_, width): (usize, usize), channels, stride| band_bytes(width, channels, stride, precision);
        let convolutions = [
            worker_bytes(pad16(widest).max(pad16(c.dim)), precision),
            of(c.grid(), dpt.reassembled[LAST], 2),
            counted(|arena| ResizedScratch::carve(twice(sizes[0]).1, dpt.fused, precision, arena)),
            counted(|arena| Band::carve(c, dpt, arena)),
        ];
        let reassembled = (0..=LAST).map(|k| of(sizes[k], dpt.reassembled[k].max(dpt.fused), 1));
        let worker_bytes = convolutions.into_iter().chain(reassembled).fold(0, usize::max);
        let phases = [
            counted(|arena| Reassembly::carve(c, dpt, arena)),
            counted(|arena| Fusion::carve(c, dpt, arena)),
            counted(|arena| carve_end(c, dpt, arena)),
        ];
        Self {
            y: arena.take(Map::data_len(sizes[0], dpt.fused)),
            phases: arena.take(phases.into_iter().fold(0, usize::max)),
            workers: arena.take(threads.saturating_mul(worker_bytes)),
            worker_bytes,
        }
    }
}

/// Bytes that [`forward`] needs.
pub(crate) fn bytes(c: &Config, dpt: &Widths, threads: usize) -> usize {
    counted(|arena| Buffers::carve(c, dpt, threads, arena))
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
    let (y, sizes) = (b.y, dpt.sizes(c.grid()));
    let mut reassembly = Reassembly::carve(c, dpt, &mut Arena::over(b.phases));
    for (k, tokens) in taps.maps().enumerate() {
        reassemble(&mut w, c, dpt, (k, &parts.taps[k]), tokens.patches, &mut reassembly)?;
    }
    let Fusion { taps, x } = Fusion::carve(c, dpt, &mut Arena::over(b.phases));
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
        if let Some(finer) = k.checked_sub(1) {
            w.resize(between.view(), Corners::Aligned, &mut MapMut::new(x, sizes[finer], dpt.fused))?;
        }
    }
    let end = carve_end(c, dpt, &mut Arena::over(b.phases));
    let mut end = MapMut::new(end, twice(sizes[0]), dpt.fused / 2);
    w.resized_conv3x3(Map::new(y, sizes[0], dpt.fused), conv(&parts.conv1, End::Store), &mut end)?;
    let end = end.view();
    w.for_each(Chunks::new(out, LINES * c.image_width / 16), |k, memory, band, out| {
        let mut b = Band::carve(c, dpt, &mut Arena::over(memory));
        let lines = LINES * band..(LINES * (band + 1)).min(c.image_height);
        for (first, out) in lines.clone().step_by(BAND).zip(floats_mut(out).chunks_mut(BAND * c.image_width)) {
            b.run(k, (c, dpt, parts), end, first..(first + BAND).min(lines.end), out);
        }
    })
}

/// r_k.
fn reassemble(
    w: &mut Workers<'_>,
    c: &Config,
    dpt: &Widths,
    (k, part): (usize, &Tap<InFile<'_>>),
    tokens: &[F32x16],
    b: &mut Reassembly<'_>,
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

/// Lines that a worker takes at a time: 16, so that each of its pieces of the output starts at a chunk.
const LINES: usize = 2 * BAND;

/// One worker's memory for a band of lines of the output.
struct Band<'w> {
    conv2: ResizedScratch<'w>,
    /// The weights of the last convolution, `[hidden]`.
    conv3: &'w mut [F32x16],
    /// `[PIXELS, hidden]`.
    hidden: &'w mut [F32x16],
    /// `[PIXELS]`.
    depth: &'w mut [f32],
}

impl<'w> Band<'w> {
    fn carve(c: &Config, dpt: &Widths, arena: &mut Arena<'w>) -> Self {
        let hidden = pad16(dpt.hidden) / 16;
        Self {
            conv2: ResizedScratch::carve(c.image_width, dpt.fused / 2, c.precision, arena),
            conv3: arena.take(hidden),
            hidden: arena.take(PIXELS * hidden),
            depth: arena.take(PIXELS),
        }
    }

    /// The `lines` of the output, at most [`BAND`], from the map `end` on.
    fn run(
        &mut self,
        k: Kernels,
        (c, dpt, parts): (&Config, &Widths, &Dpt<InFile<'_>>),
        end: Map<'_>,
        lines: Range<usize>,
        out: &mut [f32],
    ) {
        let Self { conv2, conv3, hidden, depth } = self;
        let (scale, bias) = row_of_one(&parts.conv3, conv3);
        let (size, chunks) = ((c.image_height, c.image_width), parts.conv2.bias.len());
        conv2.convolve(k, conv(&parts.conv2, End::Relu), (end, size), lines, |a, pixels| {
            let y = &mut hidden[..pixels.len() * chunks];
            multiply(k, a, pixels.len(), &parts.conv2, 0..chunks, Store { out: y, stride: chunks });
            k.run(Relu { x: y });
            let depth = &mut depth[..pixels.len()];
            k.run(ToOneChannel { x: y, w: conv3, scale, bias, out: depth });
            for (out, y) in out[pixels].iter_mut().zip(depth) {
                *out = dpt.max_depth * if dpt.metric { 1.0 / (1.0 + libm::expf(-*y)) } else { positive(*y) };
            }
        });
    }
}

/// The row of a matrix with one output, as a row of its inputs; its scale and its bias.
fn row_of_one(linear: &Linear<'_>, row: &mut [F32x16]) -> (f32, f32) {
    let first = |of: &[F32x16]| of.first().map_or(0.0, |chunk| chunk.0[0]);
    row.fill(F32x16([0.0; 16]));
    let row = floats_mut(row).iter_mut();
    let scale = match linear.weight {
        Weight::F32 { values } => {
            row.zip(values).for_each(|(w, value)| *w = value.0[0]);
            1.0
        }
        Weight::F16 { values, scale } => {
            row.zip(values).for_each(|(w, value)| *w = half::f16::from_bits(value.0[0]).to_f32());
            first(scale)
        }
        Weight::Int8 { .. } => {
            debug_assert!(false, "`Config::output_precision` is not int8");
            0.0
        }
    };
    (scale, first(linear.bias))
}

/// ReLU; NaN for NaN.
fn positive(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}
