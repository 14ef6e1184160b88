//! Every fixture checkpoint converts, in every precision and mode, to a file that the engine takes.

use crate::common::{convert_ok, fixture, fixture_dirs, linear};
use vitlet::config::Xcit;
use vitlet::{Activation, Config, Family, LayerScale, Model, Named, Pooling, Precision, Scores};
use vitlet_convert::{Mode, Options, WeightScale, convert};

const PRECISIONS: [Precision; 3] = [Precision::Int8, Precision::F16, Precision::F32];
const MODES: [Mode; 4] = [Mode::Fold, Mode::FoldWeights, Mode::Keep, Mode::KeepPass];

fn tokens_norm(c: &Config) -> bool {
    matches!(c.family, Family::Xcit(Xcit { tokens_norm: true, .. }))
}

#[test]
fn every_fixture_converts_in_every_mode_and_twice_to_the_same_bytes() {
    for dir in fixture_dirs() {
        for precision in PRECISIONS {
            for layerscale in MODES {
                let options = Options { precision, layerscale, ..Options::default() };
                let converted = convert_ok(&dir, &options);
                let what = format!("{} {} {}", dir.display(), precision.name(), layerscale.name());
                let model = Model::parse(&converted.bytes).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(model.config().precision, precision, "{what}");
                assert_eq!(model.stated_checksum(), Some(vitlet::checksum(model.data())), "{what}");
                assert_eq!(model.original_gamma(1).is_some(), model.config().layerscale != LayerScale::None, "{what}");
            }
        }
        let twice = [(); 2].map(|()| convert_ok(&dir, &Options::default()).bytes);
        assert!(twice[0][..] == twice[1][..], "{}: not deterministic", dir.display());
    }
}

#[test]
fn the_families_are_what_their_configs_say() {
    let config = |name: &str| {
        let converted = convert_ok(&fixture(name), &Options::default());
        *Model::parse(&converted.bytes).expect("a model").config()
    };
    assert_eq!(config("timm_deit_distilled").pooling, Pooling::ClsDist);
    assert_eq!(config("timm_deit3").layerscale, LayerScale::Fold);
    assert_eq!((config("timm_deit3").image_height, config("timm_deit3").image_width), (48, 32));
    assert_eq!(config("timm_reg4_dinov2").prefix_tokens(), 5);
    assert_eq!(config("timm_reg4_swiglu").activation, Activation::SwiGlu);
    assert_eq!(config("timm_reg4_swiglu").hidden, 96); // int(36 * 5.33334) / 2
    let gap = config("timm_reg4_gap");
    assert_eq!((gap.pooling, gap.fc_norm, gap.norm, gap.prefix_tokens()), (Pooling::Avg, true, false, 4));
    assert_eq!(gap.hidden, 201); // int(36 * 5.6)
    let norm = config("timm_gap_norm");
    assert_eq!((norm.fc_norm, norm.norm, norm.layerscale), (false, true, LayerScale::Fold));
    let clip = config("timm_clip");
    assert_eq!((clip.norm_pre(), clip.activation, clip.norm_eps), (true, Activation::GeluQuick, 1e-5));
    assert_eq!(config("timm_features").classes, 0);
    assert!(config("timm_qk_norm").qk_norm());
    assert_eq!(config("timm_avg_all").pooling, Pooling::All);
    let convnext = config("timm_convnext");
    assert_eq!(
        convnext.stages().iter().map(|s| (s.dim, s.depth)).collect::<Vec<_>>(),
        [(18, 1), (36, 2), (20, 1), (40, 1)]
    );
    assert_eq!((convnext.dim, convnext.depth, convnext.hidden), (40, 5, 160));
    assert_eq!((convnext.stage_grid(0), convnext.grid(), convnext.tokens()), ((8, 16), (1, 2), 2));
    assert_eq!((convnext.norm, convnext.fc_norm, config("timm_convnext_hnf").norm), (false, true, true));
    let xcit = config("timm_xcit");
    assert_eq!((xcit.class_blocks(), tokens_norm(&xcit), xcit.grid()), (2, true, (4, 5)));
    assert_eq!([0, 1, 2, 3].map(|i| xcit.stem_channels(i)), [4, 9, 18, 36]);
    let xcit = config("timm_xcit_p8");
    assert_eq!((xcit.class_blocks(), tokens_norm(&xcit), xcit.stem_layers()), (3, false, 2));
    let resmlp = config("timm_resmlp");
    assert_eq!((resmlp.heads(), resmlp.head_dim(), resmlp.attention_width(), resmlp.tokens()), (0, 0, 0, 20));
    assert_eq!((resmlp.block_norm(), resmlp.norm, resmlp.has_positions()), (false, true, false));
    assert_eq!(config("hf_vit").norm_eps, 1e-12);
    assert_eq!(config("hf_vit_multi_label").scores, Scores::Sigmoid);
    assert_eq!(config("hf_vit_multi_label").activation, Activation::GeluTanh);
    assert_eq!(config("hf_deit").pooling, Pooling::Cls);
    assert_eq!(config("hf_deit_teacher").pooling, Pooling::ClsDist);
    assert_eq!(config("hf_dinov2").pooling, Pooling::ClsAvg);
    assert_eq!(config("hf_dinov2").image_height, 42, "the processor's size wins");
    assert_eq!(config("hf_dinov2_registers").prefix_tokens(), 5);
    assert_eq!(config("hf_dinov2_swiglu").hidden, 72); // 2/3 of 108, a multiple of 8
    assert_eq!(config("hf_dinov2_model").classes, 0);
}

