//! `depth`: pictures and arrays of the right numbers, where they go, and what is said.

use image::{DynamicImage, ExtendedColorType, GrayImage, ImageEncoder, Luma, Rgb, RgbImage};
use serde_json::{Value, json};

use crate::common::{Scene, colorful, error, json, npy, partial, run, run_with_input, stdout};

const RELATIVE: &str = "hf_depth_anything";
const METRIC: &str = "hf_depth_anything_metric";

/// Cubic convolution with a = -0.75 of one line, four taps and repeated borders, straight from the formula.
fn resized(line: &[f64], to: usize) -> Vec<f64> {
    let kernel = |x: f64| {
        let (x, a) = (x.abs(), -0.75);
        match x {
            ..=1.0 => (a + 2.0) * x.powi(3) - (a + 3.0) * x.powi(2) + 1.0,
            ..=2.0 => a * x.powi(3) - 5.0 * a * x.powi(2) + 8.0 * a * x - 4.0 * a,
            _ => 0.0,
        }
    };
    let at = |i: i64| line[i.clamp(0, line.len() as i64 - 1) as usize];
    let sum = |i: usize| {
        let x = (i as f64 + 0.5) * line.len() as f64 / to as f64 - 0.5;
        (x.floor() as i64 - 1..=x.floor() as i64 + 2).map(|k| at(k) * kernel(x - k as f64)).sum()
    };
    (0..to).map(sum).collect()
}

fn resized_map(map: &[f32], (rows, columns): (usize, usize), (width, height): (usize, usize)) -> Vec<f64> {
    let wide: Vec<Vec<f64>> =
        map.chunks(columns).map(|row| resized(&row.iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), width)).collect();
    assert_eq!(wide.len(), rows);
    let tall: Vec<Vec<f64>> =
        (0..width).map(|x| resized(&wide.iter().map(|row| row[x]).collect::<Vec<_>>(), height)).collect();
    (0..height).flat_map(|y| tall.iter().map(move |column| column[y])).collect()
}

/// The network's output for a picture, by the commands for tensors.
fn output(scene: &Scene, model: &str, picture: &str) -> Vec<f32> {
    let (x, y) = (scene.path("x.npy"), scene.path("y.npy"));
    stdout(&format!("preprocess -m {model} {picture} -o {x}"));
    stdout(&format!("run -m {model} --input {x} --output {y}"));
    npy(&y)
}

/// The only result of `depth --json`.
fn result(arguments: &str) -> Value {
    json(&format!("depth {arguments} --json"))["results"][0].clone()
}

/// 42 x 42 is the processor's size: the edge that changes less is scaled to it, both become multiples of 14.
#[test]
fn arrays_have_the_networks_numbers_at_the_pictures_size() {
    let scene = Scene::new();
    let file = scene.path("depth.npy");
    for (name, precision) in [(RELATIVE, "f32"), (METRIC, "int8")] {
        let model = scene.model(name, precision);
        for (width, height, input) in [(64, 48, (42, 56)), (48, 64, (56, 42)), (50, 50, (42, 42)), (90, 20, (14, 42))] {
            let picture = scene.path("a.png");
            colorful(width, height, 3).save(&picture).unwrap();
            let found = result(&format!("-m {model} {picture} -o {file}"));
            assert_eq!(found["input"], json!([input.1, input.0]), "{width} x {height}");
            assert_eq!(
                (&found["width"], &found["height"], &found["output"]),
                (&width.into(), &height.into(), &file.clone().into())
            );
            let map = output(&scene, &model, &picture);
            let (got, want) = (npy(&file), resized_map(&map, input, (width as usize, height as usize)));
            assert_eq!(got.len(), want.len());
            let span = map.iter().map(|x| x.abs()).fold(0.0, f32::max);
            let off = got.iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            assert!(off < 1e-5 * f64::from(span), "{name}, {width} x {height}: off by {off} of {span}");
            let header = String::from_utf8_lossy(&std::fs::read(&file).unwrap()[..100]).into_owned();
            assert!(header.contains(&format!("({height}, {width})")), "{header}");
        }
    }
}

