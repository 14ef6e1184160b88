//! Conversions from end to end, over the fixture checkpoints in tests/fixtures.

mod arch;
mod checkpoints;
mod common;
mod errors;
mod layerscale;
mod onnx;
mod outputs;
mod settings;
mod sources;
mod torch;
mod vectors;
mod wrappers;
