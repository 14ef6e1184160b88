//! The format of torch.save before PyTorch 1.6: five pickles one after another, then the storages.
//!
//! The pickles are a magic number, the version 1001, the machine's byte order and sizes, the object, and the
//! storages' keys. Each storage is its number of elements in 8 bytes, then the elements. Source: `_legacy_save` in
//! torch/serialization.py.

use std::collections::BTreeMap;
use std::ops::Range;

use super::input::Input;
use super::machine::{Budget, load};
use super::tensor::Storages;
use super::value::{Graph, Id, Value};

/// 0x1950a86a20f9469cfc6c in two's complement.
pub(super) const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// The object of a file in this format, and where its storages are; `None` where the first pickle is not the magic
/// number.
///
/// # Errors
/// Damage, and another byte order than ours.
pub(super) fn open(file: &[u8]) -> Result<Option<(Graph<'_>, Id, Storages)>, String> {
    let mut budget = Budget::default();
    let mut at = match load(file, &mut budget) {
        Ok((magic, id, len)) if matches!(magic.get(id), Value::Bytes(bytes) if *bytes == MAGIC) => len,
        _ => return Ok(None),
    };
    let mut next = || {
        let (graph, id, len) = load(&file[at..], &mut budget)?;
        at += len;
        Ok::<_, String>((graph, id))
    };
    next()?;
    let little_endian = next().map(|(machine, id)| {
        let flag = machine.item(id, "little_endian").map(|id| machine.get(id));
        !matches!(flag, Some(Value::Bool(false)))
    })?;
    if !little_endian {
        return Err(super::BIG_ENDIAN.to_owned());
    }
    let (graph, object) = next()?;
    let (keys, id) = next()?;
    let sizes = element_sizes(&graph);
    let storages = ranges(file, at, &keys, id, &sizes);
    let storages = storages.ok_or_else(|| {
        format!("its storages are damaged, or of a type that is not supported; {}", super::SAVE_AGAIN)
    })?;
    Ok(Some((graph, object, Storages::Legacy(storages))))
}

/// Bytes of an element of each storage that the object refers to.
fn element_sizes(graph: &Graph<'_>) -> BTreeMap<String, usize> {
    let size = |reference: Id| {
        let [_, class, key, ..] = graph.elements(reference)? else { return None };
        let (_, name) = graph.global(*class)?;
        Some((graph.text(*key)?.to_owned(), super::tensor::dtype(name)?.bitsize() / 8))
    };
    graph
        .values()
        .filter_map(|value| if let Value::Persistent(reference) = value { size(*reference) } else { None })
        .collect()
}

/// The storages behind `at`, in the order of their keys.
fn ranges(
    file: &[u8],
    mut at: usize,
    keys: &Graph<'_>,
    id: Id,
    sizes: &BTreeMap<String, usize>,
) -> Option<BTreeMap<String, Range<usize>>> {
    let mut ranges = BTreeMap::new();
    for key in keys.elements(id)? {
        let key = keys.text(*key)?;
        let count = usize::try_from(Input::new(file.get(at..)?).u64()?).ok()?;
        let start = at.checked_add(8)?;
        at = start.checked_add(count.checked_mul(*sizes.get(key)?)?)?;
        file.get(start..at)?;
        ranges.insert(key.to_owned(), start..at);
    }
    Some(ranges)
}
