//! Exported files, edited as other exporters, optimizers and users edit them.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use vitlet::picture::Preprocess;
use vitlet::{Model, Precision, Scores};

use super::proto::{self, Attribute, Dimension, Graph, Node, StringPair, Tensor, data_type};
use crate::{Converted, Options, convert};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/onnx").join(name)
}

/// The graph of a fixture with pixels `[1, 3, 16, 16]`, edited.
fn edited(name: &str, edit: impl FnOnce(&mut Graph)) -> proto::Model {
    let mut model = proto::Model::decode(&fs::read(fixture(name)).expect("read")[..]).expect("a model");
    edit(model.graph.as_mut().expect("a graph"));
    model
}

fn vit(edit: impl FnOnce(&mut Graph)) -> proto::Model {
    edited("vit/dynamo23.onnx", edit)
}

fn import(model: &proto::Model, options: &Options) -> Result<Converted, String> {
    let scratch = tempfile::tempdir().expect("a directory");
    let file = scratch.path().join("model.onnx");
    fs::write(&file, model.encode_to_vec()).expect("written");
    let options = Options { precision: Precision::F32, ..options.clone() };
    convert(&file, &options, &mut |_| {}).map_err(|e| e.to_string())
}

fn refused(model: &proto::Model) -> String {
    refused_with(model, &Options::default())
}

fn refused_with(model: &proto::Model, options: &Options) -> String {
    match import(model, options) {
        Ok(_) => panic!("converted"),
        Err(why) => {
            assert!(!why.contains('\n'), "{why}");
            why
        }
    }
}

/// Checks that the tensors equal the checkpoint's; returns preparation, scores and announcements.
fn assert_whole(model: &proto::Model) -> (Preprocess, Scores, String) {
    let tensors = |converted: &Converted| {
        let mut all = Vec::new();
        let model = Model::parse(&converted.bytes).expect("a model");
        model.for_each_tensor(|spec, bytes| all.push((spec.name.as_str().to_owned(), bytes.to_vec())));
        all
    };
    let got = import(model, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let options = Options { precision: Precision::F32, ..Options::default() };
    let want = convert(&fixture("vit"), &options, &mut |_| {}).expect("the checkpoint");
    assert!(tensors(&got) == tensors(&want), "other weights");
    let parsed = Model::parse(&got.bytes).expect("a model");
    let want = *Model::parse(&want.bytes).expect("a model").config();
    let (scores, positions) = (parsed.config().scores, vitlet::Positions::Fixed);
    assert_eq!(*parsed.config(), vitlet::Config { scores, positions, ..want });
    (*parsed.preprocess(), parsed.config().scores, got.report.announcements.join("\n"))
}

fn node(op: &str, input: &[&str], output: &str) -> Node {
    let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    Node { op_type: op.to_owned(), input: owned(input), output: owned(&[output]), ..Node::default() }
}

fn with(mut node: Node, name: &str, value: impl Fn(&mut Attribute)) -> Node {
    let mut attribute = Attribute { name: name.to_owned(), ..Attribute::default() };
    value(&mut attribute);
    node.attribute.push(attribute);
    node
}

fn floats(name: &str, dims: &[i64], data: &[f32]) -> Tensor {
    let (name, data_type, float_data) = (name.to_owned(), data_type::FLOAT, data.to_vec());
    Tensor { name, dims: dims.to_vec(), data_type, float_data, ..Tensor::default() }
}

fn ints(name: &str, data: &[i64]) -> Tensor {
    let (name, data_type, int64_data) = (name.to_owned(), data_type::INT64, data.to_vec());
    Tensor { name, dims: vec![data.len() as i64], data_type, int64_data, ..Tensor::default() }
}

fn of_op<'g>(graph: &'g mut Graph, op: &str) -> &'g mut Node {
    graph.node.iter_mut().find(|n| n.op_type == op).expect("a node of that kind")
}

