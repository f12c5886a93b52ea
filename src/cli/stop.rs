//! Runs a proxy until it is told to stop, and stops it in order.
//!
//! ```text
//! SIGTERM, SIGINT, POST /api/v1/drain   drain; a second signal ends at once
//! SIGHUP, POST /api/v1/reload           load the configuration again
//! ```

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::admin::bind::Listening;
use crate::admin::{Control, server};
use crate::config::checked::Admin;
use crate::drain::Drained;
use crate::notify;
use crate::proxy::Proxy;

/// Serves the admin interface and lets the proxy run until a stop is asked for, then drains it.
pub(super) async fn until_stopped(
    proxy: &Proxy,
    admin: Option<(Listening, Admin)>,
    signals: &mut Signals,
) -> Drained {
    let stop_admin = CancellationToken::new();
    let admin_tasks = TaskTracker::new();
    if let Some((listening, settings)) = admin {
        let control: Arc<dyn Control> = Arc::new(proxy.clone());
        admin_tasks.spawn(server::serve(
            listening,
            settings,
            control,
            stop_admin.clone(),
        ));
    }
    signals.run_until_stop(proxy).await;
    notify::stopping(proxy.stop_time_max() + server::LAST_ANSWER);
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
    drained
}

/// The signals that this process answers.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
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

    /// Waits for a signal to stop.
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
