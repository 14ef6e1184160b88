//! Frames of a camera or a stream: rows of a .npy file, or features in lines of JSON.

use serde::Serialize;

use super::EmbedArgs;
use crate::error::{Error, Result};
use crate::frames::{Found, Tell};
use crate::inference::{Answer, Compute};
use crate::model::ModelFile;

/// The fields of one frame: its row, or its features or tokens where no file takes them.
#[derive(Default, Serialize)]
struct Embedded {
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    features: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<Vec<Vec<f32>>>,
}

/// A frame that cannot be read or run has no row.
pub fn run(args: &EmbedArgs, file: &ModelFile) -> Result<()> {
    let outputs = args.outputs(&args.images)?;
    match outputs {
        None if !args.json => {
            return Err(Error::Usage("features of frames go to a file, -o FILE.npy, or to --json".to_string()));
        }
        Some(_) if args.frames.is_endless() => {
            return Err(Error::Usage("a file of rows needs an end: --frames N stops after N frames".to_string()));
        }
        _ => {}
    }
    let compute = Compute::new(&args.compute)?;
    let mut inference = args.inference(file, &compute)?;
    let (mut data, mut named) = (Vec::new(), vec![["row", "source", "frame", "time"].map(str::to_string)]);
    let tell = Tell::new(args.json, outputs.iter().flat_map(|outputs| outputs.paths()));
    let ended = args.frames.each(&args.images, tell, &|| file.unchanged(), &mut |frame| {
        let Answer { values, times } = inference.frame(&frame.picture)?;
        if outputs.is_none() {
            let fields = Embedded::new(values, args.tokens, inference.plan().config().dim);
            return Ok(Found { times, text: String::new(), fields });
        }
        let row = named.len() - 1;
        let (number, time) = (frame.number.to_string(), format!("{:.6}", frame.time));
        named.push([row.to_string(), frame.source.to_string(), number, time]);
        data.extend(values);
        Ok(Found { times, text: format!("row {row}"), fields: Embedded { row: Some(row), ..Embedded::default() } })
    });
    let rows = named.len() - 1;
    // Rows of frames that came before a camera failed are kept.
    if let (Some(outputs), Ok(()) | Err(Error::Partial(_)), 1..) = (&outputs, &ended, rows) {
        let shape = args.shape(rows, &inference);
        outputs.write(&shape, &data, named)?;
        if !args.json {
            outputs.report(&shape, "frames")?;
        }
    }
    ended
}

impl Embedded {
    /// `values` of a frame: features, or tokens of `dim` numbers each.
    fn new(values: Vec<f32>, tokens: bool, dim: usize) -> Self {
        match tokens {
            true => Self { tokens: Some(values.chunks(dim).map(<[f32]>::to_vec).collect()), ..Self::default() },
            false => Self { features: Some(values), ..Self::default() },
        }
    }
}
