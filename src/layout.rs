//! The layout of a model file: which tensors a [`Config`] has, in their one canonical order, and how matrices are packed.
//!
//! The converter writes by this list and `Model::parse` checks against it, so there is one source of truth.
//! docs/format.md says the same in words.

use core::fmt::Write;

mod kept;
pub mod keys;

pub use kept::Kept;

pub use crate::error::TensorName;
pub use crate::lanes::{ALIGNMENT, FORMAT_VERSION};

use crate::config::{CONVNEXT_KERNEL, Config, Family, Precision};
use crate::lanes::pad16;

/// Element types of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// Signed byte.
    I8,
    /// Signed 32-bit integer.
    I32,
}

impl DType {
    /// GGML's number of this type.
    pub const fn ggml(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::I8 => 24,
            Self::I32 => 26,
        }
    }

    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F16 => 2,
            Self::I8 => 1,
        }
    }
}

#[derive(Clone, Copy)]
enum Prefix {
    None,
    Stage(usize),
    Block(usize),
}

fn tensor_name(prefix: Prefix, stem: &str, suffix: &str) -> TensorName {
    let mut name = TensorName::EMPTY;
    // The longest, "blk.1023.attn_q_norm.weight", fits.
    let _ = match prefix {
        Prefix::None => write!(name, "{stem}{suffix}"),
        Prefix::Stage(i) => write!(name, "stage.{i}.{stem}{suffix}"),
        Prefix::Block(i) => write!(name, "blk.{i}.{stem}{suffix}"),
    };
    name
}

/// One tensor of the canonical list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorSpec {
    /// Its name.
    pub name: TensorName,
    /// Its element type.
    pub dtype: DType,
    dims: [usize; 4],
    rank: u8,
}

impl TensorSpec {
    /// GGUF dimensions, innermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..usize::from(self.rank)]
    }

    /// Bytes without padding; `usize::MAX`, which no file has, where this machine cannot address as many.
    pub fn bytes(&self) -> usize {
        self.dims().iter().fold(self.dtype.bytes(), |bytes, dim| bytes.saturating_mul(*dim))
    }

    /// Bytes up to the next tensor, as [`bytes`](Self::bytes).
    pub fn padded_bytes(&self) -> usize {
        self.bytes().checked_next_multiple_of(ALIGNMENT).unwrap_or(usize::MAX)
    }
}

/// K rounded up as int8 weights store it.
pub const fn k8(k: usize) -> usize {
    k.div_ceil(8) * 8
}

/// Where W[n, k] stands in a packed int8 matrix with K inputs: `[N/16][K8/4][16][4]`.
pub const fn index_i8(n: usize, k: usize, k_len: usize) -> usize {
    ((n / 16) * (k8(k_len) / 4) + k / 4) * 64 + (n % 16) * 4 + k % 4
}

/// Where W[n, k] stands in a packed f16 or f32 matrix with K inputs: `[N/16][K][16]`.
pub const fn index_float(n: usize, k: usize, k_len: usize) -> usize {
    ((n / 16) * k_len + k) * 16 + n % 16
}

/// The convolutions of XCiT's stem. The last one, the patch embedding, is not among them.
pub const STEM: [&str; 3] = ["stem.0", "stem.1", "stem.2"];

/// Factors on the head's inputs.
pub const HEAD_FACTOR: &str = "head.factor";

