//! What becomes of requests that a connection gave back when it ended.
//!
//! What was never written goes elsewhere; of the rest the client is told. Invariant: the client sees an
//! answer to each of its requests, in their order, or its connection ends.

use super::{Conversation, Refusal, Requests, Unsent, Until};
use crate::close::{Initiator, Manner, Phase};
use crate::protocol::replies::Language;
use crate::relay::shared::{Batch, Kind, Returned};
use crate::session::{Session, SessionEnd, refusal};
use crate::stats::reason::{RefusalReason, RetryReason};

/// Requests are sent again so often before their client is told.
fn retries_max(retry: RetryReason) -> u8 {
    match retry {
        RetryReason::Unsent | RetryReason::Proven => 2,
        // The service may execute them each time.
        RetryReason::Idempotent => 1,
    }
}

impl<L: Language> Conversation<L> {
    /// Sends elsewhere what came back unsent, and answers for the rest.
    pub(super) async fn settle_returned(
        &mut self,
        session: &mut Session,
    ) -> Result<(), SessionEnd> {
        if std::mem::take(&mut self.is_midway) {
            let (initiator, manner) = (Initiator::Upstream, Manner::Truncated);
            return Err(SessionEnd::graceful(initiator, Phase::Response, manner));
        }
        let was_pinned = self.pin.take().is_some() | std::mem::take(&mut self.was_pinned);
        self.link = None;
        let returned = std::mem::take(&mut self.returned);
        let retries = self.retries;
        self.retries += 1;
        let waiting: usize = returned.iter().map(replies).sum();
        self.in_flight -= waiting;
        for returned in returned {
            let (kind, replies, batch) = match returned {
                Returned::Lost(kind, replies) => (kind, replies, None),
                Returned::Unsent(batch, retry) => (batch.kind, batch.replies, Some((batch, retry))),
            };
            let is_sound = |retry| !was_pinned && retries < retries_max(retry);
            let refusal = match batch.filter(|(_, retry)| is_sound(*retry)) {
                None => Refusal::Ours(RefusalReason::UpstreamDied),
                Some((batch, retry)) => match self.send_again(session, batch, retry).await {
                    Ok(()) => continue,
                    Err(Unsent::NoRoom) => Refusal::Ours(RefusalReason::QueueFull),
                    Err(Unsent::Refused(refusal)) => refusal,
                    Err(Unsent::End(end)) => return Err(end),
                },
            };
            // Answers of the service's go first.
            Box::pin(self.wait(session, Until::Settled)).await?;
            for _ in 0..replies {
                self.refuse(session, kind, &refusal);
            }
        }
        if was_pinned {
            // What the connection remembered of its session is gone with it.
            Box::pin(self.wait(session, Until::Flushed)).await?;
            return Err(refusal::end(RefusalReason::UpstreamDied));
        }
        Ok(())
    }

    async fn send_again(
        &mut self,
        session: &mut Session,
        batch: Batch<Kind<L>>,
        retry: RetryReason,
    ) -> Result<(), Unsent> {
        let Batch {
            requests,
            kind,
            replies,
            nature,
        } = batch;
        let run = (kind, replies, nature);
        self.send(session, Requests::Given(&requests), run).await?;
        let stats = session.rules.upstream.stats();
        (0..replies).for_each(|_| stats.retries.increment(retry));
        Ok(())
    }

    /// Answers one request in the service's place. Nothing is in flight.
    pub(in crate::session) fn refuse(
        &mut self,
        session: &mut Session,
        kind: Kind<L>,
        refusal: &Refusal,
    ) {
        session.count_refused_exchange();
        match refusal {
            Refusal::Ours(reason) => {
                session.count_refusal(*reason);
                let (_, sentence) = refusal::answer(*reason);
                L::write_refusal(kind, sentence, &mut self.outgoing);
            }
            Refusal::Service(reply) => self.outgoing.extend_from_slice(reply),
        }
    }
}

pub(super) fn replies<K>(returned: &Returned<K>) -> usize {
    match returned {
        Returned::Lost(_, replies) => *replies,
        Returned::Unsent(batch, _) => batch.replies,
    }
}
