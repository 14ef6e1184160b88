//! Position in attention: BEiT's relative position tables and DINOv3's rotations, as the model file has them (docs/format.md).

use vitlet::Config;

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::position::{Grid, Resampling, resample};

/// Takes the relative position table `name` `[(2h-1)(2w-1) + 3, heads]` of a checkpoint made for a grid of `native` patches (or a square one,
/// as timm guesses), for the grid of `config`: `[heads, relative_len]`, the offsets reversed, from query minus key to key minus query.
///
/// # Errors
/// As [`Checkpoint::take`].
pub(crate) fn table(
    checkpoint: &mut Checkpoint,
    name: &str,
    config: &Config,
    native: Grid,
    how: Resampling,
) -> Result<Vec<f32>, Error> {
    let offsets = |(height, width): Grid| (2 * height - 1, 2 * width - 1);
    let heads = config.heads;
    let rows = checkpoint.shape(name).map_or(0, |s| s.first().copied().unwrap_or(0)).saturating_sub(3);
    let (mut from, to) = (offsets(native), offsets(config.grid()));
    if from.0 * from.1 != rows && rows.isqrt().pow(2) == rows {
        from = (rows.isqrt(), rows.isqrt());
    }
    let stored = checkpoint.take(name, &[from.0 * from.1 + 3, heads])?;
    let (grid, of_class) = stored.split_at(from.0 * from.1 * heads);
    let grid = resample(grid, from, to, heads, how);
    let rows: Vec<&[f32]> = grid.chunks_exact(heads).rev().chain(of_class.chunks_exact(heads)).collect();
    Ok((0..heads).flat_map(|head| rows.iter().map(move |row| row[head])).collect())
}

/// A block's own table, the one that all blocks share, or their sum.
pub(crate) fn sum(own: Option<Vec<f32>>, shared: Option<&[f32]>) -> Option<Vec<f32>> {
    match (own, shared) {
        (Some(own), Some(shared)) => Some(own.iter().zip(shared).map(|(a, b)| a + b).collect()),
        (own, shared) => own.or(shared.map(<[f32]>::to_vec)),
    }
}

/// Cosines and sines `[patches, head_dim / 2]` of DINOv3's angles: 2 pi times the patch's center in [-1, 1], over periods from 1 to `base`;
/// first those of the row, then those of the column. In f32 as upstream, but for the functions themselves, which are rounded from f64.
pub(crate) fn rotation(config: &Config, base: f64) -> [Vec<f32>; 2] {
    let (height, width) = config.grid();
    let quarter = config.head_dim / 4;
    let periods: Vec<f32> =
        (0..quarter).map(|i| libm::pow(base, f64::from(4.0 * i as f32 / config.head_dim as f32)) as f32).collect();
    let center = |i: usize, n: usize| 2.0 * ((i as f32 + 0.5) / n as f32) - 1.0;
    let mut angles = Vec::with_capacity(height * width * 2 * quarter);
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        for coordinate in [center(y, height), center(x, width)] {
            angles.extend(periods.iter().map(|period| std::f32::consts::TAU * coordinate / period));
        }
    }
    let table = |f: fn(f64) -> f64| angles.iter().map(|a| f(f64::from(*a)) as f32).collect();
    [table(libm::cos), table(libm::sin)]
}
