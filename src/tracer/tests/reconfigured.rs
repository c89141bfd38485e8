//! A reload, for every tracer that there is and each of its keys: it judges by the new ones from then on, as
//! one that was built with them, and forgets nothing.

use serde_json::Value as Json;
use toml::Value as Toml;

use super::uniform::Seeded;
use super::*;
use crate::capture_data::Request;
use crate::config::{Knob, Value};
use crate::host::{Reading, TaskCounts};
use crate::tracer::play::{Host, Recorder};
use crate::tracer::{About, KnobSource, KnownIssue, Settings, Spec, TRACERS, fuzz, iowait, reclaim};

/// Scripts that are played for each key, at least and at most.
const SCRIPTS: usize = 6;
const SCRIPTS_MAX: usize = 2000;

/// Bytes of a script in which rules fire, and of one in which something becomes usual.
const SHORT: u64 = 6000;
const LONG: u64 = 60_000;

fn script(seeded: &mut Seeded, longest: u64) -> Vec<u8> {
    let length = seeded.next() % longest;
    (0..length).map(|_| seeded.next().to_le_bytes()[0]).collect()
}

/// Every tracer, and those of the page on how to add one.
fn all() -> impl Iterator<Item = &'static Spec> {
    TRACERS.iter().copied().chain([&iowait::SPEC, &reclaim::SPEC])
}

/// All that a tracer did.
fn deeds(seen: Recorder) -> (Vec<Request>, Vec<(About, Json)>, Vec<&'static str>) {
    (seen.asked, seen.events, seen.faults)
}

/// Keys that are the tracer's own matter: the loop starts and stops it, and chooses its containers.
fn keys(spec: &Spec) -> Vec<Knob> {
    let all = spec.common_knobs().into_iter().chain(spec.knobs.iter().copied());
    all.filter(|knob| !["enabled", "include", "exclude"].contains(&knob.key)).collect()
}

/// Whether a key is one that the tracer's hook filters by, in the kernel.
fn is_of_hook(spec: &Spec, key: &'static str) -> bool {
    spec.hook.is_some_and(|hook| hook.knobs.iter().any(|knob| knob.source == KnobSource::Key(key)))
}

/// Values of a key, some of which are not its default.
fn values(knob: &Knob) -> Vec<Toml> {
    let whole = |count: u64| Toml::Integer(count.try_into().expect("a small number"));
    let time = |time: Duration| Toml::String(format!("{}ms", time.as_millis()));
    match knob.default {
        Value::Count(default, least, most) => vec![whole(least), whole((default * 2 + 1).min(most))],
        Value::Number(default) => {
            vec![Toml::Float(0.0), Toml::Float(default / 2.0), Toml::Float(default * 2.0)]
        }
        Value::Time(default, least, most) => vec![time(least), time((default * 2).min(most)), time(most)],
        other => panic!("{} is {other}: say here which other values it takes", knob.key),
    }
}

fn with(settings: &Settings, knob: &Knob, value: &Toml) -> Settings {
    Settings::new(settings.values().with(knob, value), settings.known_issues().to_vec())
}

/// Keys beside this one, without which it rarely matters.
fn beside(spec: &Spec, key: &str) -> Vec<(Knob, Toml)> {
    let others: &[(&str, Toml)] = match (spec.name, key) {
        ("waitrate", "deviations") => &[
            ("floor_percent", Toml::Float(0.0)),
            ("history", Toml::String("24h".into())),
            ("probe_every", Toml::String("10s".into())),
        ],
        _ => &[],
    };
    let knob = |key: &str| *spec.knobs.iter().find(|knob| knob.key == key).expect("a key");
    others.iter().map(|(key, value)| (knob(key), value.clone())).collect()
}

/// Plays a script to a tracer that has these keys, by a reload or from its start on.
fn played(spec: &'static Spec, data: &[u8], keys: &[(Knob, Toml)], reload: bool) -> Recorder {
    let mut first = true;
    fuzz::play_with(spec, data, &mut |play| {
        if std::mem::take(&mut first) {
            let settings =
                keys.iter().fold(play.settings.clone(), |all, (knob, value)| with(&all, knob, value));
            if reload { play.reconfigure(&settings) } else { play.build(&settings) }
        }
    })
}

