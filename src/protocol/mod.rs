//! Wire languages, sans-IO: bytes in, boundaries out.
//!
//! A [`Framer`] reads one direction of one exchange. It says how many of the bytes it was shown
//! belong to the exchange, how they go on (as they are, edited, or not at all), and at the end what
//! follows: a boundary, a pin, one more response, or a violation.
//!
//! Not here: sockets, clocks, pools, and buffers. A framer is shown bytes and holds none.
//!
//! Invariant: the same bytes cut in any way give the same answer.

pub mod http;

/// One direction of one exchange.
pub trait Framer {
    /// Why bytes are refused.
    type Violation;

    /// Looks at `bytes`, all that was read and not taken yet, and says what becomes of the first of
    /// them. Where they go on edited, the edited bytes are appended to `edited`.
    ///
    /// `taken = 0` with [`Then::More`] means: nothing can be said before more bytes are read.
    fn frame(&mut self, bytes: &[u8], edited: &mut Vec<u8>) -> Result<Frame, Self::Violation>;
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
