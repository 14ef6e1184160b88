//! A CSV of pictures: `path,label` lines as spreadsheets, pandas and Python's csv write them. Quotes, commas,
//! semicolons or tabs between columns, and byte order marks of UTF-8 and UTF-16 are read.
//!
//! Paths are relative to the CSV. A label is a class's number, counted from 0, or its name as for folders. The first
//! line is a header only if it cannot be a picture; where a header names them, the columns of path and label may stand
//! in any order and among others. Nothing else is left out: a line that is not understood is an error.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Classes, Entry};
use crate::error::{Context, Error, Result, why};
use crate::output;
use crate::pictures::{Source, is_pictures_name};

/// What headers call the column of the pictures.
const PATH_COLUMNS: [&str; 12] = [
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "img",
    "img_path",
    "picture",
    "photo",
];
/// What headers call the column of the classes, those that hold numbers first.
const LABEL_COLUMNS: [&str; 13] = [
    "label_index",
    "label_id",
    "class_index",
    "class_id",
    "category_id",
    "index",
    "label",
    "class",
    "class_name",
    "category",
    "target",
    "synset",
    "wnid",
];

/// Which columns of a record are the picture's path and its label.
#[derive(Clone, Copy)]
struct Columns {
    path: usize,
    label: usize,
}

/// The pictures of a CSV, in the order of its lines.
pub fn open(path: &Path, classes: &Classes) -> Result<Vec<Entry>> {
    let bytes = fs::read(path).map_err(|e| Error::new(path.display(), why(&e)))?;
    let text = text(&bytes).about(path.display())?;
    let base = path.parent().unwrap_or(Path::new(""));
    let mut reader = csv::ReaderBuilder::new();
    let mut reader = reader.has_headers(false).flexible(true).delimiter(delimiter(&text)).from_reader(text.as_bytes());
    let (mut entries, mut columns, mut first) = (Vec::new(), None, true);
    for record in reader.records() {
        let record = record.about(path.display())?;
        let fields: Vec<&str> = record.iter().map(str::trim).collect();
        if fields.iter().all(|field| field.is_empty()) {
            continue;
        }
        if std::mem::take(&mut first) && is_header(&fields, base, classes) {
            columns = named_columns(&fields);
            let line = fields.join(",");
            output::note(&format!("{}: the first line is read as a header: {line}", path.display()));
            continue;
        }
        let line = record.position().map_or(0, csv::Position::line);
        let (file, label) = split(&record, columns).about(format!("{}, line {line}", path.display()))?;
        let label = class(label, classes).about(format!("{}, line {line}", path.display()))?;
        entries.push(Entry { source: Source::File(base.join(file)), label: Some(label) });
    }
    Ok(entries)
}

/// Pictures and the files with `what` is known of them, in the order of the lines `path,file`. Paths are relative to
/// the CSV; a path with the delimiter in it stands in quotes. Headers call the second column as `known` says.
pub fn open_pairs(path: &Path, known: &[&str], what: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
    let bytes = fs::read(path).map_err(|e| Error::new(path.display(), why(&e)))?;
    let text = text(&bytes).about(path.display())?;
    let base = path.parent().unwrap_or(Path::new(""));
    let mut reader = csv::ReaderBuilder::new();
    let mut reader = reader.has_headers(false).flexible(true).delimiter(delimiter(&text)).from_reader(text.as_bytes());
    let (mut pairs, mut columns, mut first) = (Vec::new(), (0, 1), true);
    for record in reader.records() {
        let record = record.about(path.display())?;
        let fields: Vec<&str> = record.iter().map(str::trim).collect();
        if fields.iter().all(|field| field.is_empty()) {
            continue;
        }
        let is_file = |field: &&str| is_pictures_name(Path::new(field)) || base.join(field).is_file();
        if std::mem::take(&mut first) && !fields.iter().any(is_file) {
            let find =
                |known: &[&str]| fields.iter().position(|f| known.iter().any(|name| f.eq_ignore_ascii_case(name)));
            columns = find(&PATH_COLUMNS).zip(find(known)).unwrap_or(columns);
            let line = fields.join(",");
            output::note(&format!("{}: the first line is read as a header: {line}", path.display()));
            continue;
        }
        let line = record.position().map_or(0, csv::Position::line);
        let field = |i: usize| fields.get(i).filter(|field| !field.is_empty()).map(|field| base.join(field));
        let pair = field(columns.0).zip(field(columns.1)).ok_or_else(|| format!("not a line path,{what}"));
        pairs.push(pair.about(format!("{}, line {line}", path.display()))?);
    }
    Ok(pairs)
}

