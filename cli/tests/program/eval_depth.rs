//! `eval` of depth models: metrics, alignment, the comparison with a reference, and where distances come from.

use image::{ImageBuffer, Luma};
use serde_json::{Value, json};

use crate::common::{Scene, colorful, error, json, npy, partial, run, stdout, write_npy};

const RELATIVE: &str = "hf_depth_anything";
const METRIC: &str = "hf_depth_anything_metric";

/// Distances from 0.5 to 9.5 m; every eleventh pixel has none.
fn truth(width: u32, height: u32, seed: u32) -> Vec<f32> {
    let metres = |i: u32| if i % 11 == 3 { 0.0 } else { 0.5 + (i * (31 + seed) % 97) as f32 / 10.75 };
    (0..width * height).map(metres).collect()
}

fn save_png(path: &str, width: u32, height: u32, metres: &[f32], units: f32) {
    let codes = metres.iter().map(|t| (t * units).round() as u16).collect();
    ImageBuffer::<Luma<u16>, Vec<u16>>::from_raw(width, height, codes).unwrap().save(path).unwrap();
}

/// AbsRel, RMSE and delta 1 to 3, and the same after the least squares of scale and shift.
fn measured(depth: &[f32], truth: &[f32], inverse: bool) -> [[f64; 5]; 2] {
    let pairs: Vec<(f64, f64)> =
        depth.iter().zip(truth).filter(|(_, t)| **t > 0.0).map(|(p, t)| (f64::from(*p), f64::from(*t))).collect();
    let n = pairs.len() as f64;
    let metrics = |of: &dyn Fn(f64) -> f64| {
        let mut sums = [0.0; 5];
        for (p, t) in &pairs {
            let p = of(*p).max(1e-3);
            let ratio = (p / t).max(t / p);
            sums[0] += (p - t).abs() / t / n;
            sums[1] += (p - t) * (p - t) / n;
            (1..=3).for_each(|k| sums[1 + k as usize] += if ratio < 1.25_f64.powi(k) { 1.0 / n } else { 0.0 });
        }
        sums[1] = sums[1].sqrt();
        sums
    };
    // The normal equations of y = scale x + shift.
    let points = pairs.iter().map(|(p, t)| (*p, if inverse { 1.0 / t } else { *t }));
    let [x, y, xx, xy] = points.fold([0.0; 4], |s, (x, y)| [s[0] + x, s[1] + y, s[2] + x * x, s[3] + x * y]);
    let scale = (n * xy - x * y) / (n * xx - x * x);
    let shift = (y - scale * x) / n;
    let farthest = pairs.iter().map(|(_, t)| *t).fold(0.0, f64::max);
    let aligned = |p: f64| match inverse {
        false => scale * p + shift,
        true => 1.0 / (scale * p + shift).max(1.0 / farthest),
    };
    [metrics(&|p| p), metrics(&aligned)]
}

fn numbers(metrics: &Value) -> [f64; 5] {
    ["abs_rel", "rmse", "delta1", "delta2", "delta3"].map(|key| metrics[key].as_f64().unwrap())
}

#[track_caller]
fn assert_near(got: &Value, want: [f64; 5]) {
    let got = numbers(got);
    assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6 * (1.0 + b.abs())), "{got:?}\n{want:?}");
}

