//! The output of the program: colours on a terminal, plain text in a pipe, one JSON document for `--json`.
//!
//! Names, labels, paths and error texts come from files that nobody has to trust. Every line passes [`Out`] or a
//! function here, which shows control characters as escapes (`\u{1b}`), so none of them can move the cursor, hide text
//! or begin a line of its own. The program's own styles are characters that [`render`] turns into colours; nothing else
//! becomes a terminal's escape sequence. clippy.toml refuses other ways to print.

use std::fmt::{self, Write as _};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::LazyLock;

use anstyle::AnsiColor;
use serde::Serialize;

use crate::error::Result;

/// A style between `{STYLE}` and `{STYLE:#}`: a mark of this process and a character. No name or label can hold it,
/// since nobody outside knows the mark.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Style(char);

/// What is wrong.
pub const ERROR: Style = Style('r');
/// What makes a result doubtful.
pub const WARNING: Style = Style('y');
/// The answer.
pub const STRONG: Style = Style('b');
/// What explains the answer.
pub const QUIET: Style = Style('d');
/// A name or a heading.
pub const NAME: Style = Style('c');
/// Nothing special.
pub const PLAIN: Style = Style(END);

const END: char = '0';

/// Before the character of a style: random noncharacters (U+FDD0 to U+FDEF), the same while the process lives.
static MARK: LazyLock<String> = LazyLock::new(|| {
    let mut random = RandomState::new().build_hasher().finish();
    let mut character = || {
        let c = char::from_u32(0xFDD0 + (random % 32) as u32);
        random /= 32;
        c
    };
    (0..12).filter_map(|_| character()).collect()
});

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&MARK)?;
        f.write_char(if f.alternate() { END } else { self.0 })
    }
}

/// The terminal's style for a style's character; none for other characters.
fn style(c: char) -> Option<anstyle::Style> {
    Some(match Style(c) {
        Style(END) => anstyle::Style::new(),
        ERROR => AnsiColor::Red.on_default().bold(),
        WARNING => AnsiColor::Yellow.on_default().bold(),
        STRONG => anstyle::Style::new().bold(),
        QUIET => anstyle::Style::new().dimmed(),
        NAME => AnsiColor::Cyan.on_default(),
        _ => return None,
    })
}

/// Whether a character could make a terminal show something else than the text: control characters, line separators,
/// marks that turn the direction of writing, and the noncharacters that marks of styles are made of.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{fdd0}'..='\u{fdef}')
}

/// `text` with every control character as an escape.
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// A line for the terminal: styles as escape sequences, control characters as escapes.
fn render(line: &str) -> String {
    let mut styled = line.split(MARK.as_str());
    let mut text = shown(styled.next().unwrap_or_default());
    for piece in styled {
        let mut rest = piece.chars();
        match rest.next().map(|c| (c, style(c))) {
            Some((END, _)) => text.push_str(&anstyle::Reset.to_string()),
            Some((_, Some(style))) => text.push_str(&style.to_string()),
            _ => {}
        }
        text.push_str(&shown(rest.as_str()));
    }
    text
}

/// Standard output or standard error, locked; styles are stripped where it is no terminal. Each `writeln!` writes one
/// line.
pub struct Out(Box<dyn Write>);

impl Out {
    /// For `write!` and `writeln!`: a line break at the end is one, all others are shown as escapes.
    pub fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        let text = fmt::format(text);
        let (line, end) = text.strip_suffix('\n').map_or((text.as_str(), ""), |line| (line, "\n"));
        self.0.write_all((render(line) + end).as_bytes())
    }
}

/// Locks standard output.
#[allow(clippy::disallowed_methods)]
pub fn stdout() -> Out {
    Out(Box::new(anstream::AutoStream::auto(io::stdout().lock())))
}

/// Standard error.
#[allow(clippy::disallowed_methods)]
pub fn stderr() -> Out {
    Out(Box::new(anstream::AutoStream::auto(io::stderr())))
}

/// Where a command reports that also writes `outputs`: standard output, or standard error where one of them goes there.
pub fn beside<'p>(outputs: impl IntoIterator<Item = &'p PathBuf>) -> Out {
    let mut outputs = outputs.into_iter();
    if outputs.any(|path| vitlet_convert::output::goes_to_stdout(path)) { stderr() } else { stdout() }
}

/// The version of all JSON documents. A field that goes or changes its meaning raises it; new fields do not.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Versioned<'d, D> {
    schema: u32,
    #[serde(flatten)]
    document: &'d D,
}

/// Prints one JSON document.
pub fn json(document: &impl Serialize) -> Result<()> {
    write_json(serde_json::to_string_pretty(&Versioned { schema: SCHEMA, document }))
}

