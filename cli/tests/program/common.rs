//! What the tests of the program share: running it, converting fixture checkpoints, making pictures, reading .npy.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use image::{Rgb, RgbImage};
use serde_json::Value;
use tempfile::TempDir;

/// The program, ready for arguments.
pub fn vitlet() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vitlet"))
}

/// Runs the program; arguments are separated by spaces (and paths of the tests have none).
pub fn run(arguments: &str) -> Output {
    vitlet().args(arguments.split_whitespace()).output().unwrap()
}

/// Runs the program with `input` on its standard input.
pub fn run_with_input(arguments: &str, input: &[u8]) -> Output {
    let mut command = vitlet();
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.args(arguments.split_whitespace()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// Standard output of a run that must succeed.
pub fn stdout(arguments: &str) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "vitlet {arguments}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The JSON document of a run that must succeed.
pub fn json(arguments: &str) -> Value {
    serde_json::from_str(&stdout(arguments)).unwrap()
}

/// Standard output and the error lines of a run that must leave out some of its inputs and do the others.
pub fn partial(arguments: &str) -> (String, String) {
    let output = run(arguments);
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert_eq!(output.status.code(), Some(4), "vitlet {arguments}\n{stderr}");
    (stdout, stderr)
}

/// The one error line of a run that must fail with `status`.
pub fn error(arguments: &str, status: i32) -> String {
    let output = run(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "vitlet {arguments}\n{text}");
    assert_eq!(text.lines().count(), 1, "vitlet {arguments}\n{text}");
    text.trim_end().strip_prefix("error: ").unwrap_or_else(|| panic!("{text}")).to_string()
}

/// A fixture checkpoint.
pub fn checkpoint(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/checkpoints").join(name)
}

/// A directory for one test, and a model in it.
pub struct Scene {
    pub dir: TempDir,
}

impl Scene {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// `name` in the directory, as an argument.
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Converts a fixture checkpoint and gives the model file's path.
    pub fn model(&self, checkpoint_name: &str, precision: &str) -> String {
        let model = self.path(&format!("{checkpoint_name}-{precision}.gguf"));
        stdout(&format!("convert {} -o {model} --precision {precision}", checkpoint(checkpoint_name).display()));
        model
    }

    /// Saves a picture whose colours depend on `seed`; the format follows from the name.
    pub fn picture(&self, name: &str, seed: u32) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        colorful(53, 41, seed).save(&path).unwrap();
        path
    }
}

/// A picture with structure at several scales.
pub fn colorful(width: u32, height: u32, seed: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let wave = |a: u32, b: u32| ((x * a + y * b + seed * 97) % 251) as u8;
        Rgb([wave(3 + seed, 1), wave(1, 5 + seed), wave(7, 2) / 2 + if (x / 8 + y / 8) % 2 == 0 { 100 } else { 0 }])
    })
}

/// Shape-free data of a .npy file of f32.
pub fn npy(path: impl AsRef<Path>) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes[10 + header..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// A .npy file of f32.
pub fn write_npy(path: &str, shape: &str, data: &[f32]) {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    data.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}
