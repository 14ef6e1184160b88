//! libvitlet: the engine for C and C++. include/vitlet.h, made from this file's comments by cbindgen, says how to use
//! it.
//!
//! This crate is a boundary: it turns pointers into references and errors into statuses, and computes nothing. Rules
//! that every function here keeps:
//!
//! - All memory is the caller's; handles are structs at the start of it. Only `vitlet_pool_start` takes some from the
//!   system.
//! - A pointer that is null or misaligned gives a status before anything is read or written through it.
//! - Numbers from C (formats, rotations, ...) are looked up, never transmuted.
//! - No panic unwinds into the host. The engine does not panic after a model is parsed; if a bug did, functions that
//!   are `extern "C"` abort when a panic reaches them (and the profile `library` compiles with `panic = "abort"`).
//!   Without std, the panic handler traps.
//! - An exception that a host throws out of an executor's callback aborts as well.
#![no_std]
#![allow(non_camel_case_types)]

#[cfg(feature = "std")]
extern crate std;

mod error;
mod executor;
mod model;
mod output;
// Builds without std abort. One that unwinds is a check of the whole workspace, where other crates bring std and its
// handler.
#[cfg(all(not(feature = "std"), panic = "abort"))]
mod panic;
mod picture;
mod pointers;
#[cfg(feature = "std")]
mod pool;
mod result;
mod session;
mod status;
mod versions;

pub use error::*;
pub use executor::*;
pub use model::*;
pub use output::*;
pub use picture::*;
#[cfg(feature = "std")]
pub use pool::*;
pub use result::*;
pub use session::*;
pub use status::*;

use core::ffi::c_char;

/// The library's version, "major.minor.patch".
#[unsafe(no_mangle)]
pub extern "C" fn vitlet_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

#[cfg(all(test, feature = "std"))]
mod tests;
