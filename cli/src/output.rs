//! Standard output: colours on a terminal, plain text in a pipe, one JSON document for `--json`.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::error::Result;

/// What is wrong.
pub const ERROR: Style = AnsiColor::Red.on_default().bold();
/// What makes a result doubtful.
pub const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// The answer.
pub const STRONG: Style = Style::new().bold();
/// What explains the answer.
pub const QUIET: Style = Style::new().dimmed();
/// A name or a heading.
pub const NAME: Style = AnsiColor::Cyan.on_default();

/// Standard output, locked; styles are stripped where it is no terminal.
pub type Out = anstream::AutoStream<io::StdoutLock<'static>>;

/// Locks standard output.
pub fn stdout() -> Out {
    anstream::AutoStream::auto(io::stdout().lock())
}

/// Prints one JSON document.
pub fn json(value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
    text.push('\n');
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

/// A remark on standard error, which `--json` and pipes leave alone.
pub fn note(line: &str) {
    let _ = writeln!(anstream::stderr(), "{QUIET}{line}{QUIET:#}");
}

/// A doubt, on standard error.
pub fn warn(line: &str) {
    let _ = writeln!(anstream::stderr(), "{WARNING}warning:{WARNING:#} {line}");
}

/// Whether progress bars make sense: standard error is a terminal.
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
pub fn table(out: &mut impl Write, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
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
    writeln!(out, "{QUIET}{}{QUIET:#}", line(&mut header.iter().copied()))?;
    for row in rows {
        writeln!(out, "{}", line(&mut row.iter().map(String::as_str)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align() {
        let mut text = Vec::new();
        let rows = [vec!["a".to_string(), "1.5".to_string()], vec!["long".to_string(), "22.25".to_string()]];
        table(&mut text, &["name", "ms"], &rows).unwrap();
        let plain = anstream::adapter::strip_str(std::str::from_utf8(&text).unwrap()).to_string();
        assert_eq!(plain, "name     ms\na       1.5\nlong  22.25\n");
    }
}
