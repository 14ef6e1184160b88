//! vitlet on a Raspberry Pi 3, 4 or 5 without an operating system: one picture, on one core and on all four.
//!
//! Where every subsystem lives:
//! - `boot.s`        from the firmware to Rust, for every core: EL1, FP/SIMD, vectors, MMU, caches; the page tables
//! - `fault.rs`      the output of the vectors; panics; how the machine stops
//! - `board.rs`      which Pi this is, and its addresses
//! - `console.rs`    the PL011 UART
//! - `mailbox.rs`    the VideoCore firmware: clocks, temperature, throttling
//! - `timer.rs`      the architectural timer and the cycle counter
//! - `heap.rs`       the heap (embedded-alloc), and its critical sections
//! - `cores.rs`      the secondary cores, and the engine's `Executor` over them
//! - `files.rs`      model and picture: built in, or loaded by the firmware (initramfs)
//! - the `vitlet-firmware` crate: picture decoding, classification, the printed answer
//!
//! ```text
//! address          memory                                     mapped as
//! 0x00_0000_0000   firmware: spin table at 0xd8               Normal, write-back
//! 0x00_0008_0000   kernel8.img: code, model, picture, data    Normal
//!                  .bss, 4 stacks of 256 KiB                  Normal
//!   next 2 MiB     heap                                       Normal
//! 0x00_0800_0000   initramfs and device tree (config.txt)     Normal
//! 0x00_1800_0000   the rest of the RAM                        -
//! 0x00_3f00_0000   peripherals of the Pi 3, Zero 2 W          Device
//! 0x00_fe00_0000   peripherals of the Pi 4                    Device
//! 0x10_7c00_0000   peripherals of the Pi 5                    Device
//! ```
//! An identity map, the same on every board; an access outside the map faults. Everything in Normal memory may be
//! written and executed.
#![no_std]
#![no_main]

extern crate alloc;

mod board;
mod console;
mod cores;
mod fault;
mod files;
mod heap;
mod mailbox;
mod timer;

use core::fmt::Write;

use vitlet::{Kernels, Model, Sequential};
use vitlet_firmware::Error;

use crate::board::Board;
use crate::console::{console, println};
use crate::cores::SecondaryCores;
use crate::files::Files;

core::arch::global_asm!(include_str!("boot.s"));

/// Core 0 comes here from boot.s: EL1, MMU and caches on, .bss zeroed. `device_tree`: the address that the firmware
/// left in x0.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(device_tree: usize) -> ! {
    let board = Board::current();
    console::init(board);
    heap::init();
    timer::init();
    println!("\nvitlet {} on a {}", env!("CARGO_PKG_VERSION"), board.name());
    raise_clock(board);
    let secondary = SecondaryCores::start(board);
    let result = classify(&Files::find(device_tree), &secondary);
    if let Err(e) = &result {
        println!("error: {e}");
    }
    warn_of_throttling(board);
    fault::stop(result.is_err())
}

fn classify(files: &Files, secondary: &SecondaryCores) -> Result<(), Error> {
    // SAFETY: this is EL1, every core of a Pi is of one kind, and boot.s enables FP/SIMD on each.
    let kernels = unsafe {
        let [isar0, isar1, pfr0] = Kernels::read_aarch64_id_registers();
        Kernels::from_aarch64_id_registers(isar0, isar1, pfr0)
    };
    let model = Model::parse(files.model.bytes)?;
    let picture = vitlet_firmware::decode(files.picture.bytes)?;
    let out: &mut dyn Write = &mut console();
    vitlet_firmware::describe(out, files.model.origin, &model)?;
    writeln!(out, "picture  {}: {} x {}", files.picture.origin, picture.width, picture.height)?;
    writeln!(out, "kernels  {}", kernels.name())?;
    vitlet_firmware::classify(out, &model, &picture, kernels, &[&Sequential, secondary], timer::clock())
}

/// The firmware leaves the ARM cores at a low clock: asks for the highest.
fn raise_clock(board: Board) {
    let Some(mut mailbox) = mailbox::Mailbox::new(board) else {
        println!("clock    as the firmware left it, measured {} MHz", timer::measure_mhz());
        return;
    };
    let max = mailbox.max_arm_clock_hz();
    let set = max.and_then(|hz| mailbox.set_arm_clock_hz(hz));
    match (max, set) {
        (Some(max), Some(set)) => {
            println!(
                "clock    {} MHz set, {} MHz at most, measured {} MHz",
                set / 1_000_000,
                max / 1_000_000,
                timer::measure_mhz()
            );
        }
        _ => println!("clock    the firmware does not answer, measured {} MHz", timer::measure_mhz()),
    }
    if let Some(millidegrees) = mailbox.temperature() {
        println!("chip     {} degrees Celsius", millidegrees / 1000);
    }
}

/// Times of a board whose clock was held down say nothing.
fn warn_of_throttling(board: Board) {
    let throttled = mailbox::Mailbox::new(board).and_then(|mut mailbox| mailbox.throttled());
    let Some(throttling) = throttled.map(|bits| bits.throttling()) else { return };
    for reason in throttling.since_boot {
        println!("warning: since the board started: {reason}");
    }
}