/// Without nodes that nothing reads.
fn sweep(graph: &mut Graph) {
    loop {
        let read: Vec<String> = graph.node.iter().flat_map(|n| n.input.clone()).collect();
        let outputs: Vec<String> = graph.output.iter().map(|o| o.name.clone()).collect();
        let before = graph.node.len();
        graph.node.retain(|n| n.output.iter().any(|o| read.contains(o) || outputs.contains(o)));
        if graph.node.len() == before {
            return;
        }
    }
}

#[test]
fn attention_beside_each_other() {
    // Heads side by side: [1, 17, 16] instead of [1, 2, 17, 8].
    let model = vit(|graph| {
        graph.initializer.extend([ints("side", &[0, 0, -1]), ints("apart", &[0, 0, 2, 8])]);
        let heads_first = |input: &str, output: &str| {
            with(node("Transpose", &[input], output), "perm", |a| a.ints = vec![0, 2, 1, 3])
        };
        let mut nodes = Vec::new();
        for mut attention in std::mem::take(&mut graph.node) {
            if attention.op_type != "Attention" {
                nodes.push(attention);
                continue;
            }
            let output = attention.output[0].clone();
            attention.output[0] = format!("{output}_beside");
            for (part, input) in attention.input.iter_mut().enumerate() {
                let (moved, flat) = (format!("{output}_{part}_moved"), format!("{output}_{part}_flat"));
                nodes.push(heads_first(input, &moved));
                nodes.push(node("Reshape", &[&moved, "side"], &flat));
                *input = flat;
            }
            let flat = attention.output[0].clone();
            let apart = format!("{output}_apart");
            nodes.push(with(with(attention, "q_num_heads", |a| a.i = 2), "kv_num_heads", |a| a.i = 2));
            nodes.push(node("Reshape", &[&flat, "apart"], &apart));
            nodes.push(heads_first(&apart, &output));
        }
        graph.node = nodes;
    });
    assert_whole(&model);
}

/// Puts `fused(input, weight, bias, output)` in the place of each attention with its linear layer before.
fn fuse(graph: &mut Graph, fused: impl Fn(&str, &str, &str, &str) -> Vec<Node>) {
    let outputs: Vec<String> =
        graph.node.iter().filter(|n| n.op_type == "Attention").map(|n| n.output[0].clone()).collect();
    for output in outputs {
        let reader = |graph: &Graph, of: &str| graph.node.iter().position(|n| n.input.contains(&of.to_owned()));
        let maker = |graph: &Graph, of: &str| graph.node.iter().position(|n| n.output.contains(&of.to_owned()));
        // Transpose and Reshape after it; Squeeze, Slice, Transpose, Reshape, Add, MatMul before it.
        let transposed = graph.node[reader(graph, &output).expect("a Transpose")].output[0].clone();
        let end = reader(graph, &transposed).expect("a Reshape");
        let mut at = maker(graph, &output).expect("an Attention");
        while graph.node[at].op_type != "MatMul" {
            let first = graph.node[at].input[0].clone();
            at = maker(graph, &first).expect("a node before it");
        }
        let product = graph.node[at].clone();
        let add = graph.node[reader(graph, &product.output[0]).expect("an Add")].clone();
        let bias = add.input.iter().find(|i| **i != product.output[0]).expect("a bias").clone();
        let last = graph.node[end].output[0].clone();
        graph.node[end].output[0] = format!("{last}_unused");
        graph.node.extend(fused(&product.input[0], &product.input[1], &bias, &last));
        sweep(graph);
    }
}

