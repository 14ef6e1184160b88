//! Cameras: programs that write frames (`exec:`, `rpicam`) and servers of MJPEG (`mjpeg:`).
//!
//! A thread reads, as fast as the camera sends, and keeps the newest whole frame. Whoever asks gets that one, and how
//! many came and went before it: a slow network then sees the present, not a queue of the past. Frames are raw, of a
//! size that the arguments tell, or JPEG, whose bytes tell where each ends.

use std::fmt;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::SystemTime;

use crate::error::{Error, Result, why};

mod http;
mod jpegs;

/// Where frames come from, as `--camera` names it.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A command of the shell that writes frames to its standard output.
    Exec(String),
    /// An address that answers with JPEG after JPEG.
    Mjpeg(http::Url),
    /// The camera of this number, by rpicam-vid or its older name.
    Rpicam(u32),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("exec", command) if !command.trim().is_empty() => Ok(Self::Exec(command.to_string())),
            ("mjpeg", url) => url.parse().map(Self::Mjpeg),
            ("rpicam", "") => Ok(Self::Rpicam(0)),
            ("rpicam", camera) => camera.parse().map(Self::Rpicam).map_err(|_| "rpicam:N is a number".to_string()),
            ("v4l2", _) => Err("not supported yet; exec:COMMAND can run v4l2-ctl (docs/raspberry-pi.md)".to_string()),
            _ => Err("cameras are exec:COMMAND, mjpeg:http://HOST/PATH, rpicam or rpicam:N".to_string()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exec(command) => write!(f, "exec:{command}"),
            Self::Mjpeg(url) => write!(f, "mjpeg:{url}"),
            Self::Rpicam(camera) => write!(f, "rpicam:{camera}"),
        }
    }
}

/// How long a frame is.
#[derive(Clone, Copy)]
pub enum Framing {
    /// So many bytes.
    Bytes(usize),
    /// One JPEG.
    Jpeg,
}

/// A frame that nobody has looked at yet.
pub struct Frame {
    /// Counted from 0, those that were dropped included.
    pub number: u64,
    /// Frames between this one and the last that was taken.
    pub dropped: u64,
    /// When its last byte was there.
    pub time: SystemTime,
    pub bytes: Vec<u8>,
}

/// A camera that is running. It ends with the value.
pub struct Camera {
    name: String,
    newest: Arc<Newest>,
    child: Option<Child>,
    taken: u64,
}

/// What the reading thread hands over.
#[derive(Default)]
struct Newest {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    frame: Option<(SystemTime, Vec<u8>)>,
    /// Frames that came, whole.
    count: u64,
    /// Why nothing comes any more: the end, or what was wrong.
    ended: Option<Result<(), String>>,
}

impl Newest {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, bytes: Vec<u8>) {
        let mut state = self.lock();
        state.frame = Some((SystemTime::now(), bytes));
        state.count += 1;
        self.changed.notify_one();
    }

    fn end(&self, how: Result<(), String>) {
        self.lock().ended = Some(how);
        self.changed.notify_one();
    }
}

impl Camera {
    /// Starts the program or opens the connection. `size` is what a camera is asked for that gives any.
    pub fn open(source: &Source, framing: Framing, size: (u32, u32)) -> Result<Self> {
        let name = source.to_string();
        let about = |why: String| Error::new(&name, why);
        let (child, stream): (_, Box<dyn Read + Send>) = match source {
            Source::Mjpeg(url) => (None, url.get().map_err(about)?),
            Source::Exec(command) => start(Command::new("sh").args(["-c", command])).map_err(|e| about(why(&e)))?,
            Source::Rpicam(camera) => start_rpicam(*camera, size).map_err(about)?,
        };
        let newest = Arc::new(Newest::default());
        let kept = Arc::clone(&newest);
        let reading = move || kept.end(read(stream, framing, &kept));
        thread::Builder::new().name("camera".to_string()).spawn(reading).map_err(|e| about(why(&e)))?;
        Ok(Self { name, newest, child, taken: 0 })
    }