/// The file as text, by its byte order mark; without one it is UTF-8.
fn text(bytes: &[u8]) -> Result<String, String> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.as_chunks().0.iter().map(|pair| unit(*pair)).collect();
        String::from_utf16(&units).map_err(|_| "broken UTF-16: save it as UTF-8".to_string())
    };
    match bytes {
        [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xEF, 0xBB, 0xBF, rest @ ..] => utf8(rest),
        _ => utf8(bytes),
    }
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|e| {
        let line = 1 + bytes[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        format!("line {line} is not UTF-8: save it as UTF-8")
    })
}

/// What stands between columns: spreadsheets write semicolons where the comma is a decimal point, or tabs. Labels have
/// commas and paths may have all three, so that a picture's name between two of them decides.
fn delimiter(text: &str) -> u8 {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    // Every other part lies within quotes.
    let outside = |delimiter: &u8| line.split('"').step_by(2).any(|part| part.contains(char::from(*delimiter)));
    let candidates: Vec<u8> = [b'\t', b',', b';'].into_iter().filter(outside).collect();
    let is_name = |field: &str| is_pictures_name(Path::new(field.trim().trim_matches('"')));
    let names_a_picture = |delimiter: &&u8| line.split(char::from(**delimiter)).any(is_name);
    *candidates.iter().find(names_a_picture).or(candidates.first()).unwrap_or(&b',')
}

/// Whether the first line cannot be a picture: its label is neither a number nor a class, and its path is no file and
/// not named as a picture.
fn is_header(fields: &[&str], base: &Path, classes: &Classes) -> bool {
    let file = PathBuf::from(fields[0]);
    let is_class = |field: &&str| field.parse::<f64>().is_ok() || !matches!(classes.by_name(field), Ok(None));
    !is_pictures_name(&file) && !base.join(&file).is_file() && !fields[1..].iter().any(is_class)
}

/// The columns that a header names; none where they are path and label, as without a header.
fn named_columns(header: &[&str]) -> Option<Columns> {
    let find = |known: &[&str]| known.iter().find_map(|name| header.iter().position(|f| f.eq_ignore_ascii_case(name)));
    let (path, label) = (find(&PATH_COLUMNS)?, find(&LABEL_COLUMNS)?);
    (header.len() > 2 || label < path).then_some(Columns { path, label })
}

/// Path and label of a line. Without a header that names the columns the last is the label, and commas before it belong
/// to the path.
fn split(record: &csv::StringRecord, columns: Option<Columns>) -> Result<(String, &str), &'static str> {
    const WANTED: &str = "not a line path,label (put a path with a quote into quotes, and double its own quotes)";
    let fields: Vec<&str> = record.iter().collect();
    match (columns, &fields[..]) {
        (Some(Columns { path, label }), _) => {
            let field = |i: usize| record.get(i).map(str::trim).filter(|f| !f.is_empty()).ok_or(WANTED);
            Ok((field(path)?.to_string(), field(label)?))
        }
        (None, [path @ .., label]) if path.iter().any(|part| !part.trim().is_empty()) => {
            Ok((path.join(",").trim().to_string(), label.trim()))
        }
        _ => Err(WANTED),
    }
}

