//! Checkpoint to model file: a checkpoint of the hubs becomes one flat file that the engine reads in place.
//!
//! ```no_run
//! # fn main() -> Result<(), vitlet_convert::Error> {
//! use std::path::Path;
//! use vitlet_convert::{Options, convert, write_file};
//!
//! let converted = convert(Path::new("checkpoint"), &Options::default(), &mut |_| {})?;
//! write_file(&converted.bytes, Path::new("model.gguf"))?;
//! # Ok(())
//! # }
//! ```
//!
//! Data goes one way: an importer (`timm`, `transformers`, `onnx`, `model_file`) reads its source into a
//! [`network::Network`] in f32; [`plan`] and `balance` prepare the folding; `pack` quantizes it ([`quantize`])
//! with gamma absorbed and lays it out as `vitlet::layout` says; `writer` puts GGUF's header before it. No module
//! imports one of a later stage (tests/suite/layers.rs). The same input gives the same bytes on every machine.
#![deny(unsafe_code)]

use std::io::Read;
use std::path::{Path, PathBuf};

use aligned_vec::{AVec, ConstAlign};
use vitlet::layout::Kept;
use vitlet::networks::count;
use vitlet::{Config, Family, LayerScale, Named, Precision, Scores};

mod arch;
mod balance;
mod branch;
mod checkpoint;
mod config;
mod convnext;
pub mod diagonal;
mod error;
mod fold;
mod head;
mod json;
mod labels;
mod license;
mod model_file;
pub mod network;
pub mod onnx;
mod options;
pub mod output;
mod pack;
mod pickle;
pub mod plan;
pub mod position;
mod position_bias;
mod preprocess;
pub mod prune;
pub mod quantize;
#[cfg(feature = "tract")]
pub mod reference;
pub mod report;
mod tensor;
mod timm;
mod transformers;
pub mod verify;
mod vit5;
mod writer;

pub use error::{Error, why};
pub use labels::{Given, Names, imagenet_names, imagenet_synsets};
pub use options::{Balance, Mode, Options, Provenance, WeightScale};
pub use output::write_file;
pub use report::Report;

use checkpoint::Checkpoint;
use prune::Pruning;
use transformers::depth_anything::original as depth_anything;

/// A model file in memory, and what was done to make it.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The file, on a 64-byte boundary as `vitlet::Model::parse` wants it.
    pub bytes: AVec<u8, ConstAlign<64>>,
    /// See [`Report`].
    pub report: Report,
}

/// How far a conversion is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The layer that was just finished.
    pub layer: &'a str,
    /// Layers finished.
    pub done: usize,
    /// Layers in all.
    pub total: usize,
}

