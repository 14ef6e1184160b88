//! Which file belongs to which picture of a data set where something is known of every pixel: distances, classes.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::EvalArgs;
use crate::dataset;
use crate::error::{Error, Inputs, Result};
use crate::output::{self, Out};
use crate::pictures::{self, Source};
use crate::results::{Done, PictureResult};

/// Distances.
pub const DEPTH: Kind = Kind {
    what: "depth",
    folders: &["depth"],
    columns: &["depth", "depth_path", "depth_file", "ground_truth", "gt"],
    ends: &[".depth", "_depth", ""],
    endings: &["npy", "png"],
    cure: "NAME.npy (metres) or NAME.png (16 bits) beside each picture, or a CSV of path,depth lines",
};

/// Classes.
pub const CLASSES: Kind = Kind {
    what: "classes",
    folders: &["classes", "labels", "annotations", "masks"],
    columns: &["classes", "class_path", "labels", "label", "label_path", "annotation", "mask", "mask_path"],
    ends: &[".classes", "_classes", ".labels", "_labels", ""],
    endings: &["png"],
    cure: "NAME.png with the number of each pixel's class beside each picture or in a folder classes, or a CSV of \
           path,classes lines",
};

/// What is known of every pixel, and where its files lie.
pub struct Kind {
    /// In messages.
    pub what: &'static str,
    /// Names of the folder beside that of the pictures.
    pub folders: &'static [&'static str],
    /// What headers of a CSV call its column.
    pub columns: &'static [&'static str],
    /// What the names of files beside the pictures have at their end.
    pub ends: &'static [&'static str],
    /// Endings, the likeliest first.
    pub endings: &'static [&'static str],
    /// What to do where there are none.
    pub cure: &'static str,
}

/// A picture and the file with what is known of it; none where there is none.
pub struct Sample {
    pub picture: Source,
    pub truth: Option<PathBuf>,
}

/// Names of folders with pictures that have a folder of a [`Kind`] beside them.
const PICTURES: [&str; 3] = ["pictures", "images", "rgb"];

/// The samples of a data set, in the order of names or of the lines of a CSV.
fn open(path: &Path, kind: &Kind) -> Result<Vec<Sample>> {
    let samples: Vec<Sample> = match path.is_dir() {
        true => below(path, kind),
        false => dataset::pairs(path, kind.columns, kind.what)?
            .into_iter()
            .map(|(picture, truth)| Sample { picture: Source::File(picture), truth: Some(truth) })
            .collect(),
    };
    if samples.iter().all(|sample| sample.truth.is_none()) {
        return Err(Error::new(path.display(), format!("no {}: {}", kind.what, kind.cure)));
    }
    Ok(samples)
}