#[test]
fn attention_of_onnxruntime() {
    let microsoft = |node: Node| Node { domain: "com.microsoft".to_owned(), ..node };
    let heads = |node: Node| with(node, "num_heads", |a| a.i = 2);
    assert_whole(&vit(|graph| {
        fuse(graph, |input, weight, bias, output| {
            vec![heads(microsoft(node("Attention", &[input, weight, bias], output)))]
        });
    }));
    assert_whole(&vit(|graph| {
        fuse(graph, |input, weight, bias, output| {
            let names = ["product", "q", "k", "v"].map(|part| format!("{output}_{part}"));
            let [product, q, k, v] = &names;
            let mut split = with(node("Split", &[product], q), "axis", |a| a.i = -1);
            split.output.extend([k.clone(), v.clone()]);
            let attention = heads(microsoft(node("MultiHeadAttention", &[q, k, v, bias], output)));
            vec![node("MatMul", &[input, weight], product), split, attention]
        });
    }));
}

#[test]
fn what_attention_does_not_do_is_named() {
    let attention = |edit: &dyn Fn(&mut Graph)| vit(|graph| edit(graph));
    let set = |name: &'static str, i: i64, f: f32| {
        refused(&attention(&|graph| {
            let node = of_op(graph, "Attention");
            node.attribute.retain(|a| a.name != name);
            *node = with(node.clone(), name, |a| (a.i, a.f) = (i, f));
        }))
    };
    assert!(set("is_causal", 1, 0.0).contains("a causal mask (is_causal) is not supported"));
    assert!(set("softcap", 0, 30.0).contains("capped scores (softcap)"));
    let masked = |mask: Tensor, inputs: usize| {
        attention(&|graph| {
            graph.initializer.push(Tensor { name: "mask".to_owned(), ..mask.clone() });
            let node = of_op(graph, "Attention");
            node.input.resize(inputs, String::new());
            node.input.push("mask".to_owned());
        })
    };
    let bias = |x: f32| floats("", &[1, 1, 17, 17], &[x; 17 * 17]);
    assert!(refused(&masked(bias(1.0), 3)).contains("a bias or a mask is not supported"));
    assert!(refused(&masked(bias(0.0), 4)).contains("a cache of keys and values"));
    assert_whole(&masked(bias(0.0), 3));
    let kept = Tensor { dims: vec![17, 17], data_type: data_type::BOOL, int32_data: vec![1; 289], ..Tensor::default() };
    assert_whole(&masked(kept, 3));
}

#[test]
fn quantized_files_and_other_operators_are_named() {
    let added = |domain: &str, op: &str| {
        refused(&vit(|graph| {
            graph.node.push(Node { domain: domain.to_owned(), ..node(op, &["pixels"], "somewhere") });
        }))
    };
    for op in
        ["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv"]
    {
        let why = added("", op);
        assert!(why.contains(&format!("a quantized file, at node somewhere ({op}); export the f32 network")), "{why}");
    }
    for op in [
        "MatMulNBits",
        "QLinearAdd",
        "QGemm",
        "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat",
        "MatMulBnb4",
        "QAttention",
    ] {
        assert!(added("com.microsoft", op).contains("a quantized file"), "{op}");
    }
    assert!(added("", "RotaryEmbedding").contains("RotaryEmbedding is not supported yet"));
    assert!(added("com.microsoft.nchwc", "Conv").contains("at most ORT_ENABLE_EXTENDED"));
    // 4-bit weights have a type that is not supported; even so, the message is the node's.
    let four_bits = vit(|graph| {
        graph.initializer.push(Tensor { data_type: 22, ..floats("packed", &[2], &[]) });
        graph.node.push(node("DequantizeLinear", &["packed"], "wide"));
    });
    assert!(refused(&four_bits).contains("a quantized file"));
}

/// The network of `rms_norm/`, edited.
fn rms_norm(edit: impl FnOnce(&mut Graph)) -> proto::Model {
    edited("rms_norm/dynamo23.onnx", edit)
}

fn bytes(model: &proto::Model) -> Vec<u8> {
    import(model, &Options::default()).unwrap_or_else(|e| panic!("{e}")).bytes.to_vec()
}