/// Pictures of several sizes with distances in all the places and forms that they may have.
fn pictures(scene: &Scene) -> [(String, Vec<f32>); 3] {
    let sizes = [(64, 48), (40, 60), (50, 50)];
    let names = ["set/a.png", "set/b.jpg", "set/deep/c.bmp"];
    std::fs::create_dir_all(scene.path("set/deep")).unwrap();
    let maps: Vec<Vec<f32>> = (0..3).map(|i| truth(sizes[i].0, sizes[i].1, i as u32)).collect();
    for (i, (name, (width, height))) in names.iter().zip(sizes).enumerate() {
        colorful(width, height, i as u32 + 1).save(scene.path(name)).unwrap();
    }
    write_npy(&scene.path("set/a.npy"), "(48, 64)", &maps[0]);
    // Millimetres, and the distances that they stand for.
    save_png(&scene.path("set/b.png"), 40, 60, &maps[1], 1000.0);
    let rounded: Vec<f32> = maps[1].iter().map(|t| (t * 1000.0).round() / 1000.0).collect();
    write_npy(&scene.path("set/deep/c_depth.npy"), "(1, 50, 50)", &maps[2]);
    [(scene.path(names[0]), maps[0].clone()), (scene.path(names[1]), rounded), (scene.path(names[2]), maps[2].clone())]
}

/// The depth of a picture at its own size, by `depth`.
fn depth(scene: &Scene, model: &str, picture: &str) -> Vec<f32> {
    let file = scene.path("depth.npy");
    stdout(&format!("depth -m {model} {picture} -o {file}"));
    npy(file)
}

#[test]
fn metrics_are_means_over_pictures_with_and_without_alignment() {
    let scene = Scene::new();
    let samples = pictures(&scene);
    let set = scene.path("set");
    for name in [METRIC, RELATIVE] {
        let (model, reference) = (scene.model(name, "int8"), scene.model(name, "f32"));
        let document = json(&format!("eval -m {model} {set} --reference {reference} --json"));
        assert_eq!((&document["n"], &document["precision"]), (&3.into(), &"int8".into()));
        let inverse = name == RELATIVE;
        let of =
            |model: &str| samples.each_ref().map(|(path, truth)| measured(&depth(&scene, model, path), truth, inverse));
        let (own, its) = (of(&model), of(&reference));
        let mean = |all: &[[[f64; 5]; 2]; 3], which: usize| {
            std::array::from_fn(|i| all.iter().map(|one| one[which][i]).sum::<f64>() / 3.0)
        };
        for (got, all) in [(&document, &own), (&document["reference"], &its)] {
            assert_eq!(got["depth"].is_null(), inverse);
            if !inverse {
                assert_near(&got["depth"], mean(all, 0));
            }
            assert_near(&got["aligned"], mean(all, 1));
        }
        for ((result, (path, truth)), one) in document["results"].as_array().unwrap().iter().zip(&samples).zip(&own) {
            assert_eq!(
                (&result["image"], &result["pixels"]),
                (&path.clone().into(), &truth.iter().filter(|t| **t > 0.0).count().into())
            );
            assert_near(&result["aligned"], one[1]);
        }
        // The difference and its interval, by Student's distribution with two degrees of freedom.
        let which = usize::from(inverse);
        let differences: Vec<f64> = own.iter().zip(&its).map(|(a, b)| a[which][0] - b[which][0]).collect();
        let difference = differences.iter().sum::<f64>() / 3.0;
        let half = 4.3027 * (differences.iter().map(|d| (d - difference).powi(2)).sum::<f64>() / 2.0 / 3.0).sqrt();
        let paired = &document["reference"]["abs_rel"];
        let near = |got: &Value, want: f64| (got.as_f64().unwrap() - want).abs() < 1e-6 * (1.0 + want.abs());
        assert!(near(&paired["difference"], difference), "{paired}, {difference}");
        assert!(near(&paired["interval"][0], difference - half) && near(&paired["interval"][1], difference + half));

        let text = stdout(&format!("eval -m {model} {set} --reference {reference}"));
        assert_eq!(text.contains("  depth "), !inverse, "{text}");
        assert!(text.contains("aligned") && text.contains("delta 1") && text.contains("95 % interval"), "{text}");
    }
}

