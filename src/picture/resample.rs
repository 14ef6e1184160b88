//! Pillow's separable resampling of 8-bit pixels: one axis, rounded to bytes, then the other.
//!
//! The algorithm (Pillow, libImaging/Resample.c, 8 bits per channel): an output pixel i has its center at (i + 1/2) *
//! scale in the source. The filter is stretched by max(scale, 1); the weights of the source pixels under it are
//! computed in f64, divided by their sum, and rounded (half away from zero) to integers with 22 fractional bits. A
//! channel is the i32 sum of weight * byte plus one half, shifted down by 22 and clamped to a byte. The order of the
//! f64 operations is part of the result: Rust never contracts them, so x86-64 and aarch64 agree with Pillow's x86-64
//! wheel.
//!
//! Which axis comes first shows in the last bit of a byte. Pillow 13 chooses: horizontally first, unless
//! the height shrinks, and by more than twice as many pixels as the width. (Before version 13, always horizontally
//! first.) Horizontally first, a ring of finished rows as tall as the vertical filter is kept; vertically first, one
//! row of the source's width, and source rows are read once for each output row that needs them.
//!
//! OpenCV's cubic filter is never widened, and repeats the border: its weights beyond it are those of the pixel at the
//! border. Here it has the same integer weights and bytes as Pillow's filters.
//!
//! Where a size does not change, the weights are 2^22 and zeros, which copies. Pillow skips that pass, with the same
//! result.

use core::ops::Range;

use super::pixels::{RUN, Reader};
use crate::bytes::cast_mut;
use crate::config::Interpolation;
use crate::kernels::Kernels;
use crate::kernels::resample::{FRACTION_BITS, GROUP, HALF, HEADER, Pixel, ResizeRow, SumRows, to_byte};

/// The most weights that one output pixel has at this many source pixels per output pixel.
pub(super) fn tap_capacity(interpolation: Interpolation, scale: f64) -> usize {
    (libm::ceil(interpolation.support() * interpolation.stretch(scale)) as usize).saturating_mul(2).saturating_add(1)
}

impl Interpolation {
    /// Half the width of the filter, in pixels of the coarser picture.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic | Self::BicubicOpencv => 2.0,
        }
    }

    /// How far the filter is widened at this many source pixels per output pixel.
    fn stretch(self, scale: f64) -> f64 {
        if self == Self::BicubicOpencv { 1.0 } else { scale.max(1.0) }
    }

    /// The filter at distance `x` from its center.
    fn at(self, x: f64) -> f64 {
        let x = libm::fabs(x);
        let a = match self {
            Self::Bilinear => return (1.0 - x).max(0.0),
            Self::Bicubic => -0.5,
            Self::BicubicOpencv => -0.75,
        };
        if x < 1.0 {
            ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
        } else if x < 2.0 {
            (((x - 5.0) * x + 8.0) * x - 4.0) * a
        } else {
            0.0
        }
    }
}

/// One axis of a resize; the output pixels from `origin` on are wanted.
pub(super) struct Filter {
    interpolation: Interpolation,
    source_len: u32,
    output_len: u32,
    origin: usize,
    /// Source pixels per output pixel.
    scale: f64,
    /// How far the filter is widened: 1 when the picture grows.
    stretch: f64,
    /// Half the width of the filter in source pixels.
    support: f64,
}

/// The weights of one output pixel, for the source pixels from `first` on.
struct Taps<'a> {
    first: usize,
    weights: &'a [i32],
}

impl Taps<'_> {
    /// Without the weights at the ends that rounded to zero: often one, and all but one where the size does not change.
    /// (Unlike `first` before, `first` after may step back from one output pixel to the next.)
    fn trimmed(self) -> Self {
        let is_used = |weight: &i32| *weight != 0;
        let start = self.weights.iter().position(is_used).unwrap_or(0);
        let end = self.weights.iter().rposition(is_used).map_or(start, |last| last + 1);
        Self { first: self.first + start, weights: &self.weights[start..end] }
    }
}

