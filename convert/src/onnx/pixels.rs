//! From the picture to the input of the patch convolution: the normalization that some files bring, as a mean and a
//! standard deviation for each channel.
//!
//! Operators on the way move elements (NHWC to NCHW, BGR to RGB), cast them, or do arithmetic with constants. Each
//! element that the convolution reads is then `factor * pixel + offset`; where all elements of a channel agree, `(pixel
//! - mean) / std` is the same function. The arithmetic here is f64, so mean and std are exact except for one rounding.

use std::collections::HashMap;

use crate::onnx::array::{Array, broadcast_shapes, len_of};
use crate::onnx::graph::{Graph, Node, NodeId, ValueId};
use crate::onnx::vit::Found;

/// Elements that are followed at once, at most, 24 bytes each; the operands of a node take as much again. That is 800
/// MB, and enough for pictures of 1672 x 1672 pixels.
const MOST: usize = 1 << 24;

/// What the patch convolution sees of the picture.
#[derive(Debug)]
pub(crate) struct Pixels {
    /// The convolution.
    pub conv: NodeId,
    /// The picture's channel that each channel of the convolution reads.
    pub channels: [usize; 3],
    /// Mean and standard deviation of the picture's channels, for pixels in [0, 1]; None where the graph does no
    /// arithmetic.
    pub normalization: Option<([f64; 3], [f64; 3])>,
}

/// `factor * pixel + offset`; `pixel` is an index into the graph's input, NONE for a constant.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Affine {
    pixel: u32,
    factor: f64,
    offset: f64,
}

const NONE: u32 = u32::MAX;

impl Affine {
    fn constant(x: f32) -> Self {
        Self { pixel: NONE, factor: 0.0, offset: f64::from(x) }
    }

    /// The operator `op` on two of them, where it gives another one.
    fn apply(self, op: &str, other: Self) -> Option<Self> {
        let (a, b) = (self, other);
        let scaled = |x: Self, by: f64| Self { factor: x.factor * by, offset: x.offset * by, ..x };
        let sum = |a: Self, b: Self| {
            let pixel = if a.pixel == NONE { b.pixel } else { a.pixel };
            let one = a.pixel == NONE || b.pixel == NONE;
            one.then_some(Self { pixel, factor: a.factor + b.factor, offset: a.offset + b.offset })
        };
        match op {
            "Add" => sum(a, b),
            "Sub" => sum(a, scaled(b, -1.0)),
            "Mul" if b.pixel == NONE => Some(scaled(a, b.offset)),
            "Mul" if a.pixel == NONE => Some(scaled(b, a.offset)),
            // A quotient, not a product with the reciprocal: that would round twice.
            "Div" if b.pixel == NONE && b.offset != 0.0 => {
                Some(Self { factor: a.factor / b.offset, offset: a.offset / b.offset, ..a })
            }
            _ => None,
        }
    }
}

type Followed = HashMap<ValueId, Array<Affine>>;

