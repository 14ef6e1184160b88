//! An f32 model file of ours as a source: unpacked to the network it was made from, each matrix when it is needed.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use safetensors::Dtype;
use vitlet::layout::{self, Kept, keys};
use vitlet::parts::{Axis, Branch, Scope, Walk};
use vitlet::{Config, LayerScale, Model, Named, Precision};

use crate::diagonal;
use crate::error::Error;
use crate::labels::Given;
use crate::network::{Depthwise, InSource, Layer, Linear, Mixer, Network, Norm, Source};
use crate::options::Options;
use crate::preprocess;
use crate::tensor::{self, Tensor};

/// Reads a model file.
///
/// # Errors
/// A file that is not one of ours, a newer one, a quantized one, vectors that are not finite, or an option that needs
/// the checkpoint.
pub(crate) fn read(path: &Path, options: &Options) -> Result<Source, Error> {
    let file = tensor::map(path)?;
    let model = Model::parse(&file).map_err(|e| match e {
        vitlet::Error::Architecture => Error::file(
            path,
            "a GGUF file, but of another architecture (a language model's?); vitlet converts checkpoint directories and its own f32 files",
        ),
        other => Error::file(path, other),
    })?;
    let stored = *model.config();
    if stored.precision != Precision::F32 {
        let why = format!("{} weights; convert the checkpoint, or an f32 model file", stored.precision.name());
        return Err(Error::file(path, why));
    }
    if options.image_size.is_some_and(|size| size != (stored.image_height, stored.image_width)) {
        return Err(Error::file(
            path,
            "a model file does not say how its position embedding is resampled; --image-size needs the checkpoint",
        ));
    }
    let folded = matches!(stored.layerscale, LayerScale::Fold | LayerScale::FoldWeights);
    let keep = matches!(LayerScale::from(options.layerscale), LayerScale::Keep | LayerScale::KeepPass);
    if folded && keep {
        return Err(Error::file(
            path,
            "its gammas are folded already; convert the checkpoint, or an f32 file made with --layerscale keep",
        ));
    }
    let mut announcements = Vec::new();
    if folded {
        announcements.push(
            "this file's gammas are in its weights: codes may differ in rounding from those of the checkpoint"
                .to_owned(),
        );
    }
    // ConvNeXt has the second branch alone, XCiT a third.
    let first = match stored.stages() {
        [] => model.original_gamma(0).map(Iterator::collect),
        _ => Some(Vec::new()),
    };
    let third = model.original_gamma(2).map_or(Vec::new(), Iterator::collect);
    let folded_gammas = match (folded, first, model.original_gamma(1)) {
        (true, Some(first), Some(second)) => Some([first, second.collect(), third]),
        (true, _, _) => {
            return Err(Error::file(path, "LayerScale is folded, but the original gammas are not in the metadata"));
        }
        (false, _, _) => None,
    };
    let mut network = unpack(&file, &model)?;
    if let Some(head) = &options.head {
        network.tail.head = Some(crate::head::replace(head, &mut network.config, &mut announcements)?);
    }
    let labels: Vec<String> = model.labels().map(str::to_owned).collect();
    Ok(Source {
        network,
        preprocess: preprocess::overridden(*model.preprocess(), options)?,
        labels: (!labels.is_empty()).then(|| Given::list("the model file", labels)),
        name: model.name().unwrap_or_default().to_owned(),
        license: model.text(keys::LICENSE).map(str::to_owned),
        url: model.text(keys::SOURCE_URL).map(str::to_owned),
        folded_gammas,
        announcements,
    })
}

/// Gives a matrix back the rows that it lost, as zeros.
fn whole(part: Layer, keeps: Vec<bool>) -> Layer {
    let (n, k) = (keeps.len(), part.k);
    if n == part.n {
        return part;
    }
    Layer::new(n, k, move || {
        let part = part.load()?;
        let mut whole = Linear { n, k, weight: vec![0.0; n * k], bias: vec![0.0; n] };
        let kept = whole.weight.chunks_exact_mut(k).zip(&mut whole.bias).zip(&keeps).filter(|(_, keep)| **keep);
        for (((row, bias), _), (part_row, part_bias)) in kept.zip(part.rows().zip(&part.bias)) {
            row.copy_from_slice(part_row);
            *bias = *part_bias;
        }
        Ok(whole)
    })
}

