//! `vitlet inspect --c-header`: constants for C programs that keep a model and its sessions in static arrays.

use clap::Args;
use vitlet::{Kernels, Model, Named, Output, Plan, RunConfig};

use crate::error::{Context, Result};
use crate::model::ModelFile;
use crate::output;

/// What libvitlet keeps before a session's scratch memory (`HEADER_BYTES` in capi/src/session.rs; scripts/test_capi.sh
/// compares what programs need with what is printed here).
const SESSION_HEADER_BYTES: usize = 1024;
/// VITLET_ALIGNMENT.
const ALIGNMENT: usize = 64;

#[derive(Args)]
pub struct CHeaderArgs {
    /// Print the bytes that static arrays of a C program need, as a header
    #[arg(long, conflicts_with_all = ["tensors", "verify", "plot", "json"])]
    c_header: bool,

    /// With --c-header: the largest picture (or part of a picture)
    #[arg(long, value_name = "WxH", value_parser = edges, default_value = "4096x4096", requires = "c_header")]
    max_picture: (u32, u32),

    /// With --c-header: the network's input size [default: the model's]
    #[arg(long, value_name = "WxH", value_parser = edges, requires = "c_header")]
    input_size: Option<(u32, u32)>,

    /// With --c-header: threads that work in the session
    #[arg(long, value_name = "N", default_value_t = 1, requires = "c_header")]
    threads: usize,

    /// With --c-header: what runs give [default: the model's first]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = named, requires = "c_header")]
    outputs: Vec<Output>,
}

fn edges(text: &str) -> std::result::Result<(u32, u32), String> {
    let edge = |text: &str| text.parse().ok().filter(|&edge| edge > 0);
    let edges = text.split_once('x').and_then(|(width, height)| edge(width).zip(edge(height)));
    edges.ok_or_else(|| "write WIDTHxHEIGHT in pixels, as in 640x480".into())
}

fn named(text: &str) -> std::result::Result<Output, String> {
    let known = || Output::NAMES.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
    Output::from_name(text).ok_or_else(|| format!("one of {} is meant", known()))
}

impl CHeaderArgs {
    pub fn is_asked_for(&self) -> bool {
        self.c_header
    }

    /// # Errors
    /// If the model cannot be run this way.
    pub fn print(&self, file: &ModelFile, model: &Model<'_>) -> Result<()> {
        let (width, height) = self.max_picture;
        let mut run = RunConfig::new(Kernels::baseline()).max_picture(width, height).outputs(&self.outputs);
        if let Some((width, height)) = self.input_size {
            run = run.input_size(width, height);
        }
        let plan = Plan::new(model, &run, self.threads).about(&file.name)?;
        let out = &mut output::stdout();
        self.lines(&file.name, file.bytes().len(), &plan).iter().try_for_each(|line| writeln!(out, "{line}"))?;
        Ok(())
    }

    fn lines(&self, name: &str, file_bytes: usize, plan: &Plan) -> Vec<String> {
        let (prefix, c, (width, height)) = (prefix(name), plan.config(), self.max_picture);
        let threads = if self.threads == 1 { "1 thread".into() } else { format!("{} threads", self.threads) };
        let input = format!("an input of {} x {}", c.image_width, c.image_height);
        let session = (SESSION_HEADER_BYTES + plan.scratch_bytes()).next_multiple_of(ALIGNMENT);
        let define = |what: &str, name: &str, n: usize| [format!("// {what}."), format!("#define {prefix}_{name} {n}")];
        let mut lines = vec![
            format!("// {name}: arrays for vitlet.h, made by `vitlet inspect --c-header`."),
            format!("// For {threads}, pictures of at most {width} x {height} pixels and {input}."),
            format!("#ifndef {prefix}_H"),
            format!("#define {prefix}_H"),
            String::new(),
        ];
        lines.extend(define(
            "Size of the file in bytes; its address must be a multiple of VITLET_ALIGNMENT",
            "FILE_BYTES",
            file_bytes,
        ));
        lines.extend(define(
            "Size of a session in bytes; its address must be a multiple of VITLET_ALIGNMENT",
            "SESSION_BYTES",
            session,
        ));
        lines.extend(define("Floats of an input tensor", "INPUT_FLOATS", c.input_len()));
        for info in plan.outputs() {
            let name = format!("{}_FLOATS", info.name().to_uppercase());
            lines.extend(define(&format!("Floats of the {}", info.name()), &name, info.elements()));
        }
        lines.extend([String::new(), "#endif".into()]);
        lines
    }
}

/// A name for C, of a file's name without its extension.
fn prefix(name: &str) -> String {
    let stem = std::path::Path::new(name).file_stem().map(|stem| stem.to_string_lossy().to_uppercase());
    let stem = stem.unwrap_or_default().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    if stem.starts_with(|c: char| c.is_ascii_alphabetic()) { stem } else { format!("MODEL_{stem}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_file_gives_a_name_of_c() {
        for (name, expected) in [
            ("model.gguf", "MODEL"),
            ("a/b/deit3-small.int8.gguf", "DEIT3_SMALL_INT8"),
            ("224px.gguf", "MODEL_224PX"),
            ("größe.gguf", "GR_SSE"),
            ("_x.gguf", "MODEL__X"),
        ] {
            assert_eq!(prefix(name), expected);
        }
    }
}
