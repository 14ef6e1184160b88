//! Pictures for `eval`: a directory with one folder per class, a directory of pictures without labels, or a CSV of
//! `path,label` lines.
//!
//! A folder is matched, in this order, as a WordNet synset id (`n01440764`, for networks with ImageNet-1k's classes),
//! as a label, as one of a label's comma-separated synonyms, and as a plain index. Case does not matter and `_` reads
//! as a space. A subset of the classes will do; a folder that matches nothing, or two classes alike, is refused.

mod csv;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result, why};
use crate::output;
use crate::pictures::{self, Found, Item, OtherFiles, Source};

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
    pub source: Source,
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
#[derive(Debug, Default)]
pub struct Dataset {
    pub entries: Vec<Entry>,
    /// Empty for a CSV and for unlabelled pictures.
    pub folders: Vec<Folder>,
    /// Pictures beside the folders of classes, which are left out.
    pub loose: usize,
}

/// Opens a directory or a CSV. Says which files of a directory are left out, and which line of a CSV is its header.
pub fn open(path: &Path, classes: &Classes) -> Result<Dataset> {
    let dataset = if path.is_dir() {
        open_directory(path, classes)?
    } else {
        Dataset { entries: csv::open(path, classes)?, folders: Vec::new(), loose: 0 }
    };
    if dataset.entries.is_empty() {
        return Err(Error::new(path.display(), "no pictures"));
    }
    Ok(dataset)
}

/// The pictures of a CSV, each with the file of `what` is known of it; `columns` are what headers call that.
pub fn pairs(path: &Path, columns: &[&str], what: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
    csv::open_pairs(path, columns, what)
}

fn open_directory(path: &Path, classes: &Classes) -> Result<Dataset> {
    let (mut folders, mut loose, mut left_out) = (Vec::new(), Vec::new(), OtherFiles::default());
    for item in pictures::items(path).map_err(|e| Error::new(path.display(), why(&e)))? {
        match item {
            Item::Folder(folder) | Item::LinkedFolder(folder) => folders.push(folder),
            Item::Picture(source) => loose.push(source),
            Item::LeftOut(name) => left_out.add(name),
        }
    }
    if folders.is_empty() && loose.is_empty() {
        let why = "no folders and no pictures: eval wants one folder per class, or a CSV of path,label lines";
        return Err(Error::new(path.display(), why));
    }
    left_out.note(path).iter().for_each(|note| output::note(note));
    if folders.is_empty() {
        let entries = loose.into_iter().map(|source| Entry { source, label: None }).collect();
        return Ok(Dataset { entries, folders: Vec::new(), loose: 0 });
    }
    let mut dataset = Dataset { entries: Vec::new(), folders: Vec::new(), loose: loose.len() };
    for folder in folders {
        add_class(&mut dataset, &folder, classes)?;
    }
    Ok(dataset)
}

/// Adds the pictures of a class's folder, or the one error of a folder that cannot be read.
fn add_class(dataset: &mut Dataset, folder: &Path, classes: &Classes) -> Result<()> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let index = classes.of_folder(&name).about(folder.display())?;
    let Found { pictures, left_out } = pictures::below(folder);
    left_out.note(folder).iter().for_each(|note| output::note(note));
    let label = classes.labels.get(index).map(|l| (*l).to_string());
    dataset.folders.push(Folder { folder: name, index, label, pictures: pictures.len() });
    dataset.entries.extend(pictures.into_iter().map(|source| Entry { source, label: Some(index) }));
    Ok(())
}

