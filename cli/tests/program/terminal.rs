//! Names, labels and paths that nobody has to trust never reach a terminal as control characters.

use crate::common::{Scene, checkpoint, stdout, vitlet};

/// What a label, a model's name or a path may hold: it clears the line, sets the title, forges a line, turns the text
/// around, or is what the program once wrote for bold.
const HOSTILE: &str = "a\u{fdd3}\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}1A\u{202e}z";
const SHOWN: &str = "a\\u{fdd3}\\u{1b}[2J\\u{1b}]0;t\\u{7}\\u{9b}1A\\u{202e}z";

fn hostile_scene() -> (Scene, String, String) {
    let scene = Scene::new();
    let (labels, model) = (scene.path("labels.txt"), scene.path("m.gguf"));
    std::fs::write(&labels, (0..7).map(|i| format!("{HOSTILE}{i}\n")).collect::<String>()).unwrap();
    stdout(&format!("convert {} -o {model} --labels {labels}", checkpoint("timm_vit").display()));
    let picture = scene.dir.path().join(format!("{HOSTILE}\n.png"));
    std::fs::rename(scene.picture("a.png", 1), &picture).unwrap();
    (scene, model, picture.display().to_string())
}

#[test]
fn control_characters_are_shown_as_escapes() {
    let (scene, model, picture) = hostile_scene();
    let run = |arguments: &[&str]| {
        let output = vitlet().args(arguments).output().unwrap();
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap())
    };
    let [text, _] = run(&["classify", "-m", &model, &picture, "--top-k", "1"]);
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.lines().all(|line| line.contains(SHOWN)), "{text}");
    assert!(text.lines().next().unwrap().contains(&format!("{SHOWN}\\n.png")), "{text}");
    let [_, error] = run(&["classify", "-m", &format!("{model}{HOSTILE}\nx"), &picture]);
    assert!(error.contains(&format!("m.gguf{SHOWN}\\nx: No such file")) && error.lines().count() == 1, "{error}");
    let [_, error] = run(&["classify", &format!("--{HOSTILE}")]);
    // clap has taken out what it knows to be a terminal's.
    assert!(error.contains("\\u{9b}1A\\u{202e}z") && error.lines().count() == 1, "{error}");
    // JSON has its own escapes, and gives the names back.
    let [text, _] = run(&["classify", "-m", &model, &picture, "--json"]);
    assert!(!text.contains(|c: char| c != '\n' && c.is_control() || c == '\u{202e}'), "{text}");
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["results"][0]["image"], picture);
    assert!(document["results"][0]["top"][0]["label"].as_str().unwrap().starts_with(HOSTILE));
    drop(scene);
}

/// On a terminal there are colours, and no other escape sequences.
#[cfg(target_os = "linux")]
#[test]
#[allow(clippy::disallowed_macros)]
fn a_terminal_gets_colours_alone() {
    let (scene, model, picture) = hostile_scene();
    let plain = scene.path("plain.png");
    std::fs::rename(picture, &plain).unwrap();
    let command = format!("{} classify -m {model} {plain}", env!("CARGO_BIN_EXE_vitlet"));
    // util-linux has it; nothing else in the tests needs a terminal.
    let Ok(output) = std::process::Command::new("script").args(["-qec", &command, "/dev/null"]).output() else {
        eprintln!("a_terminal_gets_colours_alone: skipped, `script` of util-linux is not installed");
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\u{1b}[36m") && text.contains(SHOWN), "{text:?}");
    for after in text.split('\u{1b}').skip(1) {
        let sequence = after.split_inclusive(|c: char| c.is_ascii_alphabetic()).next().unwrap();
        assert!(sequence.starts_with('[') && sequence.ends_with('m'), "{sequence:?} in {text:?}");
    }
}
