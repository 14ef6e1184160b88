//! Shapes of all values, and elements of those that no picture is needed for: what `Shape`, `Gather`, `Concat` and
//! `Reshape` chains compute, transposed weights, embeddings that were added up.
//!
//! What is not known stays unknown, and is nobody's error until a recognized part of the network reads it.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use half::f16;
use safetensors::Dtype;

use crate::error::Error;
use crate::onnx::Files;
use crate::onnx::array::{Array, axis_of, broadcast_shapes, len_of};
use crate::onnx::graph::{Constant, Graph, Node};
use crate::onnx::operators::SWAP;
use crate::onnx::proto::data_type;
use crate::tensor::Tensor;

fn len_of_constant(constant: &Constant) -> usize {
    len_of(constant.shape()).unwrap_or(0)
}

/// How many numbers a file stores, and how many its nodes made of them. A hostile file can ask for far more than it
/// stores, by operators that repeat elements.
struct Numbers {
    stored: usize,
    made: usize,
}

impl Numbers {
    /// Whether a node may make `len` more.
    fn check(&self, path: &Path, node: &Node, len: usize) -> Result<(), Error> {
        if self.made.saturating_add(len) <= self.stored.saturating_mul(8).saturating_add(1 << 24) {
            return Ok(());
        }
        let why = format!("node {} ({}) makes {len} numbers out of {}", node.name, node.op, self.stored);
        Err(Error::file(path, why))
    }
}

/// Shape and elements of a value, as far as they are known.
type Known = (Option<Vec<usize>>, Option<Constant>);

impl Graph {
    /// Goes through the nodes once, in order.
    ///
    /// # Errors
    /// Constants that can not be read, or that grow without end.
    pub(crate) fn fold(&mut self, files: &Files<'_>) -> Result<(), Error> {
        let stored = self.values.iter().filter_map(|v| v.constant.as_deref()).map(len_of_constant).sum();
        let mut numbers = Numbers { stored, made: 0 };
        for id in 0..self.nodes.len() {
            let node = &self.nodes[id];
            let len = self.shape_of(node, 0).as_deref().and_then(len_of).unwrap_or(0);
            let constant = node.inputs.iter().flatten().all(|v| self.is_constant(*v));
            numbers.check(files.model, node, if constant { len } else { 0 })?;
            let results = self.results(files, node)?;
            let len = results.iter().filter_map(|(_, constant)| constant.as_ref()).map(len_of_constant).sum();
            // Some operators say only now how many they make.
            numbers.check(files.model, node, if node.op == "Constant" { 0 } else { len })?;
            *(if node.op == "Constant" { &mut numbers.stored } else { &mut numbers.made }) += len;
            for (at, (shape, constant)) in results.into_iter().enumerate() {
                let Some(&value) = self.nodes[id].outputs.get(at) else { break };
                self.values[value].shape = shape;
                self.values[value].constant = constant.map(Arc::new);
            }
        }
        Ok(())
    }

    /// Shape and elements of each output of a node, as far as they are known.
    fn results(&self, files: &Files<'_>, node: &Node) -> Result<Vec<Known>, Error> {
        let constant = match &*node.op {
            "Constant" => node.own_constant(files)?,
            "ConstantOfShape" => self.filled(files, node)?,
            _ => self.computed(node),
        };
        if let Some(constant) = constant {
            return Ok(vec![(Some(constant.shape().to_vec()), Some(constant))]);
        }
        let one = |at: usize| match self.moved_constant(node, at) {
            Some(constant) => (Some(constant.shape().to_vec()), Some(constant)),
            None => (self.shape_of(node, at), None),
        };
        Ok((0..node.outputs.len()).map(one).collect())
    }

