//! tract as the reference: an ONNX file, run in f32 as its author exported it.
//!
//! Nothing of vitlet is in the way of its numbers, so an accuracy that vitlet claims is measured against them. A
//! dynamic batch is one picture; f16 weights are widened (exactly) and computed with in f32; external data stands
//! beside the file.
//!
//! ```no_run
//! # fn main() -> Result<(), vitlet_convert::Error> {
//! use std::path::Path;
//! use vitlet_convert::reference::Reference;
//!
//! let reference = Reference::open(Path::new("model.onnx"), None)?;
//! let (height, width) = reference.size();
//! let logits = reference.run(&vec![0.0; 3 * height * width])?;
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, TensorProto, tensor_shape_proto::dimension, type_proto};
use tract_onnx::prelude::*;

use crate::error::Error;

/// An ONNX file, ready to run on one picture after another, on the calling thread.
#[derive(Debug)]
pub struct Reference {
    path: PathBuf,
    plan: Arc<TypedRunnableModel>,
    size: (usize, usize),
    outputs: usize,
}

/// What one run gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Tapped {
    /// The first output: logits, or features of a network without head.
    pub logits: Vec<f32>,
    /// The inner values that were asked for, in that order, row by row.
    pub taps: Vec<Vec<f32>>,
}

impl Reference {
    /// Reads a file and prepares it for one picture of its own size, or of `size` (height, width) where it leaves that
    /// open.
    ///
    /// # Errors
    /// A file that is not ONNX, that tract cannot run, that does not take one picture `[1, 3, height, width]`, or that
    /// normalizes the picture itself.
    pub fn open(path: &Path, size: Option<(usize, usize)>) -> Result<Self, Error> {
        Self::open_tapped(path, size, &[])
    }

    /// The same, and [`Reference::run_tapped`] also returns the values of these names in the graph
    /// ([`crate::onnx::taps`] says which they are for the residual stream of a ViT).
    ///
    /// # Errors
    /// As [`Reference::open`], and a name that is not in the graph.
    pub fn open_tapped(path: &Path, size: Option<(usize, usize)>, taps: &[String]) -> Result<Self, Error> {
        let failed = |e: TractError| Error::file(path, format!("tract cannot run it: {}", one_line(&e)));
        let onnx = tract_onnx::onnx().with_ignore_value_info(true);
        let mut proto = onnx
            .proto_model_for_path(path)
            .map_err(|e| Error::file(path, format!("not a whole ONNX file ({})", one_line(&e))))?;
        let graph = proto.graph.as_mut().ok_or_else(|| Error::file(path, "not an ONNX file: it has no graph"))?;
        let size = input_size(path, graph, size)?;
        if crate::onnx::normalizes(path, Some(size)) {
            let why = "its graph normalizes the picture, but tract gets normalized pictures; give a file without \
                       normalization";
            return Err(Error::file(path, why));
        }
        widen(path, graph)?;
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let dir = dir.to_str().ok_or_else(|| Error::file(path, "the directory's name is not UTF-8"))?;
        let parsed = onnx.parse(&proto, Some(dir)).map_err(failed)?;
        let mut model = parsed.model;
        let mut outlets = vec![*model.outputs.first().ok_or_else(|| Error::file(path, "the graph has no output"))?];
        for name in taps {
            let outlet = parsed.outlets_by_name.get(name);
            outlets.push(*outlet.ok_or_else(|| Error::file(path, format!("no value {name} in the graph")))?);
        }
        model.select_output_outlets(&outlets).map_err(failed)?;
        let model = model.with_input_fact(0, f32::fact([1, 3, size.0, size.1]).into()).map_err(failed)?;
        let model = model.into_optimized().map_err(failed)?;
        let shape = model.output_fact(0).map_err(failed)?.shape.as_concrete().map(<[usize]>::to_vec);
        let outputs = match shape.as_deref() {
            Some(&[1, n]) => n,
            other => {
                let why =
                    format!("its first output has shape {other:?}; one row of logits or features [1, n] is expected");
                return Err(Error::file(path, why));
            }
        };
        let plan = model.into_runnable().map_err(failed)?;
        Ok(Self { path: path.to_owned(), plan, size, outputs })
    }

    /// Height and width of the input, in pixels.
    pub fn size(&self) -> (usize, usize) {
        self.size
    }

    /// Length of the first output: classes, or features of a network without head.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Logits of one normalized input `[3, height, width]`.
    ///
    /// # Errors
    /// An input of another length, or a failure inside tract.
    pub fn run(&self, input: &[f32]) -> Result<Vec<f32>, Error> {
        self.run_tapped(input).map(|all| all.logits)
    }

