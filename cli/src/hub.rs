//! Checkpoints by their name on the Hugging Face Hub, `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`: the files that
//! `convert` reads come from the Hub's usual cache (`cache`), which every build reads. Other commands open them as
//! model files, converted once (`converted`).
//!
//! With the feature `hub`, missing files are downloaded into the cache (`download`), from HF_ENDPOINT if that is set,
//! with HF_TOKEN or the token of `hf auth login`. What is cached already needs no network, but for a processor of which
//! nobody knows whether the repository has one. TLS brings C code (ring), so the feature is there where the compiler
//! that links also compiles it: Linux with glibc. Without it, an error lists the files to fetch.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::output;
use cache::{Cache, Snapshot};
pub use converted::open;

mod cache;
mod converted;
#[cfg(all(feature = "hub", target_os = "linux", target_env = "gnu"))]
mod download;

/// How pictures are prepared, in a file of its own or within transformers 5's.
const PROCESSOR: &str = "preprocessor_config.json";
const NESTED: &str = "processor_config.json";

/// What `convert` reads of a checkpoint beside its weights; README.md has the licence.
const CONFIGS: [&str; 4] = ["config.json", PROCESSOR, NESTED, "README.md"];

const OFFLINE: &str = "HF_HUB_OFFLINE is set";

#[cfg(not(all(feature = "hub", target_os = "linux", target_env = "gnu")))]
const WITHOUT: &str = "this vitlet was built without downloads; on Linux with glibc, cargo build --release -p \
                       vitlet-cli --features hub builds it with them";

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

    /// Where a file is on the Hub.
    fn url(&self, file: &str) -> String {
        format!("{}/{}/resolve/{}/{file}", endpoint(), self.repository, self.revision)
    }

    /// Why nothing was downloaded, which files to fetch by other means, and what to do with them.
    fn by_hand(&self, why: &str) -> Error {
        let folder = self.repository.replace('/', "--");
        let [config, others @ ..] = CONFIGS.map(|file| self.url(file));
        let (weights, others) = (self.url(cache::WEIGHTS[0][0]), others.join(" , "));
        let cure = format!(
            "put these files into a folder {folder}: {config} , {weights} and, where the repository has them, \
             {others} ; then run vitlet convert {folder} -o model.gguf"
        );
        Error::new(self, format!("{why}; {cure}"))
    }

    /// What may follow where nobody knows whether there is an image processor.
    fn unknown_processor(&self, snapshot: &Snapshot, why: &str) -> String {
        format!(
            "{self}: the cache has no {PROCESSOR}, and the Hub did not say whether the repository has one ({why}). The \
             preparation of pictures is a guess; if the guess is wrong, all answers are. To be sure, put {} into {}",
            self.url(PROCESSOR),
            snapshot.folder().display()
        )
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.repository)
    }
}

/// Where the Hub is.
fn endpoint() -> String {
    let given = std::env::var("HF_ENDPOINT").ok().filter(|e| !e.is_empty());
    given.map_or("https://huggingface.co".to_string(), |e| e.trim_end_matches('/').to_string())
}

/// Whether the user forbids the network.
fn offline() -> bool {
    let set = |name: &str| std::env::var(name).is_ok_and(|v| ["1", "ON", "YES", "TRUE"].contains(&&*v.to_uppercase()));
    set("HF_HUB_OFFLINE") || set("TRANSFORMERS_OFFLINE")
}

/// `source` on this machine: a name on the Hub becomes the folder with its files.
pub fn local(source: &Path) -> Result<PathBuf> {
    match Name::parse(source) {
        Some(name) => fetch(&name?),
        None => Ok(source.to_path_buf()),
    }
}

/// The folder in the cache that holds the checkpoint's files, downloaded where they are missing.
pub fn fetch(name: &Name) -> Result<PathBuf> {
    let cache = Cache::from_env();
    if let Some(snapshot) = cache.snapshot(name).filter(|snapshot| snapshot.lacks().is_none()) {
        if snapshot.wants_processor() {
            let asked = if offline() { Err(OFFLINE.to_string()) } else { download::configs(&cache, name, &snapshot) };
            match asked {
                Err(why) => output::warn(&name.unknown_processor(&snapshot, &why)),
                Ok(()) if snapshot.wants_processor() => {
                    output::warn(
                        &name.unknown_processor(&snapshot, "it listed the files of another commit than the cached one"),
                    );
                }
                Ok(()) => {}
            }
        }
        return Ok(snapshot.folder());
    }
    let done = if offline() { Err(OFFLINE.to_string()) } else { download::all(&cache, name) };
    let snapshot = cache.snapshot(name);
    match (done, snapshot.as_ref().map(Snapshot::lacks)) {
        (Ok(()), Some(None)) => Ok(snapshot.map(|snapshot| snapshot.folder()).unwrap_or_default()),
        (Ok(()), Some(Some(file))) => Err(Error::new(name, format!("the repository has no {file}"))),
        (Ok(()), None) => Err(Error::new(name, "the cache does not have what was downloaded")),
        (Err(why), Some(Some(file))) => Err(name.by_hand(&format!("the cache lacks {file}, and {why}"))),
        (Err(why), _) => Err(name.by_hand(&why)),
    }
}

/// Without the feature `hub`, and where there is no such feature.
#[cfg(not(all(feature = "hub", target_os = "linux", target_env = "gnu")))]
mod download {
    use super::cache::{Cache, Snapshot};
    use super::{Name, WITHOUT};

    pub fn all(_: &Cache, _: &Name) -> Result<(), String> {
        Err(WITHOUT.to_string())
    }

    pub fn configs(_: &Cache, _: &Name, _: &Snapshot) -> Result<(), String> {
        Err(WITHOUT.to_string())
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
