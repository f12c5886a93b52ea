//! Log lines: how they look, how loud they are, and the one about the end of a session.
//!
//! Lines go to stderr, as text or as one JSON object each, and the level can be changed while
//! running. Nothing is logged for an exchange. The end of a session gets a line when it was out of
//! the ordinary (`log.sessions` may ask for all or none): [`SessionLog`], rate-limited by [`budget`].
//!
//! A session's line names its end by a code of three letters, who, phase and manner, the same that
//! the statistics count (`stats::termination` says what each end means):
//!
//! | letter | who | phase | manner |
//! |---|---|---|---|
//! | A | | accept: nothing read or written yet | |
//! | C | | connect: being dialled | |
//! | D | downstream: the client | | |
//! | F | | | fin: in order |
//! | H | | handshake: TLS or a login | |
//! | I | | idle: between exchanges | |
//! | K | kernel: the peer vanished | | |
//! | L | | close: our FIN is out | limit |
//! | M | millpond: a rule or limit | | |
//! | O | operator: drain, reload, command | | timeout |
//! | P | | response: its answer under way | |
//! | Q | | queue: waiting for a lease | |
//! | R | | request: nothing of its answer seen | reset_received |
//! | S | | | reset_sent |
//! | T | | | truncated |
//! | U | upstream: the service | | |
//! | V | | | violation |
//! | X | | | refused |

pub mod budget;
mod session_end;

use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt};

use crate::config::checked::LogFormat;

pub use session_end::{EndedSession, SessionLog};

/// Why the log could not be set up or changed.
#[derive(Debug, Error)]
pub enum LogError {
    /// The operator's: the level is not a filter. A retry is sound with another one.
    #[error(
        "log.level = {level:?} is neither a level nor a filter like `warn,millpond::pool=debug`: {source}"
    )]
    BadLevel {
        /// What was asked for.
        level: String,
        /// What the parser said.
        source: ParseError,
    },
    /// The caller's: a process has one log. A retry fails again.
    #[error("the log was set up already: {0}")]
    SetUpAlready(#[from] TryInitError),
    /// Nobody's: the process is past the end of its log.
    #[error("the log is gone: {0}")]
    Gone(#[from] reload::Error),
}

/// Changes the log while running.
#[derive(Debug, Clone)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Checks a level without applying it.
pub fn check_level(level: &str) -> Result<(), LogError> {
    parse(level).map(|_| ())
}

/// Sets up the log of the process, once. The format stays for its life; the level may change.
pub fn start(format: LogFormat, level: &str) -> Result<LogHandle, LogError> {
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()?;
    Ok(LogHandle { filter: handle })
}

impl LogHandle {
    /// Applies another level or filter: `info`, or `warn,millpond::pool=debug`.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        self.filter.reload(parse(level)?)?;
        Ok(())
    }
}

fn parse(level: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(level).map_err(|source| LogError::BadLevel {
        level: level.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_word_or_a_filter() {
        for level in ["info", "warn,millpond::pool=debug", "off"] {
            assert!(check_level(level).is_ok(), "{level}");
        }
        let error = check_level("millpond=loud").expect_err("loud is no level");
        assert!(error.to_string().contains("millpond=loud"), "{error}");
    }
}
