//! A network and the same function with LayerScale (W / gamma, b / gamma, then gamma) become the same int8 model under
//! `fold`: codes equal but for exact rounding ties, combined scales within 2 units in the last place.

use crate::common::{convert_ok, fixture, linear, shared};
use vitlet::{Model, Precision};
use vitlet_convert::network::Linear;
use vitlet_convert::quantize::{Values, fold_into_scale, quantize_int8};
use vitlet_convert::{Mode, Options, WeightScale};

/// Units in the last place between two positive floats.
fn ulps(a: f32, b: f32) -> u32 {
    a.to_bits().abs_diff(b.to_bits())
}

/// How far `w / s` is from the middle between two codes.
fn from_tie(w: f32, s: f32) -> f64 {
    let x = (f64::from(w) / f64::from(s)).abs();
    (x - x.floor() - 0.5).abs()
}

/// The twin that needs no checkpoint: gammas of trained magnitudes, both signs, and down to 1e-7.
#[test]
fn synthetic_twin() {
    let (n, k) = (96, 192);
    let noise = |seed: usize| {
        let x = (seed.wrapping_mul(2_654_435_761) ^ (seed << 7)).wrapping_mul(40_503) % 65_536;
        x as f32 / 65_536.0 - 0.5
    };
    let plain = Linear {
        n,
        k,
        weight: (0..n * k).map(|i| noise(i + 1) * 0.3).collect(),
        bias: (0..n).map(|i| noise(i * 7 + 3)).collect(),
    };
    let gamma: Vec<f32> = (0..n)
        .map(|i| {
            let size = 10f32.powf(-7.0 * i as f32 / n as f32);
            if i % 3 == 0 { -size } else { size }
        })
        .collect();
    let mut scaled = plain.clone();
    for ((row, bias), g) in scaled.weight.chunks_exact_mut(k).zip(&mut scaled.bias).zip(&gamma) {
        row.iter_mut().chain([bias]).for_each(|w| *w /= g);
    }

    let want = quantize_int8(&plain, WeightScale::PerChannel);
    let mut got = quantize_int8(&scaled, WeightScale::PerChannel);
    fold_into_scale(&mut got, &gamma);
    let (Values::Int8 { codes: want_codes, .. }, Values::Int8 { codes: got_codes, .. }) = (&want.values, &got.values)
    else {
        panic!("int8 values")
    };
    for (i, (a, b)) in want_codes.iter().zip(got_codes).enumerate() {
        let tie = from_tie(plain.weight[i], want.scale[i / k]);
        assert!(a == b || (tie < 2e-5 && a.abs_diff(*b) == 1), "weight {i}: {a} and {b}, {tie} from a tie");
    }
    let flipped = want_codes.iter().zip(got_codes).filter(|(a, b)| a != b).count();
    assert!(flipped <= 2, "{flipped} ties of {}", n * k);
    for (j, (a, b)) in want.scale.iter().zip(&got.scale).enumerate() {
        assert!(ulps(*a, *b) <= 2, "scale {j}: {a} and {b}");
    }
}

/// The real pair, where it is there.
#[test]
fn deit_tiny_and_its_layerscale_twin() {
    let (Some(plain), Some(scaled)) =
        (shared("checkpoints/deit_tiny_patch16_224"), shared("checkpoints/deit_tiny_layerscale"))
    else {
        return;
    };
    let (plain, scaled) = (convert_ok(&plain, &Options::default()), convert_ok(&scaled, &Options::default()));
    let (a, b) = (Model::parse(&plain.bytes).expect("a model"), Model::parse(&scaled.bytes).expect("a model"));
    let (mut codes, mut different, mut worst_scale) = (0, 0, 0);
    for i in 0..a.config().depth {
        for name in ["attn_qkv", "attn_out", "ffn_up", "ffn_down"] {
            let name = format!("blk.{i}.{name}");
            let (x, y) = (linear(&a, &name), linear(&b, &name));
            codes += x.codes.len();
            different += x.codes.iter().zip(&y.codes).filter(|(p, q)| p != q).count();
            assert!(x.codes.iter().zip(&y.codes).all(|(p, q)| p.abs_diff(*q) <= 1), "{name}");
            let scales = x.scale.iter().zip(&y.scale);
            worst_scale = scales.map(|(p, q)| ulps(*p, *q)).chain([worst_scale]).max().unwrap_or(0);
        }
    }
    println!("{different} of {codes} codes differ by rounding, scales within {worst_scale} ulp");
    assert!(different * 100_000 <= codes, "{different} of {codes} codes differ");
    assert!(worst_scale <= 2, "{worst_scale} ulp");
}

/// What the report says of gamma is what the modes promise, in every branch.
#[test]
fn the_plan_says_where_each_gamma_goes() {
    let plan = |name: &str, layerscale: Mode, precision: Precision| {
        let options = Options { layerscale, precision, ..Options::default() };
        convert_ok(&fixture(name), &options).report.blocks
    };
    for block in &plan("timm_deit3", Mode::Fold, Precision::Int8) {
        let first = block.fold1.expect("attention");
        assert_eq!(
            (first.gamma_in, first.exact, block.fold2.gamma_in, block.fold2.exact),
            ("scale", true, "scale", true)
        );
        assert!(block.fold3.is_none());
    }
    for block in &plan("timm_deit3", Mode::FoldWeights, Precision::Int8) {
        assert_eq!((block.fold2.gamma_in, block.fold2.exact), ("weights", false));
    }
    for block in &plan("timm_convnext", Mode::Keep, Precision::Int8) {
        assert_eq!((block.fold1, block.fold2.gamma_in, block.fold2.exact), (None, "vector", true));
    }
    // The local branch ends in f32 kernels; class attention has none.
    for (mode, gamma_in) in [(Mode::Fold, "weights"), (Mode::Keep, "vector")] {
        let blocks = plan("timm_xcit", mode, Precision::Int8);
        let third: Vec<_> = blocks.iter().map(|block| block.fold3.map(|fold| (fold.gamma_in, fold.exact))).collect();
        assert_eq!(third, [Some((gamma_in, mode == Mode::Keep)); 2].into_iter().chain([None; 2]).collect::<Vec<_>>());
    }
}
