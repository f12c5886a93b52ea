//! The exclusive right to one upstream connection.
//!
//! It ends by [`Lease::release`] at a proven boundary, or by [`Lease::discard`] with a reason. One
//! that is merely dropped (its session was cancelled at an await) is discarded: nobody knows what
//! the service still owes.

use std::sync::Arc;
use std::time::Instant;

use super::{Connection, Seen};
use crate::stats::reason::DiscardReason;
use crate::stats::sessions::SessionFacts;

/// Where leases come from and go back to.
pub trait Home: Send + Sync {
    /// A connection carries the exchanges of several sessions from now on.
    fn take_shared(&self, connection: &mut Connection);

    /// A connection comes back, fit to be lent again.
    fn take_back(&self, connection: Box<Connection>, now: Instant);

    /// A connection ends.
    fn take_discarded(&self, connection: Box<Connection>, reason: DiscardReason, seen: Seen);
}

/// The exclusive right to one upstream connection.
#[must_use = "a lease ends by release or by discard"]
pub struct Lease {
    /// There until the lease ends.
    connection: Option<Box<Connection>>,
    home: Arc<dyn Home>,
}

impl Lease {
    /// The right to `connection`, which belongs to `home`.
    pub fn new(connection: Box<Connection>, home: Arc<dyn Home>) -> Self {
        Self {
            connection: Some(connection),
            home,
        }
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        self.connection.as_deref().expect(HELD)
    }

    /// The connection, for reading and writing.
    pub fn connection_mut(&mut self) -> &mut Connection {
        self.connection.as_deref_mut().expect(HELD)
    }

    /// Whether it has carried an exchange or been idle before, so that a keep-alive race can be lost
    /// on it.
    pub fn is_reused(&self) -> bool {
        let connection = self.connection();
        connection.exchanges > 0 || connection.was_idle
    }

    /// Says whose end goes with the connection's, if it ends now.
    pub fn serves(&mut self, session: &Arc<SessionFacts>) {
        self.connection_mut().session = Some(Arc::clone(session));
    }

    /// Has the connection carry the exchanges of several sessions from now on, to its end.
    pub fn share(&mut self) {
        let connection = self.connection.as_deref_mut().expect(HELD);
        self.home.take_shared(connection);
    }

    /// Gives the connection back at a proven boundary: one exchange more was carried.
    pub fn release(self, now: Instant) {
        self.release_after(1, now);
    }

    /// Gives the connection back where nothing is owed: so many exchanges were carried.
    pub fn release_after(mut self, exchanges: u64, now: Instant) {
        if let Some(mut connection) = self.connection.take() {
            connection.exchanges += exchanges;
            connection.session = None;
            connection.idle_since = now;
            connection.idle_until = now;
            self.home.take_back(connection, now);
        }
    }

    /// Gives the connection back as it came: nothing was written to it and nothing read.
    pub fn put_back(mut self, now: Instant) {
        if let Some(mut connection) = self.connection.take() {
            connection.was_idle = true;
            connection.session = None;
            self.home.take_back(connection, now);
        }
    }

    /// Ends the connection.
    pub fn discard(mut self, reason: DiscardReason, seen: Seen) {
        if let Some(connection) = self.connection.take() {
            self.home.take_discarded(connection, reason, seen);
        }
    }
}

const HELD: &str = "only release, put_back and discard take the connection, and they end the lease";

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.home
                .take_discarded(connection, DiscardReason::Cancelled, Seen::MidResponse);
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}
