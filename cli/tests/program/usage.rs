//! Exit statuses and error lines.

use crate::common::{Scene, checkpoint, error, run, stdout, vitlet};

#[test]
fn alone_it_explains_itself() {
    let text = stdout("");
    assert!(text.lines().count() < 12 && text.contains("vitlet classify photo.jpg"), "{text}");
    assert!(stdout("--version").starts_with("vitlet "));
    for command in ["convert", "classify", "embed", "run", "preprocess", "eval", "bench", "inspect"] {
        assert!(stdout("--help").contains(command));
        assert!(stdout(&format!("{command} --help")).contains("Usage:"));
    }
}

#[test]
fn wrong_usage_is_one_line_and_status_2() {
    assert!(error("clasify x.jpg", 2).contains("'classify'"));
    assert!(error("inspect", 2).contains("<MODEL>"));
    assert!(error("bench -m x.gguf --iters 0", 2).contains("--iters"));
    assert!(error("embed a.jpg -o x.npy", 2).ends_with("; `vitlet convert` makes a model file"));
    assert!(error("classify", 2).contains("<IMAGE>"));
    assert!(error("classify -m x.gguf a.jpg --threads 0", 2).contains("--threads"));
    assert!(error("eval -m x.gguf y --reference a --reference-logits b", 2).contains("cannot be used with"));
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    let picture = scene.picture("a.png", 1);
    let why = error(&format!("classify -m {model} {picture} --kernel abacus"), 2);
    assert!(why.contains("--kernel abacus: this CPU has scalar"), "{why}");
}

#[test]
fn run_asks_whether_classify_was_meant() {
    assert_eq!(error("run photo.jpg", 2), "run takes tensors, not photo.jpg: was `vitlet classify photo.jpg` meant?");
    let why = error("run -m m.gguf --input photo.JPG --output y.npy", 2);
    assert!(why.contains("was `vitlet classify photo.JPG` meant?"), "{why}");
}

#[test]
fn models_that_are_none_are_named_with_the_cure() {
    let scene = Scene::new();
    let file = scene.path("model.gguf");
    let bench = || error(&format!("bench -m {file}"), 1);
    assert!(bench().ends_with("model.gguf: No such file or directory"));
    std::fs::write(&file, "").unwrap();
    assert!(bench().ends_with("model.gguf: empty file"));
    std::fs::write(&file, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n").unwrap();
    assert!(bench().contains("git lfs pull"));
    std::fs::write(&file, "PK\x03\x04").unwrap();
    assert!(bench().contains("not a model file"));
    let checkpoint = checkpoint("timm_vit");
    let why = error(&format!("bench -m {}", checkpoint.display()), 1);
    assert!(why.contains("vitlet convert"), "{why}");
}

#[test]
fn a_closed_pipe_ends_silently() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    let mut child = vitlet()
        .args(["inspect", &model, "--tensors", "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let scene = Scene::new();
    let source = checkpoint("timm_vit");
    let target = scene.path("missing/model.gguf");
    let why = error(&format!("convert {} -o {target}", source.display()), 1);
    assert!(why.starts_with(&target), "{why}");
    assert!(run("convert").status.code() == Some(2));
}

/// The last section of `--help` is about ONNX files alone.
#[test]
fn sections_of_the_help_hold_what_they_say() {
    for command in ["classify", "eval"] {
        let help = stdout(&format!("{command} --help"));
        let (general, onnx) = help.split_once("Pictures for an ONNX file:").unwrap();
        assert!(general.contains("--json") && general.contains("--backend"), "{help}");
        assert!(onnx.contains("--mean") && !onnx.contains("--json") && !onnx.contains("--digest"), "{help}");
    }
}
