//! The int8 tile: `M` rows of 8-bit activations times one block of 16 output channels, exact in i32.
//!
//! [`Isa::dot_i8`](super::isa::Isa::dot_i8) is the contract. One file for each way to do it; `scalar` is the specification.

pub(crate) mod scalar;
