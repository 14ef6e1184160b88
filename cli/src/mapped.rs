//! Files that are mapped into memory, and what happens when somebody changes one meanwhile.
//!
//! `cp new.gguf model.gguf` cuts the old file short and fills it again. Whoever reads it in between gets the signal
//! SIGBUS, which ends a program without a word; whoever reads it later computes with another model. Here the signal's
//! handler says one line and ends the program with status 1, and [`Mapped::unchanged`] tells whether the file is still
//! the one that was opened.
//!
//! The only unsafe code of the program.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::time::SystemTime;

use memmap2::Mmap;

#[cfg(unix)]
use crate::error::Status;
use crate::error::{Error, Result, why};

/// What befell the file, and the cure.
#[cfg(unix)]
const CUT_SHORT: &str = "it was cut short while it was in use; replace a file that is in use with mv, not with cp";
const CHANGED: &str = "it was changed while it was in use; replace a file that is in use with mv, not with cp";

/// What changes with a file's contents.
#[derive(PartialEq)]
struct State {
    len: u64,
    /// `None` where the system does not say.
    modified: Option<SystemTime>,
}

impl State {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { len: metadata.len(), modified: metadata.modified().ok() })
    }
}

/// A file's bytes.
pub struct Mapped {
    map: Mmap,
    name: String,
    file: File,
    opened: State,
    _watch: Watch,
}

impl Mapped {
    /// Maps a file, which has at least a byte.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let failed = |e: io::Error| Error::new(&name, why(&e));
        let file = File::open(path).map_err(failed)?;
        let opened = State::of(&file).map_err(failed)?;
        if opened.len == 0 {
            return Err(Error::new(name, "empty file"));
        }
        // SAFETY: the map is read only. Its bytes are plain numbers to their readers, who check what they index with
        // once, in `Model::parse`; whoever cuts the file short ends the program in an orderly way, by the watch.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        let range = map.as_ptr_range();
        let watch = Watch::new(&name, range.start.addr()..range.end.addr());
        Ok(Self { map, name, file, opened, _watch: watch })
    }

    /// Whether the file is as it was when it was opened.
    pub fn unchanged(&self) -> Result<()> {
        let now = State::of(&self.file).map_err(|e| Error::new(&self.name, why(&e)))?;
        if now == self.opened { Ok(()) } else { Err(Error::new(&self.name, CHANGED)) }
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

/// While it lives, a read behind the end of a mapped file ends the program with a line and status 1.
pub struct Watch {
    #[cfg(unix)]
    id: Option<signal_hook_registry::SigId>,
}

impl Watch {
    /// Over every file, for code that maps some itself.
    pub fn everywhere(name: &str) -> Self {
        Self::new(name, 0..usize::MAX)
    }

    /// Over the addresses at which the file `name` is mapped.
    #[cfg(unix)]
    fn new(name: &str, addresses: Range<usize>) -> Self {
        // Made beforehand: a handler must not allocate.
        let line = crate::output::shown(&format!("error: {name}: {CUT_SHORT}")) + "\n";
        let end = move |signal: &libc::siginfo_t| {
            // SAFETY: SIGBUS comes with an address.
            let at = unsafe { signal.si_addr() }.addr();
            if addresses.contains(&at) {
                // SAFETY: the bytes are the line's. Where nobody reads standard error, nothing is left to do.
                unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
                signal_hook::low_level::exit(Status::Failed as libc::c_int);
            }
        };
        // SAFETY: the handler compares numbers and calls write and _exit, both of which are async-signal-safe. It does
        // not panic. A SIGBUS from elsewhere ends the program as ever: the standard library's handler, which comes
        // first, sees to that.
        let id = unsafe { signal_hook_registry::register_sigaction(libc::SIGBUS, end) };
        Self { id: id.ok() }
    }

    /// Other systems do not let a file be cut short while it is mapped.
    #[cfg(not(unix))]
    fn new(_: &str, _: Range<usize>) -> Self {
        Self {}
    }
}

#[cfg(unix)]
impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            signal_hook_registry::unregister(id);
        }
    }
}
