//! Reads which modules of a crate import which, and holds them against a table of layers.
//!
//! An import is any path that starts at the crate's root: `crate::name`, `crate::{a::x, b::y}`, and as many `super::`
//! as lead there. Comments, strings and code for tests alone are left out. Re-exports of the crate's root are for its
//! users: inside, a path names the module in which a thing lives.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A row: the modules of one layer, which may import those of the rows before it, and not each other.
pub type Layer = &'static [&'static str];

/// A module that may import these alone, whatever its layer is.
pub type Only = (&'static str, &'static [&'static str]);

/// A line for each arrow that points back, each module without a place in the table, and each place without a module.
/// `root` is the crate's `lib.rs`.
pub fn mistakes(root: &Path, layers: &[Layer], only: &[Only]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut files = submodules(root.parent().unwrap(), &code(&fs::read_to_string(root).unwrap()));
    let tops = files.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>();
    let layer_of = |name: &str| layers.iter().position(|layer| layer.contains(&name));
    for name in layers.concat().into_iter().filter(|&name| !tops.contains(name)) {
        wrong.push(format!("the table has a module `{name}`, the crate has not"));
    }
    for name in tops.iter().filter(|name| layer_of(name).is_none()) {
        wrong.push(format!("module `{name}` has no place in the table"));
    }
    // The first part of a path says which module of the root a file belongs to.
    while let Some((path, file)) = files.pop() {
        let text = code(&fs::read_to_string(&file).unwrap());
        let top = path.split("::").next().unwrap();
        let depth = path.split("::").count();
        for (line, target) in imports(&text, depth) {
            let at = format!("{}:{line}", file.display());
            match (layer_of(top), layer_of(&target)) {
                _ if target == top => {}
                (_, None) => wrong.push(format!("{at}: `{target}` is no module of the table")),
                (Some(own), Some(other)) if own <= other => {
                    wrong.push(format!("{at}: `{top}` (layer {own}) imports `{target}` (layer {other})"));
                }
                _ if only.iter().any(|(name, allowed)| *name == top && !allowed.contains(&&*target)) => {
                    wrong
                        .push(format!("{at}: `{top}` imports `{target}`, which is none of the few that it may import"));
                }
                _ => {}
            }
        }
        let nested = submodules(&file.with_extension(""), &text);
        files.extend(nested.into_iter().map(|(name, file)| (format!("{path}::{name}"), file)));
    }
    wrong
}

/// A line for each layer that the tables of `text` do not show. Rows are `| layer | modules, each in backticks |`; the
/// first row with a layer's number counts.
pub fn not_shown(text: &str, layers: &[Layer]) -> Vec<String> {
    let differs = |(number, layer): (usize, &Layer)| {
        let start = format!("| {number} | ");
        let row = text.lines().find_map(|line| line.trim_start_matches("//! ").strip_prefix(&start));
        let shown: Option<BTreeSet<&str>> = row.map(|row| row.split('`').skip(1).step_by(2).collect());
        let same = shown.as_ref().is_some_and(|shown| *shown == layer.iter().copied().collect());
        (!same).then(|| format!("layer {number} is {layer:?}, shown is {shown:?}"))
    };
    layers.iter().enumerate().filter_map(differs).collect()
}

/// The modules that `text` declares in files of `folder`.
fn submodules(folder: &Path, text: &str) -> Vec<(String, PathBuf)> {
    let declared = text.lines().filter_map(|line| {
        let (_, name) = line.trim().strip_suffix(';')?.split_once("mod ")?;
        Some(name.to_owned())
    });
    declared.map(|name| (name.clone(), folder.join(name + ".rs"))).collect()
}

/// Line and first module of every path from the crate's root, in a file `depth` modules below it.
fn imports(text: &str, depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, start) in text.match_indices("crate::").chain(text.match_indices("super::")) {
        let before = &text[..at];
        if before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | ':')) {
            continue;
        }
        let mut rest = &text[at..];
        let mut ups = 0;
        while let Some(path) = rest.strip_prefix(start) {
            (rest, ups) = (path, ups + 1);
        }
        if start == "super::" && ups < depth + inline_modules(before) {
            continue;
        }
        let line = before.matches('\n').count() + 1;
        let names = rest.strip_prefix('{').map_or_else(|| vec![first(rest)], firsts);
        found.extend(names.into_iter().map(|name| (line, name)));
    }
    found
}

