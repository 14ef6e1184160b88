//! Damaged model files end in a typed error or in a run: never in a panic, never in a read outside the file.
//!
//! File and scratch memory end at an inaccessible page, so a read or write past either is a crash of this test.
#![cfg(unix)]

use vitlet::layout::{Kept, keys};
use vitlet::{Config, Error, Kernels, Model, Picture, Plan, Precision, RunConfig, Sequential};
use vitlet_convert::Options;

use crate::balance;

/// Memory whose last byte is followed by a page that may not be touched.
struct Guarded {
    start: *mut u8,
    len: usize,
}

impl Guarded {
    fn new(bytes: usize) -> Self {
        // SAFETY: sysconf has no preconditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let len = bytes.next_multiple_of(page);
        let (flags, access) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a fresh anonymous mapping, whose last page is then made inaccessible.
        unsafe {
            let start = libc::mmap(std::ptr::null_mut(), len + page, access, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(start.add(len), page, libc::PROT_NONE), 0);
            Self { start: start.cast(), len }
        }
    }

    /// The last `n` bytes before the guard, rounded up so that they start on a 64-byte boundary.
    fn last(&mut self, n: usize) -> &mut [u8] {
        let n = n.next_multiple_of(64);
        assert!(n <= self.len);
        // SAFETY: within the mapping, which lives as long as the test.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(self.len - n), n) }
    }
}

/// Parses, and runs what parses, at its own size and one token wider; whether it ran at its own.
fn try_to_run(bytes: &[u8], scratch: &mut Guarded) -> Result<(), Error> {
    let model = Model::parse(bytes)?;
    let _ = (model.name(), model.labels().count(), model.label(3), model.original_gamma(0).map(Iterator::count));
    let run = RunConfig::new(Kernels::detect()).max_picture(40, 30);
    let (c, (_, token)) = (model.config(), model.config().token_size());
    let wider = run.input_size((c.image_width + token) as u32, c.image_height as u32);
    let _ = run_once(&model, &wider, scratch);
    run_once(&model, &run, scratch)
}

fn run_once(model: &Model<'_>, run: &RunConfig, scratch: &mut Guarded) -> Result<(), Error> {
    let plan = Plan::new(model, run, 1)?;
    let need = plan.scratch_bytes();
    if need > scratch.len {
        return Err(Error::Scratch { need, have: scratch.len });
    }
    let mut session = plan.open(model, &Sequential, scratch.last(need))?;
    let pixels: Vec<u8> = (0..3 * 40 * 30).map(|i| (i * 7) as u8).collect();
    session.run_picture(&Picture::rgb8(&pixels, 40, 30, 120))?;
    Ok(())
}

fn small_model() -> Vec<u8> {
    model("timm_reg4_gap")
}

fn model(name: &str) -> Vec<u8> {
    crate::common::convert(&crate::common::checkpoint(name), &Options::default()).bytes.to_vec()
}

#[test]
fn every_truncation_is_an_error() {
    let file = small_model();
    let mut memory = Guarded::new(file.len());
    let copy = memory.last(file.len());
    copy[..file.len()].copy_from_slice(&file);
    for len in 0..file.len() {
        let error = Model::parse(&copy[..len]).err();
        assert!(matches!(error, Some(Error::Truncated | Error::NotGguf)), "{len}: {error:?}");
    }
    assert!(Model::parse(&copy[..file.len()]).is_ok());
}

/// The metadata is under no checksum, so what would make every picture the same is refused when the file is read.
#[test]
fn preparations_that_no_picture_survives_are_errors() {
    let file = small_model();
    // What a key's value begins with: its kind, for arrays also the elements' kind and their number.
    let value = |key: &str, before: usize| {
        let found = file.windows(key.len()).position(|w| w == key.as_bytes());
        found.expect("there") + key.len() + before
    };
    let refused = |key: &'static str, before: usize, bytes: [u8; 4]| {
        let mut memory = Guarded::new(file.len());
        let copy = memory.last(file.len());
        copy[..file.len()].copy_from_slice(&file);
        copy[value(key, before)..][..4].copy_from_slice(&bytes);
        let error = Model::parse(&copy[..file.len()]).err();
        assert!(matches!(error, Some(Error::Metadata { key: k, .. }) if k == key), "{key} {bytes:?}: {error:?}");
    };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        refused("vitlet.preprocess.mean", 16, bad.to_le_bytes());
        refused("vitlet.preprocess.std", 16, bad.to_le_bytes());
    }
    for bad in [0.0, -0.0, 1e-45f32] {
        refused("vitlet.preprocess.std", 16, bad.to_le_bytes());
    }
    for bad in [0, (1 << 24) + 1, u32::MAX] {
        refused("vitlet.preprocess.resize_height", 4, bad.to_le_bytes());
    }
}

