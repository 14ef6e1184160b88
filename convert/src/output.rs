//! Every output of the converter and of the program goes through here.
//!
//! A regular file is complete or absent: its bytes gather in a temporary file beside it, which is flushed to the disk
//! and renamed. Symbolic links are followed to their target, there or not; owner and permissions of an existing target
//! stay. What is no regular file (a device, a pipe, a descriptor such as /dev/stdout) is opened and written, never
//! replaced.
//!
//! Temporary files are registered while they live, so that a program can remove them when a signal ends it:
//! [`discard_all`]. Their names are random, since two containers on one volume may have the same process id.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::Builder;

use crate::error::{Error, why};

/// Symbolic links that are followed, as many as Linux follows.
const LINKS: usize = 40;

/// An output that is written in pieces: create, write, seek and patch, read back, commit. Dropped before
/// [`Writer::commit`], it leaves nothing behind, and an existing target is as it was.
#[derive(Debug)]
pub struct Writer {
    /// As the caller named it.
    path: PathBuf,
    gathered: Gathered,
}

/// Where the bytes are until they are complete.
#[derive(Debug)]
enum Gathered {
    /// Beside the regular file that they will be.
    Beside { temporary: Temporary, target: PathBuf },
    /// In a file without a name, to be copied to something that may not be able to seek.
    Spool { file: File, stream: Stream },
}

impl Writer {
    /// Begins an output at `path`. A pipe is not opened before [`Writer::commit`].
    ///
    /// # Errors
    /// One line that names `path`: no such directory, a directory, no permission.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let begin = || {
            Ok(match Destination::of(path)? {
                Destination::Regular(target) => Gathered::Beside { temporary: Temporary::beside(&target)?, target },
                Destination::Stream(stream) => Gathered::Spool { file: tempfile::tempfile()?, stream },
            })
        };
        Ok(Self { path: path.to_path_buf(), gathered: begin().map_err(|e| not_written(path, &e))? })
    }

    /// The bytes so far, to be read back or mapped: open for reading and writing, at a position that the writer shares.
    pub fn file(&self) -> &File {
        match &self.gathered {
            Gathered::Beside { temporary, .. } => &temporary.file,
            Gathered::Spool { file, .. } => file,
        }
    }

    /// Ends the output: the target has all bytes from here on.
    ///
    /// # Errors
    /// What the operating system says, in one line that names the path; the target is unchanged then, unless it is no
    /// regular file.
    pub fn commit(self) -> Result<(), Error> {
        let Self { path, gathered } = self;
        let done = match gathered {
            Gathered::Beside { temporary, target } => {
                temporary.file.sync_all().and_then(|()| temporary.rename(&target))
            }
            Gathered::Spool { file, stream } => stream.receive(file),
        };
        done.map_err(|e| not_written(&path, &e))
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

impl Seek for Writer {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file().seek(to)
    }
}

/// Writes a whole output.
///
/// # Errors
/// As [`Writer::create`] and [`Writer::commit`].
pub fn write_file(bytes: &[u8], path: &Path) -> Result<(), Error> {
    let write = || match Destination::of(path)? {
        Destination::Regular(target) => {
            let temporary = Temporary::beside(&target)?;
            (&temporary.file).write_all(bytes)?;
            temporary.file.sync_all()?;
            temporary.rename(&target)
        }
        Destination::Stream(stream) => stream.receive(bytes),
    };
    write().map_err(|e| not_written(path, &e))
}

fn not_written(path: &Path, e: &io::Error) -> Error {
    Error::file(path, format!("cannot write: {}", why(e)))
}

/// What an output's path stands for.
enum Destination {
    /// A regular file, there or not, behind all symbolic links.
    Regular(PathBuf),
    Stream(Stream),
}

/// What is written through, never replaced.
#[derive(Debug)]
enum Stream {
    /// This process's standard output, which may be a socket, or a file with a position.
    Stdout,
    /// A device, a pipe or another descriptor.
    At(PathBuf),
}

impl Destination {
    fn of(path: &Path) -> io::Result<Self> {
        if path.file_name().is_none() || path.to_string_lossy().ends_with(std::path::is_separator) {
            return Err(io::Error::other("not the name of a file"));
        }
        let metadata = match fs::metadata(path) {
            Ok(metadata) => Some(metadata),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        if metadata.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(io::Error::other("a directory"));
        }
        let target = follow(path)?;
        if is_stdout(&target) {
            return Ok(Self::Stream(Stream::Stdout));
        }
        Ok(match metadata {
            Some(metadata) if is_descriptor(&target) || !metadata.is_file() => {
                Self::Stream(Stream::At(path.to_path_buf()))
            }
            _ => Self::Regular(target),
        })
    }
}

