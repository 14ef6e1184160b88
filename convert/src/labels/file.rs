//! Files of labels: one a line, lines of `index,label`, or JSON (a list, or an object by index as `id2label`).

use std::path::Path;

use serde_json::Value;

use super::table::{Table, in_order, index};
use crate::error::{Error, shown};

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
        _ => of_lines(text, classes).map_err(|why| Error::file(path, why))?,
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

/// A table, or one under the name that a config.json has for it.
fn of_json(value: &Value) -> Result<Vec<String>, String> {
    let keys = ["id2label", "label_names", "labels", "label2id"];
    let inner = keys.iter().filter_map(|key| value.get(key)).find(|inner| inner.is_array() || inner.is_object());
    let table = Table::new(inner.unwrap_or(value)).ok_or("neither a list nor an object")?;
    table.whole().map_err(|why| format!("{why}; JSON is a list of labels or an object by index (id2label)"))
}

fn of_lines(text: &str, classes: usize) -> Result<Vec<String>, String> {
    let lines: Vec<&str> = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect();
    let numbered = [',', ';', '\t'].into_iter().find_map(|separator| numbered(&lines, separator, classes));
    numbered.unwrap_or_else(|| Ok(lines.iter().map(|line| field(line).unwrap_or((*line).to_owned())).collect()))
}

/// The labels if all lines, except for a header, begin with an index; otherwise `None`. The indices may come in
/// any order. A first line without one is a label of its own where the lines are as many as the classes.
///
/// # Errors
/// Indices that are not 0, 1, 2, ..., since the numbers may as well be parts of the labels; a third column.
fn numbered(lines: &[&str], separator: char, classes: usize) -> Option<Result<Vec<String>, String>> {
    let split = |line: &&str| -> Option<(usize, String)> {
        let (first, rest) = line.split_once(separator)?;
        Some((index(&field(first)?)?, rest.to_owned()))
    };
    let header = usize::from(lines.first().is_some_and(|line| split(line).is_none()));
    let rows: Vec<(usize, String)> = lines.get(header..)?.iter().map(split).collect::<Option<_>>()?;
    if rows.is_empty() {
        return None;
    }
    let len = rows.len();
    let Some(labels) = in_order(rows.into_iter().collect(), len) else {
        let why = "its lines begin with numbers, but these are not 0, 1, 2, ... without a gap; where a number belongs \
                   to the label, put the line in quotes";
        return (header == 0 || lines.len() != classes).then(|| Err(why.to_owned()));
    };
    let column = |label: String| {
        let more = || format!("{} is not one column; an index and a label are expected", shown(label.trim()));
        field(&label).ok_or_else(more)
    };
    Some(labels.into_iter().map(column).collect())
}

/// A field as spreadsheets write it: in quotes or not, and quotes inside of these are doubled. `None` where a quote
/// begins it that does not end with it.
fn field(text: &str) -> Option<String> {
    let text = text.trim();
    let Some(inner) = text.strip_prefix('"') else { return Some(text.to_owned()) };
    let inner = inner.strip_suffix('"')?;
    let more = inner.replace("\"\"", "").contains('"');
    (!more).then(|| inner.replace("\"\"", "\""))
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
    fn quotes_that_are_not_around_a_label_stay() {
        let contents = "\"Big\" and \"small\"\n\"a \"\"b\"\"\"\n";
        assert_eq!(labels("a.txt", contents, 2), Ok(vec!["\"Big\" and \"small\"".to_owned(), "a \"b\"".to_owned()]));
        let contents = "0,big \"dog\"\n1, \"\"\"cat\"\"\"";
        assert_eq!(labels("a.csv", contents, 2), Ok(vec!["big \"dog\"".to_owned(), "\"cat\"".to_owned()]));
        assert_eq!(labels("a.txt", "\"7,62 mm\"\n\"5,56 mm\"", 2).expect("labels")[0], "7,62 mm");
    }

    #[test]
    fn lines_with_other_indices_are_refused() {
        for contents in
            ["1,cat\n2,dog\n", "0;cat\n2;dog", "3\tcat\n3\tdog", "index,label\n1,cat\n2,dog", "7,62 mm\n5,56 mm"]
        {
            let why = labels("a.csv", contents, 2).expect_err("refused");
            assert!(why.contains("not 0, 1, 2") && why.contains("quotes"), "{contents:?}: {why}");
        }
        let why = labels("a.csv", "0,\"cat\",\"x\"\n1,\"dog\",\"y\"", 2).expect_err("refused");
        assert!(why.contains("\\\"cat\\\",\\\"x\\\" is not one column"), "{why}");
    }

    #[test]
    fn other_files_are_refused_in_words() {
        let refused = |name: &str, contents: &[u8]| labels(name, contents, 2).expect_err("refused");
        assert!(refused("a.txt", b"cat\n").contains("1 labels for 2 classes"));
        assert!(refused("a.txt", &[0xff, 0xfe, b'a', 0]).contains("UTF-16"));
        assert!(refused("a.txt", &[b'a', 0xe9, b'\n']).contains("not UTF-8"));
        assert!(refused("a.json", b"[\"cat\"").contains("not JSON"));
        assert!(refused("a.json", b"[[], {}]").contains("entry 0 has no text; JSON is a list"));
        assert!(refused("a.json", b"{\"a\": \"x\", \"0\": \"y\"}").contains("key a is not a number"));
        assert!(refused("a.json", b"{\"cat\": 0, \"kitty\": 0, \"dog\": 1}").contains("gap"));
        assert!(refused("a.json", b"{\"0\": \"a\", \"2\": \"b\"}").contains("gap"));
    }
}