    /// The newest frame that has not been taken, waiting for one; none after the last.
    pub fn newest(&mut self) -> Result<Option<Frame>> {
        let mut state = self.newest.lock();
        loop {
            if let Some((time, bytes)) = state.frame.take() {
                let number = state.count - 1;
                let dropped = number - self.taken;
                self.taken = state.count;
                return Ok(Some(Frame { number, dropped, time, bytes }));
            }
            if let Some(how) = state.ended.take() {
                drop(state);
                return self.end(how).map(|()| None);
            }
            state = self.newest.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What a camera that sends nothing more leaves behind: an exit status, or words about its last bytes.
    fn end(&mut self, how: Result<(), String>) -> Result<()> {
        let status = match &mut self.child {
            // It ended, or will: its output is closed.
            Some(child) if how.is_ok() => child.wait().map(Some),
            // It may go on sending what nobody reads.
            Some(child) => child.try_wait(),
            None => Ok(None),
        };
        let status = status.map_err(|e| Error::new(&self.name, why(&e)))?;
        let failed = status.filter(|status| !status.success()).map(|status| status.to_string());
        match (failed.or(how.err()), self.taken) {
            (Some(why), frames) => Err(Error::new(&self.name, format!("{why}, after {frames} frames"))),
            (None, 0) => Err(Error::new(&self.name, "no frames")),
            (None, _) => Ok(()),
        }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        stop();
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The process group of the program that runs, or 0. A shell's loop outlives its reader, and its own kill leaves the
/// commands in it alone, so all of them are ended together.
static GROUP: AtomicI32 = AtomicI32::new(0);

/// Ends the camera's program and whatever it started: at the end, and when a signal ends this program.
pub fn stop() {
    let _group = GROUP.swap(0, Ordering::SeqCst);
    #[cfg(target_os = "linux")]
    if let Some(group) = rustix::process::Pid::from_raw(_group) {
        // All of them may have ended by themselves.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
    }
}

type Started = (Option<Child>, Box<dyn Read + Send>);

fn start(command: &mut Command) -> io::Result<Started> {
    #[cfg(target_os = "linux")]
    std::os::unix::process::CommandExt::process_group(command, 0);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    GROUP.store(child.id().cast_signed(), Ordering::SeqCst);
    let stream = child.stdout.take().ok_or_else(|| io::Error::other("no standard output"))?;
    Ok((Some(child), Box::new(stream)))
}

/// rpicam-vid, or libcamera-vid as Raspberry Pi OS called it before 2023. Rows of 64 pixels have no padding.
fn start_rpicam(camera: u32, (width, height): (u32, u32)) -> Result<Started, String> {
    for program in ["rpicam-vid", "libcamera-vid"] {
        let mut command = Command::new(program);
        command.args(["--timeout", "0", "--nopreview", "--flush", "--codec", "yuv420", "--output", "-"]);
        command.args(["--camera", &camera.to_string()]);
        command.args(["--width", &width.to_string(), "--height", &height.to_string()]);
        match start(&mut command) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            started => return started.map_err(|e| format!("{program}: {}", why(&e))),
        }
    }
    Err("neither rpicam-vid nor libcamera-vid is installed (apt-get install rpicam-apps)".to_string())
}

/// Reads frames to the end of the stream.
fn read(stream: Box<dyn Read + Send>, framing: Framing, newest: &Newest) -> Result<(), String> {
    match framing {
        Framing::Jpeg => {
            let mut jpegs = jpegs::Jpegs::new(stream);
            while let Some(bytes) = jpegs.next()? {
                newest.put(bytes);
            }
            Ok(())
        }
        Framing::Bytes(len) => read_raw(stream, len, newest),
    }
}

fn read_raw(mut stream: Box<dyn Read + Send>, len: usize, newest: &Newest) -> Result<(), String> {
    loop {
        let mut bytes = Vec::with_capacity(len);
        stream.by_ref().take(len as u64).read_to_end(&mut bytes).map_err(|e| why(&e))?;
        match bytes.len() {
            0 => return Ok(()),
            whole if whole == len => newest.put(bytes),
            part => return Err(format!("ends within a frame, {part} of {len} bytes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        let parse = |text: &str| text.parse::<Source>();
        assert_eq!(parse("exec:a b | c:d"), Ok(Source::Exec("a b | c:d".to_string())));
        assert_eq!((parse("rpicam"), parse("rpicam:1")), (Ok(Source::Rpicam(0)), Ok(Source::Rpicam(1))));
        assert_eq!(parse("mjpeg:http://cam:8080/?x=1").unwrap().to_string(), "mjpeg:http://cam:8080/?x=1");
        for wrong in ["exec:", "exec", "mjpeg:", "mjpeg:ftp://x/", "rpicam:x", "/dev/video0", "v4l2:/dev/video0", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    /// A reader that hands out three frames; the last waits until the first has been taken.
    #[test]
    fn the_newest_frame_wins_and_the_others_are_counted() {
        let newest = Arc::new(Newest::default());
        let mut camera = Camera { name: "test".to_string(), newest: Arc::clone(&newest), child: None, taken: 0 };
        for byte in 0..3 {
            newest.put(vec![byte]);
        }
        let frame = camera.newest().unwrap().unwrap();
        assert_eq!((frame.number, frame.dropped, frame.bytes), (2, 2, vec![2]));
        newest.put(vec![3]);
        newest.end(Ok(()));
        let frame = camera.newest().unwrap().unwrap();
        assert_eq!((frame.number, frame.dropped, frame.bytes), (3, 0, vec![3]));
        assert!(camera.newest().unwrap().is_none());
    }

    #[test]
    fn a_camera_that_stops_within_a_frame_says_so_after_the_whole_ones() {
        let newest = Newest::default();
        let why = read_raw(Box::new(&[1u8, 2, 3, 4, 5][..]), 2, &newest).unwrap_err();
        assert_eq!(why, "ends within a frame, 1 of 2 bytes");
        assert_eq!(newest.lock().count, 2);
    }
}
