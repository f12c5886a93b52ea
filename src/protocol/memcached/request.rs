//! Where a client's requests end.
//!
//! ```text
//!   get a b\r\n │ set c 0 0 5\r\nhello\r\n │ set d 0 0 99999999\r\n ░░░░░░ │ …
//!   Whole       │ Whole                    │ Faulty                 Skipped
//! ```
//!
//! Not here: what a request is to become (see [`treatment`](super::treatment)).
//!
//! Invariant: a byte of a line is looked at once, and of the data only the line end behind it. Nothing
//! is held but numbers.

use memchr::memchr;

use super::line::{LINE_BYTES_MAX, line_of};
use super::storage::storage;
use super::violation::RequestViolation;

/// What a request may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a `get` or `gets` with its line end; of other lines
    /// [`LINE_BYTES_MAX`](super::LINE_BYTES_MAX) are the most.
    pub line_bytes_max: usize,
    /// Bytes of an item's data: memcached's `-I`, 1 MiB unless it is set.
    pub item_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line_bytes_max: 64 << 10,
            item_bytes_max: 1 << 20,
        }
    }
}

/// What the first bytes that a framer was shown are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// Nothing can be said before more bytes are here; but see [`RequestFramer::scanned`].
    More,
    /// The request is the first `bytes` bytes. They are no longer the framer's matter: the next scan
    /// is of what follows them. An empty line is a request too, one that is answered with an error.
    Whole {
        /// Of line and data, less what went on before.
        bytes: usize,
    },
    /// The request is refused: its client is told when it is its turn, and the first `bytes` bytes
    /// are dropped. That is known before its data is here, which is [`Scan::Skipped`] afterwards.
    Faulty {
        /// Bytes to drop.
        bytes: usize,
        /// Why, and what a memcached says to it.
        violation: RequestViolation,
        /// Whether it says that to this request, or was asked for silence.
        shown: bool,
    },
    /// The first `bytes` bytes are data of a request that was refused, and are dropped.
    Skipped {
        /// Bytes to drop.
        bytes: usize,
    },
}

/// Finds the end of each request of one client.
#[derive(Debug)]
pub struct RequestFramer {
    limits: Limits,
    /// The first byte of the session is still to come: it chooses the protocol.
    is_fresh: bool,
    state: State,
}

/// ```text
///   Line ─▶ Block ─▶ Line
///      └──▶ Skip ──▶ Line
/// ```
#[derive(Debug)]
enum State {
    /// In so many bytes there is no line end.
    Line { looked: usize },
    /// The line is sound, and its data under way.
    Block {
        /// Bytes of the request that are not consumed, the line end behind the data included.
        left: u64,
        /// How many of them are here.
        seen: usize,
        /// Some of the request went on already.
        is_begun: bool,
        shows_errors: bool,
    },
    /// So many bytes are dropped.
    Skip { left: u64 },
}

const AT_LINE: State = State::Line { looked: 0 };

