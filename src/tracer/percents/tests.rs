use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_counter_of_time_steps_back_by_a_little_or_begins_anew() {
    let ms = Duration::from_millis;
    assert_eq!(counted(ms(500), ms(200), ms(20)), Some(ms(300)));
    assert_eq!(counted(ms(500), ms(500), ms(20)), Some(ms(0)));
    assert_eq!(counted(ms(480), ms(500), ms(20)), Some(ms(0)));
    assert_eq!(counted(ms(479), ms(500), ms(20)), None);
    assert_eq!(counted(ms(0), Duration::MAX, ms(20)), None);
}

/// Two CPUs after a second each, by the seconds that each mode counted on from 100.
fn shares(cpus: u32, modes: [f64; 8]) -> Option<Shares> {
    let at = |more: f64| Duration::from_secs_f64(100.0 + more);
    let [user, nice, system, idle, iowait, irq, softirq, steal] = modes.map(at);
    let now = CpuTimes { user, nice, system, idle, iowait, irq, softirq, steal };
    let at = SECOND * 100;
    let before =
        CpuTimes { user: at, nice: at, system: at, idle: at, iowait: at, irq: at, softirq: at, steal: at };
    let host = |times, cpus| HostCpu { times, cpus, ..HostCpu::default() };
    Shares::between(&host(before, 2), &host(now, cpus), SECOND)
}

fn percents(shares: Option<Shares>) -> Option<Vec<Option<f64>>> {
    let round = |share: Percent| (share.value() * 10.0).round() / 10.0;
    Some(shares?.each().map(|(_, share)| share.map(round)).collect())
}

#[test]
fn shares_are_of_all_time_that_was_counted() {
    let all = shares(2, [0.4, 0.2, 0.6, 0.2, 0.2, 0.2, 0.1, 0.1]);
    let want = [20.0, 10.0, 30.0, 10.0, 10.0, 10.0, 5.0, 5.0].map(Some);
    assert_eq!(percents(all), Some(want.to_vec()));
    assert_eq!(all.and_then(|shares| shares.of("system")).map(Percent::value), Some(30.0));
    assert_eq!(all.and_then(|shares| shares.of("guest")), None);
}

#[test]
fn each_counter_goes_back_or_leaps_for_itself() {
    for mode in 0..8 {
        let other = (mode + 1) % 8;
        let modes = |odd: f64| {
            let mut modes = [0.0; 8];
            (modes[mode], modes[other]) = (odd, 0.5);
            percents(shares(2, modes)).expect("a sample")
        };
        // A tick back is nothing; of what began anew only the others are known, of the time there was.
        for (odd, own, others) in [(-0.02, Some(0.0), 100.0), (-50.0, None, 25.0), (50.0, None, 25.0)] {
            let seen = modes(odd);
            assert_eq!((seen[mode], seen[other]), (own, Some(others)), "mode {mode} by {odd} s");
            let rest = seen.iter().enumerate().filter(|(at, _)| ![mode, other].contains(at));
            assert!(rest.into_iter().all(|(_, share)| *share == Some(0.0)));
        }
    }
}

#[test]
fn nothing_is_known_where_cpus_come_or_go_or_nothing_is_counted() {
    for cpus in [0, 1, 3] {
        assert_eq!(shares(cpus, [0.1; 8]), None);
    }
    assert_eq!(shares(2, [0.0; 8]), None);
    assert_eq!(shares(2, [-50.0; 8]), None);
    assert_eq!(shares(2, [50.0; 8]), None);
}
