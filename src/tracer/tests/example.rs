//! The examples of docs/how-to-add-a-tracer.md: that they work, and that the text shows what is compiled.

use super::*;
use crate::capture_data::Refusal;
use crate::host::{HostCpu, Key};
use crate::layout::reclaim as layout;
use crate::tracer::{Event, PENDING_MAX, iowait, play::Host, reclaim};

#[test]
fn the_example_fires_where_its_rule_says_and_tells_who_is_blocked() {
    let mut play = Play::of(&iowait::SPEC, "[tracer.iowait]\npercent = 30\n", SIZE);
    let mut cpu = HostCpu { cpus: 10, ..HostCpu::default() };
    let mut pass = |play: &mut Play, iowait: u64| {
        cpu.times.iowait += Duration::from_secs(iowait);
        cpu.times.idle += Duration::from_secs(100 - iowait);
        play.pass(TEN);
        play.tick(&Host { cpu: Some(cpu), ..Host::default() }, &[]);
    };
    for iowait in [0, 20, 30, 5] {
        pass(&mut play, iowait);
    }
    assert!(play.seen.asked.is_empty(), "30 is not past 30");
    pass(&mut play, 60);
    assert_eq!(play.seen.asked.len(), 1);
    assert!(play.scrape().contains("onset_host_iowait_ratio 0.6\n"));
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    let (_, document) = &play.seen.events[0];
    assert_eq!(document["tracer_data"]["iowait_percent"], 60.0);
    assert_eq!(document["tracer_data"]["tasks"][0]["comm"], "dd");
}

/// A record of docs/example/reclaim.bpf.c: `struct reclaim`.
fn stall(container: Option<Key>, took: Duration) -> Vec<u8> {
    let record = layout::Reclaim {
        container: container.map_or(0, Key::to_bits),
        took_ns: u64::try_from(took.as_nanos()).expect("short"),
        pages: 32,
        pid: 7,
        tid: 9,
        comm: *b"dd\0garbage!!!!!!",
        layout: layout::Layout { start_code: 1, end_code: 2, start_stack: 3 },
        kernel_bytes: 16,
        user_bytes: 8,
    };
    [&record.bytes()[..], &[0x81; 512], &[0x40; 512]].concat()
}

#[test]
fn an_event_tracer_asks_for_a_capture_of_what_its_hook_tells_and_keeps_its_cooldown() {
    let mut play = Play::of(&reclaim::SPEC, "[tracer.reclaim]\ncooldown = \"1m\"\n", SIZE);
    play.containers(&[("a", "/docker/a"), ("b", "/docker/b")]);
    let [a, b] = [0, 1].map(|slot| stall(Some(Play::key(slot)), Duration::from_millis(250)));
    play.event(Event::Record(&a));
    play.event(Event::Record(&a));
    assert_eq!(play.seen.asked.len(), 1, "while a capture is under way no other is asked for");
    assert_eq!(play.seen.asked[0].scope, Scope::Container(Play::key(0)));
    assert_eq!(answer_all(&mut play), [Some(Trigger::Stuck)]);
    let document = &play.seen.events[0].1;
    assert_eq!((&document["container_id"], &document["tracer_type"]), (&"a".into(), &"event".into()));
    let data = &document["tracer_data"];
    assert_eq!((&data["comm"], &data["held_up_ms"]), (&"dd".into(), &250.0.into()));
    assert_eq!((&data["reclaimed_pages"], &data["kernel_stack"][0]), (&32.into(), &"shrink_node".into()));
    assert_eq!(data["user_stack"], serde_json::json!(["write", "main"]));
    let [stack] = &play.seen.stacks[..] else { panic!("one is to be named: {:?}", play.seen.stacks) };
    assert_eq!((stack.pid, stack.program.end_code), (7, 2));
    assert_eq!(
        (stack.kernel(), stack.user()),
        (&[0x8181_8181_8181_8181; 2][..], &[0x4040_4040_4040_4040][..])
    );
    play.event(Event::Record(&a));
    assert!(play.seen.open.is_empty(), "it is in its cooldown");
    play.event(Event::Record(&b));
    play.event(Event::Record(&stall(None, TEN)));
    assert_eq!(answer_all(&mut play), [Some(Trigger::Stuck); 2], "others are not");
    play.pass(Duration::from_secs(60));
    play.event(Event::Record(&a));
    assert_eq!(answer_all(&mut play), [Some(Trigger::Stuck)]);
    play.event(Event::Lost(7));
    play.event(Event::Record(&a[..39]));
    assert_eq!(play.seen.faults, ["foreign_record"]);
    assert!(play.scrape().contains("\nonset_slow_reclaims_total 13\n"), "six, and those that were lost");
}

#[test]
fn an_event_of_a_hook_is_kept_though_its_capture_is_refused_or_there_is_no_room_for_it() {
    let mut play = Play::of(&reclaim::SPEC, "[tracer.reclaim]\ncooldown = \"1m\"\n", SIZE);
    let record = stall(None, TEN);
    play.event(Event::Record(&record));
    let (ticket, _) = play.seen.open[0];
    assert_eq!(play.answer(ticket, Err(Refusal::OverBudget)), Some(Trigger::Stuck));
    let data = &play.seen.events[0].1["tracer_data"];
    assert_eq!((data["comm"].as_str(), data.get("kernel_stack")), (Some("dd"), None));
    play.event(Event::Record(&record));
    assert_eq!((play.seen.open.len(), play.seen.events.len()), (0, 1), "the event began its cooldown");
    play.pass(Duration::from_secs(60));
    while play.ask(None).is_some() {}
    play.event(Event::Record(&record));
    assert_eq!(play.seen.events.len(), 2, "at once, for no capture can be asked for");
    assert_eq!(play.seen.faults, ["cases_full"; 2]);
    let manual = play.seen.open[0].0;
    assert_eq!(play.answer(manual, Err(Refusal::Busy)), None, "who asks gets no event without a capture");
    assert_eq!(answer_all(&mut play), [Some(Trigger::Manual); PENDING_MAX - 1]);
}

#[test]
fn the_text_shows_the_code_that_is_compiled() {
    let text = include_str!("../../../docs/how-to-add-a-tracer.md");
    let iowait = include_str!("../../../docs/example/iowait.rs");
    let reclaim = include_str!("../../../docs/example/reclaim.rs");
    let program = include_str!("../../../docs/example/reclaim.bpf.c");
    let blocks = |language: &str| -> Vec<&str> {
        let after = text.split(&format!("```{language}\n")).skip(1).collect::<Vec<_>>();
        after.into_iter().filter_map(|rest| rest.split("```").next()).map(str::trim_end).collect()
    };
    for (language, files, least) in [("rust", &[iowait, reclaim][..], 7), ("c", &[program], 2)] {
        let blocks = blocks(language);
        assert!(blocks.len() >= least, "{} in {language}", blocks.len());
        for block in blocks {
            assert!(files.iter().any(|code| code.contains(block)), "not in docs/example:\n{block}");
        }
    }
}