impl Graph {
    /// Follows the picture to the one convolution that reads it.
    pub(crate) fn pixels(&self) -> Found<Pixels> {
        let uses = self.uses(self.input);
        let Some(&(first, read)) = uses.first() else { return self.stop(self.input, "nothing reads the picture") };
        if self.nodes[first].op == "Conv" && self.shape(read) == self.shape(self.input) && !self.levels {
            if let Some((second, _)) = uses.get(1) {
                return self.stop_at(*second, "a second node that reads the picture");
            }
            return Ok(Pixels { conv: first, channels: [0, 1, 2], normalization: None });
        }
        let (conv, elements) = self.followed()?;
        let [_, 3, height, width] = elements.shape[..] else {
            return self.stop_at(conv, "its input has other channels than red, green and blue");
        };
        let area = height * width;
        let mut maps = [(0, 0.0, 0.0); 3];
        for (channel, (map, of_channel)) in maps.iter_mut().zip(elements.data.chunks_exact(area.max(1))).enumerate() {
            let source = of_channel.first().and_then(|e| self.place(e.pixel)).map_or(3, |(source, _)| source);
            let agrees = |(at, e): (usize, &Affine)| {
                let first = of_channel[0];
                self.place(e.pixel) == Some((source, at)) && (e.factor, e.offset) == (first.factor, first.offset)
            };
            if source > 2 || !of_channel.iter().enumerate().all(agrees) || of_channel[0].factor == 0.0 {
                let why =
                    "the graph prepares the picture; only one factor and one offset for each channel are supported";
                return self.stop_at(conv, format!("{why}, and channel {channel} is not like that"));
            }
            *map = (source, of_channel[0].factor, of_channel[0].offset);
        }
        let channels = maps.map(|m| m.0);
        if (0..3).any(|c| !channels.contains(&c)) {
            return self.stop_at(conv, format!("it reads the channels {channels:?} of the picture"));
        }
        let arithmetic = self.levels || maps.iter().any(|m| (m.1, m.2) != (1.0, 0.0));
        let normalization = if arithmetic { Some(self.normalization(conv, maps)?) } else { None };
        Ok(Pixels { conv, channels, normalization })
    }

    /// Mean and standard deviation, by the picture's channels, for pixels in [0, 1].
    fn normalization(&self, conv: NodeId, maps: [(usize, f64, f64); 3]) -> Found<([f64; 3], [f64; 3])> {
        let (mut mean, mut std) = ([0.0; 3], [1.0; 3]);
        for (source, factor, offset) in maps {
            (mean[source], std[source]) = (0.0 - offset / factor, 1.0 / factor);
        }
        // Pixels of a float input may be in [0, 1] or in [0, 255]. No mean or deviation of the one kind is one of the
        // other.
        let bytes = self.levels || mean.iter().chain(&std).any(|x| *x > 2.0);
        if std.iter().any(|s| *s < 0.0)
            || mean.iter().any(|m| *m < -1e-3)
            || (bytes && !self.levels && std.iter().any(|s| *s < 0.9))
        {
            let why = format!(
                "the graph normalizes the picture with mean {mean:?} and std {std:?}, which fits neither pixels in \
                 [0, 1] nor in [0, 255]"
            );
            return self.stop_at(conv, why);
        }
        if bytes {
            mean.iter_mut().chain(&mut std).for_each(|x| *x /= 255.0);
        }
        Ok((mean, std))
    }

    /// Channel and place in the plane of an element of the input, `[3, height, width]` or `[height, width, 3]`.
    fn place(&self, pixel: u32) -> Option<(usize, usize)> {
        let pixel = usize::try_from(pixel).ok()?;
        match *self.shape(self.input)? {
            [.., height, width, 3] if self.channels_last => {
                (pixel < height * width * 3).then_some((pixel % 3, pixel / 3))
            }
            [.., 3, height, width] => {
                let area = height * width;
                (pixel < 3 * area).then(|| (pixel / area, pixel % area))
            }
            _ => None,
        }
    }