/// onnxruntime's name of RMSNormalization, and its fusion with the addition before it.
#[test]
fn rms_norms_have_several_names() {
    let whole = bytes(&rms_norm(|_| ()));
    for domain in ["", "com.microsoft"] {
        let renamed = rms_norm(|graph| {
            for node in graph.node.iter_mut().filter(|node| node.op_type == "RMSNormalization") {
                node.op_type = "SimplifiedLayerNormalization".to_owned();
                node.domain = domain.to_owned();
            }
        });
        assert!(bytes(&renamed) == whole, "{domain:?}");
    }
    let fused = rms_norm(|graph| {
        let adds: Vec<Node> = graph.node.iter().filter(|n| n.op_type == "Add").cloned().collect();
        let mut fused = Vec::new();
        for norm in graph.node.iter_mut().filter(|n| n.op_type == "RMSNormalization") {
            let Some(add) = adds.iter().find(|add| add.output[0] == norm.input[0]) else { continue };
            norm.op_type = "SkipSimplifiedLayerNormalization".to_owned();
            norm.domain = "com.microsoft".to_owned();
            norm.input = vec![add.input[0].clone(), add.input[1].clone(), norm.input[1].clone()];
            norm.output.extend([String::new(), String::new(), add.output[0].clone()]);
            fused.push(&add.output);
        }
        assert!(fused.len() >= 3, "{fused:?}");
        graph.node.retain(|n| n.op_type != "Add" || !fused.contains(&&n.output));
    });
    assert!(bytes(&fused) == whole);
}

#[test]
fn both_kinds_of_norms_in_one_network_are_refused() {
    let mixed = rms_norm(|graph| {
        let last = graph.node.iter_mut().rfind(|node| node.op_type == "RMSNormalization").expect("norms");
        last.op_type = "LayerNormalization".to_owned();
    });
    assert!(refused(&mixed).contains("LayerNorm and RMSNorm in one network are not supported"));
}

/// The picture comes in as `raw`; `nodes` make `pixels` of it.
fn prepared_inside(constants: &[Tensor], nodes: &[Node]) -> proto::Model {
    vit(|graph| {
        graph.input[0].name = "raw".to_owned();
        graph.initializer.extend_from_slice(constants);
        // In front or behind: the order does not matter.
        graph.node.extend_from_slice(nodes);
    })
}

/// The input has its channels last, and integers as elements.
fn bytes_with_channels_last(model: &mut proto::Model) {
    let graph = model.graph.as_mut().expect("a graph");
    let tensor = graph.input[0].r#type.as_mut().and_then(|t| t.tensor_type.as_mut()).expect("a tensor");
    tensor.elem_type = data_type::UINT8;
    let dim = [1, 16, 16, 3].map(|n| Dimension { dim_value: Some(n) }).to_vec();
    tensor.shape = Some(proto::Shape { dim });
}

const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

fn assert_prepares(model: &proto::Model, mean: [f32; 3], std: [f32; 3]) {
    let (preprocess, _, told) = assert_whole(model);
    assert_eq!((preprocess.mean, preprocess.std), (mean, std));
    assert!(
        told.contains("the graph normalizes the picture itself: mean") && !told.contains("are prepared: mean"),
        "{told}"
    );
}

