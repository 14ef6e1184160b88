//! The program as its users meet it: the real binary on fixture checkpoints and on pictures made here.

mod camera;
mod classify;
mod common;
mod compare;
mod depth;
mod eval;
mod eval_depth;
mod eval_segment;
mod finite;
mod hub;
mod hub_cache;
mod hub_model;
mod inspect;
mod layerscale;
mod mutate;
mod onnx;
mod outputs;
mod pictures;
mod run;
mod segment;
mod sizes;
mod stream;
mod terminal;
mod torch;
mod usage;
