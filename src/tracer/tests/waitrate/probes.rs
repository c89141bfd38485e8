//! Probes of the run queues, where the kernel has no files of pressure.

use super::*;

#[test]
fn without_files_of_pressure_the_run_queues_are_probed_now_and_then() {
    let mut play = start("probe = \"2s\"\nsustained_samples = 1");
    blind_tick(&mut play, None, 0);
    assert_eq!(play.seen.asked[0].lasting, Duration::from_secs(2));
    probed(&mut play, &[(Play::key(0), waiting(900, 100)), (Play::key(1), waiting(500, 1500))]);
    assert_eq!(of(CaptureKind::Waits, &play.seen.asked), [Scope::Container(Play::key(1))]);
    assert!(play.scrape().contains("cause=\"inner\"} 0.75\n"), "{}", play.scrape());
    assert_eq!(answer_all(&mut play), [Some(Trigger::Sustained)]);
    assert_eq!(play.seen.events[0].1["tracer_data"]["curr_waitrate"], 75.0);
    for probes in [1, 1, 2, 2, 2, 2] {
        blind_tick(&mut play, None, 0);
        assert_eq!(
            of(CaptureKind::Probe, &play.seen.asked).len(),
            probes,
            "one each 30 s, and one at a time"
        );
    }
}

#[test]
fn while_nobody_on_the_host_waits_no_probe_is_made() {
    let mut play = start("");
    blind_tick(&mut play, Some(5000), 0);
    probed(&mut play, &[(Play::key(0), waiting(500, 90))]);
    for stall in [5100, 5100, 5290] {
        blind_tick(&mut play, Some(stall), 0);
    }
    assert_eq!(probes(&play), 1, "less than a hundredth of 30 s");
    assert!(play.scrape().contains("cause=\"inner\"} 0\n"), "and that is a sample: {}", play.scrape());
    for stall in [5300, 5400, 5600] {
        blind_tick(&mut play, Some(stall), 0);
    }
    assert_eq!(probes(&play), 2, "more");
    probed(&mut play, &[]);
    for _ in 0..3 {
        blind_tick(&mut play, Some(5600), 70);
    }
    assert_eq!(probes(&play), 3, "a quota holds tasks back, which a host's pressure need not show");
}

#[test]
fn a_probe_that_is_refused_is_made_again_later_and_a_strange_one_is_a_fault() {
    let mut play = start("");
    blind_tick(&mut play, None, 0);
    let ticket = play.seen.open[0].0;
    assert_eq!(play.answer(ticket, Err(Refusal::OverBudget)), None);
    for _ in 0..3 {
        blind_tick(&mut play, None, 0);
    }
    let ticket = play.seen.open[0].0;
    assert_eq!(play.answer(ticket, Ok(&capture(CaptureKind::Tasks, Scope::Host))), None);
    assert_eq!(play.seen.faults, ["foreign_capture"]);
    assert_eq!(of(CaptureKind::Waits, &play.seen.asked), []);
}

#[test]
fn a_capture_in_which_nobody_waited_is_no_event_unless_someone_asked() {
    let (mut play, mut past) = known("");
    tick(&mut play, &mut past, 0, 9000);
    let nothing =
        Capture { data: CaptureData::Waits(Waits::default()), ..capture(CaptureKind::Waits, Scope::Host) };
    let ticket = play.seen.open[0].0;
    assert_eq!(play.answer(ticket, Ok(&nothing)), None);
    let ticket = play.ask(Some(Play::key(0))).expect("a capture");
    assert_eq!(play.answer(ticket, Ok(&nothing)), Some(Trigger::Manual));
}
