//! vitlet: int8 and f16 Vision Transformers with LayerScale, for ARM CPUs.
//!
//! This is the engine. It needs neither allocation nor an operating system. It reads a model file in place, runs it in
//! memory that the caller gives, and returns logits. For int8 and f32 models these have the same bits on every
//! instruction set, thread count and machine.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut runner = vitlet::Runner::open("model.gguf")?;
//! let pixels = vec![128; 640 * 480 * 3];
//! let results = runner.run_picture(&vitlet::Picture::rgb8(&pixels, 640, 480, 3 * 640))?;
//! let (class, logit) = vitlet::top_k::<1>(results.first())[0];
//! println!("{:?} {logit}", runner.model().label(class));
//! # Ok(())
//! # }
//! ```
//!
//! Without allocation, the caller gives all memory:
//!
//! ```no_run
//! # fn main() -> Result<(), vitlet::Error> {
//! # const FILE: &[u8] = &[];
//! use vitlet::{Executor, Kernels, Model, Plan, RunConfig, Sequential};
//!
//! // The file's bytes, on a 64-byte boundary: see `include_model!`.
//! let model = Model::parse(FILE)?;
//! let plan = Plan::new(&model, &RunConfig::new(Kernels::baseline()).max_picture(640, 480), Sequential.threads())?;
//! let mut memory = [vitlet::F32x16([0.0; 16]); 1 << 12]; // or a static: plan.scratch_bytes() are needed
//! let mut session = plan.open(&model, &Sequential, vitlet::scratch_from(&mut memory))?;
//! let input = [0.0; 3 * 224 * 224];
//! let results = session.run_tensor(&input)?;
//! for (info, values) in results.iter() {
//!     // `info` has the output's name and shape.
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Modules stand in layers. Each imports only from the layers below its own (`tests/layers.rs`):
//!
//! | layer | modules |
//! |---|---|
//! | 11 | `runner` (owns file, memory and plan) |
//! | 10 | `session` (runs a plan in the caller's memory) |
//! | 9 | `plan` (the request for a run, checked and measured) |
//! | 8 | `model` (a checked file) |
//! | 7 | `networks` (the parts of each network, forward passes) |
//! | 6 | `heads` (outputs of maps: depth) |
//! | 5 | `ops` (hides the precision) |
//! | 4 | `parts` (names, order and shapes of tensors), `picture` (pixels to input), `threads` (the pool) |
//! | 3 | `kernels` (instruction sets); `layout` and `gguf` (the file); `output`, `positions`, `scores`, `parallel` |
//! | 2 | `config` (hyperparameters), `arena`, `scratch`, `profile` |
//! | 1 | `error`, `bytes` (memory changes its type) |
//! | 0 | `lanes` (chunks of sixteen numbers), `fpenv` (rounding), `digest`, `ranking`, `tap` |
//!
//! `unsafe` lives in `kernels`, `fpenv`, `bytes` and `parallel` (and `threads` with an operating system).
//!
//! Features: `std` (a default) detects the CPU and has a thread pool; `alloc` has `Runner` and `Scratch`, which own
//! their memory. `cait`, `convnext`, `resmlp`, `vit5` and `xcit` (defaults, together `networks`) are networks beside
//! the plain ViT and its relatives, `depth` (a default, in `heads`) is the depth head; a firmware leaves out those that
//! it does not run. `bench` is for this project's own benches; it is not part of the stable interface.
#![no_std]
#![deny(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

mod arena;
mod bytes;
pub mod config;
mod digest;
mod error;
mod fpenv;
mod gguf;
pub mod heads;
mod kernels;
mod lanes;
pub mod layout;
mod model;
pub mod networks;
mod ops;
mod output;
mod parallel;
pub mod parts;
pub mod picture;
mod plan;
pub mod positions;
mod profile;
mod ranking;
#[cfg(feature = "alloc")]
mod runner;
mod scores;
#[cfg(feature = "alloc")]
mod scratch;
mod session;
mod tap;
#[cfg(feature = "std")]
mod threads;

pub use bytes::scratch_from;
pub use config::{
    Activation, Config, Dpt, Family, Head, LayerScale, Named, Pooling, Positions, Precision, Resampling, Scores,
};
pub use digest::{checksum, digest};
pub use error::Error;
pub use kernels::Kernels;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub use kernels::{bench, peak};
pub use lanes::F32x16;
pub use model::{Model, ModelParts};
pub use output::{Output, OutputInfo};
pub use parallel::{Executor, MAX_THREADS, Sequential};
pub use picture::{Format, Picture, PictureError, Plane, Preprocess, Region, Rotation, Yuv};
pub use plan::{Plan, RunConfig};
pub use profile::{Profile, Stage};
#[cfg(feature = "std")]
pub use ranking::best;
pub use ranking::{next_best, top_k};
#[cfg(feature = "alloc")]
pub use runner::{ModelBytes, Runner};
pub use scores::{Scorer, scores};
#[cfg(feature = "alloc")]
pub use scratch::Scratch;
pub use session::{Results, Session};
pub use tap::{Place, Rows, Tap};
#[cfg(feature = "std")]
pub use threads::{PoolConfig, ThreadPool};

/// The bytes of a model file as a `&'static [u8]` on a 64-byte boundary, for [`Model::parse`].
#[macro_export]
macro_rules! include_model {
    ($path:expr) => {{
        #[repr(C, align(64))]
        struct Aligned<T: ?Sized>(T);
        static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!($path));
        &MODEL.0
    }};
}
