//! Position embeddings for another grid of patches, as PyTorch's `interpolate(align_corners=False)` does it.
//!
//! Separable: every output line is a weighted sum of input lines, first along the width, then along the height.
//! timm and DINOv2-with-registers antialias (cubic with a = -0.5, widened by the scale when shrinking; Keys 1981,
//! the kernel of Pillow); the other models of transformers do not (a = -0.75, four taps, borders repeated).

use vitlet::Config;

use crate::checkpoint::Checkpoint;
use crate::error::Error;

/// How a library resamples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resampling {
    /// `mode="bicubic", antialias=True`: timm, DINOv2 with registers.
    BicubicAntialias,
    /// `mode="bicubic"`: ViT, DeiT and DINOv2 in transformers.
    Bicubic,
    /// `mode="bilinear"`: FlexiViT in timm, relative position tables in transformers.
    Bilinear,
    /// Between input positions that are the denser the nearer to the center they are, linearly: relative position tables in timm.
    Geometric,
}

/// Patches along height and width.
pub type Grid = (usize, usize);

/// One output position: input positions with their weights.
type Taps = Vec<(usize, f32)>;

/// Takes the position embedding `name` of a checkpoint made for pictures of `native` (height, width). Its first rows, as
/// many as `prefix` `[tokens, dim]` holds, are added to `prefix`; the others come back on the grid of `config`.
///
/// # Errors
/// As [`Checkpoint::take`].
pub(crate) fn take(
    checkpoint: &mut Checkpoint,
    name: &str,
    config: &Config,
    native: (usize, usize),
    prefix: &mut [f32],
    how: Resampling,
    announcements: &mut Vec<String>,
) -> Result<Vec<f32>, Error> {
    let (dim, patch) = (config.dim, (config.patch_height, config.patch_width));
    let prefix_rows = prefix.len() / dim;
    let rows = checkpoint.shape(name).map_or(0, |s| s.get(1).copied().unwrap_or(0));
    let from = grid_of(rows.saturating_sub(prefix_rows), (native.0 / patch.0, native.1 / patch.1));
    let table = checkpoint.take(name, &[1, prefix_rows + from.0 * from.1, dim])?;
    let (of_prefix, of_patches) = table.split_at(prefix_rows * dim);
    prefix.iter_mut().zip(of_prefix).for_each(|(token, position)| *token += position);
    let to = (config.image_height / patch.0, config.image_width / patch.1);
    if from != to {
        let text = format!("position embedding resampled from {}x{} patches to {}x{}", from.0, from.1, to.0, to.1);
        announcements.push(text);
    }
    Ok(resample(of_patches, from, to, dim, how))
}

/// The grid of a table with `rows` patches: `native` if that has as many, else a square (timm's and transformers' rule).
/// A count that is neither comes back as `native`, so that the tensor's shape does not fit it.
fn grid_of(rows: usize, native: Grid) -> Grid {
    let side = rows.isqrt();
    if native.0 * native.1 != rows && side * side == rows && rows > 0 { (side, side) } else { native }
}

/// Resamples `table` `[from.0, from.1, dim]` to `[to.0, to.1, dim]`; the same grid comes back unchanged.
pub fn resample(table: &[f32], from: Grid, to: Grid, dim: usize, how: Resampling) -> Vec<f32> {
    if from == to {
        return table.to_vec();
    }
    let columns: Vec<Taps> = (0..to.1).map(|i| taps(i, from.1, to.1, how)).collect();
    let rows: Vec<Taps> = (0..to.0).map(|i| taps(i, from.0, to.0, how)).collect();
    let wide: Vec<f32> = table
        .chunks_exact(from.1 * dim)
        .flat_map(|line| columns.iter().flat_map(move |t| weighted_sum(line, t, dim)))
        .collect();
    rows.iter().flat_map(|t| weighted_sum(&wide, t, to.1 * dim)).collect()
}

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

fn taps(i: usize, from: usize, to: usize, how: Resampling) -> Taps {
    let scale = from as f64 / to as f64;
    match how {
        Resampling::BicubicAntialias => antialiased_taps(i, from, scale),
        Resampling::Bicubic => border_taps(i, from, scale, 2, |x| cubic(x, -0.75)),
        Resampling::Bilinear => border_taps(i, from, scale, 1, |x| (1.0 - x.abs()).max(0.0)),
        Resampling::Geometric => geometric_taps(i, from, to),
    }
}

/// The kernel stretched over `scale` input positions when shrinking, cut off at the borders and normalised.
fn antialiased_taps(i: usize, from: usize, scale: f64) -> Taps {
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    let center = scale * (i as f64 + 0.5);
    let first = ((center - support + 0.5) as isize).max(0) as usize;
    let end = ((center + support + 0.5) as usize).min(from);
    let weights: Vec<f64> = (first..end).map(|j| cubic((j as f64 - center + 0.5) / stretch, -0.5)).collect();
    let sum: f64 = weights.iter().sum();
    (first..end).zip(weights).map(|(j, w)| (j, (w / sum) as f32)).collect()
}

