//! Networks without the rows of dead channels (`vitlet convert --prune-dead`): the bits of the network whose rows are
//! zeros instead.

use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use vitlet::layout::{Kept, keys};
use vitlet::{Config, Error, Executor, Kernels, Model, Precision, Sequential, ThreadPool};
use vitlet_convert::Options;

use crate::common::{checkpoint, convert, run};

/// One of each family whose blocks are attention and an MLP, under timm's names.
const NETWORKS: [&str; 8] = [
    "timm_deit3",
    "timm_parallel",
    "timm_beit",
    "timm_dinov3",
    "timm_cait",
    "timm_xcit",
    "timm_xcit_p8",
    "timm_reg4_dinov2",
];

/// Well above the quantization noise: the fixtures' branches reach every channel.
const THRESHOLD: f64 = 0.15;

fn pruned(precision: Precision) -> Options {
    Options { precision, prune_dead: Some(THRESHOLD), ..Options::default() }
}

fn inputs(config: &Config) -> Vec<f32> {
    (0..2 * config.input_len()).map(|i| (i % 251) as f32 / 63.0 - 2.0).collect()
}

/// Copies a checkpoint, with zeros in the rows and biases that `model` lacks.
fn zeroed(from: &Path, model: &Model, to: &Path) {
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let c = model.config();
    let mut missing = HashMap::new();
    for block in 0..c.blocks() {
        let prefix = match (block.checked_sub(c.depth), c.family) {
            (Some(i), vitlet::Family::Xcit(_)) => format!("cls_attn_blocks.{i}"),
            (Some(i), _) => format!("blocks_token_only.{i}"),
            (None, _) => format!("blocks.{block}"),
        };
        for (branch, matrices) in [(0, ["attn.proj", "attn_out_proj"]), (1, ["mlp.fc2", "mlp_out_proj"])] {
            let channels: Vec<bool> = model.kept().keeps(c, block, branch).collect();
            for matrix in matrices {
                missing.insert(format!("{prefix}.{matrix}"), channels.clone());
            }
        }
    }
    let mut lost = 0;
    let stored: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let mut data = view.data().to_vec();
            let matrix = name.rsplit_once('.').map_or("", |(matrix, _)| matrix);
            if let Some(channels) = missing.get(matrix) {
                assert_eq!(view.shape()[0], channels.len(), "{name}");
                let row = data.len() / channels.len();
                for (row, _) in data.chunks_exact_mut(row).zip(channels).filter(|(_, keeps)| !**keeps) {
                    row.fill(0);
                    lost += 1;
                }
            }
            (name, view.dtype(), view.shape().to_vec(), data)
        })
        .collect();
    assert!(lost > 0, "{}: nothing to zero under these names", from.display());
    let views =
        stored.iter().map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    safetensors::serialize_to_file(views, None, &to.join("model.safetensors")).unwrap();
    std::fs::copy(from.join("config.json"), to.join("config.json")).unwrap();
}

#[test]
fn rows_that_are_gone_are_rows_of_zeros() {
    for name in NETWORKS {
        for precision in [Precision::Int8, Precision::F16, Precision::F32] {
            let what = format!("{name}, {precision:?}");
            let small = convert(&checkpoint(name), &pruned(precision));
            let model = Model::parse(&small.bytes).unwrap();
            let report = small.report.pruned.as_ref().unwrap();
            assert!(model.config().pruned && report.removed > 0, "{what}");

            let folder = tempfile::tempdir().unwrap();
            zeroed(&checkpoint(name), &model, folder.path());
            let options = Options { precision, ..Options::default() };
            let whole = convert(folder.path(), &options);
            let size = |converted: &vitlet_convert::Converted| Model::parse(&converted.bytes).unwrap().data().len();
            assert_eq!(size(&whole) - size(&small), report.bytes_removed, "{what}");

            let x = inputs(model.config());
            for kernels in Kernels::available() {
                let logits = |bytes: &[u8]| run(bytes, &x, kernels, &Sequential, None);
                assert_eq!(logits(&small.bytes), logits(&whole.bytes), "{what}, {}", kernels.name());
            }
            let pool = ThreadPool::new(3).unwrap();
            let [threads, alone] = [&pool as &dyn Executor, &Sequential]
                .map(|executor| run(&small.bytes, &x, Kernels::detect(), executor, None));
            assert_eq!(threads, alone, "{what}, threads");
        }
    }
}

