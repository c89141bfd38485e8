//! waitrate: judges by pressure where there is some, else by probes, each container by what is
//! usual for it, and tells who is to blame.

use super::*;
use crate::capture_data::{Interferer, Refusal, Request, TaskGroup, Waited, Waiter, Waits};
use crate::host::{ContainerCpu, Key, Reading, Throttling};
use crate::tracer::play::Host;

mod probes;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn waits() -> Waits<'static> {
    let whole = Waited {
        ran: ms(1000),
        all: ms(3000),
        inner: ms(300),
        external: ms(2100),
        throttled: ms(450),
        unheld: ms(120),
        waits: 77,
    };
    let cgroup = |path| TaskGroup::Cgroup(Some(path));
    let interferer = |group, held| Interferer { group, held: ms(held) };
    Waits {
        whole,
        unread_cpus: 0,
        interferers: rows([
            interferer(TaskGroup::Container(Play::key(1)), 1500),
            interferer(cgroup("/system.slice/x.service"), 590),
            interferer(TaskGroup::Cgroup(None), 10),
        ]),
        waiters: Rows::default(),
    }
}

/// A container whose tasks have run, waited and been throttled for so long until now.
#[derive(Clone, Copy, Default)]
struct Past {
    stalled: Option<Duration>,
    throttled: Duration,
}

impl Past {
    fn with_pressure() -> Past {
        Past { stalled: Some(ms(500_000)), ..Past::default() }
    }

    fn reading(&self, play: &Play) -> Reading {
        let throttling = Throttling { throttled: self.throttled, ..Throttling::default() };
        Reading {
            at: play.now.mono,
            cpu: Some(ContainerCpu::default()),
            cpu_stall: self.stalled,
            throttling: Some(throttling),
            ..Reading::default()
        }
    }
}

fn start(config: &str) -> Play {
    let mut play = Play::new("waitrate", &format!("[tracer.waitrate]\n{config}"), SIZE);
    play.containers(&[("a", "/docker/a"), ("b", "/docker/b")]);
    play
}

/// Ten seconds pass, and in `stalled` milliseconds of them a task of the first container waited.
fn pass(play: &mut Play, past: &mut Past, stalled: u64) {
    past.stalled = past.stalled.map(|before| before + ms(stalled));
    play.pass(TEN);
    let readings = [past.reading(play), Past::with_pressure().reading(play)];
    play.tick(&Host::default(), &readings);
}

/// The same, and the probe that is called for finds that its tasks ran for `ran` and waited for `waited`.
fn tick(play: &mut Play, past: &mut Past, ran: u64, waited: u64) {
    pass(play, past, 1000);
    probed(play, &[(Play::key(0), waiting(ran, waited))]);
}

/// A container of a v2 host, probed at each tick.
fn watching(config: &str) -> (Play, Past) {
    let (mut play, mut past) = (start(&format!("probe_every = \"10s\"\n{config}")), Past::with_pressure());
    tick(&mut play, &mut past, 0, 0);
    (play, past)
}

/// The same, of which is known that nobody waits usually.
fn known(config: &str) -> (Play, Past) {
    let (mut play, mut past) = watching(config);
    (0..10).for_each(|_| pass(&mut play, &mut past, 0));
    (play, past)
}

/// Samples a host whose containers have no files of pressure; `stall` is its own stall until now.
fn blind_tick(play: &mut Play, stall: Option<u64>, throttled: u64) {
    play.pass(TEN);
    let past = Past { throttled: ms(throttled), ..Past::default() };
    let readings = [past.reading(play), Past::default().reading(play)];
    play.tick(&Host { cpu_stall: stall.map(ms), ..Host::default() }, &readings);
}

fn probed(play: &mut Play, seen: &[(Key, Waited)]) {
    let (ticket, request) = *play.seen.open.last().expect("a probe");
    assert_eq!((request.kind, request.scope), (CaptureKind::Probe, Scope::Host));
    let data = CaptureData::Probe(rows(seen.iter().copied()));
    let told = play.answer(ticket, Ok(&Capture { data, ..capture(CaptureKind::Probe, Scope::Host) }));
    assert_eq!(told, None, "a probe is no event");
}

fn waiting(ran: u64, all: u64) -> Waited {
    Waited { ran: ms(ran), all: ms(all), inner: ms(all), ..Waited::default() }
}

