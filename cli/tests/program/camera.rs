//! `--camera`: programs and servers that stand for cameras.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Cursor, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use image::{ImageFormat, imageops};
use serde_json::Value;

use crate::common::{Scene, colorful, error, json, npy, run, run_with_input, vitlet};

/// Runs a command line whose last argument, the camera, may have spaces.
fn watch(arguments: &str, camera: &str) -> Output {
    vitlet().args(arguments.split_whitespace()).args(["--camera", camera]).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The one error line of a camera that must fail with `status`.
fn refused(arguments: &str, camera: &str, status: i32) -> String {
    let output = watch(arguments, camera);
    let text = String::from_utf8(output.stderr).unwrap();
    let errors: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    assert_eq!((output.status.code(), errors.len()), (Some(status), 1), "{text}");
    errors[0].to_string()
}

fn jpeg(seed: u32) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    colorful(53, 41, seed).write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

/// What `classify` says of a picture's file.
fn digest(model: &str, picture: &str) -> Value {
    json(&format!("classify -m {model} {picture} --json --digest"))["results"][0]["digest"].clone()
}

#[test]
fn frames_of_a_command_are_classified_as_their_pictures_are() {
    let scene = Scene::new();
    let model = scene.model("hf_vit", "int8");
    let (raw, jpegs) = (scene.path("raw"), scene.path("jpegs"));
    fs::write(&raw, colorful(53, 41, 1).into_raw()).unwrap();
    fs::write(&jpegs, [jpeg(2), jpeg(2)].concat()).unwrap();
    let (png, jpg) = (scene.picture("1.png", 1), scene.path("2.jpg"));
    fs::write(&jpg, jpeg(2)).unwrap();
    for (arguments, file, picture, frames) in [("--raw rgb24:53x41", &raw, &png, 1), ("", &jpegs, &jpg, 2)] {
        let classify = format!("classify -m {model} {arguments} --digest --json");
        let told = lines(&watch(&classify, &format!("exec:cat {file}")));
        let last = told.last().unwrap();
        assert_eq!(last["digest"], digest(&model, picture));
        assert_eq!((&last["schema"], last["frame"].as_u64()), (&1.into(), Some(frames - 1)));
        let dropped: u64 = told.iter().map(|line| line["dropped"].as_u64().unwrap()).sum();
        assert_eq!(dropped + told.len() as u64, frames);
        assert!(last["time"].as_f64().unwrap() > 1.7e9);
    }
}

#[test]
fn the_newest_frame_wins_and_every_frame_is_counted() {
    let scene = Scene::new();
    let model = scene.model("hf_vit", "f32");
    // Two hundred at once, then one that is another.
    let (many, last) = (scene.path("many"), scene.path("last"));
    fs::write(&many, colorful(53, 41, 1).into_raw().repeat(200)).unwrap();
    fs::write(&last, colorful(53, 41, 2).into_raw()).unwrap();
    let command = format!("exec:cat {many} {last}");
    let told = lines(&watch(&format!("classify -m {model} --raw rgb24:53x41 --digest --json --threads 1"), &command));
    assert!(told.len() < 201, "none was dropped");
    let dropped: u64 = told.iter().map(|line| line["dropped"].as_u64().unwrap()).sum();
    assert_eq!(dropped + told.len() as u64, 201);
    let last = told.last().unwrap();
    assert_eq!((last["frame"].as_u64(), &last["digest"]), (Some(200), &digest(&model, &scene.picture("2.png", 2))));
    assert!(told.is_sorted_by_key(|line| line["frame"].as_u64()));
    let text = watch(&format!("classify -m {model} --raw rgb24:53x41 --threads 1"), &command);
    assert!(String::from_utf8(text.stdout).unwrap().contains(" dropped"));
}

#[test]
fn no_more_frames_are_classified_than_fps_says() {
    let scene = Scene::new();
    let (model, frame) = (scene.model("hf_vit", "int8"), scene.path("frame"));
    fs::write(&frame, colorful(53, 41, 1).into_raw()).unwrap();
    let command = format!("exec:for i in 1 2 3 4 5 6 7 8 9 10; do cat {frame}; sleep 0.05; done");
    let began = Instant::now();
    let told = lines(&watch(&format!("classify -m {model} --raw rgb24:53x41 --fps 5 --json"), &command));
    let fifths = began.elapsed().as_secs_f64() * 5.0;
    assert!((told.len() - 1) as f64 <= fifths, "{} frames in {fifths} fifths of a second", told.len());
}

/// A camera that would go on for ever ends with the program.
#[test]
fn so_many_frames_are_taken_and_no_more() {
    let scene = Scene::new();
    let (model, frame) = (scene.model("hf_vit", "int8"), scene.path("frame"));
    fs::write(&frame, colorful(53, 41, 1).into_raw()).unwrap();
    let command = format!("exec:while :; do cat {frame}; sleep 0.01; done");
    for every in ["", "--every-frame"] {
        let classify = format!("classify -m {model} --raw rgb24:53x41 --frames 3 --json {every}");
        let told = lines(&watch(&classify, &command));
        assert_eq!(told.len(), 3);
        assert!(told.iter().all(|line| line["source"] == command));
        assert!(every.is_empty() || told[2]["frame"] == 2);
    }
    // Features of a camera's frames.
    let told = lines(&watch(&format!("embed -m {model} --raw rgb24:53x41 --frames 2 --json"), &command));
    assert_eq!((told.len(), told[1]["features"].as_array().unwrap().len() > 1), (2, true));
    let (x, expected) = (scene.path("x.npy"), scene.path("expected.npy"));
    watch(&format!("embed -m {model} --raw rgb24:53x41 --frames 2 -o {x}"), &command);
    run(&format!("embed -m {model} {} -o {expected}", scene.picture("1.png", 1)));
    assert_eq!(npy(&x), npy(&expected).repeat(2));
}

/// A server of MJPEG that answers one request; its address, and the request's first line when it is answered.
fn serve(head: &str, body: Vec<u8>) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/stream.mjpg?q=1", listener.local_addr().unwrap());
    let head = head.to_string();
    let answered = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let request = lines.next().unwrap();
        lines.take_while(|line| !line.is_empty()).for_each(drop);
        // Whoever asked may be gone already.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        request
    });
    (url, answered)
}

