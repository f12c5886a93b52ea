//! The line about the end of a session.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::budget::{LineBudget, Verdict};
use crate::close::Side;
use crate::config::checked::LogSessions;
use crate::stats::counter::Counter;
use crate::stats::ledger::{Ending, Reset};
use crate::stats::recorder::RecordId;
use crate::stats::sessions::SessionFacts;
use crate::stats::termination;
use crate::stats::units::milliseconds;

/// A session that has ended, as its line tells it.
#[derive(Debug)]
pub struct EndedSession<'a> {
    /// The listener's name.
    pub listener: &'a str,
    /// The upstream's name.
    pub upstream: &'a str,
    /// The endpoint of the last lease; `None` if there was none.
    pub endpoint: Option<&'a str>,
    /// Who the client was, and what the session carried.
    pub facts: &'a SessionFacts,
    /// How it ended.
    pub ending: &'a Ending,
    /// Why the upstream connection that went with it was discarded: the other leg's end.
    pub discard: Option<&'a str>,
    /// What else there is to say: the refusal's reason, or what the kernel said.
    pub detail: Option<&'a str>,
    /// The number of its record, if it has one.
    pub record: Option<RecordId>,
}

/// Writes the lines about sessions' ends, within a budget.
#[derive(Debug)]
pub struct SessionLog {
    state: Mutex<State>,
    suppressed: Arc<Counter>,
}

#[derive(Debug)]
struct State {
    which: LogSessions,
    budget: LineBudget,
}

/// Lines at once, at most.
const BURST: u32 = 100;
/// Lines a second, over time.
const PER_SECOND: u32 = 20;

impl SessionLog {
    /// A log of the sessions that `which` names; what the budget leaves out is counted.
    pub fn new(which: LogSessions, suppressed: Arc<Counter>, now: Instant) -> Self {
        Self {
            state: Mutex::new(State {
                which,
                budget: LineBudget::new(BURST, PER_SECOND, now),
            }),
            suppressed,
        }
    }

    /// Changes which sessions' ends get a line.
    pub fn set_which(&self, which: LogSessions) {
        self.lock().which = which;
    }

    /// Writes the line of a session that ended, if it is to have one and the budget allows it.
    pub fn record(&self, end: &EndedSession<'_>, now: Instant) {
        let abnormal = termination::is_abnormal(Side::Downstream, end.ending);
        let verdict = {
            let mut state = self.lock();
            match state.which {
                LogSessions::None => return,
                LogSessions::Abnormal if !abnormal => return,
                LogSessions::Abnormal | LogSessions::All => state.budget.ask(now),
            }
        };
        match verdict {
            Verdict::Write { suppressed, since } => {
                report(suppressed, since);
                write(end, abnormal, now);
            }
            Verdict::Suppress => self.suppressed.increment(),
        }
    }

    /// Says how many lines are missing at the end of the log. For the end of the process.
    pub fn report_suppressed(&self, now: Instant) {
        let (suppressed, since) = self.lock().budget.take_suppressed(now);
        report(suppressed, since);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn report(suppressed: u64, since: Duration) {
    if suppressed > 0 {
        let since_ms = milliseconds(since);
        warn!(
            suppressed,
            since_ms, "lines about ended sessions were left out"
        );
    }
}

fn write(end: &EndedSession<'_>, abnormal: bool, now: Instant) {
    let ending = end.ending;
    let facts = end.facts;
    let code = termination::code(ending.termination);
    let code = std::str::from_utf8(&code).expect("a code is three ASCII letters");
    let reset = ending.reset.map(|seen| match seen.reset {
        Reset::Received => "peer",
        Reset::Sent(cause) => cause.label(),
    });
    // The two levels need a line of code each: a level is part of a call site, not a value.
    macro_rules! line {
        ($level:ident, $message:literal) => {
            $level!(
                code,
                listener = end.listener,
                client = %facts.peer,
                upstream = end.upstream,
                endpoint = end.endpoint,
                initiator = ending.termination.initiator.label(),
                phase = ending.termination.phase.label(),
                manner = ending.termination.manner.label(),
                reset,
                exchanges = facts.exchanges(),
                read_bytes = facts.read_bytes(),
                written_bytes = facts.written_bytes(),
                unread_bytes = ending.account.unread_bytes,
                unacknowledged_bytes = ending.account.unacknowledged_bytes,
                age_ms = milliseconds(now.saturating_duration_since(facts.accepted_at)),
                discard = end.discard,
                detail = end.detail,
                record = end.record.map(|id| id.0),
                $message
            )
        };
    }
    if abnormal {
        line!(warn, "session ended abnormally");
    } else {
        line!(info, "session ended");
    }
}

#[cfg(test)]
mod tests;
