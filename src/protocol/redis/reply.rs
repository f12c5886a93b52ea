//! Where a service's replies end: RESP2 and RESP3 (the RESP specification of redis.io).
//!
//! Not here: which request a reply belongs to, and what it says (see [`super::inspect`]). Strings of
//! unknown length (`$?`, `*?`) are violations: no Redis and no Valkey sends them.
//!
//! Invariant: the same bytes cut in any way give the same boundaries. A reply of any depth and length
//! is counted, not held: one number says how many values are still to come.

use memchr::memchr;

use super::number::{self, Number};
use crate::protocol::replies::{Replies, ReplyFrame, ReplyThen, ReplyViolation};

/// What a request says about its reply: exactly one comes, and this becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// It is for the client.
    Shown,
    /// Nobody is to see it.
    Hidden,
}

/// What becomes of the first bytes that a framer of any top-level values was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnyFrame {
    /// How many bytes this is about.
    pub taken: usize,
    /// What comes after them.
    pub then: ReplyThen,
    /// The byte that the value begins with, which tells its type. `None`: it has not begun.
    pub first_byte: Option<u8>,
}

impl AnyFrame {
    /// Whether the value is a push: one that answers no request, but may confirm a subscription.
    #[must_use]
    pub fn is_push(&self) -> bool {
        self.first_byte == Some(b'>')
    }
}

/// Finds the end of each reply. After a violation it is spent.
#[derive(Debug)]
pub struct ReplyFramer {
    state: State,
    /// Values of this reply that are still to come, the one under way included.
    owed: u64,
    /// The byte that the reply begins with.
    first_byte: Option<u8>,
}

/// ```text
///   Header ─▶ Body ─▶ End ─┐
///   ▲ ▲  └──▶ Line ─┐      │
///   │ └─────────────┘      │
///   └──────────────────────┘
/// ```
#[derive(Debug, Clone, Copy)]
enum State {
    Header,
    /// In a line of any length.
    Line,
    /// In a string; so many bytes are to come.
    Body {
        left: u64,
    },
    /// At the CRLF behind a string.
    End,
}

/// What a header says.
enum Header {
    Partial,
    /// It is a whole value: this many bytes.
    Value(usize),
    /// A line of any length begins.
    Line,
    /// A string of `length` bytes, and a CRLF, follow the `bytes` of the header.
    Text {
        bytes: usize,
        length: u64,
    },
    /// So many values follow and are its own.
    Values {
        bytes: usize,
        count: u64,
    },
    /// So many values follow, and then the value that they are about.
    Attributes {
        bytes: usize,
        count: u64,
    },
}

