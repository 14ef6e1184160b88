//! `--raw`: streams of frames.

use crate::common::{Scene, colorful, error, json, npy, partial, run, run_with_input, stdout};

/// Three frames of RGB, 53 x 41, and the pictures that they are.
fn frames(scene: &Scene) -> (Vec<u8>, Vec<String>) {
    let bytes = (1..=3).flat_map(|seed| colorful(53, 41, seed).into_raw()).collect();
    let pictures = (1..=3).map(|seed| scene.picture(&format!("{seed}.png"), seed)).collect();
    (bytes, pictures)
}

fn lines(output: &std::process::Output) -> Vec<serde_json::Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_frame_is_classified_as_its_picture_is() {
    let scene = Scene::new();
    let model = scene.model("hf_vit", "int8");
    let (bytes, pictures) = frames(&scene);
    let classify = format!("classify -m {model} --raw rgb24:53x41 --digest --top-k 2");
    let told = lines(&run_with_input(&format!("{classify} --every-frame --json -"), &bytes));
    assert_eq!(told.len(), 3);
    for (i, (line, picture)) in told.iter().zip(&pictures).enumerate() {
        let expected = &json(&format!("classify -m {model} {picture} --json --digest --top-k 2"))["results"][0];
        assert_eq!(line["frame"], i);
        assert_eq!((&line["digest"], &line["top"]), (&expected["digest"], &expected["top"]));
        assert!(["prepare_ms", "run_ms", "ms"].iter().all(|key| line[key].as_f64().unwrap() > 0.0));
        assert_eq!(line["schema"], 1);
        assert_eq!(line["fps"].as_f64().is_some_and(|fps| fps > 0.0), i > 0);
    }
    // The same from a file, as text: one line each, the label in it.
    std::fs::write(scene.path("frames.rgb"), &bytes).unwrap();
    let text = stdout(&format!("classify -m {model} --raw rgb:53x41 {}", scene.path("frames.rgb")));
    assert_eq!(text.lines().count(), 3);
    for (line, told) in text.lines().zip(&told) {
        assert!(
            line.contains(" fps ")
                && line.contains(" ms ")
                && line.ends_with(told["top"][0]["label"].as_str().unwrap()),
            "{line}"
        );
    }
}

/// What a pipe brings faster than it is looked at is dropped, counted and announced; a file waits.
#[test]
fn of_a_pipe_the_newest_frame_wins_and_of_a_file_every_frame_is_taken() {
    let scene = Scene::new();
    let (model, path) = (scene.model("hf_vit", "f32"), scene.path("frames.rgb"));
    let bytes = [colorful(53, 41, 1).into_raw().repeat(200), colorful(53, 41, 2).into_raw()].concat();
    std::fs::write(&path, &bytes).unwrap();
    let classify = format!("classify -m {model} --raw rgb24:53x41 --digest --json --threads 1");
    let output = run_with_input(&format!("{classify} -"), &bytes);
    let told = lines(&output);
    let dropped: u64 = told.iter().map(|line| line["dropped"].as_u64().unwrap()).sum();
    assert_eq!((dropped + told.len() as u64, told.len() < 201), (201, true));
    assert_eq!(told.last().unwrap()["frame"], 200);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.matches("--every-frame takes all").count(), 1, "{said}");
    let last = told.last().unwrap()["digest"].clone();
    // A redirected file is a file.
    let mut redirected = crate::common::vitlet();
    redirected.args(classify.split_whitespace()).arg("-").stdin(std::fs::File::open(&path).unwrap());
    for output in [redirected.output().unwrap(), run(&format!("{classify} {path}"))] {
        let told = lines(&output);
        assert_eq!((told.len(), &told[200]["digest"]), (201, &last));
        assert!(told.iter().all(|line| line["dropped"] == 0) && output.stderr.is_empty());
    }
    let told = lines(&run(&format!("{classify} {path} {path} --frames 203")));
    assert_eq!((told.len(), &told[202]["frame"]), (203, &1.into()));
}

