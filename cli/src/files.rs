//! Outputs of the program. The converter writes them (`vitlet_convert::output`); here are the checks before, in the
//! program's own errors.

use std::path::{Path, PathBuf};

use vitlet_convert::output;

use crate::error::{Context, Error, Result};
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

/// Refuses two outputs that are the same file, or both standard output.
pub fn refuse_same(output: &Path, other: &Path) -> Result<()> {
    Ok(output::refuse_same(output, other)?)
}

/// Refuses `json` where one of `outputs` goes to standard output, too.
pub fn refuse_stdout<'p>(json: bool, outputs: impl IntoIterator<Item = &'p PathBuf>) -> Result<()> {
    if json && outputs.into_iter().any(|path| output::goes_to_stdout(path)) {
        return Err(Error::Usage("--json and the output itself cannot both go to standard output".to_string()));
    }
    Ok(())
}

/// Writes a CSV file (RFC 4180); the first of `records` is the header.
pub fn write_csv<const N: usize>(path: &Path, records: impl IntoIterator<Item = [String; N]>) -> Result<()> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    records.into_iter().try_for_each(|record| csv.write_record(record)).about(path.display())?;
    write(path, &csv.into_inner().about(path.display())?)
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
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        let records = [["path", "label"], ["a b.jpg", "tench, \"the\" fish"], ["", "a\nb"]];
        write_csv(&path, records.map(|record| record.map(str::to_string))).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "path,label\na b.jpg,\"tench, \"\"the\"\" fish\"\n,\"a\nb\"\n");
    }
}
