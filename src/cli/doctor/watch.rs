//! `millpond doctor --watch`: each RST of this host as it happens, and the live numbers between them.
//!
//! One thread waits for the kernel's tracepoints, for the next numbers and for a signal. Where the
//! tracepoints can't be read it says why, once, and the numbers come alone. Not here: what a user
//! should do about what is seen.
//!
//! Invariant: it changes nothing but one tracing instance of its own, which is gone when it ends; and
//! it writes at most [`RESETS_PER_SECOND_MAX`] lines about RSTs in a second, and one about the rest.

mod limit;
mod line;
mod numbers;
mod owners;

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::census::socket::ByState;
use crate::cli::doctor::colours::Colours;
use crate::cli::stop::Signals;
use crate::sys::clock::{self, MonotonicAnchor};
use crate::sys::local_time::LocalTime;
use crate::sys::poll::wait_readable;
use crate::witness::Direction;
use crate::witness::event::{Line, ResetEvent};
use crate::witness::stream::Stream;
use crate::witness::task::Task;
use limit::{Limiter, Unshown};
use line::Resets;
use owners::Owners;

/// More would only scroll by.
const RESETS_PER_SECOND_MAX: u32 = 50;
/// How often the numbers come.
const NUMBERS_EVERY: Duration = Duration::from_secs(2);
/// How long a storm is let grow between two looks; the kernel's buffer holds more.
const PACE: Duration = Duration::from_millis(5);
/// How long a reader of the output may keep it from ending.
const END_TIME_MAX: Duration = Duration::from_secs(2);

/// Why there is nothing to watch.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("it can't be started: {0}")]
    Start(io::Error),
    #[error("the output can't be written: {0}")]
    Output(io::Error),
    #[error("it can't wait: {0}")]
    Wait(io::Error),
}