#[test]
fn frames_become_rows_with_their_numbers_and_times() {
    let scene = Scene::new();
    let model = scene.model("hf_vit", "int8");
    let (bytes, pictures) = frames(&scene);
    let (path, rows, expected) = (scene.path("frames.rgb"), scene.path("x.npy"), scene.path("expected.npy"));
    std::fs::write(&path, &bytes).unwrap();
    for tokens in ["", "--tokens"] {
        stdout(&format!("embed -m {model} {} -o {expected} {tokens}", pictures.join(" ")));
        let text = stdout(&format!("embed -m {model} --raw rgb24:53x41 {path} -o {rows} {tokens}"));
        assert_eq!(npy(&rows), npy(&expected));
        let last = text.lines().last().unwrap();
        assert!(text.lines().count() == 4 && last.starts_with(&format!("{rows}: f32 [3, ")), "{text}");
        assert!(last.ends_with(&format!("], its frames in {}", scene.path("x.rows.csv"))), "{text}");
        // The same numbers as lines.
        let told = run(&format!("embed -m {model} --raw rgb24:53x41 {path} --json {tokens}"));
        let key = if tokens.is_empty() { "features" } else { "tokens" };
        let numbers = |value: &serde_json::Value| -> Vec<f32> {
            let flat = value.as_array().unwrap().iter().flat_map(|x| x.as_array().cloned().unwrap_or(vec![x.clone()]));
            flat.map(|x| x.as_f64().unwrap() as f32).collect()
        };
        let told: Vec<f32> = lines(&told).iter().flat_map(|line| numbers(&line[key])).collect();
        assert_eq!(told, npy(&expected));
    }
    let csv = std::fs::read_to_string(scene.path("x.rows.csv")).unwrap();
    let csv: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(csv[0], ["row", "source", "frame", "time"]);
    assert_eq!(csv[3][..3], ["2", &path, "2"]);
    assert!(csv[3][3].parse::<f64>().unwrap() > 1.7e9);
    // Rows to standard output: lines go to standard error.
    let output = run(&format!("embed -m {model} --raw rgb24:53x41 {path} -o /dev/stdout"));
    assert!(output.stdout.starts_with(b"\x93NUMPY") && output.status.success());
    let json = run(&format!("embed -m {model} --raw rgb24:53x41 {path} -o {rows} --json"));
    assert_eq!(lines(&json)[2]["row"], 2);
    let wrong = |arguments: &str| error(&format!("embed -m {model} {arguments}"), 2);
    assert!(wrong(&format!("--raw rgb24:53x41 {path}")).contains("-o FILE.npy, or to --json"));
    assert!(wrong("--camera rpicam -o x.npy").contains("--frames N stops after N frames"));
    assert!(wrong(&pictures[0]).contains("--output"));
    let taken = format!("embed -m {model} --raw rgb24:53x41 {path} -o {path}");
    assert!(error(&taken, 1).contains("input"), "{}", error(&taken, 1));
}

#[test]
fn a_frame_is_prepared_as_its_picture_is() {
    let scene = Scene::new();
    let model = scene.model("hf_vit", "int8");
    let (bytes, pictures) = frames(&scene);
    let (path, x, expected) = (scene.path("frames.rgb"), scene.path("x.npy"), scene.path("expected.npy"));
    std::fs::write(&path, &bytes).unwrap();
    stdout(&format!("preprocess -m {model} {} -o {expected}", pictures[0]));
    let text = stdout(&format!("preprocess -m {model} --raw rgb24:53x41 {path} -o {x}"));
    assert!(text.contains("53 x 41") && text.ends_with("] of 1 frames\n"), "{text}");
    assert_eq!(std::fs::read(&x).unwrap(), std::fs::read(&expected).unwrap());
    stdout(&format!("preprocess -m {model} --raw rgb24:53x41 {path} -o {x} --frames 3"));
    assert_eq!(npy(&x).len(), 3 * npy(&expected).len());
    assert_eq!(npy(&x)[..npy(&expected).len()], npy(&expected));
}

