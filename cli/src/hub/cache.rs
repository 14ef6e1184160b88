//! The Hub's cache on this machine, as huggingface_hub lays it out: `models--OWNER--NAME/refs/REVISION` names a commit,
//! `snapshots/COMMIT/` has its files, and an empty file in `.no_exist/COMMIT/` says that the repository has no such
//! file.

use std::path::PathBuf;

use serde_json::Value;

use super::{NESTED, Name, PROCESSOR};

/// Weights in one file, and the list of files of those that are in several; the first kind that is there is converted.
pub const WEIGHTS: [[&str; 2]; 2] =
    [["model.safetensors", "model.safetensors.index.json"], ["pytorch_model.bin", "pytorch_model.bin.index.json"]];

/// Where downloads are kept.
pub struct Cache {
    root: PathBuf,
    #[cfg(all(feature = "hub", target_os = "linux", target_env = "gnu"))]
    token: PathBuf,
}

/// A commit of a repository, as far as it has been downloaded.
pub struct Snapshot {
    repository: PathBuf,
    pub commit: String,
}

impl Cache {
    /// In huggingface_hub's order: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub,
    /// ~/.cache/huggingface/hub.
    pub fn from_env() -> Self {
        Self::from(|name| std::env::var(name).ok(), std::env::home_dir())
    }

    fn from(variable: impl Fn(&str) -> Option<String>, user: Option<PathBuf>) -> Self {
        let user = user.unwrap_or_default();
        let path = |name: &str| {
            let value = variable(name).filter(|value| !value.is_empty())?;
            Some(match value.strip_prefix("~/") {
                Some(rest) => user.join(rest),
                None => PathBuf::from(value),
            })
        };
        let home = path("HF_HOME")
            .unwrap_or_else(|| path("XDG_CACHE_HOME").unwrap_or_else(|| user.join(".cache")).join("huggingface"));
        let root = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| home.join("hub"));
        Self {
            root,
            #[cfg(all(feature = "hub", target_os = "linux", target_env = "gnu"))]
            token: path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token")),
        }
    }

    /// The commit that the name stands for, if the cache knows it.
    pub fn snapshot(&self, name: &Name) -> Option<Snapshot> {
        let repository = self.root.join(format!("models--{}", name.repository.replace('/', "--")));
        let revision = std::fs::read_to_string(repository.join("refs").join(&name.revision));
        let commit = revision.map_or_else(|_| name.revision.clone(), |commit| commit.trim().to_string());
        let plain = !commit.is_empty() && commit.chars().all(|c| c.is_ascii_alphanumeric());
        let snapshot = Snapshot { repository, commit };
        (plain && snapshot.folder().is_dir()).then_some(snapshot)
    }
}

#[cfg(all(feature = "hub", target_os = "linux", target_env = "gnu"))]
impl Cache {
    pub fn root(&self) -> &std::path::Path {
        &self.root
    }

    /// HF_TOKEN, or what `hf auth login` left.
    pub fn token(&self) -> Option<String> {
        let given = std::env::var("HF_TOKEN").ok().or_else(|| std::fs::read_to_string(&self.token).ok());
        given.map(|token| token.trim().to_string()).filter(|token| !token.is_empty())
    }
}

impl Snapshot {
    pub fn folder(&self) -> PathBuf {
        self.repository.join("snapshots").join(&self.commit)
    }

    pub fn has(&self, file: &str) -> bool {
        self.folder().join(file).is_file()
    }

    /// A file without which nothing is converted, and that is not there.
    pub fn lacks(&self) -> Option<String> {
        if !self.has("config.json") {
            return Some("config.json".to_string());
        }
        for [whole, index] in WEIGHTS {
            if self.has(whole) {
                return None;
            }
            if self.has(index) {
                return self.shards(index).into_iter().find(|shard| !self.has(shard));
            }
        }
        Some(WEIGHTS[0][0].to_string())
    }

    fn shards(&self, index: &str) -> Vec<String> {
        let index = self.json(index).unwrap_or_default();
        let files = index.get("weight_map").and_then(Value::as_object);
        files.into_iter().flat_map(|map| map.values()).filter_map(Value::as_str).map(str::to_string).collect()
    }

    /// Whether nobody knows how pictures are prepared: config.json does not say it (timm's does), the image processor's
    /// file is not there, and nobody has found out that the repository has none.
    pub fn wants_processor(&self) -> bool {
        let config = self.json("config.json").unwrap_or_default();
        let of_transformers = config.get("model_type").is_some() && config.get("architecture").is_none();
        let nested = || self.json(NESTED).is_some_and(|json| json.get("image_processor").is_some());
        of_transformers && !self.has(PROCESSOR) && !self.no_exist(PROCESSOR).is_file() && !nested()
    }

    fn json(&self, file: &str) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.folder().join(file)).ok()?).ok()
    }

    fn no_exist(&self, file: &str) -> PathBuf {
        self.repository.join(".no_exist").join(&self.commit).join(file)
    }
}

#[cfg(all(feature = "hub", target_os = "linux", target_env = "gnu"))]
impl Snapshot {
    /// Notes that the repository has no such file. A cache that can not be written to is asked again.
    pub fn note_absent(&self, file: &str) {
        let path = self.no_exist(file);
        let _ = path
            .parent()
            .map(std::fs::create_dir_all)
            .and_then(|made| made.and_then(|()| std::fs::write(&path, [])).ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_that_of_huggingface_hub() {
        let root = |given: &[(&str, &str)]| {
            let variable = |name: &str| given.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_string());
            Cache::from(variable, Some("/home/me".into())).root.display().to_string()
        };
        assert_eq!(root(&[]), "/home/me/.cache/huggingface/hub");
        assert_eq!(root(&[("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
        assert_eq!(root(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/h")]), "/home/me/h/hub");
        assert_eq!(root(&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/h")]), "/old");
        assert_eq!(root(&[("HF_HUB_CACHE", "/new"), ("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/h")]), "/new");
        assert_eq!(root(&[("HF_HUB_CACHE", "")]), "/home/me/.cache/huggingface/hub");
    }
}