fn of(kind: CaptureKind, asked: &[Request]) -> Vec<Scope> {
    asked.iter().filter(|request| request.kind == kind).map(|request| request.scope).collect()
}

fn probes(play: &Play) -> usize {
    of(CaptureKind::Probe, &play.seen.asked).len()
}

fn captures(play: &Play) -> usize {
    of(CaptureKind::Waits, &play.seen.asked).len()
}

#[test]
fn a_wait_past_the_floor_is_captured_and_one_at_it_is_not() {
    for (ran, waited, surge) in
        [(8000, 2000, false), (7900, 2100, true), (100, 300, true), (0, 5000, true), (1, 99, false)]
    {
        let (mut play, mut past) = known("");
        tick(&mut play, &mut past, ran, waited);
        let want: &[Scope] = if surge { &[Scope::Container(Play::key(0))] } else { &[] };
        assert_eq!(of(CaptureKind::Waits, &play.seen.asked), want, "{ran} {waited}");
    }
}

#[test]
fn a_container_on_many_cores_is_judged_by_all_that_its_tasks_wait() {
    // Eight busy cores with two tasks each: some task waits all the time, which is one second a second, and
    // eight are run. Held against each other they are a ninth, and never more.
    let (mut play, mut past) = known("");
    pass(&mut play, &mut past, 10_000);
    probed(&mut play, &[(Play::key(0), waiting(8000, 8000))]);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    let data = &play.seen.events[0].1["tracer_data"];
    assert_eq!((&data["curr_waitrate"], &data["source"]), (&50.0.into(), &"probe".into()));
    assert_eq!(data["pressure_percent"], 100.0, "and what called for the probe is told by its own name");
}

#[test]
fn a_probe_means_the_same_number_where_there_is_pressure_and_where_there_is_none() {
    let told = |pressure: bool| {
        let (mut play, mut past) =
            (start("probe_every = \"10s\"\nsustained_samples = 1"), Past::with_pressure());
        if !pressure {
            past.stalled = None;
        }
        pass(&mut play, &mut past, 9000);
        probed(&mut play, &[(Play::key(0), waiting(3000, 1500))]);
        answer_all(&mut play);
        let page = play.scrape();
        let lines = page.lines().filter(|line| line.starts_with("onset_container_wait_ratio"));
        (
            play.seen.events[0].1["tracer_data"]["curr_waitrate"].clone(),
            lines.map(String::from).collect::<Vec<_>>(),
        )
    };
    assert_eq!(told(true), told(false));
    assert_eq!(told(true).0, 33.33);
}

#[test]
fn a_probe_is_called_for_by_a_containers_own_pressure() {
    let (mut play, mut past) = known("");
    let before = probes(&play);
    pass(&mut play, &mut past, 99);
    assert_eq!(probes(&play), before, "less than a hundredth of ten seconds");
    assert!(play.scrape().contains("cause=\"inner\"} 0\n"), "and that is a sample: {}", play.scrape());
    pass(&mut play, &mut past, 100);
    assert_eq!(probes(&play), before + 1);
    probed(&mut play, &[]);
    past.throttled += ms(1);
    pass(&mut play, &mut past, 0);
    assert_eq!(probes(&play), before + 2, "a quota holds its tasks back");
    probed(&mut play, &[]);
    // Containers that are new count from zero.
    play.containers(&[("a", "/docker/a"), ("b", "/docker/b"), ("c", "/docker/c")]);
    play.pass(TEN);
    let new = Past { stalled: Some(ms(50)), ..Past::default() };
    let readings = [past.reading(&play), Past::with_pressure().reading(&play), new.reading(&play)];
    play.tick(&Host { cpu_stall: Some(ms(9_000_000)), ..Host::default() }, &readings);
    assert_eq!(probes(&play), before + 2, "whatever the host's pressure is: that of all of them is known");
}

