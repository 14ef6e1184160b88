//! The parts that networks are made of, found by what flows where: linear layers, LayerNorms, activations, and chains
//! that only move elements. Each exporter spells them differently; node names say nothing here.

use vitlet::Activation;

use crate::network::{Layer, Linear, Norm};
use crate::onnx::array::{Array, axis_of};
use crate::onnx::graph::{Constant, Graph, Node, NodeId, ValueId};

/// Operators of one activation, at most: a larger tree is something else.
const ACTIVATION_NODES: usize = 64;

/// An activation of one number.
type Curve = fn(f64) -> f64;

/// `y = x W + b`, by its parts.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    pub input: ValueId,
    weight: ValueId,
    /// The outputs of the weight that these are, where it has others too.
    rows: Option<Vec<usize>>,
    /// The weight is `[outputs, inputs]`, not `[inputs, outputs]`.
    rows_are_outputs: bool,
    bias: Option<ValueId>,
    pub n: usize,
    pub k: usize,
}

/// A LayerNorm or an RMSNorm over the last axis, by its parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Normed {
    pub input: ValueId,
    weight: Option<ValueId>,
    bias: Option<ValueId>,
    pub epsilon: f32,
    /// Whether the mean is taken out (LayerNorm) or not (RMSNorm).
    pub centered: bool,
    /// Length of the last axis.
    pub n: usize,
}

/// A chain of moves and multiplications by numbers.
#[derive(Debug)]
pub(crate) struct Moved {
    /// What the elements are taken from.
    pub root: ValueId,
    /// Where in the root each element stands.
    pub index: Array<u32>,
    /// The product of the numbers.
    pub scale: f64,
}

impl Graph {
    /// The value that this one is, element by element, in whatever shape.
    pub(crate) fn strip(&self, mut value: ValueId) -> ValueId {
        while let Some((node, output)) = self.producer(value) {
            match self.moved_input(node) {
                Some(input) if self.keeps_order(node, output, input) => value = input,
                _ => break,
            }
        }
        value
    }

    fn keeps_order(&self, node: &Node, output: usize, input: ValueId) -> bool {
        match &*node.op {
            "Identity" | "Cast" | "CastLike" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => true,
            "Dropout" => output == 0,
            _ => {
                let (Some(from), Some(to)) = (self.shape(input), self.shape(node.outputs[output])) else {
                    return false;
                };
                let len = |shape: &[usize]| shape.iter().product::<usize>();
                let moved = || self.movement(node, output, &[&Array::indices(from)?]);
                len(from) == len(to) && moved().is_some_and(|index| index.in_place())
            }
        }
    }

