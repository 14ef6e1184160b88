//! From the picture to the tokens: the patch convolution, and everything that only moves its outputs, adds constants to
//! them or puts constants beside them. Each element of the tokens is then a sum of one output of the convolution (or
//! none) and one number, and that says where patches, prefix tokens and positions are, in whichever order the graph
//! puts them together.

use std::collections::HashMap;

use crate::network::{Layer, Linear};
use crate::onnx::array::{Array, broadcast_shapes, len_of};
use crate::onnx::graph::{Graph, Node, NodeId, ValueId};
use crate::onnx::pixels::Pixels;
use crate::onnx::vit::Found;

/// Elements on the way to the tokens at once, at most, 8 bytes each; the operands of a node take as much again. That is
/// 800 MB, and enough for 24 000 tokens of 1024 channels.
const MOST: usize = 3 << 24;

/// The embedding.
#[derive(Debug)]
pub(crate) struct Stem {
    /// Outputs `[dim]`, inputs `[channel][dy][dx]`.
    pub patch: Layer,
    /// Height and width of a patch in pixels.
    pub patch_size: (usize, usize),
    /// Patches down and across.
    pub grid: (usize, usize),
    pub prefix_tokens: usize,
    /// `[prefix_tokens, dim]`
    pub prefix: Vec<f32>,
    /// `[patches, dim]`
    pub positions: Vec<f32>,
    /// The embedded tokens.
    pub tokens: ValueId,
    /// Mean and standard deviation that the graph itself applies to pixels in [0, 1].
    pub normalization: Option<([f64; 3], [f64; 3])>,
}

/// An element on the way: NONE stands for no output of the convolution, NaN for no number.
#[derive(Clone, Copy, PartialEq)]
struct Element {
    pixel: u32,
    number: f32,
}

const NONE: u32 = u32::MAX;

impl Element {
    fn plus(self, other: Self) -> Option<Self> {
        let pixel = match (self.pixel, other.pixel) {
            (pixel, NONE) | (NONE, pixel) => pixel,
            _ => return None,
        };
        let number = match (self.number, other.number) {
            (a, b) if b.is_nan() => a,
            (a, b) if a.is_nan() => b,
            (a, b) => a + b,
        };
        Some(Self { pixel, number })
    }
}

/// Values made of elements.
type Elements = HashMap<ValueId, Array<Element>>;

impl Graph {
    /// The embedding at the start of the graph.
    pub(crate) fn stem(&self) -> Found<Stem> {
        let Pixels { conv, channels, normalization } = self.pixels()?;
        self.check_patch(conv)?;
        let node = &self.nodes[conv];
        let output = node.outputs[0];
        let weight = node.input(1).and_then(|w| self.floats(w));
        let shapes = (self.shape(output), weight);
        let (Some(&[1, dim @ (1..), down, across]), Some(weight)) = shapes else {
            return self.stop_at(conv, "no patch convolution: its shape is not known, or it has no outputs");
        };
        let bias = match node.input(2) {
            None => vec![0.0; dim],
            Some(b) => match self.vector(b, dim) {
                Some(bias) => bias.to_vec(),
                None => return self.stop_at(conv, "its bias depends on the picture"),
            },
        };
        let patch_size = (weight.shape[2], weight.shape[3]);
        let (k, weight) = (3 * patch_size.0 * patch_size.1, by_picture_channel(weight, channels));
        let patch = Linear { n: dim, k, weight, bias }.into();

        let (elements, tokens) = self.embedded(output)?;
        let picture = node.input(0).and_then(|v| self.shape(v)).unwrap_or_default();
        if !picture.ends_with(&[down * patch_size.0, across * patch_size.1]) {
            return self.stop_at(conv, format!("pictures {picture:?} are not whole patches of {patch_size:?} pixels"));
        }
        let patches = down * across;
        let rows = elements.len() / dim;
        let token = |i: usize| &elements[i * dim..(i + 1) * dim];
        let prefix_tokens = (0..rows).take_while(|i| token(*i).iter().all(|e| e.pixel == NONE)).count();
        let in_order =
            |p: usize| token(prefix_tokens + p).iter().enumerate().all(|(c, e)| e.pixel as usize == c * patches + p);
        if rows * dim != elements.len() || rows != prefix_tokens + patches || !(0..patches).all(in_order) {
            return self
                .stop(tokens, format!("not {patches} patches of {dim} channels, row by row, after other tokens"));
        }
        let mut numbers: Vec<f32> = elements.iter().map(|e| if e.number.is_nan() { 0.0 } else { e.number }).collect();
        let positions = numbers.split_off(prefix_tokens * dim);
        let grid = (down, across);
        Ok(Stem { patch, patch_size, grid, prefix_tokens, prefix: numbers, positions, tokens, normalization })
    }

