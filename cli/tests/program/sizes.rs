//! Another input size than the file's, and every output by its name.

use crate::common::{Scene, checkpoint, error, json, npy, run, stdout, write_npy};

#[test]
fn run_takes_the_size_of_its_tensor() {
    let scene = Scene::new();
    let y = scene.path("y.npy");
    for (name, size) in [("timm_vit", "24x40"), ("hf_vit", "48x48"), ("timm_dinov3", "48x64")] {
        let (model, folder) = (scene.model(name, "f32"), checkpoint(name));
        let x = folder.join(format!("input_{size}.npy"));
        assert!(stdout(&format!("run -m {model} --input {} --output {y}", x.display())).contains("f32 [2, 7]"));
        let expected = npy(folder.join(format!("logits_{size}.npy")));
        for (got, expected) in npy(&y).iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-4, "{name} {size}: {got}, {expected}");
        }
    }
    let x = scene.path("x.npy");
    write_npy(&x, "(1, 3, 36, 32)", &vec![0.0; 3 * 36 * 32]);
    let why = error(&format!("run -m {} --input {x} --output {y}", scene.model("timm_vit", "int8")), 1);
    assert!(why.contains("run configuration: image size must be a multiple of the patch size"), "{why}");
    write_npy(&x, "(1, 3, 24, 32)", &vec![0.0; 3 * 24 * 32]);
    let why = error(&format!("run -m {} --input {x} --output {y}", scene.model("timm_beit", "int8")), 1);
    assert!(why.contains("takes [batch, 3, 32, 32], not 24 x 32 pixels: "), "{why}");
    assert!(why.contains("`vitlet convert --image-size`"), "{why}");
}

#[test]
fn bench_takes_a_size() {
    let scene = Scene::new();
    let model = scene.model("hf_vit", "int8");
    let tokens = |size: &str| json(&format!("bench -m {model} --iters 1 --warmup 0 --json {size}"))["tokens"].clone();
    // Patches of 8 x 8 pixels, and the class token.
    assert_eq!([tokens("--size 40x24"), tokens("")], [16, 17]);
    let why = error(&format!("bench -m {model} --size 40x24 --reference x.onnx"), 1);
    assert!(why.contains("--size: an ONNX file has one size"), "{why}");
}

/// A file that does not state its rule is resampled as timm does it, and that is said.
#[test]
fn pictures_take_a_size() {
    let scene = Scene::new();
    let picture = scene.picture("a.png", 1);
    let (x, y) = (scene.path("x.npy"), scene.path("y.npy"));
    for (name, is_stated) in [("timm_vit", false), ("hf_vit", true)] {
        let model = scene.model(name, "int8");
        let output = run(&format!("classify -m {model} {picture} --size 40x24 --top-k 7 --json"));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.contains("does not say how its positions are resampled"), !is_stated, "{said}");
        let classified: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let prepared = stdout(&format!("preprocess -m {model} {picture} --size 40x24 -o {x}"));
        assert!(prepared.contains("f32 [1, 3, 24, 40]"), "{prepared}");
        stdout(&format!("run -m {model} --input {x} --output {y}"));
        let logits = npy(&y);
        for guess in classified["results"][0]["top"].as_array().unwrap() {
            let index = guess["index"].as_u64().unwrap() as usize;
            assert_eq!(guess["logit"].as_f64().unwrap() as f32, logits[index]);
        }
        let own = json(&format!("classify -m {model} {picture} --json"));
        assert_ne!(own["results"][0]["top"][0]["logit"], classified["results"][0]["top"][0]["logit"]);
        let tokens = stdout(&format!("embed -m {model} --tokens --size 40x24 {picture} -o {y}"));
        assert!(tokens.contains("f32 [1, 15, 36]"), "{tokens}");
    }
    let model = scene.model("timm_vit", "int8");
    assert!(error(&format!("classify -m {model} {picture} --size 40"), 2).contains("320x240"));
    let near = |size: &str| {
        let line = error(&format!("classify -m {model} {picture} --size {size}"), 1);
        assert!(line.starts_with(&format!("{model}: --size {size}: ")), "{line}");
        line.split_once("; the nearest that fit: ").map_or(line.clone(), |(_, sizes)| sizes.to_string())
    };
    assert!(error(&format!("classify -m {model} {picture} --size 41x24"), 1).contains("multiple of the patch size"));
    // Patches of 8 x 8.
    assert_eq!((near("41x24"), near("30x20")), ("40x24, 48x24".to_string(), "24x16, 32x24".to_string()));
    assert_eq!((near("0x24"), near("99999x9")), ("8x24".to_string(), near("99999x9")));
    for command in ["embed -o x.npy", "preprocess -o x.npy"] {
        assert!(error(&format!("{command} -m {model} {picture} --size 41x24"), 1).ends_with(": 40x24, 48x24"));
    }
}

#[test]
fn run_writes_every_output_by_its_name() {
    let scene = Scene::new();
    let x = checkpoint("timm_features").join("input.npy");
    for (name, first, files) in [
        ("timm_vit", "logits", &["features", "logits", "tokens"][..]),
        ("timm_features", "features", &["features", "tokens"]),
        ("hf_depth_anything", "depth", &["depth", "features", "tokens"]),
    ] {
        let (model, folder) = (scene.model(name, "f32"), scene.path(name));
        let x = checkpoint(name).join("input.npy");
        stdout(&format!("run -m {model} --input {} --outputs {folder}", x.display()));
        let mut written: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        written.sort();
        assert_eq!(written, files.iter().map(|file| format!("{file}.npy")).collect::<Vec<_>>());
        let y = scene.path("y.npy");
        stdout(&format!("run -m {model} --input {} --output {y}", x.display()));
        assert_eq!(npy(&y), npy(format!("{folder}/{first}.npy")));
        let features = npy(format!("{folder}/features.npy"));
        assert_eq!(features.len(), 2 * 36);
    }
    let model = scene.model("timm_features", "f32");
    let (tokens, expected) =
        (npy(scene.path("timm_features/tokens.npy")), npy(checkpoint("timm_features").join("tokens.npy")));
    assert_eq!(tokens.len(), expected.len());
    assert!(tokens.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4));
    let run = format!("run -m {model} --input {}", x.display());
    assert!(error(&run, 2).contains("--output FILE or --outputs DIR"));
    let file = scene.path("a file");
    std::fs::write(&file, "kept").unwrap();
    let output = crate::common::vitlet().args(run.split(' ')).args(["--outputs", &file]).output().unwrap();
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && why.contains("a file, not a folder"), "{why}");
    std::fs::create_dir_all(scene.path("late/tokens.npy")).unwrap();
    let why = error(&format!("{run} --outputs {}", scene.path("late")), 1);
    assert!(why.ends_with("tokens.npy: cannot write: a directory"), "{why}");
    assert!(!std::path::Path::new(&scene.path("late/features.npy")).exists());
    let both = error(&format!("run -m {model} --input {} --output y.npy --outputs d", x.display()), 2);
    assert!(both.contains("cannot be used with"), "{both}");
}
