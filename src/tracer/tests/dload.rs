//! dload: its average is a true one, stuck tasks are found, and no event is without a stack.

use super::*;
use crate::host::{Load, Reading, TaskCounts};
use crate::tracer::play::Host;

const FIVE: Duration = Duration::from_secs(5);

fn start(config: &str, list: &[(&str, &str)]) -> Play {
    let mut play = Play::new("dload", config, SIZE);
    play.containers(list);
    play
}

fn blocked(tasks: u32) -> TaskCounts {
    TaskCounts {
        running: 2,
        sleeping: 30,
        stopped: 1,
        uninterruptible: tasks,
        iowait: 1,
        ..TaskCounts::default()
    }
}

/// A tick that finds these tasks in the containers.
fn tick(play: &mut Play, after: Duration, counts: &[TaskCounts]) {
    play.pass(after);
    let at = play.now.mono;
    let seen = |counts: &TaskCounts| Some(TaskCounts { at, ..*counts });
    let readings = counts.iter().map(|counts| Reading { at, tasks: seen(counts), ..Reading::default() });
    let host = Host {
        load: Some(Load { one: 12.5, five: 1.0, fifteen: 1.0 }),
        tasks: Some(blocked(40)),
        ..Host::default()
    };
    play.tick(&host, &readings.collect::<Vec<_>>());
}

fn average(play: &mut Play) -> f64 {
    let page = play.scrape();
    let line = page.lines().find(|line| line.starts_with("onset_container_dload{")).expect("a sample");
    line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok()).expect("a number")
}

#[test]
fn its_average_has_a_time_constant_of_a_minute_whatever_the_interval() {
    for intervals in [&[5.0][..], &[1.0], &[30.0], &[0.5, 17.0, 3.25, 5.0]] {
        let mut play = start("[tracer.dload]\nload = 1000", &[("a", "/a")]);
        tick(&mut play, FIVE, &[blocked(8)]);
        let mut elapsed = 0.0;
        for interval in intervals.iter().cycle().take(24) {
            elapsed += interval;
            tick(&mut play, Duration::from_secs_f64(*interval), &[blocked(8)]);
            let want = 8.0 * (1.0 - f64::exp(-elapsed / 60.0));
            let have = average(&mut play);
            assert!((have - want).abs() < 1e-6, "{have} is not {want} after {elapsed} s");
        }
        let peak = average(&mut play);
        tick(&mut play, Duration::from_secs(60), &[blocked(0)]);
        assert!((average(&mut play) - peak / std::f64::consts::E).abs() < 1e-6, "it falls as it rose");
    }
}

#[test]
fn it_fires_when_the_average_crosses_its_limit_and_not_before() {
    let mut play = start("", &[("a", "/a"), ("b", "/b"), ("c", "/c")]);
    let counts = [blocked(10), blocked(5), blocked(10)];
    tick(&mut play, FIVE, &counts);
    // 10 (1 - exp(-t/60)) passes 5 at t = 41.6 s; 5 of them never do.
    for _ in 0..8 {
        tick(&mut play, FIVE, &counts);
    }
    assert_eq!(play.seen.asked, [], "40 s");
    tick(&mut play, FIVE, &counts);
    let scopes: Vec<Scope> = play.seen.asked.iter().map(|request| request.scope).collect();
    assert_eq!(scopes, [Scope::Container(Play::key(0)), Scope::Container(Play::key(2))]);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge); 2]);
    for _ in 0..100 {
        tick(&mut play, FIVE, &counts);
    }
    assert_eq!(play.seen.asked.len(), 2, "quiet");
}

#[test]
fn a_task_that_is_blocked_for_too_long_is_stuck() {
    let mut play = start("", &[("a", "/a")]);
    let one = |seconds| TaskCounts { longest: Duration::from_secs(seconds), ..blocked(1) };
    tick(&mut play, FIVE, &[one(55)]);
    tick(&mut play, FIVE, &[one(60)]);
    assert_eq!(play.seen.asked, []);
    tick(&mut play, FIVE, &[one(65)]);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Stuck)]);
    let data = &play.seen.events[0].1["tracer_data"];
    assert_eq!(data["trigger"], "stuck");
    assert_eq!(data["tasks"][0]["blocked_ms"], 61_250);
}