impl Stream {
    /// Writes everything.
    fn receive(&self, bytes: impl Source) -> io::Result<()> {
        match self {
            Self::At(path) => bytes.copy_to(&mut OpenOptions::new().write(true).truncate(true).open(path)?),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                bytes.copy_to(&mut stdout)?;
                stdout.flush()
            }
        }
    }
}

/// Whether an output at `path` goes to standard output, where nothing else may go then.
pub fn goes_to_stdout(path: &Path) -> bool {
    follow(path).is_ok_and(|target| is_stdout(&target))
}

/// Whether an output at `path` is or becomes a regular file, beside which there is room for another.
pub fn is_regular(path: &Path) -> bool {
    matches!(Destination::of(path), Ok(Destination::Regular(_)))
}

/// Of a path without links. The link in a descriptor's place names the file that is open; replacing that file would not
/// reach the descriptor.
fn is_descriptor(target: &Path) -> bool {
    let folder = target.parent().unwrap_or(Path::new("/"));
    folder.ends_with("fd") && (folder.starts_with("/proc") || folder.starts_with("/dev"))
}

fn is_stdout(target: &Path) -> bool {
    is_descriptor(target)
        && target.ends_with("1")
        && fs::canonicalize("/dev/fd").is_ok_and(|own| target.parent() == Some(&own))
}

/// Bytes in memory, or in a file that has not been read yet.
trait Source {
    fn copy_to(self, to: &mut dyn Write) -> io::Result<()>;
}

impl Source for &[u8] {
    fn copy_to(self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(self)
    }
}

impl Source for File {
    fn copy_to(mut self, to: &mut dyn Write) -> io::Result<()> {
        self.seek(SeekFrom::Start(0))?;
        let mut piece = vec![0; 1 << 16];
        loop {
            match self.read(&mut piece)? {
                0 => return Ok(()),
                len => to.write_all(&piece[..len])?,
            }
        }
    }
}

/// `path` without symbolic links, but for the last one in a folder of descriptors; the file itself need not be there,
/// its directory must.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let folder = fs::canonicalize(folder)?;
        let plain = folder.join(path.file_name().ok_or_else(|| io::Error::other("not the name of a file"))?);
        let is_link = fs::symlink_metadata(&plain).is_ok_and(|m| m.is_symlink());
        if !is_link || is_descriptor(&plain) {
            return Ok(plain);
        }
        path = folder.join(fs::read_link(&plain)?);
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Temporary files and folders of this process.
static LIVE: Mutex<Live> = Mutex::new(Live { ended: false, paths: Vec::new() });

struct Live {
    /// Nothing is created or renamed any more.
    ended: bool,
    paths: Vec<PathBuf>,
}

impl Live {
    fn lock() -> MutexGuard<'static, Self> {
        LIVE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_unless_ended() -> io::Result<MutexGuard<'static, Self>> {
        let live = Self::lock();
        if live.ended { Err(io::Error::other("interrupted")) } else { Ok(live) }
    }

    /// Whether the path was registered.
    fn forget(&mut self, path: &Path) -> bool {
        let at = self.paths.iter().position(|p| p == path);
        at.map(|at| self.paths.swap_remove(at)).is_some()
    }
}

/// Removes every temporary file, and lets no output begin or end any more: for a signal that ends the process. Not for
/// a signal handler itself, since it locks: for a thread that waits for signals.
pub fn discard_all() {
    let mut live = Live::lock();
    live.ended = true;
    live.paths.drain(..).for_each(|path| remove(&path));
}

/// Removes a temporary file or folder. An error before is the one to report; and where a signal ends the process,
/// nobody is left to tell.
fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

/// A folder in the system's place for temporary files, removed with the value or by [`discard_all`].
#[derive(Debug)]
pub struct TemporaryFolder {
    path: PathBuf,
}

