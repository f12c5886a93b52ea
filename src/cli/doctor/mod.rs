//! `millpond doctor`: what this host's TIME_WAIT, ports, resets and settings look like, and what to do.
//!
//! ```text
//! host: two looks, seconds apart ──► diagnosis: findings ──► report ──► text, or JSON
//!  (look, counters, settings: pure)     (finding: their words)    (schema: what the JSON means)
//! ```
//!
//! It needs no millpond and no privilege, and changes nothing. Not here: what a running millpond knows of
//! its own connections (its admin interface says that).

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what it finds is for a person or a script at a terminal"
)]

mod colours;
mod counters;
mod diagnosis;
mod finding;
mod host;
mod look;
mod owners;
mod processes;
mod report;
pub(super) mod schema;
mod settings;
mod text;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use colours::Colours;
use report::{Report, Verdict};

/// What is asked of doctor.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Print JSON, as conf/reference/doctor.md describes it.
    #[arg(long)]
    json: bool,
    /// For how long rates are measured.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Show each RST of this host as it happens, and live numbers, until Ctrl-C.
    #[arg(long, conflicts_with_all = ["json", "seconds"])]
    watch: bool,
}

/// Nothing was found, since the sockets could not be looked at.
const UNKNOWN: u8 = 2;

/// Looks at this host and says what it saw. Exit code 0 where nothing is wrong, 1 with findings, 2 where
/// it could not look.
pub(super) fn run(options: &Options) -> ExitCode {
    if options.watch {
        return watch::run();
    }
    let report = report::report(&host::read(options.seconds));
    let said = match options.json {
        true => json(&report),
        false => text::text(&report, Colours::of_stdout()),
    };
    if let Err(error) = io::stdout().write_all(said.as_bytes()) {
        // Whoever reads no further (head, a pager) has seen enough.
        if error.kind() != io::ErrorKind::BrokenPipe {
            eprintln!("millpond doctor: {error}");
            return ExitCode::from(UNKNOWN);
        }
    }
    match report.verdict {
        Verdict::Healthy => ExitCode::SUCCESS,
        Verdict::Findings => ExitCode::FAILURE,
        Verdict::Unknown => ExitCode::from(UNKNOWN),
    }
}

fn json(report: &Report) -> String {
    let text = serde_json::to_string_pretty(report).expect("it is text and numbers");
    text + "\n"
}
