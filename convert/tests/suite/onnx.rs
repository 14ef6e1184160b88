//! ONNX files as exporters write them: each of the tiny networks of tests/fixtures/onnx, in every form that is there,
//! is the checkpoint that it was exported from, bit for bit, and runs like it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{convert_err, convert_ok, fixture, root, shared};
use vitlet::picture::{Interpolation, Resize};
use vitlet::{Activation, Config, Model, Pooling, Precision};
use vitlet_convert::{Converted, Mode, Options, onnx};

fn onnx(path: &str) -> PathBuf {
    root().join("tests/fixtures/onnx").join(path)
}

/// Every exported file with its checkpoint.
fn exports() -> Vec<(PathBuf, PathBuf)> {
    let mut all = Vec::new();
    for dir in fs::read_dir(onnx("")).expect("fixtures").map(|e| e.expect("an entry").path()) {
        if !dir.join("config.json").is_file() {
            continue;
        }
        let files = fs::read_dir(&dir).expect("a directory").map(|e| e.expect("an entry").path());
        all.extend(files.filter(|f| f.extension().is_some_and(|e| e == "onnx")).map(|f| (f, dir.clone())));
    }
    all.sort();
    assert!(all.len() >= 40, "{} exports", all.len());
    all
}

fn tensors(converted: &Converted) -> (Config, Vec<(String, Vec<u8>)>) {
    let model = Model::parse(&converted.bytes).expect("a model");
    let mut all = Vec::new();
    model.for_each_tensor(|spec, bytes| all.push((spec.name.as_str().to_owned(), bytes.to_vec())));
    // A graph does not say by which rule its positions are resampled.
    (Config { positions: vitlet::Positions::Fixed, ..*model.config() }, all)
}

/// Converts both, and compares hyperparameters and every tensor.
fn assert_equal(file: &Path, checkpoint: &Path, options: &Options) {
    let (got, want) = (tensors(&convert_ok(file, options)), tensors(&convert_ok(checkpoint, options)));
    assert_eq!(got.0, want.0, "{}", file.display());
    for ((name, got), (_, want)) in got.1.iter().zip(&want.1) {
        assert!(got == want, "{}: {name} differs", file.display());
    }
    assert_eq!(got.1.len(), want.1.len(), "{}", file.display());
}

#[test]
fn every_form_is_its_checkpoint_bit_for_bit() {
    for (file, checkpoint) in exports() {
        for (precision, layerscale) in [(Precision::F32, Mode::Keep), (Precision::Int8, Mode::Fold)] {
            assert_equal(&file, &checkpoint, &Options { precision, layerscale, ..Options::default() });
        }
    }
}

/// `tests/fixtures/make_onnx.py --real ../shared/checkpoints/NAME target/onnx` exports them.
#[test]
fn real_exports_are_their_checkpoints_bit_for_bit() {
    for name in ["deit_tiny_patch16_224", "deit_tiny_layerscale"] {
        let Some(checkpoint) = shared("checkpoints").map(|dir| dir.join(name)) else { return };
        for form in ["legacy17_dynamic", "dynamo18_external"] {
            let file = root().join(format!("target/onnx/{name}_{form}.onnx"));
            if file.exists() {
                assert_equal(&file, &checkpoint, &Options { precision: Precision::F32, ..Options::default() });
                assert_equal(&file, &checkpoint, &Options::default());
            }
        }
    }
}

#[test]
fn what_the_networks_are_comes_from_the_graph() {
    let config = |path: &str| tensors(&convert_ok(&onnx(path), &Options::default())).0;
    assert_eq!(config("hf_vit/legacy13.onnx").norm_eps, 1e-12);
    assert_eq!(config("clip/legacy13.onnx").activation, Activation::GeluQuick);
    assert!(config("clip/dynamo20.onnx").norm_pre());
    let qk_norm = config("qk_norm/legacy20.onnx");
    assert!(qk_norm.qk_norm() && qk_norm.activation == Activation::GeluTanh);
    assert_eq!(config("swiglu/legacy13.onnx").activation, Activation::SwiGlu);
    assert_eq!(config("distilled/legacy17_dynamic.onnx").pooling, Pooling::ClsDist);
    assert_eq!(config("hf_dinov2/dynamo18_dynamic.onnx").pooling, Pooling::ClsAvg);
    let deit3 = config("deit3/dynamo18_f16.onnx");
    assert_eq!((deit3.image_height, deit3.image_width, deit3.prefix_tokens()), (16, 12, 1));
    assert_eq!(config("dinov2/legacy17_sim.onnx").prefix_tokens(), 5);
    assert_eq!(config("features/legacy17_dynamic.onnx").classes, 0);
}

