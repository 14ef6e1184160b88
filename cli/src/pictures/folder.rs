//! The pictures in a folder. Every regular file that is a picture by its content or by its name counts as one; if it
//! cannot be decoded, its reader reports the error. FIFOs, devices and sockets are never opened. Other files are left
//! out, and a note counts them.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs::{self, File, FileType, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Source;
use super::kind::{HEAD_BYTES, Kind, is_pictures_name};
use crate::error::why;

/// Names in a message about files that are left out.
const NAMED: usize = 5;

/// Something in a folder.
pub enum Item {
    Picture(Source),
    Folder(PathBuf),
    /// A link to a folder. Whoever follows links below a folder may come back to it.
    LinkedFolder(PathBuf),
    /// Its name, and its kind in a few words.
    LeftOut(String),
}

/// Files that are no pictures.
#[derive(Debug, Default, PartialEq)]
pub struct OtherFiles {
    count: usize,
    /// The names of the first [`NAMED`].
    names: Vec<String>,
}

/// The pictures at and below a folder, in the order of their paths.
pub struct Found {
    pub pictures: Vec<Source>,
    pub left_out: OtherFiles,
}

impl OtherFiles {
    /// One more.
    pub fn add(&mut self, name: String) {
        self.count += 1;
        if self.names.len() < NAMED {
            self.names.push(name);
        }
    }

    /// The note that `folder` holds such files; none where it does not.
    pub fn note(&self, folder: &Path) -> Option<String> {
        (self.count > 0).then(|| format!("{}: left out {self}", folder.display()))
    }
}

impl std::fmt::Display for OtherFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files = if self.count == 1 { "1 file that is not a picture" } else { "files that are not pictures" };
        if self.count > 1 {
            write!(f, "{} ", self.count)?;
        }
        write!(f, "{files}: {}", self.names.join(", "))?;
        match self.count - self.names.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Everything at and below `folder`. A folder that cannot be read counts as a picture that cannot be read.
pub fn below(folder: &Path) -> Found {
    let mut found = Found { pictures: Vec::new(), left_out: OtherFiles::default() };
    collect(folder.to_path_buf(), Path::new(""), &mut found);
    found
}

/// Adds what lies in `folder`, which is `inside` the folder that was asked for.
fn collect(folder: PathBuf, inside: &Path, found: &mut Found) {
    let items = match items(&folder) {
        Ok(items) => items,
        Err(e) => return found.pictures.push(Source::Unusable { path: folder, why: why(&e) }),
    };
    let name = |path: &Path| inside.join(path.file_name().unwrap_or_default());
    for item in items {
        match item {
            Item::Picture(source) => found.pictures.push(source),
            Item::LeftOut(text) => found.left_out.add(inside.join(text).display().to_string()),
            Item::LinkedFolder(path) => found.left_out.add(format!("{} (link to a folder)", name(&path).display())),
            Item::Folder(path) => {
                let name = name(&path);
                collect(path, &name, found);
            }
        }
    }
}

/// What lies in `folder` itself, in the order of the names.
pub fn items(folder: &Path) -> io::Result<Vec<Item>> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries.iter().map(|entry| tell(entry.path(), &entry.file_name(), entry.file_type().ok())).collect())
}

