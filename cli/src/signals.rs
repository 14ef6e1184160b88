//! Signals that end the program: temporary files and a camera's program go first, and the exit status stays the
//! signal's.
//!
//! A separate thread waits for them, so that removing files needs no care for what a signal handler may do. SIGXFSZ
//! (a file would grow beyond `ulimit -f`) only comes to be ignored: the write then fails with an error, which is told
//! in one line.

#[cfg(unix)]
pub fn watch() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    use signal_hook::low_level::emulate_default_handler;

    let ending = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !ignored(signal));
    // Where signals cannot be watched, they end the program as they always did.
    let Ok(mut signals) = Signals::new(ending.chain([libc::SIGXFSZ])) else { return };
    let wait = move || {
        for signal in signals.forever().filter(|&signal| signal != libc::SIGXFSZ) {
            vitlet_convert::output::discard_all();
            crate::camera::stop();
            let _ = emulate_default_handler(signal);
        }
    };
    let _ = std::thread::Builder::new().name("signals".to_string()).spawn(wait);
}

/// Whether the program was started with this signal ignored, as `nohup` and shells that run it in the background do: so
/// it stays. Only Linux tells without `unsafe`; elsewhere the signal ends the program.
#[cfg(unix)]
fn ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(not(unix))]
pub fn watch() {}
