//! What a session gives and takes: outputs by name, input sizes, the caller's wish to stop; and its owner.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vitlet::{
    Error, Executor, Kernels, Model, Named, Output, Picture, Place, Plan, Precision, Rows, RunConfig, Runner, Scratch,
    Sequential, Tap, ThreadPool, digest,
};
use vitlet_convert::Options;

use crate::common::{checkpoint, checkpoints, convert, npy, of_nan, relative_error, run, run_as};

type Row = (&'static str, [(usize, usize); 3], &'static [&'static str]);

/// Networks, and sizes (height, width) beside their own: smaller, larger, not square. The last column says for which
/// outputs PyTorch's answers are there.
const SIZES: [Row; 10] = [
    ("timm_vit", [(24, 24), (48, 40), (24, 40)], &["logits"]),
    ("timm_deit3", [(32, 32), (64, 64), (32, 80)], &["logits"]),
    ("timm_dinov3", [(24, 24), (48, 64), (24, 40)], &["logits"]),
    ("vit5", [(24, 24), (48, 48), (24, 40)], &["logits"]),
    ("hf_vit", [(24, 24), (48, 48), (24, 40)], &["logits"]),
    ("hf_dinov2", [(28, 28), (70, 70), (28, 56)], &["logits"]),
    ("hf_dinov2_registers", [(24, 24), (48, 48), (24, 40)], &["logits"]),
    ("hf_dinov3", [(24, 24), (48, 48), (24, 40)], &["features", "tokens"]),
    ("hf_depth_anything", [(28, 42), (56, 28), (14, 56)], &["depth"]),
    ("depth_anything_own", [(28, 42), (56, 28), (14, 56)], &["depth"]),
];

fn of(precision: Precision) -> Options {
    Options { precision, ..Options::default() }
}

fn at((height, width): (usize, usize)) -> RunConfig {
    RunConfig::new(Kernels::detect()).input_size(width as u32, height as u32)
}

#[test]
fn one_file_at_many_sizes_agrees_with_pytorch() {
    for (name, sizes, outputs) in SIZES {
        let (source, file) = (checkpoint(name), convert(&checkpoint(name), &of(Precision::F32)));
        let model = Model::parse(&file.bytes).unwrap();
        for (size, output) in sizes.iter().flat_map(|size| outputs.iter().map(move |output| (*size, *output))) {
            let [input, expected] =
                ["input", output].map(|stem| npy(&source.join(format!("{stem}_{}x{}.npy", size.0, size.1))).1);
            let wanted = Output::from_name(output).unwrap();
            let got = run_as(&model, at(size).outputs(&[wanted]), &input, &Sequential);
            let error = relative_error(&got, &expected);
            assert!(error <= 2e-5, "{name} {size:?} {output}: {error:.2e}");
        }
    }
}

/// By the same operations in the same order, so that the bits are the same; on all kernels and threads.
#[test]
fn a_session_at_another_size_is_a_file_of_that_size() {
    let pool = ThreadPool::new(3).unwrap();
    for ((name, sizes, _), precision) in SIZES.iter().flat_map(|row| [(row, Precision::Int8), (row, Precision::F32)]) {
        let file = convert(&checkpoint(name), &of(precision));
        let model = Model::parse(&file.bytes).unwrap();
        for &size in sizes {
            let resized = convert(&checkpoint(name), &Options { image_size: Some(size), ..of(precision) });
            let input: Vec<f32> = (0..3 * size.0 * size.1).map(|i| ((i * 7919) % 1000) as f32 / 250.0 - 2.0).collect();
            let expected = digest(&run(&resized.bytes, &input, Kernels::scalar(), &Sequential, None));
            for kernels in Kernels::available() {
                for executor in [&Sequential as &dyn Executor, &pool] {
                    let run = RunConfig::new(kernels).input_size(size.1 as u32, size.0 as u32);
                    let got = digest(&run_as(&model, run, &input, executor));
                    assert_eq!(got, expected, "{name} {size:?} {precision:?} {}", kernels.name());
                }
            }
        }
    }
}

#[test]
fn pictures_are_prepared_for_the_size_of_the_session() {
    let pixels: Vec<u8> = (0..90 * 70 * 3_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let picture = Picture::rgb8(&pixels, 90, 70, 270);
    for (name, sizes, _) in SIZES {
        for size in sizes {
            let resized = convert(&checkpoint(name), &Options { image_size: Some(size), ..Options::default() });
            let file = Scratch::copied(&convert(&checkpoint(name), &Options::default()).bytes).unwrap();
            let mut own = Runner::new(Arc::new(file), at(size), Arc::new(Sequential)).unwrap();
            let resized = Scratch::copied(&resized.bytes).unwrap();
            let default = RunConfig::new(Kernels::detect());
            let mut other = Runner::new(Arc::new(resized), default, Arc::new(Sequential)).unwrap();
            assert_eq!(own.plan().preprocess(), other.plan().preprocess(), "{name} {size:?}");
            let [got, expected] = [&mut own, &mut other].map(|r| r.run_picture(&picture).unwrap().first().to_vec());
            assert_eq!(got, expected, "{name} {size:?}");
        }
    }
}

#[test]
fn sizes_that_a_network_cannot_take_are_refused_in_words() {
    let refusal = |name: &str, width, height| {
        let file = convert(&checkpoint(name), &Options::default());
        let run = RunConfig::new(Kernels::baseline()).input_size(width, height);
        Plan::new(&Model::parse(&file.bytes).unwrap(), &run, 1).map(|_| ()).map_err(|e| e.to_string())
    };
    for fixed in ["timm_beit", "timm_xcit", "timm_resmlp"] {
        assert!(refusal(fixed, 96, 96).unwrap_err().contains("vitlet convert --image-size"), "{fixed}");
    }
    let resized = convert(&checkpoint("timm_vit"), &Options { image_size: Some((48, 48)), ..Options::default() });
    let resized = Model::parse(&resized.bytes).unwrap();
    assert!(
        Plan::new(&resized, &RunConfig::new(Kernels::baseline()).input_size(32, 32), 1).is_err(),
        "a table of 48 x 48"
    );
    for (width, height) in [(0, 32), (36, 32), (32, 1 << 20), (u32::MAX, 8)] {
        let why = refusal("timm_vit", width, height).unwrap_err();
        assert!(why.starts_with("run configuration: image size must be"), "{width}x{height}: {why}");
    }
    assert!(refusal("timm_vit", 16_384, 16_384).unwrap_err().contains("at most 65536 tokens"));
    assert_eq!(refusal("timm_convnext", 64, 96), Ok(()), "no positions");
}

/// Every output of every network by itself, and all of them in one run.
#[test]
fn outputs_asked_for_together_are_those_asked_for_alone() {
    for source in checkpoints() {
        for precision in [Precision::Int8, Precision::F32] {
            let file = convert(&source, &of(precision));
            let model = Model::parse(&file.bytes).unwrap();
            let run_of = |outputs: &[Output]| RunConfig::new(Kernels::detect()).outputs(outputs);
            let there: Vec<Output> = Output::of(model.config()).collect();
            let plan = Plan::new(&model, &run_of(&there), 1).unwrap();
            let input = &npy(&source.join("input.npy")).1[..model.config().input_len()];
            let mut scratch = of_nan(&plan);
            let mut session = plan.open(&model, &Sequential, &mut scratch).unwrap();
            let listed: Vec<_> = session.outputs().collect();
            assert!(listed.iter().map(|info| info.output()).eq(there.iter().copied()));
            let results = session.run_tensor(input).unwrap();
            for (info, values) in results.iter() {
                assert_eq!(values.len(), info.shape().iter().product::<usize>());
                assert_eq!(values.len(), info.elements());
                let alone = run(&file.bytes, input, Kernels::detect(), &Sequential, info.output());
                assert_eq!(digest(values), digest(&alone), "{} {}", source.display(), info.name());
                assert_eq!(results.get(info.output()).map(digest), Some(digest(&alone)));
            }
            assert_eq!(results.iter().count(), there.len());
            let default = Plan::new(&model, &run_of(&[]), 1).unwrap().outputs().next().unwrap().output();
            let first = run(&file.bytes, input, Kernels::detect(), &Sequential, None);
            assert_eq!(results.get(default).map(digest), Some(digest(&first)));
        }
    }
}

#[test]
fn a_network_without_a_classifier_has_no_logits() {
    let file = convert(&checkpoint("timm_features"), &Options::default());
    let model = Model::parse(&file.bytes).unwrap();
    let plan = |outputs: &[Output]| Plan::new(&model, &RunConfig::new(Kernels::baseline()).outputs(outputs), 1);
    assert!(matches!(plan(&[Output::Tokens, Output::Logits]), Err(Error::RunConfig(_))));
    let names: Vec<_> = plan(&[]).unwrap().outputs().map(|info| (info.name(), info.shape().to_vec())).collect();
    assert_eq!(names, [("features", vec![model.config().features()])]);
}

/// Sets a flag when the first block is done.
struct StopAfterBlock<'f>(&'f AtomicBool, AtomicBool);

impl Tap for StopAfterBlock<'_> {
    fn rows(&self, rows: Rows<'_>) {
        match rows.place {
            Place::Mlp(0) => self.0.store(true, Ordering::Relaxed),
            Place::Heads(1) | Place::Attention(1) => self.1.store(true, Ordering::Relaxed),
            _ => {}
        }
    }
}

#[test]
fn a_flag_ends_a_run_between_two_blocks() {
    for name in ["timm_vit", "timm_cait", "timm_xcit", "timm_resmlp", "timm_convnext"] {
        let file = convert(&checkpoint(name), &Options::default());
        let model = Model::parse(&file.bytes).unwrap();
        let plan = Plan::new(&model, &RunConfig::new(Kernels::detect()), 1).unwrap();
        let (mut scratch, flag) = (of_nan(&plan), AtomicBool::new(false));
        let mut session = plan.open(&model, &Sequential, &mut scratch).unwrap();
        session.stop_on(&flag);
        let input = vec![0.3; model.config().input_len()];
        let logits = session.run_tensor(&input).unwrap().first().to_vec();
        let tap = StopAfterBlock(&flag, AtomicBool::new(false));
        assert_eq!(session.tap_tensor(&input, &tap).err(), Some(Error::Stopped), "{name}");
        assert!(!tap.1.into_inner(), "{name}: the second block has begun");
        assert_eq!(session.run_tensor(&input).err(), Some(Error::Stopped), "{name}: as long as it is set");
        flag.store(false, Ordering::Relaxed);
        assert_eq!(session.run_tensor(&input).unwrap().first(), logits, "{name}: as if nothing had been");
    }
}

#[test]
fn a_runner_takes_pictures_of_any_size_and_is_its_session() {
    let converted = convert(&checkpoint("timm_vit"), &Options::default());
    let file = Arc::new(Scratch::copied(&converted.bytes).unwrap());
    let run = RunConfig::new(Kernels::detect()).max_picture(1, 1);
    let pool = Arc::new(ThreadPool::new(2).unwrap());
    let mut runner = Runner::new(file.clone(), run, pool).unwrap();
    let model = Model::parse(&file).unwrap();
    for (width, height) in [(90, 70), (700, 3), (3, 900), (40, 40)] {
        let pixels: Vec<u8> =
            (0..width * height * 3).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let picture = Picture::rgb8(&pixels, width, height, 3 * width as usize);
        let got = runner.run_picture(&picture).unwrap().first().to_vec();
        let plan = Plan::new(&model, &run.max_picture(width, height), 1).unwrap();
        let mut scratch = of_nan(&plan);
        let mut session = plan.open(&model, &Sequential, &mut scratch).unwrap();
        assert_eq!(got, session.run_picture(&picture).unwrap().first(), "{width}x{height}");
    }
    assert_eq!(runner.model().config(), model.config());
    runner.stop_flag().store(true, Ordering::Relaxed);
    assert_eq!(runner.run_tensor(&vec![0.3; 3 * 32 * 32]).err(), Some(Error::Stopped));
}

#[test]
fn an_owner_cannot_mix_up_models_and_memory() {
    let [a, b] = ["timm_vit", "timm_deit3"].map(|name| convert(&checkpoint(name), &Options::default()));
    let [vit, deit] = [&a, &b].map(|file| Model::parse(&file.bytes).unwrap());
    let plan = Plan::new(&vit, &RunConfig::new(Kernels::detect()), 1).unwrap();
    let mut scratch = of_nan(&plan);
    assert!(matches!(plan.open(&deit, &Sequential, &mut scratch), Err(Error::RunConfig(_))));
    let darker = convert(&checkpoint("timm_vit"), &Options { mean: Some([0.25; 3]), ..Options::default() });
    let darker = Model::parse(&darker.bytes).unwrap();
    assert!(matches!(plan.open(&darker, &Sequential, &mut scratch), Err(Error::RunConfig(_))), "another preparation");
    let need = plan.scratch_bytes();
    assert!(matches!(plan.reopen(&vit, &Sequential, &mut scratch[..need - 64]), Err(Error::Scratch { .. })));
    assert!(matches!(plan.reopen(&vit, &Sequential, &mut scratch[1..]), Err(Error::Scratch { .. })));
    let parts = vit.parts();
    assert!(matches!(parts.model(&a.bytes[..a.bytes.len() - 64]), Err(Error::Truncated)));
    assert!(matches!(parts.model(&a.bytes[1..]), Err(Error::Misaligned)));
    assert_eq!(parts.model(&a.bytes).unwrap().config(), vit.config());
}
