//! What a network is made of, borrowed from the model file, and the cursor that cuts it out of the tensor data.

use crate::bytes::{self, Plain};
use crate::config::{CONVNEXT_KERNEL, Config, Precision, StageConfig};
use crate::lanes::{ALIGNMENT, F16x16, F32x16, I8x16x4, I32x16, U8x16, pad16};
use crate::layout::{self, Kept};

/// LayerNorm's parameters, each `[pad16(n)]`.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'a> {
    pub(crate) weight: &'a [F32x16],
    pub(crate) bias: &'a [F32x16],
    /// Channels that are normalised over.
    pub(crate) n: usize,
    pub(crate) eps: f32,
}

/// A matrix `[N, K]`, packed as docs/format.md says, with its per-channel vectors `[pad16(N)]`.
#[derive(Clone, Copy)]
pub(crate) struct Linear<'a> {
    pub(crate) k: usize,
    pub(crate) weight: Weight<'a>,
    pub(crate) bias: &'a [F32x16],
}

#[derive(Clone, Copy)]
pub(crate) enum Weight<'a> {
    Int8 { codes: &'a [I8x16x4], scale: &'a [F32x16], sums: &'a [I32x16] },
    F16 { values: &'a [F16x16], scale: &'a [F32x16] },
    F32 { values: &'a [F32x16] },
}

/// What turns pictures into tokens.
pub(crate) struct Embedding<'a> {
    /// XCiT's convolutions before the last one, which is `patch`. A row of the first kernel is `[channel, tap]`, a row
    /// of the others is `[tap, channel]`.
    pub(crate) stem: [Option<Linear<'a>>; layout::STEM.len()],
    pub(crate) patch: Linear<'a>,
    /// `[patches, pad16(dim)]`.
    pub(crate) positions: Option<&'a [F32x16]>,
    pub(crate) rotation: Option<Rotation<'a>>,
    /// `[prefix tokens, pad16(dim)]`, with their positions added.
    pub(crate) prefix: &'a [F32x16],
    pub(crate) norm_pre: Option<Norm<'a>>,
}

/// Rotary position embedding: by which angle each pair of q's and k's channels is rotated, `[patches, pad16(head_dim / 2)]` each.
#[derive(Clone, Copy)]
pub(crate) struct Rotation<'a> {
    pub(crate) cos: &'a [F32x16],
    pub(crate) sin: &'a [F32x16],
}

/// CaiT's two mixings of heads, of logits and of weights: a matrix `[heads, pad16(heads)]` and a bias `[pad16(heads)]`
/// each.
#[derive(Clone, Copy)]
pub(crate) struct Talking<'a> {
    pub(crate) logits: &'a [F32x16],
    pub(crate) logits_bias: &'a [F32x16],
    pub(crate) weights: &'a [F32x16],
    pub(crate) weights_bias: &'a [F32x16],
}

/// One transformer block.
pub(crate) struct Block<'a> {
    /// `None` where the branch reads the stream itself.
    pub(crate) norm1: Option<Norm<'a>>,
    pub(crate) qkv: Linear<'a>,
    /// q's and k's LayerNorm.
    pub(crate) qk_norm: Option<(Norm<'a>, Norm<'a>)>,
    /// Relative position tables `[heads, pad16(relative_len)]`.
    pub(crate) bias: Option<&'a [F32x16]>,
    pub(crate) talking: Option<Talking<'a>>,
    /// XCiT's factors on the scores `[pad16(heads)]`: the attention is between channels.
    pub(crate) temperature: Option<&'a [F32x16]>,
    pub(crate) out: Linear<'a>,
    /// The channels that `out` has rows for; `None` if for all.
    pub(crate) kept1: Option<&'a [[u8; 2]]>,
    pub(crate) gamma1: Option<&'a [F32x16]>,
    /// What XCiT's class attention adds to the patches, in place of attention.
    pub(crate) patches_norm: Option<Norm<'a>>,
    pub(crate) local: Option<Local<'a>>,
    /// XCiT's class attention: a norm of the stream itself, before the MLP, which then has none of its own.
    pub(crate) stream_norm: Option<Norm<'a>>,
    pub(crate) mlp: Mlp<'a>,
}

/// The second residual branch of a block.
pub(crate) struct Mlp<'a> {
    /// `None` where the branch reads the stream itself.
    pub(crate) norm: Option<Norm<'a>>,
    pub(crate) up: Linear<'a>,
    pub(crate) down: Linear<'a>,
    /// The channels that `down` has rows for; `None` if for all.
    pub(crate) kept: Option<&'a [[u8; 2]]>,
    pub(crate) gamma: Option<&'a [F32x16]>,
}