/// A pruned f32 file is a source like any other: removed rows come back as zeros.
#[test]
fn a_pruned_f32_file_is_converted_to_the_same_network() {
    for name in ["timm_deit3", "timm_xcit"] {
        let small = convert(&checkpoint(name), &pruned(Precision::F32));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, &small.bytes).unwrap();
        let whole = convert(&path, &Options { precision: Precision::F32, ..Options::default() });
        let model = Model::parse(&whole.bytes).unwrap();
        assert!(!model.config().pruned && whole.bytes.len() > small.bytes.len(), "{name}");
        let x = inputs(model.config());
        let [whole, small] = [&whole, &small].map(|m| run(&m.bytes, &x, Kernels::detect(), &Sequential, None));
        assert_eq!(whole, small, "{name}");
    }
}

/// Where nothing is below the threshold, the file equals the file of a conversion without one.
#[test]
fn what_has_no_dead_channels_stays_as_it_is() {
    let options = Options { prune_dead: Some(1e-9), ..Options::default() };
    let converted = convert(&checkpoint("timm_deit3"), &options);
    let report = converted.report.pruned.unwrap();
    assert_eq!((report.below, report.removed, report.bytes_removed, report.matrices.len()), (0, 0, 0, 0));
    assert!(converted.bytes == convert(&checkpoint("timm_deit3"), &Options::default()).bytes);
}

/// A branch that reaches no channel at all has an empty matrix.
#[test]
fn whole_branches_may_be_gone() {
    for name in ["timm_deit3", "timm_cait", "timm_xcit"] {
        let options = Options { prune_dead: Some(1e6), ..Options::default() };
        let converted = convert(&checkpoint(name), &options);
        let report = converted.report.pruned.as_ref().unwrap();
        assert_eq!(report.removed, report.channels, "{name}");
        let model = Model::parse(&converted.bytes).unwrap();
        let logits = run(&converted.bytes, &inputs(model.config()), Kernels::detect(), &Sequential, None);
        assert!(logits.iter().all(|x| x.is_finite()), "{name}");
    }
}

/// Masks of another size, or of channels that the stream does not have, are refused.
#[test]
fn masks_that_do_not_fit_are_refused() {
    let good = convert(&checkpoint("timm_deit3"), &pruned(Precision::Int8)).bytes;
    let refused = |bytes: &[u8]| match Model::parse(bytes) {
        Err(Error::Metadata { key: keys::KEPT, why }) => why,
        other => panic!("{:?}", other.map(|_| "parsed")),
    };
    let at = good.windows(keys::KEPT.len()).position(|w| w == keys::KEPT.as_bytes()).unwrap() + keys::KEPT.len();
    // Type and element type, then the number of words: 36 channels take two.
    let first_word = at + 4 + 4 + 8;
    let mut beyond = good.clone();
    beyond[first_word + 4] |= 1 << (36 - 32);
    assert_eq!(refused(&beyond), "a channel beyond the embedding length");
    let mut of_floats = good.clone();
    of_floats[at + 4] = 6;
    assert_eq!(refused(&of_floats), "wrong type or value");

    let config = *Model::parse(&good).unwrap().config();
    for words in [0, 1, 4 * config.blocks() - 1, 4 * config.blocks() + 1] {
        let why = Kept::new(&vec![[0; 4]; words], &config).unwrap_err();
        assert_eq!(why, "not one bit for each channel of each branch", "{words} words");
    }
    assert!(Kept::new(&vec![[0; 4]; 4 * config.blocks()], &config).is_ok());
}
