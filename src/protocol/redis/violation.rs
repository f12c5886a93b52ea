//! Why a client's request is refused: one variant for each class, with the words that Redis has for
//! it (`networking.c`, Redis 7.0). Redis answers them and closes.
//!
//! Not here: commands that are well formed and not served (see [`super::Refused`]).
//!
//! Invariant: a message is one line.

use std::borrow::Cow;
use std::fmt;

/// Why a request is refused. Each is the client's fault, and what follows it can't be understood:
/// the client is answered and closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestViolation {
    /// What stands behind `*` is no number.
    BadCount,
    /// More than [`super::Limits::arguments_max`].
    TooManyArguments,
    /// Another byte in the place of a bulk string's `$`.
    NotABulk(u8),
    /// What stands behind `$` is no number, or a negative one.
    BadLength,
    /// More than [`super::Limits::bulk_bytes_max`].
    BulkTooLong,
    /// A count, a length or an argument is not followed by CRLF. Redis does not look at the two
    /// bytes behind an argument, so that others read another request than it does.
    BadTerminator,
    /// More than [`super::Limits::inline_bytes_max`] without a line feed.
    InlineTooLong,
    /// A command that millpond answers, or refuses, and that is too large to be looked at.
    TooLarge,
    /// A NUL in an inline command. To Redis it ends the text before the line does, and it waits.
    NulInLine,
    /// A quote that is not closed, or not followed by a space.
    UnbalancedQuotes,
    /// The first word is `POST` or `Host:`: a browser was made to talk to Redis. Redis closes and
    /// says nothing.
    Http,
}

impl RequestViolation {
    /// The error that answers it: what stands between `-` and CRLF.
    #[must_use]
    pub fn message(self) -> Cow<'static, str> {
        let text = match self {
            Self::BadCount | Self::TooManyArguments => {
                "ERR Protocol error: invalid multibulk length"
            }
            Self::BadLength | Self::BulkTooLong => "ERR Protocol error: invalid bulk length",
            Self::NotABulk(byte) => {
                let byte = char::from(byte).escape_default();
                return format!("ERR Protocol error: expected '$', got '{byte}'").into();
            }
            Self::TooLarge => "ERR millpond: a command of this kind is not taken at this size",
            Self::InlineTooLong => "ERR Protocol error: too big inline request",
            Self::NulInLine => "ERR Protocol error: NUL in inline request",
            Self::UnbalancedQuotes => "ERR Protocol error: unbalanced quotes in request",
            Self::BadTerminator => "ERR Protocol error: expected CRLF",
            Self::Http => "ERR Protocol error: this is no HTTP service",
        };
        text.into()
    }
}

impl fmt::Display for RequestViolation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.message();
        formatter.write_str(message.trim_start_matches("ERR "))
    }
}

impl std::error::Error for RequestViolation {}
