//! Pictures for `eval`: a directory with one folder per class, a directory of pictures without labels, or a CSV of `path,label_index` lines.
//!
//! A folder is matched, in this order, as a WordNet synset id (`n01440764`, for networks with ImageNet-1k's classes), as a
//! label, as one of a label's comma-separated synonyms, and as a plain index. Case does not matter and `_` reads as a
//! space. A subset of the classes will do; a folder that matches nothing, or two classes alike, is refused.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result, why};
use crate::pictures;

/// The classes of a network.
pub struct Classes<'a> {
    pub count: usize,
    /// As many as `count`, or none.
    pub labels: Vec<&'a str>,
    /// WordNet's ids, where the classes are ImageNet-1k's; else none.
    pub synsets: &'a [&'a str],
}

/// A picture and its class, where that is known.
#[derive(Debug, PartialEq)]
pub struct Entry {
    pub path: PathBuf,
    pub label: Option<usize>,
}

/// A folder and the class that it was matched to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Folder {
    pub folder: String,
    pub index: usize,
    pub label: Option<String>,
    pub pictures: usize,
}

/// Pictures in the order of the CSV's lines, or of the folders' and files' names.
#[derive(Debug)]
pub struct Dataset {
    pub entries: Vec<Entry>,
    /// Empty for a CSV and for unlabelled pictures.
    pub folders: Vec<Folder>,
    /// Pictures beside the folders of classes, which are left out.
    pub loose: usize,
}

/// Opens a directory or a CSV.
pub fn open(path: &Path, classes: &Classes) -> Result<Dataset> {
    let dataset = if path.is_dir() { open_directory(path, classes)? } else { open_csv(path, classes.count)? };
    if dataset.entries.is_empty() {
        return Err(Error::new(path.display(), "no pictures"));
    }
    Ok(dataset)
}

fn open_directory(path: &Path, classes: &Classes) -> Result<Dataset> {
    let (mut folders, mut loose) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(path).map_err(|e| Error::new(path.display(), why(&e)))? {
        let entry = entry.map_err(|e| Error::new(path.display(), why(&e)))?.path();
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if entry.is_dir() && !name.starts_with('.') {
            folders.push((name, entry));
        } else if !name.starts_with('.') && pictures::has_picture_extension(&entry) {
            loose.push(entry);
        }
    }
    if folders.is_empty() && loose.is_empty() {
        return Err(Error::new(
            path.display(),
            "no folders and no pictures: eval wants one folder per class, or a CSV of path,label_index",
        ));
    }
    if folders.is_empty() {
        loose.sort();
        let entries = loose.into_iter().map(|path| Entry { path, label: None }).collect();
        return Ok(Dataset { entries, folders: Vec::new(), loose: 0 });
    }
    folders.sort();
    let mut dataset = Dataset { entries: Vec::new(), folders: Vec::new(), loose: loose.len() };
    for (name, folder) in folders {
        let index = classes.find(&name).about(folder.display())?;
        let files = pictures::in_directory(&folder)?;
        let label = classes.labels.get(index).map(|l| (*l).to_string());
        dataset.folders.push(Folder { folder: name, index, label, pictures: files.len() });
        dataset.entries.extend(files.into_iter().map(|path| Entry { path, label: Some(index) }));
    }
    Ok(dataset)
}

impl Classes<'_> {
    /// The class that a folder of this name holds.
    fn find(&self, folder: &str) -> Result<usize, String> {
        let name = normalize(folder);
        let only = |mut indices: Vec<usize>| match indices.len() {
            0 => Ok(None),
            1 => Ok(indices.pop()),
            _ => Err(format!("folder matches classes {indices:?} alike: name it by its index or synset id")),
        };
        let labels = || self.labels.iter().enumerate();
        let by_synset = || self.synsets.iter().position(|s| *s == name);
        let by_label = || only(labels().filter(|(_, l)| normalize(l) == name).map(|(i, _)| i).collect());
        let by_synonym =
            || only(labels().filter(|(_, l)| l.split(',').any(|s| normalize(s) == name)).map(|(i, _)| i).collect());
        let by_index = || name.parse().ok().filter(|&i| i < self.count);

        let found = match by_synset() {
            Some(i) => Some(i),
            None => by_label()?.map_or_else(by_synonym, |i| Ok(Some(i)))?.or_else(by_index),
        };
        found.ok_or_else(|| match self.labels.first() {
            Some(first) => format!("folder matches none of the model's {} labels ({first}, ...)", self.count),
            None => format!("folder is no index below {}, and the model has no labels", self.count),
        })
    }
}

