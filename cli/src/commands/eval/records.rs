//! The record of every picture, and the merging of the parts of a data set.
//!
//! Everything that `eval` reports is computed from these records in the order of the data set, so a merged report is
//! the unsharded one to the last bit (except for the times, which were measured in other runs). Sums of squares are
//! written with all their digits.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result, why};
use crate::results::{Done, FailedPicture, PictureResult};

/// A picture that was run.
pub type Picture = Done<Record>;

/// What is kept of one picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its place in the whole data set.
    pub index: usize,
    /// None in a folder without labels.
    pub label: Option<usize>,
    /// The model's five first classes; fewer where it has fewer.
    pub top: Vec<usize>,
    pub reference: Option<Against>,
}

/// The reference's answer for the same picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Against {
    /// Its first class.
    pub first: usize,
    /// Sum over the logits of (model - reference)^2.
    pub difference: f64,
    /// Sum over the logits of reference^2.
    pub norm: f64,
}

/// A picture that could not be read, or has no finite logits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unreadable {
    pub index: usize,
    #[serde(flatten)]
    pub left_out: FailedPicture,
}

/// What was run on what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    pub model: String,
    pub precision: String,
    pub layerscale: String,
    pub dataset: String,
    /// Pictures in the whole data set, after --limit.
    pub total: usize,
    /// The reference's name.
    pub against: Option<String>,
    /// One a class, or none.
    pub labels: Vec<String>,
    pub folders: Vec<crate::dataset::Folder>,
}

/// The results of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Stored", from = "Stored")]
pub struct Results {
    pub setting: Setting,
    /// The part that was run; none for all of it.
    pub shard: Option<Shard>,
    pub kernel: String,
    pub threads: usize,
    /// Seconds for all pictures, decoding included; of several parts, the sum.
    pub seconds: f64,
    pub unread: Vec<Unreadable>,
    pub pictures: Vec<Picture>,
}

/// [`Results`] as JSON has them: one list in the order of the data set.
#[derive(Serialize, Deserialize)]
struct Stored {
    setting: Setting,
    shard: Option<Shard>,
    kernel: String,
    threads: usize,
    seconds: f64,
    results: Vec<StoredPicture>,
}

type StoredPicture = PictureResult<Record, Unreadable>;

fn index(stored: &StoredPicture) -> usize {
    match stored {
        PictureResult::Done(picture) => picture.rest.index,
        PictureResult::Failed(unread) => unread.index,
    }
}

impl From<Results> for Stored {
    fn from(r: Results) -> Self {
        let Results { setting, shard, kernel, threads, seconds, unread, pictures } = r;
        let done = pictures.into_iter().map(PictureResult::Done);
        let mut results: Vec<_> = done.chain(unread.into_iter().map(PictureResult::Failed)).collect();
        results.sort_by_key(index);
        Self { setting, shard, kernel, threads, seconds, results }
    }
}

impl From<Stored> for Results {
    fn from(s: Stored) -> Self {
        let Stored { setting, shard, kernel, threads, seconds, results } = s;
        let (mut unread, mut pictures) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                PictureResult::Done(picture) => pictures.push(picture),
                PictureResult::Failed(one) => unread.push(one),
            }
        }
        Self { setting, shard, kernel, threads, seconds, unread, pictures }
    }
}

/// Part `index` of `of`, counted from 1: every `of`-th picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    pub index: usize,
    pub of: usize,
}

impl FromStr for Shard {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        let (index, of) = numbers.ok_or("write part/parts, as in 2/8")?;
        if index >= 1 && index <= of {
            Ok(Self { index, of })
        } else {
            Err("parts are counted from 1, as in 1/8 to 8/8")
        }
    }
}

impl Shard {
    /// Whether picture `i` of the data set belongs to this part.
    pub fn holds(self, i: usize) -> bool {
        i % self.of == self.index - 1
    }
}

impl Results {
    /// Records arrive as threads finish; they are kept in the order of the data set.
    pub fn sort(&mut self) {
        self.pictures.sort_by_key(|p| p.rest.index);
        self.unread.sort_by_key(|r| r.index);
    }
}

/// Reads what `eval --json` wrote.
fn read(path: &Path) -> Result<Results> {
    let text = fs::read_to_string(path).map_err(|e| Error::new(path.display(), why(&e)))?;
    serde_json::from_str(&text)
        .map_err(|e| format!("not a document of `vitlet eval --json` ({e})"))
        .about(path.display())
}

/// Adds up the parts of a data set.
pub fn merge(paths: &[PathBuf]) -> Result<Results> {
    let mut parts = Vec::new();
    for path in paths {
        parts.push((path, read(path)?));
    }
    let mut parts = parts.into_iter();
    let (first_path, mut all) = parts.next().ok_or_else(|| Error::Usage("--merge needs files".to_string()))?;
    let of = all.shard.map_or(1, |s| s.of);
    let mut seen = vec![all.shard.map_or(1, |s| s.index)];
    for (path, part) in parts {
        if let Some(what) = difference(&all, &part) {
            return Err(Error::new(path.display(), format!("another {what} than in {}", first_path.display())));
        }
        let index = part.shard.map_or(1, |s| s.index);
        if seen.contains(&index) {
            return Err(Error::new(path.display(), format!("part {index}/{of} a second time")));
        }
        seen.push(index);
        all.seconds += part.seconds;
        all.pictures.extend(part.pictures);
        all.unread.extend(part.unread);
    }
    if let Some(missing) = (1..=of).find(|i| !seen.contains(i)) {
        return Err(Error::new("--merge", format!("part {missing}/{of} is missing")));
    }
    all.shard = None;
    all.sort();
    let known = |i: usize| all.pictures.iter().any(|p| p.rest.index == i) || all.unread.iter().any(|r| r.index == i);
    match all.pictures.len() + all.unread.len() == all.setting.total {
        true => Ok(all),
        false => {
            let missing = (0..all.setting.total).find(|&i| !known(i)).unwrap_or_default();
            Err(Error::new("--merge", format!("picture {missing} of {} is in no part", all.setting.total)))
        }
    }
}

/// The first setting in which two parts differ.
fn difference(a: &Results, b: &Results) -> Option<&'static str> {
    let (x, y) = (&a.setting, &b.setting);
    let equal = [
        (x.model == y.model && x.precision == y.precision && x.layerscale == y.layerscale, "model"),
        (x.dataset == y.dataset && x.total == y.total && x.folders == y.folders, "data set"),
        (x.against == y.against, "reference"),
        (x.labels == y.labels, "set of labels"),
        (a.shard.map(|s| s.of) == b.shard.map(|s| s.of), "number of parts"),
    ];
    equal.into_iter().find(|(equal, _)| !equal).map(|(_, what)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_parsed_and_cover_everything_once() {
        assert_eq!("2/3".parse(), Ok(Shard { index: 2, of: 3 }));
        for wrong in ["0/3", "4/3", "1", "a/b", "1/0", ""] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
        for i in 0..20 {
            assert_eq!((1..=3).filter(|&index| Shard { index, of: 3 }.holds(i)).count(), 1);
        }
    }
}