    fn filled(&self, files: &Files<'_>, node: &Node) -> Result<Option<Constant>, Error> {
        let Some(shape) = self.int_input(node, 0) else { return Ok(None) };
        let shape: Option<Vec<usize>> = shape.iter().map(|n| usize::try_from(*n).ok()).collect();
        let value = node.own_constant(files)?.unwrap_or(Constant::Float(Array { shape: vec![1], data: vec![0.0] }));
        Ok(shape.and_then(|shape| match &value {
            Constant::Float(a) => a.reshaped(vec![]).and_then(|a| a.broadcast(&shape)).map(Constant::Float),
            Constant::Int(a) => a.reshaped(vec![]).and_then(|a| a.broadcast(&shape)).map(Constant::Int),
            Constant::Stored(_) => None,
        }))
    }

    /// Elements of an input that is a constant of integers.
    pub(crate) fn int_input(&self, node: &Node, at: usize) -> Option<&[i64]> {
        node.input(at).and_then(|v| self.ints(v)).map(|a| &a.data[..])
    }

    /// Axes and the like: an attribute in older operator sets, an input in newer ones.
    fn int_list<'a>(&'a self, node: &'a Node, name: &str, at: usize) -> Option<&'a [i64]> {
        node.ints(name).or_else(|| self.int_input(node, at))
    }

    fn moved_constant(&self, node: &Node, output: usize) -> Option<Constant> {
        let inputs: Vec<&Constant> =
            self.data_inputs(node)?.map(|v| self.values[v].constant.as_deref()).collect::<Option<_>>()?;
        if let [Constant::Stored(matrix)] = &inputs[..]
            && let Some(matrix) = moved_matrix(node, matrix)
        {
            return Some(Constant::Stored(matrix));
        }
        let loaded: Vec<Cow<'_, Constant>> = inputs.into_iter().map(Constant::loaded).collect::<Option<_>>()?;
        let inputs: Vec<&Constant> = loaded.iter().map(|constant| &**constant).collect();
        if let ("Cast", [constant]) = (&*node.op, &inputs[..]) {
            return cast(constant, node.int("to")?);
        }
        if let ("CastLike", [constant], Some(like)) = (&*node.op, &inputs[..], node.input(1))
            && self.ints(like).is_none()
        {
            // Values that depend on the picture are floats.
            return cast(constant, i64::from(data_type::FLOAT));
        }
        let floats: Option<Vec<_>> =
            inputs.iter().map(|c| if let Constant::Float(a) = c { Some(a) } else { None }).collect();
        let ints: Option<Vec<_>> =
            inputs.iter().map(|c| if let Constant::Int(a) = c { Some(a) } else { None }).collect();
        match (floats, ints) {
            (Some(floats), _) => self.movement(node, output, &floats).map(Constant::Float),
            (_, Some(ints)) => self.movement(node, output, &ints).map(Constant::Int),
            _ => None,
        }
    }

