//! For how long free ports will last.
//!
//! Two things take ports. Connections, whose number goes where it has been going lately: steady, or up
//! where something leaks or load grows. And TIME_WAIT, of which each one is over after a minute: the
//! kernel says when, and how many have begun lately. So what a minute of a constant rate of connects
//! fills up to is known from its first seconds, and is not taken for a leak.
//!
//! Pure: time is an argument.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::ports::{PortUse, TIME_WAIT_SECONDS};

/// When the ports of a route run out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Forecast {
    /// Not within [`HORIZON`], as things go.
    Lasts,
    /// After so long: at once, where none is free now.
    RunsOut(Duration),
}

/// What lies beyond it is nobody's business yet, and too far to be seen.
pub const HORIZON: Duration = Duration::from_secs(24 * 60 * 60);

/// How TIME_WAIT goes about its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeWaitPorts {
    /// Nobody gets one before the minute is over.
    Held,
    /// A connect gets one after a second (`tcp_tw_reuse`), or at once (`SO_REUSEADDR`).
    Reused,
}

impl TimeWaitPorts {
    /// How it is between these addresses, where `net.ipv4.tcp_tw_reuse` is this (`tcp_twsk_unique` in
    /// net/ipv4/tcp_ipv4.c).
    pub fn between(tw_reuse: u8, from: IpAddr, to: IpAddr) -> Self {
        let is_loopback = from.is_loopback() || to.is_loopback();
        match tw_reuse {
            0 => Self::Held,
            2 if !is_loopback => Self::Held,
            _ => Self::Reused,
        }
    }
}

/// What is older says nothing about how things go now,
const SAMPLE_AGE_MAX: Duration = Duration::from_secs(300);
/// unless there are no more samples than these.
const SAMPLES_KEPT: usize = 30;
/// However often somebody asks.
const SAMPLES_MAX: usize = 600;
/// Fewer say nothing about a trend.
const SAMPLES_MIN: usize = 5;
/// The rate at which TIME_WAIT begins is the lower one of two times so many seconds: what ends together once
/// (a reload, a burst) does not go on.
const RATE_SECONDS: usize = 5;

/// How the connections of a route have gone lately.
#[derive(Debug, Clone, Default)]
pub struct History {
    samples: VecDeque<(Instant, u32)>,
}

impl History {
    /// Takes what a census has found, and says how it will go on.
    pub fn forecast(&mut self, now: Instant, ports: &PortUse, waiting: TimeWaitPorts) -> Forecast {
        self.samples.push_back((now, ports.used));
        let is_old = |(at, _): &(Instant, u32)| now.saturating_duration_since(*at) > SAMPLE_AGE_MAX;
        while self.samples.len() > SAMPLES_MAX
            || (self.samples.len() > SAMPLES_KEPT && self.samples.front().is_some_and(is_old))
        {
            self.samples.pop_front();
        }
        runs_out(ports, self.growth_per_second(), waiting)
    }

    /// How fast the number of connections grows; 0 unless it clearly does.
    fn growth_per_second(&self) -> f64 {
        let count = self.samples.len();
        let Some((first, _)) = self.samples.front().filter(|_| count >= SAMPLES_MIN) else {
            return 0.0;
        };
        let points = self.samples.iter();
        let points: Vec<(f64, f64)> = points
            .map(|(at, used)| ((*at - *first).as_secs_f64(), f64::from(*used)))
            .collect();
        let all = Line::through(&points);
        // A pool that has filled up grows no more.
        let lately = Line::through(&points[count / 2..]);
        // What a pool's coming and going alone could look like is no growth.
        match all.slope > 2.0 * all.slope_error {
            true => all.slope.min(lately.slope).max(0.0),
            false => 0.0,
        }
    }
}

/// A line through points, by least squares.
struct Line {
    slope: f64,
    /// The standard error of the slope.
    slope_error: f64,
}

