//! `inspect` and `convert`: their reports, and the reports of damage.

use crate::common::{Scene, checkpoint, error, json, run, stdout};

#[test]
fn a_model_file_is_described() {
    let scene = Scene::new();
    let model = scene.model("timm_deit3", "int8");
    let d = json(&format!("inspect {model} --json"));
    assert_eq!(d["config"]["dim"], 36);
    assert_eq!(d["config"]["depth"], 2);
    assert_eq!(d["config"]["precision"], "int8");
    assert_eq!(d["layerscale"]["mode"], "fold");
    let branches = d["layerscale"]["branches"].as_array().unwrap();
    assert_eq!(branches.len(), 4);
    assert!(
        branches.iter().all(|b| b["min"].as_f64() >= Some(0.09) && b["max"].as_f64() <= Some(2.01)),
        "{branches:?}"
    );
    assert!(
        d["tensors"].as_array().unwrap().iter().any(|t| t["name"] == "blk.1.ffn_down.weight" && t["dtype"] == "i8")
    );
    assert_eq!(d["bytes"].as_u64().unwrap(), std::fs::metadata(&model).unwrap().len());
    let text = stdout(&format!("inspect {model} --tensors"));
    assert!(text.contains("LayerScale  fold") && text.contains("blk.0.attn_qkv.weight"), "{text}");
}

#[test]
fn stages_are_described() {
    let scene = Scene::new();
    let model = scene.model("timm_convnext", "int8");
    let d = json(&format!("inspect {model} --json"));
    assert_eq!((&d["config"]["architecture"], &d["config"]["stages"][1]["dim"]), (&"convnext".into(), &36.into()));
    let channels: Vec<_> = d["layerscale"]["branches"].as_array().unwrap().iter().map(|b| &b["channels"]).collect();
    assert_eq!(channels, [18, 36, 36, 20, 40], "one branch a block");
    let text = stdout(&format!("inspect {model} --plot {}", scene.path("out.svg")));
    assert!(text.contains("5: 1 of 18, 2 of 36, 1 of 20, 1 of 40; depthwise 7 x 7"), "{text}");
    assert!(text.contains("|gamma2|") && !text.contains("|gamma1|") && text.contains("stage.3"), "{text}");
    let report = json(&format!("bench -m {model} --threads 1 --iters 2 --profile --json"));
    let stages = report["profile"].as_array().unwrap();
    let of = |name: &str| stages.iter().find(|stage| stage["stage"] == name);
    assert!(of("depthwise convolution").unwrap()["gmac_per_s"].is_f64() && of("qkv").is_none(), "{stages:?}");
}

#[test]
fn parameters_are_those_of_the_checkpoint() {
    let scene = Scene::new();
    let vits = ["timm_vit", "timm_deit3", "timm_deit_distilled", "timm_qk_norm", "hf_dinov2_swiglu"];
    for name in vits.into_iter().chain([
        "timm_convnext",
        "timm_convnext_hnf",
        "timm_cait",
        "timm_beit",
        "timm_dinov3",
        "timm_parallel",
        "timm_resmlp",
        "timm_resmlp_features",
        "timm_xcit",
    ]) {
        let model = scene.path("model.gguf");
        let report = json(&format!("convert {} -o {model} --json", checkpoint(name).display()));
        assert_eq!(json(&format!("inspect {model} --json"))["parameters"], report["parameters"], "{name}");
    }
}

