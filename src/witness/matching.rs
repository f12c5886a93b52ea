//! Which of the kernel's events belong to which of our connections: the pure core of the witness.
//!
//! It is told of connections that open and end and of events, in whatever order, and gives each event
//! one verdict: it is the RST that the ledger has recorded (witnessed), a further one of it (repeat),
//! ours but in no record (unattributed), or not ours (foreign). What can't be decided yet is held.
//!
//! A received RST is found by its socket's cookie, which no other socket ever has. A sent one carries
//! only addresses, and those are used again: it belongs to the last connection between them that had
//! begun at its time. Namespaces of the network are not told apart, since the kernel does not name them.
//!
//! Invariant: see `tally`. Nothing here grows without a bound, but for connections that are open.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::event::{Direction, ResetEvent, plain};
use super::pending::{Held, Key, Pending, Timed, Tuple};
use super::reason::KernelReason;
use super::tally::WitnessStats;
use crate::close::Side;

/// A connection of ours that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// On which leg.
    pub side: Side,
    /// Our end; `None` while a dialling socket has none. Any spelling of the address will do.
    pub local: Option<SocketAddr>,
    /// The other end.
    pub peer: SocketAddr,
    /// The socket's cookie.
    pub cookie: u64,
    /// When it was accepted, or its connect began.
    pub at: Instant,
}

/// A connection of ours that has ended, also one that was never told of as open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// On which leg.
    pub side: Side,
    /// Our end; `None` if it never had one.
    pub local: Option<SocketAddr>,
    /// The other end.
    pub peer: SocketAddr,
    /// The socket's cookie.
    pub cookie: u64,
    /// When it was accepted, or its connect began.
    pub opened_at: Instant,
    /// When its end was entered into the ledger.
    pub ended_at: Instant,
    /// The RST that the ledger has entered for it.
    pub reset: Option<RecordedReset>,
}

impl Opened {
    /// That this connection has ended.
    pub fn ended(self, at: Instant, reset: Option<RecordedReset>) -> Ended {
        Ended {
            side: self.side,
            local: self.local,
            peer: self.peer,
            cookie: self.cookie,
            opened_at: self.at,
            ended_at: at,
            reset,
        }
    }
}

/// An RST in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordedReset {
    /// Where it is recorded.
    pub record: RecordId,
    /// Which way it went.
    pub direction: Direction,
}

/// Where an RST is recorded; the recorder knows what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(pub u64);

/// That the kernel has told of an RST which is in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witnessed {
    /// Where it is recorded.
    pub record: RecordId,
    /// Why the kernel sent it.
    pub kernel_reason: KernelReason,
}

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Events without a verdict, at most.
    pub pending_max: usize,
    /// How long an event waits for the end of its connection, or a connection in the accept queue to be
    /// accepted.
    pub pending_time: Duration,
    /// How long an event waits for a connection that is in no account yet: the one of a socket that was
    /// made a moment ago.
    pub settling_time: Duration,
    /// How long after the end of a connection the kernel's RSTs are still taken for a part of it.
    pub slack: Duration,
    /// Ended connections that are remembered, at most.
    pub ended_max: usize,
    /// How long they are.
    pub ended_time: Duration,
}

/// The core.
#[derive(Debug)]
pub struct Matching {
    bounds: Bounds,
    connections: HashMap<u64, Connection>,
    /// Addresses, when the connection between them began, and its cookie. A client may use its own
    /// again as often as it likes, so none has a list to search.
    by_tuple: BTreeSet<(Tuple, Instant, u64)>,
    /// Cookies of ended connections in the order of their ends.
    ended: VecDeque<(Instant, u64)>,
    /// Where our listeners are bound, how often.
    listening: HashMap<SocketAddr, usize>,
    pending: Pending,
    stats: WitnessStats,
    witnessed: Vec<Witnessed>,
}

#[derive(Debug)]
struct Connection {
    side: Side,
    tuple: Option<Tuple>,
    opened_at: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    Ended {
        at: Instant,
        reset: Option<RecordedReset>,
        is_witnessed: bool,
    },
}

/// What is to become of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is the RST in the ledger that the connection with this cookie ended with.
    Recorded(u64, RecordId),
    Repeat,
    Unattributed(Side),
    Foreign,
}

/// What is known of an event now.
enum Judgement {
    Final(Verdict),
    /// To be held for so long; the verdict if nothing more is heard.
    Hold(Duration, Verdict),
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            pending_max: 16_384,
            pending_time: Duration::from_secs(120),
            settling_time: Duration::from_secs(1),
            slack: Duration::from_secs(2),
            ended_max: 16_384,
            ended_time: Duration::from_secs(60),
        }
    }
}

