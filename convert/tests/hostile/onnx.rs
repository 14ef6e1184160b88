//! ONNX files: mutated ones, and small ones that ask for much memory.

use std::fs;
use std::path::PathBuf;

use prost::Message;
use vitlet::Precision;
use vitlet_convert::{Options, convert};

use crate::allocator::peak;
use crate::{NO_LABELS, fixtures};

#[allow(dead_code, reason = "the converter's, which reads more kinds of elements than are written here")]
#[path = "../../src/onnx/proto.rs"]
mod proto;

/// Mutations of each kind, over all files.
const COUNT: usize = 2_500;
/// Bytes that reading a small file may take: the elements of the picture or of the tokens, twice, while one operator
/// is followed.
const MOST: usize = 1 << 30;
/// Bytes where a file is refused for what it asks.
const REFUSED: usize = 8 << 20;

/// A file in a directory of its own.
struct Scratch {
    _dir: tempfile::TempDir,
    file: PathBuf,
    options: Options,
}

impl Scratch {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let labels = Some(dir.path().join(NO_LABELS));
        let options = Options { labels, precision: Precision::F32, ..Options::default() };
        Self { file: dir.path().join("model.onnx"), _dir: dir, options }
    }

    /// Reads the network in `bytes` with less than `most` bytes of memory: why there is none, if there is none.
    fn read(&self, bytes: &[u8], most: usize) -> Option<String> {
        fs::write(&self.file, bytes).expect("written");
        let (result, memory) = peak(|| convert(&self.file, &self.options, &mut |_| {}).map(drop));
        let why = result.expect_err("no labels").to_string();
        assert!(memory < most, "{memory} bytes: {why}");
        assert!(!why.contains('\n'), "{why:?}");
        (!why.contains(NO_LABELS)).then_some(why)
    }
}

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
    let names = [
        "vit/dynamo20.onnx",
        "vit/dynamo23.onnx",
        "vit/legacy17_ort.onnx",
        "qk_norm/dynamo20.onnx",
        "swiglu/dynamo20.onnx",
        "hf_vit/dynamo18_dynamic.onnx",
        "deit3/legacy13.onnx",
    ];
    names.iter().map(|name| fs::read(fixtures().join("onnx").join(name)).expect(name)).collect()
}

#[test]
fn mutated_bytes() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (files, scratch, mut outcomes) = (files(), Scratch::new(), [0; 2]);
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
        outcomes[usize::from(scratch.read(&bytes, MOST).is_some())] += 1;
    }
    let [read, refused] = outcomes;
    assert!(read > 100 && refused > 100, "{read} read, {refused} refused");
}

#[test]
fn mutated_graphs() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let models: Vec<proto::Model> =
        files().iter().map(|bytes| proto::Model::decode(&bytes[..]).expect("a model")).collect();
    let (scratch, mut outcomes) = (Scratch::new(), [0; 2]);
    for _ in 0..COUNT {
        let Some(mut model) = random.pick(&models).cloned() else { return };
        for _ in 0..1 + random.below(3) {
            let Some(graph) = &mut model.graph else { continue };
            mutate(graph, &mut random);
        }
        outcomes[usize::from(scratch.read(&model.encode_to_vec(), MOST).is_some())] += 1;
    }
    let [read, refused] = outcomes;
    assert!(read > 100 && refused > 100, "{read} read, {refused} refused");
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

/// The ViT of the fixtures, edited.
fn edited(edit: impl FnOnce(&mut proto::Graph)) -> Vec<u8> {
    let bytes = fs::read(fixtures().join("onnx/vit/dynamo23.onnx")).expect("read");
    let mut model = proto::Model::decode(&bytes[..]).expect("a model");
    edit(model.graph.as_mut().expect("a graph"));
    model.encode_to_vec()
}

/// `name` with `len` zeros on an axis before those of pictures.
fn zeros(name: &str, len: usize) -> proto::Tensor {
    let (dims, raw_data) = (vec![len as i64, 1, 1, 1], vec![0; 4 * len].into());
    proto::Tensor { name: name.to_owned(), dims, data_type: proto::data_type::FLOAT, raw_data, ..Default::default() }
}

/// What the patch convolution reads (input 0), or makes, passes through `op` before, with `more` inputs.
fn between(graph: &mut proto::Graph, op: &str, reads: bool, more: &[&str]) {
    let conv = graph.node.iter_mut().find(|node| node.op_type == "Conv").expect("a convolution");
    let end = if reads { &mut conv.input[0] } else { &mut conv.output[0] };
    let (own, other) = (end.clone(), format!("{end} between"));
    end.clone_from(&other);
    let (from, to) = if reads { (own, other) } else { (other, own) };
    let input = [&*from].into_iter().chain(more.iter().copied()).map(str::to_owned).collect();
    graph.node.push(proto::Node { op_type: op.to_owned(), input, output: vec![to], ..Default::default() });
}

#[test]
fn small_files_take_little_memory() {
    let scratch = Scratch::new();
    let refused = |edit: &dyn Fn(&mut proto::Graph), want: &str| {
        let why = scratch.read(&edited(edit), REFUSED).expect("refused");
        assert!(why.contains(want), "{why}");
    };
    // 16 x 16 pixels, 32768 times.
    refused(
        &|graph| {
            graph.initializer.push(zeros("zeros", 1 << 15));
            between(graph, "Sub", true, &["zeros"]);
        },
        "the graph does more with the picture than is followed",
    );
    // 16 patches of 16 channels, 262144 times.
    refused(
        &|graph| {
            graph.initializer.push(zeros("zeros", 1 << 18));
            between(graph, "Add", false, &["zeros"]);
        },
        "more happens to the patches than is followed",
    );
    // 200 million elements of a picture, turned upside down.
    refused(
        &|graph| {
            let tensor = graph.input[0].r#type.as_mut().and_then(|t| t.tensor_type.as_mut()).expect("a tensor");
            let dim = [1, 3, 8192, 8192].map(|n| proto::Dimension { dim_value: Some(n) }).to_vec();
            tensor.shape = Some(proto::Shape { dim });
            between(graph, "Transpose", true, &[]);
        },
        "the picture is too large to be followed",
    );
    // One matrix of 1 MB, a thousand times.
    let bytes = edited(|graph| {
        graph.initializer.push(proto::Tensor { dims: vec![512, 512], ..zeros("matrix", 512 * 512) });
        let (input, output) = (vec!["matrix".to_owned(); 1000], vec!["sum".to_owned()]);
        graph.node.push(proto::Node { op_type: "Sum".to_owned(), input, output, ..Default::default() });
    });
    assert_eq!(scratch.read(&bytes, REFUSED), None);
}
