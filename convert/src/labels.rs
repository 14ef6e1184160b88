//! Names of classes: from config.json, from a file (`file`), or ImageNet-1k's where a checkpoint says that it is for
//! these.
//!
//! A name belongs to the logit of its index, as in transformers' `id2label[i]`. Where there is none, the class is
//! called `class 7`, and everything that is not as it should be is announced.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::Value;

use crate::error::Error;
use crate::json::Object;
use crate::options::Options;

mod file;
mod table;

use table::{Table, some_of};

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

/// What a source says of its classes.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// Their names.
    Names(Names),
    /// That they are ImageNet-1k's, with the reason.
    ImageNet(String),
}

/// Names of classes, as a source has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Names {
    /// Where the names stand, for announcements.
    origin: String,
    /// By class.
    names: BTreeMap<usize, String>,
    /// Entries, with and without a name.
    entries: usize,
    /// What is unusual about them.
    remarks: Vec<String>,
}

impl Given {
    /// One name a class, from `origin`.
    pub(crate) fn list(origin: &str, names: Vec<String>) -> Self {
        let entries = names.len();
        let names = names.into_iter().enumerate().collect();
        Self::Names(Names { origin: origin.to_owned(), names, entries, remarks: Vec::new() })
    }

    /// Whether these names are of exactly so many classes.
    pub(crate) fn is_for(&self, classes: usize) -> bool {
        matches!(self, Self::Names(names) if names.entries == classes && names.names.len() == classes)
    }

    fn for_classes(self, classes: usize, options: &Options, announcements: &mut Vec<String>) -> Option<Vec<String>> {
        let reason = match self {
            Self::Names(names) => return names.fit(classes, options.head.is_some(), announcements),
            Self::ImageNet(reason) => reason,
        };
        if classes != imagenet().len() {
            return None;
        }
        announcements
            .push(format!("no labels in config.json: ImageNet-1k's names are taken, because it says {reason}"));
        Some(imagenet_names().map(str::to_owned).collect())
    }
}

impl Names {
    fn new(origin: String, value: &Value) -> Self {
        let Some(table) = Table::new(value) else {
            let remarks = vec!["it is neither a list nor an object".to_owned()];
            return Self { origin, remarks, ..Self::default() };
        };
        let (entries, remarks) = (table.len(), table.remarks());
        Self { origin, names: table.names(), entries, remarks }
    }

    /// None for the names that transformers makes up: `LABEL_0`, `LABEL_1`, ...
    fn unless_made_up(self) -> Option<Given> {
        let made_up = |name: &String| name.strip_prefix("LABEL_").is_some_and(|n| n.parse::<usize>().is_ok());
        let all = !self.names.is_empty() && self.names.values().all(made_up);
        (!all).then_some(Given::Names(self))
    }

    /// The names of `classes` classes, if these can be for them.
    fn fit(self, classes: usize, head_replaced: bool, announcements: &mut Vec<String>) -> Option<Vec<String>> {
        let Self { origin, mut names, entries, mut remarks } = self;
        let whole = entries == classes && names.keys().copied().eq(0..classes);
        if entries > classes || (head_replaced && !whole) {
            announcements.push(format!("{origin} has {entries} labels for {classes} classes: left out"));
            return None;
        }
        let beyond = names.split_off(&classes);
        if !beyond.is_empty() {
            remarks.push(format!("keys beyond the last class: {}", some_of(beyond.into_keys())));
        }
        if names.is_empty() && !remarks.is_empty() {
            announcements.push(format!("{origin} is left out: {}", remarks.join("; ")));
        }
        if names.is_empty() {
            return None;
        }
        let open: Vec<usize> = (0..classes).filter(|i| !names.contains_key(i)).collect();
        if !open.is_empty() {
            remarks.push(format!("classes without a name, called by their number: {}", some_of(open.into_iter())));
        }
        if !remarks.is_empty() {
            announcements.push(format!("{origin}: {}", remarks.join("; ")));
        }
        Some((0..classes).map(|i| names.remove(&i).unwrap_or_else(|| format!("class {i}"))).collect())
    }
}

/// Labels for `classes` classes: the file's if there is one, else the source's.
///
/// # Errors
/// An unreadable file, or one that does not have one label a class.
pub(crate) fn choose(
    options: &Options,
    given: Option<Given>,
    classes: usize,
    announcements: &mut Vec<String>,
) -> Result<Option<Vec<String>>, Error> {
    if let Some(path) = &options.labels {
        return file::read(path, classes).map(Some);
    }
    if given.is_none() && classes == imagenet().len() {
        let text = "1000 classes without names, and nothing says that they are ImageNet's; --labels FILE names them";
        announcements.push(text.to_owned());
    }
    Ok(given.and_then(|given| given.for_classes(classes, options, announcements)))
}

