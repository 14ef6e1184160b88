//! Outputs of the program. The converter writes them (`vitlet_convert::output`); here are the checks before, in the
//! program's own errors.

use std::path::{Path, PathBuf};

use vitlet_convert::output;

use crate::error::{Error, Result};
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

/// Refuses `--json` where the output itself goes to standard output.
pub fn refuse_stdout(output: &Path) -> Result<()> {
    match output::goes_to_stdout(output) {
        true => Err(Error::Usage("--json and the output itself cannot both go to standard output".to_string())),
        false => Ok(()),
    }
}

/// A CSV field (RFC 4180).
pub fn csv_field(text: &str) -> String {
    let plain = !text.contains([',', '"', '\n', '\r']);
    if plain { text.to_string() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

/// The files that pictures come from: standard input may be one, too.
pub fn of_pictures<'s>(sources: impl IntoIterator<Item = &'s Source>) -> impl Iterator<Item = PathBuf> {
    sources.into_iter().map(|source| match source {
        Source::File(path) | Source::Unusable { path, .. } => path.clone(),
        Source::Stdin => PathBuf::from("/dev/stdin"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(csv_field("a b.jpg"), "a b.jpg");
        assert_eq!(csv_field("tench, \"the\" fish"), "\"tench, \"\"the\"\" fish\"");
    }
}
