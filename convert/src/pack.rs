//! From the network to the bytes of the tensor data: quantize, fold gamma, and put everything into the kernels' order.
//!
//! Names, order, types and sizes are `vitlet::layout`'s; this file only says which part of the network each tensor is, and
//! how the dense rows and columns of the network spread over the padded ones of the file (docs/format.md, "Sizes").

use std::collections::BTreeMap;

use vitlet::config::pad16;
use vitlet::layout::{self, DType, Kept, TensorSpec};
use vitlet::{Config, LayerScale, Precision};

use crate::diagonal;
use crate::error::Error;
use crate::network::{
    Block, ConvBlock, Depthwise, Layer, Linear, Local, Mixer, MixerBlock, Network, Norm, Rotation, Source, Stage,
};
use crate::options::{Mode, Options};
use crate::prune::{BRANCH_ENDS, Pruning};
use crate::quantize::{self, Damage, LinearReport, Packed, Values, damage};

/// The tensors of a network with their offsets into the tensor data, in file order, and the data's length. `masks` are a pruned network's.
pub(crate) fn places(config: &Config, masks: &[[u8; 4]]) -> (Vec<(TensorSpec, usize)>, usize) {
    let kept = Kept::new(masks, config).expect("masks are made for this network");
    let (mut places, mut at) = (Vec::new(), 0);
    let Ok(()) = layout::for_each_tensor(config, kept, |spec| {
        places.push((spec, at));
        at += spec.padded_bytes();
        Ok::<(), std::convert::Infallible>(())
    });
    (places, at)
}

/// Dense index `i` of groups of `group` stands at `i / group * pitch + i % group` in the file.
#[derive(Clone, Copy)]
struct Spread {
    group: usize,
    pitch: usize,
}

impl Spread {
    const DENSE: Self = Self { group: usize::MAX, pitch: 0 };

    /// Each group is padded to a multiple of 16.
    fn padded(group: usize) -> Self {
        Self { group, pitch: pad16(group) }
    }

    fn at(self, i: usize) -> usize {
        i / self.group * self.pitch + i % self.group
    }
}

/// Writes the tensor data, zeros before, to the `places` of the tensors; `done` hears of every linear layer. Returns a report for each.
///
/// # Errors
/// Weights that are not finite, or overflow f16 under `fold-weights`.
pub(crate) fn pack(
    source: &Source,
    config: &Config,
    options: &Options,
    pruning: Option<&Pruning>,
    places: Vec<(TensorSpec, usize)>,
    data: &mut [u8],
    mut done: impl FnMut(&str),
) -> Result<Vec<LinearReport>, Error> {
    let places = places.into_iter().map(|(spec, at)| (spec.name.as_str().to_owned(), (spec, at))).collect();
    let already_folded = source.folded_gammas.is_some();
    let mut file =
        File { config, options, already_folded, pruning, places, data, reports: Vec::new(), done: &mut done };
    file.network(&source.network)?;
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
    /// What is not written yet.
    places: BTreeMap<String, (TensorSpec, usize)>,
    data: &'a mut [u8],
    reports: Vec<LinearReport>,
    done: &'a mut dyn FnMut(&str),
}

