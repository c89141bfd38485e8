//! oom: every kill is an event, whatever becomes of its capture.

use super::*;
use crate::capture_data::Refusal;
use crate::host::{Key, Memory, Unreclaimable};
use crate::tracer::Event;
use crate::tracer::oom::record;
use crate::tracer::play::Host;

fn start() -> Play {
    let mut play = Play::new("oom", "[tracer.oom]\ntop = 1", SIZE);
    play.containers(&[("a", "/docker/a")]);
    play
}

pub(super) fn kill(play: &mut Play, key: Option<Key>, limit_bytes: u64) {
    play.event(Event::Record(&record(key, limit_bytes, &["docker", "a"])));
}

#[test]
fn an_event_names_the_victim_the_killer_and_the_limit() {
    let mut play = start();
    let held = Unreclaimable::of(Some(30), Some(7), Some(9), [None; 2]).expect("enough");
    let memory = Memory { total_bytes: 100, available_bytes: 20, held };
    play.tick(&Host { memory: Some(memory), ..Host::default() }, &[]);
    kill(&mut play, Some(Play::key(0)), 6_000);
    assert_eq!(play.seen.asked[0].scope, Scope::Container(Play::key(0)));
    assert_eq!(answer_all(&mut play), [Some(Trigger::Kill)]);
    let document = &play.seen.events[0].1;
    assert_eq!((&document["container_id"], &document["tracer_type"]), (&"a".into(), &"event".into()));
    let want = serde_json::json!({
        "trigger": "kill", "duration_ms": 10_000, "capture_began_ms": -10_000, "lost_samples": 3, "truncated": 0,
        "victim": { "pid": 77, "comm": "victim", "rss_bytes": 4_500, "container_id": "a" },
        "killer": { "pid": 78, "comm": "kill", "container_id": "a" },
        "oom_cgroup_path": "/docker/a", "limit_bytes": 6_000, "usage_bytes": 5_000,
        "host_memory": { "total_bytes": 100, "available_bytes": 20, "anon_bytes": 30, "shmem_bytes": 7, "locked_bytes": 9 },
        "top_memory_usage": [{ "pid": 7, "comm": "sh", "rss_bytes": 1 << 20 }],
    });
    assert_eq!(document["tracer_data"], want);
}

#[test]
fn what_is_not_known_is_left_out() {
    let mut play = start();
    play.tick(&Host { memory: Some(Memory::default()), ..Host::default() }, &[]);
    play.pass(TEN);
    kill(&mut play, None, u64::MAX);
    assert_eq!(play.seen.asked[0].scope, Scope::Host);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Kill)]);
    let data = play.seen.events[0].1["tracer_data"].as_object().expect("an object");
    assert!(!data.contains_key("limit_bytes"), "no limit is no number: {data:?}");
    assert!(!data.contains_key("host_memory"), "that was ten seconds ago: {data:?}");
    assert!(data["victim"].get("container_id").is_none());
}

#[test]
fn a_container_that_nobody_saw_is_known_by_its_cgroup() {
    let mut play = start();
    let id = "0123456789abcdef".repeat(4);
    let pod = "kubepods-burstable-pod00000046_0000_4000_8000_000000000046.slice";
    let long = format!("{pod}:cri-containerd:{id}");
    for (place, names) in
        [&["docker", &*id][..], &["docker", &id, "its", "own"], &["system.slice", &long]].iter().enumerate()
    {
        play.event(Event::Record(&record(None, 6_000, names)));
        assert_eq!(answer_all(&mut play), [Some(Trigger::Kill)]);
        let data = &play.seen.events[place].1["tracer_data"];
        assert_eq!(data["victim"]["container_id"], id.as_str());
        assert_eq!(data["oom_cgroup_path"], format!("/{}", names.join("/")));
        assert!(data.get("oom_cgroup_path_cut").is_none());
    }
}

