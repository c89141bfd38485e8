//! memburst: fires on what grows fast, from the second sample on, and never on what grows slowly.

use super::*;
use crate::capture_data::Refusal;
use crate::host::{ContainerMemory, Memory, Reading, Unreclaimable};
use crate::tracer::play::Host;

const FIVE: Duration = Duration::from_secs(5);
const MIB: u64 = 1 << 20;

fn start(config: &str) -> Play {
    let mut play = Play::new("memburst", &format!("[tracer.memburst]\n{config}"), SIZE);
    play.containers(&[("a", "/a"), ("b", "/b")]);
    play
}

/// `mib` MiB of anonymous memory, and nothing else.
fn anon(mib: u64) -> Unreclaimable {
    let bytes = mib * MIB;
    Unreclaimable { anon_bytes: bytes, shmem_bytes: Some(0), locked_bytes: Some(0), all_bytes: bytes }
}

/// A tick five seconds later at which `percent` of the host's memory is anonymous.
fn host(play: &mut Play, percent: u64) {
    play.pass(FIVE);
    let memory = Memory { total_bytes: 100 * MIB, available_bytes: MIB, held: anon(percent) };
    play.tick(&Host { memory: Some(memory), ..Host::default() }, &[]);
}

/// A tick five seconds later at which these containers have so much, each of a limit of 100 MiB.
fn containers(play: &mut Play, anon: &[u64]) {
    play.pass(FIVE);
    limited(play, anon, Some(100 * MIB));
}

fn limited(play: &mut Play, mib: &[u64], limit_bytes: Option<u64>) {
    let held: Vec<Unreclaimable> = mib.iter().map(|mib| anon(*mib)).collect();
    read(play, &held, limit_bytes);
}

fn read(play: &mut Play, held: &[Unreclaimable], limit_bytes: Option<u64>) {
    let reading = |held: &Unreclaimable| Reading {
        at: play.now.mono,
        memory: Some(ContainerMemory { held: *held, usage_bytes: 99 * MIB, limit_bytes }),
        ..Reading::default()
    };
    let readings: Vec<Reading> = held.iter().map(reading).collect();
    play.tick(&Host::default(), &readings);
}

/// How many captures a series of samples asks for.
fn asked(mut tick: impl FnMut(&mut Play, u64), series: impl IntoIterator<Item = u64>) -> usize {
    let mut play = start("sustained_samples = 0");
    series.into_iter().for_each(|value| tick(&mut play, value));
    play.seen.asked.len()
}

#[test]
fn the_host_fires_exactly_where_its_rules_say() {
    let slow = |from: u64, to: u64| (from..=to).flat_map(|percent| [percent; 4]);
    for (series, fires) in [
        (vec![30, 50], true), // risen by 20 % at once
        (vec![30, 49], false),
        (vec![30, 35, 40, 45, 50], true), // and in steps
        (vec![50, 30, 49], false),
        (vec![80, 80, 80], false), // much, but it does not grow
        // 1 % each 20 s: 3 % in 60 s, and no doubling within ten minutes.
        (slow(50, 90).collect(), false),
        // 35 to 65 in ten minutes and on to 70: doubled, and 70 % of all.
        (slow(35, 69).collect(), false),
        (slow(20, 40).collect(), false), // doubled, but not much
    ] {
        assert_eq!(asked(host, series.clone()) > 0, fires, "{series:?}");
    }
    // Doubled within ten minutes, by 5 % a minute, and 70 % of all: only the ratio sees it.
    let minutes = (0..=9_u64).flat_map(|minute| [34 + minute * 4; 12]);
    assert_eq!(asked(host, minutes), 1, "70 is 2 times 34 and more");
    let slower = (0..=11_u64).flat_map(|minute| [34 + minute * 3; 12]);
    assert_eq!(asked(host, slower), 0, "34 was more than ten minutes ago when it came to 68");
}

#[test]
fn a_container_fires_exactly_where_its_rules_say() {
    let one = |play: &mut Play, anon: u64| containers(play, &[anon]);
    for (series, fires) in [
        (vec![10, 40], true), // risen by 30 % of its limit
        (vec![10, 15, 20, 25, 30, 35, 40], true),
        (vec![10, 21], false), // 79 MiB at 2.2 a second are 35 s away
        (vec![10, 24], true),  // 76 MiB at 2.8 a second are 27 s away
        (vec![80, 83], true),  // 17 MiB at 0.6 a second are 28 s away
        (vec![80, 82], false), // 18 MiB at 0.4 a second are 45 s away
        (vec![99, 99, 99], false),
        (vec![99, 60, 60], false),
        (vec![90, 10, 12], false), // the lowest counts, and what fell
    ] {
        assert_eq!(asked(one, series.clone()), usize::from(fires), "{series:?}");
    }
    // As much in the end, but 1 MiB each 25 s.
    assert_eq!(asked(one, (0..85_u64).flat_map(|mib| [mib; 5])), 0, "a neighbour that grows slowly");
}

