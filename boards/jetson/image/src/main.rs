//! vitlet as a UEFI application, for Jetson Xavier and Orin (their firmware is UEFI), the Jetson Nano (U-Boot's
//! `bootefi`) and any other 64-bit Arm board with UEFI: one picture of the boot volume, on the core that the firmware
//! runs on.
//!
//! Where every subsystem lives:
//! - this file       what happens, in order
//! - `volume.rs`     model and picture, from the volume that the application was started from
//! - the `uefi` crate: entry, console, files, heap (the firmware's pool), panics
//! - the `vitlet-firmware` crate: picture decoding, classification, the printed answer
//!
//! ```text
//! memory (where: as the firmware likes)                       whose
//! code, read-only data, data                                  loaded and relocated by the firmware
//! stack, 128 KiB or more                                      the firmware's
//! model file, picture, pixels, the engine's scratch memory    pool memory (LoaderData), by the global allocator
//! page tables, vectors, MMU, caches, FP/SIMD                  set up by the firmware: identity map, caches on
//! peripherals                                                 touched by the firmware only
//! ```
#![no_std]
#![no_main]

extern crate alloc;

mod volume;

use core::fmt::Write;
use core::time::Duration;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTVCT_EL0, Readable};
use uefi::boot::{self, EventType, TimerTrigger, Tpl};
use uefi::runtime::{self, ResetType};
use uefi::{Status, entry, println, system};
use vitlet::{Kernels, Model, Sequential};
use vitlet_firmware::Clock;

use crate::volume::Failure;

#[entry]
fn main() -> Status {
    // The firmware resets a machine whose application has not ended after five minutes, unless told not to.
    let watchdog = boot::set_watchdog_timer(0, 0x1_0000, None);
    println!("vitlet {} under UEFI ({})", env!("CARGO_PKG_VERSION"), system::firmware_vendor());
    if let Err(e) = watchdog {
        println!("warning: the watchdog stays on: {e}");
    }
    let result = classify();
    if let Err(e) = &result {
        println!("error: {e}");
    }
    farewell();
    if result.is_ok() { Status::SUCCESS } else { Status::ABORTED }
}

fn classify() -> Result<(), Failure> {
    let files = volume::read()?;
    let model = Model::parse(&files.model).map_err(vitlet_firmware::Error::from)?;
    let picture = vitlet_firmware::decode(&files.picture)?;
    // SAFETY: UEFI runs at EL1 or EL2 with FP/SIMD on (UEFI specification, 2.3.6), and the kernels run on this core
    // alone.
    let kernels = unsafe {
        let [isar0, isar1, pfr0] = Kernels::read_aarch64_id_registers();
        Kernels::from_aarch64_id_registers(isar0, isar1, pfr0)
    };
    system::with_stdout(|out| {
        let out: &mut dyn Write = out;
        vitlet_firmware::describe(out, "model.gguf", &model)?;
        writeln!(out, "picture  {}: {} x {}", files.picture_name, picture.width, picture.height)?;
        writeln!(out, "kernels  {}", kernels.name())?;
        vitlet_firmware::classify(out, &model, &picture, kernels, &[&Sequential], clock())
    })?;
    Ok(())
}

/// The architectural timer.
fn clock() -> Clock {
    fn now() -> u64 {
        // Not before the instructions before it.
        barrier::isb(barrier::SY);
        CNTVCT_EL0.get()
    }
    Clock { now, hz: CNTFRQ_EL0.get().max(1) }
}

/// Leaves the text on the screen for a while; then switches the machine off, or, at a key, returns to the firmware.
fn farewell() {
    const SECONDS: u64 = 5;
    println!("off in {SECONDS} s; a key returns to the firmware");
    if wait_for_key(Duration::from_secs(SECONDS)).unwrap_or(false) {
        return;
    }
    runtime::reset(ResetType::SHUTDOWN, Status::SUCCESS, None);
}

/// Whether a key was pressed within `time`.
fn wait_for_key(time: Duration) -> uefi::Result<bool> {
    // SAFETY: no notification function, so nothing runs on this event's behalf.
    let timer = unsafe { boot::create_event(EventType::TIMER, Tpl::APPLICATION, None, None) }?;
    boot::set_timer(&timer, TimerTrigger::Relative(time))?;
    let key = system::with_stdin(|input| input.wait_for_key_event())?;
    let first = boot::wait_for_event(&[timer, key]).map_err(|e| e.status())?;
    Ok(first == 1)
}