#[test]
fn pictures_are_prepared_as_the_options_say() {
    let file = onnx("vit/dynamo20.onnx");
    let by_default = convert_ok(&file, &Options::default());
    let told = by_default.report.announcements.join("\n");
    assert!(told.contains("mean 0.485,0.456,0.406") && told.contains("crop-pct 0.875"), "{told}");
    let preprocess =
        |options: &Options| *Model::parse(&convert_ok(&file, options).bytes).expect("a model").preprocess();
    assert_eq!(preprocess(&Options::default()).resize, Resize::ShorterEdge(18)); // floor(16 / 0.875)
    let chosen = Options { mean: Some([0.5; 3]), interpolation: Some(Interpolation::Bilinear), ..Options::default() };
    assert_eq!((preprocess(&chosen).mean, preprocess(&chosen).interpolation), ([0.5; 3], Interpolation::Bilinear));
    // What the checkpoint's own import does.
    for (file, checkpoint) in [("vit/legacy13.onnx", "vit"), ("hf_vit/legacy13.onnx", "hf_vit")] {
        let options = Options { preprocess_from: Some(onnx(checkpoint)), ..Options::default() };
        let (file, checkpoint) =
            (convert_ok(&onnx(file), &options), convert_ok(&onnx(checkpoint), &Options::default()));
        let (file, checkpoint) =
            (Model::parse(&file.bytes).expect("a model"), Model::parse(&checkpoint.bytes).expect("a model"));
        assert_eq!(file.preprocess(), checkpoint.preprocess());
        assert!(file.labels().eq(checkpoint.labels()));
    }
    let options = Options { preprocess_from: Some(fixture("")), ..Options::default() };
    assert!(convert_err(&file, &options).to_string().contains("preprocessor_config.json"));
}

#[test]
fn the_residual_stream_is_named() {
    let taps = onnx::taps(&onnx("deit3/dynamo18_external.onnx"), None).expect("taps");
    assert_eq!(taps.len(), 2);
    let streams: Vec<&str> = taps.iter().flat_map(|t| [&*t.attention.stream, &*t.mlp.stream]).collect();
    assert_eq!(streams, ["add_1", "add_2", "add_3", "add_4"], "after add, the position embedding");
    assert!(taps.iter().all(|t| t.attention.branch.starts_with("mul") && t.mlp.branch.starts_with("mul")), "{taps:?}");
}

#[test]
fn other_networks_are_refused_where_the_structure_ends() {
    let refused = |path: &str| convert_err(&onnx(path), &Options::default()).to_string();
    let resnet = refused("refused/resnet.onnx");
    assert!(resnet.contains("/conv1/Conv (Conv)") && resnet.contains("7x7"), "{resnet}");
    let swin = refused("refused/swin.onnx");
    assert!(swin.contains("not a plain ViT: the structure ends at node /layers"), "{swin}");
    let truncated = refused("refused/truncated.onnx");
    assert!(truncated.contains("not a whole ONNX file"), "{truncated}");
}

#[test]
fn damaged_files_are_one_line() {
    let scratch = tempfile::tempdir().expect("a directory");
    let file = scratch.path().join("model.onnx");
    let bytes = fs::read(onnx("deit3/dynamo18_f16.onnx")).expect("read");
    for len in (0..bytes.len()).step_by(997) {
        fs::write(&file, &bytes[..len]).expect("written");
        convert_err(&file, &Options::default());
    }
    // A damaged byte is noticed, or it is a weight, a name or an attribute that nobody reads: never a panic.
    for at in (0..bytes.len()).step_by(401) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x15;
        fs::write(&file, damaged).expect("written");
        let _ = vitlet_convert::convert(&file, &Options::default(), &mut |_| {});
    }
    fs::copy(onnx("vit/dynamo18_external.onnx"), &file).expect("copied");
    let missing = convert_err(&file, &Options::default()).to_string();
    assert!(missing.contains("dynamo18_external.onnx.data") && missing.contains("holds the weights"), "{missing}");
    let size = Options { image_size: Some((32, 32)), ..Options::default() };
    let other = convert_err(&onnx("vit/legacy13.onnx"), &size).to_string();
    assert!(other.contains("--image-size 32x32, for which it must be exported"), "{other}");
}

#[cfg(feature = "tract")]
mod tract {
    use super::*;
    use vitlet::{Kernels, Plan, RunConfig, Scratch, Sequential};
    use vitlet_convert::reference::Reference;

