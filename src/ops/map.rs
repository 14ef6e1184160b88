//! Operations over maps `[height, width, channels]`: what stems and heads for dense outputs are made of.
//!
//! A pixel is a row of channels, so convolutions are linear layers in whatever precision their weights have:
//!
//! | convolution | rows of the matrix product | inputs of the matrix | outputs |
//! |---|---|---|---|
//! | 1 x 1 | the pixels | channels | channels |
//! | 3 x 3, border of one zero | the patches around pixels | `[3][3][pad16(channels)]` | channels |
//! | transposed, stride = kernel | the pixels | channels | `[kernel][kernel][pad16(channels)]` |
//!
//! Every operation splits the output's pixels among the workers, all of whom meet at its end. A pixel's bits depend
//! neither on the split nor on the instruction set (in f16 models: but for [`Kernels::computes_f16`]). Formulas:
//! docs/numerics.md, "Maps".
//!
//! What does not belong here: which operations make a head.

use core::ops::Range;

use super::{Operand, OperandScratch, Scheme, multiply, normalize};
use crate::arena::{Arena, counted};
use crate::config::{Activation, Precision};
use crate::error::Error;
use crate::kernels::Kernels;
use crate::kernels::bilinear::{Resize, Sample};
use crate::kernels::depthwise::DepthwiseConv;
use crate::kernels::linear::{Add, Store};
use crate::kernels::map::{Band, CodePatches, Patches, QuantizeBand, Relu};
use crate::kernels::rows::{Activate, AddRows};
use crate::lanes::{F32x16, U8x16, pad16};
use crate::parallel::{Chunks, Executor, Split, for_each};
use crate::parts::{Depthwise, Linear, Norm, Weight};
use crate::profile::{Laps, Profile, Stage};

pub(crate) use crate::kernels::bilinear::Corners;
pub(crate) use crate::kernels::map::{Map, MapMut, convolved};

/// Pixels that a worker takes at a time at most: few enough that their patches stay in L2.
pub(crate) const PIXELS: usize = 48;

/// Who works: every operation over maps is a method of these.
pub(crate) struct Workers<'w> {
    pub(crate) k: Kernels,
    pub(crate) executor: &'w dyn Executor,
    /// `[threads][worker_bytes]`.
    pub(crate) memory: &'w mut [u8],
    /// [`worker_bytes`] of the operation that needs most, or more.
    pub(crate) worker_bytes: usize,
    pub(crate) profile: Option<&'w Profile<'w>>,
    /// What the time of the operations is counted as.
    pub(crate) stage: Stage,
    pub(crate) scheme: Scheme,
}

/// Bytes that each worker needs for a convolution whose matrix has `inputs` inputs ([`Linear::k`]).
pub(crate) fn worker_bytes(inputs: usize, precision: Precision) -> usize {
    counted(|arena| Scratch::carve(inputs, precision, arena))
}

/// Bytes that each worker needs for a 3 x 3 convolution of a head, of a map `width` pixels wide.
pub(crate) fn band_bytes(width: usize, channels: usize, stride: usize, precision: Precision) -> usize {
    counted(|arena| BandScratch::carve(width, pad16(channels) / 16, stride, precision, arena))
}

/// What becomes of the values that a convolution makes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    /// They replace what was there.
    Store,
    /// They are added to what was there: a residual branch.
    Add,
    /// As `Store`, then max(y, 0).
    Relu,
    /// As `Store`, then the function (not SwiGLU).
    Activate(Activation),
}

/// A 3 x 3 convolution with a border of one zero.
#[derive(Clone, Copy)]
pub(crate) struct Conv3x3<'c> {
    /// Rows are `[3][3][pad16(channels)]`: 9 `pad16(channels)` inputs.
    pub(crate) linear: &'c Linear<'c>,
    /// 1 or 2. The output has [`convolved`] as height and width.
    pub(crate) stride: usize,
    /// Whether it reads max(x, 0) in the place of x.
    pub(crate) relu: bool,
    pub(crate) end: End,
}

