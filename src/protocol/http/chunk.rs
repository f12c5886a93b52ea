//! The chunked transfer coding (RFC 9112 section 7.1), read strictly and without a buffer.
//!
//! ```text
//!   Size ─CR─▶ SizeEnd ─LF─▶ Data ─▶ DataEnd ─CR LF─▶ Size …
//!     └─;─▶ Extension ─CR─┘ └─(size 0)─▶ Trailers ─▶ Done
//! ```
//!
//! Extensions are let through up to 256 bytes a chunk (object stores sign each chunk with one).
//! Space around the size, `0x`, signs, more than 16 digits and bare LF are refused. A trailer
//! section is judged as a whole, and no field that this proxy reads may stand in it (RFC 9110
//! section 6.5.1).
//!
//! Invariant: what precedes a fault has been taken before the fault is returned.

use super::fields::{self, Field};
use super::head::{self, FIELDS_MAX, HeadFault, Scan};

/// Bytes of the extensions of one chunk, at most.
const EXTENSION_MAX: u16 = 256;
/// Digits of a chunk's size, at most, leading zeros included.
const SIZE_DIGITS_MAX: u8 = 16;

/// What is wrong with a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkFault {
    /// A chunk's size, extension or end.
    BadChunk,
    BadTrailer,
    /// In the trailer section.
    BareLineEnd,
    TrailersTooLarge,
    /// More data than the limit allows.
    DataOverLimit,
}

/// A run of bytes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) len: usize,
    pub(super) kind: RunKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunKind {
    /// Sizes, extensions, line ends, trailers.
    Framing,
    /// Content.
    Data,
}

/// Reads one chunked body.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    data_left: u64,
    trailers_max: usize,
}

#[derive(Debug)]
enum State {
    Size { size: u64, digits: u8 },
    Extension { size: u64, len: u16, named: bool },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataEnd { cr_seen: bool },
    Trailers(Scan),
    Done,
}

impl Chunked {
    /// `data_max` bounds the content, `trailers_max` the bytes of the trailer section.
    pub(super) fn new(data_max: Option<u64>, trailers_max: usize) -> Self {
        Self {
            state: State::Size { size: 0, digits: 0 },
            data_left: data_max.unwrap_or(u64::MAX),
            trailers_max,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// The next run of bytes of one kind. One of length 0 means: nothing can be said before more
    /// bytes are read, or the body is done.
    pub(super) fn next_run(&mut self, bytes: &[u8]) -> Result<Run, ChunkFault> {
        match &mut self.state {
            State::Data { left } => {
                let len = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                *left -= len as u64;
                if *left == 0 {
                    self.state = State::DataEnd { cr_seen: false };
                }
                Ok(Run {
                    len,
                    kind: RunKind::Data,
                })
            }
            _ => self.framing_run(bytes).map(|len| Run {
                len,
                kind: RunKind::Framing,
            }),
        }
    }

    fn framing_run(&mut self, bytes: &[u8]) -> Result<usize, ChunkFault> {
        for (index, &byte) in bytes.iter().enumerate() {
            let next = match &mut self.state {
                State::Data { .. } | State::Done => return Ok(index),
                State::Trailers(scan) => {
                    return match trailers(scan, &bytes[index..], self.trailers_max) {
                        Ok(Some(len)) => {
                            self.state = State::Done;
                            Ok(index + len)
                        }
                        Ok(None) => Ok(index),
                        Err(fault) => {
                            // Where bytes were taken before it, the fault is met again.
                            *scan = Scan::new();
                            if index > 0 { Ok(index) } else { Err(fault) }
                        }
                    };
                }
                state => state.after(byte, self.data_left),
            };
            match next {
                Ok(state) => self.enter(state),
                Err(_) if index > 0 => return Ok(index),
                Err(fault) => return Err(fault),
            }
        }
        Ok(bytes.len())
    }

    fn enter(&mut self, state: State) {
        if let State::Data { left } = state {
            self.data_left -= left;
        }
        self.state = state;
    }
}

impl State {
    /// The state after one byte of a chunk's framing.
    fn after(&self, byte: u8, data_left: u64) -> Result<Self, ChunkFault> {
        match (self, byte) {
            (&Self::Size { size, digits }, byte) if byte.is_ascii_hexdigit() => {
                let digit = (byte as char).to_digit(16).expect("it is a hex digit");
                // Below 2^63, so that a service's signed integer holds it too.
                if digits == SIZE_DIGITS_MAX || size >= 1 << 59 {
                    return Err(ChunkFault::BadChunk);
                }
                Ok(Self::Size {
                    size: size << 4 | u64::from(digit),
                    digits: digits + 1,
                })
            }
            (&Self::Size { size, digits: 1.. }, b'\r') => Ok(Self::SizeEnd { size }),
            (&Self::Size { size, digits: 1.. }, b';') => Ok(Self::Extension {
                size,
                len: 1,
                named: false,
            }),
            (
                &Self::Extension {
                    size, named: true, ..
                },
                b'\r',
            ) => Ok(Self::SizeEnd { size }),
            (&Self::Extension { size, len, named }, b'\t' | b' '..=0x7e | 0x80..)
                if len < EXTENSION_MAX =>
            {
                let is_space = matches!(byte, b'\t' | b' ');
                if !named && !is_space && !fields::is_token(byte) {
                    return Err(ChunkFault::BadChunk);
                }
                Ok(Self::Extension {
                    size,
                    len: len + 1,
                    named: named || !is_space,
                })
            }
            (&Self::SizeEnd { size }, b'\n') if size > data_left => Err(ChunkFault::DataOverLimit),
            (&Self::SizeEnd { size: 0 }, b'\n') => Ok(Self::Trailers(Scan::new())),
            (&Self::SizeEnd { size }, b'\n') => Ok(Self::Data { left: size }),
            (Self::DataEnd { cr_seen: false }, b'\r') => Ok(Self::DataEnd { cr_seen: true }),
            (Self::DataEnd { cr_seen: true }, b'\n') => Ok(Self::Size { size: 0, digits: 0 }),
            _ => Err(ChunkFault::BadChunk),
        }
    }
}

/// The length of the trailer section with its empty line, once it is in sight.
fn trailers(scan: &mut Scan, bytes: &[u8], max: usize) -> Result<Option<usize>, ChunkFault> {
    let fault = |fault| match fault {
        HeadFault::TooLarge => ChunkFault::TrailersTooLarge,
        HeadFault::BareLineEnd => ChunkFault::BareLineEnd,
        _ => ChunkFault::BadTrailer,
    };
    let Some(len) = scan.look(bytes, max).map_err(fault)? else {
        return Ok(None);
    };
    let section = &bytes[..len];
    let mut places = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let fields = match httparse::parse_headers(section, &mut places) {
        Ok(httparse::Status::Complete((read, fields))) if read == len => fields,
        Ok(_) => return Err(ChunkFault::BadTrailer),
        Err(error) => return Err(fault(head::fault_of(error, section))),
    };
    match fields
        .iter()
        .all(|field| Field::of(field.name) == Field::Other)
    {
        true => Ok(Some(len)),
        false => Err(ChunkFault::BadTrailer),
    }
}
