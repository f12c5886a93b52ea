//! The millpond command: see `millpond --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    millpond::cli::main()
}
