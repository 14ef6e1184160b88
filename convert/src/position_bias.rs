//! Position in attention: BEiT's relative position tables and DINOv3's rotations, as the model file has them
//! (docs/format.md).

use vitlet::{Config, Resampling, positions};

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::network::Rotation;
use crate::position::Grid;

/// How a library makes a relative position table for another grid.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Linearly between the offsets: transformers.
    Bilinear,
    /// Between offsets that are the denser the nearer to the center they are, linearly: timm.
    Geometric,
}

/// Takes the relative position table `name` `[(2h-1)(2w-1) + 3, heads]` of a checkpoint made for a grid of `native`
/// patches (or a square one, as timm guesses), for the grid of `config`: `[heads, relative_len]`, the offsets reversed,
/// from query minus key to key minus query.
///
/// # Errors
/// As [`Checkpoint::take`].
pub(crate) fn table(
    checkpoint: &mut Checkpoint,
    name: &str,
    config: &Config,
    native: Grid,
    rule: Rule,
) -> Result<Vec<f32>, Error> {
    let offsets = |(height, width): Grid| (2 * height - 1, 2 * width - 1);
    let heads = config.heads();
    let rows = checkpoint.shape(name).map_or(0, |s| s.first().copied().unwrap_or(0)).saturating_sub(3);
    let (mut from, to) = (offsets(native), offsets(config.grid()));
    if from.0 * from.1 != rows && rows.isqrt().pow(2) == rows {
        from = (rows.isqrt(), rows.isqrt());
    }
    let stored = checkpoint.take(name, &[from.0 * from.1 + 3, heads])?;
    let (grid, of_class) = stored.split_at(from.0 * from.1 * heads);
    let grid = resampled(grid, from, to, heads, rule);
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

/// `table` `[from.0, from.1, heads]` as `[to.0, to.1, heads]`.
fn resampled(table: &[f32], from: Grid, to: Grid, heads: usize, rule: Rule) -> Vec<f32> {
    if from == to {
        return table.to_vec();
    }
    if rule == Rule::Bilinear {
        let mut out = vec![0.0; to.0 * to.1 * heads];
        positions::resample(table, from, to, heads, Resampling::Bilinear, &mut out);
        return out;
    }
    let [rows, columns] = [(from.0, to.0), (from.1, to.1)]
        .map(|(from, to)| (0..to).map(|i| geometric_taps(i, from, to)).collect::<Vec<Taps>>());
    let wide: Vec<f32> = table
        .chunks_exact(from.1 * heads)
        .flat_map(|line| columns.iter().flat_map(move |taps| weighted_sum(line, taps, heads)))
        .collect();
    rows.iter().flat_map(|taps| weighted_sum(&wide, taps, to.1 * heads)).collect()
}

/// One output position: input positions with their weights.
type Taps = Vec<(usize, f32)>;

/// The sum of `taps` over the lines of `len` elements in `lines`.
fn weighted_sum(lines: &[f32], taps: &Taps, len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    for &(at, weight) in taps {
        for (o, x) in out.iter_mut().zip(&lines[at * len..]) {
            *o += weight * x;
        }
    }
    out
}

/// Input line `center +- n` lies at 1 + q + ... + q^(n-1), with q such that the outermost lines are those of the output
/// (lengths are odd).
fn geometric_taps(i: usize, from: usize, to: usize) -> Taps {
    let (reach, target) = ((from / 2) as i32, (to / 2) as f64);
    let place = |q: f64, n: i32| (1.0 - q.powi(n)) / (1.0 - q);
    let (mut low, mut high) = (1.01, 1.5);
    let mut q = low;
    while high - low > 1e-6 {
        q = (low + high) / 2.0;
        if place(q, reach) > target { high = q } else { low = q }
    }
    let positions: Vec<f64> = (-reach..=reach).map(|n| if n < 0 { -place(q, -n) } else { place(q, n) }).collect();
    let x = i as f64 - target;
    let right = positions.iter().position(|p| *p >= x).unwrap_or(from - 1);
    let left = right.saturating_sub(1);
    let (before, after) = ((x - positions[left]).max(0.0), (positions[right] - x).max(0.0));
    let (before, after) = if before + after == 0.0 { (1.0, 1.0) } else { (before, after) };
    vec![(left, (after / (before + after)) as f32), (right, (before / (before + after)) as f32)]
}

/// DINOv3's rotations for the grid of `config`, and their periods, from 1 to `base`.
pub(crate) fn rotation(config: &Config, base: f64) -> (Option<Rotation>, Vec<f32>) {
    let (quarter, half) = (config.head_dim() / 4, config.head_dim() / 2);
    let exponent = |i: usize| f64::from(4.0 * i as f32 / config.head_dim() as f32);
    let periods: Vec<f32> = (0..quarter).map(|i| libm::pow(base, exponent(i)) as f32).collect();
    let (mut cos, mut sin) = (vec![0.0; config.patches() * half], vec![0.0; config.patches() * half]);
    positions::rotations(config.grid(), periods.iter().copied(), half, &mut cos, &mut sin);
    (Some(Rotation { cos, sin }), periods)
}
