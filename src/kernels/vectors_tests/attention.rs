//! Int8 attention against the vectors: single heads with edge cases, and the heads of the network side by side.
//!
//! Shapes: h heads, T tokens, d the head's width, dp = pad16(d).

use super::*;
use crate::kernels::test_data::Unpaired;

/// One case: the inputs of attention, and every intermediate result according to the vectors.
struct Case {
    what: String,
    heads: usize,
    tokens: usize,
    d: usize,
    /// `[T][3][h][dp]`.
    qkv: Vec<F32x16>,
    /// Codes `[h][T][d]`, scales `[h][T]` (v: `[h][d]`).
    q: (Vec<i8>, Vec<f32>),
    k: (Vec<i8>, Vec<f32>),
    v: (Vec<i8>, Vec<f32>),
    /// `[h][T][T]`.
    scores: Vec<i32>,
    p: Vec<u8>,
    /// `[h][T]`.
    p_sum: Vec<i32>,
    /// `[h][T][d]`.
    acc: Vec<i32>,
    out: Vec<f32>,
}

impl Case {
    fn new(v: &Vectors, name: &str, heads: usize, d: usize, qkv: &[f32]) -> Self {
        let get = |part: &str| format!("{name}.{part}");
        let codes = |part: &str| (v.i8(&get(&format!("{part}.codes"))), v.f32(&get(&format!("{part}.scale"))));
        Self {
            what: String::from(name),
            heads,
            tokens: qkv.len() / (3 * heads * d),
            d,
            qkv: pad(qkv, d),
            q: codes("q"),
            k: codes("k"),
            v: codes("v"),
            scores: v.i32(&get("scores")),
            p: v.u8(&get("p")),
            p_sum: v.i32(&get("p.sum")),
            acc: v.i32(&get("acc")),
            out: v.f32(&get("out")),
        }
    }

    fn all() -> Vec<Self> {
        let v = Vectors::read(OPERATIONS);
        let single = v.stems("attention.", ".q", 4).into_iter().map(|name| {
            let [q, k, value] = ["q", "k", "v"].map(|part| v.f32(&format!("{name}.{part}")));
            let d = v.width(&format!("{name}.q"));
            let tokens = q.chunks_exact(d).zip(k.chunks_exact(d)).zip(value.chunks_exact(d));
            let qkv: Vec<f32> = tokens.flat_map(|((q, k), v)| [q, k, v].concat()).collect();
            Self::new(&v, &name, 1, d, &qkv)
        });
        let v = Vectors::read(NETWORK);
        let several = ["blk.0", "blk.1"].map(|block| {
            let (name, qkv) = (format!("{block}.attention"), v.f32(&format!("{block}.attn_qkv.y")));
            let d = v.width(&format!("{name}.out"));
            Self::new(&v, &name, v.width(&format!("{block}.attn_qkv.y")) / (3 * d), d, &qkv)
        });
        single.chain(several).collect()
    }
}

/// q, k and v as the engine packs them.
struct Packed {
    q_codes: Vec<U8x16>,
    q_scale: Vec<f32>,
    k_codes: Vec<I8x16x4>,
    k_scale: Vec<F32x16>,
    k_sums: Vec<I32x16>,
    v_codes: Vec<I8x16x4>,
    v_scale: Vec<F32x16>,
    v_sums: Vec<I32x16>,
}

impl Packed {
    fn new(kernels: Kernels, c: &Case) -> Self {
        let (heads, tokens, dp) = (c.heads, c.tokens, pad16(c.d));
        let (chunks, blocks) = (dp / 16, tokens.div_ceil(16));
        let (float, int) = (F32x16([f32::NAN; 16]), I32x16([-1; 16]));
        let mut v = vec![float; tokens * heads * chunks];
        let mut x = Self {
            q_codes: vec![U8x16([1; 16]); tokens * heads * chunks],
            q_scale: vec![f32::NAN; tokens * heads],
            k_codes: vec![I8x16x4([1; 64]); blocks * heads * dp / 4],
            k_scale: vec![float; blocks * heads],
            k_sums: vec![int; blocks * heads],
            v_codes: vec![I8x16x4([1; 64]); heads * chunks * 4 * blocks],
            v_scale: vec![float; heads * chunks],
            v_sums: vec![int; heads * chunks],
        };
        let (codes, scale) = (&mut x.q_codes, &mut x.q_scale);
        let stride = 3 * heads * chunks;
        kernels.run(PackQ { q: &c.qkv, stride, rows: tokens, heads, dp, codes, scale });
        kernels.run(PackKv {
            kv: &c.qkv[heads * chunks..],
            stride,
            rows: tokens,
            heads,
            dp,
            k_codes: &mut x.k_codes,
            k_scale: &mut x.k_scale,
            k_sums: &mut x.k_sums,
            v: &mut v,
        });
        for head in 0..heads {
            let values = head * chunks..(head + 1) * chunks;
            kernels.run(PackV {
                v: &v,
                tokens,
                heads,
                dp,
                head,
                v_codes: &mut x.v_codes[values.start * 4 * blocks..values.end * 4 * blocks],
                v_scale: &mut x.v_scale[values.clone()],
                v_sums: &mut x.v_sums[values],
            });
        }
        x
    }

