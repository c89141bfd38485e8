//! cpusys: fires where its rule says, over all CPU time that there was.

use super::*;
use crate::host::{CpuTimes, HostCpu};
use crate::tracer::play::Host;

fn start() -> (Play, HostCpu) {
    let cpu = HostCpu { cpus: 10, ..HostCpu::default() };
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
    assert_eq!(data["capacity_cores"], 10);
    assert!(play.seen.events[0].1.get("container_id").is_none());
}

/// Ten CPUs, idle for three ticks of ten seconds, with counters that are far on.
fn calm() -> (Play, HostCpu) {
    let (mut play, mut cpu) = start();
    let far = seconds(10_000);
    cpu.times =
        CpuTimes { user: far, system: far, idle: far, iowait: far, steal: far, ..CpuTimes::default() };
    for _ in 0..3 {
        tick(&mut play, &mut cpu, |times| times.idle += seconds(100));
    }
    (play, cpu)
}

#[test]
fn idle_iowait_or_steal_that_go_back_by_a_tick_do_not_hide_a_busy_kernel() {
    let back: [fn(&mut CpuTimes) -> &mut Duration; 3] =
        [|times| &mut times.idle, |times| &mut times.iowait, |times| &mut times.steal];
    for (step, counter) in [10, 3000].into_iter().flat_map(|step| back.map(|counter| (step, counter))) {
        let (mut play, mut cpu) = calm();
        for _ in 0..3 {
            tick(&mut play, &mut cpu, |times| {
                times.system += seconds(95);
                times.user += seconds(5);
                *counter(times) -= Duration::from_millis(step);
            });
            assert!(play.scrape().contains("mode=\"system\"} 0.95\n"), "{step}: {}", play.scrape());
        }
        assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)], "{step} ms");
        assert_eq!(play.seen.events[0].1["tracer_data"]["system_percent"], 95.0);
        assert_eq!(play.seen.events[0].1["tracer_data"]["system_percent_delta"], 95.0);
    }
}

#[test]
fn a_counter_that_began_anew_is_not_shown_and_its_time_counts_all_the_same() {
    let (mut play, mut cpu) = calm();
    // As when idle time is counted another way from now on: the rest is 5 % of the time there was.
    cpu.times.idle = seconds(7);
    tick(&mut play, &mut cpu, |times| times.system += seconds(5));
    assert!(play.scrape().contains("mode=\"system\"} 0.05\n"), "{}", play.scrape());
    assert!(!play.scrape().contains("mode=\"idle\""), "it is not known");
    // And one that leaps by more than there was.
    cpu.times.idle = seconds(90_000);
    tick(&mut play, &mut cpu, |times| times.system += seconds(6));
    assert!(play.scrape().contains("mode=\"system\"} 0.06\n"), "{}", play.scrape());
    assert_eq!(play.seen.asked, []);
}

#[test]
fn all_counters_that_begin_anew_are_no_sample() {
    let (mut play, mut cpu) = calm();
    cpu.times = CpuTimes::default();
    tick(&mut play, &mut cpu, |_| {});
    assert!(!play.scrape().contains("onset_host_cpu_ratio{"), "{}", play.scrape());
    tick(&mut play, &mut cpu, |times| times.system += seconds(100));
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)], "the next one is");
}

#[test]
fn a_cpu_that_goes_offline_is_no_sample_and_hides_no_surge() {
    for (cpus, idle) in [(9, seconds(9000)), (11, seconds(20_000))] {
        let (mut play, mut cpu) = calm();
        (cpu.cpus, cpu.times.idle) = (cpus, idle);
        tick(&mut play, &mut cpu, |times| times.system += seconds(60));
        assert_eq!(play.seen.asked, [], "its time went with it");
        tick(&mut play, &mut cpu, |times| {
            times.system += seconds(60);
            times.idle += seconds(30);
        });
        assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
        let data = &play.seen.events[0].1["tracer_data"];
        assert_eq!((&data["system_percent"], &data["capacity_cores"]), (&66.67.into(), &cpus.into()));
    }
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
