//! Counters that go back, or run over their 32 bits.

use super::*;

#[test]
fn counters_that_went_back_begin_anew() {
    let busy = Use { busy_ms: 5000, ..CALM };
    let (mut play, _) = watching("", "sda", &[busy]);
    let mut again = Disk { reads: 1, read_bytes: 0, ..disk("sda") };
    tick(&mut play, &[again]);
    assert!(!play.scrape().contains("device="), "nothing is known of this time");
    spend(&mut again, busy);
    tick(&mut play, &[again]);
    assert_eq!(play.seen.asked.len(), 1, "but it was not calm in between");
}

/// What the kernel writes as a time of 32 bits.
const fn wrapped(ms: u64) -> Duration {
    Duration::from_millis(ms % (1 << 32))
}

#[test]
fn a_time_that_runs_over_its_32_bits_gives_the_right_rate() {
    const FIRST: u64 = (1 << 32) - 6500;
    let mut play = start("");
    let at = |sample: u64| Disk {
        reads: 100 * (1 + sample),
        read_time: wrapped(FIRST + sample * 20_000),
        writes: 100 * (1 + sample),
        write_time: wrapped(FIRST + sample * 10_100),
        busy: wrapped(FIRST + sample * 4000),
        queued: wrapped(FIRST + sample * 30_000),
        ..disk("sda")
    };
    for sample in 0..6 {
        tick(&mut play, &[at(sample)]);
        if sample > 0 {
            let page = play.scrape();
            for line in [
                "onset_disk_util_ratio{device=\"sda\"} 0.8\n",
                "onset_disk_await_seconds{device=\"sda\",op=\"read\"} 0.2\n",
                "onset_disk_await_seconds{device=\"sda\",op=\"write\"} 0.101\n",
            ] {
                assert!(page.contains(line), "sample {sample}: {page}");
            }
        }
    }
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    let status = &play.seen.events[0].1["tracer_data"]["reason_snapshot"]["iostatus"];
    assert_eq!((&status["read_await"], &status["queue_size"]), (&200.0.into(), &6.0.into()), "{status}");
}

#[test]
fn a_counter_that_goes_back_takes_no_other_with_it() {
    let back = |field: fn(&mut Disk)| {
        let (mut play, mut now) = watching("", "sda", &[CALM]);
        spend(&mut now, Use { busy_ms: 2500, reads: 10, read_ms: 25, writes: 10, write_ms: 25, ..CALM });
        field(&mut now);
        tick(&mut play, &[now]);
        let page = play.scrape();
        let told = |line: &str| page.contains(line);
        (
            told("onset_disk_util_ratio{device=\"sda\"} 0.5\n"),
            told("onset_disk_await_seconds{device=\"sda\",op=\"read\"} 0.0025\n"),
            told("onset_disk_await_seconds{device=\"sda\",op=\"write\"} 0.0025\n"),
            page.contains("device="),
        )
    };
    // A millisecond less than before is no 49 days more.
    assert_eq!(back(|disk| disk.busy = FIVE + ms(499)), (false, true, true, true));
    assert_eq!(back(|disk| disk.read_time = FIVE + ms(49)), (true, false, true, true));
    assert_eq!(back(|disk| disk.writes = 1009), (true, true, false, true));
    assert_eq!(back(|disk| disk.write_bytes = 0), (true, true, true, true));
    assert_eq!(back(|disk| disk.queued = ms(0)), (true, true, true, true));
    let mut saturated = watching("", "sda", &[]).1;
    let mut play = start("");
    tick(&mut play, &[saturated]);
    for _ in 0..2 {
        spend(&mut saturated, Use { busy_ms: 5000, ..CALM });
        saturated.write_time -= ms(60);
        tick(&mut play, &[saturated]);
    }
    assert_eq!(play.seen.asked.len(), 1, "it is saturated, whatever its writes took");
}