#[test]
fn an_event_says_who_is_blocked_where() {
    let issues = "[[known_issue]]\nname = \"other\"\nframes = [\"rpc_\", \"io_\"]\n\
                  [[known_issue]]\nname = \"nfs\"\nframes = [\"io_sched\", \"rpc_\"]\n";
    let mut play = start(issues, &[("a", "/a")]);
    tick(&mut play, FIVE, &[blocked(0)]);
    tick(&mut play, Duration::from_secs(6000), &[blocked(6)]);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    let want = serde_json::json!({
        "trigger": "surge", "duration_ms": 10_000, "capture_began_ms": -6_015_000, "lost_samples": 3, "truncated": 0, "threshold": 5.0,
        "nr_sleeping": 30, "nr_running": 2, "nr_stopped": 1, "nr_uninterruptible": 6, "nr_iowait": 1,
        "load_avg": 12.5, "dload_avg": 6.0, "known_issue": "nfs",
        "stack": "dd[7] blocked 61.2 s\n    io_schedule\n    rpc_wait\ndd[8] blocked 61.2 s\n    io_schedule\n",
        "tasks": [
            { "pid": 7, "tid": 7, "comm": "dd", "state": "D", "blocked_ms": 61_250, "in_iowait": true,
              "container_id": "a", "stack": ["io_schedule", "rpc_wait"] },
            { "pid": 7, "tid": 8, "comm": "dd", "state": "D", "blocked_ms": 61_250, "in_iowait": true,
              "container_id": "a", "stack": ["io_schedule"] },
        ],
    });
    assert_eq!(play.seen.events[0].1["tracer_data"], want);
}

#[test]
fn tasks_with_the_same_stack_share_it_in_the_text() {
    let mut play = start("", &[]);
    let ticket = play.ask(None).expect("a capture");
    let tasks = rows([task(1, &["a", "b"]), task(2, &["a"]), task(3, &["a", "b"])]);
    let seen = Capture { data: CaptureData::Tasks(tasks), ..capture(CaptureKind::Tasks, Scope::Host) };
    assert_eq!(play.answer(ticket, Ok(&seen)), Some(Trigger::Manual));
    let data = &play.seen.events[0].1["tracer_data"];
    assert_eq!(
        data["stack"],
        "dd[1] blocked 61.2 s, dd[3] blocked 61.2 s\n    a\n    b\ndd[2] blocked 61.2 s\n    a\n"
    );
    assert!(data.get("known_issue").is_none());
    assert!(data["tasks"][0].get("container_id").is_none(), "its container is not known");
}

#[test]
fn what_has_passed_is_no_event_and_mutes_nothing() {
    let mut play = start("", &[("a", "/a")]);
    tick(&mut play, FIVE, &[blocked(0)]);
    tick(&mut play, Duration::from_secs(6000), &[blocked(6)]);
    let nothing =
        Capture { data: CaptureData::Tasks(Rows::default()), ..capture(CaptureKind::Tasks, Scope::Host) };
    let ticket = play.seen.open[0].0;
    assert_eq!(play.answer(ticket, Ok(&nothing)), None);
    tick(&mut play, FIVE, &[blocked(6)]);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
}

#[test]
fn who_asks_of_the_host_gets_its_counts_and_what_is_found_even_if_it_is_nothing() {
    let mut play = start("", &[]);
    tick(&mut play, FIVE, &[]);
    let ticket = play.ask(None).expect("a capture");
    let nothing =
        Capture { data: CaptureData::Tasks(Rows::default()), ..capture(CaptureKind::Tasks, Scope::Host) };
    assert_eq!(play.answer(ticket, Ok(&nothing)), Some(Trigger::Manual));
    let data = &play.seen.events[0].1["tracer_data"];
    assert_eq!((&data["nr_uninterruptible"], &data["load_avg"]), (&40.into(), &12.5.into()));
    assert_eq!((&data["tasks"], &data["stack"]), (&serde_json::json!([]), &"".into()));
    assert!(data.get("dload_avg").is_none(), "the host has none");
}

#[test]
fn tasks_are_shown_by_state() {
    let mut play = start("", &[("a", "/a"), ("b", "/b")]);
    tick(&mut play, FIVE, &[blocked(4)]);
    let page = play.scrape();
    for (state, count) in [("running", 2), ("sleeping", 30), ("stopped", 1), ("uninterruptible", 4)] {
        let labels = "container_id=\"a\",container=\"\",pod=\"\",namespace=\"\"";
        assert!(
            page.contains(&format!("onset_container_tasks{{{labels},state=\"{state}\"}} {count}\n")),
            "{page}"
        );
    }
    assert!(!page.contains("container_id=\"b\""), "nothing was read of it");
    tick(&mut play, FIVE, &[]);
    play.containers(&[]);
    assert!(!play.scrape().contains("container_id"), "it is gone");
}
