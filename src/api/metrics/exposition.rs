//! Samples of all metrics, and their two forms: OpenMetrics text and JSON.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::families::{ALL, Family, Measure, Merge};
use crate::api::types::{MetricFigure, MetricList, MetricNumber, MetricSample, MetricText};

/// The labels of a sample, in the order of its family's.
type Labels = Vec<String>;

/// What is exposed, by the family's stem.
#[derive(Debug, Default)]
pub(super) struct Exposition(BTreeMap<&'static str, BTreeMap<Labels, MetricFigure>>);

impl Exposition {
    /// A sample. One with the labels of another is put together with it.
    pub(super) fn put(
        &mut self,
        family: &Family,
        labels: &[&str],
        number: impl Into<MetricNumber>,
    ) {
        let number = number.into();
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let sample = self.0.entry(family.stem).or_default().entry(labels);
        let new = || MetricFigure::Value(number);
        let merged = sample.and_modify(|figure| {
            if let MetricFigure::Value(held) = figure {
                *held = match family.merge {
                    Merge::Sum => held.plus(number),
                    Merge::Least if number.real() < held.real() => number,
                    Merge::Greatest if number.real() > held.real() => number,
                    Merge::Least | Merge::Greatest => *held,
                };
            }
        });
        merged.or_insert_with(new);
    }

    /// The one sample of a histogram.
    pub(super) fn put_histogram(&mut self, family: &Family, figure: MetricFigure) {
        self.0.entry(family.stem).or_default().insert(Vec::new(), figure);
    }

    /// All metrics as JSON has them.
    pub(super) fn to_list(&self) -> MetricList {
        let metrics = ALL.iter().map(|family| MetricText {
            name: family.name(),
            kind: family.kind.as_str().to_owned(),
            help: family.help.to_owned(),
            labels: family.labels.iter().map(|label| (*label).to_owned()).collect(),
            samples: self.samples(family).collect(),
        });
        MetricList { metrics: metrics.collect() }
    }

    fn samples(&self, family: &Family) -> impl Iterator<Item = MetricSample> {
        let samples = self.0.get(family.stem).into_iter().flatten();
        let names = family.labels;
        samples.map(|(labels, figure)| {
            let names = names.iter().map(|name| (*name).to_owned());
            let labels = names.zip(labels.iter().cloned()).collect();
            MetricSample { labels, figure: figure.clone() }
        })
    }

    /// All metrics as OpenMetrics text.
    ///
    /// # Errors
    /// A figure cannot be written, which no figure here is.
    pub(super) fn into_text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in ALL {
            let unit = match family.measure {
                Measure::Number => None,
                Measure::Bytes => Some(Unit::Bytes),
                Measure::Seconds => Some(Unit::Seconds),
            };
            let Family { stem, help, kind, .. } = *family;
            let mut metric = encoder.encode_descriptor(stem, help, unit.as_ref(), kind)?;
            for (labels, figure) in self.0.get(stem).into_iter().flatten() {
                let labels: Vec<(&str, &str)> =
                    family.labels.iter().copied().zip(labels.iter().map(String::as_str)).collect();
                if labels.is_empty() {
                    write(&mut metric, kind, figure)?;
                } else {
                    write(&mut metric.encode_family(&labels)?, kind, figure)?;
                }
            }
        }
        Ok(())
    }
}

fn write(
    metric: &mut MetricEncoder<'_>,
    kind: MetricType,
    figure: &MetricFigure,
) -> Result<(), fmt::Error> {
    match (kind, figure) {
        (MetricType::Counter, MetricFigure::Value(MetricNumber::Whole(number))) => {
            metric.encode_counter::<NoLabelSet, _, f64>(number, None)
        }
        (MetricType::Counter, MetricFigure::Value(MetricNumber::Real(number))) => {
            metric.encode_counter::<NoLabelSet, _, f64>(number, None)
        }
        (_, MetricFigure::Value(MetricNumber::Whole(number))) => metric.encode_gauge(number),
        (_, MetricFigure::Value(MetricNumber::Real(number))) => metric.encode_gauge(number),
        (_, MetricFigure::Histogram { sum, count, buckets }) => {
            let mut before = 0;
            let of_class = |(bound, below): &(Option<f64>, u64)| {
                let alone = below - std::mem::replace(&mut before, *below);
                (bound.unwrap_or(f64::INFINITY), alone)
            };
            let buckets: Vec<(f64, u64)> = buckets.iter().map(of_class).collect();
            metric.encode_histogram::<NoLabelSet>(*sum, *count, &buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::families::{DURATION, ENTRIES, PEER_CLOCK, SCRUB_END, SENT};
    use super::*;

    #[test]
    fn the_text_has_types_units_labels_and_an_end() {
        let mut all = Exposition::default();
        all.put(&ENTRIES, &["a \"b\"\\\nc"], 7);
        all.put(&SENT, &[], 1_u64 << 60);
        let buckets = vec![(Some(0.005), 1), (Some(1.0), 3), (None, 4)];
        all.put_histogram(&DURATION, MetricFigure::Histogram { sum: 2.5, count: 4, buckets });
        let text = all.into_text().unwrap();
        assert!(text.ends_with("\n# EOF\n"), "{text}");
        for line in [
            "# TYPE selfsame_sessions_sent_bytes counter",
            "# UNIT selfsame_sessions_sent_bytes bytes",
            "selfsame_sessions_sent_bytes_total 1152921504606846976",
            "selfsame_collection_entries{collection=\"a \\\"b\\\"\\\\\\nc\"} 7",
            "selfsame_session_duration_seconds_sum 2.5",
            "selfsame_session_duration_seconds_bucket{le=\"1.0\"} 3",
            "selfsame_session_duration_seconds_bucket{le=\"+Inf\"} 4",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn samples_of_the_same_labels_are_put_together() {
        let mut all = Exposition::default();
        for (entries, ended) in [(7, 30_u64), (5, 20), (1, 40)] {
            all.put(&ENTRIES, &["other"], entries);
            all.put(&SCRUB_END, &["other"], ended);
            all.put(&PEER_CLOCK, &["other"], ended as f64 / 8.0);
        }
        let value = |family: &Family| match &all.samples(family).next().unwrap().figure {
            MetricFigure::Value(number) => number.real(),
            MetricFigure::Histogram { .. } => f64::NAN,
        };
        let values = [&ENTRIES, &SCRUB_END, &PEER_CLOCK].map(value);
        assert_eq!(values, [13.0, 20.0, 5.0]);
    }
}
