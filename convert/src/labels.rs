//! Names of classes: from config.json, from a file, or ImageNet-1k's.

use std::path::Path;
use std::sync::OnceLock;

use crate::error::Error;
use crate::json::Object;

/// `synset name` a line, in the order of the ImageNet-1k challenge's classes; the name is WordNet's first lemma.
const IMAGENET: &str = include_str!("../data/imagenet1k.txt");

fn imagenet() -> &'static [(&'static str, &'static str)] {
    static TABLE: OnceLock<Vec<(&str, &str)>> = OnceLock::new();
    TABLE.get_or_init(|| IMAGENET.lines().filter_map(|line| line.split_once(' ')).collect())
}

/// The WordNet ids (`n01440764`, ...) of the 1000 ImageNet-1k classes, in the order of the logits.
pub fn imagenet_synsets() -> &'static [&'static str] {
    static IDS: OnceLock<Vec<&str>> = OnceLock::new();
    IDS.get_or_init(|| imagenet().iter().map(|(id, _)| *id).collect())
}

/// The names of the 1000 ImageNet-1k classes, in the order of the logits; no two are the same.
pub fn imagenet_names() -> impl Iterator<Item = &'static str> {
    imagenet().iter().map(|(_, name)| *name)
}

/// Labels for `classes` classes: the file's if there is one, else the source's, else ImageNet's for 1000 classes.
///
/// # Errors
/// An unreadable file, or one that does not have one label a class.
pub(crate) fn choose(
    file: Option<&Path>,
    from_source: Option<Vec<String>>,
    classes: usize,
    announcements: &mut Vec<String>,
) -> Result<Option<Vec<String>>, Error> {
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
        let labels: Vec<String> = text.lines().map(|line| line.trim().to_owned()).filter(|l| !l.is_empty()).collect();
        return match labels.len() == classes {
            true => Ok(Some(labels)),
            false => Err(Error::file(path, format!("{} labels for {classes} classes; one a line", labels.len()))),
        };
    }
    match from_source {
        Some(labels) if labels.len() == classes => Ok(Some(labels)),
        Some(labels) => {
            announcements.push(format!("config.json has {} labels for {classes} classes: left out", labels.len()));
            Ok(None)
        }
        None if classes == imagenet().len() => {
            announcements.push("1000 classes and no labels given: ImageNet-1k's names".to_owned());
            Ok(Some(imagenet_names().map(str::to_owned).collect()))
        }
        None => Ok(None),
    }
}

/// timm's `label_names` (a list, or an object by index), described by `label_descriptions` where there are any.
pub(crate) fn timm(config: &Object) -> Option<Vec<String>> {
    let descriptions = config.object("label_descriptions");
    let described = |name: String| descriptions.text(&name).ok().flatten().map_or(name.clone(), str::to_owned);
    indexed(config, "label_names").map(|names| names.into_iter().map(described).collect())
}

/// transformers' `id2label`, unless it is the placeholder `LABEL_0`, `LABEL_1`, ...
pub(crate) fn transformers(config: &Object) -> Option<Vec<String>> {
    indexed(config, "id2label").filter(|names| !names.iter().all(|n| n.starts_with("LABEL_")))
}

/// A list of strings, or an object whose keys are all the indices from 0.
fn indexed(config: &Object, key: &str) -> Option<Vec<String>> {
    let value = config.value(key)?;
    if let Some(list) = value.as_array() {
        return list.iter().map(|v| v.as_str().map(str::to_owned)).collect();
    }
    let map = value.as_object()?;
    (0..map.len()).map(|i| map.get(&i.to_string())?.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn imagenet_has_a_thousand_distinct_classes() {
        assert_eq!(imagenet_synsets().len(), 1000);
        assert_eq!(imagenet_synsets()[0], "n01440764");
        assert_eq!(imagenet_synsets()[999], "n15075141");
        assert_eq!(imagenet_synsets().iter().collect::<HashSet<_>>().len(), 1000);
        assert_eq!(imagenet_names().collect::<HashSet<_>>().len(), 1000);
        assert_eq!(imagenet_names().nth(207), Some("golden retriever"));
    }

    fn object(json: serde_json::Value) -> Object {
        Object::new("", json.as_object().expect("an object").clone())
    }

    #[test]
    fn lists_objects_and_descriptions() {
        let list = object(serde_json::json!({"label_names": ["n1", "n2"], "label_descriptions": {"n2": "a dog"}}));
        assert_eq!(timm(&list), Some(vec!["n1".to_owned(), "a dog".to_owned()]));
        let map = object(serde_json::json!({"id2label": {"1": "b", "0": "a"}}));
        assert_eq!(transformers(&map), Some(vec!["a".to_owned(), "b".to_owned()]));
        let gap = object(serde_json::json!({"id2label": {"0": "a", "2": "c"}}));
        assert_eq!(transformers(&gap), None);
        let placeholder = object(serde_json::json!({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}));
        assert_eq!(transformers(&placeholder), None);
    }

    #[test]
    fn a_file_wins_and_a_count_that_does_not_fit_is_left_out() {
        let scratch = tempfile::tempdir().expect("a directory");
        let file = scratch.path().join("labels.txt");
        std::fs::write(&file, "one\r\ntwo\n\n").expect("written");
        let mut told = Vec::new();
        let source = || Some(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(choose(Some(&file), source(), 2, &mut told), Ok(Some(vec!["one".to_owned(), "two".to_owned()])));
        assert_eq!(choose(None, source(), 2, &mut told), Ok(source()));
        assert!(told.is_empty());
        assert_eq!(choose(None, source(), 3, &mut told), Ok(None));
        assert_eq!(told.len(), 1);
    }
}
