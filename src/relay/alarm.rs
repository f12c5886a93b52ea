//! One timer for one session, armed lazily.
//!
//! A session's deadline moves with every exchange. Moving a timer costs more than a look at the
//! clock, so the timer is only ever moved forward in time when it rings too early: a session in
//! steady state rings a few times a minute and touches its timer for nothing else.
//!
//! Invariant: while a deadline is polled and not reached, the timer rings no later than it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

/// A deadline that can be polled cheaply.
#[derive(Debug)]
pub struct Alarm {
    sleep: Pin<Box<Sleep>>,
    rings_at: Instant,
}

impl Alarm {
    /// An alarm that will first be polled with a deadline of about `deadline`.
    pub fn new(deadline: Instant) -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep_until(deadline.into())),
            rings_at: deadline,
        }
    }

    /// Ready once `deadline` has passed.
    pub fn poll(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if deadline < self.rings_at {
            self.set(deadline);
        }
        while self.sleep.as_mut().poll(context).is_ready() {
            if self.rings_at >= deadline {
                return Poll::Ready(());
            }
            self.set(deadline);
        }
        Poll::Pending
    }

    fn set(&mut self, rings_at: Instant) {
        self.sleep.as_mut().reset(rings_at.into());
        self.rings_at = rings_at;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rings_at_the_deadline_of_the_last_poll_not_at_the_first() {
        let start = tokio::time::Instant::from_std(crate::sys::clock::now());
        let first = start.into_std() + Duration::from_secs(1);
        let second = start.into_std() + Duration::from_secs(5);
        let mut alarm = Alarm::new(first);
        let mut polls = 0;
        poll_fn(|context| {
            polls += 1;
            alarm.poll(context, if polls == 1 { first } else { second })
        })
        .await;
        assert!(
            start.elapsed() >= Duration::from_millis(4900),
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn rings_early_when_the_deadline_comes_closer() {
        let now = crate::sys::clock::now();
        let mut alarm = Alarm::new(now + Duration::from_secs(600));
        let began = tokio::time::Instant::from_std(now);
        poll_fn(|context| alarm.poll(context, now + Duration::from_secs(2))).await;
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
    }
}
