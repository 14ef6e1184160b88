//! Measured distances: which file belongs to which picture, and its numbers in metres.

use std::collections::HashSet;
use std::fs;
use std::io::{BufReader, Cursor};
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageFormat, ImageReader, Limits};

use crate::dataset;
use crate::error::{Context, Error, Result, why};
use crate::npy;
use crate::output;
use crate::pictures::{self, Source};

/// A picture and the file with its distances; none where there is none.
pub struct Sample {
    pub picture: Source,
    pub truth: Option<PathBuf>,
}

/// Names of folders with pictures that have a folder `depth` beside them.
const PICTURES: [&str; 3] = ["pictures", "images", "rgb"];
const DEPTH: &str = "depth";

/// The samples of a data set, in the order of names or of the lines of a CSV.
pub fn open(path: &Path) -> Result<Vec<Sample>> {
    let samples: Vec<Sample> = match path.is_dir() {
        true => below(path),
        false => dataset::depths(path)?
            .into_iter()
            .map(|(picture, truth)| Sample { picture: Source::File(picture), truth: Some(truth) })
            .collect(),
    };
    if samples.iter().all(|sample| sample.truth.is_none()) {
        let why = "no depth: NAME.npy (metres) or NAME.png (16 bits) beside each picture, or a CSV of path,depth lines";
        return Err(Error::new(path.display(), why));
    }
    Ok(samples)
}

fn below(folder: &Path) -> Vec<Sample> {
    let depth = Some(folder.join(DEPTH)).filter(|depth| depth.is_dir());
    let pictures = PICTURES.iter().map(|name| folder.join(name)).find(|pictures| depth.is_some() && pictures.is_dir());
    let root = pictures.as_deref().unwrap_or(folder);
    let found = pictures::below(root);
    // Arrays are files that are no pictures, and no others are worth a note here.
    let sample = |picture: Source| {
        let truth = match &picture {
            Source::File(path) => candidates(path, root, depth.as_deref()).into_iter().find(|truth| truth.is_file()),
            Source::Stdin | Source::Unusable { .. } => None,
        };
        Sample { picture, truth }
    };
    let samples: Vec<Sample> = found.pictures.into_iter().map(sample).collect();
    let truths: HashSet<PathBuf> = samples.iter().filter_map(|sample| sample.truth.clone()).collect();
    let is_picture = |sample: &Sample| !matches!(&sample.picture, Source::File(path) if truths.contains(path));
    samples.into_iter().filter(is_picture).collect()
}

/// Where the distances of a picture may be, the likeliest first.
fn candidates(picture: &Path, root: &Path, depth: Option<&Path>) -> Vec<PathBuf> {
    let stem = picture.with_extension("");
    let beside = [".depth", "_depth", ""].map(|end| {
        let mut name = stem.clone().into_os_string();
        name.push(end);
        name
    });
    let apart = depth.and_then(|depth| Some(depth.join(stem.strip_prefix(root).ok()?).into_os_string()));
    let names = apart.into_iter().chain(beside);
    let files = names.flat_map(|name| {
        ["npy", "png"].map(|ending| {
            let mut file = name.clone();
            file.push(".");
            file.push(ending);
            PathBuf::from(file)
        })
    });
    files.filter(|file| file != picture).collect()
}

/// Distances `[height, width]` in metres; 0, negative and other numbers mean that nothing was measured.
pub struct Truth {
    pub width: usize,
    pub height: usize,
    pub metres: Vec<f32>,
}

impl Truth {
    /// Reads an array in metres, or a gray PNG of 16 bits in `units` a metre.
    ///
    /// # Errors
    /// A file of another kind or shape.
    pub fn read(path: &Path, units: f32) -> Result<Self> {
        if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npy")) {
            let array = npy::read(path)?;
            let (height, width) = match array.shape[..] {
                [height, width] | [1, height, width] | [height, width, 1] => (height, width),
                _ => return Err(Error::new(path.display(), format!("shape {:?}, not [height, width]", array.shape))),
            };
            return Ok(Self { width, height, metres: array.data });
        }
        let bytes = fs::read(path).map_err(|e| Error::new(path.display(), why(&e)))?;
        png(&bytes, units).about(path.display())
    }

    /// Refuses a map of another shape than the picture's: its pixels would be compared with other ones.
    ///
    /// # Errors
    /// Both sizes.
    pub fn check_shape(&self, width: u32, height: u32) -> Result<(), String> {
        let across = self.width as f64 * f64::from(height);
        let down = self.height as f64 * f64::from(width);
        // Half a pixel of either edge.
        let slack = 0.5 * f64::from(width.max(height));
        match (across - down).abs() <= slack && !self.metres.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "its depth has {} x {} pixels, the picture {width} x {height}: another shape",
                self.width, self.height
            )),
        }
    }
}

fn png(bytes: &[u8], units: f32) -> Result<Truth, String> {
    let mut reader = ImageReader::with_format(BufReader::new(Cursor::new(bytes)), ImageFormat::Png);
    reader.limits(Limits::default());
    match reader.decode() {
        Ok(DynamicImage::ImageLuma16(gray)) => Ok(Truth {
            width: gray.width() as usize,
            height: gray.height() as usize,
            metres: gray.into_raw().into_iter().map(|code| f32::from(code) / units).collect(),
        }),
        Ok(other) => Err(format!("{:?}: depth is a gray PNG of 16 bits, or .npy", other.color())),
        Err(e) => Err(format!("not a PNG that can be read: {e}")),
    }
}

/// Says how many pictures have no depth; they are left out.
pub fn note_missing(samples: &[Sample], path: &Path) {
    let missing = samples.iter().filter(|sample| sample.truth.is_none()).count();
    if missing > 0 {
        output::note(&format!("{}: {missing} of {} pictures have no depth", path.display(), samples.len()));
    }
}

#[cfg(test)]
mod tests {
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
        below(dir.path()).iter().map(name).collect()
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
    fn shapes_may_differ_in_scale_alone() {
        let truth = |width, height| Truth { width, height, metres: vec![1.0; width * height] };
        assert!(truth(320, 240).check_shape(640, 480).is_ok() && truth(321, 240).check_shape(641, 480).is_ok());
        assert!(truth(240, 320).check_shape(640, 480).is_err() && truth(320, 200).check_shape(640, 480).is_err());
        assert!(truth(0, 0).check_shape(640, 480).is_err());
    }
}