    /// The inputs whose elements a moving operator moves; the others say how.
    fn data_inputs<'a>(&self, node: &'a Node) -> Option<impl Iterator<Item = usize> + use<'a>> {
        let count = match &*node.op {
            "Concat" => node.inputs.len(),
            "Identity" | "Cast" | "CastLike" | "Dropout" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze"
            | "Transpose" | "Slice" | "Split" | "Gather" | "Expand" | "Resize" | SWAP => 1,
            _ => return None,
        };
        Some(node.inputs.iter().take(count).flatten().copied())
    }

    /// The one value whose elements a node moves, or None where it does anything else.
    pub(crate) fn moved_input(&self, node: &Node) -> Option<usize> {
        let to_float =
            |to| matches!(to, data_type::FLOAT | data_type::FLOAT16 | data_type::BFLOAT16 | data_type::DOUBLE);
        match &*node.op {
            "Cast" if !node.int("to").and_then(|to| i32::try_from(to).ok()).is_some_and(to_float) => None,
            "Concat" if node.inputs.len() > 1 => None,
            _ => self.data_inputs(node)?.next(),
        }
    }

    /// What a moving operator does to the elements of its data inputs; None for other operators and for moves that are
    /// not understood.
    pub(crate) fn movement<T: Copy>(&self, node: &Node, output: usize, data: &[&Array<T>]) -> Option<Array<T>> {
        let x = *data.first()?;
        let axis = |default: i64| axis_of(node.int("axis").unwrap_or(default), x.rank());
        match &*node.op {
            "Identity" | "Cast" | "CastLike" => Some(x.clone()),
            "Dropout" if output == 0 => Some(x.clone()),
            "Concat" => Array::concat(data, axis(0)?),
            "Reshape" => x.reshape(self.int_input(node, 1)?, node.int("allowzero").unwrap_or(0) != 0),
            "Flatten" => {
                let at = axis(1)?;
                x.reshaped(vec![x.shape[..at].iter().product(), x.shape[at..].iter().product()])
            }
            "Squeeze" => x.squeeze(self.int_list(node, "axes", 1)),
            "Unsqueeze" => x.unsqueeze(self.int_list(node, "axes", 1)?),
            "Transpose" => {
                let reversed: Vec<i64> = (0..x.rank() as i64).rev().collect();
                let perm = node.ints("perm").unwrap_or(&reversed);
                x.transpose(&perm.iter().map(|p| usize::try_from(*p).ok()).collect::<Option<Vec<_>>>()?)
            }
            SWAP => {
                let mut perm: Vec<usize> = (0..x.rank()).collect();
                let last = x.rank().checked_sub(2)?;
                perm.swap(last, last + 1);
                x.transpose(&perm)
            }
            "Slice" => self.sliced(node, x),
            "Split" => {
                let (axis, parts) = (axis(0)?, node.outputs.len());
                let equal = vec![x.shape[axis].div_ceil(parts) as i64; parts];
                let sizes = self.int_list(node, "split", 1).unwrap_or(&equal);
                let before = sizes.get(..output)?.iter().try_fold(0i64, |sum, n| sum.checked_add(*n))?;
                let start = usize::try_from(before).ok()?;
                let count = usize::try_from(*sizes.get(output)?).ok()?.min(x.shape[axis].checked_sub(start)?);
                x.slice(axis, start, 1, count)
            }
            "Gather" => x.gather(axis(0)?, self.ints(node.input(1)?)?),
            "Expand" => {
                let to: Vec<usize> =
                    self.int_input(node, 1)?.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<_>>()?;
                x.broadcast(&broadcast_shapes(&x.shape, &to)?)
            }
            "Resize" => self.keeps_size(node, &x.shape).then(|| x.clone()),
            _ => None,
        }
    }

    fn sliced<T: Copy>(&self, node: &Node, x: &Array<T>) -> Option<Array<T>> {
        let (starts, ends) = (self.int_list(node, "starts", 1)?, self.int_list(node, "ends", 2)?);
        let every: Vec<i64> = (0..starts.len() as i64).collect();
        let axes = self.int_list(node, "axes", 3).unwrap_or(&every);
        let ones = vec![1; starts.len()];
        let steps = self.int_input(node, 4).unwrap_or(&ones);
        let mut out = x.clone();
        for (((&start, &end), &axis), &step) in starts.iter().zip(ends).zip(axes).zip(steps) {
            let axis = axis_of(axis, x.rank())?;
            let n = out.shape[axis] as i64;
            let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
            let bound = |i: i64| if i < 0 { i.saturating_add(n) } else { i }.clamp(low, high);
            let (start, end) = (bound(start), bound(end));
            let span = if step > 0 { end - start } else { start - end };
            let count = if step == 0 { return None } else { span.max(0).unsigned_abs().div_ceil(step.unsigned_abs()) };
            out = out.slice(
                axis,
                usize::try_from(start.max(0)).ok()?,
                isize::try_from(step).ok()?,
                usize::try_from(count).ok()?,
            )?;
        }
        Some(out)
    }

    /// Whether a Resize asks for the size that there is: then every interpolation gives the elements back.
    fn keeps_size(&self, node: &Node, shape: &[usize]) -> bool {
        let sizes = self.int_input(node, 3).filter(|s| !s.is_empty());
        match (sizes, node.input(2).and_then(|v| self.floats(v))) {
            (Some(sizes), _) => sizes.iter().zip(shape).all(|(a, b)| usize::try_from(*a) == Ok(*b)),
            (None, Some(scales)) => scales.data.iter().all(|s| *s == 1.0),
            _ => false,
        }
    }

    /// What arithmetic on constants gives. Operators that only move elements are not for here.
    fn computed(&self, node: &Node) -> Option<Constant> {
        if self.data_inputs(node).is_some() {
            return None;
        }
        if node.op == "Shape" {
            let shape = self.shape(node.input(0)?)?;
            let rank = shape.len() as i64;
            let bound = |i: i64| if i < 0 { i + rank } else { i }.clamp(0, rank) as usize;
            let (start, end) = (bound(node.int("start").unwrap_or(0)), bound(node.int("end").unwrap_or(rank)));
            let dims: Vec<i64> = shape.get(start..end)?.iter().map(|n| *n as i64).collect();
            return Array::new(vec![dims.len()], dims).map(Constant::Int);
        }
        if node.op == "Size" {
            let len: usize = self.shape(node.input(0)?)?.iter().product();
            return Array::new(vec![], vec![len as i64]).map(Constant::Int);
        }
        let inputs = node.inputs.iter().flatten().map(|v| self.values[*v].constant.as_deref());
        let inputs: Vec<&Constant> = inputs.collect::<Option<_>>()?;
        // No operator here has more: a hostile one could name one matrix a thousand times.
        if inputs.len() > 3 {
            return None;
        }
        let loaded: Vec<Cow<'_, Constant>> = inputs.into_iter().map(Constant::loaded).collect::<Option<_>>()?;
        let inputs: Vec<&Constant> = loaded.iter().map(|constant| &**constant).collect();
        match (&*node.op, &inputs[..]) {
            ("Where", [Constant::Int(c), a, b]) => choose(c, a, b),
            ("Range", [Constant::Int(start), Constant::Int(end), Constant::Int(step)]) => {
                let (start, end, step) = (*start.data.first()?, *end.data.first()?, *step.data.first()?);
                let span = end.checked_sub(start)?;
                let (whole, rest) = (span.checked_div(step)?, span.checked_rem(step)?);
                let rounded_up = whole + i64::from(rest != 0 && (rest < 0) == (step < 0));
                let count = usize::try_from(rounded_up.max(0)).ok().filter(|n| *n <= 1 << 20)?;
                let values: Vec<i64> = (0..count as i64).map(|i| start + i * step).collect();
                Array::new(vec![count], values).map(Constant::Int)
            }
            (op, [Constant::Float(a)]) => {
                let f: fn(f32) -> f32 = match op {
                    "Sqrt" => f32::sqrt,
                    "Neg" => |x| -x,
                    "Floor" => f32::floor,
                    "Reciprocal" => f32::recip,
                    _ => return None,
                };
                Some(Constant::Float(Array { shape: a.shape.clone(), data: a.data.iter().map(|x| f(*x)).collect() }))
            }
            (op, [Constant::Float(a), Constant::Float(b)]) => {
                let f: fn(f32, f32) -> f32 = match op {
                    "Add" => |x, y| x + y,
                    "Sub" => |x, y| x - y,
                    "Mul" => |x, y| x * y,
                    "Div" => |x, y| x / y,
                    "Pow" => f32::powf,
                    _ => return None,
                };
                zip(a, b, f).map(Constant::Float)
            }
            (op, [Constant::Int(a), Constant::Int(b)]) => {
                let f: fn(i64, i64) -> i64 = match op {
                    "Add" => i64::wrapping_add,
                    "Sub" => i64::wrapping_sub,
                    "Mul" => i64::wrapping_mul,
                    "Div" => |x, y| x.checked_div(y).unwrap_or(0),
                    "Equal" => |x, y| i64::from(x == y),
                    _ => return None,
                };
                zip(a, b, f).map(Constant::Int)
            }
            _ => None,
        }
    }

    /// The shape of output `at`: one that [`len_of`] takes.
    fn shape_of(&self, node: &Node, at: usize) -> Option<Vec<usize>> {
        self.computed_shape(node, at).filter(|shape| len_of(shape).is_some())
    }

    fn computed_shape(&self, node: &Node, at: usize) -> Option<Vec<usize>> {
        if let Some(inputs) = self.data_inputs(node) {
            let inputs: Vec<Array<()>> = inputs.map(|v| Array::shaped(self.shape(v)?)).collect::<Option<_>>()?;
            return self.movement(node, at, &inputs.iter().collect::<Vec<_>>()).map(|a| a.shape);
        }
        let shape = |at: usize| node.input(at).and_then(|v| self.shape(v));
        match &*node.op {
            "Conv" => conv_shape(node, shape(0)?, shape(1)?),
            "MatMul" => matmul_shape(shape(0)?, shape(1)?),
            "Gemm" => {
                let pick = |shape: &[usize], last: bool| shape.get(usize::from(last)).copied();
                let flag = |name| node.int(name).unwrap_or(0) != 0;
                let inner = (pick(shape(0)?, !flag("transA"))?, pick(shape(1)?, flag("transB"))?);
                let outer = vec![pick(shape(0)?, flag("transA"))?, pick(shape(1)?, !flag("transB"))?];
                (inner.0 == inner.1).then_some(outer)
            }
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Equal" => broadcast_shapes(shape(0)?, shape(1)?),
            "ConstantOfShape" => {
                self.int_input(node, 0)?.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<_>>()
            }
            "Where" => broadcast_shapes(shape(0)?, &broadcast_shapes(shape(1)?, shape(2)?)?),
            "LayerNormalization" | "RMSNormalization" | "BatchNormalization" | "Softmax" | "Sqrt" | "Erf" | "Tanh"
            | "Sigmoid" | "Gelu" | "FastGelu" | "QuickGelu" | "Relu" | "Reciprocal" | "Neg" | "Exp" | "IsNaN"
            | "HardSwish" | "Swish"
                if at == 0 =>
            {
                shape(0).map(<[usize]>::to_vec)
            }
            "Attention" if at == 0 => {
                let (q, v) = (shape(0)?, shape(2)?);
                let (&[ref outer @ .., _], &[.., v_width]) = (q, v) else { return None };
                let width = match (node.int("q_num_heads"), node.int("kv_num_heads")) {
                    (Some(q), Some(kv)) if outer.len() == 2 => {
                        v_width.checked_div(usize::try_from(kv).ok()?)?.checked_mul(usize::try_from(q).ok()?)?
                    }
                    _ => v_width,
                };
                Some([outer, &[width]].concat())
            }
            "ReduceMean" | "ReduceSum" | "ReduceMax" => {
                let x = shape(0)?;
                let every: Vec<i64> = (0..x.len() as i64).collect();
                let axes = self.int_list(node, "axes", 1).unwrap_or(&every);
                let gone: Vec<usize> = axes.iter().map(|a| axis_of(*a, x.len())).collect::<Option<_>>()?;
                let keep = node.int("keepdims").unwrap_or(1) != 0;
                let dims = x.iter().enumerate().filter(|(i, _)| keep || !gone.contains(i));
                Some(dims.map(|(i, n)| if gone.contains(&i) { 1 } else { *n }).collect())
            }
            _ => None,
        }
    }
}

