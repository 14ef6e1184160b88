//! Pictures as people have them: hostile, with trailers, under other names, in other formats, among other files.

use serde_json::Value;

use crate::common::{Scene, checkpoint, error, json, run};
use crate::mutate;

/// The status of a command that went on without some of its pictures.
const LEFT_OUT: i32 = 4;

fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_string).collect()
}

/// A valid JPEG whose header is replaced by one of 65,535 x 65,535 pixels.
fn bomb(scene: &Scene, name: &str) -> String {
    let path = scene.picture(name, 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let frame = bytes.array_windows().position(|pair| *pair == [0xFF, 0xC0]).unwrap();
    bytes[frame + 5..frame + 9].fill(0xFF);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn one_bad_picture_is_named_counted_and_left_out() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    for name in ["photos/a.png", "photos/z.png"] {
        scene.picture(name, 1);
    }
    let bomb = bomb(&scene, "photos/bomb.jpg");
    let photos = scene.path("photos");
    let told = |arguments: &str| {
        let output = run(arguments);
        let said = lines(&output.stderr);
        let about: Vec<_> = said.iter().filter(|line| line.contains("bomb.jpg")).collect();
        assert_eq!(about.len(), 1, "{arguments}: {said:?}");
        assert!(
            about[0].starts_with(&format!("error: {bomb}: this JPEG of 65535 x 65535 pixels is too large to decode"))
        );
        assert_eq!(said.last().unwrap(), "warning: 1 of 3 inputs left out", "{arguments}");
        assert_eq!(output.status.code(), Some(LEFT_OUT), "{arguments}");
        output.stdout
    };
    let document: Value = serde_json::from_slice(&told(&format!("classify -m {model} {photos} --json"))).unwrap();
    let decoded = document["results"].as_array().unwrap().iter().filter(|r| r["top"].is_array()).count();
    assert_eq!(decoded, 2);
    let csv = scene.path("labels.csv");
    std::fs::write(&csv, "photos/a.png,0\nphotos/bomb.jpg,1\nphotos/z.png,2\n").unwrap();
    let report: Value = serde_json::from_slice(&told(&format!("eval -m {model} {csv} --json"))).unwrap();
    assert_eq!(report["n"], 2);
    let reference = scene.model("timm_vit", "f32");
    let report: Value =
        serde_json::from_slice(&told(&format!("compare -m {model} --reference {reference} {photos} --json"))).unwrap();
    assert_eq!(report["pictures"], 2);
    let source = checkpoint("timm_deit3").display().to_string();
    let report: Value =
        serde_json::from_slice(&told(&format!("bench layerscale {source} --rounds 1 --images {photos} --json")))
            .unwrap();
    assert_eq!(report["pictures"], 2);
    assert!(error(&format!("classify -m {model} {bomb}"), 1).contains("more than 178 million pixels"));
}

#[test]
fn trailers_do_not_change_a_jpeg() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    let plain = scene.picture("plain.jpg", 1);
    let whole = std::fs::read(&plain).unwrap();
    let film = [b"\0\0\0\x18ftypmp42", &(0..9999u32).flat_map(|i| [(i * i) as u8, 0xFF, 0xDA]).collect::<Vec<_>>()[..]];
    std::fs::write(scene.path("motion.jpg"), [&whole[..], b"MotionPhoto_Data", &film.concat()].concat()).unwrap();
    std::fs::write(scene.path("samsung.jpg"), [&whole[..whole.len() - 2], &[7; 500]].concat()).unwrap();
    let files = ["plain.jpg", "motion.jpg", "samsung.jpg"].map(|name| scene.path(name)).join(" ");
    let report = json(&format!("classify -m {model} {files} --digest --json"));
    let digests: Vec<_> = report["results"].as_array().unwrap().iter().map(|r| &r["digest"]).collect();
    assert_eq!(digests.len(), 3);
    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");
    std::fs::write(scene.path("cut.jpg"), &whole[..whole.len() - 60]).unwrap();
    assert!(error(&format!("classify -m {model} {}", scene.path("cut.jpg")), 1).ends_with("cut.jpg: truncated JPEG"));
}