impl Line {
    fn through(points: &[(f64, f64)]) -> Self {
        let count = points.len() as f64;
        let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
        let (x_mean, y_mean) = (mean(|it| it.0), mean(|it| it.1));
        let spread: f64 = points.iter().map(|it| (it.0 - x_mean).powi(2)).sum();
        if spread == 0.0 {
            return Self {
                slope: 0.0,
                slope_error: 0.0,
            };
        }
        let together = points.iter().map(|it| (it.0 - x_mean) * (it.1 - y_mean));
        let slope = together.sum::<f64>() / spread;
        let misses = points
            .iter()
            .map(|it| (it.1 - y_mean - slope * (it.0 - x_mean)).powi(2));
        Self {
            slope,
            slope_error: (misses.sum::<f64>() / (count - 2.0).max(1.0) / spread).sqrt(),
        }
    }
}

/// When the ports run out where nothing is known of the time before: connections stay as many as they
/// are, and TIME_WAIT begins as it has begun lately.
pub fn from_one_look(ports: &PortUse, waiting: TimeWaitPorts) -> Forecast {
    runs_out(ports, 0.0, waiting)
}

fn runs_out(ports: &PortUse, growth: f64, waiting: TimeWaitPorts) -> Forecast {
    let count = f64::from(ports.count);
    let begin_per_second = match waiting {
        TimeWaitPorts::Held => {
            let last = ports.entered_within(RATE_SECONDS);
            let before = ports.entered_within(2 * RATE_SECONDS) - last;
            f64::from(last.min(before)) / RATE_SECONDS as f64
        }
        TimeWaitPorts::Reused => 0.0,
    };
    let time_wait_after = |seconds: usize| match waiting {
        TimeWaitPorts::Held => f64::from(ports.still_waiting_after(seconds)),
        TimeWaitPorts::Reused => 0.0,
    };
    // Within the first minute today's TIME_WAIT ends and other begins, second by second.
    let mut before = f64::from(ports.used) + time_wait_after(0);
    if before >= count {
        return Forecast::RunsOut(Duration::ZERO);
    }
    for seconds in 1..=TIME_WAIT_SECONDS {
        let later = seconds as f64;
        let connections = f64::from(ports.used) + growth * later;
        let taken = connections + time_wait_after(seconds) + begin_per_second * later;
        if taken >= count {
            let within = (count - before) / (taken - before);
            return Forecast::RunsOut(Duration::from_secs_f64(later - 1.0 + within));
        }
        before = taken;
    }
    // From then on as much ends as begins.
    let left = count - f64::from(ports.used) - begin_per_second * TIME_WAIT_SECONDS as f64;
    let seconds = left / growth;
    match seconds < HORIZON.as_secs_f64() {
        true => Forecast::RunsOut(Duration::from_secs_f64(seconds)),
        false => Forecast::Lasts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::census::ports::Ports;
    use crate::census::ports::tests::socket;
    use crate::census::socket::State;
    use crate::sys::clock;

    /// A route of `count` ports with so many connections, and TIME_WAIT by the seconds that are left.
    fn ports(count: u16, used: u16, waiting: &[(u64, usize)]) -> PortUse {
        let mut ports = PortUse::none_of(&Ports::new(1..=count, &[]));
        for port in 0..used {
            ports.add(&socket(port, State::Established, 0));
        }
        for &(left, many) in waiting {
            for _ in 0..many {
                ports.add(&socket(1, State::TimeWait, left));
            }
        }
        ports
    }

    /// A minute's worth of TIME_WAIT at this rate, as far as it has come.
    fn at_rate(per_second: usize, seconds: u64) -> Vec<(u64, usize)> {
        (0..seconds).map(|age| (59 - age, per_second)).collect()
    }

    fn seconds(forecast: Forecast) -> Option<u64> {
        match forecast {
            Forecast::Lasts => None,
            Forecast::RunsOut(after) => Some(after.as_secs()),
        }
    }

    #[test]
    fn what_is_steady_lasts() {
        let now = clock::now();
        let mut history = History::default();
        for look in 0..40 {
            let used = 60 + [0, 3, 1, 4, 2][look as usize % 5];
            let ports = ports(1000, used, &at_rate(5, 60));
            let at = now + Duration::from_secs(10 * look);
            let forecast = history.forecast(at, &ports, TimeWaitPorts::Held);
            assert_eq!(forecast, Forecast::Lasts, "{look}");
        }
        assert!(history.samples.len() <= SAMPLES_KEPT + 1);
    }

    #[test]
    fn a_pool_that_fills_up_and_a_burst_of_closes_are_no_leak() {
        let now = clock::now();
        let mut history = History::default();
        for look in 0..20_u16 {
            let ports = ports(1000, (200 * look).min(400), &[]);
            let at = now + Duration::from_secs(10 * u64::from(look));
            let forecast = history.forecast(at, &ports, TimeWaitPorts::Held);
            assert_eq!(forecast, Forecast::Lasts, "{look}");
        }
        let closed_at_once = ports(1000, 100, &[(57, 500)]);
        let forecast = runs_out(&closed_at_once, 0.0, TimeWaitPorts::Held);
        assert_eq!(forecast, Forecast::Lasts);
    }

    #[test]
    fn samples_are_bounded_however_often_somebody_asks() {
        let now = clock::now();
        let mut history = History::default();
        let ports = ports(1000, 10, &[]);
        for look in 0..5_000 {
            let at = now + Duration::from_millis(100 * look);
            history.forecast(at, &ports, TimeWaitPorts::Held);
            assert!(history.samples.len() <= SAMPLES_MAX);
        }
    }

    #[test]
    fn a_leak_is_seen_coming_from_its_fifth_look() {
        let now = clock::now();
        let mut history = History::default();
        for look in 0..60_u16 {
            let ports = ports(1000, 10 + 5 * look, &[]);
            let at = now + Duration::from_secs(u64::from(look));
            let forecast = history.forecast(at, &ports, TimeWaitPorts::Held);
            let expected = u64::from((990 - 5 * look) / 5);
            match seconds(forecast) {
                None => assert!(look < 4, "{look}"),
                Some(after) => assert!(after.abs_diff(expected) <= 1, "{look}: {after}"),
            }
        }
    }

    #[test]
    fn time_wait_that_will_fill_the_ports_is_seen_in_its_tenth_second() {
        // 20 a second hold 1,200 ports.
        let rising = ports(1000, 0, &at_rate(20, 10));
        let forecast = runs_out(&rising, 0.0, TimeWaitPorts::Held);
        assert_eq!(seconds(forecast), Some(40));
        let reused = runs_out(&rising, 0.0, TimeWaitPorts::Reused);
        assert_eq!(reused, Forecast::Lasts);
    }

    #[test]
    fn time_wait_that_will_not_fill_them_is_no_leak() {
        // 15 a second hold 900, however steeply they rise.
        for age in 1..60 {
            let rising = ports(1000, 20, &at_rate(15, age));
            let forecast = runs_out(&rising, 0.0, TimeWaitPorts::Held);
            assert_eq!(forecast, Forecast::Lasts, "{age}");
        }
    }

    #[test]
    fn a_leak_beside_time_wait_runs_out_later_than_a_minute() {
        let ports = ports(1000, 100, &at_rate(5, 60));
        let forecast = runs_out(&ports, 1.0, TimeWaitPorts::Held);
        assert_eq!(seconds(forecast), Some(600));
    }

    #[test]
    fn time_wait_gives_ports_back_as_the_kernel_says() {
        use TimeWaitPorts::{Held, Reused};
        let far = ("10.0.0.1", "10.0.0.2");
        let near = ("127.0.0.1", "127.0.0.1");
        for (tw_reuse, (from, to), expected) in [
            (0, far, Held),
            (0, near, Held),
            (1, far, Reused),
            (2, far, Held),
            (2, near, Reused),
        ] {
            let from = from.parse().expect("an address");
            let to = to.parse().expect("an address");
            let between = TimeWaitPorts::between(tw_reuse, from, to);
            assert_eq!(between, expected, "{tw_reuse} {to}");
        }
    }

    #[test]
    fn none_free_is_now() {
        let all = ports(100, 100, &[]);
        let now = Forecast::RunsOut(Duration::ZERO);
        assert_eq!(runs_out(&all, 0.0, TimeWaitPorts::Held), now);
        let waiting = ports(100, 50, &[(30, 50)]);
        assert_eq!(runs_out(&waiting, 0.0, TimeWaitPorts::Held), now);
        assert_eq!(
            runs_out(&waiting, 0.0, TimeWaitPorts::Reused),
            Forecast::Lasts
        );
    }
}
