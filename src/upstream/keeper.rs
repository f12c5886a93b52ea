//! The keeper of an upstream: one task that brings time and events to the core.
//!
//! It sleeps until the core's next deadline or until something wakes it: an idle connection on which
//! something arrived, a failed connect, a new and earlier deadline.

use std::sync::{Arc, PoisonError, Weak};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::ends::seen_when;
use super::lesson::Lesson;
use super::{Actions, Upstream};
use crate::pool::EndpointId;
use crate::sys::clock;

/// Keeps an upstream until it is gone or cut.
pub(super) async fn keep(upstream: Weak<Upstream>, cut: CancellationToken) {
    loop {
        let Some(kept) = upstream.upgrade() else {
            return;
        };
        kept.look_at_woken();
        let deadline = kept.tick();
        let sleep = async {
            match deadline {
                Some(deadline) => sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = kept.keeper.notified() => {}
            () = cut.cancelled() => return,
        }
    }
}

/// A connection that dies unused before this age was not wanted by the service.
const YOUNG: Duration = Duration::from_secs(1);

impl Upstream {
    /// Looks at idle connections whose wakers were called, and ends those that are stale.
    fn look_at_woken(&self) {
        let woken = std::mem::take(&mut *self.woken.lock().unwrap_or_else(PoisonError::into_inner));
        for (endpoint, id) in woken {
            let mut state = self.lock();
            // One that is not idle is its session's to watch.
            let Some(reason) = state
                .core
                .idle_connection(endpoint, id)
                .and_then(|connection| connection.look().stale())
            else {
                continue;
            };
            let now = clock::now();
            let Some((mut connection, age)) = state.core.retire_idle(endpoint, id, now) else {
                continue;
            };
            connection.idle_until = connection.idle_since + age;
            if let Some(lesson) = Lesson::of(&connection, reason) {
                state.core.learn(lesson, now);
            }
            if connection.exchanges == 0 && now - connection.opened_at < YOUNG {
                state.core.died_young(endpoint, now);
            }
            drop(state);
            let seen = seen_when(reason);
            self.end(*connection, reason, seen);
            if !seen.is_awaited() {
                self.free_slot(endpoint);
            }
        }
    }

    /// Brings the time to the core, and takes its next deadline.
    fn tick(&self) -> Option<Instant> {
        let now = clock::now();
        let mut actions = Actions::new();
        let mut state = self.lock();
        state.core.tick(now, &mut actions);
        let deadline = state.core.next_deadline();
        state.keeper_deadline = deadline;
        drop(state);
        self.perform(actions);
        deadline
    }
}

/// The waker of one connection while it is idle.
pub(super) fn waker(upstream: &Weak<Upstream>, endpoint: EndpointId, connection: u64) -> Waker {
    Waker::from(Arc::new(IdleWatch {
        upstream: Weak::clone(upstream),
        endpoint,
        connection,
    }))
}

struct IdleWatch {
    upstream: Weak<Upstream>,
    endpoint: EndpointId,
    connection: u64,
}

impl Wake for IdleWatch {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(upstream) = self.upstream.upgrade() {
            upstream.wake_keeper_for(self.endpoint, self.connection);
        }
    }
}
