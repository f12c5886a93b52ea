//! Histograms of durations, with bounded buckets.
//!
//! Not here: names and texts (see `table`).

use std::time::Duration;

/// A histogram of durations in seconds.
#[derive(Debug, Clone)]
pub struct DurationHistogram {
    histogram: prometheus::Histogram,
}

/// Durations that one task records, and hands over together.
#[derive(Debug)]
pub struct GatheredDurations {
    local: prometheus::local::LocalHistogram,
}

impl GatheredDurations {
    /// Records one duration of so many at once.
    pub fn observe(&self, duration: Duration, count: usize) {
        let seconds = duration.as_secs_f64();
        (0..count).for_each(|_| self.local.observe(seconds));
    }

    /// Hands over what was recorded.
    pub fn hand_over(&self) {
        self.local.flush();
    }
}

/// A consistent copy of a [`DurationHistogram`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Durations {
    /// How many were recorded.
    pub count: u64,
    /// Their sum, seconds.
    pub sum: f64,
    /// Each bucket's upper bound in seconds, and how many were at most that long. The last, without
    /// a bound, is `count`.
    pub buckets: Vec<(f64, u64)>,
}

/// Upper bounds of the buckets, seconds: from what loopback costs to the longest default timeout.
const BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0, 60.0,
];

impl Default for DurationHistogram {
    fn default() -> Self {
        // The name is spelled where the metrics are gathered, in `table`; this one never shows.
        let options =
            prometheus::HistogramOpts::new("duration", "duration").buckets(BUCKETS.to_vec());
        let histogram = prometheus::Histogram::with_opts(options)
            .expect("the buckets are finite and sorted, and the name is valid");
        Self { histogram }
    }
}

impl DurationHistogram {
    /// Records one duration.
    pub fn observe(&self, duration: Duration) {
        self.histogram.observe(duration.as_secs_f64());
    }

    /// For a task that records many at once.
    pub fn gather(&self) -> GatheredDurations {
        GatheredDurations {
            local: self.histogram.local(),
        }
    }

    /// A consistent copy.
    pub fn read(&self) -> Durations {
        use prometheus::core::Metric;
        let metric = self.histogram.metric();
        let histogram = metric.get_histogram();
        let buckets = histogram.get_bucket().iter();
        Durations {
            count: histogram.get_sample_count(),
            sum: histogram.get_sample_sum(),
            buckets: buckets
                .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
                .collect(),
        }
    }

    /// How many durations were recorded, and their sum in seconds.
    pub fn count_and_sum(&self) -> (u64, f64) {
        (
            self.histogram.get_sample_count(),
            self.histogram.get_sample_sum(),
        )
    }
}
