//! What the lines of the watch look like.
//!
//! Pure: text from values. Every line begins with the time of day and says what kind it is:
//!
//! ```text
//! 12:34:56.789  sent      10.0.0.1:80 -> 10.0.0.2:4000   python3[77]  tcp_state: A program aborted …
//! 12:34:56.790  received  10.0.0.1:80 <- 10.0.0.2:4001   nginx[12]    peer: The peer's kernel sent it …
//! 12:34:57.789  unshown   1200 more: 1200 sent (no_socket)
//! 12:34:58.000  now       time_wait 31 (+4)  established 12  listen 5  |  RSTs 0.5/s sent, 0.0/s received
//! ```
//!
//! Not here: which are shown (see `limit`).

use std::fmt::Write as _;
use std::time::Duration;

use super::limit::Unshown;
use crate::census::socket::{ByState, State};
use crate::cli::doctor::colours::{Colours, Paint};
use crate::sys::local_time::LocalTime;
use crate::witness::event::ResetEvent;
use crate::witness::{Direction, KernelReason};

/// Who sent an RST, or for whose socket it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Actor {
    /// A process.
    Process(Process),
    /// The kernel, on its own behalf.
    Kernel,
    /// Nobody that could be found.
    Unknown,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    /// Its number; where it has no name, that of its thread.
    pub(super) id: u32,
    /// Its name; a process that is gone has none any more.
    pub(super) name: Option<String>,
}

/// RSTs since the numbers before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resets {
    /// From the tracepoints: of the whole host.
    Told {
        /// By this host.
        sent: u64,
        /// For a socket of this host's.
        received: u64,
    },
    /// From the kernel's counter: this network namespace has sent so many.
    Counted(u64),
    /// Nothing tells.
    Unknown,
}

/// One RST.
pub(super) fn reset(at: LocalTime, event: &ResetEvent, actor: &Actor, colours: Colours) -> String {
    let (arrow, paint) = match event.direction {
        Direction::Sent => ("->", Paint::Sent),
        Direction::Received => ("<-", Paint::Received),
    };
    let direction = painted(event.direction.label(), paint, colours);
    let addresses = format!("{} {arrow} {}", event.local, event.peer);
    let actor = actor_text(actor, event.kernel_reason);
    let (reason, meaning) = (event.kernel_reason.label(), event.kernel_reason.meaning());
    format!(
        "{at}  {direction}  {addresses:ADDRESSES_WIDTH$}  {actor:ACTOR_WIDTH$}  {reason}: {meaning}"
    )
}

/// What was not shown of a second.
pub(super) fn unshown(at: LocalTime, unshown: &Unshown, colours: Colours) -> String {
    let kind = painted("unshown", Paint::Faint, colours);
    let mut rows = unshown.beyond.clone();
    rows.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
    let mut parts: Vec<String> = rows
        .iter()
        .map(|(direction, reason, count)| {
            format!("{count} {} ({})", direction.label(), reason.label())
        })
        .collect();
    if unshown.lost > 0 {
        parts.push(format!(
            "{} that the kernel dropped, being read too slowly",
            unshown.lost
        ));
    }
    if unshown.unreadable > 0 {
        parts.push(format!("{} lines that can't be read", unshown.unreadable));
    }
    format!(
        "{at}  {kind}  {} more RSTs: {}",
        unshown.resets(),
        parts.join(", ")
    )
}

/// The live numbers; what changed since `before`, which was so long ago.
pub(super) fn numbers(
    at: LocalTime,
    sockets: &ByState,
    before: Option<(&ByState, Duration, Resets)>,
    colours: Colours,
) -> String {
    let kind = painted("now", Paint::Faint, colours);
    let mut line = format!("{at}  {kind}  time_wait {}", sockets.of(State::TimeWait));
    if let Some((before, ..)) = before {
        let change =
            sockets.of(State::TimeWait).cast_signed() - before.of(State::TimeWait).cast_signed();
        let _ = write!(line, " ({change:+})");
    }
    for state in State::ALL {
        let count = sockets.of(state);
        if state != State::TimeWait && count > 0 {
            let _ = write!(line, "  {} {count}", state.label());
        }
    }
    if let Some((_, passed, resets)) = before {
        line.push_str(&rates(resets, passed));
    }
    line
}

/// A line that says something else.
pub(super) fn note(at: LocalTime, text: &str, colours: Colours) -> String {
    let kind = painted("watch", Paint::Faint, colours);
    format!("{at}  {kind}  {}", harmless(text))
}

/// A text without anything that a terminal would obey: names of programs may be any bytes.
pub(super) fn harmless(text: &str) -> String {
    let harmless = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(harmless).collect()
}

fn rates(resets: Resets, passed: Duration) -> String {
    let rate = |count: u64| count as f64 / passed.as_secs_f64().max(f64::MIN_POSITIVE);
    match resets {
        Resets::Told { sent, received } => format!(
            "  |  RSTs {:.1}/s sent, {:.1}/s received",
            rate(sent),
            rate(received)
        ),
        Resets::Counted(sent) => format!("  |  RSTs {:.1}/s sent", rate(sent)),
        Resets::Unknown => String::new(),
    }
}

fn actor_text(actor: &Actor, reason: KernelReason) -> String {
    match actor {
        Actor::Process(Process {
            id,
            name: Some(name),
        }) => format!("{}[{id}]", harmless(name)),
        Actor::Process(Process { id, name: None }) => format!("process {id}"),
        Actor::Kernel => match reason {
            KernelReason::KeepaliveTimeout
            | KernelReason::AbortOnLinger
            | KernelReason::AbortOnMemory => "the kernel, at a timer".to_owned(),
            _ => "the kernel, answering a segment".to_owned(),
        },
        Actor::Unknown => "-".to_owned(),
    }
}

/// Padded first: a terminal does not count what it obeys.
fn painted(word: &str, paint: Paint, colours: Colours) -> String {
    colours.paint(paint, &format!("{word:KIND_WIDTH$}"))
}

const KIND_WIDTH: usize = 8;
/// Two of `123.123.123.123:12345`.
const ADDRESSES_WIDTH: usize = 46;
const ACTOR_WIDTH: usize = 31;

#[cfg(test)]
mod tests;
