//! How long one endpoint keeps an idle connection, learned from the ages at which it closes them.
//!
//! ```text
//!              the last closes agree                 a close within the band: measured anew
//!   unlearned ──────────────────────► learned ──┐   ◄─────────────────────────┘
//!       ▲                                │      └─► retirement: a margin before the band
//!       └────────────────────────────────┘
//!         closes far too early, or sentinels that live too long
//! ```
//!
//! Once something is learned, connections retire before the service closes them, and what is seen of
//! its closes is only the early part. So nothing is inferred from what retires; what keeps the
//! knowledge fresh is the *sentinel*: now and then one surplus connection that is not lent any more
//! and stays until the service closes it.
//!
//! Pure: time is an argument. Invariant: a service without one idle timeout teaches nothing.

use std::time::{Duration, Instant};

/// What is known of a service's idle timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learned {
    /// The idle timeout.
    pub timeout: Duration,
    /// An idle connection of this age is not lent any more.
    pub retirement: Duration,
    /// How many closes it rests on.
    pub closes: usize,
    band: Band,
}

/// The ages among which the closes of one timeout lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Band {
    earliest: Duration,
    width: Duration,
}

/// How a close was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The connection was idle.
    Seen,
    /// A request was lost to it. A service that dies under a request looks the same, so this alone
    /// teaches nothing.
    LostRace,
}

/// The idle timeout of one endpoint, as far as it is known.
#[derive(Debug)]
pub struct IdleLimit {
    closes: Recent<Close>,
    /// Idle connections that were found alive at an age that most closes did not reach.
    survivals: Recent<Survival>,
    /// The least age of a survival that says something.
    telling: Duration,
    learned: Option<Learned>,
    /// When closes last began to come, so that many at one moment don't count as many.
    moment: Option<Moment>,
    /// Grows with each close that came far too early, falls with each connection that retired.
    contradiction: u32,
    /// What was measured says to retire then; `learned.retirement` may be sooner for a while.
    measured_retirement: Duration,
    /// Sentinels in a row that outlived the band.
    outlived: u32,
    confirmed_at: Option<Instant>,
    next_sentinel_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Close {
    age: Duration,
    at: Instant,
    evidence: Evidence,
}

#[derive(Debug, Clone, Copy)]
struct Survival {
    age: Duration,
    at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Moment {
    began_at: Instant,
    closes: u32,
}

impl Default for IdleLimit {
    fn default() -> Self {
        Self {
            closes: Recent::new(),
            survivals: Recent::new(),
            telling: Duration::MAX,
            learned: None,
            moment: None,
            contradiction: 0,
            measured_retirement: Duration::ZERO,
            outlived: 0,
            confirmed_at: None,
            next_sentinel_at: None,
        }
    }
}

impl Learned {
    /// A connection was closed at this age before it would have retired. Where that cost a request,
    /// none of this age is lent for a while; else it is a hint.
    fn retire_before(&mut self, age: Duration, evidence: Evidence) {
        let sooner = age.saturating_sub(self.timeout / MARGIN_MIN);
        let by = self.retirement.saturating_sub(sooner);
        let by = match evidence {
            Evidence::LostRace => by,
            Evidence::Seen => by / 4,
        };
        self.retirement = soonest(self.timeout).max(self.retirement - by);
    }
}

impl IdleLimit {
    /// What is known; `None` while nothing is.
    pub fn learned(&self) -> Option<Learned> {
        self.learned
    }

    /// The age from which an idle connection is not lent any more.
    pub fn retirement(&self) -> Option<Duration> {
        self.learned.map(|learned| learned.retirement)
    }

    /// The service has closed a connection that had been idle for `age`.
    pub fn on_close(&mut self, age: Duration, evidence: Evidence, now: Instant) {
        if age < AGE_MIN {
            // It ended with its last exchange, not with time.
            return;
        }
        let closes_now = self.closes_of_this_moment(age, now);
        if closes_now > CLOSES_PER_MOMENT {
            return;
        }
        if self.learned.is_some() && !self.is_worth_measuring(age, evidence, closes_now, now) {
            return;
        }
        self.closes.push(Close {
            age,
            at: now,
            evidence,
        });
        let (ages, count) = self.sorted_ages();
        self.telling = ages[EARLY_MAX.min(count - 1)];
        if let Some(learned) = self.measure(&ages[..count]) {
            self.measured_retirement = learned.retirement;
            let before = self.retirement().unwrap_or(learned.retirement);
            self.learned = Some(Learned {
                retirement: before.min(learned.retirement),
                ..learned
            });
        }
        if let Some(learned) = &mut self.learned {
            self.outlived = 0;
            self.contradiction = 0;
            self.confirmed_at = Some(now);
            learned.retirement += self.measured_retirement.saturating_sub(learned.retirement) / 8;
        }
    }