#[test]
fn a_misaligned_base_is_an_error() {
    let file = small_model();
    let mut memory = Guarded::new(file.len() + 64);
    let copy = memory.last(file.len() + 64);
    for shift in 1..64 {
        copy[shift..shift + file.len()].copy_from_slice(&file);
        assert_eq!(Model::parse(&copy[shift..shift + file.len()]).err(), Some(Error::Misaligned));
    }
}

#[test]
fn ten_thousand_mutations_neither_panic_nor_read_outside() {
    mutate(&small_model(), 10_000);
}

/// A network of each family beside the plain ViT, and of each head beside the classifier.
const OTHERS: [&str; 10] = [
    "timm_beit",
    "timm_dinov3",
    "vit5",
    "hf_vit",
    "timm_cait",
    "timm_convnext",
    "timm_xcit",
    "timm_resmlp",
    "hf_depth_anything",
    "depth_anything_own",
];

#[test]
fn mutations_of_the_other_families_neither() {
    for name in OTHERS {
        mutate(&model(name), 2_000);
    }
}

#[test]
fn mutations_of_a_pruned_network_neither() {
    for name in ["timm_deit3", "timm_xcit"] {
        let options = Options { prune_dead: Some(0.15), ..Options::default() };
        mutate(&crate::common::convert(&crate::common::checkpoint(name), &options).bytes, 2_000);
    }
}

#[test]
fn mutations_of_a_network_with_factors_before_the_head_neither() {
    let scratch = tempfile::tempdir().unwrap();
    let source = balance::rewritten("timm_vit", scratch.path(), balance::rewrite_features, 64.0);
    let file = crate::common::convert(&source, &Options::default()).bytes;
    assert!(Model::parse(&file).unwrap().config().head_factors);
    mutate(&file, 2_000);
}

/// Without the flag the tensor is one too many, and the flag means nothing without a head.
#[test]
fn factors_before_the_head_are_announced_and_have_a_head() {
    let scratch = tempfile::tempdir().unwrap();
    let source = balance::rewritten("timm_vit", scratch.path(), balance::rewrite_features, 64.0);
    let file = crate::common::convert(&source, &Options::default()).bytes;
    let error = |key: &str, value: &[u8]| {
        let mut changed = file.clone();
        let at = changed.windows(key.len()).position(|w| w == key.as_bytes()).expect("there") + key.len() + 4;
        changed[at..][..value.len()].copy_from_slice(value);
        Model::parse(&changed).err()
    };
    let wrong = error(keys::HEAD_FACTORS, &[0]);
    assert!(matches!(wrong, Some(Error::Tensor { why: "missing or out of order", .. })), "{wrong:?}");
    let wrong = error(keys::CLASSES, &[0; 4]);
    assert!(matches!(wrong, Some(Error::Config("head factors without a head"))), "{wrong:?}");
}

pub fn mutate(file: &[u8], count: usize) {
    assert!(file.len().is_multiple_of(64), "the file ends where the guard starts");
    let header = file.len() - {
        let mut memory = Guarded::new(file.len());
        let copy = memory.last(file.len());
        copy.copy_from_slice(file);
        Model::parse(copy).unwrap().data().len()
    };
    let mut memory = Guarded::new(file.len());
    let mut scratch = Guarded::new(16 << 20);
    let copy = memory.last(file.len());
    let mut state = 1_u64;
    // Knuth's MMIX generator.
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % below
    };
    let extremes = [
        0,
        1,
        2,
        16,
        63,
        0x7f,
        0xff,
        0xffff,
        1 << 31,
        u64::from(u32::MAX),
        1 << 32,
        i64::MAX as u64,
        u64::MAX - 7,
        u64::MAX,
    ];
    let (mut ran, mut refused) = (0, 0);
    for i in 0..count {
        copy.copy_from_slice(file);
        for _ in 0..=random(3) {
            let region = if i % 10 != 0 { 0..header } else { header..file.len() };
            let at = region.start + random(region.len());
            match random(3) {
                0 => copy[at] ^= 1 << random(8),
                1 => copy[at] = random(256) as u8,
                // Lengths, counts, dimensions, offsets and floats, set to extremes.
                _ => {
                    let width = if random(2) == 0 { 4 } else { 8 };
                    let end = (at + width).min(file.len());
                    let value = extremes[random(extremes.len())].to_le_bytes();
                    copy[at..end].copy_from_slice(&value[..end - at]);
                }
            }
        }
        match try_to_run(copy, &mut scratch) {
            Ok(()) => ran += 1,
            Err(_) => refused += 1,
        }
    }
    println!("{ran} ran, {refused} were refused");
    assert!(
        ran > count / 20 && refused > 3 * count / 10,
        "{ran} ran, {refused} were refused: the mutations miss their target"
    );
}

