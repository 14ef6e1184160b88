//! Checks of a network's hyperparameters, for the importers.

use vitlet::Config;
use vitlet::config::Attention;

use crate::error::Error;

/// Refuses hyperparameters that the engine does not support, in one line.
pub(crate) fn check(config: &Config) -> Result<(), Error> {
    config.check().map_err(|e| {
        let text = e.to_string();
        let (what, why) = text.split_once(": ").unwrap_or(("hyperparameters", &text));
        Error::new(what, why)
    })
}

/// Refuses a picture size that is not whole patches (in ConvNeXt, whole tokens of the last stage), before anything is
/// computed with it.
pub(crate) fn check_size(c: &Config) -> Result<(), Error> {
    let fits = |size: usize, unit: usize| unit > 0 && size > 0 && size.is_multiple_of(unit);
    let unit = c.token_size();
    if fits(c.image_height, unit.0) && fits(c.image_width, unit.1) {
        return check(c);
    }
    let size = format!("picture size {}x{}", c.image_height, c.image_width);
    let nearest = |size: usize, unit: usize| (size / unit.max(1)).max(1) * unit;
    let (height, width) = (nearest(c.image_height, unit.0), nearest(c.image_width, unit.1));
    let what = if c.stages().is_empty() { "patch" } else { "pixels of the last stage's tokens" };
    let why = format!("not a multiple of the {}x{} {what}; --image-size {height}x{width} is", unit.0, unit.1);
    Err(Error::new(size, why))
}

/// Attention with the usual scale.
pub(crate) fn attention(heads: usize, head_dim: usize) -> Attention {
    Attention { heads, head_dim, scale: attention_scale(head_dim) }
}

/// `1 / sqrt(head_dim)`, as PyTorch rounds it: in double, then to single.
pub(crate) fn attention_scale(head_dim: usize) -> f32 {
    (head_dim as f64).sqrt().recip() as f32
}