    /// An idle connection of this age was found alive: it was lent, or retired by another limit.
    /// Asked at each lease, so cheap where the age says nothing.
    pub fn on_survival(&mut self, age: Duration, now: Instant) {
        if age > self.telling && self.learned.is_none() {
            self.survivals.push(Survival { age, at: now });
        }
    }

    /// A connection was retired at the age that was learned.
    pub fn on_retired(&mut self, now: Instant) {
        self.contradiction = self.contradiction.saturating_sub(1);
        let Some(learned) = self.learned else { return };
        let patience = UNCONFIRMED_MAX.max(learned.timeout * 64);
        if self
            .confirmed_at
            .is_some_and(|at| now.saturating_duration_since(at) > patience)
        {
            // The pool is too busy or too small for a sentinel: begin anew, lest a timeout that has
            // become longer stays hidden for ever.
            self.forget();
        }
    }

    /// Whether one surplus connection of this age may stay beyond its retirement. Where it should have
    /// been closed already, the host was busy, and what is seen says little.
    pub fn may_have_sentinel(&self, age: Duration, now: Instant) -> bool {
        self.learned.is_some_and(|it| age <= it.band.latest())
            && self.next_sentinel_at.is_none_or(|at| at <= now)
    }

    /// A sentinel is no more, however it ended; the next one is due later.
    pub fn on_sentinel_end(&mut self, now: Instant) {
        let pause = self
            .learned
            .map_or(Duration::ZERO, |it| it.timeout * SENTINEL_PAUSE);
        if self.outlived == 0 {
            self.next_sentinel_at = Some(now + pause);
        }
    }

    /// The age at which a sentinel has shown that the timeout has become longer.
    pub fn outlived_at(&self) -> Option<Duration> {
        self.learned.map(|learned| learned.band.too_late())
    }

    /// A sentinel was alive at [`IdleLimit::outlived_at`].
    pub fn on_outlived(&mut self, now: Instant) {
        if self.learned.is_none() {
            return;
        }
        self.outlived += 1;
        let pause = self.learned.map_or(Duration::ZERO, |it| it.timeout);
        self.next_sentinel_at = Some(now + pause);
        if self.outlived >= OUTLIVED_MAX {
            self.forget();
        }
    }

    /// Begins anew.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// What a close at this age says to what is learned; whether it is also to be measured.
    fn is_worth_measuring(
        &mut self,
        age: Duration,
        evidence: Evidence,
        closes_now: u32,
        now: Instant,
    ) -> bool {
        let Some(learned) = &mut self.learned else {
            return true;
        };
        match learned.band.place(age) {
            // Of the closes before retirement all are seen, and of those after it only sentinels':
            // measured together they would say less and less.
            Place::Within if age < learned.retirement => {
                learned.retire_before(age, evidence);
                false
            }
            Place::Within => true,
            Place::TooEarly => {
                // A service that restarts closes all of them at one moment.
                if closes_now == 1 {
                    self.contradict();
                }
                false
            }
            Place::TooLate => {
                self.on_outlived(now);
                self.learned.is_none()
            }
        }
    }

    fn contradict(&mut self) {
        self.contradiction += CONTRADICTION;
        if self.contradiction >= CONTRADICTION_MAX {
            self.forget();
        }
    }

    /// How many closes there have been at this moment, which lasts for a fraction of their age.
    fn closes_of_this_moment(&mut self, age: Duration, now: Instant) -> u32 {
        let moment = match self.moment {
            Some(moment) if now.saturating_duration_since(moment.began_at) < age / 4 => Moment {
                closes: moment.closes.saturating_add(1),
                ..moment
            },
            _ => Moment {
                began_at: now,
                closes: 1,
            },
        };
        self.moment = Some(moment);
        moment.closes
    }

    /// What the last closes agree on, if they do.
    fn measure(&self, ages: &[Duration]) -> Option<Learned> {
        if ages.len() < CLOSES {
            return None;
        }
        let (first, inside) = (0..=EARLY_MAX)
            .map(|first| {
                let band = Band::from(ages[first]);
                let inside = ages[first..].partition_point(|age| *age <= band.latest());
                (first, inside)
            })
            // Of equal ones the earliest.
            .max_by_key(|(first, inside)| (*inside, EARLY_MAX - first))?;
        let band = Band::from(ages[first]);
        let agrees = inside >= INSIDE_MIN
            && band.earliest >= EARLIEST_MIN
            && self.seen_within(band) * 2 >= inside
            && self.survivals_beyond(band) * 8 <= inside;
        let inside = &ages[first..first + inside];
        agrees.then(|| {
            let timeout = inside[inside.len() / 2];
            let margin = ((timeout - band.earliest) / 4).max(timeout / MARGIN_MIN);
            let retirement = band.earliest.saturating_sub(margin);
            Learned {
                timeout,
                retirement: retirement.max(soonest(timeout)),
                closes: inside.len(),
                band,
            }
        })
    }