/// The class that a label names: a number first, so that labels made of digits do not change what a number means.
fn class(label: &str, classes: &Classes) -> Result<usize, String> {
    let count = classes.count;
    if label.is_empty() {
        return Err("no label".to_string());
    }
    if let Ok(number) = label.parse::<f64>() {
        let whole = number.fract() == 0.0 && (0.0..count as f64).contains(&number);
        return if whole {
            Ok(number as usize)
        } else {
            Err(format!("label {label}: the model has {count} classes, counted from 0"))
        };
    }
    match classes.by_name(label) {
        Ok(Some(index)) => Ok(index),
        Ok(None) => match classes.labels.first() {
            Some(first) => {
                Err(format!("label {label:?} is neither a number nor one of the model's {count} labels ({first}, ...)"))
            }
            None => Err(format!("label {label:?} is not a number, and the model has no labels")),
        },
        Err(several) => Err(format!("label {label:?} matches classes {several:?} alike: write its number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: impl AsRef<[u8]>) -> Result<Vec<(String, usize)>> {
        let dir = tempfile::tempdir().unwrap();
        let csv = dir.path().join("labels.csv");
        fs::write(&csv, text).unwrap();
        let labels = vec!["tench, Tinca tinca", "great white shark, white shark", "crane", "crane, lifting gear"];
        let entries =
            open(&csv, &Classes { count: 4, labels, synsets: &["n01440764", "n01484850", "n02012849", "n03126707"] })?;
        let Some(base) = csv.parent() else { panic!() };
        let relative = |e: &Entry| match &e.source {
            Source::File(path) => path.strip_prefix(base).unwrap().display().to_string(),
            other => panic!("{other:?}"),
        };
        Ok(entries.iter().map(|e| (relative(e), e.label.unwrap())).collect())
    }

    fn error(text: &str) -> String {
        let Error::Failed(line) = read(text).unwrap_err() else { panic!() };
        line
    }

    #[test]
    fn with_and_without_header_quotes_and_marks() {
        let want = [("a, b.jpg".to_string(), 3), ("sub/c.jpg".to_string(), 0)];
        let same = [
            "path,label_index\na, b.jpg,3\n\nsub/c.jpg, 0\r\n",
            "\u{feff}\"a, b.jpg\",3\nsub/c.jpg,0",
            "\"a, b.jpg\";3\r\nsub/c.jpg;0\r\n",
            "Bild\tKlasse\na, b.jpg\t3.0\nsub/c.jpg\ttench",
            "\"a, b.jpg\",\"Crane, lifting gear\"\nsub/c.jpg,n01440764\n",
            "a, b.jpg\tcrane, lifting gear\nsub/c.jpg\ttench, Tinca tinca\n",
            "a, b.jpg;crane, lifting gear\nsub/c.jpg;tench, Tinca tinca\n",
            "label,path\n3,\"a, b.jpg\"\ntench,sub/c.jpg\n",
            "class;image\ncrane, lifting gear;a, b.jpg\n0;sub/c.jpg\n",
            ",label,image,split\n0,3,\"a, b.jpg\",val\n1,tinca_tinca,sub/c.jpg,val\n",
        ];
        for text in same {
            assert_eq!(read(text).unwrap(), want, "{text}");
            let little: Vec<u8> = ["\u{feff}", text].concat().encode_utf16().flat_map(u16::to_le_bytes).collect();
            let big: Vec<u8> = ["\u{feff}", text].concat().encode_utf16().flat_map(u16::to_be_bytes).collect();
            if !text.starts_with('\u{feff}') {
                assert_eq!((read(little).unwrap(), read(big).unwrap()), (want.to_vec(), want.to_vec()), "{text}");
            }
        }
        assert_eq!(read("\"quo\"\"te,comma.png\",crane\n").unwrap(), [("quo\"te,comma.png".to_string(), 2)]);
        assert_eq!(read("quo\"te.png,1\n").unwrap(), [("quo\"te.png".to_string(), 1)]);
        assert_eq!(read("a;b\tc.png,1\n").unwrap(), [("a;b\tc.png".to_string(), 1)]);
    }

    #[test]
    fn no_line_is_left_out_silently() {
        for (text, why) in [
            ("a.jpg,0\nb.jpg,4\n", "line 2: label 4: the model has 4 classes, counted from 0"),
            ("a.jpg,-1\n", "line 1: label -1: the model has 4 classes"),
            ("a.jpg,0.5\n", "line 1: label 0.5: the model has 4 classes"),
            ("a.jpg,3,foo\n", "line 1: label \"foo\" is neither a number nor one of the model's 4 labels (tench"),
            ("a.jpg,foo\nb.jpg,1\n", "line 1: label \"foo\""),
            ("path,label\na.jpg,foo\n", "line 2: label \"foo\""),
            ("a.jpg,0\nb.jpg\n", "line 2: not a line path,label"),
            ("a.jpg,0\nb.jpg,\n", "line 2: no label"),
            ("a.jpg,0\n\"b.jpg,1\nc.jpg,2\n", "line 2: not a line path,label"),
        ] {
            assert!(error(text).contains(why), "{}", error(text));
        }
        assert_eq!(read("path,label\n").unwrap(), []);
        let Error::Failed(line) = read(b"a.jpg,0\nb\xe4.jpg,1\n").unwrap_err() else { panic!() };
        assert!(line.ends_with("line 2 is not UTF-8: save it as UTF-8"), "{line}");
    }
}
