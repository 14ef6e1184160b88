//! `vitlet bench`: the time of one inference, from a normalized tensor to logits, and what it took.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use vitlet::{Activation, Config, Named, Output};

use crate::error::{Context, Result};
use crate::inference::{Compute, ComputeArgs, Inference};
use crate::model::ModelFile;
use crate::output::{self, NAME, QUIET, STRONG};
use crate::stats;

#[derive(Args)]
pub struct BenchArgs {
    /// Model file
    #[arg(short, long, value_name = "FILE")]
    model: PathBuf,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Inferences before the measured ones
    #[arg(long, value_name = "N", default_value_t = 5)]
    warmup: usize,

    /// Inferences that are measured
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    iters: u32,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Measured {
    model: String,
    precision: &'static str,
    layerscale: &'static str,
    tokens: usize,
    threads: usize,
    kernel: &'static str,
    warmup: usize,
    iters: usize,
    median_ms: f64,
    p95_ms: f64,
    min_ms: f64,
    /// Multiply-adds of one inference, in 10^9.
    gmac: f64,
    /// The same per second of the median.
    gmac_per_s: f64,
    model_bytes: usize,
    scratch_bytes: usize,
    /// The most memory that the process has had resident; null where the system does not tell.
    peak_memory_bytes: Option<u64>,
}

pub fn run(args: BenchArgs) -> Result<()> {
    let file = ModelFile::open(&args.model)?;
    let model = file.parse()?;
    let compute = Compute::new(&args.compute)?;
    let mut inference = Inference::new(model, &compute, Output::Logits);

    let c = *model.config();
    let input = synthetic_input(c.input_len());
    let measured = inference.repeat(&input, |once| {
        (0..args.warmup).try_for_each(|_| once())?;
        let mut timed = || {
            let start = Instant::now();
            once().map(|()| start.elapsed().as_secs_f64() * 1e3)
        };
        (0..args.iters).map(|_| timed()).collect::<Result<Vec<f64>, vitlet::Error>>()
    });
    let ms = measured.and_then(|ms| ms).about(&file.name)?;

    let median_ms = stats::median(&ms);
    let gmac = macs(&c) as f64 / 1e9;
    let measured = Measured {
        precision: c.precision.name(),
        layerscale: c.layerscale.name(),
        tokens: c.tokens(),
        threads: compute.threads,
        kernel: compute.kernels.name(),
        warmup: args.warmup,
        iters: ms.len(),
        median_ms,
        p95_ms: stats::percentile(&ms, 95.0),
        min_ms: stats::percentile(&ms, 0.0),
        gmac,
        gmac_per_s: gmac / (median_ms / 1e3),
        model_bytes: file.bytes().len(),
        scratch_bytes: inference.scratch_bytes().about(&file.name)?,
        peak_memory_bytes: peak_memory(),
        model: file.name,
    };
    if args.json { output::json(&measured) } else { print(&measured) }
}

/// The same numbers everywhere, in [-2, 2), as spread out as pixels are: the top bits of an LCG (Knuth, MMIX).
fn synthetic_input(len: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 22) as f32 - 2.0
    };
    (0..len).map(|_| next()).collect()
}

/// Multiply-adds of the matrices and of attention, every token counted in every block.
fn macs(c: &Config) -> u64 {
    let [tokens, patches, dim, hidden] = [c.tokens(), c.patches(), c.dim, c.hidden].map(|n| n as u64);
    let width = (c.heads * c.head_dim) as u64;
    let up = if c.activation == Activation::SwiGlu { 2 * hidden } else { hidden };
    let linear = dim * 3 * width + width * dim + dim * up + hidden * dim;
    let attention = 2 * tokens * width;
    patches * c.patch_len() as u64 * dim
        + c.depth as u64 * tokens * (linear + attention)
        + (c.features() * c.classes) as u64
}

/// `VmHWM` of this process, in bytes (Linux).
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

fn print(m: &Measured) -> Result<()> {
    let mut out = output::stdout();
    let plural = if m.threads == 1 { "" } else { "s" };
    writeln!(
        out,
        "{NAME}{}{NAME:#}  {}, LayerScale {}, {} tokens, {:.3} GMAC",
        m.model, m.precision, m.layerscale, m.tokens, m.gmac
    )?;
    writeln!(
        out,
        "kernel {}, {} thread{plural}, {QUIET}{} runs after {} to warm up{QUIET:#}",
        m.kernel, m.threads, m.iters, m.warmup
    )?;
    writeln!(out, "  median  {STRONG}{:9.3} ms{STRONG:#}", m.median_ms)?;
    writeln!(out, "  p95     {:9.3} ms", m.p95_ms)?;
    writeln!(out, "  min     {:9.3} ms", m.min_ms)?;
    writeln!(out, "  rate    {:9.1} GMAC/s", m.gmac_per_s)?;
    let [model, scratch] = [m.model_bytes, m.scratch_bytes].map(|n| output::bytes(n as u64));
    let peak = m.peak_memory_bytes.map_or("unknown".to_string(), output::bytes);
    writeln!(out, "  memory  {peak} peak resident; model {model}, scratch {scratch}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vitlet::{LayerScale, Pooling, Precision, Scores};

    #[test]
    fn deit_tiny_has_1_3_gmac() {
        let deit_tiny = Config {
            image_height: 224,
            image_width: 224,
            patch_height: 16,
            patch_width: 16,
            dim: 192,
            depth: 12,
            heads: 3,
            head_dim: 64,
            hidden: 768,
            prefix_tokens: 1,
            norm_eps: 1e-6,
            attention_scale: 0.125,
            qk_norm: false,
            norm_pre: false,
            norm: true,
            fc_norm: false,
            activation: Activation::Gelu,
            pooling: Pooling::Cls,
            classes: 1000,
            scores: Scores::Softmax,
            precision: Precision::Int8,
            layerscale: LayerScale::None,
        };
        // 28.9 M in the patches, 12 * (87.1 M + 14.9 M) in the blocks, 0.2 M in the head; fvcore says the same.
        assert_eq!(macs(&deit_tiny), 1_253_683_200);
    }

    #[test]
    fn the_synthetic_input_is_centered_and_never_changes() {
        let input = synthetic_input(30_000);
        assert!(input.iter().all(|x| (-2.0..2.0).contains(x)));
        let mean = input.iter().sum::<f32>() / input.len() as f32;
        assert!(mean.abs() < 0.02, "{mean}");
        assert_eq!(input[..10], synthetic_input(10));
    }
}
