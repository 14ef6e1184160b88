//! Every int8 operation against the vectors in tests/fixtures/numerics, on every instruction set.
//!
//! The vectors come from a simulation in PyTorch that was written from docs/numerics.md alone (tests/fixtures/int8.py,
//! vectors.py; their README says what the tensors hold). Everything is compared for equality: codes, scales, zero
//! points and accumulators, and f32 results by their bits, since the document fixes every operation and its order. Only
//! the signs of zeros may differ; they are nobody's promise (see `Isa::min`).
//!
//! Accumulators never leave the registers in f32 epilogues of the engine; they are read here from epilogues with scale
//! 1 and no bias, which are exact below 2^24.
//!
//! What does not belong here: the quantization of weights (the converter's tests), whole networks (tests/engine).

use std::collections::BTreeSet;
use std::string::String;
use std::vec::Vec;
use std::{format, vec};

use safetensors::SafeTensors;

use super::attention::int8::{AttendI8, PackKv, PackQ, PackV, attend_i8_scratch};
use super::isa::Isa;
use super::linear::{Add, Epilogue, LinearI8, PairScratch, Store, WeightsI8};
use super::rows::{Activate, ActivateQuantize, Codes, CodesMut, LayerNorm, LayerNormQuantize, Quantize};
use super::{Kernels, Op, math};
use crate::bytes::{floats, floats_mut};
use crate::config::Activation;
use crate::lanes::{F32x16, I8x16x4, I32x16, U8x16, pad16};
use crate::layout::{index_i8, k8};

mod attention;

const OPERATIONS: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/numerics/operations.safetensors"));
const NETWORK: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/numerics/network.safetensors"));

/// What the network was made from.
const CHECKPOINT: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/checkpoints/timm_deit3/model.safetensors"));

struct Vectors(SafeTensors<'static>);

impl Vectors {
    fn read(bytes: &'static [u8]) -> Self {
        Self(SafeTensors::deserialize(bytes).unwrap())
    }

    fn bytes<const N: usize>(&self, name: &str) -> impl Iterator<Item = [u8; N]> {
        let tensor = self.0.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(tensor.dtype().bitsize(), 8 * N, "{name}");
        tensor.data().as_chunks().0.iter().copied()
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        self.bytes(name).map(f32::from_le_bytes).collect()
    }

    fn i32(&self, name: &str) -> Vec<i32> {
        self.bytes(name).map(i32::from_le_bytes).collect()
    }

    fn u8(&self, name: &str) -> Vec<u8> {
        self.bytes(name).map(u8::from_le_bytes).collect()
    }

    fn i8(&self, name: &str) -> Vec<i8> {
        self.bytes(name).map(i8::from_le_bytes).collect()
    }

    /// The last dimension.
    fn width(&self, name: &str) -> usize {
        *self.0.tensor(name).unwrap().shape().last().unwrap()
    }

    /// Rows as chunks, zero-padded, and how many chunks make a row.
    fn rows(&self, name: &str) -> (Vec<F32x16>, usize) {
        let n = self.width(name);
        (pad(&self.f32(name), n), n.div_ceil(16))
    }

    /// What stands before `suffix` in the names that end in it, at least `least` of them.
    fn stems(&self, prefix: &str, suffix: &str, least: usize) -> BTreeSet<String> {
        let names = self.0.names().into_iter().filter(|name| name.starts_with(prefix));
        let stems: BTreeSet<_> = names.filter_map(|name| name.strip_suffix(suffix)).map(String::from).collect();
        assert!(stems.len() >= least, "{prefix}*{suffix}: vectors are missing");
        stems
    }
}

/// Rows of `n` as chunks, zero-padded.
fn pad(values: &[f32], n: usize) -> Vec<F32x16> {
    let mut out = vec![F32x16([0.0; 16]); values.len() / n * n.div_ceil(16)];
    for (row, padded) in values.chunks_exact(n).zip(floats_mut(&mut out).chunks_exact_mut(pad16(n))) {
        padded[..n].copy_from_slice(row);
    }
    out
}

/// The reverse of [`pad`].
fn unpad(rows: &[F32x16], n: usize) -> Vec<f32> {
    floats(rows).chunks_exact(pad16(n)).flat_map(|row| row[..n].iter().copied()).collect()
}

/// Equal bits; zeros of either sign are equal, and so is every NaN.
fn assert_same(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let zeros = *got == 0.0 && *expected == 0.0;
        let same = got.to_bits() == expected.to_bits() || zeros || got.is_nan() && expected.is_nan();
        assert!(same, "{what} [{i}]: {got:e} for {expected:e}");
    }
}