impl File<'_> {
    fn network(&mut self, network: &Network) -> Result<(), Error> {
        let dim = self.config.dim;
        // Each reads the channels of the one before, those of one pixel padded.
        let mut inputs = Spread::DENSE;
        for (name, layer) in layout::STEM.iter().zip(&network.stem) {
            self.plain_linear(name, layer, Spread::DENSE, inputs)?;
            inputs = Spread::padded(layer.n);
        }
        self.plain_linear("patch_embd", &network.patch, Spread::DENSE, inputs)?;
        if self.config.has_positions() {
            self.matrix("pos_embd", &network.positions, dim);
        }
        if let Some(Rotation { cos, sin, .. }) = &network.rotation {
            self.matrix("rope_cos", cos, self.config.head_dim / 2);
            self.matrix("rope_sin", sin, self.config.head_dim / 2);
        }
        if !network.prefix.is_empty() {
            self.matrix("prefix_embd", &network.prefix, dim);
        }
        self.norm("norm_pre", network.norm_pre.as_ref());
        for (i, block) in network.blocks.iter().enumerate() {
            self.block(i, block)?;
        }
        self.stages(&network.stages)?;
        for (i, block) in network.mixer_blocks.iter().enumerate() {
            self.mixer_block(i, block)?;
        }
        self.norm("norm", network.norm.as_ref());
        self.norm("fc_norm", network.fc_norm.as_ref());
        if let Some(factors) = &network.head_factor {
            self.matrix(layout::HEAD_FACTOR, factors, dim);
        }
        if let Some(head) = &network.head {
            self.plain_linear("head", head, Spread::DENSE, Spread::padded(dim))?;
        }
        Ok(())
    }

    fn block(&mut self, i: usize, block: &Block) -> Result<(), Error> {
        let at = |name: &str| format!("blk.{i}.{name}");
        let heads = Spread::padded(self.config.head_dim);
        self.norm(&at("norm1"), block.norm1.as_ref());
        self.plain_linear(&at("attn_qkv"), &block.qkv, heads, Spread::DENSE)?;
        if let Some((q, k)) = &block.qk_norm {
            self.norm(&at("attn_q_norm"), Some(q));
            self.norm(&at("attn_k_norm"), Some(k));
        }
        if let Some(bias) = &block.bias {
            self.matrix(&at("attn_bias"), bias, self.config.relative_len());
        }
        if let Some(temperature) = &block.temperature {
            self.vector(&at("attn_temperature"), temperature, Spread::DENSE);
        }
        for (name, layer) in ["heads_logits", "heads_weights"].iter().zip(block.talking.iter().flatten()) {
            let Linear { k, weight, bias, .. } = layer.load()?;
            self.matrix(&at(&format!("{name}.weight")), &weight, k);
            self.vector(&at(&format!("{name}.bias")), &bias, Spread::DENSE);
        }
        self.branch_linear((i, 0), &block.proj, heads, block.gamma1.as_deref())?;
        if let Some(norm) = &block.patches_norm {
            let mut norm = norm.clone();
            self.fold(block.gamma1.as_deref(), |gamma| diagonal::scale_norm(&mut norm, gamma));
            self.norm(&at("patches_norm"), Some(&norm));
        }
        if let Some(local) = &block.local {
            self.local(i, local);
        }
        self.norm(&at("norm2"), block.norm2.as_ref());
        self.mlp(i, &block.up, &block.down, block.gamma2.as_deref())?;
        if self.config.keeps_gamma() {
            self.vector(&at("gamma1"), block.gamma1.as_deref().unwrap_or_default(), Spread::DENSE);
            self.vector(&at("gamma2"), block.gamma2.as_deref().unwrap_or_default(), Spread::DENSE);
        }
        Ok(())
    }

    fn stages(&mut self, stages: &[Stage]) -> Result<(), Error> {
        let mut blocks = 0..;
        for (i, stage) in stages.iter().enumerate() {
            if let Some((norm, linear)) = &stage.downsampling {
                self.norm(&format!("stage.{i}.norm"), Some(norm));
                let inputs = Spread::padded(norm.weight.len());
                self.plain_linear(&format!("stage.{i}.downsample"), linear, Spread::DENSE, inputs)?;
            }
            for (block, i) in stage.blocks.iter().zip(blocks.by_ref()) {
                self.conv_block(i, block)?;
            }
        }
        Ok(())
    }

    fn conv_block(&mut self, i: usize, block: &ConvBlock) -> Result<(), Error> {
        let at = |name: &str| format!("blk.{i}.{name}");
        self.depthwise(&at("dwconv"), &block.conv);
        self.norm(&at("norm2"), Some(&block.norm));
        self.plain_linear(&at("ffn_up"), &block.up, Spread::DENSE, Spread::DENSE)?;
        self.branch_linear((i, 1), &block.down, Spread::DENSE, block.gamma.as_deref())?;
        if self.config.keeps_gamma() {
            self.vector(&at("gamma2"), block.gamma.as_deref().unwrap_or_default(), Spread::DENSE);
        }
        Ok(())
    }

    fn mlp(&mut self, i: usize, up: &Layer, down: &Layer, gamma: Option<&[f32]>) -> Result<(), Error> {
        self.plain_linear(&format!("blk.{i}.ffn_up"), up, Spread::padded(self.config.hidden), Spread::DENSE)?;
        self.branch_linear((i, 1), down, Spread::DENSE, gamma)
    }

    fn mixer_block(&mut self, i: usize, block: &MixerBlock) -> Result<(), Error> {
        let at = |name: &str| format!("blk.{i}.{name}");
        let mut mixer = block.mixer.clone();
        // A channel has no weights of its own here: under `fold-weights`, too, gamma is beside them.
        self.fold(block.gamma1.as_deref(), |gamma| diagonal::scale_channels(&mut mixer, gamma));
        self.mixer(&at("mix"), &mixer)?;
        self.mlp(i, &block.up, &block.down, block.gamma2.as_deref())?;
        if self.config.keeps_gamma() {
            self.vector(&at("gamma1"), block.gamma1.as_deref().unwrap_or_default(), Spread::DENSE);
            self.vector(&at("gamma2"), block.gamma2.as_deref().unwrap_or_default(), Spread::DENSE);
        }
        Ok(())
    }

    /// Tap by tap, the channels of each padded.
    fn depthwise(&mut self, name: &str, conv: &Depthwise) {
        let taps = conv.kernel * conv.kernel;
        let by_tap: Vec<f32> = (0..taps).flat_map(|tap| conv.weight.iter().skip(tap).step_by(taps)).copied().collect();
        self.matrix(&format!("{name}.weight"), &by_tap, conv.bias.len());
        self.vector(&format!("{name}.bias"), &conv.bias, Spread::DENSE);
    }

    fn local(&mut self, i: usize, local: &Local) {
        let at = |name: &str| format!("blk.{i}.{name}");
        self.norm(&at("norm3"), Some(&local.norm));
        self.depthwise(&at("local_conv1"), &local.first);
        self.vector(&at("local_norm.weight"), &local.affine.scale, Spread::DENSE);
        self.vector(&at("local_norm.bias"), &local.affine.offset, Spread::DENSE);
        let mut second = local.second.clone();
        self.fold(local.gamma.as_deref(), |gamma| diagonal::scale_kernels(&mut second, gamma));
        self.depthwise(&at("local_conv2"), &second);
        if self.config.keeps_gamma() {
            self.vector(&at("gamma3"), local.gamma.as_deref().unwrap_or_default(), Spread::DENSE);
        }
    }

    /// Folds gamma into what ends a branch in f32, where it is not kept.
    fn fold(&self, gamma: Option<&[f32]>, into: impl FnOnce(&[f32])) {
        if let Some(gamma) = gamma.filter(|_| !self.config.keeps_gamma()) {
            into(gamma);
        }
    }

    /// A layer over tokens and what is around it.
    fn mixer(&mut self, name: &str, mixer: &Mixer) -> Result<(), Error> {
        let linear = mixer.linear.load()?;
        let (row_sums, report) = (diagonal::row_sums(&linear), LinearReport::new(name, &linear));
        let (packed, loss) = self.quantize(linear, None);
        self.reports.push(report.lost(loss));
        let pitch = pad16(packed.k);
        self.weight(name, &packed, |_, n, k| n * pitch + k);
        self.beside(name, &packed, Spread::DENSE);
        self.vector(&format!("{name}.row_sum"), &row_sums, Spread::DENSE);
        for (suffix, values) in
            [("factor", &mixer.factor), ("offset", &mixer.offset), ("bias_factor", &mixer.bias_factor)]
        {
            self.vector(&format!("{name}.{suffix}"), values, Spread::DENSE);
        }
        Ok(())
    }

    /// The last layer of a residual branch, attention's (0) or the MLP's (1) of a block: gamma is its output diagonal.
    fn branch_linear(
        &mut self,
        (block, branch): (usize, usize),
        layer: &Layer,
        inputs: Spread,
        gamma: Option<&[f32]>,
    ) -> Result<(), Error> {
        let name = &format!("blk.{block}.{}", BRANCH_ENDS[branch]);
        let mut linear = layer.load()?;
        let report = LinearReport::new(name, &linear);
        let (mut packed, loss) = match gamma {
            Some(gamma) if self.config.layerscale == LayerScale::Fold && self.config.precision != Precision::F32 => {
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
            pruning.apply(&mut packed, block, branch);
        }
        self.linear(name, &packed, Spread::DENSE, inputs);
        Ok(())
    }

    fn plain_linear(&mut self, name: &str, layer: &Layer, outputs: Spread, inputs: Spread) -> Result<(), Error> {
        let linear = layer.load()?;
        let report = LinearReport::new(name, &linear);
        let (packed, loss) = self.quantize(linear, None);
        self.reports.push(report.lost(loss));
        self.linear(name, &packed, outputs, inputs);
        Ok(())
    }

    /// The layer as it is stored, `gamma` in its scales, and what it lost.
    fn quantize(&self, linear: Linear, gamma: Option<&[f32]>) -> (Packed, Damage) {
        let mut packed = match self.config.precision {
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
        match (self.config.precision, self.options.layerscale) {
            (Precision::F16, Mode::FoldWeights) => {
                let packed = quantize::quantize_f16_unscaled(&linear)?;
                let loss = damage(&packed, &linear, None);
                Ok((packed, loss))
            }
            _ => Ok(self.quantize(linear, None)),
        }
    }

    /// Takes the place of a tensor: its spec, and its bytes.
    fn place(&mut self, name: &str) -> (TensorSpec, &mut [u8]) {
        let (spec, at) =
            self.places.remove(name).unwrap_or_else(|| panic!("{name} is not in the layout, or written twice"));
        (spec, &mut self.data[at..at + spec.bytes()])
    }

    fn vector(&mut self, name: &str, values: &[f32], spread: Spread) {
        let (_, bytes) = self.place(name);
        for (i, x) in values.iter().enumerate() {
            put(bytes, spread.at(i), x.to_le_bytes());
        }
    }

    /// Rows of `n`, each padded.
    fn matrix(&mut self, name: &str, values: &[f32], n: usize) {
        self.vector(name, values, Spread::padded(n));
    }

    fn norm(&mut self, name: &str, norm: Option<&Norm>) {
        if let Some(norm) = norm {
            self.vector(&format!("{name}.weight"), &norm.weight, Spread::DENSE);
            self.vector(&format!("{name}.bias"), &norm.bias, Spread::DENSE);
        }
    }

    fn linear(&mut self, name: &str, packed: &Packed, outputs: Spread, inputs: Spread) {
        self.weight(name, packed, |spec, n, k| match spec.dtype {
            DType::I8 => layout::index_i8(outputs.at(n), inputs.at(k), 4 * spec.dims()[2]),
            _ => layout::index_float(outputs.at(n), inputs.at(k), spec.dims()[1]),
        });
        self.beside(name, packed, outputs);
    }

    /// The values of a matrix, W[n, k] at the element `index(spec, n, k)`.
    fn weight(&mut self, name: &str, packed: &Packed, index: impl Fn(&TensorSpec, usize, usize) -> usize) {
        let (spec, bytes) = self.place(&format!("{name}.weight"));
        let index = |n, k| index(&spec, n, k);
        match &packed.values {
            Values::Int8 { codes, .. } => scatter(bytes, codes, packed, index, i8::to_le_bytes),
            Values::F16(values) => scatter(bytes, values, packed, index, half::f16::to_le_bytes),
            Values::F32(values) => scatter(bytes, values, packed, index, f32::to_le_bytes),
        }
    }

    /// What a matrix has for each output.
    fn beside(&mut self, name: &str, packed: &Packed, outputs: Spread) {
        if self.config.precision != Precision::F32 {
            self.vector(&format!("{name}.scale"), &packed.scale, outputs);
        }
        if let Values::Int8 { sums, .. } = &packed.values {
            let (_, bytes) = self.place(&format!("{name}.sum"));
            for (n, sum) in sums.iter().enumerate() {
                put(bytes, outputs.at(n), sum.to_le_bytes());
            }
        }
        self.vector(&format!("{name}.bias"), &packed.bias, outputs);
        (self.done)(name);
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