impl ReplyFramer {
    /// For a connection on which nothing is under way.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Header,
            owed: 1,
            first_byte: None,
        }
    }

    /// Whether no reply is under way.
    #[must_use]
    pub fn is_between_replies(&self) -> bool {
        self.first_byte.is_none()
    }

    /// Looks at `bytes` as [`Replies::frame`] does, for a connection of one session that may be
    /// subscribed or watching: there a value need not answer a request, and pushes come.
    ///
    /// # Errors
    /// The service broke the protocol: from here on nothing is known about the connection.
    pub fn frame_any(&mut self, bytes: &[u8]) -> Result<AnyFrame, ReplyViolation> {
        let taken = self.advance::<true>(bytes)?;
        let first_byte = self.first_byte;
        let then = self.then();
        Ok(AnyFrame {
            taken,
            then,
            first_byte,
        })
    }

    /// Whether the reply ended; then the next one may begin.
    #[inline]
    fn then(&mut self) -> ReplyThen {
        if self.owed > 0 {
            return ReplyThen::More;
        }
        *self = Self::new();
        ReplyThen::End
    }

    /// Reads up to the end of the reply, or of what can be read: how many bytes that is.
    #[inline]
    fn advance<const PUSHES: bool>(&mut self, bytes: &[u8]) -> Result<usize, ReplyViolation> {
        let mut at = 0;
        while self.owed > 0 {
            let rest = &bytes[at..];
            let taken = match self.state {
                State::Header => self.read_header::<PUSHES>(rest),
                State::Line => Ok(self.skip_line(rest)),
                State::Body { left } => Ok(self.skip_body(rest, left)),
                State::End => self.read_end(rest),
            };
            match taken {
                Ok(0) => break,
                Ok(taken) => at += taken,
                // What is sound before it is taken first; it is found again.
                Err(_) if at > 0 => break,
                Err(violation) => return Err(violation),
            }
        }
        Ok(at)
    }

    #[inline]
    fn read_header<const PUSHES: bool>(&mut self, bytes: &[u8]) -> Result<usize, ReplyViolation> {
        let Some(&kind) = bytes.first() else {
            return Ok(0);
        };
        if kind == b'>' && !(PUSHES && self.first_byte.is_none()) {
            return Err(match self.first_byte {
                None => ReplyViolation("a push that nobody subscribed to"),
                Some(_) => ReplyViolation("a push within a reply"),
            });
        }
        let header = header(kind, bytes)?;
        if self.first_byte.is_none() && !matches!(header, Header::Partial) {
            self.first_byte = Some(kind);
        }
        match header {
            Header::Partial => Ok(0),
            Header::Value(count) => {
                self.owed -= 1;
                Ok(count)
            }
            Header::Line => {
                self.state = State::Line;
                Ok(1)
            }
            Header::Text {
                bytes: head,
                length,
            } => {
                // Whole in most cases.
                if let Ok(length) = usize::try_from(length)
                    && let Some(behind) = bytes[head..].get(length..)
                    && behind.starts_with(b"\r\n")
                {
                    self.owed -= 1;
                    return Ok(head + length + 2);
                }
                self.state = State::Body { left: length };
                Ok(head)
            }
            Header::Values { bytes, count } => {
                self.owe(count)?;
                self.owed -= 1;
                Ok(bytes)
            }
            Header::Attributes { bytes, count } => {
                self.owe(count)?;
                Ok(bytes)
            }
        }
    }

    fn owe(&mut self, count: u64) -> Result<(), ReplyViolation> {
        let owed = self.owed.checked_add(count);
        self.owed = owed.ok_or(ReplyViolation("more values than can be counted"))?;
        Ok(())
    }

    /// The line ends at the first CRLF. A CR or an LF alone is text: clients read it so, and a module
    /// may send one.
    fn skip_line(&mut self, bytes: &[u8]) -> usize {
        let mut from = 0;
        while let Some(ahead) = memchr(b'\r', &bytes[from..]) {
            let at = from + ahead;
            match bytes.get(at + 1) {
                None => return at,
                Some(b'\n') => {
                    self.owed -= 1;
                    self.state = State::Header;
                    return at + 2;
                }
                Some(_) => from = at + 1,
            }
        }
        bytes.len()
    }

    fn skip_body(&mut self, bytes: &[u8], left: u64) -> usize {
        let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let left = left - taken as u64;
        self.state = State::Body { left };
        if left == 0 {
            self.state = State::End;
        }
        taken
    }

    fn read_end(&mut self, bytes: &[u8]) -> Result<usize, ReplyViolation> {
        match bytes {
            [] | [b'\r'] => Ok(0),
            [b'\r', b'\n', ..] => {
                self.owed -= 1;
                self.state = State::Header;
                Ok(2)
            }
            _ => Err(ReplyViolation("a string is not followed by CRLF")),
        }
    }
}

impl Default for ReplyFramer {
    fn default() -> Self {
        Self::new()
    }
}

impl Replies for ReplyFramer {
    type Kind = Shape;

    #[inline]
    fn frame(&mut self, kind: Shape, bytes: &[u8]) -> Result<ReplyFrame, ReplyViolation> {
        let taken = self.advance::<false>(bytes)?;
        Ok(ReplyFrame {
            taken,
            shown: kind == Shape::Shown,
            then: self.then(),
        })
    }