/// How many `mod name { ... }` are open at the end of `text`.
fn inline_modules(text: &str) -> usize {
    let (mut open, mut start) = (Vec::new(), 0);
    for (at, c) in text.char_indices().filter(|(_, c)| matches!(c, '{' | '}' | ';')) {
        match c {
            '{' => open.push(text[start..at].split_whitespace().nth_back(1) == Some("mod")),
            '}' => drop(open.pop()),
            _ => {}
        }
        start = at + 1;
    }
    open.into_iter().filter(|is_module| *is_module).count()
}

/// The first name of a path.
fn first(path: &str) -> String {
    path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first name of each path in a group, up to its closing brace.
fn firsts(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(first(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
        if c == '}' && depth == 0 && start == at + 1 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// `source` with its lines, without comments, the insides of strings, and what is compiled for tests alone.
fn code(source: &str) -> String {
    without_tests(&without_text(source))
}

/// Blanks comments, strings and characters.
fn without_text(source: &str) -> String {
    let (mut out, mut rest) = (String::new(), source);
    while let Some(c) = rest.chars().next() {
        let len = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => 1 + quoted(&rest[1..]),
            'r' if rest.starts_with("r#\"") => rest.find("\"#").map_or(rest.len(), |end| end + 2),
            // A character; otherwise a lifetime or a label.
            '\'' if rest[1..].starts_with('\\') => 2 + rest[2..].find('\'').map_or(0, |end| end.max(1) + 1),
            '\'' if rest[1..].chars().nth(1) == Some('\'') => 2 + rest[1..].chars().next().map_or(0, char::len_utf8),
            _ => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
                continue;
            }
        };
        out.extend(rest[..len].chars().filter(|c| *c == '\n'));
        rest = &rest[len..];
    }
    out
}

/// Bytes up to the end of a string, the closing quote included.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Blanks every item under `#[cfg(test)]` or `#[cfg(all(test, ...))]`: up to its semicolon or its closing brace.
fn without_tests(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    let for_tests = |(_, condition): &(usize, &str)| {
        let condition = condition.trim_start();
        let first = condition.strip_prefix("all(").unwrap_or(condition).trim_start();
        first.starts_with("test)") || first.starts_with("test,")
    };
    let next = |text: &str| {
        let mut conditions = text.match_indices("#[cfg(").map(|(at, cfg)| (at, &text[at + cfg.len()..]));
        conditions.find(for_tests).map(|(at, _)| at)
    };
    while let Some(at) = next(rest) {
        let (before, item) = rest.split_at(at);
        out.push_str(before);
        let (mut depth, mut end) = (0, item.len());
        for (i, c) in item.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 && matches!(c, '}' | ';') {
                end = i + 1;
                break;
            }
        }
        out.extend(item[..end].chars().filter(|c| *c == '\n'));
        rest = &item[end..];
    }
    out + rest
}

#[test]
fn imports_are_found_where_they_are() {
    let text = code(
        "// crate::comment\n\
         use crate::{one::A, two::{B, C}, three};\n\
         use crate::four::D; let s = \"crate::string\"; let c = '{';\n\
         use super::super::five; pub(crate) use super::own;\n\
         #[cfg(test)]\nmod tests { use crate::six; }\n\
         #[cfg(all(\n    test, feature = \"std\"))]\nmod more;\n\
         fn f<'a>(x: &'a crate::seven::E) {}\n\
         mod nested;\nmod inline { use super::super::super::eight; use super::super::own; }\n",
    );
    let expected = [(2, "one"), (2, "two"), (2, "three"), (3, "four"), (10, "seven"), (4, "five"), (12, "eight")];
    let found = imports(&text, 2);
    assert_eq!(found.iter().map(|(line, name)| (*line, &**name)).collect::<Vec<_>>(), expected);
    assert_eq!(submodules(Path::new("x"), &text), [("nested".to_owned(), PathBuf::from("x/nested.rs"))]);
}
