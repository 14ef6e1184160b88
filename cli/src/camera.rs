//! Cameras: programs that write frames (`exec:`, `rpicam`, `v4l2:`), servers of MJPEG (`mjpeg:`), and streams that are
//! there already.
//!
//! A thread reads, as fast as the frames come, and keeps the newest whole one. Whoever asks gets that one, and how
//! many came and went before it: a slow network then sees the present, not a queue of the past. Where every frame
//! counts ([`Keep::Every`]), the thread waits until the last one was taken, and so does whoever sends. Frames are raw,
//! of a size that the arguments tell, or JPEG, whose bytes tell where each ends.

use std::io::Read;
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::SystemTime;

use crate::error::{Error, Result, why};
use crate::output;

mod http;
mod huffman;
mod jpegs;
mod program;
mod raw;
mod source;
mod v4l2;

pub use huffman::complete;
pub use program::stop;
pub use raw::RawFormat;
pub use source::{Opening, Source};

/// A stream of frames, and the program that writes it, if this one started it.
type Started = (Option<Child>, Box<dyn Read + Send>);

/// Which frames are given where they come faster than they are taken.
#[derive(Clone, Copy, PartialEq)]
pub enum Keep {
    Newest,
    Every,
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
    /// What its frames are; JPEGs without.
    raw: Option<RawFormat>,
    newest: Arc<Newest>,
    child: Option<Child>,
    taken: u64,
}

/// What the reading thread hands over.
struct Newest {
    keep: Keep,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    frame: Option<(SystemTime, Vec<u8>)>,
    /// Frames that came, whole.
    count: u64,
    /// Why nothing comes any more.
    ended: Option<End>,
    /// Nobody takes frames any more.
    closed: bool,
}

/// How a stream ended: with so many bytes of a frame that is not whole, or with an error that says why.
type End = Result<usize, String>;