/// Memory for the weights of one output pixel, at least [`Filter::tap_capacity`] elements each.
struct Desk<'a> {
    /// Before rounding: f64 in native byte order.
    exact: &'a mut [[u8; 8]],
    /// Rounded.
    weights: &'a mut [i32],
}

impl Filter {
    pub(super) fn new(interpolation: Interpolation, source_len: u32, output_len: u32, origin: usize) -> Self {
        let scale = f64::from(source_len) / f64::from(output_len);
        let stretch = interpolation.stretch(scale);
        let support = interpolation.support() * stretch;
        Self { interpolation, source_len, output_len, origin, scale, stretch, support }
    }

    pub(super) fn tap_capacity(&self) -> usize {
        tap_capacity(self.interpolation, self.scale)
    }

    /// By how many pixels the picture shrinks; negative where it grows.
    fn shrinks_by(&self) -> i64 {
        i64::from(self.source_len) - i64::from(self.output_len)
    }

    /// The weights of the `i`-th wanted pixel.
    fn taps<'a>(&self, i: usize, desk: &'a mut Desk<'_>) -> Taps<'a> {
        let center = ((self.origin + i) as f64 + 0.5) * self.scale;
        let (first, count, sum) = match self.interpolation {
            Interpolation::BicubicOpencv => self.weigh_nearest_four(center, desk.exact),
            _ => self.weigh(center, desk.exact),
        };
        for (weight, exact) in desk.weights.iter_mut().zip(&desk.exact[..count]) {
            let exact = f64::from_ne_bytes(*exact);
            let scaled = (if sum != 0.0 { exact / sum } else { exact }) * f64::from(1 << FRACTION_BITS);
            *weight = (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32;
        }
        Taps { first: first as usize, weights: &desk.weights[..count] }
    }

    /// The weights of the pixels under the filter: of the first pixel on, how many, and their sum.
    fn weigh(&self, center: f64, exact: &mut [[u8; 8]]) -> (u32, usize, f64) {
        let inverse = 1.0 / self.stretch;
        // Conversions truncate towards zero, as in C, and saturate.
        let first = (center - self.support + 0.5) as u32;
        let end = ((center + self.support + 0.5) as u32).min(self.source_len);
        let mut sum = 0.0;
        for (x, exact) in (first..end).zip(exact.iter_mut()) {
            let weight = self.interpolation.at((f64::from(x) - center + 0.5) * inverse);
            sum += weight;
            *exact = weight.to_ne_bytes();
        }
        (first, end.saturating_sub(first) as usize, sum)
    }

    /// The same of a filter over four pixels, of which those beyond the border are the one at it.
    fn weigh_nearest_four(&self, center: f64, exact: &mut [[u8; 8]]) -> (u32, usize, f64) {
        let last = i64::from(self.source_len) - 1;
        let base = libm::floor(center - 0.5) as i64;
        let [first, end] = [base - 1, base + 2].map(|x| x.clamp(0, last));
        let mut weights = [0.0; 4];
        for x in base - 1..=base + 2 {
            weights[(x.clamp(0, last) - first) as usize] += self.interpolation.at(x as f64 - center + 0.5);
        }
        let count = (end - first + 1) as usize;
        for (exact, weight) in exact.iter_mut().zip(&weights[..count]) {
            *exact = weight.to_ne_bytes();
        }
        (first as u32, count, weights.iter().sum())
    }
}

/// The number of elements of each part of [`Scratch`].
pub(super) struct Layout {
    table_len: usize,
    taps_len: usize,
    line_len: usize,
    ring_bytes: usize,
}

/// The working memory of one resize.
pub(super) struct Scratch<'a> {
    /// The table of [`Columns`].
    table: &'a mut [i32],
    desk: Desk<'a>,
    /// A row of the source's width, of the source where it is resized horizontally first, of sums otherwise; and what
    /// the last group reads beyond it, times zero.
    line: &'a mut [Pixel],
    /// Rows between the two passes, RGB.
    ring: &'a mut [u8],
}

