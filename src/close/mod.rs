//! How a connection ends, and the only place that ends one on purpose.
//!
//! [`Termination`] is the one type for "how it ended": who began the end, in which phase, in which
//! manner. [`linger`] closes gracefully, [`reset`] lists every case in which millpond sends an RST.
//!
//! Not here: the counters (see `stats`), and any knowledge of protocols or pools.
//!
//! Invariant: a connection has exactly one Termination, and the first cause wins.

pub mod account;
pub mod classify;
pub mod linger;
pub mod reset;

/// Which of our two legs a connection is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The side that dialled us.
    Downstream,
    /// The service's side, which we dialled.
    Upstream,
}

impl Side {
    /// Every member.
    pub const ALL: [Self; 2] = [Self::Downstream, Self::Upstream];

    /// The text of its label: stable, part of the public interface.
    pub fn label(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
        }
    }
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

impl Initiator {
    /// Every member.
    pub const ALL: [Self; 5] = [
        Self::Downstream,
        Self::Upstream,
        Self::Millpond,
        Self::Kernel,
        Self::Operator,
    ];

    /// The text of its label: stable, part of the public interface.
    pub fn label(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Millpond => "millpond",
            Self::Kernel => "kernel",
            Self::Operator => "operator",
        }
    }
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

impl Phase {
    /// Every member.
    pub const ALL: [Self; 8] = [
        Self::Accept,
        Self::Handshake,
        Self::Queue,
        Self::Connect,
        Self::Request,
        Self::Response,
        Self::Idle,
        Self::Close,
    ];

    /// The text of its label: stable, part of the public interface.
    pub fn label(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Handshake => "handshake",
            Self::Queue => "queue",
            Self::Connect => "connect",
            Self::Request => "request",
            Self::Response => "response",
            Self::Idle => "idle",
            Self::Close => "close",
        }
    }
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

impl Manner {
    /// Every member.
    pub const ALL: [Self; 8] = [
        Self::Fin,
        Self::ResetReceived,
        Self::ResetSent,
        Self::Truncated,
        Self::Timeout,
        Self::Refused,
        Self::Limit,
        Self::Violation,
    ];

    /// The text of its label: stable, part of the public interface.
    pub fn label(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::ResetReceived => "reset_received",
            Self::ResetSent => "reset_sent",
            Self::Truncated => "truncated",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Limit => "limit",
            Self::Violation => "violation",
        }
    }
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
    /// The peer went on sending past the bounds of time and bytes after our FIN.
    LingerBound,
    /// The operator's configuration or command.
    Operator,
}

impl ResetCause {
    /// Every member.
    pub const ALL: [Self; 4] = [
        Self::Propagated,
        Self::Abandoned,
        Self::LingerBound,
        Self::Operator,
    ];

    /// The text of its label: stable, part of the public interface.
    pub fn label(self) -> &'static str {
        match self {
            Self::Propagated => "propagated",
            Self::Abandoned => "abandoned",
            Self::LingerBound => "linger_bound",
            Self::Operator => "operator",
        }
    }
}