    #[inline]
    fn frame_unasked(&mut self, bytes: &[u8]) -> Result<ReplyFrame, ReplyViolation> {
        let AnyFrame { taken, then, .. } = self.frame_any(bytes)?;
        Ok(ReplyFrame {
            taken,
            shown: true,
            then,
        })
    }
}

/// A header that is longer than this is none.
const HEADER_BYTES_MAX: usize = 64;

/// More values than that no Redis has in one place.
const VALUES_MAX: i64 = u32::MAX as i64;

/// Reads the header that `bytes` begin with.
#[inline]
fn header(kind: u8, bytes: &[u8]) -> Result<Header, ReplyViolation> {
    match kind {
        b'$' => text(bytes, true),
        b'!' | b'=' => text(bytes, false),
        b'+' | b'-' | b'(' => Ok(line(bytes)),
        b':' => Ok(match counted(bytes)? {
            Some((_, bytes)) => Header::Value(bytes),
            None => Header::Partial,
        }),
        b'*' => values(bytes, 1, true),
        b'~' | b'>' => values(bytes, 1, false),
        b'%' => values(bytes, 2, false),
        b'|' => match values(bytes, 2, false)? {
            Header::Values { bytes, count } => Ok(Header::Attributes { bytes, count }),
            other => Ok(other),
        },
        b'_' | b'#' | b',' => short_line(kind, bytes),
        _ => Err(ReplyViolation("no type begins with this byte")),
    }
}

/// The number of a header, and the header's bytes.
#[inline]
fn counted(bytes: &[u8]) -> Result<Option<(i64, usize)>, ReplyViolation> {
    match number::read(&bytes[1..]) {
        Number::Found { value, bytes } => Ok(Some((value, 1 + bytes))),
        Number::Partial => Ok(None),
        Number::Malformed | Number::BadEnd => Err(ReplyViolation("a header without its number")),
    }
}

#[inline]
fn text(bytes: &[u8], may_be_null: bool) -> Result<Header, ReplyViolation> {
    match counted(bytes)? {
        None => Ok(Header::Partial),
        Some((-1, bytes)) if may_be_null => Ok(Header::Value(bytes)),
        Some((length, bytes)) => match u64::try_from(length) {
            Ok(length) => Ok(Header::Text { bytes, length }),
            Err(_) => Err(ReplyViolation("a negative length")),
        },
    }
}

#[inline]
fn values(bytes: &[u8], each: u64, may_be_null: bool) -> Result<Header, ReplyViolation> {
    match counted(bytes)? {
        None => Ok(Header::Partial),
        Some((-1, bytes)) if may_be_null => Ok(Header::Value(bytes)),
        Some((count, bytes)) if (0..=VALUES_MAX).contains(&count) => Ok(Header::Values {
            bytes,
            count: count.unsigned_abs() * each,
        }),
        Some(_) => Err(ReplyViolation("an impossible count")),
    }
}

/// `+OK` and the like, if they are whole; long ones need not be held.
#[inline]
fn line(bytes: &[u8]) -> Header {
    let near = &bytes[..bytes.len().min(HEADER_BYTES_MAX)];
    match near.iter().position(|byte| *byte == b'\r') {
        Some(at) if bytes.get(at + 1) == Some(&b'\n') => Header::Value(at + 2),
        _ => Header::Line,
    }
}

/// Null, a truth value, or a double.
fn short_line(kind: u8, bytes: &[u8]) -> Result<Header, ReplyViolation> {
    let near = &bytes[..bytes.len().min(HEADER_BYTES_MAX)];
    let Some(end) = near.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < HEADER_BYTES_MAX {
            Ok(Header::Partial)
        } else {
            Err(ReplyViolation("a header is too long"))
        };
    };
    let is_sound = match kind {
        b'_' => end == 1,
        b'#' => matches!(&near[1..end], b"t" | b"f"),
        _ => end > 1,
    };
    if is_sound {
        Ok(Header::Value(end + 2))
    } else {
        Err(ReplyViolation("a value that its type does not have"))
    }
}