#[test]
fn progress_counts_every_layer() {
    for name in ["timm_vit", "timm_features", "timm_cait", "timm_convnext", "timm_resmlp"] {
        let mut seen = Vec::new();
        let converted = convert(&fixture(name), &Options::default(), &mut |p| {
            seen.push((p.layer.to_owned(), p.done, p.total));
        });
        let linears = converted.expect("converted").report.linears;
        assert_eq!(seen.len(), linears.len());
        for (i, ((layer, done, total), linear)) in seen.into_iter().zip(&linears).enumerate() {
            assert_eq!((layer.as_str(), done, total), (linear.name.as_str(), i + 1, linears.len()));
        }
    }
}

#[test]
fn the_processor_size_is_announced_and_labels_come_from_the_config() {
    let converted = convert_ok(&fixture("hf_dinov2"), &Options::default());
    let told = converted.report.announcements.join("\n");
    assert!(told.contains("the image processor makes 42x42") && told.contains("resampled from 4x4"), "{told}");
    let model = Model::parse(&converted.bytes).expect("a model");
    assert_eq!(model.labels().collect::<Vec<_>>(), ["ant", "bee", "crane", "dove", "emu", "finch", "gull"]);
}

/// The f32 file holds everything that the checkpoint does: from it, every other file follows bit by bit.
#[test]
fn an_f32_file_converts_like_its_checkpoint() {
    let scratch = tempfile::tempdir().expect("a directory");
    for dir in fixture_dirs() {
        let f32_keep = Options { precision: Precision::F32, layerscale: Mode::Keep, ..Options::default() };
        let file = scratch.path().join("keep.gguf");
        vitlet_convert::write_file(&convert_ok(&dir, &f32_keep).bytes, &file).expect("written");
        for (precision, layerscale) in PRECISIONS.into_iter().zip(MODES) {
            let options = Options { precision, layerscale, weight_scale: WeightScale::PerTensor, ..Options::default() };
            let (direct, through) = (convert_ok(&dir, &options), convert_ok(&file, &options));
            assert!(direct.bytes[..] == through.bytes[..], "{} {}", dir.display(), precision.name());
        }
        // Folded weights are enough for fold-weights.
        let f32_fold = Options { precision: Precision::F32, ..Options::default() };
        let file = scratch.path().join("fold.gguf");
        vitlet_convert::write_file(&convert_ok(&dir, &f32_fold).bytes, &file).expect("written");
        let options = Options { precision: Precision::F16, layerscale: Mode::FoldWeights, ..Options::default() };
        assert!(convert_ok(&dir, &options).bytes[..] == convert_ok(&file, &options).bytes[..], "{}", dir.display());
    }
}

#[test]
fn gamma_folds_into_the_scale_and_the_bias() {
    let dir = fixture("timm_deit3");
    let of = |layerscale| convert_ok(&dir, &Options { layerscale, ..Options::default() });
    let (fold, keep) = (of(Mode::Fold), of(Mode::Keep));
    let (fold, keep) = (Model::parse(&fold.bytes).expect("a model"), Model::parse(&keep.bytes).expect("a model"));
    let dim = fold.config().dim;
    let gamma: Vec<f32> = fold.original_gamma(0).expect("gammas").take(dim).collect();
    assert!(gamma.iter().any(|g| *g < 0.0) && gamma.iter().any(|g| *g > 0.0));
    let (f, k) = (linear(&fold, "blk.0.attn_out"), linear(&keep, "blk.0.attn_out"));
    for (n, &g) in gamma.iter().enumerate() {
        let sign = if g < 0.0 { -1 } else { 1 };
        assert_eq!(f.scale[n], g.abs() * k.scale[n]);
        assert_eq!(f.sum[n], sign * k.sum[n]);
        assert_eq!(f.bias[n], g * k.bias[n]);
        assert!(f.row(n).zip(k.row(n)).all(|(f, k)| i32::from(f) == sign * i32::from(k)));
        assert_eq!(f.row(n).map(i32::from).sum::<i32>(), f.sum[n]);
    }
    // What no gamma touches is the same in both.
    assert_eq!(linear(&fold, "blk.1.attn_qkv"), linear(&keep, "blk.1.attn_qkv"));
}
