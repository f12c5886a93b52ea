//! The metrics as Prometheus text, format 0.0.4.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{TEXT_FORMAT, TextEncoder};

use super::exposition::{Family, Sample, Value};
use super::histogram::Durations;
use super::table::Kind;

/// The media type of [`text`].
pub const CONTENT_TYPE: &str = TEXT_FORMAT;

/// The families as text.
pub fn text(families: &[Family]) -> String {
    let families: Vec<_> = families.iter().map(family).collect();
    TextEncoder::new()
        .encode_to_string(&families)
        .expect("every family has a name and a sample, and a String takes every write")
}

fn family(family: &Family) -> MetricFamily {
    let metric = family.metric;
    let samples = family.samples.iter();
    let mut written = MetricFamily::default();
    written.set_name(metric.name.to_owned());
    written.set_help(metric.help.to_owned());
    written.set_field_type(match metric.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    written.set_metric(
        samples
            .map(|one| sample(metric.kind, metric.labels, one))
            .collect(),
    );
    written
}

fn sample(kind: Kind, labels: &[&str], sample: &Sample) -> Metric {
    let pairs = labels.iter().zip(&sample.labels);
    let mut written = Metric::from_label(pairs.map(|(name, value)| label(name, value)).collect());
    match (&sample.value, kind) {
        (Value::Number(number), Kind::Counter) => {
            let mut counter = Counter::default();
            counter.set_value(*number);
            written.set_counter(counter);
        }
        (Value::Number(number), _) => {
            let mut gauge = Gauge::default();
            gauge.set_value(*number);
            written.set_gauge(gauge);
        }
        (Value::Distribution(durations), _) => written.set_histogram(histogram(durations)),
    }
    written
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

fn histogram(durations: &Durations) -> Histogram {
    let mut written = Histogram::default();
    written.set_sample_count(durations.count);
    written.set_sample_sum(durations.sum);
    let buckets = durations.buckets.iter().map(|&(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    });
    written.set_bucket(buckets.collect());
    written
}
