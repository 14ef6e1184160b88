//! From the network to the bytes of the tensor data: quantize, fold gamma, and put everything into the kernels' order.
//!
//! A walk through the network's parts (`vitlet::parts`), which name the tensors and say how the dense rows and columns
//! of a matrix spread over the padded ones of the file (docs/format.md, "Sizes").

use std::collections::BTreeMap;

use vitlet::layout::{self, DType, Kept, TensorSpec};
use vitlet::networks::for_each_tensor;
use vitlet::parts::{Axis, Branch, Scope, Walk};
use vitlet::{Config, LayerScale, Precision};

use crate::diagonal;
use crate::error::Error;
use crate::network::{Depthwise, InSource, Layer, Linear, Mixer, Norm, Source};
use crate::options::{Mode, Options};
use crate::prune::Pruning;
use crate::quantize::{self, Damage, LinearReport, Packed, Values, damage};

/// The tensors of a network with their offsets into the tensor data, in file order, and the data's length. `masks` are
/// a pruned network's.
pub(crate) fn places(config: &Config, masks: &[[u8; 4]]) -> (Vec<(TensorSpec, usize)>, usize) {
    let kept = Kept::new(masks, config).expect("masks are made for this network");
    let (mut places, mut at) = (Vec::new(), 0);
    let Ok(()) = for_each_tensor(config, kept, |spec| {
        places.push((spec, at));
        at += spec.padded_bytes();
        Ok::<(), std::convert::Infallible>(())
    });
    (places, at)
}

/// Writes the tensor data, zeros before, to the `places` of the tensors; `done` hears of every linear layer. Returns a
/// report for each.
///
/// # Errors
/// Weights that are not finite, or overflow f16 under `fold-weights`.
pub(crate) fn pack(
    source: &mut Source,
    config: &Config,
    options: &Options,
    pruning: Option<&Pruning>,
    places: Vec<(TensorSpec, usize)>,
    data: &mut [u8],
    mut done: impl FnMut(&str),
) -> Result<Vec<LinearReport>, Error> {
    let places = places.into_iter().map(|(spec, at)| (spec.name.as_str().to_owned(), (spec, at))).collect();
    let already_folded = source.folded_gammas.is_some();
    let mut file = File {
        config,
        options,
        already_folded,
        pruning,
        scope: Scope::Network,
        precision: config.precision,
        places,
        data,
        reports: Vec::new(),
        done: &mut done,
    };
    source.network.walk(config, &mut file)?;
    assert!(file.places.is_empty(), "tensors left unwritten: {:?}", file.places.keys());
    Ok(file.reports)
}

struct File<'a> {
    config: &'a Config,
    options: &'a Options,
    /// The branches' last layers contain gamma already.
    already_folded: bool,
    /// The rows that these layers lose.
    pruning: Option<&'a Pruning>,
    scope: Scope,
    /// Of the matrices that come.
    precision: Precision,
    /// What is not written yet.
    places: BTreeMap<String, (TensorSpec, usize)>,
    data: &'a mut [u8],
    reports: Vec<LinearReport>,
    done: &'a mut dyn FnMut(&str),
}

