//! An ONNX file as a graph of values and nodes: protobuf decoded, names resolved to numbers, vectors widened to f32.
//! Matrices stay in the mapped file until they are needed.
//!
//! `fold` then gives every value its shape, and those that do not depend on the picture their elements.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use half::{bf16, f16};
use prost::Message;
use safetensors::Dtype;

use crate::error::Error;
use crate::onnx::array::{Array, len_of};
use crate::onnx::proto::{self, data_type};
use crate::onnx::{Files, operators};
use crate::tensor::Tensor;

/// Element types of pictures that are not normalized.
const INTEGERS: [i32; 4] = [data_type::UINT8, data_type::INT8, data_type::INT32, data_type::INT64];

/// Pixels in height or width, at most, as in a model file.
const LONGEST_EDGE: usize = 16_384;

/// Index into [`Graph::values`].
pub(crate) type ValueId = usize;
/// Index into [`Graph::nodes`].
pub(crate) type NodeId = usize;

/// A graph for one picture.
#[derive(Debug)]
pub(crate) struct Graph {
    pub nodes: Vec<Node>,
    pub values: Vec<Value>,
    /// The picture: `[1, 3, height, width]`, or `[1, height, width, 3]`; perhaps without the first axis.
    pub input: ValueId,
    /// The picture's channels are its last axis.
    pub channels_last: bool,
    /// The picture consists of integers from 0 to 255.
    pub levels: bool,
    pub outputs: Vec<ValueId>,
    pub opset: i64,
}

/// One operator.
#[derive(Debug)]
pub(crate) struct Node {
    /// For messages: the node's name, or the name of its first output.
    pub name: String,
    pub op: String,
    /// None where an optional input is left out.
    pub inputs: Vec<Option<ValueId>>,
    pub outputs: Vec<ValueId>,
    attributes: Vec<proto::Attribute>,
}

/// What flows between nodes.
#[derive(Debug, Default)]
pub(crate) struct Value {
    pub name: String,
    /// The node, and which of its outputs.
    pub producer: Option<(NodeId, usize)>,
    pub consumers: Vec<NodeId>,
    /// None where it is not known, or holds more elements than a ViT's.
    pub shape: Option<Vec<usize>>,
    /// Its elements, where no picture is needed to know them.
    pub constant: Option<Arc<Constant>>,
}

/// Known elements. f16, bf16 and f64 have become f32, integers and booleans i64.
#[derive(Clone, Debug)]
pub(crate) enum Constant {
    Float(Array<f32>),
    Int(Array<i64>),
    /// A matrix in the file, perhaps by columns: finite floats, more than one on each axis.
    Stored(Tensor),
}

impl Constant {
    pub(crate) fn shape(&self) -> &[usize] {
        match self {
            Self::Float(a) => &a.shape,
            Self::Int(a) => &a.shape,
            Self::Stored(tensor) => &tensor.shape,
        }
    }

    /// The elements of numbers, read if they are in the file. None for integers, and if the file changed meanwhile.
    pub(crate) fn floats(&self) -> Option<Cow<'_, Array<f32>>> {
        match self {
            Self::Float(a) => Some(Cow::Borrowed(a)),
            Self::Int(_) => None,
            Self::Stored(tensor) => Array::new(tensor.shape.clone(), tensor.read().ok()?).map(Cow::Owned),
        }
    }

    /// With its elements in memory, as [`Self::floats`] has them.
    pub(crate) fn loaded(&self) -> Option<Cow<'_, Self>> {
        match self {
            Self::Stored(_) => self.floats().map(|a| Cow::Owned(Self::Float(a.into_owned()))),
            _ => Some(Cow::Borrowed(self)),
        }
    }
}

