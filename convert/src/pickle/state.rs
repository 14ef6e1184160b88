//! Which of the dicts in a checkpoint holds the network's weights, found by structure: a dict with tensors in it is a
//! candidate, unless it has less than half as many tensors as the largest.

use std::collections::HashSet;

use super::MAX_NAME;
use super::tensor::is_tensor;
use super::value::{Graph, Id};
use crate::error::shown;

/// How deep dicts may be in dicts.
const MAX_DEPTH: usize = 4;

/// The names that trainers use, the first wins. The empty one is the checkpoint itself.
const NAMES: [&str; 6] = ["state_dict", "model", "teacher", "module", "", "student"];

/// A dict with tensors in it.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) id: Id,
    /// The keys on the way to it, with dots between; nothing for the checkpoint itself.
    path: String,
    tensors: usize,
}

impl Candidate {
    /// What to call it in messages.
    fn shown(&self) -> String {
        if self.path.is_empty() { "the top level".to_owned() } else { shown(&self.path) }
    }

    /// Whether it holds averages of the weights over training steps.
    fn is_ema(&self) -> bool {
        self.path.split(['.', '_', '-']).any(|word| word.eq_ignore_ascii_case("ema"))
    }

    /// Its place among [`NAMES`]; candidates of other names come last, the larger first.
    fn rank(&self) -> (usize, usize, usize) {
        let name = self.path.rsplit('.').next().unwrap_or_default();
        let rank = NAMES.iter().position(|known| *known == name).unwrap_or(NAMES.len());
        (rank, self.path.matches('.').count(), usize::MAX - self.tensors)
    }
}

/// Takes the weights' dict; `ema` asks for averaged weights. Announces the choice, if there was one.
///
/// # Errors
/// No dict with tensors, or no averaged ones where they are asked for.
pub(super) fn choose(
    graph: &Graph<'_>,
    root: Id,
    ema: bool,
    announcements: &mut Vec<String>,
) -> Result<Candidate, String> {
    let mut all = Vec::new();
    collect(graph, root, String::new(), &mut HashSet::new(), &mut all);
    let most = all.iter().map(|c| c.tensors).max().unwrap_or(0);
    all.retain(|c| 2 * c.tensors >= most);
    all.sort_by_key(Candidate::rank);
    let (averaged, plain): (Vec<_>, Vec<_>) = all.into_iter().partition(Candidate::is_ema);
    let names = |of: &[Candidate]| of.iter().map(Candidate::shown).collect::<Vec<_>>().join(", ");
    let (taken, others) = match (ema, &averaged[..], &plain[..]) {
        (_, [], []) => return Err(no_weights(graph, root)),
        (true, [], _) => {
            return Err(format!("--ema: no averaged weights in this file; it has {}", names(&plain)));
        }
        (true, [first, rest @ ..], _) => (first.clone(), [rest, &plain].concat()),
        (false, _, [first, rest @ ..]) => (first.clone(), [rest, &averaged].concat()),
        (false, [first, rest @ ..], []) => {
            announcements.push(format!("only the averaged weights ({}) are whole in this file", first.shown()));
            (first.clone(), rest.to_vec())
        }
    };
    if !others.is_empty() {
        let cure = if !ema && others.iter().any(Candidate::is_ema) { " (--ema takes averaged weights)" } else { "" };
        announcements.push(format!("the weights are {}; left out: {}{cure}", taken.shown(), names(&others)));
    }
    Ok(taken)
}

/// The tensors of a dict, readable or not.
pub(super) fn tensors<'g>(graph: &'g Graph<'_>, id: Id) -> impl Iterator<Item = (&'g str, Id)> {
    graph.items(id).filter(|(name, value)| name.len() <= MAX_NAME && is_tensor(graph, *value))
}

/// Adds the dicts with tensors at and below `id`, each once.
fn collect(graph: &Graph<'_>, id: Id, path: String, seen: &mut HashSet<Id>, all: &mut Vec<Candidate>) {
    if path.matches('.').count() >= MAX_DEPTH || !seen.insert(id) {
        return;
    }
    let tensors = tensors(graph, id).count();
    if tensors > 0 {
        all.push(Candidate { id, path: path.clone(), tensors });
    }
    let dicts = graph.items(id).filter(|(key, value)| key.len() <= MAX_NAME && !graph.entries(*value).is_empty());
    for (key, value) in dicts {
        let below = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        collect(graph, value, below, seen, all);
    }
}

/// Why there is nothing to read.
fn no_weights(graph: &Graph<'_>, root: Id) -> String {
    let is_module = |id: Id| {
        let attributes = graph.attributes(id);
        attributes.is_some_and(|id| graph.item(id, "_modules").is_some() || graph.item(id, "_parameters").is_some())
    };
    let inner = graph.items(root).find(|(key, value)| is_module(*value) && !key.contains('\''));
    let load = "import torch; m = torch.load('FILE', map_location='cpu', weights_only=False)";
    let save = "torch.save(m.state_dict(), 'weights.pth')";
    let cure = match inner {
        _ if is_module(root) => format!("{load}; {save}"),
        Some((key, _)) => format!("{load}['{}']; {save}", shown(key)),
        None => {
            return "no dict with tensors in this file; save the state dict: torch.save(model.state_dict(), ...)"
                .to_owned();
        }
    };
    format!(
        "a whole pickled module, whose code is not in the file; save its state dict where that code is installed, if \
         you trust the file: python -c \"{cure}\""
    )
}
