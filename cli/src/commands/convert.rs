//! `vitlet convert`: a checkpoint becomes a model file, with a report about its weights.

mod prune;

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use vitlet::networks::{resmlp::MIX, transformer};
use vitlet::parts::Branch;
use vitlet::{Named, Precision};
use vitlet_convert::report::{BalanceReport, BlockReport, GammaReport, LinearReport};
use vitlet_convert::{Balance, Mode, Options, Report, WeightScale};

use prune::Effect;

use crate::error::Result;
use crate::mapped::Watch;
use crate::output::{self, NAME, Out, QUIET, STRONG};
use crate::preparation::PreparationArgs;
use crate::{files, hub};

#[derive(Args)]
pub struct ConvertArgs {
    /// A checkpoint of timm or transformers (its directory, or the file with the weights: safetensors or PyTorch's
    /// own), an .onnx file, hf:OWNER/NAME on the Hugging Face Hub, or an f32 .gguf of vitlet's
    #[arg(value_name = "SRC")]
    source: PathBuf,

    /// Where to write the model file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Storage of the weights
    #[arg(long, default_value = "int8", value_parser = named::<Precision>(&["int8", "f16", "f32"]))]
    precision: Precision,

    /// timm's name of the network, for weights without a config.json: NAME, or NAME.TAG for the preparation of these
    /// weights of timm's. Of Depth Anything's .pth, depth_anything_v1 or depth_anything_v2
    #[arg(long, value_name = "NAME[.TAG]")]
    arch: Option<String>,

    /// Classes of the head, with --arch
    #[arg(long, value_name = "N")]
    num_classes: Option<usize>,

    /// Take the averaged weights (EMA) of a training checkpoint
    #[arg(long)]
    ema: bool,

    /// A file with a linear head, instead of the checkpoint's: of the picture (safetensors), or of its patches, as
    /// DINOv2's for depth and segmentation
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,

    /// The largest depth in metres, for depth networks whose files do not say it (Depth Anything's .pth)
    #[arg(long, value_name = "METRES", value_parser = metres)]
    max_depth: Option<f32>,

    /// Leave out tensors of this name; * stands for any characters
    #[arg(long, value_name = "PATTERN")]
    ignore: Vec<String>,

    #[command(flatten)]
    preparation: PreparationArgs,

    /// Where LayerScale's gamma goes (all but fold are for study)
    #[arg(long, value_name = "MODE", default_value = "fold", value_parser = named::<Mode>(&["fold", "fold-weights", "keep", "keep-pass"]))]
    layerscale: Mode,

    /// Scales of int8 weights (per-tensor is for study)
    #[arg(long, value_name = "SCALE", default_value = "per-channel", value_parser = named::<WeightScale>(&["per-channel", "per-tensor"]))]
    weight_scale: WeightScale,

    /// Balance channels between matrices in int8, where an estimate from the weights says that the error falls (off is
    /// for study)
    #[arg(long, value_name = "WHERE", default_value = "auto", value_parser = named::<Balance>(&["auto", "off"]))]
    balance: Balance,

    /// Fold LayerNorm's affine part into the next matrix, too, and balance no channels (for study)
    #[arg(long)]
    fold_norm: bool,

    /// Take out the rows of channels to which a residual branch adds less than EPS of the stream's size (estimated;
    /// 0.009 is the noise of its quantization), and compare with the whole network
    #[arg(long, value_name = "EPS")]
    prune_dead: Option<f64>,

    /// Print the report as one JSON document
    #[arg(long)]
    json: bool,
}

/// The report of a conversion, with measurements.
#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    report: Report,
    /// Where rows were taken out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pruned_effect: Option<Effect>,
}

fn metres(text: &str) -> Result<f32, &'static str> {
    text.parse().ok().filter(|m: &f32| m.is_finite() && *m > 0.0).ok_or("write a number above 0, as in 20")
}

/// Parses the engine's own names of a choice.
fn named<T: Named + Send + Sync>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names).try_map(|name| T::from_name(&name).ok_or("unknown name"))
}