#[test]
fn what_is_held_against_is_the_window_and_not_a_memory_of_long_ago() {
    let mut play = start("sustained_samples = 0");
    containers(&mut play, &[10]);
    for mib in [14, 18, 22, 26, 30, 34, 38, 42, 46] {
        containers(&mut play, &[mib]);
        assert_eq!(play.seen.asked, [], "24 MiB in 30 s, and the limit over a minute away: {mib}");
    }
}

#[test]
fn a_burst_in_the_first_seconds_is_caught() {
    let mut play = start("");
    limited(&mut play, &[5], Some(100 * MIB));
    play.pass(Duration::from_secs(1));
    limited(&mut play, &[45], Some(100 * MIB));
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)], "by the second sample");
    let mut play = start("");
    host(&mut play, 20);
    host(&mut play, 60);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
}

#[test]
fn an_event_of_a_container_says_what_grew_and_when_it_will_end() {
    let mut play = start("top = 1");
    containers(&mut play, &[10, 50]);
    containers(&mut play, &[30, 50]);
    let fired = play.now.wall;
    play.pass(TEN);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Predicted)]);
    let (about, document) = &play.seen.events[0];
    assert_eq!((about.subject, about.time), (Some(Play::key(0)), fired));
    assert_eq!(document["container_id"], "a");
    let want = serde_json::json!({
        "trigger": "predicted", "duration_ms": 10_000, "capture_began_ms": -20_000, "lost_samples": 3, "truncated": 0,
        "scope": "container", "anon_bytes": 30 * MIB, "anon_bytes_before": 10 * MIB, "window_ms": 5000,
        "unreclaimable_bytes": 30 * MIB, "unreclaimable_bytes_before": 10 * MIB,
        "shmem_bytes": 0, "shmem_bytes_before": 0, "locked_bytes": 0, "locked_bytes_before": 0,
        "limit_bytes": 100 * MIB, "seconds_to_limit": 17.5, "faulted_bytes": 8192,
        "flamedata": [
            { "level": 0, "value": 8192, "self": 0, "label": "all" },
            { "level": 1, "value": 8192, "self": 8192, "label": "sh" },
        ],
        "top_memory_usage": [{ "pid": 7, "comm": "sh", "rss_bytes": MIB }],
    });
    assert_eq!(document["tracer_data"], want);
}

#[test]
fn an_event_of_the_host_has_no_limit_but_a_total() {
    let mut play = start("");
    host(&mut play, 30);
    host(&mut play, 35);
    host(&mut play, 55);
    assert_eq!(play.seen.asked[0].scope, Scope::Host);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    let data = &play.seen.events[0].1["tracer_data"];
    assert_eq!((&data["scope"], &data["total_bytes"]), (&"host".into(), &(100 * MIB).into()));
    assert_eq!((&data["anon_bytes_before"], &data["window_ms"]), (&(30 * MIB).into(), &10_000.into()));
    assert!(data.get("limit_bytes").is_none() && data.get("seconds_to_limit").is_none(), "{data}");
    assert_eq!(data["top_memory_usage"].as_array().map(Vec::len), Some(2));
}

#[test]
fn without_a_limit_a_container_is_only_shown() {
    let mut play = start("");
    for anon in [1, 60, 90] {
        play.pass(FIVE);
        limited(&mut play, &[anon], None);
    }
    assert_eq!(play.seen.asked, []);
    let page = play.scrape();
    let line = "onset_container_memory_anon_bytes{container_id=\"a\",container=\"\",pod=\"\",namespace=\"\"} 94371840\n";
    assert!(page.contains(line), "{page}");
    assert!(!page.contains("onset_host_memory_anon_bytes"), "not known: {page}");
    host(&mut play, 7);
    assert!(play.scrape().contains("\nonset_host_memory_anon_bytes 7340032\n"));
}

#[test]
fn two_that_burst_in_one_tick_are_both_captured() {
    let mut play = start("");
    containers(&mut play, &[1, 2]);
    containers(&mut play, &[50, 60]);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge); 2]);
}

#[test]
fn one_burst_is_one_event() {
    let mut play = start("cooldown = \"20s\"");
    for mib in [10, 45, 46, 46, 46] {
        containers(&mut play, &[mib]);
        answer_all(&mut play);
    }
    for _ in 0..50 {
        containers(&mut play, &[46]);
    }
    assert_eq!(play.seen.events.len(), 1, "what it took it still has, and that is no news");
}

#[test]
fn a_burst_in_the_quiet_after_another_is_told_of_if_its_memory_stays() {
    for (after, told) in [(60, 2), (30, 1)] {
        let mut play = start("cooldown = \"100s\"");
        containers(&mut play, &[1]);
        containers(&mut play, &[32]);
        assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
        for mib in [32, 32, 32, 32, 32, 32, 32, 64, 64] {
            containers(&mut play, &[mib]);
        }
        for _ in 0..30 {
            containers(&mut play, &[after]);
            answer_all(&mut play);
        }
        assert_eq!(play.seen.events.len(), told, "{after}");
        assert!(play.seen.events[1..].iter().all(|(about, _)| about.trigger == Trigger::Sustained));
    }
}

