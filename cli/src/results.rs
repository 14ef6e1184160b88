//! The entry of each picture in `--json`, in every command that takes pictures: the result, or the reason why there is
//! none, in the order of the pictures.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::inference::Times;
use crate::pictures::Rgb8;

/// A picture's entry in `results`; `T` holds the fields of the command itself, `F` those of a picture
/// that was left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PictureResult<T, F = FailedPicture> {
    /// It was read and run.
    Done(Done<T>),
    /// It was left out.
    Failed(F),
}

/// A picture that was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done<T> {
    /// As the command line or the data set names it.
    pub image: String,
    /// Pixels, upright.
    pub width: u32,
    pub height: u32,
    #[serde(flatten)]
    pub times: Times,
    #[serde(flatten)]
    pub rest: T,
}

/// A picture without a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailedPicture {
    pub image: String,
    pub error: String,
}

impl<T> Done<T> {
    /// What became of a picture.
    pub fn new(image: String, picture: &Rgb8, times: Times, rest: T) -> Self {
        let Rgb8 { width, height, .. } = *picture;
        Self { image, width, height, times, rest }
    }
}

impl<T> PictureResult<T> {
    /// A picture without a result, and why.
    pub fn failed(image: String, error: &Error) -> Self {
        Self::Failed(FailedPicture::new(image, error))
    }
}

impl FailedPicture {
    pub fn new(image: String, error: &Error) -> Self {
        Self { error: error.why(&image), image }
    }
}