#[test]
fn normalization_inside_becomes_the_preparation() {
    let channels = |name: &str, data: [f32; 3]| floats(name, &[1, 3, 1, 1], &data);
    let (mean, std) = (channels("mean", MEAN), channels("std", STD));
    let subtract_divide = [node("Sub", &["raw", "mean"], "centered"), node("Div", &["centered", "std"], "pixels")];
    assert_prepares(&prepared_inside(&[mean.clone(), std.clone()], &subtract_divide), MEAN, STD);
    // Pixels in [0, 255].
    let scaled = [floats("white", &[], &[255.0]), mean.clone(), std.clone()];
    let rescale = [
        node("Div", &["raw", "white"], "unit"),
        node("Sub", &["unit", "mean"], "centered"),
        subtract_divide[1].clone(),
    ];
    assert_prepares(&prepared_inside(&scaled, &rescale), MEAN, STD);
    let white = [floats("white", &[1], &[255.0])];
    assert_prepares(&prepared_inside(&white, &[node("Div", &["raw", "white"], "pixels")]), [0.0; 3], [1.0; 3]);
    let caffe = [channels("mean", [127.5, 51.0, 102.0])];
    let caffe = prepared_inside(&caffe, &[node("Sub", &["raw", "mean"], "pixels")]);
    assert_prepares(&caffe, [0.5, 0.2, 0.4], [1.0 / 255.0; 3]);
    // 2 x - 1, as a product and a sum, operands swapped.
    let two = [floats("two", &[], &[2.0]), floats("minus", &[1], &[-1.0])];
    let affine = [node("Mul", &["two", "raw"], "double"), node("Add", &["minus", "double"], "pixels")];
    assert_prepares(&prepared_inside(&two, &affine), [0.5; 3], [0.5; 3]);
    // Every second number of a table, up to an end that the steps do not meet; backwards, from its last.
    let subtracted = |table: [f32; 5], first: i64, end: i64, step: i64| {
        let limits = [ints("first", &[first]), ints("end", &[end]), ints("step", &[step]), ints("axes", &[1, 2])];
        let nodes = [
            node("Range", &["first", "end", "step"], "places"),
            node("Gather", &["table", "places"], "row"),
            node("Unsqueeze", &["row", "axes"], "mean"),
            node("Sub", &["raw", "mean"], "pixels"),
        ];
        prepared_inside(&[&[floats("table", &[5], &table)], &limits[..]].concat(), &nodes)
    };
    assert_prepares(&subtracted([MEAN[0], 9.0, MEAN[1], 9.0, MEAN[2]], 0, 5, 2), MEAN, [1.0; 3]);
    assert_prepares(&subtracted([MEAN[2], 9.0, MEAN[1], 9.0, MEAN[0]], 4, -1, -2), MEAN, [1.0; 3]);
    // A BatchNormalization with the variance 1/4 less epsilon.
    let vectors = [
        floats("weight", &[3], &[1.0; 3]),
        floats("bias", &[3], &[0.0; 3]),
        floats("mean", &[3], &[0.5, 0.25, 0.75]),
        floats("variance", &[3], &[0.25; 3]),
    ];
    let norm = node("BatchNormalization", &["raw", "weight", "bias", "mean", "variance"], "pixels");
    let norm = with(norm, "epsilon", |a| a.f = 0.0);
    assert_prepares(&prepared_inside(&vectors, &[norm]), [0.5, 0.25, 0.75], [0.5; 3]);
}

#[test]
fn bytes_and_channels_last() {
    let cast = |input: &str, output: &str| with(node("Cast", &[input], output), "to", |a| a.i = 1);
    let planes =
        |input: &str, output: &str| with(node("Transpose", &[input], output), "perm", |a| a.ints = vec![0, 3, 1, 2]);
    let mut model = prepared_inside(
        &[floats("white", &[], &[255.0]), floats("mean", &[3], &MEAN), floats("std", &[3], &STD)],
        &[
            cast("raw", "wide"),
            node("Div", &["wide", "white"], "unit"),
            node("Sub", &["unit", "mean"], "centered"),
            node("Div", &["centered", "std"], "normal"),
            planes("normal", "pixels"),
        ],
    );
    bytes_with_channels_last(&mut model);
    assert_prepares(&model, MEAN, STD);
    // Levels go into the convolution as they are.
    let mut model = prepared_inside(&[], &[cast("raw", "wide"), planes("wide", "pixels")]);
    bytes_with_channels_last(&mut model);
    assert_prepares(&model, [0.0; 3], [1.0 / 255.0; 3]);
    // Channels are swapped twice, and mean and std stand for the swapped ones.
    let swap = |input: &str, output: &str| with(node("Gather", &[input, "blue_first"], output), "axis", |a| a.i = 1);
    let model = prepared_inside(
        &[ints("blue_first", &[2, 1, 0]), floats("mean", &[3, 1, 1], &MEAN)],
        &[swap("raw", "bgr"), node("Sub", &["bgr", "mean"], "centered"), swap("centered", "pixels")],
    );
    assert_prepares(&model, [MEAN[2], MEAN[1], MEAN[0]], [1.0; 3]);
}