/// The value that the stored bytes of codes are flipped by.
fn code_xor(kernels: Kernels) -> u8 {
    struct CodeXor;
    impl Op for CodeXor {
        type Output = u8;
        #[inline(always)]
        fn run<S: Isa>(self, _: S) -> u8 {
            S::CODE_XOR
        }
    }
    kernels.run(CodeXor)
}

/// Bytes as an instruction set stores them to codes, and back.
fn flip(codes: &[U8x16], xor: u8) -> Vec<u8> {
    codes.iter().flat_map(|chunk| chunk.0).map(|code| code ^ xor).collect()
}

/// Memory for quantized rows, and its contents.
struct Quantized {
    codes: Vec<U8x16>,
    stride: usize,
    scale: Vec<f32>,
    zero: Vec<i32>,
}

impl Quantized {
    fn new(rows: usize, stride: usize) -> Self {
        Self {
            codes: vec![U8x16([0x5a; 16]); rows * stride],
            stride,
            scale: vec![f32::NAN; rows],
            zero: vec![-1; rows],
        }
    }

    fn out(&mut self) -> CodesMut<'_> {
        CodesMut { codes: &mut self.codes, stride: self.stride, scale: &mut self.scale, zero: &mut self.zero }
    }

    /// Demands the vectors' codes, scales and zero points.
    fn check(&self, kernels: Kernels, codes: &[u8], scale: &[f32], zero: &[i32], what: &str) {
        let n = codes.len() / scale.len();
        let got = flip(&self.codes, code_xor(kernels));
        let got: Vec<u8> = got.chunks_exact(16 * self.stride).flat_map(|row| row[..n].iter().copied()).collect();
        assert_same(&self.scale, scale, what);
        assert_eq!(self.zero, zero, "{what}");
        assert_eq!(got, codes, "{what}");
    }
}

#[test]
fn activations_quantize_to_the_vectors() {
    let v = Vectors::read(OPERATIONS);
    for case in v.stems("quantize.", ".x", 5) {
        let get = |part: &str| format!("{case}.{part}");
        let (x, chunks) = v.rows(&get("x"));
        for kernels in Kernels::available() {
            let mut q = Quantized::new(x.len() / chunks, chunks);
            kernels.run(Quantize { x: &x, chunks, out: q.out() });
            let what = format!("{case} {}", kernels.name());
            q.check(kernels, &v.u8(&get("codes")), &v.f32(&get("scale")), &v.i32(&get("zero")), &what);
        }
    }
}

#[test]
fn layer_norm_gives_the_vectors() {
    let v = Vectors::read(OPERATIONS);
    for case in v.stems("layer_norm.", ".x", 4) {
        let get = |part: &str| format!("{case}.{part}");
        let (n, eps) = (v.width(&get("x")), v.f32(&get("eps"))[0]);
        let [(x, _), (weight, chunks), (bias, _)] = ["x", "weight", "bias"].map(|part| v.rows(&get(part)));
        for kernels in Kernels::available() {
            let mut y = vec![F32x16([f32::NAN; 16]); x.len()];
            kernels.run(LayerNorm { x: &x, weight: &weight, bias: &bias, n, eps, out: &mut y });
            assert_same(&unpad(&y, n), &v.f32(&get("y")), &format!("{case} {}", kernels.name()));

            let (mut once, mut twice) =
                (Quantized::new(x.len() / chunks, chunks), Quantized::new(x.len() / chunks, chunks));
            kernels.run(Quantize { x: &y, chunks, out: twice.out() });
            let row = &mut vec![F32x16([0.0; 16]); chunks];
            kernels.run(LayerNormQuantize { x: &x, weight: &weight, bias: &bias, n, eps, row, out: once.out() });
            let codes = flip(&twice.codes, code_xor(kernels));
            once.check(kernels, &codes, &twice.scale, &twice.zero, &format!("{case} {} quantized", kernels.name()));
        }
    }
}

