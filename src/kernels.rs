//! Kernels: the only code that knows instruction sets.
//!
//! Every operation is written once, generic over [`isa::Isa`]: sixteen f32 lanes, sixteen i32 lanes and one int8
//! dot-product tile. An instruction set is one file in `kernels/isa/` that implements that trait. An operation is
//! a plain struct with its operands that implements [`Op`]; [`Kernels::run`] compiles it once for each instruction set
//! and picks at run time.
//!
//! What does not belong here: shapes of networks, the model file, threads.

pub(crate) mod isa;

use isa::Isa;

/// One operation over slices; implementations mark `run` `#[inline(always)]` so that it is compiled for `S`.
pub(crate) trait Op {
    type Output;
    fn run<S: Isa>(self, s: S) -> Self::Output;
}
