//! The sum of the records of all pictures.

use std::collections::BTreeMap;

use serde::Serialize;

use super::paired::Verdict;
use super::records::{Record, Results};
use crate::stats;

/// Confused pairs in a report.
const PAIRS: usize = 20;

/// Shares are in [0, 1].
#[derive(Serialize)]
pub struct Summary {
    /// Pictures that were read.
    pub n: usize,
    pub unreadable: Vec<String>,
    /// None without labels.
    pub top1: Option<f64>,
    pub top5: Option<f64>,
    /// None without pictures, as are latency and reference.
    pub median_ms: Option<f64>,
    pub latency: Option<Latency>,
    /// Decoding and reference included.
    pub pictures_per_s: f64,
    pub reference: Option<Comparison>,
    /// Every class that a picture is labelled with.
    pub classes: Vec<Class>,
    /// The most frequent mistakes, the most frequent first.
    pub confused: Vec<Pair>,
}

/// Milliseconds from decoded pixels to logits; other threads decode meanwhile.
#[derive(Serialize)]
pub struct Latency {
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Latency {
    /// Of at least one picture.
    fn of(ms: &[f64]) -> Self {
        let [min, p50, p90, p95, p99, max] = [0.0, 50.0, 90.0, 95.0, 99.0, 100.0].map(|p| stats::percentile(ms, p));
        Self { min, p50, p90, p95, p99, max }
    }
}

#[derive(Serialize)]
pub struct Comparison {
    pub name: String,
    /// The share of pictures with the same first label.
    pub agreement: f64,
    /// sqrt(sum |y - r|^2 / sum |r|^2) over the logits of all pictures.
    pub relative_logit_error: f64,
    /// The reference's own accuracy; none without labels.
    pub top1: Option<f64>,
    pub verdict: Option<Verdict>,
}

#[derive(Serialize)]
pub struct Class {
    pub index: usize,
    pub label: String,
    pub n: usize,
    /// Pictures with the right first label.
    pub right: usize,
    pub reference_right: Option<usize>,
}

impl Class {
    /// Pictures that the reference got right and the model did not, less the reverse.
    pub fn lost(&self) -> i64 {
        self.reference_right.map_or(0, |r| r as i64 - self.right as i64)
    }

    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.n as f64
    }
}

/// Pictures of class `label` that the model calls `predicted`.
#[derive(Serialize)]
pub struct Pair {
    pub label: usize,
    pub predicted: usize,
    pub count: usize,
}

impl Record {
    /// Whether the first label is the right one; none without a label.
    fn right(&self) -> Option<bool> {
        self.label.map(|label| self.top.first() == Some(&label))
    }

    fn reference_right(&self) -> Option<bool> {
        Some(self.reference.as_ref()?.first == self.label?)
    }

    /// Whether model and reference agree.
    pub fn agrees(&self) -> Option<bool> {
        self.reference.as_ref().map(|r| self.top.first() == Some(&r.first))
    }
}

impl Summary {
    pub fn of(results: &Results) -> Self {
        let records: Vec<&Record> = results.pictures.iter().map(|p| &p.rest).collect();
        let records = &records[..];
        let labelled = records.iter().filter(|r| r.label.is_some()).count();
        let share = |count: usize| (labelled > 0).then(|| count as f64 / labelled as f64);
        let in_top5 = |r: &&&Record| r.label.is_some_and(|l| r.top.contains(&l));
        let ms: Vec<f64> = results.pictures.iter().map(|p| p.times.ms).collect();
        let latency = (!ms.is_empty()).then(|| Latency::of(&ms));
        let against = results.setting.against.as_ref().filter(|_| !records.is_empty());
        Self {
            n: records.len(),
            unreadable: results.unread.iter().map(|u| u.left_out.image.clone()).collect(),
            top1: share(count(records, Record::right)),
            top5: share(records.iter().filter(in_top5).count()),
            median_ms: latency.as_ref().map(|l| l.p50),
            latency,
            pictures_per_s: records.len() as f64 / results.seconds.max(1e-9),
            reference: against.map(|name| compare(name, records, labelled)),
            classes: classes(results),
            confused: confused(records),
        }
    }
}

fn count(records: &[&Record], test: impl Fn(&Record) -> Option<bool>) -> usize {
    records.iter().filter(|r| test(r) == Some(true)).count()
}

fn compare(name: &str, records: &[&Record], labelled: usize) -> Comparison {
    let (mut difference, mut norm) = (0.0, 0.0);
    for against in records.iter().filter_map(|r| r.reference.as_ref()) {
        difference += against.difference;
        norm += against.norm;
    }
    let both = |model: bool, reference: bool| {
        count(records, |r| Some(r.right()? == model && r.reference_right()? == reference))
    };
    Comparison {
        name: name.to_string(),
        agreement: count(records, Record::agrees) as f64 / records.len() as f64,
        relative_logit_error: if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() },
        top1: (labelled > 0).then(|| count(records, Record::reference_right) as f64 / labelled as f64),
        verdict: (labelled > 0).then(|| Verdict::new(labelled, both(false, true), both(true, false))),
    }
}

fn classes(results: &Results) -> Vec<Class> {
    let mut classes: BTreeMap<usize, Class> = BTreeMap::new();
    for r in results.pictures.iter().map(|p| &p.rest) {
        let (Some(index), Some(right)) = (r.label, r.right()) else { continue };
        let label = results.setting.labels.get(index).cloned().unwrap_or_default();
        let reference_right = results.setting.against.as_ref().map(|_| 0);
        let class = classes.entry(index).or_insert(Class { index, label, n: 0, right: 0, reference_right });
        class.n += 1;
        class.right += usize::from(right);
        if let (Some(count), Some(true)) = (&mut class.reference_right, r.reference_right()) {
            *count += 1;
        }
    }
    classes.into_values().collect()
}

fn confused(records: &[&Record]) -> Vec<Pair> {
    let mut counts: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for r in records.iter().filter(|r| r.right() == Some(false)) {
        if let (Some(label), Some(&predicted)) = (r.label, r.top.first()) {
            *counts.entry((label, predicted)).or_default() += 1;
        }
    }
    let mut pairs: Vec<Pair> =
        counts.into_iter().map(|((label, predicted), count)| Pair { label, predicted, count }).collect();
    // Stable: of equals the lower classes come first.
    pairs.sort_by_key(|p| std::cmp::Reverse(p.count));
    pairs.truncate(PAIRS);
    pairs
}

/// The records of `flips.csv`, its header first: the pictures whose first label is not the reference's.
pub fn flips(results: &Results) -> Vec<[String; 8]> {
    const HEADER: [&str; 8] =
        ["path", "change", "label_index", "reference_index", "model_index", "label", "reference", "model"];
    let label = |index: usize| results.setting.labels.get(index).map_or("", String::as_str);
    let mut records = vec![HEADER.map(str::to_string)];
    for picture in results.pictures.iter().filter(|p| p.rest.agrees() == Some(false)) {
        let r = &picture.rest;
        let (Some(against), Some(&first)) = (&r.reference, r.top.first()) else { continue };
        let change = match (r.right(), r.reference_right()) {
            (Some(false), Some(true)) => "worse",
            (Some(true), Some(false)) => "better",
            (Some(false), Some(false)) => "both wrong",
            _ => "changed",
        };
        let classes = [r.label, Some(against.first), Some(first)];
        let [right, reference, model] = classes.map(|class| class.map_or(String::new(), |index| index.to_string()));
        let [x, y, z] = classes.map(|class| class.map_or("", label).to_string());
        records.push([picture.image.clone(), change.to_string(), right, reference, model, x, y, z]);
    }
    records
}
