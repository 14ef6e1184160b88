//! The facts that every ARM board under Linux tells about itself, and their use for an inference: which cores it has,
//! their clocks and temperature, and how many threads are worth having.
//!
//! Everything is read from small text files (device tree, sysfs, procfs), and the reading is the caller's: [`Files`].
//! So the same code runs on a board, on another machine against a copied tree, and on bare metal, where a MIDR register
//! is all there is ([`Core`]). What only one family of boards has is in `vitlet-raspberry-pi` and `vitlet-jetson`.
//!
//! ```no_run
//! use std::io::{Read, Seek, SeekFrom};
//! let files = |path: &str, offset: u64, buffer: &mut [u8]| {
//!     let mut file = std::fs::File::open(path).ok()?;
//!     file.seek(SeekFrom::Start(offset)).ok()?;
//!     file.read(buffer).ok()
//! };
//! let cpus = vitlet_board::Cpus::read(&files);
//! println!("{} threads on {:?}", cpus.plan().threads, vitlet_board::model(&files));
//! ```
#![no_std]
#![forbid(unsafe_code)]

mod core_id;
mod cpus;
mod files;
mod thermal;

pub use core_id::Core;
pub use cpus::{Clock, Cluster, Cpu, CpuSet, Cpus, MOST_CPUS, MOST_THREADS, Plan};
pub use files::{Files, Text, each_line, hexadecimal, number, text};
pub use thermal::{Reasons, Throttling, cpu_cooling, cpu_temperature};

/// Where Linux shows the device tree that the firmware handed over (/proc/device-tree leads here).
const DEVICE_TREE: &str = "/sys/firmware/devicetree/base";

/// The board's name as its device tree says it; None on machines without a device tree (PCs, virtual machines).
pub fn model(files: &impl Files) -> Option<Text> {
    text(files, format_args!("{DEVICE_TREE}/model"))
}

/// Calls `each` with the device tree's `compatible` strings (`vendor,thing`), the most special first, until it gives a
/// value. Device Tree Specification v0.4, 2.3.1: strings that end in NUL, one after the other.
pub fn compatible<T>(files: &impl Files, each: impl FnMut(&str) -> Option<T>) -> Option<T> {
    let mut buffer = [0; 512];
    let path = files::path(format_args!("{DEVICE_TREE}/compatible"))?;
    let len = files.read(&path, 0, &mut buffer)?;
    let strings = buffer.get(..len)?.split(|&byte| byte == 0);
    strings.filter_map(|bytes| core::str::from_utf8(bytes).ok()).find_map(each)
}
