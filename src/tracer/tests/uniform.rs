//! What holds for every tracer, whatever happens.

use std::collections::BTreeSet;

use crate::tracer::{TRACERS, Trigger, fuzz, iowait, reclaim};

/// A generator of scripts that are the same in each run (splitmix64).
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Scripts that are played to each tracer, at least and at most.
const SCRIPTS: usize = 400;
const SCRIPTS_MAX: usize = 4000;

#[test]
fn every_tracer_keeps_its_word_in_any_script_of_events() {
    let mut seeded = Seeded(7);
    for spec in TRACERS.iter().copied().chain([&iowait::SPEC, &reclaim::SPEC]) {
        let of_rules = [Trigger::Surge, Trigger::Sustained, Trigger::Manual];
        // What a hook tells of has a trigger of its tracer's own.
        let went_everywhere = |triggers: &[Trigger]| match spec.hook {
            None => of_rules.iter().all(|trigger| triggers.contains(trigger)),
            Some(_) => {
                [true, false].map(|manual| triggers.iter().any(|it| (*it == Trigger::Manual) == manual))
                    == [true; 2]
            }
        };
        let (mut triggers, mut faults, mut cut) = (Vec::new(), BTreeSet::new(), 0);
        for script in 0..SCRIPTS_MAX {
            // Some rules want more of chance than others.
            if script >= SCRIPTS && went_everywhere(&triggers) {
                break;
            }
            let len = seeded.next() % 6000;
            let random = (0..len).map(|_| seeded.next().to_le_bytes()[0]);
            let seen = fuzz::play_to(spec, &random.collect::<Vec<u8>>());
            triggers.extend(seen.events.iter().map(|(about, _)| about.trigger));
            faults.extend(seen.faults);
            cut +=
                seen.events.iter().filter(|(_, document)| document["tracer_data"]["truncated"] != 0).count();
        }
        assert!(went_everywhere(&triggers), "{} told of {triggers:?} only", spec.name);
        // What a hook tells of names a few processes only: that always fits.
        assert!(cut > 0 || spec.hook.is_some(), "no document of {} was too large", spec.name);
        assert_eq!(faults.len(), 4, "{}: {faults:?}", spec.name);
    }
}