pub fn run(args: ConvertArgs) -> Result<()> {
    let source = hub::local(&args.source)?;
    let options = Options {
        precision: args.precision,
        layerscale: args.layerscale,
        weight_scale: args.weight_scale,
        balance: args.balance,
        fold_norm: args.fold_norm,
        prune_dead: args.prune_dead,
        arch: args.arch,
        num_classes: args.num_classes,
        ema: args.ema,
        head: args.head,
        max_depth: args.max_depth,
        ignore: args.ignore,
        ..args.preparation.options()
    };
    files::refuse_stdout(args.json, [&args.output])?;
    vitlet_convert::refuse_source(&args.output, &source, &options)?;
    let bar = output::progress(0, "{bar:40.cyan} {pos}/{len} {msg}");
    let _watch = Watch::everywhere(&source.display().to_string());
    let converted = vitlet_convert::convert(&source, &options, &mut |progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(output::shown(progress.layer));
    });
    bar.finish_and_clear();
    let converted = converted?;
    files::write(&args.output, &converted.bytes)?;
    let report = converted.report.clone();
    let pruned_effect = match &report.pruned {
        Some(pruned) if pruned.removed > 0 => Some(Effect::measure(&source, &options, converted)?),
        _ => None,
    };
    if args.json {
        return output::json(&Document { report, pruned_effect });
    }
    let mut out = output::beside([&args.output]);
    print(&mut out, &report, pruned_effect.as_ref())?;
    let size = output::bytes(report.file_bytes as u64);
    writeln!(out, "{STRONG}{}{STRONG:#}  {size}", args.output.display())?;
    Ok(())
}

fn print(out: &mut Out, r: &Report, pruned_effect: Option<&Effect>) -> Result<()> {
    let million = r.parameters as f64 / 1e6;
    let (height, width) = r.image_size;
    writeln!(
        out,
        "{NAME}{}{NAME:#}  {million:.2} M parameters, {height} x {width} pixels, {} tokens, {} classes",
        r.name, r.tokens, r.classes
    )?;
    writeln!(out, "{}, LayerScale {}, weight scales {}", r.precision, r.layerscale, r.weight_scale)?;
    if let Some(license) = &r.license {
        writeln!(out, "licence: {license}")?;
    }
    for announcement in &r.announcements {
        writeln!(out, "{QUIET}note: {announcement}{QUIET:#}")?;
    }
    print_layers(out, r)?;
    print_fold(out, r)?;
    print_balanced(out, r)?;
    if let Some(pruned) = &r.pruned {
        prune::print(out, pruned, pruned_effect)?;
    }
    for l in r.linears.iter().filter(|l| l.zero_rows > 0) {
        writeln!(out, "{QUIET}note: {}: {} of {} channels have no weights{QUIET:#}", l.name, l.zero_rows, l.outputs)?;
    }
    Ok(())
}

/// What became of the gammas of all branches, in one line.
fn print_fold(out: &mut Out, r: &Report) -> Result<()> {
    let of_block = |b: &BlockReport| [b.fold1, b.fold3, Some(b.fold2)].into_iter().flatten();
    let folds: Vec<_> = r.blocks.iter().flat_map(of_block).collect();
    let Some(first) = folds.first() else { return Ok(()) };
    // Every branch of a block is as wide as its MLP's output.
    let width = |block: usize| {
        let end = Some(Branch { block, branch: 1 });
        r.linears.iter().find(|l| l.ends == end).map_or(0, |l| l.outputs)
    };
    let channels: usize = r.blocks.iter().map(|b| width(b.block) * of_block(b).count()).sum();
    let how = match (first.gamma_in, folds.iter().filter(|f| f.exact).count()) {
        ("scale", exact) if exact == folds.len() => "in the scales, exact in every branch".to_string(),
        ("scale", exact) => format!("in the scales, exact in {exact} of {} branches", folds.len()),
        ("vector", _) => "kept as vectors".to_string(),
        _ => "multiplied into the weights".to_string(),
    };
    let underflows: usize = folds.iter().map(|f| f.f16_underflows_avoided).sum();
    write!(out, "gamma: {how}")?;
    if underflows > 0 {
        write!(out, "; {underflows} weights would have been zero in f16 with gamma in them")?;
    }
    writeln!(out)?;
    let below: usize = folds.iter().map(|f| f.below_noise).sum();
    if r.precision == Precision::Int8.name() && below > 0 {
        writeln!(
            out,
            "dead weight: {below} of {channels} channels change the stream by less than its rounding to 8 bits does; \
             an estimate without pictures ({QUIET}--prune-dead 0.009 takes out those that fill blocks of 16{QUIET:#})"
        )?;
    }
    Ok(())
}