fn tell(path: PathBuf, name: &OsStr, file_type: Option<FileType>) -> Item {
    let left_out = |what: &str| {
        let mut text = name.to_string_lossy().into_owned();
        // Writing to a string does not fail.
        let _ = if what.is_empty() { Ok(()) } else { write!(text, " ({what})") };
        Item::LeftOut(text)
    };
    if name.as_encoded_bytes().starts_with(b".") {
        return left_out("hidden");
    }
    if file_type.is_some_and(|t| t.is_dir()) {
        return Item::Folder(path);
    }
    let named = is_pictures_name(&path);
    let target = match fs::metadata(&path) {
        Ok(target) => target,
        Err(e) if named => return Item::Picture(Source::Unusable { path, why: why(&e) }),
        Err(e) => return left_out(&why(&e)),
    };
    if target.is_dir() {
        return Item::LinkedFolder(path);
    }
    if !target.is_file() {
        let what = special(&target);
        let why = || format!("{what} in a folder is not opened; name it on the command line to read it");
        return if named { Item::Picture(Source::Unusable { path, why: why() }) } else { left_out(what) };
    }
    if named {
        return Item::Picture(Source::File(path));
    }
    match head(&path).map(|head| Kind::of(&head)) {
        Ok(kind) if kind.is_picture() => Item::Picture(Source::File(path)),
        Ok(Kind::Foreign(foreign)) => left_out(foreign.name),
        Ok(_) => left_out(""),
        Err(e) => left_out(&why(&e)),
    }
}

/// What a file is that is neither regular nor a folder.
fn special(file: &Metadata) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let t = file.file_type();
        if t.is_fifo() {
            return "a FIFO";
        } else if t.is_socket() {
            return "a socket";
        } else if t.is_char_device() || t.is_block_device() {
            return "a device";
        }
    }
    let _ = file;
    "a special file"
}

/// The first bytes of a regular file.
fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    File::open(path)?.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

    #[test]
    fn pictures_are_told_by_content_and_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let files: [(&str, &[u8]); 10] = [
            ("a.jfif", b"\xff\xd8\xff\xe0"),
            ("b", PNG),
            ("c.jpg", b"no picture, and named as one"),
            ("d/e.heic", b""),
            ("d/f", b"II*\0\x08\0\0\0"),
            ("d/labels.csv", b"a.jpg,3\n"),
            ("film", b"\0\0\0\x18ftypisom\0\0\0\0isommp42"),
            ("notes.txt", b"BM is no bitmap"),
            ("page.pdf", b"%PDF-1.7"),
            (".hidden.png", PNG),
        ];
        for (name, bytes) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let found = below(dir.path());
        let names = ["a.jfif", "b", "c.jpg", "d/e.heic", "d/f"];
        assert_eq!(found.pictures, names.map(|name| Source::File(dir.path().join(name))));
        let note = found.left_out.to_string();
        let names = ".hidden.png (hidden), d/labels.csv, film (Video), notes.txt, page.pdf (PDF)";
        assert_eq!(note, format!("5 files that are not pictures: {names}"));
        (0..4).for_each(|i| fs::write(dir.path().join(format!("z{i}.txt")), "").unwrap());
        let note = below(dir.path()).left_out.to_string();
        assert!(note.starts_with("9 files") && note.ends_with("page.pdf (PDF) and 4 more"), "{note}");
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_one_bad_picture() {
        let path = tempfile::tempdir().unwrap().path().join("gone");
        let found = below(&path);
        assert_eq!(found.pictures, [Source::Unusable { path, why: "No such file or directory".to_string() }]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let _socket = std::os::unix::net::UnixListener::bind(path("a.jpg")).unwrap();
        symlink("/dev/zero", path("b.png")).unwrap();
        symlink("/dev/zero", path("c")).unwrap();
        symlink("nowhere", path("d.webp")).unwrap();
        symlink(".", path("e")).unwrap();
        fs::write(path("f"), PNG).unwrap();
        symlink("f", path("g")).unwrap();
        let found = below(dir.path());
        let whys: Vec<_> =
            found.pictures.iter().map(|s| if let Source::Unusable { why, .. } = s { why } else { "" }).collect();
        assert_eq!(whys.len(), 5);
        assert!(whys[0].starts_with("a socket") && whys[1].starts_with("a device"), "{whys:?}");
        assert!(whys[2].starts_with("No such file"), "{whys:?}");
        assert_eq!(found.pictures[3..], [Source::File(path("f")), Source::File(path("g"))]);
        assert_eq!(found.left_out.to_string(), "2 files that are not pictures: c (a device), e (link to a folder)");
    }
}
