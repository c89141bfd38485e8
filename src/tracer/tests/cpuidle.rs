//! cpuidle: fires exactly where its rules say, for every container, and is quiet where it must be.

use super::*;
use crate::capture_data::Refusal;
use crate::host::{ContainerCpu, Reading};
use crate::tracer::play::Host;

/// A container that has used so much until now.
#[derive(Clone, Copy)]
struct Used {
    cpu: ContainerCpu,
    cores: f64,
}

impl Used {
    fn of(cores: f64) -> Used {
        let start = Duration::from_secs(5000);
        Used { cpu: ContainerCpu { user: start, system: start, total: start * 2 }, cores }
    }

    /// Uses `user` and `system` percent of its cores for ten seconds.
    fn spends(&mut self, user: f64, system: f64) {
        let time = |percent: f64| Duration::from_secs_f64(TEN.as_secs_f64() * self.cores * percent / 100.0);
        self.cpu.user += time(user);
        self.cpu.system += time(system);
        self.cpu.total += time(user) + time(system);
    }

    fn reading(&self, play: &Play) -> Reading {
        Reading {
            at: play.now.mono,
            cpu: Some(self.cpu),
            capacity_cores: Some(self.cores),
            ..Reading::default()
        }
    }
}

fn start(config: &str, list: &[(&str, &str)]) -> Play {
    let mut play = Play::new("cpuidle", &format!("[tracer.cpuidle]\n{config}"), SIZE);
    play.containers(list);
    play
}

/// A tick of one container after ten seconds of this use.
fn tick(play: &mut Play, used: &mut Used, user: f64, system: f64) {
    used.spends(user, system);
    play.pass(TEN);
    let reading = used.reading(play);
    play.tick(&Host::default(), &[reading]);
}

/// One container with a sample behind it.
fn watching(config: &str, user: f64, system: f64) -> (Play, Used) {
    let (mut play, mut used) = (start(config, &[("a", "/a")]), Used::of(1.0));
    tick(&mut play, &mut used, 0.0, 0.0);
    tick(&mut play, &mut used, user, system);
    (play, used)
}

#[test]
fn it_fires_exactly_where_its_rules_say() {
    let table = [
        // user and system before and after, and whether this is a surge
        ((10.0, 0.0), (76.0, 0.0), true),
        ((30.0, 0.0), (76.0, 0.0), true),
        ((31.0, 0.0), (76.0, 0.0), false),  // rose by 45
        ((10.0, 0.0), (75.0, 0.0), false),  // is at 75
        ((0.0, 10.0), (0.0, 46.0), true),   // system
        ((0.0, 26.0), (0.0, 46.0), false),  // rose by 20
        ((0.0, 10.0), (0.0, 45.0), false),  // is at 45
        ((20.0, 10.0), (60.0, 31.0), true), // both together
        ((20.0, 16.0), (60.0, 31.0), false),
        ((20.0, 10.0), (60.0, 30.0), false),
        ((90.0, 5.0), (20.0, 5.0), false), // fell
        ((0.0, 0.0), (100.0, 0.0), true),
    ];
    for cores in [0.5, 1.0, 8.0] {
        for (before, after, surge) in table {
            let (mut play, mut used) = (start("", &[("a", "/a")]), Used::of(cores));
            tick(&mut play, &mut used, 0.0, 0.0);
            tick(&mut play, &mut used, before.0, before.1);
            assert_eq!(play.seen.asked, [], "nothing yet");
            tick(&mut play, &mut used, after.0, after.1);
            assert_eq!(play.seen.asked.len(), usize::from(surge), "{before:?} {after:?} of {cores}");
        }
    }
}

#[test]
fn an_event_says_what_was_read_and_against_what() {
    let (mut play, mut used) = watching("user_rise = 40", 30.0, 1.0);
    used.cores = 0.5;
    play.pass(TEN);
    used.spends(80.0, 10.0);
    let reading = used.reading(&play);
    play.tick(&Host::default(), &[reading]);
    let fired = play.now.wall;
    play.pass(TEN);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    let (about, document) = &play.seen.events[0];
    assert_eq!((about.subject, about.time), (Some(Play::key(0)), fired));
    assert_eq!(document["container_id"], "a");
    assert_eq!(document["cgroup_path"], "/a");
    assert_eq!(document["tracer_type"], "autotracing");
    assert_eq!(document["tracer_time"], fired.to_string());
    let want = serde_json::json!({
        "trigger": "surge", "duration_ms": 10_000, "capture_began_ms": -40_000, "lost_samples": 3, "truncated": 0, "capacity_cores": 0.5,
        "user_percent": 80.0, "user_percent_threshold": 75.0,
        "user_percent_delta": 50.0, "user_percent_delta_threshold": 40.0,
        "system_percent": 10.0, "system_percent_threshold": 45.0,
        "system_percent_delta": 9.0, "system_percent_delta_threshold": 20.0,
        "total_percent": 90.0, "total_percent_threshold": 90.0,
        "total_percent_delta": 59.0, "total_percent_delta_threshold": 55.0,
        "sampling_hz": 99, "samples": 5,
        "flamedata": [
            { "level": 0, "value": 5, "self": 0, "label": "all" },
            { "level": 1, "value": 5, "self": 1, "label": "sh" },
            { "level": 2, "value": 4, "self": 4, "label": "spin_[k]" },
        ],
        "top_processes": [{ "pid": 7, "comm": "sh", "samples": 5 }],
    });
    assert_eq!(document["tracer_data"], want);
}

