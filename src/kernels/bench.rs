//! Single kernels with their own operands, for `benches/kernels`. Feature `bench`: no part of the stable interface.
//!
//! A [`Case`] is one call as the network makes it: a block of rows, all output channels. Operands are the same on every
//! instruction set, so that a bench can compare what two of them leave before it times them.

use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use super::attention::int8::{AttendI8, PackKv, PackQ, PackV, attend_i8_scratch};
use super::depthwise::DepthwiseConv;
use super::isa::Isa;
use super::linear::{Add, AddScaled, Epilogue, FloatWeights, LinearFloat, LinearI8, PairScratch, Store, WeightsI8};
use super::map::Map;
use super::rows::{Activate, ActivateQuantize, Codes, CodesMut, LayerNormQuantize, Quantize, Scale};
use super::{Kernels, Op};
use crate::config::Activation;
use crate::digest::{checksum, digest};
use crate::lanes::{F16x16, F32x16, I8x16x4, I32x16, U8x16};

/// One kernel and its operands.
pub struct Case {
    /// Multiply-adds of one run; the numbers that it reads, where the kernel is no matrix product.
    pub work: u64,
    out: Out,
    op: Box<dyn FnMut(&mut Out)>,
}

impl Case {
    fn new(work: usize, out: Out, op: impl FnMut(&mut Out) + 'static) -> Self {
        Self { work: work as u64, out, op: Box::new(op) }
    }

    /// Runs the kernel once.
    pub fn run(&mut self) {
        (self.op)(&mut self.out);
    }

    /// A hash of the last run's results.
    pub fn digest(&self) -> u64 {
        let Out { kernels, rows, codes, scale, zero } = &self.out;
        let flip = kernels.run(CodeXor);
        let codes: Vec<u8> = codes.iter().flat_map(|c| c.0).map(|code| code ^ flip).collect();
        let zero: Vec<f32> = zero.iter().map(|&z| z as f32).collect();
        let floats = rows.iter().flat_map(|x| x.0).chain(scale.iter().copied()).chain(zero);
        digest(&floats.collect::<Vec<_>>()) ^ checksum(&codes)
    }
}

/// What kernels write: rows of floats, or rows of codes.
struct Out {
    kernels: Kernels,
    rows: Vec<F32x16>,
    codes: Vec<U8x16>,
    scale: Vec<f32>,
    zero: Vec<i32>,
}

impl Out {
    /// `rows` rows of `chunks` chunks, as floats and as codes.
    fn new(kernels: Kernels, rows: usize, chunks: usize) -> Self {
        Self {
            kernels,
            rows: vec![F32x16([0.0; 16]); rows * chunks],
            codes: vec![U8x16([0; 16]); rows * chunks],
            scale: vec![0.0; rows],
            zero: vec![0; rows],
        }
    }

    fn codes_mut(&mut self, stride: usize) -> CodesMut<'_> {
        CodesMut { codes: &mut self.codes, stride, scale: &mut self.scale, zero: &mut self.zero }
    }
}

struct CodeXor;

impl Op for CodeXor {
    type Output = u8;
    #[inline(always)]
    fn run<S: Isa>(self, _: S) -> u8 {
        S::CODE_XOR
    }
}

