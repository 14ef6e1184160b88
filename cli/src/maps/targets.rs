//! Where what is seen in each picture goes: one file, or a folder with a file for each.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Component, MAIN_SEPARATOR_STR, Path, PathBuf};

use clap::ValueEnum;
use vitlet_convert::output::Inputs;

use crate::error::{Error, Result, why};
use crate::files;
use crate::pictures::Source;

/// Kinds of files that a command writes, as `--format` names them.
pub trait Format: Copy + PartialEq + ValueEnum {
    /// What FILE.png and a folder stand for.
    const PNG: Self;
    /// What FILE.npy stands for. All others are pictures.
    const NPY: Self;

    /// Of its files' names.
    fn ending(self) -> &'static str {
        if self == Self::NPY { "npy" } else { "png" }
    }

    /// As `--format` takes it.
    fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_string())
    }
}

/// What `-o` names.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    File(PathBuf),
    Folder(PathBuf),
}

impl Output {
    /// The file or the folder.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Folder(path) => path,
        }
    }

    /// A folder is one that is there, ends as folders do, or has a name without an ending.
    ///
    /// # Errors
    /// Files that are neither .png nor .npy, or not of the `format` that was asked for.
    pub fn new<F: Format>(path: &Path, format: Option<F>) -> Result<(Self, F)> {
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        let is_folder = path.is_dir() || path.to_string_lossy().ends_with(MAIN_SEPARATOR_STR);
        let is_device = !is_folder && path.exists() && !vitlet_convert::output::is_regular(path);
        let of_ending = match ending.as_deref() {
            _ if is_device => return Ok((Self::File(path.to_path_buf()), format.unwrap_or(F::PNG))),
            _ if is_folder => return Ok((Self::Folder(path.to_path_buf()), format.unwrap_or(F::PNG))),
            None if path.exists() => {
                return Err(Error::new(
                    path.display(),
                    "a file, not a folder, and its name ends in neither .png nor .npy",
                ));
            }
            None => return Ok((Self::Folder(path.to_path_buf()), format.unwrap_or(F::PNG))),
            Some("png") => F::PNG,
            Some("npy") => F::NPY,
            Some(_) => {
                let why = "FILE.png, FILE.npy or a folder; a new folder whose name has an ending ends with a slash";
                return Err(Error::Usage(format!("-o {}: {why}", path.display())));
            }
        };
        let format = format.unwrap_or(of_ending);
        if format.ending() != of_ending.ending() {
            let why = format!("--format {} is another kind of file", format.name());
            return Err(Error::Usage(format!("-o {}: {why}", path.display())));
        }
        Ok((Self::File(path.to_path_buf()), format))
    }
}

/// The output of each source, in their order; they are all different, and none is an input. In a folder it is NAME.png
/// for NAME.jpg, below the same folders as in the argument that it comes from, and NAME.jpg.png where NAME.png would be
/// an input or another picture's.
///
/// # Errors
/// One file for several pictures, or a name that is still an input or another picture's.
pub fn targets(
    output: &Output,
    ending: &str,
    arguments: &[PathBuf],
    sources: &[Source],
    model: &Path,
) -> Result<Vec<PathBuf>> {
    let inputs = || files::of_pictures(sources).chain([model.to_path_buf()]);
    let folder = match output {
        Output::Folder(folder) => folder,
        Output::File(path) if sources.len() > 1 => {
            let why = format!("one file for {} pictures; name a folder", sources.len());
            return Err(Error::Usage(format!("-o {}: {why}", path.display())));
        }
        Output::File(path) => {
            files::refuse_inputs(path, inputs())?;
            return Ok(vec![path.clone(); sources.len()]);
        }
    };
    let inputs = Inputs::new(inputs());
    let names: Vec<PathBuf> = sources.iter().map(|source| name(source, arguments)).collect();
    let short = |name: &Path| folder.join(name.with_extension(ending));
    let mut asked: HashMap<PathBuf, Vec<&Source>> = HashMap::new();
    for (source, name) in sources.iter().zip(&names) {
        asked.entry(short(name)).or_default().push(source);
    }
    let is_own =
        |path: &PathBuf, source: &Source| asked.get(path).is_none_or(|all| all.iter().all(|one| *one == source));
    let target = |source: &Source, name: &Path| {
        let full = folder.join(format!("{}.{}", name.display(), ending));
        let of_own = [short(name), full].into_iter().find(|path| is_own(path, source) && !inputs.contains(path));
        of_own.ok_or_else(|| {
            let name = name.display();
            let why = format!("{name} and {name}.{ending} are inputs; name another folder");
            Error::new(folder.display(), why)
        })
    };
    let targets = sources.iter().zip(&names).map(|(source, name)| target(source, name)).collect::<Result<Vec<_>>>()?;
    let mut given: HashMap<&Path, &Source> = HashMap::new();
    for (path, source) in targets.iter().zip(sources) {
        if let Some(other) = given.insert(path, source).filter(|other| *other != source) {
            let why = format!("the output of both {other} and {source}; run them one after the other");
            return Err(Error::new(path.display(), why));
        }
    }
    std::fs::create_dir_all(folder).map_err(|e| Error::new(folder.display(), why(&e)))?;
    Ok(targets)
}

