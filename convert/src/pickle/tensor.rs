//! From the calls that torch.save writes for a tensor to the place of its elements in the file.

use std::collections::BTreeMap;
use std::ops::Range;

use safetensors::Dtype;

use super::value::{Graph, Id, Value};
use super::zip::Zip;

/// More dimensions than any weight has.
const MAX_DIMS: usize = 8;

/// How deep the calls are that wrap a tensor, such as `_rebuild_parameter`.
const MAX_WRAPPERS: usize = 4;

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Steps between elements, in elements; `None` where rows follow each other without gaps.
    pub(crate) strides: Option<Vec<usize>>,
    /// The bytes from the first element to the last, in the file.
    pub(crate) bytes: Range<usize>,
}

impl Default for Tensor {
    /// No element at all.
    fn default() -> Self {
        Self { dtype: Dtype::F32, shape: vec![0], strides: None, bytes: 0..0 }
    }
}

/// Where storages are in the file.
#[derive(Debug)]
pub(super) enum Storages {
    /// In entries of an archive, below this directory.
    Zip(Zip, String),
    /// One after another: ranges by key.
    Legacy(BTreeMap<String, Range<usize>>),
}

impl Storages {
    fn get(&self, key: &str) -> Result<Range<usize>, String> {
        let range = match self {
            Self::Zip(zip, directory) => zip.get(&format!("{directory}data/{key}"))?,
            Self::Legacy(ranges) => ranges.get(key).cloned(),
        };
        range.ok_or_else(|| format!("its storage {} is not in the file; download it again", crate::error::shown(key)))
    }
}

/// Whether a value is a tensor, readable or not.
pub(super) fn is_tensor(graph: &Graph<'_>, id: Id) -> bool {
    graph.object(id).and_then(|call| graph.global(call.callable)).is_some_and(|(module, name)| {
        matches!(module, "torch._utils" | "torch._tensor" | "torch.tensor") && name.starts_with("_rebuild_")
    })
}

/// The tensor that is the value `id`, of which [`is_tensor`] is true.
///
/// # Errors
/// Why it can not be read.
pub(super) fn tensor(graph: &Graph<'_>, storages: &Storages, id: Id) -> Result<Tensor, String> {
    let damaged = || "not a tensor as torch.save writes it; download it again".to_owned();
    let call = graph.object(id).ok_or_else(damaged)?;
    let (mut callable, mut args) = (call.callable, call.args);
    for _ in 0..MAX_WRAPPERS {
        let (_, name) = graph.global(callable).ok_or_else(damaged)?;
        let given = graph.elements(args).ok_or_else(damaged)?;
        match (name, given) {
            ("_rebuild_parameter" | "_rebuild_parameter_with_state", [data, ..]) => {
                let call = graph.object(*data).ok_or_else(damaged)?;
                (callable, args) = (call.callable, call.args);
            }
            // A tensor with attributes, or of a subclass: a function and its arguments.
            ("_rebuild_from_type_v2", [function, _, inner, ..]) => (callable, args) = (*function, *inner),
            ("_rebuild_tensor" | "_rebuild_tensor_v2", [storage, offset, shape, strides, ..]) => {
                return View { graph, offset: *offset, shape: *shape, strides: *strides, dtype: None }
                    .tensor(storages, *storage);
            }
            ("_rebuild_tensor_v3", [storage, offset, shape, strides, _, _, dtype, ..]) => {
                return View { graph, offset: *offset, shape: *shape, strides: *strides, dtype: Some(*dtype) }
                    .tensor(storages, *storage);
            }
            (other, _) => {
                let kind = crate::error::shown(other.trim_start_matches("_rebuild_")).replace('_', " ");
                return Err(format!(
                    "a tensor of another kind ({kind}); save it as an ordinary one (.dequantize(), .to_dense())"
                ));
            }
        }
    }
    Err(damaged())
}

/// A tensor as a view of its storage.
struct View<'g, 'a> {
    graph: &'g Graph<'a>,
    offset: Id,
    shape: Id,
    strides: Id,
    /// Where the storage has no type.
    dtype: Option<Id>,
}

impl View<'_, '_> {
    fn tensor(&self, storages: &Storages, storage: Id) -> Result<Tensor, String> {
        let graph = self.graph;
        let damaged = || "its storage is not as torch.save writes it; download it again".to_owned();
        let Value::Persistent(reference) = graph.get(storage) else { return Err(damaged()) };
        let reference = graph.elements(*reference).ok_or_else(damaged)?;
        let [kind, class, key, _location, _len, rest @ ..] = reference else { return Err(damaged()) };
        if graph.text(*kind) != Some("storage") {
            return Err(damaged());
        }
        if rest.first().is_some_and(|view| !matches!(graph.get(*view), Value::None)) {
            return Err(format!(
                "a view of a part of a storage, as PyTorch before 0.4 wrote it; {}",
                super::SAVE_AGAIN
            ));
        }
        let typed = self.dtype.unwrap_or(*class);
        let (_, name) = graph.global(typed).ok_or_else(damaged)?;
        let dtype = dtype(name).ok_or_else(|| {
            format!("{} values are not supported; f32, f16, bf16 and f64 are", crate::error::shown(name))
        })?;
        let storage = storages.get(graph.text(*key).ok_or_else(damaged)?)?;
        self.within(dtype, storage)
    }

