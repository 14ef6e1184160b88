//! The same network as an ONNX file: one fused attention for each block, weights as exporters leave them.

use std::fs;
use std::path::Path;

use prost::Message;

use crate::{DEPTH, DIM, HIDDEN, number};

#[allow(dead_code, reason = "the converter's, which reads more kinds of elements than are written here")]
#[path = "../../src/onnx/proto.rs"]
mod proto;

use proto::{
    Attribute, Dimension, Graph, Model, Node, OperatorSet, Shape, Tensor, TensorType, Type, ValueInfo, data_type,
};

/// Patches of 8 x 8 pixels, and one token for the class.
const TOKENS: usize = 17;

/// A graph that grows node by node; each node is named as its output.
#[derive(Default)]
struct Builder(Graph);

impl Builder {
    fn floats(&mut self, name: &str, shape: &[usize]) -> String {
        let raw: Vec<u8> = (1..=shape.iter().product()).flat_map(|i| number(i).to_le_bytes()).collect();
        self.constant(name, shape, data_type::FLOAT, raw)
    }

    fn ints(&mut self, name: &str, values: &[i64]) -> String {
        let raw = values.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.constant(name, &[values.len()], data_type::INT64, raw)
    }

    fn constant(&mut self, name: &str, shape: &[usize], data_type: i32, raw: Vec<u8>) -> String {
        let dims = shape.iter().map(|n| *n as i64).collect();
        let tensor = Tensor { name: name.to_owned(), dims, data_type, raw_data: raw.into(), ..Tensor::default() };
        self.0.initializer.push(tensor);
        name.to_owned()
    }

    fn node(&mut self, op: &str, inputs: &[&str], output: &str, attributes: &[(&str, &[i64])]) -> String {
        let attribute = |(name, values): &(&str, &[i64])| match values {
            [i] if *name != "perm" => Attribute { name: (*name).to_owned(), i: *i, ..Attribute::default() },
            ints => Attribute { name: (*name).to_owned(), ints: ints.to_vec(), ..Attribute::default() },
        };
        self.0.node.push(Node {
            op_type: op.to_owned(),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: attributes.iter().map(attribute).collect(),
            ..Node::default()
        });
        output.to_owned()
    }

    fn norm(&mut self, x: &str, name: &str) -> String {
        let (weight, bias) =
            (self.floats(&format!("{name}.weight"), &[DIM]), self.floats(&format!("{name}.bias"), &[DIM]));
        self.node("LayerNormalization", &[x, &weight, &bias], name, &[("axis", &[-1])])
    }

    /// A product with weights `[k, n]`.
    fn linear(&mut self, x: &str, name: &str, (n, k): (usize, usize)) -> String {
        let weight = self.floats(&format!("{name}.weight"), &[k, n]);
        self.biased(x, &weight, name, n)
    }

    /// A product with weights `[n, k]` that a node transposes.
    fn transposed(&mut self, x: &str, name: &str, (n, k): (usize, usize)) -> String {
        let weight = self.floats(&format!("{name}.weight"), &[n, k]);
        let weight = self.node("Transpose", &[&weight], &format!("{name}.transposed"), &[("perm", &[1, 0])]);
        self.biased(x, &weight, name, n)
    }

    fn biased(&mut self, x: &str, weight: &str, name: &str, n: usize) -> String {
        let bias = self.floats(&format!("{name}.bias"), &[n]);
        let product = self.node("MatMul", &[x, weight], &format!("{name}.product"), &[]);
        self.node("Add", &[&product, &bias], name, &[])
    }

    fn embedding(&mut self) -> String {
        let weight = self.floats("patch.weight", &[DIM, 3, 8, 8]);
        let bias = self.floats("patch.bias", &[DIM]);
        let patches = self.node("Conv", &["pixels", &weight, &bias], "patch", &[("strides", &[8, 8])]);
        let shape = self.ints("shape", &[1, DIM as i64, -1]);
        let rows = self.node("Reshape", &[&patches, &shape], "rows", &[]);
        let rows = self.node("Transpose", &[&rows], "patches", &[("perm", &[0, 2, 1])]);
        let class = self.floats("class", &[1, 1, DIM]);
        let tokens = self.node("Concat", &[&class, &rows], "tokens", &[("axis", &[1])]);
        let positions = self.floats("positions", &[1, TOKENS, DIM]);
        self.node("Add", &[&tokens, &positions], "embedded", &[])
    }

    fn block(&mut self, x: &str, i: usize) -> String {
        let at = |name: &str| format!("blocks.{i}.{name}");
        let normed = self.norm(x, &at("norm1"));
        let qkv = self.linear(&normed, &at("qkv"), (3 * DIM, DIM));
        self.node("Split", &[&qkv], &at("q"), &[("axis", &[2])]);
        let split = self.0.node.last_mut().expect("the node");
        split.output.extend([at("k"), at("v")]);
        let heads: [(&str, &[i64]); 2] = [("q_num_heads", &[4]), ("kv_num_heads", &[4])];
        let attended = self.node("Attention", &[&at("q"), &at("k"), &at("v")], &at("attention"), &heads);
        let branch = self.transposed(&attended, &at("proj"), (DIM, DIM));
        let x = self.node("Add", &[x, &branch], &at("attended"), &[]);
        let normed = self.norm(&x, &at("norm2"));
        let hidden = self.linear(&normed, &at("fc1"), (HIDDEN, DIM));
        let hidden = self.node("Gelu", &[&hidden], &at("gelu"), &[]);
        let branch = self.transposed(&hidden, &at("fc2"), (DIM, HIDDEN));
        self.node("Add", &[&x, &branch], &at("out"), &[])
    }
}

pub(crate) fn write(path: &Path) {
    let mut graph = Builder::default();
    let mut x = graph.embedding();
    for i in 0..DEPTH {
        x = graph.block(&x, i);
    }
    let x = graph.norm(&x, "norm");
    let first = graph.constant("first", &[], data_type::INT64, vec![0; 8]);
    let class = graph.node("Gather", &[&x, &first], "features", &[("axis", &[1])]);
    let (weight, bias) = (graph.floats("head.weight", &[7, DIM]), graph.floats("head.bias", &[7]));
    graph.node("Gemm", &[&class, &weight, &bias], "logits", &[("transB", &[1])]);

    let value = |name: &str, dims: &[i64]| {
        let dim = dims.iter().map(|n| Dimension { dim_value: Some(*n) }).collect();
        let tensor_type = TensorType { elem_type: data_type::FLOAT, shape: Some(Shape { dim }) };
        ValueInfo { name: name.to_owned(), r#type: Some(Type { tensor_type: Some(tensor_type) }) }
    };
    let Builder(mut graph) = graph;
    graph.input.push(value("pixels", &[1, 3, 32, 32]));
    graph.output.push(value("logits", &[1, 7]));
    let opset_import = vec![OperatorSet { domain: String::new(), version: 23 }];
    fs::write(path, Model { graph: Some(graph), opset_import }.encode_to_vec()).expect("written");
}
