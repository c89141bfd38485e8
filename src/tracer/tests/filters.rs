//! What a tracer is not to watch is neither judged nor shown, whichever tracer it is.

use super::*;
use crate::capture_data::{Interferer, TaskGroup, Waited, Waits};
use crate::host::{ContainerCpu, ContainerMemory, Reading, TaskCounts, Unreclaimable};
use crate::tracer::play::Host;

const OF_CONTAINERS: [&str; 4] = ["cpuidle", "dload", "waitrate", "memburst"];

/// Two containers that are idle, and then both in need by every rule.
fn reading(at: Duration, busy: bool) -> Reading {
    let time = if busy { TEN } else { Duration::ZERO };
    Reading {
        at,
        cpu: Some(ContainerCpu { user: time, system: Duration::ZERO, total: time }),
        capacity_cores: Some(1.0),
        cpu_stall: Some(time),
        tasks: Some(TaskCounts {
            at,
            uninterruptible: 90 * u32::from(busy),
            longest: Duration::from_secs(90) * u32::from(busy),
            ..TaskCounts::default()
        }),
        memory: Some(ContainerMemory {
            held: Unreclaimable { all_bytes: if busy { 90 } else { 10 }, ..Unreclaimable::default() },
            usage_bytes: 90,
            limit_bytes: Some(100),
        }),
        ..Reading::default()
    }
}

/// A probe sees all containers, watched or not.
fn answer_probe(play: &mut Play, busy: bool) {
    let probe = play.seen.open.iter().find(|(_, request)| request.kind == CaptureKind::Probe);
    let Some((ticket, _)) = probe.copied() else { return };
    let waited = Waited { ran: TEN, all: if busy { TEN } else { Duration::ZERO }, ..Waited::default() };
    let data = CaptureData::Probe(rows([0, 1].map(|slot| (Play::key(slot), waited))));
    play.answer(ticket, Ok(&Capture { data, ..capture(CaptureKind::Probe, Scope::Host) }));
}

fn played(tracer: &str, keys: &str) -> (Play, Vec<Scope>) {
    let judged_by_probes =
        if tracer == "waitrate" { "probe_every = \"10s\"\nsustained_samples = 1\n" } else { "" };
    let mut play = Play::new(tracer, &format!("[tracer.{tracer}]\n{judged_by_probes}{keys}"), SIZE);
    play.containers(&[("aa", "/docker/aa"), ("bb", "/docker/bb")]);
    for busy in [false, false, true] {
        play.pass(TEN);
        play.tick(&Host::default(), &[reading(play.now.mono, busy); 2]);
        answer_probe(&mut play, busy);
    }
    let asked = play.seen.asked.iter().filter(|request| request.kind != CaptureKind::Probe);
    let scopes = asked.map(|request| request.scope).collect();
    (play, scopes)
}

#[test]
fn every_tracer_of_containers_judges_and_shows_only_those_that_it_watches() {
    for tracer in OF_CONTAINERS {
        let of = |slot| Scope::Container(Play::key(slot));
        let (mut play, scopes) = played(tracer, "");
        assert_eq!(scopes, [of(0), of(1)], "{tracer}");
        let page = play.scrape();
        assert!(page.contains("\"aa\"") && page.contains("\"bb\""), "{tracer}: {page}");
        for keys in ["exclude = [\"id:a*\"]", "include = [\"id:b?\", \"pod:x\"]"] {
            let (mut play, scopes) = played(tracer, keys);
            assert_eq!(scopes, [of(1)], "{tracer}: {keys}");
            let page = play.scrape();
            assert!(!page.contains("\"aa\"") && page.contains("\"bb\""), "{tracer}: {page}");
        }
    }
}

#[test]
fn what_someone_asks_about_is_captured_whatever_the_filter() {
    for tracer in OF_CONTAINERS {
        let mut play = Play::new(tracer, &format!("[tracer.{tracer}]\nexclude = [\"id:*\"]"), SIZE);
        play.containers(&[("aa", "/docker/aa")]);
        let ticket = play.ask(Some(Play::key(0))).expect("a capture");
        let scope = Scope::Container(Play::key(0));
        let kind = play.seen.asked[0].kind;
        assert_eq!(play.answer(ticket, Ok(&capture(kind, scope))), Some(Trigger::Manual), "{tracer}");
        assert_eq!(play.seen.events[0].1["container_id"], "aa");
    }
}

#[test]
fn who_is_not_watched_is_still_to_blame() {
    let mut play = Play::new("waitrate", "[tracer.waitrate]\nexclude = [\"id:bb\"]", SIZE);
    play.containers(&[("aa", "/docker/aa"), ("bb", "/docker/bb")]);
    let ticket = play.ask(Some(Play::key(0))).expect("a capture");
    let waits = Waits {
        whole: Waited { ran: TEN, all: TEN, external: TEN, ..Waited::default() },
        unread_cpus: 0,
        interferers: rows([Interferer { group: TaskGroup::Container(Play::key(1)), held: TEN }]),
        waiters: Rows::default(),
    };
    let found = Capture {
        scope: Scope::Container(Play::key(0)),
        began: BEGAN,
        lasted: TEN,
        lost: 0,
        data: CaptureData::Waits(waits),
    };
    play.answer(ticket, Ok(&found)).expect("an event");
    assert_eq!(play.seen.events[0].1["tracer_data"]["interferer_list"][0]["container_id"], "bb");
}
