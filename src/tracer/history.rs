//! Mean and deviation of a number over a time that has just passed, in memory of a fixed size: what
//! is old goes in portions.

use std::time::Duration;

/// Portions that the time is cut into.
const PORTIONS: u32 = 15;

/// What is remembered.
#[derive(Clone, Copy, Debug, Default)]
pub struct History([Portion; PORTIONS as usize]);

/// The samples of one portion of time.
#[derive(Clone, Copy, Debug, Default)]
struct Portion {
    /// Which: its number since boot.
    number: u32,
    count: u32,
    sum: f32,
    squares: f32,
}

/// Mean and standard deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usual {
    /// How many samples both are of.
    pub samples: u32,
    /// The mean.
    pub mean: f64,
    /// The standard deviation.
    pub std: f64,
}

impl History {
    /// Takes a sample in, over a history of this length.
    #[allow(clippy::cast_possible_truncation)] // percents, to seven digits
    pub fn push(&mut self, now: Duration, length: Duration, value: f64) {
        let number = number(now, length);
        let Some(portion) = self.0.get_mut((number % PORTIONS) as usize) else { return };
        if portion.number != number {
            *portion = Portion { number, ..Portion::default() };
        }
        portion.count = portion.count.saturating_add(1);
        portion.sum += value as f32;
        portion.squares += (value * value) as f32;
    }

    /// What has been usual. `None`: nothing is remembered.
    pub fn usual(&self, now: Duration, length: Duration) -> Option<Usual> {
        let number = number(now, length);
        let recent = self.0.iter().filter(|portion| number.saturating_sub(portion.number) < PORTIONS);
        let (samples, sum, squares) = recent.fold((0_u32, 0.0, 0.0), |(samples, sum, squares), portion| {
            let (more, high) = (f64::from(portion.sum), f64::from(portion.squares));
            (samples.saturating_add(portion.count), sum + more, squares + high)
        });
        let count = f64::from(samples);
        let mean = sum / count;
        let variance = (squares / count - mean * mean).max(0.0);
        (samples > 0).then_some(Usual { samples, mean, std: variance.sqrt() })
    }
}

/// The number of the portion that a moment is in.
fn number(now: Duration, length: Duration) -> u32 {
    let width = (length / PORTIONS).as_nanos().max(1);
    u32::try_from(now.as_nanos() / width).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_AN_HOUR: Duration = Duration::from_secs(1800);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(100_000 + seconds)
    }

    #[test]
    fn mean_and_deviation_are_those_of_the_samples() {
        let mut history = History::default();
        assert_eq!(history.usual(at(0), HALF_AN_HOUR), None);
        for (step, value) in [10.0, 20.0, 30.0, 40.0].into_iter().enumerate() {
            history.push(at(step as u64 * 200), HALF_AN_HOUR, value);
        }
        let usual = history.usual(at(800), HALF_AN_HOUR).expect("four samples");
        assert_eq!(usual.samples, 4);
        assert!((usual.mean - 25.0).abs() < 1e-6 && (usual.std - 125_f64.sqrt()).abs() < 1e-3, "{usual:?}");
    }

    #[test]
    fn a_number_that_never_changes_deviates_by_nothing() {
        let mut history = History::default();
        (0..180).for_each(|step| history.push(at(step * 10), HALF_AN_HOUR, 33.3));
        let usual = history.usual(at(1800), HALF_AN_HOUR).expect("samples");
        assert!((usual.mean - 33.3).abs() < 1e-3 && usual.std < 0.1, "{usual:?}");
    }

    #[test]
    fn what_is_older_than_its_length_is_forgotten() {
        let mut history = History::default();
        history.push(at(0), HALF_AN_HOUR, 90.0);
        history.push(at(1700), HALF_AN_HOUR, 10.0);
        let mean = |history: &History, now| history.usual(at(now), HALF_AN_HOUR).map(|usual| usual.mean);
        assert_eq!(mean(&history, 1650), Some(50.0));
        assert_eq!(mean(&history, 1930), Some(10.0));
        assert_eq!(mean(&history, 3700), None);
        // Its place is used again.
        history.push(at(3600), HALF_AN_HOUR, 4.0);
        assert_eq!(mean(&history, 3610), Some(4.0));
    }
}
