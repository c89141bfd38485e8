//! Observations, counted by their size.

use std::time::Duration;

/// Observations by size, in `N` buckets and one for all that is larger.
#[derive(Clone, Copy, Debug)]
pub struct Histogram<const N: usize> {
    pub(super) bounds: [Duration; N],
    pub(super) counts: [u64; N],
    pub(super) count: u64,
    pub(super) sum: Duration,
    max: Duration,
}

impl<const N: usize> Histogram<N> {
    /// An empty one; each bucket counts what is no longer than its bound. Bounds must rise.
    #[must_use]
    pub const fn new(bounds: [Duration; N]) -> Histogram<N> {
        Histogram { bounds, counts: [0; N], count: 0, sum: Duration::ZERO, max: Duration::ZERO }
    }

    /// Counts one observation.
    pub fn observe(&mut self, took: Duration) {
        let bucket = self.bounds.iter().zip(&mut self.counts).find(|(bound, _)| took <= **bound);
        if let Some((_, count)) = bucket {
            *count += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(took);
        self.max = self.max.max(took);
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest since start.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.max
    }
}