impl Node {
    fn attribute(&self, name: &str) -> Option<&proto::Attribute> {
        self.attributes.iter().find(|a| a.name == name)
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name).map(|a| a.i)
    }

    pub(crate) fn float(&self, name: &str) -> Option<f32> {
        self.attribute(name).map(|a| a.f)
    }

    pub(crate) fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|a| &a.ints[..])
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.attribute(name).and_then(|a| str::from_utf8(&a.s).ok())
    }

    /// Input `at`, where it is there.
    pub(crate) fn input(&self, at: usize) -> Option<ValueId> {
        self.inputs.get(at).copied().flatten()
    }

    /// What a `Constant` or `ConstantOfShape` node holds.
    pub(crate) fn own_constant(&self, files: &Files<'_>) -> Result<Option<Constant>, Error> {
        for a in &self.attributes {
            let scalar = |n: usize| if n == 1 { vec![] } else { vec![n] };
            return Ok(match &*a.name {
                "value" => match &a.t {
                    Some(t) => Some(constant(files, t.clone())?),
                    None => None,
                },
                "value_float" => Array::new(scalar(1), vec![a.f]).map(Constant::Float),
                "value_int" => Array::new(scalar(1), vec![a.i]).map(Constant::Int),
                "value_floats" => Array::new(vec![a.floats.len()], a.floats.clone()).map(Constant::Float),
                "value_ints" => Array::new(vec![a.ints.len()], a.ints.clone()).map(Constant::Int),
                _ => continue,
            });
        }
        Ok(None)
    }
}

/// Names of values, while the graph is built.
#[derive(Default)]
struct Names {
    values: Vec<Value>,
    by_name: HashMap<String, ValueId>,
}

impl Names {
    fn id(&mut self, name: &str) -> ValueId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        self.values.push(Value { name: name.to_owned(), ..Value::default() });
        self.by_name.insert(name.to_owned(), self.values.len() - 1);
        self.values.len() - 1
    }
}

impl Graph {
    /// Reads a file; the input gets the shape `[1, 3, height, width]` of `size`, or its own.
    ///
    /// # Errors
    /// A file that is not whole or not ONNX, weights that are missing, more inputs than a picture, and as
    /// [`Self::fold`].
    pub(crate) fn read(files: &Files<'_>, size: Option<(usize, usize)>) -> Result<Self, Error> {
        let bytes = crate::tensor::map(files.model)?;
        let model = proto::Model::decode(bytes).map_err(|e| damaged(files.model, &e.to_string()))?;
        let mut graph = Self::new(files, model, size)?;
        graph.fold(files)?;
        Ok(graph)
    }

    fn new(files: &Files<'_>, model: proto::Model, size: Option<(usize, usize)>) -> Result<Self, Error> {
        let path = files.model;
        let damaged = |why: &str| damaged(path, why);
        let opset = model.opset_import.iter().find(|o| o.domain.is_empty() || o.domain == "ai.onnx").map(|o| o.version);
        let opset = opset.ok_or_else(|| damaged("no operator set is named"))?;
        let mut graph = model.graph.filter(|g| !g.node.is_empty()).ok_or_else(|| damaged("no nodes"))?;
        operators::refuse(path, &graph.node)?;
        operators::expand(&mut graph);

        let mut names = Names::default();
        for tensor in graph.initializer {
            let id = names.id(&tensor.name);
            let constant = constant(files, tensor)?;
            names.values[id].shape = Some(constant.shape().to_vec());
            names.values[id].constant = Some(Arc::new(constant));
        }
        let is_weight = |names: &Names, name: &str| names.by_name.contains_key(name);
        let inputs: Vec<_> = graph.input.iter().filter(|i| !is_weight(&names, &i.name)).collect();
        let [picture] = inputs[..] else {
            return Err(Error::file(path, format!("{} inputs; a picture alone is expected", inputs.len())));
        };
        let input = names.id(&picture.name);
        let (shape, channels_last) = picture_shape(path, picture, size, &graph.node, &names)?;
        names.values[input].shape = Some(shape);
        let tensor = picture.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
        let levels = tensor.is_some_and(|t| INTEGERS.contains(&t.elem_type));

        let mut nodes: Vec<Node> = Vec::with_capacity(graph.node.len());
        // A node without outputs does nothing.
        for node in in_order(graph.node).into_iter().filter(|node| !node.output.is_empty()) {
            let first = node.output.first().cloned().unwrap_or_default();
            let mut inputs = Vec::with_capacity(node.input.len());
            for name in &node.input {
                let known = is_weight(&names, name);
                if !name.is_empty() && !known {
                    let why = format!("node {first} ({}) reads {name}, which no node before it writes", node.op_type);
                    return Err(Error::file(path, why));
                }
                inputs.push((!name.is_empty()).then(|| names.id(name)));
            }
            if let Some(twice) = node.output.iter().find(|name| !name.is_empty() && is_weight(&names, name)) {
                return Err(damaged(&format!("{twice} is written twice")));
            }
            let outputs = node.output.iter().map(|name| names.id(name)).collect();
            nodes.push(Node {
                name: operators::label(&node).to_owned(),
                op: node.op_type,
                inputs,
                outputs,
                attributes: node.attribute,
            });
        }
        let outputs: Vec<ValueId> = graph.output.iter().map(|o| names.id(&o.name)).collect();
        let mut values = names.values;
        for (id, node) in nodes.iter().enumerate() {
            node.inputs.iter().flatten().for_each(|v| values[*v].consumers.push(id));
            node.outputs.iter().enumerate().for_each(|(at, v)| values[*v].producer = Some((id, at)));
        }
        Ok(Self { nodes, values, input, channels_last, levels, outputs, opset })
    }