    /// Whether the convolution cuts the picture into patches.
    fn check_patch(&self, id: NodeId) -> Found<()> {
        let node = &self.nodes[id];
        let list =
            |name: &str, default: i64, count: usize| node.ints(name).map_or(vec![default; count], <[i64]>::to_vec);
        let weight = node.input(1).and_then(|w| self.float_shape(w));
        let Some(&[_, channels, height, width]) = weight else {
            return self.stop_at(id, "a convolution whose weights are not in the file");
        };
        let (strides, pads) = (list("strides", 1, 2), list("pads", 0, 4));
        let steps = strides.iter().map(|s| usize::try_from(*s).unwrap_or(0)).eq([height, width]);
        let plain = channels == 3
            && node.int("group").unwrap_or(1) == 1
            && list("dilations", 1, 2) == [1, 1]
            && !matches!(node.text("auto_pad"), Some("SAME_UPPER" | "SAME_LOWER"));
        if !steps || !plain || pads.iter().any(|p| *p != 0) {
            let why = format!(
                "no patch embedding: a {height}x{width} convolution of {channels} channels with strides {strides:?} and padding {pads:?}"
            );
            return self.stop_at(id, why);
        }
        Ok(())
    }

    /// Follows the convolution's output as far as elements go: the last value's elements, and the value.
    fn embedded(&self, start: ValueId) -> Found<(Vec<Element>, ValueId)> {
        let mut elements = Elements::new();
        let shape = self.shape(start).filter(|shape| len_of(shape).is_some_and(|len| len <= MOST / 2));
        let Some(pixels) = shape.and_then(Array::indices) else { return self.stop(start, "too many patches") };
        let data = pixels.data.iter().map(|i| Element { pixel: *i, number: f32::NAN }).collect();
        elements.insert(start, Array { shape: pixels.shape, data });
        // What something else than the embedding reads.
        let mut tokens: Option<(Vec<Element>, ValueId)> = None;
        for (id, node) in self.nodes.iter().enumerate() {
            let read: Vec<ValueId> =
                node.inputs.iter().flatten().copied().filter(|v| elements.contains_key(v)).collect();
            if read.is_empty() || node.outputs.iter().all(|o| self.is_constant(*o)) {
                continue;
            }
            let embeds = matches!(&*node.op, "Add" | "Concat") || self.moved_input(node).is_some();
            let held: usize = elements.values().map(|a| a.data.len()).sum();
            if embeds && self.output_len(node).is_some_and(|made| held.saturating_add(made) > MOST) {
                return self.stop_at(id, "more happens to the patches than is followed");
            }
            let results = (0..node.outputs.len()).map(|at| self.embed(&elements, node, at));
            if let Some(results) = results.collect::<Option<Vec<_>>>() {
                elements.extend(node.outputs.iter().copied().zip(results));
            } else {
                for (value, read) in read.iter().map(|value| (self.strip(*value), &elements[value])) {
                    let (_, first) = tokens.get_or_insert_with(|| (read.data.clone(), value));
                    if *first != value {
                        return self.stop_at(id, "it reads patches that are not tokens with all their neighbours yet");
                    }
                }
            }
            elements.retain(|value, _| self.is_read_after(*value, id));
        }
        tokens.map_or_else(|| self.stop(start, "nothing but patches"), Ok)
    }

    fn embed(&self, elements: &Elements, node: &Node, output: usize) -> Option<Array<Element>> {
        let broadcast = |value: ValueId, shape: &[usize]| -> Option<Array<Element>> {
            if let Some(known) = elements.get(&value) {
                return known.broadcast(shape);
            }
            let numbers = self.read_floats(value)?.broadcast(shape)?;
            let data = numbers.data.iter().map(|x| Element { pixel: NONE, number: *x }).collect();
            Some(Array { shape: numbers.shape, data })
        };
        let of = |value: ValueId| broadcast(value, self.shape(value)?);
        if node.op == "Add" {
            let (a, b) = (node.input(0)?, node.input(1)?);
            let shape = broadcast_shapes(self.shape(a)?, self.shape(b)?)?;
            let (mut a, b) = (broadcast(a, &shape)?, broadcast(b, &shape)?);
            for (a, b) in a.data.iter_mut().zip(&b.data) {
                *a = a.plus(*b)?;
            }
            return Some(a);
        }
        let inputs: Vec<Array<Element>> = match &*node.op {
            "Concat" => node.inputs.iter().flatten().map(|v| of(*v)).collect::<Option<_>>()?,
            _ => vec![of(self.moved_input(node)?)?],
        };
        self.movement(node, output, &inputs.iter().collect::<Vec<_>>())
    }
}

/// A convolution's weights `[outputs, 3, height, width]`, of which channel c reads the picture's `channels[c]`, by the
/// picture's.
fn by_picture_channel(weight: &Array<f32>, channels: [usize; 3]) -> Vec<f32> {
    let area = weight.shape[2] * weight.shape[3];
    let mut data = weight.data.clone();
    for (to, from) in data.chunks_exact_mut((3 * area).max(1)).zip(weight.data.chunks_exact((3 * area).max(1))) {
        for (c, plane) in channels.iter().zip(from.chunks_exact(area.max(1))) {
            to[c * area..(c + 1) * area].copy_from_slice(plane);
        }
    }
    data
}
