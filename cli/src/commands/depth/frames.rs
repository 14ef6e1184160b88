//! Frames of a camera or a stream: a line each, and a file each with `-o DIR`.

use std::cell::RefCell;

use super::targets::Output;
use super::writer::Writer;
use super::{DepthArgs, Looker};
use crate::error::{Error, Result};
use crate::files;
use crate::frames::{Found, Tell};
use crate::model::ModelFile;

/// Looks at the frames one after the other, and writes the depth of each to DIR/000012.png, or again and again to a
/// device or a pipe. A file that cannot be written ends everything.
pub fn run(args: &DepthArgs, file: &ModelFile, mut looker: Looker<'_>, mut writer: Option<Writer>) -> Result<()> {
    let outputs: Vec<_> = writer.iter().map(|writer| writer.output.path().to_path_buf()).collect();
    for output in &outputs {
        files::refuse_inputs(output, args.images.iter().chain([&args.model]))?;
    }
    files::refuse_stdout(args.json, &outputs)?;
    let broken = RefCell::new(None);
    let unchanged = || match &*broken.borrow() {
        Some(line) => Err(Error::Failed(String::clone(line))),
        None => file.unchanged(),
    };
    let mut count = 0_u64;
    args.frames.each(&args.images, Tell::new(args.json, &outputs), &unchanged, &mut |frame| {
        let (depths, times, mut told) = looker.look(&frame.picture)?;
        if let Some(writer) = &mut writer {
            let path = match &writer.output {
                Output::File(path) => path.clone(),
                // Several streams count from 0 each.
                Output::Folder(folder) => folder.join(format!("{count:06}.{}", writer.format.ending())),
            };
            if let Err(e) = writer.write(&depths.map()?, &told.depth, &path) {
                let line = e.why("");
                *broken.borrow_mut() = Some(line.clone());
                return Err(line);
            }
            told.output = Some(path.display().to_string());
        }
        count += 1;
        Ok(Found { times, text: told.text(), fields: told })
    })
}