    /// Logits and the values that [`Reference::open_tapped`] was asked for.
    ///
    /// # Errors
    /// As [`Reference::run`].
    pub fn run_tapped(&self, input: &[f32]) -> Result<Tapped, Error> {
        let failed = |e: TractError| Error::file(&self.path, format!("tract failed: {}", one_line(&e)));
        let shape = [1, 3, self.size.0, self.size.1];
        let input = Tensor::from_shape(&shape, input).map_err(failed)?;
        let all = self.plan.run(tvec!(input.into_tvalue())).map_err(failed)?;
        let mut values = all.iter().map(|t| Ok(t.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec()));
        let logits = values.next().unwrap_or_else(|| Ok(Vec::new())).map_err(failed)?;
        let taps = values.collect::<TractResult<_>>().map_err(failed)?;
        Ok(Tapped { logits, taps })
    }
}

/// tract's errors are chains over several lines.
fn one_line(e: &TractError) -> String {
    let text = format!("{e:#}");
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > 300 {
        line = line.chars().take(300).chain(" ...".chars()).collect();
    }
    line
}

/// Height and width of the one input that is not a weight.
fn input_size(path: &Path, graph: &GraphProto, given: Option<(usize, usize)>) -> Result<(usize, usize), Error> {
    let is_weight = |name: &str| graph.initializer.iter().any(|t| t.name == name);
    let inputs: Vec<_> = graph.input.iter().filter(|i| !is_weight(&i.name)).collect();
    let [input] = inputs[..] else {
        return Err(Error::file(path, format!("{} inputs; a picture alone is expected", inputs.len())));
    };
    let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Err(Error::file(path, format!("input {} is not a tensor", input.name)));
    };
    let dim = |d: &tract_onnx::pb::tensor_shape_proto::Dimension| match d.value {
        Some(dimension::Value::DimValue(n)) => usize::try_from(n).ok().filter(|n| *n > 0),
        _ => None,
    };
    let shape: Vec<Option<usize>> = tensor.shape.iter().flat_map(|s| &s.dim).map(dim).collect();
    let open = |n: Option<usize>, want: usize| n.is_none_or(|n| n == want);
    match (&shape[..], given) {
        (&[n, c, Some(h), Some(w)], _) if open(n, 1) && open(c, 3) => Ok((h, w)),
        (&[n, c, h, w], Some(size)) if open(n, 1) && open(c, 3) && open(h, size.0) && open(w, size.1) => Ok(size),
        (&[_, _, None, _] | &[_, _, _, None], None) => {
            Err(Error::file(path, "the size of its pictures is open; name it with --image-size"))
        }
        _ => {
            let known =
                shape.iter().map(|d| d.map_or("?".to_owned(), |n| n.to_string())).collect::<Vec<_>>().join(", ");
            let want = given.map_or("height, width".to_owned(), |(h, w)| format!("{h}, {w}"));
            Err(Error::file(path, format!("its input is [{known}], and [1, 3, {want}] is expected")))
        }
    }
}

/// Every f16 of the graph becomes f32: the weights, the types, and what casts cast to.
fn widen(path: &Path, graph: &mut GraphProto) -> Result<(), Error> {
    let (half, single) = (DataType::Float16 as i32, DataType::Float as i32);
    let types = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    for info in types {
        if let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|t| t.value.as_mut())
            && tensor.elem_type == half
        {
            tensor.elem_type = single;
        }
    }
    for tensor in &mut graph.initializer {
        widen_tensor(path, tensor)?;
    }
    for node in &mut graph.node {
        for attribute in &mut node.attribute {
            if attribute.name == "to" && node.op_type == "Cast" && attribute.i == i64::from(half) {
                attribute.i = i64::from(single);
            }
            if let Some(tensor) = &mut attribute.t {
                widen_tensor(path, tensor)?;
            }
            if let Some(graph) = &mut attribute.g {
                widen(path, graph)?;
            }
        }
    }
    Ok(())
}

fn widen_tensor(path: &Path, tensor: &mut TensorProto) -> Result<(), Error> {
    if tensor.data_type != DataType::Float16 as i32 {
        return Ok(());
    }
    // int32_data holds an f16 in the low half of each element.
    let values: Vec<f16> = if !tensor.external_data.is_empty() {
        let bytes =
            crate::onnx::Files::new(path).external(tensor.external_data.iter().map(|e| (&*e.key, &*e.value)))?;
        bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b)).collect()
    } else if tensor.raw_data.is_empty() {
        tensor.int32_data.iter().map(|bits| f16::from_bits(*bits as u16)).collect()
    } else {
        tensor.raw_data.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b)).collect()
    };
    tensor.raw_data = values.iter().flat_map(|x| x.to_f32().to_le_bytes()).collect();
    tensor.data_type = DataType::Float as i32;
    tensor.int32_data.clear();
    tensor.external_data.clear();
    tensor.data_location = None;
    Ok(())
}