    /// The convolution, and the elements that it reads.
    fn followed(&self) -> Found<(NodeId, Array<Affine>)> {
        let mut followed = Followed::new();
        let shape = self.shape(self.input).filter(|shape| len_of(shape).is_some_and(|len| len <= MOST / 2));
        let Some(indices) = shape.and_then(Array::indices) else {
            return self.stop(self.input, "the picture is too large to be followed");
        };
        let data = indices.data.iter().map(|i| Affine { pixel: *i, factor: 1.0, offset: 0.0 }).collect();
        followed.insert(self.input, Array { shape: indices.shape, data });
        let mut conv: Option<(NodeId, ValueId)> = None;
        for (id, node) in self.nodes.iter().enumerate() {
            let Some(read) = node.inputs.iter().flatten().copied().find(|v| followed.contains_key(v)) else { continue };
            if node.outputs.iter().all(|o| self.is_constant(*o)) {
                continue; // it reads the shape
            }
            if node.op == "Conv" && conv.is_none() && node.input(0) == Some(read) {
                conv = Some((id, read));
                continue;
            }
            let held: usize = followed.values().map(|a| a.data.len()).sum();
            if self.output_len(node).is_some_and(|made| held.saturating_add(made) > MOST) {
                return self.stop_at(id, "the graph does more with the picture than is followed");
            }
            for (at, output) in node.outputs.iter().enumerate() {
                let Some(result) = self.follow(&followed, node, at) else {
                    let why = "a patch convolution is expected on the picture, or constants that normalize the \
                               picture before it";
                    return self.stop_at(id, why);
                };
                followed.insert(*output, result);
            }
            followed.retain(|value, _| self.is_read_after(*value, id) || conv.is_some_and(|(_, read)| read == *value));
        }
        match conv {
            Some((id, read)) => match followed.remove(&read) {
                Some(elements) => Ok((id, elements)),
                None => self.stop_at(id, "it does not read the picture"),
            },
            None => self.stop(self.input, "no patch convolution reads the picture"),
        }
    }

    /// Output `at` of a node that reads the picture.
    fn follow(&self, followed: &Followed, node: &Node, at: usize) -> Option<Array<Affine>> {
        let broadcast = |value: ValueId, shape: &[usize]| -> Option<Array<Affine>> {
            if let Some(known) = followed.get(&value) {
                return known.broadcast(shape);
            }
            let numbers: Vec<Affine> = match self.read_floats(value) {
                Some(a) => a.broadcast(shape)?.data.iter().map(|x| Affine::constant(*x)).collect(),
                None => self.ints(value)?.broadcast(shape)?.data.iter().map(|x| Affine::constant(*x as f32)).collect(),
            };
            Array::new(shape.to_vec(), numbers)
        };
        let of = |value: ValueId| broadcast(value, self.shape(value)?);
        match &*node.op {
            "Add" | "Sub" | "Mul" | "Div" => {
                let (a, b) = (node.input(0)?, node.input(1)?);
                let shape = broadcast_shapes(self.shape(a)?, self.shape(b)?)?;
                let (mut a, b) = (broadcast(a, &shape)?, broadcast(b, &shape)?);
                for (a, b) in a.data.iter_mut().zip(&b.data) {
                    *a = a.apply(&node.op, *b)?;
                }
                Some(a)
            }
            "Neg" => {
                let mut a = of(node.input(0)?)?;
                a.data.iter_mut().for_each(|e| *e = Affine { factor: -e.factor, offset: -e.offset, ..*e });
                Some(a)
            }
            "BatchNormalization" if at == 0 => self.batch_norm(node, of(node.input(0)?)?),
            "Concat" => {
                let parts: Vec<Array<Affine>> = node.inputs.iter().flatten().map(|v| of(*v)).collect::<Option<_>>()?;
                self.movement(node, at, &parts.iter().collect::<Vec<_>>())
            }
            _ => self.movement(node, at, &[&of(self.moved_input(node)?)?]),
        }
    }

    /// `(x - mean) / sqrt(variance + epsilon) * weight + bias` over axis 1.
    fn batch_norm(&self, node: &Node, mut x: Array<Affine>) -> Option<Array<Affine>> {
        let &[_, channels, ref inner @ ..] = &x.shape[..] else { return None };
        let vector = |at: usize| self.vector(node.input(at)?, channels);
        let (weight, bias, mean, variance) = (vector(1)?, vector(2)?, vector(3)?, vector(4)?);
        let epsilon = f64::from(node.float("epsilon").unwrap_or(1e-5));
        let area: usize = inner.iter().product();
        for (i, e) in x.data.iter_mut().enumerate() {
            let c = i / area % channels;
            let factor = f64::from(weight[c]) / (f64::from(variance[c]) + epsilon).sqrt();
            let offset = (e.offset - f64::from(mean[c])) * factor + f64::from(bias[c]);
            *e = Affine { factor: e.factor * factor, offset, ..*e };
        }
        Some(x)
    }
}
