//! `run`, `preprocess` and `embed`: tensors in and out, against PyTorch's own numbers.

use crate::common::{Scene, checkpoint, error, json, npy, stdout, vitlet, write_npy};

/// L2 error over all rows, relative to the reference.
fn relative_error(values: &[f32], reference: &[f32]) -> f64 {
    assert_eq!(values.len(), reference.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = values.iter().zip(reference).map(|(v, r)| square(v - r)).sum();
    (difference / reference.iter().map(|&r| square(r)).sum::<f64>()).sqrt()
}

#[test]
fn f32_outputs_are_pytorchs() {
    let scene = Scene::new();
    for (name, expected) in [
        ("timm_vit", "logits.npy"),
        ("timm_deit_distilled", "logits.npy"),
        ("hf_dinov2_swiglu", "logits.npy"),
        ("hf_vit_multi_label", "logits.npy"),
        ("timm_features", "features.npy"),
        ("hf_depth_anything", "depth.npy"),
    ] {
        let model = scene.model(name, "f32");
        let (input, y) = (checkpoint(name).join("input.npy"), scene.path("y.npy"));
        let said = stdout(&format!("run -m {model} --input {} --output {y}", input.display()));
        assert!(said.starts_with(&format!("{y}: f32 [2, ")), "{said}");
        let error = relative_error(&npy(&y), &npy(checkpoint(name).join(expected)));
        assert!(error < 2e-5, "{name}: {error}");
    }
}

#[test]
fn a_prepared_picture_runs_to_the_logits_of_classify() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    let (picture, x, y) = (scene.picture("a.png", 1), scene.path("x.npy"), scene.path("y.npy"));
    let said = stdout(&format!("preprocess -m {model} {picture} -o {x}"));
    assert!(said.contains("f32 [1, 3, 32, 32]") && said.contains("53 x 41"), "{said}");
    stdout(&format!("run -m {model} --input {x} --output {y} --threads 2"));
    let classified = json(&format!("classify -m {model} {picture} --json --top-k 7"));
    let top = classified["results"][0]["top"].as_array().unwrap();
    assert_eq!(top.len(), 7);
    let logits = npy(&y);
    for guess in top {
        let index = guess["index"].as_u64().unwrap() as usize;
        assert_eq!(guess["logit"].as_f64().unwrap() as f32, logits[index]);
    }
}

#[test]
fn embed_writes_features_and_tokens() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "f32");
    let headless = scene.model("timm_features", "f32");
    let out = scene.path("features.npy");
    let (a, b) = (scene.picture("a.png", 1), scene.picture("b.jpg", 2));
    assert!(stdout(&format!("embed -m {model} {a} {b} -o {out}")).contains("f32 [2, 36]"));
    let features = npy(&out);
    assert_eq!(features.len(), 72);
    assert_ne!(features[..36], features[36..]);
    assert!(stdout(&format!("embed -m {headless} --tokens {a} -o {out}")).contains("f32 [1, 16, 36]"));
    assert_eq!(npy(&out).len(), 16 * 36);

    let x = scene.path("x.npy");
    stdout(&format!("preprocess -m {headless} {a} -o {x}"));
    stdout(&format!("run -m {headless} --input {x} --output {}", scene.path("y.npy")));
    stdout(&format!("embed -m {headless} {a} -o {out}"));
    assert_eq!(npy(&out), npy(scene.path("y.npy")), "without a head, run gives the features");
}

#[test]
fn embed_leaves_out_what_it_cannot_read_and_says_which_picture_each_row_is() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "f32");
    let (a, b, bad) = (scene.picture("a.png", 1), scene.picture("b, 2.png", 2), scene.path("bad.jpg"));
    std::fs::write(&bad, "no picture").unwrap();
    let (out, rows) = (scene.path("x.npy"), scene.path("x.rows.csv"));
    let embed = |pictures: &[&str], options: &[&str]| {
        vitlet().args(["embed", "-m", &model, "-o", &out]).args(pictures).args(options).output().unwrap()
    };
    let output = embed(&[&a, &bad, &b], &[]);
    assert_eq!(output.status.code(), Some(4));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.starts_with(&format!("error: {bad}: not a picture")), "{errors}");
    assert!(errors.ends_with("warning: 1 of 3 inputs left out\n"), "{errors}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("f32 [2, 36]"));
    assert_eq!(std::fs::read_to_string(&rows).unwrap(), format!("row,image\n0,{a}\n1,\"{b}\"\n"));
    let kept = npy(&out);
    assert!(embed(&[&a, &b], &[]).status.success());
    assert_eq!(npy(&out), kept);

    let document = embed(&[&bad, &a], &["--json", "--rows", &scene.path("which.csv")]);
    let document: serde_json::Value = serde_json::from_slice(&document.stdout).unwrap();
    assert_eq!((&document["schema"], &document["shape"]), (&1.into(), &serde_json::json!([1, 36])));
    assert!(document["results"][0]["error"].as_str().unwrap().starts_with("not a picture"));
    assert_eq!((&document["results"][1]["row"], &document["results"][1]["width"]), (&0.into(), &53.into()));
    assert_eq!(std::fs::read_to_string(scene.path("which.csv")).unwrap(), format!("row,image\n0,{a}\n"));

    // Nothing to write: what was there stays.
    assert_eq!(embed(&[&bad], &[]).status.code(), Some(1));
    assert_eq!(npy(&out).len(), 36);
}

#[test]
fn numbers_that_are_not_finite_are_refused_in_one_line() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    let (x, y) = (scene.path("x.npy"), scene.path("y.npy"));
    for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let mut input = vec![0.5; 2 * 3 * 32 * 32];
        input[3 * 32 * 32 + 7] = value;
        write_npy(&x, "(2, 3, 32, 32)", &input);
        let why = error(&format!("run -m {model} --input {x} --output {y}"), 1);
        assert_eq!(why, format!("{x}, row 1: element 7 is {name}: inputs are finite numbers"));
    }
    assert!(!std::path::Path::new(&y).exists());
}

#[test]
fn wrong_tensors_are_refused_and_nothing_is_written() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "f32");
    let (x, y) = (scene.path("x.npy"), scene.path("y.npy"));
    let run = || error(&format!("run -m {model} --input {x} --output {y}"), 1);
    assert!(run().ends_with("x.npy: No such file or directory"));
    write_npy(&x, "(3, 32, 32)", &vec![0.0; 3 * 32 * 32]);
    assert!(run().ends_with("shape [3, 32, 32], networks take [batch, 3, height, width]"));
    write_npy(&x, "(2, 3, 32, 32)", &vec![0.0; 3 * 32 * 32]);
    assert!(run().contains("bytes of data where shape"));
    std::fs::write(&x, "hello").unwrap();
    assert!(run().contains("not a .npy file"));
    assert!(!std::path::Path::new(&y).exists());
    write_npy(&x, "(0, 3, 32, 32)", &[]);
    assert!(stdout(&format!("run -m {model} --input {x} --output {y}")).contains("f32 [0, 7]"));
}
