//! `millpond generate`: shell completions and manual pages, for those who package millpond.
//!
//! They come from the same source as `--help`, the metrics and the table of commands; conf/completions, conf/man and
//! conf/reference hold what this prints.

#![allow(
    clippy::print_stderr,
    reason = "what is wrong with the command line goes to the terminal"
)]

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Command, Subcommand};
use clap_complete::Shell;
use clap_mangen::Man;

use super::doctor::schema;
use crate::protocol::redis::document;
use crate::stats::reference;

/// What is generated.
#[derive(Debug, Subcommand)]
pub(super) enum Generate {
    /// Print the completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page of millpond, or of one of its commands.
    Man {
        /// The command: run, check, …
        command: Option<String>,
    },
    /// Print the reference of all ends, resets and reasons that are counted (Markdown).
    Reference,
    /// Print the reference of what doctor says as JSON (Markdown).
    DoctorReference,
    /// Print the reference of what becomes of the commands of Redis (Markdown).
    RedisReference,
}

/// What the shell gets for a command that does not exist.
const REFUSED: u8 = 2;

/// Prints what was asked for about a command line.
pub(super) fn run(what: &Generate, of: Command) -> ExitCode {
    let mut of = of.disable_help_subcommand(true);
    of.build();
    let mut text = Vec::new();
    let written = match what {
        Generate::Reference => {
            text.extend_from_slice(reference::text().as_bytes());
            Ok(())
        }
        Generate::DoctorReference => {
            text.extend_from_slice(schema::reference().as_bytes());
            Ok(())
        }
        Generate::RedisReference => {
            text.extend_from_slice(document::text().as_bytes());
            Ok(())
        }
        Generate::Completions { shell } => {
            let name = of.get_name().to_owned();
            clap_complete::generate(*shell, &mut of, name, &mut text);
            Ok(())
        }
        Generate::Man { command: None } => page(&of, &of, &mut text),
        Generate::Man {
            command: Some(name),
        } => {
            let Some(command) = of.find_subcommand(name) else {
                eprintln!("{} has no command \"{name}\"", of.get_name());
                return ExitCode::from(REFUSED);
            };
            page(command, &of, &mut text)
        }
    };
    match written.and_then(|()| io::stdout().write_all(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The page of a command. It bears no date, so that the same source makes the same page.
fn page(command: &Command, of: &Command, text: &mut Vec<u8>) -> io::Result<()> {
    let version = of.get_version().unwrap_or_default();
    Man::new(command.clone())
        .source(format!("{} {version}", of.get_name()))
        .render(text)
}
