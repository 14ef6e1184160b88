//! `segment`: the class of every pixel, as an array, in colours and in words; and depth by heads that are not
//! transformers'.

use image::DynamicImage;
use serde_json::{Value, json};

use crate::common::{Scene, checkpoint, colorful, error, json, npy, stdout};

/// A network of five classes with names, patches of 14 pixels, trained at 42 x 42.
fn model(scene: &Scene) -> String {
    let (model, labels) = (scene.path("segment.gguf"), scene.path("labels.txt"));
    std::fs::write(&labels, "floor\nwall\nball\ncolumn\nbox\n").unwrap();
    let backbone = checkpoint("dinov2_own");
    let head = backbone.join("heads/classes_ms_head.safetensors");
    let options = format!("--head {} --labels {labels} --precision f32", head.display());
    stdout(&format!("convert {} -o {model} {options}", backbone.display()));
    model
}

fn result(arguments: &str) -> Value {
    json(&format!("segment {arguments} --json"))["results"][0].clone()
}

fn lerp(t: f64, a: f64, b: f64) -> f64 {
    a + t * (b - a)
}

/// Where pixel `i` of `to` lies among `from`.
fn place(i: usize, from: usize, to: usize) -> (usize, usize, f64) {
    let x = ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
    (x as usize, (x as usize + 1).min(from - 1), x.fract())
}

/// The class of a pixel, and by how much it is ahead of the next one.
fn class(logits: &[f32], grid: (usize, usize), size: (usize, usize), (x, y): (usize, usize)) -> (i32, f64) {
    let ((left, right, tx), (up, down, ty)) = (place(x, grid.1, size.0), place(y, grid.0, size.1));
    let mut all: Vec<(f64, i32)> = logits
        .chunks(grid.0 * grid.1)
        .zip(0..)
        .map(|(plane, class)| {
            let at = |y: usize, x: usize| f64::from(plane[y * grid.1 + x]);
            (lerp(ty, lerp(tx, at(up, left), at(up, right)), lerp(tx, at(down, left), at(down, right))), class)
        })
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    (all[0].1, all[0].0 - all[1].0)
}

#[test]
fn every_pixel_has_the_class_of_the_largest_logit() {
    let scene = Scene::new();
    let (model, picture) = (model(&scene), scene.path("a.png"));
    let (array, x, y) = (scene.path("a.npy"), scene.path("x.npy"), scene.path("y.npy"));
    for (width, height, input) in [(90, 60, (42, 56)), (42, 42, (42, 42)), (30, 80, (112, 42))] {
        colorful(width, height, 3).save(&picture).unwrap();
        let found = result(&format!("-m {model} {picture} -o {array}"));
        assert_eq!(found["input"], json!([input.1, input.0]));
        stdout(&format!("preprocess -m {model} {picture} -o {x}"));
        stdout(&format!("run -m {model} --input {x} --output {y}"));
        let bytes = std::fs::read(&array).unwrap();
        let header = String::from_utf8_lossy(&bytes[..100]).into_owned();
        assert!(header.contains("'<i4'") && header.contains(&format!("({height}, {width})")), "{header}");
        let ids: Vec<i32> = npy(&array).iter().map(|x| x.to_bits() as i32).collect();
        let (grid, size) = ((input.0 / 14, input.1 / 14), (width as usize, height as usize));
        let logits = npy(&y);
        assert_eq!((ids.len(), logits.len()), (size.0 * size.1, 5 * grid.0 * grid.1));
        for (i, id) in ids.iter().enumerate() {
            let (want, ahead) = class(&logits, grid, size, (i % size.0, i / size.0));
            assert!(*id == want || ahead < 1e-4, "{width} x {height}, pixel {i}: {id}, not {want} by {ahead}");
        }
        let classes = found["classes"].as_array().unwrap();
        let shares: Vec<f64> = classes.iter().map(|class| class["share"].as_f64().unwrap()).collect();
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9 && shares.is_sorted_by(|a, b| a >= b), "{shares:?}");
        let index = classes[0]["index"].as_u64().unwrap() as usize;
        assert_eq!(classes[0]["label"], ["floor", "wall", "ball", "column", "box"][index]);
        let count = ids.iter().filter(|id| **id == index as i32).count();
        assert_eq!(count as f64 / ids.len() as f64, shares[0]);
    }
}

