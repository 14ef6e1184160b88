//! The engine from outside: converted checkpoints, run and compared.

mod balance;
mod bit_exact;
mod common;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod environment;
mod finite;
mod hostile;
mod interface;
mod layerscale;
mod patches;
mod pruned;
mod pytorch;
mod sensitivity;
mod simulation;
mod tap;