impl Classes<'_> {
    /// The class that a folder of this name holds.
    fn of_folder(&self, folder: &str) -> Result<usize, String> {
        let ambiguous =
            |classes| format!("folder matches classes {classes:?} alike: name it by its index or synset id");
        let by_index = || folder.trim().parse().ok().filter(|&i| i < self.count);
        let found = self.by_name(folder).map_err(ambiguous)?.or_else(by_index);
        found.ok_or_else(|| match self.labels.first() {
            Some(first) => format!("folder matches none of the model's {} labels ({first}, ...)", self.count),
            None => format!("folder is no index below {}, and the model has no labels", self.count),
        })
    }

    /// The class of this synset id, label or synonym, if there is one; an error lists several that match alike.
    fn by_name(&self, name: &str) -> Result<Option<usize>, Vec<usize>> {
        let name = normalize(name);
        let only = |mut indices: Vec<usize>| if indices.len() > 1 { Err(indices) } else { Ok(indices.pop()) };
        let labels = || self.labels.iter().enumerate();
        if let Some(index) = self.synsets.iter().position(|s| *s == name) {
            return Ok(Some(index));
        }
        if let Some(index) = only(labels().filter(|(_, l)| normalize(l) == name).map(|(i, _)| i).collect())? {
            return Ok(Some(index));
        }
        only(labels().filter(|(_, l)| l.split(',').any(|s| normalize(s) == name)).map(|(i, _)| i).collect())
    }
}

fn normalize(name: &str) -> String {
    name.replace('_', " ").split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
            assert_eq!(classes.of_folder(folder), Ok(index), "{folder}");
        }
        for nothing in ["shark", "4", "n99999999", ""] {
            let error = classes.of_folder(nothing).unwrap_err();
            assert!(error.contains("none of the model's 4 labels (tench, Tinca tinca, ...)"), "{error}");
        }
        assert_eq!(IMAGENET_LIKE.of_folder("2"), Ok(2));
        assert!(IMAGENET_LIKE.of_folder("tench").unwrap_err().contains("no index below 4"));
    }

    #[test]
    fn a_label_that_stands_twice_is_ambiguous() {
        let twins = Classes { count: 2, labels: vec!["maillot", "maillot"], synsets: &[] };
        assert!(twins.of_folder("maillot").unwrap_err().contains("[0, 1]"));
        assert_eq!(twins.of_folder("1"), Ok(1));
    }

    #[test]
    fn labels_that_are_digits_win_over_indices() {
        let digits = Classes { count: 3, labels: vec!["2", "1", "0"], synsets: &[] };
        assert_eq!(digits.of_folder("0"), Ok(2));
    }

    #[cfg(unix)]
    #[test]
    fn links_to_folders_are_classes() {
        use std::os::unix::fs::symlink;
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(elsewhere.path().join("a.png"), "").unwrap();
        symlink(elsewhere.path(), elsewhere.path().join("deeper")).unwrap();
        symlink(elsewhere.path(), dir.path().join("tench")).unwrap();
        let dataset = open(dir.path(), &classes()).unwrap();
        let source = Source::File(dir.path().join("tench/a.png"));
        assert_eq!(dataset.entries, [Entry { source, label: Some(0) }]);
        assert_eq!((dataset.folders[0].index, dataset.folders[0].pictures), (0, 1));
    }

    #[test]
    fn a_class_that_cannot_be_read_is_one_bad_picture() {
        let (dir, mut dataset) = (tempfile::tempdir().unwrap(), Dataset::default());
        add_class(&mut dataset, &dir.path().join("tench"), &classes()).unwrap();
        assert!(matches!(&dataset.entries[..], [Entry { source: Source::Unusable { .. }, label: Some(0) }]));
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
        let found: Vec<_> = dataset.entries.iter().map(|e| (e.source.to_string(), e.label.unwrap())).collect();
        let path = |name: &str| dir.path().join(name).display().to_string();
        assert_eq!(found, [(path("1/deep/c.webp"), 1), (path("tench/a.png"), 0), (path("tench/b.JPG"), 0)]);
        assert_eq!(dataset.folders[1].label.as_deref(), Some("tench, Tinca tinca"));
        assert_eq!(dataset.folders[1].pictures, 2);

        fs::create_dir(dir.path().join("stranger")).unwrap();
        let Error::Failed(line) = open(dir.path(), &classes()).unwrap_err() else { panic!() };
        assert!(line.contains("stranger: folder matches none"), "{line}");
    }
}
