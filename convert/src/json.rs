//! Reading of the hubs' JSON files, with errors that name the file or the key.

use std::path::Path;

use serde_json::{Map, Value};
use vitlet::Picture;

use crate::error::Error;

/// A JSON object; the missing and `null` are the same to every reader below.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// The name of the file that it stands in, for errors.
    file: String,
    /// What errors put before a key.
    at: String,
    map: Map<String, Value>,
}

/// Reads a JSON file, with or without a byte order mark.
pub(crate) fn read(path: &Path) -> Result<Value, Error> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    crate::tensor::refuse_lfs_pointer(path, &bytes)?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    serde_json::from_slice(text).map_err(|e| Error::file(path, format!("not JSON ({e})")))
}

/// 1 to [`Picture::MAX_EDGE`]: the engine reads no longer edges.
const PIXELS: &str = "a size of 1 to 16777216 pixels";

fn edge(value: &Value) -> Option<usize> {
    let pixels = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=Picture::MAX_EDGE).contains(n))?;
    usize::try_from(pixels).ok()
}

impl Object {
    /// `map` from the file of this name; errors put its keys after `at` (a path of keys that ends in a dot, or
    /// nothing).
    pub(crate) fn new(file: &str, at: &str, map: Map<String, Value>) -> Self {
        Self { file: file.to_owned(), at: at.to_owned(), map }
    }

    /// The object in a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        match read(path)? {
            Value::Object(map) => Ok(Self::new(&path.file_name().unwrap_or_default().to_string_lossy(), "", map)),
            _ => Err(Error::file(path, "not a JSON object")),
        }
    }

    /// The name of the file.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    pub(crate) fn value(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.map.iter().filter(|(_, v)| !v.is_null()).map(|(k, _)| k.as_str())
    }

    /// The object below `key`; empty if the key is missing.
    pub(crate) fn object(&self, key: &str) -> Self {
        let map = self.value(key).and_then(Value::as_object).cloned().unwrap_or_default();
        Self::new(&self.file, &format!("{}{key}.", self.at), map)
    }

    /// Adds the entries of `other`, which win.
    pub(crate) fn update(&mut self, other: &Self) {
        self.map.extend(other.map.iter().map(|(k, v)| (k.clone(), v.clone())));
        self.at.clone_from(&other.at);
        self.file.clone_from(&other.file);
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, key: &str) {
        self.map.remove(key);
    }

    /// The value of `from` under the name `to` instead.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        if let Some(value) = self.map.remove(from) {
            self.map.insert(to.to_owned(), value);
        }
    }

    /// An entry for a missing key.
    pub(crate) fn default(&mut self, key: &str, value: impl Into<Value>) {
        if self.value(key).is_none() {
            self.map.insert(key.to_owned(), value.into());
        }
    }

    pub(crate) fn error(&self, key: &str, why: impl Into<String>) -> Error {
        Error::setting(&self.file, &format!("{}{key}", self.at), why)
    }

    fn typed<T>(&self, key: &str, kind: &str, pick: impl Fn(&Value) -> Option<T>) -> Result<Option<T>, Error> {
        self.value(key).map(|v| pick(v).ok_or_else(|| self.error(key, format!("{v} is not {kind}")))).transpose()
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(crate) fn len(&self, key: &str) -> Result<Option<usize>, Error> {
        self.typed(key, "a count", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    /// A count that has no default.
    pub(crate) fn required_len(&self, key: &str) -> Result<usize, Error> {
        self.len(key)?.ok_or_else(|| self.error(key, "missing"))
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>, Error> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(v) => Err(self.error(key, format!("{v} is not a string"))),
        }
    }

    /// A length in pixels: an edge of a picture or of a patch.
    pub(crate) fn edge(&self, key: &str) -> Result<Option<usize>, Error> {
        self.typed(key, PIXELS, edge)
    }

    /// `n` or `[height, width]`, in pixels.
    pub(crate) fn size(&self, key: &str) -> Result<Option<(usize, usize)>, Error> {
        self.typed(key, PIXELS, |v| match v.as_array().map(Vec::as_slice) {
            Some([h, w]) => edge(h).zip(edge(w)),
            Some(_) => None,
            None => edge(v).map(|n| (n, n)),
        })
    }

    /// `[channels, height, width]`.
    pub(crate) fn input(&self, key: &str) -> Result<Option<[usize; 3]>, Error> {
        self.typed(key, "channels, height and width", |v| match v.as_array().map(Vec::as_slice) {
            Some([channels, height, width]) => Some([edge(channels)?, edge(height)?, edge(width)?]),
            _ => None,
        })
    }

    /// Three numbers, or one for all channels.
    pub(crate) fn rgb(&self, key: &str) -> Result<Option<[f64; 3]>, Error> {
        self.typed(key, "three numbers", |v| match v.as_array().map(Vec::as_slice) {
            Some([r, g, b]) => Some([r.as_f64()?, g.as_f64()?, b.as_f64()?]),
            Some([one]) => one.as_f64().map(|x| [x; 3]),
            Some(_) => None,
            None => v.as_f64().map(|x| [x; 3]),
        })
    }
}
