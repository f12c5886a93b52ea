//! Wire languages, sans-IO: bytes in, boundaries out.
//!
//! A [`Framer`] reads one direction of one exchange. It says how many of the bytes it was shown
//! belong to the exchange, how they go on (as they are, edited, or not at all), and at the end what
//! follows: a boundary, a pin, one more response, or a violation.
//!
//! Not here: sockets, clocks, pools, and buffers. A framer is shown bytes and holds none.
//!
//! Invariant: the same bytes cut in any way give the same answer.

pub mod frames;
pub mod http;
pub mod memcached;
pub mod redis;
pub mod replies;

use std::time::Duration;

/// One direction of one exchange.
pub trait Framer {
    /// Why bytes are refused.
    type Violation;

    /// Looks at `bytes`, all that was read and not taken yet, and says what becomes of the first of
    /// them. Where they go on edited, the edited bytes are appended to `edited`.
    ///
    /// `taken = 0` with [`Then::More`] means: nothing can be said before more bytes are read. A
    /// violation is about the first of `bytes`: whatever came before it has been taken. After
    /// [`Then::Boundary`], [`Then::Pinned`] or a violation the framer is spent.
    fn frame(&mut self, bytes: &[u8], edited: &mut Vec<u8>) -> Result<Frame, Self::Violation>;
}

/// The direction that answers.
pub trait Reply: Framer {
    /// The service's connection ended here.
    fn eof(&mut self) -> Eof;

    /// Whether the service keeps its connection open after the boundary.
    fn allows_reuse(&self) -> bool;

    /// Whether the message that answers has begun: nothing else can be said in its place.
    fn is_begun(&self) -> bool;

    /// Whether the client can tell from the protocol when the message that has begun is cut short.
    fn client_sees_end(&self) -> bool;

    /// Whether there is an answer at all; where not, the exchange ends with the request.
    fn is_owed(&self) -> bool;

    /// Whether it says that no request came in time, which a service says when it closes an idle
    /// connection, and which is no answer to a request that it did not wait for.
    fn says_idle_for_too_long(&self) -> bool;

    /// For how long the service says that it keeps its connection while that is idle.
    fn idle_timeout(&self) -> Option<Duration> {
        None
    }

    /// Whether the client's connection is closed after this response, which the response says where
    /// the protocol has words for it. Heeded until the final head is framed.
    fn announce_close(&mut self, closes: bool);
}

/// What the end of the service's connection means for the response it was reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eof {
    /// Nothing of the response had come.
    Nothing,
    /// The response ends here, as its framing says.
    Complete,
    /// The response is cut short.
    Truncated,
}

/// What becomes of the first bytes that a framer was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// How many bytes this is about.
    pub taken: usize,
    /// How they go on.
    pub pass: Pass,
    /// What comes after them.
    pub then: Then,
}

impl Frame {
    /// Nothing can be said before more bytes are read.
    pub const WAIT: Self = Self {
        taken: 0,
        pass: Pass::Dropped,
        then: Then::More,
    };

    /// The message ended before these bytes.
    pub const ENDED: Self = Self {
        taken: 0,
        pass: Pass::Dropped,
        then: Then::Boundary,
    };
}

/// How taken bytes go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// As they are.
    Verbatim,
    /// In the form that was appended to `edited`.
    Edited,
    /// Not at all.
    Dropped,
}

/// What comes after the taken bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The message goes on.
    More,
    /// The message ended; what follows belongs to the next exchange.
    Boundary,
    /// An interim response ended; another response to the same request follows.
    OneMoreResponse,
    /// The message never ends in the protocol: the connection is this session's for life.
    Pinned(PinReason),
}

/// Why a session must keep its upstream connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinReason {
    /// `101 Switching Protocols`: from here on both directions are opaque.
    Upgrade,
}

#[cfg(test)]
mod tests;