#[test]
fn channels_swapped_inside_are_swapped_in_the_weights() {
    let swap = with(node("Gather", &["raw", "blue_first"], "pixels"), "axis", |a| a.i = 1);
    let patches = |model: &proto::Model| {
        let converted = import(model, &Options::default()).expect("a model");
        let mut all = Vec::new();
        let model = Model::parse(&converted.bytes).expect("a model");
        model.for_each_tensor(|spec, bytes| {
            if spec.name.as_str() == "patch_embd.weight" {
                all = bytes.to_vec();
            }
        });
        all
    };
    let mut swapped = prepared_inside(&[ints("blue_first", &[2, 1, 0])], &[swap]);
    assert_ne!(patches(&swapped), patches(&vit(|_| {})));
    // The same with the weights of red and blue exchanged is the network as it was.
    let graph = swapped.graph.as_mut().expect("a graph");
    let weight = of_op(graph, "Conv").input[1].clone();
    let weight = graph.initializer.iter_mut().find(|t| t.name == weight).expect("weights");
    let plane = 4 * (weight.dims[2] * weight.dims[3]) as usize;
    let mut bytes = weight.raw_data.to_vec();
    for filter in bytes.chunks_exact_mut(3 * plane) {
        let (red, rest) = filter.split_at_mut(plane);
        red.swap_with_slice(&mut rest[plane..]);
    }
    weight.raw_data = bytes.into();
    assert_whole(&swapped);
}

#[test]
fn what_normalization_is_not_supported_is_named() {
    let refused_of = |constants: &[Tensor], nodes: &[Node]| refused(&prepared_inside(constants, nodes));
    let image = floats("mean", &[1, 3, 16, 16], &(0..768).map(|i| i as f32 / 768.0).collect::<Vec<_>>());
    let why = refused_of(&[image], &[node("Sub", &["raw", "mean"], "pixels")]);
    assert!(why.contains("only one factor and one offset for each channel are supported"), "{why}");
    let of_picture = [node("ReduceMean", &["raw"], "mean"), node("Sub", &["raw", "mean"], "pixels")];
    let why = refused_of(&[], &of_picture);
    assert!(why.contains("node mean (ReduceMean)") && why.contains("constants that normalize the picture"), "{why}");
    // Pixels in [-1, 1].
    let why = refused_of(&[floats("one", &[], &[1.0])], &[node("Add", &["raw", "one"], "pixels")]);
    assert!(why.contains("fits neither pixels in [0, 1] nor in [0, 255]"), "{why}");
    // What is said twice.
    let model = prepared_inside(&[floats("white", &[], &[255.0])], &[node("Div", &["raw", "white"], "pixels")]);
    let why = refused_with(&model, &Options { std: Some([0.5; 3]), ..Options::default() });
    assert!(why.contains("mean 0,0,0 and std 1,1,1; leave out --mean and --std"), "{why}");
    let odd = vit(|graph| {
        let shape = graph.input[0].r#type.as_mut().and_then(|t| t.tensor_type.as_mut()?.shape.as_mut());
        shape.expect("a shape").dim[2].dim_value = Some(18);
    });
    assert!(refused(&odd).contains("are not whole patches"));
}

