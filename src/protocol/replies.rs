//! Replies on a connection that carries the exchanges of several sessions.
//!
//! There a reply is found by what is owed: by the requests' order and what each request says of the shape of
//! its reply, or by an id that both have. Not here: who is owed what (see `relay::shared`).
//!
//! Invariant: the same bytes cut in any way give the same answer.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

/// What a connection that carries several sessions has to know of its protocol.
pub trait Language: Send + Sync + Debug + 'static {
    /// How replies are found.
    type Replies: Replies;

    /// Whose connection it is: who is equal is served over the same connections.
    type Identity: Clone + Eq + Hash + Default + Debug + Send + Sync;

    /// What brings a connection back to where it began, where the protocol has words for it: the
    /// request, and its reply.
    const RESET: Option<(&'static [u8], &'static [u8])>;

    /// Whether replies are found by ids, in any order; else by the order of their requests.
    const BY_ID: bool = false;

    /// A framer between two replies.
    fn replies(&self) -> Self::Replies;

    /// What a service is told on a connection before it serves this identity.
    fn setup(identity: &Self::Identity) -> Setup;

    /// What a service says that refuses a step of the setup, in a reply of the protocol's own.
    fn refusal(reply: &[u8]) -> Option<&[u8]>;

    /// Appends what a client is told in place of a reply of `kind`: that the request came to nothing, and
    /// why.
    ///
    /// # Errors
    /// There are no words for it.
    fn write_refusal(
        &self,
        kind: <Self::Replies as Replies>::Kind,
        sentence: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), Wordless>;

    /// The length of the first of these whole requests, bytes.
    fn first_request(requests: &[u8]) -> usize;

    /// Whether TCP can prove that a service never had a request: not where some have no reply, since a service
    /// may execute those behind its own FIN.
    fn is_provable(&self) -> bool {
        true
    }

    /// How many ids a connection has, at most.
    fn ids_max(&self) -> usize {
        usize::MAX
    }

    /// Puts one of the connection's own ids into the beginning of a request.
    fn put_id(&self, _request: &mut [u8], _id: u64) {}

    /// Puts back what the client had in its place.
    fn put_back(&self, _request: &mut [u8], _kind: <Self::Replies as Replies>::Kind) {}

    /// What a connection that is quiet for so long is sent, so that the service keeps it.
    fn heartbeat(&self) -> Option<(&Heartbeat<<Self::Replies as Replies>::Kind>, Duration)> {
        None
    }
}

/// What millpond says of its own accord, to show that it is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat<K> {
    /// The whole message.
    pub message: Vec<u8>,
    /// What it says of its reply.
    pub kind: K,
    /// Whether it has one.
    pub is_answered: bool,
}

/// A client can't be told: its protocol has no words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wordless;

/// What a request of `L` says about its reply.
pub type Kind<L> = <<L as Language>::Replies as Replies>::Kind;

/// What a service is told on a new connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Setup {
    /// The requests.
    pub requests: Vec<u8>,
    /// How many there are; each has one reply.
    pub count: usize,
}

/// Finds the end of each reply in the order of their requests.
pub trait Replies: Send + 'static {
    /// What a request says about its reply: its shape, and whether its client is to see it.
    type Kind: Copy + PartialEq + Send + Sync + Debug;

    /// Says whose the message is that begins with `bytes`, where that is said by ids. `None`: nothing can be
    /// said before more bytes are read; that is never said of more than [`UNDECIDED_BYTES_MAX`].
    ///
    /// # Errors
    /// As for [`Replies::frame`].
    fn whose(&mut self, _bytes: &[u8]) -> Result<Option<Whose<Self::Kind>>, ReplyViolation> {
        Err(ReplyViolation("replies have no ids"))
    }

    /// Puts the ids of its client's request into the beginning of a reply.
    fn put_back(&self, _reply: &mut [u8], _kind: Self::Kind) {}

    /// Looks at `bytes`, all that was read and not taken yet, as the reply to a request of `kind`, or
    /// as the rest of it. After [`ReplyThen::End`] the next call begins the next reply.
    ///
    /// `taken = 0` with [`ReplyThen::More`] means: nothing can be said before more bytes are read;
    /// that is never said of more than [`UNDECIDED_BYTES_MAX`].
    ///
    /// # Errors
    /// The service broke the protocol: from here on nothing is known about the connection.
    fn frame(&mut self, kind: Self::Kind, bytes: &[u8]) -> Result<ReplyFrame, ReplyViolation>;

    /// The same for what a service says unasked, to the one session that its connection is pinned to.
    ///
    /// # Errors
    /// As above; and always where the protocol has nothing of the kind.
    fn frame_unasked(&mut self, bytes: &[u8]) -> Result<ReplyFrame, ReplyViolation>;
}

/// Whose a message of the service's is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose<K> {
    /// It answers the request of this id.
    Asked(u64),
    /// It only shows that the service is alive, and is answered so, if at all.
    Heartbeat(Option<Heartbeat<K>>),
    /// The service says it of its own accord. `retires`: no more requests are to come over this connection.
    Unasked {
        /// Whether the connection is to be given up.
        retires: bool,
    },
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
