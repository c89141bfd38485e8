//! The trigger state of one subject, from calm to event and back: the rules that all tracers share. A rise fires
//! at once, a level that holds fires after some samples, and after an event there is quiet.

use std::time::Duration;

use crate::clock::Now;

/// The rule that asked for a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Trigger {
    /// What documents call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Trigger::Surge => "surge",
            Trigger::Sustained => "sustained",
            Trigger::Stuck => "stuck",
            Trigger::Predicted => "predicted",
            Trigger::Kill => "kill",
            Trigger::Manual => "manual",
        }
    }
}

impl serde::Serialize for Trigger {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
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
enum Phase {
    #[default]
    Watching,
    /// A capture for this trigger is under way.
    Capturing(Trigger),
    /// Its capture brought nothing; tried again while the level holds.
    RetryPending(Trigger),
    /// An event was kept at this time.
    Quiet { since: Duration },
}

/// One subject: a container, a device or the host.
#[derive(Clone, Debug, Default)]
pub struct TriggerState {
    phase: Phase,
    held: u32,
}

impl TriggerState {
    /// Takes one sample: the rule that sees an edge in it, and whether the level is high.
    /// Returns the trigger that a capture is to be asked for with.
    pub fn sample(&mut self, now: Now, edge: Option<Trigger>, high: bool, rule: &Rule) -> Option<Trigger> {
        self.held = if high { self.held.saturating_add(1) } else { 0 };
        self.end_cooldown(now, rule);
        let fired = match self.phase {
            Phase::Capturing(_) | Phase::Quiet { .. } => None,
            Phase::RetryPending(trigger) if high => Some(trigger),
            Phase::RetryPending(_) | Phase::Watching => {
                self.phase = Phase::Watching;
                let held = rule.sustained > 0 && self.held >= rule.sustained;
                edge.or(held.then_some(Trigger::Sustained))
            }
        };
        if let Some(trigger) = fired {
            self.phase = Phase::Capturing(trigger);
        }
        fired
    }

    /// Takes in that something has happened which is no level and cannot be sampled again. Returns
    /// whether a capture is to be asked for with this trigger.
    pub fn occurred(&mut self, now: Now, trigger: Trigger, rule: &Rule) -> bool {
        self.end_cooldown(now, rule);
        let fires = matches!(self.phase, Phase::Watching | Phase::RetryPending(_));
        if fires {
            self.phase = Phase::Capturing(trigger);
        }
        fires
    }

    /// Ends a quiet that is as long as the cooldown that holds now.
    fn end_cooldown(&mut self, now: Now, rule: &Rule) {
        if let Phase::Quiet { since } = self.phase
            && now.mono >= since.saturating_add(rule.cooldown)
        {
            self.phase = Phase::Watching;
        }
    }

    /// Whether an event was kept and no sample came after its cooldown.
    pub fn is_quiet(&self) -> bool {
        matches!(self.phase, Phase::Quiet { .. })
    }

    /// Its capture made an event: quiet from now on.
    pub fn event_kept(&mut self, now: Now) {
        self.phase = Phase::Quiet { since: now.mono };
    }

    /// Its capture made no event: another is asked for while the level holds.
    pub fn event_missed(&mut self) {
        if let Phase::Capturing(trigger) = self.phase {
            self.phase = Phase::RetryPending(trigger);
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
        let mut state = TriggerState::default();
        assert_eq!(state.sample(at(0), None, false, &RULE), None);
        assert_eq!(state.sample(at(10), Some(Trigger::Surge), true, &RULE), Some(Trigger::Surge));
        assert_eq!(state.sample(at(20), Some(Trigger::Surge), true, &RULE), None, "a capture is under way");
        state.event_kept(at(20));
        assert_eq!(state.sample(at(119), Some(Trigger::Surge), true, &RULE), None, "quiet for 100 s");
        assert_eq!(state.sample(at(120), Some(Trigger::Surge), true, &RULE), Some(Trigger::Surge));
    }

    #[test]
    fn a_level_that_outlasts_the_cooldown_is_told_again_as_sustained() {
        let mut state = TriggerState::default();
        assert!(state.sample(at(0), Some(Trigger::Surge), true, &RULE).is_some());
        state.event_kept(at(0));
        for time in (10..100).step_by(10) {
            assert_eq!(state.sample(at(time), None, true, &RULE), None);
        }
        assert_eq!(state.sample(at(100), None, true, &RULE), Some(Trigger::Sustained));
    }

    #[test]
    fn a_level_found_high_fires_after_so_many_samples_and_a_dip_starts_again() {
        let mut state = TriggerState::default();
        let levels = [true, true, false, true, true, true];
        let fired: Vec<_> = levels.iter().map(|high| state.sample(at(0), None, *high, &RULE)).collect();
        assert_eq!(fired, [None, None, None, None, None, Some(Trigger::Sustained)]);
        let never = Rule { sustained: 0, ..RULE };
        let mut state = TriggerState::default();
        assert!((0..100).all(|_| state.sample(at(0), None, true, &never).is_none()));
    }

    #[test]
    fn a_capture_that_brought_nothing_is_asked_for_again_while_the_level_holds() {
        let mut state = TriggerState::default();
        assert!(state.sample(at(0), Some(Trigger::Surge), true, &RULE).is_some());
        state.event_missed();
        assert_eq!(state.sample(at(1), None, true, &RULE), Some(Trigger::Surge));
        state.event_missed();
        assert_eq!(state.sample(at(2), None, false, &RULE), None, "it passed");
        assert_eq!(state.sample(at(3), None, true, &RULE), None, "and is retried no more");
    }

    #[test]
    fn an_edge_in_the_cooldown_is_not_missed_if_it_lasts() {
        let mut state = TriggerState::default();
        assert!(state.sample(at(0), Some(Trigger::Surge), true, &RULE).is_some());
        state.event_kept(at(0));
        assert_eq!(state.sample(at(50), None, false, &RULE), None);
        assert_eq!(state.sample(at(90), Some(Trigger::Surge), true, &RULE), None);
        assert_eq!(state.sample(at(100), None, true, &RULE), None);
        assert_eq!(state.sample(at(110), None, true, &RULE), Some(Trigger::Sustained));
    }

    #[test]
    fn an_occurrence_fires_unless_a_capture_is_under_way_or_the_cooldown_lasts() {
        let mut state = TriggerState::default();
        assert!(state.occurred(at(0), Trigger::Kill, &RULE));
        assert!(!state.occurred(at(1), Trigger::Kill, &RULE), "a capture is under way");
        state.event_missed();
        assert!(state.occurred(at(2), Trigger::Kill, &RULE), "the one before made no event");
        state.event_kept(at(3));
        assert!(!state.occurred(at(102), Trigger::Kill, &RULE), "quiet for 100 s");
        assert!(state.occurred(at(103), Trigger::Kill, &RULE));
    }

    #[test]
    fn another_cooldown_holds_for_a_quiet_that_has_begun() {
        let mut state = TriggerState::default();
        assert!(state.sample(at(0), Some(Trigger::Surge), true, &RULE).is_some());
        state.event_kept(at(0));
        let longer = Rule { cooldown: Duration::from_secs(500), ..RULE };
        assert_eq!(state.sample(at(499), Some(Trigger::Surge), true, &longer), None);
        assert!(!state.occurred(at(499), Trigger::Kill, &longer));
        let shorter = Rule { cooldown: Duration::from_secs(50), ..RULE };
        assert_eq!(state.sample(at(499), Some(Trigger::Surge), true, &shorter), Some(Trigger::Surge));
    }
}
