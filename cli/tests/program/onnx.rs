//! ONNX files through the program: imported, run by tract, and as a reference.

use std::path::{Path, PathBuf};

use crate::common::error;

fn onnx(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/onnx").join(path)
}

#[test]
fn without_tract_named_an_onnx_file_says_what_to_do() {
    let file = onnx("vit/dynamo20.onnx");
    let message = error(&format!("run -m {} --input x.npy --output y.npy", file.display()), 1);
    assert!(message.contains("--backend tract") && message.contains("vitlet convert"), "{message}");
}

#[cfg(feature = "tract")]
mod tract {
    use super::*;
    use crate::common::{checkpoint, json, npy, stdout};

    #[test]
    fn run_gives_pytorchs_logits() {
        let scratch = tempfile::tempdir().unwrap();
        let y = scratch.path().join("y.npy");
        let (file, x) = (onnx("deit3/legacy17_dynamic.onnx"), onnx("deit3/input.npy"));
        stdout(&format!("run --backend tract -m {} --input {} --output {}", file.display(), x.display(), y.display()));
        let (got, want) = (npy(&y), npy(onnx("deit3/logits.npy")));
        assert_eq!(got.len(), want.len());
        assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() < 1e-4), "{got:?} {want:?}");
    }

    #[test]
    fn classify_and_the_reference_see_the_same_pictures() {
        let scratch = tempfile::tempdir().unwrap();
        let (file, folder) = (onnx("hf_vit/optimum.onnx"), onnx("hf_vit"));
        let picture =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/cifar10-vit-layerscale/pictures/chelsea.jpg");
        let model = scratch.path().join("f32.gguf");
        stdout(&format!(
            "convert {} --precision f32 --preprocess-from {} -o {}",
            file.display(),
            folder.display(),
            model.display()
        ));
        let ours = json(&format!("classify -m {} --json {}", model.display(), picture.display()));
        let tract = json(&format!(
            "classify --backend tract --image-size 16x16 --preprocess-from {} -m {} --json {}",
            folder.display(),
            file.display(),
            picture.display()
        ));
        let logit = |document: &serde_json::Value| document["results"][0]["top"][0]["logit"].as_f64().unwrap();
        assert!((logit(&ours) - logit(&tract)).abs() < 1e-4);
        assert_eq!(ours["results"][0]["top"][0]["label"], tract["results"][0]["top"][0]["label"]);
        let pictures = picture.parent().unwrap().display().to_string();
        let report = json(&format!("eval -m {} --reference {} --json {pictures}", model.display(), file.display()));
        assert_eq!(report["reference"]["agreement"], 1.0, "{report}");
        let bench = json(&format!("bench -m {} --reference {} --iters 3 --json", model.display(), file.display()));
        assert!(bench["reference"]["median_ms"].as_f64().unwrap() > 0.0 && bench["reference"]["kernel"] == "tract");
    }

    #[test]
    fn wrong_uses_are_one_line() {
        let file = onnx("refused/truncated.onnx");
        let message = error(&format!("classify --backend tract -m {} x.jpg", file.display()), 1);
        assert!(message.contains("not a whole ONNX file"), "{message}");
        let message = error(&format!("classify --mean 0.5,0.5,0.5 -m {} x.jpg", checkpoint("timm_vit").display()), 2);
        assert!(message.contains("--mean is for --backend tract"), "{message}");
        let message = error(
            &format!("classify --backend tract --image-size 64x64 -m {} x.jpg", onnx("vit/legacy13.onnx").display()),
            1,
        );
        assert!(message.contains("not 64x64"), "{message}");
        let other = onnx("deit3/dynamo18_external.onnx");
        let message = error(&format!("classify --backend tract -m {} x.gguf", checkpoint("timm_vit").display()), 1);
        assert!(message.contains("ONNX") && other.exists(), "{message}");
    }
}
