//! The capture budget: how much of the last ten minutes captures may have run. Captures that run
//! at the same time share one armed program, so it is their common time that counts.

use std::time::Duration;

/// The window that the budget is a share of.
const WINDOW: Duration = Duration::from_secs(600);

/// Runs that are remembered apart; more are merged with the last, which only counts too much.
const RUNS_MAX: usize = 64;

/// Stretches of time in which captures ran or will run, oldest first, none overlapping.
#[derive(Debug)]
pub(super) struct Budget {
    percent: u32,
    runs: Vec<(Duration, Duration)>,
}

impl Budget {
    /// So many percent of wall time.
    pub(super) fn new(percent: u32) -> Budget {
        Budget { percent, runs: Vec::with_capacity(RUNS_MAX) }
    }

    /// Another share, with what was used before still counted.
    pub(super) fn set(&mut self, percent: u32) {
        self.percent = percent;
    }

    /// Takes the time of a capture that begins now, if there is enough left for all of it.
    pub(super) fn take(&mut self, now: Duration, lasting: Duration) -> bool {
        let whole = WINDOW * self.percent / 100;
        let extra = self.extra(now, lasting);
        if self.percent == 0 || self.used(now).saturating_add(extra) > whole {
            return false;
        }
        self.add(now, lasting);
        true
    }

    /// Counts a capture that was not asked whether it may: someone wanted it.
    pub(super) fn add(&mut self, now: Duration, lasting: Duration) {
        self.forget(now);
        if lasting.is_zero() {
            return;
        }
        let end = now.saturating_add(lasting);
        let full = self.runs.len() == RUNS_MAX;
        match self.runs.last_mut() {
            Some((_, last)) if *last >= now || full => *last = end.max(*last),
            _ => self.runs.push((now, end)),
        }
    }

    /// What captures ran, or are set to run, within the window that ends now.
    pub(super) fn used(&self, now: Duration) -> Duration {
        let from = now.saturating_sub(WINDOW);
        self.runs.iter().map(|(begin, end)| end.saturating_sub(from.max(*begin))).sum()
    }

    /// What this capture adds to those that run already.
    fn extra(&self, now: Duration, lasting: Duration) -> Duration {
        let running = self.runs.last().map_or(now, |(_, end)| now.max(*end));
        now.saturating_add(lasting).saturating_sub(running)
    }

    fn forget(&mut self, now: Duration) {
        let from = now.saturating_sub(WINDOW);
        self.runs.retain(|(_, end)| *end > from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn captures_have_their_share_of_ten_minutes_and_no_more() {
        let mut budget = Budget::new(10);
        for number in 0..6 {
            assert!(budget.take(S(1000 + number * 20), S(10)), "{number}: 60 s of 600 s");
        }
        assert!(!budget.take(S(1120), S(10)));
        assert!(!budget.take(S(1599), S(10)), "the first is still in the window");
        assert!(budget.take(S(1611), S(10)), "the first has left it");
    }

    #[test]
    fn captures_at_the_same_time_share_their_time() {
        let mut budget = Budget::new(10);
        assert!((0..50).all(|_| budget.take(S(5), S(30))), "one program serves them all");
        assert!(budget.take(S(20), S(30)), "15 s more");
        assert_eq!(budget.used(S(50)), S(45));
        assert!(!budget.take(S(60), S(30)));
    }

    #[test]
    fn a_single_look_costs_nothing_and_no_budget_is_none() {
        let mut budget = Budget::new(1);
        assert!(budget.take(S(1), S(6)));
        assert!((2..500).all(|now| budget.take(S(now), Duration::ZERO)));
        assert!(!Budget::new(0).take(S(1), Duration::ZERO));
        assert!(Budget::new(100).take(S(1), S(600)));
    }

    #[test]
    fn what_was_asked_for_by_hand_counts_too() {
        let mut budget = Budget::new(10);
        budget.add(S(0), S(59));
        assert!(!budget.take(S(100), S(10)));
        assert!(budget.take(S(100), S(1)));
    }
}
