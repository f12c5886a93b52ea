//! Waiting for what must happen, with an end. The only pauses of the harness are here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long anything that must happen may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until there is an answer; fails the test when there is none within [`PATIENCE`].
pub fn until<T>(what: &str, poll: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, poll)
}

/// Polls until there is an answer; fails the test when there is none within `limit`.
pub fn within<T>(limit: Duration, what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + limit;
    loop {
        if let Some(answer) = poll() {
            return answer;
        }
        assert!(now() < deadline, "waited {limit:?} in vain: {what}");
        pace(Duration::from_millis(5));
    }
}

/// Holds for all of `time`: the way to test that something does not happen.
pub fn throughout(time: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let end = now() + time;
    while now() < end {
        assert!(holds(), "it did not hold for {time:?}: {what}");
        pace(Duration::from_millis(5));
    }
}

/// The rhythm of a slow peer. A test never waits for an event with it.
pub fn pace(time: Duration) {
    std::thread::sleep(time);
}

/// The present moment.
pub fn now() -> Instant {
    Instant::now()
}

/// Tells threads to stop; raised at the latest when its guard is dropped, also by a panic.
#[derive(Default)]
pub struct Flag(AtomicBool);

/// Raises its [`Flag`] when dropped.
pub struct Raise<'a>(&'a Flag);

impl Flag {
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    pub fn raise(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub fn raise_at_end(&self) -> Raise<'_> {
        Raise(self)
    }
}

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.raise();
    }
}

/// An event that a test announces to a script, or a script to a test.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<u64>, Condvar)>);

impl Gate {
    /// A gate that was opened for nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets one waiter pass, now or when it comes.
    pub fn open(&self) {
        *self.0.0.lock().unwrap() += 1;
        self.0.1.notify_all();
    }

    /// Lets everybody pass from now on.
    pub fn open_for_all(&self) {
        *self.0.0.lock().unwrap() = u64::MAX / 2;
        self.0.1.notify_all();
    }

    /// Waits to be let pass; fails the test after [`PATIENCE`].
    pub fn pass(&self) {
        let permits = self.0.0.lock().unwrap();
        let (mut permits, late) = self
            .0
            .1
            .wait_timeout_while(permits, PATIENCE, |permits| *permits == 0)
            .unwrap();
        assert!(!late.timed_out(), "nobody opened the gate");
        *permits -= 1;
    }
}
