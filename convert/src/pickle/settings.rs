//! The statements of a training checkpoint about its network: `arch` and `args` of timm's train.py and its kind.

use serde_json::{Map, Value as Json};

use super::MAX_NAME;
use super::value::{Graph, Id, Value};

/// How deep settings may be in each other, and how many are read.
const MAX_DEPTH: usize = 3;
const MAX_SETTINGS: usize = 1000;

/// `arch` and `args` of a checkpoint, where they are plain values.
pub(super) fn settings(graph: &Graph<'_>, root: Id) -> Map<String, Json> {
    let mut settings = Map::new();
    let mut left = MAX_SETTINGS;
    for key in ["arch", "args"] {
        let value = graph.item(root, key).and_then(|id| plain(graph, id, MAX_DEPTH, &mut left));
        settings.extend(value.map(|value| (key.to_owned(), value)));
    }
    settings
}

/// Numbers, strings, and lists and dicts of them; an object's attributes as a dict. At most `left` values.
fn plain(graph: &Graph<'_>, id: Id, depth: usize, left: &mut usize) -> Option<Json> {
    let depth = depth.checked_sub(1)?;
    *left = left.checked_sub(1)?;
    let id = graph.attributes(id).unwrap_or(id);
    Some(match graph.get(id) {
        Value::Bool(flag) => (*flag).into(),
        Value::Int(n) => (*n).into(),
        Value::Float(x) => (*x).into(),
        Value::Str(text) if text.len() <= MAX_NAME => (*text).into(),
        // Sizes, means and such; a trainer's longer lists are no settings of the network.
        Value::List(ids) | Value::Tuple(ids) if ids.len() <= 3 => {
            ids.iter().map(|id| plain(graph, *id, depth, left)).collect::<Option<Vec<_>>>()?.into()
        }
        Value::Dict(_) => {
            let items = graph.items(id).filter(|(key, _)| key.len() <= MAX_NAME).take(MAX_SETTINGS);
            let items = items.filter_map(|(key, id)| Some((key.to_owned(), plain(graph, id, depth, left)?)));
            Json::Object(items.collect())
        }
        _ => return None,
    })
}
