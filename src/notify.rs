//! What the service manager is told (sd_notify(3)): how far the process is, and that it lives.
//!
//! Where `NOTIFY_SOCKET` is not set nobody listens, and a call costs a look at the environment.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

/// Every listener accepts; after [`reloading`], the reload is over, well or not.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins; [`ready`] must follow.
pub fn reloading() {
    // Type=notify-reload tells this reload from an earlier one by the time.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "the service manager was not told of a reload"),
    }
}

/// The stop begins and takes so long at most, whatever `TimeoutStopSec=` says.
pub fn stopping(time_max: Duration) {
    let status = format!("stopping, within {time_max:?}");
    let extension = format!("EXTEND_TIMEOUT_USEC={}", time_max.as_micros());
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status(&status),
        NotifyState::Custom(&extension),
    ]);
}

/// Tells the service manager twice in each `WatchdogSec=` that the runtime still runs its tasks, for as
/// long as it does. Returns at once where nobody wants to know.
pub async fn prove_alive() {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return;
    };
    let mut ticks = interval(limit / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A service manager that hangs holds up this task and no worker.
        let _ = tokio::task::spawn_blocking(|| tell(&[NotifyState::Watchdog])).await;
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "the service manager could not be told");
    }
}