fn conv_shape(node: &Node, x: &[usize], w: &[usize]) -> Option<Vec<usize>> {
    let (&[batch, _, height, width], &[out, _, kernel_height, kernel_width]) = (x, w) else { return None };
    let list = |name: &str, at: usize, default: i64| {
        usize::try_from(node.ints(name).and_then(|l| l.get(at).copied()).unwrap_or(default)).ok()
    };
    let side = |n: usize, kernel: usize, at: usize| {
        let padded = n.checked_add(list("pads", at, 0)?)?.checked_add(list("pads", at + 2, 0)?)?;
        let reach = kernel.checked_sub(1)?.checked_mul(list("dilations", at, 1)?)?.checked_add(1)?;
        padded.checked_sub(reach)?.checked_div(list("strides", at, 1)?)?.checked_add(1)
    };
    Some(vec![batch, out, side(height, kernel_height, 0)?, side(width, kernel_width, 1)?])
}

fn matmul_shape(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let (&[ref outer_a @ .., n, k], &[ref outer_b @ .., k2, m]) = (a, b) else { return None };
    let mut shape = broadcast_shapes(outer_a, outer_b)?;
    shape.extend([n, m]);
    (k == k2).then_some(shape)
}

fn zip<T: Copy>(a: &Array<T>, b: &Array<T>, f: impl Fn(T, T) -> T) -> Option<Array<T>> {
    let shape = broadcast_shapes(&a.shape, &b.shape)?;
    let (a, b) = (a.broadcast(&shape)?, b.broadcast(&shape)?);
    Array::new(shape, a.data.iter().zip(&b.data).map(|(x, y)| f(*x, *y)).collect())
}