#[test]
fn what_is_told_is_of_the_networks_output() {
    let scene = Scene::new();
    let picture = scene.path("a.png");
    colorful(128, 96, 3).save(&picture).unwrap();
    for (name, unit) in [(RELATIVE, "relative inverse depth"), (METRIC, "metres")] {
        let model = scene.model(name, "int8");
        let mut map = output(&scene, &model, &picture);
        let found = result(&format!("-m {model} {picture} --digest"));
        let depth = &found["depth"];
        let number = |key: &str| depth[key].as_f64().unwrap() as f32;
        let (min, max) = map.iter().fold((f32::MAX, f32::MIN), |(min, max), x| (min.min(*x), max.max(*x)));
        assert_eq!((depth["unit"].as_str(), number("min"), number("max")), (Some(unit), min, max));
        let place = |best: f32| {
            let at = map.iter().position(|x| *x == best).unwrap();
            // 56 x 42 becomes 128 x 96: a pixel that holds the middle of the element.
            let pixel = |i: usize, from: f64, to: f64| ((i as f64 + 0.5) * to / from).floor() as u64;
            json!([pixel(at % 56, 56.0, 128.0), pixel(at / 56, 42.0, 96.0)])
        };
        let (near, far) = if name == METRIC { (min, max) } else { (max, min) };
        assert_eq!((&depth["nearest"], &depth["farthest"]), (&place(near), &place(far)));
        map.sort_by(f32::total_cmp);
        assert_eq!(number("median"), map[(map.len() - 1) / 2]);
        assert_eq!(found["digest"], format!("{:016x}", vitlet::digest(&output(&scene, &model, &picture))));
        assert!(found.get("output").is_none() && found["run_ms"].as_f64().unwrap() > 0.0);

        let text = stdout(&format!("depth -m {model} {picture} {picture} --digest"));
        assert_eq!(text.lines().count(), 2);
        let unit = if name == METRIC { " m at " } else { "relative inverse depth" };
        assert!(text.contains("nearest") && text.contains(unit) && text.contains("digest"), "{text}");
    }
}

#[test]
fn an_asked_size_is_the_input_of_every_picture() {
    let scene = Scene::new();
    let (model, picture) = (scene.model(RELATIVE, "int8"), scene.picture("a.png", 1));
    assert_eq!(result(&format!("-m {model} {picture} --size 70x28"))["input"], json!([70, 28]));
    assert!(error(&format!("depth -m {model} {picture} --size 71x28"), 1).contains("multiple of the patch size"));
    // Converted for another size, which is then the only one.
    let small = scene.path("small.gguf");
    let checkpoint = crate::common::checkpoint(RELATIVE);
    stdout(&format!("convert {} -o {small} --image-size 28x28", checkpoint.display()));
    assert_eq!(result(&format!("-m {small} {picture}"))["input"], json!([28, 28]));
    // Made anew from a file in f32, the model keeps what the checkpoint's processor says.
    let (full, again) = (scene.model(RELATIVE, "f32"), scene.path("again.gguf"));
    stdout(&format!("convert {full} -o {again}"));
    assert_eq!(result(&format!("-m {again} {picture}"))["input"], json!([56, 42]));
}

#[test]
fn a_model_for_another_task_is_sent_there() {
    let scene = Scene::new();
    let picture = scene.picture("a.png", 1);
    let (depth, labels) = (scene.model(RELATIVE, "int8"), scene.model("timm_vit", "int8"));
    let why = error(&format!("classify -m {depth} {picture}"), 1);
    assert!(why.contains("no classification head: `vitlet depth` shows its depth"), "{why}");
    let why = error(&format!("depth -m {labels} {picture}"), 1);
    assert!(why.contains("no depth head: `vitlet classify` shows its labels"), "{why}");
    let why = error(&format!("depth -m {} {picture}", scene.model("timm_features", "int8")), 1);
    assert!(why.ends_with("no depth head: `vitlet embed` writes its features, `vitlet run` all outputs"), "{why}");
}