/// The network's own norms, whose weights are the checkpoint's.
#[test]
fn norms_of_the_network_give_the_vectors() {
    let v = Vectors::read(NETWORK);
    let checkpoint = Vectors::read(CHECKPOINT);
    let widen =
        |name: String| -> Vec<f32> { checkpoint.bytes(&name).map(|x| half::f16::from_le_bytes(x).to_f32()).collect() };
    let norms = [
        ("embedded", "blocks.0.norm1", "blk.0.norm1"),
        ("blk.0.middle", "blocks.0.norm2", "blk.0.norm2"),
        ("blk.0.end", "blocks.1.norm1", "blk.1.norm1"),
        ("blk.1.middle", "blocks.1.norm2", "blk.1.norm2"),
        ("blk.1.end", "norm", "features"),
    ];
    for (before, norm, after) in norms {
        let (n, (x, chunks), y) = (v.width(before), v.rows(before), v.f32(after));
        let x = &x[..y.len() / n * chunks];
        let [weight, bias] = ["weight", "bias"].map(|part| pad(&widen(format!("{norm}.{part}")), n));
        for kernels in Kernels::available() {
            let mut out = vec![F32x16([f32::NAN; 16]); x.len()];
            kernels.run(LayerNorm { x, weight: &weight, bias: &bias, n, eps: 1e-6, out: &mut out });
            assert_same(&unpad(&out, n), &y, &format!("{after} {}", kernels.name()));
        }
    }
}

/// exp of every lane.
struct Exp<'a>(&'a mut [F32x16]);

impl Op for Exp<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        for x in self.0 {
            s.store(math::exp(s, s.load(x)), x);
        }
    }
}

#[test]
fn functions_give_the_vectors() {
    let v = Vectors::read(OPERATIONS);
    let activations =
        [("gelu", Activation::Gelu), ("gelu_tanh", Activation::GeluTanh), ("gelu_quick", Activation::GeluQuick)];
    let (x, chunks) = v.rows("math.x");
    let n = v.width("math.x");
    let ((gate, _), (up, _)) = (v.rows("math.gate"), v.rows("math.up"));
    for kernels in Kernels::available() {
        let mut y = x.clone();
        kernels.run(Exp(&mut y));
        assert_same(&unpad(&y, n), &v.f32("math.exp"), &format!("exp {}", kernels.name()));
        for (name, activation) in activations {
            let mut y = x.clone();
            kernels.run(Activate { x: &mut y, chunks, activation });
            assert_same(&unpad(&y, n), &v.f32(&format!("math.{name}")), &format!("{name} {}", kernels.name()));
        }
        let mut y = [gate.clone(), up.clone()].concat();
        let chunks = y.len();
        kernels.run(Activate { x: &mut y, chunks, activation: Activation::SwiGlu });
        let got = unpad(&y[..gate.len()], v.width("math.gate"));
        assert_same(&got, &v.f32("math.swiglu"), &format!("swiglu {}", kernels.name()));
    }
}

/// A linear layer of the network's vectors with its input, in the engine's layout.
struct Layer {
    rows: usize,
    n: usize,
    k: usize,
    input: Quantized,
    codes: Vec<I8x16x4>,
    sums: Vec<I32x16>,
    scale: Vec<F32x16>,
    bias: Vec<F32x16>,
}

impl Layer {
    fn new(v: &Vectors, name: &str, xor: u8) -> Self {
        let get = |part: &str| format!("{name}.{part}");
        let k = v.width(&get("weight"));
        let (weight, q) = (v.i8(&get("weight")), v.u8(&get("q")));
        let (n, rows) = (weight.len() / k, q.len() / k);
        let mut codes = vec![I8x16x4([0; 64]); pad16(n) / 16 * k8(k) / 4];
        for (i, &code) in weight.iter().enumerate() {
            let at = index_i8(i / k, i % k, k);
            codes[at / 64].0[at % 64] = code;
        }
        let mut sums = vec![I32x16([0; 16]); pad16(n) / 16];
        for (i, &sum) in v.i32(&get("weight.sum")).iter().enumerate() {
            sums[i / 16].0[i % 16] = sum;
        }
        let mut input = Quantized::new(rows, pad16(k) / 16);
        for (i, &q) in q.iter().enumerate() {
            let column = i % k;
            input.codes[i / k * input.stride + column / 16].0[column % 16] = q ^ xor;
        }
        (input.scale, input.zero) = (v.f32(&get("scale")), v.i32(&get("zero")));
        let [scale, bias] = ["weight.scale", "bias"].map(|part| pad(&v.f32(&get(part)), n));
        Self { rows, n, k, input, codes, sums, scale, bias }
    }

    fn run<E: Epilogue>(&self, kernels: Kernels, epilogue: E) {
        let Quantized { codes, stride, scale, zero } = &self.input;
        let a = Codes { codes, stride: *stride, scale, zero };
        let (groups, blocks) = (k8(self.k) / 4, 0..self.bias.len());
        let weights = WeightsI8 { codes: &self.codes, groups, scale: &self.scale, sums: &self.sums, bias: &self.bias };
        let (mut rows, mut paired) = (codes.clone(), self.codes[..groups].to_vec());
        let pairs = PairScratch { rows: &mut rows, weights: &mut paired };
        kernels.run(LinearI8 { a, rows: self.rows, weights, blocks, pairs, epilogue });
    }

