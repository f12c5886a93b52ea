//! The reference for operators: every end, reset and reason that is counted, with what to do about it.
//!
//! Made from the tables that the metrics are made from, so that it names what there is and nothing else.

use std::fmt::Write;

use super::reason::{
    ConnectOutcome, DiscardReason, DroppedMessage, ExchangeOutcome, Leak, LeaseReason, OpenReason,
    RaceLost, Reason, RefusalReason, RetryReason, WaitOutcome,
};
use super::{table, termination};
use crate::close::Side;

/// The whole reference, as Markdown.
pub fn text() -> String {
    let mut text = String::from(HEAD);
    for (side, title) in [
        (Side::Downstream, "Ends of sessions (`side=\"downstream\"`)"),
        (
            Side::Upstream,
            "Ends of upstream connections (`side=\"upstream\"`)",
        ),
    ] {
        ends(&mut text, side, title);
    }
    text.push_str(RESETS);
    for side in Side::ALL {
        resets(&mut text, side);
    }
    reasons::<DiscardReason>(&mut text, table::DISCARDS.name);
    reasons::<RefusalReason>(&mut text, table::REFUSALS.name);
    reasons::<RetryReason>(&mut text, table::RETRIES.name);
    reasons::<LeaseReason>(&mut text, table::PINS.name);
    reasons::<DroppedMessage>(&mut text, table::MESSAGES_DROPPED.name);
    reasons::<RaceLost>(&mut text, table::RACES_LOST.name);
    reasons::<ExchangeOutcome>(&mut text, table::EXCHANGES.name);
    reasons::<ConnectOutcome>(&mut text, table::CONNECTS.name);
    reasons::<OpenReason>(&mut text, table::OPENS.name);
    reasons::<WaitOutcome>(&mut text, table::POOL_WAITS.name);
    reasons::<Leak>(&mut text, table::SOCKET_LEAKS.name);
    text
}

const HEAD: &str = "\
# What millpond counts

Made by `millpond generate reference`. Every connection has exactly one end: who began it, in which phase,
in which manner. The code is what the log says, a letter for each. An end in *italics* is part of an
ordinary day and gets no line among the abnormal ones.
";

const RESETS: &str = "
## RSTs

`millpond_resets_total`: `received` is the peer's, `sent` is ours, for one of four causes. `propagated`: the
other leg was reset or cut short, and the peer must not take what it has for the whole. `abandoned`: the
service was in the middle of an answer that nobody wants any more. `linger_bound`: the peer went on sending
past the bounds after our FIN. `operator`: a rule, a limit or a command of yours. What the kernel sends or
receives without a connection of millpond's is in none of these.

| side | direction | phase | cause |
|---|---|---|---|
";

fn ends(text: &mut String, side: Side, title: &str) {
    line(
        text,
        format_args!(
            "\n## {title}\n\n| code | initiator × phase × manner | meaning | what to do |"
        ),
    );
    line(text, format_args!("|---|---|---|---|"));
    for row in termination::reachable(side) {
        let ended = row.termination;
        let code = termination::code(ended).map(char::from);
        let code: String = code.iter().collect();
        let mark = if row.ordinary { "*" } else { "" };
        line(
            text,
            format_args!(
                "| {code} | {mark}{} × {} × {}{mark} | {} | {} |",
                ended.initiator.label(),
                ended.phase.label(),
                ended.manner.label(),
                row.meaning,
                row.advice
            ),
        );
    }
}

fn resets(text: &mut String, side: Side) {
    for (reset, phase) in termination::reachable_resets(side) {
        line(
            text,
            format_args!(
                "| {} | {} | {} | {} |",
                side.label(),
                reset.direction(),
                phase.label(),
                reset.cause()
            ),
        );
    }
}

fn reasons<R: Reason>(text: &mut String, metric: &str) {
    line(text, format_args!("\n## `{metric}`\n\n| label | meaning |"));
    line(text, format_args!("|---|---|"));
    for &reason in R::ALL {
        line(
            text,
            format_args!("| `{}` | {} |", reason.label(), reason.meaning()),
        );
    }
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    writeln!(text, "{words}").expect("a String takes every write");
}