/// The near end of the colours is the light one, for either unit.
#[test]
fn colours_follow_the_depth() {
    let scene = Scene::new();
    let (picture, png, array) = (scene.path("a.png"), scene.path("depth.png"), scene.path("depth.npy"));
    colorful(200, 150, 3).save(&picture).unwrap();
    for name in [RELATIVE, METRIC] {
        let model = scene.model(name, "int8");
        let found = result(&format!("-m {model} {picture} -o {png} --colormap gray --no-legend"));
        stdout(&format!("depth -m {model} {picture} -o {array}"));
        let (drawn, depths) = (image::open(&png).unwrap().to_rgb8(), npy(&array));
        assert_eq!(drawn.dimensions(), (200, 150));
        let (min, max) = (found["depth"]["min"].as_f64().unwrap(), found["depth"]["max"].as_f64().unwrap());
        for (pixel, depth) in drawn.pixels().zip(&depths) {
            let share = ((f64::from(*depth) - min) / (max - min)).clamp(0.0, 1.0);
            let want = 255.0 * if name == METRIC { 1.0 - share } else { share };
            assert!(pixel.0.iter().all(|c| (f64::from(*c) - want).abs() <= 1.0), "{name}: {pixel:?}, {want}");
        }
        // A legend is in metres, and covers a corner alone.
        stdout(&format!("depth -m {model} {picture} -o {png} --colormap gray"));
        let with = image::open(&png).unwrap().to_rgb8();
        let changed = with.pixels().zip(drawn.pixels()).filter(|(a, b)| a != b).count();
        assert_eq!(changed > 500, name == METRIC, "{name}: {changed}");
        let corner = |image: &RgbImage| image::imageops::crop_imm(image, 0, 0, 100, 60).to_image();
        assert_eq!(corner(&with), corner(&drawn));
    }
    let model = scene.model(METRIC, "int8");
    let fixed = |range: &str| {
        stdout(&format!("depth -m {model} {picture} -o {png} --colormap gray --no-legend --range {range}"));
        image::open(&png).unwrap().to_rgb8()
    };
    assert!(fixed("1000,2000").pixels().all(|pixel| *pixel == Rgb([255; 3])));
    assert!(fixed("-20,-10").pixels().all(|pixel| *pixel == Rgb([0; 3])));
    for name in ["inferno", "magma", "plasma", "viridis", "cividis", "turbo", "spectral"] {
        stdout(&format!("depth -m {model} {picture} -o {png} --colormap {name}"));
    }
}

#[test]
fn sixteen_bits_are_millimetres_or_a_share() {
    let scene = Scene::new();
    let (picture, png, array) = (scene.picture("a.png", 3), scene.path("depth.png"), scene.path("depth.npy"));
    for name in [RELATIVE, METRIC] {
        let model = scene.model(name, "int8");
        let found = result(&format!("-m {model} {picture} -o {png} --format png16"));
        stdout(&format!("depth -m {model} {picture} -o {array}"));
        let DynamicImage::ImageLuma16(gray) = image::open(&png).unwrap() else { panic!("not 16 bits") };
        let (min, max) = (found["depth"]["min"].as_f64().unwrap(), found["depth"]["max"].as_f64().unwrap());
        for (Luma([code]), depth) in gray.pixels().zip(npy(&array)) {
            let want = match name {
                METRIC => (f64::from(depth) * 1000.0).round().clamp(1.0, 65535.0),
                _ => ((f64::from(depth) - min) / (max - min) * 65535.0).clamp(0.0, 65535.0),
            };
            assert!((f64::from(*code) - want).abs() <= 1.0, "{name}: {code}, {want}");
        }
        let bytes = std::fs::read(&png).unwrap();
        let unit: &[u8] = if name == METRIC { b"Unit\0millimetres" } else { b"Unit\0relative inverse depth" };
        assert!(bytes.windows(unit.len()).any(|window| window == unit));
    }
    let model = scene.model(METRIC, "int8");
    for (options, why) in [
        (format!("-o {png} --format png16 --range 1,2"), "always millimetres"),
        (format!("-o {png} --format png16 --colormap turbo"), "--colormap is for colours"),
        (format!("-o {array} --no-legend"), "--no-legend is for colours"),
        (format!("-o {array} --range 1,2"), "--range is for pictures"),
        (format!("-o {array} --format png16"), "another kind of file"),
        (format!("-o {png} --range 2,1"), "MIN,MAX"),
        (format!("-o {}", scene.path("a.jpg")), "FILE.png, FILE.npy or a folder"),
        (format!("{picture} -o {png}"), "one file for 2 pictures"),
        ("--colormap turbo".to_string(), "--output"),
    ] {
        let line = error(&format!("depth -m {model} {picture} {options}"), 2);
        assert!(line.contains(why), "{options}: {line}");
    }
}