/// Prints one JSON document on its own line.
pub fn json_line(document: &impl Serialize) -> Result<()> {
    write_json(serde_json::to_string(&Versioned { schema: SCHEMA, document }))
}

/// JSON escapes control characters below U+0020; the others, which stand in strings alone, are escaped here.
#[allow(clippy::disallowed_methods)]
fn write_json(text: serde_json::Result<String>) -> Result<()> {
    let text = text.map_err(io::Error::other)?;
    let mut escaped = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        match c {
            '\n' => escaped.push(c),
            // All of them lie below U+10000.
            _ if is_hidden(c) => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => escaped.push(c),
        }
    }
    escaped.push('\n');
    Ok(io::stdout().lock().write_all(escaped.as_bytes())?)
}

/// A remark on standard error, which `--json` and pipes leave alone.
pub fn note(line: &str) {
    // Nothing is left to do where standard error is closed.
    let _ = writeln!(stderr(), "{QUIET}{line}{QUIET:#}");
}

/// A doubt, on standard error.
pub fn warn(line: &str) {
    let _ = writeln!(stderr(), "{WARNING}warning:{WARNING:#} {line}");
}

/// What was wrong, on standard error.
pub fn error(line: &str) {
    let _ = writeln!(stderr(), "{ERROR}error:{ERROR:#} {}", line.trim_end());
}

/// Whether progress bars make sense: standard error is a terminal.
#[allow(clippy::disallowed_methods)]
pub fn interactive() -> bool {
    io::stderr().is_terminal()
}

/// A progress bar on standard error with `len` steps; invisible where that is no terminal.
pub fn progress(len: u64, template: &str) -> indicatif::ProgressBar {
    if !interactive() {
        return indicatif::ProgressBar::hidden();
    }
    let bar = indicatif::ProgressBar::new(len);
    if let Ok(style) = indicatif::ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸ "));
    }
    bar
}

/// Bytes in MB (10^6) or kB (10^3).
pub fn bytes(n: u64) -> String {
    if n >= 1_000_000 { format!("{:.2} MB", n as f64 / 1e6) } else { format!("{:.1} kB", n as f64 / 1e3) }
}

/// A factor in few characters: three decimals, or an exponent where they would not do.
pub fn factor(x: f32) -> String {
    if x >= 0.01 { format!("{x:.3}") } else { format!("{x:.1e}") }
}

/// Lines up `rows` under each other: the first column to the left, the others to the right.
pub fn table(out: &mut Out, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let mut lines = aligned(header, rows).into_iter();
    writeln!(out, "{QUIET}{}{QUIET:#}", lines.next().unwrap_or_default())?;
    lines.try_for_each(|line| writeln!(out, "{line}"))
}

/// The lines of a table, its header first.
fn aligned(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().map(|r| r[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| -> String {
        let aligned = cells.zip(&widths).enumerate().map(|(i, (cell, &w))| match i {
            0 => format!("{cell:<w$}"),
            _ => format!("  {cell:>w$}"),
        });
        aligned.collect::<String>().trim_end().to_string()
    };
    let header = line(&mut header.iter().copied());
    std::iter::once(header).chain(rows.iter().map(|row| line(&mut row.iter().map(String::as_str)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align() {
        let rows = [vec!["a".to_string(), "1.5".to_string()], vec!["long".to_string(), "22.25".to_string()]];
        assert_eq!(aligned(&["name", "ms"], &rows), ["name     ms", "a       1.5", "long  22.25"]);
    }

    #[test]
    fn control_characters_are_shown_and_styles_are_the_programs_own() {
        assert_eq!(shown("tench\u{1b}[2J\u{9b}1A\r\n\tok\u{7f}"), "tench\\u{1b}[2J\\u{9b}1A\\r\\n\\tok\\u{7f}");
        assert_eq!(shown("\u{202e}gpj.a\u{2066}\u{2028}"), "\\u{202e}gpj.a\\u{2066}\\u{2028}");
        assert_eq!(shown("Größe, 虎, \u{1f42f}\u{200d}"), "Größe, 虎, \u{1f42f}\u{200d}");
        assert_eq!(render(&format!("{STRONG}a\u{1b}{STRONG:#}b")), "\u{1b}[1ma\\u{1b}\u{1b}[0mb");
        let every: String = ('\u{fdd0}'..='\u{fdef}').flat_map(|c| [c, 'b']).collect();
        let escaped: String = ('\u{fdd0}'..='\u{fdef}').map(|c| format!("{}b", c.escape_default())).collect();
        assert_eq!(render(&format!("a{every}{NAME}c{NAME:#}")), format!("a{escaped}\u{1b}[36mc\u{1b}[0m"));
    }
}
