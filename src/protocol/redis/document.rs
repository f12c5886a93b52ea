//! The table of commands as a page of the reference (Markdown).
//!
//! Not here: the rows.
//!
//! Invariant: the same table makes the same page.

use std::fmt::Write;

use super::command::{LeaseNeed, Local, Row, Rule, Treatment, rows};

/// The page.
#[must_use]
pub fn text() -> String {
    let mut rows: Vec<&Row> = rows().collect();
    rows.sort_unstable_by_key(|row| row.name);
    let mut text = INTRODUCTION.to_owned();
    for row in rows {
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            row.name,
            deed(row.rule),
            row.meaning
        );
    }
    text
}

/// What millpond does.
fn deed(rule: Rule) -> String {
    match rule {
        Rule::Always(treatment) => treated(treatment),
        Rule::BySubcommand(_) => "by subcommand".to_owned(),
        Rule::UnlessBlock { read_only } => format!(
            "with `BLOCK`: {}; else {}",
            treated(Treatment::Lease(LeaseNeed::Blocking)),
            treated(Treatment::Share { read_only })
        ),
    }
}

fn treated(treatment: Treatment) -> String {
    match treatment {
        Treatment::Share { read_only: true } => "shared, may be repeated".to_owned(),
        Treatment::Share { read_only: false } => "shared".to_owned(),
        Treatment::Answer(Local::ClientReply) => "done by millpond".to_owned(),
        Treatment::Answer(_) => "answered by millpond".to_owned(),
        Treatment::Lease(need) => format!("a connection of its own, {}", until(need)),
        Treatment::Refuse(refused) => format!("refused: `{}`", refused.message()),
    }
}

/// How long the connection is kept.
fn until(need: LeaseNeed) -> &'static str {
    match need {
        LeaseNeed::Transaction => "until EXEC, DISCARD or RESET",
        LeaseNeed::Watch => "until EXEC, DISCARD, UNWATCH or RESET",
        LeaseNeed::Blocking | LeaseNeed::Slow | LeaseNeed::Overtaking => "until its reply",
        LeaseNeed::Subscribe | LeaseNeed::Monitor | LeaseNeed::Tracking => "for good",
        LeaseNeed::Cluster | LeaseNeed::ConnectionFlag => "for good",
        LeaseNeed::Unknown => "until its reply; then it is reset",
    }
}

const INTRODUCTION: &str = "\
# What millpond does with the commands of Redis and Valkey

Made by `millpond generate redis-reference`. Clients share connections to the service. Most commands go on
over a shared one: they are answered once, and leave nothing behind on the connection. *May be repeated*:
the command changes nothing, so it may be sent again when its connection ended before its reply. What
needs more than that gets a connection of its own, and gives it back afterwards, or keeps it *for good*: to the
end of its client. What would hurt other
clients of the connection is refused. A command that is not in this table (of a module, or of a later
version) gets a connection of its own for its reply; then that is reset. A subcommand of `CLIENT` that is not
in it is refused.

Names and options are known in any case. Within MULTI nothing blocks. `XREAD` and `XREADGROUP` with an
option that millpond does not know are taken for blocking.

| command | what millpond does | why |
|---|---|---|
";
