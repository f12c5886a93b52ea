//! How a connection ends, and the only place that ends one on purpose.
//!
//! [`Termination`] is the one type for "how it ended": who began the end, in which phase, in which
//! manner. [`linger`] closes gracefully, [`reset`] lists every case in which millpond sends an RST.
//!
//! Not here: the counters (see `stats`), and any knowledge of protocols or pools.
//!
//! Invariant: a connection has exactly one Termination, and the first cause wins.

/// Which of our two legs a connection is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The side that dialled us.
    Downstream,
    /// The service's side, which we dialled.
    Upstream,
}

/// Who began the end of a connection, also when it began on the other leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Initiator {
    /// The client.
    Downstream,
    /// The service.
    Upstream,
    /// A rule or a limit of millpond's own.
    Millpond,
    /// The kernel gave the connection up: a peer that vanished, a keepalive that failed.
    Kernel,
    /// A person or a signal: drain, reload, a command on the admin interface.
    Operator,
}

/// What the connection was doing when its end began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Accepted, and nothing read or written yet.
    Accept,
    /// Being greeted: TLS or a login.
    Handshake,
    /// A session waiting for a lease.
    Queue,
    /// An upstream connection being dialled.
    Connect,
    /// A request under way, nothing of its response seen.
    Request,
    /// A response under way.
    Response,
    /// Between exchanges.
    Idle,
    /// Already closing: our FIN is out, the peer's is awaited.
    Close,
}

/// In which manner the connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Manner {
    /// In order: FIN, with nothing owed.
    Fin,
    /// The peer's RST.
    ResetReceived,
    /// Our RST; its cause is a [`ResetCause`].
    ResetSent,
    /// A message was cut short.
    Truncated,
    /// A deadline passed.
    Timeout,
    /// Refused before it could do anything.
    Refused,
    /// A limit of count or bytes was reached.
    Limit,
    /// The peer broke its protocol.
    Violation,
}

/// How one connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Termination {
    /// Who began the end.
    pub initiator: Initiator,
    /// What was under way.
    pub phase: Phase,
    /// In which manner.
    pub manner: Manner,
}

/// Why millpond sent an RST. There is no other reason to send one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResetCause {
    /// The other leg was reset or died inside a message whose end the peer could not have seen.
    Propagated,
    /// An upstream connection was left in the middle of a response beyond its bound.
    Abandoned,
    /// The peer sent no FIN within the bounds of time, gap and bytes after ours.
    LingerBound,
    /// The operator's configuration or command.
    Operator,
}