impl Layout {
    /// For output rows of `width` pixels, which have up to `taps_x` by `taps_y` weights each, from a source of up to
    /// `source_width` by `source_height` pixels, whichever axis comes first.
    pub(super) fn new(
        width: usize,
        (taps_x, taps_y): (usize, usize),
        (source_width, source_height): (u32, u32),
    ) -> Option<Self> {
        let ring_bytes = width.checked_mul(3)?.checked_mul(taps_y.min(source_height as usize))?;
        Some(Self {
            table_len: entry_len(taps_x)?.checked_mul(width)?,
            taps_len: taps_x.max(taps_y),
            line_len: (source_width as usize).checked_add(GROUP - 1)?,
            ring_bytes,
        })
    }

    pub(super) fn bytes(&self) -> Option<usize> {
        let table = self.table_len.checked_mul(size_of::<i32>())?.checked_add(align_of::<i32>() - 1)?;
        let desk = self.taps_len.checked_mul(size_of::<f64>() + size_of::<i32>())?;
        let line = self.line_len.checked_mul(size_of::<Pixel>())?;
        table.checked_add(desk)?.checked_add(line)?.checked_add(self.ring_bytes)
    }

    /// None where `scratch` is too short.
    pub(super) fn split<'a>(&self, scratch: &'a mut [u8]) -> Option<Scratch<'a>> {
        let (_, scratch) = scratch.split_at_mut_checked(scratch.as_ptr().align_offset(align_of::<i32>()))?;
        let (table, scratch) = take(scratch, self.table_len)?;
        let (weights, scratch) = take(scratch, self.taps_len)?;
        let [table, weights] = [table, weights].map(|words: &mut [[u8; 4]]| cast_mut(words.as_flattened_mut()));
        let (exact, scratch) = take(scratch, self.taps_len)?;
        let (line, scratch) = take(scratch, self.line_len)?;
        let (ring, _) = scratch.split_at_mut_checked(self.ring_bytes)?;
        Some(Scratch { table: table?, desk: Desk { exact, weights: weights? }, line, ring })
    }
}

/// Words of an output column's entry with up to `taps` weights: whole groups, the last one filled up with zeros.
fn entry_len(taps: usize) -> Option<usize> {
    taps.checked_next_multiple_of(GROUP)?.checked_add(HEADER)
}

fn take<const N: usize>(scratch: &mut [u8], len: usize) -> Option<(&mut [[u8; N]], &mut [u8])> {
    let (taken, rest) = scratch.split_at_mut_checked(len.checked_mul(N)?)?;
    Some((taken.as_chunks_mut().0, rest))
}

/// Writes `out_rows`, RGB of the width that `scratch` is laid out for, from the pixels that `across` and `down` want.
pub(super) fn resample<'a>(
    kernels: Kernels,
    source: &Reader<'_>,
    across: &Filter,
    down: &Filter,
    scratch: Scratch<'_>,
    out_rows: impl Iterator<Item = &'a mut [u8]>,
) {
    let Scratch { table, mut desk, line, ring } = scratch;
    let columns = Columns::new(kernels, across, table, &mut desk);
    let line = &mut line[..columns.needed.len() + GROUP - 1];
    if down.shrinks_by() > 0 && down.shrinks_by() > 2 * across.shrinks_by() {
        vertical_first(source, &columns, down, desk, line, out_rows);
    } else {
        horizontal_first(source, &columns, down, desk, (line, ring), out_rows);
    }
}

