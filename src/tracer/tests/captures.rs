//! What an event says of the captures that it was made of.

use super::*;
use crate::capture_data::Refusal;

#[test]
fn a_capture_may_have_begun_before_or_after_the_rule_fired_and_the_document_says_by_how_much() {
    for (began, says) in [
        (Duration::from_millis(999_999), -1),
        (Duration::from_secs(1000), 0),
        (Duration::from_millis(1_000_250), 250),
        (Duration::ZERO, -1_000_000),
        (Duration::MAX, i64::MAX),
    ] {
        let mut play = Play::new("cpusys", "", SIZE);
        let ticket = play.ask(None).expect("a capture");
        // Its answer comes later: what counts is when it was asked for.
        play.pass(TEN);
        let began = Now { mono: began, ..BEGAN };
        let found = Capture { began, ..capture(CaptureKind::Stacks, Scope::Host) };
        assert_eq!(play.answer(ticket, Ok(&found)), Some(Trigger::Manual));
        let data = &play.seen.events[0].1["tracer_data"];
        assert_eq!((&data["capture_began_ms"], &data["duration_ms"]), (&says.into(), &10_000.into()));
    }
}

#[test]
fn an_event_without_its_capture_does_not_say_when_that_began() {
    let mut play = Play::new("oom", "", SIZE);
    play.containers(&[("a", "/docker/a")]);
    oom::kill(&mut play, Some(Play::key(0)), 6_000);
    let (ticket, _) = play.seen.open[0];
    assert_eq!(play.answer(ticket, Err(Refusal::OverBudget)), Some(Trigger::Kill));
    let data = &play.seen.events[0].1["tracer_data"];
    assert_eq!((data["duration_ms"].as_u64(), data.get("capture_began_ms")), (Some(0), None));
}