/// One block of ResMLP.
pub(crate) struct MixerBlock<'a> {
    pub(crate) mixer: Mixer<'a>,
    pub(crate) gamma1: Option<&'a [F32x16]>,
    pub(crate) mlp: Mlp<'a>,
}

/// A matrix over the T tokens, row by row, and the diagonals around it: `factor_c (W x)[t][c] + offset_c row_sum_t + bias_factor_c bias_t`.
#[derive(Clone, Copy)]
pub(crate) struct Mixer<'a> {
    pub(crate) weight: MixerWeight<'a>,
    /// `[pad16(T)]`.
    pub(crate) bias: &'a [F32x16],
    /// `[pad16(T)]`: the sums of W's rows.
    pub(crate) row_sum: &'a [F32x16],
    /// `[pad16(dim)]`.
    pub(crate) factor: &'a [F32x16],
    /// `[pad16(dim)]`.
    pub(crate) offset: &'a [F32x16],
    /// `[pad16(dim)]`.
    pub(crate) bias_factor: &'a [F32x16],
}

/// Rows `[T, pad16(T)]`, with their scales and sums.
#[derive(Clone, Copy)]
pub(crate) enum MixerWeight<'a> {
    /// Codes as signed bytes.
    Int8 {
        codes: &'a [U8x16],
        scale: &'a [F32x16],
        sums: &'a [I32x16],
    },
    F16 {
        values: &'a [F16x16],
        scale: &'a [F32x16],
    },
    F32 {
        values: &'a [F32x16],
    },
}

/// ConvNeXt's stages, to be taken in the order of the file: [`downsampling`](Self::downsampling) of each but the first, then its blocks.
pub(crate) struct Stages<'a> {
    pub(super) config: Config,
    pub(super) cursor: Cursor<'a>,
}

impl<'a> Stages<'a> {
    /// What comes before stage `stage`, which is not the first.
    pub(crate) fn downsampling(&mut self, stage: usize) -> Downsampling<'a> {
        let (c, before) = (&self.config, self.config.stages[stage - 1].dim);
        Downsampling {
            norm: self.cursor.norm(before, c),
            linear: self.cursor.linear(c.stages[stage].dim, 4 * pad16(before), c),
        }
    }

    /// The next block of stage `stage`.
    pub(crate) fn block(&mut self, stage: usize) -> ConvBlock<'a> {
        let (c, StageConfig { dim, .. }) = (&self.config, self.config.stages[stage]);
        let hidden = pad16(self.config.stages[stage].hidden());
        ConvBlock {
            conv: self.cursor.depthwise(dim, CONVNEXT_KERNEL),
            norm: self.cursor.norm(dim, c),
            up: self.cursor.linear(hidden, dim, c),
            down: self.cursor.linear(dim, hidden, c),
            gamma: c.keeps_gamma().then(|| self.cursor.chunks(pad16(dim) / 16)),
        }
    }

    /// The offset after the last block.
    pub(super) fn end(mut self) -> usize {
        for (i, stage) in self.config.stages.into_iter().enumerate() {
            if i > 0 {
                let _ = self.downsampling(i);
            }
            for _ in 0..stage.depth {
                let _ = self.block(i);
            }
        }
        self.cursor.at
    }
}

/// What halves height and width between two stages.
pub(crate) struct Downsampling<'a> {
    pub(crate) norm: Norm<'a>,
    /// Of 2 x 2 tokens side by side, `[dy][dx][pad16(dim)]`.
    pub(crate) linear: Linear<'a>,
}

/// One of ConvNeXt's blocks.
pub(crate) struct ConvBlock<'a> {
    pub(crate) conv: Depthwise<'a>,
    pub(crate) norm: Norm<'a>,
    pub(crate) up: Linear<'a>,
    pub(crate) down: Linear<'a>,
    pub(crate) gamma: Option<&'a [F32x16]>,
}

/// XCiT's local patch interaction: a depthwise convolution, GELU, BatchNorm, a depthwise convolution.
pub(crate) struct Local<'a> {
    pub(crate) norm: Norm<'a>,
    pub(crate) first: Depthwise<'a>,
    /// What BatchNorm is at inference.
    pub(crate) affine: Affine<'a>,
    pub(crate) second: Depthwise<'a>,
    pub(crate) gamma: Option<&'a [F32x16]>,
}

/// A depthwise convolution.
#[derive(Clone, Copy)]
pub(crate) struct Depthwise<'a> {
    /// Edge of the kernel.
    pub(crate) kernel: usize,
    /// `[kernel * kernel, pad16(n)]`.
    pub(crate) weight: &'a [F32x16],
    /// `[pad16(n)]`.
    pub(crate) bias: &'a [F32x16],
}

