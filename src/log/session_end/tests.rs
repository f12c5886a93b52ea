#![allow(clippy::unwrap_used)]

use std::io;

use serde_json::Value;
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::close::account::Account;
use crate::close::{Initiator, Manner, Phase, ResetCause};
use crate::stats::ledger::ResetSeen;
use crate::stats::sessions::Peer;
use crate::sys::clock;

/// Collects what a log writes.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn parsed(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// What `log` writes about sessions that ended so.
fn logged(which: LogSessions, endings: &[Ending]) -> (Vec<Value>, u64) {
    let suppressed = Arc::new(Counter::default());
    let now = clock::now();
    let log = SessionLog::new(which, Arc::clone(&suppressed), now);
    let facts = session(now);
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(lines.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        for ending in endings {
            let end = EndedSession {
                listener: "web",
                upstream: "app",
                endpoint: Some("127.0.0.1:80"),
                facts: &facts,
                ending,
                discard: Some("upstream_reset"),
                detail: None,
                record: None,
            };
            log.record(&end, now + Duration::from_millis(40));
        }
        log.report_suppressed(now + Duration::from_millis(90));
    });
    (lines.parsed(), suppressed.read())
}

fn session(now: Instant) -> SessionFacts {
    let peer = Peer::Ip("192.0.2.1:5".parse().unwrap());
    let facts = SessionFacts::new(peer, "web".into(), now);
    facts.count_exchange();
    facts.add_written_bytes(17);
    facts
}

fn truncated() -> Ending {
    Ending {
        reset: Some(ResetSeen {
            reset: Reset::Sent(ResetCause::Propagated),
            phase: Phase::Response,
        }),
        account: Account {
            unacknowledged_bytes: 3,
            ..Account::default()
        },
        ..Ending::clean(Initiator::Upstream, Phase::Response, Manner::Truncated)
    }
}

#[test]
fn a_line_says_who_when_how_and_how_much() {
    let (lines, _) = logged(LogSessions::Abnormal, &[truncated()]);
    let mut line = lines[0].as_object().unwrap().clone();
    line.remove("timestamp").unwrap();
    line.remove("target").unwrap();
    assert_eq!(
        Value::Object(line),
        serde_json::json!({
            "level": "WARN",
            "message": "session ended abnormally",
            "code": "UPT",
            "listener": "web",
            "client": "192.0.2.1:5",
            "upstream": "app",
            "endpoint": "127.0.0.1:80",
            "initiator": "upstream",
            "phase": "response",
            "manner": "truncated",
            "reset": "propagated",
            "exchanges": 1,
            "read_bytes": 0,
            "written_bytes": 17,
            "unread_bytes": 0,
            "unacknowledged_bytes": 3,
            "age_ms": 40,
            "discard": "upstream_reset",
        })
    );
    assert_eq!(lines.len(), 1);
}

#[test]
fn the_operator_says_which_sessions_get_a_line() {
    let ordinary = Ending::clean(Initiator::Downstream, Phase::Idle, Manner::Fin);
    let ends = [ordinary, truncated(), ordinary];
    assert_eq!(logged(LogSessions::None, &ends).0.len(), 0);
    assert_eq!(logged(LogSessions::Abnormal, &ends).0.len(), 1);
    let (all, _) = logged(LogSessions::All, &ends);
    assert_eq!(all.len(), 3);
    assert_eq!(all[0]["level"], "INFO");
    assert_eq!(all[0]["code"], "DIF");
}

#[test]
fn what_the_budget_leaves_out_is_counted_and_said() {
    let ends = vec![truncated(); BURST as usize + 30];
    let (lines, suppressed) = logged(LogSessions::Abnormal, &ends);
    assert_eq!(lines.len(), BURST as usize + 1);
    let last = lines.last().unwrap();
    assert_eq!(last["suppressed"], 30);
    assert_eq!(last["since_ms"], 50);
    assert_eq!(suppressed, 30);
}
