//! Cameras of Video4Linux, such as webcams: v4l2-ctl writes their frames as they come, or ffmpeg converts them.
//!
//! A driver that lacks the frames it is asked for gives others without an error. So v4l2-ctl is asked for JPEGs, which
//! nearly all webcams have, and says what it got: JPEGs or raw frames, of which size, and how long their rows are.

use std::fs::File;
use std::io;
use std::process::{Command, Stdio};

use super::raw::RawFormat;
use crate::error::why;

const CTL: &str = "v4l2-ctl";
pub const MISSING: &str = "neither v4l2-ctl nor ffmpeg is installed (apt-get install v4l-utils)";

/// Video4Linux' names for the raw frames that are read, and this program's.
const FOURCCS: [(&str, &str); 6] =
    [("YUYV", "yuyv"), ("NV12", "nv12"), ("YU12", "i420"), ("RGB3", "rgb"), ("BGR3", "bgr"), ("GREY", "gray")];

/// What a camera gives.
#[derive(Debug, PartialEq)]
struct Given {
    fourcc: String,
    size: (u32, u32),
    /// 0 where frames are compressed.
    bytes_per_line: usize,
}

/// The command that writes frames of `device`, and what they are (JPEGs without): what `asked` says, or what the camera
/// gives by itself. Errors say why only.
pub fn command(device: &str, asked: Option<RawFormat>) -> Result<(Command, Option<RawFormat>), String> {
    File::open(device).map_err(|e| unusable(&e))?;
    let (width, height) = asked.unwrap_or(RawFormat::I420_640X480).size();
    let fourcc = match asked {
        None => "MJPG",
        Some(raw) => fourcc(raw).ok_or_else(|| format!("{} is not a format of cameras", raw.name()))?,
    };
    let wish = format!("--set-fmt-video=width={width},height={height},pixelformat={fourcc}");
    let ctl = |arguments: &[&str]| {
        let mut command = Command::new(CTL);
        command.args(["-d", device]).args(arguments);
        command
    };
    let output = match ctl(&[&wish, "--get-fmt-video"]).stdin(Stdio::null()).output() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(ffmpeg(device, asked)),
        output => output.map_err(|e| format!("{CTL}: {}", why(&e)))?,
    };
    let [said, complaint] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    let given = Given::parse(&said).ok_or_else(|| {
        let complaint = complaint.lines().chain(said.lines()).map(str::trim).find(|line| !line.is_empty());
        format!("{CTL}: {}", complaint.unwrap_or("it does not say what the camera gives"))
    })?;
    let raw = given.frames(asked, device)?;
    let (width, height) = given.size;
    let set = format!("--set-fmt-video=width={width},height={height},pixelformat={}", given.fourcc);
    Ok((ctl(&[&set, "--stream-mmap", "--stream-to=-"]), raw))
}

/// Why a device cannot be opened, and the cure.
fn unusable(e: &io::Error) -> String {
    let cure = match e.kind() {
        io::ErrorKind::NotFound => "; `v4l2-ctl --list-devices` names the cameras",
        io::ErrorKind::PermissionDenied => "; add your user to the group video and log in again",
        _ => "",
    };
    why(e) + cure
}

fn fourcc(raw: RawFormat) -> Option<&'static str> {
    FOURCCS.iter().find(|(_, name)| *name == raw.name()).map(|(fourcc, _)| *fourcc)
}

