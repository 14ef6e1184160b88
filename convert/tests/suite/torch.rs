//! PyTorch's own files (tests/fixtures/torch) give the bytes that safetensors of the same weights give, and run
//! nothing.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{convert_err, convert_ok, root};
use vitlet_convert::{Converted, Options};

fn onnx_fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures/onnx").join(name)
}

fn torch_fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures/torch").join(name)
}

fn from_safetensors(network: &str) -> Converted {
    let scratch = beside_config(network, &[]);
    fs::copy(onnx_fixture(network).join("model.safetensors"), scratch.path().join("model.safetensors"))
        .expect("copied");
    convert_ok(scratch.path(), &Options::default())
}

/// A directory with the configuration of a network and these files of the fixtures.
fn beside_config(network: &str, files: &[&str]) -> tempfile::TempDir {
    let scratch = tempfile::tempdir().expect("a directory");
    for name in ["config.json", "preprocessor_config.json"] {
        if onnx_fixture(network).join(name).exists() {
            fs::copy(onnx_fixture(network).join(name), scratch.path().join(name)).expect("copied");
        }
    }
    for file in files {
        let name = Path::new(file).file_name().expect("a name");
        fs::copy(torch_fixture(file), scratch.path().join(name)).expect("copied");
    }
    scratch
}

fn announced(converted: &Converted, part: &str) {
    let all = &converted.report.announcements;
    assert!(all.iter().any(|a| a.contains(part)), "{part:?} is not in {all:?}");
}

fn ema() -> Options {
    Options { ema: true, ..Options::default() }
}

#[test]
fn files_of_every_trainer_give_the_bytes_of_safetensors() {
    let whole = from_safetensors("vit");
    for name in ["state.pth", "protocol4.pth", "old.pth", "views.pth", "last.ckpt", "dino.pth", "only_ema.pt"] {
        let scratch = beside_config("vit", &[name]);
        for src in [scratch.path().to_owned(), scratch.path().join(name)] {
            let converted = convert_ok(&src, &Options::default());
            assert!(converted.bytes[..] == whole.bytes[..], "{}", src.display());
        }
    }
}

#[test]
fn averaged_weights_are_taken_where_told_and_where_they_are_the_only_ones() {
    let whole = from_safetensors("vit");
    let scratch = beside_config("vit", &["model_best.pth.tar"]);
    let averaged = convert_ok(scratch.path(), &ema());
    assert!(averaged.bytes[..] == whole.bytes[..]);
    announced(&averaged, "the weights are state_dict_ema; left out: state_dict");
    let plain = convert_ok(scratch.path(), &Options::default());
    assert!(plain.bytes[..] != whole.bytes[..]);
    announced(&plain, "the weights are state_dict; left out: state_dict_ema (--ema takes averaged weights)");

    let scratch = beside_config("vit", &["only_ema.pt"]);
    announced(&convert_ok(scratch.path(), &Options::default()), "only the averaged weights (model_ema) are whole");
    let scratch = beside_config("vit", &["dino.pth"]);
    announced(&convert_ok(scratch.path(), &Options::default()), "the weights are teacher; left out: student");
    refused_with(&scratch.path().join("dino.pth"), &ema(), &["--ema: no averaged weights", "teacher, student"]);
    let safetensors = onnx_fixture("vit").join("model.safetensors");
    refused_with(&safetensors, &ema(), &["--ema is for PyTorch files"]);
}

#[test]
fn shards_with_an_index() {
    let whole = from_safetensors("hf_vit");
    let files =
        ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"];
    let scratch = beside_config("hf_vit", &files.map(|file| format!("sharded/{file}")).each_ref().map(String::as_str));
    assert!(convert_ok(scratch.path(), &Options::default()).bytes[..] == whole.bytes[..]);
    // Trainers' other files in the directory are not weights.
    fs::write(scratch.path().join("training_args.bin"), b"PK\x03\x04").expect("written");
    assert!(convert_ok(scratch.path(), &Options::default()).bytes[..] == whole.bytes[..]);
    fs::remove_file(scratch.path().join(files[1])).expect("removed");
    refused_with(scratch.path(), &Options::default(), &["are missing: pytorch_model-00002-of-00002.bin"]);
}

#[test]
fn any_name_will_do() {
    let whole = from_safetensors("vit");
    for name in ["pytorch_model.bin", "weights", "best.model", "deit.onnx", "old.gguf", "model.safetensors"] {
        for file in ["state.pth", "old.pth"] {
            let scratch = beside_config("vit", &[]);
            let path = scratch.path().join(name);
            fs::copy(torch_fixture(file), &path).expect("copied");
            assert!(convert_ok(&path, &Options::default()).bytes[..] == whole.bytes[..], "{name}");
        }
    }
}

