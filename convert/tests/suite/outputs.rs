//! Outputs are whole or absent, reach what their path stands for, and never replace an input.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use vitlet_convert::output::{TemporaryFolder, Writer, discard_all, refuse_inputs};
use vitlet_convert::{Options, refuse_source, write_file};

use crate::common::{convert_err, convert_ok, fixture};

/// The names in a directory, in order.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("read").map(|e| e.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_file_that_can_not_be_written_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().expect("a directory");
    let target = scratch.path().join("taken");
    fs::create_dir_all(target.join("by a directory")).expect("created");
    let error = |path: &Path| write_file(b"model", path).expect_err("not written").to_string();
    assert!(error(&target).ends_with("taken: cannot write: a directory"));
    let missing = error(&scratch.path().join("missing/model.gguf"));
    assert!(missing.ends_with("missing/model.gguf: cannot write: No such file or directory"), "{missing}");
    assert!(error(&scratch.path().join("folder/")).ends_with("not the name of a file"));
    assert!(error(Path::new("")).ends_with("not the name of a file"));
    assert_eq!(names(scratch.path()), ["taken"]);
    // And a good one replaces what was there, whole.
    let model = scratch.path().join("model.gguf");
    write_file(b"old and longer", &model).expect("written");
    write_file(b"new", &model).expect("written");
    assert_eq!(fs::read(&model).expect("read"), b"new");
    assert_eq!(names(scratch.path()), ["model.gguf", "taken"]);
}

#[test]
fn a_writer_patches_reads_back_and_commits() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().join("x");
    fs::write(&path, "old").expect("written");
    // Two at once, as of two processes: their temporary files have different names.
    let mut dropped = Writer::create(&path).expect("created");
    let mut writer = Writer::create(&path).expect("created");
    dropped.write_all(b"never").expect("written");
    writer.write_all(b"head ........ tail").expect("written");
    writer.seek(SeekFrom::Start(5)).expect("sought");
    writer.write_all(b"checksum").expect("written");
    assert_eq!(writer.file().metadata().expect("known").len(), 18);
    assert_eq!((fs::read(&path).expect("read"), names(scratch.path()).len()), (b"old".to_vec(), 3));
    writer.commit().expect("committed");
    drop(dropped);
    assert_eq!(fs::read(&path).expect("read"), b"head checksum tail");
    assert_eq!(names(scratch.path()), ["x"]);
}

#[test]
fn an_input_is_no_output() {
    let scratch = tempfile::tempdir().expect("a directory");
    let at = |name: &str| scratch.path().join(name);
    fs::write(at("a"), "a").expect("written");
    fs::write(at("b"), "b").expect("written");
    fs::hard_link(at("a"), at("hard")).expect("linked");
    let refused = |output: &str| refuse_inputs(&at(output), [at("b"), at("a")]).map_err(|e| e.to_string());
    assert!(refused("a").expect_err("refused").ends_with("a: is an input and the output at once; name another output"));
    let why = refused("hard").expect_err("refused");
    assert!(why.contains("hard: the same file as the input") && why.ends_with("/a; name another output"), "{why}");
    assert_eq!(refused("new"), Ok(()));
}

#[test]
fn the_files_of_a_checkpoint_are_inputs_but_for_earlier_models() {
    let scratch = tempfile::tempdir().expect("a directory");
    let dir = scratch.path();
    for entry in fs::read_dir(fixture("timm_vit")).expect("read").map(|e| e.expect("an entry")) {
        fs::copy(entry.path(), dir.join(entry.file_name())).expect("copied");
    }
    let options = Options::default();
    let refused = |output: &str| refuse_source(&dir.join(output), dir, &options).is_err();
    assert!(refused("model.safetensors") && refused("config.json"));
    assert!(!refused("model.gguf"));
    write_file(&convert_ok(dir, &options).bytes, &dir.join("model.gguf")).expect("written");
    assert!(!refused("model.gguf"), "a second conversion replaces the first one's");
    let file = dir.join("model.gguf");
    assert!(refuse_source(&file, &file, &options).is_err());
    let labels = Options { labels: Some(dir.join("config.json")), ..Options::default() };
    assert!(refuse_source(&dir.join("config.json"), &file, &labels).is_err());
    let head = Options { head: Some(dir.join("model.safetensors")), ..Options::default() };
    assert!(refuse_source(&dir.join("model.safetensors"), &fixture("timm_features"), &head).is_err());
}

/// Run by [`signals_leave_nothing_and_end_every_output`] in a process of its own.
#[test]
#[ignore = "ends every output of its process"]
fn discards_all() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().join("x");
    let mut writer = Writer::create(&path).expect("created");
    writer.write_all(b"half").expect("written");
    assert_eq!(names(scratch.path()).len(), 1);
    let folder = TemporaryFolder::create().expect("created");
    fs::write(folder.path().join("file"), "x").expect("written");
    discard_all();
    assert!(names(scratch.path()).is_empty() && !folder.path().exists());
    assert!(writer.commit().expect_err("ended").why.contains("interrupted"));
    assert!(Writer::create(&path).is_err());
    assert!(names(scratch.path()).is_empty());
}