#[test]
fn two_containers_that_surge_in_one_tick_are_both_captured() {
    let mut play = start("", &[("a", "/a"), ("b", "/b"), ("c", "/c")]);
    let mut used = [Used::of(1.0); 3];
    for user in [[0.0; 3], [5.0; 3], [90.0, 5.0, 95.0]] {
        play.pass(TEN);
        for (used, user) in used.iter_mut().zip(user) {
            used.spends(user, 0.0);
        }
        let readings = used.map(|used| used.reading(&play));
        play.tick(&Host::default(), &readings);
    }
    let scopes: Vec<Scope> = play.seen.asked.iter().map(|request| request.scope).collect();
    assert_eq!(scopes, [Scope::Container(Play::key(0)), Scope::Container(Play::key(2))]);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge); 2]);
    let ids: Vec<_> = play.seen.events.iter().map(|(_, document)| document["container_id"].clone()).collect();
    assert_eq!(ids, ["a", "c"]);
}

#[test]
fn after_an_event_there_is_quiet_and_then_a_level_that_held_is_told_of() {
    let (mut play, mut used) = watching("cooldown = \"100s\"", 0.0, 0.0);
    tick(&mut play, &mut used, 95.0, 0.0);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    // The edges fall into the cooldown, and the level stays high.
    for user in [0.0, 95.0, 0.0, 95.0, 95.0, 95.0, 95.0, 95.0, 95.0] {
        tick(&mut play, &mut used, user, 0.0);
        assert_eq!(play.seen.asked.len(), 1, "quiet");
    }
    tick(&mut play, &mut used, 95.0, 0.0);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Sustained)]);
}

#[test]
fn a_level_that_was_high_from_the_start_is_told_of_after_six_samples() {
    let (mut play, mut used) = watching("", 0.0, 60.0);
    for _ in 0..4 {
        tick(&mut play, &mut used, 0.0, 60.0);
    }
    assert_eq!(play.seen.asked, [], "five samples");
    tick(&mut play, &mut used, 0.0, 60.0);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Sustained)]);
}

#[test]
fn counters_that_went_back_begin_anew() {
    let (mut play, mut used) = watching("", 5.0, 0.0);
    used.cpu = ContainerCpu::default();
    tick(&mut play, &mut used, 95.0, 0.0);
    assert!(!play.scrape().contains("onset_container_cpu_ratio{"), "nothing is known of this time");
    tick(&mut play, &mut used, 95.0, 0.0);
    assert_eq!(play.seen.asked, [], "a level with nothing to compare it to is no rise");
    tick(&mut play, &mut used, 5.0, 0.0);
    tick(&mut play, &mut used, 95.0, 0.0);
    assert_eq!(play.seen.asked.len(), 1);
}

#[test]
fn a_mode_that_steps_back_does_not_hide_the_others() {
    let counters: [fn(&mut ContainerCpu) -> &mut Duration; 2] = [|cpu| &mut cpu.system, |cpu| &mut cpu.total];
    for (step, counter) in [10, 60_000].into_iter().flat_map(|step| counters.map(|counter| (step, counter))) {
        let (mut play, mut used) = watching("", 5.0, 0.0);
        used.spends(90.0, 0.0);
        let before = used.cpu;
        *counter(&mut used.cpu) -= TEN + Duration::from_millis(step);
        tick(&mut play, &mut used, 0.0, 0.0);
        assert!(play.scrape().contains("mode=\"user\"} 0.9\n"), "{}", play.scrape());
        assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)], "{step} ms back");
        let data = &play.seen.events[0].1["tracer_data"];
        assert_eq!(data["user_percent"], 90.0);
        used.cpu = before;
        // What was not known is nothing to have risen from.
        tick(&mut play, &mut used, 5.0, 0.0);
        assert_eq!(play.seen.asked.len(), 1);
    }
}

