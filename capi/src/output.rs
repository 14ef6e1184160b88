//! What runs give: outputs with a name and a shape, by index.

use core::ffi::{CStr, c_char};

use engine::{Output, OutputInfo};

use crate::error::Failure;
use crate::status::vitlet_status as Status;
use crate::versions::Versioned;

/// Outputs of networks, as bits for vitlet_options.outputs.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum vitlet_output {
    /// `[classes]`. A network without a head has none.
    Logits = 1,
    /// The pooled features before the head, `[features]`.
    Features = 2,
    /// The patch tokens after the last norm, `[patches, dim]`.
    Tokens = 4,
    /// For each pixel of the input its distance in metres, or its inverse up to a scale and a shift, `[height, width]`.
    /// Networks with a depth head have it.
    Depth = 8,
    /// For each patch of the input one number a class, `[classes, height, width]` in patches. Networks with a linear
    /// head for classes have it.
    LogitsMap = 16,
}

/// Name and shape of an output, a dense array of floats.
#[repr(C)]
pub struct vitlet_tensor_info {
    /// Set it before the call: sizeof(vitlet_tensor_info), or 0 for the fields of version 1. The call fills that much.
    pub size: usize,
    /// "logits", "features", "tokens", "depth" or "logits_map": a constant.
    pub name: *const c_char,
    /// A vitlet_output.
    pub output: u32,
    /// Number of dimensions.
    pub rank: u32,
    /// The dimensions, outermost first; 1 beyond the rank.
    pub dims: [usize; 4],
    /// Number of floats: the product of the dimensions.
    pub elements: usize,
}

// SAFETY: numbers and a pointer that may be null, the size first; a multiple of their alignment.
unsafe impl Versioned for vitlet_tensor_info {}

/// How many outputs there are.
pub(crate) const OUTPUTS: usize = 5;

const NAMES: [(vitlet_output, Output, &CStr); OUTPUTS] = [
    (vitlet_output::Logits, Output::Logits, c"logits"),
    (vitlet_output::Features, Output::Features, c"features"),
    (vitlet_output::Tokens, Output::Tokens, c"tokens"),
    (vitlet_output::Depth, Output::Depth, c"depth"),
    (vitlet_output::LogitsMap, Output::LogitsMap, c"logits_map"),
];

/// The outputs that bits stand for, first the number of them.
pub(crate) fn of_bits(bits: u32) -> Result<(usize, [Output; OUTPUTS]), Failure> {
    let known = NAMES.iter().fold(0, |known, (bit, ..)| known | *bit as u32);
    if bits & !known != 0 {
        let text = &["outputs: ", " has a bit that is no vitlet_output"];
        return Err(Failure::numbers(Status::Value, text, &[bits.into()]));
    }
    let (mut count, mut outputs) = (0, [Output::Logits; OUTPUTS]);
    for (bit, output, _) in NAMES {
        if bits & bit as u32 != 0 {
            outputs[count] = output;
            count += 1;
        }
    }
    Ok((count, outputs))
}

/// As C reads it.
pub(crate) fn described(info: &OutputInfo) -> Option<vitlet_tensor_info> {
    let (bit, _, name) = NAMES.iter().find(|(_, output, _)| *output == info.output())?;
    let mut dims = [1; 4];
    dims[..info.shape().len()].copy_from_slice(info.shape());
    Some(vitlet_tensor_info {
        size: size_of::<vitlet_tensor_info>(),
        name: name.as_ptr(),
        output: *bit as u32,
        rank: info.shape().len() as u32,
        dims,
        elements: info.elements(),
    })
}
