//! The built-in network with its gammas spread over decades: the same function, stored as deep networks store it.
//!
//! A gamma that shrinks in training is made up for by its row of weights, so the rows of one matrix come to lie decades
//! apart. That is what a quantizer meets in CaiT or DeiT-III, and what the built-in network's twelve even blocks do not
//! show. `tests/fixtures/spread_gammas.py` does the same to checkpoints of any size, and proves it with PyTorch.

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors};
use vitlet_convert::output::TemporaryFolder;

use crate::error::{Error, Result};
use crate::model::{WEIGHTS, built_in_checkpoint};

/// Powers of ten between the smallest and the largest factor.
const DECADES: f64 = 5.0;

/// A branch's gammas, and the matrix before them.
const BRANCHES: [(&str, &str); 2] = [("ls1.gamma", "attn.proj"), ("ls2.gamma", "mlp.fc2")];

/// A tensor in f32.
struct Tensor {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// The checkpoint in a folder that is removed with the value.
pub(super) fn checkpoint() -> Result<TemporaryFolder> {
    let folder = built_in_checkpoint()?;
    let path = folder.path().join(WEIGHTS);
    let about = |why: String| Error::new(path.display(), why);
    let bytes = std::fs::read(&path).map_err(|e| about(e.to_string()))?;
    let mut tensors = read(&bytes).map_err(about)?;
    spread(&mut tensors);
    let bytes = write(&tensors).map_err(about)?;
    std::fs::write(&path, bytes).map_err(|e| about(e.to_string()))?;
    Ok(folder)
}

/// The tensors of a safetensors file of f16, by name: factors are drawn in the same order everywhere.
fn read(bytes: &[u8]) -> Result<Vec<Tensor>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let tensor = |(name, view): (String, TensorView)| {
        let halves = view.data().as_chunks::<2>().0;
        match view.dtype() {
            Dtype::F16 => Ok(Tensor {
                name,
                shape: view.shape().to_vec(),
                values: halves.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
            }),
            other => Err(format!("{name} is {other:?}, not f16")),
        }
    };
    let mut tensors: Vec<Tensor> = file.tensors().into_iter().map(tensor).collect::<Result<_, _>>()?;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

/// Multiplies every gamma by a factor of its own, and divides its row of the matrix before it, and of that bias, by
/// what the gamma became over what it was: rounding goes into the row.
fn spread(tensors: &mut [Tensor]) {
    let mut random = Uniform(7);
    for i in 0..tensors.len() {
        let name = &tensors[i].name;
        let Some(last) = BRANCHES.iter().find_map(|(gamma, last)| Some(name.strip_suffix(gamma)?.to_string() + last))
        else {
            continue;
        };
        let factors: Vec<f64> = tensors[i].values.iter_mut().map(|gamma| shrink(gamma, random.next())).collect();
        for row_of in ["weight", "bias"].map(|kind| format!("{last}.{kind}")) {
            if let Some(tensor) = tensors.iter_mut().find(|t| t.name == row_of) {
                let row = tensor.values.len() / factors.len();
                let rows = tensor.values.chunks_exact_mut(row).zip(&factors);
                rows.for_each(|(row, factor)| row.iter_mut().for_each(|w| *w = (f64::from(*w) / factor) as f32));
            }
        }
    }
}

/// Multiplies `gamma` by 10^-(DECADES u) and gives the factor that it really got: 1 for a gamma of zero.
fn shrink(gamma: &mut f32, u: f64) -> f64 {
    let before = f64::from(*gamma);
    *gamma = (before * 10f64.powf(-DECADES * u)) as f32;
    if before == 0.0 { 1.0 } else { f64::from(*gamma) / before }
}

/// A safetensors file of f32.
fn write(tensors: &[Tensor]) -> Result<Vec<u8>, String> {
    let little_endian = |t: &Tensor| t.values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let bytes: Vec<Vec<u8>> = tensors.iter().map(little_endian).collect();
    let views: Result<Vec<_>, _> = tensors.iter().zip(&bytes).map(|(t, bytes)| view(t, bytes)).collect();
    views.and_then(|views| safetensors::serialize(views, None)).map_err(|e| e.to_string())
}

fn view<'t>(t: &'t Tensor, bytes: &'t [u8]) -> Result<(&'t str, TensorView<'t>), SafeTensorError> {
    Ok((&t.name, TensorView::new(Dtype::F32, t.shape.clone(), bytes)?))
}

/// Uniform in [0, 1): the top bits of an LCG (Knuth, MMIX).
struct Uniform(u64);

impl Uniform {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use vitlet::Precision;
    use vitlet_convert::{Mode, Options};

    use super::*;
    use crate::inference::{Compute, ComputeArgs, Inference, synthetic_input};
    use crate::model::ModelFile;
    use crate::stats;

    #[test]
    fn gammas_lie_five_decades_apart_and_the_function_stays() {
        let (trained, spread) = (built_in_checkpoint().unwrap(), checkpoint().unwrap());
        let compute = Compute::new(&ComputeArgs::one_thread()).unwrap();
        let logits = |folder: &TemporaryFolder| {
            let options = Options { precision: Precision::F32, layerscale: Mode::Keep, ..Options::default() };
            let converted = vitlet_convert::convert(folder.path(), &options, &mut |_| {}).unwrap();
            let gammas = converted.report.blocks.iter().map(|b| b.gamma2);
            let (min, max) = gammas.fold((f32::MAX, 0f32), |(min, max), g| (min.min(g.min), max.max(g.max)));
            let file = ModelFile::converted(converted, "test".to_string());
            let mut inference = Inference::new(&file, &compute).unwrap();
            let input = synthetic_input(inference.model().config().input_len());
            (inference.tensor(&input).unwrap(), (max / min).log10())
        };
        let ((expected, before), (got, after)) = (logits(&trained), logits(&spread));
        let sums = stats::squares(&got, &expected);
        let error = (sums.difference / sums.norm).sqrt();
        assert!(error < 1e-5, "{error}");
        assert!(after > before + 3.0, "{before} decades became {after}");
        let weights = |folder: &TemporaryFolder| std::fs::read(folder.path().join(WEIGHTS)).unwrap();
        assert!(weights(&spread) == weights(&checkpoint().unwrap()), "the same each time");
    }
}