#[test]
fn an_event_is_owed_until_it_is_kept() {
    let mut play = start("sustained_samples = 0");
    containers(&mut play, &[1]);
    containers(&mut play, &[50]);
    for _ in 0..20 {
        assert_eq!(play.seen.open.len(), 1, "asked for again, as long as its memory is there");
        play.answer(play.seen.open[0].0, Err(Refusal::OverBudget));
        containers(&mut play, &[50]);
    }
    play.answer(play.seen.open[0].0, Err(Refusal::OverBudget));
    containers(&mut play, &[2]);
    assert_eq!(play.seen.open, [], "it passed");
}

#[test]
fn an_early_look_is_taken_but_not_one_right_after_another() {
    let mut play = start("");
    containers(&mut play, &[10]);
    play.pass(Duration::from_millis(300));
    limited(&mut play, &[12], Some(100 * MIB));
    assert_eq!(play.seen.asked, [], "2 MiB in 300 ms are no rate yet");
    play.pass(Duration::from_secs(2));
    limited(&mut play, &[30], Some(100 * MIB));
    assert_eq!(answer_all(&mut play), [Some(Trigger::Predicted)]);
}

#[test]
fn who_asks_is_answered_with_what_is_known() {
    let mut play = start("");
    play.ask(None).expect("a capture");
    assert_eq!(answer_all(&mut play), [Some(Trigger::Manual)]);
    let data = &play.seen.events[0].1["tracer_data"];
    assert!(data.get("anon_bytes").is_none() && data["scope"] == "host", "{data}");
    containers(&mut play, &[10]);
    let ticket = play.ask(Some(Play::key(0))).expect("a capture");
    let nothing =
        Capture { data: CaptureData::Faults(Faults::default()), ..capture(CaptureKind::Faults, Scope::Host) };
    assert_eq!(play.answer(ticket, Ok(&nothing)), Some(Trigger::Manual));
    let data = &play.seen.events[1].1["tracer_data"];
    assert_eq!((&data["anon_bytes"], &data["flamedata"]), (&(10 * MIB).into(), &serde_json::json!([])));
}

#[test]
fn locked_and_shared_memory_run_out_like_anonymous_memory() {
    // Locked anonymous memory; a tmpfs; page cache that is locked: each is 40 MiB more, and no kind hides.
    let locked = Unreclaimable { locked_bytes: Some(40 * MIB), ..anon(45) };
    let tmpfs = Unreclaimable { shmem_bytes: Some(40 * MIB), all_bytes: 45 * MIB, ..anon(5) };
    let cache = Unreclaimable { locked_bytes: Some(40 * MIB), all_bytes: 45 * MIB, ..anon(5) };
    for held in [locked, tmpfs, cache] {
        let mut play = start("");
        let host = |play: &mut Play, held| {
            play.pass(FIVE);
            let memory = Memory { total_bytes: 100 * MIB, available_bytes: MIB, held };
            play.tick(&Host { memory: Some(memory), ..Host::default() }, &[]);
        };
        host(&mut play, anon(5));
        host(&mut play, held);
        assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)], "{held:?}");
        containers(&mut play, &[5]);
        play.pass(FIVE);
        read(&mut play, &[held], Some(100 * MIB));
        assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)], "{held:?}");
        for (_, document) in &play.seen.events {
            let data = &document["tracer_data"];
            assert_eq!(data["unreclaimable_bytes"], 45 * MIB);
            assert_eq!(data["unreclaimable_bytes_before"], 5 * MIB);
            assert_eq!(data["anon_bytes"], held.anon_bytes);
            assert_eq!(data["shmem_bytes"], held.shmem_bytes.unwrap_or_default());
            assert_eq!(data["locked_bytes"], held.locked_bytes.unwrap_or_default());
        }
        let page = play.scrape();
        for (name, bytes) in
            [("anon", Some(held.anon_bytes)), ("shmem", held.shmem_bytes), ("locked", held.locked_bytes)]
        {
            let bytes = bytes.unwrap_or_default();
            let of_host = format!("\nonset_host_memory_{name}_bytes {bytes}\n");
            let of_container = format!(
                "onset_container_memory_{name}_bytes{{container_id=\"a\",container=\"\",pod=\"\",namespace=\"\"}} {bytes}\n"
            );
            assert!(page.contains(&of_host) && page.contains(&of_container), "{of_host} in {page}");
        }
    }
}

#[test]
fn a_kind_of_memory_that_is_not_known_is_left_out() {
    let unknown = |mib: u64| Unreclaimable { shmem_bytes: None, locked_bytes: None, ..anon(mib) };
    let mut play = start("");
    for mib in [5, 45] {
        play.pass(FIVE);
        read(&mut play, &[unknown(mib)], Some(100 * MIB));
    }
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    let data = play.seen.events[0].1["tracer_data"].as_object().expect("an object");
    for name in ["shmem_bytes", "shmem_bytes_before", "locked_bytes", "locked_bytes_before"] {
        assert!(!data.contains_key(name), "{name}");
    }
    assert!(!play.scrape().contains("onset_container_memory_shmem_bytes{"));
}
