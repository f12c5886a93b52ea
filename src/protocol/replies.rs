//! Replies on a connection that carries the exchanges of several sessions.
//!
//! There a reply is found by what is owed: the requests' order, and what each request says of the
//! shape of its reply. Not here: who is owed what (see `relay::shared`).
//!
//! Invariant: the same bytes cut in any way give the same answer.

/// Finds the end of each reply in the order of their requests.
pub trait Replies: Send + 'static {
    /// What a request says about its reply: its shape, and whether its client is to see it.
    type Kind: Copy + PartialEq + Send + std::fmt::Debug;

    /// Looks at `bytes`, all that was read and not taken yet, as the reply to a request of `kind`, or
    /// as the rest of it. After [`ReplyThen::End`] the next call begins the next reply.
    ///
    /// `taken = 0` with [`ReplyThen::More`] means: nothing can be said before more bytes are read;
    /// that is never said of more than [`UNDECIDED_BYTES_MAX`].
    ///
    /// # Errors
    /// The service broke the protocol: from here on nothing is known about the connection.
    fn frame(&mut self, kind: Self::Kind, bytes: &[u8]) -> Result<ReplyFrame, ReplyViolation>;
}

/// A framer of replies can say what becomes of so many bytes, whatever they are.
pub const UNDECIDED_BYTES_MAX: usize = 4096;

/// What becomes of the first bytes that a framer of replies was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyFrame {
    /// How many bytes this is about.
    pub taken: usize,
    /// Whether they are for the client; else they are dropped.
    pub shown: bool,
    /// What comes after them.
    pub then: ReplyThen,
}

/// What comes after bytes of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyThen {
    /// The reply goes on.
    More,
    /// The reply ended.
    End,
}

/// The service broke its protocol. Its fault; the connection can't be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the service's reply breaks the protocol: {0}")]
pub struct ReplyViolation(pub &'static str);
