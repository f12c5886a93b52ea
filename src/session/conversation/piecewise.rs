//! A request that is too large to be held whole: it goes over a connection of its session's own as it
//! comes.
//!
//! Invariant: a connection that has a part of a request gets all of it, or ends.

use super::{Conversation, Requests, Unsent, Until};
use crate::close::Phase;
use crate::protocol::replies::{Kind, Language};
use crate::relay::client::ClientLost;
use crate::relay::shared::Run;
use crate::session::{Session, verdict};
use crate::stats::reason::DiscardReason;
use crate::sys::clock;

/// A framer that can say what is sound of a request before its end is here.
pub(in crate::session) trait Piecewise {
    /// How the client broke the protocol.
    type Violation;

    /// How many of `bytes` may go on, and whether the request ends with them.
    fn piece(&mut self, bytes: &[u8]) -> Result<(usize, bool), Self::Violation>;

    /// So many have gone on, and the request goes on behind them.
    fn passed(&mut self, count: usize);
}

/// Why the rest of a request did not go on.
pub(in crate::session) enum Broken<V> {
    /// The client broke the protocol. The connection was ended.
    Violation(V),
    /// As for every request.
    Unsent(Unsent),
}

impl<V> From<Unsent> for Broken<V> {
    fn from(unsent: Unsent) -> Self {
        Self::Unsent(unsent)
    }
}

impl<L: Language> Conversation<L> {
    /// Hands over a request as it comes, which is one of `run`. The session has a connection of its own.
    /// `is_begun`: a part of it was handed over already, and its reply is owed.
    pub(in crate::session) async fn send_piecewise<F: Piecewise>(
        &mut self,
        session: &mut Session,
        framer: &mut F,
        run: Run<Kind<L>>,
        mut is_begun: bool,
    ) -> Result<(), Broken<F::Violation>> {
        let stall_timeout = session.rules.listener.stall_timeout;
        loop {
            let (count, is_whole) = match framer.piece(session.client.inbound.filled()) {
                Ok(piece) => piece,
                Err(violation) => {
                    if let Some(pin) = self.pin.take() {
                        pin.abandon(DiscardReason::RequestViolation);
                    }
                    return Err(Broken::Violation(violation));
                }
            };
            if count > 0 && !is_begun {
                self.send(session, Requests::Front(count), run).await?;
                is_begun = true;
            } else if count > 0 {
                self.send_on(session, count, run.kind).await?;
            }
            if is_whole {
                return Ok(());
            }
            if count > 0 {
                framer.passed(count);
                continue;
            }
            if session.client.has_ended {
                let end = verdict::client_lost(ClientLost::Fin, Phase::Request, true);
                return Err(Broken::Unsent(Unsent::End(end)));
            }
            let until = Until::Bytes(Some(clock::now() + stall_timeout));
            self.wait(session, until).await.map_err(Unsent::End)?;
        }
    }
}
