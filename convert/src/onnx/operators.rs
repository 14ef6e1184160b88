//! Operators before the graph is built: those that make a file another kind of network are refused in words, and those
//! that onnxruntime fuses (domain `com.microsoft`) are taken apart into the ones that the recognition knows.

use std::iter;
use std::ops::Range;
use std::path::Path;

use crate::error::Error;
use crate::onnx::proto::{Attribute, Graph, Node, Tensor, data_type};

/// Swaps the last two axes, whatever the rank is. ONNX has no such operator; this name is ours.
pub(crate) const SWAP: &str = "vitlet.SwapLastAxes";

/// Refuses what can not be a plain ViT in f32, and says why.
///
/// # Errors
/// Quantized files, files for one kind of processor, and operators that are not supported yet.
pub(crate) fn refuse(path: &Path, nodes: &[Node]) -> Result<(), Error> {
    let first = |is: fn(&Node) -> bool| nodes.iter().find(|n| is(n));
    let name = |n: &Node| format!("node {} ({})", label(n), n.op_type);
    if let Some(node) = first(is_quantized) {
        let why = format!("a quantized file, at {}; export the f32 network, which vitlet quantizes itself", name(node));
        return Err(Error::file(path, why));
    }
    if let Some(node) = first(|n| n.domain.starts_with("com.microsoft.n") || n.op_type.starts_with("Nhwc")) {
        let why = format!(
            "onnxruntime wrote it for one kind of processor, at {}; give the exported file, or optimize it with at \
             most ORT_ENABLE_EXTENDED",
            name(node)
        );
        return Err(Error::file(path, why));
    }
    let unsupported = |n: &Node| match &*n.op_type {
        "RotaryEmbedding" | "GemmaRotaryEmbedding" => Some("RotaryEmbedding"),
        _ => None,
    };
    match nodes.iter().find_map(|n| Some((n, unsupported(n)?))) {
        Some((node, what)) => {
            let cure = "if its checkpoint is there (config.json and safetensors), try that";
            Err(Error::file(path, format!("{what} is not supported yet in ONNX files, at {}; {cure}", name(node))))
        }
        None => Ok(()),
    }
}

/// The name of a node in messages: its own, or the name of its first output.
pub(crate) fn label(node: &Node) -> &str {
    let output = node.output.first().map_or("", |o| o);
    if node.name.is_empty() { output } else { &node.name }
}

/// Of ONNX: QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear, MatMulInteger, ConvInteger, QLinearConv,
/// QLinearMatMul. Of onnxruntime: more than thirty, all named alike.
fn is_quantized(node: &Node) -> bool {
    let op = &*node.op_type;
    let start = ["QLinear", "QOrdered", "Quantize", "Dequantize", "DynamicQuantize", "MatMulInteger", "ConvInteger"];
    let named = [
        "QGemm",
        "QAttention",
        "QEmbedLayerNormalization",
        "QMoE",
        "MatMulNBits",
        "MatMulBnb4",
        "MatMulFpQ4",
        "MulInteger",
    ];
    start.iter().any(|s| op.starts_with(s)) || named.contains(&op) || op.ends_with("BlockQuantized")
}

/// Takes fused operators apart. What is not known stays, with its domain before its name.
pub(crate) fn expand(graph: &mut Graph) {
    let mut parts = Parts::default();
    for node in std::mem::take(&mut graph.node) {
        match (&*node.domain, &*node.op_type) {
            // onnxruntime's name, from before there was a standard one.
            ("" | "ai.onnx" | "com.microsoft", "SimplifiedLayerNormalization") => parts.rms_norm(node),
            ("" | "ai.onnx", _) => parts.nodes.push(node),
            ("com.microsoft", "Gelu" | "QuickGelu") => parts.nodes.push(Node { domain: String::new(), ..node }),
            ("com.microsoft", "FastGelu" | "BiasGelu") => parts.gelu(node),
            ("com.microsoft", "FusedMatMul") => parts.fused_matmul(node),
            ("com.microsoft", "SkipLayerNormalization") => parts.skip_norm(node, "LayerNormalization", 2..4),
            ("com.microsoft", "SkipSimplifiedLayerNormalization") => parts.skip_norm(node, "RMSNormalization", 2..3),
            ("com.microsoft", "MultiHeadAttention") if is_plain(&node, 3, 4) => parts.multi_head_attention(node),
            ("com.microsoft", "Attention") if is_plain(&node, 2, 3) => parts.attention(node),
            (domain, op) => parts.nodes.push(Node { op_type: format!("{domain}.{op}"), ..node }),
        }
    }
    graph.node = parts.nodes;
    graph.initializer.extend(parts.numbers);
}

