//! The program's errors. Every one is a single line, `what: why`, and decides the exit status: 1 for what failed,
//! 2 for wrong usage, 3 for a result beyond a given limit (`eval --max-drop`). A closed pipe on standard output ends the program silently, as in `vitlet classify photos | head`.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

pub use vitlet_convert::why;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug)]
pub enum Error {
    /// Something that was asked for could not be done: `what: why`.
    Failed(String),
    /// The command line asks for something that does not exist.
    Usage(String),
    /// The work was done, and its result is not good enough for a limit that was given.
    Rejected(String),
    /// Errors that have been printed already, one line each, while the rest of the work went on.
    Reported,
    /// Nobody reads standard output any more.
    BrokenPipe,
}

impl Error {
    /// `what: why`.
    pub fn new(what: impl Display, why: impl Display) -> Self {
        Self::Failed(format!("{what}: {why}"))
    }

    /// Prints the error's line, if it has one, and gives the exit status.
    pub fn report(&self) -> ExitCode {
        match self {
            Self::Failed(line) => {
                print_line(line);
                ExitCode::FAILURE
            }
            Self::Usage(line) => {
                print_line(line);
                ExitCode::from(2)
            }
            Self::Rejected(line) => {
                print_line(line);
                ExitCode::from(3)
            }
            Self::Reported => ExitCode::FAILURE,
            Self::BrokenPipe => ExitCode::SUCCESS,
        }
    }
}

/// Prints `error: line` on standard error; line breaks inside become spaces.
pub fn print_line(line: &str) {
    let line = line.split('\n').map(str::trim).filter(|s| !s.is_empty()).collect::<Vec<_>>().join(" ");
    let style = crate::output::ERROR;
    // Nothing is left to do where standard error is closed too.
    let _ = writeln!(anstream::stderr(), "{style}error:{style:#} {line}");
}

/// Errors of writing to standard output; every other I/O error says what it was about with [`Context`].
impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::new("standard output", why(&e)),
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