#[test]
fn distances_come_from_a_csv_and_in_other_units_too() {
    let scene = Scene::new();
    let samples = pictures(&scene);
    let model = scene.model(METRIC, "int8");
    let csv = scene.path("set.csv");
    std::fs::write(&csv, "image,depth\nset/a.png,set/a.npy\nset/deep/c.bmp,set/deep/c_depth.npy\n").unwrap();
    let document = json(&format!("eval -m {model} {csv} --json"));
    let images: Vec<_> = document["results"].as_array().unwrap().iter().map(|r| r["image"].clone()).collect();
    assert_eq!(images, [samples[0].0.clone(), samples[2].0.clone()]);
    assert!(document["reference"].is_null());
    // KITTI's 256 units a metre.
    save_png(&scene.path("kitti.png"), 64, 48, &samples[0].1, 256.0);
    std::fs::write(&csv, format!("{},kitti.png\n", samples[0].0)).unwrap();
    let document = json(&format!("eval -m {model} {csv} --depth-scale 256 --max-depth 5 --json"));
    let truth: Vec<f32> = samples[0].1.iter().map(|t| (t * 256.0).round() / 256.0).collect();
    let near: Vec<f32> = truth.iter().map(|t| if *t <= 5.0 { *t } else { 0.0 }).collect();
    assert_near(&document["depth"], measured(&depth(&scene, &model, &samples[0].0), &near, false)[0]);
    // A folder of pictures and one of distances, as data sets have them.
    for (folder, name) in [("rgb", "0.png"), ("depth", "0.png")] {
        std::fs::create_dir_all(scene.path(&format!("two/{folder}"))).unwrap();
        let from = if folder == "rgb" { samples[0].0.clone() } else { scene.path("kitti.png") };
        std::fs::copy(from, scene.path(&format!("two/{folder}/{name}"))).unwrap();
    }
    let apart = json(&format!("eval -m {model} {} --depth-scale 256 --max-depth 5 --json", scene.path("two")));
    assert_eq!(apart["depth"], document["depth"]);
}

#[test]
fn what_cannot_be_measured_is_named_and_left_out() {
    let scene = Scene::new();
    pictures(&scene);
    let (model, set) = (scene.model(METRIC, "int8"), scene.path("set"));
    colorful(30, 20, 1).save(scene.path("set/none.png")).unwrap();
    colorful(30, 20, 1).save(scene.path("set/turned.jpg")).unwrap();
    write_npy(&scene.path("set/turned.npy"), "(30, 20)", &[1.0; 600]);
    colorful(30, 20, 1).save(scene.path("set/eight.jpg")).unwrap();
    colorful(30, 20, 1).save(scene.path("set/eight.png")).unwrap();
    colorful(30, 20, 1).save(scene.path("set/void.jpg")).unwrap();
    write_npy(&scene.path("set/void.npy"), "(20, 30)", &[0.0; 600]);
    let (text, errors) = partial(&format!("eval -m {model} {set} --json"));
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["n"], 3);
    for why in [
        "none.png: no depth",
        "turned.jpg: its depth has 20 x 30 pixels, the picture 30 x 20: another shape",
        "eight.png: Rgb8: depth is a gray PNG of 16 bits, or .npy",
        "void.npy: no pixel has a distance",
        "1 of 7 pictures have no depth",
        "4 of 7 inputs left out",
    ] {
        assert!(errors.contains(why), "{why}\n{errors}");
    }
    let failed = document["results"].as_array().unwrap().iter().filter(|r| r.get("error").is_some()).count();
    assert_eq!(failed, 4);
    std::fs::create_dir(scene.path("bare")).unwrap();
    colorful(30, 20, 1).save(scene.path("bare/a.png")).unwrap();
    let why = error(&format!("eval -m {model} {}", scene.path("bare")), 1);
    assert!(why.contains("no depth: NAME.npy"), "{why}");
}

