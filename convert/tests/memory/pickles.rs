//! Files of PyTorch's old format, whose pickles cost as much memory as pickles can.

use std::fs;

use vitlet_convert::{Options, convert};

use crate::{ALONE, peak};

#[test]
fn the_pickles_of_a_file_take_no_more_than_256_mib() {
    let _alone = ALONE.lock();
    let scratch = tempfile::tempdir().expect("a directory");
    let file = scratch.path().join("bomb.pth");
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let machine = b"\x80\x02}.";
    let half = 1 << 20;
    for object in [
        b"(i\n\n".repeat(half),
        b"N(i\n\n".repeat(half / 7),
        [b"N".repeat(half - 100), b"\x94".repeat(half - 100)].concat(),
        [b"N".repeat(half - 100), b"(".repeat(half - 100)].concat(),
        [&b"N"[..], &b"2R".repeat(half - 100)].concat(),
        b"]N\x94a".repeat(half / 2 - 100),
        b"X\x04\x00\x00\x00\xff\xff\xff\xff".repeat(half - 100),
    ] {
        let object = [&b"\x80\x02N"[..], &object, b"."].concat();
        // Where the version stands, as the object, and where the storages' keys stand.
        for pickles in [[&magic[..], &object, machine, &object], [&magic[..], machine, machine, &object]] {
            fs::write(&file, [&pickles.concat()[..], &object].concat()).expect("written");
            let options = Options { arch: Some("vit_tiny_patch16_224".to_owned()), ..Options::default() };
            let (result, peak) = peak(|| convert(&file, &options, &mut |_| {}).map(drop));
            let why = result.expect_err("refused").to_string();
            assert!(peak <= 256 << 20, "{peak} bytes for {:?} ...: {why}", &object[..8]);
        }
    }
}
