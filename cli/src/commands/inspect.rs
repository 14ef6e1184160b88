//! `vitlet inspect`: the contents of a model file, and a check of them.

mod c_header;
mod gamma;
mod plot;
mod weights;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use vitlet::config::{CONVNEXT_KERNEL, StageConfig};
use vitlet::layout::{DType, keys};
use vitlet::networks::count;
use vitlet::picture::{CropRounding, Resize};
use vitlet::{Model, Named, Output, Preprocess};
use vitlet_convert::verify::{Outcome, verify};

use crate::error::{Error, Result};
use crate::model::ModelFile;
use crate::output::{self, ERROR, NAME, Out, QUIET, STRONG};
use crate::{files, preparation};

#[derive(Args)]
pub struct InspectArgs {
    /// Model file, or hf:OWNER/NAME
    #[arg(value_name = "MODEL")]
    model: PathBuf,

    /// List every tensor
    #[arg(long)]
    tensors: bool,

    /// Read everything: compute the checksum again, and check int8 codes and their sums, and floats for being finite
    #[arg(long)]
    verify: bool,

    /// Draw gammas, weight noise and sizes layer by layer
    #[arg(long, value_name = "SVG")]
    plot: Option<PathBuf>,

    /// Print one JSON document, tensors included
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    c_header: c_header::CHeaderArgs,
}

#[derive(Serialize)]
struct Document {
    model: String,
    name: Option<String>,
    license: Option<String>,
    source: Option<String>,
    bytes: usize,
    parameters: usize,
    config: Hyperparameters,
    preprocess: Preparation,
    /// The same in words.
    #[serde(skip)]
    prepared: String,
    labels: usize,
    layerscale: LayerScale,
    /// Where the last matrices of branches lack rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pruned: Option<Pruned>,
    matrices: Vec<weights::Matrix>,
    tensors: Vec<Tensor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verify: Option<Outcome>,
}

#[derive(Serialize)]
struct Hyperparameters {
    architecture: &'static str,
    precision: &'static str,
    image_height: usize,
    image_width: usize,
    patch_height: usize,
    patch_width: usize,
    tokens: usize,
    prefix_tokens: usize,
    dim: usize,
    depth: usize,
    /// ConvNeXt's widths and depths.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stages: Vec<ConvNeXtStage>,
    heads: usize,
    head_dim: usize,
    hidden: usize,
    activation: &'static str,
    pooling: &'static str,
    qk_norm: bool,
    norm_pre: bool,
    block_norm: bool,
    norm: bool,
    fc_norm: bool,
    norm_eps: f32,
    classes: usize,
    head_factors: bool,
    scores: &'static str,
    /// What the network gives: logits, features, tokens, depth, logits_map.
    outputs: Vec<&'static str>,
    /// Of a linear head over the patches; 0 without one.
    patch_classes: usize,
    /// Of a depth head: in metres, or the inverse of a distance.
    #[serde(skip_serializing_if = "Option::is_none")]
    metric_depth: Option<bool>,
}

#[derive(Serialize)]
struct ConvNeXtStage {
    dim: usize,
    depth: usize,
}

#[derive(Serialize)]
struct Preparation {
    resize: &'static str,
    /// Pixels: of the shorter edge, or height and width.
    resize_to: Vec<u32>,
    interpolation: &'static str,
    crop_rounding: &'static str,
    mean: [f32; 3],
    std: [f32; 3],
}

#[derive(Serialize)]
struct LayerScale {
    mode: &'static str,
    weight_scale: Option<String>,
    branches: Vec<gamma::Branch>,
}

#[derive(Serialize)]
struct Pruned {
    /// Of all branches.
    channels: usize,
    /// Those without a row.
    removed: usize,
}

#[derive(Serialize)]
struct Tensor {
    name: String,
    dtype: &'static str,
    /// GGUF's order, innermost first.
    dims: Vec<usize>,
    bytes: usize,
}

pub fn run(args: InspectArgs) -> Result<()> {
    let file = ModelFile::open(&args.model)?;
    let model = file.parse()?;
    if args.c_header.is_asked_for() {
        return args.c_header.print(&file, &model);
    }
    files::refuse_stdout(args.json, &args.plot)?;
    if let Some(path) = &args.plot {
        files::refuse_inputs(path, [&args.model])?;
    }
    let document = describe(&file, &model, args.verify);
    let layers = weights::layers(&model, &document.matrices);
    if let Some(path) = &args.plot {
        files::write(path, plot::draw(&model, &file.name, &layers).as_bytes())?;
        output::note(&format!("{} written", path.display()));
    }
    if args.json {
        output::json(&document)?;
    } else {
        print(&mut output::beside(&args.plot), &document, &layers, args.tensors)?;
    }
    match document.verify.as_ref().and_then(Outcome::fault) {
        Some(fault) => Err(Error::Rejected(format!("{}: {fault}", file.name))),
        None => Ok(()),
    }
}