    /// The node that makes a value, and which of its outputs that is.
    pub(crate) fn producer(&self, value: ValueId) -> Option<(&Node, usize)> {
        self.values[value].producer.map(|(node, at)| (&self.nodes[node], at))
    }

    pub(crate) fn shape(&self, value: ValueId) -> Option<&[usize]> {
        self.values[value].shape.as_deref()
    }

    /// The elements of a constant of numbers that is no matrix in the file.
    pub(crate) fn floats(&self, value: ValueId) -> Option<&Array<f32>> {
        match self.values[value].constant.as_deref() {
            Some(Constant::Float(a)) => Some(a),
            _ => None,
        }
    }

    /// The elements of any constant of numbers.
    pub(crate) fn read_floats(&self, value: ValueId) -> Option<Cow<'_, Array<f32>>> {
        self.values[value].constant.as_deref().and_then(Constant::floats)
    }

    /// The shape of a constant of numbers.
    pub(crate) fn float_shape(&self, value: ValueId) -> Option<&[usize]> {
        self.values[value].constant.as_deref().filter(|c| !matches!(c, Constant::Int(_))).map(Constant::shape)
    }

    /// The elements of a constant of integers.
    pub(crate) fn ints(&self, value: ValueId) -> Option<&Array<i64>> {
        match self.values[value].constant.as_deref() {
            Some(Constant::Int(a)) => Some(a),
            _ => None,
        }
    }

    pub(crate) fn is_constant(&self, value: ValueId) -> bool {
        self.values[value].constant.is_some()
    }

    /// Elements of all outputs of a node, where their shapes are known.
    pub(crate) fn output_len(&self, node: &Node) -> Option<usize> {
        node.outputs.iter().try_fold(0usize, |sum, output| sum.checked_add(len_of(self.shape(*output)?)?))
    }

    /// Whether a node after this one reads the value.
    pub(crate) fn is_read_after(&self, value: ValueId, node: NodeId) -> bool {
        self.values[value].consumers.iter().any(|consumer| *consumer > node)
    }
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::file(path, format!("not a whole ONNX file ({why}); export it again"))
}

