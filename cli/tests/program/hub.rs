//! `convert hf:OWNER/NAME` and `-m hf:OWNER/NAME` against a server on this machine that answers as the Hub does.
#![cfg(all(feature = "hub", target_os = "linux", target_env = "gnu"))]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Output;
use std::sync::{Arc, Mutex};

use crate::common::{Scene, checkpoint, stdout, vitlet};

/// A repository `owner/tiny` with the files of a folder; requests are noted with their Authorization.
struct Hub {
    endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    fn serve(folder: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (folder, seen) = (folder.clone(), Arc::clone(&seen));
                std::thread::spawn(move || answer(stream.unwrap(), &folder, &seen));
            }
        });
        Self { endpoint, requests }
    }

    fn convert(&self, name: &str, home: &str, output: &str) -> Output {
        self.run(&["convert", name, "-o", output], home)
    }

    fn run(&self, arguments: &[&str], home: &str) -> Output {
        let mut command = vitlet();
        for variable in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
            command.env_remove(variable);
        }
        command.env("HF_ENDPOINT", &self.endpoint).env("HF_HOME", home).env("HF_TOKEN", "secret");
        command.env("XDG_CACHE_HOME", format!("{home}/cache"));
        for proxy in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        command.args(arguments).output().unwrap()
    }
}