#[test]
fn elapsed_time_is_measured() {
    let (mut play, mut used) = watching("", 30.0, 0.0);
    // A tick that came late finds twice the use in twice the time.
    play.pass(TEN);
    used.spends(30.0, 0.0);
    tick(&mut play, &mut used, 30.0, 0.0);
    assert!(play.scrape().contains("mode=\"user\"} 0.3\n"), "{}", play.scrape());
    // One right after another finds noise, and waits.
    play.pass(Duration::from_millis(20));
    used.cpu.user += Duration::from_millis(20);
    used.cpu.total += Duration::from_millis(20);
    let reading = used.reading(&play);
    play.tick(&Host::default(), &[reading]);
    assert_eq!(play.seen.asked, []);
    assert!(play.scrape().contains("mode=\"user\"} 0.3\n"), "{}", play.scrape());
}

#[test]
fn sampling_goes_on_while_a_capture_runs() {
    let (mut play, mut used) = watching("cooldown = \"0s\"", 0.0, 0.0);
    tick(&mut play, &mut used, 95.0, 0.0);
    tick(&mut play, &mut used, 20.0, 5.0);
    assert!(play.scrape().contains(
        "onset_container_cpu_ratio{container_id=\"a\",container=\"\",pod=\"\",namespace=\"\",mode=\"system\"} 0.05\n"
    ));
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    assert_eq!(play.seen.events[0].1["tracer_data"]["user_percent"], 95.0, "as it was when it fired");
    tick(&mut play, &mut used, 95.0, 0.0);
    assert_eq!(play.seen.asked.len(), 2, "the sample in between was taken: this is a rise");
}

#[test]
fn an_event_is_owed_until_it_is_kept() {
    let (mut play, mut used) = watching("sustained_samples = 0", 0.0, 0.0);
    tick(&mut play, &mut used, 95.0, 0.0);
    let refused = |play: &mut Play| play.answer(play.seen.open[0].0, Err(Refusal::OverBudget));
    let empty = |play: &mut Play| {
        let (ticket, request) = play.seen.open[0];
        let nothing = CaptureData::Stacks(Profile::default());
        play.answer(ticket, Ok(&Capture { data: nothing, ..capture(request.kind, request.scope) }))
    };
    let not_kept = |play: &mut Play| {
        play.seen.keeps = false;
        let told = answer_all(play)[0];
        play.seen.keeps = true;
        told
    };
    let answers: [fn(&mut Play) -> Option<Trigger>; 3] = [refused, empty, not_kept];
    for answer in answers {
        assert_eq!(answer(&mut play), None);
        tick(&mut play, &mut used, 95.0, 0.0);
        assert_eq!(play.seen.open.len(), 1, "asked for again");
    }
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    tick(&mut play, &mut used, 95.0, 0.0);
    assert_eq!(play.seen.open, [], "and now it is told");
}

#[test]
fn who_asks_is_answered_past_thresholds_and_cooldown_and_changes_nothing() {
    let (mut play, mut used) = watching("", 10.0, 5.0);
    play.ask(Some(Play::key(0))).expect("a capture");
    play.ask(None).expect("a capture of the host");
    assert_eq!(play.seen.asked[1].scope, Scope::Host);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Manual); 2]);
    let [(_, container), (_, host)] = &play.seen.events[..] else { panic!("two events") };
    assert_eq!(container["tracer_type"], "manual");
    assert_eq!(container["tracer_data"]["total_percent"], 15.0);
    assert!(host.get("container_id").is_none());
    let host = host["tracer_data"].as_object().expect("an object");
    assert!(
        !host.contains_key("user_percent") && !host.contains_key("capacity_cores"),
        "not known: {host:?}"
    );
    tick(&mut play, &mut used, 95.0, 0.0);
    assert_eq!(play.seen.asked.len(), 3, "no quiet after it");
    play.ask(Some(Play::key(0))).expect("also while another runs");
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge), Some(Trigger::Manual)]);
    play.ask(Some(Play::key(0))).expect("also in the cooldown");
}

#[test]
fn a_container_without_a_known_capacity_is_not_judged() {
    for cores in [None, Some(0.0), Some(-1.0), Some(f64::NAN), Some(f64::INFINITY)] {
        let (mut play, mut used) = (start("sustained_samples = 1", &[("a", "/a")]), Used::of(1.0));
        for user in [0.0, 0.0, 99.0, 99.0] {
            used.spends(user, 0.0);
            play.pass(TEN);
            let reading = Reading { capacity_cores: cores, ..used.reading(&play) };
            play.tick(&Host::default(), &[reading]);
        }
        assert_eq!(play.seen.asked, [], "{cores:?}");
    }
}

#[test]
fn a_surge_that_finds_no_room_for_its_case_is_captured_later() {
    let (mut play, mut used) = watching("sustained_samples = 0", 0.0, 0.0);
    while play.ask(None).is_some() {}
    assert_eq!(std::mem::take(&mut play.seen.faults), ["cases_full"]);
    let full = play.seen.asked.len();
    tick(&mut play, &mut used, 95.0, 0.0);
    assert_eq!((play.seen.asked.len(), &play.seen.faults[..]), (full, &["cases_full"][..]));
    answer_all(&mut play);
    tick(&mut play, &mut used, 95.0, 0.0);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
}
