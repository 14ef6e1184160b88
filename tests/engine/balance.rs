//! int8 does not depend on how a function is written: fixtures of every family, rewritten with outlier channels
//! wherever the function allows it, lose no more in int8 than as they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use vitlet::{Kernels, Model, Output, Precision, Sequential};
use vitlet_convert::{Balance, Converted, Options};

use crate::common::{checkpoint, convert, npy, relative_error, run};

/// Tensors in f32 by name: shape and values.
pub struct Tensors(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Tensors {
    fn read(dir: &Path) -> Self {
        let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
        let widen = |dtype, data: &[u8]| -> Vec<f32> {
            let halves = || data.as_chunks::<2>().0.iter();
            match dtype {
                Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
                Dtype::F16 => halves().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
                Dtype::BF16 => halves().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
                other => panic!("{other:?}"),
            }
        };
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let weights = file.iter().filter(|(name, _)| !name.ends_with("num_batches_tracked"));
        Self(weights.map(|(n, t)| (n.to_owned(), (t.shape().to_vec(), widen(t.dtype(), t.data())))).collect())
    }

    fn write(&self, path: &Path) {
        let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let all: Vec<_> = self.0.iter().map(|(name, (shape, values))| (name, shape.clone(), bytes(values))).collect();
        let views =
            all.iter().map(|(name, shape, data)| (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
        std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    /// Multiplies outputs of a layer, or channels of a norm; whether it is there.
    fn rows(&mut self, name: &str, channels: &[usize], factor: f32) -> bool {
        let mut found = false;
        for leaf in [".weight", ".bias"] {
            if let Some((shape, values)) = self.0.get_mut(&format!("{name}{leaf}")) {
                let row = values.len() / shape[0];
                channels.iter().for_each(|c| values[c * row..][..row].iter_mut().for_each(|x| *x *= factor));
                found = true;
            }
        }
        found
    }

    /// Divides inputs of a layer, the taps of a convolution each.
    fn columns(&mut self, name: &str, channels: &[usize], factor: f32) {
        let Some((shape, values)) = self.0.get_mut(&format!("{name}.weight")) else { return };
        let taps: usize = shape[2..].iter().product();
        for row in values.chunks_exact_mut(shape[1] * taps) {
            channels.iter().for_each(|c| row[c * taps..][..taps].iter_mut().for_each(|x| *x /= factor));
        }
    }

    /// A tensor's elements.
    fn vector(&mut self, name: &str, channels: &[usize], factor: f32) {
        if let Some((_, values)) = self.0.get_mut(name) {
            channels.iter().for_each(|c| values[*c] *= factor);
        }
    }
}

/// Prefixes of what is repeated: everything before `norm1`, `norm2` and so on.
fn places(tensors: &Tensors, norm: &str) -> Vec<String> {
    let end = format!("{norm}.weight");
    tensors
        .0
        .keys()
        .filter_map(|name| name.strip_suffix(&end))
        .filter(|p| p.ends_with('.'))
        .map(str::to_owned)
        .collect()
}

/// Norms against the matrices that read them, under the names of all families here.
const NORMS: [(&str, &[&str]); 5] = [
    ("norm1", &["attn.qkv", "attn.q", "attn.k", "attn.v", "attention.q_proj", "attention.k_proj", "attention.v_proj"]),
    ("norm2", &["mlp.fc1", "mlp.fc1_g", "mlp.fc1_x", "mlp.gate_proj", "mlp.up_proj"]),
    ("in_norm", &["in_proj"]),
    ("norm", &["mlp.fc1"]),
    ("downsample.0", &["downsample.1"]),
];

fn rewrite_norms(tensors: &mut Tensors, factor: f32) {
    for (norm, readers) in NORMS {
        for at in places(tensors, norm) {
            let read = readers.iter().any(|reader| tensors.0.contains_key(&format!("{at}{reader}.weight")));
            // XCiT's class attention adds the first norm to the stream, and its second is the stream.
            if !read || at.starts_with("cls_attn_blocks") {
                continue;
            }
            assert!(tensors.rows(&format!("{at}{norm}"), &[3, 11], factor));
            readers.iter().for_each(|reader| tensors.columns(&format!("{at}{reader}"), &[3, 11], factor));
        }
    }
    rewrite_features(tensors, factor);
}

/// Last norms against the heads that read them, under the names of all families here.
const HEADS: [(&str, &[&str]); 9] = [
    ("norm", &["head", "head_dist"]),
    ("fc_norm", &["head"]),
    ("head.norm", &["head.fc"]),
    ("vit.layernorm", &["classifier"]),
    ("dinov2.layernorm", &["classifier"]),
    ("convnext.layernorm", &["classifier"]),
    ("beit.pooler.layernorm", &["classifier"]),
    ("data2vec_vision.layernorm", &["classifier"]),
    ("deit.layernorm", &["cls_classifier", "distillation_classifier"]),
];

/// The last norm against the head, which may read the norm's channels several times, side by side.
pub fn rewrite_features(tensors: &mut Tensors, factor: f32) {
    for (norm, heads) in HEADS {
        let heads: Vec<(&str, usize)> =
            heads.iter().filter_map(|head| Some((*head, tensors.0.get(&format!("{head}.weight"))?.0[1]))).collect();
        if heads.is_empty() {
            continue;
        }
        let names = [".weight", ".bias", ".alpha", ".beta"].map(|leaf| format!("{norm}{leaf}"));
        let Some(dim) = names.iter().find_map(|name| Some(tensors.0.get(name)?.1.len())) else { continue };
        names.iter().for_each(|name| tensors.vector(name, &[3, 11], factor));
        for (head, inputs) in heads {
            let channels: Vec<usize> = (0..inputs).filter(|c| [3, 11].contains(&(c % dim))).collect();
            tensors.columns(head, &channels, factor);
        }
    }
}

/// Channels of v against columns of the projection. All fixtures have three heads of 12 channels.
fn rewrite_values(tensors: &mut Tensors, factor: f32) {
    let channels = [2usize, 17, 30];
    for at in places(tensors, "attn.proj") {
        // Between XCiT's channels there is attention: they keep their proportions, and a head has one factor.
        let cross = tensors.0.contains_key(&format!("{at}attn.temperature"));
        let channels = if cross { (12..24).collect() } else { channels.to_vec() };
        let v: Vec<usize> = channels.iter().map(|c| 72 + c).collect();
        if !tensors.rows(&format!("{at}attn.qkv"), &v, factor) {
            tensors.rows(&format!("{at}attn.v"), &channels, factor);
        }
        tensors.vector(&format!("{at}attn.v_bias"), &channels, factor);
        tensors.columns(&format!("{at}attn.proj"), &channels, factor);
    }
}

/// Channels of q against those of k, a rotation's pair each: 2 and 8 of the first head, 1 and 7 of the last.
fn rewrite_scores(tensors: &mut Tensors, factor: f32) {
    let channels = [2usize, 8, 25, 31];
    let k: Vec<usize> = channels.iter().map(|c| 36 + c).collect();
    for at in places(tensors, "attn.proj") {
        if tensors.0.contains_key(&format!("{at}attn.temperature")) {
            continue;
        }
        if tensors.rows(&format!("{at}attn.q_norm"), &[2, 8], factor) {
            tensors.rows(&format!("{at}attn.k_norm"), &[2, 8], factor.recip());
            continue;
        }
        if tensors.rows(&format!("{at}attn.qkv"), &channels, factor) {
            tensors.rows(&format!("{at}attn.qkv"), &k, factor.recip());
            tensors.vector(&format!("{at}attn.q_bias"), &channels, factor);
        } else {
            tensors.rows(&format!("{at}attn.q"), &channels, factor);
            tensors.rows(&format!("{at}attn.k"), &channels, factor.recip());
        }
    }
}

/// The half of SwiGLU that is not activated.
fn rewrite_gated(tensors: &mut Tensors, factor: f32) {
    for at in places(tensors, "mlp.fc1_x") {
        tensors.rows(&format!("{at}mlp.fc1_x"), &[5, 40], factor);
        tensors.columns(&format!("{at}mlp.fc2"), &[5, 40], factor);
    }
    for at in places(tensors, "mlp.up_proj") {
        tensors.rows(&format!("{at}mlp.up_proj"), &[5, 40], factor);
        tensors.columns(&format!("{at}mlp.down_proj"), &[5, 40], factor);
    }
    for at in places(tensors, "mlp.fc2") {
        // Packed: the gate's rows first.
        let hidden = tensors.0[&format!("{at}mlp.fc2.weight")].0[1];
        let packed = tensors.0.get(&format!("{at}mlp.fc1.weight")).is_some_and(|(shape, _)| shape[0] == 2 * hidden);
        if packed {
            tensors.rows(&format!("{at}mlp.fc1"), &[hidden + 5, hidden + 40], factor);
            tensors.columns(&format!("{at}mlp.fc2"), &[5, 40], factor);
        }
    }
}

/// What a rewriting does to the tensors.
pub type Rewrite = fn(&mut Tensors, f32);

const REWRITES: [(&str, Rewrite); 4] =
    [("norms", rewrite_norms), ("v", rewrite_values), ("q and k", rewrite_scores), ("gated", rewrite_gated)];

/// A fixture of its own folder, rewritten.
pub fn rewritten(name: &str, scratch: &Path, rewrite: Rewrite, factor: f32) -> PathBuf {
    let dir = scratch.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    for file in ["config.json", "preprocessor_config.json"] {
        if checkpoint(name).join(file).exists() {
            std::fs::copy(checkpoint(name).join(file), dir.join(file)).unwrap();
        }
    }
    let mut tensors = Tensors::read(&checkpoint(name));
    rewrite(&mut tensors, factor);
    tensors.write(&dir.join("model.safetensors"));
    dir
}

/// A fixture in f32, and what it says to so many inputs that chance hardly decides over an error: the fixtures' own
/// pictures have a dozen logits, most of them.
struct Reference {
    inputs: Vec<f32>,
    expected: Vec<f32>,
}

impl Reference {
    const PICTURES: usize = 64;

    fn new(name: &str) -> Self {
        let model = convert(&checkpoint(name), &Options { precision: Precision::F32, ..Options::default() });
        let len = Self::PICTURES * Model::parse(&model.bytes).unwrap().config().input_len();
        let mut state = 1_u64;
        // Knuth's MMIX generator; sums of four are normal enough.
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let inputs: Vec<f32> = (0..len).map(|_| uniform() + uniform() + uniform() + uniform()).collect();
        Self { expected: run(&model.bytes, &inputs, Kernels::detect(), &Sequential, None), inputs }
    }

    /// The relative error of a model's logits, or features where there is no head.
    fn error(&self, model: &Converted) -> f64 {
        relative_error(&run(&model.bytes, &self.inputs, Kernels::detect(), &Sequential, None), &self.expected)
    }
}

#[test]
fn rewritten_networks_lose_no_more_in_int8() {
    let names = [
        "timm_vit",
        "timm_deit3",
        "timm_qk_norm",
        "timm_reg4_swiglu",
        "timm_beit",
        "timm_beitv2_shared",
        "timm_dinov3",
        "timm_dinov3_plus",
        "timm_cait",
        "timm_xcit",
        "timm_convnext",
        "timm_parallel",
        "timm_parallel_qk_norm",
        "hf_dinov3",
    ];
    let scratch = tempfile::tempdir().unwrap();
    let mut balanced = BTreeMap::<&str, usize>::new();
    for name in names {
        let reference = Reference::new(name);
        let before = reference.error(&convert(&checkpoint(name), &Options::default()));
        for (what, rewrite) in REWRITES {
            for factor in [64.0, 1.0 / 64.0, 1024.0] {
                let source = rewritten(name, scratch.path(), rewrite, factor);
                let f32 = convert(&source, &Options { precision: Precision::F32, ..Options::default() });
                assert!(reference.error(&f32) <= 2e-5, "{name}, {what}: another function");
                let model = convert(&source, &Options::default());
                let after = reference.error(&model);
                println!("{name}, {what} by {factor}: {after:.4}, {before:.4} as it was");
                assert!(after <= 1.2 * before, "{name}, {what} by {factor}: {after:.4}, {before:.4} as it was");
                for report in &model.report.balanced {
                    assert!(report.error_after < report.error_before, "{report:?}");
                    *balanced.entry(report.channels).or_default() += 1;
                }
            }
        }
    }
    let all: Vec<_> = balanced.keys().copied().collect();
    assert_eq!(all, ["features", "norm", "norm1", "norm2", "qk", "up", "v"], "every place is met");
}

/// The bits of a run.
fn bits(model: &Converted, inputs: &[f32], kernels: Kernels, output: Output) -> Vec<u32> {
    run(&model.bytes, inputs, kernels, &Sequential, output).iter().map(|x| x.to_bits()).collect()
}

/// The head has factors of its own: what `embed` returns is the last norm's output, to the bit.
#[test]
fn outliers_before_the_head_cost_nothing_and_leave_the_features_alone() {
    let scratch = tempfile::tempdir().unwrap();
    // A norm before pooling or after it, two heads, two vectors side by side, and what ResMLP has for a norm.
    for name in [
        "timm_vit",
        "timm_beit",
        "timm_cait",
        "timm_convnext",
        "timm_deit_distilled",
        "timm_dinov3",
        "timm_gap_norm",
        "timm_parallel",
        "timm_resmlp",
        "timm_xcit",
        "hf_beit",
        "hf_convnext",
        "hf_deit_teacher",
        "hf_dinov2",
        "hf_vit",
    ] {
        let plain = convert(&checkpoint(name), &Options::default());
        assert!(!Model::parse(&plain.bytes).unwrap().config().head_factors, "{name}");
        let reference = Reference::new(name);
        let before = reference.error(&plain);
        for factor in [64.0, 1.0 / 64.0, 1024.0] {
            let source = rewritten(name, scratch.path(), rewrite_features, factor);
            let of = |precision, balance| convert(&source, &Options { precision, balance, ..Options::default() });
            let f32 = of(Precision::F32, Balance::Auto);
            assert!(reference.error(&f32) <= 2e-5, "{name}: another function");
            let (model, off) = (of(Precision::Int8, Balance::Auto), of(Precision::Int8, Balance::Off));
            let (after, without) = (reference.error(&model), reference.error(&off));
            println!("{name} by {factor}: {after:.4}, {before:.4} as it was, {without:.4} unbalanced");
            assert!(after <= 1.2 * before, "{name} by {factor}: {after:.4}, {before:.4} as it was");

            let places: Vec<_> = model.report.balanced.iter().map(|b| (b.at.as_str(), b.channels)).collect();
            assert_eq!(places, [("head", "features")], "{name}");
            assert!(Model::parse(&model.bytes).unwrap().config().head_factors, "{name}");
            assert_eq!(model.report.parameters, plain.report.parameters, "{name}");
            let (_, inputs) = npy(&checkpoint(name).join("input.npy"));
            let logits = bits(&model, &inputs, Kernels::scalar(), Output::Logits);
            let features = bits(&off, &inputs, Kernels::scalar(), Output::Features);
            for kernels in Kernels::available() {
                assert_eq!(bits(&model, &inputs, kernels, Output::Logits), logits, "{name}, {}", kernels.name());
                assert_eq!(bits(&model, &inputs, kernels, Output::Features), features, "{name}, {}", kernels.name());
            }
        }
    }
}

/// Networks without outliers stay as they are, to the byte, and f32 and f16 always do.
#[test]
fn what_needs_no_balance_keeps_its_bytes() {
    let off = |precision| Options { balance: Balance::Off, precision, ..Options::default() };
    for name in ["timm_vit", "timm_beit", "timm_cait", "timm_convnext", "timm_xcit"] {
        let model = convert(&checkpoint(name), &Options::default());
        assert!(model.report.balanced.is_empty(), "{name}: {:?}", model.report.balanced);
        assert!(model.bytes[..] == convert(&checkpoint(name), &off(Precision::Int8)).bytes[..], "{name}");
    }
    let scratch = tempfile::tempdir().unwrap();
    let source = rewritten("timm_vit", scratch.path(), rewrite_norms, 64.0);
    for precision in [Precision::F16, Precision::F32] {
        let model = convert(&source, &Options { precision, ..Options::default() });
        assert!(model.report.balanced.is_empty() && model.bytes[..] == convert(&source, &off(precision)).bytes[..]);
    }
    let reference = Reference::new("timm_vit");
    let without = reference.error(&convert(&source, &off(Precision::Int8)));
    assert!(without > 5.0 * reference.error(&convert(&source, &Options::default())), "{without}");
}