    fn stored(&self, kernels: Kernels) -> Vec<f32> {
        let stride = self.bias.len();
        let mut out = vec![F32x16([f32::NAN; 16]); self.rows * stride];
        self.run(kernels, Store { out: &mut out, stride });
        unpad(&out, self.n)
    }
}

#[test]
fn linear_layers_give_the_vectors() {
    let v = Vectors::read(NETWORK);
    for name in v.stems("", ".weight", 10) {
        let acc = v.i32(&format!("{name}.acc"));
        assert!(acc.iter().all(|acc| acc.abs() < 1 << 24), "{name}: exact in f32");
        for kernels in Kernels::available() {
            let what = format!("{name} {}", kernels.name());
            let mut layer = Layer::new(&v, &name, code_xor(kernels));
            assert_same(&layer.stored(kernels), &v.f32(&format!("{name}.y")), &what);

            layer.input.scale.fill(1.0);
            layer.scale.fill(F32x16([1.0; 16]));
            layer.bias.fill(F32x16([0.0; 16]));
            let got: Vec<i32> = layer.stored(kernels).iter().map(|&acc| acc as i32).collect();
            assert_eq!(got, acc, "{what}");
        }
    }
}

#[test]
fn residual_branches_give_the_vectors() {
    let v = Vectors::read(NETWORK);
    let branches = [
        ("embedded", "blk.0.attn_out", "blk.0.middle"),
        ("blk.0.middle", "blk.0.ffn_down", "blk.0.end"),
        ("blk.0.end", "blk.1.attn_out", "blk.1.middle"),
        ("blk.1.middle", "blk.1.ffn_down", "blk.1.end"),
    ];
    for (before, branch, after) in branches {
        for kernels in Kernels::available() {
            let (mut x, stride) = v.rows(before);
            Layer::new(&v, branch, code_xor(kernels)).run(kernels, Add { x: &mut x, stride });
            assert_same(&unpad(&x, v.width(after)), &v.f32(after), &format!("{after} {}", kernels.name()));
        }
    }
}

/// What each linear layer of a block quantizes: LayerNorm's output, attention's, GELU's.
#[test]
fn operands_give_the_vectors() {
    let v = Vectors::read(NETWORK);
    let heads_side_by_side = |name: &str| {
        let (out, d) = (v.f32(name), v.width(name));
        let heads = v.0.tensor(name).unwrap().shape()[0];
        let tokens = out.len() / heads / d;
        let at = |token: usize, column: usize| out[(column / d * tokens + token) * d + column % d];
        pad(&(0..tokens).flat_map(|t| (0..heads * d).map(move |c| at(t, c))).collect::<Vec<_>>(), heads * d)
    };
    for block in ["blk.0", "blk.1"] {
        let at = |part: &str| format!("{block}.{part}");
        let attended = heads_side_by_side(&at("attention.out"));
        let operands = [
            (v.rows(&at("norm1")).0, "attn_qkv"),
            (attended, "attn_out"),
            (v.rows(&at("norm2")).0, "ffn_up"),
            (v.rows(&at("gelu")).0, "ffn_down"),
        ];
        for kernels in Kernels::available() {
            let check = |q: &Quantized, layer: &str| {
                let (what, get) =
                    (format!("{block} {layer} {}", kernels.name()), |part| at(&format!("{layer}.{part}")));
                q.check(kernels, &v.u8(&get("q")), &v.f32(&get("scale")), &v.i32(&get("zero")), &what);
            };
            for (x, layer) in &operands {
                let rows = v.i32(&at(&format!("{layer}.zero"))).len();
                let chunks = x.len() / rows;
                let mut q = Quantized::new(rows, chunks);
                kernels.run(Quantize { x, chunks, out: q.out() });
                check(&q, layer);
            }
            let (mut hidden, chunks) = v.rows(&at("ffn_up.y"));
            let mut q = Quantized::new(hidden.len() / chunks, chunks);
            kernels.run(ActivateQuantize { x: &mut hidden, chunks, activation: Activation::Gelu, out: q.out() });
            check(&q, "ffn_down");
            assert_same(&unpad(&hidden, v.width(&at("gelu"))), &v.f32(&at("gelu")), &at("gelu"));
        }
    }
}