#[test]
fn a_malicious_pickle_runs_nothing() {
    let scratch = beside_config("vit", &["malicious.pth"]);
    let converted = convert_ok(&scratch.path().join("malicious.pth"), &Options::default());
    assert!(converted.bytes[..] == from_safetensors("vit").bytes[..]);
    for dir in [scratch.path(), &std::env::current_dir().expect("a directory")] {
        assert!(!dir.join("VITLET_WAS_HERE").exists());
    }
}

fn refused_with(src: &Path, options: &Options, parts: &[&str]) {
    let text = convert_err(src, options).to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn what_is_no_state_dict_is_refused_with_a_cure() {
    let default = Options::default();
    for (name, parts) in [
        ("module.pth", &["a whole pickled module", "torch.load('module.pth'", "m.state_dict()"][..]),
        ("module_inside.pt", &["a whole pickled module", "weights_only=False)['model']; torch.save(m.state_dict()"]),
        ("script.pt", &["TorchScript", "torch.jit.load('script.pt'"]),
        ("plain.pkl", &["not a file of torch.save", "pickle.load(open('plain.pkl', 'rb'))"]),
        ("expanded.pth", &["tensor cls_token: ", "elements more than once", ".contiguous()"]),
    ] {
        let scratch = beside_config("vit", &[&format!("refused/{name}")]);
        refused_with(&scratch.path().join(name), &default, parts);
    }
}

/// A file of the fixtures with `from` replaced by `to` of the same length, wherever it stands.
fn patched(file: &str, from: &[u8], to: &[u8]) -> tempfile::TempDir {
    assert_eq!(from.len(), to.len());
    let scratch = beside_config("vit", &[]);
    let mut bytes = fs::read(torch_fixture(file)).expect("read");
    let places: Vec<_> = bytes.windows(from.len()).enumerate().filter(|(_, w)| *w == from).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "{from:?} is not in {file}");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    fs::write(scratch.path().join("model.pth"), bytes).expect("written");
    scratch
}

#[test]
fn damaged_archives_are_refused() {
    let refuse = |file: &str, from: &[u8], to: &[u8], parts: &[&str]| {
        refused_with(&patched(file, from, to).path().join("model.pth"), &Options::default(), parts);
    };
    refuse("state.pth", b"little", b"big   ", &["big-endian"]);
    refuse("state.pth", b"little", b"middle", &["byte order is neither little nor big"]);
    refuse("state.pth", b"state/data.pkl", b"state/data.pkk", &["a zip archive without data.pkl"]);
    refuse("state.pth", b"state/data/10", b"state/data/11", &["two entries named state/data/11"]);
    refuse("state.pth", b"state/data/10", b"state/date/10", &["tensor ", "its storage 10 is not in the file"]);
    refuse("state.pth", b"HalfStorage", b"HalfStoragf", &["HalfStoragf values"]);
    let whole = fs::read(torch_fixture("state.pth")).expect("read");
    // Every entry with a method of compression, in the directory.
    let mut packed = whole.clone();
    for at in 0..whole.len() - 4 {
        if whole[at..].starts_with(b"PK\x01\x02") {
            packed[at + 10] = 8;
        }
    }
    let scratch = beside_config("vit", &[]);
    fs::write(scratch.path().join("model.pth"), packed).expect("written");
    refused_with(scratch.path(), &Options::default(), &["is compressed or encrypted", "zipfile.ZipFile('model.pth')"]);
    for len in [4, 100, whole.len() / 2, whole.len() - 1] {
        let scratch = beside_config("vit", &[]);
        fs::write(scratch.path().join("model.pth"), &whole[..len]).expect("written");
        refused_with(
            scratch.path(),
            &Options::default(),
            &["model.pth: ", "zip archive is missing", "download it again"],
        );
    }
    let old = fs::read(torch_fixture("old.pth")).expect("read");
    let scratch = beside_config("vit", &[]);
    fs::write(scratch.path().join("model.pth"), &old[..old.len() - 1]).expect("written");
    refused_with(scratch.path(), &Options::default(), &["its storages are damaged"]);
}

#[test]
fn several_files_are_named() {
    let scratch = beside_config("vit", &["model_best.pth.tar", "last.ckpt"]);
    let parts = ["several files with weights (last.ckpt, model_best.pth.tar)", "give the one to convert"];
    refused_with(scratch.path(), &Options::default(), &parts);
}
