//! Checkpoints by their name on the Hugging Face Hub, `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`: the files that `convert` reads are downloaded into the
//! Hub's usual cache (HF_HOME), from HF_ENDPOINT where that is set, with HF_TOKEN or the token of `hf auth login`. What is cached already needs no network.
//!
//! TLS brings C code (ring), so the feature `hub` is there where the compiler that links also compiles it: Linux with glibc. Elsewhere the name of a
//! checkpoint gives the list of files to fetch.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What `convert` reads of a checkpoint beside its weights.
const CONFIGS: [&str; 2] = ["config.json", "preprocessor_config.json"];
const WEIGHTS: &str = "model.safetensors";
#[cfg(all(feature = "hub", target_os = "linux", target_env = "gnu"))]
const INDEX: &str = "model.safetensors.index.json";

/// A checkpoint on the Hub.
#[derive(Debug, PartialEq)]
pub struct Name {
    /// `owner/name`.
    repository: String,
    revision: String,
}

impl Name {
    /// The checkpoint that `hf:...` names; none for other sources.
    pub fn parse(source: &Path) -> Option<Result<Self>> {
        let text = source.to_str()?.strip_prefix("hf:")?;
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        let plain = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && part != "." && part != ".." && part.chars().all(allowed)
        };
        let valid = repository.split('/').count() <= 2 && repository.split('/').all(plain);
        Some(match valid && revision.split('/').all(plain) {
            true => Ok(Self { repository: repository.to_string(), revision: revision.to_string() }),
            false => Err(Error::Usage(format!("hf:{text}: write hf:OWNER/NAME, or hf:OWNER/NAME@REVISION"))),
        })
    }

    /// Why nothing was downloaded, which files to fetch by other means, and what to do with them.
    fn by_hand(&self, endpoint: &str, why: &str) -> Error {
        let url = |file: &str| format!("{endpoint}/{}/resolve/{}/{file}", self.repository, self.revision);
        let folder = self.repository.replace('/', "--");
        let (config, preprocessor, weights) = (url(CONFIGS[0]), url(CONFIGS[1]), url(WEIGHTS));
        let cure = format!(
            "put these files into a folder {folder}: {config} , {weights} and, where the repository has it, {preprocessor} ; then run vitlet convert {folder}"
        );
        Error::new(format!("hf:{}", self.repository), format!("{why}; {cure}"))
    }
}

/// Where the Hub is.
fn endpoint() -> String {
    let given = std::env::var("HF_ENDPOINT").ok().filter(|e| !e.is_empty());
    given.map_or("https://huggingface.co".to_string(), |e| e.trim_end_matches('/').to_string())
}

/// The folder in the cache that holds the checkpoint's files, downloaded where they are missing.
#[cfg(not(all(feature = "hub", target_os = "linux", target_env = "gnu")))]
pub fn fetch(name: &Name) -> Result<PathBuf> {
    Err(name.by_hand(&endpoint(), "this vitlet was built without downloads; on Linux with glibc, cargo build --release -p vitlet-cli --features hub builds it with them"))
}

/// The folder in the cache that holds the checkpoint's files, downloaded where they are missing.
#[cfg(all(feature = "hub", target_os = "linux", target_env = "gnu"))]
pub fn fetch(name: &Name) -> Result<PathBuf> {
    use hf_hub::api::sync::ApiBuilder;
    use hf_hub::{Cache, Repo, RepoType};

    let repo = Repo::with_revision(name.repository.clone(), RepoType::Model, name.revision.clone());
    let cache = Cache::from_env().repo(repo.clone());
    if let (Some(config), Some(_)) = (cache.get(CONFIGS[0]), cache.get(WEIGHTS)) {
        return folder(name, &config);
    }
    let failed = |e: &dyn std::fmt::Display| name.by_hand(&endpoint(), &format!("not downloaded ({e})"));
    let token = std::env::var("HF_TOKEN").ok().filter(|t| !t.is_empty()).or_else(|| Cache::from_env().token());
    let builder = ApiBuilder::from_env().with_endpoint(endpoint()).with_token(token).with_progress(false);
    let api = builder.build().map_err(|e| failed(&e))?.repo(repo);
    let there: Vec<String> = api.info().map_err(|e| failed(&e))?.siblings.into_iter().map(|s| s.rfilename).collect();
    let files = wanted(&there);
    if !files.iter().any(|f| f.ends_with(".safetensors")) {
        return Err(Error::new(format!("hf:{}", name.repository), "no model.safetensors in this repository"));
    }
    let mut config = None;
    for file in files {
        let path = match cache.get(&file) {
            Some(path) => path,
            None => api.download_with_progress(&file, Bar::new(&file)).map_err(|e| failed(&e))?,
        };
        config.get_or_insert(path);
    }
    config.map_or_else(|| Err(Error::new(format!("hf:{}", name.repository), "no files")), |c| folder(name, &c))
}

#[cfg(all(feature = "hub", target_os = "linux", target_env = "gnu"))]
fn folder(name: &Name, file: &Path) -> Result<PathBuf> {
    file.parent().map(Path::to_path_buf).ok_or_else(|| Error::new(format!("hf:{}", name.repository), "no cache folder"))
}

/// The files of a repository that `convert` reads: configurations, then the weights, whole or in parts.
#[cfg(all(feature = "hub", target_os = "linux", target_env = "gnu"))]
fn wanted(there: &[String]) -> Vec<String> {
    let has = |file: &str| there.iter().any(|f| f == file);
    let mut files: Vec<String> = CONFIGS.iter().filter(|f| has(f)).map(|f| (*f).to_string()).collect();
    if has(WEIGHTS) {
        files.push(WEIGHTS.to_string());
    } else if has(INDEX) {
        files.push(INDEX.to_string());
        files.extend(there.iter().filter(|f| f.starts_with("model-") && f.ends_with(".safetensors")).cloned());
    }
    files
}

/// One file's download.
#[cfg(all(feature = "hub", target_os = "linux", target_env = "gnu"))]
struct Bar(indicatif::ProgressBar);

#[cfg(all(feature = "hub", target_os = "linux", target_env = "gnu"))]
impl Bar {
    fn new(file: &str) -> Self {
        let bar = crate::output::progress(0, "{bar:40.cyan} {bytes}/{total_bytes}  {msg}  {eta} left");
        bar.set_message(file.to_string());
        Self(bar)
    }
}

#[cfg(all(feature = "hub", target_os = "linux", target_env = "gnu"))]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_and_never_leave_the_cache() {
        let parse = |text: &str| Name::parse(Path::new(text));
        let name = |repository: &str, revision: &str| Name { repository: repository.into(), revision: revision.into() };
        assert!(parse("checkpoints/deit").is_none());
        let full = parse("hf:timm/deit3_small_patch16_224.fb_in1k").unwrap().unwrap();
        assert_eq!(full, name("timm/deit3_small_patch16_224.fb_in1k", "main"));
        assert_eq!(parse("hf:a/b@v1.0").unwrap().unwrap(), name("a/b", "v1.0"));
        for wrong in ["hf:", "hf:a/b/c", "hf:../x", "hf:a/..", "hf:a b/c", "hf:a/b@", "hf:a/b@../x"] {
            assert!(matches!(parse(wrong), Some(Err(Error::Usage(_)))), "{wrong}");
        }
    }
}
