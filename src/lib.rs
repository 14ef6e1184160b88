//! vitlet: int8 and f16 Vision Transformers with LayerScale, for ARM CPUs.
#![no_std]
#![deny(unsafe_code)]

#[cfg(feature = "std")]
extern crate std;

mod kernels;
