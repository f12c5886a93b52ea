//! What time brings: deadlines of waiters, idle connections that are past a limit, and what services
//! do to those.
//!
//! Part of the pure core. Not here: when connects are due (see `connects`).

use std::time::Instant;

use super::{Action, Actions, Core, Refused};
use crate::pool::EndpointId;
use crate::pool::core::Handle;
use crate::upstream::lesson::Lesson;

impl<C: Handle, W> Core<C, W> {
    /// What time brings: deadlines, expiry, trials after a rest, warmth.
    pub fn tick(&mut self, now: Instant, actions: &mut Actions<C, W>) {
        while let Some(waiter) = self.queue.take_oldest(|waiter| waiter.deadline <= now) {
            actions.push_back(Action::Refuse(waiter, Refused::TimedOut));
        }
        self.expire(now, !self.queue.is_empty(), actions);
        self.pump(now, actions);
    }

    /// When [`Core::tick`] next has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.is_draining {
            return None;
        }
        let wants_connects = !self.queue.is_empty();
        let endpoints = self.endpoints.iter().filter(|it| !it.is_removed);
        let trials = endpoints
            .clone()
            .filter(|it| it.books.can_connect())
            .filter(|it| wants_connects || it.books.wants_warmth())
            .filter_map(|it| it.health.next_trial());
        let expiry = endpoints.filter_map(|it| it.books.next_expiry());
        self.queue
            .next_deadline()
            .into_iter()
            .chain(trials)
            .chain(expiry)
            .min()
    }

    /// A service has closed a connection that had been idle, or a request was lost to that.
    pub fn learn(&mut self, lesson: Lesson, now: Instant) {
        if let Some(endpoint) = self.endpoint(lesson.endpoint) {
            let Lesson { age, evidence, .. } = lesson;
            endpoint.books.closed_by_service(age, evidence, now);
        }
    }

    /// When a connection that becomes idle now has been idle for too long.
    pub fn idle_expiry(&self, id: EndpointId, connection: &C, now: Instant) -> Option<Instant> {
        let endpoint = self.endpoints.iter().find(|it| it.id == id)?;
        Some(now + endpoint.books.idle_max(connection)?)
    }

    /// Retires what is past a limit. `is_wanted`: somebody waits, so that no slot can be spared.
    pub(super) fn expire(&mut self, now: Instant, is_wanted: bool, actions: &mut Actions<C, W>) {
        for endpoint in &mut self.endpoints {
            while let Some((connection, reason)) = endpoint.books.expire(now, is_wanted) {
                actions.push_back(Action::Retire(endpoint.id, connection, reason));
            }
        }
    }
}
