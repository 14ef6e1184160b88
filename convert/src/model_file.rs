//! An f32 model file of ours as a source: unpacked to the network it was made from, each matrix when it is needed.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use safetensors::Dtype;
use vitlet::config::{CONVNEXT_KERNEL, StageConfig, pad16};
use vitlet::layout::{self, Kept, keys};
use vitlet::{Activation, Config, Family, LayerScale, Model, Named, Precision};

use crate::diagonal;
use crate::error::Error;
use crate::labels::Given;
use crate::network::{
    Affine, Block, ConvBlock, Depthwise, Layer, Linear, Local, Mixer, MixerBlock, Network, Norm, Rotation, Source,
    Stage,
};
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
    let first = if stored.has_stages() { Some(Vec::new()) } else { model.original_gamma(0).map(Iterator::collect) };
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
        network.head = Some(crate::head::replace(head, &mut network.config, &mut announcements)?);
    }
    let labels: Vec<String> = model.labels().map(str::to_owned).collect();
    Ok(Source {
        network,
        preprocess: preprocess::overridden(*model.preprocess(), options)?,
        labels: (!labels.is_empty()).then(|| Given::list(labels)),
        name: model.name().unwrap_or_default().to_owned(),
        license: model.text(keys::LICENSE).map(str::to_owned),
        url: model.text(keys::SOURCE_URL).map(str::to_owned),
        folded_gammas,
        announcements,
    })
}

