//! The same network under other names: within a wrapper, and as transformers 5 has it in memory.

use std::fs;
use std::path::PathBuf;

use crate::common::{Tensors, convert_err, convert_ok, fixture, fixture_dirs, save, tensors};
use vitlet_convert::Options;

/// A fixture's files with other weights.
struct Rewritten {
    _scratch: tempfile::TempDir,
    dir: PathBuf,
}

fn rewritten(name: &str, edit: impl FnOnce(Tensors) -> Tensors) -> Rewritten {
    let scratch = tempfile::tempdir().expect("a directory");
    let dir = scratch.path().join(name);
    fs::create_dir(&dir).expect("created");
    for file in ["config.json", "preprocessor_config.json"] {
        if fixture(name).join(file).exists() {
            fs::copy(fixture(name).join(file), dir.join(file)).expect("copied");
        }
    }
    save(&edit(tensors(&fixture(name))), &dir.join("model.safetensors"));
    Rewritten { _scratch: scratch, dir }
}

fn rewritten_from(other: &Rewritten, edit: impl FnOnce(&mut Tensors)) -> Rewritten {
    let mut all = tensors(&other.dir);
    edit(&mut all);
    rewritten("timm_vit", |_| all)
}

fn renamed(name: &str, rename: impl Fn(String) -> String) -> Rewritten {
    rewritten(name, |all| all.into_iter().map(|(name, tensor)| (rename(name), tensor)).collect())
}

fn same(name: &str, other: &Rewritten) -> Vec<String> {
    let converted = convert_ok(&other.dir, &Options::default());
    assert!(convert_ok(&fixture(name), &Options::default()).bytes[..] == converted.bytes[..], "{name}");
    converted.report.announcements
}

#[test]
fn any_prefix_is_found_in_any_network_and_announced() {
    let prefixes =
        ["timm_model.", "net.", "base_model.model.", "module._orig_mod.model.", "a.b2.student_net.", "model."];
    for (i, dir) in fixture_dirs().iter().enumerate() {
        let name = dir.file_name().and_then(|n| n.to_str()).expect("a name");
        let prefix = prefixes[i % prefixes.len()];
        let told = same(name, &renamed(name, |n| format!("{prefix}{n}")));
        let want = format!("the prefix {}", prefix.replace("_orig_mod.", ""));
        assert!(told.iter().any(|a| a.starts_with(&want)), "{name} {prefix} {told:?}");
    }
}

#[test]
fn segments_that_pytorch_puts_inside_names_are_left_out() {
    let wrapped =
        |n: String| n.replace("blocks.0.", "blocks.0._orig_mod.").replace(".attn.", "._fsdp_wrapped_module.attn.");
    same("timm_vit", &renamed("timm_vit", wrapped));
}

#[test]
fn a_head_beside_the_encoder_is_found_by_its_shape() {
    let beside = |n: String| match n.strip_prefix("head.") {
        Some(leaf) => format!("classifier.1.{leaf}"),
        None => format!("net.backbone.{n}"),
    };
    let told = same("timm_vit", &renamed("timm_vit", beside));
    let taken = "the head is classifier.1, the only remaining layer of 7 x 36";
    assert!(told.iter().any(|a| a.starts_with(taken)), "{told:?}");

    // Two layers of that shape, or anything else beside the encoder, are named.
    let two = rewritten("timm_vit", |all| {
        let mut all: Tensors = all.into_iter().map(|(n, t)| (beside(n), t)).collect();
        all.insert("projector.weight".into(), all["classifier.1.weight"].clone());
        all
    });
    let text = convert_err(&two.dir, &Options::default()).to_string();
    assert!(text.contains("net.backbone.head.weight: missing") && text.contains("projector.weight"), "{text}");
    let ignored = Options { ignore: vec!["projector.*".into()], ..Options::default() };
    let told = convert_ok(&two.dir, &ignored).report.announcements;
    assert!(told.iter().any(|a| a.starts_with("the head is classifier.1")), "{told:?}");
    let more = rewritten("timm_vit", |all| {
        let mut all: Tensors = all.into_iter().map(|(n, t)| (format!("net.{n}"), t)).collect();
        all.insert("criterion.weight".into(), all["net.norm.weight"].clone());
        all
    });
    let text = convert_err(&more.dir, &Options::default()).to_string();
    assert!(text.starts_with("tensor criterion.weight: not a part of this architecture"), "{text}");
    let ignored = Options { ignore: vec!["criterion.*".into()], ..Options::default() };
    let told = convert_ok(&more.dir, &ignored).report.announcements.join("\n");
    assert!(told.contains("left out, not read at inference: criterion.weight"), "{told}");
}

#[test]
fn a_head_beside_transformers_encoder_is_taken_where_its_shape_says_what_it_reads() {
    let beside = |base: &'static str| {
        move |n: String| match (n.strip_prefix("classifier."), n.strip_prefix(base)) {
            (Some(leaf), _) => format!("head.1.{leaf}"),
            (_, Some(inner)) => format!("backbone.{inner}"),
            _ => n,
        }
    };
    for (name, base) in [("hf_dinov2", "dinov2."), ("hf_convnext", "convnext.")] {
        let told = same(name, &renamed(name, beside(base)));
        assert!(told.iter().any(|a| a.starts_with("the head is head.1, the only remaining layer of")), "{told:?}");
    }

    let vit = renamed("hf_vit", beside("vit."));
    let text = convert_err(&vit.dir, &Options::default()).to_string();
    assert!(text.starts_with("tensor head.1: a head beside the network") && text.contains("class token"), "{text}");
    let all = tensors(&vit.dir);
    let head = vit.dir.join("head");
    save(&all.into_iter().filter(|(name, _)| name.starts_with("head.")).collect(), &head);
    let options = Options { head: Some(head), ignore: vec!["head.1.*".into()], ..Options::default() };
    assert!(convert_ok(&vit.dir, &options).bytes[..] == convert_ok(&fixture("hf_vit"), &Options::default()).bytes[..]);
}