/// One request, then the connection is closed.
fn answer(mut stream: TcpStream, folder: &std::path::Path, seen: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let headers: Vec<String> = lines.take_while(|l| !l.is_empty()).map(|l| l.to_lowercase()).collect();
    let header = |name: &str| headers.iter().find_map(|h| h.strip_prefix(name)).unwrap_or_default().trim().to_string();
    let path = request.split(' ').nth(1).unwrap_or_default().to_string();
    seen.lock().unwrap().push(format!("{path} {}", header("authorization:")));
    let (status, more, body) = if path.starts_with("/api/models/owner/tiny") {
        let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let files: Vec<_> = names.map(|f| format!("{{\"rfilename\":\"{f}\"}}")).collect();
        let text = format!("{{\"sha\":\"abc123\",\"siblings\":[{}]}}", files.join(","));
        ("200 OK", "Content-Type: application/json\r\n".to_string(), text.into_bytes())
    } else {
        let file = path.strip_prefix("/owner/tiny/resolve/");
        let file = file.and_then(|f| f.split_once('/')).map(|(_, f)| folder.join(f));
        match file.and_then(|f| std::fs::read(f).ok()) {
            None => ("404 Not Found", String::new(), Vec::new()),
            Some(bytes) => {
                let range = header("range:").replace("bytes=", "");
                let (from, to) = range.split_once('-').unwrap_or(("0", ""));
                let from: usize = from.parse().unwrap_or(0);
                let to = to.parse().unwrap_or(bytes.len() - 1);
                let etag = path.rsplit('/').next().unwrap();
                let more = format!(
                    "ETag: \"{etag}\"\r\nX-Repo-Commit: abc123\r\nContent-Range: bytes {from}-{to}/{}\r\n",
                    bytes.len()
                );
                ("206 Partial Content", more, bytes[from..=to].to_vec())
            }
        }
    };
    let head = format!("HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    // Whoever asked may be gone already.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

#[test]
fn a_checkpoint_is_downloaded_cached_and_converted() {
    let scene = Scene::new();
    let (home, model, direct) = (scene.path("home"), scene.path("hub.gguf"), scene.path("direct.gguf"));
    let hub = Hub::serve(checkpoint("hf_vit"));
    let output = hub.convert("hf:owner/tiny", &home, &model);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    stdout(&format!("convert {} -o {direct}", checkpoint("hf_vit").display()));
    assert_eq!(std::fs::read(&model).unwrap(), std::fs::read(&direct).unwrap(), "the same bytes as from the folder");
    let requests = hub.requests.lock().unwrap().clone();
    assert!(requests.iter().all(|r| r.ends_with("bearer secret")), "{requests:?}");
    assert!(requests.iter().any(|r| r.contains("/preprocessor_config.json")), "{requests:?}");
    assert!(!requests.iter().any(|r| r.contains(".npy")), "only what is read: {requests:?}");

    // A second time nothing is asked for: the cache is enough.
    let again = hub.convert("hf:owner/tiny", &home, &model);
    assert!(again.status.success());
    assert_eq!(hub.requests.lock().unwrap().len(), requests.len());
}

/// A revision that is named has a file of its own.
#[test]
fn a_model_by_its_name_is_downloaded_and_converted_once() {
    let scene = Scene::new();
    let home = scene.path("home");
    let hub = Hub::serve(checkpoint("hf_vit"));
    let picture = scene.picture("a.png", 1);
    let classify = |name: &str| {
        let output = hub.run(&["classify", "-m", name, "--digest", &picture], &home);
        let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(output.status.success(), "{stderr}");
        assert!(stdout.contains('%'), "{stdout}");
        stderr
    };
    let said = classify("hf:owner/tiny");
    assert!(said.contains("hf:owner/tiny: converting commit abc123 to int8, once"), "{said}");
    let requests = hub.requests.lock().unwrap().len();
    assert!(requests > 0);
    assert_eq!(classify("hf:owner/tiny"), "");
    assert!(classify("hf:owner/tiny@abc123").contains("commit abc123"));
    // Without the Hub's cache, what was converted is enough.
    std::fs::remove_dir_all(scene.dir.path().join("home/hub")).unwrap();
    let before = hub.requests.lock().unwrap().len();
    assert_eq!(classify("hf:owner/tiny"), "");
    assert_eq!(hub.requests.lock().unwrap().len(), before);
    assert!(!hub.run(&["classify", "-m", "hf:owner/missing", &picture], &home).status.success());
}

/// As transformers' AutoModel leaves it: the weights without the processor.
#[test]
fn a_processor_that_the_cache_lacks_is_asked_for_at_the_cached_commit() {
    for (commit, revision) in [("abc123", "main"), ("older1", "older1")] {
        let scene = Scene::new();
        let (home, model, direct) = (scene.path("home"), scene.path("hub.gguf"), scene.path("direct.gguf"));
        let repository = scene.dir.path().join("home/hub/models--owner--tiny");
        let snapshot = repository.join("snapshots").join(commit);
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(repository.join("refs")).unwrap();
        std::fs::write(repository.join("refs/main"), commit).unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(checkpoint("hf_vit").join(file), snapshot.join(file)).unwrap();
        }
        let hub = Hub::serve(checkpoint("hf_vit"));
        let output = hub.convert("hf:owner/tiny", &home, &model);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let requests = hub.requests.lock().unwrap().clone();
        let processor = format!("/owner/tiny/resolve/{revision}/preprocessor_config.json");
        assert!(requests.iter().any(|r| r.contains(&processor)), "{requests:?}");
        assert!(!requests.iter().any(|r| r.contains("model.safetensors")), "{requests:?}");
        if commit == "abc123" {
            stdout(&format!("convert {} -o {direct}", checkpoint("hf_vit").display()));
            assert_eq!(std::fs::read(&model).unwrap(), std::fs::read(&direct).unwrap());
            // Now the cache knows what there is and what there is not.
            assert!(hub.convert("hf:owner/tiny", &home, &model).status.success());
            assert_eq!(hub.requests.lock().unwrap().len(), requests.len());
            assert!(repository.join(".no_exist/abc123/processor_config.json").is_file());
        }
    }
}

#[test]
fn without_the_hub_the_files_to_fetch_are_named() {
    let scene = Scene::new();
    let (home, model) = (scene.path("home"), scene.path("m.gguf"));
    let one_line = |output: Output, status: i32| {
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.lines().count()), (Some(status), 1), "{text}");
        text
    };
    // Nobody listens on a port that was just given back.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nowhere = Hub { endpoint: format!("http://127.0.0.1:{port}"), requests: Arc::default() };
    let text = one_line(nowhere.convert("hf:owner/tiny", &home, &model), 1);
    for file in ["config.json", "model.safetensors", "preprocessor_config.json"] {
        assert!(text.contains(&format!("{}/owner/tiny/resolve/main/{file}", nowhere.endpoint)), "{text}");
    }
    assert!(text.contains("vitlet convert owner--tiny -o model.gguf"), "{text}");
    let hub = Hub::serve(checkpoint("hf_vit"));
    assert!(one_line(hub.convert("hf:owner/missing", &home, &model), 1).contains("404"));
    assert!(one_line(hub.convert("hf:a/b/c", &home, &model), 2).contains("hf:OWNER/NAME"));
    assert!(!std::path::Path::new(&model).exists());
}
