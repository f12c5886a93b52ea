//! The ledger against the kernel: every way in which a connection can end, and what is said of it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout)]
#![allow(unreachable_pub, reason = "its modules are one program")]

#[path = "../support/mod.rs"]
mod support;

mod connects;
mod frames;
mod http;
mod matrix;
mod observe;
mod operator;
mod tcp;
mod vanished;

use std::collections::BTreeSet;

use millpond::close::Side;
use millpond::stats::termination;

/// Rows of the tables that no case can produce, and why.
const ELSEWHERE: &[(Side, &str, &str)] = &[
    (
        Side::Upstream,
        "OCF",
        "a connect is given up only when the process ends, and then nobody is left to ask",
    ),
    (
        Side::Upstream,
        "URV",
        "an answer that crosses its request takes a slow cable: tests/race.rs",
    ),
];

#[test]
fn http_ends_as_the_ledger_says() {
    matrix::run_all(&http::cases());
}

#[test]
fn frames_end_as_the_ledger_says() {
    matrix::run_all(&frames::cases());
}

#[test]
fn tcp_ends_as_the_ledger_says() {
    matrix::run_all(&tcp::cases());
}

#[test]
fn connects_end_as_the_ledger_says() {
    matrix::run_all(&connects::cases());
}

#[test]
fn an_operators_ends_are_as_the_ledger_says() {
    matrix::run_all(&operator::cases());
}

#[test]
fn vanished_peers_end_as_the_ledger_says() {
    matrix::run_all(&vanished::cases());
}

#[test]
fn every_row_of_the_tables_has_its_case() {
    let cases = [
        http::cases(),
        frames::cases(),
        tcp::cases(),
        connects::cases(),
        operator::cases(),
        vanished::cases(),
    ];
    let cases: Vec<_> = cases.iter().flatten().collect();
    for side in Side::ALL {
        let ends = cases.iter().flat_map(|case| match side {
            Side::Downstream => &case.sessions,
            Side::Upstream => &case.connections,
        });
        let mut produced: BTreeSet<_> = ends.map(|end| end.code.to_owned()).collect();
        let elsewhere = ELSEWHERE.iter().filter(|(of, ..)| *of == side);
        for (_, code, _) in elsewhere {
            let is_new = produced.insert((*code).to_owned());
            assert!(is_new, "{side:?} {code} has a case");
        }
        let rows = termination::reachable(side).iter();
        let codes = rows.map(|row| termination::code(row.termination).map(char::from));
        let table: BTreeSet<String> = codes.map(|code| code.iter().collect()).collect();
        assert_eq!(produced, table, "{side:?}");
    }
}
