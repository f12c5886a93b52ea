//! The right of one session to a connection that has a task of its own.
//!
//! It ends by [`Pin::give_back`], or by [`Pin::abandon`]; one that is merely dropped (its session was
//! cancelled at an await) is abandoned: nobody knows what the service still owes.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use super::link::{Left, Link, NotSent, Standing};
use super::links::{Known, Links, NotOpened};
use super::mailbox::Mailbox;
use crate::pool::Lease;
use crate::protocol::replies::{Kind, Language};
use crate::stats::reason::{DiscardReason, LeaseReason};
use crate::sys::clock;
use crate::upstream::Upstream;

/// For how long a session needs the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// For exchanges that the service answers in its usual time.
    Short,
    /// Until something happens, or the client leaves.
    Long,
}

/// The right to have a lease pinned: `size` less `shared` of them for each endpoint.
#[derive(Debug)]
pub struct Pinning {
    _any: OwnedSemaphorePermit,
    long: Option<OwnedSemaphorePermit>,
}

/// The right of one session to a connection.
#[derive(Debug)]
#[must_use = "a pin ends by give_back or by abandon"]
pub struct Pin<L: Language> {
    link: Arc<Link<L>>,
    pinning: Pinning,
    is_over: bool,
    since: Instant,
    upstream: Arc<Upstream>,
}

impl<L: Language> Links<L> {
    /// Waits for the right to a pinned connection, in order. `None` where no more may be pinned for so
    /// long, or at all.
    pub async fn may_be_pinned(self: &Arc<Self>, patience: Patience) -> Option<Pinning> {
        let long = match patience {
            Patience::Short => None,
            Patience::Long => Some(Arc::clone(&self.long_pins).try_acquire_owned().ok()?),
        };
        let permit = Arc::clone(&self.pins).acquire_owned().await.ok()?;
        Some(Pinning { _any: permit, long })
    }

    /// Pins a lease to the session of a mailbox, for a reason. `is_proof`: the service is told anew who is served.
    ///
    /// # Errors
    /// The service refused who is served, or died of it.
    pub async fn pin_lease(
        self: &Arc<Self>,
        pinning: Pinning,
        lease: Lease,
        known: &Arc<Known<L>>,
        whose: (LeaseReason, &Arc<Mailbox<Kind<L>>>),
        is_proof: bool,
    ) -> Result<Pin<L>, NotOpened> {
        let link = self.serve_alone(lease, known, whose, is_proof).await?;
        Ok(Pin {
            link,
            pinning,
            is_over: false,
            since: clock::now(),
            upstream: Arc::clone(self.upstream()),
        })
    }
}

impl<L: Language> Pin<L> {
    /// The connection.
    pub fn link(&self) -> &Arc<Link<L>> {
        &self.link
    }

    /// From here on the session gets all that the service says.
    ///
    /// # Errors
    /// Too many are pinned for long.
    pub fn stream(
        &mut self,
        links: &Links<L>,
        mailbox: &Arc<Mailbox<Kind<L>>>,
    ) -> Result<(), TooMany> {
        if self.pinning.long.is_none() {
            let permit = Arc::clone(&links.long_pins).try_acquire_owned();
            self.pinning.long = Some(permit.map_err(|_| TooMany)?);
        }
        self.link.stream_to(mailbox);
        Ok(())
    }

    /// Hands over a part of a request whose reply is owed already, or what is said while it streams.
    ///
    /// # Errors
    /// Nothing was taken over.
    pub fn send_on(
        &self,
        mailbox: &Arc<Mailbox<Kind<L>>>,
        bytes: &[u8],
        kind: Kind<L>,
        now: Instant,
    ) -> Result<(), NotSent> {
        self.link.send_on(mailbox, bytes, kind, now)
    }

    /// The session needs it no more, and nothing is owed. Where something is left on it, it is reset
    /// before it is lent again.
    pub fn give_back(mut self, left: Left) {
        self.is_over = true;
        self.link.stand(Standing::GivenBack(left));
    }

    /// The session leaves in the midst of something.
    pub fn abandon(mut self, reason: DiscardReason) {
        self.is_over = true;
        self.link.stand(Standing::Abandoned(reason));
    }
}

/// Too many connections are pinned for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl<L: Language> Drop for Pin<L> {
    fn drop(&mut self) {
        let duration = clock::now().saturating_duration_since(self.since);
        self.upstream.stats().pin_duration.observe(duration);
        if !self.is_over {
            self.link
                .stand(Standing::Abandoned(DiscardReason::Cancelled));
        }
    }
}
