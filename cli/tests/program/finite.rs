//! Networks whose numbers overflow, in every precision: no probability, one line, and the other inputs go on.

use std::fs;
use std::path::Path;

use crate::common::{Scene, checkpoint, error, run, stdout};

/// A checkpoint in f32, with every element of some tensors set.
fn broken_checkpoint(scene: &Scene, name: &str, tensors: &[(&str, f32)]) -> String {
    let (source, path) = (checkpoint("timm_act_norm"), scene.path(name));
    fs::create_dir(&path).unwrap();
    fs::copy(source.join("config.json"), Path::new(&path).join("config.json")).unwrap();
    let mut bytes = fs::read(source.join("model.safetensors")).unwrap();
    let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header_len]).unwrap();
    for (tensor, value) in tensors {
        let at = |i: usize| 8 + header_len + header[tensor]["data_offsets"][i].as_u64().unwrap() as usize;
        let (from, to) = (at(0), at(1));
        bytes[from..to].as_chunks_mut::<4>().0.iter_mut().for_each(|v| *v = value.to_le_bytes());
    }
    fs::write(Path::new(&path).join("model.safetensors"), bytes).unwrap();
    path
}

#[test]
fn overflow_is_an_error_in_every_precision_and_command() {
    let scene = Scene::new();
    let picture = scene.picture("a.png", 1);
    let csv = scene.path("labels.csv");
    fs::write(&csv, "a.png,0\n").unwrap();
    let x = scene.path("x.npy");
    stdout(&format!("preprocess -m {} {picture} -o {x}", scene.model("timm_act_norm", "f32")));
    let residual = [("blocks.0.mlp.fc1.bias", 1000.0), ("blocks.0.mlp.fc2.weight", 8.9e37)];
    let hidden = [("blocks.1.mlp.fc1.weight", 1.0e36)];
    let query = [("blocks.0.attn.qkv.weight", 1.0e36)];
    for (name, tensors) in [("residual", &residual[..]), ("hidden", &hidden), ("query", &query)] {
        let source = broken_checkpoint(&scene, name, tensors);
        for precision in ["f32", "f16", "int8"] {
            // What the rounding to 8 bits hides may be finite in f32.
            if precision != "int8" && name != "residual" {
                continue;
            }
            let model = scene.path("m.gguf");
            stdout(&format!("convert {source} -o {model} --precision {precision}"));
            let compare = format!("compare -m {model} --reference {} {picture}", scene.model("timm_act_norm", "f32"));
            let fails = |command: &str| {
                let why = error(command, 1);
                assert!(why.contains("are not finite: "), "{name} {precision} {command}: {why}");
            };
            fails(&format!("classify -m {model} {picture}"));
            fails(&format!("embed -m {model} {picture} -o {}", scene.path("y.npy")));
            fails(&format!("run -m {model} --input {x} --output {}", scene.path("y.npy")));
            // Large negative numbers are zeros after GELU: bench's input does not overflow there.
            if name != "hidden" {
                fails(&format!("bench -m {model} --iters 1 --warmup 0"));
            }
            assert!(
                String::from_utf8(run(&compare).stderr).unwrap().contains("are not finite: "),
                "{name} {precision}"
            );
            let eval = run(&format!("eval -m {model} {csv} --json"));
            assert_eq!(eval.status.code(), Some(1));
            assert!(String::from_utf8(eval.stderr).unwrap().contains("logits are not finite: "));
            assert!(!Path::new(&scene.path("y.npy")).exists());
        }
    }
}

/// A float tensor of a model file with NaN in it.
#[test]
fn a_broken_float_tensor_is_an_error_in_int8() {
    let scene = Scene::new();
    let (model, picture) = (scene.model("timm_deit3", "int8"), scene.picture("a.png", 1));
    let bytes = fs::read(&model).unwrap();
    let document: serde_json::Value = serde_json::from_str(&stdout(&format!("inspect {model} --json"))).unwrap();
    let padded = |t: &serde_json::Value| t["bytes"].as_u64().unwrap().next_multiple_of(64) as usize;
    let tensors = document["tensors"].as_array().unwrap();
    let start = bytes.len() - tensors.iter().map(padded).sum::<usize>();
    for name in ["blk.0.ffn_up.bias", "blk.1.attn_qkv.bias", "blk.1.norm2.weight"] {
        let at = start + tensors.iter().take_while(|t| t["name"] != name).map(padded).sum::<usize>();
        let mut broken = bytes.clone();
        broken[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        let path = scene.path("broken.gguf");
        fs::write(&path, broken).unwrap();
        let why = error(&format!("classify -m {path} {picture}"), 1);
        assert!(why.contains(&format!("tensor {name}: a value is not finite")), "{why}");
    }
}