#[test]
fn what_a_container_waited_before_it_was_seen_is_no_pressure_of_now() {
    // One is seen late: its tasks have waited for hours, or for less than the time between two probes.
    for earlier in [ms(9_000_000), ms(5000)] {
        let (mut play, mut past) =
            (start("probe_every = \"10s\"\nsustained_samples = 1"), Past::with_pressure());
        pass(&mut play, &mut past, 0);
        probed(&mut play, &[]);
        play.containers(&[("a", "/docker/a"), ("b", "/docker/b"), ("c", "/docker/c")]);
        let mut late = Past { stalled: Some(earlier), ..Past::default() };
        for (stalled, pressure) in [(0, None), (2500, Some(25.0))] {
            late.stalled = late.stalled.map(|before| before + ms(stalled));
            play.pass(TEN);
            let readings = [past.reading(&play), Past::with_pressure().reading(&play), late.reading(&play)];
            play.tick(&Host::default(), &readings);
            probed(&mut play, &[(Play::key(2), waiting(1000, 3000))]);
            play.ask(Some(Play::key(2))).expect("a capture");
            answer_all(&mut play);
            let data = &play.seen.events.last().expect("an event").1["tracer_data"];
            assert_eq!(data["curr_waitrate"], 75.0);
            let told = data.get("pressure_percent").and_then(serde_json::Value::as_f64);
            assert_eq!(told, pressure, "{earlier:?}");
        }
    }
}

#[test]
fn without_a_baseline_a_wait_must_hold_and_the_document_says_so() {
    let mut play = start("probe_every = \"10s\"");
    let mut past = Past::with_pressure();
    for step in 0..5 {
        tick(&mut play, &mut past, 1000, 3000);
        assert_eq!(captures(&play), 0, "nothing is known of what is usual: {step}");
    }
    tick(&mut play, &mut past, 1000, 3000);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Sustained)]);
    let data = play.seen.events[0].1["tracer_data"].clone();
    assert_eq!((&data["baseline"], &data["baseline_samples"]), (&"none".into(), &5.into()));
    assert_eq!((&data["curr_waitrate"], &data["rel_waitrate_thres"]), (&75.0.into(), &20.0.into()));
    for unknown in ["mean", "std", "slope_thres"] {
        assert!(data.get(unknown).is_none(), "{unknown} of {data}");
    }
    // One that waits for a moment after the start is none.
    let (mut play, mut past) = watching("");
    for (ran, waited) in [(0, 9000), (9000, 100), (0, 9000)] {
        tick(&mut play, &mut past, ran, waited);
    }
    assert_eq!(captures(&play), 0);
}

#[test]
fn what_is_usual_for_a_container_is_no_surge_and_what_is_not_is() {
    let (mut play, mut past) = watching("sustained_samples = 0\nfloor_percent = 5\ncooldown = \"0s\"");
    // Between 28 and 32 percent, for half an hour.
    for step in 0..180_u64 {
        let waited = 2800 + step % 5 * 100;
        tick(&mut play, &mut past, 10_000 - waited, waited);
        answer_all(&mut play);
    }
    let before = captures(&play);
    tick(&mut play, &mut past, 6700, 3300);
    assert_eq!(captures(&play), before, "mean 30, three deviations are 4.2");
    tick(&mut play, &mut past, 6500, 3500);
    assert_eq!(captures(&play), before + 1);
    answer_all(&mut play);
    let (_, document) = play.seen.events.last().expect("an event");
    let number = |name: &str| document["tracer_data"][name].as_f64().expect("a number");
    assert_eq!((number("curr_waitrate"), &document["tracer_data"]["baseline"]), (35.0, &"history".into()));
    assert!(number("baseline_samples") >= 160.0, "{document}");
    assert!((number("mean") - 30.0).abs() < 0.1 && (number("std") - 1.43).abs() < 0.05, "{document}");
    assert!((number("rel_waitrate_thres") - 34.3).abs() < 0.2, "{document}");
    // Two percent in ten seconds; from the mean to the threshold it is 4.3.
    assert!((number("curr_slope") - 12.0).abs() < 0.1 && (number("slope_thres") - 25.8).abs() < 1.5);
}

#[test]
fn an_event_says_who_is_to_blame_by_container_and_by_cgroup() {
    let (mut play, mut past) = known("");
    tick(&mut play, &mut past, 2500, 7500);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    let (about, document) = &play.seen.events[0];
    assert_eq!(about.subject, Some(Play::key(0)));
    assert_eq!(document["container_id"], "a");
    let want = serde_json::json!({
        "trigger": "surge", "duration_ms": 10_000, "capture_began_ms": -130_000, "lost_samples": 3, "truncated": 0,
        "curr_waitrate": 75.0, "source": "probe", "pressure_percent": 10.0, "rel_waitrate_thres": 20.0,
        "baseline": "history", "baseline_samples": 11, "mean": 0.0, "std": 0.0,
        "curr_slope": 450.0, "slope_thres": 120.0,
        "warn_type": "external", "wait_percent": 75.0, "wait_ms": 3000, "run_ms": 1000,
        "inner_percent": 10.0, "external_percent": 70.0, "throttled_percent": 15.0,
        "unheld_percent": 4.0, "unsplit_percent": 1.0,
        "interferer_list": [
            { "container_id": "b", "cgroup_path": "/docker/b", "wait_ms": 1500, "percent": 50.0 },
            { "cgroup_path": "/system.slice/x.service", "wait_ms": 590, "percent": 19.67 },
            { "wait_ms": 10, "percent": 0.33 },
        ],
    });
    assert_eq!(document["tracer_data"], want);
}

