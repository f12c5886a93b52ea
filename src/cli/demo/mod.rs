//! `millpond demo`: what a pool and graceful closes change, and what they cost, for a reader with
//! `ss` in the other window.
//!
//! Services, clients and millpond live in this process, on threads of their own, and talk over
//! loopback. Every figure is measured in this run: the services count their connects themselves, the
//! kernel counts TIME_WAIT and CPU time. Not here: a benchmark. All parties share the cores, so speeds
//! compare only with each other.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the tables are for a person at a terminal"
)]

mod census;
mod client;
mod closer;
mod cost;
mod crowd;
mod dial;
mod keep;
mod mill;
mod ports;
mod resets;
mod service;

use std::io;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime::{Builder, Handle, Runtime};

use super::stop::Signals;
use crate::admin::bind::BindError;
use crate::proxy::StartError;

use client::Failure;
use cost::Measured;

/// What the threads of each party are called, in this process's own accounts as in `top -H`.
const CLIENT_THREADS: &str = "demo-clients";
const MILLPOND_THREADS: &str = "demo-millpond";

/// Why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("a runtime could not be started: {0}")]
    Runtime(io::Error),
    #[error("signals can't be received: {0}")]
    Signals(io::Error),
    #[error("interrupted")]
    Interrupted,
    #[error("the embedded service could not be started: {0}")]
    Service(io::Error),
    #[error("there is no place for millpond's Unix socket: {0}")]
    Directory(io::Error),
    #[error("the demo's own configuration was refused: {0}")]
    Config(String),
    #[error("millpond could not be started: {0}")]
    Start(#[from] StartError),
    #[error("millpond is not bound where it was told to")]
    NotBound,
    #[error("the admin interface could not be started: {0}")]
    Admin(#[from] BindError),
    #[error("the kernel's account can't be read: {0}")]
    Census(io::Error),
    #[error("the kernel did not narrow the clients' ports: {0}")]
    Ports(io::Error),
    #[error("{way}: not all clients had begun in time; this host is too slow or too busy")]
    TooSlow { way: &'static str },
    #[error("{way}: {count} clients failed as they should not; one of them: {first}")]
    ClientsFailed {
        way: &'static str,
        count: usize,
        first: Failure,
    },
    #[error("{way}: {what} was to be seen, and was not")]
    NotShown {
        way: &'static str,
        what: &'static str,
    },
    #[error("sessions were cut off when millpond stopped")]
    CutOff,
}

/// Shows the demo; with `keep`, millpond and its service run on until a signal. Exit code 0, or 1
/// with the reason on stderr.
pub(super) fn run(keep: bool) -> ExitCode {
    match on_runtimes(keep) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millpond demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Clients and millpond have runtimes of their own, so that their CPU time can be told apart.
fn on_runtimes(keep: bool) -> Result<(), DemoError> {
    let millpond = runtime(MILLPOND_THREADS)?;
    let clients = runtime(CLIENT_THREADS)?;
    let outcome = clients.block_on(demo(millpond.handle(), keep));
    // What an interruption left under way ends with the process.
    clients.shutdown_background();
    millpond.shutdown_background();
    outcome
}

fn runtime(threads: &'static str) -> Result<Runtime, DemoError> {
    let mut builder = Builder::new_multi_thread();
    let builder = builder.enable_all().thread_name(threads);
    builder.build().map_err(DemoError::Runtime)
}

async fn demo(millpond: &Handle, keep: bool) -> Result<(), DemoError> {
    let mut signals = Signals::new().map_err(DemoError::Signals)?;
    let Measured { service, mill } = tokio::select! {
        shown = show(millpond) => shown?,
        () = signals.stop() => return Err(DemoError::Interrupted),
    };
    match keep {
        true => keep::run(&service, &mill, signals).await,
        false => mill.stop().await,
    }
}

/// Measures and prints each table; returns what the last one was measured with, still running.
async fn show(millpond: &Handle) -> Result<Measured, DemoError> {
    println!(
        "Services, clients and millpond are this process, over loopback. Every figure is measured now.\n"
    );
    let progress = progress();
    let ports = ports::measure(millpond, &progress).await?;
    progress.suspend(|| ports.print());
    ports.judge()?;
    let resets = resets::measure(millpond, &progress).await?;
    progress.suspend(|| resets.print());
    resets.judge()?;
    let (cost, measured) = cost::measure(millpond, &progress).await?;
    progress.finish_and_clear();
    cost.print();
    Ok(measured)
}

/// On stderr, and only on a terminal. A step is a client that has ended, or a request of one that
/// makes several.
fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:<32} {bar:36} {percent:>3} %")
        .expect("the template is right");
    ProgressBar::new((ports::STEPS + resets::STEPS + cost::STEPS) as u64).with_style(style)
}