impl Walk for File<'_> {
    type Storage = InSource;
    type Error = Error;

    fn enter(&mut self, scope: Scope) {
        self.scope = scope;
    }

    fn stored_as(&mut self, precision: Precision) {
        self.precision = precision;
    }

    fn vector(&mut self, name: &str, n: usize, part: &mut Vec<f32>) -> Result<(), Error> {
        self.numbers(name, "", 1, n, part);
        Ok(())
    }

    fn table(&mut self, name: &str, rows: usize, n: usize, part: &mut Vec<f32>) -> Result<(), Error> {
        self.numbers(name, "", rows, n, part);
        Ok(())
    }

    fn norm(&mut self, name: &str, n: usize, part: &mut Norm) -> Result<(), Error> {
        self.numbers(name, ".weight", 1, n, &part.weight);
        self.numbers(name, ".bias", 1, n, &part.bias);
        Ok(())
    }

    fn linear(&mut self, name: &str, outputs: Axis, inputs: Axis, part: &mut Layer) -> Result<(), Error> {
        let linear = part.load()?;
        let report = self.report(name, &linear);
        let (packed, loss) = self.quantize(linear, None);
        self.reports.push(report.lost(loss));
        self.matrix(name, &packed, outputs, inputs);
        Ok(())
    }

    fn branch_end(
        &mut self,
        name: &str,
        branch: Branch,
        _: usize,
        inputs: Axis,
        part: &mut Layer,
        gamma: Option<&Vec<f32>>,
    ) -> Result<(), Error> {
        let mut linear = part.load()?;
        let report = LinearReport { ends: Some(branch), ..self.report(name, &linear) };
        let (mut packed, loss) = match gamma {
            Some(gamma) if self.config.layerscale == LayerScale::Fold && self.precision != Precision::F32 => {
                self.quantize(linear, Some(gamma))
            }
            Some(gamma) if !self.config.keeps_gamma() => {
                diagonal::scale_rows(&mut linear, gamma);
                self.quantize_folded(linear)?
            }
            _ if self.already_folded => self.quantize_folded(linear)?,
            _ => self.quantize(linear, None),
        };
        self.reports.push(report.lost(loss));
        if let Some(pruning) = self.pruning {
            pruning.apply(&mut packed, branch);
        }
        self.matrix(name, &packed, Axis::dense(packed.n), inputs);
        Ok(())
    }

    /// Tap by tap, the channels of each padded.
    fn depthwise(&mut self, name: &str, n: usize, kernel: usize, part: &mut Depthwise) -> Result<(), Error> {
        let taps = kernel * kernel;
        let by_tap: Vec<f32> = (0..taps).flat_map(|tap| part.weight.iter().skip(tap).step_by(taps)).copied().collect();
        self.numbers(name, ".weight", taps, n, &by_tap);
        self.numbers(name, ".bias", 1, n, &part.bias);
        Ok(())
    }

    /// Row by row.
    fn mixer(&mut self, name: &str, tokens: usize, dim: usize, part: &mut Mixer) -> Result<(), Error> {
        let linear = part.linear.load()?;
        let (row_sums, report) = (diagonal::row_sums(&linear), self.report(name, &linear));
        let (packed, loss) = self.quantize(linear, None);
        self.reports.push(report.lost(loss));
        let pitch = Axis::padded(1, tokens).stored();
        self.weight(name, &packed, |_, n, k| n * pitch + k);
        self.beside(name, &packed, Axis::dense(tokens));
        self.numbers(name, ".row_sum", 1, tokens, &row_sums);
        for (leaf, values) in
            [(".factor", &part.factor), (".offset", &part.offset), (".bias_factor", &part.bias_factor)]
        {
            self.numbers(name, leaf, 1, dim, values);
        }
        Ok(())
    }
}