#[test]
fn cameras_formats_are_read() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    // Gray in every format: luma 180 of video range is 191 of full range.
    let digest = |format: &str, frame: &[u8]| {
        let output = run_with_input(&format!("classify -m {model} --raw {format}:8x6 --json --digest -"), frame);
        lines(&output)[0]["digest"].as_str().unwrap().to_string()
    };
    let chroma = [128; 24];
    let i420 = [&[180; 48][..], &chroma].concat();
    let yuyv: Vec<u8> = (0..48).flat_map(|_| [180, 128]).collect();
    assert_eq!(digest("i420", &i420), digest("nv12", &i420));
    assert_eq!(digest("i420", &i420), digest("yuyv", &yuyv));
    let gray = digest("gray", &[191; 48]);
    assert_eq!(gray, digest("bgr24", &[191; 144]));
    assert_eq!(gray, digest("rgba", &[191; 192]));
}

#[test]
fn padded_rows_are_read_with_a_stride_and_suspected_without() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    // 10 x 6 in I420, tight, and with rows of 64 and 32 bytes that end in what is no picture.
    let rows = |count: usize, width: usize, seed: usize| -> Vec<Vec<u8>> {
        (0..count).map(|y| (0..width).map(|x| (x * 17 + y * 29 + seed) as u8).collect()).collect()
    };
    let planes = [(rows(6, 10, 20), 64), (rows(3, 5, 90), 32), (rows(3, 5, 160), 32)];
    let tight: Vec<u8> = planes.iter().flat_map(|(rows, _)| rows.concat()).collect();
    let padded = |(rows, stride): &(Vec<Vec<u8>>, usize)| -> Vec<u8> {
        rows.iter().flat_map(|row| [&row[..], &vec![255; stride - row.len()]].concat()).collect()
    };
    let padded: Vec<u8> = planes.iter().flat_map(padded).collect();
    let digests = |raw: &str, bytes: &[u8]| -> Vec<String> {
        let output = run_with_input(&format!("classify -m {model} --raw {raw} --every-frame --digest --json -"), bytes);
        lines(&output).iter().map(|line| line["digest"].as_str().unwrap().to_string()).collect()
    };
    let expected = digests("i420:10x6", &tight);
    assert_eq!(digests("i420:10x6:64", &padded.repeat(2)), [&expected[..], &expected].concat());

    let output = run_with_input(&format!("classify -m {model} --raw i420:10x6 --every-frame -"), &padded.repeat(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let said: Vec<_> = said.lines().collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("warning: cameras pad rows of 10 pixels") && said[0].contains("--raw i420:10x6:64"));
    assert!(said[1].ends_with("; with padded rows, --raw i420:10x6:64, it is 2 whole frames"), "{said:?}");
    assert!(
        error("classify --raw i420:10x6:9 -", 2).contains("a stride is the bytes of a row of the first plane, 10 to")
    );
}

#[test]
fn a_stream_that_ends_early_is_named_and_nothing_is_lost() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    let (bytes, _) = frames(&scene);
    let size = 53 * 41 * 3;
    let classify = format!("classify -m {model} --raw rgb24:53x41 --every-frame -");
    let output = run_with_input(&classify, &bytes[..2 * size + 100]);
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said, format!("warning: standard input: ends within frame 2, 100 of {size} bytes\n"));
    for (input, why) in [(&bytes[..100], "100 bytes, less than one frame of 6519"), (&[], "no frames")] {
        let output = run_with_input(&classify, input);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("error: standard input: {why}\n"));
    }
    // Other streams go on.
    let (missing, whole) = (scene.path("missing.rgb"), scene.path("whole.rgb"));
    std::fs::write(&whole, &bytes[..size]).unwrap();
    let (text, errors) = partial(&format!("classify -m {model} --raw rgb24:53x41 {missing} {whole}"));
    assert_eq!(text.lines().count(), 1);
    assert_eq!(errors, format!("error: {missing}: No such file or directory\nwarning: 1 of 2 streams failed\n"));
    assert_eq!(
        error(&format!("classify -m {model} --raw gray:4x4 {missing}"), 1),
        format!("{missing}: No such file or directory")
    );
}

