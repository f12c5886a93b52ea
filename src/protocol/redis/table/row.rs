//! Short ways to write a row.
//!
//! Not here: the rows.

use super::super::command::{LeaseNeed, Local, Refused, Row, Rule, Treatment};

const fn always(name: &'static str, treatment: Treatment, meaning: &'static str) -> Row {
    Row {
        name,
        rule: Rule::Always(treatment),
        meaning,
    }
}

pub(super) const fn read(name: &'static str, meaning: &'static str) -> Row {
    always(name, Treatment::Share { read_only: true }, meaning)
}

pub(super) const fn write(name: &'static str, meaning: &'static str) -> Row {
    always(name, Treatment::Share { read_only: false }, meaning)
}

pub(super) const fn answer(name: &'static str, local: Local, meaning: &'static str) -> Row {
    always(name, Treatment::Answer(local), meaning)
}

pub(super) const fn lease(name: &'static str, need: LeaseNeed, meaning: &'static str) -> Row {
    always(name, Treatment::Lease(need), meaning)
}

pub(super) const fn refuse(name: &'static str, why: Refused, meaning: &'static str) -> Row {
    always(name, Treatment::Refuse(why), meaning)
}

pub(super) const fn unless_block(
    name: &'static str,
    read_only: bool,
    meaning: &'static str,
) -> Row {
    Row {
        name,
        rule: Rule::UnlessBlock { read_only },
        meaning,
    }
}

/// Alone it is an error, or asks for all commands: it is answered, and changes nothing.
pub(super) const fn container(name: &'static str) -> Row {
    Row {
        name,
        rule: Rule::BySubcommand(Treatment::Share { read_only: true }),
        meaning: "see its subcommands",
    }
}
