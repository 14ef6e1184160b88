//! A report for people.

use super::records::Results;
use super::summary::{Class, Comparison, Summary};
use crate::dataset::Dataset;
use crate::error::Result;
use crate::output::{self, ERROR, NAME, Out, QUIET, STRONG};

/// Lines of a list.
const SHOWN: usize = 5;
/// Lines of the mapping from folders to classes; `--json` holds all.
const FOLDERS_SHOWN: usize = 12;
/// Fewer pictures than this say little about a class.
const ENOUGH: usize = 5;

/// Which folder is read as which class, before anything runs.
pub fn mapping(out: &mut Out, dataset: &Dataset, classes: usize) -> Result<()> {
    let folders = &dataset.folders;
    let width = folders.iter().take(FOLDERS_SHOWN).map(|f| f.folder.chars().count()).max().unwrap_or(0);
    for f in folders.iter().take(FOLDERS_SHOWN) {
        let label = f.label.as_deref().unwrap_or("");
        writeln!(out, "{QUIET}{:width$}  ->  {} {label}, {} pictures{QUIET:#}", f.folder, f.index, f.pictures)?;
    }
    if folders.len() > FOLDERS_SHOWN {
        writeln!(out, "{QUIET}... and {} more folders (--json lists all){QUIET:#}", folders.len() - FOLDERS_SHOWN)?;
    }
    let missing = classes.saturating_sub(folders.len());
    if !folders.is_empty() && missing > 0 {
        writeln!(out, "{QUIET}{missing} of {classes} classes have no folder: accuracy is over the others{QUIET:#}")?;
    }
    if dataset.loose > 0 {
        writeln!(out, "{QUIET}{} pictures beside the folders are left out{QUIET:#}", dataset.loose)?;
    }
    Ok(())
}

/// Everything that was measured.
pub fn report(out: &mut Out, results: &Results, s: &Summary) -> Result<()> {
    let setting = &results.setting;
    writeln!(out, "{NAME}{}{NAME:#}  {}, LayerScale {}", setting.model, setting.precision, setting.layerscale)?;
    let of = if results.shard.is_some() { format!(" of {}", setting.total) } else { String::new() };
    let left_out = if s.unreadable.is_empty() { String::new() } else { format!(", {} left out", s.unreadable.len()) };
    let line = |out: &mut Out, what: &str, text: String| writeln!(out, "  {QUIET}{what:<11}{QUIET:#} {text}");
    let labelled = if s.n > 0 && s.top1.is_none() { ", without labels" } else { "" };
    line(out, "pictures", format!("{:7}{of}{left_out}{labelled}", s.n))?;
    if let (Some(top1), Some(top5)) = (s.top1, s.top5) {
        line(out, "top-1", format!("{STRONG}{}{STRONG:#}", percent(top1)))?;
        line(out, "top-5", percent(top5))?;
    }
    if let Some(l) = &s.latency {
        let spread = format!("{QUIET}p90 {:.2}, p95 {:.2}, p99 {:.2}, max {:.2}{QUIET:#}", l.p90, l.p95, l.p99, l.max);
        line(out, "latency", format!("{:7.2} ms median  {spread}", l.p50))?;
        let with = format!("{QUIET}decoding included; kernel {}, threads {}{QUIET:#}", results.kernel, results.threads);
        line(out, "throughput", format!("{:7.1} pictures/s  {with}", s.pictures_per_s))?;
    }
    if let Some(c) = &s.reference {
        comparison(out, c)?;
    }
    lists(out, results, s)
}

fn percent(share: f64) -> String {
    format!("{:7.2} %", share * 100.0)
}

fn comparison(out: &mut Out, c: &Comparison) -> Result<()> {
    writeln!(out, "against {NAME}{}{NAME:#}", c.name)?;
    let line = |out: &mut Out, what: &str, text: String| writeln!(out, "  {QUIET}{what:<11}{QUIET:#} {text}");
    if let Some(top1) = c.top1 {
        line(out, "top-1", format!("{}, by the reference", percent(top1)))?;
    }
    line(out, "agreement", format!("{} with the same first label", percent(c.agreement)))?;
    line(out, "logit error", format!("{:9.5} relative, over all logits", c.relative_logit_error))?;
    if let Some(v) = &c.verdict {
        let style = if v.high < 0.0 { ERROR } else { STRONG };
        line(out, "verdict", format!("{style}{}{style:#}", v.line()))?;
        line(out, "", v.meaning())?;
    }
    Ok(())
}

/// Classes that lose most, or, without a reference, the weakest; then the most frequent mistakes.
fn lists(out: &mut Out, results: &Results, s: &Summary) -> Result<()> {
    let name = |index: usize| {
        let label = results.setting.labels.get(index).map_or("", String::as_str);
        let short = label.split(',').next().unwrap_or_default();
        if short.is_empty() { index.to_string() } else { format!("{index} {short}") }
    };
    let share = |right: usize, n: usize| format!("{:.0} %", 100.0 * right as f64 / n as f64);
    let mut losing: Vec<&Class> = s.classes.iter().filter(|c| c.lost() > 0).collect();
    losing.sort_by_key(|c| -c.lost());
    if !losing.is_empty() {
        let row = |c: &&Class| {
            let reference = c.reference_right.map_or(String::new(), |r| share(r, c.n));
            vec![format!("  {}", name(c.index)), c.n.to_string(), share(c.right, c.n), reference]
        };
        let rows: Vec<_> = losing.iter().take(SHOWN).map(row).collect();
        writeln!(out)?;
        output::table(out, &["classes that lose most", "pictures", "model", "reference"], &rows)?;
    }
    let mut weak: Vec<&Class> = s.classes.iter().filter(|c| c.n >= ENOUGH && c.right < c.n).collect();
    weak.sort_by(|a, b| a.accuracy().total_cmp(&b.accuracy()));
    if !weak.is_empty() {
        let row = |c: &&Class| vec![format!("  {}", name(c.index)), c.n.to_string(), share(c.right, c.n)];
        let rows: Vec<_> = weak.iter().take(SHOWN).map(row).collect();
        writeln!(out)?;
        output::table(out, &["weakest classes", "pictures", "top-1"], &rows)?;
    }
    let often: Vec<_> = s.confused.iter().filter(|p| p.count > 1).take(SHOWN).collect();
    if !often.is_empty() {
        let rows: Vec<_> = often
            .iter()
            .map(|p| vec![format!("  {}", name(p.label)), name(p.predicted), p.count.to_string()])
            .collect();
        writeln!(out)?;
        output::table(out, &["most confused", "called", "times"], &rows)?;
    }
    Ok(())
}
