//! `-m hf:OWNER/NAME`: converted once from the Hub's cache into vitlet's own, and opened from there.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use crate::common::{Scene, checkpoint, stdout, vitlet};

/// A home folder with the Hub's cache, in which commits of `owner/tiny` are fixtures.
struct Home {
    scene: Scene,
}

impl Home {
    fn new() -> Self {
        Self { scene: Scene::new() }
    }

    fn repository(&self) -> PathBuf {
        self.scene.dir.path().join("home/hub/models--owner--tiny")
    }

    /// The revision now names this commit, with the files of a fixture.
    fn commit(&self, revision: &str, commit: &str, fixture: &str) {
        let snapshot = self.repository().join("snapshots").join(commit);
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(self.repository().join("refs")).unwrap();
        fs::write(self.repository().join("refs").join(revision), commit).unwrap();
        for entry in fs::read_dir(checkpoint(fixture)).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), snapshot.join(entry.file_name())).unwrap();
        }
    }

    fn run(&self, arguments: &str) -> Output {
        let mut command = vitlet();
        for variable in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"] {
            command.env_remove(variable);
        }
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.scene.path("home"));
        command.env("XDG_CACHE_HOME", self.scene.path("cache"));
        command.args(arguments.split_whitespace()).output().unwrap()
    }

    /// Standard output and standard error of a run that must succeed.
    fn done(&self, arguments: &str) -> [String; 2] {
        let output = self.run(arguments);
        let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(output.status.success(), "vitlet {arguments}\n{stderr}");
        [stdout, stderr]
    }

    fn converted(&self, revision: &str) -> PathBuf {
        self.scene.dir.path().join(format!("cache/vitlet/owner--tiny@{revision}.gguf"))
    }
}

#[test]
fn a_name_is_converted_once_and_needs_no_hub_afterwards() {
    let home = Home::new();
    home.commit("main", "abc123", "hf_vit");
    let picture = home.scene.picture("a.png", 1);
    let classify = format!("classify -m hf:owner/tiny --digest --json {picture}");
    let digest = |document: &Value| document["results"][0]["digest"].as_str().unwrap().to_string();
    let first = home.run(&classify);
    let said = String::from_utf8(first.stderr).unwrap();
    assert!(said.starts_with("hf:owner/tiny: converting commit abc123 to int8, once"), "{said}");
    let first: Value = serde_json::from_slice(&first.stdout).unwrap();
    assert_eq!(first["model"], "hf:owner/tiny");

    // The same logits as from the folder, and the same file but for what it says of its origin.
    let direct = home.scene.model("hf_vit", "int8");
    let expected = stdout(&format!("classify -m {direct} --digest --json {picture}"));
    assert_eq!(digest(&first), digest(&serde_json::from_str(&expected).unwrap()));
    let bytes = fs::read(home.converted("main")).unwrap();
    let version = format!("vitlet-convert {}", env!("CARGO_PKG_VERSION"));
    for text in ["https://huggingface.co/owner/tiny", "abc123", &version] {
        assert!(bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
    }

    fs::remove_dir_all(home.scene.dir.path().join("home")).unwrap();
    let [again, said] = home.done(&classify);
    assert_eq!(said, "");
    assert_eq!(digest(&serde_json::from_str(&again).unwrap()), digest(&first));
}

#[test]
fn every_command_takes_a_name() {
    let home = Home::new();
    home.commit("main", "abc123", "hf_vit");
    let picture = home.scene.picture("a/b.png", 1);
    let folder = home.scene.path("a");
    let (output, input) = (home.scene.path("o.npy"), home.scene.path("i.npy"));
    home.done(&format!("preprocess -m hf:owner/tiny {picture} -o {input}"));
    for arguments in [
        format!("embed -m hf:owner/tiny {picture} -o {output}"),
        format!("run -m hf:owner/tiny --input {input} --output {output}"),
        format!("compare -m hf:owner/tiny --reference hf:owner/tiny {picture}"),
        format!("eval -m hf:owner/tiny {folder} --reference hf:owner/tiny"),
        "bench -m hf:owner/tiny --warmup 0 --iters 1".to_string(),
        "inspect hf:owner/tiny --verify".to_string(),
    ] {
        assert!(!home.done(&arguments)[1].contains("converting"), "{arguments}");
    }
}

#[test]
fn another_commit_another_converter_and_a_broken_file_are_converted_again() {
    let home = Home::new();
    home.commit("main", "abc123", "hf_vit");
    let picture = home.scene.picture("a.png", 1);
    let says = |name: &str| home.done(&format!("classify -m {name} {picture}"))[1].clone();
    assert!(says("hf:owner/tiny").contains("commit abc123"));
    assert_eq!(says("hf:owner/tiny"), "");
    home.commit("main", "def456", "hf_dinov2");
    assert!(says("hf:owner/tiny").contains("commit def456"));
    // A revision is a file of its own.
    home.commit("v1", "abc123", "hf_vit");
    assert!(says("hf:owner/tiny@v1").contains("commit abc123"));
    assert_eq!(says("hf:owner/tiny"), "");

    let path = home.converted("main");
    let mut bytes = fs::read(&path).unwrap();
    let converter = b"vitlet-convert ";
    let at = bytes.windows(converter.len()).position(|window| window == converter).unwrap() + converter.len();
    bytes[at] = b'9';
    fs::write(&path, &bytes).unwrap();
    assert!(says("hf:owner/tiny").contains("commit def456"));
    fs::write(&path, &bytes[..100]).unwrap();
    assert!(says("hf:owner/tiny").contains("commit def456"));
    assert_eq!(says("hf:owner/tiny"), "");
}

#[test]
fn without_a_cache_the_model_is_in_memory_and_a_wrong_name_is_wrong_usage() {
    let home = Home::new();
    home.commit("main", "abc123", "hf_vit");
    let picture = home.scene.picture("a.png", 1);
    // A file stands where the folder would be.
    fs::write(home.scene.path("cache"), "").unwrap();
    let [stdout, stderr] = home.done(&format!("classify -m hf:owner/tiny {picture}"));
    assert!(
        stdout.contains('%') && stderr.contains("warning: hf:owner/tiny is converted again next time: "),
        "{stderr}"
    );
    for (name, status) in [("hf:a/b/c", 2), ("hf:owner/other", 1)] {
        let output = home.run(&format!("classify -m {name} {picture}"));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.lines().count()), (Some(status), 1), "{text}");
    }
}