impl Given {
    /// From what `v4l2-ctl --get-fmt-video` prints, lines such as `Pixel Format      : 'MJPG' (Motion-JPEG)`.
    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim())
        };
        let (width, height) = value("Width/Height")?.split_once('/')?;
        let size = (width.parse().ok()?, height.parse().ok()?);
        let fourcc = value("Pixel Format")?.split('\'').nth(1)?.trim().to_string();
        let bytes_per_line = value("Bytes per Line").and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        Some(Self { fourcc, size, bytes_per_line })
    }

    /// What its frames are, JPEGs without, if they are what was asked for and can be read.
    fn frames(&self, asked: Option<RawFormat>, device: &str) -> Result<Option<RawFormat>, String> {
        let Self { fourcc, size: (width, height), bytes_per_line } = self;
        let formats = format!("`v4l2-ctl -d {device} --list-formats-ext` names its formats and sizes");
        let raw = match FOURCCS.iter().find(|(known, _)| known == fourcc) {
            _ if matches!(fourcc.as_str(), "MJPG" | "JPEG") => None,
            Some((_, name)) => {
                // A driver may leave it out where rows have no padding.
                let stride = if *bytes_per_line > 0 { format!(":{bytes_per_line}") } else { String::new() };
                Some(format!("{name}:{width}x{height}{stride}").parse::<RawFormat>()?)
            }
            None => {
                return Err(format!(
                    "the camera gives {fourcc}, which is not supported: ask for other frames with --raw FORMAT:WxH \
                     ({formats}), or use exec:ffmpeg -v error -f v4l2 -i {device} -f mjpeg -"
                ));
            }
        };
        let differs =
            |asked: &RawFormat| raw.is_none_or(|raw| (raw.name(), raw.size()) != (asked.name(), asked.size()));
        match asked.filter(differs) {
            Some(asked) => Err(format!(
                "the camera gives {fourcc} of {width}x{height} where {asked} was asked for; leave out --raw, or ask for \
                 what it has ({formats})"
            )),
            None => Ok(raw),
        }
    }
}

/// ffmpeg takes what the camera gives, and converts it.
fn ffmpeg(device: &str, asked: Option<RawFormat>) -> (Command, Option<RawFormat>) {
    let raw = asked.unwrap_or(RawFormat::I420_640X480).tight();
    let (width, height) = raw.size();
    let (size, mut command) = (format!("{width}x{height}"), Command::new("ffmpeg"));
    command.args(["-v", "error", "-nostdin", "-f", "v4l2", "-video_size", &size, "-i", device]);
    command.args(["-f", "rawvideo", "-pix_fmt", raw.ffmpeg_name(), "-s", &size, "-"]);
    (command, Some(raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEBCAM: &str = "Format Video Capture:\n\tWidth/Height      : 640/480\n\tPixel Format      : 'MJPG' \
                          (Motion-JPEG)\n\tField             : None\n\tBytes per Line    : 0\n\tSize Image        : \
                          614400\n\tColorspace        : sRGB\n";

    #[test]
    fn what_a_camera_gives_is_read() {
        let webcam = Given { fourcc: "MJPG".to_string(), size: (640, 480), bytes_per_line: 0 };
        assert_eq!(Given::parse(WEBCAM), Some(webcam));
        let yuyv =
            WEBCAM.replace("'MJPG' (Motion-JPEG)", "'YUYV' (YUYV 4:2:2)").replace("Line    : 0", "Line    : 1344");
        let yuyv = Given::parse(&yuyv).unwrap();
        assert_eq!(yuyv.frames(None, "/dev/video0"), Ok(Some("yuyv:640x480:1344".parse().unwrap())));
        let unpadded = Given { bytes_per_line: 0, ..yuyv };
        assert_eq!(unpadded.frames(None, "/dev/video0"), Ok(Some("yuyv:640x480".parse().unwrap())));
        for broken in ["", "Cannot open device", "Width/Height : 640x480", "Width/Height : 640/480"] {
            assert_eq!(Given::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_a_cure() {
        let given = |fourcc: &str| Given { fourcc: fourcc.to_string(), size: (640, 480), bytes_per_line: 640 };
        let asked = |text: &str| Some(text.parse().unwrap());
        assert!(given("H264").frames(None, "/dev/video0").unwrap_err().contains("exec:ffmpeg"));
        for (fourcc, wish) in [("MJPG", "nv12:640x480"), ("GREY", "nv12:640x480"), ("NV12", "nv12:320x240")] {
            let why = given(fourcc).frames(asked(wish), "/dev/video0").unwrap_err();
            assert!(why.contains(&format!("{fourcc} of 640x480 where {wish} was asked for")), "{why}");
        }
        assert!(given("NV12").frames(asked("nv12:640x480:704"), "/dev/video0").unwrap().is_some());
        // Rows that are shorter than their pixels.
        assert!(given("YUYV").frames(None, "/dev/video0").is_err());
    }
}