/// Watches until SIGINT or SIGTERM, or until nobody reads its output any more. Exit code 0, or 1 with
/// the reason on stderr.
pub(crate) fn run() -> ExitCode {
    match until_signalled() {
        Ok(()) => ExitCode::SUCCESS,
        // `millpond doctor --watch | head`
        Err(WatchError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Its terminal may be gone.
            let _ = writeln!(io::stderr(), "millpond doctor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn until_signalled() -> Result<(), WatchError> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().map_err(WatchError::Start)?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::new().map_err(WatchError::Start)?;
        let (bell, woken) = UnixStream::pair().map_err(WatchError::Start)?;
        let mut watching = tokio::task::spawn_blocking(|| Watch::start(woken)?.run());
        tokio::select! {
            () = signals.stop() => {}
            ended = &mut watching => return ended.expect("it does not panic"),
        }
        // Its other end wakes the watch.
        drop(bell);
        match tokio::time::timeout(END_TIME_MAX, watching).await {
            Ok(ended) => ended.expect("it does not panic"),
            // Somebody keeps the output from flowing; the instance goes when the next one starts.
            Err(_) => Ok(()),
        }
    });
    runtime.shutdown_background();
    outcome
}

/// What is watched, and what was said of it.
struct Watch {
    /// At its end when the watch is to end.
    bell: UnixStream,
    screen: Screen,
    /// `None`: the tracepoints can't be read.
    stream: Option<Stream>,
    anchor: MonotonicAnchor,
    limiter: Limiter,
    owners: Owners,
    told: Told,
    numbers: Option<Numbers>,
    numbers_due: Instant,
    has_told_why_no_numbers: bool,
}

/// Since the numbers before, and since the beginning.
#[derive(Debug, Default)]
struct Told {
    sent: u64,
    received: u64,
    shown: u64,
    unshown: u64,
}

/// Numbers, and when they were had.
struct Numbers {
    at: Instant,
    sockets: ByState,
    resets_sent: Option<u64>,
}

impl Watch {
    fn start(bell: UnixStream) -> Result<Self, WatchError> {
        let mut screen = Screen::stdout();
        let stream = match Stream::open() {
            Ok(stream) => {
                screen.note(
                    "each RST of this host follows, those of its containers too; Ctrl-C ends",
                )?;
                Some(stream)
            }
            Err(error) => {
                screen.note(&format!("no single RSTs, only numbers: {error}"))?;
                None
            }
        };
        Ok(Self {
            bell,
            screen,
            stream,
            anchor: MonotonicAnchor::now().map_err(WatchError::Start)?,
            limiter: Limiter::new(RESETS_PER_SECOND_MAX),
            owners: Owners::default(),
            told: Told::default(),
            numbers: None,
            numbers_due: clock::now(),
            has_told_why_no_numbers: false,
        })
    }

    fn run(mut self) -> Result<(), WatchError> {
        loop {
            let now = clock::now();
            self.roll(now)?;
            if self.numbers_due <= now {
                self.show_numbers(now)?;
            }
            let is_over = self.wait()?;
            // At once: a process that sent an RST may end next, and its name with it.
            self.read()?;
            if is_over || self.pace()? {
                break;
            }
        }
        self.read()?;
        let unshown = self.limiter.end();
        self.show_unshown(unshown)?;
        if self.stream.is_none() {
            return Ok(());
        }
        let Told { shown, unshown, .. } = self.told;
        let text = format!("ended: {shown} RSTs shown, {unshown} more not shown");
        self.screen.note(&text)
    }

    /// Waits until there is something to do. Whether that is to end.
    fn wait(&self) -> Result<bool, WatchError> {
        let due = self
            .limiter
            .due()
            .map_or(self.numbers_due, |due| due.min(self.numbers_due));
        // Rounded up, or it would be woken just before.
        let timeout = due.saturating_duration_since(clock::now()) + Duration::from_millis(1);
        let bell = self.bell.as_fd();
        let is_over = match &self.stream {
            Some(stream) => wait_readable([bell, stream.as_fd()], timeout).map(|[it, _]| it),
            None => wait_readable([bell], timeout).map(|[it]| it),
        };
        is_over.map_err(WatchError::Wait)
    }

    /// Lets some more come, so that it is read in one piece. Whether that is to end.
    fn pace(&self) -> Result<bool, WatchError> {
        let is_over = wait_readable([self.bell.as_fd()], PACE);
        is_over.map(|[it]| it).map_err(WatchError::Wait)
    }

    /// Shows what the kernel has told of.
    fn read(&mut self) -> Result<(), WatchError> {
        let Some(mut stream) = self.stream.take() else {
            return Ok(());
        };
        let now = clock::now();
        let mut seen = Vec::new();
        let outcome = stream.read(&mut |line, task| match line {
            Line::Reset(event) => {
                self.told.count(event.direction);
                if self
                    .limiter
                    .admits(event.direction, event.kernel_reason, now)
                {
                    seen.push((event, task));
                }
            }
            Line::Lost(count) => self.limiter.on_lost(count.unwrap_or(1), now),
            Line::Unreadable => self.limiter.on_unreadable(now),
        });
        for (event, running) in seen {
            self.show(&event, running)?;
        }
        match outcome {
            Ok(()) => self.stream = Some(stream),
            Err(error) => self.screen.note(&format!(
                "no single RSTs from here on, only numbers: {error}"
            ))?,
        }
        Ok(())
    }

    fn show(&mut self, event: &ResetEvent, running: Option<Task>) -> Result<(), WatchError> {
        let now = clock::now();
        let age = now.saturating_duration_since(self.anchor.instant_of(event.at));
        let at = LocalTime::of(clock::wall_now() - age);
        let actor = self.owners.actor(event, running, now);
        self.told.shown += 1;
        let line = line::reset(at, event, &actor, self.screen.colours);
        self.screen.write(&line)
    }

    fn roll(&mut self, now: Instant) -> Result<(), WatchError> {
        let unshown = self.limiter.roll(now);
        self.show_unshown(unshown)
    }

    fn show_unshown(&mut self, unshown: Option<Unshown>) -> Result<(), WatchError> {
        let Some(unshown) = unshown else {
            return Ok(());
        };
        self.told.unshown += unshown.resets();
        let line = line::unshown(local_now(), &unshown, self.screen.colours);
        self.screen.write(&line)
    }

    fn show_numbers(&mut self, now: Instant) -> Result<(), WatchError> {
        self.numbers_due = now + NUMBERS_EVERY;
        self.owners.forget_sockets();
        let owners = &mut self.owners;
        let sockets = match numbers::sockets(&mut |socket| owners.note(socket)) {
            Ok(sockets) => sockets,
            Err(error) => return self.tell_why_no_numbers(&error),
        };
        let resets_sent = numbers::resets_sent();
        let resets = self.resets_since(resets_sent);
        let before = self.numbers.as_ref();
        let before = before.map(|it| (&it.sockets, now.duration_since(it.at), resets));
        let line = line::numbers(local_now(), &sockets, before, self.screen.colours);
        (self.told.sent, self.told.received) = (0, 0);
        self.numbers = Some(Numbers {
            at: now,
            sockets,
            resets_sent,
        });
        self.screen.write(&line)
    }

    /// Once: the next time it will be the same.
    fn tell_why_no_numbers(&mut self, error: &io::Error) -> Result<(), WatchError> {
        if self.has_told_why_no_numbers {
            return Ok(());
        }
        self.has_told_why_no_numbers = true;
        self.screen
            .note(&format!("the kernel does not list its sockets: {error}"))
    }

    /// RSTs since the numbers before.
    fn resets_since(&self, sent_now: Option<u64>) -> Resets {
        let Told { sent, received, .. } = self.told;
        if self.stream.is_some() {
            return Resets::Told { sent, received };
        }
        let sent_before = self.numbers.as_ref().and_then(|it| it.resets_sent);
        match (sent_before, sent_now) {
            (Some(before), Some(now)) => Resets::Counted(now.saturating_sub(before)),
            _ => Resets::Unknown,
        }
    }
}

impl Told {
    fn count(&mut self, direction: Direction) {
        match direction {
            Direction::Sent => self.sent += 1,
            Direction::Received => self.received += 1,
        }
    }
}

fn local_now() -> LocalTime {
    LocalTime::of(clock::wall_now())
}

/// Where the lines go.
struct Screen {
    output: io::Stdout,
    colours: Colours,
}

impl Screen {
    fn stdout() -> Self {
        Self {
            output: io::stdout(),
            colours: Colours::of_stdout(),
        }
    }

    fn note(&mut self, text: &str) -> Result<(), WatchError> {
        self.write(&line::note(local_now(), text, self.colours))
    }

    /// Whoever reads has each line at once.
    fn write(&mut self, line: &str) -> Result<(), WatchError> {
        let mut output = self.output.lock();
        writeln!(output, "{line}")
            .and_then(|()| output.flush())
            .map_err(WatchError::Output)
    }
}
