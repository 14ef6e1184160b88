//! PyTorch's own files, read as data: `torch.save`'s archives (since 1.6) and its older format. Nothing in them is run.
//!
//! A pickle is a program for a small machine that may call any function of Python. `machine` reads it without Python:
//! calls become placeholders, and `tensor` knows the calls that stand for tensors. `state` finds the dict that holds
//! the weights. Tensors stay where they are in the file. Memory: at most 256 MiB for the pickles, whatever is in the
//! file (`machine::Budget`).
//!
//! Why no crate: pytorch-reader copies what is shared and each tensor, and brings twenty crates; candle-core brings
//! its whole library; serde-pickle does not know references to storages.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

mod input;
mod legacy;
mod machine;
mod settings;
mod state;
mod tensor;
mod value;
mod zip;

use tensor::Storages;
pub(crate) use tensor::{Tensor, places};
use value::{Graph, Id};
use zip::Zip;

/// For files that Python can read and we can not. `FILE` stands for the file's name.
const SAVE_AGAIN: &str = "save it again: python -c \"import torch; torch.save(torch.load('FILE', map_location='cpu', \
                          weights_only=True), 'again.pth')\"";

const BIG_ENDIAN: &str = "written on a big-endian machine, whose byte order is not supported; save it again on the \
                          machine where it is used, with torch.load and torch.save";

/// The longest name of a tensor, and of a key that leads to tensors.
const MAX_NAME: usize = 256;

/// The weights in a PyTorch file.
#[derive(Clone, Debug, Default)]
pub(crate) struct StateDict {
    /// By name; or why a tensor can not be read.
    pub(crate) tensors: BTreeMap<String, Result<Tensor, String>>,
    /// What the checkpoint says about the network: `arch`, and the trainer's arguments below `args`.
    pub(crate) settings: Map<String, Json>,
}

/// How many bytes [`is_torch`] looks at.
pub(crate) const SNIFFED: usize = 32;

/// Whether a file with these first bytes is a PyTorch file, whatever its name is.
pub(crate) fn is_torch(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(SNIFFED)];
    let old = matches!(start, [0x80, 2..=5, ..]) && start.windows(legacy::MAGIC.len()).any(|w| w == legacy::MAGIC);
    start.starts_with(b"PK\x03\x04") || old
}

/// Reads the state dict of a file; `ema` asks for averaged weights. Announces the choice, if there was one.
///
/// # Errors
/// Why there are no weights, and what to do about it. In commands, `FILE` stands for the file's name.
pub(crate) fn read(file: &[u8], ema: bool, announcements: &mut Vec<String>) -> Result<StateDict, String> {
    let (graph, root, storages) = open(file)?;
    let chosen = state::choose(&graph, root, ema, announcements)?;
    let tensors = state::tensors(&graph, chosen.id);
    let tensors = tensors.map(|(name, id)| (name.to_owned(), tensor::tensor(&graph, &storages, id))).collect();
    Ok(StateDict { tensors, settings: settings::settings(&graph, root) })
}

/// The object in a file, and where its storages are.
fn open(file: &[u8]) -> Result<(Graph<'_>, Id, Storages), String> {
    if file.starts_with(b"PK") {
        return open_zip(file);
    }
    if file.get(257..262) == Some(b"ustar") {
        return Err("a tar archive; unpack it (tar -xf) and give the file in it".to_owned());
    }
    match legacy::open(file)? {
        Some(opened) => Ok(opened),
        None => {
            let cure = "python -c \"import pickle, torch; torch.save(pickle.load(open('FILE', 'rb')), 'weights.pth')\"";
            Err(format!("not a file of torch.save; if it is a pickle and you trust it, save it so: {cure}"))
        }
    }
}

fn open_zip(file: &[u8]) -> Result<(Graph<'_>, Id, Storages), String> {
    let zip = Zip::open(file)?;
    // The directory is named after the file that torch.save wrote.
    let named = |name: &str| -> Option<String> {
        let entry = zip.names().find(|entry| entry.rsplit('/').next() == Some(name))?;
        entry.strip_suffix(name).map(str::to_owned)
    };
    let Some(directory) = named("data.pkl") else {
        return Err(
            "a zip archive without data.pkl, so not a file of torch.save; unpack it and give the file in it".to_owned()
        );
    };
    if zip.get(&format!("{directory}constants.pkl"))?.is_some() {
        let cure = "python -c \"import torch; m = torch.jit.load('FILE', map_location='cpu'); \
                    torch.save(m.state_dict(), 'weights.pth')\"";
        return Err(format!("a TorchScript archive; save its state dict: {cure}"));
    }
    if let Some(order) = zip.get(&format!("{directory}byteorder"))? {
        match file[order].trim_ascii() {
            b"little" => {}
            b"big" => return Err(BIG_ENDIAN.to_owned()),
            _ => return Err("its byte order is neither little nor big; download it again".to_owned()),
        }
    }
    let pickle = zip.get(&format!("{directory}data.pkl"))?.unwrap_or_default();
    let (graph, root, _) = machine::load(&file[pickle], &mut machine::Budget::default())?;
    Ok((graph, root, Storages::Zip(zip, directory)))
}
