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
    /// A capture of this length was refused, and none was taken since.
    refused: Option<Duration>,
}

impl Budget {
    /// A budget of `percent` of wall time.
    pub(super) fn new(percent: u32) -> Budget {
        Budget { percent, runs: Vec::with_capacity(RUNS_MAX), refused: None }
    }

    /// Another share, with what was used before still counted.
    pub(super) fn set(&mut self, percent: u32) {
        self.percent = percent;
    }

    /// Takes the time of a capture that begins now, if there is enough left for all of it.
    pub(super) fn take(&mut self, now: Duration, lasting: Duration) -> bool {
        let extra = self.extra(now, lasting);
        if self.percent == 0 || self.used(now).saturating_add(extra) > self.whole() {
            self.refused = Some(lasting);
            return false;
        }
        self.refused = None;
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

    /// All that captures may run within the window.
    pub(super) fn whole(&self) -> Duration {
        WINDOW * self.percent / 100
    }

    /// The window.
    pub(super) fn window() -> Duration {
        WINDOW
    }

    /// When the capture that was refused last would be taken. `None`: none was, it would be now, or never.
    pub(super) fn free_at(&self, now: Duration) -> Option<Duration> {
        let lasting = self.refused?;
        let whole = self.whole().checked_sub(lasting).filter(|_| self.percent > 0)?;
        let mut over = self.used(now).saturating_sub(whole);
        if over.is_zero() {
            return None;
        }
        let from = now.saturating_sub(WINDOW);
        // As the window goes on, the oldest runs leave it.
        for (begin, end) in self.runs.iter().map(|(begin, end)| ((*begin).max(from), *end)) {
            let run = end.saturating_sub(begin);
            if run >= over {
                return Some(begin.saturating_add(over + WINDOW));
            }
            over -= run;
        }
        None
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

    #[test]
    fn who_was_refused_is_told_when_there_is_room_again() {
        let mut budget = Budget::new(10);
        assert_eq!(budget.free_at(S(0)), None, "nobody was refused");
        for number in 0..6 {
            assert!(budget.take(S(1000 + number * 20), S(10)));
        }
        for (now, lasting) in [(1120, 10), (1121, 3), (1300, 25), (1599, 60)] {
            assert!(!budget.take(S(now), S(lasting)));
            let free = budget.free_at(S(now)).expect("some time");
            let mut then = Budget { percent: 10, runs: budget.runs.clone(), refused: None };
            assert!(!then.take(free - Duration::from_millis(1), S(lasting)), "{lasting} s at {free:?}");
            assert!(then.take(free, S(lasting)), "{lasting} s at {free:?}");
            assert_eq!(budget.free_at(free), None, "it would be taken by then");
        }
        assert!(!budget.take(S(1599), S(61)));
        assert_eq!(budget.free_at(S(1599)), None, "never");
        assert!(budget.take(S(1700), S(10)));
        assert_eq!(budget.free_at(S(1700)), None, "it is taken again");
    }
}
