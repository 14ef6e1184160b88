//! Output files: complete or absent. The bytes go to a temporary file beside the target, which is renamed when it is whole.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Error, Result, why};

/// Writes `bytes` to `path`. A target that is no plain file (a pipe, /dev/stdout) is written directly.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_or_clean_up(path, bytes).map_err(|e| Error::new(path.display(), format!("cannot write: {}", why(&e))))
}

fn write_or_clean_up(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        return fs::write(path, bytes);
    }
    let name = path.file_name().ok_or_else(|| io::Error::other("not a file name"))?.to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}
