//! A camera's program: started in a process group of its own, and ended with all that it started.

use std::io;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};

use super::Started;

/// The process group of the program that runs, or 0. A shell's loop outlives its reader, and its own kill leaves the
/// commands in it alone, so all of them are ended together.
static GROUP: AtomicI32 = AtomicI32::new(0);

/// Starts the program whose standard output is the stream.
pub(super) fn start(command: &mut Command) -> io::Result<Started> {
    #[cfg(target_os = "linux")]
    std::os::unix::process::CommandExt::process_group(command, 0);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    GROUP.store(child.id().cast_signed(), Ordering::SeqCst);
    let stream = child.stdout.take().ok_or_else(|| io::Error::other("no standard output"))?;
    Ok((Some(child), Box::new(stream)))
}

/// Ends the camera's program and whatever it started: at the end, and when a signal ends this program.
pub fn stop() {
    let _group = GROUP.swap(0, Ordering::SeqCst);
    #[cfg(target_os = "linux")]
    if let Some(group) = rustix::process::Pid::from_raw(_group) {
        // All of them may have ended by themselves.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
    }
}
