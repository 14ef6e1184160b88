//! Outputs: files that they never destroy, their state when something goes wrong, and how signals end the program.

use crate::common::{Scene, checkpoint, error, run, stdout, write_npy};

#[test]
fn no_command_writes_over_its_inputs() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    let (a, b) = (scene.picture("folder/a.png", 1), scene.picture("folder/b.png", 2));
    let folder = scene.path("folder");
    let x = scene.path("x.npy");
    write_npy(&x, "(0, 3, 32, 32)", &[]);
    let csv = scene.path("labels.csv");
    std::fs::write(&csv, format!("{a},0\n{b},1\n")).unwrap();
    let [reference, layerscale] = ["timm_vit", "timm_deit3"].map(|name| checkpoint(name).display().to_string());
    let hard = scene.path("hard.gguf");
    std::fs::hard_link(&model, &hard).unwrap();
    let before: Vec<_> = [&model, &a, &b, &x, &csv].map(|path| std::fs::read(path).unwrap()).into();
    for command in [
        format!("embed -m {model} {folder} -o {b}"),
        format!("embed -m {model} {a} -o {model}"),
        format!("embed -m {model} {a} -o {hard}"),
        format!("preprocess -m {model} {a} -o {a}"),
        format!("run -m {model} --input {x} --output {x}"),
        format!("run -m {model} --input {x} --output {model}"),
        format!("inspect {model} --plot {model}"),
        format!("compare -m {model} --reference {model} {folder} --plot {b}"),
        format!("compare -m {model} --reference {reference} {a} --plot {reference}/config.json"),
        format!("eval -m {model} {csv} --reference {reference} --flips {csv}"),
        format!("eval -m {model} {csv} --reference {reference} --flips {b}"),
        format!("eval -m {model} {csv} --reference {reference} --flips {reference}/model.safetensors"),
        format!("convert {reference} -o {reference}/model.safetensors"),
        format!("eval -m {model} {csv} --limit 1 --reference {reference} --flips {b}"),
        format!("bench layerscale {reference} --plot {reference}/config.json"),
        format!("bench layerscale {layerscale} --images {csv} --plot {csv}"),
        format!("bench layerscale {layerscale} --images {csv} --plot {b}"),
    ] {
        let why = error(&command, 1);
        assert!(why.ends_with("name another output"), "{command}: {why}");
    }
    // Built without tract or with it, the program sees the options before the ONNX file.
    for option in [format!("--labels {csv}"), format!("--preprocess-from {}", scene.path("."))] {
        let why = error(&format!("eval --backend tract -m a.onnx {folder} {option} --flips {csv}"), 1);
        assert!(why.ends_with("name another output"), "{option}: {why}");
    }
    let after: Vec<_> = [&model, &a, &b, &x, &csv].map(|path| std::fs::read(path).unwrap()).into();
    assert!(before == after);
}

#[cfg(unix)]
#[test]
fn two_outputs_are_two_files() {
    let scene = Scene::new();
    let (model, a) = (scene.model("timm_vit", "int8"), scene.picture("a.png", 1));
    let (file, hard, link) = (scene.path("a.npy"), scene.path("hard.csv"), scene.path("link.csv"));
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let refused = |rows: &str| {
        let why = error(&format!("embed -m {model} {a} -o {file} --rows {rows}"), 1);
        assert!(why.ends_with(&format!("the same file as the output {file}; name another")), "{why}");
    };
    [&file, &link, &scene.path("./a.npy")].into_iter().for_each(|rows| refused(rows));
    stdout(&format!("embed -m {model} {a} -o {file}"));
    std::fs::hard_link(&file, &hard).unwrap();
    let before = std::fs::read(&file).unwrap();
    [&file, &link, &hard].into_iter().for_each(|rows| refused(rows));
    assert_eq!(std::fs::read(&file).unwrap(), before);
    for command in ["embed", "preprocess"] {
        let why = error(&format!("{command} -m {model} {a} -o x.csv"), 2);
        assert_eq!(why, "x.csv: arrays are written as .npy; name it NAME.npy");
    }
    let why = error(&format!("embed -m {model} {a} -o /dev/stdout --rows /dev/stdout"), 1);
    assert!(why.contains("the same file as the output"), "{why}");
    stdout(&format!("embed -m {model} {a} -o /dev/null --rows /dev/null"));
}

