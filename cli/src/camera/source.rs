//! Which camera: what `--camera` says, and how each kind is opened.

use std::fmt;
use std::io;
use std::process::Command;
use std::str::FromStr;

use super::http::Url;
use super::raw::RawFormat;
use super::{Started, program, v4l2};
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
    /// A device of Video4Linux, by v4l2-ctl or ffmpeg.
    V4l2(String),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("exec", command) if !command.trim().is_empty() => Ok(Self::Exec(command.to_string())),
            ("mjpeg", url) => url.parse().map(Self::Mjpeg),
            ("rpicam", "") => Ok(Self::Rpicam(0)),
            ("rpicam", camera) => camera.parse().map(Self::Rpicam).map_err(|_| "rpicam:N is a number".to_string()),
            ("v4l2", "") => Ok(Self::V4l2("/dev/video0".to_string())),
            ("v4l2", device) if device.starts_with('/') => Ok(Self::V4l2(device.to_string())),
            ("v4l2", _) => Err("v4l2:DEVICE is a path, as in v4l2:/dev/video0".to_string()),
            _ => {
                Err("cameras are exec:COMMAND, mjpeg:http://HOST/PATH, rpicam, rpicam:N or v4l2:/dev/videoN"
                    .to_string())
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exec(command) => write!(f, "exec:{command}"),
            Self::Mjpeg(url) => write!(f, "mjpeg:{url}"),
            Self::Rpicam(camera) => write!(f, "rpicam:{camera}"),
            Self::V4l2(device) => write!(f, "v4l2:{device}"),
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

    /// How it is opened to give `raw` frames, or those that it gives by itself. Asks a device of Video4Linux for them.
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
            Self::V4l2(device) => {
                let (command, raw) = v4l2::command(device, raw).map_err(|why| Error::new(self, why))?;
                Ok(Opening { raw, by: By::Programs { commands: vec![command], missing: v4l2::MISSING } })
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
        assert_eq!(parse("v4l2"), parse("v4l2:/dev/video0"));
        assert_eq!(parse("mjpeg:http://cam:8080/?x=1").unwrap().to_string(), "mjpeg:http://cam:8080/?x=1");
        for wrong in ["exec:", "exec", "mjpeg:", "mjpeg:ftp://x/", "rpicam:x", "/dev/video0", "v4l2:0", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
