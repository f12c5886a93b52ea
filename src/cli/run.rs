//! `millpond run`: the proxy in the foreground, its signals and its exit codes.
//!
//! ```text
//! SIGTERM, SIGINT, POST /api/v1/drain   drain; a second signal ends at once
//! SIGHUP, POST /api/v1/reload           load the configuration again
//! ```

#![allow(
    clippy::print_stderr,
    reason = "what is wrong before there is a log goes to the terminal"
)]

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::admin::{self, Control};
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
    let stop_admin = CancellationToken::new();
    let admin_tasks = TaskTracker::new();
    if let Some((listening, settings)) = admin {
        let control: Arc<dyn Control> = Arc::new(proxy.clone());
        admin_tasks.spawn(admin::server::serve(
            listening,
            settings,
            control,
            stop_admin.clone(),
        ));
    }
    info!(version = env!("CARGO_PKG_VERSION"), "ready");
    tokio::spawn(notify::prove_alive());
    notify::ready(&format!("serving, listeners: {}", config.listeners.len()));
    signals.run_until_stop(&proxy).await;
    notify::stopping(proxy.stop_time_max() + admin::server::LAST_ANSWER);
    let drained = tokio::select! {
        drained = proxy.drain() => drained,
        () = signals.stop() => {
            warn!("a second signal: ending at once");
            Drained::CutOff { sessions: proxy.cut().await }
        }
    };
    stop_admin.cancel();
    admin_tasks.close();
    admin_tasks.wait().await;
    match drained {
        Drained::Complete => ExitCode::SUCCESS,
        Drained::CutOff { .. } => ExitCode::FAILURE,
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Reloads as often as it is asked to, until a stop is asked for.
    async fn run_until_stop(&mut self, proxy: &Proxy) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                () = proxy.stop_asked() => return,
                _ = self.hangup.recv() => {
                    // The outcome is logged where it happens; a signal has nobody to tell, and the
                    // next signal need not wait for this one.
                    let proxy = proxy.clone();
                    tokio::spawn(async move { proxy.reload().await });
                }
            }
        }
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
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
