//! Helpers of the integration tests: where fixtures are, and int8 layers taken apart.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use vitlet::Model;
use vitlet::layout::{index_i8, k8};
use vitlet_convert::{Converted, Error, Options, convert};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures/checkpoints").join(name)
}

/// All fixture checkpoints, in order.
pub fn fixture_dirs() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(fixture("")).expect("fixtures");
    let mut dirs: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).filter(|p| p.is_dir()).collect();
    dirs.sort();
    assert!(dirs.len() >= 20, "{} fixtures", dirs.len());
    dirs
}

/// A copy of a fixture that a test may change.
pub struct Copy {
    _scratch: tempfile::TempDir,
    pub dir: PathBuf,
}

pub fn copy(name: &str) -> Copy {
    let scratch = tempfile::tempdir().expect("a directory");
    let dir = scratch.path().join(name);
    fs::create_dir(&dir).expect("created");
    for file in ["config.json", "preprocessor_config.json", "model.safetensors"] {
        if fixture(name).join(file).exists() {
            fs::copy(fixture(name).join(file), dir.join(file)).expect("copied");
        }
    }
    Copy { _scratch: scratch, dir }
}

impl Copy {
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.file(name), contents).expect("written");
    }

    /// The one-line error, which must contain all of `parts`.
    pub fn refused(&self, parts: &[&str]) {
        refused(&self.dir, &Options::default(), parts);
    }

    /// Changes a JSON file.
    pub fn edit(&self, name: &str, edit: impl FnOnce(&mut serde_json::Value)) {
        let mut json = serde_json::from_slice(&fs::read(self.file(name)).expect("read")).expect("JSON");
        edit(&mut json);
        self.write(name, json.to_string());
    }
}

/// The one-line error of a conversion, which must contain all of `parts`.
pub fn refused(src: &Path, options: &Options, parts: &[&str]) {
    let text = convert_err(src, options).to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// Something that the report announces, which must contain `part`.
pub fn announced(converted: &Converted, part: &str) {
    let all = &converted.report.announcements;
    assert!(all.iter().any(|a| a.contains(part)), "{part:?} is not in {all:?}");
}

/// A directory of reference data outside the repository, if it is there.
pub fn shared(name: &str) -> Option<PathBuf> {
    Some(root().join("../shared").join(name)).filter(|p| p.exists())
}

pub fn convert_ok(src: &Path, options: &Options) -> Converted {
    convert(src, options, &mut |_| {}).unwrap_or_else(|e| panic!("{}: {e}", src.display()))
}

pub fn convert_err(src: &Path, options: &Options) -> Error {
    match convert(src, options, &mut |_| {}) {
        Ok(_) => panic!("{}: converted", src.display()),
        Err(e) => {
            assert!(!e.to_string().contains('\n'), "one line: {e}");
            e
        }
    }
}

/// Name, type, shape and bytes of every tensor of a file.
pub type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

pub fn tensors(dir: &Path) -> Tensors {
    let bytes = fs::read(dir.join("model.safetensors")).expect("read");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    file.iter().map(|(name, t)| (name.to_owned(), (t.dtype(), t.shape().to_vec(), t.data().to_vec()))).collect()
}

pub fn save(tensors: &Tensors, path: &Path) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).expect("a tensor")));
    fs::write(path, safetensors::serialize(views, None).expect("serialized")).expect("written");
}

pub fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// An int8 layer of a model file.
#[derive(Debug, PartialEq)]
pub struct Int8 {
    pub k8: usize,
    pub codes: Vec<i8>,
    pub scale: Vec<f32>,
    pub sum: Vec<i32>,
    pub bias: Vec<f32>,
}

impl Int8 {
    pub fn row(&self, n: usize) -> impl Iterator<Item = i8> + '_ {
        (0..self.k8).map(move |k| self.codes[index_i8(n, k, self.k8)])
    }
}

pub fn linear(model: &Model<'_>, name: &str) -> Int8 {
    let mut out = Int8 { k8: 0, codes: Vec::new(), scale: Vec::new(), sum: Vec::new(), bias: Vec::new() };
    let floats = |b: &[u8]| b.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
    model.for_each_tensor(|spec, bytes| match spec.name.as_str().strip_prefix(name) {
        Some(".weight") => {
            out.k8 = k8(4 * spec.dims()[2]);
            out.codes = bytes.iter().map(|b| *b as i8).collect();
        }
        Some(".scale") => out.scale = floats(bytes),
        Some(".sum") => out.sum = bytes.as_chunks::<4>().0.iter().map(|x| i32::from_le_bytes(*x)).collect(),
        Some(".bias") => out.bias = floats(bytes),
        _ => {}
    });
    assert!(!out.bias.is_empty(), "{name} is not in the file");
    out
}
