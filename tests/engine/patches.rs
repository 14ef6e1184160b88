//! Linear heads over the patches: PyTorch's answers at several sizes of one file, the same bits everywhere, every
//! tensor felt, and broken files refused.

use std::path::PathBuf;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use vitlet::config::Answer;
use vitlet::{Kernels, Model, Output, Precision, RunConfig, Sequential, ThreadPool, digest};
use vitlet_convert::{Converted, Options};

use crate::common::{checkpoint, convert, npy, relative_error, run, run_as};
use crate::hostile::mutate;
use crate::sensitivity::{LEAST, disturb};

/// Files, the blocks that each reads, and its output.
const HEADS: [(&str, &[usize], Output); 4] = [
    ("nyu_linear_head", &[4], Output::Depth),
    ("nyu_linear4_head", &[0, 1, 2, 4], Output::Depth),
    ("classes_linear_head", &[4], Output::LogitsMap),
    ("classes_ms_head", &[1, 2, 3, 4], Output::LogitsMap),
];

/// Height and width beside the file's own, 42 x 42.
const SIZES: [(u32, u32); 3] = [(28, 56), (56, 28), (14, 42)];

fn head(name: &str) -> PathBuf {
    checkpoint("dinov2_own").join("heads").join(format!("{name}.safetensors"))
}

fn with(head: PathBuf, precision: Precision) -> Converted {
    convert(&checkpoint("dinov2_own"), &Options { precision, head: Some(head), ..Options::default() })
}

fn error_at(model: &Model<'_>, name: &str, size: Option<(u32, u32)>) -> f64 {
    let suffix = size.map_or(String::new(), |(height, width)| format!("_{height}x{width}"));
    let folder = checkpoint("dinov2_own");
    let (_, input) = npy(&folder.join(format!("input{suffix}.npy")));
    let (shape, expected) = npy(&folder.join("heads").join(format!("{name}{suffix}.npy")));
    let config = RunConfig::new(Kernels::detect());
    let config = size.map_or(config, |(height, width)| config.input_size(width, height));
    let plan = vitlet::Plan::new(model, &config.max_picture(1, 1), 1).unwrap();
    assert_eq!(plan.outputs().next().unwrap().shape(), &shape[1..]);
    relative_error(&run_as(model, config, &input, &Sequential), &expected)
}

#[test]
fn heads_agree_with_pytorch_at_every_size() {
    for (name, taps, output) in HEADS {
        let [single, half, eight] = [Precision::F32, Precision::F16, Precision::Int8].map(|p| with(head(name), p));
        let model = Model::parse(&single.bytes).unwrap();
        let linear = model.config().linear_head().unwrap();
        assert_eq!((linear.taps(), Output::of(model.config()).last()), (taps, Some(output)));
        let is_depth = linear.answer == Answer::Depth { min: 0.001, max: 10.0 };
        assert_eq!(
            (is_depth, linear.class_token, linear.norm),
            match output {
                Output::Depth => (true, true, false),
                _ => (false, false, true),
            }
        );
        for size in [None].into_iter().chain(SIZES.map(Some)) {
            let error = error_at(&model, name, size);
            assert!(error <= 2e-5, "{name} {size:?}: {error:.1e}");
        }
        let limit = if Kernels::detect().computes_f16() { 5e-3 } else { 2e-3 };
        let [half, eight] = [&half, &eight].map(|file| error_at(&Model::parse(&file.bytes).unwrap(), name, None));
        println!("{name}: f16 {half:.1e}, int8 {eight:.1e}");
        assert!(half <= limit && eight <= 0.25, "{name}: f16 {half:.1e}, int8 {eight:.1e}");
    }
}

#[test]
fn heads_give_the_same_bits_on_all_kernels_and_threads() {
    let (two, three) = (ThreadPool::new(2).unwrap(), ThreadPool::new(3).unwrap());
    for (name, precision) in HEADS.iter().flat_map(|head| [(head.0, Precision::Int8), (head.0, Precision::F32)]) {
        let file = with(head(name), precision);
        for (height, width) in [(42, 42), (28, 56)] {
            let input: Vec<f32> = (0..3 * height * width).map(|i| ((i * 7919) % 1000) as f32 / 250.0 - 2.0).collect();
            let model = Model::parse(&file.bytes).unwrap();
            let at = |kernels| RunConfig::new(kernels).input_size(width as u32, height as u32);
            let expected = digest(&run_as(&model, at(Kernels::scalar()), &input, &Sequential));
            for kernels in Kernels::available() {
                for executor in [&Sequential as &dyn vitlet::Executor, &two, &three] {
                    let got = digest(&run_as(&model, at(kernels), &input, executor));
                    assert_eq!(got, expected, "{name} {precision:?} {height} x {width} {}", kernels.name());
                }
            }
        }
    }
}

#[test]
fn every_tensor_of_a_head_is_felt() {
    let (_, input) = npy(&checkpoint("dinov2_own").join("input.npy"));
    let answer = |path| run(&with(path, Precision::F32).bytes, &input, Kernels::detect(), &Sequential, None);
    let scratch = tempfile::tempdir().unwrap();
    let mut felt = 0;
    for (name, ..) in HEADS {
        let expected = answer(head(name));
        let bytes = std::fs::read(head(name)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        for changed in tensors.names().into_iter().filter(|name| !name.ends_with("num_batches_tracked")) {
            let all: Vec<_> = tensors.iter().filter(|(_, tensor)| tensor.dtype() == Dtype::F32).collect();
            let values = all.iter().map(|(name, tensor)| {
                let floats = tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
                let mut floats: Vec<f32> = floats.collect();
                if name == &changed {
                    disturb(&mut floats);
                }
                (*name, tensor.shape().to_vec(), floats.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
            });
            let values: Vec<_> = values.collect();
            let views =
                values.iter().map(|(name, shape, b)| (*name, TensorView::new(Dtype::F32, shape.clone(), b).unwrap()));
            let path = scratch.path().join(format!("{name}.safetensors"));
            safetensors::serialize_to_file(views, None, &path).unwrap();
            let moved = relative_error(&answer(path), &expected);
            assert!(moved >= LEAST, "{name}: {changed} moves the output by {moved:.1e} only");
            felt += 1;
        }
    }
    assert_eq!(felt, 2 + 2 + 6 + 6);
}

#[test]
fn mutations_of_a_file_with_a_linear_head_neither_panic_nor_read_outside() {
    for name in ["nyu_linear4_head", "classes_ms_head"] {
        mutate(&with(head(name), Precision::Int8).bytes, 2_000);
    }
}
