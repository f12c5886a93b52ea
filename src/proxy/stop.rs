//! Stopping: grace, then no more accepting, then the end of every session, then of every upstream
//! connection.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout_at};
use tracing::{info, warn};

use super::{Proxy, witness};
use crate::drain::{Drained, Stage};
use crate::stats::sessions::Command;
use crate::sys::clock;

impl Proxy {
    /// Asks for a stop from anywhere; whoever runs the proxy hears of it in [`Proxy::stop_asked`].
    pub fn ask_stop(&self) {
        self.shared.stop_asked.notify_one();
    }

    /// Waits until somebody asks for a stop.
    pub async fn stop_asked(&self) {
        self.shared.stop_asked.notified().await;
    }

    /// How long a stop may take, as it is configured now.
    pub fn stop_time_max(&self) -> Duration {
        let shutdown = &self.parts().config.shutdown;
        shutdown.grace + shutdown.drain_timeout + CUT_TIME_MAX
    }

    /// Stops in stages. Returns when the last session has ended, or at the end of `drain_timeout`
    /// with the rest cut off.
    pub async fn drain(&self) -> Drained {
        let shutdown = self.parts().config.shutdown.clone();
        if !shutdown.grace.is_zero() {
            self.shared.stage.reach(Stage::Grace);
            self.shared.tree.set_draining();
            info!(grace = ?shutdown.grace, "stopping: still accepting");
            sleep(shutdown.grace).await;
        }
        self.shared.stage.reach(Stage::Draining);
        let deadline = clock::now() + shutdown.drain_timeout;
        // Those that are still let in from the accept queue are told too.
        self.command_sessions(Command::Drain);
        // Only now: once anybody can see that it drains, every answer that begins says so.
        self.shared.tree.set_draining();
        info!(drain_timeout = ?shutdown.drain_timeout, "draining");
        for door in self.parts().listeners.values() {
            door.stop.cancel();
        }
        self.shared.accepting.close();
        let _ = timeout_at(deadline.into(), self.shared.accepting.wait()).await;
        self.shared.sessions.close();
        let ended = timeout_at(deadline.into(), self.shared.sessions.wait()).await;
        self.shared.log.report_suppressed(clock::now());
        if ended.is_ok() {
            self.close_upstreams(deadline).await;
            witness::stop(&self.shared.tree).await;
            info!("drained");
            return Drained::Complete;
        }
        let sessions = self.cut().await;
        warn!(sessions, "cut off at the end of drain_timeout");
        Drained::CutOff { sessions }
    }

    /// Ends everything at once; how many sessions were cut off.
    pub async fn cut(&self) -> usize {
        let open = self.shared.sessions.len();
        self.shared.stage.reach(Stage::Draining);
        for door in self.parts().listeners.values() {
            door.stop.cancel();
        }
        self.command_sessions(Command::Cut);
        self.shared.sessions.close();
        let deadline = clock::now() + CUT_TIME_MAX;
        // A session that is cut off has nothing to wait for; the bound is for a starved runtime.
        let _ = timeout_at(deadline.into(), self.shared.sessions.wait()).await;
        for upstream in self.parts().upstreams.values() {
            upstream.cut();
        }
        witness::stop(&self.shared.tree).await;
        open
    }

    fn command_sessions(&self, command: Command) {
        self.shared.tree.command_sessions(command);
    }

    /// Idle connections are closed gracefully; the service's FIN is awaited within the time left.
    async fn close_upstreams(&self, deadline: Instant) {
        let upstreams: Vec<_> = {
            let parts = self.parts();
            let all = parts.upstreams.values().chain(parts.retired.values());
            all.cloned().collect()
        };
        for upstream in &upstreams {
            upstream.drain();
        }
        for upstream in &upstreams {
            if timeout_at(deadline.into(), upstream.closed())
                .await
                .is_err()
            {
                upstream.cut();
            }
        }
    }
}

/// How long a cut may take.
const CUT_TIME_MAX: Duration = Duration::from_secs(1);
