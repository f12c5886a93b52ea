//! The connections to one endpoint: who holds which, and how one begins and ends.
//!
//! [`books`](core) keeps exact account of every slot, [`wait_queue`] of who waits, [`idle_limit`] of how
//! long the endpoint keeps an idle connection, [`source`] of the ports to dial from; all are pure.
//! [`connect`] opens a connection, a [`Lease`] lends it, [`ending`] says how it ended. Not here: which
//! endpoint is chosen, and who is lent what (see `upstream`): a pool knows an address, not the group
//! it serves.

pub mod connect;
pub mod connection;
pub mod core;
pub mod dial;
pub mod ending;
pub mod idle_limit;
pub mod lease;
pub mod source;
pub mod wait_queue;

pub use connection::{Connection, EndpointId, Look, ask_kernel};
pub use ending::Seen;
pub use lease::{Home, Lease};

/// What makes two connections to one endpoint interchangeable: equal keys, equal connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolKey(u32);

impl PoolKey {
    /// The key of protocols in which every connection is like every other.
    pub const SOLE: Self = Self(0);

    /// The key with this number; whoever hands out numbers sees to it that equal ones are equal.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }
}
