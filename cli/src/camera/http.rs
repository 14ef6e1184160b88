//! A GET request, as far as a camera on the local network needs one: HTTP without TLS, without passwords, without
//! proxies and redirections. `exec:curl -sN URL` has all of them.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use crate::error::why;

/// A camera that sends nothing for that long is gone.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of all headers of an answer, and of a line before a chunk.
const MOST_HEADERS: u64 = 64 << 10;

const CURL: &str = "use exec:curl -sN URL";

/// `http://HOST[:PORT]/PATH`.
#[derive(Clone, Debug, PartialEq)]
pub struct Url {
    /// With the port where one is named.
    host: String,
    path: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("https://") {
            return Err(format!("TLS is not supported here: {CURL}"));
        }
        let rest = text.strip_prefix("http://").ok_or("mjpeg:http://HOST[:PORT]/PATH")?;
        let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        if host.contains('@') {
            return Err(format!("passwords are not supported here: {CURL}"));
        }
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || !plain(host) || !plain(path) {
            return Err("mjpeg:http://HOST[:PORT]/PATH, without spaces".to_string());
        }
        Ok(Self { host: host.to_string(), path: path.to_string() })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.host, self.path)
    }
}

impl Url {
    /// The answer's body. Errors say why only.
    pub fn get(&self) -> Result<Box<dyn Read + Send>, String> {
        let has_port = self.host.rsplit(']').next().is_some_and(|end| end.contains(':'));
        let host = if has_port { self.host.clone() } else { format!("{}:80", self.host) };
        let stream = connect(&host).map_err(|e| why(&e))?;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: vitlet\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            self.path, self.host
        );
        (&stream).write_all(request.as_bytes()).map_err(|e| why(&e))?;
        let mut stream = BufReader::new(stream);
        match headers(&mut stream)?.iter().any(|h| h.starts_with("transfer-encoding:") && h.contains("chunked")) {
            true => Ok(Box::new(Chunked { stream, left: 0, begun: false })),
            false => Ok(Box::new(stream)),
        }
    }
}

fn connect(host: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::other("this host has no address");
    for address in host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// The headers of an answer that has what was asked for, in lower case.
fn headers(stream: &mut impl BufRead) -> Result<Vec<String>, String> {
    let mut lines = stream.take(MOST_HEADERS).lines().map(|line| line.map_err(|e| why(&e)));
    let status = lines.next().unwrap_or(Err("no answer".to_string()))?;
    let code = status.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    if code != Some("200") {
        return Err(format!("the server answered: {status}"));
    }
    let mut headers = Vec::new();
    for line in lines {
        match line? {
            end if end.is_empty() => return Ok(headers),
            header => headers.push(header.to_lowercase()),
        }
    }
    Err("the server's answer ends within its headers".to_string())
}

/// A body in chunks (RFC 9112, 7.1): lines with a length before each, a length of zero at the end.
struct Chunked<R> {
    stream: R,
    /// Bytes of this chunk.
    left: u64,
    /// Whether a chunk came before, whose line break is still there.
    begun: bool,
}

impl<R: BufRead> Read for Chunked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let mut line = String::new();
            for _ in 0..=usize::from(self.begun) {
                line.clear();
                self.stream.by_ref().take(MOST_HEADERS).read_line(&mut line)?;
            }
            let length = line.trim().split(';').next().unwrap_or_default();
            self.left = u64::from_str_radix(length, 16).map_err(|_| io::Error::other("a chunk without a length"))?;
            self.begun = true;
            if self.left == 0 {
                self.begun = false;
                return Ok(0);
            }
        }
        let read = self.stream.by_ref().take(self.left).read(into)?;
        self.left -= read as u64;
        if read == 0 && !into.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        let parse = |text: &str| text.parse::<Url>();
        assert_eq!(parse("http://cam").unwrap(), Url { host: "cam".to_string(), path: "/".to_string() });
        let url = parse("http://[::1]:81/a/b?c=d").unwrap();
        assert_eq!((url.host.as_str(), url.path.as_str()), ("[::1]:81", "/a/b?c=d"));
        assert!(parse("https://cam/").unwrap_err().contains("exec:curl"));
        assert!(parse("http://me:secret@cam/").unwrap_err().contains("exec:curl"));
        for wrong in ["cam", "http://", "http:///x", "http://a b/", "http://a/\r\nX: y"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn chunks_are_joined_and_an_early_end_is_an_error() {
        let read = |bytes: &[u8]| {
            let mut body = Vec::new();
            Chunked { stream: bytes, left: 0, begun: false }.read_to_end(&mut body).map(|_| body)
        };
        assert_eq!(read(b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n").unwrap(), b"abc0123456789");
        assert!(read(b"3\r\nab").is_err());
        assert!(read(b"x\r\nab").is_err());
    }

    #[test]
    fn only_an_answer_of_200_has_a_body() {
        assert_eq!(headers(&mut &b"HTTP/1.0 200 OK\r\nA: B\r\n\r\nbody"[..]), Ok(vec!["a: b".to_string()]));
        let answer = "HTTP/1.1 404 Not Found\r\n\r\n";
        assert_eq!(headers(&mut answer.as_bytes()).unwrap_err(), "the server answered: HTTP/1.1 404 Not Found");
        assert!(headers(&mut &b"SSH-2.0\r\n"[..]).is_err());
        assert!(headers(&mut &b""[..]).is_err());
    }
}