#[test]
fn what_scores_the_logits_is_left_to_vitlet() {
    let ends_in = |op: &str| {
        vit(|graph| {
            let logits = std::mem::replace(&mut graph.output[0].name, "scores".to_owned());
            graph.node.push(with(node(op, &[&logits], "scores"), "axis", |a| a.i = -1));
        })
    };
    for (op, want) in [("Softmax", Scores::Softmax), ("Sigmoid", Scores::Sigmoid)] {
        let (_, scores, told) = assert_whole(&ends_in(op));
        assert_eq!(scores, want);
        assert!(told.contains(&format!("the file ends in {op}")), "{told}");
    }
}

/// The exporter's function for attention, where it is not optimized, casts the length of a head like the queries.
#[test]
fn integers_cast_like_the_picture_are_numbers() {
    assert_whole(&edited("vit/dynamo20.onnx", |graph| {
        let is_scale = |t: &Tensor| t.dims.is_empty() && t.data_type == data_type::FLOAT;
        let at = graph.initializer.iter().position(is_scale).expect("the scale of the scores");
        let scale = graph.initializer.remove(at).name;
        graph.initializer.extend([ints("head_dim", &[8]), floats("one", &[1], &[1.0])]);
        graph.node.extend([
            node("CastLike", &["head_dim", "pixels"], "float"),
            node("Sqrt", &["float"], "root"),
            node("Div", &["one", "root"], &scale),
        ]);
    }));
}

#[test]
fn nodes_in_any_order_but_each_value_once() {
    assert_whole(&vit(|graph| graph.node.reverse()));
    let twice = vit(|graph| {
        let again = graph.node[0].clone();
        graph.node.push(again);
    });
    assert!(refused(&twice).contains("is written twice"), "{}", refused(&twice));
    let cycle = vit(|graph| {
        let last = graph.node.last().expect("nodes").output[0].clone();
        of_op(graph, "Conv").input[0] = last;
    });
    assert!(refused(&cycle).contains("which no node before it writes"));
}

#[test]
fn external_data_stays_in_the_directory() {
    let scratch = tempfile::tempdir().expect("a directory");
    let inner = scratch.path().join("inner");
    fs::create_dir_all(inner.join("folder")).expect("made");
    fs::write(scratch.path().join("secret"), [0; 4096]).expect("written");
    fs::write(inner.join("short"), [0; 4]).expect("written");
    let absolute = scratch.path().join("secret").display().to_string();
    for (location, want) in [
        ("../secret", "outside the model's directory"),
        ("folder/../../secret", "outside the model's directory"),
        (&absolute, "outside the model's directory"),
        ("folder", "not a file"),
        ("missing", "holds the weights"),
        ("short", "needs 4096 at 0"),
    ] {
        let model = vit(|graph| {
            let tensor = graph.initializer.iter_mut().find(|t| t.raw_data.len() > 100).expect("a tensor");
            tensor.raw_data.clear();
            tensor.data_location = 1;
            let pair = |key: &str, value: &str| StringPair { key: key.to_owned(), value: value.to_owned() };
            tensor.external_data = vec![pair("location", location), pair("length", "4096")];
        });
        let file = inner.join("model.onnx");
        fs::write(&file, model.encode_to_vec()).expect("written");
        let why = convert(&file, &Options::default(), &mut |_| {}).map(|_| ()).expect_err(location).to_string();
        assert!(why.contains(want), "{location}: {why}");
    }
}

/// A whole network, and beside it nodes that nothing reads.
fn beside(constants: &[Tensor], nodes: &[Node]) -> proto::Model {
    vit(|graph| {
        graph.initializer.extend_from_slice(constants);
        graph.node.extend_from_slice(nodes);
    })
}

