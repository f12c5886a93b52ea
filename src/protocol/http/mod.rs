//! HTTP/1.1 and HTTP/1.0 message framing (RFC 9112): where a request and its response end, and
//! what a reverse proxy changes in their heads (RFC 9110 section 7.6).
//!
//! Not here: caching, content codings, HTTP/2, and any opinion on what the fields of a service mean.
//! Dates, `Server`, cookies and the order and case of what goes through stay as they are. No `Via`
//! is added (RFC 9110 section 7.6.3 asks gateways for one; like its peers, this proxy does not show).
//!
//! Invariant: of what comes from a client, only messages that have exactly one reading go on. What
//! two implementations are known to read in two ways is refused, never repaired: the connection to
//! the service is lent to the next client afterwards.

mod body;
mod chunk;
mod fields;
mod head;
mod refusal;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod violation;

use std::net::IpAddr;
use std::sync::Arc;

pub use fields::CodingFault;
pub use refusal::Refusal;
pub use request::RequestFramer;
pub use response::ResponseFramer;
pub use violation::{RequestViolation, ResponseViolation};

/// What the framers need to know of the configuration and of the client. Made once for a session.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of a head (start line, fields and the empty line) or of a trailer section, at most.
    pub head_max: usize,
    /// Bytes of a request's content, at most. `None`: no limit.
    pub body_max: Option<u64>,
    /// The `Host` for requests that bring none, which only HTTP/1.0 may (RFC 9112 section 3.2).
    pub authority: Arc<str>,
    /// What the service is told about the client. `None`: nothing, and what the client sent about
    /// itself goes through untouched.
    pub forwarded: Option<Forwarded>,
}

/// What `X-Forwarded-For` and `X-Forwarded-Proto` tell the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// The client's address without port or brackets, or `unix:` for one on a Unix socket.
    pub client: Box<str>,
    /// The scheme that the client spoke to us.
    pub proto: &'static str,
}

impl Forwarded {
    /// A client on the network. An IPv4 address mapped into IPv6 is shown as IPv4.
    #[must_use]
    pub fn from_address(address: IpAddr) -> Self {
        Self {
            client: address.to_canonical().to_string().into(),
            proto: "http",
        }
    }

    /// A client on a Unix socket: `unix:`, the text that nginx uses too.
    #[must_use]
    pub fn from_unix() -> Self {
        Self {
            client: "unix:".into(),
            proto: "http",
        }
    }
}

/// How the end of a request's content is known (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// No content.
    None,
    /// `Content-Length` octets.
    Length(u64),
    /// Until the last chunk and its trailer section.
    Chunked,
}

/// What a request's head said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestFacts {
    /// RFC 9110 section 9.2.2 calls the method idempotent.
    pub idempotent: bool,
    /// The method is HEAD: the response has no content, whatever its fields say.
    pub head: bool,
    /// 0 or 1: the client speaks HTTP/1.`version_minor`.
    pub version_minor: u8,
    /// The client lets its connection persist (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// `Expect: 100-continue` was passed on: the client may wait for a 100 before it sends content.
    pub expects_continue: bool,
    /// An `Upgrade` was passed on: a 101 is in order.
    pub upgrade: bool,
    /// How the end of the content is known.
    pub body: BodyLength,
}

impl RequestFacts {
    /// What an answer to this request must say about the client's connection.
    #[must_use]
    pub fn persistence(&self, close: bool) -> Persistence {
        match (close || !self.keep_alive, self.version_minor) {
            (true, _) => Persistence::Close,
            (false, 0) => Persistence::KeepAliveSaid,
            (false, _) => Persistence::KeepAlive,
        }
    }
}

/// What an answer says about the client's connection (RFC 9112 section 9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// `Connection: close`.
    Close,
    /// Nothing: HTTP/1.1 persists by default.
    KeepAlive,
    /// `Connection: keep-alive`, without which an HTTP/1.0 client would wait for the end of the
    /// connection.
    KeepAliveSaid,
}

/// What a final response's head said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseFacts {
    /// The status code, 101 or 200..=999.
    pub status: u16,
    /// The service keeps this connection for another request after the boundary. False on any doubt.
    pub upstream_keep_alive: bool,
    /// The content ends where the service's connection does.
    pub until_close: bool,
    /// The client can tell from the protocol when the response is cut short. Where not, only a reset
    /// tells it.
    pub client_sees_end: bool,
    /// For how long the service says that it keeps the connection while it is idle: `timeout` of
    /// its `Keep-Alive` field, in seconds.
    pub idle_timeout_s: Option<u32>,
}
