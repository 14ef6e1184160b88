//! The activations of a network on one picture, place by place, without padding.

use std::collections::BTreeMap;
use std::sync::Mutex;

use vitlet::config::pad16;
use vitlet::{Config, Place, Rows, Tap};

/// A place of the network in the order in which it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// 0 before the first block, then the block's number and 1.
    step: usize,
    pub place: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The input of a stage's first block, after downsampling (ConvNeXt).
    Downsampled,
    /// The heads' outputs.
    Heads,
    /// What the attention branch adds to the stream, LayerScale included.
    Attention,
    /// The stream between the branches.
    Middle,
    /// What XCiT's local branch adds to the stream, LayerScale included.
    Local,
    /// The stream after that.
    Interacted,
    /// What the MLP branch adds to the stream, LayerScale included.
    Mlp,
    /// The stream after the block, or before the first.
    Stream,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Downsampled => "downsampled",
            Self::Heads => "heads",
            Self::Attention => "attention",
            Self::Middle => "middle",
            Self::Local => "local",
            Self::Interacted => "interacted",
            Self::Mlp => "mlp",
            Self::Stream => "stream",
        }
    }
}

impl Spot {
    /// The block's number; none before the first.
    pub fn block(self) -> Option<usize> {
        self.step.checked_sub(1)
    }

    #[cfg(feature = "tract")]
    pub fn in_block(block: usize, place: Kind) -> Self {
        Self { step: block + 1, place }
    }

    fn of(place: Place) -> Self {
        match place {
            Place::Embedding => Self { step: 0, place: Kind::Stream },
            Place::Downsampled(i) => Self { step: i + 1, place: Kind::Downsampled },
            Place::Heads(i) => Self { step: i + 1, place: Kind::Heads },
            Place::Attention(i) => Self { step: i + 1, place: Kind::Middle },
            Place::Local(i) => Self { step: i + 1, place: Kind::Interacted },
            Place::Mlp(i) => Self { step: i + 1, place: Kind::Stream },
        }
    }
}

/// `[tokens, width]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub width: usize,
    pub values: Vec<f32>,
}

impl Table {
    /// Element by element, for the tokens that both have.
    fn less(&self, before: &Self) -> Self {
        let values = self.values.iter().zip(&before.values).map(|(x, y)| x - y).collect();
        Self { width: self.width, values }
    }
}

/// One picture's.
pub struct Activations {
    pub tables: BTreeMap<Spot, Table>,
    /// Logits, or features.
    pub output: Vec<f32>,
}

impl Activations {
    /// Adds what the branches contribute: the stream after them less the stream before.
    pub fn new(mut tables: BTreeMap<Spot, Table>, output: Vec<f32>) -> Self {
        let last = tables.keys().next_back().map_or(0, |s| s.step);
        for step in 1..=last {
            let at = |step: usize, place: Kind| Spot { step, place };
            let start = [at(step, Kind::Downsampled), at(step - 1, Kind::Stream)];
            // ConvNeXt has no stream between branches, and only XCiT has three.
            let middle = [at(step, Kind::Interacted), at(step, Kind::Middle), start[0], start[1]];
            let branches = [
                (Kind::Attention, &start[..], Kind::Middle),
                (Kind::Local, &middle[1..], Kind::Interacted),
                (Kind::Mlp, &middle, Kind::Stream),
            ];
            let added = branches.map(|(branch, from, to)| {
                let before = from.iter().find_map(|place| tables.get(place))?;
                Some((at(step, branch), tables.get(&at(step, to))?.less(before)))
            });
            tables.extend(added.into_iter().flatten());
        }
        Self { tables, output }
    }
}

/// Collects rows while the network runs.
pub struct Seen {
    config: Config,
    /// By token; rows come in any order.
    rows: Mutex<BTreeMap<Spot, BTreeMap<usize, Vec<f32>>>>,
}

impl Seen {
    pub fn new(c: &Config) -> Self {
        Self { config: *c, rows: Mutex::default() }
    }

    pub fn into_activations(self, output: Vec<f32>) -> Activations {
        let rows = self.rows.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let table = |rows: BTreeMap<usize, Vec<f32>>| Table {
            width: rows.values().next().map_or(0, Vec::len),
            values: rows.into_values().flatten().collect(),
        };
        Activations::new(rows.into_iter().map(|(spot, rows)| (spot, table(rows))).collect(), output)
    }
}

impl Tap for Seen {
    fn rows(&self, rows: Rows<'_>) {
        let spot = Spot::of(rows.place);
        let compact = |row| channels(&self.config, rows.place, row).collect::<Vec<_>>().concat();
        let mut all = self.rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let seen = all.entry(spot).or_default();
        for (i, row) in rows.values.chunks_exact(rows.width).enumerate() {
            seen.insert(rows.first + i, compact(row));
        }
    }
}

/// A row of [`Rows`] without its padding: the stream, or the heads one after another.
fn channels<'r>(c: &Config, place: Place, row: &'r [f32]) -> impl Iterator<Item = &'r [f32]> {
    let (padded, width) = match place {
        Place::Heads(_) => (pad16(c.head_dim()), c.head_dim()),
        Place::Embedding => (row.len(), c.block_dim(0)),
        Place::Downsampled(i) | Place::Attention(i) | Place::Local(i) | Place::Mlp(i) => (row.len(), c.block_dim(i)),
    };
    row.chunks(padded).map(move |part| &part[..width.min(part.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_differences_of_the_stream() {
        let table = |values: &[f32]| Table { width: 2, values: values.to_vec() };
        let at = |step, place| Spot { step, place };
        let tables = BTreeMap::from([
            (at(0, Kind::Stream), table(&[1.0, 2.0, 3.0, 4.0])),
            (at(1, Kind::Middle), table(&[2.0, 2.5])),
            (at(1, Kind::Stream), table(&[2.0, 3.5])),
        ]);
        let tables = Activations::new(tables, Vec::new()).tables;
        assert_eq!(tables[&at(1, Kind::Attention)], table(&[1.0, 0.5]));
        assert_eq!(tables[&at(1, Kind::Mlp)], table(&[0.0, 1.0]));
        assert_eq!(at(1, Kind::Mlp).block(), Some(0));
    }
}
