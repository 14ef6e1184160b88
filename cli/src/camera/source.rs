//! Which camera: what `--camera` says, and how each kind is opened.

use std::fmt;
use std::io;
use std::process::Command;
use std::str::FromStr;

use super::http::Url;
use super::raw::RawFormat;
use super::{Started, program};
use crate::error::{Error, Result, why};

/// Where frames come from, as `--camera` names it.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A command of the shell that writes frames to its standard output.
    Exec(String),
    /// An address that answers with JPEG after JPEG.
    Mjpeg(Url),
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

/// How a camera is opened, and what it then gives.
pub struct Opening {
    /// What its frames are; JPEGs without.
    pub raw: Option<RawFormat>,
    by: By,
}

enum By {
    /// The first of these programs that is installed.
    Programs {
        commands: Vec<Command>,
        missing: &'static str,
    },
    Connection(Url),
}

impl Source {
    /// Whether it shows the present: it cannot wait, and ends when somebody stops it.
    pub fn is_live(&self) -> bool {
        !matches!(self, Self::Exec(_))
    }

    /// How it is opened to give `raw` frames, or those that it gives by itself.
    ///
    /// # Errors
    /// It has no such frames.
    pub fn opening(&self, raw: Option<RawFormat>) -> Result<Opening> {
        match self {
            Self::Mjpeg(url) => Ok(Opening { raw, by: By::Connection(url.clone()) }),
            Self::Exec(line) => {
                let mut command = Command::new("sh");
                command.args(["-c", line]);
                Ok(Opening { raw, by: By::Programs { commands: vec![command], missing: "no shell, sh, is installed" } })
            }
            Self::Rpicam(camera) => {
                let raw = raw.unwrap_or(RawFormat::I420_640X480);
                if !raw.is_i420() {
                    return Err(Error::Usage(format!(
                        "--camera {self}: rpicam-vid writes i420, as in --raw i420:1280x704"
                    )));
                }
                Ok(Opening { raw: Some(raw), by: rpicam(*camera, raw.size()) })
            }
        }
    }
}

/// rpicam-vid, or libcamera-vid as Raspberry Pi OS called it before 2023. Rows of 64 pixels have no padding.
fn rpicam(camera: u32, (width, height): (u32, u32)) -> By {
    let command = |program: &&str| {
        let mut command = Command::new(program);
        command.args(["--timeout", "0", "--nopreview", "--flush", "--codec", "yuv420", "--output", "-"]);
        command.args(["--camera", &camera.to_string()]);
        command.args(["--width", &width.to_string(), "--height", &height.to_string()]);
        command
    };
    By::Programs {
        commands: ["rpicam-vid", "libcamera-vid"].iter().map(command).collect(),
        missing: "neither rpicam-vid nor libcamera-vid is installed (apt-get install rpicam-apps)",
    }
}

impl Opening {
    /// Starts the program or connects. Errors say why only.
    pub(super) fn start(self) -> Result<Started, String> {
        match self.by {
            By::Connection(url) => Ok((None, url.get()?)),
            By::Programs { commands, missing } => {
                for mut command in commands {
                    match program::start(&mut command) {
                        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                        started => {
                            let name = command.get_program().to_string_lossy().into_owned();
                            return started.map_err(|e| format!("{name}: {}", why(&e)));
                        }
                    }
                }
                Err(missing.to_string())
            }
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
}