/// Who is said to have been killed and to have killed, where nobody knows their containers' keys.
fn named(play: &mut Play, record: &[u8]) -> [Option<String>; 2] {
    play.event(Event::Record(record));
    assert_eq!(answer_all(play), [Some(Trigger::Kill)]);
    let data = &play.seen.events.last().expect("an event").1["tracer_data"];
    ["victim", "killer"].map(|party| Some(data[party].get("container_id")?.as_str()?.to_owned()))
}

#[test]
fn a_cgroup_with_a_neighbours_id_does_not_name_the_neighbour_as_the_victim() {
    let mut play = start();
    let (real, other) = ("0123456789abcdef".repeat(4), "f".repeat(64));
    let path = format!("/docker/{real}");
    play.containers(&[(&real, &path)]);
    let scope = |id: &str| format!("docker-{id}.scope");
    let [forged, unknown] = [scope(&real), scope(&other)];
    for names in [
        &["system.slice", &*forged][..],
        &["user.slice", "user-1000.slice", "user@1000.service", &unknown],
        &["docker", &real, &unknown],
        &["docker", &real, "docker", &other, "deep"],
    ] {
        assert_eq!(named(&mut play, &record(None, 6_000, names)), [None, None], "{names:?}");
    }
    assert_eq!(named(&mut play, &record(None, 6_000, &["docker", &real, "own"]))[0], Some(real));
    let mut cut = record(None, 6_000, &["docker", &other]);
    cut[84] = 1;
    assert_eq!(named(&mut play, &cut), [None, None], "what is missing may be a user's");
}

#[test]
fn a_container_that_no_capture_looked_for_is_not_named_by_its_path_alone() {
    let mut play = start();
    play.event(Event::Record(&record(None, 6_000, &["docker", &"f".repeat(64)])));
    let (ticket, _) = play.seen.open[0];
    assert_eq!(play.answer(ticket, Err(Refusal::Gone)), Some(Trigger::Kill));
    assert!(play.seen.events[0].1["tracer_data"]["victim"].get("container_id").is_none());
}

#[test]
fn a_host_process_that_asks_for_memory_is_not_named_as_the_victims_container() {
    let mut play = start();
    let id = "f".repeat(64);
    let mut raw = record(None, 6_000, &["docker", &id]);
    assert_eq!(named(&mut play, &raw), [Some(id.clone()), None]);
    // The victim itself asked.
    raw.copy_within(32..36, 36);
    assert_eq!(named(&mut play, &raw), [Some(id.clone()), Some(id)]);
}

#[test]
fn a_kill_whose_capture_is_refused_is_told_all_the_same() {
    let mut play = start();
    kill(&mut play, Some(Key { slot: 5, generation: 7 }), 6_000);
    let (ticket, _) = play.seen.open[0];
    assert_eq!(play.answer(ticket, Err(Refusal::Gone)), Some(Trigger::Kill));
    let data = &play.seen.events[0].1["tracer_data"];
    assert_eq!((&data["victim"]["pid"], &data["top_memory_usage"]), (&77.into(), &serde_json::json!([])));
}

#[test]
fn a_storm_of_kills_is_told_to_the_last() {
    let mut play = start();
    for _ in 0..500 {
        kill(&mut play, Some(Play::key(0)), 6_000);
    }
    answer_all(&mut play);
    assert_eq!(play.seen.events.len(), 500);
    assert_eq!(play.seen.faults.len(), 500 - 64, "those had no capture, and that is counted");
    play.event(Event::Lost(7));
    assert!(play.scrape().contains("\nonset_oom_kills_total 507\n"), "those that were lost are kills, too");
}

#[test]
fn who_asks_sees_who_holds_the_memory() {
    let mut play = start();
    play.ask(None).expect("a capture");
    assert_eq!(answer_all(&mut play), [Some(Trigger::Manual)]);
    let document = &play.seen.events[0].1;
    assert_eq!(document["tracer_type"], "manual");
    assert!(document["tracer_data"].get("victim").is_none());
    let ticket = play.ask(None).expect("a capture");
    assert_eq!(play.answer(ticket, Err(Refusal::Busy)), None);
}