/// Calls `visit` with every tensor of a network, in the order in which they stand in the file; stops at the first error.
///
/// # Errors
/// The first that `visit` returns.
pub fn for_each_tensor<E>(
    config: &Config,
    kept: Kept<'_>,
    mut visit: impl FnMut(TensorSpec) -> Result<(), E>,
) -> Result<(), E> {
    let c = config;
    let mut list = List { precision: c.precision, visit: &mut visit };
    let top = Prefix::None;
    for (i, stem) in STEM.iter().enumerate().take(c.stem_layers()) {
        list.linear(top, stem, c.stem_channels(i), c.stem_inputs(i))?;
    }
    list.linear(top, "patch_embd", c.embedding_dim(), c.patch_len())?;
    if c.has_positions() {
        list.matrix(top, "pos_embd", c.dim, c.table_grid().0 * c.table_grid().1)?;
    }
    if c.family == Family::Dinov3 {
        list.matrix(top, "rope_cos", c.head_dim / 2, c.patches())?;
        list.matrix(top, "rope_sin", c.head_dim / 2, c.patches())?;
    }
    if c.prefix_tokens > 0 {
        list.matrix(top, "prefix_embd", c.dim, c.prefix_tokens)?;
    }
    if c.norm_pre {
        list.norm(top, "norm_pre", c.embedding_dim())?;
    }
    let blocks = if c.has_stages() { 0 } else { c.blocks() };
    for i in 0..blocks {
        let block = Prefix::Block(i);
        if c.family == Family::ResMlp {
            list.mixer(block, c)?;
            list.mlp(block, c, c.dim)?;
            continue;
        }
        if c.block_norm {
            list.norm(block, "norm1", c.dim)?;
        }
        list.linear(block, "attn_qkv", 3 * c.attention_width(), c.dim)?;
        if c.qk_norm {
            list.norm(block, "attn_q_norm", c.head_dim)?;
            list.norm(block, "attn_k_norm", c.head_dim)?;
        }
        if c.family == Family::Beit {
            list.matrix(block, "attn_bias", c.relative_len(), c.heads)?;
        }
        let (cross, class) = (c.family == Family::Xcit && i < c.depth, c.family == Family::Xcit && i >= c.depth);
        if cross {
            list.vector(block, "attn_temperature", "", DType::F32, c.heads)?;
        }
        if c.family == Family::Cait && i < c.depth {
            for stem in ["heads_logits", "heads_weights"] {
                list.put(block, stem, ".weight", DType::F32, &[pad16(c.heads), c.heads])?;
                list.vector(block, stem, ".bias", DType::F32, c.heads)?;
            }
        }
        list.linear(block, "attn_out", kept.rows(c, i, 0), c.attention_width())?;
        if c.keeps_gamma() {
            list.vector(block, "gamma1", "", DType::F32, c.dim)?;
        }
        if class {
            list.norm(block, "patches_norm", c.dim)?;
        }
        if cross {
            list.norm(block, "norm3", c.dim)?;
            list.depthwise(block, "local_conv1", c.dim, 3)?;
            list.norm(block, "local_norm", c.dim)?;
            list.depthwise(block, "local_conv2", c.dim, 3)?;
            if c.keeps_gamma() {
                list.vector(block, "gamma3", "", DType::F32, c.dim)?;
            }
        }
        list.mlp(block, c, kept.rows(c, i, 1))?;
    }
    if c.has_stages() {
        list.stages(c)?;
    }
    if c.norm {
        list.norm(top, "norm", c.dim)?;
    }
    if c.fc_norm {
        list.norm(top, "fc_norm", c.dim)?;
    }
    if c.head_factors {
        list.matrix(top, HEAD_FACTOR, c.dim, c.parts())?;
    }
    if c.classes > 0 {
        list.linear(top, "head", c.classes, c.parts() * pad16(c.dim))?;
    }
    Ok(())
}

/// What is called most is out of line: the list is long, and bytes count on bare metal.
struct List<'v, V> {
    precision: Precision,
    visit: &'v mut V,
}