fn unpack(file: &Bytes, model: &Model<'_>) -> Result<Network, Error> {
    let stored = model.config();
    let mut tensors = BTreeMap::new();
    model.for_each_tensor(|spec, bytes| {
        let name = spec.name.as_str().to_owned();
        let (shape, data) = (vec![bytes.len() / 4], file.slice_ref(bytes));
        tensors.insert(name.clone(), Tensor { name, dtype: Dtype::F32, shape, strides: None, data });
    });
    let config = Config { layerscale: LayerScale::None, pruned: false, head_factors: false, ..*stored };
    let mut network = Network::new(config);
    network.rope = model.rope().collect();
    network.walk(stored, &mut Unpack { config: stored, kept: model.kept(), scope: Scope::Network, tensors })?;
    // The factors on the head's inputs go back into its columns.
    if let (Some(factors), Some(head)) = (network.tail.head_factor.take(), &mut network.tail.head) {
        head.change(move |head| diagonal::scale_columns(head, &factors));
    }
    Ok(network)
}

/// `rows` vectors of `n` without their padding.
fn unpadded(tensor: &Tensor, rows: usize, n: usize) -> Result<Vec<f32>, Error> {
    let padded = tensor.read()?;
    let row = Axis::padded(rows, n);
    Ok((0..row.elements()).map(|i| padded[row.place(i)]).collect())
}

/// Takes the padding off what a file holds.
struct Unpack<'m> {
    config: &'m Config,
    kept: Kept<'m>,
    scope: Scope,
    /// By name, with their padding.
    tensors: BTreeMap<String, Tensor>,
}

impl Unpack<'_> {
    /// `Model::parse` has checked that every tensor of the layout is there, and has its size.
    fn take(&mut self, name: &str, leaf: &str) -> Tensor {
        let name = self.scope.name(name, leaf);
        self.tensors.remove(name.as_str()).unwrap_or_else(|| panic!("{name} is in the layout"))
    }

    /// `rows` vectors of `n` without their padding.
    fn numbers(&mut self, name: &str, leaf: &str, rows: usize, n: usize) -> Result<Vec<f32>, Error> {
        unpadded(&self.take(name, leaf), rows, n)
    }

    fn layer(&mut self, name: &str, outputs: Axis, inputs: Axis) -> Result<Layer, Error> {
        let (n, k) = (outputs.elements(), inputs.elements());
        let weight = self.take(name, ".weight");
        let bias = self.take(name, ".bias").read()?;
        let bias: Vec<f32> = (0..n).map(|row| bias[outputs.place(row)]).collect();
        Ok(Layer::new(n, k, move || {
            let packed = weight.read()?;
            let columns: Vec<usize> = (0..k).map(|column| inputs.place(column)).collect();
            let mut weight = Vec::with_capacity(n * k);
            for row in (0..n).map(|row| outputs.place(row)) {
                weight.extend(columns.iter().map(|&column| packed[layout::index_float(row, column, inputs.stored())]));
            }
            Ok(Linear { n, k, weight, bias: bias.clone() })
        }))
    }
}

