//! Transactions, and watching keys: over one connection from MULTI or WATCH to what ends them.
//!
//! Invariant: the connection goes back where the service has said that it is over, with what is known to be
//! left on it.

use super::need::{is_ending, is_streaming};
use super::{Conversing, Hold};
use crate::close::Phase;
use crate::protocol::redis::{Arguments, LeaseNeed, Local, Shape, Treatment, may_be_queued};
use crate::relay::shared::Left;
use crate::session::Session;
use crate::session::conversation::Unsent;
use crate::stats::reason::RefusalReason;

const NOT_QUEUED: &str = "ERR millpond: this can't stand within a transaction";
const NOT_WHILE_WATCHED: &str = "ERR millpond: this can't come while keys are watched";

/// A transaction under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transaction {
    /// Between MULTI and its end; else keys are watched.
    pub(super) is_queueing: bool,
    /// The database that a queued SELECT asks for.
    select: Option<u32>,
    /// The database that was selected while keys were watched.
    selected: Option<u32>,
    /// What it leaves on its connection, once it is over.
    pub(super) left: Left,
}

impl Transaction {
    pub(super) const WATCHING: Self = Self {
        is_queueing: false,
        select: None,
        selected: None,
        left: Left::Nothing,
    };
}

impl Conversing {
    /// MULTI or WATCH; where the service refuses it, there is nothing to keep the connection for.
    pub(super) async fn begin_transaction(
        &mut self,
        session: &mut Session,
        bytes: usize,
        need: LeaseNeed,
    ) -> Result<(), Unsent> {
        let is_multi = need == LeaseNeed::Transaction;
        match self.forward_and_see(session, bytes).await? {
            Some(b'+') if is_multi => {
                self.hold = Hold::Transaction(Transaction {
                    is_queueing: true,
                    ..Transaction::WATCHING
                });
            }
            Some(b'+') => {}
            // Or nobody was to see the reply.
            _ if self.shape() == Shape::Hidden => {
                self.hold = Hold::Transaction(Transaction {
                    is_queueing: is_multi,
                    left: Left::Something,
                    ..Transaction::WATCHING
                });
            }
            _ => self.let_go(Left::Something),
        }
        Ok(())
    }

    /// One command between MULTI and its end.
    pub(super) async fn queue(
        &mut self,
        session: &mut Session,
        bytes: usize,
        transaction: Transaction,
        treatment: Treatment,
    ) -> Result<(), Unsent> {
        let arguments = Arguments::new(&session.client.inbound.filled()[..bytes]);
        let is_alone = arguments.is_some_and(|it| it.count() == 1);
        let changed = match treatment {
            Treatment::Refuse(refused) if is_ending(refused) && is_alone => {
                return self.end_transaction(session, bytes, transaction).await;
            }
            // With arguments it ends nothing, and the service says so.
            Treatment::Refuse(refused) if is_ending(refused) => transaction,
            Treatment::Lease(LeaseNeed::Watch | LeaseNeed::Transaction) => transaction,
            Treatment::Answer(Local::Select) => Transaction {
                select: arguments.and_then(|it| database(&it)),
                left: Left::Something,
                ..transaction
            },
            Treatment::Lease(LeaseNeed::Slow | LeaseNeed::Overtaking | LeaseNeed::Unknown) => {
                Transaction {
                    left: Left::Something,
                    ..transaction
                }
            }
            treatment if may_be_queued(&treatment) => transaction,
            Treatment::Answer(Local::Quit | Local::Reset) => {
                return self.leave_transaction(session, bytes, treatment).await;
            }
            // The service can't be told that one of the commands was refused.
            _ => {
                self.settle_and_refuse(session, bytes, NOT_QUEUED).await?;
                let reason = RefusalReason::CommandRefused;
                return Err(Unsent::End(self.end_after(session, reason).await));
            }
        };
        self.hold = Hold::Transaction(changed);
        self.forward(session, bytes).await
    }