fn stored_as(linear: &Linear<'_>) -> Precision {
    match linear.weight {
        Weight::Int8 { .. } => Precision::Int8,
        Weight::F16 { .. } => Precision::F16,
        Weight::F32 { .. } => Precision::F32,
    }
}

/// One worker's memory, for [`PIXELS`] rows of one matrix.
struct Scratch<'w> {
    operand: OperandScratch<'w>,
    /// `[PIXELS, inputs]`: patches.
    patches: &'w mut [F32x16],
}

impl<'w> Scratch<'w> {
    fn carve(inputs: usize, precision: Precision, arena: &mut Arena<'w>) -> Self {
        let chunks = inputs.div_ceil(16);
        Self {
            operand: OperandScratch::carve(PIXELS, chunks, 0, precision, arena),
            patches: arena.take(PIXELS * chunks),
        }
    }

    fn of(linear: &Linear<'_>, memory: &'w mut [u8]) -> Self {
        Self::carve(linear.k, stored_as(linear), &mut Arena::over(memory))
    }
}

/// Lines of the output of a 3 x 3 convolution whose inputs have one scale, where it is int8 and of a head.
pub(crate) const BAND: usize = 8;

/// Lines of a map of `height` that lines of the output of a 3 x 3 convolution read.
fn lines_read(output: Range<usize>, stride: usize, height: usize) -> Range<usize> {
    (stride * output.start).saturating_sub(1)..(stride * (output.end - 1) + 2).min(height)
}

/// One worker's memory for a 3 x 3 convolution of a head.
pub(crate) struct BandScratch<'w> {
    operand: OperandScratch<'w>,
    /// The lines that a band reads, in int8 convolutions.
    codes: &'w mut [U8x16],
    /// `[PIXELS, 9, chunks]`, in others.
    patches: &'w mut [F32x16],
}

impl<'w> BandScratch<'w> {
    /// For a map `width` pixels wide, of `chunks` chunks.
    pub(crate) fn carve(
        width: usize,
        chunks: usize,
        stride: usize,
        precision: Precision,
        arena: &mut Arena<'w>,
    ) -> Self {
        let is_int8 = precision == Precision::Int8;
        let lines = stride * (BAND - 1) + 3;
        Self {
            operand: OperandScratch::carve(PIXELS, 9 * chunks, 0, precision, arena),
            codes: arena.take(if is_int8 { lines * width * chunks } else { 0 }),
            patches: arena.take(if is_int8 { 0 } else { PIXELS * 9 * chunks }),
        }
    }

    /// The pixels of the lines `output` of a convolution, at most [`BAND`]: hands `rows` at a time, at most [`PIXELS`],
    /// to `work`, with their number among these pixels. `x` has the lines that they read ([`lines_read`]), of which the
    /// first is line `top` of the map.
    pub(crate) fn convolve(
        &mut self,
        k: Kernels,
        conv: Conv3x3<'_>,
        (x, top): (Map<'_>, usize),
        output: Range<usize>,
        mut work: impl FnMut(Operand<'_>, Range<usize>),
    ) {
        let Conv3x3 { linear, stride, relu, .. } = conv;
        let (chunks, across) = (x.chunks(), x.width.div_ceil(stride));
        let pixels = output.len() * across;
        let pieces = (0..pixels).step_by(PIXELS).map(|at| at..(at + PIXELS).min(pixels));
        if let Weight::Int8 { .. } = linear.weight {
            let codes = &mut self.codes[..x.data.len()];
            let (scale, zero) = k.run(QuantizeBand { x: x.data, relu, codes });
            let band = Band { codes, top, width: x.width, chunks, zero };
            for piece in pieces {
                let first = output.start * across + piece.start;
                let shape = (piece.len(), 9 * chunks);
                let fill = |out: &mut [U8x16]| k.run(CodePatches { band, stride, first, out });
                work(self.operand.coded(shape, (scale, zero), fill), piece);
            }
            return;
        }
        for piece in pieces {
            let first = output.start * across + piece.start;
            let patches = &mut self.patches[..piece.len() * 9 * chunks];
            k.run(Patches { x, top, stride, relu, first, out: patches });
            work(self.operand.pixels(k, patches, piece.len(), linear), piece);
        }
    }
}

/// One worker's memory for a 3 x 3 convolution of a map that is resized line by line.
pub(crate) struct ResizedScratch<'w> {
    /// The lines that a band reads, `[BAND + 2, width, chunks]`.
    lines: &'w mut [F32x16],
    band: BandScratch<'w>,
}

impl<'w> ResizedScratch<'w> {
    /// For a map that becomes `width` pixels wide.
    pub(crate) fn carve(width: usize, channels: usize, precision: Precision, arena: &mut Arena<'w>) -> Self {
        Self {
            lines: arena.take(Map::data_len((BAND + 2, width), channels)),
            band: BandScratch::carve(width, pad16(channels) / 16, 1, precision, arena),
        }
    }