#[cfg(unix)]
#[test]
fn reports_and_outputs_do_not_share_standard_output() {
    let scene = Scene::new();
    let (model, reference) = (scene.model("timm_deit3", "int8"), checkpoint("timm_deit3").display().to_string());
    let a = scene.picture("pictures/0/a.png", 1);
    let pictures = scene.path("pictures");
    for (command, start, end, report) in [
        (format!("inspect {model} --plot /dev/stdout"), "<svg", "</svg>\n", "licence"),
        (
            format!("compare -m {model} --reference {reference} {a} --plot /dev/stdout"),
            "<svg",
            "</svg>\n",
            "same first label",
        ),
        (
            format!("eval -m {model} {pictures} --reference {reference} --flips /dev/stdout"),
            "path,change,",
            "\n",
            "agreement",
        ),
        (
            format!("bench layerscale {reference} --rounds 1 --threads 1 --plot /dev/stdout"),
            "<svg",
            "</svg>\n",
            "keep takes",
        ),
        (format!("embed -m {model} {a} -o {} --rows /dev/stdout", scene.path("a.npy")), "row,image\n", ".png\n", "f32"),
    ] {
        let output = run(&command);
        let [text, said] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(output.status.success() && text.starts_with(start) && text.ends_with(end), "{command}\n{text}{said}");
        assert!(said.contains(report) && !text.contains(report), "{command}\n{text}{said}");
        let why = error(&format!("{command} --json"), 2);
        assert_eq!(why, "--json and the output itself cannot both go to standard output", "{command}");
    }
}

#[cfg(unix)]
#[test]
fn standard_output_has_the_array_alone() {
    let scene = Scene::new();
    let model = scene.model("timm_vit", "int8");
    let (a, file) = (scene.picture("a.png", 1), scene.path("a.npy"));
    stdout(&format!("embed -m {model} {a} -o {file}"));
    let array = std::fs::read(&file).unwrap();
    let output = run(&format!("embed -m {model} {a} -o /dev/stdout"));
    assert!(output.status.success());
    assert_eq!(output.stdout, array);
    assert!(String::from_utf8(output.stderr).unwrap().contains("/dev/stdout: f32 [1, 36]"));
    // A file that the shell has opened is written where it stands, not replaced.
    let appended = scene.path("appended");
    let command = format!("(printf before; $0 embed -m {model} {a} -o /dev/stdout) > {appended}");
    let shell = std::process::Command::new("sh").args(["-c", &command, env!("CARGO_BIN_EXE_vitlet")]).output().unwrap();
    assert!(shell.status.success());
    assert_eq!(std::fs::read(&appended).unwrap(), [b"before", &array[..]].concat());
}

#[cfg(unix)]
#[test]
fn a_file_too_large_is_one_line_and_leaves_the_old_one() {
    let scene = Scene::new();
    let target = scene.path("target/model.gguf");
    std::fs::create_dir(scene.path("target")).unwrap();
    std::fs::write(&target, "old").unwrap();
    let command =
        format!("ulimit -f 1; exec $0 convert {} -o {target} --precision f32", checkpoint("timm_vit").display());
    let shell = std::process::Command::new("sh").args(["-c", &command, env!("CARGO_BIN_EXE_vitlet")]).output().unwrap();
    assert_eq!(shell.status.code(), Some(1));
    assert_eq!(String::from_utf8(shell.stderr).unwrap(), format!("error: {target}: cannot write: File too large\n"));
    assert_eq!(std::fs::read(&target).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(scene.path("target")).unwrap().count(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn signals_end_the_program_as_signals_unless_they_are_ignored() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};
    // The program waits for its standard input, which stays open; its thread of signals is there when its first line
    // is. The tests themselves may have been started with signals ignored.
    let start = |ignored: &str, default: &str| {
        let command = format!("{ignored} exec env --default-signal={default} $0 classify -");
        let mut shell = Command::new("sh");
        shell.args(["-c", &command, env!("CARGO_BIN_EXE_vitlet")]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = shell.stdout(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stderr.take().unwrap()), &mut line).unwrap();
        assert!(line.contains("built-in model"), "{line}");
        let stdin = child.stdin.take().unwrap();
        (child, stdin)
    };
    let send = |signal: &str, child: &std::process::Child| {
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    };
    for (signal, number) in [("-INT", 2), ("-TERM", 15), ("-HUP", 1)] {
        let (mut child, _stdin) = start("", "INT,TERM,HUP");
        send(signal, &child);
        assert_eq!(child.wait().unwrap().signal(), Some(number));
    }
    // As under nohup.
    let (mut child, _stdin) = start("trap '' HUP;", "TERM");
    send("-HUP", &child);
    send("-TERM", &child);
    assert_eq!(child.wait().unwrap().signal(), Some(15));
}
