//! XCiT in timm: the parts that no ViT has. Source of the facts: timm's `Xcit` (timm 1.0); the original repository's
//! names are taken, too.

use vitlet::Config;

use super::Stated;
use crate::branch::batch_norm;
use crate::checkpoint::Checkpoint;
use crate::diagonal;
use crate::error::Error;
use crate::network::{Depthwise, Embedding, Local};

/// Functions of each coordinate of a position, and the longest of their periods over 2 pi: the defaults of
/// `PositionalEncodingFourier`.
const FOURIER: usize = 32;
const TEMPERATURE: f64 = 10_000.0;

/// The convolutions of the stem, of which the last is the patch embedding; each takes up the BatchNorm after it.
///
/// # Errors
/// Tensors that are missing or of another shape.
pub(super) fn embedding(checkpoint: &mut Checkpoint, c: &Config) -> Result<Embedding, Error> {
    let mut convolution = |i: usize| {
        let inputs = i.checked_sub(1).map_or(3, |before| c.stem_channels(before));
        let (name, n) = (format!("patch_embed.proj.{}", 2 * i), c.stem_channels(i));
        let mut layer = checkpoint.layer(&format!("{name}.0"), &[n, inputs, 3, 3], false)?;
        if i > 0 {
            layer.change(|conv| conv.taps_outside(9));
        }
        let norm = batch_norm(checkpoint, &format!("{name}.1"), n)?;
        layer.change(move |conv| diagonal::absorb_output(conv, &norm));
        Ok(layer)
    };
    let mut embedding = Embedding::default();
    for (i, layer) in embedding.stem.iter_mut().enumerate().take(c.stem_layers()) {
        *layer = Some(convolution(i)?);
    }
    embedding.patch = convolution(c.stem_layers())?;
    Ok(embedding)
}

/// The positional encoding of all patches, `[patches, dim]`: sines and cosines of both coordinates, which run from 0 to
/// 2 pi, through a layer.
///
/// # Errors
/// As [`embedding`].
pub(super) fn positions(checkpoint: &mut Checkpoint, c: &Config) -> Result<Vec<f32>, Error> {
    let name = ["pos_embed", "pos_embeder"]
        .into_iter()
        .find(|name| checkpoint.has(&format!("{name}.token_projection.weight")));
    let name = format!("{}.token_projection", name.unwrap_or("pos_embed"));
    let weight = checkpoint.take(&format!("{name}.weight"), &[c.dim, 2 * FOURIER, 1, 1])?;
    let bias = checkpoint.take(&format!("{name}.bias"), &[c.dim])?;
    let (height, width) = c.grid();
    // In f32 as upstream, except for the functions themselves.
    let angle = |i: usize, n: usize| (i + 1) as f32 / (n as f32 + 1e-6) * std::f32::consts::TAU;
    let functions = |angle: f32| {
        (0..FOURIER).map(move |i| {
            let period = TEMPERATURE.powf(f64::from((2 * (i / 2)) as f32 / FOURIER as f32)) as f32;
            let x = f64::from(angle / period);
            f64::from(if i % 2 == 0 { libm::sin(x) } else { libm::cos(x) } as f32)
        })
    };
    let mut positions = Vec::with_capacity(c.patches() * c.dim);
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        let encoding: Vec<f64> = functions(angle(y, height)).chain(functions(angle(x, width))).collect();
        let rows = weight.chunks_exact(2 * FOURIER).zip(&bias);
        positions.extend(rows.map(|(row, &bias)| {
            let sum: f64 = row.iter().zip(&encoding).map(|(&w, e)| f64::from(w) * e).sum();
            (sum + f64::from(bias)) as f32
        }));
    }
    Ok(positions)
}

/// A block's factors on the scores between channels, and its local branch.
///
/// # Errors
/// As [`embedding`].
pub(super) fn cross(checkpoint: &mut Checkpoint, stated: &Stated, i: usize) -> Result<(Vec<f32>, Local), Error> {
    let (c, at) = (&stated.config, |name: &str| stated.at(i, name));
    let temperature = checkpoint.take(&at("attn.temperature"), &[c.heads(), 1, 1])?;
    let local = Local {
        norm: checkpoint.norm(&at("norm3"), c.dim)?,
        first: depthwise(checkpoint, &at("local_mp.conv1"), c.dim)?,
        affine: batch_norm(checkpoint, &at("local_mp.bn"), c.dim)?.into(),
        second: depthwise(checkpoint, &at("local_mp.conv2"), c.dim)?,
        gamma: Some(checkpoint.gamma(&at("gamma3"), c.dim)?),
    };
    Ok((temperature, local))
}

fn depthwise(checkpoint: &mut Checkpoint, name: &str, n: usize) -> Result<Depthwise, Error> {
    Ok(Depthwise {
        kernel: 3,
        weight: checkpoint.take(&format!("{name}.weight"), &[n, 1, 3, 3])?,
        bias: checkpoint.take(&format!("{name}.bias"), &[n])?,
    })
}
