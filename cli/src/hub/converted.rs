//! Checkpoints of the Hub as model files, for `-m hf:OWNER/NAME`.
//!
//! Each is converted once, with the converter's defaults, into `XDG_CACHE_HOME/vitlet` (or `~/.cache/vitlet`), one
//! file for each revision that was named. Its metadata has the commit and the converter's version. As long as the
//! Hub's cache knows no other commit under that revision, and this program has that converter, the file is opened
//! without the Hub.

use std::path::{Path, PathBuf};

use vitlet_convert::{Options, Provenance};

use super::cache::Cache;
use super::{Name, endpoint, fetch};
use crate::error::Result;
use crate::mapped::Watch;
use crate::model::ModelFile;
use crate::{files, output};

impl Name {
    /// The model file in the cache.
    fn converted(&self) -> PathBuf {
        let [repository, revision] = [&self.repository, &self.revision].map(|part| part.replace('/', "--"));
        folder().join(format!("{repository}@{revision}.gguf"))
    }
}

/// Where converted models are kept.
fn folder() -> PathBuf {
    let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    given.unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(".cache")).join("vitlet")
}

/// The model, from the cache or converted into it.
pub fn open(name: &Name) -> Result<ModelFile> {
    let path = name.converted();
    let file = cached(name, &path).map_or_else(|| convert(name, &path), Ok)?;
    Ok(file.called(name.to_string()))
}

/// The file at `path`, if it is a model that this converter made of the commit that the name stands for.
fn cached(name: &Name, path: &Path) -> Option<ModelFile> {
    let file = path.is_file().then(|| ModelFile::open(path).ok())??;
    let model = file.parse().ok()?;
    let ours = model.text(Provenance::CONVERTER) == Some(Provenance::THIS);
    let newer = Cache::from_env().snapshot(name);
    let same = newer.is_none_or(|snapshot| model.text(Provenance::REVISION) == Some(&snapshot.commit));
    (ours && same).then_some(file)
}

/// Converts with the defaults, says so, and keeps the file. Where the cache cannot be written, the model is in memory.
fn convert(name: &Name, path: &Path) -> Result<ModelFile> {
    let folder = fetch(name)?;
    let revision = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let provenance = Provenance { repository: format!("{}/{}", endpoint(), name.repository), revision };
    let options = Options { provenance: Some(provenance.clone()), ..Options::default() };
    output::note(&format!("{name}: converting commit {} to int8, once", provenance.revision));
    let converted = {
        let _watch = Watch::everywhere(&folder.display().to_string());
        vitlet_convert::convert(&folder, &options, &mut |_| {})?
    };
    for announcement in &converted.report.announcements {
        output::note(&format!("{name}: {announcement}"));
    }
    if let Some(license) = &converted.report.license {
        output::note(&format!("{name}: licence: {license}"));
    }
    // A folder that is not made is a file that is not written.
    let _ = path.parent().map(std::fs::create_dir_all);
    match files::write(path, &converted.bytes) {
        Ok(()) => ModelFile::open(path),
        Err(e) => {
            output::warn(&format!("{name} is converted again next time: {}", e.why("")));
            Ok(ModelFile::converted(converted, path.display().to_string()))
        }
    }
}