    /// The nodes that compute with a value, in whatever shape, each with the value under the name that it reads.
    pub(crate) fn uses(&self, value: ValueId) -> Vec<(NodeId, ValueId)> {
        let (mut found, mut aliases) = (Vec::new(), vec![value]);
        while let Some(alias) = aliases.pop() {
            for &id in &self.values[alias].consumers {
                let node = &self.nodes[id];
                if node.outputs.iter().all(|o| self.is_constant(*o)) {
                    continue; // it reads the shape
                }
                match (self.moved_input(node), node.outputs.first()) {
                    (Some(input), Some(output)) if input == alias && self.keeps_order(node, 0, input) => {
                        aliases.push(*output)
                    }
                    _ => found.push((id, alias)),
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Follows moves and multiplications by numbers back to where the elements come from.
    pub(crate) fn moved(&self, value: ValueId) -> Option<Moved> {
        let (mut root, mut chain, mut scale) = (value, Vec::new(), 1.0);
        while let Some((node, output)) = self.producer(root) {
            if let Some(input) = self.moved_input(node) {
                chain.push((node, output));
                root = input;
            } else if let Some((input, factor)) = self.times_number(root) {
                scale *= factor;
                root = input;
            } else {
                break;
            }
        }
        let mut index = Array::indices(self.shape(root)?)?;
        for (node, output) in chain.into_iter().rev() {
            Array::room(self.shape(node.outputs[output])?)?;
            index = self.movement(node, output, &[&index])?;
        }
        Some(Moved { root, index, scale })
    }

    /// `value = input * number`, where that is all that happens to it.
    pub(crate) fn times_number(&self, value: ValueId) -> Option<(ValueId, f64)> {
        let (node, _) = self.producer(value)?;
        let (a, b) = (node.input(0)?, node.input(1)?);
        let (input, factor) = match (&*node.op, self.number(a), self.number(b)) {
            ("Mul", None, Some(factor)) => (a, factor),
            ("Mul", Some(factor), None) => (b, factor),
            ("Div", None, Some(divisor)) => (a, 1.0 / divisor),
            _ => return None,
        };
        (self.shape(input)? == self.shape(value)?).then_some((input, factor))
    }

    /// A constant of one number.
    pub(crate) fn number(&self, value: ValueId) -> Option<f64> {
        match (self.floats(value), self.ints(value)) {
            (Some(a), _) if a.data.len() == 1 => Some(f64::from(a.data[0])),
            (_, Some(a)) if a.data.len() == 1 => Some(a.data[0] as f64),
            _ => None,
        }
    }

    /// A constant `[n]`, with axes of length 1 before.
    pub(crate) fn vector(&self, value: ValueId, n: usize) -> Option<&[f32]> {
        let a = self.floats(value)?;
        (a.shape.last() == Some(&n) && a.data.len() == n).then_some(&a.data[..])
    }

    /// The operands of a node of two, if it is an `op`: the one that depends on the picture, then the constant.
    pub(crate) fn with_constant(&self, value: ValueId, op: &str) -> Option<(ValueId, ValueId)> {
        let (node, _) = self.producer(value).filter(|(node, _)| node.op == op)?;
        let (a, b) = (node.input(0)?, node.input(1)?);
        match (self.is_constant(a), self.is_constant(b)) {
            (false, true) => Some((a, b)),
            (true, false) => Some((b, a)),
            _ => None,
        }
    }

    /// A linear layer that ends in this value.
    pub(crate) fn dense(&self, value: ValueId) -> Option<Dense> {
        let value = self.strip(value);
        let (node, _) = self.producer(value)?;
        match &*node.op {
            "Gemm" => self.gemm(node),
            "MatMul" => self.matmul(value),
            "Add" => {
                let (product, bias) = self.with_constant(value, "Add")?;
                let dense = self.matmul(self.strip(product)).or_else(|| self.part_of_matmul(product))?;
                self.vector(bias, dense.n).map(|_| Dense { bias: Some(bias), ..dense })
            }
            _ => None,
        }
    }

    fn gemm(&self, node: &Node) -> Option<Dense> {
        let (input, weight) = (node.input(0)?, node.input(1)?);
        let one = |name| node.float(name).unwrap_or(1.0) == 1.0;
        let rows_are_outputs = node.int("transB").unwrap_or(0) != 0;
        let &[first, second] = self.float_shape(weight)? else { return None };
        let (n, k) = if rows_are_outputs { (first, second) } else { (second, first) };
        let bias = node.input(2);
        let fits = bias.is_none_or(|b| self.vector(b, n).is_some());
        let plain = one("alpha") && one("beta") && node.int("transA").unwrap_or(0) == 0;
        let dense = Dense { input, weight, rows: None, rows_are_outputs, bias, n, k };
        (plain && fits && !self.is_constant(input)).then_some(dense)
    }

    fn matmul(&self, value: ValueId) -> Option<Dense> {
        let (node, _) = self.producer(value).filter(|(node, _)| node.op == "MatMul")?;
        let (input, weight) = (node.input(0)?, node.input(1)?);
        let (&[ref ones @ .., k, n], false) = (self.float_shape(weight)?, self.is_constant(input)) else {
            return None;
        };
        ones.iter().all(|d| *d == 1).then_some(Dense {
            input,
            weight,
            rows: None,
            rows_are_outputs: false,
            bias: None,
            n,
            k,
        })
    }

    /// Some outputs of a product, whose biases come after they were split: what simplifiers make of several layers that
    /// read the same.
    fn part_of_matmul(&self, value: ValueId) -> Option<Dense> {
        let moved = self.moved(value)?;
        let dense = self.matmul(moved.root).filter(|_| moved.scale == 1.0)?;
        let n = *moved.index.shape.last()?;
        let tokens = self.shape(moved.root)?.iter().product::<usize>() / dense.n.max(1);
        let rows = picked(&moved.index.data, (tokens, dense.n), n, |token, i| token * n + i)?;
        Some(Dense { n, rows: Some(rows), ..dense })
    }

    /// The layer with its weights, `[outputs, inputs]`.
    pub(crate) fn linear(&self, dense: &Dense) -> Layer {
        let all: Vec<usize> = (0..dense.n).collect();
        self.rows_of(dense, &all)
    }

    /// The layer with these of its outputs, in this order; no others are copied from its weights.
    pub(crate) fn rows_of(&self, dense: &Dense, outputs: &[usize]) -> Layer {
        let (k, rows_are_outputs) = (dense.k, dense.rows_are_outputs);
        let bias: Vec<f32> = match dense.bias.and_then(|b| self.vector(b, dense.n)) {
            Some(bias) => outputs.iter().map(|r| bias[*r]).collect(),
            None => vec![0.0; outputs.len()],
        };
        let stored_row = |r: &usize| dense.rows.as_ref().map_or(*r, |rows| rows[*r]);
        let rows: Vec<usize> = outputs.iter().map(stored_row).collect();
        let stored = self.values[dense.weight].constant.clone();
        Layer::new(rows.len(), k, move || {
            let weight = match stored.as_deref() {
                Some(Constant::Stored(matrix)) if rows_are_outputs => matrix.read_rows(&rows)?,
                Some(Constant::Stored(matrix)) => matrix.transposed().read_rows(&rows)?,
                Some(Constant::Float(a)) => picked_rows(&a.data, &rows, k, rows_are_outputs),
                _ => vec![],
            };
            Ok(Linear { n: rows.len(), k, weight, bias: bias.clone() })
        })
    }

    /// A LayerNorm or an RMSNorm that ends in this value: one operator, or its arithmetic.
    pub(crate) fn normed(&self, value: ValueId) -> Option<Normed> {
        let value = self.strip(value);
        let (node, output) = self.producer(value)?;
        if matches!(&*node.op, "LayerNormalization" | "RMSNormalization") {
            let centered = node.op == "LayerNormalization";
            let (input, weight, bias) = (node.input(0)?, node.input(1)?, node.input(2).filter(|_| centered));
            let shape = self.shape(input)?;
            let n = *shape.last()?;
            let last = axis_of(node.int("axis").unwrap_or(-1), shape.len())? + 1 == shape.len();
            let fits = self.vector(weight, n).is_some() && bias.is_none_or(|b| self.vector(b, n).is_some());
            let epsilon = node.float("epsilon").unwrap_or(1e-5);
            let normed = Normed { input, weight: Some(weight), bias, epsilon, centered, n };
            return (output == 0 && last && fits).then_some(normed);
        }
        let n = *self.shape(value)?.last()?;
        let affine = |op, value| {
            let value = self.strip(value);
            let found = self.with_constant(value, op).filter(|(_, c)| self.vector(*c, n).is_some());
            found.map_or((value, None), |(rest, constant)| (rest, Some(constant)))
        };
        let (scaled, bias) = affine("Add", value);
        let (normalized, weight) = affine("Mul", scaled);
        let (input, epsilon, centered) = self.normalized(self.strip(normalized))?;
        Some(Normed { input, weight, bias, epsilon, centered, n })
    }

    /// `(x - mean) / sqrt(variance + epsilon)` over the last axis, or `x / sqrt(mean square + epsilon)`: x, epsilon,
    /// and whether the mean is taken out.
    fn normalized(&self, value: ValueId) -> Option<(ValueId, f32, bool)> {
        let (node, _) = self.producer(value)?;
        let (numerator, deviation) = (self.strip(node.input(0)?), self.strip(node.input(1)?));
        let root = match &*node.op {
            "Div" => deviation,
            "Mul" => self.reciprocal(deviation)?,
            _ => return None,
        };
        let (variance, epsilon) = self.with_constant(self.unary(root, "Sqrt")?, "Add")?;
        let square = self.mean_of_last_axis(self.strip(variance))?;
        let (power, _) = self.producer(square)?;
        let base = self.strip(power.input(0)?);
        let squared = match &*power.op {
            "Pow" => self.number(power.input(1)?)? == 2.0,
            "Mul" => self.strip(power.input(1)?) == base,
            _ => false,
        };
        if !squared || base != numerator {
            return None;
        }
        let epsilon = self.number(epsilon)? as f32;
        Some(match self.without_mean(numerator) {
            Some(input) => (input, epsilon, true),
            None => (numerator, epsilon, false),
        })
    }

    /// x, if the value is x less its mean over the last axis.
    fn without_mean(&self, value: ValueId) -> Option<ValueId> {
        let (difference, _) = self.producer(value).filter(|(d, _)| d.op == "Sub")?;
        let input = self.strip(difference.input(0)?);
        (self.mean_of_last_axis(self.strip(difference.input(1)?))? == input).then_some(input)
    }

    /// What the value is 1 divided by.
    fn reciprocal(&self, value: ValueId) -> Option<ValueId> {
        let of_one = || {
            let (node, _) = self.producer(value).filter(|(node, _)| node.op == "Div")?;
            (self.number(node.input(0)?)? == 1.0).then_some(self.strip(node.input(1)?))
        };
        self.unary(value, "Reciprocal").or_else(of_one)
    }

    /// The operand of a node of one.
    fn unary(&self, value: ValueId, op: &str) -> Option<ValueId> {
        let (node, _) = self.producer(value).filter(|(node, _)| node.op == op)?;
        Some(self.strip(node.input(0)?))
    }

    fn mean_of_last_axis(&self, value: ValueId) -> Option<ValueId> {
        self.reduced_last_axis(value, "ReduceMean")
    }

    fn reduced_last_axis(&self, value: ValueId, op: &str) -> Option<ValueId> {
        let (input, axis) = self.reduced(self.strip(value), op)?;
        (axis + 1 == self.shape(input)?.len()).then_some(self.strip(input))
    }

    /// What a softmax over the last axis that ends in this value reads: one operator, or its arithmetic.
    pub(crate) fn softmax(&self, value: ValueId) -> Option<ValueId> {
        let value = self.strip(value);
        let (node, _) = self.producer(value)?;
        if node.op == "Softmax" {
            let rank = self.shape(node.outputs[0]).map_or(0, <[usize]>::len);
            let axis = node.int("axis").unwrap_or(if self.opset < 13 { 1 } else { -1 });
            return node.input(0).filter(|_| axis_of(axis, rank).is_some_and(|a| a + 1 == rank));
        }
        if node.op != "Div" {
            return None;
        }
        let powers = self.strip(node.input(0)?);
        if self.reduced_last_axis(node.input(1)?, "ReduceSum")? != powers {
            return None;
        }
        let exponent = self.unary(powers, "Exp")?;
        // The largest score is subtracted, or is not.
        let centered = || {
            let (node, _) = self.producer(exponent).filter(|(n, _)| n.op == "Sub")?;
            let scores = self.strip(node.input(0)?);
            (self.reduced_last_axis(node.input(1)?, "ReduceMax")? == scores).then_some(scores)
        };
        Some(centered().unwrap_or(exponent))
    }

    /// The operand of a mean over one axis, and the axis.
    pub(crate) fn mean_of(&self, value: ValueId) -> Option<(ValueId, usize)> {
        self.reduced(value, "ReduceMean")
    }

    fn reduced(&self, value: ValueId, op: &str) -> Option<(ValueId, usize)> {
        let (node, _) = self.producer(value).filter(|(node, _)| node.op == op)?;
        let input = node.input(0)?;
        let axes = node.ints("axes").or_else(|| self.int_input(node, 1))?;
        let &[axis] = axes else { return None };
        Some((input, axis_of(axis, self.shape(input)?.len())?))
    }

    /// Factors and offsets.
    pub(crate) fn norm(&self, normed: &Normed) -> Norm {
        let of = |value: Option<ValueId>, default: f32| {
            value.and_then(|v| self.vector(v, normed.n)).map_or_else(|| vec![default; normed.n], <[f32]>::to_vec)
        };
        Norm { weight: of(normed.weight, 1.0), bias: of(normed.bias, 0.0) }
    }

    /// An MLP's non-linearity that ends in this value, known by the numbers that it computes, and what it reads: one
    /// value, or gate and twin.
    pub(crate) fn activation(&self, value: ValueId) -> Option<(Activation, Vec<ValueId>)> {
        let mut roots = Vec::new();
        self.elementwise_roots(value, &mut roots, &mut ACTIVATION_NODES.clone())?;
        let at = |x: &[f64]| self.elementwise(value, &roots, x, &mut ACTIVATION_NODES.clone());
        const SAMPLES: [f64; 12] = [-4.0, -2.5, -1.5, -1.0, -0.5, -0.1, 0.3, 0.8, 1.3, 2.0, 3.0, 5.0];
        // The constants of an f16 file are rounded by 1e-4; GELU by tanh is 4e-4 from GELU by erf.
        let close = |a: f64, b: f64| (a - b).abs() < 1.5e-4;
        if roots.len() == 1 {
            let kinds: [(Activation, Curve); 3] =
                [(Activation::Gelu, gelu), (Activation::GeluTanh, gelu_tanh), (Activation::GeluQuick, gelu_quick)];
            let is = |f: Curve| SAMPLES.iter().all(|x| at(&[*x]).is_some_and(|y| close(y, f(*x))));
            return kinds.into_iter().find(|(_, f)| is(*f)).map(|(kind, _)| (kind, roots.clone()));
        }
        let &[first, second] = &roots[..] else { return None };
        let is = |swap: bool| {
            let pairs = SAMPLES.iter().zip(SAMPLES.iter().cycle().skip(5));
            pairs
                .into_iter()
                .all(|(g, u)| at(&if swap { [*u, *g] } else { [*g, *u] }).is_some_and(|y| close(y, silu(*g) * u)))
        };
        match (is(false), is(true)) {
            (true, _) => Some((Activation::SwiGlu, vec![first, second])),
            (_, true) => Some((Activation::SwiGlu, vec![second, first])),
            _ => None,
        }
    }

    /// What a tree of element by element operators starts from.
    fn elementwise_roots(&self, value: ValueId, roots: &mut Vec<ValueId>, budget: &mut usize) -> Option<()> {
        *budget = budget.checked_sub(1)?;
        let value = self.strip(value);
        if self.is_constant(value) {
            return self.number(value).map(|_| ());
        }
        match self.producer(value).filter(|(node, _)| self.dense(value).is_none() && is_elementwise(&node.op)) {
            Some((node, _)) => node.inputs.iter().flatten().try_for_each(|v| self.elementwise_roots(*v, roots, budget)),
            None => {
                if !roots.contains(&value) {
                    roots.push(value);
                }
                Some(())
            }
        }
    }

    /// The number that the tree gives where the roots have the numbers `at`.
    fn elementwise(&self, value: ValueId, roots: &[ValueId], at: &[f64], budget: &mut usize) -> Option<f64> {
        *budget = budget.checked_sub(1)?;
        let value = self.strip(value);
        if let Some(root) = roots.iter().position(|r| *r == value) {
            return Some(at[root]);
        }
        if let Some(number) = self.number(value) {
            return Some(number);
        }
        let (node, _) = self.producer(value)?;
        let mut x = [0.0; 2];
        for (x, input) in x.iter_mut().zip(node.inputs.iter().flatten()) {
            *x = self.elementwise(*input, roots, at, budget)?;
        }
        let [a, b] = x;
        Some(match &*node.op {
            "Add" => a + b,
            "Sub" => a - b,
            "Mul" => a * b,
            "Div" => a / b,
            "Pow" => a.powf(b),
            "Erf" => libm::erf(a),
            "Tanh" => a.tanh(),
            "Sigmoid" => 1.0 / (1.0 + (-a).exp()),
            "Sqrt" => a.sqrt(),
            "Exp" => a.exp(),
            "Neg" => -a,
            "Reciprocal" => 1.0 / a,
            "Relu" => a.max(0.0),
            "Gelu" if node.text("approximate") == Some("tanh") => gelu_tanh(a),
            "Gelu" => gelu(a),
            "FastGelu" if node.inputs.len() == 1 => gelu_tanh(a),
            "QuickGelu" => a / (1.0 + (-f64::from(node.float("alpha").unwrap_or(1.702)) * a).exp()),
            "Swish" => a / (1.0 + (-f64::from(node.float("alpha").unwrap_or(1.0)) * a).exp()),
            _ => return None,
        })
    }
}

/// Which channels of a layer's output `[tokens, n]` stand at the places `at(token, 0..count)`, if they are the same for
/// every token and each place holds its own token.
pub(crate) fn picked(
    index: &[u32],
    (tokens, n): (usize, usize),
    count: usize,
    at: impl Fn(usize, usize) -> usize,
) -> Option<Vec<usize>> {
    let rows: Vec<usize> = (0..count).map(|i| index.get(at(0, i)).map(|x| *x as usize)).collect::<Option<_>>()?;
    let fits = |token: usize| {
        rows.iter().enumerate().all(|(i, row)| index.get(at(token, i)).is_some_and(|x| *x as usize == token * n + row))
    };
    (index.len() == tokens * count && rows.iter().all(|r| *r < n) && (0..tokens).all(fits)).then_some(rows)
}

/// Rows of `[outputs, k]`, or else columns of `[k, outputs]`, one after another.
fn picked_rows(matrix: &[f32], rows: &[usize], k: usize, rows_are_outputs: bool) -> Vec<f32> {
    let n = matrix.len() / k.max(1);
    let mut picked = Vec::with_capacity(rows.len() * k);
    for &r in rows {
        if rows_are_outputs {
            picked.extend_from_slice(&matrix[r * k..(r + 1) * k]);
        } else {
            picked.extend(matrix.iter().skip(r).step_by(n));
        }
    }
    picked
}

fn is_elementwise(op: &str) -> bool {
    matches!(
        op,
        "Add"
            | "Sub"
            | "Mul"
            | "Div"
            | "Pow"
            | "Erf"
            | "Tanh"
            | "Sigmoid"
            | "Sqrt"
            | "Exp"
            | "Neg"
            | "Reciprocal"
            | "Relu"
            | "Gelu"
            | "FastGelu"
            | "QuickGelu"
            | "Swish"
    )
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2))
}

fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

fn gelu_quick(x: f64) -> f64 {
    x / (1.0 + (-1.702 * x).exp())
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}
