//! Why a request is refused, and in what words: memcached's own.
//!
//! Invariant: what is said is a whole reply, so that a client that counts replies stays in step.

use thiserror::Error;

/// Why a request never reaches the service. The client's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestViolation {
    /// No command of that name, or with that number of words.
    #[error("no such command")]
    Unknown,
    /// The line breaks the form of its command.
    #[error("the line breaks the form of its command")]
    BadFormat,
    /// A flag that may stand once stands twice.
    #[error("a flag stands twice")]
    DuplicateFlag,
    /// More flags than memcached reads.
    #[error("there are too many flags")]
    TooManyFlags,
    /// The data does not end where the line says.
    #[error("the data does not end where its line says")]
    BadDataChunk,
    /// The data is over [`Limits::item_bytes_max`](super::Limits::item_bytes_max).
    #[error("the data is too large")]
    TooLarge,
    /// The line is over [`LINE_BYTES_MAX`](super::LINE_BYTES_MAX), or over
    /// [`Limits::line_bytes_max`](super::Limits::line_bytes_max) where it is a `get` or `gets`. It
    /// has no end in sight: the session ends.
    #[error("the line is too long")]
    LineTooLong,
    /// The client speaks the binary protocol: the session ends.
    #[error("the client speaks the binary protocol")]
    Binary {
        /// What its first request asks for.
        opcode: u8,
        /// What marks the request, and its reply.
        opaque: [u8; 4],
    },
}

impl RequestViolation {
    /// Appends the reply to the client.
    pub fn write_reply(self, out: &mut Vec<u8>) {
        match self {
            Self::Binary { opcode, opaque } => write_binary_error(opcode, opaque, out),
            text => out.extend_from_slice(text.line()),
        }
    }

    /// Whether the session must end after the reply: nobody knows where its next request begins.
    #[must_use]
    pub fn ends_session(self) -> bool {
        matches!(self, Self::LineTooLong | Self::Binary { .. })
    }

    /// The reply, where it is a line.
    pub(super) fn line(self) -> &'static [u8] {
        match self {
            Self::Unknown | Self::Binary { .. } => b"ERROR\r\n",
            Self::BadFormat => b"CLIENT_ERROR bad command line format\r\n",
            Self::DuplicateFlag => b"CLIENT_ERROR duplicate flag\r\n",
            Self::TooManyFlags => b"CLIENT_ERROR options flags are too long\r\n",
            Self::BadDataChunk => b"CLIENT_ERROR bad data chunk\r\n",
            Self::TooLarge => b"SERVER_ERROR object too large for cache\r\n",
            // memcached says nothing here, and closes.
            Self::LineTooLong => b"CLIENT_ERROR line too long\r\n",
        }
    }
}

/// A response of the binary protocol with status 0x0081, as `doc/protocol-binary.txt` has it: magic,
/// opcode, lengths of key and extras, data type, status, length of the body, opaque, cas; and the body.
fn write_binary_error(opcode: u8, opaque: [u8; 4], out: &mut Vec<u8>) {
    let body = b"Unknown command";
    out.extend_from_slice(&[0x81, opcode, 0, 0, 0, 0, 0x00, 0x81]);
    out.extend_from_slice(&[0, 0, 0, body.len() as u8]);
    out.extend_from_slice(&opaque);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(body);
}
