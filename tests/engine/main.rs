//! The engine from outside: converted checkpoints, run and compared.

mod bit_exact;
mod common;
mod hostile;
mod layerscale;
mod pruned;
mod pytorch;
mod sensitivity;
mod simulation;
mod tap;
