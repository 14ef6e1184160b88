//! One file per command.

pub mod bench;
pub mod classify;
pub mod compare;
pub mod convert;
pub mod depth;
pub mod embed;
pub mod eval;
pub mod inspect;
pub mod preprocess;
pub mod run;
pub mod segment;
