//! A conversion's memory: the output, the two largest tensors in f32, and a part that does not grow with the network;
//! for PyTorch's files their pickles, too. Counted by the allocator; the checkpoint is mapped, so its pages are the
//! operating system's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use vitlet::Precision;
use vitlet_convert::{Options, convert, write_file};

mod onnx;
mod pickles;

struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: forwards to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(used, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const DIM: usize = 256;
const HIDDEN: usize = 4 * DIM;
const DEPTH: usize = 8;

/// In f32.
const LARGEST_TENSOR: usize = 4 * DIM * HIDDEN;

/// Of the 32 MB that a conversion may have for what does not grow with the network. The checkpoint has 25 MB.
const REST: usize = 2 << 20;

type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

/// Weights without a pattern.
fn number(i: usize) -> f32 {
    ((i as u32).wrapping_mul(2_654_435_761) as i32) as f32 / 4e10
}

fn add(tensors: &mut Tensors, name: &str, shape: &[usize]) {
    let data = (0..shape.iter().product()).flat_map(|i| number(i + 1).to_le_bytes()).collect();
    tensors.insert(name.to_owned(), (shape.to_vec(), data));
}

fn add_layer(tensors: &mut Tensors, name: &str, n: usize, k: usize) {
    add(tensors, &format!("{name}.weight"), &[n, k]);
    add(tensors, &format!("{name}.bias"), &[n]);
}

fn add_norm(tensors: &mut Tensors, name: &str) {
    add(tensors, &format!("{name}.weight"), &[DIM]);
    add(tensors, &format!("{name}.bias"), &[DIM]);
}

fn write(path: &Path, tensors: &Tensors) {
    let views = tensors
        .iter()
        .map(|(name, (shape, data))| (name, TensorView::new(Dtype::F32, shape.clone(), data).expect("a tensor")));
    safetensors::serialize_to_file(views, None, path).expect("written");
}

/// timm's layout, in one file.
fn write_timm(dir: &Path) {
    let config = format!(
        r#"{{"architecture": "vit_custom", "num_classes": 7, "model_args": {{"embed_dim": {DIM}, "depth": {DEPTH},
            "num_heads": 4, "patch_size": 8, "img_size": 32}}, "pretrained_cfg": {{"input_size": [3, 32, 32]}}}}"#
    );
    fs::write(dir.join("config.json"), config).expect("written");
    let mut all = Tensors::new();
    add(&mut all, "cls_token", &[1, 1, DIM]);
    add(&mut all, "pos_embed", &[1, 17, DIM]);
    add(&mut all, "patch_embed.proj.weight", &[DIM, 3, 8, 8]);
    add(&mut all, "patch_embed.proj.bias", &[DIM]);
    for i in 0..DEPTH {
        let at = |name: &str| format!("blocks.{i}.{name}");
        add_norm(&mut all, &at("norm1"));
        add_norm(&mut all, &at("norm2"));
        add_layer(&mut all, &at("attn.qkv"), 3 * DIM, DIM);
        add_layer(&mut all, &at("attn.proj"), DIM, DIM);
        add_layer(&mut all, &at("mlp.fc1"), HIDDEN, DIM);
        add_layer(&mut all, &at("mlp.fc2"), DIM, HIDDEN);
    }
    add_norm(&mut all, "norm");
    add_layer(&mut all, "head", 7, DIM);
    write(&dir.join("model.safetensors"), &all);
}

/// transformers' layout, in a file for each half of the blocks.
fn write_transformers(dir: &Path) {
    let config = format!(
        r#"{{"model_type": "vit", "hidden_size": {DIM}, "num_hidden_layers": {DEPTH}, "num_attention_heads": 4,
            "intermediate_size": {HIDDEN}, "patch_size": 8, "image_size": 32}}"#
    );
    fs::write(dir.join("config.json"), config).expect("written");
    let processor = r#"{"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5], "resample": 2}"#;
    fs::write(dir.join("preprocessor_config.json"), processor).expect("written");
    let mut shards = [Tensors::new(), Tensors::new()];
    add(&mut shards[0], "vit.embeddings.cls_token", &[1, 1, DIM]);
    add(&mut shards[0], "vit.embeddings.position_embeddings", &[1, 17, DIM]);
    add(&mut shards[0], "vit.embeddings.patch_embeddings.projection.weight", &[DIM, 3, 8, 8]);
    add(&mut shards[0], "vit.embeddings.patch_embeddings.projection.bias", &[DIM]);
    for i in 0..DEPTH {
        let (all, at) = (&mut shards[2 * i / DEPTH], |name: &str| format!("vit.encoder.layer.{i}.{name}"));
        add_norm(all, &at("layernorm_before"));
        add_norm(all, &at("layernorm_after"));
        for part in ["attention.query", "attention.key", "attention.value", "output.dense"] {
            add_layer(all, &at(&format!("attention.{part}")), DIM, DIM);
        }
        add_layer(all, &at("intermediate.dense"), HIDDEN, DIM);
        add_layer(all, &at("output.dense"), DIM, HIDDEN);
    }
    add_norm(&mut shards[1], "vit.layernorm");
    add_layer(&mut shards[1], "classifier", 7, DIM);
    let mut map = Vec::new();
    for (i, shard) in shards.iter().enumerate() {
        let file = format!("model-{i}.safetensors");
        write(&dir.join(&file), shard);
        map.extend(shard.keys().map(|name| format!("{name:?}: {file:?}")));
    }
    let index = format!(r#"{{"weight_map": {{{}}}}}"#, map.join(", "));
    fs::write(dir.join("model.safetensors.index.json"), index).expect("written");
}

/// Held by the test that measures: the count is of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// The most memory that `work` has in use at once.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = USED.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let result = work();
    (result, MOST.load(Ordering::Relaxed) - before)
}

/// Converts within the limit; the model file.
fn converted(source: &Path, precision: Precision) -> impl AsRef<[u8]> {
    let options = Options { precision, ..Options::default() };
    let (converted, peak) = peak(|| convert(source, &options, &mut |_| {}));
    let converted = converted.unwrap_or_else(|e| panic!("{}: {e}", source.display()));
    let limit = converted.bytes.len() + 2 * LARGEST_TENSOR + REST;
    assert!(peak <= limit, "{} to {precision:?}: {peak} bytes, {limit} are allowed", source.display());
    converted.bytes
}

#[test]
fn a_conversion_holds_the_output_and_two_tensors() {
    let _alone = ALONE.lock();
    let scratch = tempfile::tempdir().expect("a directory");
    for (name, write) in [("timm", write_timm as fn(&Path)), ("transformers", write_transformers)] {
        let dir = scratch.path().join(name);
        fs::create_dir(&dir).expect("created");
        write(&dir);
        let int8 = converted(&dir, Precision::Int8);
        let f32 = scratch.path().join("f32.gguf");
        write_file(converted(&dir, Precision::F32).as_ref(), &f32).expect("written");
        assert_eq!(converted(&f32, Precision::Int8).as_ref(), int8.as_ref(), "{name}");
    }
    let file = scratch.path().join("model.onnx");
    onnx::write(&file);
    for precision in [Precision::Int8, Precision::F16, Precision::F32] {
        converted(&file, precision);
    }
}