/// Each node after those whose outputs it reads, which some tools do not keep to; otherwise in the file's order. Nodes
/// of a cycle come last.
fn in_order(nodes: Vec<proto::Node>) -> Vec<proto::Node> {
    let mut maker = HashMap::new();
    for (id, node) in nodes.iter().enumerate() {
        maker.extend(node.output.iter().filter(|o| !o.is_empty()).map(|name| (&**name, id)));
    }
    let mut readers = vec![Vec::new(); nodes.len()];
    let mut missing = vec![0usize; nodes.len()];
    for (id, node) in nodes.iter().enumerate() {
        for from in node.input.iter().filter_map(|name| maker.get(&**name)) {
            readers[*from].push(id);
            missing[id] += 1;
        }
    }
    let mut ready: BTreeSet<usize> = (0..nodes.len()).filter(|id| missing[*id] == 0).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(id) = ready.pop_first() {
        order.push(id);
        for reader in &readers[id] {
            missing[*reader] -= 1;
            if missing[*reader] == 0 {
                ready.insert(*reader);
            }
        }
    }
    order.extend((0..nodes.len()).filter(|id| missing[*id] > 0));
    let mut nodes: Vec<Option<proto::Node>> = nodes.into_iter().map(Some).collect();
    order.into_iter().filter_map(|id| nodes[id].take()).collect()
}

/// The shape of the input, and whether channels are its last axis. A size that the file leaves open is `size`, or the
/// square that fits the longest table of vectors of the patch convolution's width: the position embedding.
fn picture_shape(
    path: &Path,
    input: &proto::ValueInfo,
    size: Option<(usize, usize)>,
    nodes: &[proto::Node],
    names: &Names,
) -> Result<(Vec<usize>, bool), Error> {
    let tensor = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    let known = |d: &proto::Dimension| d.dim_value.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let dims: Vec<Option<usize>> =
        tensor.and_then(|t| t.shape.as_ref()).map_or(vec![], |s| s.dim.iter().map(known).collect());
    let wrong = |want: &str| {
        let own: Vec<String> = dims.iter().map(|d| d.map_or("?".to_owned(), |n| n.to_string())).collect();
        Error::file(path, format!("its input {} is [{}]; {want} is expected", input.name, own.join(", ")))
    };
    let (batch, axes) = dims.split_at(usize::from(dims.len() == 4));
    let (height, width, channels_last) = match *axes {
        [Some(3), height, width] => (height, width, false),
        [height, width, Some(3)] => (height, width, true),
        [None, height, width] if !batch.is_empty() => (height, width, false),
        _ => return Err(wrong("[1, 3, height, width]")),
    };
    if batch.iter().any(|n| n.is_some_and(|n| n != 1)) {
        return Err(wrong("[1, 3, height, width]"));
    }
    let (height, width) = match (height.zip(width), size) {
        (Some(own), Some(given)) if own != given => {
            return Err(wrong(&format!("--image-size {}x{}, for which it must be exported", given.0, given.1)));
        }
        (Some(own), _) => own,
        (None, Some(given)) => given,
        (None, None) => guessed_size(nodes, names)
            .ok_or_else(|| Error::file(path, "its picture size is open; name it with --image-size"))?,
    };
    if height.max(width) > LONGEST_EDGE {
        return Err(wrong(&format!("at most {LONGEST_EDGE} pixels in height and width")));
    }
    let axes = if channels_last { [height, width, 3] } else { [3, height, width] };
    Ok((batch.iter().map(|_| 1).chain(axes).collect(), channels_last))
}

fn guessed_size(nodes: &[proto::Node], names: &Names) -> Option<(usize, usize)> {
    let shape = |name: &String| names.by_name.get(name).and_then(|id| names.values[*id].shape.as_deref());
    let conv = nodes.iter().find(|n| n.op_type == "Conv")?;
    let &[dim, 3, patch_height, patch_width] = shape(conv.input.get(1)?)? else { return None };
    let rows = |v: &Value| match v.shape.as_deref() {
        Some(&[1, rows, d]) if d == dim && v.constant.is_some() => Some(rows),
        _ => None,
    };
    let side = names.values.iter().filter_map(rows).max()?.isqrt();
    (side > 0).then(|| (side * patch_height, side * patch_width))
}