#[test]
fn verify_finds_every_kind_of_damage() {
    let scene = Scene::new();
    let model = scene.model("timm_deit3", "int8");
    assert!(stdout(&format!("inspect {model} --verify")).contains("checksum ok"));
    let whole = std::fs::read(&model).unwrap();
    let d = json(&format!("inspect {model} --json --verify"));
    assert_eq!((&d["verify"]["ok"], &d["verify"]["faults"]), (&true.into(), &serde_json::json!([])));

    // The last tensor, head.bias, ends the file: 16 f32, of which 7 are used. Before it, sums and codes.
    let damaged = scene.path("damaged.gguf");
    let inspect = |at: usize, bytes: &[u8], status| {
        let mut copy = whole.clone();
        copy[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(&damaged, copy).unwrap();
        error(&format!("inspect {damaged} --verify --json"), status)
    };
    let verify = |at: usize, bytes: &[u8]| inspect(at, bytes, 3);
    let tensors = d["tensors"].as_array().unwrap();
    let padded = |t: &serde_json::Value| t["bytes"].as_u64().unwrap().next_multiple_of(64) as usize;
    let start = whole.len() - tensors.iter().map(padded).sum::<usize>();
    let offset = |name: &str| start + tensors.iter().take_while(|t| t["name"] != name).map(padded).sum::<usize>();

    let codes = offset("blk.0.attn_out.weight");
    assert!(verify(codes, &[0x80]).contains("blk.0.attn_out.weight: code -128 at byte 0"));
    let changed = (whole[codes] as i8).wrapping_neg().max(-126) as u8 ^ 1;
    assert!(verify(codes, &[changed]).contains("blk.0.attn_out.sum: channel 0: states"));
    // Such a file is no model for any command.
    let nan = inspect(offset("head.bias"), &f32::NAN.to_le_bytes(), 1);
    assert!(nan.contains("tensor head.bias: a value is not finite"), "{nan}");
    let bias = offset("blk.1.ffn_up.bias");
    assert!(verify(bias, &123.5f32.to_le_bytes()).ends_with("the checksum does not match the tensors"));
}

#[test]
fn conversion_reports_and_repeats_itself() {
    let scene = Scene::new();
    let source = checkpoint("timm_deit3").display().to_string();
    let (a, b) = (scene.path("a.gguf"), scene.path("b.gguf"));
    let text = stdout(&format!("convert {source} -o {a}"));
    assert!(text.contains("gamma") && text.contains("SQNR"), "{text}");
    let report = json(&format!("convert {source} -o {b} --json"));
    assert!(report.is_object());
    assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    let kept = scene.path("kept.gguf");
    stdout(&format!("convert {source} -o {kept} --layerscale keep --weight-scale per-tensor --precision int8"));
    let d = json(&format!("inspect {kept} --json"));
    assert_eq!((&d["layerscale"]["mode"], &d["layerscale"]["weight_scale"]), (&"keep".into(), &"per-tensor".into()));
    stdout(&format!(
        "convert {source} -o {kept} --image-size 48x32 --mean 0.5,0.5,0.5 --std 0.25,0.25,0.25 --interpolation bilinear"
    ));
    let d = json(&format!("inspect {kept} --json"));
    assert_eq!((&d["config"]["image_height"], &d["config"]["image_width"]), (&48.into(), &32.into()));
    assert_eq!(d["preprocess"]["std"], serde_json::json!([0.25, 0.25, 0.25]));
    assert_eq!(d["preprocess"]["interpolation"], "bilinear");
}

#[test]
fn pruning_reports_what_it_saves_and_what_it_costs() {
    let scene = Scene::new();
    let source = checkpoint("timm_deit3").display().to_string();
    let [whole, pruned] = ["whole.gguf", "pruned.gguf"].map(|name| scene.path(name));
    stdout(&format!("convert {source} -o {whole}"));
    let report = json(&format!("convert {source} -o {pruned} --prune-dead 0.15 --json"));
    let (taken, effect) = (&report["pruned"], &report["pruned_effect"]);
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    assert!(number(&taken["removed"]) > 0.0 && number(&taken["below"]) >= number(&taken["removed"]), "{taken}");
    let rows: f64 = taken["matrices"].as_array().unwrap().iter().map(|m| number(&m["removed"])).sum();
    assert_eq!(rows, number(&taken["removed"]));
    assert!(number(&effect["time"]["median"]) > 0.0 && number(&effect["logit_error"]) > 0.0, "{effect}");
    assert_eq!(effect["pictures"], 6);

    let [whole, pruned] = [whole, pruned].map(|path| json(&format!("inspect {path} --json --verify")));
    assert!(whole.get("pruned").is_none());
    assert_eq!((&pruned["pruned"]["removed"], &pruned["parameters"]), (&taken["removed"], &whole["parameters"]));
    let tensors =
        |d: &serde_json::Value| d["tensors"].as_array().unwrap().iter().map(|t| number(&t["bytes"])).sum::<f64>();
    assert_eq!(tensors(&whole) - tensors(&pruned), number(&taken["bytes_removed"]));

    let text = stdout(&format!("convert {source} -o {} --prune-dead 0.15", scene.path("text.gguf")));
    assert!(text.contains("were removed from") && text.contains("of its time"), "{text}");
    let text = stdout(&format!("inspect {}", scene.path("text.gguf")));
    assert!(text.contains("rows of the branches' last matrices were removed"), "{text}");
    let text = stdout(&format!("convert {source} -o {} --prune-dead 1e-6", scene.path("text.gguf")));
    assert!(text.contains("nothing was taken out"), "{text}");
}

/// What is dead weight, against what, and what takes it out.
#[test]
fn the_report_names_dead_weight_in_int8_alone() {
    let scene = Scene::new();
    let built_in = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/cifar10-vit-layerscale");
    for (precision, lines) in [("int8", 1), ("f16", 0)] {
        let text = stdout(&format!("convert {built_in} -o {} --precision {precision}", scene.path("m.gguf")));
        let told: Vec<&str> = text.lines().filter(|line| line.starts_with("dead weight: ")).collect();
        assert_eq!(told.len(), lines, "{text}");
        let all = "of 2304 channels change the stream by less than its rounding to 8 bits does";
        assert!(told.iter().all(|line| line.contains(all) && line.contains("--prune-dead 0.009")), "{text}");
        assert!(text.contains("gamma 0") && text.contains("gamma: in the scales, exact in every branch"), "{text}");
    }
}

#[test]
fn convert_wants_sensible_options() {
    let scene = Scene::new();
    let source = checkpoint("timm_deit3").display().to_string();
    let out = scene.path("m.gguf");
    for option in ["--image-size 48", "--mean 0.5", "--precision int4", "--layerscale melt", "--std 0,1,1"] {
        assert_eq!(run(&format!("convert {source} -o {out} {option}")).status.code(), Some(2), "{option}");
    }
    assert!(!std::path::Path::new(&out).exists());
    assert!(error(&format!("convert {} -o {out}", scene.path("nowhere")), 1).contains("nowhere"));
}

#[test]
fn expected_noise_is_what_the_conversion_measured() {
    let scene = Scene::new();
    for (name, precision) in [("timm_deit3", "int8"), ("timm_reg4_swiglu", "int8"), ("hf_vit", "f16")] {
        let model = scene.path("model.gguf");
        let report = json(&format!("convert {} -o {model} --precision {precision} --json", checkpoint(name).display()));
        let matrices = json(&format!("inspect {model} --json"))["matrices"].as_array().unwrap().clone();
        let measured = report["linears"].as_array().unwrap();
        assert_eq!(matrices.len(), measured.len());
        for (expected, measured) in matrices.iter().zip(measured) {
            assert_eq!(expected["name"], measured["name"]);
            let [expected, measured] = [expected, measured].map(|m| m["sqnr_db"].as_f64().unwrap());
            assert!((expected - measured).abs() < 0.6, "{name} {precision}: {expected} dB, measured {measured} dB");
        }
    }
}

#[test]
fn a_model_file_is_drawn() {
    let scene = Scene::new();
    for (name, precision, texts) in [
        ("timm_deit3", "int8", &["LayerScale of the attention branch", "quantization noise", "Size"][..]),
        ("timm_vit", "f32", &["Size"]),
    ] {
        let (model, svg) = (scene.model(name, precision), scene.path("plot.svg"));
        stdout(&format!("inspect {model} --plot {svg}"));
        let svg = std::fs::read_to_string(svg).unwrap();
        assert!(svg.starts_with("<svg xmlns") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
        texts.iter().for_each(|t| assert!(svg.contains(t), "{name}: {t}"));
        assert_eq!(svg.contains("LayerScale of"), name == "timm_deit3");
    }
    let model = scene.model("timm_vit", "int8");
    assert!(error(&format!("inspect {model} --plot {}/x/y.svg", scene.path("nowhere")), 1).contains("cannot write"));
}

#[test]
fn a_header_for_c_has_the_bytes_of_static_arrays() {
    let scene = Scene::new();
    let model = scene.model("timm_deit3", "int8");
    let header = |options: &str| stdout(&format!("inspect {model} --c-header {options}"));
    let of = |header: &str, name: &str| -> Option<usize> {
        header.lines().find_map(|line| line.strip_prefix(&format!("#define TIMM_DEIT3_INT8_{name} "))?.parse().ok())
    };
    let plain = header("");
    let bytes = of(&plain, "SESSION_BYTES").unwrap();
    assert_eq!(of(&plain, "FILE_BYTES"), std::fs::metadata(&model).ok().map(|file| file.len() as usize));
    let d = json(&format!("inspect {model} --json"));
    assert_eq!(of(&plain, "LOGITS_FLOATS"), d["config"]["classes"].as_u64().map(|n| n as usize));
    assert_eq!((bytes % 64, of(&plain, "TOKENS_FLOATS")), (0, None));
    assert!(of(&header("--max-picture 60000x60000"), "SESSION_BYTES").unwrap() > bytes);
    let more = header("--threads 4 --outputs tokens,features");
    assert!(of(&more, "SESSION_BYTES").unwrap() > bytes);
    assert!(of(&more, "TOKENS_FLOATS").is_some() && of(&more, "LOGITS_FLOATS").is_none(), "{more}");
    for (refused, status, what) in [
        ("--c-header --max-picture 64", 2, "WIDTHxHEIGHT"),
        ("--c-header --outputs scores", 2, "logits, features, tokens"),
        ("--c-header --threads 257", 1, "256 threads"),
        ("--threads 2", 2, "--c-header"),
        ("--c-header --json", 2, "--json"),
    ] {
        let line = error(&format!("inspect {model} {refused}"), status);
        assert!(line.contains(what), "{line}");
    }
}

#[test]
fn a_depth_head_is_named_with_its_unit() {
    let scene = Scene::new();
    for (name, unit, metric) in [
        ("hf_depth_anything", "depth (inverse, up to scale and shift)", false),
        ("hf_depth_anything_metric", "depth (in metres)", true),
    ] {
        let model = scene.model(name, "int8");
        assert!(stdout(&format!("inspect {model}")).contains(unit), "{name}");
        let config = &json(&format!("inspect {model} --json"))["config"];
        assert_eq!(config["outputs"], serde_json::json!(["features", "tokens", "depth"]));
        assert_eq!(config["metric_depth"], metric);
    }
}