    fn check(&self, kernels: Kernels, c: &Case) {
        let (heads, tokens, d, dp) = (c.heads, c.tokens, c.d, pad16(c.d));
        let what = &format!("{} {}", c.what, kernels.name());
        let q = flip(&self.q_codes, code_xor(kernels));
        let [k_codes, v_codes] = [&self.k_codes, &self.v_codes].map(|codes| kernels.run(Unpaired(codes)));
        for head in 0..heads {
            for token in 0..tokens {
                let row = head * tokens + token;
                let key = (token / 16 * heads + head, token % 16);
                assert_same(&[self.q_scale[token * heads + head]], &[c.q.1[row]], what);
                assert_same(&[self.k_scale[key.0].0[key.1]], &[c.k.1[row]], what);
                for channel in 0..d {
                    let expected = row * d + channel;
                    let q = i32::from(q[(token * heads + head) * dp + channel]) - 128;
                    let k = k_codes[key.0 * dp / 4 + channel / 4].0[4 * key.1 + channel % 4];
                    let column = head * dp + channel;
                    let group = column / 16 * 4 * tokens.div_ceil(16) + token / 4;
                    let v = v_codes[group].0[4 * (column % 16) + token % 4];
                    let codes = (q, k, v);
                    assert_eq!(codes, (i32::from(c.q.0[expected]), c.k.0[expected], c.v.0[expected]), "{what}");
                }
            }
        }
        let v_scale = unpad(&self.v_scale, dp);
        let v_scale: Vec<f32> = v_scale.chunks_exact(dp).flat_map(|head| head[..d].to_vec()).collect();
        assert_same(&v_scale, &c.v.1, what);
    }

    /// Attends `rows` query rows from `first` on: the output, and the remaining contents of the scratch.
    fn attend(&self, kernels: Kernels, c: &Case, first: usize, rows: usize) -> (Vec<f32>, Vec<f32>, Vec<u8>) {
        let (heads, tokens, dp) = (c.heads, c.tokens, pad16(c.d));
        let width = heads * dp / 16;
        let need = attend_i8_scratch(tokens, dp);
        let (mut scores, mut p) = (vec![F32x16([f32::NAN; 16]); need.scores], vec![U8x16([9; 16]); need.p]);
        let mut out = vec![F32x16([f32::NAN; 16]); rows * width];
        kernels.run(AttendI8 {
            first: 0,
            bias: None,
            rows,
            heads,
            dp,
            tokens,
            attention_scale: 1.0 / (c.d as f32).sqrt(),
            q_codes: &self.q_codes[first * width..],
            q_scale: &self.q_scale[first * heads..],
            k_codes: &self.k_codes,
            k_scale: &self.k_scale,
            k_sums: &self.k_sums,
            v_codes: &self.v_codes,
            v_scale: &self.v_scale,
            v_sums: &self.v_sums,
            scores: &mut scores,
            p: &mut p,
            q: &mut vec![U8x16([9; 16]); need.q],
            out: &mut out,
        });
        (unpad(&out, c.d), floats(&scores)[..tokens].to_vec(), flip(&p, code_xor(kernels))[..tokens].to_vec())
    }
}

#[test]
fn packing_gives_the_vectors() {
    for case in Case::all() {
        for kernels in Kernels::available() {
            Packed::new(kernels, &case).check(kernels, &case);
        }
    }
}

#[test]
fn outputs_and_accumulators_are_those_of_the_vectors() {
    for c in Case::all() {
        for kernels in Kernels::available() {
            let what = format!("{} {}", c.what, kernels.name());
            let packed = Packed::new(kernels, &c);
            let (out, ..) = packed.attend(kernels, &c, 0, c.tokens);
            let mut expected = vec![0.0; out.len()];
            for (i, &y) in c.out.iter().enumerate() {
                let (head, token, channel) = (i / c.d / c.tokens, i / c.d % c.tokens, i % c.d);
                expected[(token * c.heads + head) * c.d + channel] = y;
                // o is f32(acc) times this, rounded once: dividing leaves acc to within acc / 2^24, far below one half.
                let factor = c.v.1[head * c.d + channel] * (1.0 / c.p_sum[head * c.tokens + token] as f32);
                let got = out[(token * c.heads + head) * c.d + channel];
                let acc = if factor == 0.0 { 0.0 } else { (f64::from(got) / f64::from(factor)).round() };
                assert_eq!(acc as i32, c.acc[i], "{what} [{i}]");
            }
            assert_same(&out, &expected, &what);
        }
    }
}

/// Query row by query row, since the scratch keeps only the last: the last head's scores and probabilities.
#[test]
fn scores_and_probabilities_are_those_of_the_vectors() {
    for c in Case::all() {
        for kernels in Kernels::available() {
            let packed = Packed::new(kernels, &c);
            let mut unscaled = Packed::new(kernels, &c);
            unscaled.k_scale.fill(F32x16([1.0; 16]));
            for token in 0..c.tokens {
                let (what, row) =
                    (format!("{} {} row {token}", c.what, kernels.name()), (c.heads - 1) * c.tokens + token);
                let keys = row * c.tokens..(row + 1) * c.tokens;
                let (_, scores, _) = unscaled.attend(kernels, &c, token, 1);
                let scores: Vec<i32> = scores.iter().map(|&t| t as i32).collect();
                assert_eq!(scores, c.scores[keys.clone()], "{what}");
                let (_, _, p) = packed.attend(kernels, &c, token, 1);
                assert_eq!(p, c.p[keys], "{what}");
                assert_eq!(p.iter().map(|&p| i32::from(p)).sum::<i32>(), c.p_sum[row], "{what}");
            }
        }
    }
}
