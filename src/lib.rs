//! vitlet: int8 and f16 Vision Transformers with LayerScale, for ARM CPUs.
#![no_std]
#![deny(unsafe_code)]

#[cfg(feature = "std")]
extern crate std;

pub mod config;
mod error;
mod kernels;
pub mod layout;
pub mod picture;

pub use config::{Activation, Config, LayerScale, Named, Pooling, Precision, Scores};
pub use error::Error;