#[test]
fn one_bad_picture_does_not_end_a_batch() {
    let scene = Scene::new();
    let model = scene.model(RELATIVE, "int8");
    for name in ["in/a.jpg", "in/b/c.png", "in/c.bmp"] {
        scene.picture(name, 1);
    }
    std::fs::write(scene.path("in/bad.jpg"), b"\xff\xd8\xff\xe0").unwrap();
    let (folder, out) = (scene.path("in"), scene.path("out"));
    let (text, errors) = partial(&format!("depth -m {model} {folder} -o {out} --json"));
    assert!(errors.contains("in/bad.jpg: ") && errors.ends_with("warning: 1 of 4 inputs left out\n"), "{errors}");
    let document: Value = serde_json::from_str(&text).unwrap();
    let outputs: Vec<_> = document["results"].as_array().unwrap().iter().map(|one| one["output"].as_str()).collect();
    let path = |name: &str| scene.path(name);
    let want = [path("out/a.png"), path("out/b/c.png"), path("out/c.png")];
    assert_eq!(outputs, [Some(&*want[0]), Some(&*want[1]), None, Some(&*want[2])]);
    assert!(want.iter().all(|path| image::open(path).unwrap().width() == 53));
    assert!(!std::path::Path::new(&path("out/bad.png")).exists());
    assert_eq!(run(&format!("depth -m {model} {folder}/bad.jpg -o {out}")).status.code(), Some(1));
}

#[test]
fn the_inputs_folder_can_be_the_outputs_and_keeps_its_pictures() {
    let scene = Scene::new();
    let model = scene.model(RELATIVE, "int8");
    let (a, b) = (scene.picture("in/a.png", 1), scene.picture("in/b.jpg", 2));
    let before = [&a, &b].map(|path| std::fs::read(path).unwrap());
    let folder = scene.path("in");
    stdout(&format!("depth -m {model} {folder} -o {folder}"));
    let written = ["in/a.png.png", "in/b.png"].map(|name| image::open(scene.path(name)).unwrap().width());
    assert_eq!(written, [53, 53]);
    // Again: what was written is now an input too.
    let why = error(&format!("depth -m {model} {folder} -o {folder}"), 1);
    assert!(why.ends_with("a.png and a.png.png are inputs; name another folder"), "{why}");
    assert_eq!([&a, &b].map(|path| std::fs::read(path).unwrap()), before);
    for command in [format!("depth -m {model} {a} -o {a}"), format!("depth -m {model} {b} -o {folder}/../in/a.png {a}")]
    {
        let output = run(&command);
        assert!(!output.status.success(), "{command}");
    }
    assert_eq!([&a, &b].map(|path| std::fs::read(path).unwrap()), before);
    let text = scene.path("a file");
    std::fs::write(&text, "kept").unwrap();
    let output = crate::common::vitlet().args(["depth", "-m", &model, &a, "-o", &text]).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("a file, not a folder"));
    assert_eq!(std::fs::read(&text).unwrap(), b"kept");
}

#[cfg(target_os = "linux")]
#[test]
fn devices_are_written_through_and_a_full_one_is_one_line() {
    let scene = Scene::new();
    let (model, a) = (scene.model(RELATIVE, "int8"), scene.picture("a.png", 1));
    let why = error(&format!("depth -m {model} {a} -o /dev/full"), 1);
    assert_eq!(why, "/dev/full: cannot write: No space left on device");
    stdout(&format!("depth -m {model} {a} -o /dev/null --format npy"));
    let file = scene.path("depth.npy");
    stdout(&format!("depth -m {model} {a} -o {file}"));
    let output = run(&format!("depth -m {model} {a} -o /dev/stdout --format npy"));
    assert_eq!(output.stdout, std::fs::read(&file).unwrap());
    assert!(String::from_utf8(output.stderr).unwrap().contains("nearest"));
    let why = error(&format!("depth -m {model} {a} -o /dev/stdout --json"), 2);
    assert_eq!(why, "--json and the output itself cannot both go to standard output");
    let mut told = crate::common::vitlet();
    told.args(["depth", "-m", &model, &a]).stdout(std::fs::File::create("/dev/full").unwrap());
    let output = told.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "error: standard output: No space left on device\n");
}

