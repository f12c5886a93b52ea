//! Where a client's commands end, and whether they are whole and sound.
//!
//! Not here: what a command asks for, and buffers: the framer is shown bytes, and remembers how far it
//! has read them.
//!
//! Invariant: the same bytes cut in any way give the same answer, and no byte is looked at twice but
//! those of an unfinished header.

use memchr::memchr2;

use super::inline;
use super::number::{self, Number};
use super::violation::RequestViolation;

/// Bounds of one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Arguments, the command's name included.
    pub arguments_max: usize,
    /// Bytes of one argument; no more than the service allows, which closes on a longer one.
    pub bulk_bytes_max: u64,
    /// Bytes of an inline command in front of its line feed.
    pub inline_bytes_max: usize,
}

impl Default for Limits {
    /// `proto-max-bulk-len` and `PROTO_INLINE_MAX_SIZE` of Redis 7.0; of arguments Redis allows 2^31,
    /// and allowed 2^20 up to 6.2.
    fn default() -> Self {
        Self {
            arguments_max: 1024 * 1024,
            bulk_bytes_max: 512 << 20,
            inline_bytes_max: 64 << 10,
        }
    }
}

/// What became of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// Nothing ends here yet.
    More,
    /// The first `bytes` bytes ask for nothing and are not answered: a blank line, `*0`, `*-1`. They
    /// are to be dropped.
    Blank {
        /// From the first byte not consumed.
        bytes: usize,
    },
    /// The command is the first `bytes` bytes; the framer is ready for the next one, which begins
    /// behind them.
    Whole {
        /// From the first byte not consumed.
        bytes: usize,
    },
}

/// Whether a whole command is an inline one: [`super::canonical`] gives it the form of the others.
#[must_use]
pub fn is_inline(command: &[u8]) -> bool {
    command.first() != Some(&b'*')
}

/// Finds the commands in a client's bytes. After a violation it is spent.
#[derive(Debug)]
pub struct RequestFramer {
    limits: Limits,
    state: State,
    /// Where to go on reading, from the first byte not consumed. May lie beyond what is there.
    at: usize,
    /// How many bytes were there last.
    shown: usize,
    /// Whether the name is known to be none that Redis closes on: before that no byte goes on.
    is_named: bool,
}

/// ```text
///   Start ─▶ Inline ─▶ Start
///     ▼
///   Count ─▶ Length ─▶ End ─▶ Start
///              ▲────────┘
/// ```
#[derive(Debug, Clone, Copy)]
enum State {
    Start,
    /// Up to `at` there is neither line feed nor NUL.
    Inline,
    Count,
    /// At the header of an argument; `left` are to come, this one included.
    Length {
        left: usize,
    },
    /// At the CRLF of an argument of so many bytes.
    End {
        left: usize,
        length: usize,
    },
}