/// Uniform within [-1, 1), the same for the same seed: the top bits of an LCG (Knuth, MMIX).
fn numbers(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

fn chunks(seed: u64, len: usize) -> Vec<F32x16> {
    let mut next = numbers(seed);
    (0..len).map(|_| F32x16(core::array::from_fn(|_| next()))).collect()
}

/// An int8 linear layer `[k, n]` and its input `[rows, k]`; k a multiple of 16.
struct LayerI8 {
    a: Out,
    /// Chunks of a row of the input.
    stride: usize,
    codes: Vec<I8x16x4>,
    sums: Vec<I32x16>,
    scale: Vec<F32x16>,
    bias: Vec<F32x16>,
    paired_rows: Vec<U8x16>,
    paired_weights: Vec<I8x16x4>,
}

impl LayerI8 {
    fn new(kernels: Kernels, [rows, k, n]: [usize; 3]) -> Self {
        let (stride, groups, blocks) = (k / 16, k / 4, n.div_ceil(16));
        let x = chunks(1, rows * stride);
        let mut a = Out::new(kernels, rows, stride);
        kernels.run(Quantize { x: &x, chunks: stride, out: a.codes_mut(stride) });
        let mut next = numbers(2);
        let codes: Vec<I8x16x4> =
            (0..blocks * groups).map(|_| I8x16x4(core::array::from_fn(|_| (next() * 127.0) as i8))).collect();
        let sums = codes.chunks_exact(groups).map(channel_sums).collect();
        let [scale, bias] = [3, 4].map(|seed| chunks(seed, blocks));
        let (paired_rows, paired_weights) = (a.codes.clone(), codes[..groups].to_vec());
        Self { a, stride, codes, sums, scale, bias, paired_rows, paired_weights }
    }

    fn run<E: Epilogue>(&mut self, epilogue: E) {
        let Self { a, stride, codes, sums, scale, bias, paired_rows, paired_weights } = self;
        let groups = 4 * *stride;
        a.kernels.run(LinearI8 {
            a: Codes { codes: &a.codes, stride: *stride, scale: &a.scale, zero: &a.zero },
            rows: a.scale.len(),
            weights: WeightsI8 { codes, groups, scale, sums, bias },
            blocks: 0..scale.len(),
            pairs: PairScratch { rows: paired_rows, weights: paired_weights },
            epilogue,
        });
    }
}

/// An int8 linear layer: `[rows, k]` times `[k, n]`; k a multiple of 16.
pub fn linear_i8(kernels: Kernels, rows: usize, k: usize, n: usize) -> Case {
    let (mut layer, stride) = (LayerI8::new(kernels, [rows, k, n]), n.div_ceil(16));
    Case::new(rows * k * n, Out::new(kernels, rows, stride), move |out| {
        layer.run(Store { out: &mut out.rows, stride });
    })
}

/// Where LayerScale's gamma is while a residual branch's last layer is added to the stream.
#[derive(Clone, Copy, Debug)]
pub enum Gamma {
    /// In the scale and the bias: the epilogue adds.
    Folded,
    /// A multiply in the epilogue.
    Fused,
    /// The layer writes its output, a pass multiplies it, a third adds it.
    Pass,
}

/// The end of a residual branch: an int8 layer `[rows, k]` times `[k, n]`, times gamma (a power of two, so that all
/// three leave the same bits), added to the stream; k a multiple of 16. The time holds a copy of the stream.
pub fn residual_i8(kernels: Kernels, [rows, k, n]: [usize; 3], gamma: Gamma) -> Case {
    const FACTOR: f32 = 0.25;
    let stride = n.div_ceil(16);
    let mut layer = LayerI8::new(kernels, [rows, k, n]);
    if matches!(gamma, Gamma::Folded) {
        layer.scale.iter_mut().chain(&mut layer.bias).flat_map(|v| &mut v.0).for_each(|v| *v *= FACTOR);
    }
    let gammas = vec![F32x16([FACTOR; 16]); stride];
    let stream = chunks(5, rows * stride);
    let mut branch = vec![F32x16([0.0; 16]); rows * stride];
    Case::new(rows * k * n, Out::new(kernels, rows, stride), move |out| {
        out.rows.copy_from_slice(&stream);
        let x = &mut out.rows[..];
        match gamma {
            Gamma::Folded => layer.run(Add { x, stride }),
            Gamma::Fused => layer.run(AddScaled { x, stride, gamma: &gammas }),
            Gamma::Pass => {
                layer.run(Store { out: &mut branch, stride });
                kernels.run(Scale { y: &mut branch, gamma: &gammas });
                for (x, y) in x.iter_mut().zip(&branch) {
                    x.0.iter_mut().zip(&y.0).for_each(|(x, y)| *x += y);
                }
            }
        }
    })
}

/// For each of 16 channels the sum of its codes.
fn channel_sums(block: &[I8x16x4]) -> I32x16 {
    let channel = |c: usize| block.iter().flat_map(|group| &group.0[4 * c..][..4]).map(|&code| i32::from(code)).sum();
    I32x16(core::array::from_fn(channel))
}

/// An f32 linear layer: `[rows, k]` times `[k, n]`; k a multiple of 16.
pub fn linear_f32(kernels: Kernels, rows: usize, k: usize, n: usize) -> Case {
    let weights = chunks(2, n.div_ceil(16) * k);
    linear_float(kernels, [rows, k, n], weights, None)
}

/// An f16 linear layer: `[rows, k]` times `[k, n]`; k a multiple of 16.
pub fn linear_f16(kernels: Kernels, rows: usize, k: usize, n: usize) -> Case {
    let weights = chunks(2, n.div_ceil(16) * k);
    let weights = weights.iter().map(|w| F16x16(w.0.map(|x| half::f16::from_f32(x).to_bits()))).collect();
    linear_float(kernels, [rows, k, n], weights, Some(chunks(3, n.div_ceil(16))))
}

fn linear_float<W: FloatWeights + 'static>(
    kernels: Kernels,
    [rows, k, n]: [usize; 3],
    weights: Vec<W>,
    scale: Option<Vec<F32x16>>,
) -> Case {
    let (a_stride, blocks) = (k / 16, n.div_ceil(16));
    let (a, bias) = (chunks(1, rows * a_stride), chunks(4, blocks));
    Case::new(rows * k * n, Out::new(kernels, rows, blocks), move |out| {
        kernels.run(LinearFloat {
            a: &a,
            a_stride,
            k,
            rows,
            weights: &weights,
            scale: scale.as_deref(),
            bias: &bias,
            blocks: 0..blocks,
            epilogue: Store { out: &mut out.rows, stride: blocks },
        });
    })
}