    /// The elements in the bytes of a storage.
    fn within(&self, dtype: Dtype, storage: Range<usize>) -> Result<Tensor, String> {
        let damaged = || "offset, shape or strides are not valid; download it again".to_owned();
        let shape = self.lens(self.shape).ok_or_else(damaged)?;
        let strides = self.lens(self.strides).ok_or_else(damaged)?;
        let offset = self.graph.len(self.offset).ok_or_else(damaged)?;
        if shape.len() != strides.len() {
            return Err(damaged());
        }
        let size = dtype.bitsize() / 8;
        let span = span(&shape, &strides)?;
        let outside = || {
            let bytes = storage.len();
            format!(
                "shape {shape:?} with strides {strides:?} from element {offset} is outside its storage of {bytes} \
                 bytes; download it again"
            )
        };
        let start = offset.checked_mul(size).ok_or_else(outside)?;
        let len = span.checked_mul(size).ok_or_else(outside)?;
        let end = start.checked_add(len).filter(|end| *end <= storage.len()).ok_or_else(outside)?;
        let bytes = storage.start + start..storage.start + end;
        let strides = (!is_contiguous(&shape, &strides)).then_some(strides);
        Ok(Tensor { dtype, shape, strides, bytes })
    }

    /// A tuple of lengths, or a torch.Size of one.
    fn lens(&self, id: Id) -> Option<Vec<usize>> {
        let id = match self.graph.object(id) {
            Some(call) => *self.graph.elements(call.args)?.first()?,
            None => id,
        };
        let ids = self.graph.elements(id).filter(|ids| ids.len() <= MAX_DIMS)?;
        ids.iter().map(|id| self.graph.len(*id)).collect()
    }
}

/// Elements from the first to the last, both included.
///
/// # Errors
/// An element that is there more than once: an expanded tensor can be of any size in a small file.
fn span(shape: &[usize], strides: &[usize]) -> Result<usize, String> {
    if shape.contains(&0) {
        return Ok(0);
    }
    let mut dims: Vec<(usize, usize)> =
        strides.iter().copied().zip(shape.iter().copied()).filter(|(_, len)| *len > 1).collect();
    dims.sort_unstable();
    let mut span = 1_usize;
    for (stride, len) in dims {
        if stride < span {
            return Err(format!(
                "shape {shape:?} with strides {strides:?} has elements more than once; save it with .contiguous()"
            ));
        }
        let last = stride.checked_mul(len - 1).and_then(|last| last.checked_add(span));
        span =
            last.ok_or_else(|| format!("shape {shape:?} with strides {strides:?} is too large; download it again"))?;
    }
    Ok(span)
}

/// Whether rows follow each other without gaps.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut next = 1;
    shape.contains(&0)
        || shape.iter().zip(strides).rev().filter(|(len, _)| **len > 1).all(|(len, stride)| {
            let fits = *stride == next;
            next = next.saturating_mul(*len);
            fits
        })
}

/// The elements' type by the name of a storage's class (`FloatStorage`) or of a dtype (`float32`).
pub(super) fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "FloatStorage" | "float32" => Dtype::F32,
        "HalfStorage" | "float16" => Dtype::F16,
        "BFloat16Storage" | "bfloat16" => Dtype::BF16,
        "DoubleStorage" | "float64" => Dtype::F64,
        "LongStorage" | "int64" => Dtype::I64,
        "IntStorage" | "int32" => Dtype::I32,
        "ShortStorage" | "int16" => Dtype::I16,
        "CharStorage" | "int8" => Dtype::I8,
        "ByteStorage" | "uint8" => Dtype::U8,
        "BoolStorage" | "bool" => Dtype::BOOL,
        "uint16" => Dtype::U16,
        "uint32" => Dtype::U32,
        "uint64" => Dtype::U64,
        "float8_e4m3fn" => Dtype::F8_E4M3,
        "float8_e5m2" => Dtype::F8_E5M2,
        "ComplexFloatStorage" | "complex64" => Dtype::C64,
        _ => return None,
    })
}

/// Where the elements of a tensor with strides stand, in the order of its shape; shape and strides are those of a
/// [`Tensor`].
pub(crate) fn places(shape: &[usize], strides: &[usize]) -> impl Iterator<Item = usize> {
    let len: usize = shape.iter().product();
    let mut index = vec![0; shape.len()];
    let mut next = 0;
    (0..len).map(move |_| {
        let place = next;
        for dim in (0..shape.len()).rev() {
            index[dim] += 1;
            next += strides[dim];
            if index[dim] < shape[dim] {
                break;
            }
            next -= strides[dim] * shape[dim];
            index[dim] = 0;
        }
        place
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        assert_eq!(span(&[3, 4], &[4, 1]), Ok(12));
        assert_eq!(span(&[4, 3], &[1, 4]), Ok(12));
        assert_eq!(span(&[2, 2], &[8, 2]), Ok(11));
        assert_eq!(span(&[], &[]), Ok(1));
        assert_eq!(span(&[1, 1], &[0, 0]), Ok(1));
        assert_eq!(span(&[1 << 40, 0], &[0, 1]), Ok(0));
        assert!(span(&[1 << 40], &[0]).is_err());
        assert!(span(&[3, 3], &[1, 1]).is_err());
        assert!(span(&[1 << 40, 1 << 40], &[1 << 40, 1]).is_err());
    }

    #[test]
    fn contiguity() {
        assert!(is_contiguous(&[2, 3, 4], &[12, 4, 1]));
        assert!(is_contiguous(&[1, 3, 1], &[7, 1, 9]));
        assert!(!is_contiguous(&[3, 2], &[1, 3]));
    }

    #[test]
    fn places_follow_the_shape() {
        assert!(places(&[2, 3], &[1, 4]).eq([0, 4, 8, 1, 5, 9]));
        assert!(places(&[2], &[3]).eq([0, 3]));
        assert_eq!(places(&[2, 0], &[1, 1]).count(), 0);
    }
}