    /// As [`BandScratch::convolve`] with a stride of 1, of `x` resized to `size` with aligned corners.
    pub(crate) fn convolve(
        &mut self,
        k: Kernels,
        conv: Conv3x3<'_>,
        (x, size): (Map<'_>, (usize, usize)),
        output: Range<usize>,
        work: impl FnMut(Operand<'_>, Range<usize>),
    ) {
        let read = lines_read(output.clone(), 1, size.0);
        let shape = (read.len(), size.1);
        let lines = &mut self.lines[..Map::data_len(shape, x.channels)];
        k.run(Resize { x, corners: Corners::Aligned, size, first: read.start, out: lines });
        self.band.convolve(k, conv, (Map::new(lines, shape, x.channels), read.start), output, work);
    }
}

impl Workers<'_> {
    /// y = W x + b of every pixel: a convolution of 1 x 1.
    pub(crate) fn conv1x1(
        &mut self,
        x: Map<'_>,
        linear: &Linear<'_>,
        end: End,
        y: &mut MapMut<'_>,
    ) -> Result<(), Error> {
        assert_eq!(x.size(), y.view().size(), "a pixel for each pixel");
        let (from, to) = (x.chunks(), y.view().chunks());
        let (pixels, scheme) = (self.pixels_each(y.view()), self.scheme);
        self.for_each(Chunks::new(y.data, pixels * to), |k, memory, piece, y| {
            let rows = y.len() / to;
            let x = &x.data[piece * pixels * from..][..rows * from];
            let mut scratch = Scratch::of(linear, memory);
            let a = scratch.operand.rows(k, scheme, x, rows, linear);
            convolve(k, a, rows, linear, 0..to, end, y);
        })
    }

    /// A convolution of 3 x 3.
    pub(crate) fn conv3x3(&mut self, x: Map<'_>, conv: Conv3x3<'_>, y: &mut MapMut<'_>) -> Result<(), Error> {
        let Conv3x3 { linear, stride, relu, end } = conv;
        assert_eq!(convolved(x.size(), stride), y.view().size(), "a pixel for each patch");
        if self.scheme == Scheme::Head {
            return self.conv3x3_by_bands(x, conv, y);
        }
        let (inputs, to) = (9 * x.chunks(), y.view().chunks());
        let (pixels, scheme) = (self.pixels_each(y.view()), self.scheme);
        self.for_each(Chunks::new(y.data, pixels * to), |k, memory, piece, y| {
            let rows = y.len() / to;
            let mut scratch = Scratch::of(linear, memory);
            let patches = &mut scratch.patches[..rows * inputs];
            k.run(Patches { x, top: 0, stride, relu, first: piece * pixels, out: patches });
            let a = scratch.operand.rows(k, scheme, patches, rows, linear);
            convolve(k, a, rows, linear, 0..to, end, y);
        })
    }

    /// The same, band by band of the output.
    fn conv3x3_by_bands(&mut self, x: Map<'_>, conv: Conv3x3<'_>, y: &mut MapMut<'_>) -> Result<(), Error> {
        let Conv3x3 { linear, stride, end, .. } = conv;
        let (precision, to) = (stored_as(linear), y.view().chunks());
        let line = y.width * to;
        self.for_each(Chunks::new(y.data, BAND * line), |k, memory, band, y| {
            let output = BAND * band..BAND * band + y.len() / line;
            let read = lines_read(output.clone(), stride, x.height);
            let lines = x.lines(read.clone());
            let mut scratch = BandScratch::carve(x.width, x.chunks(), stride, precision, &mut Arena::over(memory));
            scratch.convolve(k, conv, (lines, read.start), output, |a, piece| {
                convolve(k, a, piece.len(), linear, 0..to, end, &mut y[piece.start * to..piece.end * to]);
            });
        })
    }

    /// The same of `x` at the size of `y`, bilinear with aligned corners: no such map exists at once.
    pub(crate) fn resized_conv3x3(&mut self, x: Map<'_>, conv: Conv3x3<'_>, y: &mut MapMut<'_>) -> Result<(), Error> {
        let (size, to, linear) = (y.view().size(), y.view().chunks(), conv.linear);
        let line = y.width * to;
        self.for_each(Chunks::new(y.data, BAND * line), |k, memory, band, y| {
            let output = BAND * band..BAND * band + y.len() / line;
            let mut scratch = ResizedScratch::carve(size.1, x.channels, stored_as(linear), &mut Arena::over(memory));
            scratch.convolve(k, conv, (x, size), output, |a, piece| {
                convolve(k, a, piece.len(), linear, 0..to, conv.end, &mut y[piece.start * to..piece.end * to]);
            });
        })
    }

    /// A transposed convolution whose stride is its kernel: each pixel becomes `kernel` x `kernel` pixels, which
    /// overlap with no others.
    ///
    /// Outputs are `[kernel][kernel][pad16(channels)]`: those of one line of the kernel are `kernel` whole pixels that
    /// lie side by side in `y`, and the linear layer stores them there.
    pub(crate) fn transposed(
        &mut self,
        x: Map<'_>,
        linear: &Linear<'_>,
        kernel: usize,
        end: End,
        y: &mut MapMut<'_>,
    ) -> Result<(), Error> {
        assert_eq!((kernel * x.height, kernel * x.width), y.view().size(), "a square of pixels for each pixel");
        let (from, wide) = (x.chunks(), kernel * y.view().chunks());
        let (across, scheme) = (x.width * wide, self.scheme);
        self.for_each(Chunks::new(y.data, kernel * across), |k, memory, line, y| {
            let x = &x.data[line * x.width * from..][..x.width * from];
            for (piece, x) in x.chunks(PIXELS * from).enumerate() {
                let (rows, left) = (x.len() / from, piece * PIXELS * wide);
                let mut scratch = Scratch::of(linear, memory);
                let mut a = scratch.operand.rows(k, scheme, x, rows, linear);
                for (dy, y) in y.chunks_exact_mut(across).enumerate() {
                    let (blocks, y) = (dy * wide..(dy + 1) * wide, &mut y[left..][..rows * wide]);
                    convolve(k, a.again(), rows, linear, blocks, end, y);
                }
            }
        })
    }

    /// A depthwise convolution: every channel with a kernel of its own, zero outside of the map.
    pub(crate) fn depthwise(&mut self, x: Map<'_>, conv: &Depthwise<'_>, y: &mut MapMut<'_>) -> Result<(), Error> {
        assert_eq!(x.size(), y.view().size(), "a pixel for each pixel");
        let chunks = x.chunks();
        let pixels = self.pixels_each(x);
        let Depthwise { kernel, weight, bias } = *conv;
        self.for_each(Chunks::new(y.data, pixels * chunks), |k, _, piece, out| {
            k.run(DepthwiseConv { x, kernel, weight, bias, first: piece * pixels, out });
        })
    }

    /// `x` at the size of `y`, bilinear.
    pub(crate) fn resize(&mut self, x: Map<'_>, corners: Corners, y: &mut MapMut<'_>) -> Result<(), Error> {
        assert_eq!(x.channels, y.channels, "the same channels");
        let size = y.view().size();
        self.for_each(Chunks::new(y.data, size.1 * x.chunks()), |k, _, first, out| {
            k.run(Resize { x, corners, size, first, out });
        })
    }

    /// LayerNorm over the channels of every pixel.
    pub(crate) fn channel_norm(&mut self, x: Map<'_>, norm: &Norm<'_>, y: &mut MapMut<'_>) -> Result<(), Error> {
        assert_eq!(x.size(), y.view().size(), "a pixel for each pixel");
        let piece = self.pixels_each(x) * x.chunks();
        self.for_each(Chunks::new(y.data, piece), |k, _, i, out| {
            normalize(k, norm, &x.data[i * piece..][..out.len()], out);
        })
    }

    /// x = max(x, 0).
    pub(crate) fn relu(&mut self, x: &mut MapMut<'_>) -> Result<(), Error> {
        let piece = self.pixels_each(x.view()) * x.view().chunks();
        self.for_each(Chunks::new(x.data, piece), |k, _, _, x| k.run(Relu { x }))
    }

    /// x = x + y.
    pub(crate) fn add(&mut self, x: &mut MapMut<'_>, y: Map<'_>) -> Result<(), Error> {
        assert_eq!(x.view().size(), y.size(), "a pixel for each pixel");
        let piece = self.pixels_each(y) * y.chunks();
        self.for_each(Chunks::new(x.data, piece), |k, _, i, x| {
            k.run(AddRows { y: &y.data[i * piece..][..x.len()], x, gamma: None });
        })
    }

    /// Pixels of a map that a worker takes at a time: at most [`PIXELS`], and as many for every thread.
    fn pixels_each(&self, map: Map<'_>) -> usize {
        let (pixels, threads) = (map.height * map.width, self.memory.len() / self.worker_bytes.max(1));
        pixels.div_ceil(pixels.div_ceil(PIXELS).next_multiple_of(threads.max(1)).max(1))
    }

    /// `work(kernels, a worker's memory, i, piece i)` for all pieces, on all threads.
    pub(crate) fn for_each<P: Split>(
        &mut self,
        pieces: P,
        work: impl Fn(Kernels, &mut [u8], usize, P::Piece) + Sync,
    ) -> Result<(), Error> {
        let (k, profile, stage) = (self.k, self.profile, self.stage);
        let workers = Chunks::new(self.memory, self.worker_bytes);
        for_each(self.executor, workers, pieces, |memory, i, piece| {
            let mut laps = Laps::start(profile);
            work(k, memory, i, piece);
            laps.end(stage);
        })
    }
}

/// The outputs `blocks` of a linear layer over `rows` rows, which are all of `y`.
fn convolve(
    k: Kernels,
    a: Operand<'_>,
    rows: usize,
    linear: &Linear<'_>,
    blocks: Range<usize>,
    end: End,
    y: &mut [F32x16],
) {
    let stride = blocks.len();
    if end == End::Add {
        return multiply(k, a, rows, linear, blocks, Add { x: y, stride });
    }
    multiply(k, a, rows, linear, blocks, Store { out: y, stride });
    match end {
        End::Store | End::Add => {}
        End::Relu => k.run(Relu { x: y }),
        End::Activate(activation) => k.run(Activate { x: y, chunks: stride, activation }),
    }
}

/// The map at points, bilinear and zero outside of it, into a row of channels for each. Of a point's two coordinates, x
/// and y, -1 is the outer edge of the first pixels and 1 that of the last.
pub(crate) fn sample(k: Kernels, map: Map<'_>, points: &[[f32; 2]], out: &mut [F32x16]) {
    k.run(Sample { map, points, out });
}

#[cfg(all(test, feature = "std"))]
mod tests;
