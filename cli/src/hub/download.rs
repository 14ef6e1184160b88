//! Downloads into the cache, with hf-hub.

use std::path::PathBuf;

use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Repo, RepoType};

use super::cache::{Cache, Snapshot, WEIGHTS};
use super::{CONFIGS, Name, endpoint};

/// A repository at one commit.
struct Remote {
    api: ApiRepo,
    commit: String,
    files: Vec<String>,
}

impl Remote {
    /// Asks for the files of `revision`.
    fn open(cache: &Cache, name: &Name, revision: &str) -> Result<Self, String> {
        let failed = |e: &dyn std::fmt::Display| format!("not downloaded ({e})");
        let repo = Repo::with_revision(name.repository.clone(), RepoType::Model, revision.to_string());
        let builder = ApiBuilder::from_cache(hf_hub::Cache::new(cache.root().to_path_buf()));
        let builder = builder.with_endpoint(endpoint()).with_token(cache.token()).with_progress(false);
        let api = builder.build().map_err(|e| failed(&e))?.repo(repo);
        let info = api.info().map_err(|e| failed(&e))?;
        let files = info.siblings.into_iter().map(|file| file.rfilename).collect();
        Ok(Self { api, commit: info.sha, files })
    }

    fn has(&self, file: &str) -> bool {
        self.files.iter().any(|f| f == file)
    }

    fn download(&self, file: &str) -> Result<PathBuf, String> {
        self.api.download_with_progress(file, Bar::new(file)).map_err(|e| format!("not downloaded ({file}: {e})"))
    }

    /// The weights, whole or in parts.
    fn weights(&self) -> Vec<String> {
        for [whole, index] in WEIGHTS {
            if self.has(whole) {
                return vec![whole.to_string()];
            }
            if self.has(index) {
                let (stem, extension) = whole.split_once('.').unwrap_or((whole, ""));
                let is_part = |f: &&String| f.starts_with(&format!("{stem}-")) && f.ends_with(extension);
                return [index.to_string()].into_iter().chain(self.files.iter().filter(is_part).cloned()).collect();
            }
        }
        Vec::new()
    }
}

/// Downloads the files that `convert` reads and the cache lacks.
///
/// # Errors
/// Why there is no checkpoint.
pub fn all(cache: &Cache, name: &Name) -> Result<(), String> {
    let remote = Remote::open(cache, name, &name.revision)?;
    let weights = remote.weights();
    if weights.is_empty() {
        return Err("neither model.safetensors nor pytorch_model.bin is in this repository".to_string());
    }
    let (there, absent): (Vec<&str>, Vec<&str>) = CONFIGS.into_iter().partition(|file| remote.has(file));
    let cached = cache.snapshot(name).filter(|snapshot| snapshot.commit == remote.commit);
    for file in there.into_iter().chain(weights.iter().map(String::as_str)) {
        if !cached.as_ref().is_some_and(|snapshot| snapshot.has(file)) {
            remote.download(file)?;
        }
    }
    if let Some(snapshot) = cache.snapshot(name) {
        absent.into_iter().for_each(|file| snapshot.note_absent(file));
    }
    Ok(())
}

/// Downloads small files that the cache lacks beside the weights of `snapshot`, at the same commit.
///
/// # Errors
/// Why the Hub could not be asked.
pub fn configs(cache: &Cache, name: &Name, snapshot: &Snapshot) -> Result<(), String> {
    let mut remote = Remote::open(cache, name, &name.revision)?;
    if remote.commit != snapshot.commit {
        remote = Remote::open(cache, name, &snapshot.commit)?;
    }
    for file in CONFIGS.into_iter().filter(|file| !snapshot.has(file)) {
        match remote.has(file) {
            true => drop(remote.download(file)?),
            false => snapshot.note_absent(file),
        }
    }
    Ok(())
}

/// One file's download.
struct Bar(indicatif::ProgressBar);

impl Bar {
    fn new(file: &str) -> Self {
        let bar = crate::output::progress(0, "{bar:40.cyan} {bytes}/{total_bytes}  {msg}  {eta} left");
        // The server names its files.
        bar.set_message(crate::output::shown(file));
        Self(bar)
    }
}

impl hf_hub::api::Progress for Bar {
    fn init(&mut self, size: usize, _file: &str) {
        self.0.set_length(size as u64);
        self.0.set_position(0);
    }

    fn update(&mut self, size: usize) {
        self.0.inc(size as u64);
    }

    fn finish(&mut self) {
        self.0.finish_and_clear();
    }
}