fn describe(file: &ModelFile, model: &Model, verified: bool) -> Document {
    let text = |key| model.text(key).map(str::to_string);
    let mut tensors = Vec::new();
    model.for_each_tensor(|spec, bytes| {
        tensors.push(Tensor {
            name: spec.name.to_string(),
            dtype: dtype_name(spec.dtype),
            dims: spec.dims().to_vec(),
            bytes: bytes.len(),
        });
    });
    Document {
        model: file.name.clone(),
        name: model.name().map(str::to_string),
        license: text(keys::LICENSE),
        source: text(keys::SOURCE_URL),
        bytes: file.bytes().len(),
        parameters: count(model.config(), model.kept()).parameters,
        config: hyperparameters(model),
        preprocess: preparation(model.preprocess()),
        prepared: preparation::words(model.preprocess()),
        labels: model.labels().count(),
        layerscale: LayerScale {
            mode: model.config().layerscale.name(),
            weight_scale: text(keys::LAYERSCALE_WEIGHT_SCALE),
            branches: gamma::branches(model),
        },
        pruned: pruned(model),
        matrices: weights::matrices(model),
        tensors,
        verify: verified.then(|| verify(model)),
    }
}

fn pruned(model: &Model) -> Option<Pruned> {
    let c = model.config();
    let branches = (0..c.blocks()).flat_map(|block| [(block, 0), (block, 1)]);
    let rows = |(block, branch)| model.kept().rows(c, block, branch);
    c.pruned.then(|| {
        let channels = 2 * c.stream_channels();
        Pruned { channels, removed: channels - branches.map(rows).sum::<usize>() }
    })
}

fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::F16 => "f16",
        DType::I8 => "i8",
        DType::I32 => "i32",
    }
}

fn hyperparameters(model: &Model) -> Hyperparameters {
    let c = model.config();
    Hyperparameters {
        architecture: c.family.name(),
        precision: c.precision.name(),
        image_height: c.image_height,
        image_width: c.image_width,
        patch_height: c.patch_height,
        patch_width: c.patch_width,
        tokens: c.tokens(),
        prefix_tokens: c.prefix_tokens(),
        dim: c.dim,
        depth: c.depth,
        stages: c.stages().iter().map(|&StageConfig { dim, depth }| ConvNeXtStage { dim, depth }).collect(),
        heads: c.heads(),
        head_dim: c.head_dim(),
        hidden: c.hidden,
        activation: c.activation.name(),
        pooling: c.pooling.name(),
        qk_norm: c.qk_norm(),
        norm_pre: c.norm_pre(),
        block_norm: c.block_norm(),
        norm: c.norm,
        fc_norm: c.fc_norm,
        norm_eps: c.norm_eps,
        classes: c.classes,
        head_factors: c.head_factors,
        scores: c.scores.name(),
        outputs: Output::of(c).map(Named::name).collect(),
        patch_classes: c.head.patch_classes(),
        metric_depth: c.head.depth().map(|depth| depth.metric),
    }
}

fn preparation(p: &Preprocess) -> Preparation {
    let (resize, resize_to) = match p.resize {
        Resize::ShorterEdge(edge) => ("shorter_edge", vec![edge]),
        Resize::Exact { height, width } => ("exact", vec![height, width]),
        Resize::Cover { height, width } => ("cover", vec![height, width]),
        Resize::Contain { height, width } => ("contain", vec![height, width]),
    };
    Preparation {
        resize,
        resize_to,
        interpolation: p.interpolation.name(),
        crop_rounding: match p.crop_rounding {
            CropRounding::Even => "even",
            CropRounding::Floor => "floor",
        },
        mean: p.mean,
        std: p.std,
    }
}