/// Measures the samples of a data set, at most `limit`, with progress. A sample that `one` cannot measure is named and
/// left out.
///
/// # Errors
/// A data set without samples.
pub fn measure<T>(
    dataset: &Path,
    kind: &Kind,
    limit: Option<usize>,
    mut one: impl FnMut(&Sample) -> Result<Done<T>>,
) -> Result<(Inputs, Vec<PictureResult<T>>)> {
    let mut samples = open(dataset, kind)?;
    samples.truncate(limit.unwrap_or(usize::MAX));
    note_missing(&samples, dataset, kind);
    let (mut inputs, mut results) = (Inputs::default(), Vec::new());
    let bar = output::progress(samples.len() as u64, "{bar:40.cyan} {pos}/{len} pictures, {eta} left");
    for sample in &samples {
        match one(sample) {
            Ok(done) => {
                inputs.done();
                results.push(PictureResult::Done(done));
            }
            Err(e) => {
                bar.suspend(|| inputs.failed(&e));
                results.push(PictureResult::failed(sample.picture.to_string(), &e));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((inputs, results))
}

/// What was found over all samples.
pub trait Report: Serialize + Sized {
    /// For people.
    fn print(&self, out: &mut Out) -> Result<()>;

    /// # Errors
    /// More than `max_drop` points lost against the reference.
    fn decide(&self, max_drop: Option<f64>) -> Result<()>;

    /// Prints it, and decides where there were samples.
    ///
    /// # Errors
    /// As [`Report::decide`], and samples that were left out.
    fn conclude(&self, args: &EvalArgs, inputs: &Inputs) -> Result<()> {
        match args.json {
            true => output::json(self)?,
            false => self.print(&mut output::stdout())?,
        }
        let end = inputs.end();
        if !matches!(end, Err(Error::AllFailed)) {
            self.decide(args.max_drop)?;
        }
        end
    }
}

fn below(folder: &Path, kind: &Kind) -> Vec<Sample> {
    let truths = kind.folders.iter().map(|name| folder.join(name)).find(|truths| truths.is_dir());
    let pictures = PICTURES.iter().map(|name| folder.join(name)).find(|pictures| truths.is_some() && pictures.is_dir());
    let root = pictures.as_deref().unwrap_or(folder);
    let found = pictures::below(root);
    // Arrays are files that are no pictures, and no others are worth a note here.
    let sample = |picture: Source| {
        let truth = match &picture {
            Source::File(path) => {
                candidates(path, root, truths.as_deref(), kind).into_iter().find(|truth| truth.is_file())
            }
            Source::Stdin | Source::Unusable { .. } => None,
        };
        Sample { picture, truth }
    };
    let samples: Vec<Sample> = found.pictures.into_iter().map(sample).collect();
    let truths: HashSet<PathBuf> = samples.iter().filter_map(|sample| sample.truth.clone()).collect();
    let is_picture = |sample: &Sample| !matches!(&sample.picture, Source::File(path) if truths.contains(path));
    samples.into_iter().filter(is_picture).collect()
}

/// Where the file of a picture may be, the likeliest first.
fn candidates(picture: &Path, root: &Path, truths: Option<&Path>, kind: &Kind) -> Vec<PathBuf> {
    let stem = picture.with_extension("");
    let beside = kind.ends.iter().map(|end| {
        let mut name = stem.clone().into_os_string();
        name.push(end);
        name
    });
    let apart = truths.and_then(|truths| Some(truths.join(stem.strip_prefix(root).ok()?).into_os_string()));
    let names = apart.into_iter().chain(beside);
    let files = names.flat_map(|name| {
        kind.endings.iter().map(move |ending| {
            let mut file = name.clone();
            file.push(".");
            file.push(ending);
            PathBuf::from(file)
        })
    });
    files.filter(|file| file != picture).collect()
}

/// Refuses a map `what` of another shape than the picture's: its pixels would be compared with other ones. Sizes are
/// (width, height).
///
/// # Errors
/// Both sizes.
pub fn check_shape(what: &str, map: (usize, usize), (width, height): (u32, u32)) -> Result<(), String> {
    let across = map.0 as f64 * f64::from(height);
    let down = map.1 as f64 * f64::from(width);
    // Half a pixel of either edge.
    let slack = 0.5 * f64::from(width.max(height));
    match (across - down).abs() <= slack && map.0 * map.1 > 0 {
        true => Ok(()),
        false => {
            Err(format!("its {what} has {} x {} pixels, the picture {width} x {height}: another shape", map.0, map.1))
        }
    }
}

/// Says how many pictures have nothing of the kind; they are left out.
pub fn note_missing(samples: &[Sample], path: &Path, kind: &Kind) {
    let missing = samples.iter().filter(|sample| sample.truth.is_none()).count();
    if missing > 0 {
        output::note(&format!("{}: {missing} of {} pictures have no {}", path.display(), samples.len(), kind.what));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(files: &[&str]) -> Vec<(String, Option<String>)> {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let relative = |path: &Path| path.strip_prefix(dir.path()).unwrap().display().to_string();
        let name = |sample: &Sample| match &sample.picture {
            Source::File(path) => (relative(path), sample.truth.as_deref().map(relative)),
            other => panic!("{other:?}"),
        };
        below(dir.path(), &DEPTH).iter().map(name).collect()
    }

    #[test]
    fn a_picture_finds_its_depth() {
        let pair = |picture: &str, truth: &str| (picture.to_string(), (!truth.is_empty()).then(|| truth.to_string()));
        let files = ["a.jpg", "a.png", "b/c.png", "b/c.npy", "d.png", "d_depth.png", "e.jpg", "f.png", "f.depth.npy"];
        assert_eq!(
            names(&files),
            [
                pair("a.jpg", "a.png"),
                pair("b/c.png", "b/c.npy"),
                pair("d.png", "d_depth.png"),
                pair("e.jpg", ""),
                pair("f.png", "f.depth.npy")
            ]
        );
        let files = ["pictures/0.png", "depth/0.png", "classes/0.png", "pictures/x/1.png", "depth/x/1.npy"];
        assert_eq!(names(&files), [pair("pictures/0.png", "depth/0.png"), pair("pictures/x/1.png", "depth/x/1.npy")]);
    }

    #[test]
    fn classes_are_found_beside_other_files() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["pictures/0.png", "depth/0.png", "classes/0.png", "pictures/1.jpg", "classes/1.png"] {
            fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
            fs::write(dir.path().join(file), "").unwrap();
        }
        let found: Vec<_> = below(dir.path(), &CLASSES).into_iter().filter_map(|sample| sample.truth).collect();
        assert_eq!(found, ["classes/0.png", "classes/1.png"].map(|file| dir.path().join(file)));
    }
}
