//! Model files: mapped into memory, the built-in one, or a name on the Hub.

use std::path::Path;
use std::sync::Arc;

use vitlet::{Model, ModelBytes};
use vitlet_convert::output::TemporaryFolder;

use crate::error::{Context, Error, Result, why};
use crate::hub;
use crate::mapped::{Mapped, Watch};

/// The built-in checkpoint's weights.
pub const WEIGHTS: &str = "model.safetensors";

/// The built-in model's checkpoint in a directory that is removed with the value.
pub fn built_in_checkpoint() -> Result<TemporaryFolder> {
    let folder = TemporaryFolder::create()?;
    std::fs::create_dir(folder.path().join("pictures")).map_err(|e| Error::new(folder.path().display(), why(&e)))?;
    for (name, bytes) in vitlet_models::CHECKPOINT {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).map_err(|e| Error::new(path.display(), why(&e)))?;
    }
    Ok(folder)
}

/// What `classify` says each time that it uses the built-in model.
pub const BUILT_IN_NOTE: &str =
    "built-in model: it knows the ten classes of CIFAR-10 only; name your own with -m model.gguf";

/// The bytes of a model, and what to call it in messages.
pub struct ModelFile {
    bytes: Arc<Bytes>,
    pub name: String,
}

enum Bytes {
    BuiltIn,
    Mapped(Mapped),
    Converted(Box<vitlet_convert::Converted>),
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::BuiltIn => vitlet_models::MODEL,
            Self::Mapped(map) => map,
            Self::Converted(converted) => &converted.bytes,
        }
    }
}

impl ModelFile {
    /// The model that is part of the program.
    pub fn built_in() -> Self {
        Self { bytes: Arc::new(Bytes::BuiltIn), name: "built-in".to_string() }
    }

    /// Maps a model file into memory; a name on the Hub stands for the file that its checkpoint becomes.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(name) = hub::Name::parse(path) {
            return hub::open(&name?);
        }
        let name = path.display().to_string();
        if path.is_dir() {
            let cure = format!("a directory: make a model file of it with `vitlet convert {name} -o model.gguf`");
            return Err(Error::new(name, cure));
        }
        if crate::backend::is_onnx(path) {
            let cure = format!(
                "an ONNX file: run it with --backend tract, or make a model file of it with `vitlet convert {name} -o model.gguf`"
            );
            return Err(Error::new(name, cure));
        }
        let map = Mapped::open(path)?;
        if map.starts_with(b"version https://git-lfs") {
            return Err(Error::new(name, "a git-LFS pointer, not the model itself: fetch it with `git lfs pull`"));
        }
        Ok(Self { bytes: Arc::new(Bytes::Mapped(map)), name })
    }

    /// A model file, or a checkpoint (its directory, or its name on the Hub) that is converted in memory to f32.
    pub fn open_or_convert(path: &Path) -> Result<Self> {
        let folder = hub::local(path)?;
        if !folder.is_dir() {
            return Self::open(path);
        }
        let options = vitlet_convert::Options { precision: vitlet::Precision::F32, ..Default::default() };
        let _watch = Watch::everywhere(&folder.display().to_string());
        let converted = vitlet_convert::convert(&folder, &options, &mut |_| {})?;
        Ok(Self::converted(converted, path.display().to_string()))
    }

    /// A model that has just been converted.
    pub fn converted(converted: vitlet_convert::Converted, name: String) -> Self {
        Self { bytes: Arc::new(Bytes::Converted(Box::new(converted))), name }
    }

    /// The same file under another name in messages.
    pub fn called(self, name: String) -> Self {
        Self { name, ..self }
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    /// The same for an owner.
    pub fn shared(&self) -> ModelBytes {
        Arc::clone(&self.bytes) as ModelBytes
    }

    /// Whether the file is still the one that was opened.
    pub fn unchanged(&self) -> Result<()> {
        match &*self.bytes {
            Bytes::Mapped(map) => map.unchanged(),
            Bytes::BuiltIn | Bytes::Converted(_) => Ok(()),
        }
    }

    /// Checks the file.
    pub fn parse(&self) -> Result<Model<'_>> {
        Model::parse(self.bytes()).about(&self.name)
    }
}
