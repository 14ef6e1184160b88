//! Mutated files: nothing panics, and nothing takes memory without end.

use std::path::Path;

use prost::Message;

use crate::Options;
use crate::onnx::graph::Graph;
use crate::onnx::{proto, vit};

/// Mutations of each kind, over all files.
const COUNT: usize = 2_500;
/// What the process of the tests may take, in kB.
const MOST_KB: usize = 2 << 20;

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n.max(1)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let at = self.below(from.len());
        from.get(at)
    }

    fn pick_mut<'a, T>(&mut self, from: &'a mut [T]) -> Option<&'a mut T> {
        let at = self.below(from.len());
        from.get_mut(at)
    }

    /// A number that a check may have forgotten.
    fn number(&mut self) -> i64 {
        let all =
            [0, 1, -1, 2, 3, 7, 16, 255, 1 << 16, 1 << 20, 1 << 31, (1 << 32) - 1, 1 << 40, i64::MAX, i64::MIN, -3, 64];
        all[self.below(all.len())]
    }
}

fn files() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/onnx");
    let names = [
        "vit/dynamo20.onnx",
        "vit/dynamo23.onnx",
        "vit/legacy17_ort.onnx",
        "qk_norm/dynamo20.onnx",
        "swiglu/dynamo20.onnx",
        "hf_vit/dynamo18_dynamic.onnx",
        "deit3/legacy13.onnx",
    ];
    names.iter().map(|name| std::fs::read(root.join(name)).expect(name)).collect()
}

/// Reads and recognizes, as an import does.
fn import(model: proto::Model) {
    let path = Path::new("model.onnx");
    if let Ok(mut graph) = Graph::new(path, model, None)
        && graph.fold(path).is_ok()
        && let Ok(vit) = vit::recognize(&graph)
    {
        let size = (vit.network.config.image_height, vit.network.config.image_width);
        let _ = super::prepared(size, &Options::default(), &mut Vec::new());
    }
}

fn peak_kb() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn mutated_bytes() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let files = files();
    for _ in 0..COUNT {
        let Some(mut bytes) = random.pick(&files).cloned() else { return };
        for _ in 0..1 + random.below(8) {
            // Structure stands before and between the weights.
            let len = if random.below(2) == 0 { bytes.len() } else { bytes.len() / 3 };
            let at = random.below(len);
            match random.below(4) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                2 => bytes.truncate(at.max(1)),
                _ => {
                    let end = (at + random.below(64)).min(bytes.len());
                    bytes.copy_within(at..end, random.below(at.max(1)));
                }
            }
        }
        if let Ok(model) = proto::Model::decode(&bytes[..]) {
            import(model);
        }
    }
    assert!(peak_kb() < MOST_KB, "{} kB", peak_kb());
}

#[test]
fn mutated_graphs() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let models: Vec<proto::Model> =
        files().iter().map(|bytes| proto::Model::decode(&bytes[..]).expect("a model")).collect();
    for _ in 0..COUNT {
        let Some(mut model) = random.pick(&models).cloned() else { return };
        for _ in 0..1 + random.below(3) {
            let Some(graph) = &mut model.graph else { continue };
            mutate(graph, &mut random);
        }
        import(model);
    }
    assert!(peak_kb() < MOST_KB, "{} kB", peak_kb());
}

fn mutate(graph: &mut proto::Graph, random: &mut Random) {
    let number = random.number();
    match random.below(9) {
        0 => {
            if let Some(node) = random.pick_mut(&mut graph.node)
                && let Some(attribute) = random.pick_mut(&mut node.attribute)
            {
                attribute.i = number;
                if let Some(int) = random.pick_mut(&mut attribute.ints) {
                    *int = number;
                }
                if let Some(tensor) = &mut attribute.t {
                    damage(tensor, random);
                }
            }
        }
        1 => {
            if let Some(tensor) = random.pick_mut(&mut graph.initializer) {
                damage(tensor, random);
            }
        }
        2 | 3 => {
            // Another value is read.
            let names: Vec<String> = graph.node.iter().flat_map(|n| n.output.iter().chain(&n.input)).cloned().collect();
            if let (Some(node), Some(name)) = (random.pick_mut(&mut graph.node), random.pick(&names))
                && let Some(input) = random.pick_mut(&mut node.input)
            {
                input.clone_from(name);
            }
        }
        4 => {
            let ops: Vec<String> = graph.node.iter().map(|n| n.op_type.clone()).collect();
            let more =
                ["Expand", "ConstantOfShape", "Range", "Concat", "Gather", "Attention", "Shape", "Where", "Slice"];
            let other =
                if random.below(2) == 0 { random.pick(&ops).cloned() } else { random.pick(&more).map(|s| (*s).into()) };
            if let (Some(node), Some(op)) = (random.pick_mut(&mut graph.node), other) {
                node.op_type = op;
            }
        }
        5 => {
            let at = random.below(graph.node.len());
            let node = graph.node.remove(at);
            if random.below(2) == 0 {
                graph.node.push(node);
            }
        }
        6 => {
            if let Some(node) = random.pick_mut(&mut graph.node) {
                node.input.truncate(random.below(3));
            }
        }
        7 => {
            if let Some(node) = random.pick_mut(&mut graph.node) {
                let at = random.below(node.attribute.len());
                node.attribute.drain(at..(at + 1).min(node.attribute.len()));
            }
        }
        _ => {
            let shape = graph.input.first_mut().and_then(|i| i.r#type.as_mut()?.tensor_type.as_mut()?.shape.as_mut());
            if let Some(dim) = shape.and_then(|shape| random.pick_mut(&mut shape.dim)) {
                dim.dim_value = Some(number);
            }
        }
    }
}

/// Another shape, another type, or other numbers where they say how others are moved.
fn damage(tensor: &mut proto::Tensor, random: &mut Random) {
    let number = random.number();
    match random.below(3) {
        0 => {
            if let Some(dim) = random.pick_mut(&mut tensor.dims) {
                *dim = number;
            }
        }
        1 => tensor.data_type = random.below(24) as i32,
        _ if tensor.data_type == proto::data_type::INT64 && tensor.raw_data.len() >= 8 => {
            let at = random.below(tensor.raw_data.len() / 8) * 8;
            let mut bytes = tensor.raw_data.to_vec();
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            tensor.raw_data = bytes.into();
        }
        _ => tensor.dims.push(number),
    }
}