impl Newest {
    fn new(keep: Keep) -> Self {
        Self { keep, state: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over a frame. False where nobody takes it.
    fn put(&self, bytes: Vec<u8>) -> bool {
        let mut state = self.lock();
        while self.keep == Keep::Every && state.frame.is_some() && !state.closed {
            state = self.wait(state);
        }
        state.frame = Some((SystemTime::now(), bytes));
        state.count += 1;
        self.changed.notify_all();
        !state.closed
    }

    fn end(&self, how: End) {
        self.lock().ended = Some(how);
        self.changed.notify_all();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

impl Camera {
    /// Starts the program or opens the connection.
    pub fn open(source: &Source, opening: Opening, keep: Keep) -> Result<Self> {
        let (name, raw) = (source.to_string(), opening.raw);
        let started = opening.start().map_err(|why| Error::new(&name, why))?;
        Self::over(name, started, raw, keep)
    }

    /// Raw frames of a stream that is open.
    pub fn read(name: String, stream: Box<dyn Read + Send>, raw: RawFormat, keep: Keep) -> Result<Self> {
        Self::over(name, (None, stream), Some(raw), keep)
    }

    fn over(name: String, (child, stream): Started, raw: Option<RawFormat>, keep: Keep) -> Result<Self> {
        let newest = Arc::new(Newest::new(keep));
        let kept = Arc::clone(&newest);
        let reading = move || {
            kept.end(match raw {
                Some(raw) => read_raw(stream, raw.bytes(), &kept),
                None => read_jpegs(stream, &kept),
            });
        };
        let camera = Self { name, raw, newest, child, taken: 0 };
        let thread = thread::Builder::new().name("camera".to_string()).spawn(reading);
        thread.map_err(|e| Error::new(&camera.name, why(&e)))?;
        Ok(camera)
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its frames are; JPEGs without.
    pub fn raw(&self) -> Option<RawFormat> {
        self.raw
    }

    /// The next frame that is kept, waiting for one; none after the last.
    pub fn next(&mut self) -> Result<Option<Frame>> {
        let mut state = self.newest.lock();
        loop {
            if let Some((time, bytes)) = state.frame.take() {
                let number = state.count - 1;
                let dropped = number - self.taken;
                self.taken = state.count;
                self.newest.changed.notify_all();
                return Ok(Some(Frame { number, dropped, time, bytes }));
            }
            if let Some(how) = state.ended.take() {
                drop(state);
                return self.end(how).map(|()| None);
            }
            state = self.newest.wait(state);
        }
    }

    /// What a camera that sends nothing more leaves behind: an exit status, or words about its last bytes.
    fn end(&mut self, how: End) -> Result<()> {
        let status = match &mut self.child {
            // It ended, or will: its output is closed.
            Some(child) if how.is_ok() => child.wait().map(Some),
            // It may go on sending what nobody reads.
            Some(child) => child.try_wait(),
            None => Ok(None),
        };
        let status = status.map_err(|e| Error::new(&self.name, why(&e)))?;
        let failed = status.filter(|status| !status.success()).map(|status| status.to_string());
        match (failed, how) {
            (Some(why), _) | (None, Err(why)) => {
                Err(Error::new(&self.name, format!("{why}, after {} frames", self.taken)))
            }
            (None, Ok(rest)) => self.rest(rest),
        }
    }

    /// A stream that ended with `rest` bytes after its last whole frame: as it should, as a camera that was stopped,
    /// or wrong.
    fn rest(&self, rest: usize) -> Result<()> {
        let (name, frames, bytes) = (&self.name, self.taken, self.raw.map_or(0, |raw| raw.bytes()));
        match (frames, rest) {
            (0, 0) => Err(Error::new(name, "no frames")),
            (0, _) => Err(Error::new(name, format!("{rest} bytes, less than one frame of {bytes}"))),
            (_, 0) => Ok(()),
            _ => {
                let fit = self.raw.and_then(|raw| raw.fit(frames * bytes as u64 + rest as u64));
                let fit = fit.map_or(String::new(), |fit| format!("; {fit}"));
                output::warn(&format!("{name}: ends within frame {frames}, {rest} of {bytes} bytes{fit}"));
                Ok(())
            }
        }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.newest.close();
        if let Some(child) = &mut self.child {
            stop();
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn read_jpegs(stream: Box<dyn Read + Send>, newest: &Newest) -> End {
    let mut jpegs = jpegs::Jpegs::new(stream);
    while let Some(bytes) = jpegs.next()? {
        if !newest.put(bytes) {
            break;
        }
    }
    Ok(0)
}

fn read_raw(mut stream: Box<dyn Read + Send>, len: usize, newest: &Newest) -> End {
    loop {
        let mut bytes = Vec::with_capacity(len);
        stream.by_ref().take(len as u64).read_to_end(&mut bytes).map_err(|e| why(&e))?;
        if bytes.len() < len {
            return Ok(bytes.len());
        }
        if !newest.put(bytes) {
            return Ok(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn camera(newest: &Arc<Newest>) -> Camera {
        let raw = Some("gray:2x1".parse().unwrap());
        Camera { name: "test".to_string(), raw, newest: Arc::clone(newest), child: None, taken: 0 }
    }

    #[test]
    fn the_newest_frame_wins_and_the_others_are_counted() {
        let newest = Arc::new(Newest::new(Keep::Newest));
        let mut camera = camera(&newest);
        for byte in 0..3 {
            newest.put(vec![byte]);
        }
        let frame = camera.next().unwrap().unwrap();
        assert_eq!((frame.number, frame.dropped, frame.bytes), (2, 2, vec![2]));
        newest.put(vec![3]);
        newest.end(Ok(0));
        let frame = camera.next().unwrap().unwrap();
        assert_eq!((frame.number, frame.dropped, frame.bytes), (3, 0, vec![3]));
        assert!(camera.next().unwrap().is_none());
    }

    #[test]
    fn where_every_frame_counts_the_reader_waits() {
        let raw = "gray:2x1".parse().unwrap();
        let stream = Box::new(io::Cursor::new((0..20).collect::<Vec<u8>>()));
        let mut camera = Camera::read("test".to_string(), stream, raw, Keep::Every).unwrap();
        for number in 0..10 {
            let frame = camera.next().unwrap().unwrap();
            let first = 2 * number as u8;
            assert_eq!((frame.number, frame.dropped, frame.bytes), (number, 0, vec![first, first + 1]));
        }
        assert!(camera.next().unwrap().is_none());
    }

    /// A camera that is no longer needed ends the thread that waits for it.
    #[test]
    fn a_closed_camera_takes_no_more_frames() {
        let newest = Arc::new(Newest::new(Keep::Every));
        drop(camera(&newest));
        assert_eq!(read_raw(Box::new(io::repeat(7)), 2, &newest), Ok(0));
    }

    #[test]
    fn a_camera_that_stops_within_a_frame_says_so_after_the_whole_ones() {
        let newest = Arc::new(Newest::new(Keep::Newest));
        assert_eq!(read_raw(Box::new(&[1u8, 2, 3, 4, 5][..]), 2, &newest), Ok(1));
        assert_eq!(newest.lock().count, 2);
    }
}