impl Matching {
    /// A core that has heard of nothing.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            connections: HashMap::new(),
            by_tuple: BTreeSet::new(),
            ended: VecDeque::new(),
            listening: HashMap::new(),
            pending: Pending::default(),
            stats: WitnessStats::default(),
            witnessed: Vec::new(),
        }
    }

    /// A listener of ours is bound there.
    pub fn listens(&mut self, address: SocketAddr) {
        *self.listening.entry(plain(address)).or_default() += 1;
    }

    /// A listener of ours is no longer bound there.
    pub fn listens_no_more(&mut self, address: SocketAddr) {
        let address = plain(address);
        if let Some(count) = self.listening.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.listening.remove(&address);
            }
        }
    }

    /// A connection has begun. It must be told of before it can send anything, so that no RST of it is
    /// heard first and taken for one of an earlier connection between the same addresses.
    pub fn opened(&mut self, opened: &Opened, now: Instant) {
        let connection = Connection {
            side: opened.side,
            tuple: opened.local.map(|local| (plain(local), plain(opened.peer))),
            opened_at: opened.at,
            state: State::Open,
        };
        self.enter(opened.cookie, connection);
        self.reconsider(opened.cookie, now);
    }

    /// A connection has ended.
    pub fn ended(&mut self, ended: &Ended, now: Instant) {
        let connection = Connection {
            side: ended.side,
            tuple: ended.local.map(|local| (plain(local), plain(ended.peer))),
            opened_at: ended.opened_at,
            state: State::Ended {
                at: ended.ended_at,
                reset: ended.reset,
                is_witnessed: false,
            },
        };
        self.enter(ended.cookie, connection);
        self.ended.push_back((now, ended.cookie));
        self.reconsider(ended.cookie, now);
        self.forget_ended(now);
    }

    /// The kernel tells of an RST, which happened at `at`.
    pub fn heard(&mut self, event: ResetEvent, at: Instant, now: Instant) {
        let counts = self.stats.of_mut(event.direction);
        counts.read += 1;
        counts.pending += 1;
        let held = Held {
            timed: Timed { event, at },
            since: now,
        };
        self.consider(held, now);
        while self.pending.len() > self.bounds.pending_max {
            let held = self.pending.take_first().expect("there are some");
            self.stats.pending_overflowed += 1;
            self.decide_late(&held);
        }
    }

    /// The kernel has overwritten events before they were read.
    pub fn on_lost(&mut self, events: u64) {
        self.stats.lost_events += events;
    }

    /// A line could not be read.
    pub fn on_unreadable(&mut self) {
        self.stats.unreadable_lines += 1;
    }

    /// Time has passed: decides what has waited for long enough.
    pub fn tick(&mut self, now: Instant) {
        while let Some(held) = self.pending.take_due(now) {
            if self.connection_of(&held.timed).is_some() {
                self.stats.pending_expired += 1;
            }
            self.decide_late(&held);
        }
        self.forget_ended(now);
    }

    /// What was found since it was last asked.
    pub fn take_witnessed(&mut self) -> Vec<Witnessed> {
        std::mem::take(&mut self.witnessed)
    }

    /// Whether anything was found since it was last asked.
    pub fn has_witnessed(&self) -> bool {
        !self.witnessed.is_empty()
    }

    /// What was counted so far.
    pub fn stats(&self) -> &WitnessStats {
        &self.stats
    }

    fn consider(&mut self, held: Held, now: Instant) {
        match self.judge(&held.timed) {
            Judgement::Final(verdict) => self.decide(&held.timed.event, verdict),
            Judgement::Hold(time, verdict) => {
                let until = held.since + time;
                if until > now {
                    self.pending.hold(held, until);
                } else {
                    self.decide(&held.timed.event, verdict);
                }
            }
        }
    }

    /// Considers again what may belong to this connection.
    fn reconsider(&mut self, cookie: u64, now: Instant) {
        let tuple = self.connections[&cookie].tuple.map(Key::Tuple);
        for key in [Some(Key::Cookie(cookie)), tuple].into_iter().flatten() {
            for held in self.pending.take(key) {
                self.consider(held, now);
            }
        }
    }

    /// Decides about an event that can be held no longer.
    fn decide_late(&mut self, held: &Held) {
        let verdict = match self.judge(&held.timed) {
            Judgement::Final(verdict) | Judgement::Hold(_, verdict) => verdict,
        };
        self.decide(&held.timed.event, verdict);
    }

    fn decide(&mut self, event: &ResetEvent, verdict: Verdict) {
        let counts = self.stats.of_mut(event.direction);
        counts.pending -= 1;
        match verdict {
            Verdict::Recorded(cookie, record) => {
                let connection = self.connections.get_mut(&cookie);
                let state = connection.map(|connection| &mut connection.state);
                if let Some(State::Ended { is_witnessed, .. }) = state {
                    *is_witnessed = true;
                }
                counts.witnessed += 1;
                let kernel_reason = event.kernel_reason;
                self.witnessed.push(Witnessed {
                    record,
                    kernel_reason,
                });
            }
            Verdict::Repeat => counts.repeats += 1,
            Verdict::Foreign => counts.foreign += 1,
            Verdict::Unattributed(side) => {
                let (direction, reason) = (event.direction, event.kernel_reason);
                self.stats.on_unattributed(side, direction, reason);
            }
        }
    }

    fn judge(&self, timed: &Timed) -> Judgement {
        let event = &timed.event;
        let Some((cookie, connection)) = self.connection_of(timed) else {
            return self.judge_stranger(event);
        };
        let unattributed = Verdict::Unattributed(connection.side);
        let State::Ended {
            at: ended_at,
            reset,
            is_witnessed,
        } = connection.state
        else {
            return Judgement::Hold(self.bounds.pending_time, unattributed);
        };
        let is_late = event.cookie.is_none() && timed.at > ended_at + self.bounds.slack;
        Judgement::Final(match reset {
            Some(reset) if reset.direction == event.direction && !is_late => {
                if is_witnessed {
                    Verdict::Repeat
                } else {
                    Verdict::Recorded(cookie, reset.record)
                }
            }
            Some(_) | None => unattributed,
        })
    }

    /// An event of no connection that is known.
    fn judge_stranger(&self, event: &ResetEvent) -> Judgement {
        if !self.is_listening_at(event.local) {
            return Judgement::Hold(self.bounds.settling_time, Verdict::Foreign);
        }
        let unattributed = Verdict::Unattributed(Side::Downstream);
        match event.direction {
            // Its connection may be in the accept queue.
            Direction::Received => Judgement::Hold(self.bounds.pending_time, unattributed),
            // A connection is known before it can send.
            Direction::Sent => Judgement::Final(unattributed),
        }
    }

    fn connection_of(&self, timed: &Timed) -> Option<(u64, &Connection)> {
        match timed.key() {
            Key::Cookie(cookie) => Some((cookie, self.connections.get(&cookie)?)),
            Key::Tuple(tuple) => {
                let begun = ..=(tuple, timed.at + ROUNDING, u64::MAX);
                let &(found, _, cookie) = self.by_tuple.range(begun).next_back()?;
                (found == tuple).then(|| (cookie, &self.connections[&cookie]))
            }
        }
    }

    fn is_listening_at(&self, local: SocketAddr) -> bool {
        let any = |ip: IpAddr| {
            let address = SocketAddr::new(ip, local.port());
            self.listening.contains_key(&address)
        };
        // A dual-stack listener on [::] takes IPv4 too.
        self.listening.contains_key(&local)
            || any(Ipv6Addr::UNSPECIFIED.into())
            || (local.is_ipv4() && any(Ipv4Addr::UNSPECIFIED.into()))
    }

    /// Enters a connection in place of what was known of it before.
    fn enter(&mut self, cookie: u64, connection: Connection) {
        self.forget(cookie);
        if let Some(tuple) = connection.tuple {
            let begun = (tuple, connection.opened_at, cookie);
            self.by_tuple.insert(begun);
        }
        self.connections.insert(cookie, connection);
    }

    fn forget(&mut self, cookie: u64) {
        let gone = self.connections.remove(&cookie);
        if let Some((gone, tuple)) = gone.and_then(|gone| Some((gone.opened_at, gone.tuple?))) {
            self.by_tuple.remove(&(tuple, gone, cookie));
        }
    }

    fn forget_ended(&mut self, now: Instant) {
        while let Some(&(at, cookie)) = self.ended.front() {
            let is_old = now.saturating_duration_since(at) >= self.bounds.ended_time;
            if !is_old && self.ended.len() <= self.bounds.ended_max {
                break;
            }
            self.ended.pop_front();
            self.forget(cookie);
        }
    }
}

/// An event's time is rounded to a microsecond.
const ROUNDING: Duration = Duration::from_micros(1);

#[cfg(test)]
mod tests;
