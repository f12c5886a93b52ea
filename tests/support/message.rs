//! HTTP/1.x messages as a test reads them: strictly, and byte for byte.
//!
//! This reader is independent of millpond's framer, so that one can show the other wrong.

use super::process::run;
use super::socket::{End, Socket};
use super::wait;

/// A stream and the bytes that were read from it but not taken yet.
#[derive(Debug)]
pub struct Wire {
    pub socket: Socket,
    buffer: Vec<u8>,
    received: u64,
}

/// A start line and its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub start: String,
    pub fields: Vec<(String, String)>,
}

/// A whole message; `body` is what the framing carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Head {
    pub fn parse(text: &str) -> Self {
        let mut lines = text.split("\r\n");
        Self {
            start: lines.next().unwrap().to_owned(),
            fields: lines.filter(|line| !line.is_empty()).map(field).collect(),
        }
    }

    /// The first value of a field, whatever the case of its name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    /// Every value of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.fields
            .iter()
            .filter(named)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// A response's status.
    pub fn status(&self) -> u16 {
        let word = self.start.split(' ').nth(1);
        word.and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("no status: {self:?}"))
    }

    /// A request's method.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap()
    }

    /// A request's target.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or("")
    }

    pub fn length(&self) -> Option<usize> {
        self.field("content-length")
            .map(|value| value.parse().unwrap())
    }

    pub fn chunked(&self) -> bool {
        self.field("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }

    /// Whether the sender says that the connection ends after this message.
    pub fn says_close(&self) -> bool {
        let words = self.all("connection").join(",").to_ascii_lowercase();
        words.split(',').any(|word| word.trim() == "close")
    }
}

impl Message {
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Wire {
    pub fn new(socket: Socket) -> Self {
        Self {
            socket,
            buffer: Vec::new(),
            received: 0,
        }
    }

    /// How many bytes came in all.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// What was read and not taken.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Whether nothing more has come than was taken.
    pub fn owes_nothing(&self) -> bool {
        self.buffered().is_empty()
    }

    /// Ends in order: our FIN, then the other side's and nothing before it.
    pub fn leave(self) {
        self.socket.half_close();
        self.expect_fin();
    }

    /// The stream ends here, by FIN, with nothing before it.
    pub fn expect_fin(mut self) {
        let (rest, end) = self.until_end();
        let rest = String::from_utf8_lossy(&rest);
        assert_eq!((rest.as_ref(), end), ("", End::Fin));
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), End> {
        self.socket.send(bytes.as_ref())
    }

    /// Waits until the peer's kernel has acknowledged every byte written.
    pub fn wait_acknowledged(&self) {
        let (local, peer) = self.socket.ends();
        wait::until("everything written is acknowledged", || {
            let listing = run("ss", &["-tnH", "src", &local, "dst", &peer]);
            let unacknowledged = listing.split_whitespace().nth(2)?;
            (unacknowledged == "0").then_some(())
        });
    }

    /// Reads once.
    pub fn fill(&mut self) -> Result<(), End> {
        let mut chunk = [0; 16384];
        let count = self.socket.receive(&mut chunk)?;
        self.received += count as u64;
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(())
    }

    /// Takes everything up to and with `mark`.
    pub fn through(&mut self, mark: &[u8]) -> Result<Vec<u8>, End> {
        loop {
            let found = self
                .buffer
                .windows(mark.len())
                .position(|window| window == mark);
            if let Some(at) = found {
                return Ok(self.buffer.drain(..at + mark.len()).collect());
            }
            self.fill()?;
        }
    }

    /// Takes exactly `count` bytes.
    pub fn exactly(&mut self, count: usize) -> Result<Vec<u8>, End> {
        while self.buffer.len() < count {
            self.fill()?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// Takes everything up to the end, and says what the end was.
    pub fn until_end(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Err(end) = self.fill() {
                return (std::mem::take(&mut self.buffer), end);
            }
        }
    }

    pub fn head(&mut self) -> Result<Head, End> {
        let bytes = self.through(b"\r\n\r\n")?;
        Ok(Head::parse(
            std::str::from_utf8(&bytes).expect("a head is ASCII in these tests"),
        ))
    }

    /// A whole request.
    pub fn request(&mut self) -> Result<Message, End> {
        let head = self.head()?;
        self.request_body(head)
    }

    /// What follows a request's head.
    pub fn request_body(&mut self, head: Head) -> Result<Message, End> {
        if head.chunked() {
            let mut body = Vec::new();
            let trailers = self.chunks_into(&mut body)?;
            return Ok(Message {
                head,
                body,
                trailers,
            });
        }
        let body = self.exactly(head.length().unwrap_or(0))?;
        Ok(Message {
            head,
            body,
            trailers: Vec::new(),
        })
    }

    /// A whole response to a request with `method`. A body that lasts until the close may end by
    /// FIN only.
    pub fn response(&mut self, method: &str) -> Result<Message, End> {
        let head = self.head()?;
        if method == "HEAD" || matches!(head.status(), 100..=199 | 204 | 304) {
            return Ok(Message {
                head,
                body: Vec::new(),
                trailers: Vec::new(),
            });
        }
        self.response_body(head).map_err(|(_, end)| end)
    }

    /// What follows a response's head. When it is cut short: the part of the body that came, and
    /// the end.
    pub fn response_body(&mut self, head: Head) -> Result<Message, (Vec<u8>, End)> {
        let mut body = Vec::new();
        let outcome = if head.chunked() {
            self.chunks_into(&mut body)
        } else if let Some(length) = head.length() {
            match self.exactly(length) {
                Ok(bytes) => {
                    body = bytes;
                    Ok(Vec::new())
                }
                Err(end) => {
                    body = std::mem::take(&mut self.buffer);
                    Err(end)
                }
            }
        } else {
            let (bytes, end) = self.until_end();
            body = bytes;
            if end == End::Fin {
                Ok(Vec::new())
            } else {
                Err(end)
            }
        };
        match outcome {
            Ok(trailers) => Ok(Message {
                head,
                body,
                trailers,
            }),
            Err(end) => Err((body, end)),
        }
    }

    /// Reads chunks to their end; returns the trailers.
    fn chunks_into(&mut self, body: &mut Vec<u8>) -> Result<Vec<(String, String)>, End> {
        loop {
            let line = String::from_utf8(self.through(b"\r\n")?).unwrap();
            let digits = line.trim_end().split(';').next().unwrap();
            let size = usize::from_str_radix(digits, 16)
                .unwrap_or_else(|_| panic!("not a chunk size: {line:?}"));
            if size == 0 {
                break;
            }
            body.extend(self.exactly(size)?);
            assert_eq!(self.exactly(2)?, b"\r\n", "a chunk ends with CRLF");
        }
        let mut trailers = Vec::new();
        loop {
            let line = String::from_utf8(self.through(b"\r\n")?).unwrap();
            if line == "\r\n" {
                return Ok(trailers);
            }
            trailers.push(field(line.trim_end()));
        }
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line
        .split_once(':')
        .unwrap_or_else(|| panic!("not a field: {line:?}"));
    (name.to_owned(), value.trim().to_owned())
}

/// Frames `body` as chunks of `size` bytes, with `trailers` as they stand (each ending in CRLF).
pub fn chunked(body: &[u8], size: usize, trailers: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks(size) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(format!("0\r\n{trailers}\r\n").bytes());
    bytes
}

/// `count` bytes that tell their own place, so that a missing or foreign one shows.
pub fn pattern(tag: u64, count: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(tag);
    std::iter::repeat_with(|| random.alphanumeric() as u8)
        .take(count)
        .collect()
}