fn print(out: &mut Out, d: &Document, layers: &[weights::Layer], tensors: bool) -> Result<()> {
    let c = &d.config;
    writeln!(out, "{NAME}{}{NAME:#}  {}", d.model, output::bytes(d.bytes as u64))?;
    for (what, text) in [("name", &d.name), ("licence", &d.license), ("source", &d.source)] {
        if let Some(text) = text {
            field(out, what, text)?;
        }
    }
    let million = d.parameters as f64 / 1e6;
    field(out, "network", &format!("{}, {}, {million:.2} M parameters", c.architecture, c.precision))?;
    let input =
        format!("{} x {} pixels in patches of {} x {}", c.image_height, c.image_width, c.patch_height, c.patch_width);
    field(out, "input", &input)?;
    let prefix = if c.prefix_tokens > 0 { format!(" ({} before the patches)", c.prefix_tokens) } else { String::new() };
    field(out, "tokens", &format!("{}{prefix}, dim {}", c.tokens, c.dim))?;
    let qk_norm = if c.qk_norm { ", qk-norm" } else { "" };
    let blocks = match c.stages.is_empty() {
        true if c.heads == 0 => {
            format!("{}: a matrix over {} tokens, hidden {}, {}", c.depth, c.tokens, c.hidden, c.activation)
        }
        true => {
            format!("{}: {} heads of {}{qk_norm}, hidden {}, {}", c.depth, c.heads, c.head_dim, c.hidden, c.activation)
        }
        false => {
            let stages = c.stages.iter().map(|s| format!("{} of {}", s.depth, s.dim)).collect::<Vec<_>>().join(", ");
            let edge = CONVNEXT_KERNEL;
            format!("{}: {stages}; depthwise {edge} x {edge}, hidden 4 times as wide, {}", c.depth, c.activation)
        }
    };
    field(out, "blocks", &blocks)?;
    field(out, "output", &outcome(d))?;
    field(out, "pictures", &d.prepared)?;
    let scales = d.layerscale.weight_scale.as_deref().map_or(String::new(), |s| format!(", weight scales {s}"));
    field(out, "LayerScale", &format!("{}{scales}", d.layerscale.mode))?;
    if let Some(Pruned { channels, removed }) = d.pruned {
        field(out, "pruned", &format!("{removed} of {channels} rows of the branches' last matrices were removed"))?;
    }
    print_layers(out, &d.layerscale.branches, layers)?;
    if tensors {
        print_tensors(out, &d.tensors)?;
    }
    if let Some(verified) = &d.verify {
        print_verified(out, verified)?;
    }
    Ok(())
}

fn outcome(d: &Document) -> String {
    let c = &d.config;
    let factors = if c.head_factors { ", factors before the head" } else { "" };
    match (c.classes, d.labels) {
        (0, labels) if c.patch_classes > 0 => {
            format!("{} classes of patches, {labels} labels, features, pooling {}", c.patch_classes, c.pooling)
        }
        (0, _) if c.metric_depth.is_some() => {
            let unit = if c.metric_depth == Some(true) { "in metres" } else { "inverse, up to scale and shift" };
            format!("depth ({unit}), features, pooling {}", c.pooling)
        }
        (0, _) => format!("features, pooling {}", c.pooling),
        (classes, 0) => format!("{classes} classes without labels, {}, pooling {}{factors}", c.scores, c.pooling),
        (classes, labels) => {
            format!("{classes} classes, {labels} labels, {}, pooling {}{factors}", c.scores, c.pooling)
        }
    }
}

fn field(out: &mut Out, what: &str, text: &str) -> Result<()> {
    Ok(writeln!(out, "  {QUIET}{what:<10}{QUIET:#}  {text}")?)
}

/// A row for each block and each part beside them: gammas, the worst matrix' signal to noise, bytes.
fn print_layers(out: &mut Out, branches: &[gamma::Branch], layers: &[weights::Layer]) -> Result<()> {
    let mut header = vec!["  layer".to_string()];
    header.extend(gamma::header(branches));
    header.extend(["SQNR, dB", "size"].map(str::to_string));
    let row = |l: &weights::Layer| {
        let mut row = vec![format!("  {}", l.name)];
        row.extend(gamma::cells(branches, l.block()));
        row.extend([l.lowest_sqnr().map_or(String::new(), |db| format!("{db:.1}")), output::bytes(l.bytes as u64)]);
        row
    };
    let rows: Vec<_> = layers.iter().map(row).collect();
    writeln!(out)?;
    Ok(output::table(out, &header.iter().map(String::as_str).collect::<Vec<_>>(), &rows)?)
}

fn print_tensors(out: &mut Out, tensors: &[Tensor]) -> Result<()> {
    let row = |t: &Tensor| vec![t.name.clone(), t.dtype.to_string(), format!("{:?}", t.dims), t.bytes.to_string()];
    let rows: Vec<_> = tensors.iter().map(row).collect();
    writeln!(out)?;
    Ok(output::table(out, &["tensor", "type", "dimensions, innermost first", "bytes"], &rows)?)
}

/// One line per check.
fn print_verified(out: &mut Out, o: &Outcome) -> Result<()> {
    let good = |ok: bool| if ok { format!("{STRONG}ok{STRONG:#}") } else { format!("{ERROR}wrong{ERROR:#}") };
    let matches = o.checksum.stated.as_ref() == Some(&o.checksum.computed);
    let stated = o.checksum.stated.as_deref().unwrap_or("none");
    writeln!(out)?;
    writeln!(out, "checksum {}: computed {}, stated {stated}", good(matches), o.checksum.computed)?;
    let what = format!("{} int8 tensors and their sums, {} float tensors", o.int8_tensors, o.float_tensors);
    writeln!(out, "tensors {}: {what}", good(o.faults.is_empty()))?;
    for fault in &o.faults {
        writeln!(out, "  {}: {}", fault.tensor, fault.what)?;
    }
    Ok(())
}