impl Walk for Unpack<'_> {
    type Storage = InSource;
    type Error = Error;

    fn enter(&mut self, scope: Scope) {
        self.scope = scope;
    }

    fn vector(&mut self, name: &str, n: usize, part: &mut Vec<f32>) -> Result<(), Error> {
        *part = self.numbers(name, "", 1, n)?;
        Ok(())
    }

    fn table(&mut self, name: &str, rows: usize, n: usize, part: &mut Vec<f32>) -> Result<(), Error> {
        *part = self.numbers(name, "", rows, n)?;
        Ok(())
    }

    fn norm(&mut self, name: &str, n: usize, part: &mut Norm) -> Result<(), Error> {
        *part = Norm { weight: self.numbers(name, ".weight", 1, n)?, bias: self.numbers(name, ".bias", 1, n)? };
        Ok(())
    }

    fn linear(&mut self, name: &str, outputs: Axis, inputs: Axis, part: &mut Layer) -> Result<(), Error> {
        *part = self.layer(name, outputs, inputs)?;
        Ok(())
    }

    fn branch_end(
        &mut self,
        name: &str,
        Branch { block, branch }: Branch,
        dim: usize,
        inputs: Axis,
        part: &mut Layer,
        _: Option<&Vec<f32>>,
    ) -> Result<(), Error> {
        let keeps = match self.kept.mask(self.config, block, branch) {
            Some(_) => self.kept.keeps(self.config, block, branch).collect(),
            None => vec![true; dim],
        };
        let rows = keeps.iter().filter(|keep| **keep).count();
        *part = whole(self.layer(name, Axis::dense(rows), inputs)?, keeps);
        Ok(())
    }

    fn depthwise(&mut self, name: &str, n: usize, kernel: usize, part: &mut Depthwise) -> Result<(), Error> {
        let by_tap = self.numbers(name, ".weight", kernel * kernel, n)?;
        let weight = (0..n).flat_map(|channel| by_tap.iter().skip(channel).step_by(n)).copied().collect();
        *part = Depthwise { kernel, weight, bias: self.numbers(name, ".bias", 1, n)? };
        Ok(())
    }

    fn mixer(&mut self, name: &str, tokens: usize, dim: usize, part: &mut Mixer) -> Result<(), Error> {
        let weight = self.take(name, ".weight");
        let bias = self.numbers(name, ".bias", 1, tokens)?;
        *part = Mixer {
            linear: Layer::new(tokens, tokens, move || {
                let weight = unpadded(&weight, tokens, tokens)?;
                Ok(Linear { n: tokens, k: tokens, weight, bias: bias.clone() })
            }),
            factor: self.numbers(name, ".factor", 1, dim)?,
            offset: self.numbers(name, ".offset", 1, dim)?,
            bias_factor: self.numbers(name, ".bias_factor", 1, dim)?,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pack, writer};

    /// A fixture in f32 as another program could write it: with factors before the head.
    fn with_factors(dir: &Path, options: &Options) -> Vec<u8> {
        let mut source = crate::read(dir, options).expect("a fixture");
        let head = source.network.tail.head.as_mut().expect("a head");
        let factors: Vec<f32> = (0..head.k).map(|c| [0.25, 8.0, 1.0][c % 3]).collect();
        let reciprocals: Vec<f32> = factors.iter().map(|t| t.recip()).collect();
        head.change(move |head| diagonal::scale_columns(head, &reciprocals));
        source.network.tail.head_factor = Some(factors);
        let config = Config { head_factors: true, ..source.network.config };
        let (places, data_len) = pack::places(&config, &[]);
        let mut file = writer::header(&source, &config, None, None, options, &[], &places).bytes;
        let start = file.len();
        file.resize(start + data_len, 0);
        pack::pack(&mut source, &config, options, None, places, &mut file[start..], |_| {}).expect("finite weights");
        file
    }

    #[test]
    fn factors_before_the_head_go_back_into_its_columns() {
        // One token's features, and two tokens' side by side.
        for name in ["timm_vit", "timm_deit_distilled"] {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/checkpoints").join(name);
            let options = Options { precision: Precision::F32, ..Options::default() };
            let scratch = tempfile::tempdir().expect("a directory");
            let path = scratch.path().join("model.gguf");
            std::fs::write(&path, with_factors(&dir, &options)).expect("written");
            let head = |source: Source| source.network.tail.head.expect("a head").load().expect("weights");
            let read = read(&path, &options).expect("a model file");
            assert!(!read.network.config.head_factors && read.network.tail.head_factor.is_none(), "{name}");
            let (read, whole) = (head(read), head(crate::read(&dir, &options).expect("a fixture")));
            assert!(read.weight == whole.weight && read.bias == whole.bias, "{name}");
        }
    }
}
