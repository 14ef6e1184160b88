//! `vitlet`, the program: arguments, dispatch, exit status. Each command is one file in `commands/` that holds its
//! arguments, its output and its JSON; code that several of them need stands beside this file.

mod backend;
mod board;
mod camera;
mod commands;
mod dataset;
mod error;
mod files;
mod frames;
mod hub;
mod inference;
#[cfg(test)]
mod manual;
mod mapped;
mod maps;
mod model;
mod npy;
mod output;
mod panel;
mod pictures;
mod plot;
mod preparation;
mod results;
mod sessions;
mod side_by_side;
mod signals;
mod stats;
mod threads;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use commands::{bench, classify, compare, convert, depth, embed, eval, inspect, preprocess, run, segment};
use error::{Error, Result, Status};
use output::{NAME, STRONG};

/// int8 and f16 Vision Transformers for ARM CPUs
#[derive(Parser)]
#[command(name = "vitlet", version, disable_help_subcommand = true, after_help = STATUSES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

/// [`error::Status`] for those who write scripts.
const STATUSES: &str =
    "Exit statuses: 0 done, 1 failed, 2 wrong usage, 3 a check failed, 4 some inputs left out, the others done";

#[derive(Subcommand)]
enum Command {
    /// Turn a checkpoint into a model file
    Convert(convert::ConvertArgs),
    /// Print the most likely labels of pictures, or of a camera's frames
    Classify(classify::ClassifyArgs),
    /// Show or write how near every pixel of pictures is
    Depth(depth::DepthArgs),
    /// Show or write what is where in pictures: a class for every pixel
    Segment(segment::SegmentArgs),
    /// Write the features of pictures or frames to a .npy file
    Embed(embed::EmbedArgs),
    /// Run normalized tensors of a .npy file
    Run(run::RunArgs),
    /// Write the input that the model makes of a picture to a .npy file
    Preprocess(preprocess::PreprocessArgs),
    /// Measure the accuracy on labelled pictures
    Eval(eval::EvalArgs),
    /// Compare a model with a reference, layer by layer
    Compare(compare::CompareArgs),
    /// Measure the time of one inference
    Bench(bench::BenchArgs),
    /// Show the contents of a model file, and check it
    Inspect(inspect::InspectArgs),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    signals::watch();
    let done = match cli.command {
        None => introduce(),
        Some(Command::Convert(args)) => convert::run(args),
        Some(Command::Classify(args)) => classify::run(args),
        Some(Command::Depth(args)) => depth::run(args),
        Some(Command::Segment(args)) => segment::run(args),
        Some(Command::Embed(args)) => embed::run(args),
        Some(Command::Run(args)) => run::run(args),
        Some(Command::Preprocess(args)) => preprocess::run(args),
        Some(Command::Eval(args)) => eval::run(args),
        Some(Command::Compare(args)) => compare::run(args),
        Some(Command::Bench(args)) => bench::run(args),
        Some(Command::Inspect(args)) => inspect::run(args),
    };
    match done {
        Ok(()) => ExitCode::from(Status::Done as u8),
        Err(e) => e.report(),
    }
}

/// `vitlet` alone.
fn introduce() -> Result<()> {
    let mut out = output::stdout();
    writeln!(out, "{STRONG}vitlet{STRONG:#} runs int8 and f16 Vision Transformers on ARM CPUs (and on this one).")?;
    writeln!(out)?;
    for (command, what) in [
        ("vitlet classify photo.jpg", "its most likely labels, by the built-in ten-class model"),
        ("vitlet convert CHECKPOINT -o model.gguf", "a timm or transformers directory becomes a model file"),
        ("vitlet classify -m model.gguf photos/", "their most likely labels, by your model"),
        ("vitlet classify --camera v4l2:/dev/video0", "what a webcam sees, frame after frame"),
        ("vitlet depth -m depth.gguf a.jpg -o a.png", "how near every pixel is, by a depth model"),
        ("vitlet bench -m model.gguf", "the time of an inference on this machine"),
        ("vitlet --help", "all commands; vitlet COMMAND --help explains one"),
    ] {
        writeln!(out, "  {NAME}{command:<44}{NAME:#} {what}")?;
    }
    Ok(())
}

/// Help and version as clap prints them; wrong usage in one line.
fn usage(e: &clap::Error) -> ExitCode {
    if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return match e.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => Error::from(e).report(),
        };
    }
    let text = e.render().to_string();
    let mut message = String::new();
    for line in text.lines().map(str::trim).take_while(|l| !l.starts_with("For more")).filter(|l| !l.is_empty()) {
        match line.split_once(": ") {
            Some(("tip", tip)) => message.extend(["; ", tip]),
            Some(("Usage", usage)) => message.extend(["; usage: ", usage]),
            Some(("error", what)) => message.push_str(what),
            _ => message.extend([" ", line]),
        }
    }
    if e.kind() == ErrorKind::MissingRequiredArgument && message.contains("--model <FILE>;") {
        message.push_str("; `vitlet convert` makes a model file");
    }
    Error::Usage(message).report()
}
