//! `convert hf:OWNER/NAME` from the Hub's cache on this machine, which every build reads; the network is forbidden.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::common::{Scene, checkpoint, stdout, vitlet};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A cache with `owner/tiny` at one commit, which the revisions `main` and `pr/1` name.
struct Cached {
    scene: Scene,
    repository: PathBuf,
}

impl Cached {
    fn new(fixture: &str, files: &[&str]) -> Self {
        let scene = Scene::new();
        let repository = scene.dir.path().join("home/hub/models--owner--tiny");
        for folder in ["snapshots", "refs/pr"] {
            fs::create_dir_all(repository.join(folder)).unwrap();
        }
        for revision in ["main", "pr/1"] {
            fs::write(repository.join("refs").join(revision), format!("{COMMIT}\n")).unwrap();
        }
        let cached = Self { scene, repository };
        fs::create_dir(cached.snapshot()).unwrap();
        for file in files {
            fs::copy(checkpoint(fixture).join(file), cached.snapshot().join(file)).unwrap();
        }
        cached
    }

    fn snapshot(&self) -> PathBuf {
        self.repository.join("snapshots").join(COMMIT)
    }

    fn convert(&self, name: &str, environment: &[(&str, &Path)]) -> Output {
        let mut command = vitlet();
        for variable in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(variable);
        }
        command.env("HF_HUB_OFFLINE", "1").envs(environment.iter().copied());
        command.args(["convert", name, "-o", &self.model()]).output().unwrap()
    }

    fn model(&self) -> String {
        self.scene.path("cached.gguf")
    }

    /// Converts, and gives what was said on standard error.
    fn converts(&self, name: &str) -> String {
        let output = self.convert(name, &[("HF_HOME", &self.scene.dir.path().join("home"))]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        text
    }

    fn refused(&self, name: &str) -> String {
        let output = self.convert(name, &[("HF_HOME", &self.scene.dir.path().join("home"))]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
        text
    }
}

const WHOLE: [&str; 3] = ["config.json", "model.safetensors", "preprocessor_config.json"];

#[test]
fn a_cached_checkpoint_converts_as_its_folder_does() {
    let cached = Cached::new("hf_vit", &WHOLE);
    let direct = cached.scene.path("direct.gguf");
    stdout(&format!("convert {} -o {direct}", checkpoint("hf_vit").display()));
    for name in ["hf:owner/tiny", "hf:owner/tiny@pr/1", &format!("hf:owner/tiny@{COMMIT}")] {
        assert_eq!(cached.converts(name), "", "{name}");
        assert!(fs::read(cached.model()).unwrap() == fs::read(&direct).unwrap(), "{name}");
    }
    // HF_HUB_CACHE wins over HF_HOME.
    let hub = cached.scene.dir.path().join("home/hub");
    let nowhere = cached.scene.dir.path().join("nowhere");
    assert!(cached.convert("hf:owner/tiny", &[("HF_HUB_CACHE", &hub), ("HF_HOME", &nowhere)]).status.success());
    assert!(cached.convert("hf:owner/tiny", &[("HUGGINGFACE_HUB_CACHE", &hub)]).status.success());
    assert!(!cached.convert("hf:owner/tiny", &[("HF_HOME", &nowhere)]).status.success());
}

#[test]
fn a_processor_that_may_be_missing_is_warned_of_unless_the_cache_knows() {
    let cached = Cached::new("hf_dinov2", &WHOLE[..2]);
    let text = cached.converts("hf:owner/tiny");
    assert!(text.starts_with("warning: hf:owner/tiny: the cache has no preprocessor_config.json"), "{text}");
    for part in ["HF_HUB_OFFLINE is set", "all answers are", "/owner/tiny/resolve/main/preprocessor_config.json"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let no_exist = cached.repository.join(".no_exist").join(COMMIT);
    fs::create_dir_all(&no_exist).unwrap();
    fs::write(no_exist.join("preprocessor_config.json"), "").unwrap();
    assert_eq!(cached.converts("hf:owner/tiny"), "");
    // timm's config.json says itself how pictures are prepared.
    assert_eq!(Cached::new("timm_vit", &WHOLE[..2]).converts("hf:owner/tiny"), "");
}

#[test]
fn what_the_cache_lacks_is_named() {
    let cached = Cached::new("hf_vit", &WHOLE[..1]);
    let text = cached.refused("hf:owner/tiny");
    assert!(text.contains("hf:owner/tiny: the cache lacks model.safetensors, and HF_HUB_OFFLINE is set"), "{text}");
    assert!(text.contains("vitlet convert owner--tiny -o model.gguf"), "{text}");
    assert!(cached.refused("hf:owner/other").contains("hf:owner/other: HF_HUB_OFFLINE is set; put these files"));

    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    fs::write(cached.snapshot().join("model.safetensors.index.json"), index).unwrap();
    fs::write(cached.snapshot().join("model-00001-of-00002.safetensors"), "").unwrap();
    assert!(cached.refused("hf:owner/tiny").contains("the cache lacks model-00002-of-00002.safetensors"));
}