    /// One command of a client that watches keys.
    pub(super) async fn while_watching(
        &mut self,
        session: &mut Session,
        bytes: usize,
        transaction: Transaction,
        treatment: Treatment,
    ) -> Result<(), Unsent> {
        let arguments = Arguments::new(&session.client.inbound.filled()[..bytes]);
        let is_unwatch = arguments
            .is_some_and(|it| it.count() == 1 && it.name().eq_ignore_ascii_case(b"UNWATCH"));
        match treatment {
            Treatment::Lease(LeaseNeed::Transaction) => {
                if matches!(
                    self.forward_and_see(session, bytes).await?,
                    Some(b'+') | None
                ) {
                    self.hold = Hold::Transaction(Transaction {
                        is_queueing: true,
                        ..transaction
                    });
                }
                Ok(())
            }
            Treatment::Share { .. } if is_unwatch => {
                if self.forward_and_see(session, bytes).await? == Some(b'+') {
                    self.let_go(transaction.left);
                    self.go_to_database(transaction.selected);
                }
                Ok(())
            }
            Treatment::Answer(Local::Select) if self.shape() == Shape::Shown => {
                let selected = arguments.and_then(|it| database(&it));
                if self.forward_and_see(session, bytes).await? == Some(b'+') {
                    self.hold = Hold::Transaction(Transaction {
                        selected,
                        left: Left::Something,
                        ..transaction
                    });
                }
                Ok(())
            }
            Treatment::Answer(Local::Quit | Local::Reset) => {
                self.leave_transaction(session, bytes, treatment).await
            }
            Treatment::Answer(Local::Select | Local::Auth | Local::Hello) => {
                self.settle_and_refuse(session, bytes, NOT_WHILE_WATCHED)
                    .await
            }
            Treatment::Answer(local) => {
                self.conversation.settle(session).await?;
                self.answer(session, bytes, local).await
            }
            Treatment::Refuse(refused) => {
                self.settle_and_refuse(session, bytes, refused.message())
                    .await
            }
            Treatment::Lease(need) if is_streaming(need) => {
                self.conversation.settle(session).await?;
                self.stream(session, bytes).await
            }
            Treatment::Lease(LeaseNeed::Cluster | LeaseNeed::ConnectionFlag) => {
                self.hold = Hold::Kept;
                self.forward(session, bytes).await
            }
            Treatment::Lease(LeaseNeed::Unknown) => {
                self.hold = Hold::Transaction(Transaction {
                    left: Left::Something,
                    ..transaction
                });
                self.forward(session, bytes).await
            }
            _ => self.forward(session, bytes).await,
        }
    }

    /// EXEC or DISCARD. The connection is as it was, if the service says that the transaction is over, and
    /// nothing in it was of another kind.
    async fn end_transaction(
        &mut self,
        session: &mut Session,
        bytes: usize,
        transaction: Transaction,
    ) -> Result<(), Unsent> {
        let reply_begins = self.forward_and_see(session, bytes).await?;
        let is_executed = reply_begins == Some(b'*');
        // EXEC that was not executed is answered with a null, DISCARD with OK.
        self.let_go(match reply_begins {
            Some(b'*' | b'_' | b'+') => transaction.left,
            _ => Left::Something,
        });
        let select = transaction.select.filter(|_| is_executed);
        self.go_to_database(select.or(transaction.selected));
        session.client.facts.set_phase(Phase::Idle);
        Ok(())
    }

    /// Is served over connections on which this database is selected, if one was.
    fn go_to_database(&mut self, database: Option<u32>) {
        if let Some(database) = database {
            let mut identity = self.identity().clone();
            identity.database = database;
            let known = self.conversation.links.known(identity);
            self.conversation.serve_as(known);
        }
    }

    /// QUIT or RESET.
    async fn leave_transaction(
        &mut self,
        session: &mut Session,
        bytes: usize,
        treatment: Treatment,
    ) -> Result<(), Unsent> {
        self.conversation.settle(session).await?;
        self.let_go(Left::Something);
        match treatment {
            Treatment::Answer(local) => self.answer(session, bytes, local).await,
            _ => unreachable!("only what millpond answers leaves so"),
        }
    }
}

/// The database that a SELECT names.
fn database(select: &Arguments<'_>) -> Option<u32> {
    std::str::from_utf8(select.get(1)?).ok()?.parse().ok()
}
