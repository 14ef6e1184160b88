//! Model and picture: `model.gguf`, and `picture.jpg` or `picture.ppm`, in the root of the volume that the application
//! was started from.

use alloc::vec::Vec;
use core::fmt;

use uefi::boot;
use uefi::fs::FileSystem;
use uefi::{CStr16, cstr16};
use vitlet::Scratch;

/// Displays as one line.
pub enum Failure {
    /// A file that could not be read, and the firmware's reason.
    File(&'static CStr16, uefi::fs::Error),
    /// The volume itself.
    Volume(uefi::Error),
    /// From the picture to the answer.
    Classify(vitlet_firmware::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name, e) => write!(f, "{name}: {e}"),
            Self::Volume(e) => write!(f, "boot volume: {e}"),
            Self::Classify(e) => e.fmt(f),
        }
    }
}

impl From<vitlet_firmware::Error> for Failure {
    fn from(e: vitlet_firmware::Error) -> Self {
        Self::Classify(e)
    }
}

/// What is to be classified by what.
pub struct Files {
    /// A model file.
    pub model: Scratch,
    /// A JPEG or PPM.
    pub picture: Vec<u8>,
    /// Which of the two names it had.
    pub picture_name: &'static CStr16,
}

/// Reads both.
pub fn read() -> Result<Files, Failure> {
    let volume = boot::get_image_file_system(boot::image_handle()).map_err(Failure::Volume)?;
    let mut volume = FileSystem::new(volume);
    let model = cstr16!("model.gguf");
    let model = volume.read(model).map_err(|e| Failure::File(model, e))?;
    let model = Scratch::copied(&model).map_err(vitlet_firmware::Error::from)?;
    let (jpeg, ppm) = (cstr16!("picture.jpg"), cstr16!("picture.ppm"));
    let picture_name = if volume.try_exists(jpeg).unwrap_or(false) { jpeg } else { ppm };
    let picture = volume.read(picture_name).map_err(|e| Failure::File(picture_name, e))?;
    Ok(Files { model, picture, picture_name })
}