    /// The numbers of a .npy file of f32.
    fn npy(path: &Path) -> Vec<f32> {
        let bytes = fs::read(path).expect("read");
        let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        bytes[start..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn vitlet_f32(file: &Path, input: &[f32]) -> Vec<f32> {
        let converted = convert_ok(file, &Options { precision: Precision::F32, ..Options::default() });
        let model = Model::parse(&converted.bytes).expect("a model");
        let plan = Plan::new(&model, &RunConfig::new(Kernels::detect()), 1).expect("a plan");
        let mut scratch = Scratch::new(plan.scratch_bytes()).expect("memory");
        let mut session = plan.open(&model, &Sequential, &mut scratch).expect("a session");
        session.run_tensor(input).expect("logits").first().to_vec()
    }

    fn relative_error(got: &[f32], want: &[f32]) -> f64 {
        assert_eq!(got.len(), want.len());
        let sum = |f: &dyn Fn(f64, f64) -> f64| {
            got.iter().zip(want).map(|(g, w)| f(f64::from(*g), f64::from(*w))).sum::<f64>()
        };
        (sum(&|g, w| (g - w).powi(2)) / sum(&|_, w| w * w)).sqrt()
    }

    #[test]
    fn tract_vitlet_and_pytorch_agree_on_every_form() {
        for (file, checkpoint) in exports() {
            let input = npy(&checkpoint.join("input.npy"));
            let stem = if checkpoint.ends_with("features") { "features.npy" } else { "logits.npy" };
            let pytorch = npy(&checkpoint.join(stem));
            let (height, width) = {
                let c = tensors(&convert_ok(&checkpoint, &Options::default())).0;
                (c.image_height, c.image_width)
            };
            let ours = vitlet_f32(&file, &input);
            assert!(relative_error(&ours, &pytorch) < 2e-5, "{}", file.display());
            // Of operator sets 23 and later, and of onnxruntime's own operators, tract runs none.
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("dynamo23") || name.starts_with("dynamo24") || name.ends_with("_ort") {
                continue;
            }
            let reference = Reference::open(&file, Some((height, width))).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((reference.size(), reference.outputs()), ((height, width), pytorch.len()));
            let tract = reference.run(&input).unwrap_or_else(|e| panic!("{e}"));
            // An f16 file says its constants (the square root of 2 in GELU) in f16: tract computes with those.
            let rounded = name.ends_with("f16");
            let bound = if rounded { 2e-3 } else { 1e-4 };
            for (what, got, want) in [("vitlet to tract", &ours, &tract), ("tract to PyTorch", &tract, &pytorch)] {
                let error = relative_error(got, want);
                assert!(error < bound, "{}: {what}: {error:.1e}", file.display());
            }
        }
    }

    #[test]
    fn taps_add_up() {
        for path in ["deit3/legacy17_dynamic.onnx", "dinov2/dynamo18_dynamic.onnx", "vit/legacy13.onnx"] {
            let file = onnx(path);
            let taps = onnx::taps(&file, None).expect("taps");
            let names: Vec<String> =
                taps.iter().flat_map(|t| [&t.attention.stream, &t.mlp.branch, &t.mlp.stream]).cloned().collect();
            let reference = Reference::open_tapped(&file, None, &names).unwrap_or_else(|e| panic!("{e}"));
            let (height, width) = reference.size();
            let input = vec![0.25; 3 * height * width];
            let tapped = reference.run_tapped(&input).expect("a run");
            assert_eq!(tapped.taps.len(), names.len());
            for block in tapped.taps.chunks_exact(3) {
                let sum: Vec<f32> = block[0].iter().zip(&block[1]).map(|(x, b)| x + b).collect();
                assert!(relative_error(&sum, &block[2]) < 1e-6, "{path}");
            }
            let plain = Reference::open(&file, None).and_then(|r| r.run(&input)).expect("a run");
            assert!(relative_error(&tapped.logits, &plain) < 1e-5, "{path}");
        }
    }

    #[test]
    fn what_tract_can_not_run_is_one_line() {
        let refused = |path: &str| Reference::open(&onnx(path), None).expect_err("refused").to_string();
        let truncated = refused("refused/truncated.onnx");
        assert!(truncated.contains("not a whole ONNX file") && !truncated.contains('\n'), "{truncated}");
        let file = onnx("vit/legacy13.onnx");
        let own_size = Reference::open(&file, None).expect("a reference").size();
        assert_eq!(
            Reference::open(&file, Some((64, 64))).expect("a reference").size(),
            own_size,
            "the file's own size wins"
        );
        let no_tap = Reference::open_tapped(&file, None, &["nothing".to_owned()]).expect_err("refused").to_string();
        assert!(no_tap.contains("no value nothing"), "{no_tap}");
        let reference = Reference::open(&file, None).expect("a reference");
        assert!(!reference.run(&[0.0; 5]).expect_err("refused").to_string().contains('\n'));
    }
}
