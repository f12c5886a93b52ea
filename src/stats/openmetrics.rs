//! The metrics as OpenMetrics text, version 1.0.0: the same values as in `prometheus`.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::exposition::{Family, Sample, Value};
use super::table::Kind;

/// The media type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The families as text.
pub fn text(families: Vec<Family>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Gathered(families)));
    let mut text = String::new();
    encode(&mut text, &registry).expect("a String takes every write");
    text
}

#[derive(Debug)]
struct Gathered(Vec<Family>);

impl Collector for Gathered {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let metric = family.metric;
            let (name, kind) = match metric.kind {
                // The library adds `_total` to the samples; the family's name has none.
                Kind::Counter => (
                    metric.name.strip_suffix("_total").unwrap_or(metric.name),
                    MetricType::Counter,
                ),
                Kind::Gauge => (metric.name, MetricType::Gauge),
                Kind::Histogram => (metric.name, MetricType::Histogram),
            };
            let mut encoder = encoder.encode_descriptor(name, metric.help, None, kind)?;
            for one in &family.samples {
                let pairs = metric.labels.iter().copied();
                let values = one.labels.iter().map(String::as_str);
                let labels: Vec<(&str, &str)> = pairs.zip(values).collect();
                if labels.is_empty() {
                    sample(&mut encoder, metric.kind, one)?;
                } else {
                    let mut encoder = encoder.encode_family(&labels)?;
                    sample(&mut encoder, metric.kind, one)?;
                }
            }
        }
        Ok(())
    }
}

fn sample(encoder: &mut MetricEncoder<'_>, kind: Kind, sample: &Sample) -> fmt::Result {
    match (&sample.value, kind) {
        (Value::Number(number), Kind::Counter) => {
            encoder.encode_counter::<NoLabelSet, _, f64>(number, None)
        }
        (Value::Number(number), _) => encoder.encode_gauge(number),
        (Value::Distribution(durations), _) => {
            // The library sums the buckets up itself, so each gets only its own.
            let mut before = 0;
            let bounded = durations.buckets.iter().copied();
            let all = bounded.chain([(f64::INFINITY, durations.count)]);
            let buckets: Vec<_> = all
                .map(|(bound, cumulative)| {
                    let own = cumulative.saturating_sub(before);
                    before = cumulative;
                    (bound, own)
                })
                .collect();
            encoder.encode_histogram::<NoLabelSet>(durations.sum, durations.count, &buckets, None)
        }
    }
}