#[test]
fn numbers_without_bounds_are_no_shapes() {
    let image = [floats("image", &[1, 1, 4, 4], &[0.0; 16]), floats("kernel", &[1, 1, 2, 2], &[0.0; 4])];
    let conv = node("Conv", &["image", "kernel"], "shape");
    for (name, list) in [
        ("pads", vec![i64::MAX; 4]),
        ("dilations", vec![i64::MAX; 2]),
        ("strides", vec![i64::MAX, 1]),
        ("strides", vec![0, 0]),
    ] {
        assert_whole(&beside(&image, &[with(conv.clone(), name, |a| a.ints = list.clone())]));
    }
    let heads = |node: Node, name: &str, n: i64| with(node, name, |a| a.i = n);
    let attention = node("Attention", &["tokens", "tokens", "tokens"], "shape");
    for (q, kv) in [(i64::MAX, 1), (1, 0), (-1, 1)] {
        let attention = heads(heads(attention.clone(), "q_num_heads", q), "kv_num_heads", kv);
        assert_whole(&beside(&[floats("tokens", &[1, 3, 4], &[0.0; 12])], &[attention]));
    }
    let matrix = floats("matrix", &[4, 4], &[0.0; 16]);
    let slice = node("Slice", &["matrix", "from", "to", "axes", "step"], "shape");
    for (from, to, step) in
        [(0, i64::MAX, i64::MAX), (i64::MAX, i64::MIN, i64::MIN), (3, 0, i64::MIN), (2, 2, i64::MIN)]
    {
        let numbers = [ints("from", &[from]), ints("to", &[to]), ints("axes", &[0]), ints("step", &[step])];
        assert_whole(&beside(&[std::slice::from_ref(&matrix), &numbers].concat(), std::slice::from_ref(&slice)));
    }
    let mut split = node("Split", &["matrix", "sizes"], "shape");
    split.output.extend(["second".to_owned(), "third".to_owned()]);
    assert_whole(&beside(&[matrix.clone(), ints("sizes", &[i64::MAX, i64::MAX, 1])], &[split.clone()]));
    split.output.clear();
    assert_whole(&beside(&[matrix, ints("sizes", &[4])], &[split]));
    // Products of some lengths, where all of them make 0.
    let empty = floats("empty", &[0, 1 << 40, 1 << 40], &[]);
    let why = refused(&beside(&[empty], &[node("Transpose", &["empty"], "shape")]));
    assert!(why.contains("tensor empty: its elements do not fill its shape"), "{why}");
}

#[test]
fn shapes_beyond_every_network_are_not_known() {
    let mut constants = vec![floats("image", &[1, 1, 4, 4], &[0.0; 16]), floats("kernel", &[1, 1, 2, 2], &[0.0; 4])];
    let mut nodes = vec![node("Conv", &["image", "kernel"], "x0")];
    for i in 0..6 {
        let axis = |at: i64| if at == i { 1 << 12 } else { 1 };
        let dims: Vec<i64> = (0..6).map(axis).chain([1; 4]).collect();
        constants.push(floats(&format!("c{i}"), &dims, &[0.0; 1 << 12]));
        nodes.push(node("Add", &[&format!("x{i}"), &format!("c{i}")], &format!("x{}", i + 1)));
    }
    nodes.push(node("Size", &["x6"], "size"));
    nodes.push(with(node("Flatten", &["x6"], "flat"), "axis", |a| a.i = 6));
    assert_whole(&beside(&constants, &nodes));
    // Numbers out of nothing, by an operator whose shape is not known beforehand.
    let limits = [ints("first", &[0]), ints("end", &[1 << 20]), ints("step", &[1])];
    let ranges: Vec<Node> = (0..17).map(|i| node("Range", &["first", "end", "step"], &format!("range{i}"))).collect();
    assert!(refused(&beside(&limits, &ranges)).contains("node range16 (Range) makes 1048576 numbers out of"));
    // A convolution without outputs.
    let none = refused(&vit(|graph| {
        let name = of_op(graph, "Conv").input[1].clone();
        of_op(graph, "Conv").input.truncate(2);
        let weight = graph.initializer.iter_mut().find(|t| t.name == name).expect("the weights");
        (weight.dims[0], weight.raw_data) = (0, Default::default());
    }));
    assert!(none.contains("its shape is not known, or it has no outputs"), "{none}");
}
