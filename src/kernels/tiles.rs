//! Cutting a matrix product into register tiles.
//!
//! A tile is `M` rows by `N` blocks of 16 columns, both const generics, so that its accumulators are registers. The
//! loops here pick the instance for every place: full tiles, and smaller ones for the rows that are left.
//!
//! What does not belong here: the arithmetic of a tile.

use core::ops::Range;

use super::isa::Isa;

/// An operation over tiles.
pub(crate) trait Tile<S: Isa> {
    /// Rows of a full tile: 1, 2, 4, 6 or [`MAX_ROWS`].
    const ROWS: usize;

    /// Called before the tiles of the column blocks `block..block + N`.
    #[inline(always)]
    fn enter<const N: usize>(&mut self, _s: S, _block: usize) {}

    /// Computes the rows `row..row + M` of the column blocks `block..block + N`; `M` is at most `ROWS`, `N` at most
    /// [`Isa::TILE_BLOCKS`].
    fn tile<const M: usize, const N: usize>(&mut self, s: S, row: usize, block: usize);
}

/// No tile is higher, on any instruction set.
pub(crate) const MAX_ROWS: usize = 8;

/// Runs `op` for the rows `0..rows` of each of `blocks`: column blocks outside, so that a block of weights stays in the
/// first-level cache for all rows.
#[inline(always)]
pub(crate) fn for_tiles<S: Isa, T: Tile<S>>(s: S, rows: usize, blocks: Range<usize>, op: &mut T) {
    let mut block = blocks.start;
    if const { S::TILE_BLOCKS == 2 } {
        while block + 2 <= blocks.end {
            strip::<S, T, 2>(s, rows, block, op);
            block += 2;
        }
    }
    while block < blocks.end {
        strip::<S, T, 1>(s, rows, block, op);
        block += 1;
    }
}

/// All rows of `N` column blocks.
#[inline(always)]
fn strip<S: Isa, T: Tile<S>, const N: usize>(s: S, rows: usize, block: usize, op: &mut T) {
    const { assert!(matches!(T::ROWS, 1 | 2 | 4 | 6 | MAX_ROWS)) };
    op.enter::<N>(s, block);
    let mut row = 0;
    while row < rows {
        let height = match rows - row {
            rest if rest >= T::ROWS => T::ROWS,
            rest if rest >= 5 => 5,
            rest => rest.min(2),
        };
        // A guard is a constant: an instance that `T` does not use leaves no code.
        match height {
            1 => op.tile::<1, N>(s, row, block),
            2 if const { T::ROWS >= 2 } => op.tile::<2, N>(s, row, block),
            4 if const { is_used(4, T::ROWS) } => op.tile::<4, N>(s, row, block),
            5 if const { is_used(5, T::ROWS) } => op.tile::<5, N>(s, row, block),
            6 if const { is_used(6, T::ROWS) } => op.tile::<6, N>(s, row, block),
            8 if const { is_used(8, T::ROWS) } => op.tile::<8, N>(s, row, block),
            _ => unreachable!("no tile is so high"),
        }
        row += height;
    }
}

/// Of the heights above 2, a full tile's, and the five rows that the 197 tokens of 14 x 14 patches leave where full
/// tiles are 6 or 8 high. Any other rest is cut into fives, twos and a one: rare, and a third of the code less.
const fn is_used(height: usize, full: usize) -> bool {
    height == full || height == 5 && full > 5
}

/// The operands of a tile: `x[first..][..len]` and its successors, each `stride` further on. Panics if `x` is shorter.
///
/// A loop on purpose: the closures of `array::from_fn` are not compiled for the instruction set and need not be
/// inlined.
#[inline(always)]
pub(crate) fn slices<T, const M: usize>(x: &[T], first: usize, stride: usize, len: usize) -> [&[T]; M] {
    let mut slices = [&x[..0]; M];
    for (m, slice) in slices.iter_mut().enumerate() {
        *slice = &x[first + m * stride..][..len];
    }
    slices
}