fn normalize(name: &str) -> String {
    name.replace('_', " ").split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

fn open_csv(path: &Path, classes: usize) -> Result<Dataset> {
    let text = fs::read_to_string(path).map_err(|e| Error::new(path.display(), why(&e)))?;
    let base = path.parent().unwrap_or(Path::new(""));
    let mut entries = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let what = || format!("{}, line {}", path.display(), number + 1);
        if line.trim().is_empty() {
            continue;
        }
        let (file, label) = line.rsplit_once(',').ok_or("not path,label_index").about(what())?;
        let label = match label.trim().trim_matches('"').parse::<usize>() {
            Ok(label) if label < classes => label,
            Ok(label) => {
                let why = format!("label {label}: the model has {classes} classes, counted from 0");
                return Err(Error::new(what(), why));
            }
            Err(_) if number == 0 => continue,
            Err(_) => return Err(Error::new(what(), format!("label index {label:?} is not a number"))),
        };
        entries.push(Entry { path: base.join(file.trim().trim_matches('"')), label: Some(label) });
    }
    Ok(Dataset { entries, folders: Vec::new(), loose: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGENET_LIKE: Classes = Classes { count: 4, labels: Vec::new(), synsets: &[] };

    fn classes() -> Classes<'static> {
        let labels = vec!["tench, Tinca tinca", "great white shark, white shark", "crane", "crane, lifting gear"];
        Classes { labels, synsets: &["n01440764", "n01484850", "n02012849", "n03126707"], ..IMAGENET_LIKE }
    }

    #[test]
    fn folders_match_by_synset_label_synonym_and_index() {
        let classes = classes();
        let cases = [
            ("n01484850", 1),
            ("Tench", 0),
            ("tinca_tinca", 0),
            ("Great_White_Shark", 1),
            ("tench, tinca tinca", 0),
            ("crane", 2),
            ("lifting gear", 3),
            ("3", 3),
        ];
        for (folder, index) in cases {
            assert_eq!(classes.find(folder), Ok(index), "{folder}");
        }
        for nothing in ["shark", "4", "n99999999", ""] {
            let error = classes.find(nothing).unwrap_err();
            assert!(error.contains("none of the model's 4 labels (tench, Tinca tinca, ...)"), "{error}");
        }
        assert_eq!(IMAGENET_LIKE.find("2"), Ok(2));
        assert!(IMAGENET_LIKE.find("tench").unwrap_err().contains("no index below 4"));
    }

    #[test]
    fn a_label_that_stands_twice_is_ambiguous() {
        let twins = Classes { count: 2, labels: vec!["maillot", "maillot"], synsets: &[] };
        assert!(twins.find("maillot").unwrap_err().contains("[0, 1]"));
        assert_eq!(twins.find("1"), Ok(1));
    }

    #[test]
    fn labels_that_are_digits_win_over_indices() {
        let digits = Classes { count: 3, labels: vec!["2", "1", "0"], synsets: &[] };
        assert_eq!(digits.find("0"), Ok(2));
    }

    #[test]
    fn directories_give_entries_in_order_and_a_mapping() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["tench/b.JPG", "tench/a.png", "tench/notes.txt", "1/deep/c.webp", ".hidden/x.png"] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let dataset = open(dir.path(), &classes()).unwrap();
        let found: Vec<_> =
            dataset.entries.iter().map(|e| (e.path.strip_prefix(dir.path()).unwrap(), e.label.unwrap())).collect();
        assert_eq!(
            found,
            [(Path::new("1/deep/c.webp"), 1), (Path::new("tench/a.png"), 0), (Path::new("tench/b.JPG"), 0)]
        );
        assert_eq!(dataset.folders[1].label.as_deref(), Some("tench, Tinca tinca"));
        assert_eq!(dataset.folders[1].pictures, 2);

        fs::create_dir(dir.path().join("stranger")).unwrap();
        let Error::Failed(line) = open(dir.path(), &classes()).unwrap_err() else { panic!() };
        assert!(line.contains("stranger: folder matches none"), "{line}");
    }

    #[test]
    fn csv_with_and_without_header() {
        let dir = tempfile::tempdir().unwrap();
        let csv = dir.path().join("labels.csv");
        let read = |text: &str| {
            fs::write(&csv, text).unwrap();
            open(&csv, &classes())
        };
        let want = [
            Entry { path: dir.path().join("a, b.jpg"), label: Some(3) },
            Entry { path: dir.path().join("sub/c.jpg"), label: Some(0) },
        ];
        assert_eq!(read("path,label_index\na, b.jpg,3\n\nsub/c.jpg, 0\r\n").unwrap().entries, want);
        assert_eq!(read("\u{feff}\"a, b.jpg\",3\nsub/c.jpg,0").unwrap().entries, want);
        for (text, why) in [
            ("a.jpg,0\nb.jpg,4\n", "line 2: label 4: the model has 4 classes"),
            ("a.jpg,0\nb.jpg,cat\n", "line 2: label index \"cat\" is not a number"),
            ("a.jpg,0\nb.jpg\n", "line 2: not path,label_index"),
            ("path,label\n", "no pictures"),
        ] {
            let Error::Failed(line) = read(text).unwrap_err() else { panic!() };
            assert!(line.contains(why), "{line}");
        }
    }
}
