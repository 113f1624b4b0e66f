//! Metrics, as they travel in JSON: the same figures as the text has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All metrics of a node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MetricList {
    /// In the order of the text; those without samples too.
    pub metrics: Vec<MetricText>,
}

/// A metric.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MetricText {
    /// Its name, as that of its samples: of a histogram without `_bucket`, `_sum`, `_count`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it says, as a sentence.
    pub help: String,
    /// The labels of its samples.
    pub labels: Vec<String>,
    /// What is known now.
    pub samples: Vec<MetricSample>,
}

/// A sample of a metric.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MetricSample {
    /// What it is of.
    pub labels: BTreeMap<String, String>,
    /// How much it is.
    #[serde(flatten)]
    pub figure: MetricFigure,
}

/// The figure of a sample.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricFigure {
    /// Of a counter or gauge.
    Value(MetricNumber),
    /// Of a histogram.
    Histogram {
        /// All that was observed, together.
        sum: f64,
        /// How many were observed.
        count: u64,
        /// For each bound how many were not greater; the last has none and counts all.
        buckets: Vec<(Option<f64>, u64)>,
    },
}

/// A number, whole where it is so by nature.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MetricNumber {
    /// A whole one.
    Whole(u64),
    /// Any.
    Real(f64),
}

impl From<u64> for MetricNumber {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<bool> for MetricNumber {
    fn from(yes: bool) -> Self {
        Self::Whole(yes.into())
    }
}

impl From<f64> for MetricNumber {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl MetricNumber {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) => Self::Whole(one.saturating_add(other)),
            (one, other) => Self::Real(one.real() + other.real()),
        }
    }

    /// The number.
    #[must_use]
    pub const fn real(self) -> f64 {
        match self {
            Self::Whole(number) => number as f64,
            Self::Real(number) => number,
        }
    }
}
