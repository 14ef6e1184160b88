//! The program's errors. Every one is a single line, `what: why`, and decides the exit status. A closed pipe on
//! standard output ends the program silently, as in `vitlet classify photos | head`.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

pub use vitlet_convert::why;

use crate::output;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The exit statuses of all commands (docs/cli.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Everything that was asked for was done.
    Done = 0,
    /// Nothing was done, or not to its end.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The work was done, and a check of its result failed: a limit that was given, a checksum.
    Rejected = 3,
    /// Some inputs were left out, the others were done.
    Partial = 4,
}

#[derive(Debug)]
pub enum Error {
    /// Something that was asked for could not be done: `what: why`.
    Failed(String),
    /// The command line asks for something that does not exist.
    Usage(String),
    /// The work was done, and a check of its result failed.
    Rejected(String),
    /// All inputs failed; each has been named already.
    AllFailed,
    /// Some inputs failed, each has been named already; the others were done. The line counts them.
    Partial(String),
    /// Standard output takes nothing more, and why. Whatever else there is to do cannot be told.
    Stdout(String),
    /// Nobody reads standard output any more.
    BrokenPipe,
}

impl Error {
    /// `what: why`.
    pub fn new(what: impl Display, why: impl Display) -> Self {
        Self::Failed(format!("{what}: {why}"))
    }

    /// The line, without `what: ` where it is about `what`.
    pub fn why(&self, what: &str) -> String {
        let line = match self {
            Self::Failed(line) | Self::Usage(line) | Self::Rejected(line) => line,
            Self::AllFailed | Self::Partial(_) | Self::Stdout(_) | Self::BrokenPipe => "",
        };
        line.strip_prefix(what).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(line).to_string()
    }

    /// What it does to the exit status.
    pub fn status(&self) -> Status {
        match self {
            Self::Failed(_) | Self::AllFailed | Self::Stdout(_) => Status::Failed,
            Self::Usage(_) => Status::Usage,
            Self::Rejected(_) => Status::Rejected,
            Self::Partial(_) => Status::Partial,
            Self::BrokenPipe => Status::Done,
        }
    }

    /// Prints the error's line, if it has one, and gives the exit status.
    pub fn report(&self) -> ExitCode {
        match self {
            Self::Failed(line) | Self::Usage(line) | Self::Rejected(line) => output::error(line),
            Self::Stdout(why) => output::error(&format!("standard output: {why}")),
            Self::Partial(line) => output::warn(line),
            Self::AllFailed | Self::BrokenPipe => {}
        }
        ExitCode::from(self.status() as u8)
    }
}

/// Counts the inputs of a command that goes on where one fails.
#[derive(Debug, Default)]
pub struct Inputs {
    done: usize,
    failed: usize,
}

impl Inputs {
    /// After so many.
    pub fn counted(done: usize, failed: usize) -> Self {
        Self { done, failed }
    }

    /// One more is done.
    pub fn done(&mut self) {
        self.done += 1;
    }

    /// How many are done.
    pub fn count(&self) -> usize {
        self.done
    }

    /// How many there were.
    pub fn total(&self) -> usize {
        self.done + self.failed
    }

    /// One more is left out, and named.
    pub fn failed(&mut self, error: &Error) {
        self.failed += 1;
        error.report();
    }

    /// How many of them failed, as in "1 of 5 inputs left out"; none where all are done.
    pub fn failures(&self, what: &str) -> Option<String> {
        (self.failed > 0).then(|| format!("{} of {} {what}", self.failed, self.total()))
    }

    /// The command's result, after everything else that it has to say.
    pub fn end(&self) -> Result<()> {
        match self.failures("inputs left out") {
            None => Ok(()),
            Some(_) if self.done == 0 => Err(Error::AllFailed),
            Some(line) => Err(Error::Partial(line)),
        }
    }
}

/// Errors of writing to standard output; every other I/O error says what it was about with [`Context`].
impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Stdout(why(&e)),
        }
    }
}

/// The converter's errors are the program's.
impl From<vitlet_convert::Error> for Error {
    fn from(e: vitlet_convert::Error) -> Self {
        Self::new(e.what, e.why)
    }
}

/// Adds the `what` to an error that only knows why.
pub trait Context<T> {
    /// `what: why`.
    fn about(self, what: impl Display) -> Result<T>;
}

impl<T, E: Display> Context<T> for Result<T, E> {
    fn about(self, what: impl Display) -> Result<T> {
        self.map_err(|e| Error::new(what, e))
    }
}
