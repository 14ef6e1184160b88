//! Heads that are not simply one layer of the checkpoint: the mean of two heads, and heads from separate files, of the
//! picture here and of its patches in `patches`.

use std::path::Path;

use vitlet::{Config, Named, Pooling};

use crate::checkpoint::Checkpoint;
use crate::diagonal;
use crate::error::Error;
use crate::network::Layer;

mod patches;

pub(crate) use patches::PatchHead;

/// The mean of two heads, each on its own token, as one layer over both tokens side by side.
pub(crate) fn mean(cls: Layer, dist: Layer) -> Layer {
    let mut both = cls.beside(dist);
    both.change(|both| diagonal::scale_rows(both, &vec![0.5; both.n]));
    both
}

/// Reads a separately trained head: a safetensors file with one matrix `[classes, features]` and at most one vector
/// `[classes]`. Twice the width means that it reads the class token and the mean of the patches, as DINOv2's linear
/// heads do. Sets `config`'s classes and pooling.
///
/// # Errors
/// A file with anything else in it, or a width that does not fit.
pub(crate) fn replace(path: &Path, config: &mut Config, announcements: &mut Vec<String>) -> Result<Layer, Error> {
    let mut file = Checkpoint::open(&[path.to_owned()], false, announcements)?;
    let with_rank = |rank: usize| -> Vec<(String, Vec<usize>)> {
        let shape = |name: &str| file.shape(name).map(<[usize]>::to_vec).filter(|s| s.len() == rank);
        file.names().filter_map(|name| Some((name.to_owned(), shape(name)?))).collect()
    };
    let (matrices, vectors) = (with_rank(2), with_rank(1));
    let ([(weight, shape)], 0..=1) = (&matrices[..], vectors.len()) else {
        return Err(Error::file(
            path,
            "not a linear head: one matrix [classes, features] and one vector [classes] are expected",
        ));
    };
    let (classes, features) = (shape[0], shape[1]);
    let parts = if features == config.dim { 1 } else { 2 };
    config.pooling = match (parts, config.pooling) {
        _ if features != parts * config.dim => {
            let why = format!("a head over {features} features, but the network has {}", config.dim);
            return Err(Error::file(path, why));
        }
        (1, Pooling::ClsAvg | Pooling::ClsDist) => Pooling::Cls,
        (2, Pooling::Cls) if !config.fc_norm => Pooling::ClsAvg,
        (_, pooling) if parts == config.parts() => pooling,
        (_, pooling) => {
            let why = format!("a head over {features} features does not fit pooling {}", pooling.name());
            return Err(Error::file(path, why));
        }
    };
    let weight = file.tensor(weight, &[classes, features])?;
    // Not before the shape is known to fit: a matrix without features may claim any number of classes.
    let bias = match vectors.first() {
        Some((name, _)) => file.take(name, &[classes])?,
        None => vec![0.0; classes],
    };
    file.finish(&[])?;
    if config.classes > 0 {
        announcements.push(format!("the head of {} classes is replaced by one of {classes}", config.classes));
    }
    config.classes = classes;
    Ok(Layer::stored(weight, bias))
}
