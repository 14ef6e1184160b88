//! The error of quantization in each matrix, as far as the file itself shows it, and the share of each layer in the
//! file.
//!
//! The original weights are not in the file, but the step of their quantizer is: rounding to a step s errs by s^2 / 12
//! in the mean square (Bennett 1948, "Spectra of quantized signals"), so signal to noise follows from codes and scales
//! alone. `vitlet convert` reports the measured value; the two agree to a few tenths of a dB (a test), except where the
//! codes are mostly zero, and where the original was stored in f16 already and an f16 file lost nothing.

use half::f16;
use serde::Serialize;
use vitlet::Model;
use vitlet::layout::{DType, TensorSpec};

/// A matrix of a linear layer.
#[derive(Serialize)]
pub struct Matrix {
    name: String,
    /// Signal to quantization noise in dB, expected; none for f32 and for a matrix of zeros.
    sqnr_db: Option<f64>,
    /// With scales, sums and bias.
    bytes: usize,
}

/// A block, or a part that stands beside the blocks.
pub struct Layer {
    pub name: String,
    /// In file order, by their names within the layer.
    pub matrices: Vec<(String, Option<f64>)>,
    pub bytes: usize,
}

impl Layer {
    /// The worst matrix, in dB.
    pub fn lowest_sqnr(&self) -> Option<f64> {
        self.matrices.iter().filter_map(|(_, sqnr)| *sqnr).min_by(f64::total_cmp)
    }

    /// The number of the block that this is.
    pub fn block(&self) -> Option<usize> {
        self.name.strip_prefix("blk.")?.parse().ok()
    }
}

/// Every matrix in file order.
pub fn matrices(model: &Model) -> Vec<Matrix> {
    let mut all: Vec<Matrix> = Vec::new();
    let mut energy: Option<Energy> = None;
    model.for_each_tensor(|spec, bytes| {
        let name = spec.name.as_str();
        let Some((matrix, part)) = name.rsplit_once('.') else { return };
        // LayerNorms have a weight and a bias too, but their weight has one dimension.
        if part == "weight" && spec.dims().len() > 1 {
            all.push(Matrix { name: matrix.to_string(), sqnr_db: None, bytes: 0 });
            energy = Energy::of(spec, bytes);
        }
        let Some(last) = all.last_mut().filter(|m| m.name == matrix) else { return };
        last.bytes += bytes.len();
        if part == "scale" {
            last.sqnr_db = energy.take().and_then(|e| e.sqnr_db(bytes));
        }
    });
    all
}

/// Blocks and the parts beside them, in file order, with everything that belongs to them.
pub fn layers(model: &Model, matrices: &[Matrix]) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    model.for_each_tensor(|spec, bytes| {
        let name = layer_name(spec.name.as_str());
        if layers.last().is_none_or(|l| l.name != name) {
            layers.push(Layer { name: name.to_string(), matrices: Vec::new(), bytes: 0 });
        }
        if let Some(layer) = layers.last_mut() {
            layer.bytes += bytes.len();
        }
    });
    for m in matrices {
        if let Some(layer) = layers.iter_mut().find(|l| l.name == layer_name(&m.name)) {
            let short = m.name.strip_prefix(&layer.name).map_or("", |s| s.trim_start_matches('.'));
            layer.matrices.push((if short.is_empty() { m.name.clone() } else { short.to_string() }, m.sqnr_db));
        }
    }
    layers
}

/// `blk.3` of `blk.3.attn_qkv.weight`, `stage.1` of `stage.1.norm.bias`, `head` of `head.bias`.
fn layer_name(tensor: &str) -> &str {
    let parts = if tensor.starts_with("blk.") || tensor.starts_with("stage.") { 2 } else { 1 };
    tensor.match_indices('.').nth(parts - 1).map_or(tensor, |(end, _)| &tensor[..end])
}

/// Mean squares of one matrix, by row, in units of the row's scale squared.
struct Energy {
    signal: Vec<f64>,
    noise: Vec<f64>,
}

impl Energy {
    fn of(spec: &TensorSpec, bytes: &[u8]) -> Option<Self> {
        match spec.dtype {
            DType::I8 => Some(int8(spec, bytes)),
            DType::F16 => Some(half(spec, bytes)),
            DType::F32 | DType::I32 => None,
        }
    }

    fn sqnr_db(&self, scales: &[u8]) -> Option<f64> {
        let scales = scales.as_chunks::<4>().0.iter().map(|s| f64::from(f32::from_le_bytes(*s)));
        let (mut signal, mut noise) = (0.0, 0.0);
        for ((s, row), rounding) in scales.zip(&self.signal).zip(&self.noise) {
            signal += s * s * row;
            noise += s * s * rounding;
        }
        (signal > 0.0 && noise > 0.0).then(|| 10.0 * (signal / noise).log10())
    }
}

/// Codes with a step of 1. Columns without any code are padding (or lost nothing).
fn int8(spec: &TensorSpec, bytes: &[u8]) -> Energy {
    let by_rows = spec.dims().len() == 2;
    let (k8, rows) = if by_rows { (spec.dims()[0], spec.dims()[1]) } else { (4 * spec.dims()[2], 16 * spec.dims()[3]) };
    let mut signal = vec![0.0; rows];
    let mut used = vec![false; k8];
    for (i, &code) in bytes.iter().enumerate() {
        let (column, row) = match by_rows {
            true => (i % k8, i / k8),
            // `[N/16][K8/4][16][4]`
            false => (i % 4 + i / 64 * 4 % k8, i / 4 % 16 + i / (16 * k8) * 16),
        };
        let code = f64::from(code as i8);
        signal[row] += code * code;
        used[column] |= code != 0.0;
    }
    let columns = used.iter().filter(|&&u| u).count() as f64;
    Energy { noise: vec![columns / 12.0; rows], signal }
}

/// Halves, each with the step of its exponent.
fn half(spec: &TensorSpec, bytes: &[u8]) -> Energy {
    let by_rows = spec.dims().len() == 2;
    let (k, rows) = if by_rows { (spec.dims()[0], spec.dims()[1]) } else { (spec.dims()[1], 16 * spec.dims()[2]) };
    let mut energy = Energy { signal: vec![0.0; rows], noise: vec![0.0; rows] };
    for (i, h) in bytes.as_chunks::<2>().0.iter().enumerate() {
        let row = match by_rows {
            true => i / k,
            // `[N/16][K][16]`
            false => i % 16 + i / (16 * k) * 16,
        };
        let h = f16::from_le_bytes(*h);
        if h != f16::ZERO {
            let exponent = i32::from(h.to_bits() >> 10 & 0x1f).max(1) - 15;
            let step = 2f64.powi(exponent - 10);
            energy.signal[row] += h.to_f64() * h.to_f64();
            energy.noise[row] += step * step / 12.0;
        }
    }
    energy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_belong_to_layers() {
        assert_eq!(layer_name("blk.13.attn_qkv.weight"), "blk.13");
        assert_eq!(layer_name("patch_embd.weight"), "patch_embd");
        assert_eq!(layer_name("pos_embd"), "pos_embd");
        assert_eq!(layer_name("stage.1.downsample.weight"), "stage.1");
    }
}
