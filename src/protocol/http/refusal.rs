//! The short answer that millpond gives in a service's place.
//!
//! No `Server` (the service's name is not ours to give or to hide) and no `Date` (a framer knows no
//! clock; RFC 9110 section 6.6.1 excuses those).
//!
//! Invariant: a complete message, so that a client that stays can tell where it ends.

use std::time::Duration;

use super::Persistence;
use super::head::{push_decimal, push_number};

/// One refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal<'w> {
    /// The status code.
    pub status: u16,
    /// Why, in one sentence without a line end.
    pub why: &'w str,
    /// What the client is told about its connection.
    pub persistence: Persistence,
    /// When to come back, rounded up to seconds.
    pub retry_after: Option<Duration>,
    /// The answer is to a HEAD request and ends with its head (RFC 9110 section 9.3.2).
    pub head: bool,
}

impl Refusal<'_> {
    /// Appends the answer to `answer`.
    pub fn write(&self, answer: &mut Vec<u8>) {
        answer.extend_from_slice(b"HTTP/1.1 ");
        push_decimal(answer, self.status.into());
        answer.push(b' ');
        answer.extend_from_slice(reason_phrase(self.status).as_bytes());
        answer.extend_from_slice(b"\r\nContent-Type: text/plain; charset=utf-8\r\n");
        push_number(answer, "Content-Length", self.why.len() as u64 + 1);
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            push_number(answer, "Retry-After", seconds);
        }
        answer.extend_from_slice(match self.persistence {
            Persistence::Close => b"Connection: close\r\n\r\n",
            Persistence::KeepAlive => b"\r\n",
            Persistence::KeepAliveSaid => b"Connection: keep-alive\r\n\r\n",
        });
        if !self.head {
            answer.extend_from_slice(self.why.as_bytes());
            answer.push(b'\n');
        }
    }
}

/// RFC 9110 section 15, RFC 6585.
fn reason_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        408 => "Request Timeout",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