fn choose(condition: &Array<i64>, a: &Constant, b: &Constant) -> Option<Constant> {
    let shape = broadcast_shapes(&condition.shape, &broadcast_shapes(a.shape(), b.shape())?)?;
    let condition = condition.broadcast(&shape)?;
    fn pick<T: Copy>(condition: &Array<i64>, a: &Array<T>, b: &Array<T>) -> Option<Array<T>> {
        let (a, b) = (a.broadcast(&condition.shape)?, b.broadcast(&condition.shape)?);
        let both = a.data.iter().zip(&b.data).zip(&condition.data);
        Array::new(condition.shape.clone(), both.map(|((a, b), c)| if *c != 0 { *a } else { *b }).collect())
    }
    match (a, b) {
        (Constant::Float(a), Constant::Float(b)) => pick(&condition, a, b).map(Constant::Float),
        (Constant::Int(a), Constant::Int(b)) => pick(&condition, a, b).map(Constant::Int),
        _ => None,
    }
}

/// A matrix that a node leaves in the file.
fn moved_matrix(node: &Node, matrix: &Tensor) -> Option<Tensor> {
    let to = node.int("to").and_then(|to| i32::try_from(to).ok());
    match &*node.op {
        "Identity" => Some(matrix.clone()),
        "Cast" if matches!(to, Some(data_type::FLOAT | data_type::DOUBLE)) => Some(matrix.clone()),
        "Cast" if to == Some(data_type::FLOAT16) && matrix.dtype == Dtype::F16 => Some(matrix.clone()),
        "Transpose" if node.ints("perm").is_none_or(|perm| perm == [1, 0]) => Some(matrix.transposed()),
        SWAP => Some(matrix.transposed()),
        _ => None,
    }
}

/// Between the kinds of elements that constants have here; to f16 it rounds, as the graph says.
fn cast(constant: &Constant, to: i64) -> Option<Constant> {
    Some(match (constant, i32::try_from(to).ok()?) {
        (Constant::Float(a), data_type::FLOAT16) => Constant::Float(map(a, |x| f16::from_f32(x).to_f32())),
        (Constant::Float(a), data_type::FLOAT | data_type::DOUBLE) => Constant::Float(a.clone()),
        (Constant::Int(a), data_type::FLOAT | data_type::FLOAT16 | data_type::DOUBLE) => {
            Constant::Float(map(a, |x| x as f32))
        }
        (Constant::Float(a), data_type::INT64 | data_type::INT32) => Constant::Int(map(a, |x| x as i64)),
        (Constant::Int(a), data_type::INT64 | data_type::INT32) => Constant::Int(a.clone()),
        (Constant::Int(a), data_type::BOOL) => Constant::Int(map(a, |x| i64::from(x != 0))),
        _ => return None,
    })
}

fn map<T: Copy, U>(a: &Array<T>, f: impl Fn(T) -> U) -> Array<U> {
    Array { shape: a.shape.clone(), data: a.data.iter().map(|x| f(*x)).collect() }
}
