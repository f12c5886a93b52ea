//! After the end of a client of `tcp`: whether its service's connection may serve another.
//!
//! ```text
//!  quiet ──everything acknowledged──► probe, if there is one ──answered──► last look ──► released
//!             └──────────────────────────┴──────────any doubt──────────────┴──► discarded, counted
//! ```
//!
//! The client waits for what is found: where the service had more to say, the answer was not at its
//! end, and must not look so. A promise is not proved: what pauses for longer than the operator said is
//! taken for finished; and so is, for its client, a service that does not answer the probe in time.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::config::checked::{Probe, Reuse};
use crate::pool::{Lease, Look, Seen};
use crate::relay::probe::{self, Probed};
use crate::stats::reason::DiscardReason;
use crate::sys::{clock, socket};
use crate::transport::Transport;

/// A connection whose client is done with it.
pub(super) struct Settling {
    lease: Lease,
    probe: Option<Arc<Probe>>,
}

/// What the client has of the service's last answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// All of it, as far as is known.
    Whole,
    /// Not all: there was more, which nobody can tell from the answer to the probe, or a reset.
    CutShort,
}

impl Settling {
    /// Begins with a service that has been quiet; `client` is still open. Where it is not clean, it is
    /// discarded already, and this is why.
    pub(super) fn begin(
        lease: Lease,
        reuse: &Reuse,
        client: &Transport,
    ) -> Result<Self, DiscardReason> {
        let service = &lease.connection().transport;
        // An end that can't be asked is none that has acknowledged anything.
        let is_acknowledged = |transport: &Transport| -> io::Result<bool> {
            Ok(socket::unacknowledged_bytes(transport.as_fd())? == 0)
        };
        if !(is_acknowledged(service).unwrap_or(false) && is_acknowledged(client).unwrap_or(false))
        {
            let reason = DiscardReason::ReuseUnacknowledged;
            lease.discard(reason, Seen::Open);
            return Err(reason);
        }
        let probe = match reuse {
            Reuse::Probed(probe) => Some(Arc::clone(probe)),
            Reuse::Promised | Reuse::Never => None,
        };
        Ok(Self { lease, probe })
    }

    /// Finds out, and gives the connection back or ends it, for a reason. Returns whether the client's
    /// answer was at its end, as far as is known.
    pub(super) async fn settle(mut self) -> (Answer, Option<DiscardReason>) {
        let found = match self.look() {
            None => self.ask().await.or_else(|| self.look()),
            doubt => doubt,
        };
        let Some((reason, seen)) = found else {
            self.lease.release(clock::now());
            return (Answer::Whole, None);
        };
        self.lease.discard(reason, seen);
        let answer = match reason {
            DiscardReason::ReuseLateBytes | DiscardReason::ReuseProbeWrong => Answer::CutShort,
            DiscardReason::IdleReset | DiscardReason::IdleVanished => Answer::CutShort,
            _ => Answer::Whole,
        };
        (answer, Some(reason))
    }

    /// Whether anything has come that nobody asked for.
    fn look(&self) -> Option<(DiscardReason, Seen)> {
        match self.lease.connection().ask_kernel() {
            Look::Quiet => None,
            Look::Bytes => Some((DiscardReason::ReuseLateBytes, Seen::Open)),
            Look::Fin => Some((DiscardReason::IdleFin, Seen::PeerFin)),
            Look::Reset => Some((DiscardReason::IdleReset, Seen::PeerReset)),
            Look::Vanished => Some((DiscardReason::IdleVanished, Seen::PeerVanished)),
        }
    }

    async fn ask(&mut self) -> Option<(DiscardReason, Seen)> {
        let Probe {
            send,
            expect,
            timeout,
        } = self.probe.as_deref()?;
        let service = &mut self.lease.connection_mut().transport;
        let deadline = clock::now() + *timeout;
        match probe::probe(service, send, expect, deadline).await {
            Probed::Answered => None,
            Probed::Wrong => Some((DiscardReason::ReuseProbeWrong, Seen::Open)),
            Probed::Late => Some((DiscardReason::ReuseProbeTimeout, Seen::Open)),
            Probed::Fin => Some((DiscardReason::IdleFin, Seen::PeerFin)),
            Probed::Reset => Some((DiscardReason::IdleReset, Seen::PeerReset)),
            Probed::Vanished => Some((DiscardReason::IdleVanished, Seen::PeerVanished)),
        }
    }
}