/// A row for each block, ConvNeXt's stage and head that has balanced channels, and a column for each place that has
/// any.
fn print_balanced(out: &mut Out, r: &Report) -> Result<()> {
    if r.balanced.is_empty() {
        return Ok(());
    }
    let there = |&&(name, _): &&(&str, _)| r.balanced.iter().any(|b| b.channels == name);
    let places = [
        ("norm", "norm"),
        ("norm1", "norm1"),
        ("qk", "q, k"),
        ("v", "v"),
        ("norm2", "norm2"),
        ("up", "up"),
        ("features", "features"),
    ];
    let places: Vec<_> = places.iter().filter(there).collect();
    let mut header = vec!["balanced"];
    header.extend(places.iter().map(|(_, title)| *title));
    let rows: Vec<Vec<String>> = r
        .balanced
        .chunk_by(|a, b| a.at == b.at)
        .map(|block| {
            let cell = |name: &str| block.iter().find(|b| b.channels == name).map_or(String::new(), balanced);
            let name = block[0].at.replace("blk.", "block ").replace("stage.", "stage ");
            std::iter::once(name).chain(places.iter().map(|(name, _)| cell(name))).collect()
        })
        .collect();
    output::table(out, &header, &rows)?;
    writeln!(out, "{QUIET}channels, largest factor, estimated error before and after; f32 stays the same{QUIET:#}")?;
    Ok(())
}

fn balanced(b: &BalanceReport) -> String {
    let (before, after) = (100.0 * b.error_before, 100.0 * b.error_after);
    format!("{} x{} {before:.1} > {after:.1} %", b.changed, b.largest_factor)
}

/// A row for each block, and one for each matrix beside them: patch embedding, ConvNeXt's downsampling, head.
fn print_layers(out: &mut Out, r: &Report) -> Result<()> {
    let find = |name: String| r.linears.iter().find(|l| l.name == name);
    let [qkv, proj] = transformer::ATTENTION;
    let [up, down] = transformer::MLP;
    let firsts = [(qkv, "qkv"), (MIX, "mix"), ("", "alone")];
    let is_there = |&&(name, _): &&(&str, _)| r.linears.iter().any(|l| l.name.ends_with(name));
    let (first, first_name) = *firsts.iter().find(is_there).unwrap_or(&firsts[2]);
    let mut rows = Vec::new();
    for l in &r.linears {
        match l.name.strip_prefix("blk.").and_then(|name| name.split_once('.')) {
            // A block's last.
            Some((i, name)) if name == down => {
                let matrices = [first, proj, up, down].map(|m| find(format!("blk.{i}.{m}")));
                let gammas = r.blocks.iter().find(|b| b.block.to_string() == i);
                rows.push(row(&format!("block {i}"), &matrices, gammas));
            }
            Some(_) => {}
            None => rows.push(row(&l.name, &[Some(l)], None)),
        }
    }
    let mut header =
        vec!["SQNR, dB", first_name, "out", "up", "down", "|gamma1|", "|gamma3|", "|gamma2|", "gamma 0", "0 in f16"];
    for column in (1..header.len()).rev().filter(|&c| rows.iter().all(|row| row[c].is_empty())).collect::<Vec<_>>() {
        header.remove(column);
        rows.iter_mut().for_each(|row| drop(row.remove(column)));
    }
    Ok(output::table(out, &header, &rows)?)
}

fn row(name: &str, linears: &[Option<&LinearReport>], gammas: Option<&BlockReport>) -> Vec<String> {
    let mut row = vec![name.to_string()];
    row.extend((0..4).map(|i| linears.get(i).copied().flatten().map_or(String::new(), sqnr)));
    match gammas {
        Some(BlockReport { gamma1, gamma2, gamma3, .. }) => {
            let dead = [*gamma1, *gamma3, Some(*gamma2)].iter().flatten().map(|g| g.dead).sum::<usize>();
            let [gamma1, gamma3] = [gamma1, gamma3].map(|g| g.as_ref().map_or(String::new(), range));
            row.extend([gamma1, gamma3, range(gamma2), dead.to_string()]);
        }
        None => row.extend([const { String::new() }; 4]),
    }
    let underflows: usize = linears.iter().flatten().map(|l| l.f16_underflows).sum();
    row.push(if underflows > 0 { underflows.to_string() } else { String::new() });
    row
}

/// Signal to quantization noise; weights that lost nothing have none.
fn sqnr(linear: &LinearReport) -> String {
    linear.sqnr_db.map_or("exact".to_string(), |db| format!("{db:.1}"))
}

fn range(gamma: &GammaReport) -> String {
    format!("{} .. {}", output::factor(gamma.min), output::factor(gamma.max))
}
