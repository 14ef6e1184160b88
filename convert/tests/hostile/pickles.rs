//! Pickles, and the archives that they come in.

use std::fs;
use std::path::PathBuf;

use vitlet_convert::{Options, convert};

use crate::allocator::peak;
use crate::{NO_LABELS, fixtures};

/// What the reader of pickles may take for each byte of a pickle.
const BYTES_PER_BYTE: usize = 128;

/// What the rest of a conversion of a tiny network takes: its configuration, the tables of architectures, the model
/// file.
const REST: usize = 4 << 20;

/// A directory with the configuration of a tiny network, and the file in it that the tests write.
struct Scratch {
    _dir: tempfile::TempDir,
    file: PathBuf,
    options: Options,
}

impl Scratch {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::copy(fixtures().join("onnx/vit/config.json"), dir.path().join("config.json")).expect("copied");
        // Labels that are not there end a conversion when the weights have been read.
        let options = Options { labels: Some(dir.path().join(NO_LABELS)), ..Options::default() };
        Self { file: dir.path().join("model.pth"), _dir: dir, options }
    }

    /// Reads the weights in `bytes`, whose pickle is `pickle_len` long, within the bound: why there are none, if
    /// there are none.
    fn read(&self, bytes: &[u8], pickle_len: usize) -> Option<String> {
        fs::write(&self.file, bytes).expect("written");
        let (result, memory) = peak(|| convert(&self.file, &self.options, &mut |_| {}).map(drop));
        let bound = REST + BYTES_PER_BYTE * pickle_len;
        assert!(memory <= bound, "{memory} bytes for a pickle of {pickle_len}");
        let why = result.expect_err("no labels").to_string();
        assert!(!why.contains(char::is_control) && why.len() < 2000, "{why:?}");
        (!why.contains(NO_LABELS)).then_some(why)
    }
}

/// An archive as torch.save writes it, with this pickle and these storages.
fn archive(pickle: &[u8], storages: &[&[u8]]) -> Vec<u8> {
    let names = (0..storages.len()).map(|i| format!("a/data/{i}"));
    let entries: Vec<(String, &[u8])> =
        [("a/data.pkl".to_owned(), pickle)].into_iter().chain(names.zip(storages.iter().copied())).collect();
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in &entries {
        let at = file.len() as u32;
        let sizes = [0, data.len() as u32, data.len() as u32].map(u32::to_le_bytes).concat();
        let lens = [(name.len() as u16).to_le_bytes(), [0; 2]].concat();
        file.extend([b"PK\x03\x04", &[0; 10][..], &sizes, &lens, name.as_bytes(), data].concat());
        directory.extend(
            [b"PK\x01\x02", &[0; 12][..], &sizes, &lens, &[0; 10], &at.to_le_bytes(), name.as_bytes()].concat(),
        );
    }
    let count = (entries.len() as u16).to_le_bytes();
    let (len, at) = ((directory.len() as u32).to_le_bytes(), (file.len() as u32).to_le_bytes());
    file.extend(directory);
    file.extend([b"PK\x05\x06", &[0; 4][..], &count, &count, &len, &at, &[0; 2]].concat());
    file
}

/// Numbers without a pattern, the same in every run (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// Flips, overwrites, repeats, removes or inserts bytes within `range`.
fn mutate(bytes: &mut [u8], range: std::ops::Range<usize>, random: &mut Random) {
    const OPCODES: &[u8] = b"().012FGIJKLMNPQRSTUVXabcdeghijlopqrstu}]\
                            \x80\x81\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8f\x90\x91\x92\x93\x94\x95";
    for _ in 0..=random.below(3) {
        let at = range.start + random.below(range.len());
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = OPCODES[random.below(OPCODES.len())],
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 => {
                // A piece over another place: the length of the file stays, so its archive stays whole.
                let len = 1 + random.below(16.min(range.end - at));
                let from = range.start + random.below(range.len() - len);
                bytes.copy_within(from..from + len, at);
            }
            _ => {
                let to = range.start + random.below(range.len());
                bytes.swap(at, to);
            }
        }
    }
}

fn mutations(name: &str, count: usize, range: impl Fn(&[u8]) -> std::ops::Range<usize>) -> [usize; 2] {
    let whole = fs::read(fixtures().join("torch").join(name)).expect("read");
    let range = range(&whole);
    let scratch = Scratch::new();
    let mut random = Random(count as u64);
    let mut outcomes = [0; 2];
    for _ in 0..count {
        let mut bytes = whole.clone();
        mutate(&mut bytes, range.clone(), &mut random);
        outcomes[usize::from(scratch.read(&bytes, range.len()).is_some())] += 1;
    }
    outcomes
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|w| w == what).expect("there")
}