#[test]
fn a_network_that_is_there_twice_is_refused_unless_one_is_ignored() {
    let twice = rewritten("hf_vit", |all| {
        let copies =
            all.into_iter().flat_map(|(n, t)| ["online.", "momentum."].map(|p| (format!("{p}{n}"), t.clone())));
        copies.collect()
    });
    let text = convert_err(&twice.dir, &Options::default()).to_string();
    assert!(text.contains("2 times, under momentum., online.") && text.contains("--ignore 'momentum.*'"), "{text}");
    let ignore = Options { ignore: vec!["momentum.*".into()], ..Options::default() };
    let converted = convert_ok(&twice.dir, &ignore);
    assert!(convert_ok(&fixture("hf_vit"), &Options::default()).bytes[..] == converted.bytes[..]);
}

#[test]
fn what_is_missing_is_named_with_its_prefix_or_with_what_is_there() {
    let gap = rewritten("timm_vit", |all| {
        let kept = all.into_iter().filter(|(n, _)| !n.starts_with("blocks.1."));
        kept.map(|(n, t)| (format!("net.{n}"), t)).collect()
    });
    let text = convert_err(&gap.dir, &Options::default()).to_string();
    assert!(text.starts_with("tensor net.blocks.1.attn.qkv.weight: missing"), "{text}");
    let other = renamed("timm_vit", |n| format!("layer{}", n.replace('.', "_")));
    let text = convert_err(&other.dir, &Options::default()).to_string();
    assert!(text.contains("patch_embed.proj.weight: missing"), "{text}");
    assert!(
        text.contains("; the checkpoint has layerblocks_0_attn_proj_bias") && text.contains("others instead"),
        "{text}"
    );
    // As PEFT saves a head that was trained beside an adapter.
    let saved =
        renamed("timm_vit", |n| format!("base_model.model.{}", n.replace("head.", "head.modules_to_save.default.")));
    let saved = rewritten_from(&saved, |all| {
        let original = all["base_model.model.head.modules_to_save.default.weight"].clone();
        all.insert("base_model.model.head.original_module.weight".into(), original);
    });
    let text = convert_err(&saved.dir, &Options::default()).to_string();
    assert!(text.contains("head.weight: missing") && text.contains("head.modules_to_save.default.weight"), "{text}");
    let adapter = renamed("timm_vit", |n| n.replace("attn.qkv.weight", "attn.qkv.lora_A.default.weight"));
    let text = convert_err(&adapter.dir, &Options::default()).to_string();
    assert!(text.contains("LoRA adapter") && text.contains("merge_and_unload"), "{text}");
}

/// From the names on disk to those of `model.state_dict()` in transformers 5.24.
fn in_memory(fixture: &str, name: &str) -> String {
    if fixture.starts_with("hf_dinov3") {
        return match name.strip_prefix("layer.") {
            Some(rest) => format!("model.layer.{rest}"),
            None => name.to_owned(),
        };
    }
    let pairs = [
        ("encoder.relative_position_bias.", "shared_position_bias."),
        ("attention.attention.relative_position_bias.", "relative_position_bias."),
        ("attention.attention.query.", "attention.q_proj."),
        ("attention.attention.key.", "attention.k_proj."),
        ("attention.attention.value.", "attention.v_proj."),
        ("attention.output.dense.", "attention.o_proj."),
        ("intermediate.dense.", "mlp.fc1."),
        ("output.dense.", "mlp.fc2."),
        ("encoder.layer.", "layers."),
        ("mlp.weights_out.", "mlp.down_proj."),
    ];
    let dino = fixture.starts_with("hf_dinov2");
    let pairs = pairs.iter().filter(|(disk, _)| !dino || !disk.starts_with("encoder."));
    pairs.fold(name.to_owned(), |name, (disk, memory)| name.replace(disk, memory))
}

#[test]
fn names_that_transformers_5_has_in_memory() {
    let names = ["hf_vit", "hf_deit", "hf_deit_teacher", "hf_dinov2", "hf_dinov2_model", "hf_dinov2_registers"];
    let more = ["hf_dinov2_swiglu", "hf_dinov3", "hf_beit"];
    for name in names.iter().chain(&more).filter(|name| fixture(name).exists()) {
        for prefix in ["", "module."] {
            let memory = rewritten(name, |all| {
                let renamed = all.into_iter().map(|(n, t)| (format!("{prefix}{}", in_memory(name, &n)), t));
                let mut all: Tensors = renamed.collect();
                halve(&mut all);
                all
            });
            let other = tensors(&memory.dir);
            assert!(!other.keys().any(|n| n.contains("attention.attention") || n.contains("weights_in")), "{name}");
            same(name, &memory);
        }
    }
}

/// DINOv2's gated MLP: one layer on disk, two in memory, the gate first.
fn halve(all: &mut Tensors) {
    let whole: Vec<String> = all.keys().filter(|name| name.contains("mlp.weights_in.")).cloned().collect();
    for name in whole {
        let (dtype, mut shape, mut gate) = all.remove(&name).expect("there");
        shape[0] /= 2;
        let up = gate.split_off(gate.len() / 2);
        all.insert(name.replace("weights_in", "gate_proj"), (dtype, shape.clone(), gate));
        all.insert(name.replace("weights_in", "up_proj"), (dtype, shape, up));
    }
}
