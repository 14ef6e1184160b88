//! Conversions from end to end, over the fixture checkpoints in tests/fixtures; and the layers of the crate's modules.

mod arch;
mod checkpoints;
mod common;
mod depth_anything;
mod errors;
mod layers;
mod layerscale;
mod onnx;
mod outputs;
mod patches;
mod settings;
mod sources;
mod torch;
mod vectors;
mod vit5;
mod wrappers;