/// A ViT in f32 with other hyperparameters and zeros for weights. Offsets are those that a
/// machine with 32 bits would compute.
fn resized(change: impl FnOnce(&mut Config)) -> Vec<u8> {
    let options = Options { precision: Precision::F32, ..Options::default() };
    let file = crate::common::convert(&crate::common::checkpoint("timm_vit"), &options).bytes;
    let mut config = *Model::parse(&file).unwrap().config();
    change(&mut config);
    let find = |text: &str| file.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    let mut out = file[..find("patch_embd.weight") - 8].to_vec();
    for (key, value) in [
        (keys::IMAGE_HEIGHT, config.image_height),
        (keys::IMAGE_WIDTH, config.image_width),
        (keys::PATCH_HEIGHT, config.patch_height),
        (keys::PATCH_WIDTH, config.patch_width),
        (keys::DIM, config.dim),
        (keys::DEPTH, config.depth),
        (keys::HEADS, config.heads()),
        (keys::HEAD_DIM, config.head_dim()),
        (keys::HIDDEN, config.hidden),
        (keys::CLASSES, config.classes),
    ] {
        // The key, its type, its value.
        let at = find(key) + key.len() + 4;
        out[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
    }
    // As many as before, which is not one a class: under another key they are nobody's.
    if let Some(at) = out.windows(keys::LABELS.len()).position(|window| window == keys::LABELS.as_bytes()) {
        out[at] = b'V';
    }
    let (mut count, mut at) = (0_u64, 0_u32);
    vitlet::networks::for_each_tensor(&config, Kept::default(), |spec| {
        let (name, dims) = (spec.name.as_str().as_bytes(), spec.dims());
        out.extend((name.len() as u64).to_le_bytes());
        out.extend(name);
        out.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|&dim| out.extend((dim as u64).to_le_bytes()));
        out.extend(spec.dtype.ggml().to_le_bytes());
        out.extend(u64::from(at).to_le_bytes());
        let bytes = dims.iter().fold(spec.dtype.bytes() as u32, |bytes, &dim| bytes.wrapping_mul(dim as u32));
        at = at.wrapping_add(bytes.next_multiple_of(64));
        count += 1;
        Ok::<(), std::convert::Infallible>(())
    })
    .unwrap();
    out[8..16].copy_from_slice(&count.to_le_bytes());
    out.resize(out.len().next_multiple_of(64) + at as usize, 0);
    out
}

/// A copy on a 64-byte boundary.
fn parsed<T>(bytes: &[u8], look: impl FnOnce(Result<Model<'_>, Error>) -> T) -> T {
    let mut memory = Guarded::new(bytes.len());
    let copy = memory.last(bytes.len());
    copy[..bytes.len()].copy_from_slice(bytes);
    look(Model::parse(&copy[..bytes.len()]))
}

fn tiny(config: &mut Config) {
    (config.image_height, config.image_width, config.patch_height, config.patch_width) = (4, 4, 4, 4);
    (config.dim, config.depth, config.hidden) = (16, 1, 16);
    heads(config, 1, 16);
}

fn heads(config: &mut Config, heads: usize, head_dim: usize) {
    let vit = config.family.vit_mut().unwrap();
    (vit.attention.heads, vit.attention.head_dim) = (heads, head_dim);
}

#[test]
fn resized_files_are_models() {
    let file = resized(tiny);
    assert!(parsed(&file, |model| model.err()).is_none());
}

#[test]
fn a_tensor_of_four_gigabytes_is_not_an_empty_one() {
    // The head's matrix: 2^20 classes x 1024 inputs x 4 bytes.
    let file = resized(|c| {
        tiny(c);
        (c.dim, c.classes) = (1024, 1 << 20);
    });
    assert_eq!(parsed(&file, |model| model.err()), Some(Error::Truncated));
}

#[test]
fn scratch_memory_is_counted_or_refused() {
    let many = |c: &mut Config| {
        tiny(c);
        (c.image_height, c.image_width, c.patch_height, c.patch_width) = (255, 256, 1, 1);
        heads(c, 1024, 64);
    };
    let run = RunConfig::new(Kernels::detect()).max_picture(40, 30);
    let need = parsed(&resized(many), |model| Plan::new(&model.unwrap(), &run, 1).map(|plan| plan.scratch_bytes()));
    // q, k and v: 65,280 tokens x 65,536 channels x 4 bytes each.
    match usize::BITS {
        32 => assert!(matches!(need, Err(Error::RunConfig(_))), "{need:?}"),
        _ => assert!(need.as_ref().is_ok_and(|&need| need as u64 > 3 * 65_280 * 65_536 * 4), "{need:?}"),
    }
}
