//! Outputs of the program. The converter writes them (`vitlet_convert::output`); here are the checks before, in the program's own errors.

use std::path::{Path, PathBuf};

use vitlet_convert::output;

use crate::error::Result;
use crate::pictures::Source;

/// Writes `bytes` to `path`: a regular file completely or not at all, everything else through.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    Ok(output::write_file(bytes, path)?)
}

/// Refuses an output that is one of the inputs, before anything is computed.
pub fn refuse_inputs<P: AsRef<Path>>(output: &Path, inputs: impl IntoIterator<Item = P>) -> Result<()> {
    Ok(output::refuse_inputs(output, inputs)?)
}

/// Refuses an output that is one of the files of a checkpoint (or the model file that stands in its place).
pub fn refuse_checkpoint(output: &Path, checkpoint: &Path) -> Result<()> {
    Ok(vitlet_convert::refuse_source(output, checkpoint, &vitlet_convert::Options::default())?)
}

/// The files that pictures come from: standard input may be one, too.
pub fn of_pictures(sources: &[Source]) -> impl Iterator<Item = PathBuf> {
    sources.iter().map(|source| match source {
        Source::File(path) => path.clone(),
        Source::Stdin => PathBuf::from("/dev/stdin"),
    })
}