#[test]
fn folders_are_read_by_content_and_what_is_left_out_is_said() {
    let scene = Scene::new();
    let model = scene.model("hf_vit", "int8");
    for (made, name) in [("a.jpg", "a.jfif"), ("b.png", "without_ending"), ("c.webp", "c.JPE")] {
        let path = scene.picture(&format!("data/dove/{made}"), 3);
        std::fs::rename(path, scene.path(&format!("data/dove/{name}"))).unwrap();
    }
    let heic: &[u8] = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";
    for (name, bytes) in [("d.HEIC", heic), ("e.tif", b"II*\0\x08\0\0\0"), ("notes.txt", b"dove"), ("f.pdf", b"%PDF-1")]
    {
        std::fs::write(scene.path(&format!("data/dove/{name}")), bytes).unwrap();
    }
    for command in ["eval", "classify"] {
        let folder = scene.path(if command == "eval" { "data" } else { "data/dove" });
        let output = run(&format!("{command} -m {model} {folder} --json"));
        let said = lines(&output.stderr);
        assert_eq!(output.status.code(), Some(LEFT_OUT), "{said:?}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let decoded = report["results"].as_array().map(|r| r.iter().filter(|r| r["top"].is_array()).count() as u64);
        assert_eq!(decoded.or(report["n"].as_u64()), Some(3));
        let says = |text: &str| assert!(said.iter().any(|line| line.contains(text)), "{text}: {said:?}");
        says("d.HEIC: HEIC is not supported; convert it to JPEG, e.g. heif-convert a.heic a.jpg");
        says("e.tif: TIFF is not supported; convert it to PNG");
        says("left out 2 files that are not pictures: f.pdf (PDF), notes.txt");
        says("2 of 5 inputs left out");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn pipes_and_devices_are_read_only_where_they_are_named() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    let good = scene.picture("photos/good.png", 1);
    let fifo = scene.path("photos/pipe.jpg");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", scene.path("photos/zero.jpg")).unwrap();
    std::os::unix::fs::symlink("good.png", scene.path("photos/link")).unwrap();
    let output = run(&format!("classify -m {model} {} --json", scene.path("photos")));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("pipe.jpg: a FIFO in a folder is not opened"), "{said}");
    assert!(said.contains("zero.jpg: a device in a folder is not opened"), "{said}");
    assert!(said.contains("2 of 4 inputs left out"), "{said}");
    assert_eq!(output.status.code(), Some(LEFT_OUT));

    let digest = |report: &Value| report["results"][0]["digest"].as_str().unwrap().to_string();
    let expected = digest(&json(&format!("classify -m {model} {good} --digest --json")));
    let bytes = std::fs::read(&good).unwrap();
    let piped = std::thread::scope(|scope| {
        scope.spawn(|| std::fs::write(&fifo, &bytes).unwrap());
        json(&format!("classify -m {model} {fifo} --digest --json"))
    });
    assert_eq!(digest(&piped), expected);
    assert!(error(&format!("classify -m {model} /dev/zero"), 1).starts_with("/dev/zero: not a picture"));
    assert!(error(&format!("classify -m {model} /dev/null"), 1).starts_with("/dev/null: empty file"));
}

#[test]
fn gray_of_16_bits_is_announced_once() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    let deep = image::ImageBuffer::from_fn(8, 8, |x, y| image::Luma([(x * 97 + y * 1013) as u16]));
    for name in ["a.png", "b.png"] {
        deep.save(scene.path(name)).unwrap();
    }
    let output = run(&format!("classify -m {model} {} {}", scene.path("a.png"), scene.path("b.png")));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((said.matches("16-bit gray").count(), said.matches("Pillow").count()), (1, 1), "{said}");
    assert!(output.status.success());
}

#[test]
fn mutated_pictures_do_not_end_the_program() {
    classify_mutated(300);
}

#[test]
#[ignore = "takes minutes without optimisation"]
fn many_mutated_pictures_do_not_end_the_program() {
    classify_mutated(20_000);
}

fn classify_mutated(count: u64) {
    let scene = Scene::new();
    let seeds = mutate::seeds();
    let folder = scene.path("mutated");
    std::fs::create_dir(&folder).unwrap();
    for number in 0..count {
        let (ending, bytes) = mutate::mutate(&seeds, number);
        std::fs::write(format!("{folder}/{number:05}.{ending}"), bytes).unwrap();
    }
    let model = scene.model("timm_vit", "int8");
    let output = run(&format!("classify -m {model} {folder} --top-k 1"));
    let said = lines(&output.stderr);
    assert_eq!(output.status.code(), Some(LEFT_OUT), "{:?}", said.last());
    let failed = said.iter().filter(|line| line.starts_with("error: ")).count();
    let classified = lines(&output.stdout).len() / 2;
    assert_eq!((failed + classified) as u64, count);
    assert_eq!(said.len(), failed + 1, "one line each, and the sum");
    assert_eq!(said[failed], format!("warning: {failed} of {count} inputs left out"));
}

/// Every picture fits beside the program, five do not fit side by side.
#[cfg(target_os = "linux")]
#[test]
fn pictures_share_the_memory_that_the_process_may_have() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    std::fs::create_dir_all(scene.path("pictures/0")).unwrap();
    let large = scene.path("pictures/0/0.png");
    image::RgbImage::from_pixel(3000, 3000, image::Rgb([90, 140, 200])).save(&large).unwrap();
    for i in 1..5 {
        std::fs::copy(&large, scene.path(&format!("pictures/0/{i}.png"))).unwrap();
    }
    let eval = format!("{} eval --threads 1 --json -m {model}", env!("CARGO_BIN_EXE_vitlet"));
    let limited = format!("ulimit -v 120000 && exec {eval} {}", scene.path("pictures"));
    // Arenas of glibc take address space that nobody uses.
    let output = std::process::Command::new("sh").args(["-c", &limited]).env("MALLOC_ARENA_MAX", "1").output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["n"], 5, "{errors}");
}