/// Every other stream could not be told either.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_at_standard_output_ends_the_command() {
    let scene = Scene::new();
    let (model, path) = (scene.model("timm_vit", "int8"), scene.path("a.rgb"));
    std::fs::write(&path, &frames(&scene).0).unwrap();
    for json in ["", "--json"] {
        let mut command = crate::common::vitlet();
        let arguments = format!("classify -m {model} --raw rgb24:53x41 {json} {path} {path}");
        command.args(arguments.split_whitespace()).stdout(std::fs::File::create("/dev/full").unwrap());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(errors, "error: standard output: No space left on device\n");
    }
}

#[test]
fn formats_and_sizes_are_checked() {
    let wrong = |raw: &str| error(&format!("classify --raw {raw} -"), 2);
    assert!(wrong("h264:640x480").contains("formats are rgb, bgr, rgba, gray, yuyv, nv12, i420"));
    assert!(wrong("i420:640").contains("WIDTHxHEIGHT"));
    assert!(wrong("i420").contains("such as i420:640x480"));
    assert!(run("classify --help").status.success());
}

/// What a stream says when `replace` is done to its model between two frames: its exit status, lines of standard
/// output, and errors.
#[cfg(unix)]
fn replaced(replace: impl FnOnce(&str)) -> (Option<i32>, usize, String) {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::Stdio;

    let scene = Scene::new();
    let model = scene.model("hf_vit", "int8");
    let (frames, _) = frames(&scene);
    let mut command = crate::common::vitlet();
    command.args(["classify", "-m", &model, "--raw", "rgb24:53x41", "--every-frame", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut lines = BufReader::new(output).lines();
    let (first, others) = frames.split_at(frames.len() / 3);
    input.write_all(first).unwrap();
    lines.next().unwrap().unwrap();
    // The program waits for the second frame now.
    replace(&model);
    // It may have ended before it has read all.
    let _ = input.write_all(others);
    drop(input);
    let told = 1 + lines.count();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    (child.wait().unwrap().code(), told, errors.replace(&model, "model.gguf"))
}

#[test]
#[cfg(unix)]
fn a_model_that_is_cut_short_ends_the_stream_with_a_line() {
    let (status, told, errors) =
        replaced(|model| std::fs::File::options().write(true).open(model).unwrap().set_len(100).unwrap());
    let line =
        "error: model.gguf: it was cut short while it was in use; replace a file that is in use with mv, not with cp\n";
    assert_eq!((status, told, errors.as_str()), (Some(1), 1, line));
}

#[test]
#[cfg(unix)]
fn a_model_that_is_written_over_ends_the_stream_with_a_line() {
    // As `cp` does it, with a file of the same size.
    let (status, told, errors) = replaced(|model| std::fs::write(model, std::fs::read(model).unwrap()).unwrap());
    let line =
        "error: model.gguf: it was changed while it was in use; replace a file that is in use with mv, not with cp\n";
    assert_eq!((status, told, errors.as_str()), (Some(1), 1, line));
}

#[test]
#[cfg(unix)]
fn a_model_that_is_replaced_by_another_file_runs_on() {
    let (status, told, errors) = replaced(|model| {
        std::fs::write(format!("{model}.new"), "another").unwrap();
        std::fs::rename(format!("{model}.new"), model).unwrap();
    });
    assert_eq!((status, told, errors.as_str()), (Some(0), 3, ""));
}
