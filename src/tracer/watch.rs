//! One subject's way from calm to event and back: the rules that all tracers share. A rise fires
//! at once, a level that holds fires after some samples, and after an event there is quiet.

use std::time::Duration;

use crate::clock::Now;

/// The rule that asked for a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// The level rose past its threshold, or too fast.
    Surge,
    /// The level held, and its rise was not caught: it came before the agent, or in a cooldown.
    Sustained,
    /// A task has been blocked for too long.
    Stuck,
    /// A limit will be hit soon.
    Predicted,
    /// The kernel killed a process for want of memory.
    Kill,
    /// Someone asked.
    Manual,
}

/// How a subject is judged.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Quiet after an event.
    pub cooldown: Duration,
    /// Samples that a level must hold; 0 is never.
    pub sustained: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Watching,
    /// A capture for this trigger is under way.
    Capturing(Trigger),
    /// Its capture brought nothing; tried again while the level holds.
    Owed(Trigger),
    /// An event was told at this time.
    Quiet { since: Duration },
}

/// One subject: a container, a device or the host.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    state: State,
    held: u32,
}

impl Watch {
    /// Takes one sample: the rule that sees an edge in it, and whether the level is high.
    /// Returns the trigger that a capture is to be asked for with.
    pub fn sample(&mut self, now: Now, edge: Option<Trigger>, high: bool, rule: &Rule) -> Option<Trigger> {
        self.held = if high { self.held.saturating_add(1) } else { 0 };
        if let State::Quiet { since } = self.state
            && now.mono >= since.saturating_add(rule.cooldown)
        {
            self.state = State::Watching;
        }
        let fired = match self.state {
            State::Capturing(_) | State::Quiet { .. } => None,
            State::Owed(trigger) if high => Some(trigger),
            State::Owed(_) | State::Watching => {
                self.state = State::Watching;
                let held = rule.sustained > 0 && self.held >= rule.sustained;
                edge.or(held.then_some(Trigger::Sustained))
            }
        };
        if let Some(trigger) = fired {
            self.state = State::Capturing(trigger);
        }
        fired
    }

    /// Whether an event was told and no sample came after its cooldown.
    pub fn is_quiet(&self) -> bool {
        matches!(self.state, State::Quiet { .. })
    }

    /// Its capture made an event: quiet from now on.
    pub fn told(&mut self, now: Now) {
        self.state = State::Quiet { since: now.mono };
    }

    /// Its capture brought nothing: the event is still owed.
    pub fn missed(&mut self) {
        if let State::Capturing(trigger) = self.state {
            self.state = State::Owed(trigger);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;

    const RULE: Rule = Rule { cooldown: Duration::from_secs(100), sustained: 3 };

    fn at(seconds: u64) -> Now {
        Now { mono: Duration::from_secs(seconds), wall: Wall(seconds * 1000) }
    }

    #[test]
    fn a_rise_fires_once_and_then_there_is_quiet() {
        let mut watch = Watch::default();
        assert_eq!(watch.sample(at(0), None, false, &RULE), None);
        assert_eq!(watch.sample(at(10), Some(Trigger::Surge), true, &RULE), Some(Trigger::Surge));
        assert_eq!(watch.sample(at(20), Some(Trigger::Surge), true, &RULE), None, "a capture is under way");
        watch.told(at(20));
        assert_eq!(watch.sample(at(119), Some(Trigger::Surge), true, &RULE), None, "quiet for 100 s");
        assert_eq!(watch.sample(at(120), Some(Trigger::Surge), true, &RULE), Some(Trigger::Surge));
    }

    #[test]
    fn a_level_that_outlasts_the_cooldown_is_told_again_as_sustained() {
        let mut watch = Watch::default();
        assert!(watch.sample(at(0), Some(Trigger::Surge), true, &RULE).is_some());
        watch.told(at(0));
        for time in (10..100).step_by(10) {
            assert_eq!(watch.sample(at(time), None, true, &RULE), None);
        }
        assert_eq!(watch.sample(at(100), None, true, &RULE), Some(Trigger::Sustained));
    }

    #[test]
    fn a_level_found_high_fires_after_so_many_samples_and_a_dip_starts_again() {
        let mut watch = Watch::default();
        let levels = [true, true, false, true, true, true];
        let fired: Vec<_> = levels.iter().map(|high| watch.sample(at(0), None, *high, &RULE)).collect();
        assert_eq!(fired, [None, None, None, None, None, Some(Trigger::Sustained)]);
        let never = Rule { sustained: 0, ..RULE };
        let mut watch = Watch::default();
        assert!((0..100).all(|_| watch.sample(at(0), None, true, &never).is_none()));
    }

    #[test]
    fn a_capture_that_brought_nothing_is_asked_for_again_while_the_level_holds() {
        let mut watch = Watch::default();
        assert!(watch.sample(at(0), Some(Trigger::Surge), true, &RULE).is_some());
        watch.missed();
        assert_eq!(watch.sample(at(1), None, true, &RULE), Some(Trigger::Surge));
        watch.missed();
        assert_eq!(watch.sample(at(2), None, false, &RULE), None, "it passed");
        assert_eq!(watch.sample(at(3), None, true, &RULE), None, "and is owed no more");
    }

    #[test]
    fn an_edge_in_the_cooldown_is_not_missed_if_it_lasts() {
        let mut watch = Watch::default();
        assert!(watch.sample(at(0), Some(Trigger::Surge), true, &RULE).is_some());
        watch.told(at(0));
        assert_eq!(watch.sample(at(50), None, false, &RULE), None);
        assert_eq!(watch.sample(at(90), Some(Trigger::Surge), true, &RULE), None);
        assert_eq!(watch.sample(at(100), None, true, &RULE), None);
        assert_eq!(watch.sample(at(110), None, true, &RULE), Some(Trigger::Sustained));
    }

    #[test]
    fn another_cooldown_holds_for_a_quiet_that_has_begun() {
        let mut watch = Watch::default();
        assert!(watch.sample(at(0), Some(Trigger::Surge), true, &RULE).is_some());
        watch.told(at(0));
        let longer = Rule { cooldown: Duration::from_secs(500), ..RULE };
        assert_eq!(watch.sample(at(499), Some(Trigger::Surge), true, &longer), None);
        let shorter = Rule { cooldown: Duration::from_secs(50), ..RULE };
        assert_eq!(watch.sample(at(499), Some(Trigger::Surge), true, &shorter), Some(Trigger::Surge));
    }
}