#[test]
fn the_warning_is_of_the_largest_cause() {
    for (inner, external, throttled, want) in
        [(5, 4, 3, Some("inner")), (1, 2, 9, Some("throttled")), (0, 1, 0, Some("external")), (0, 0, 0, None)]
    {
        let (mut play, _) = watching("");
        let ticket = play.ask(None).expect("a capture of the host");
        let parts = Waited {
            all: ms(20),
            inner: ms(inner),
            external: ms(external),
            throttled: ms(throttled),
            ..Waited::default()
        };
        let group = TaskGroup::Cgroup(Some("/"));
        let waiters = rows([Waiter { group, time: Waited { all: ms(5), ..Waited::default() } }]);
        let data =
            CaptureData::Waits(Waits { whole: parts, unread_cpus: 3, interferers: Rows::default(), waiters });
        let found = Capture { data, ..capture(CaptureKind::Waits, Scope::Host) };
        assert_eq!(play.answer(ticket, Ok(&found)), Some(Trigger::Manual));
        let data = &play.seen.events[0].1["tracer_data"];
        assert_eq!(data.get("warn_type").and_then(|kind| kind.as_str()), want);
        assert_eq!(
            data["waiters"],
            serde_json::json!([{ "cgroup_path": "/", "wait_ms": 5, "percent": 25.0 }])
        );
        assert_eq!(data["unread_cpus"], 3, "it says what it lacks");
        assert!(data.get("curr_waitrate").is_none(), "nothing was read of the host");
    }
}

#[test]
fn what_the_quota_took_is_shown_by_its_cause() {
    let (mut play, mut past) = known("");
    past.throttled += ms(8000);
    pass(&mut play, &mut past, 0);
    let held = Waited { ran: ms(200), all: ms(800), throttled: ms(800), ..Waited::default() };
    probed(&mut play, &[(Play::key(0), held)]);
    assert_eq!(captures(&play), 1);
    let page = play.scrape();
    let labels = "container_id=\"a\",container=\"\",pod=\"\",namespace=\"\"";
    for (cause, share) in [("throttled", 0.8), ("external", 0.0), ("unsplit", 0.0)] {
        let line = format!("onset_container_wait_ratio{{{labels},cause=\"{cause}\"}} {share}\n");
        assert!(page.contains(&line), "{line} in {page}");
    }
    assert!(page.contains(&format!("onset_container_throttled_seconds_total{{{labels}}} 8\n")), "{page}");
}

#[test]
fn a_level_that_holds_is_told_of_though_it_has_become_usual() {
    let (mut play, mut past) = known("cooldown = \"100s\"");
    tick(&mut play, &mut past, 5000, 5000);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    for _ in 0..9 {
        tick(&mut play, &mut past, 5000, 5000);
        assert_eq!(captures(&play), 1, "quiet");
    }
    tick(&mut play, &mut past, 5000, 5000);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Sustained)]);
}

#[test]
fn counters_that_went_back_call_for_a_probe() {
    let (mut play, mut past) = known("");
    let before = probes(&play);
    past.stalled = Some(Duration::ZERO);
    pass(&mut play, &mut past, 0);
    assert_eq!(probes(&play), before + 1, "nothing is known of this time");
}

#[test]
fn throttled_time_that_went_back_calls_for_a_probe_too() {
    let (mut play, mut past) = known("");
    past.throttled = ms(3_600_000);
    pass(&mut play, &mut past, 0);
    probed(&mut play, &[]);
    let before = probes(&play);
    past.throttled = Duration::ZERO;
    pass(&mut play, &mut past, 0);
    assert_eq!(probes(&play), before + 1, "whether it was held back in this time is not known");
}