#[test]
fn pictures_show_the_classes_and_lines_name_them() {
    let scene = Scene::new();
    let (model, picture, out) = (model(&scene), scene.path("a.png"), scene.path("out.png"));
    colorful(200, 160, 1).save(&picture).unwrap();
    let text = stdout(&format!("segment -m {model} {picture} -o {out}"));
    assert!(["floor", "wall", "ball", "column", "box"].iter().any(|label| text.contains(label)), "{text}");
    assert!(text.contains(" %") && text.contains("out.png"), "{text}");
    let with = image::open(&out).unwrap().to_rgb8();
    stdout(&format!("segment -m {model} {picture} -o {out} --no-legend"));
    let without = image::open(&out).unwrap().to_rgb8();
    assert!(with.dimensions() == (200, 160) && with != without);
    // The upper left corner has no legend.
    assert_eq!(with.get_pixel(3, 3), without.get_pixel(3, 3));
    let (ids, array) = (scene.path("ids.png"), scene.path("ids.npy"));
    stdout(&format!("segment -m {model} {picture} -o {ids} --format ids"));
    stdout(&format!("segment -m {model} {picture} -o {array}"));
    let DynamicImage::ImageLuma8(gray) = image::open(&ids).unwrap() else { panic!("8 bits of gray") };
    let numbers: Vec<u8> = npy(&array).iter().map(|x| x.to_bits() as u8).collect();
    assert_eq!(gray.into_raw(), numbers);
    // A folder, and frames.
    let folder = scene.path("folder");
    let stream = scene.path("stream.rgb");
    std::fs::write(&stream, colorful(64, 48, 2).into_raw().repeat(2)).unwrap();
    let text = stdout(&format!("segment -m {model} --raw rgb24:64x48 {stream} -o {folder} --json"));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[1]["classes"]), (2, &lines[0]["classes"]));
    assert_eq!(image::open(scene.path("folder/000001.png")).unwrap().to_rgb8().dimensions(), (64, 48));
}

#[test]
fn inspect_counts_the_classes_of_patches() {
    let scene = Scene::new();
    let model = model(&scene);
    assert!(stdout(&format!("inspect {model}")).contains("5 classes of patches, 5 labels"));
    let config = &json(&format!("inspect {model} --json"))["config"];
    assert_eq!((&config["patch_classes"], &config["classes"]), (&json!(5), &json!(0)));
    assert_eq!(config["outputs"], json!(["features", "tokens", "logits_map"]));
}

#[test]
fn a_command_that_does_not_fit_names_the_one_that_does() {
    let scene = Scene::new();
    let (segment, classes) = (model(&scene), scene.model("timm_vit", "int8"));
    let picture = scene.picture("a.png", 1);
    let why = error(&format!("segment -m {classes} {picture}"), 1);
    assert!(why.contains("no head for the classes of patches: `vitlet classify`"), "{why}");
    for command in ["depth", "classify"] {
        let why = error(&format!("{command} -m {segment} {picture}"), 1);
        assert!(why.contains("`vitlet segment` shows the classes of its patches"), "{why}");
    }
    assert!(
        error(&format!("segment -m {segment} {picture} -o a.npy --format ids"), 2).contains("another kind of file")
    );
}

/// Depth Anything's own code aligns the corners, DINOv2's does not.
#[test]
fn depth_is_enlarged_as_the_authors_codes_do() {
    let scene = Scene::new();
    let (picture, array, x, y) = (scene.path("a.png"), scene.path("a.npy"), scene.path("x.npy"), scene.path("y.npy"));
    let backbone = checkpoint("dinov2_own").display().to_string();
    let linear = scene.path("linear.gguf");
    stdout(&format!("convert {backbone} --head {backbone}/heads/nyu_linear4_head.safetensors -o {linear}"));
    let size = (65, 48);
    colorful(size.0 as u32, size.1 as u32, 3).save(&picture).unwrap();
    for (model, aligned) in [(scene.model("depth_anything_own", "f32"), true), (linear, false)] {
        let found = json(&format!("depth -m {model} {picture} -o {array} --json"))["results"][0].clone();
        let input = [1, 0].map(|i| found["input"][i].as_u64().unwrap() as usize);
        assert_eq!(
            (input, &found["depth"]["unit"]),
            ([42, 56], &if aligned { "relative inverse depth" } else { "metres" }.into())
        );
        stdout(&format!("preprocess -m {model} {picture} -o {x}"));
        stdout(&format!("run -m {model} --input {x} --output {y}"));
        let (map, got) = (npy(&y), npy(&array));
        let at = |i: usize, from: usize, to: usize| match aligned {
            true => {
                let x = i as f64 * (from - 1) as f64 / (to - 1) as f64;
                (x as usize, (x as usize + 1).min(from - 1), x.fract())
            }
            false => place(i, from, to),
        };
        let span = map.iter().map(|x| x.abs()).fold(0.0, f32::max);
        for (i, got) in got.iter().enumerate() {
            let ((l, r, tx), (u, d, ty)) = (at(i % size.0, input[1], size.0), at(i / size.0, input[0], size.1));
            let at = |y: usize, x: usize| f64::from(map[y * input[1] + x]);
            let want = lerp(ty, lerp(tx, at(u, l), at(u, r)), lerp(tx, at(d, l), at(d, r)));
            assert!((f64::from(*got) - want).abs() < 2e-5 * f64::from(span), "{model}, pixel {i}: {got} for {want}");
        }
    }
}
