//! GGUF v3: header, metadata, tensor table.
//!
//! The bytes depend on the network and the options alone: no dates, no paths, and no version of this program unless the
//! options have a provenance.

use vitlet::config::{Answer, ConvNeXt, Enlarging, Xcit};
use vitlet::layout::{ALIGNMENT, FORMAT_VERSION, TensorSpec, keys};
use vitlet::picture::{CropRounding, Preprocess, Resize, SizeRule};
use vitlet::{Config, Family, Named, Positions, Resampling};

use crate::network::{Gammas, Source};
use crate::options::{Options, Provenance};

/// Everything before the tensor data, padded to the alignment.
pub(crate) struct Header {
    pub(crate) bytes: Vec<u8>,
    /// Where the checksum's 8 bytes stand; they are zero.
    pub(crate) checksum_at: usize,
}

/// The header of a model file; `masks` are a pruned network's.
pub(crate) fn header(
    source: &Source,
    config: &Config,
    labels: Option<&[String]>,
    gammas: Option<&Gammas>,
    options: &Options,
    masks: &[[u8; 4]],
    tensors: &[(TensorSpec, usize)],
) -> Header {
    let mut meta = Metadata::default();
    meta.text(keys::ARCHITECTURE, config.family.name());
    meta.count(keys::ALIGNMENT, ALIGNMENT);
    meta.text(keys::NAME, &source.name);
    for (key, value) in [(keys::LICENSE, &source.license), (keys::SOURCE_URL, &source.url)] {
        if let Some(value) = value {
            meta.text(key, value);
        }
    }
    if let Some(Provenance { repository, revision }) = &options.provenance {
        meta.text(Provenance::REPOSITORY, repository);
        meta.text(Provenance::REVISION, revision);
        meta.text(Provenance::CONVERTER, Provenance::THIS);
    }
    meta.count(keys::FORMAT_VERSION, FORMAT_VERSION as usize);
    meta.text(keys::PRECISION, config.precision.name());
    meta.put(keys::CHECKSUM, 10, &[0; 8]);
    let checksum_from_end = meta.bytes.len() - 8;
    hyperparameters(&mut meta, config);
    positions(&mut meta, config);
    if !source.network.rope.is_empty() {
        meta.numbers(keys::rope(&config.family), &source.network.rope);
    }
    meta.text(keys::LAYERSCALE_MODE, config.layerscale.name());
    meta.text(keys::LAYERSCALE_WEIGHT_SCALE, options.weight_scale.name());
    if let Some(branches) = gammas {
        let keys = [keys::LAYERSCALE_GAMMA1, keys::LAYERSCALE_GAMMA2, keys::LAYERSCALE_GAMMA3];
        for (key, gammas) in keys.iter().zip(branches).filter(|(_, gammas)| !gammas.is_empty()) {
            meta.numbers(key, gammas);
        }
    }
    if !masks.is_empty() {
        meta.array(keys::KEPT, 4, masks.len(), masks.concat());
    }
    preprocess(&mut meta, &source.preprocess);
    if let Some(labels) = labels {
        meta.texts(keys::LABELS, labels);
    }

    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend(meta.count.to_le_bytes());
    let checksum_at = bytes.len() + checksum_from_end;
    bytes.extend(meta.bytes);
    for (spec, at) in tensors {
        string(&mut bytes, spec.name.as_str());
        bytes.extend((spec.dims().len() as u32).to_le_bytes());
        spec.dims().iter().for_each(|d| bytes.extend((*d as u64).to_le_bytes()));
        bytes.extend(spec.dtype.ggml().to_le_bytes());
        bytes.extend((*at as u64).to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    Header { bytes, checksum_at }
}

fn hyperparameters(meta: &mut Metadata, c: &Config) {
    for (key, value) in [
        (keys::IMAGE_HEIGHT, c.image_height),
        (keys::IMAGE_WIDTH, c.image_width),
        (keys::PATCH_HEIGHT, c.patch_height),
        (keys::PATCH_WIDTH, c.patch_width),
        (keys::CHANNELS, 3),
        (keys::DIM, c.dim),
        (keys::DEPTH, c.depth),
        (keys::HEADS, c.heads()),
        (keys::HEAD_DIM, c.head_dim()),
        (keys::HIDDEN, c.hidden),
        (keys::PREFIX_TOKENS, c.prefix_tokens()),
    ] {
        meta.count(key, value);
    }
    if matches!(c.family, Family::Cait(_) | Family::Xcit(_)) {
        meta.count(keys::CLASS_BLOCKS, c.class_blocks());
    }
    if let Family::ConvNeXt(ConvNeXt { stages }) = c.family {
        meta.counts(keys::STAGE_DIMS, &stages.map(|stage| stage.dim));
        meta.counts(keys::STAGE_DEPTHS, &stages.map(|stage| stage.depth));
    }
    if let Family::Xcit(Xcit { tokens_norm, .. }) = c.family {
        meta.put(keys::TOKENS_NORM, 7, &[u8::from(tokens_norm)]);
    }
    meta.number(keys::NORM_EPS, c.norm_eps);
    meta.number(keys::ATTENTION_SCALE, c.family.attention().map_or(0.0, |attention| attention.scale));
    for (key, value) in
        [(keys::QK_NORM, c.qk_norm()), (keys::NORM_PRE, c.norm_pre()), (keys::NORM, c.norm), (keys::FC_NORM, c.fc_norm)]
    {
        meta.put(key, 7, &[u8::from(value)]);
    }
    if !c.block_norm() {
        meta.put(keys::BLOCK_NORM, 7, &[0]);
    }
    meta.text(keys::ACTIVATION, c.activation.name());
    meta.text(keys::POOLING, c.pooling.name());
    meta.count(keys::CLASSES, c.classes);
    if c.head_factors {
        meta.put(keys::HEAD_FACTORS, 7, &[1]);
    }
    meta.text(keys::SCORES, c.scores.name());
    if let Some(linear) = c.linear_head() {
        let name = if linear.answer == Answer::Classes { "linear_classes" } else { "linear_depth" };
        meta.text(keys::HEAD, name);
        meta.counts(keys::LINEAR_TAPS, linear.taps());
        meta.put(keys::LINEAR_NORM, 7, &[u8::from(linear.norm)]);
        meta.put(keys::LINEAR_CLASS_TOKEN, 7, &[u8::from(linear.class_token)]);
        meta.count(keys::LINEAR_CHANNELS, linear.channels);
        if let Answer::Depth { min, max } = linear.answer {
            meta.number(keys::LINEAR_MIN, min);
            meta.number(keys::LINEAR_MAX, max);
        }
    }
    if let Some(dpt) = c.depth_head() {
        meta.text(keys::HEAD, "depth");
        meta.counts(keys::DEPTH_TAPS, &dpt.taps);
        meta.counts(keys::DEPTH_REASSEMBLED, &dpt.reassembled);
        meta.count(keys::DEPTH_FUSED, dpt.fused);
        meta.count(keys::DEPTH_HIDDEN, dpt.hidden);
        meta.put(keys::DEPTH_METRIC, 7, &[u8::from(dpt.metric)]);
        meta.number(keys::DEPTH_MAX, dpt.max_depth);
        if dpt.enlarging != Enlarging::default() {
            meta.text(keys::DEPTH_ENLARGING, dpt.enlarging.name());
        }
    }
}

/// timm's rule is not written: files without a rule are read so.
fn positions(meta: &mut Metadata, c: &Config) {
    let has_rule = matches!(c.family, Family::Vit(_) | Family::ParallelVit(_) | Family::Cait(_));
    match c.positions {
        Positions::Resampled { rule, grid } => {
            if rule != Resampling::BicubicAntialias {
                meta.text(keys::POSITION_RESAMPLING, rule.name());
            }
            if let Some((rows, columns)) = grid {
                meta.counts(keys::POSITION_GRID, &[rows, columns]);
            }
        }
        Positions::Fixed if has_rule => meta.text(keys::POSITION_RESAMPLING, "fixed"),
        Positions::Fixed | Positions::Rotated | Positions::Free => {}
    }
}

fn preprocess(meta: &mut Metadata, p: &Preprocess) {
    meta.numbers(keys::MEAN, &p.mean);
    meta.numbers(keys::STD, &p.std);
    meta.text(keys::INTERPOLATION, p.interpolation.name());
    let (name, height, width) = match p.resize {
        Resize::ShorterEdge(edge) => ("shorter_edge", edge, edge),
        Resize::Exact { height, width } => ("exact", height, width),
        Resize::Cover { height, width } => ("cover", height, width),
        Resize::Contain { height, width } => ("contain", height, width),
    };
    meta.text(keys::RESIZE, name);
    meta.count(keys::RESIZE_HEIGHT, height as usize);
    meta.count(keys::RESIZE_WIDTH, width as usize);
    let rounding = match p.crop_rounding {
        CropRounding::Even => "even",
        CropRounding::Floor => "floor",
    };
    meta.text(keys::CROP_ROUNDING, rounding);
    if let Some(pct) = p.crop_pct {
        meta.put(keys::CROP_PCT, 12, &pct.to_le_bytes());
    }
    if let Some(SizeRule { scale, multiple }) = p.size_rule {
        meta.text(keys::SIZE_RULE, scale.name());
        meta.count(keys::SIZE_MULTIPLE, multiple as usize);
    }
}

/// Key-value pairs as they stand in the file.
#[derive(Default)]
struct Metadata {
    bytes: Vec<u8>,
    count: u64,
}

impl Metadata {
    fn put(&mut self, key: &str, kind: u32, value: &[u8]) {
        string(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend(value);
        self.count += 1;
    }

    /// Every count in a file has been checked against the engine's limits, far below 2^32.
    fn count(&mut self, key: &str, n: usize) {
        self.put(key, 4, &(n as u32).to_le_bytes());
    }

    fn number(&mut self, key: &str, x: f32) {
        self.put(key, 6, &x.to_le_bytes());
    }

    fn text(&mut self, key: &str, text: &str) {
        let mut value = Vec::new();
        string(&mut value, text);
        self.put(key, 8, &value);
    }

    fn numbers(&mut self, key: &str, values: &[f32]) {
        let elements = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.array(key, 6, values.len(), elements);
    }

    fn counts(&mut self, key: &str, counts: &[usize]) {
        let elements = counts.iter().flat_map(|n| (*n as u32).to_le_bytes()).collect();
        self.array(key, 4, counts.len(), elements);
    }

    fn texts(&mut self, key: &str, texts: &[String]) {
        let mut elements = Vec::new();
        texts.iter().for_each(|t| string(&mut elements, t));
        self.array(key, 8, texts.len(), elements);
    }

    fn array(&mut self, key: &str, kind: u32, count: usize, elements: Vec<u8>) {
        let mut value = kind.to_le_bytes().to_vec();
        value.extend((count as u64).to_le_bytes());
        value.extend(elements);
        self.put(key, 9, &value);
    }
}

fn string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}
