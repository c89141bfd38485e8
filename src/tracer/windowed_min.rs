//! The lowest sample of a sliding window, in memory that does not grow: the window is cut into
//! slices and each keeps its lowest. What is older than the window never counts.

use std::time::Duration;

use crate::host::Unreclaimable;

/// The memory at a time. Of samples the lower is the one with less of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Duration,
    /// How much, and of what kind.
    pub held: Unreclaimable,
}

impl Sample {
    /// How much in all.
    pub fn bytes(&self) -> u64 {
        self.held.all_bytes
    }
}

/// The lowest of each slice; one slice more than the window has, for the one that is going out.
#[derive(Clone, Copy, Debug)]
pub struct WindowedMin<const N: usize>([Option<Sample>; N]);

impl<const N: usize> Default for WindowedMin<N> {
    fn default() -> WindowedMin<N> {
        WindowedMin([None; N])
    }
}

impl<const N: usize> WindowedMin<N> {
    /// Which slice of time a moment is in, counted from boot.
    fn slice(at: Duration, window: Duration) -> u128 {
        let slices = N.saturating_sub(1).max(1) as u128;
        at.as_nanos() / (window.as_nanos() / slices).max(1)
    }

    /// Takes a sample in.
    pub fn add(&mut self, sample: Sample, window: Duration) {
        let slice = Self::slice(sample.at, window);
        let place = usize::try_from(slice % (N.max(1) as u128)).unwrap_or(0);
        let Some(kept) = self.0.get_mut(place) else { return };
        let lower =
            kept.filter(|kept| Self::slice(kept.at, window) == slice && kept.bytes() < sample.bytes());
        *kept = Some(lower.unwrap_or(sample));
    }

    /// The lowest of the window that ends now; of equals the latest.
    pub fn lowest(&self, now: Duration, window: Duration) -> Option<Sample> {
        let within = |sample: &&Sample| now.checked_sub(sample.at).is_some_and(|age| age <= window);
        self.0.iter().flatten().filter(within).min_by_key(|sample| (sample.bytes(), now - sample.at)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn held(all_bytes: u64) -> Unreclaimable {
        Unreclaimable { all_bytes, ..Unreclaimable::default() }
    }

    fn sample(seconds: u64, bytes: u64) -> Sample {
        Sample { at: Duration::from_secs(seconds), held: held(bytes) }
    }

    fn lowest(minimum: &WindowedMin<13>, now: u64) -> Option<Sample> {
        minimum.lowest(Duration::from_secs(now), WINDOW)
    }

    #[test]
    fn the_lowest_of_the_window_is_found_and_older_ones_are_not() {
        let mut minimum = WindowedMin::<13>::default();
        assert_eq!(lowest(&minimum, 0), None);
        for (seconds, bytes) in [(1000, 7), (1005, 3), (1010, 9), (1060, 8)] {
            minimum.add(sample(seconds, bytes), WINDOW);
        }
        assert_eq!(lowest(&minimum, 1060), Some(sample(1005, 3)));
        assert_eq!(lowest(&minimum, 1065), Some(sample(1005, 3)), "60 s old is within");
        assert_eq!(lowest(&minimum, 1066), Some(sample(1060, 8)));
        assert_eq!(lowest(&minimum, 1121), None);
        assert_eq!(lowest(&minimum, 5), None, "the clock went back");
    }

    #[test]
    fn it_is_never_off_by_more_than_a_slice() {
        // A walk of samples each 1.3 s, and the plain answer beside it.
        let mut minimum = WindowedMin::<13>::default();
        let mut all: Vec<Sample> = Vec::new();
        let mut bytes = 500_u64;
        for step in 0..2000_u64 {
            bytes = (bytes + step * step % 37).saturating_sub(18 + step % 3);
            let now = Sample { at: Duration::from_millis(7_000_000 + step * 1300), held: held(bytes) };
            minimum.add(now, WINDOW);
            all.push(now);
            let plain = |window: Duration| {
                let inside = all.iter().filter(|sample| now.at - sample.at <= window);
                inside.map(|sample| sample.bytes()).min().expect("at least this one")
            };
            let found = minimum.lowest(now.at, WINDOW).expect("at least this one").bytes();
            let slice = WINDOW / 12;
            assert!((plain(WINDOW)..=plain(WINDOW - slice)).contains(&found), "step {step}: {found}");
        }
    }
}