impl RequestFramer {
    /// At the beginning of a session.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            is_fresh: true,
            state: AT_LINE,
        }
    }

    /// Looks at `bytes`: all that was read and is neither dropped nor a request that was found, nor
    /// [`consumed`](Self::consumed).
    ///
    /// # Errors
    /// The session ends: nobody knows where its next request begins. The framer is spent.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Scan, RequestViolation> {
        match &mut self.state {
            State::Line { .. } => self.scan_line(bytes),
            State::Block { .. } => Ok(self.scan_block(bytes)),
            State::Skip { left } => {
                let bytes = u64::min(*left, bytes.len() as u64);
                *left -= bytes;
                if *left == 0 {
                    self.state = AT_LINE;
                }
                Ok(match bytes as usize {
                    0 => Scan::More,
                    bytes => Scan::Skipped { bytes },
                })
            }
        }
    }

    /// How many of the first bytes that were last shown belong to a request that is sound so far, and
    /// may go on although its end is not here. The line end behind the data is never among them.
    #[must_use]
    pub fn scanned(&self) -> usize {
        match self.state {
            State::Block { left, seen, .. } => u64::min(left - 2, seen as u64) as usize,
            State::Line { .. } | State::Skip { .. } => 0,
        }
    }

    /// So many of the bytes that were [`scanned`](Self::scanned) went on: the next scan is of what
    /// follows them.
    ///
    /// From here on the service must get the whole request. Data that ends wrongly is
    /// [`Scan::Whole`] then: the service takes as many bytes as the line says, whatever they are,
    /// and answers that itself.
    pub fn consumed(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.scanned(), "only what is known to be sound");
        if let State::Block {
            left,
            seen,
            is_begun,
            ..
        } = &mut self.state
            && bytes > 0
        {
            *left -= bytes as u64;
            *seen -= bytes;
            *is_begun = true;
        }
    }

    /// Bytes that the service still waits for, of a request that went on in part. Where its client is
    /// gone, so many others complete it; unless they end in CRLF, nothing is stored.
    #[must_use]
    pub fn owed(&self) -> Option<u64> {
        match self.state {
            State::Block {
                left,
                is_begun: true,
                ..
            } => Some(left),
            _ => None,
        }
    }

    fn scan_line(&mut self, bytes: &[u8]) -> Result<Scan, RequestViolation> {
        let State::Line { looked } = &mut self.state else {
            return Ok(Scan::More);
        };
        if self.is_fresh {
            match binary(bytes) {
                Some(Some(violation)) => return Err(violation),
                Some(None) => return Ok(Scan::More),
                None => self.is_fresh = bytes.is_empty(),
            }
        }
        let end = memchr(b'\n', &bytes[*looked..]).map(|at| *looked + at + 1);
        let length = end.unwrap_or(bytes.len());
        if length > LINE_BYTES_MAX && length > longest(bytes, self.limits) {
            return Err(RequestViolation::LineTooLong);
        }
        let Some(end) = end else {
            *looked = bytes.len();
            return Ok(Scan::More);
        };
        self.state = AT_LINE;
        let Some(storage) = storage(line_of(&bytes[..end])) else {
            return Ok(Scan::Whole { bytes: end });
        };
        let Some(data) = storage.data else {
            // It stands alone, and is refused like any other line.
            return Ok(Scan::Whole { bytes: end });
        };
        let fault = match storage.fault {
            None if data > self.limits.item_bytes_max.min(DATA_BYTES_MAX) => {
                Some(RequestViolation::TooLarge)
            }
            fault => fault,
        };
        if let Some(violation) = fault {
            let left = data.saturating_add(2);
            self.state = State::Skip { left };
            return Ok(Scan::Faulty {
                bytes: end,
                violation,
                shown: storage.shows_errors(),
            });
        }
        self.state = State::Block {
            left: end as u64 + data + 2,
            seen: 0,
            is_begun: false,
            shows_errors: storage.shows_errors(),
        };
        Ok(self.scan_block(bytes))
    }

    fn scan_block(&mut self, bytes: &[u8]) -> Scan {
        let State::Block {
            left,
            seen,
            is_begun,
            shows_errors,
        } = &mut self.state
        else {
            return Scan::More;
        };
        if *left > bytes.len() as u64 {
            *seen = bytes.len();
            return Scan::More;
        }
        let request = &bytes[..*left as usize];
        let scan = if *is_begun || request.ends_with(b"\r\n") {
            Scan::Whole {
                bytes: request.len(),
            }
        } else {
            Scan::Faulty {
                bytes: request.len(),
                violation: RequestViolation::BadDataChunk,
                shown: *shows_errors,
            }
        };
        self.state = AT_LINE;
        scan
    }
}

/// memcached keeps the length of the data and its line end in 31 bits.
const DATA_BYTES_MAX: u64 = (1 << 31) - 3;

/// The most that the line may have which `bytes` begin with, when it is longer than most may be.
fn longest(bytes: &[u8], limits: Limits) -> usize {
    match bytes.starts_with(b"get ") || bytes.starts_with(b"gets ") {
        true => limits.line_bytes_max,
        false => LINE_BYTES_MAX,
    }
}

/// The first request of a session, if it is of the binary protocol: `Some(None)` until as much of its
/// header is here as the refusal repeats.
fn binary(bytes: &[u8]) -> Option<Option<RequestViolation>> {
    if bytes.first() != Some(&0x80) {
        return None;
    }
    let opaque = bytes.get(12..16).and_then(|opaque| opaque.try_into().ok());
    Some(opaque.map(|opaque| RequestViolation::Binary {
        opcode: bytes[1],
        opaque,
    }))
}