/// From the pickle's protocol number, behind the name of its entry, to the next entry.
fn pickle(file: &[u8]) -> std::ops::Range<usize> {
    find(file, b"\x80\x02")..find(file, b".format_version") - 64
}

#[test]
fn mutated_pickles_of_a_trainer_are_data() {
    let [read, refused] = mutations("model_best.pth.tar", 5000, pickle);
    assert!(read > 100 && refused > 1000, "{read} read, {refused} refused");
}

#[test]
fn mutated_pickles_of_other_kinds_are_data() {
    let [read, refused] = mutations("views.pth", 3000, pickle);
    assert!(read > 100 && refused > 500, "{read} read, {refused} refused");
    mutations("old.pth", 1000, |bytes| 0..bytes.len() / 2);
    mutations("malicious.pth", 1000, pickle);
}

#[test]
fn mutated_archives_are_data() {
    mutations("state.pth", 1000, |bytes| find(bytes, b"PK\x01\x02")..bytes.len());
    mutations("state.pth", 1000, |bytes| 0..bytes.len());
}

#[test]
fn bombs_take_no_memory() {
    let scratch = Scratch::new();
    let refused = |pickle: &[u8], why: &str| {
        let error = scratch.read(&archive(pickle, &[]), pickle.len()).expect("refused");
        assert!(error.contains(why), "{why:?} is not in: {error}");
    };
    let none = "no dict with tensors";
    // Lists in lists, and each list twice in the next one: 2^10000 elements if they were copied.
    let deep = [&b"\x80\x02"[..], &b"]".repeat(10_000), &b"a".repeat(9_999), b"."].concat();
    refused(&deep, none);
    let doubled = [&b"\x80\x02]"[..], &b"2\x86".repeat(10_000), b"."].concat();
    refused(&doubled, none);
    // A dict in itself.
    refused(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", none);
    // Ten dicts, each with twenty keys for the next one.
    let key = |i: u8| [&b"X\x01\x00\x00\x00"[..], &[b'a' + i]].concat();
    let mut layers = b"\x80\x02}q\x00".to_vec();
    for layer in 0..10 {
        layers.extend(
            [&b"}("[..], &(0..20).flat_map(|i| [key(i), vec![b'h', layer]].concat()).collect::<Vec<_>>(), b"uq"]
                .concat(),
        );
        layers.push(layer + 1);
    }
    layers.push(b'.');
    refused(&layers, none);
    // What costs most for a byte of pickle.
    refused(&[&b"\x80\x02N"[..], &b"2R".repeat(100_000), b"."].concat(), none);
    refused(&[&b"\x80\x02"[..], &b"]\x94".repeat(100_000), b"."].concat(), none);
    refused(&[&b"\x80\x02"[..], &b"(t".repeat(100_000), b"."].concat(), none);
    refused(&[&b"\x80\x02"[..], &b"N\x85".repeat(100_000), b"."].concat(), none);
    refused(&[&b"\x80\x02"[..], &b"c\n\n".repeat(50_000), b"."].concat(), none);
    // Lengths and places in the memo beyond everything.
    refused(b"\x80\x02X\xff\xff\xff\xff.", "a damaged pickle (at its byte 2)");
    refused(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "a damaged pickle");
    refused(b"\x80\x02\x8b\xff\xff\xff\xff.", "a damaged pickle");
    refused(b"\x80\x02Nr\xff\xff\xff\xff.", none);
    refused(b"\x80\x02\x82\x01.", "an extension's code, which only Python can read");
    refused(b"\x80\x05\x97.", "a buffer outside of it, which only Python can read");
    refused(&[&b"\x80\x02"[..], &b"N0".repeat(1 << 20), b"."].concat(), "more than 2097152 operations");
}

/// The same archive as one of more than 4 GB is written: sizes and places in fields of 64 bits.
fn large(archive: &[u8]) -> Vec<u8> {
    let start = find(archive, b"PK\x01\x02");
    let end = find(archive, b"PK\x05\x06");
    let (mut file, mut at) = (archive[..start].to_vec(), start);
    let mut count = 0_u64;
    while at < end {
        let (header, name_len) = (&archive[at..at + 46], usize::from(archive[at + 28]));
        let wide = |from: usize| u64::from(u32::from_le_bytes(header[from..from + 4].try_into().expect("four bytes")));
        let fields = [wide(24), wide(20), wide(42)].map(u64::to_le_bytes).concat();
        let mut header = header.to_vec();
        [20..28, 42..46].into_iter().for_each(|range| header[range].fill(0xff));
        header[30] = 28;
        file.extend([&header, &archive[at + 46..at + 46 + name_len], &[1, 0, 24, 0], &fields].concat());
        at += 46 + name_len;
        count += 1;
    }
    let record = file.len() as u64;
    let lens = [count, count, record - start as u64, start as u64].map(u64::to_le_bytes).concat();
    file.extend([b"PK\x06\x06", &44_u64.to_le_bytes()[..], &[0; 12], &lens].concat());
    file.extend([b"PK\x06\x07", &[0; 4][..], &record.to_le_bytes(), &[1, 0, 0, 0]].concat());
    file.extend([b"PK\x05\x06", &[0; 4][..], &[0xff; 12], &[0; 2]].concat());
    file
}

#[test]
fn large_archives_have_places_of_64_bits() {
    let scratch = Scratch::new();
    let small = with_tensor(b"K\x00", b"K\x01K\x01K\x10\x87", b"K\x10K\x10K\x01\x87");
    let why = scratch.read(&small, 1000).expect("another shape");
    assert!(why.contains("shape [1, 1, 16], but config.json asks for"), "{why}");
    let mut large = large(&small);
    assert_eq!(scratch.read(&large, 1000), Some(why));
    // The place of the directory beyond the file, and of an entry.
    let locator = find(&large, b"PK\x06\x06") + 48;
    let start = std::mem::replace(&mut large[locator + 7], 0x7f);
    assert!(scratch.read(&large, 1000).expect("refused").contains("the directory of the zip archive is damaged"));
    large[locator + 7] = start;
    let field = find(&large, b"\x01\x00\x18\x00") + 4;
    large[field + 16 + 7] = 0x7f;
    assert!(scratch.read(&large, 1000).expect("refused").contains("entry a/data.pkl is outside the file"));
}

/// A state dict with `tensor` of this offset, shape and strides, in a storage of 64 bytes.
fn with_tensor(offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let storage =
        [b"(", &text("storage")[..], b"ctorch\nFloatStorage\n", &text("0"), &text("cpu"), b"K\x10tQ"].concat();
    let call = [b"ctorch._utils\n_rebuild_tensor_v2\n(", &storage[..], offset, shape, strides, b"\x89}tR"].concat();
    archive(&[b"\x80\x02}", &text("patch_embed.proj.weight")[..], &call, b"s."].concat(), &[&[0; 64]])
}

#[test]
fn tensors_that_are_not_in_their_storage_are_refused_by_name() {
    let scratch = Scratch::new();
    let why = |offset: &[u8], shape: &[u8], strides: &[u8]| {
        scratch.read(&with_tensor(offset, shape, strides), 1000).expect("refused")
    };
    // One that is there has the wrong shape only.
    assert!(why(b"K\x00", b"K\x01K\x01K\x10\x87", b"K\x10K\x10K\x01\x87").contains("but config.json asks for"));
    // Terabytes by a stride of 0.
    let huge = b"K\x01\x8a\x06\x00\x00\x00\x00\x00\x01K\x10\x87";
    assert!(why(b"K\x00", huge, b"K\x10K\x00K\x01\x87").contains("proj.weight: shape [1, 1099511627776, 16] with"));
    for (offset, shape, strides) in [
        (&b"K\x01"[..], &b"K\x01K\x01K\x10\x87"[..], &b"K\x10K\x10K\x01\x87"[..]),
        (b"K\x00", b"K\x01K\x01K\x10\x87", b"K\x10K\x10K\x02\x87"),
        (b"J\xff\xff\xff\xff", b"K\x01K\x01K\x10\x87", b"K\x10K\x10K\x01\x87"),
        (b"K\x00", b"K\x01K\x01K\x10\x87", b"K\x10K\x10J\xff\xff\xff\xff\x87"),
        (b"K\x00", huge, b"K\x10\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\x01\x87"),
        (b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", b"K\x01K\x01K\x10\x87", b"K\x10K\x10K\x01\x87"),
        (b"K\x00", b"K\x10\x85", b"K\x10K\x01\x86"),
    ] {
        let why = why(offset, shape, strides);
        assert!(why.contains("tensor patch_embed.proj.weight: ") && !why.contains("config.json"), "{why}");
    }
}