/// The path of a source below the argument that it was found in; its own name where it is an argument itself.
fn name(source: &Source, arguments: &[PathBuf]) -> PathBuf {
    let (Source::File(path) | Source::Unusable { path, .. }) = source else { return PathBuf::from("stdin") };
    let is_below = |rest: &&Path| {
        !rest.as_os_str().is_empty() && rest.components().all(|part| matches!(part, Component::Normal(_)))
    };
    let below = arguments.iter().filter_map(|argument| path.strip_prefix(argument).ok()).find(is_below);
    below.unwrap_or(Path::new(path.file_name().unwrap_or(OsStr::new("picture")))).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::depth::writer::DepthFormat as Kind;

    fn output(path: &str, format: Option<Kind>) -> Result<(Output, Kind), String> {
        Output::new(Path::new(path), format).map_err(|e| e.why(""))
    }

    #[test]
    fn files_and_folders_are_told_by_their_names() {
        let file = |path: &str| Output::File(PathBuf::from(path));
        let folder = |path: &str| Output::Folder(PathBuf::from(path));
        assert_eq!(output("a.PNG", None), Ok((file("a.PNG"), Kind::Color)));
        assert_eq!(output("a.png", Some(Kind::Png16)), Ok((file("a.png"), Kind::Png16)));
        assert_eq!(output("x/a.npy", None), Ok((file("x/a.npy"), Kind::Npy)));
        assert_eq!(output("new", Some(Kind::Npy)), Ok((folder("new"), Kind::Npy)));
        assert_eq!(output("new.v2/", None), Ok((folder("new.v2/"), Kind::Color)));
        for (wrong, format) in [("a.npy", Kind::Color), ("a.npy", Kind::Png16), ("a.png", Kind::Npy)] {
            assert!(output(wrong, Some(format)).unwrap_err().contains("another kind of file"));
        }
        assert!(output("a.jpg", None).unwrap_err().contains("FILE.png"));
        assert!(output("/dev/null", None) == Ok((file("/dev/null"), Kind::Color)) || cfg!(not(unix)));
    }

    /// Outputs, below the folder `to`, of files below a scratch folder.
    fn placed(files: &[&str], arguments: &[&str], to: &str) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for file in files {
            std::fs::create_dir_all(path(file).parent().unwrap()).unwrap();
            std::fs::write(path(file), "").unwrap();
        }
        let sources: Vec<Source> = files.iter().map(|file| Source::File(path(file))).collect();
        let arguments: Vec<PathBuf> = arguments.iter().map(|argument| path(argument)).collect();
        let to = path(to);
        let targets = targets(&Output::Folder(to.clone()), "png", &arguments, &sources, &path("model.gguf"));
        let targets = targets.map_err(|e| e.why(""))?;
        assert!(to.is_dir());
        Ok(targets.iter().map(|target| target.strip_prefix(&to).unwrap().display().to_string()).collect())
    }

    #[test]
    fn outputs_lie_as_the_pictures_do() {
        let placed = |files: &[&str], arguments: &[&str], to: &str| placed(files, arguments, to).unwrap();
        assert_eq!(
            placed(&["in/a.jpg", "in/b/c.jpg", "d.webp"], &["in", "d.webp"], "out"),
            ["a.png", "b/c.png", "d.png"]
        );
        assert_eq!(placed(&["in/../d.jpg"], &["in", "in/../d.jpg"], "out"), ["d.png"]);
        // The same name twice, and the input's own folder.
        assert_eq!(placed(&["in/a.jpg", "in/a.bmp"], &["in"], "out"), ["a.jpg.png", "a.bmp.png"]);
        assert_eq!(placed(&["in/a.jpg", "in/b.png"], &["in"], "in"), ["a.png", "b.png.png"]);
        assert_eq!(placed(&["a.jpg", "a.jpg"], &["a.jpg", "a.jpg"], "out"), ["a.png", "a.png"]);
    }

    #[test]
    fn outputs_that_would_be_lost_are_refused() {
        let why = placed(&["x/a.jpg", "y/a.jpg"], &["x/a.jpg", "y/a.jpg"], "out").unwrap_err();
        assert!(why.contains("the output of both"), "{why}");
        let why = placed(&["in/b.png", "in/b.png.png", "in/b.png.png.png"], &["in"], "in").unwrap_err();
        assert!(why.contains("name another folder"), "{why}");
    }
}
