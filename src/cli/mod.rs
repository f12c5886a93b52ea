//! The command line: which command, with which options.
//!
//! Each command has its own file. Not here: what options mean for the proxy (see `config`).

mod check;
mod demo;
mod doctor;
mod generate;
pub mod run;
mod stop;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use generate::Generate;

use crate::config::Source;

/// A connection-pooling TCP proxy with an exact ledger of how every connection ended.
#[derive(Debug, Parser)]
#[command(name = "millpond", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct CommandLine<Commands: Subcommand> {
    #[command(subcommand)]
    command: Commands,
}

/// Every command, with those that are not for users.
#[derive(Debug, Subcommand)]
enum AnyCommand {
    #[command(flatten)]
    ForUsers(Command),
    /// Print shell completions or a manual page, for packages.
    #[command(subcommand, hide = true)]
    Generate(Generate),
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy, from a file or in one line.
    #[command(after_help = RUN_HELP)]
    Run(RunOptions),
    /// Check a configuration file: exit 0 if it can be used, 2 with every error.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show what a pool and graceful closes change, and what they cost: the same with and without.
    #[command(after_help = DEMO_HELP)]
    Demo {
        /// Leave the service and millpond running after the tables, until Ctrl-C or SIGTERM.
        #[arg(long)]
        keep: bool,
    },
    /// Look at this host's TIME_WAIT, ports, resets and settings, and say what to do about them.
    #[command(after_help = DOCTOR_HELP)]
    Doctor(doctor::Options),
}

#[derive(Debug, Args)]
struct RunOptions {
    /// The configuration file.
    #[arg(long, value_name = "FILE", required_unless_present = "listen", conflicts_with_all = ["listen", "upstream", "pool_size", "admin"])]
    config: Option<PathBuf>,
    /// Where to listen: IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH.
    #[arg(long, value_name = "ADDR", requires = "upstream")]
    listen: Option<String>,
    /// The service: http://HOST:PORT, tcp://HOST:PORT or frames://HOST:PORT?length=0:4:big (or
    /// ?delimiter=%0A, or ?size=N); unix:PATH may stand for HOST:PORT.
    #[arg(long, value_name = "URL", requires = "listen")]
    upstream: Option<String>,
    /// Connections to the service, at most [default: 64].
    #[arg(long, value_name = "N", requires = "listen", value_parser = clap::value_parser!(u64))]
    pool_size: Option<u64>,
    /// Where page, metrics and API listen, or off [default: 127.0.0.1:9900].
    #[arg(long, value_name = "ADDR", requires = "listen")]
    admin: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  millpond run --listen 127.0.0.1:8080 --upstream http://127.0.0.1:8000 --pool-size 32
  millpond check --config /etc/millpond.toml
  millpond run --config /etc/millpond.toml

Exit codes: 0 drained or in order, 1 cut off at the drain's deadline or could not bind,
2 options or configuration.";

const RUN_HELP: &str = "\
Variables lie over the file: MILLPOND__UPSTREAM__ORDERS__POOL__SIZE=32 is
upstream.orders.pool.size = 32. SIGTERM and SIGINT drain, a second one ends at once;
SIGHUP loads the configuration again.";

const DEMO_HELP: &str = "\
Needs nothing and changes nothing: services, clients and millpond live in this process and talk over
loopback, for less than a minute. Exit codes: 0 shown, 1 not, with the reason.";

const DOCTOR_HELP: &str = "\
Needs neither millpond nor root, and changes nothing; root sees which process holds a socket. Exit
codes: 0 nothing is wrong, or --watch has ended, 1 findings, 2 the host could not be looked at.";

/// Does what the command line says, and returns what the process ends with.
pub fn main() -> ExitCode {
    let command = match CommandLine::<AnyCommand>::parse().command {
        AnyCommand::ForUsers(command) => command,
        AnyCommand::Generate(what) => {
            return generate::run(&what, CommandLine::<Command>::command());
        }
    };
    match command {
        Command::Run(options) => run::run(options.into_source()),
        Command::Check { config } => check::run(config),
        Command::Demo { keep } => demo::run(keep),
        Command::Doctor(options) => doctor::run(&options),
    }
}

impl RunOptions {
    fn into_source(self) -> Source {
        match (self.config, self.listen, self.upstream) {
            (Some(file), ..) => Source::File(file),
            (None, Some(listen), Some(upstream)) => Source::CommandLine {
                listen,
                upstream,
                pool_size: self.pool_size,
                admin: self.admin,
            },
            (None, ..) => unreachable!("clap demands --config, or --listen with --upstream"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{AnyCommand, CommandLine};

    #[test]
    fn the_options_are_consistent() {
        CommandLine::<AnyCommand>::command().debug_assert();
    }
}
