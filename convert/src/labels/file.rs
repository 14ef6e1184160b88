//! Files of labels: one a line, lines of `index,label`, or JSON (a list, or an object by index as `id2label`).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::error::Error;

/// Reads one label for each of `classes` classes.
///
/// # Errors
/// An unreadable file, text that is not UTF-8, JSON of another form, or another number of labels.
pub(super) fn read(path: &Path, classes: usize) -> Result<Vec<String>, Error> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    let text = text(&bytes).map_err(|why| Error::file(path, why))?;
    let is_json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
    let labels = match serde_json::from_str(text) {
        Ok(value @ (Value::Array(_) | Value::Object(_))) => of_json(&value).map_err(|why| Error::file(path, why))?,
        Err(e) if is_json => return Err(Error::file(path, format!("not JSON ({e})"))),
        _ => of_lines(text),
    };
    match labels.len() == classes {
        true => Ok(labels),
        false => Err(Error::file(path, format!("{} labels for {classes} classes; one a line", labels.len()))),
    }
}

/// The text, without a byte order mark.
fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("UTF-16 text; save it as UTF-8");
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8 text; save it as UTF-8")?;
    Ok(text.trim_start_matches('\u{feff}'))
}

/// A list, an object by index, one with the indices as its values, or one of these under the name that a config.json
/// has for it.
fn of_json(value: &Value) -> Result<Vec<String>, &'static str> {
    const FORMS: &str = "JSON, but neither a list of labels nor an object by index (id2label)";
    let value =
        ["id2label", "label_names", "labels", "label2id"].iter().find_map(|key| value.get(key)).unwrap_or(value);
    match value {
        Value::Array(list) => list.iter().map(name).collect::<Option<_>>().ok_or(FORMS),
        Value::Object(map) => {
            let by_key = || map.iter().map(|(key, label)| Some((super::index(key)?, name(label)?))).collect();
            let by_value =
                || map.iter().map(|(label, i)| Some((usize::try_from(i.as_u64()?).ok()?, label.clone()))).collect();
            let labels: Option<BTreeMap<usize, String>> = by_key();
            let labels = labels.or_else(by_value).ok_or(FORMS)?;
            in_order(labels).ok_or("its indices are not 0, 1, 2, ... without a gap")
        }
        _ => Err(FORMS),
    }
}

/// A label's text; of a list such as `["n01440764", "tench"]` the last.
fn name(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Array(list) => list.last()?.as_str().map(str::to_owned),
        _ => None,
    }
}

fn of_lines(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect();
    let numbered = [',', ';', '\t'].into_iter().find_map(|separator| numbered(&lines, separator));
    numbered.unwrap_or_else(|| lines.iter().map(|line| unquoted(line)).collect())
}

/// Lines of index and label, in any order, with or without a header; none if they are anything else.
fn numbered(lines: &[&str], separator: char) -> Option<Vec<String>> {
    let field = |line: &str| {
        let (i, label) = line.split_once(separator)?;
        Some((super::index(&unquoted(i))?, unquoted(label)))
    };
    let header = usize::from(lines.first().is_some_and(|line| field(line).is_none()));
    let lines = lines.get(header..).filter(|lines| !lines.is_empty())?;
    let labels: Option<BTreeMap<usize, String>> = lines.iter().map(|line| field(line)).collect();
    labels.filter(|labels| labels.len() == lines.len()).and_then(in_order)
}

fn in_order(labels: BTreeMap<usize, String>) -> Option<Vec<String>> {
    let whole = labels.keys().copied().eq(0..labels.len());
    whole.then(|| labels.into_values().collect())
}

/// A field as spreadsheets write it: within quotes, those inside are doubled.
fn unquoted(field: &str) -> String {
    let field = field.trim();
    let inner = field.strip_prefix('"').and_then(|field| field.strip_suffix('"'));
    inner.map_or(field.to_owned(), |inner| inner.replace("\"\"", "\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(name: &str, contents: impl AsRef<[u8]>, classes: usize) -> Result<Vec<String>, String> {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join(name);
        std::fs::write(&path, contents).expect("written");
        read(&path, classes).map_err(|e| e.why)
    }

    #[test]
    fn every_form_gives_the_same_labels() {
        for (name, contents) in [
            ("unix.txt", "cat\nbig \"dog\", old\n"),
            ("windows.txt", "\u{feff}cat\r\n\r\nbig \"dog\", old\r\n"),
            ("mac.txt", "cat\rbig \"dog\", old\r"),
            ("quoted.csv", "\"cat\"\n\"big \"\"dog\"\", old\"\n"),
            ("numbered.csv", "\u{feff}index,label\r\n1,\"big \"\"dog\"\", old\"\r\n0,cat\r\n"),
            ("numbered.tsv", "0\tcat\n1\tbig \"dog\", old"),
            ("european.csv", "0;cat\n1;\"big \"\"dog\"\", old\""),
            ("list.json", "[\"cat\", \"big \\\"dog\\\", old\"]"),
            ("bom.json", "\u{feff}{\"1\": \"big \\\"dog\\\", old\", \"0\": \"cat\"}"),
            ("config.json", "{\"id2label\": {\"1\": \"big \\\"dog\\\", old\", \"0\": \"cat\"}}"),
            ("label2id.json", "{\"cat\": 0, \"big \\\"dog\\\", old\": 1}"),
            ("index.json", "{\"0\": [\"n1\", \"cat\"], \"1\": [\"n2\", \"big \\\"dog\\\", old\"]}"),
        ] {
            let want = vec!["cat".to_owned(), "big \"dog\", old".to_owned()];
            assert_eq!(labels(name, contents, 2), Ok(want), "{name}");
        }
    }

    #[test]
    fn commas_and_numbers_that_are_part_of_labels_stay() {
        assert_eq!(labels("a.txt", "tench, Tinca tinca\n7,62 mm\n", 2).expect("labels")[1], "7,62 mm");
        assert_eq!(labels("a.txt", "5\n7\n", 2), Ok(vec!["5".to_owned(), "7".to_owned()]));
        assert_eq!(labels("a.txt", "[CLS]\n{x\n", 2).expect("labels")[0], "[CLS]");
    }

    #[test]
    fn other_files_are_refused_in_words() {
        let refused = |name: &str, contents: &[u8]| labels(name, contents, 2).expect_err("refused");
        assert!(refused("a.txt", b"cat\n").contains("1 labels for 2 classes"));
        assert!(refused("a.txt", &[0xff, 0xfe, b'a', 0]).contains("UTF-16"));
        assert!(refused("a.txt", &[b'a', 0xe9, b'\n']).contains("not UTF-8"));
        assert!(refused("a.json", b"[\"cat\"").contains("not JSON"));
        assert!(refused("a.json", b"[[], {}]").contains("neither a list"));
        assert!(refused("a.json", b"{\"0\": \"a\", \"2\": \"b\"}").contains("gap"));
    }
}