/// The names in timm's config.json: `label_names`, described by `label_descriptions` where there are any, or
/// transformers' `id2label`. Without any, ImageNet-1k's if the checkpoint says that it was trained for it.
pub(crate) fn timm(config: &Object, pretrained: &Object) -> Option<Given> {
    let named = [config, pretrained].into_iter().find_map(|at| Some((at, entry(at, "label_names")?)));
    if let Some((at, mut given)) = named {
        let descriptions = at.object("label_descriptions");
        let described = |name: &String| descriptions.text(name).ok().flatten().map(str::to_owned);
        if given.names.values().map(String::as_str).eq(imagenet_synsets().iter().copied()) {
            given.names.values_mut().zip(imagenet_names()).for_each(|(name, word)| word.clone_into(name));
        }
        given.names.values_mut().for_each(|name| {
            described(name).into_iter().for_each(|text| *name = text);
        });
        return given.unless_made_up();
    }
    match entry(config, "id2label") {
        Some(names) => names.unless_made_up(),
        None => imagenet_reason(config, pretrained).map(Given::ImageNet),
    }
}

/// What timm's configuration says of training for ImageNet-1k: the tag (`augreg_in21k_ft_in1k`), behind the
/// architecture's name or by itself, or the name of the data set.
fn imagenet_reason(config: &Object, pretrained: &Object) -> Option<String> {
    if pretrained.len("num_classes").ok().flatten().is_some_and(|n| n != imagenet().len()) {
        return None;
    }
    let text = |at: &Object, key: &str| at.text(key).ok().flatten().map(str::to_owned);
    let after_dot = |name: String| name.rsplit_once('.').map(|(_, tag)| tag.to_owned());
    let tags = [
        text(pretrained, "tag"),
        text(config, "architecture").and_then(after_dot),
        text(pretrained, "hf_hub_id").and_then(after_dot),
    ];
    // The last data set of a tag is the one that the head is for.
    let is_data_set = |part: &&str| part.strip_prefix("in").is_some_and(|n| n.ends_with('k') && n.len() > 1);
    let for_imagenet = |tag: &&String| tag.split(['_', '-']).rfind(is_data_set) == Some("in1k");
    if let Some(tag) = tags.iter().flatten().find(for_imagenet) {
        return Some(format!("tag {tag}"));
    }
    let data_sets = [text(config, "dataset"), text(pretrained, "dataset")];
    let plain = |name: &str| name.to_lowercase().replace(['-', '_', ' '], "").replace("ilsvrc2012", "imagenet1k");
    let found = data_sets.into_iter().flatten().find(|name| plain(name).ends_with("imagenet1k"));
    found.map(|name| format!("dataset {name}"))
}

/// transformers' `id2label`, unless it made the names up.
pub(crate) fn transformers(config: &Object) -> Option<Given> {
    entry(config, "id2label")?.unless_made_up()
}

/// How many labels transformers' config.json has, whatever they are called.
pub(crate) fn count(config: &Object) -> usize {
    let listed = entry(config, "id2label").map(|names| names.entries);
    listed.or(config.len("num_labels").ok().flatten()).unwrap_or(0)
}