impl RequestFramer {
    /// For the commands of one client.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Start,
            at: 0,
            shown: 0,
            is_named: false,
        }
    }

    /// Looks at `bytes`: all that is here and not consumed, from the first byte of the command that
    /// is not consumed.
    ///
    /// # Errors
    /// The client broke the protocol. Of the command that it broke only what [`Self::scanned`] gave
    /// before has gone on.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Scan, RequestViolation> {
        self.shown = bytes.len();
        loop {
            match self.state {
                State::Start => match bytes.first() {
                    None => return Ok(Scan::More),
                    Some(b'*') => self.state = State::Count,
                    Some(_) => self.state = State::Inline,
                },
                State::Inline => return self.scan_inline(bytes),
                State::Count => match number::read(&bytes[1..]) {
                    Number::Found { value, bytes } => {
                        self.at = 1 + bytes;
                        match usize::try_from(value) {
                            Err(_) | Ok(0) => return Ok(self.blank()),
                            Ok(left) if left > self.limits.arguments_max => {
                                return Err(RequestViolation::TooManyArguments);
                            }
                            Ok(left) => self.state = State::Length { left },
                        }
                    }
                    Number::Partial => return Ok(Scan::More),
                    Number::Malformed => return Err(RequestViolation::BadCount),
                    Number::BadEnd => return Err(RequestViolation::BadTerminator),
                },
                State::Length { left } => {
                    if !self.read_length(bytes, left)? {
                        return Ok(Scan::More);
                    }
                }
                State::End { left, length } => {
                    if !self.read_end(bytes, length)? {
                        return Ok(Scan::More);
                    }
                    if left == 1 {
                        return Ok(self.whole());
                    }
                    self.state = State::Length { left: left - 1 };
                }
            }
        }
    }

    /// How many of the bytes shown last are known to belong to the command that is under way and to
    /// be sound: they may go on before its end is here. None before its name is in sight, and none
    /// of an inline command.
    #[must_use]
    pub fn scanned(&self) -> usize {
        if self.is_named {
            self.at.min(self.shown)
        } else {
            0
        }
    }

    /// So many of [`Self::scanned`] have gone on, and are not shown again.
    pub fn consumed(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.scanned(), "only what was scanned may go on");
        self.at -= bytes;
        self.shown -= bytes;
    }

    /// Reads an argument's header, and goes past the argument. `false`: it is not all there.
    #[inline]
    fn read_length(&mut self, bytes: &[u8], left: usize) -> Result<bool, RequestViolation> {
        match bytes.get(self.at) {
            None => return Ok(false),
            Some(b'$') => {}
            Some(other) => return Err(RequestViolation::NotABulk(*other)),
        }
        let (value, header) = match number::read(&bytes[self.at + 1..]) {
            Number::Found { value, bytes } => (value, 1 + bytes),
            Number::Partial => return Ok(false),
            Number::Malformed => return Err(RequestViolation::BadLength),
            Number::BadEnd => return Err(RequestViolation::BadTerminator),
        };
        let value = u64::try_from(value).map_err(|_| RequestViolation::BadLength)?;
        if value > self.limits.bulk_bytes_max {
            return Err(RequestViolation::BulkTooLong);
        }
        let length = usize::try_from(value).map_err(|_| RequestViolation::BulkTooLong)?;
        self.at = (self.at + header)
            .checked_add(length)
            .ok_or(RequestViolation::BulkTooLong)?;
        self.is_named |= !CLOSES_LENGTHS.contains(&length);
        self.state = State::End { left, length };
        Ok(true)
    }

    /// Reads the CRLF behind an argument. `false`: it is not all there.
    #[inline]
    fn read_end(&mut self, bytes: &[u8], length: usize) -> Result<bool, RequestViolation> {
        match bytes.get(self.at..) {
            None | Some([] | [b'\r']) => return Ok(false),
            Some([b'\r', b'\n', ..]) => {}
            Some(_) => return Err(RequestViolation::BadTerminator),
        }
        if !self.is_named {
            // It is the first argument, and none of it has been consumed.
            if closes(&bytes[self.at - length..self.at]) {
                return Err(RequestViolation::Http);
            }
            self.is_named = true;
        }
        self.at += 2;
        Ok(true)
    }

    /// Redis takes LF for the line's end, with or without a CR (`processInlineBuffer`).
    fn scan_inline(&mut self, bytes: &[u8]) -> Result<Scan, RequestViolation> {
        let limit = bytes.len().min(self.limits.inline_bytes_max + 1);
        let Some(ahead) = memchr2(b'\n', 0, &bytes[self.at..limit]) else {
            if limit > self.limits.inline_bytes_max {
                return Err(RequestViolation::InlineTooLong);
            }
            self.at = limit;
            return Ok(Scan::More);
        };
        self.at += ahead + 1;
        if bytes[self.at - 1] == 0 {
            return Err(RequestViolation::NulInLine);
        }
        let line = &bytes[..self.at];
        if inline::word_count(line)? == 0 {
            return Ok(self.blank());
        }
        if closes(&inline::first_word(line)?) {
            return Err(RequestViolation::Http);
        }
        Ok(self.whole())
    }

    fn blank(&mut self) -> Scan {
        Scan::Blank {
            bytes: self.begin_next(),
        }
    }

    #[inline]
    fn whole(&mut self) -> Scan {
        Scan::Whole {
            bytes: self.begin_next(),
        }
    }

    /// Where the command ended.
    #[inline]
    fn begin_next(&mut self) -> usize {
        let end = self.at;
        *self = Self::new(self.limits);
        end
    }
}

/// The lengths of the names that [`closes`] knows.
const CLOSES_LENGTHS: [usize; 2] = [b"POST".len(), b"Host:".len()];

/// Whether Redis takes the command for a request of HTTP and closes (`processCommand` in its
/// `server.c`).
fn closes(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"Host:")
}