/// Converts a checkpoint of timm or transformers (its directory, or the file with the weights), an ONNX file, or an f32
/// model file that this crate wrote.
///
/// # Errors
/// One line that names what is wrong with the source and what to do about it, or the tensor that would not be finite in
/// the model file.
pub fn convert(src: &Path, options: &Options, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Converted, Error> {
    let mut source = match options.head.as_deref().map(head::PatchHead::open).transpose()?.flatten() {
        None => read(src, options)?,
        Some(patch_head) => {
            let mut source = read(src, &Options { head: None, max_depth: None, ..options.clone() })?;
            patch_head.attach(&mut source, options)?;
            source
        }
    };
    if options.max_depth.is_some() && source.network.config.head.depth().is_none() {
        return Err(Error::new("--max-depth", "the network has no depth head"));
    }
    if options.fold_norm {
        fold::norms(&mut source.network);
    }
    let balanced = match (options.precision, options.balance) {
        // A factor between a norm and its matrix would take a part of the folding back, which is what is studied.
        (Precision::Int8, Balance::Auto) if options.fold_norm => {
            source.announcements.push("norms are folded (--fold-norm), so no channels are balanced".to_owned());
            Vec::new()
        }
        (Precision::Int8, Balance::Auto) => balance::balance(&mut source.network)?,
        _ => Vec::new(),
    };
    let gammas = report::gammas(&source);
    let mut config = Config {
        precision: options.precision,
        layerscale: if gammas.is_some() { options.layerscale.into() } else { LayerScale::None },
        head_factors: source.network.tail.head_factor.is_some(),
        ..source.network.config
    };
    config::check(&config)?;
    let given = source.labels.take();
    let labels = labels::choose(options, given, config.labelled_classes(), &mut source.announcements)?;
    if config.classes == 1 && config.scores == Scores::Softmax {
        config.scores = Scores::Sigmoid;
        let text = "one logit: its score is a sigmoid, since a softmax of one number is always 1";
        source.announcements.push(text.to_owned());
    }
    source.announcements.extend(license::announcement(source.license.as_deref()));
    source.announcements.extend(license::depth_anything(&config, source.license.as_deref()));

    // Without gammas nobody asks what becomes of them.
    let plan = match gammas.is_some() || options.prune_dead.is_some() {
        true => plan::plan(&source.network, &config)?,
        false => Vec::new(),
    };
    let pruning = options.prune_dead.map(|threshold| Pruning::new(threshold, &source.network, &config, &plan));
    let pruning = pruning.transpose()?;
    let whole_len = pack::places(&config, &[]).1;
    let masks = pruning.as_ref().map_or(Vec::new(), Pruning::masks);
    config.pruned = !masks.is_empty();

    let (places, data_len) = pack::places(&config, &masks);
    let header = writer::header(&source, &config, labels.as_deref(), gammas.as_ref(), options, &masks, &places);
    let mut bytes = AVec::with_capacity(64, header.bytes.len() + data_len);
    bytes.extend_from_slice(&header.bytes);
    bytes.resize(header.bytes.len() + data_len, 0);
    let data = &mut bytes[header.bytes.len()..];

    // Matrices of linear layers are stored in blocks, everything else but ResMLP's over tokens as rows.
    let mixes = config.family == Family::ResMlp;
    let total = places.iter().filter(|(spec, _)| spec.dims().len() > 2).count() + if mixes { config.depth } else { 0 };
    let parameters = count(&config, Kept::default()).parameters;
    fold::vectors(&mut source.network, &config);
    let mut done = 0;
    let linears = pack::pack(&mut source, &config, options, pruning.as_ref(), places, data, |layer| {
        done += 1;
        progress(Progress { layer, done, total });
    })?;
    let checksum = vitlet::checksum(data);
    bytes[header.checksum_at..][..8].copy_from_slice(&checksum.to_le_bytes());
    verify::check(&bytes)?;

    let report = Report {
        name: source.name,
        precision: config.precision.name(),
        layerscale: config.layerscale.name(),
        weight_scale: options.weight_scale.name(),
        image_size: (config.image_height, config.image_width),
        tokens: config.tokens(),
        classes: config.classes,
        scores: config.scores.name(),
        license: source.license,
        parameters,
        file_bytes: bytes.len(),
        announcements: source.announcements,
        blocks: gammas.map_or(Vec::new(), |g| report::blocks(&g, &plan, &config)),
        balanced,
        pruned: pruning.map(|pruning| pruning.report(&linears, whole_len - data_len)),
        linears,
    };
    Ok(Converted { bytes, report })
}

/// Reads what `src` is.
fn read(src: &Path, options: &Options) -> Result<network::Source, Error> {
    if src.is_dir() {
        return read_dir(src, options);
    }
    if !src.exists() {
        return Err(missing(src));
    }
    if checkpoint::is_weights(src)? {
        let dir = src.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return read_checkpoint(dir, Some(src), options);
    }
    if options.arch.is_some() || options.num_classes.is_some() || options.max_depth.is_some() {
        let why = "--arch, --num-classes and --max-depth are for checkpoints; this file says what its network is";
        return Err(Error::file(src, why));
    }
    match src.extension().and_then(|e| e.to_str()).unwrap_or_default() {
        "gguf" => model_file::read(src, options),
        "onnx" => onnx::read(src, options),
        _ => {
            let why = "neither a checkpoint (a directory, .safetensors or a PyTorch file) nor an .onnx file nor an f32 .gguf that vitlet wrote";
            Err(Error::file(src, why))
        }
    }
}

/// Refuses to write the model file over a file that its conversion reads: the source itself, a file of the options, and
/// whatever lies in a checkpoint's directory (or beside an ONNX or PyTorch file). A model file in that directory is an
/// earlier conversion's, and may be replaced.
///
/// # Errors
/// One line that names both files.
pub fn refuse_source(output: &Path, src: &Path, options: &Options) -> Result<(), Error> {
    let named = [Some(src), options.labels.as_deref(), options.head.as_deref()];
    output::refuse_inputs(output, named.into_iter().flatten())?;
    if output::identity(output).is_none() || is_model_file(output) {
        return Ok(());
    }
    let folder = match src.extension() {
        _ if src.is_dir() => Some(src),
        Some(extension) if extension == "gguf" => None,
        _ => src.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder }),
    };
    for folder in [folder, options.preprocess_from.as_deref()].into_iter().flatten() {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        output::refuse_inputs(output, entries.filter_map(|entry| entry.ok().map(|e| e.path())))?;
    }
    Ok(())
}