/// Source row y, resized, is in slot y % slots of `ring` from the first output row that needs it to the last.
fn horizontal_first<'a>(
    source: &Reader<'_>,
    columns: &Columns<'_>,
    down: &Filter,
    mut desk: Desk<'_>,
    (line, ring): (&mut [Pixel], &mut [u8]),
    out_rows: impl Iterator<Item = &'a mut [u8]>,
) {
    let row_bytes = 3 * columns.len();
    let slots = ring.len() / row_bytes;
    let mut next = 0;
    for (i, out) in out_rows.enumerate() {
        let taps = down.taps(i, &mut desk);
        let end = taps.first + taps.weights.len();
        for y in next.max(taps.first)..end {
            source.read(columns.needed.start, y, &mut line[..columns.needed.len()]);
            columns.resize(line, &mut ring[y % slots * row_bytes..][..row_bytes]);
        }
        next = end;
        let taps = taps.trimmed();
        let slot = taps.first % slots;
        let row = |t| &ring[(if slot + t < slots { slot + t } else { slot + t - slots }) * row_bytes..][..row_bytes];
        columns.kernels.run(SumRows { weights: taps.weights, row, out });
    }
}

/// Each row of the output is summed from rows of the source, as far as the columns are needed, and then resized.
fn vertical_first<'a>(
    source: &Reader<'_>,
    columns: &Columns<'_>,
    down: &Filter,
    mut desk: Desk<'_>,
    line: &mut [Pixel],
    out_rows: impl Iterator<Item = &'a mut [u8]>,
) {
    for (i, out) in out_rows.enumerate() {
        let taps = down.taps(i, &mut desk).trimmed();
        for (run, sums) in line[..columns.needed.len()].chunks_mut(RUN).enumerate() {
            sum_pixels(source, columns.needed.start + run * RUN, &taps, sums);
        }
        columns.resize(line, out);
    }
}

/// At most [`RUN`] pixels from column `x` on, summed over the rows.
fn sum_pixels(source: &Reader<'_>, x: usize, taps: &Taps<'_>, out: &mut [Pixel]) {
    let mut sums = [[HALF; 4]; RUN];
    let mut pixels = [[0; 4]; RUN];
    for (t, weight) in taps.weights.iter().enumerate() {
        source.read(x, taps.first + t, &mut pixels[..out.len()]);
        for (sum, byte) in sums.as_flattened_mut().iter_mut().zip(pixels.as_flattened()) {
            *sum += weight * i32::from(*byte);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = sum.map(to_byte);
    }
}

/// The weights of every output column.
struct Columns<'a> {
    kernels: Kernels,
    /// `[columns][HEADER + taps]`
    table: &'a [i32],
    entry_len: usize,
    /// The pixels of a source row that the columns read.
    needed: Range<usize>,
}

impl<'a> Columns<'a> {
    /// `table` holds [`entry_len`] words for each of `width` columns.
    fn new(kernels: Kernels, across: &Filter, table: &'a mut [i32], desk: &mut Desk<'_>) -> Self {
        let entry_len = HEADER + across.tap_capacity().next_multiple_of(GROUP);
        let (mut start, mut end) = (usize::MAX, 0);
        for (i, entry) in table.chunks_exact_mut(entry_len).enumerate() {
            let Taps { first, weights } = across.taps(i, desk).trimmed();
            (start, end) = (start.min(first), end.max(first + weights.len()));
            entry[0] = first as i32;
            entry[1] = weights.len() as i32;
            let (used, filling) = entry[HEADER..].split_at_mut(weights.len());
            used.copy_from_slice(weights);
            filling.fill(0);
        }
        Self { kernels, table, entry_len, needed: start.min(end)..end }
    }

    fn len(&self) -> usize {
        self.table.len() / self.entry_len
    }

    /// Resizes the needed pixels of a row, which `line` begins with, to RGB.
    fn resize(&self, line: &[Pixel], out: &mut [u8]) {
        let Self { table, entry_len, .. } = *self;
        self.kernels.run(ResizeRow { table, entry_len, start: self.needed.start, line, out });
    }
}