impl File<'_> {
    /// Of a matrix of which nothing is lost yet.
    fn report(&self, name: &str, linear: &Linear) -> LinearReport {
        LinearReport::new(self.scope.name(name, "").as_str(), linear)
    }

    /// The layer as it is stored, `gamma` in its scales, and what it lost.
    fn quantize(&self, linear: Linear, gamma: Option<&[f32]>) -> (Packed, Damage) {
        let mut packed = match self.precision {
            Precision::Int8 => quantize::quantize_int8(&linear, self.options.weight_scale),
            Precision::F16 => quantize::quantize_f16(&linear),
            Precision::F32 => {
                assert!(gamma.is_none(), "f32 values have no scales");
                return (quantize::keep_f32(linear), Damage::NONE);
            }
        };
        if let Some(gamma) = gamma {
            quantize::fold_into_scale(&mut packed, gamma);
        }
        let loss = damage(&packed, &linear, gamma);
        (packed, loss)
    }

    /// Weights that contain gamma: under `fold-weights`, f16 has no scale beside it.
    fn quantize_folded(&self, linear: Linear) -> Result<(Packed, Damage), Error> {
        match (self.precision, self.options.layerscale) {
            (Precision::F16, Mode::FoldWeights) => {
                let packed = quantize::quantize_f16_unscaled(&linear)?;
                let loss = damage(&packed, &linear, None);
                Ok((packed, loss))
            }
            _ => Ok(self.quantize(linear, None)),
        }
    }

    /// Takes the place of a tensor: its spec, and its bytes.
    fn place(&mut self, name: &str, leaf: &str) -> (TensorSpec, &mut [u8]) {
        let name = self.scope.name(name, leaf);
        let place = self.places.remove(name.as_str());
        let (spec, at) = place.unwrap_or_else(|| panic!("{name} is not in the layout, or written twice"));
        (spec, &mut self.data[at..at + spec.bytes()])
    }

    /// `rows` vectors of `n` numbers, each padded.
    fn numbers(&mut self, name: &str, leaf: &str, rows: usize, n: usize, values: &[f32]) {
        assert_eq!(values.len(), rows * n, "{}", self.scope.name(name, leaf));
        let row = Axis::padded(rows, n);
        let (_, bytes) = self.place(name, leaf);
        for (i, x) in values.iter().enumerate() {
            put(bytes, row.place(i), x.to_le_bytes());
        }
    }

    fn matrix(&mut self, name: &str, packed: &Packed, outputs: Axis, inputs: Axis) {
        self.weight(name, packed, |spec, n, k| match spec.dtype {
            DType::I8 => layout::index_i8(outputs.place(n), inputs.place(k), 4 * spec.dims()[2]),
            _ => layout::index_float(outputs.place(n), inputs.place(k), spec.dims()[1]),
        });
        self.beside(name, packed, outputs);
    }

    /// The values of a matrix, W[n, k] at the element `index(spec, n, k)`.
    fn weight(&mut self, name: &str, packed: &Packed, index: impl Fn(&TensorSpec, usize, usize) -> usize) {
        let (spec, bytes) = self.place(name, ".weight");
        let index = |n, k| index(&spec, n, k);
        match &packed.values {
            Values::Int8 { codes, .. } => scatter(bytes, codes, packed, index, i8::to_le_bytes),
            Values::F16(values) => scatter(bytes, values, packed, index, half::f16::to_le_bytes),
            Values::F32(values) => scatter(bytes, values, packed, index, f32::to_le_bytes),
        }
    }

    /// What a matrix has for each output.
    fn beside(&mut self, name: &str, packed: &Packed, outputs: Axis) {
        let has_scales = self.precision != Precision::F32;
        let mut spread = |leaf: &str, values: &mut dyn Iterator<Item = [u8; 4]>| {
            let (_, bytes) = self.place(name, leaf);
            values.enumerate().for_each(|(n, value)| put(bytes, outputs.place(n), value));
        };
        if has_scales {
            spread(".scale", &mut packed.scale.iter().map(|x| x.to_le_bytes()));
        }
        if let Values::Int8 { sums, .. } = &packed.values {
            spread(".sum", &mut sums.iter().map(|x| x.to_le_bytes()));
        }
        spread(".bias", &mut packed.bias.iter().map(|x| x.to_le_bytes()));
        (self.done)(self.scope.name(name, "").as_str());
    }
}

/// Writes `values` `[n, k]` to the elements that `index` names. The layouts are sums of a part of n and a part of k.
fn scatter<T: Copy, const B: usize>(
    bytes: &mut [u8],
    values: &[T],
    packed: &Packed,
    index: impl Fn(usize, usize) -> usize,
    to_bytes: impl Fn(T) -> [u8; B],
) {
    let columns: Vec<usize> = (0..packed.k).map(|k| index(0, k)).collect();
    for (n, row) in values.chunks_exact(packed.k).enumerate() {
        let start = index(n, 0);
        for (&x, column) in row.iter().zip(&columns) {
            put(bytes, start + column, to_bytes(x));
        }
    }
}

fn put<const B: usize>(bytes: &mut [u8], element: usize, value: [u8; B]) {
    bytes[element * B..][..B].copy_from_slice(&value);
}
