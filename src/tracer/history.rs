//! Mean and deviation of a number over a time that has just passed, in memory of a fixed size: what
//! is old goes in portions.

use std::time::Duration;

/// Portions that the time is cut into.
const PORTIONS: u32 = 15;

/// What is remembered.
#[derive(Clone, Copy, Debug, Default)]
pub struct History {
    portions: [Portion; PORTIONS as usize],
    /// How long each portion is. Zero: nothing is remembered yet.
    width: Duration,
}

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
        self.fit(now, length);
        let number = number(now, self.width);
        self.add(Portion { number, count: 1, sum: value as f32, squares: (value * value) as f32 });
    }

    /// Adds these samples to those of the same portion. What is older gives way.
    fn add(&mut self, more: Portion) {
        let Some(portion) = self.portions.get_mut((more.number % PORTIONS) as usize) else { return };
        if portion.number != more.number {
            *portion = Portion { number: more.number, ..Portion::default() };
        }
        portion.count = portion.count.saturating_add(more.count);
        portion.sum += more.sum;
        portion.squares += more.squares;
    }

    /// Where another length is asked for, cuts what is remembered into portions of that: the samples of each
    /// are taken to be from its middle.
    fn fit(&mut self, now: Duration, length: Duration) {
        let width = length / PORTIONS;
        let before = std::mem::replace(&mut self.width, width);
        if before == width {
            return;
        }
        let mut portions = std::mem::take(&mut self.portions);
        portions.sort_unstable_by_key(|portion| portion.number);
        for portion in portions.iter().filter(|portion| portion.count > 0) {
            let middle = before.saturating_mul(portion.number).saturating_add(before / 2);
            self.add(Portion { number: number(middle.min(now), width), ..*portion });
        }
    }

    /// What has been usual. `None`: nothing is remembered.
    pub fn usual(&mut self, now: Duration, length: Duration) -> Option<Usual> {
        self.fit(now, length);
        let number = number(now, self.width);
        let recent = self.portions.iter().filter(|portion| number.saturating_sub(portion.number) < PORTIONS);
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
fn number(now: Duration, width: Duration) -> u32 {
    u32::try_from(now.as_nanos() / width.as_nanos().max(1)).unwrap_or(u32::MAX)
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
        let mean = |history: &mut History, now| history.usual(at(now), HALF_AN_HOUR).map(|usual| usual.mean);
        assert_eq!(mean(&mut history, 1650), Some(50.0));
        assert_eq!(mean(&mut history, 1930), Some(10.0));
        assert_eq!(mean(&mut history, 3700), None);
        // Its place is used again.
        history.push(at(3600), HALF_AN_HOUR, 4.0);
        assert_eq!(mean(&mut history, 3610), Some(4.0));
    }

    #[test]
    fn another_length_keeps_the_samples_that_are_within_it() {
        let hour = HALF_AN_HOUR * 2;
        let mut history = History::default();
        (0..180)
            .for_each(|step| history.push(at(step * 10), HALF_AN_HOUR, if step < 90 { 10.0 } else { 30.0 }));
        let before = history.usual(at(1790), HALF_AN_HOUR).expect("samples");
        // A longer one knows all that the shorter one did, and forgets it later.
        for now in [1790, 3000] {
            let usual = history.usual(at(now), hour).expect("samples");
            assert!(usual.samples == before.samples && (usual.mean - before.mean).abs() < 1e-3, "{usual:?}");
        }
        assert_eq!(history.usual(at(6000), hour), None);
        // A shorter one knows the last of it.
        let mut history = History::default();
        (0..180)
            .for_each(|step| history.push(at(step * 10), HALF_AN_HOUR, if step < 90 { 10.0 } else { 30.0 }));
        let ten_minutes = HALF_AN_HOUR / 3;
        let usual = history.usual(at(1790), ten_minutes).expect("samples");
        assert!((48..=72).contains(&usual.samples) && (usual.mean - 30.0).abs() < 1e-3, "{usual:?}");
        assert_eq!(history.usual(at(1790 + 601), ten_minutes), None, "nothing is from later than it was");
    }
}
