//! Labels in JSON, for config.json and for files alike: a list, an object by index (`id2label`), or an object that has
//! the indices as its values (`label2id`).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::shown;

/// What a JSON value says of the classes. What must be so is for the caller to decide.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// Class and name, in the order of the source. An entry without text has no name.
    entries: Vec<(usize, Option<String>)>,
    /// Keys that are not numbers.
    odd_keys: Vec<String>,
    /// Whether the names are the keys.
    reversed: bool,
    /// Whether some of the names are numbers or flags.
    not_text: bool,
}

impl Table {
    /// `None` where the value is neither a list nor an object.
    pub(super) fn new(value: &Value) -> Option<Self> {
        let mut table = Self::default();
        match value {
            Value::Array(list) => list.iter().enumerate().for_each(|(i, name)| table.add(i, name)),
            Value::Object(map) => {
                table.reversed = map.keys().any(|key| index(key).is_none()) && map.values().all(Value::is_u64);
                for (key, value) in map {
                    let (i, name) = match table.reversed {
                        true => (value.as_u64().and_then(|n| usize::try_from(n).ok()), Value::String(key.clone())),
                        false => (index(key), value.clone()),
                    };
                    match i {
                        Some(i) => table.add(i, &name),
                        None => table.odd_keys.push(key.clone()),
                    }
                }
            }
            _ => return None,
        }
        Some(table)
    }

    fn add(&mut self, class: usize, value: &Value) {
        self.not_text |= matches!(value, Value::Number(_) | Value::Bool(_));
        self.entries.push((class, name(value)));
    }

    /// Entries, with and without a name.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What is unusual, for announcements.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.reversed {
            remarks.push("its keys are names, so keys and values are exchanged".to_owned());
        }
        if self.not_text {
            remarks.push("names that are not text are taken literally".to_owned());
        }
        if !self.odd_keys.is_empty() {
            remarks.push(format!("keys that are not numbers: {}", some_of(self.odd_keys.iter().map(|key| shown(key)))));
        }
        let mut empty = self.entries.iter().filter(|(_, name)| name.is_none()).map(|(class, _)| class).peekable();
        if empty.peek().is_some() {
            remarks.push(format!("entries without text: {}", some_of(empty)));
        }
        if self.entries.iter().map(|(class, _)| *class).min() == Some(1) {
            remarks.push("its indices start at 1, classes at 0".to_owned());
        }
        remarks
    }

    /// The names that there are, by class.
    pub(super) fn names(self) -> BTreeMap<usize, String> {
        self.entries.into_iter().filter_map(|(class, name)| Some((class, name?))).collect()
    }

    /// One name for each of the classes 0, 1, 2, ...
    ///
    /// # Errors
    /// Entries without an index or without text, and other indices.
    pub(super) fn whole(self) -> Result<Vec<String>, String> {
        if let Some(key) = self.odd_keys.first() {
            return Err(format!("its key {} is not a number", shown(key)));
        }
        if let Some((class, _)) = self.entries.iter().find(|(_, name)| name.is_none()) {
            return Err(format!("its entry {class} has no text"));
        }
        let len = self.len();
        in_order(self.names(), len).ok_or_else(|| "its indices are not 0, 1, 2, ... without a gap".to_owned())
    }
}

/// The names, if their classes are 0, 1, ... `len - 1`.
pub(super) fn in_order(names: BTreeMap<usize, String>, len: usize) -> Option<Vec<String>> {
    let whole = names.keys().copied().eq(0..len);
    whole.then(|| names.into_values().collect())
}

pub(super) fn index(key: &str) -> Option<usize> {
    key.trim().parse().ok()
}

/// The first few of a list, for announcements.
pub(super) fn some_of(mut all: impl Iterator<Item = impl ToString>) -> String {
    let mut few: Vec<String> = all.by_ref().take(5).map(|one| one.to_string()).collect();
    few.extend(all.next().map(|_| "...".to_owned()));
    few.join(", ")
}

/// An entry's text; of a list such as `["n01440764", "tench"]` the last.
fn name(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Array(list) => list.last()?.as_str()?.trim().to_owned(),
        Value::Null | Value::Object(_) => return None,
    };
    Some(text).filter(|text| !text.is_empty())
}
