//! What becomes of requests that a connection gave back when it ended.
//!
//! What was never written goes elsewhere; of the rest the client is told. Invariant: the client sees an
//! answer to each of its requests, in their order, or its connection ends.

use super::{Conversation, Refusal, Requests, Unsent, Until};
use crate::close::{Initiator, Manner, Phase};
use crate::protocol::replies::{Kind, Language};
use crate::relay::shared::{Batch, Lost, Returned, Run};
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
        let was_pinned = self.pin.take().is_some() | std::mem::take(&mut self.was_pinned);
        // Others may still be under way over one that answers in any order.
        self.share = self.share.take().filter(|share| !share.link().has_ended());
        let returned = std::mem::take(&mut self.returned);
        if returned.iter().any(is_cut) {
            let (initiator, manner) = (Initiator::Upstream, Manner::Truncated);
            return Err(SessionEnd::graceful(initiator, Phase::Response, manner));
        }
        let waiting: usize = returned.iter().map(replies).sum();
        self.in_flight -= waiting;
        for returned in returned {
            let (kind, replies, reason) = match returned {
                Returned::Cut(_) => continue,
                Returned::Lost(kind, replies, lost) => (kind, replies, Refusal::Ours(of(lost))),
                Returned::Unsent(Batch { requests, mut run }, retry) => {
                    let is_sound = !was_pinned && run.tries < retries_max(retry);
                    run.tries += 1;
                    match self
                        .send_again(session, &requests, run, retry, is_sound)
                        .await
                    {
                        Ok(()) => continue,
                        Err(refusal) => (run.kind, run.replies, refusal?),
                    }
                }
            };
            // Answers of the service's go first.
            Box::pin(self.wait(session, Self::BEFORE_AN_ANSWER)).await?;
            for _ in 0..replies {
                if let Err(end) = self.refuse(session, kind, &reason) {
                    Box::pin(self.wait(session, Until::Flushed)).await?;
                    return Err(end);
                }
            }
        }
        if was_pinned {
            // What the connection remembered of its session is gone with it.
            Box::pin(self.wait(session, Until::Flushed)).await?;
            return Err(refusal::end(RefusalReason::UpstreamDied));
        }
        Ok(())
    }

    /// When one may be answered in the service's place.
    pub(in crate::session) const BEFORE_AN_ANSWER: Until = match L::BY_ID {
        true => Until::Between,
        false => Until::Settled,
    };

    /// Sends requests elsewhere, or says what their client is told.
    async fn send_again(
        &mut self,
        session: &mut Session,
        requests: &[u8],
        run: Run<Kind<L>>,
        retry: RetryReason,
        is_sound: bool,
    ) -> Result<(), Result<Refusal, SessionEnd>> {
        if !is_sound {
            return Err(Ok(Refusal::Ours(RefusalReason::UpstreamDied)));
        }
        let requests = Requests::Given(requests);
        let sent = self.send_somewhere(session, requests, run).await;
        sent.map_err(Unsent::refusal)?;
        let stats = session.rules.upstream.stats();
        stats.retries.add(retry, run.replies as u64);
        Ok(())
    }

    /// Answers one request in the service's place, when that may be done.
    ///
    /// # Errors
    /// There are no words for it: the session ends.
    pub(in crate::session) fn refuse(
        &mut self,
        session: &mut Session,
        kind: Kind<L>,
        refusal: &Refusal,
    ) -> Result<(), SessionEnd> {
        session.count_refused_exchange();
        let reason = match refusal {
            Refusal::Ours(reason) => *reason,
            Refusal::Service(reply) => {
                self.outgoing.extend_from_slice(reply);
                return Ok(());
            }
        };
        session.count_refusal(reason);
        let (_, sentence) = refusal::answer(reason);
        let language = self.links.language();
        let written = language.write_refusal(kind, sentence, &mut self.outgoing);
        written.map_err(|_wordless| refusal::wordless(reason, session.rules.listener.refuse))
    }
}

pub(super) fn replies<K>(returned: &Returned<K>) -> usize {
    match returned {
        Returned::Lost(_, replies, _) | Returned::Cut(replies) => *replies,
        Returned::Unsent(batch, _) => batch.run.replies,
    }
}

pub(super) fn is_cut<K>(returned: &Returned<K>) -> bool {
    matches!(returned, Returned::Cut(_))
}

/// What a client is told whose request has no reply.
fn of(lost: Lost) -> RefusalReason {
    match lost {
        Lost::Died => RefusalReason::UpstreamDied,
        Lost::Silent => RefusalReason::ResponseTimeout,
    }
}
