//! The response of an exchange, and how far it has come.
//!
//! Not here: reading and delivering it (see `exclusive`).

use super::buffer::Buffer;
use super::outbound::Outbound;
use crate::protocol::Then;

/// The response of an exchange.
#[derive(Debug)]
pub(super) struct Response<A> {
    /// Its framer.
    pub(super) framer: A,
    /// What came from the service and is not framed.
    pub(super) inbound: Buffer,
    /// What is framed of it.
    pub(super) outbound: Outbound,
    /// What follows what is framed.
    pub(super) then: Then,
    /// A byte of any response has come.
    pub(super) has_begun: bool,
    /// Bytes that were read for a client that had left.
    pub(super) abandoned_bytes: u64,
}

impl<A> Response<A> {
    /// A response of which nothing has come. `head_bytes_max`: what its framer must see at once, at most.
    pub(super) fn new(framer: A, head_bytes_max: usize) -> Self {
        Self {
            framer,
            inbound: Buffer::new(head_bytes_max),
            outbound: Outbound::new(0),
            then: Then::More,
            has_begun: false,
            abandoned_bytes: 0,
        }
    }

    /// Bytes that were read and that the client was not given.
    pub(super) fn undelivered_bytes(&self) -> u64 {
        let held_bytes = self.inbound.filled().len() + self.outbound.edited_bytes();
        self.abandoned_bytes + held_bytes as u64
    }

    /// Bytes behind the boundary.
    pub(super) fn stray_bytes(&self) -> usize {
        self.inbound.filled().len() - self.outbound.verbatim_bytes()
    }
}