/// Factors and offsets of channels, `[pad16(n)]` each.
pub(crate) struct Affine<'a> {
    pub(crate) factor: &'a [F32x16],
    pub(crate) offset: &'a [F32x16],
}

/// What turns tokens into logits.
pub(crate) struct Tail<'a> {
    /// What ResMLP has in the place of a norm.
    pub(crate) affine: Option<Affine<'a>>,
    pub(crate) norm: Option<Norm<'a>>,
    pub(crate) fc_norm: Option<Norm<'a>>,
    /// On the features that the head reads, `[parts, pad16(dim)]`.
    pub(crate) head_factor: Option<&'a [F32x16]>,
    pub(crate) head: Option<Linear<'a>>,
}

/// Walks the tensor data in the canonical order, which `parse` has checked.
/// What is called most is out of line: bytes count on bare metal.
pub(super) struct Cursor<'a> {
    pub(super) data: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    /// The next `count` elements. Nothing overflows: `parse` has checked that as many bytes lie within the data.
    pub(super) fn chunks<T: Plain>(&mut self, count: usize) -> &'a [T] {
        let bytes = count * size_of::<T>();
        let start = self.at;
        self.at += bytes.next_multiple_of(ALIGNMENT);
        // An empty slice can only follow from a bug here.
        self.data.get(start..start + bytes).and_then(bytes::cast).unwrap_or(&[])
    }

    #[inline(never)]
    pub(super) fn norm(&mut self, n: usize, c: &Config) -> Norm<'a> {
        let chunks = pad16(n) / 16;
        Norm { weight: self.chunks(chunks), bias: self.chunks(chunks), n, eps: c.norm_eps }
    }

    pub(super) fn depthwise(&mut self, n: usize, kernel: usize) -> Depthwise<'a> {
        let chunks = pad16(n) / 16;
        Depthwise { kernel, weight: self.chunks(kernel * kernel * chunks), bias: self.chunks(chunks) }
    }

    pub(super) fn affine(&mut self, n: usize) -> Affine<'a> {
        let chunks = pad16(n) / 16;
        Affine { factor: self.chunks(chunks), offset: self.chunks(chunks) }
    }

    #[inline(never)]
    pub(super) fn mlp(&mut self, norm: bool, c: &Config, kept: Kept<'a>, block: usize) -> Mlp<'a> {
        Mlp {
            norm: norm.then(|| self.norm(c.dim, c)),
            up: self.linear(c.ffn_up_width(), c.dim, c),
            down: self.linear(kept.rows(c, block, 1), pad16(c.hidden), c),
            kept: kept.mask(c, block, 1),
            gamma: c.keeps_gamma().then(|| self.chunks(pad16(c.dim) / 16)),
        }
    }

    pub(super) fn mixer(&mut self, c: &Config) -> Mixer<'a> {
        let (tokens, dim) = (pad16(c.tokens()) / 16, pad16(c.dim) / 16);
        let chunks = c.tokens() * tokens;
        let weight = match c.precision {
            Precision::Int8 => {
                MixerWeight::Int8 { codes: self.chunks(chunks), scale: self.chunks(tokens), sums: self.chunks(tokens) }
            }
            Precision::F16 => MixerWeight::F16 { values: self.chunks(chunks), scale: self.chunks(tokens) },
            Precision::F32 => MixerWeight::F32 { values: self.chunks(chunks) },
        };
        Mixer {
            weight,
            bias: self.chunks(tokens),
            row_sum: self.chunks(tokens),
            factor: self.chunks(dim),
            offset: self.chunks(dim),
            bias_factor: self.chunks(dim),
        }
    }

    pub(super) fn talking(&mut self, heads: usize) -> Talking<'a> {
        let chunks = pad16(heads) / 16;
        Talking {
            logits: self.chunks(heads * chunks),
            logits_bias: self.chunks(chunks),
            weights: self.chunks(heads * chunks),
            weights_bias: self.chunks(chunks),
        }
    }

    #[inline(never)]
    pub(super) fn linear(&mut self, n: usize, k: usize, c: &Config) -> Linear<'a> {
        let blocks = pad16(n) / 16;
        let weight = match c.precision {
            Precision::Int8 => Weight::Int8 {
                codes: self.chunks(blocks * layout::k8(k) / 4),
                scale: self.chunks(blocks),
                sums: self.chunks(blocks),
            },
            Precision::F16 => Weight::F16 { values: self.chunks(blocks * k), scale: self.chunks(blocks) },
            Precision::F32 => Weight::F32 { values: self.chunks(blocks * k) },
        };
        Linear { k, weight, bias: self.chunks(blocks) }
    }
}