    /// The ages of the closes, and how many there are.
    fn sorted_ages(&self) -> ([Duration; CLOSES], usize) {
        let mut ages = [Duration::MAX; CLOSES];
        let mut count = 0;
        for (age, close) in ages.iter_mut().zip(self.closes.iter()) {
            *age = close.age;
            count += 1;
        }
        ages.sort_unstable();
        (ages, count)
    }

    fn seen_within(&self, band: Band) -> usize {
        let seen =
            |it: &&Close| it.evidence == Evidence::Seen && band.place(it.age) == Place::Within;
        self.closes.iter().filter(seen).count()
    }

    /// How many connections lived on beyond the band while the closes were gathered.
    fn survivals_beyond(&self, band: Band) -> usize {
        let Some(since) = self.closes.iter().map(|it| it.at).min() else {
            return 0;
        };
        let beyond = |it: &&Survival| it.at >= since && it.age > band.latest();
        self.survivals.iter().filter(beyond).count()
    }
}

/// The least age at which connections retire before this timeout.
fn soonest(timeout: Duration) -> Duration {
    timeout - timeout / SPARED_MAX
}

/// Where an age stands to a band.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    TooEarly,
    Within,
    TooLate,
}

impl Band {
    /// The band that begins at this age. Its width is what service, network and scheduler may add:
    /// a part of the timeout (many services look at their timers in turns), and some milliseconds.
    fn from(earliest: Duration) -> Self {
        let width = earliest.mul_f64(0.15) + Duration::from_millis(5);
        Self {
            earliest,
            width: width.min(earliest.mul_f64(0.4)),
        }
    }

    fn latest(self) -> Duration {
        self.earliest + self.width
    }

    /// From here on a timeout is another one.
    fn too_late(self) -> Duration {
        self.latest() + (self.width / 2).max(Duration::from_millis(20))
    }

    /// A close a little before the band belongs to it.
    fn place(self, age: Duration) -> Place {
        if age < self.earliest.saturating_sub(self.width / 2) {
            Place::TooEarly
        } else if age > self.too_late() {
            Place::TooLate
        } else {
            Place::Within
        }
    }
}

/// The last ones of a sequence, bounded.
#[derive(Debug)]
struct Recent<T> {
    items: [Option<T>; CLOSES],
    next: usize,
}

impl<T: Copy> Recent<T> {
    fn new() -> Self {
        Self {
            items: [None; CLOSES],
            next: 0,
        }
    }

    fn push(&mut self, item: T) {
        self.items[self.next] = Some(item);
        self.next = (self.next + 1) % CLOSES;
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter().flatten()
    }
}

/// Closes that are looked at together. Fewer can agree by chance.
const CLOSES: usize = 40;
/// Of them within the band, at least.
const INSIDE_MIN: usize = 36;
/// Of them before the band, at most. Where closes come at random ages, many are early.
const EARLY_MAX: usize = 4;
/// Of one moment, at most: a service that restarts says nothing about its timeout.
const CLOSES_PER_MOMENT: u32 = 8;
/// A connection that is closed sooner than this was not idle.
const AGE_MIN: Duration = Duration::from_millis(1);
/// Below this a connection can hardly be used again, so nothing is gained by knowing.
const EARLIEST_MIN: Duration = Duration::from_millis(5);
/// The margin is a quarter of the spread that was seen, from the earliest close to the middle one, but
/// at least this part of the timeout. Closes and lost races that come sooner all the same move it.
const MARGIN_MIN: u32 = 50;
/// Nothing retires sooner than a timeout less this part of it.
const SPARED_MAX: u32 = 5;
/// What a close that came far too early counts for, against connections that retired in peace; and
/// how much is too much: six closes, or a fifth of all.
const CONTRADICTION: u32 = 4;
const CONTRADICTION_MAX: u32 = 24;
/// Sentinels in a row that outlive the band before it is forgotten.
const OUTLIVED_MAX: u32 = 4;
/// Timeouts from the end of one sentinel to the next.
const SENTINEL_PAUSE: u32 = 4;
/// How long knowledge holds that no sentinel confirms, at least.
const UNCONFIRMED_MAX: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