#[test]
fn a_server_of_mjpeg_is_read_whole_or_in_chunks() {
    let scene = Scene::new();
    let (model, picture) = (scene.model("hf_vit", "int8"), scene.path("1.jpg"));
    fs::write(&picture, jpeg(1)).unwrap();
    let part = |bytes: &[u8]| [b"--x\r\nContent-Type: image/jpeg\r\n\r\n", bytes, b"\r\n"].concat();
    let body = [part(&jpeg(2)), part(&jpeg(1)), b"--x--\r\n".to_vec()].concat();
    let chunk = |piece: &[u8]| [format!("{:X}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
    let chunked: Vec<u8> = body.chunks(100).flat_map(chunk).chain(*b"0\r\n\r\n").collect();
    let ok = "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=x\r\n";
    for (head, body) in [(format!("{ok}\r\n"), body), (format!("{ok}Transfer-Encoding: chunked\r\n\r\n"), chunked)] {
        let (url, answered) = serve(&head, body);
        let told = lines(&watch(&format!("classify -m {model} --digest --json"), &format!("mjpeg:{url}")));
        assert_eq!(told.last().unwrap()["digest"], digest(&model, &picture));
        assert_eq!(told.last().unwrap()["frame"], 1);
        assert_eq!(answered.join().unwrap(), "GET /stream.mjpg?q=1 HTTP/1.1");
    }
    let (url, _) = serve("HTTP/1.1 401 Unauthorized\r\n\r\n", Vec::new());
    let text = refused(&format!("classify -m {model}"), &format!("mjpeg:{url}"), 1);
    assert_eq!(text, format!("mjpeg:{url}: the server answered: HTTP/1.1 401 Unauthorized"));
    // Nobody listens on a port that was just given back.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = refused(&format!("classify -m {model}"), &format!("mjpeg:http://127.0.0.1:{port}/"), 1);
    assert!(text.ends_with("Connection refused"), "{text}");
}

/// A folder for the path with a program in it: a script of these lines, which also notes its arguments in `NAME.args`.
fn program(scene: &Scene, name: &str, lines: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;

    let folder = scene.dir.path().join(format!("bin-{name}"));
    fs::create_dir_all(&folder).unwrap();
    let (script, noted) = (folder.join(name), folder.join(format!("{name}.args")));
    fs::write(&script, format!("#!/bin/sh\necho \"$@\" >>{}\n{lines}\n", noted.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Runs a command line with `folder` as the whole path.
fn with_path(folder: &Path, arguments: &str) -> Output {
    vitlet().env("PATH", folder).args(arguments.split_whitespace()).output().unwrap()
}

/// Scripts on the path stand for rpicam-vid: they write two frames.
#[test]
fn a_raspberry_pis_camera_is_started_with_the_frames_that_are_read() {
    let scene = Scene::new();
    let model = scene.model("hf_vit", "int8");
    for (name, raw, size) in [("rpicam-vid", "", 640 * 480), ("libcamera-vid", "--raw i420:64x32", 64 * 32)] {
        let folder = program(&scene, name, &format!("/usr/bin/head -c {} /dev/zero", 2 * size * 3 / 2));
        let told = lines(&with_path(&folder, &format!("classify -m {model} {raw} --camera rpicam:1 --json")));
        assert_eq!(told.last().unwrap()["frame"], 1, "{name}");
        let noted = fs::read_to_string(folder.join(format!("{name}.args"))).unwrap();
        let edges = if raw.is_empty() { "--width 640 --height 480" } else { "--width 64 --height 32" };
        assert!(noted.contains("--codec yuv420") && noted.contains("--camera 1") && noted.contains(edges), "{noted}");
    }
    let output = with_path(&scene.dir.path().join("nowhere"), &format!("classify -m {model} --camera rpicam"));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("error: rpicam:0: neither rpicam-vid nor libcamera-vid is installed"), "{text}");
    assert!(refused(&format!("classify -m {model} --raw rgb:8x8"), "rpicam", 2).contains("rpicam-vid writes i420"));
}

/// What `v4l2-ctl --get-fmt-video` prints.
fn format_text(fourcc: &str, size: &str, bytes_per_line: usize) -> String {
    format!(
        "Format Video Capture:\n\tWidth/Height      : {size}\n\tPixel Format      : '{fourcc}' (a name)\n\tField     \
         : None\n\tBytes per Line    : {bytes_per_line}\n\tSize Image        : 614400\n"
    )
}

/// A folder with a v4l2-ctl that answers `says` and then writes the bytes of `frames`.
fn v4l2_ctl(scene: &Scene, says: &str, frames: &[u8]) -> PathBuf {
    let [text, stream] = ["text", "stream"].map(|name| scene.path(name));
    fs::write(&text, says).unwrap();
    fs::write(&stream, frames).unwrap();
    let cases = format!("*--get-fmt-video*) /bin/cat {text} ;; *--stream-mmap*) /bin/cat {stream} ;;");
    let folder = program(scene, "v4l2-ctl", &format!("case \"$*\" in {cases} *) exit 1 ;; esac"));
    let _ = fs::remove_file(folder.join("v4l2-ctl.args"));
    folder
}

/// JPEGs where the camera has them, and else the raw frames that it says it gives, with their padding.
#[test]
fn a_webcam_gives_jpegs_or_the_frames_that_it_has() {
    let scene = Scene::new();
    let (model, device) = (scene.model("hf_vit", "int8"), scene.path("video0"));
    fs::write(&device, "").unwrap();
    let (frame, file) = (scene.path("frame.yuyv"), scene.path("1.jpg"));
    fs::write(&file, jpeg(1)).unwrap();
    let row: Vec<u8> = (0..128).map(|i| (i * 37 % 251) as u8).collect();
    let tight: Vec<u8> = (0..32).flat_map(|y| row.iter().map(move |x| x.wrapping_add(y * 5))).collect();
    let padded: Vec<u8> = tight.chunks(128).flat_map(|row| [row, &[77; 32]].concat()).collect();
    fs::write(&frame, &tight).unwrap();
    let expected = lines(&run(&format!("classify -m {model} --raw yuyv:64x32 --digest --json {frame}")));
    for (says, stream, raw, wish, expected) in [
        (
            format_text("MJPG", "640/480", 0),
            jpeg(1).repeat(3),
            "",
            "width=640,height=480,pixelformat=MJPG",
            digest(&model, &file),
        ),
        (
            format_text("YUYV", "64/32", 160),
            padded.repeat(3),
            "",
            "width=640,height=480,pixelformat=MJPG",
            expected[0]["digest"].clone(),
        ),
        (
            format_text("YUYV", "64/32", 128),
            tight.repeat(3),
            "--raw yuyv:64x32",
            "width=64,height=32,pixelformat=YUYV",
            expected[0]["digest"].clone(),
        ),
    ] {
        let folder = v4l2_ctl(&scene, &says, &stream);
        let told =
            lines(&with_path(&folder, &format!("classify -m {model} {raw} --camera v4l2:{device} --digest --json")));
        let last = told.last().unwrap();
        assert_eq!((&last["frame"], &last["digest"]), (&2.into(), &expected));
        let noted = fs::read_to_string(folder.join("v4l2-ctl.args")).unwrap();
        let (asked, streamed) = noted.split_once('\n').unwrap();
        assert!(asked.contains(wish) && asked.starts_with(&format!("-d {device} ")), "{noted}");
        assert!(streamed.contains("--stream-mmap --stream-to=-"), "{noted}");
    }
}

#[test]
fn a_webcam_that_gives_something_else_is_refused_with_a_cure() {
    let scene = Scene::new();
    let (model, device) = (scene.model("hf_vit", "int8"), scene.path("video0"));
    fs::write(&device, "").unwrap();
    let refused = |folder: &Path, raw: &str| {
        let output = with_path(folder, &format!("classify -m {model} {raw} --camera v4l2:{device}"));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
        text.strip_prefix(&format!("error: v4l2:{device}: ")).unwrap_or_else(|| panic!("{text}")).to_string()
    };
    let h264 = v4l2_ctl(&scene, &format_text("H264", "640/480", 0), b"");
    assert!(refused(&h264, "").starts_with("the camera gives H264, which is not supported"));
    let nv12 = v4l2_ctl(&scene, &format_text("NV12", "640/480", 640), b"");
    let text = refused(&nv12, "--raw yuyv:640x480");
    assert!(text.starts_with("the camera gives NV12 of 640x480 where yuyv:640x480 was asked for"), "{text}");
    assert!(refused(&nv12, "--raw rgba:640x480").starts_with("rgba is not a format of cameras"));
    let broken = program(&scene, "v4l2-ctl", "echo 'Unable to detect what device it is, exiting.' >&2; exit 1");
    assert_eq!(refused(&broken, ""), "v4l2-ctl: Unable to detect what device it is, exiting.\n");
    let nowhere = scene.dir.path().join("nowhere");
    assert!(refused(&nowhere, "").starts_with("neither v4l2-ctl nor ffmpeg is installed"));
    fs::remove_file(&device).unwrap();
    assert!(refused(&nowhere, "").starts_with("No such file or directory; `v4l2-ctl --list-devices` names"));
}

/// Without v4l2-ctl, ffmpeg converts whatever the camera gives.
#[test]
fn without_v4l2_ctl_ffmpeg_writes_a_webcams_frames() {
    let scene = Scene::new();
    let (model, device) = (scene.model("hf_vit", "int8"), scene.path("video0"));
    fs::write(&device, "").unwrap();
    for (raw, size, expected) in [
        ("", 640 * 480 * 3 / 2, "-video_size 640x480 -i DEVICE -f rawvideo -pix_fmt yuv420p -s 640x480 -"),
        ("--raw rgb24:64x32", 64 * 32 * 3, "-video_size 64x32 -i DEVICE -f rawvideo -pix_fmt rgb24 -s 64x32 -"),
    ] {
        let folder = program(&scene, "ffmpeg", &format!("/usr/bin/head -c {} /dev/zero", 2 * size));
        let told = lines(&with_path(&folder, &format!("classify -m {model} {raw} --camera v4l2:{device} --json")));
        assert_eq!(told.last().unwrap()["frame"], 1);
        let noted = fs::read_to_string(folder.join("ffmpeg.args")).unwrap();
        assert!(noted.trim().ends_with(&expected.replace("DEVICE", &device)), "{noted}");
    }
}

/// Where it is installed: the same frame as raw bytes, as a JPEG without loss of its tables, and as a picture.
#[test]
fn ffmpegs_frames_are_what_its_pictures_are() {
    let scene = Scene::new();
    let model = scene.model("hf_vit", "int8");
    let source = "ffmpeg -v error -f lavfi -i testsrc=size=160x120:rate=25";
    let make = |arguments: &str| Command::new("sh").args(["-c", &format!("{source} {arguments}")]).status();
    let (png, jpg) = (scene.path("a.png"), scene.path("a.jpg"));
    let is_there = Command::new("ffmpeg").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !is_there {
        return;
    }
    assert!(make(&format!("-frames:v 1 -pix_fmt rgb24 {png}")).unwrap().success());
    assert!(make(&format!("-frames:v 1 -pix_fmt yuvj420p -f mjpeg {jpg}")).unwrap().success());
    for (raw, pixels, picture) in
        [("--raw rgb24:160x120", "rawvideo -pix_fmt rgb24", png), ("", "mjpeg -pix_fmt yuvj420p", jpg)]
    {
        let classify = format!("classify -m {model} {raw} --digest --json --every-frame");
        let told = lines(&watch(&classify, &format!("exec:{source} -frames:v 3 -f {pixels} -")));
        assert_eq!((told.len(), &told[0]["digest"]), (3, &digest(&model, &picture)));
    }
}

#[test]
fn a_part_of_a_frame_and_a_turned_one_are_what_the_picture_cut_and_turned_is() {
    let scene = Scene::new();
    let model = scene.model("hf_vit", "int8");
    let frame = colorful(53, 41, 3);
    let part = imageops::crop_imm(&frame, 8, 5, 30, 20).to_image();
    for (options, picture) in [
        ("--region 8,5,30,20", part.clone()),
        ("--rotate 90", imageops::rotate90(&frame)),
        ("--rotate 180", imageops::rotate180(&frame)),
        ("--region 8,5,30,20 --rotate 270", imageops::rotate270(&part)),
    ] {
        let path = scene.path("expected.png");
        picture.save(&path).unwrap();
        let classify = format!("classify -m {model} --raw rgb24:53x41 {options} --digest --json -");
        let told = lines(&run_with_input(&classify, frame.as_raw()));
        assert_eq!(told[0]["digest"], digest(&model, &path), "{options}");
    }
    // Of luma and chroma.
    let frame: Vec<u8> = (0..8 * 6 * 3 / 2).map(|i| (i * 37 % 251) as u8).collect();
    let digests = ["bt601", "bt601-full", "bt709", "bt709-full"].map(|matrix| {
        let classify = format!("classify -m {model} --raw i420:8x6 --yuv {matrix} --digest --json -");
        lines(&run_with_input(&classify, &frame))[0]["digest"].as_str().unwrap().to_string()
    });
    let plain = run_with_input(&format!("classify -m {model} --raw i420:8x6 --digest --json -"), &frame);
    assert_eq!(lines(&plain)[0]["digest"], digests[0]);
    assert!((1..4).all(|i| digests[i] != digests[i - 1]), "{digests:?}");
}

#[test]
fn a_camera_that_fails_is_named_with_what_it_left() {
    let scene = Scene::new();
    let model = scene.model("hf_vit", "int8");
    let (classify, raw) = (format!("classify -m {model}"), scene.path("raw"));
    assert_eq!(refused(&classify, "exec:true", 1), "exec:true: no frames");
    assert!(
        refused(&classify, "exec:echo raw", 1)
            .ends_with("no JPEG came: for raw frames say which, with --raw FORMAT:WxH, after 0 frames")
    );
    assert_eq!(refused(&classify, "exec:exit 3", 1), "exec:exit 3: exit status: 3, after 0 frames");
    fs::write(&raw, &colorful(53, 41, 1).into_raw()[..100]).unwrap();
    let text = refused(&format!("{classify} --raw rgb24:53x41"), &format!("exec:cat {raw}"), 1);
    assert!(text.ends_with(": 100 bytes, less than one frame of 6519"), "{text}");
    // Frames came before: some were done.
    let jpegs = scene.path("jpegs");
    fs::write(&jpegs, jpeg(1)).unwrap();
    let text = refused(&classify, &format!("exec:cat {jpegs}; exit 2"), 4);
    assert!(text.ends_with("exit status: 2, after 1 frames"), "{text}");
    // A JPEG that cannot be decoded (lossless, it says) is a frame that is left out.
    let mut broken = jpeg(1);
    let frame = broken.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    broken[frame + 1] = 0xC3;
    fs::write(&jpegs, &broken).unwrap();
    assert!(refused(&classify, &format!("exec:cat {jpegs}"), 1).contains(", frame 0: "));
}

/// A shell's loop goes on when nobody reads what its commands write.
#[test]
#[cfg(target_os = "linux")]
fn a_signal_ends_the_cameras_commands_too() {
    let scene = Scene::new();
    let (model, frame, noted) = (scene.model("hf_vit", "int8"), scene.path("frame"), scene.path("pid"));
    fs::write(&frame, colorful(53, 41, 1).into_raw()).unwrap();
    let command = format!("exec:echo $$ >{noted}; while :; do cat {frame}; sleep 0.02; done");
    let mut program = vitlet();
    program.args(["classify", "-m", &model, "--raw", "rgb24:53x41", "--camera", &command]);
    let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    let shell = fs::read_to_string(&noted).unwrap();
    let there =
        || fs::read_to_string(format!("/proc/{}/cmdline", shell.trim())).is_ok_and(|line| line.contains(&noted));
    assert!(there());
    let terminate = format!("kill -TERM {}", child.id());
    assert!(Command::new("sh").args(["-c", &terminate]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), None, "the signal's own status");
    let began = Instant::now();
    while there() {
        assert!(began.elapsed().as_secs() < 10, "the shell goes on");
        std::thread::yield_now();
    }
}

#[test]
fn cameras_and_their_options_are_checked() {
    for (arguments, part) in [
        (
            "classify --camera /dev/video0",
            "cameras are exec:COMMAND, mjpeg:http://HOST/PATH, rpicam, rpicam:N or v4l2:/dev/videoN",
        ),
        ("classify --camera v4l2:0", "v4l2:DEVICE is a path"),
        ("classify --camera mjpeg:https://cam/", "TLS is not supported here"),
        ("classify --camera rpicam a.jpg", "cannot be used with"),
        ("classify --fps 5 a.jpg", "required"),
        ("classify --every-frame a.jpg", "required"),
        ("classify --raw rgb:8x8 --frames 0 -", "not in 1.."),
        ("classify --region 0,0,8,8 a.jpg", "required"),
        ("classify --rotate 90 a.jpg", "required"),
        ("classify --camera rpicam --rotate 45", "90, 180 or 270 degrees"),
        ("classify --camera rpicam --region 1,2,3", "four numbers"),
        ("classify --camera rpicam --region 0,0,641,480", "640 x 480 pixels"),
        ("classify --raw rgb:8x8 --region 1,0,8,8 -", "8 x 8 pixels"),
        ("classify --camera rpicam --fps 0", "0.001 to 1000"),
        ("classify --raw rgb:8x8 --yuv srgb -", "bt601"),
        ("classify --camera exec:true --yuv bt709", "--yuv is for raw frames"),
    ] {
        let output = vitlet().args(arguments.split_whitespace()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}: {text}");
        assert!(text.contains(part), "{arguments}: {text}");
    }
    assert!(error("classify", 2).contains("IMAGE"));
}