#[test]
fn gray_turned_thin_and_tiny_pictures_have_a_depth() {
    let scene = Scene::new();
    let model = scene.model(RELATIVE, "int8");
    let gray = GrayImage::from_fn(60, 44, |x, y| Luma([(x * 3 + y) as u8]));
    gray.save(scene.path("gray.png")).unwrap();
    DynamicImage::ImageLuma8(gray).to_rgb8().save(scene.path("same.png")).unwrap();
    let digest = |name: &str| result(&format!("-m {model} {} --digest", scene.path(name)))["digest"].clone();
    assert_eq!(digest("gray.png"), digest("same.png"));

    // Stored turned by a quarter, with an EXIF chunk that says so: the depth is that of the upright picture.
    let upright = colorful(48, 32, 5);
    upright.save(scene.path("upright.png")).unwrap();
    let turned = image::imageops::rotate270(&upright);
    let tiff = b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder.set_exif_metadata(tiff.to_vec()).unwrap();
    encoder.write_image(&turned, turned.width(), turned.height(), ExtendedColorType::Rgb8).unwrap();
    std::fs::write(scene.path("turned.png"), bytes).unwrap();
    assert_eq!(digest("turned.png"), digest("upright.png"));
    let out = scene.path("out.png");
    stdout(&format!("depth -m {model} {} -o {out}", scene.path("turned.png")));
    assert_eq!(image::open(&out).unwrap().to_rgb8().dimensions(), (48, 32));

    for (width, height) in [(1, 1), (1, 300), (300, 1), (7, 7), (150, 20)] {
        let picture = scene.path("thin.png");
        colorful(width, height, 1).save(&picture).unwrap();
        for (file, options) in [("out.png", ""), ("out.npy", ""), ("out.png", "--format png16")] {
            stdout(&format!("depth -m {model} {picture} -o {} {options}", scene.path(file)));
        }
        assert_eq!(image::open(&out).unwrap().to_rgb8().dimensions(), (width, height));
        assert_eq!(npy(scene.path("out.npy")).len() as u32, width * height);
    }
    let long = scene.path("long.png");
    colorful(42 * 9, 42, 1).save(&long).unwrap();
    let why = error(&format!("depth -m {model} {long}"), 1);
    assert!(why.contains("more than 8 times") && why.contains("--size WxH"), "{why}");
    stdout(&format!("depth -m {model} {long} --size 378x42"));
}

#[test]
fn frames_have_a_line_and_a_file_each() {
    let scene = Scene::new();
    let model = scene.model(METRIC, "int8");
    let frames: Vec<RgbImage> = (1..4).map(|seed| colorful(64, 48, seed)).collect();
    let stream = scene.path("stream.rgb");
    std::fs::write(&stream, frames.iter().flat_map(|frame| frame.as_raw().clone()).collect::<Vec<_>>()).unwrap();
    let folder = scene.path("out");
    let text = stdout(&format!("depth -m {model} --raw rgb24:64x48 {stream} -o {folder} --format npy --json --digest"));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    for (i, (line, frame)) in lines.iter().zip(&frames).enumerate() {
        let picture = scene.path("frame.png");
        frame.save(&picture).unwrap();
        let array = scene.path("frame.npy");
        let found = result(&format!("-m {model} {picture} -o {array} --digest"));
        assert_eq!((&line["frame"], &line["digest"], &line["depth"]), (&i.into(), &found["digest"], &found["depth"]));
        let file = line["output"].as_str().unwrap();
        assert_eq!(file, scene.path(&format!("out/00000{i}.npy")));
        assert_eq!(npy(file), npy(&array));
    }
    // The part that is looked at has the size of its depth.
    let options = "--raw rgb24:64x48 --region 10,4,40,20 --rotate 90 --frames 1";
    let text = stdout(&format!("depth -m {model} {options} {stream} -o {folder}"));
    assert!(text.contains("nearest") && text.contains("000000.png"), "{text}");
    assert_eq!(image::open(scene.path("out/000000.png")).unwrap().to_rgb8().dimensions(), (20, 40));
    let bytes = std::fs::read(&stream).unwrap();
    let output = run_with_input(&format!("depth -m {model} --raw rgb24:64x48 - --every-frame"), &bytes);
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 3);
    // preprocess takes the same size.
    let x = scene.path("x.npy");
    assert!(stdout(&format!("preprocess -m {model} --raw rgb24:64x48 {stream} -o {x}")).contains("[1, 3, 42, 56]"));
}

#[cfg(target_os = "linux")]
#[test]
fn frames_that_cannot_be_written_end_the_stream() {
    let scene = Scene::new();
    let model = scene.model(METRIC, "int8");
    let stream = scene.path("stream.rgb");
    std::fs::write(&stream, vec![90; 64 * 48 * 3 * 5]).unwrap();
    let output = run(&format!("depth -m {model} --raw rgb24:64x48 {stream} -o /dev/full"));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(errors, "error: /dev/full: cannot write: No space left on device\n");
}
