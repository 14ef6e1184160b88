//! What the integration tests share: the fixture checkpoints, converted, and runs of them.

use std::path::{Path, PathBuf};

use vitlet::{Executor, Kernels, Model, Output, Plan, RunConfig, Scratch};
use vitlet_convert::{Converted, Options};

/// Every checkpoint under tests/fixtures/checkpoints.
pub fn checkpoints() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints");
    let mut all: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    assert!(all.len() > 15, "fixtures are missing");
    all
}

/// One of them.
pub fn checkpoint(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name)
}

/// A checkpoint as a model file.
pub fn convert(source: &Path, options: &Options) -> Converted {
    vitlet_convert::convert(source, options, &mut |_| {}).unwrap_or_else(|e| panic!("{}: {e}", source.display()))
}

/// An .npy file of little-endian f32: shape and values.
pub fn npy(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\0");
    let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..end]).unwrap();
    assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{header}");
    let shape = header.split(['(', ')']).nth(1).unwrap();
    let shape = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    (shape, bytes[end..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
}

/// One output for a batch of input tensors, one after another; the first if none is named.
pub fn run(
    bytes: &[u8],
    inputs: &[f32],
    kernels: Kernels,
    executor: &dyn Executor,
    output: impl Into<Option<Output>>,
) -> Vec<f32> {
    let model = Model::parse(bytes).unwrap();
    let outputs: Vec<Output> = output.into().into_iter().collect();
    run_as(&model, RunConfig::new(kernels).outputs(&outputs), inputs, executor)
}

/// The first output of a run for a batch of input tensors, one after another, in memory that holds NaN before.
pub fn run_as(model: &Model<'_>, run: RunConfig, inputs: &[f32], executor: &dyn Executor) -> Vec<f32> {
    let plan = Plan::new(model, &run.max_picture(1, 1), executor.threads()).unwrap();
    let mut scratch = of_nan(&plan);
    let mut session = plan.open(model, executor, &mut scratch).unwrap();
    let inputs = inputs.chunks_exact(plan.config().input_len());
    inputs.flat_map(|x| session.run_tensor(x).unwrap().first().to_vec()).collect()
}

/// Memory for a session: every float is NaN.
pub fn of_nan(plan: &Plan) -> Scratch {
    let mut scratch = Scratch::new(plan.scratch_bytes()).unwrap();
    scratch.fill(0xff);
    scratch
}

/// `||a - b|| / ||b||` over everything.
pub fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let size: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
    (difference / size).sqrt()
}