/// Whether the first `data` inputs are there and none from `end` on (between them stands a bias, or nothing), and no
/// attribute asks for more than plain attention.
fn is_plain(node: &Node, data: usize, end: usize) -> bool {
    let there = |at: usize| node.input.get(at).is_some_and(|name| !name.is_empty());
    (0..data).all(there)
        && !(end..node.input.len()).any(there)
        && node.attribute.iter().all(|a| {
            let set = a.i != 0 && matches!(&*a.name, "unidirectional" | "do_rotary" | "past_present_share_buffer");
            !set && a.name != "qkv_hidden_sizes"
        })
}

/// Nodes and constants that take the place of fused ones.
#[derive(Default)]
struct Parts {
    nodes: Vec<Node>,
    numbers: Vec<Tensor>,
}

impl Parts {
    /// Adds an operator in the place of `of`; its output gets a name that no file has.
    fn push(&mut self, of: &Node, op: &str, input: &[&str], attribute: Vec<Attribute>) -> String {
        let output = format!("{}\u{0}{}", label(of), self.nodes.len());
        self.nodes.push(Node {
            input: input.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.clone()],
            name: label(of).to_owned(),
            op_type: op.to_owned(),
            attribute,
            domain: String::new(),
        });
        output
    }

    /// Gives the operator that was added last the outputs of `of`, whose place is now taken.
    fn finish(&mut self, of: Node) {
        if let Some(last) = self.nodes.last_mut() {
            last.output = of.output;
            last.output.truncate(1);
        }
    }

    /// `value` with `bias` added, where there is one.
    fn biased(&mut self, of: &Node, value: &str, bias: &str) -> String {
        if bias.is_empty() { value.to_owned() } else { self.push(of, "Add", &[value, bias], vec![]) }
    }

    /// By tanh where the operator says so, after adding a bias.
    fn gelu(&mut self, node: Node) {
        let approximate = if node.op_type == "FastGelu" { "tanh" } else { "none" };
        let sum = self.biased(&node, input(&node, 0), input(&node, 1));
        let text = Attribute { name: "approximate".to_owned(), s: approximate.into(), ..Attribute::default() };
        self.push(&node, "Gelu", &[&sum], vec![text]);
        self.finish(node);
    }

    /// `alpha A B`, each of them transposed where the operator says so.
    fn fused_matmul(&mut self, node: Node) {
        if flag(&node, "transBatchA") || flag(&node, "transBatchB") {
            return self.nodes.push(Node { op_type: "com.microsoft.FusedMatMul".to_owned(), ..node });
        }
        let mut operand = |at: usize, name: &str| match flag(&node, name) {
            true => self.push(&node, SWAP, &[input(&node, at)], vec![]),
            false => input(&node, at).to_owned(),
        };
        let (a, b) = (operand(0, "transA"), operand(1, "transB"));
        let alpha = attribute(&node, "alpha").map_or(1.0, |a| a.f);
        let product = self.push(&node, "MatMul", &[&a, &b], vec![]);
        if alpha != 1.0 {
            let number = format!("{product} alpha");
            let data_type = data_type::FLOAT;
            self.numbers.push(Tensor { name: number.clone(), data_type, float_data: vec![alpha], ..Tensor::default() });
            self.push(&node, "Mul", &[&product, &number], vec![]);
        }
        self.finish(node);
    }

    /// An RMSNorm under another name.
    fn rms_norm(&mut self, node: Node) {
        self.nodes.push(Node { op_type: "RMSNormalization".to_owned(), domain: String::new(), ..node });
    }

    /// The residual addition with the norm `op` after it, whose parameters are the inputs `parameters`. The next one is
    /// a bias of the branch; output 3 is the sum.
    fn skip_norm(&mut self, node: Node, op: &str, parameters: Range<usize>) {
        let makes = |name: &str| {
            self.nodes.iter().any(|n| n.op_type == "MatMul" && n.output.first().is_some_and(|o| o == name))
        };
        let (mut branch, mut skip) = (input(&node, 0).to_owned(), input(&node, 1).to_owned());
        // The bias belongs to the linear layer before one of the two.
        if makes(&skip) && !makes(&branch) {
            std::mem::swap(&mut branch, &mut skip);
        }
        let branch = self.biased(&node, &branch, input(&node, parameters.end));
        let mut sum = self.push(&node, "Add", &[&branch, &skip], vec![]);
        if let (Some(name), Some(last)) = (node.output.get(3).filter(|o| !o.is_empty()), self.nodes.last_mut()) {
            sum = name.clone();
            last.output = vec![sum.clone()];
        }
        let epsilon = attribute(&node, "epsilon").map_or(1e-12, |a| a.f);
        let epsilon = Attribute { name: "epsilon".to_owned(), f: epsilon, ..Attribute::default() };
        let inputs: Vec<&str> = iter::once(&*sum).chain(parameters.map(|at| input(&node, at))).collect();
        self.push(&node, op, &inputs, vec![epsilon]);
        self.finish(node);
    }

    /// Queries, keys and values `[1, tokens, heads * head_dim]`, and one bias for all three.
    fn multi_head_attention(&mut self, node: Node) {
        let parts = [0, 1, 2].map(|at| input(&node, at).to_owned());
        let parts = match input(&node, 3) {
            "" => parts,
            bias => {
                let biases = self.thirds(&node, bias);
                [0, 1, 2].map(|i| self.push(&node, "Add", &[&parts[i], &biases[i]], vec![]))
            }
        };
        self.heads(node, &parts);
    }

    /// One linear layer for queries, keys and values, and attention after it.
    fn attention(&mut self, node: Node) {
        let product = self.push(&node, "MatMul", &[input(&node, 0), input(&node, 1)], vec![]);
        let sum = self.biased(&node, &product, input(&node, 2));
        let parts = self.thirds(&node, &sum);
        self.heads(node, &parts);
    }

    /// Three equal parts of the last axis.
    fn thirds(&mut self, of: &Node, value: &str) -> [String; 3] {
        let axis = Attribute { name: "axis".to_owned(), i: -1, ..Attribute::default() };
        let first = self.push(of, "Split", &[value], vec![axis]);
        let names = [first.clone(), format!("{first} k"), format!("{first} v")];
        if let Some(last) = self.nodes.last_mut() {
            last.output = names.to_vec();
        }
        names
    }

    fn heads(&mut self, node: Node, parts: &[String; 3]) {
        let count = attribute(&node, "num_heads").map_or(0, |a| a.i);
        let scale = attribute(&node, "scale").filter(|a| a.f != 0.0).cloned();
        let heads = |name: &str| Attribute { name: name.to_owned(), i: count, ..Attribute::default() };
        let attributes = [heads("q_num_heads"), heads("kv_num_heads")].into_iter().chain(scale).collect();
        self.push(&node, "Attention", &[&parts[0], &parts[1], &parts[2]], attributes);
        self.finish(node);
    }
}

fn input(node: &Node, at: usize) -> &str {
    node.input.get(at).map_or("", |name| name)
}

fn attribute<'n>(node: &'n Node, name: &str) -> Option<&'n Attribute> {
    node.attribute.iter().find(|a| a.name == name)
}

fn flag(node: &Node, name: &str) -> bool {
    attribute(node, name).is_some_and(|a| a.i != 0)
}
