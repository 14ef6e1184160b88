//! Which files hold the weights of a checkpoint directory.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::pickle;

/// The names that libraries give to weights; the first that exists wins. Of those that end in `index.json`, the
/// files that they list.
const NAMES: [&str; 4] =
    ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];

/// The endings of names of PyTorch files (`model_best.pth.tar` is timm's).
const TORCH: [&str; 6] = ["bin", "pth", "pt", "ckpt", "pkl", "tar"];

/// Trainers' files beside the weights.
const NOT_WEIGHTS: [&str; 5] = ["training_args", "optimizer", "scheduler", "rng_state", "scaler"];

/// Whether a file has a name that PyTorch's files have.
pub(crate) fn is_named_as_torch(path: &Path) -> bool {
    path.extension().is_some_and(|e| TORCH.iter().any(|known| e.eq_ignore_ascii_case(known)))
}

/// Whether a file holds weights, by its name or by what it begins with.
///
/// # Errors
/// A file that can not be read.
pub(crate) fn is_weights(path: &Path) -> Result<bool, Error> {
    if !path.is_file() {
        return Err(Error::file(path, "neither a file nor a directory"));
    }
    if path.extension().is_some_and(|e| e == "safetensors") || is_named_as_torch(path) {
        return Ok(true);
    }
    let mut first = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| Error::file(path, e))?;
    file.take(pickle::SNIFFED as u64).read_to_end(&mut first).map_err(|e| Error::file(path, e))?;
    Ok(pickle::is_torch(&first))
}

/// The files that hold the weights of the directory `dir`: by a name that libraries give them, else the only one
/// there is.
///
/// # Errors
/// No file, or several without such a name.
pub(crate) fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    for name in NAMES {
        let path = dir.join(name);
        if path.is_file() {
            return if name.ends_with(".json") { shards(dir, &path) } else { Ok(vec![path]) };
        }
    }
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir)
        .map_err(|e| Error::file(dir, e))?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.is_file())
        .collect();
    all.sort();
    let (safetensors, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|path| path.extension().is_some_and(|e| e == "safetensors"));
    let onnx = others.iter().find(|path| path.extension().is_some_and(|e| e == "onnx")).cloned();
    let torch: Vec<_> = others.into_iter().filter(|path| is_named_as_torch(path) && !is_beside_weights(path)).collect();
    match (&safetensors[..], &torch[..]) {
        ([one], _) | ([], [one]) => Ok(vec![one.clone()]),
        ([], []) => {
            let cure = onnx.map_or(String::new(), |path| format!("; give the ONNX file, {}", path.display()));
            Err(Error::file(dir, format!("no model.safetensors and no PyTorch file in this directory{cure}")))
        }
        ([], several) | (several, _) => {
            let names: Vec<_> = several.iter().filter_map(|p| p.file_name()).map(|n| n.to_string_lossy()).collect();
            Err(Error::file(dir, format!("several files with weights ({}); give the one to convert", names.join(", "))))
        }
    }
}

fn is_beside_weights(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| NOT_WEIGHTS.iter().any(|n| name.starts_with(n)))
}

fn shards(dir: &Path, index: &Path) -> Result<Vec<PathBuf>, Error> {
    let json = crate::json::read(index)?;
    let map = json.get("weight_map").and_then(|m| m.as_object());
    let map = map.ok_or_else(|| Error::file(index, "no weight_map in it; download it again"))?;
    let mut names: Vec<&str> = map.values().filter_map(|v| v.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in &names {
        if name.contains(['/', '\\']) {
            return Err(Error::file(index, format!("shard {name} is outside the directory")));
        }
    }
    let missing: Vec<&str> = names.iter().copied().filter(|name| !dir.join(name).is_file()).collect();
    match missing[..] {
        [] => Ok(names.into_iter().map(|name| dir.join(name)).collect()),
        _ => {
            let why = format!("{} of its {} files are missing: {}", missing.len(), names.len(), missing.join(", "));
            Err(Error::file(index, format!("{why}; download them, too")))
        }
    }
}