/// A stored tensor: a matrix as it is, others with their elements widened.
fn constant(files: &Files<'_>, tensor: proto::Tensor) -> Result<Constant, Error> {
    let name = tensor.name;
    let wrong = |why: String| Error::file(files.model, format!("tensor {name}: {why}"));
    let shape: Option<Vec<usize>> = tensor.dims.iter().map(|d| usize::try_from(*d).ok()).collect();
    let shape = shape.ok_or_else(|| wrong(format!("shape {:?}", tensor.dims)))?;
    let raw = if tensor.data_location == 1 {
        files.external(tensor.external_data.iter().map(|e| (&*e.key, &*e.value)))?
    } else {
        tensor.raw_data
    };
    if let Some(matrix) = stored_matrix(&name, tensor.data_type, &shape, &raw) {
        return Ok(Constant::Stored(matrix));
    }
    let ints = |wide: &[i32]| wide.iter().map(|x| i64::from(*x)).collect::<Vec<i64>>();
    let data = match tensor.data_type {
        data_type::FLOAT if raw.is_empty() => Ok(tensor.float_data),
        data_type::FLOAT => Ok(elements(&raw, f32::from_le_bytes)),
        data_type::DOUBLE if raw.is_empty() => Ok(tensor.double_data.iter().map(|x| *x as f32).collect()),
        data_type::DOUBLE => Ok(elements(&raw, |b| f64::from_le_bytes(b) as f32)),
        // Without raw bytes, 16-bit elements stand in the low halves of int32_data.
        data_type::FLOAT16 if raw.is_empty() => {
            Ok(tensor.int32_data.iter().map(|x| f16::from_bits(*x as u16).to_f32()).collect())
        }
        data_type::FLOAT16 => Ok(elements(&raw, |b| f16::from_le_bytes(b).to_f32())),
        data_type::BFLOAT16 if raw.is_empty() => {
            Ok(tensor.int32_data.iter().map(|x| bf16::from_bits(*x as u16).to_f32()).collect())
        }
        data_type::BFLOAT16 => Ok(elements(&raw, |b| bf16::from_le_bytes(b).to_f32())),
        data_type::INT64 if raw.is_empty() => Err(tensor.int64_data),
        data_type::INT64 => Err(elements(&raw, i64::from_le_bytes)),
        data_type::INT32 | data_type::BOOL | data_type::INT8 | data_type::UINT8 if raw.is_empty() => {
            Err(ints(&tensor.int32_data))
        }
        data_type::INT32 => Err(elements(&raw, |b| i64::from(i32::from_le_bytes(b)))),
        data_type::INT8 => Err(elements(&raw, |[b]| i64::from(b as i8))),
        data_type::BOOL | data_type::UINT8 => Err(elements(&raw, |[b]| i64::from(b))),
        other => return Err(wrong(format!("element type {other} of ONNX is not supported"))),
    };
    let short = || wrong(format!("its elements do not fill its shape {shape:?}; the file is cut short, or damaged"));
    match data {
        Ok(floats) => {
            if let Some(at) = floats.iter().position(|x| x.is_nan()) {
                return Err(wrong(format!("value NaN at element {at}; the weights are broken")));
            }
            Array::new(shape.clone(), floats).map(Constant::Float).ok_or_else(short)
        }
        Err(ints) => Array::new(shape.clone(), ints).map(Constant::Int).ok_or_else(short),
    }
}

/// A matrix of finite floats, if it is one.
fn stored_matrix(name: &str, data_type: i32, shape: &[usize], raw: &Bytes) -> Option<Tensor> {
    let dtype = match data_type {
        data_type::FLOAT => Dtype::F32,
        data_type::DOUBLE => Dtype::F64,
        data_type::FLOAT16 => Dtype::F16,
        data_type::BFLOAT16 => Dtype::BF16,
        _ => return None,
    };
    let &[rows @ (2..), 2..=usize::MAX] = shape else { return None };
    let bytes = len_of(shape)?.checked_mul(dtype.bitsize() / 8)?;
    let matrix = Tensor { name: name.to_owned(), dtype, shape: shape.to_vec(), strides: None, data: raw.clone() };
    let finite = || (0..rows).all(|row| matrix.read_rows(&[row]).is_ok());
    (raw.len() == bytes && finite()).then_some(matrix)
}

fn elements<T, const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|b| read(*b)).collect()
}
