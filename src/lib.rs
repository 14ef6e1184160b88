//! vitlet: int8 and f16 Vision Transformers with LayerScale, for ARM CPUs.
//!
//! The engine: no allocation, no operating system needed. It reads a model file in place, runs it in memory that the
//! caller gives, and returns logits that are the same bits on every instruction set, thread count and machine (int8 and f32 models).
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! static MODEL: &[u8] = vitlet::include_model!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/cifar10-vit-layerscale/model.gguf"));
//! let model = vitlet::Model::parse(MODEL)?;
//! let run = vitlet::RunConfig {
//!     kernels: vitlet::Kernels::detect(),
//!     executor: &vitlet::Sequential,
//!     max_picture: (640, 480),
//!     output: vitlet::Output::Logits,
//! };
//! let mut scratch = vec![vitlet::F32x16([0.0; 16]); model.scratch_bytes(&run)?.div_ceil(64)];
//! let mut session = vitlet::Session::new(&model, &run, vitlet::scratch_from(&mut scratch))?;
//! let pixels = vec![128; 640 * 480 * 3];
//! let picture = vitlet::Picture::rgb8(&pixels, 640, 480, 3 * 640);
//! let logits = session.run_picture(&picture)?;
//! let best = vitlet::top_k::<1>(logits)[0];
//! println!("{:?} {}", model.label(best.0), best.1);
//! # Ok(())
//! # }
//! ```
//!
//! Data flows one way and imports point one way: [`session`](Session) -> `family` -> `ops` -> `kernels`; `model` borrows
//! weights from `gguf`. `unsafe` lives in `kernels`, `bytes` and `parallel` (and `threads` with an operating system).
#![no_std]
#![deny(unsafe_code)]

#[cfg(any(feature = "std", test))]
extern crate std;

mod arena;
mod bytes;
pub mod config;
mod digest;
mod error;
mod family;
mod gguf;
mod kernels;
pub mod layout;
mod model;
mod ops;
mod parallel;
pub mod picture;
mod profile;
mod ranking;
mod scores;
mod session;
mod tap;
#[cfg(feature = "std")]
mod threads;

pub use bytes::scratch_from;
pub use config::{Activation, Config, Family, LayerScale, Named, Pooling, Precision, Scores};
pub use digest::{checksum, digest};
pub use error::Error;
pub use kernels::Kernels;
pub use kernels::isa::F32x16;
#[cfg(feature = "std")]
#[doc(hidden)]
pub use kernels::{bench, peak};
pub use model::Model;
pub use parallel::{Executor, MAX_THREADS, Sequential};
pub use picture::{Format, Picture, PictureError, Plane, Preprocess, Region, Rotation, Yuv};
pub use profile::{Profile, Stage};
#[cfg(feature = "std")]
pub use ranking::best;
pub use ranking::{next_best, top_k};
pub use scores::{Scorer, scores};
pub use session::{Output, RunConfig, Session};
pub use tap::{Place, Rows, Tap};
#[cfg(feature = "std")]
pub use threads::ThreadPool;

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
