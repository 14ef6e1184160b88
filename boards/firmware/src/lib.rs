//! What the board images share: a picture becomes pixels, a model answers, and the answer is printed.
//!
//! An image brings the machine (memory, cores, a clock, a place to write to); nothing here knows any of them.
//! Needs a global allocator: for the decoded picture and for the engine's scratch memory.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod error;
mod picture;
mod report;

pub use error::Error;
pub use picture::{Rgb8, decode};
pub use report::{Clock, classify, describe};