impl TemporaryFolder {
    /// Makes an empty one.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn create() -> Result<Self, Error> {
        let make = || {
            let mut live = Live::lock_unless_ended()?;
            let path = Builder::new().prefix("vitlet-").rand_bytes(12).tempdir()?.keep();
            live.paths.push(path.clone());
            Ok(Self { path })
        };
        make().map_err(|e: io::Error| Error::new("temporary folder", why(&e)))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        let mut live = Live::lock();
        if live.forget(&self.path) {
            remove(&self.path);
        }
    }
}

/// A file beside its target, removed unless it is renamed.
#[derive(Debug)]
struct Temporary {
    file: File,
    path: PathBuf,
}

impl Temporary {
    /// With owner and permissions of `target` where there is one, which must be writable.
    fn beside(target: &Path) -> io::Result<Self> {
        let existing = match OpenOptions::new().write(true).open(target) {
            Ok(file) => Some(file.metadata()?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let mut builder = Builder::new();
        builder.prefix(".vitlet-").suffix(".tmp").rand_bytes(12);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut live = Live::lock_unless_ended()?;
        let (file, path) =
            builder.tempfile_in(target.parent().unwrap_or(Path::new(".")))?.keep().map_err(|e| e.error)?;
        live.paths.push(path.clone());
        drop(live);
        let temporary = Self { file, path };
        if let Some(existing) = existing {
            keep_owner(&temporary.file, &existing);
            temporary.file.set_permissions(existing.permissions())?;
        }
        Ok(temporary)
    }

    fn rename(self, target: &Path) -> io::Result<()> {
        let mut live = Live::lock_unless_ended()?;
        fs::rename(&self.path, target)?;
        live.forget(&self.path);
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let mut live = Live::lock();
        if live.forget(&self.path) {
            remove(&self.path);
        }
    }
}

/// Gives `file` the owner of the file that it replaces, if the system lets this user do so.
#[cfg(unix)]
fn keep_owner(file: &File, of: &fs::Metadata) {
    use std::os::unix::fs::{MetadataExt, fchown};
    let _ = fchown(file, Some(of.uid()), Some(of.gid()));
}

#[cfg(not(unix))]
fn keep_owner(_file: &File, _of: &fs::Metadata) {}

/// Refuses an output that is one of the inputs, also through links. Call it before anything is computed.
///
/// # Errors
/// One line that names both.
pub fn refuse_inputs<P: AsRef<Path>>(output: &Path, inputs: impl IntoIterator<Item = P>) -> Result<(), Error> {
    let Some(identity) = identity(output) else { return Ok(()) };
    match inputs.into_iter().find(|input| self::identity(input.as_ref()).as_ref() == Some(&identity)) {
        None => Ok(()),
        Some(input) if input.as_ref() == output => {
            Err(Error::file(output, "is an input and the output at once; name another output"))
        }
        Some(input) => {
            let why = format!("the same file as the input {}; name another output", input.as_ref().display());
            Err(Error::file(output, why))
        }
    }
}

/// Files that no output may be, for commands with many of both.
pub struct Inputs(HashSet<Identity>);

impl Inputs {
    /// Those of `paths` that are there.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(paths.into_iter().filter_map(|path| identity(&path)).collect())
    }

    /// Whether an output at `path` would be one of them, also through links.
    pub fn contains(&self, path: &Path) -> bool {
        identity(path).is_some_and(|identity| self.0.contains(&identity))
    }
}

/// Refuses two outputs that are one, also through links and also where it is not there yet.
///
/// # Errors
/// One line that names both.
pub fn refuse_same(output: &Path, other: &Path) -> Result<(), Error> {
    let target = |path: &Path| follow(path).ok().filter(|_| is_regular(path) || goes_to_stdout(path));
    let same_target = target(output).is_some_and(|path| Some(path) == target(other));
    if same_target || identity(output).is_some_and(|file| Some(file) == identity(other)) {
        return Err(Error::file(output, format!("the same file as the output {}; name another", other.display())));
    }
    Ok(())
}

/// What two names of one regular file have in common: device and inode.
#[cfg(unix)]
type Identity = (u64, u64);

/// What two names of one regular file have in common: the path without links.
#[cfg(not(unix))]
type Identity = PathBuf;

#[cfg(unix)]
pub(crate) fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|m| (m.dev(), m.ino()))
}

#[cfg(not(unix))]
pub(crate) fn identity(path: &Path) -> Option<Identity> {
    fs::canonicalize(path).ok().filter(|path| path.is_file())
}
