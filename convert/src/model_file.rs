//! An f32 model file of ours as a source: unpacked to the network it was made from.

use std::collections::BTreeMap;
use std::path::Path;

use aligned_vec::{AVec, ConstAlign};
use vitlet::config::{CONVNEXT_KERNEL, StageConfig, pad16};
use vitlet::layout::{self, Kept, keys};
use vitlet::{Activation, Config, Family, LayerScale, Model, Named, Precision};

use crate::diagonal::Affine;
use crate::error::Error;
use crate::labels::Given;
use crate::network::{Block, ConvBlock, Depthwise, Linear, Local, Mixer, MixerBlock, Network, Norm, Source, Stage};
use crate::options::Options;
use crate::preprocess;

/// Reads a model file.
///
/// # Errors
/// A file that is not one of ours, a newer one, a quantized one, or an option that needs the checkpoint.
pub(crate) fn read(path: &Path, options: &Options) -> Result<Source, Error> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    crate::checkpoint::refuse_lfs_pointer(path, &bytes)?;
    let bytes = AVec::<u8, ConstAlign<64>>::from_slice(64, &bytes);
    let model = Model::parse(&bytes).map_err(|e| match e {
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
    let mut network = unpack(&model);
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
fn whole(linear: Linear, keeps: impl Iterator<Item = bool>) -> Linear {
    let Linear { k, weight, bias, .. } = linear;
    let mut rows = weight.chunks_exact(k).zip(bias);
    let (mut weight_of_all, mut bias_of_all) = (Vec::new(), Vec::new());
    for keep in keeps {
        match if keep { rows.next() } else { None } {
            Some((row, bias)) => {
                weight_of_all.extend_from_slice(row);
                bias_of_all.push(bias);
            }
            None => {
                weight_of_all.resize(weight_of_all.len() + k, 0.0);
                bias_of_all.push(0.0);
            }
        }
    }
    Linear { n: bias_of_all.len(), k, weight: weight_of_all, bias: bias_of_all }
}

/// The tensors of a file by name, as f32 with their padding.
struct Tensors(BTreeMap<String, Vec<f32>>);

fn unpack(model: &Model<'_>) -> Network {
    let c = *model.config();
    let mut tensors = BTreeMap::new();
    model.for_each_tensor(|spec, bytes| {
        let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        tensors.insert(spec.name.as_str().to_owned(), values);
    });
    let mut t = Tensors(tensors);
    // Convolution `i` of the stem; the last is the patch embedding.
    let inputs = |i: usize| match i.checked_sub(1).map(|before| c.stem_channels(before)) {
        Some(channels) => (channels, 9, pad16(channels)),
        None if c.stem_layers() > 0 => one(c.stem_inputs(0)),
        None => one(c.patch_len()),
    };
    let mixes = c.family == Family::ResMlp;
    Network {
        stem: (0..c.stem_layers()).map(|i| t.linear(layout::STEM[i], one(c.stem_channels(i)), inputs(i))).collect(),
        patch: t.linear("patch_embd", one(c.embedding_dim()), inputs(c.stem_layers())),
        positions: if c.has_positions() { t.vectors("pos_embd", c.patches(), c.dim) } else { Vec::new() },
        rotation: (c.family == Family::Dinov3)
            .then(|| ["rope_cos", "rope_sin"].map(|name| t.vectors(name, c.patches(), c.head_dim / 2))),
        prefix: if c.prefix_tokens > 0 { t.vectors("prefix_embd", c.prefix_tokens, c.dim) } else { Vec::new() },
        norm_pre: c.norm_pre.then(|| t.norm("norm_pre", c.embedding_dim())),
        blocks: if c.has_stages() || mixes {
            Vec::new()
        } else {
            (0..c.blocks()).map(|i| t.block(i, &c, model.kept())).collect()
        },
        stages: if c.has_stages() { t.stages(&c) } else { Vec::new() },
        mixer_blocks: if mixes { (0..c.depth).map(|i| t.mixer_block(i, &c)).collect() } else { Vec::new() },
        norm: c.norm.then(|| t.norm("norm", c.dim)),
        fc_norm: c.fc_norm.then(|| t.norm("fc_norm", c.dim)),
        head: (c.classes > 0).then(|| t.linear("head", one(c.classes), (c.dim, c.parts(), pad16(c.dim)))),
        config: Config { layerscale: LayerScale::None, pruned: false, ..c },
    }
}

/// One group of `n` without padding.
fn one(n: usize) -> (usize, usize, usize) {
    (n, 1, n)
}

impl Tensors {
    /// `Model::parse` has checked that every tensor of the layout is there.
    fn take(&mut self, name: &str) -> Vec<f32> {
        self.0.remove(name).unwrap_or_default()
    }

    /// `rows` vectors of `n` without their padding.
    fn vectors(&mut self, name: &str, rows: usize, n: usize) -> Vec<f32> {
        let padded = self.take(name);
        padded.chunks_exact(pad16(n)).take(rows).flat_map(|row| &row[..n]).copied().collect()
    }

    fn norm(&mut self, name: &str, n: usize) -> Norm {
        Norm {
            weight: self.vectors(&format!("{name}.weight"), 1, n),
            bias: self.vectors(&format!("{name}.bias"), 1, n),
        }
    }

    /// A layer whose outputs and inputs are (length of a group, number of groups, length of a group in the file).
    fn linear(&mut self, name: &str, outputs: (usize, usize, usize), inputs: (usize, usize, usize)) -> Linear {
        let dense = |(len, groups, pitch): (usize, usize, usize)| -> Vec<usize> {
            (0..groups).flat_map(|g| g * pitch..g * pitch + len).collect()
        };
        let (rows, columns) = (dense(outputs), dense(inputs));
        let k_len = inputs.1 * inputs.2;
        let (packed, bias) = (self.take(&format!("{name}.weight")), self.take(&format!("{name}.bias")));
        Linear {
            n: rows.len(),
            k: columns.len(),
            weight: rows
                .iter()
                .flat_map(|&n| columns.iter().map(move |&k| (n, k)))
                .map(|(n, k)| packed[layout::index_float(n, k, k_len)])
                .collect(),
            bias: rows.iter().map(|&n| bias[n]).collect(),
        }
    }

    fn stages(&mut self, c: &Config) -> Vec<Stage> {
        let mut blocks = 0..;
        let stage = |(i, stage): (usize, &StageConfig)| Stage {
            downsampling: i.checked_sub(1).map(|before| {
                let before = c.stages[before].dim;
                let inputs = (before, 4, pad16(before));
                let linear = self.linear(&format!("stage.{i}.downsample"), one(stage.dim), inputs);
                (self.norm(&format!("stage.{i}.norm"), before), linear)
            }),
            blocks: blocks.by_ref().take(stage.depth).map(|i| self.conv_block(i, stage, c.keeps_gamma())).collect(),
        };
        c.stages.iter().enumerate().map(stage).collect()
    }

    fn conv_block(&mut self, i: usize, stage: &StageConfig, keeps_gamma: bool) -> ConvBlock {
        let at = |name: &str| format!("blk.{i}.{name}");
        let (dim, hidden) = (stage.dim, stage.hidden());
        ConvBlock {
            conv: self.depthwise(&at("dwconv"), dim, CONVNEXT_KERNEL),
            norm: self.norm(&at("norm2"), dim),
            up: self.linear(&at("ffn_up"), (hidden, 1, pad16(hidden)), one(dim)),
            down: self.linear(&at("ffn_down"), one(dim), (hidden, 1, pad16(hidden))),
            gamma: keeps_gamma.then(|| self.vectors(&at("gamma2"), 1, dim)),
        }
    }

    fn depthwise(&mut self, name: &str, n: usize, kernel: usize) -> Depthwise {
        let by_tap = self.vectors(&format!("{name}.weight"), kernel * kernel, n);
        let weight = (0..n).flat_map(|channel| by_tap.iter().skip(channel).step_by(n)).copied().collect();
        Depthwise { kernel, weight, bias: self.vectors(&format!("{name}.bias"), 1, n) }
    }

    fn local(&mut self, at: &dyn Fn(&str) -> String, c: &Config) -> Local {
        let Norm { weight: scale, bias: offset } = self.norm(&at("local_norm"), c.dim);
        Local {
            norm: self.norm(&at("norm3"), c.dim),
            first: self.depthwise(&at("local_conv1"), c.dim, 3),
            affine: Affine { scale, offset },
            second: self.depthwise(&at("local_conv2"), c.dim, 3),
            gamma: c.keeps_gamma().then(|| self.vectors(&at("gamma3"), 1, c.dim)),
        }
    }

    fn block(&mut self, i: usize, c: &Config, kept: Kept<'_>) -> Block {
        let at = |name: &str| format!("blk.{i}.{name}");
        let (d, dp, hidden) = (c.head_dim, pad16(c.head_dim), (c.hidden, 1, pad16(c.hidden)));
        let dim = one(c.dim);
        let up = if c.activation == Activation::SwiGlu { (c.hidden, 2, pad16(c.hidden)) } else { hidden };
        let keeps = c.keeps_gamma();
        let (cross, class) = (c.family == Family::Xcit && i < c.depth, c.family == Family::Xcit && i >= c.depth);
        Block {
            norm1: c.block_norm.then(|| self.norm(&at("norm1"), c.dim)),
            qkv: self.linear(&at("attn_qkv"), (d, 3 * c.heads, dp), dim),
            qk_norm: c.qk_norm.then(|| (self.norm(&at("attn_q_norm"), d), self.norm(&at("attn_k_norm"), d))),
            talking: (c.family == Family::Cait && i < c.depth).then(|| {
                ["heads_logits", "heads_weights"].map(|name| Linear {
                    n: c.heads,
                    k: c.heads,
                    weight: self.vectors(&at(&format!("{name}.weight")), c.heads, c.heads),
                    bias: self.vectors(&at(&format!("{name}.bias")), 1, c.heads),
                })
            }),
            temperature: cross.then(|| self.vectors(&at("attn_temperature"), 1, c.heads)),
            bias: (c.family == Family::Beit).then(|| self.vectors(&at("attn_bias"), c.heads, c.relative_len())),
            proj: whole(self.linear(&at("attn_out"), one(kept.rows(c, i, 0)), (d, c.heads, dp)), kept.keeps(c, i, 0)),
            gamma1: keeps.then(|| self.vectors(&at("gamma1"), 1, c.dim)),
            patches_norm: class.then(|| self.norm(&at("patches_norm"), c.dim)),
            local: cross.then(|| self.local(&at, c)),
            norm2: c.block_norm.then(|| self.norm(&at("norm2"), c.dim)),
            up: self.linear(&at("ffn_up"), up, dim),
            down: whole(self.linear(&at("ffn_down"), one(kept.rows(c, i, 1)), hidden), kept.keeps(c, i, 1)),
            gamma2: keeps.then(|| self.vectors(&at("gamma2"), 1, c.dim)),
        }
    }

    fn mixer_block(&mut self, i: usize, c: &Config) -> MixerBlock {
        let at = |name: &str| format!("blk.{i}.{name}");
        let (dim, hidden, tokens) = ((c.dim, 1, c.dim), (c.hidden, 1, pad16(c.hidden)), c.tokens());
        let keeps = c.keeps_gamma();
        MixerBlock {
            mixer: Mixer {
                linear: Linear {
                    n: tokens,
                    k: tokens,
                    weight: self.vectors(&at("mix.weight"), tokens, tokens),
                    bias: self.vectors(&at("mix.bias"), 1, tokens),
                },
                factor: self.vectors(&at("mix.factor"), 1, c.dim),
                offset: self.vectors(&at("mix.offset"), 1, c.dim),
                bias_factor: self.vectors(&at("mix.bias_factor"), 1, c.dim),
            },
            gamma1: keeps.then(|| self.vectors(&at("gamma1"), 1, c.dim)),
            up: self.linear(&at("ffn_up"), hidden, dim),
            down: self.linear(&at("ffn_down"), dim, hidden),
            gamma2: keeps.then(|| self.vectors(&at("gamma2"), 1, c.dim)),
        }
    }
}
