//! Position embeddings of checkpoints, for the grid of patches that a model file shall have.

use vitlet::{Config, Positions};

use crate::checkpoint::Checkpoint;
use crate::error::Error;

/// Patches along height and width.
pub type Grid = (usize, usize);

/// Takes the position embedding `name` of a checkpoint made for pictures of `native` (height, width). Its first rows,
/// as many as `prefix` `[tokens, dim]` holds, are added to `prefix`. The others come back as they are, for sessions to
/// resample; or, where the user has `chosen` the size of `config`, resampled to its grid, which is then the only one of
/// the file.
///
/// # Errors
/// As [`Checkpoint::take`].
pub(crate) fn take(
    checkpoint: &mut Checkpoint,
    name: &str,
    config: &mut Config,
    chosen: bool,
    native: (usize, usize),
    prefix: &mut [f32],
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
    let Positions::Resampled { rule, .. } = config.positions else { return Ok(of_patches.to_vec()) };
    if from == to {
        return Ok(of_patches.to_vec());
    }
    if !chosen {
        config.positions = Positions::Resampled { rule, grid: Some(from) };
        return Ok(of_patches.to_vec());
    }
    config.positions = Positions::Fixed;
    let mut positions = vec![0.0; to.0 * to.1 * dim];
    vitlet::positions::resample(of_patches, from, to, dim, rule, &mut positions);
    Ok(positions)
}

/// The grid of a table with `rows` patches: `native` if that has as many, else a square (timm's and transformers'
/// rule). A count that is neither comes back as `native`, so that the tensor's shape does not fit it.
fn grid_of(rows: usize, native: Grid) -> Grid {
    let side = rows.isqrt();
    if native.0 * native.1 != rows && side * side == rows && rows > 0 { (side, side) } else { native }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids() {
        assert_eq!(grid_of(196, (14, 14)), (14, 14));
        assert_eq!(grid_of(6, (2, 3)), (2, 3));
        assert_eq!(grid_of(1369, (14, 14)), (37, 37), "another square than config.json's");
        assert_eq!(grid_of(7, (2, 3)), (2, 3), "neither: the shape will not fit");
    }
}
