//! One downstream connection from accept to its Termination.
//!
//! ```text
//!  accepted ──► idle ──bytes──► exchange ──boundary──► idle …
//!                 │                │ refused, failed, `Connection: close`
//!                 └──FIN, RST, time, drain──► closing ──► one entry in the ledger
//! ```
//!
//! One task for each session. Between exchanges it holds no buffer. Not here: moving bytes (see
//! `relay`), the wire language (see `protocol`), who may be lent what (see `upstream`).

mod attempt;
mod calls;
mod conversation;
mod end;
mod frames;
mod http;
mod idle;
mod memcached;
mod queue;
mod redis;
mod refusal;
mod retry;
mod rules;
mod settle;
mod tcp;
mod verdict;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

pub use end::{Closing, SessionEnd};
pub use rules::{Rules, RulesCell, SharedLinks};

use crate::close::Side;
use crate::config::checked::Protocol;
use crate::pool::{Lease, Seen};
use crate::protocol::http::{self as http_framing, Forwarded};
use crate::relay::alarm::Alarm;
use crate::relay::buffer::Buffer;
use crate::relay::client::Client;
use crate::stats::ledger::Watch;
use crate::stats::reason::{DiscardReason, RefusalReason};
use crate::stats::sessions::{Command, Peer, SessionEntry, SessionFacts};
use crate::sys::clock;
use crate::transport::Transport;

/// One downstream connection.
#[derive(Debug)]
pub struct Session {
    client: Client,
    rules: Arc<Rules>,
    cell: Arc<RulesCell>,
    /// How new `rules` are.
    generation: u64,
    /// The endpoint of the last lease, for the log.
    endpoint: Option<Arc<str>>,
    /// What the client was refused last, for the log.
    refused: Option<RefusalReason>,
    /// The end of the last lease, if the exchange or tunnel that it was for ended with it.
    discarded: Option<Discarded>,
    entry: SessionEntry,
    /// When it last became idle, or was accepted.
    idle_since: Instant,
    watch: Watch,
}

/// The end of a lease whose connection was discarded.
#[derive(Debug, Clone, Copy)]
struct Discarded {
    connection: u64,
    reason: DiscardReason,
}

impl Session {
    /// A session for a connection that was just accepted. It is entered in the ledger here.
    pub fn new(transport: Transport, peer: Peer, cell: Arc<RulesCell>) -> Self {
        let now = clock::now();
        let rules = cell.current();
        let facts = Arc::new(SessionFacts::new(peer, Arc::clone(&rules.name), now));
        let entry = rules.sessions.enter(Arc::clone(&facts));
        rules.stats.ledger.open();
        let watch = match peer {
            Peer::Ip(address) => {
                let ledger = &rules.stats.ledger;
                ledger.watch(Side::Downstream, transport.as_fd(), address)
            }
            Peer::Unix => Watch::default(),
        };
        let client = Client {
            transport,
            inbound: Buffer::new(rules.listener.http.head_max),
            has_ended: false,
            alarm: Alarm::new(now + rules.listener.head_timeout),
            facts,
        };
        Self {
            client,
            rules,
            cell,
            generation: 0,
            endpoint: None,
            refused: None,
            discarded: None,
            entry,
            idle_since: now,
            watch,
        }
    }

    /// Tells it what an operator wants.
    pub fn tell(&self, command: Command) {
        self.client.facts.control.tell(command);
    }

    /// Serves the client to the end of its connection.
    pub async fn run(mut self) {
        let settings = Arc::clone(&self.rules.upstream_settings);
        match &settings.protocol {
            Protocol::Http => {
                let end = http::serve(&mut self).await;
                self.finish(end).await;
            }
            Protocol::Frames(_) => {
                let end = frames::serve(&mut self).await;
                self.finish(end).await;
            }
            Protocol::Tcp(_) => {
                let end = tcp::serve(&mut self).await;
                self.finish(end).await;
            }
            Protocol::Calls(calls) => {
                let Some(links) = self.rules.links.calls() else {
                    unreachable!("an upstream of frames with ids has links of theirs");
                };
                let calls = Arc::clone(calls);
                let end = Box::pin(calls::serve(&mut self, links, calls)).await;
                self.finish(end).await;
            }
            Protocol::Redis(_) => {
                let Some(links) = self.rules.links.redis() else {
                    unreachable!("an upstream of redis has links of redis");
                };
                // Apart, so that sessions of other protocols are no larger for it.
                let end = Box::pin(redis::serve(&mut self, links)).await;
                self.finish(end).await;
            }
            Protocol::Memcached(_) => {
                let Some(links) = self.rules.links.memcached() else {
                    unreachable!("an upstream of memcached has links of memcached");
                };
                let end = Box::pin(memcached::serve(&mut self, links)).await;
                self.finish(end).await;
            }
        }
    }

    fn exchanges(&self) -> u64 {
        self.client.facts.exchanges()
    }

    /// Ends a lease whose end is this session's too, or may be.
    fn discard(&mut self, mut lease: Lease, reason: DiscardReason, seen: Seen) {
        let connection = lease.connection().id;
        self.discarded = Some(Discarded { connection, reason });
        self.client.facts.legs.may_end_with(connection);
        lease.serves(&self.client.facts);
        lease.discard(reason, seen);
    }

    /// Remembers where the session's exchanges go.
    fn note_lease(&mut self, lease: &Lease) {
        self.discarded = None;
        self.note_address(&lease.connection().address);
    }

    /// Remembers where the session's exchanges go; a clone only where that has changed.
    fn note_address(&mut self, address: &Arc<str>) {
        if self
            .endpoint
            .as_ref()
            .is_none_or(|known| !Arc::ptr_eq(known, address))
        {
            self.endpoint = Some(Arc::clone(address));
        }
    }

    /// What the framers need to know of the rules and of the client.
    fn http_options(&self) -> http_framing::Options {
        let settings = &self.rules.listener.http;
        let forwarded = settings.forwarded.then(|| match self.client.facts.peer {
            Peer::Ip(address) => Forwarded::from_address(address.ip()),
            Peer::Unix => Forwarded::from_unix(),
        });
        http_framing::Options {
            head_max: settings.head_max,
            body_max: settings.body_max,
            authority: Arc::clone(&self.rules.authority),
            forwarded,
        }
    }

    /// Takes over what a reload has changed; true where it has. A session keeps its protocol and the
    /// connections that it shares: where the listener has others now, it goes on under the old rules to the
    /// end of its exchange.
    fn renew_rules(&mut self) -> bool {
        let protocol = self.rules.upstream_settings.protocol.label();
        match self.cell.newer(&mut self.generation) {
            Some(rules)
                if rules.upstream_settings.protocol.label() != protocol
                    || !rules.links.is_same(&self.rules.links) =>
            {
                self.tell(Command::Drain);
                false
            }
            Some(rules) => {
                self.client
                    .inbound
                    .hold_at_least(rules.listener.http.head_max);
                self.rules = rules;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests;
