//! Metrics in the Prometheus text format 0.0.4: declared once as constants, written straight into
//! a buffer that never grows. A family is in the buffer whole or not at all.

mod family;
mod histogram;
mod scrape;
mod value;

pub use family::Family;
pub use histogram::Histogram;
pub use scrape::{Mishaps, Scrape};
pub use value::Value;

/// One family of metrics, declared once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// In base units, counters ending in `_total`.
    pub name: &'static str,
    /// A full sentence.
    pub help: &'static str,
    /// How its values behave.
    pub kind: MetricKind,
    /// The names of its labels; every sample gives a value for each, in this order.
    pub labels: &'static [&'static str],
}

/// How the values of a metric behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows, from 0 at start.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

impl MetricKind {
    fn name(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

#[cfg(test)]
mod tests;