/// `2 * reach` taps around the position; those past a border read the border.
fn border_taps(i: usize, from: usize, scale: f64, reach: isize, kernel: impl Fn(f64) -> f64) -> Taps {
    let mut center = scale * (i as f64 + 0.5) - 0.5;
    if reach == 1 {
        center = center.max(0.0); // as PyTorch does for linear modes only
    }
    let base = center.floor() as isize;
    (base + 1 - reach..=base + reach)
        .map(|j| (j.clamp(0, from as isize - 1) as usize, kernel(j as f64 - center) as f32))
        .collect()
}

/// Input line `center +- n` lies at 1 + q + ... + q^(n-1), with q such that the outermost lines are those of the output (lengths are odd).
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

/// Keys' cubic convolution kernel.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((x - 5.0) * x + 8.0) * x * a - 4.0 * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[3, 4]`, one channel.
    const TABLE: [f32; 12] = [0.0, 0.3, 0.6, 0.9, 0.7, 1.1, 1.5, 1.9, 2.8, 3.3, 3.8, 3.8];

    /// What `torch.nn.functional.interpolate(align_corners=False)` (PyTorch 2.15) makes of it.
    #[rustfmt::skip]
    const WANT: [(Resampling, Grid, &[f32]); 8] = [
        (Resampling::BicubicAntialias, (5, 6), &[
            -0.07207, 0.067592, 0.288365, 0.483333, 0.704107, 0.843769, 0.129743, 0.287621, 0.53693, 0.756292, 1.019008,
            1.188894, 0.673684, 0.864706, 1.166667, 1.433333, 1.735294, 1.926316, 2.063895, 2.28806, 2.646171, 2.974135,
            3.137841, 3.187883, 2.925099, 3.16748, 3.556853, 3.920113, 3.987458, 3.94141,
        ]),
        (Resampling::Bicubic, (5, 6), &[
            -0.092408, 0.050775, 0.285044, 0.451756, 0.686025, 0.829209, 0.091616, 0.255113, 0.521994, 0.709857, 0.998488,
            1.18311, 0.665278, 0.8625, 1.185185, 1.414815, 1.7375, 1.934722, 1.994941, 2.225888, 2.609065, 2.899211,
            3.097512, 3.148898, 2.957365, 3.208625, 3.629241, 3.959845, 4.049376, 3.979068,
        ]),
        (Resampling::Bilinear, (5, 6), &[
            0.0, 0.15, 0.35, 0.55, 0.75, 0.9, 0.28, 0.45, 0.676667, 0.903333, 1.13, 1.3, 0.7, 0.9, 1.166667, 1.433333, 1.7,
            1.9, 1.96, 2.19, 2.496667, 2.803334, 2.96, 3.04, 2.8, 3.05, 3.383333, 3.716666, 3.8, 3.8,
        ]),
        (Resampling::BicubicAntialias, (2, 3), &[0.223537, 0.656436, 1.105854, 2.18234, 2.808232, 3.16653]),
        (Resampling::Bicubic, (2, 3), &[0.125028, 0.561829, 1.016981, 2.409492, 3.106372, 3.399526]),
        (Resampling::Bilinear, (2, 3), &[0.229167, 0.6625, 1.095833, 2.354167, 2.9875, 3.308333]),
        (Resampling::BicubicAntialias, (1, 2), &[1.366457, 2.021578]),
        (Resampling::Bicubic, (1, 2), &[0.8625, 1.7375]),
    ];

    #[test]
    fn resampling_is_that_of_pytorch() {
        for (how, to, want) in WANT {
            // Twice, as two channels, the second negated: channels must not mix.
            let table: Vec<f32> = TABLE.iter().flat_map(|x| [*x, -*x]).collect();
            let got = resample(&table, (3, 4), to, 2, how);
            assert_eq!(got.len(), 2 * want.len(), "{how:?} {to:?}");
            for (i, (pair, want)) in got.chunks_exact(2).zip(want).enumerate() {
                assert!(
                    (pair[0] - want).abs() < 5e-6 && pair[1] == -pair[0],
                    "{how:?} {to:?} {i}: {} for {want}",
                    pair[0]
                );
            }
        }
        assert_eq!(resample(&TABLE, (3, 4), (3, 4), 1, Resampling::BicubicAntialias), TABLE);
    }

    #[test]
    fn grids() {
        assert_eq!(grid_of(196, (14, 14)), (14, 14));
        assert_eq!(grid_of(6, (2, 3)), (2, 3));
        assert_eq!(grid_of(1369, (14, 14)), (37, 37), "another square than config.json's");
        assert_eq!(grid_of(7, (2, 3)), (2, 3), "neither: the shape will not fit");
    }
}