/// Gives a matrix back the rows that it lost, as zeros.
fn whole(part: Layer, keeps: impl Iterator<Item = bool>) -> Layer {
    let (keeps, k): (Vec<bool>, _) = (keeps.collect(), part.k);
    if keeps.len() == part.n {
        return part;
    }
    let n = keeps.len();
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

/// The tensors of a file by name, with their padding.
struct Tensors(BTreeMap<String, Tensor>);

fn unpack(file: &Bytes, model: &Model<'_>) -> Result<Network, Error> {
    let c = *model.config();
    let mut tensors = BTreeMap::new();
    model.for_each_tensor(|spec, bytes| {
        let name = spec.name.as_str().to_owned();
        let (shape, data) = (vec![bytes.len() / 4], file.slice_ref(bytes));
        tensors.insert(name.clone(), Tensor { name, dtype: Dtype::F32, shape, strides: None, data });
    });
    let mut t = Tensors(tensors);
    // Convolution `i` of the stem; the last is the patch embedding.
    let inputs = |i: usize| match i.checked_sub(1).map(|before| c.stem_channels(before)) {
        Some(channels) => (channels, 9, pad16(channels)),
        None if c.stem_layers() > 0 => one(c.stem_inputs(0)),
        None => one(c.patch_len()),
    };
    let mixes = c.family == Family::ResMlp;
    let stem: Result<Vec<Layer>, Error> =
        (0..c.stem_layers()).map(|i| t.linear(layout::STEM[i], one(c.stem_channels(i)), inputs(i))).collect();
    Ok(Network {
        stem: stem?,
        patch: t.linear("patch_embd", one(c.embedding_dim()), inputs(c.stem_layers()))?,
        positions: if c.has_positions() {
            t.vectors("pos_embd", c.table_grid().0 * c.table_grid().1, c.dim)?
        } else {
            Vec::new()
        },
        rotation: match c.family {
            Family::Dinov3 => {
                let mut table = |name| t.vectors(name, c.patches(), c.head_dim / 2);
                let (cos, sin) = (table("rope_cos")?, table("rope_sin")?);
                Some(Rotation { periods: model.rope_periods().collect(), cos, sin })
            }
            _ => None,
        },
        prefix: if c.prefix_tokens > 0 { t.vectors("prefix_embd", c.prefix_tokens, c.dim)? } else { Vec::new() },
        norm_pre: c.norm_pre.then(|| t.norm("norm_pre", c.embedding_dim())).transpose()?,
        blocks: if c.has_stages() || mixes {
            Vec::new()
        } else {
            (0..c.blocks()).map(|i| t.block(i, &c, model.kept())).collect::<Result<_, _>>()?
        },
        stages: if c.has_stages() { t.stages(&c)? } else { Vec::new() },
        mixer_blocks: match mixes {
            true => (0..c.depth).map(|i| t.mixer_block(i, &c)).collect::<Result<_, _>>()?,
            false => Vec::new(),
        },
        norm: c.norm.then(|| t.norm("norm", c.dim)).transpose()?,
        fc_norm: c.fc_norm.then(|| t.norm("fc_norm", c.dim)).transpose()?,
        head_factor: None,
        head: match c.classes {
            0 => None,
            classes => Some(t.head(classes, &c)?),
        },
        config: Config { layerscale: LayerScale::None, pruned: false, head_factors: false, ..c },
    })
}

/// One group of `n` without padding.
fn one(n: usize) -> (usize, usize, usize) {
    (n, 1, n)
}

/// `rows` vectors of `n` without their padding.
fn unpadded(tensor: &Tensor, rows: usize, n: usize) -> Result<Vec<f32>, Error> {
    let padded = tensor.read()?;
    let mut values = Vec::with_capacity(rows * n);
    padded.chunks_exact(pad16(n)).take(rows).for_each(|row| values.extend_from_slice(&row[..n]));
    Ok(values)
}

impl Tensors {
    /// `Model::parse` has checked that every tensor of the layout is there, and has its size.
    fn take(&mut self, name: &str) -> Tensor {
        self.0.remove(name).unwrap_or_else(|| panic!("{name} is in the layout"))
    }

    /// `rows` vectors of `n` without their padding.
    fn vectors(&mut self, name: &str, rows: usize, n: usize) -> Result<Vec<f32>, Error> {
        unpadded(&self.take(name), rows, n)
    }

    fn norm(&mut self, name: &str, n: usize) -> Result<Norm, Error> {
        Ok(Norm {
            weight: self.vectors(&format!("{name}.weight"), 1, n)?,
            bias: self.vectors(&format!("{name}.bias"), 1, n)?,
        })
    }

    /// A layer of `n` outputs and inputs that is stored row by row.
    fn rows(&mut self, name: &str, n: usize) -> Result<Layer, Error> {
        let weight = self.take(&format!("{name}.weight"));
        let bias = self.vectors(&format!("{name}.bias"), 1, n)?;
        Ok(Layer::new(n, n, move || Ok(Linear { n, k: n, weight: unpadded(&weight, n, n)?, bias: bias.clone() })))
    }

    /// A layer whose outputs and inputs are (length of a group, number of groups, length of a group in the file).
    fn linear(
        &mut self,
        name: &str,
        outputs: (usize, usize, usize),
        inputs: (usize, usize, usize),
    ) -> Result<Layer, Error> {
        let dense = |(len, groups, pitch): (usize, usize, usize)| -> Vec<usize> {
            (0..groups).flat_map(|g| g * pitch..g * pitch + len).collect()
        };
        let (rows, columns) = (dense(outputs), dense(inputs));
        let (n, k, k_len) = (rows.len(), columns.len(), inputs.1 * inputs.2);
        let weight = self.take(&format!("{name}.weight"));
        let bias = self.take(&format!("{name}.bias")).read()?;
        let bias: Vec<f32> = rows.iter().map(|&row| bias[row]).collect();
        Ok(Layer::new(n, k, move || {
            let packed = weight.read()?;
            let mut weight = Vec::with_capacity(n * k);
            for &row in &rows {
                weight.extend(columns.iter().map(|&column| packed[layout::index_float(row, column, k_len)]));
            }
            Ok(Linear { n, k, weight, bias: bias.clone() })
        }))
    }

    /// The head, with the factors on its inputs back in its columns.
    fn head(&mut self, classes: usize, c: &Config) -> Result<Layer, Error> {
        let factors = c.head_factors.then(|| self.vectors(layout::HEAD_FACTOR, c.parts(), c.dim)).transpose()?;
        let mut head = self.linear("head", one(classes), (c.dim, c.parts(), pad16(c.dim)))?;
        if let Some(factors) = factors {
            head.change(move |head| diagonal::scale_columns(head, &factors));
        }
        Ok(head)
    }

    fn stages(&mut self, c: &Config) -> Result<Vec<Stage>, Error> {
        let mut blocks = 0..;
        let stage = |(i, stage): (usize, &StageConfig)| {
            let downsampling = match i.checked_sub(1) {
                Some(before) => {
                    let before = c.stages[before].dim;
                    let inputs = (before, 4, pad16(before));
                    let linear = self.linear(&format!("stage.{i}.downsample"), one(stage.dim), inputs)?;
                    Some((self.norm(&format!("stage.{i}.norm"), before)?, linear))
                }
                None => None,
            };
            let blocks = blocks.by_ref().take(stage.depth).map(|i| self.conv_block(i, stage, c.keeps_gamma()));
            Ok(Stage { downsampling, blocks: blocks.collect::<Result<_, _>>()? })
        };
        c.stages.iter().enumerate().map(stage).collect()
    }

    fn conv_block(&mut self, i: usize, stage: &StageConfig, keeps_gamma: bool) -> Result<ConvBlock, Error> {
        let at = |name: &str| format!("blk.{i}.{name}");
        let (dim, hidden) = (stage.dim, stage.hidden());
        Ok(ConvBlock {
            conv: self.depthwise(&at("dwconv"), dim, CONVNEXT_KERNEL)?,
            norm: self.norm(&at("norm2"), dim)?,
            up: self.linear(&at("ffn_up"), (hidden, 1, pad16(hidden)), one(dim))?,
            down: self.linear(&at("ffn_down"), one(dim), (hidden, 1, pad16(hidden)))?,
            gamma: keeps_gamma.then(|| self.vectors(&at("gamma2"), 1, dim)).transpose()?,
        })
    }

    fn depthwise(&mut self, name: &str, n: usize, kernel: usize) -> Result<Depthwise, Error> {
        let by_tap = self.vectors(&format!("{name}.weight"), kernel * kernel, n)?;
        let weight = (0..n).flat_map(|channel| by_tap.iter().skip(channel).step_by(n)).copied().collect();
        Ok(Depthwise { kernel, weight, bias: self.vectors(&format!("{name}.bias"), 1, n)? })
    }

    fn local(&mut self, at: &dyn Fn(&str) -> String, c: &Config) -> Result<Local, Error> {
        let Norm { weight: scale, bias: offset } = self.norm(&at("local_norm"), c.dim)?;
        Ok(Local {
            norm: self.norm(&at("norm3"), c.dim)?,
            first: self.depthwise(&at("local_conv1"), c.dim, 3)?,
            affine: Affine { scale, offset },
            second: self.depthwise(&at("local_conv2"), c.dim, 3)?,
            gamma: c.keeps_gamma().then(|| self.vectors(&at("gamma3"), 1, c.dim)).transpose()?,
        })
    }

    fn block(&mut self, i: usize, c: &Config, kept: Kept<'_>) -> Result<Block, Error> {
        let at = |name: &str| format!("blk.{i}.{name}");
        let (d, dp, hidden) = (c.head_dim, pad16(c.head_dim), (c.hidden, 1, pad16(c.hidden)));
        let dim = one(c.dim);
        let up = if c.activation == Activation::SwiGlu { (c.hidden, 2, pad16(c.hidden)) } else { hidden };
        let keeps = c.keeps_gamma();
        let (cross, class) = (c.family == Family::Xcit && i < c.depth, c.family == Family::Xcit && i >= c.depth);
        Ok(Block {
            norm1: c.block_norm.then(|| self.norm(&at("norm1"), c.dim)).transpose()?,
            qkv: self.linear(&at("attn_qkv"), (d, 3 * c.heads, dp), dim)?,
            qk_norm: match c.qk_norm {
                true => Some((self.norm(&at("attn_q_norm"), d)?, self.norm(&at("attn_k_norm"), d)?)),
                false => None,
            },
            talking: match c.family == Family::Cait && i < c.depth {
                true => Some([self.rows(&at("heads_logits"), c.heads)?, self.rows(&at("heads_weights"), c.heads)?]),
                false => None,
            },
            temperature: cross.then(|| self.vectors(&at("attn_temperature"), 1, c.heads)).transpose()?,
            bias: match c.family {
                Family::Beit => Some(self.vectors(&at("attn_bias"), c.heads, c.relative_len())?),
                _ => None,
            },
            proj: whole(self.linear(&at("attn_out"), one(kept.rows(c, i, 0)), (d, c.heads, dp))?, kept.keeps(c, i, 0)),
            gamma1: keeps.then(|| self.vectors(&at("gamma1"), 1, c.dim)).transpose()?,
            patches_norm: class.then(|| self.norm(&at("patches_norm"), c.dim)).transpose()?,
            local: cross.then(|| self.local(&at, c)).transpose()?,
            norm2: c.block_norm.then(|| self.norm(&at("norm2"), c.dim)).transpose()?,
            up: self.linear(&at("ffn_up"), up, dim)?,
            down: whole(self.linear(&at("ffn_down"), one(kept.rows(c, i, 1)), hidden)?, kept.keeps(c, i, 1)),
            gamma2: keeps.then(|| self.vectors(&at("gamma2"), 1, c.dim)).transpose()?,
        })
    }

    fn mixer_block(&mut self, i: usize, c: &Config) -> Result<MixerBlock, Error> {
        let at = |name: &str| format!("blk.{i}.{name}");
        let (dim, hidden, tokens) = ((c.dim, 1, c.dim), (c.hidden, 1, pad16(c.hidden)), c.tokens());
        let keeps = c.keeps_gamma();
        Ok(MixerBlock {
            mixer: Mixer {
                linear: self.rows(&at("mix"), tokens)?,
                factor: self.vectors(&at("mix.factor"), 1, c.dim)?,
                offset: self.vectors(&at("mix.offset"), 1, c.dim)?,
                bias_factor: self.vectors(&at("mix.bias_factor"), 1, c.dim)?,
            },
            gamma1: keeps.then(|| self.vectors(&at("gamma1"), 1, c.dim)).transpose()?,
            up: self.linear(&at("ffn_up"), hidden, dim)?,
            down: self.linear(&at("ffn_down"), dim, hidden)?,
            gamma2: keeps.then(|| self.vectors(&at("gamma2"), 1, c.dim)).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pack, writer};

    /// A fixture in f32 as another program could write it: with factors before the head.
    fn with_factors(dir: &Path, options: &Options) -> Vec<u8> {
        let mut source = crate::read(dir, options).expect("a fixture");
        let head = source.network.head.as_mut().expect("a head");
        let factors: Vec<f32> = (0..head.k).map(|c| [0.25, 8.0, 1.0][c % 3]).collect();
        let reciprocals: Vec<f32> = factors.iter().map(|t| t.recip()).collect();
        head.change(move |head| diagonal::scale_columns(head, &reciprocals));
        source.network.head_factor = Some(factors);
        let config = Config { head_factors: true, ..source.network.config };
        let (places, data_len) = pack::places(&config, &[]);
        let mut file = writer::header(&source, &config, None, None, options, &[], &places).bytes;
        let start = file.len();
        file.resize(start + data_len, 0);
        pack::pack(&source, &config, options, None, places, &mut file[start..], |_| {}).expect("finite weights");
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
            let head = |source: Source| source.network.head.expect("a head").load().expect("weights");
            let read = read(&path, &options).expect("a model file");
            assert!(!read.network.config.head_factors && read.network.head_factor.is_none(), "{name}");
            let (read, whole) = (head(read), head(crate::read(&dir, &options).expect("a fixture")));
            assert!(read.weight == whole.weight && read.bias == whole.bias, "{name}");
        }
    }
}