#[test]
fn a_loss_can_be_a_failed_check_and_options_of_classifiers_are_refused() {
    let scene = Scene::new();
    let samples = pictures(&scene);
    let (model, reference, set) = (scene.model(METRIC, "int8"), scene.model(METRIC, "f32"), scene.path("set"));
    // The reference's own answer in the place of the truth: no model is better.
    let csv = scene.path("own.csv");
    let ideal: Vec<f32> = depth(&scene, &reference, &samples[0].0).iter().map(|d| d.max(0.01)).collect();
    write_npy(&scene.path("ideal.npy"), "(48, 64)", &ideal);
    std::fs::write(&csv, format!("{},ideal.npy\n", samples[0].0)).unwrap();
    let document = json(&format!("eval -m {model} {csv} --reference {reference} --json"));
    let drop = -100.0 * document["reference"]["delta1"]["difference"].as_f64().unwrap();
    assert!(drop > 0.0 && document["reference"]["delta1"]["interval"].is_null(), "{document}");
    let check = format!("eval -m {model} {csv} --reference {reference} --max-drop");
    let output = run(&format!("{check} {}", drop / 2.0));
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains("delta 1 is"));
    stdout(&format!("{check} {}", drop + 0.01));
    for (options, why) in [
        ("--flips x.csv --reference a.gguf", "--flips is for models with classes"),
        ("--shard 1/2", "--shard is for models with classes"),
        ("--max-drop 1", "--max-drop needs a reference"),
        ("--depth-scale 0", "a number above 0"),
    ] {
        let line = error(&format!("eval -m {model} {set} {options}"), 2);
        assert!(line.contains(why), "{options}: {line}");
    }
    let why = error(&format!("eval -m {model} {set} --reference {model}"), 1);
    assert!(why.contains("a reference is f32"), "{why}");
    let why = error(&format!("eval -m {model} {set} --reference {}", scene.model(RELATIVE, "f32")), 1);
    assert!(why.contains("the other inverse depth"), "{why}");
    let classifier = scene.model("timm_vit", "f32");
    let why = error(&format!("eval -m {model} {set} --reference {classifier}"), 1);
    assert!(why.contains("no depth head"), "{why}");
    assert_eq!(json(&format!("eval -m {model} {set} --limit 1 --json"))["results"].as_array().unwrap().len(), 1);
    assert_eq!(json(&format!("eval -m {model} {set} --json"))["unit"], json!("metres"));
}

/// Networks that were trained on rendered scenes, on scenes that they have not seen: f32 has the AbsRel and delta 1
/// that `models/train/eval_dense.py --count 24` has by PyTorch, and int8 keeps AbsRel within 2 %, and delta 1 within
/// 0.3 points.
#[test]
fn int8_keeps_the_depth_of_trained_networks() {
    let scene = Scene::new();
    let scenes = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/scenes");
    for (name, torch) in [("depth", [0.0635, 0.9616]), ("depth-outliers", [0.0677, 0.9571])] {
        let [model, reference] = ["int8", "f32"].map(|precision| {
            let model = scene.path(&format!("{name}-{precision}.gguf"));
            stdout(&format!("convert {} -o {model} --precision {precision}", scenes.join(name).display()));
            model
        });
        let held_out = scenes.join("held-out");
        let check = format!("eval -m {model} {} --reference {reference} --max-drop 0.3 --json", held_out.display());
        let document = json(&check);
        let paired = |key: &str| ["model", "reference"].map(|of| document["reference"][key][of].as_f64().unwrap());
        let ([abs_rel, its_abs_rel], [delta1, its_delta1]) = (paired("abs_rel"), paired("delta1"));
        assert_eq!((&document["n"], &document["unit"]), (&24.into(), &"metres".into()));
        for (got, want) in [its_abs_rel, its_delta1].iter().zip(torch) {
            assert!((got - want).abs() < 2e-4, "{name}: {got}, PyTorch has {want}");
        }
        assert!(abs_rel < 1.02 * its_abs_rel && delta1 > its_delta1 - 0.003, "{name}: {abs_rel}, {delta1}");
    }
}
