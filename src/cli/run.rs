//! `millpond run`: the proxy in the foreground, and its exit codes.
//!
//! Not here: what signals do (see `stop`).

#![allow(
    clippy::print_stderr,
    reason = "what is wrong before there is a log goes to the terminal"
)]

use std::process::ExitCode;

use tracing::{error, info, warn};

use super::stop::{Signals, until_stopped};
use crate::admin;
use crate::config::{self, Loaded, Source};
use crate::drain::Drained;
use crate::log;
use crate::notify;
use crate::proxy::{Origin, Proxy};
use crate::sys::inherit::{Inherited, take_inherited};
use crate::sys::process;

/// What the shell gets for a configuration that can't be used.
const REFUSED: u8 = 2;

/// Runs the proxy until it is told to stop. 0: drained; 1: cut off, or could not start; 2: the
/// configuration can't be used.
pub(super) fn run(source: Source) -> ExitCode {
    let Loaded { config, warnings } = match config::load(&source, config::environment()) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(REFUSED);
        }
    };
    let log = match log::start(config.log.format, &config.log.level) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(REFUSED);
        }
    };
    for warning in warnings {
        warn!("{warning}");
    }
    raise_descriptor_limit(&config);
    let inherited = match take_inherited() {
        Ok(inherited) => inherited,
        Err(error) => {
            error!(%error, "the sockets of the service manager can't be taken");
            return ExitCode::FAILURE;
        }
    };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = config.workers {
        builder.worker_threads(workers);
    }
    match builder.enable_all().thread_name("millpond").build() {
        Ok(runtime) => {
            let code = runtime.block_on(serve(inherited, config, Origin { source, log }));
            // Not waiting for names that are still being resolved.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            error!(%error, "the runtime could not be started");
            ExitCode::FAILURE
        }
    }
}

/// Starts everything, runs until a stop is asked for, and stops.
async fn serve(
    inherited: Vec<Inherited>,
    config: config::checked::Config,
    origin: Origin,
) -> ExitCode {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            error!(%error, "signals can't be received");
            return ExitCode::FAILURE;
        }
    };
    // The admin interface is bound first: a proxy that nobody can look into should not start.
    let admin = match &config.admin {
        Some(settings) => match admin::bind::bind(&settings.listen).await {
            Ok(listening) => Some((listening, settings.clone())),
            Err(error) => {
                error!(address = %settings.listen, %error, "admin could not be bound");
                return ExitCode::FAILURE;
            }
        },
        None => None,
    };
    let proxy = match Proxy::start_on(inherited, &config, Some(origin)) {
        Ok(proxy) => proxy,
        Err(error) => {
            error!("{error}");
            return ExitCode::FAILURE;
        }
    };
    info!(version = env!("CARGO_PKG_VERSION"), "ready");
    tokio::spawn(notify::prove_alive());
    notify::ready(&format!("serving, listeners: {}", config.listeners.len()));
    match until_stopped(&proxy, admin, &mut signals).await {
        Drained::Complete => ExitCode::SUCCESS,
        Drained::CutOff { .. } => ExitCode::FAILURE,
    }
}

fn raise_descriptor_limit(config: &config::checked::Config) {
    let needed = config::checked::descriptors_needed(config);
    match process::raise_descriptor_limit() {
        Ok(limit) if limit < needed => {
            warn!(
                limit,
                needed, "fewer descriptors than all limits together may need"
            );
        }
        Ok(_) => {}
        Err(error) => warn!(%error, "the descriptor limit could not be raised"),
    }
}
