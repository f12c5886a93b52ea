//! `millpond check`: every error of a configuration file, or what it needs of this host.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the verdict is for a person or a script at a terminal"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use crate::census::settings;
use crate::config::checked::{Config, descriptors_needed, source_warnings};
use crate::config::{self, Loaded, Source};
use crate::sys::{process, socket};

/// What the shell gets for a configuration that can't be used.
const REFUSED: u8 = 2;

/// Checks a file, with the environment laid over it as `run` would.
pub(super) fn run(file: PathBuf) -> ExitCode {
    match config::load(&Source::File(file), config::environment()) {
        Ok(loaded) => {
            report(&loaded);
            ExitCode::SUCCESS
        }
        Err(errors) => {
            eprintln!("{errors}");
            ExitCode::from(REFUSED)
        }
    }
}

fn report(Loaded { config, warnings }: &Loaded) {
    println!("OK");
    for warning in warnings {
        println!("warning: {warning}");
    }
    warn_of_sources(config);
    let needed = descriptors_needed(config);
    match process::descriptor_limit() {
        Ok(limit) if needed > limit.hard => println!(
            "warning: {needed} descriptors are needed when every limit is reached, and this host \
             allows {}: raise its limit (LimitNOFILE, ulimit -Hn), or lower max_sessions or pool.size",
            limit.hard
        ),
        Ok(limit) => println!(
            "descriptors: {needed} when every limit is reached; this host allows {}",
            limit.hard
        ),
        Err(error) => println!(
            "descriptors: {needed} when every limit is reached; this host's limit can't be read: {error}"
        ),
    }
    println!("{}", summary(config));
}

/// A host whose settings can't be read is not this kernel's; there is nothing to hold them against.
fn warn_of_sources(config: &Config) {
    let Ok(host) = settings::port_range() else {
        return;
    };
    for (name, upstream) in &config.upstreams {
        let keeps_to_ranges = socket::keeps_to_ranges();
        for warning in source_warnings(name, upstream, &host, keeps_to_ranges) {
            println!("warning: {warning}");
        }
    }
}

fn summary(config: &Config) -> String {
    let mut lines = Vec::new();
    for (name, listener) in &config.listeners {
        let (listen, upstream, max_sessions) =
            (&listener.listen, &listener.upstream, listener.max_sessions);
        lines.push(format!(
            "listener {name}: {listen} -> {upstream}, at most {max_sessions} sessions"
        ));
    }
    for (name, upstream) in &config.upstreams {
        let endpoints = upstream.endpoints.len();
        let noun = if endpoints == 1 {
            "endpoint"
        } else {
            "endpoints"
        };
        let size = upstream.pool.size;
        lines.push(format!(
            "upstream {name}: {endpoints} {noun}, at most {size} connections to each"
        ));
        if !upstream.source.is_empty() {
            let sources: Vec<String> = upstream.source.iter().map(ToString::to_string).collect();
            lines.push(format!(
                "upstream {name}: dialled from {}",
                sources.join(", ")
            ));
        }
    }
    lines.join("\n")
}