impl<E, V: FnMut(TensorSpec) -> Result<(), E>> List<'_, V> {
    /// ConvNeXt's blocks, and before those of each stage but the first what halves height and width.
    fn stages(&mut self, c: &Config) -> Result<(), E> {
        let mut blocks = 0..;
        for (s, stage) in c.stages.iter().enumerate() {
            if let Some(before) = s.checked_sub(1) {
                let before = c.stages[before].dim;
                self.norm(Prefix::Stage(s), "norm", before)?;
                self.linear(Prefix::Stage(s), "downsample", stage.dim, 4 * pad16(before))?;
            }
            for block in blocks.by_ref().take(stage.depth).map(Prefix::Block) {
                self.depthwise(block, "dwconv", stage.dim, CONVNEXT_KERNEL)?;
                self.norm(block, "norm2", stage.dim)?;
                self.linear(block, "ffn_up", pad16(stage.hidden()), stage.dim)?;
                self.linear(block, "ffn_down", stage.dim, pad16(stage.hidden()))?;
                if c.keeps_gamma() {
                    self.vector(block, "gamma2", "", DType::F32, stage.dim)?;
                }
            }
        }
        Ok(())
    }

    /// A depthwise convolution of `n` channels, `edge` x `edge` taps.
    fn depthwise(&mut self, at: Prefix, stem: &str, n: usize, edge: usize) -> Result<(), E> {
        self.put(at, stem, ".weight", DType::F32, &[pad16(n), edge * edge])?;
        self.vector(at, stem, ".bias", DType::F32, n)
    }

    fn put(&mut self, at: Prefix, stem: &str, suffix: &str, dtype: DType, dims: &[usize]) -> Result<(), E> {
        let mut all = [1; 4];
        all[..dims.len()].copy_from_slice(dims);
        let name = tensor_name(at, stem, suffix);
        (self.visit)(TensorSpec { name, dtype, dims: all, rank: dims.len() as u8 })
    }

    #[inline(never)]
    fn vector(&mut self, at: Prefix, stem: &str, suffix: &str, dtype: DType, n: usize) -> Result<(), E> {
        self.put(at, stem, suffix, dtype, &[pad16(n)])
    }

    #[inline(never)]
    fn matrix(&mut self, at: Prefix, stem: &str, n: usize, rows: usize) -> Result<(), E> {
        self.put(at, stem, "", DType::F32, &[pad16(n), rows])
    }

    #[inline(never)]
    fn norm(&mut self, at: Prefix, stem: &str, n: usize) -> Result<(), E> {
        self.vector(at, stem, ".weight", DType::F32, n)?;
        self.vector(at, stem, ".bias", DType::F32, n)
    }

    /// With `rows` of the last matrix's.
    fn mlp(&mut self, at: Prefix, c: &Config, rows: usize) -> Result<(), E> {
        if c.block_norm {
            self.norm(at, "norm2", c.dim)?;
        }
        self.linear(at, "ffn_up", c.ffn_up_width(), c.dim)?;
        self.linear(at, "ffn_down", rows, pad16(c.hidden))?;
        if c.keeps_gamma() {
            self.vector(at, "gamma2", "", DType::F32, c.dim)?;
        }
        Ok(())
    }

    /// The matrix over tokens row by row, since it is multiplied from the left, and what belongs to the tokens and to the channels.
    fn mixer(&mut self, at: Prefix, c: &Config) -> Result<(), E> {
        let tokens = c.tokens();
        let dtype = match self.precision {
            Precision::Int8 => DType::I8,
            Precision::F16 => DType::F16,
            Precision::F32 => DType::F32,
        };
        self.put(at, "mix", ".weight", dtype, &[pad16(tokens), tokens])?;
        if self.precision != Precision::F32 {
            self.vector(at, "mix", ".scale", DType::F32, tokens)?;
        }
        if self.precision == Precision::Int8 {
            self.vector(at, "mix", ".sum", DType::I32, tokens)?;
        }
        self.vector(at, "mix", ".bias", DType::F32, tokens)?;
        self.vector(at, "mix", ".row_sum", DType::F32, tokens)?;
        for suffix in [".factor", ".offset", ".bias_factor"] {
            self.vector(at, "mix", suffix, DType::F32, c.dim)?;
        }
        if c.keeps_gamma() {
            self.vector(at, "gamma1", "", DType::F32, c.dim)?;
        }
        Ok(())
    }

    #[inline(never)]
    fn linear(&mut self, at: Prefix, stem: &str, n: usize, k: usize) -> Result<(), E> {
        let blocks = pad16(n) / 16;
        match self.precision {
            Precision::Int8 => self.put(at, stem, ".weight", DType::I8, &[4, 16, k8(k) / 4, blocks])?,
            Precision::F16 => self.put(at, stem, ".weight", DType::F16, &[16, k, blocks])?,
            Precision::F32 => self.put(at, stem, ".weight", DType::F32, &[16, k, blocks])?,
        }
        if self.precision != Precision::F32 {
            self.vector(at, stem, ".scale", DType::F32, n)?;
        }
        if self.precision == Precision::Int8 {
            self.vector(at, stem, ".sum", DType::I32, n)?;
        }
        self.vector(at, stem, ".bias", DType::F32, n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_cannot_be_addressed_saturate() {
        let spec = |dims: [usize; 4]| TensorSpec {
            name: tensor_name(Prefix::None, "x", ""),
            dtype: DType::F32,
            dims,
            rank: 4,
        };
        let half = 1 << (usize::BITS / 2);
        assert_eq!((spec([4, 16, 3, 5]).bytes(), spec([4, 16, 3, 5]).padded_bytes()), (3840, 3840));
        assert_eq!((spec([3, 1, 1, 1]).bytes(), spec([3, 1, 1, 1]).padded_bytes()), (12, 64));
        // 2^32 or 2^64: a product that wraps is 0.
        assert_eq!(spec([half, half, 1, 1]).bytes(), usize::MAX);
        assert_eq!(spec([half, half / 4, 1, 1]).padded_bytes(), usize::MAX);
    }
}