/// int8 attention of `rows` query rows over `tokens` tokens, heads 64 wide.
pub fn attention_i8(kernels: Kernels, rows: usize, tokens: usize, heads: usize) -> Case {
    const DP: usize = 64;
    let (width, blocks) = (heads * DP / 16, tokens.div_ceil(16));
    let (zero, zero_i, no_codes) = (F32x16([0.0; 16]), I32x16([0; 16]), I8x16x4([0; 64]));
    let mut q = Out::new(kernels, tokens, width);
    let mut q_scale = vec![0.0; tokens * heads];
    let mut k_codes = vec![no_codes; blocks * heads * DP / 4];
    let (mut k_scale, mut k_sums) = (vec![zero; blocks * heads], vec![zero_i; blocks * heads]);
    let qkv = chunks(1, tokens * 3 * width);
    let stride = 3 * width;
    kernels.run(PackQ { q: &qkv, stride, rows: tokens, heads, dp: DP, codes: &mut q.codes, scale: &mut q_scale });
    kernels.run(PackKv {
        kv: &qkv[width..],
        stride,
        rows: tokens,
        heads,
        dp: DP,
        k_codes: &mut k_codes,
        k_scale: &mut k_scale,
        k_sums: &mut k_sums,
        v: &mut q.rows,
    });
    let mut v_codes = vec![no_codes; width * 4 * blocks];
    let (mut v_scale, mut v_sums) = (vec![zero; width], vec![zero_i; width]);
    for head in 0..heads {
        kernels.run(PackV {
            v: &q.rows,
            tokens,
            heads,
            dp: DP,
            head,
            v_codes: &mut v_codes[head * DP / 4 * blocks..],
            v_scale: &mut v_scale[head * DP / 16..],
            v_sums: &mut v_sums[head * DP / 16..],
        });
    }
    let scratch = attend_i8_scratch(tokens, DP);
    let mut scores = vec![zero; scratch.scores];
    let [mut p, mut paired_q] = [scratch.p, scratch.q].map(|len| vec![U8x16([0; 16]); len]);
    Case::new(2 * rows * tokens * heads * DP, Out::new(kernels, rows, width), move |out| {
        kernels.run(AttendI8 {
            first: 0,
            bias: None,
            rows,
            heads,
            dp: DP,
            tokens,
            attention_scale: 0.125,
            q_codes: &q.codes,
            q_scale: &q_scale,
            k_codes: &k_codes,
            k_scale: &k_scale,
            k_sums: &k_sums,
            v_codes: &v_codes,
            v_scale: &v_scale,
            v_sums: &v_sums,
            scores: &mut scores,
            p: &mut p,
            q: &mut paired_q,
            out: &mut out.rows,
        });
    })
}

/// A depthwise convolution of all of `height` x `width` tokens of `n` channels, whose multiply-adds are counted as if
/// none were outside the picture; n a multiple of 16.
pub fn depthwise_f32(kernels: Kernels, [height, width, n]: [usize; 3], kernel: usize) -> Case {
    let (tokens, stride) = (height * width, n / 16);
    let [x, weight, bias] = [(1, tokens), (2, kernel * kernel), (3, 1)].map(|(seed, rows)| chunks(seed, rows * stride));
    Case::new(tokens * kernel * kernel * n, Out::new(kernels, tokens, stride), move |out| {
        let (weight, bias, out) = (&weight, &bias, &mut out.rows[..]);
        let x = Map::new(&x, (height, width), n);
        kernels.run(DepthwiseConv { x, kernel, weight, bias, first: 0, out });
    })
}

/// LayerNorm of `[rows, n]`, quantized; n a multiple of 16.
pub fn layer_norm_quantize(kernels: Kernels, rows: usize, n: usize) -> Case {
    let stride = n / 16;
    let (x, weight, bias) = (chunks(1, rows * stride), chunks(2, stride), chunks(3, stride));
    let mut row = vec![F32x16([0.0; 16]); stride];
    Case::new(rows * n, Out::new(kernels, rows, stride), move |out| {
        let out = out.codes_mut(stride);
        kernels.run(LayerNormQuantize { x: &x, weight: &weight, bias: &bias, n, eps: 1e-6, row: &mut row, out });
    })
}

/// GELU of `[rows, n]`; n a multiple of 16. The time holds a copy of the input, which the kernel replaces.
pub fn gelu(kernels: Kernels, rows: usize, n: usize) -> Case {
    let x = chunks(1, rows * n / 16);
    Case::new(rows * n, Out::new(kernels, rows, n / 16), move |out| {
        out.rows.copy_from_slice(&x);
        kernels.run(Activate { x: &mut out.rows, chunks: n / 16, activation: Activation::Gelu });
    })
}

/// GELU of `[rows, n]`, quantized; n a multiple of 16. The time holds a copy of the input, which the kernel replaces.
pub fn gelu_quantize(kernels: Kernels, rows: usize, n: usize) -> Case {
    let (stride, x) = (n / 16, chunks(1, rows * n / 16));
    let mut work = x.clone();
    Case::new(rows * n, Out::new(kernels, rows, stride), move |out| {
        work.copy_from_slice(&x);
        let out = out.codes_mut(stride);
        kernels.run(ActivateQuantize { x: &mut work, chunks: stride, activation: Activation::Gelu, out });
    })
}
