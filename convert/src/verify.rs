//! The parts of a model file that `Model::parse` does not read: the checksum, the range of int8 codes, the sums of
//! codes that correct the zero point, and floats, which must be finite.

use serde::Serialize;
use vitlet::Model;
use vitlet::layout::{DType, TensorSpec};

use crate::error::Error;

/// What was found.
#[derive(Serialize)]
pub struct Outcome {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// Of all tensors' bytes.
    pub checksum: Checksum,
    /// Tensors of int8 codes that were read, with their sums.
    pub int8_tensors: usize,
    /// Tensors of f16 or f32 that were read.
    pub float_tensors: usize,
    /// The first of each tensor.
    pub faults: Vec<Fault>,
}

/// FNV-1a of the tensors, 16 hexadecimal digits.
#[derive(Serialize)]
pub struct Checksum {
    /// In the file's metadata; files of other programs may have none.
    pub stated: Option<String>,
    /// From the bytes.
    pub computed: String,
}

/// What is wrong with a tensor.
#[derive(Serialize)]
pub struct Fault {
    /// Its name in the file.
    pub tensor: String,
    /// Where and what.
    pub what: String,
}

impl Outcome {
    /// The first fault and how many more there are, in one line.
    pub fn fault(&self) -> Option<String> {
        let more = |n: usize| if n > 0 { format!(" (and {n} more)") } else { String::new() };
        let first = self.faults.first().map(|f| format!("{}: {}{}", f.tensor, f.what, more(self.faults.len() - 1)));
        first.or_else(|| (!self.ok).then(|| "the checksum does not match the tensors".to_string()))
    }
}

/// Reads a model file that was just made from a checkpoint, as `vitlet inspect --verify` does.
///
/// # Errors
/// Names the tensor: finite weights may give scales and biases that are not.
pub(crate) fn check(file: &[u8]) -> Result<(), Error> {
    let broken = |fault: &str| {
        let (what, why) = fault.split_once(": ").unwrap_or(("the model file", fault));
        Error::new(what, format!("{why}; the checkpoint's weights are too large for this precision, or broken"))
    };
    let model = Model::parse(file).map_err(|e| broken(&e.to_string()))?;
    verify(&model).fault().map_or(Ok(()), |fault| Err(broken(&fault)))
}

/// Reads every byte of the tensors.
pub fn verify(model: &Model) -> Outcome {
    let stated = model.stated_checksum();
    let computed = vitlet::checksum(model.data());
    let mut outcome = Outcome {
        ok: stated == Some(computed),
        checksum: Checksum { stated: stated.map(|c| format!("{c:016x}")), computed: format!("{computed:016x}") },
        int8_tensors: 0,
        float_tensors: 0,
        faults: Vec::new(),
    };
    // The codes come before their sums in the file.
    let mut sums = Vec::new();
    model.for_each_tensor(|spec, bytes| {
        let fault = match spec.dtype {
            DType::I8 => {
                outcome.int8_tensors += 1;
                sums = code_sums(spec, bytes);
                let bad = bytes.iter().position(|&b| b as i8 == -128);
                bad.map(|at| format!("code -128 at byte {at}, codes lie within +-127"))
            }
            DType::I32 => {
                let stated = bytes.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b));
                let bad = stated.zip(&sums).enumerate().find(|(_, (stated, sum))| stated != *sum);
                bad.map(|(n, (stated, sum))| format!("channel {n}: states {stated}, its codes add up to {sum}"))
            }
            DType::F16 | DType::F32 => {
                outcome.float_tensors += 1;
                first_not_finite(spec.dtype, bytes).map(|i| format!("element {i} is not finite"))
            }
        };
        outcome.faults.extend(fault.map(|what| Fault { tensor: spec.name.to_string(), what }));
    });
    outcome.ok &= outcome.faults.is_empty();
    outcome
}

/// The sum of codes per output channel of `[N/16][K8/4][16][4]` or, row by row, `[N][K]`; padding included, which must
/// be zero and so shows here.
fn code_sums(spec: &TensorSpec, codes: &[u8]) -> Vec<i32> {
    let sum = |codes: &[u8]| codes.iter().map(|&code| i32::from(code as i8)).sum::<i32>();
    let (k_groups, n_groups) = match *spec.dims() {
        [_, _, k_groups, n_groups] => (k_groups, n_groups),
        [k, _] => return codes.chunks_exact(k).map(sum).collect(),
        _ => return Vec::new(),
    };
    let mut sums = vec![0; n_groups * 16];
    for (i, group) in codes.chunks_exact(4).enumerate() {
        let channel = i / (16 * k_groups) * 16 + i % 16;
        sums[channel] += sum(group);
    }
    sums
}

fn first_not_finite(dtype: DType, bytes: &[u8]) -> Option<usize> {
    match dtype {
        DType::F16 => bytes.as_chunks::<2>().0.iter().position(|b| u16::from_le_bytes(*b) & 0x7c00 == 0x7c00),
        _ => bytes.as_chunks::<4>().0.iter().position(|b| !f32::from_le_bytes(*b).is_finite()),
    }
}