#[test]
fn signals_leave_nothing_and_end_every_output() {
    let program = std::env::current_exe().expect("known");
    let run = std::process::Command::new(program).args(["--exact", "outputs::discards_all", "--ignored"]).output();
    let output = run.expect("run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

/// Weights and gammas that are finite, of which the products are not.
#[test]
fn a_model_that_would_not_load_is_refused_with_its_tensor() {
    let scratch = tempfile::tempdir().expect("a directory");
    let dir = scratch.path();
    for file in ["config.json", "preprocessor_config.json"] {
        fs::copy(fixture("hf_dinov2_model").join(file), dir.join(file)).expect("copied");
    }
    let whole = fs::read(fixture("hf_dinov2_model").join("model.safetensors")).expect("read");
    let (header, metadata) = safetensors::SafeTensors::read_metadata(&whole).expect("whole");
    for what in ["weight", "bias"] {
        let mut bytes = whole.clone();
        for (tensor, value) in [(format!("mlp.fc2.{what}"), f32::MAX), ("layer_scale2.lambda1".to_string(), 1000.0)] {
            let (from, to) = metadata.tensors()[&format!("encoder.layer.1.{tensor}")].data_offsets;
            let values = bytes[8 + header..][from..to].as_chunks_mut::<4>().0;
            values.iter_mut().for_each(|v| *v = value.to_le_bytes());
        }
        fs::write(dir.join("model.safetensors"), &bytes).expect("written");
        for precision in [vitlet::Precision::Int8, vitlet::Precision::F16] {
            let error = convert_err(dir, &Options { precision, ..Options::default() }).to_string();
            assert!(error.contains("blk.1.ffn_down.") && error.contains("not finite"), "{error}");
        }
    }
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::process::Command;

    use super::*;

    #[test]
    fn links_lead_to_their_target_and_permissions_stay() {
        let scratch = tempfile::tempdir().expect("a directory");
        let at = |name: &str| scratch.path().join(name);
        fs::create_dir(at("store")).expect("created");
        write_file(b"old", &at("store/model")).expect("written");
        fs::set_permissions(at("store/model"), fs::Permissions::from_mode(0o640)).expect("set");
        symlink("store/model", at("link")).expect("linked");
        symlink("link", at("link to link")).expect("linked");
        write_file(b"new", &at("link to link")).expect("written");
        assert_eq!(fs::read(at("store/model")).expect("read"), b"new");
        assert_eq!(fs::metadata(at("store/model")).expect("known").mode() & 0o7777, 0o640);
        // A link without a target makes it.
        symlink("store/other", at("dangling")).expect("linked");
        write_file(b"made", &at("dangling")).expect("written");
        assert_eq!(fs::read(at("store/other")).expect("read"), b"made");
        for link in ["link", "link to link", "dangling"] {
            assert!(fs::symlink_metadata(at(link)).expect("known").is_symlink(), "{link}");
        }
        assert_eq!(names(&at("store")), ["model", "other"]);
        // Links in a circle, and through them an input.
        symlink("circle", at("circle")).expect("linked");
        assert!(write_file(b"x", &at("circle")).is_err());
        assert!(refuse_inputs(&at("link"), [at("store/model")]).is_err());
    }

    #[test]
    fn a_new_file_is_as_open_as_the_umask_lets_it_be() {
        let scratch = tempfile::tempdir().expect("a directory");
        let at = |name: &str| scratch.path().join(name);
        fs::write(at("plain"), "x").expect("written");
        write_file(b"x", &at("ours")).expect("written");
        let mode = |name: &str| fs::metadata(at(name)).expect("known").mode();
        assert_eq!(mode("ours"), mode("plain"));
    }

    #[test]
    fn pipes_and_devices_are_written_through() {
        let scratch = tempfile::tempdir().expect("a directory");
        let fifo = scratch.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().expect("run").success());
        let received = || {
            let fifo = fifo.clone();
            std::thread::spawn(move || fs::read(fifo).expect("read"))
        };
        let reader = received();
        write_file(b"through", &fifo).expect("written");
        assert_eq!(reader.join().expect("joined"), b"through");
        let reader = received();
        let mut writer = Writer::create(&fifo).expect("created");
        writer.write_all(b"in pieces").expect("written");
        writer.seek(SeekFrom::Start(0)).expect("sought");
        writer.write_all(b"IN").expect("written");
        writer.commit().expect("committed");
        assert_eq!(reader.join().expect("joined"), b"IN pieces");
        // Only root may make a device.
        let null = scratch.path().join("null");
        let mut made = vec!["fifo"];
        if Command::new("mknod").arg(&null).args(["c", "1", "3"]).output().is_ok_and(|o| o.status.success()) {
            write_file(b"nothing", &null).expect("written");
            assert!(!fs::metadata(&null).expect("known").is_file());
            made.push("null");
        }
        assert!(!fs::symlink_metadata(&fifo).expect("known").is_file());
        assert_eq!(names(scratch.path()), made);
    }
}