#[test]
fn a_reload_of_any_key_makes_a_tracer_judge_and_tell_as_one_built_with_it() {
    let mut seeded = Seeded(11);
    for spec in all() {
        for knob in keys(spec) {
            // No rule fires for a tracer that the kernel tells of its events, and few look at the interval.
            let may_matter =
                ["every", "cooldown", "sustained_samples"].contains(&knob.key) || is_of_hook(spec, knob.key);
            let most = if may_matter { SCRIPTS } else { SCRIPTS_MAX };
            let (beside, mut matters) = (beside(spec, knob.key), false);
            let longest = if beside.is_empty() { SHORT } else { LONG };
            for number in 0..most {
                if number >= SCRIPTS && matters {
                    break;
                }
                let data = script(&mut seeded, longest);
                for value in values(&knob) {
                    let changed = [&beside[..], &[(knob, value.clone())]].concat();
                    let built = deeds(played(spec, &data, &changed, false));
                    let same = deeds(played(spec, &data, &changed, true)) == built;
                    assert!(same, "{}.{} = {value} is not taken up by a reload", spec.name, knob.key);
                    matters = matters || deeds(played(spec, &data, &beside, false)) != built;
                }
            }
            assert!(matters || may_matter, "{}.{} changes nothing that is seen here", spec.name, knob.key);
        }
    }
}

/// A reload that changes every key, and one more that takes it back.
fn there_and_back(play: &mut Play, seeded: &mut Seeded) {
    let before = play.settings.clone();
    let mut other = before.clone();
    for knob in keys(play.spec) {
        let all = values(&knob);
        let place = usize::try_from(seeded.next() % all.len() as u64).expect("few values");
        other = with(&other, &knob, &all[place]);
    }
    play.reconfigure(&other);
    play.reconfigure(&before);
}

#[test]
fn a_reload_keeps_cooldowns_baselines_histories_and_open_captures_of_every_tracer() {
    let mut seeded = Seeded(13);
    for spec in all() {
        let mut forgetful = 0;
        for _ in 0..200 {
            let data = script(&mut seeded, SHORT);
            let undisturbed = deeds(fuzz::play_to(spec, &data));
            let reloaded = fuzz::play_with(spec, &data, &mut |play| there_and_back(play, &mut seeded));
            assert!(deeds(reloaded) == undisturbed, "{} forgot something at a reload", spec.name);
            // One that is built anew would be seen here, be it only before its first event.
            let rebuilt = fuzz::play_with(spec, &data, &mut |play| {
                if play.seen.open.is_empty() && play.seen.events.is_empty() {
                    let settings = play.settings.clone();
                    play.build(&settings);
                }
            });
            forgetful += u32::from(deeds(rebuilt) != undisturbed);
        }
        // What the kernel tells of is remembered by nobody.
        assert!(forgetful > 0 || spec.hook.is_some(), "{} has nothing to forget in these scripts", spec.name);
    }
}

#[test]
fn every_tracer_keeps_its_word_though_its_keys_change_in_the_middle_of_a_script() {
    let mut seeded = Seeded(17);
    for spec in all() {
        // A cooldown is what the scripts hold a tracer to.
        let keys: Vec<Knob> = keys(spec).into_iter().filter(|knob| knob.key != "cooldown").collect();
        let mut changes = 0;
        for _ in 0..200 {
            let data = script(&mut seeded, SHORT);
            fuzz::play_with(spec, &data, &mut |play| {
                let chosen = &keys[usize::try_from(seeded.next()).unwrap_or(0) % keys.len()];
                if seeded.next().is_multiple_of(8) {
                    let all = values(chosen);
                    let value = &all[usize::try_from(seeded.next()).unwrap_or(0) % all.len()];
                    play.reconfigure(&with(&play.settings, chosen, value));
                    changes += 1;
                }
            });
        }
        assert!(changes > 100, "{}: {changes}", spec.name);
    }
}

#[test]
fn one_more_known_issue_names_the_stack_of_a_capture_that_is_open_and_ends_no_cooldown() {
    let mut play = Play::new("dload", "[tracer.dload]\nsustained_samples = 1", SIZE);
    play.containers(&[("a", "/a")]);
    let blocked = TaskCounts { uninterruptible: 90, ..TaskCounts::default() };
    let tick = |play: &mut Play| {
        play.pass(TEN);
        let at = play.now.mono;
        let reading = Reading { at, tasks: Some(TaskCounts { at, ..blocked }), ..Reading::default() };
        play.tick(&Host::default(), &[reading]);
    };
    tick(&mut play);
    tick(&mut play);
    assert_eq!(play.seen.open.len(), 1);
    let issue = |name: &str| KnownIssue { name: name.into(), frames: vec!["rpc_".into()] };
    let settings = Settings::new(play.settings.values().clone(), vec![issue("nfs")]);
    play.reconfigure(&settings);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    assert_eq!(play.seen.events[0].1["tracer_data"]["known_issue"], "nfs");
    let settings = Settings::new(play.settings.values().clone(), vec![issue("nfs"), issue("other")]);
    for _ in 0..20 {
        play.reconfigure(&settings);
        tick(&mut play);
    }
    assert_eq!(play.seen.asked.len(), 1, "it is quiet for half an hour, whatever is known of stacks");
}
