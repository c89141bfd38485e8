//! cpusys: fires where its rule says, over all CPU time that there was.

use super::*;
use crate::host::{CpuTimes, HostCpu};
use crate::tracer::play::Host;

fn start() -> (Play, HostCpu) {
    let cpu = HostCpu { cpus: 4, ..HostCpu::default() };
    (Play::new("cpusys", "", SIZE), cpu)
}

/// A tick after ten seconds in which the counters moved by as many seconds.
fn tick(play: &mut Play, cpu: &mut HostCpu, spent: impl FnOnce(&mut CpuTimes)) {
    spent(&mut cpu.times);
    play.pass(TEN);
    play.tick(&Host { cpu: Some(*cpu), ..Host::default() }, &[]);
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn it_fires_exactly_where_its_rule_says() {
    for (before, after, surge) in
        [(25, 46, true), (26, 46, false), (10, 45, false), (0, 100, true), (60, 50, false), (50, 71, true)]
    {
        let (mut play, mut cpu) = start();
        for percent in [0, before, after] {
            tick(&mut play, &mut cpu, |times| {
                times.system += seconds(percent);
                // The rest is spread, so that all of it must be in the sum.
                let rest = seconds(100 - percent) / 4;
                times.idle += rest;
                times.iowait += rest;
                times.steal += rest;
                times.nice += rest;
            });
        }
        assert_eq!(play.seen.asked.len(), usize::from(surge), "{before} {after}");
        assert!(play.seen.asked.iter().all(|request| request.scope == Scope::Host));
    }
}

#[test]
fn interrupts_are_measured_beside_it() {
    let (mut play, mut cpu) = start();
    for system in [0, 10, 50] {
        tick(&mut play, &mut cpu, |times| {
            times.system += seconds(system);
            times.irq += seconds(5);
            times.softirq += seconds(20);
            times.user += seconds(75 - system);
        });
    }
    let page = play.scrape();
    for line in ["system\"} 0.5", "irq\"} 0.05", "softirq\"} 0.2", "user\"} 0.25", "nice\"} 0", "steal\"} 0"]
    {
        assert!(page.contains(&format!("onset_host_cpu_ratio{{mode=\"{line}\n")), "{line} in {page}");
    }
    assert_eq!(page.lines().filter(|line| !line.starts_with('#')).count(), 8);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    let data = &play.seen.events[0].1["tracer_data"];
    for (field, want) in [
        ("system_percent", 50.0),
        ("system_percent_delta", 40.0),
        ("system_percent_threshold", 45.0),
        ("system_percent_delta_threshold", 20.0),
        ("irq_percent", 5.0),
        ("softirq_percent", 20.0),
    ] {
        assert_eq!(data[field], want, "{field}");
    }
    assert_eq!(data["capacity_cores"], 4);
    assert!(play.seen.events[0].1.get("container_id").is_none());
}

#[test]
fn a_counter_that_went_back_begins_anew_but_iowait_may() {
    let (mut play, mut cpu) = start();
    cpu.times.iowait = seconds(1000);
    let calm = |times: &mut CpuTimes| times.idle += seconds(100);
    tick(&mut play, &mut cpu, calm);
    tick(&mut play, &mut cpu, calm);
    cpu.times.idle = Duration::ZERO;
    tick(&mut play, &mut cpu, |times| times.system += seconds(90));
    assert_eq!(play.seen.asked, [], "a CPU went offline and took its idle time along");
    tick(&mut play, &mut cpu, calm);
    tick(&mut play, &mut cpu, |times| {
        times.iowait -= seconds(1);
        times.system += seconds(90);
        times.idle += seconds(10);
    });
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    assert_eq!(play.seen.events[0].1["tracer_data"]["system_percent"], 90.0);
}

#[test]
fn a_level_that_holds_is_told_of_after_the_cooldown() {
    let (mut play, mut cpu) = start();
    let mut busy = |play: &mut Play, system: u64| {
        tick(play, &mut cpu, |times| {
            times.system += seconds(system);
            times.idle += seconds(100 - system);
        });
    };
    busy(&mut play, 0);
    busy(&mut play, 0);
    busy(&mut play, 80);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    for _ in 0..179 {
        busy(&mut play, 80);
    }
    assert_eq!(play.seen.asked.len(), 1, "quiet for half an hour");
    busy(&mut play, 80);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Sustained)]);
}

#[test]
fn who_asks_may_name_a_container() {
    let (mut play, _) = start();
    play.containers(&[("a", "/a")]);
    play.ask(Some(Play::key(0))).expect("a capture");
    assert_eq!(play.seen.asked[0].scope, Scope::Container(Play::key(0)));
    assert_eq!(answer_all(&mut play), [Some(Trigger::Manual)]);
    assert_eq!(play.seen.events[0].1["container_id"], "a");
}

#[test]
fn a_tick_right_after_another_waits_for_the_next() {
    let (mut play, mut cpu) = start();
    for _ in 0..2 {
        tick(&mut play, &mut cpu, |times| times.idle += seconds(100));
    }
    cpu.times.system += Duration::from_millis(10);
    play.pass(Duration::from_millis(10));
    play.tick(&Host { cpu: Some(cpu), ..Host::default() }, &[]);
    assert_eq!(play.seen.asked, [], "one tick of the clock is noise");
    assert!(play.scrape().contains("mode=\"idle\"} 1\n"), "what was known stays known");
}