fn entry(config: &Object, key: &str) -> Option<Names> {
    config.value(key).map(|value| Names::new(format!("{}, {key}", config.file()), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
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

    fn object(json: Value) -> Object {
        Object::new("config.json", "", json.as_object().expect("an object").clone())
    }

    /// The labels of a transformers configuration, and the announcements.
    fn id2label(value: Value, classes: usize) -> (Option<Vec<String>>, String) {
        let mut told = Vec::new();
        let given = transformers(&object(json!({ "id2label": value })));
        let labels = choose(&Options::default(), given, classes, &mut told).expect("labels");
        (labels, told.join("\n"))
    }

    fn words(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|n| (*n).to_owned()).collect())
    }

    #[test]
    fn labels_that_fit_are_taken_in_silence() {
        assert_eq!(id2label(json!({"1": "b", "0": "a"}), 2), (words(&["a", "b"]), String::new()));
        assert_eq!(id2label(json!(["a", "b"]), 2), (words(&["a", "b"]), String::new()));
        assert_eq!(id2label(json!([["n1", "a"], ["n2", "b"]]), 2), (words(&["a", "b"]), String::new()));
        assert_eq!(id2label(json!({"0": "LABEL_0", "1": "LABEL_1"}), 2), (None, String::new()));
        assert_eq!(id2label(Value::Null, 2), (None, String::new()));
    }

    #[test]
    fn labels_that_do_not_fit_are_read_by_their_keys_and_announced() {
        let gap = id2label(json!({"0": "a", "2": "c", "3": "d"}), 3);
        assert_eq!(gap.0, words(&["a", "class 1", "c"]));
        assert!(
            gap.1
                .contains("id2label: keys beyond the last class: 3; classes without a name, called by their number: 1"),
            "{}",
            gap.1
        );
        let from_one = id2label(json!({"1": "a", "2": "b", "3": "c"}), 3);
        assert_eq!(from_one.0, words(&["class 0", "a", "b"]));
        assert!(from_one.1.contains("start at 1"), "{}", from_one.1);
        let numbers = id2label(json!({"0": 5, "1": 7}), 2);
        assert_eq!(numbers.0, words(&["5", "7"]));
        assert!(numbers.1.contains("not text"), "{}", numbers.1);
        let turned = id2label(json!({"cat": 1, "dog": 0}), 2);
        assert_eq!(turned.0, words(&["dog", "cat"]));
        assert!(turned.1.contains("keys and values are exchanged"), "{}", turned.1);
        let few = id2label(json!({"0": "a"}), 9);
        assert_eq!(few.0.expect("labels")[8], "class 8");
        assert!(few.1.contains("number: 1, 2, 3, 4, 5, ..."), "{}", few.1);
        let mixed = id2label(json!({"0": ["n01440764", "tench"], "1": null, "2": {"name": "x"}, "3": " "}), 4);
        assert_eq!(mixed.0, words(&["tench", "class 1", "class 2", "class 3"]));
        assert!(mixed.1.contains("id2label: entries without text: 1, 2, 3"), "{}", mixed.1);
        let numeric_name = id2label(json!({"cat": 1, "5": 0}), 2);
        assert_eq!(numeric_name.0, words(&["5", "cat"]));
        for (value, why) in [
            (json!({"0": {"name": "x"}, "1": {"name": "y"}}), "id2label is left out: entries without text: 0, 1"),
            (json!([null, ""]), "id2label is left out: entries without text: 0, 1"),
            (json!({"a": "x", "b": "y"}), "id2label is left out: keys that are not numbers: a, b"),
            (json!("cat, dog"), "id2label is left out: it is neither a list nor an object"),
            (json!({"0": "a", "1": "b", "2": "c"}), "id2label has 3 labels for 2 classes: left out"),
        ] {
            let (labels, told) = id2label(value, 2);
            assert!(labels.is_none() && told.contains(why), "{told}");
        }
    }

    #[test]
    fn labels_of_another_head_are_left_out() {
        let mut told = Vec::new();
        let options = Options { head: Some("head.safetensors".into()), ..Options::default() };
        let given = |n: usize| Some(Given::list("the model file", (0..n).map(|i| i.to_string()).collect()));
        assert_eq!(choose(&options, given(2), 3, &mut told), Ok(None));
        assert!(told[0].contains("2 labels for 3 classes"), "{told:?}");
        assert_eq!(choose(&options, given(3), 3, &mut told), Ok(words(&["0", "1", "2"])));
    }

    #[test]
    fn timm_describes_its_names() {
        let config = object(json!({"label_names": ["n1", "n2"], "label_descriptions": {"n2": "a dog"}}));
        let chosen = |given: Option<Given>, classes: usize| {
            choose(&Options::default(), given, classes, &mut Vec::new()).expect("labels")
        };
        assert_eq!(chosen(timm(&config, &object(json!({}))), 2), words(&["n1", "a dog"]));
        let synsets = object(json!({"label_names": imagenet_synsets()}));
        assert_eq!(chosen(timm(&object(json!({})), &synsets), 1000).expect("labels")[207], "golden retriever");
        let config = object(json!({"label_names": ["LABEL_0"], "pretrained_cfg": {"tag": "x_in1k"}}));
        assert!(timm(&config, &config.object("pretrained_cfg")).is_none());
    }

    #[test]
    fn imagenets_names_are_for_checkpoints_that_say_so() {
        let named = |config: Value, classes: usize| {
            let config = object(config);
            let given = timm(&config, &config.object("pretrained_cfg"));
            choose(&Options::default(), given, classes, &mut Vec::new()).expect("labels").is_some()
        };
        let tag = |tag: &str| json!({"architecture": "deit_tiny_patch16_224", "pretrained_cfg": {"tag": tag}});
        for yes in ["in1k", "fb_in1k", "augreg_in21k_ft_in1k", "fb_in22k_ft_in1k_384", "openai_ft_in12k_in1k"] {
            assert!(named(tag(yes), 1000) && !named(tag(yes), 10), "{yes}");
        }
        for no in ["", "augreg_in21k", "lvd142m", "fb_in1k_ft_in22k", "in1kx"] {
            assert!(!named(tag(no), 1000), "{no}");
        }
        assert!(named(json!({"architecture": "vit_tiny_patch16_224.augreg_in1k"}), 1000));
        assert!(named(json!({"architecture": "vit_tiny_patch16_224", "dataset": "ImageNet-1k"}), 1000));
        assert!(!named(json!({"architecture": "vit_tiny_patch16_224"}), 1000), "never by count");
        assert!(!named(json!({"pretrained_cfg": {"tag": "fb_in1k", "num_classes": 37}}), 1000));
        let own = json!({"id2label": {"0": "mine"}, "pretrained_cfg": {"tag": "fb_in1k"}});
        let given = timm(&object(own.clone()), &object(own).object("pretrained_cfg"));
        assert!(matches!(given, Some(Given::Names(names)) if names.names[&0] == "mine"));
    }
}
