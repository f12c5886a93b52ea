//! The request of an exchange, and how far it has come; it outlives the attempts to send it.
//!
//! Not here: sending it (see `exclusive`).

use super::buffer::Buffer;
use super::outbound::Outbound;
use crate::protocol::{Frame, Framer, Then};

/// The request of an exchange.
#[derive(Debug)]
pub struct Request<Q> {
    /// Its framer.
    pub framer: Q,
    /// What is framed of it.
    pub outbound: Outbound,
    /// Its last byte is framed.
    pub is_framed: bool,
    /// The client gives no more of it before it hears from the service.
    pub awaits_interim: bool,
}

impl<Q: Framer> Request<Q> {
    /// A request of which nothing is here. Up to `hold_bytes_max` bytes of it are held when they are
    /// sent, so that they can be sent once more.
    pub fn new(framer: Q, hold_bytes_max: usize) -> Self {
        Self {
            framer,
            outbound: Outbound::new(hold_bytes_max),
            is_framed: false,
            awaits_interim: false,
        }
    }

    /// Frames what the client sent; false where nothing can be said without more bytes.
    pub fn frame(&mut self, inbound: &mut Buffer) -> Result<bool, Q::Violation> {
        let mut framed = false;
        while !self.is_framed && !self.outbound.is_blocked() && !inbound.is_empty() {
            let Frame { taken, pass, then } = self
                .framer
                .frame(inbound.filled(), self.outbound.edited())?;
            if taken == 0 && then == Then::More {
                break;
            }
            framed = true;
            self.outbound.pass(pass, taken, inbound);
            self.is_framed = then == Then::Boundary;
        }
        Ok(framed)
    }

    /// Whether all of it is written.
    pub(super) fn is_sent(&self) -> bool {
        self.is_framed && self.outbound.is_flushed()
    }
}