/// Whether a regular file begins as GGUF does.
fn is_model_file(path: &Path) -> bool {
    let mut magic = [0; 4];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && &magic == b"GGUF"
}

/// A source that is not there may be meant as a name on the Hub.
fn missing(src: &Path) -> Error {
    let text = src.to_string_lossy();
    let schemes = ["https://huggingface.co/", "http://huggingface.co/", "huggingface.co/", "hf-hub:", "hf_hub:"];
    let (name, had_scheme) = match schemes.iter().find_map(|scheme| text.strip_prefix(scheme)) {
        Some(name) => (name.trim_end_matches('/'), true),
        None => (&*text, false),
    };
    let plain = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
    };
    let parts: Vec<&str> = name.split('/').collect();
    let owner_is_there = !had_scheme && parts.first().is_some_and(|owner| Path::new(owner).exists());
    match parts[..] {
        [owner, repository] if plain(owner) && plain(repository) && !owner_is_there => {
            Error::file(src, format!("No such file or directory; did you mean hf:{name} , from the Hub?"))
        }
        _ => Error::file(src, "No such file or directory"),
    }
}

fn read_dir(dir: &Path, options: &Options) -> Result<network::Source, Error> {
    if dir.join("adapter_config.json").is_file() {
        let why = "a LoRA or PEFT adapter, not a whole network; merge it first: in Python, PeftModel.merge_and_unload() and save_pretrained()";
        return Err(Error::file(dir, why));
    }
    read_checkpoint(dir, None, options)
}

/// Reads the weights in `file`, or else in `dir`, as `--arch` describes them, or config.json in `dir`, or else the
/// weights themselves.
fn read_checkpoint(dir: &Path, file: Option<&Path>, options: &Options) -> Result<network::Source, Error> {
    let config = dir.join("config.json");
    let described = options.arch.is_none() && config.is_file();
    if described && options.num_classes.is_some() {
        return Err(Error::new("--num-classes", "goes with --arch; here config.json says how many classes there are"));
    }
    let files = file.map_or_else(|| checkpoint::weight_files(dir), |file| Ok(vec![file.to_owned()]))?;
    let mut announcements = Vec::new();
    let mut checkpoint = Checkpoint::open(&files, options.ema, &mut announcements)?;
    let mut source = if depth_anything::is_meant(&checkpoint) {
        depth_anything::read(checkpoint, files.first().map_or(dir, PathBuf::as_path), options)?
    } else if vit5::is_meant(&checkpoint, options) {
        if described {
            announcements.push("config.json is not read: the tensors of a ViT-5 say everything".to_owned());
        }
        vit5::read(checkpoint, options)?
    } else if described {
        read_described(checkpoint, &config, options)?
    } else if options.arch.is_none() && timm::dinov2::is_meant(&checkpoint) {
        timm::dinov2::read(checkpoint, options)?
    } else {
        let json = arch::config(file.unwrap_or(dir), &mut checkpoint, options, &mut announcements)?;
        timm::read(checkpoint, &json, options)?
    };
    source.license = source.license.or_else(|| license::of_readme(dir));
    source.announcements.splice(0..0, announcements);
    Ok(source)
}

/// Reads a checkpoint as the file `config` beside it describes it.
fn read_described(checkpoint: Checkpoint, config: &Path, options: &Options) -> Result<network::Source, Error> {
    let json = json::Object::read(config)?;
    if json.value("architecture").is_some() {
        timm::read(checkpoint, &json, options)
    } else if json.value("model_type").is_some() {
        if options.max_depth.is_some() && json.value("model_type").is_some_and(|m| m == "depth_anything") {
            return Err(Error::new("--max-depth", "config.json says whether the depth is metric, and the largest"));
        }
        transformers::read(checkpoint, config.parent().unwrap_or(Path::new(".")), &json, options)
    } else {
        let runs = timm::what_we_run();
        let why = format!("neither timm's (architecture) nor transformers' (model_type); supported are {runs}");
        Err(Error::file(config, why))
    }
}
