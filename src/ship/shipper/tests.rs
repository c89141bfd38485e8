//! Shipping played against a server and a clock of the test's: the log is real, an hour is not.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::clock::Wall;
use crate::log::{Cursor, Progress, Writer};
use crate::output::OutputStats;
use crate::ship::OUTPUT;
use crate::ship::rejections::rejected;
use fake::{
    BATCH_SETTINGS, FakeRequest, FakeTransport, Passes, SECOND, Sent, TestLog, answer, counts, done, run,
    write,
};

mod fake;
mod outage;

#[test]
fn every_record_is_sent_once_in_order_and_the_cursor_follows() {
    let test_log = TestLog::new(1 << 20, 8 << 20);
    let mut writer = test_log.writer();
    let ids = write(&mut writer, 0, 1000);
    let mut fake = FakeTransport::new(|request, index| {
        assert!(request.bytes <= (64 << 10) + 1000, "a batch of {} bytes", request.bytes);
        for sent in request.sent {
            let document = sent.document();
            let stamp = document["uploaded_time"].as_str().unwrap();
            assert!(Wall::parse(stamp).is_some_and(|at| at > Wall(1_795_452_413_007)), "{stamp}");
        }
        answer(request, index, |_, _| None)
    });
    let progress = writer.progress(OUTPUT.name);
    let stats = run(&mut fake, &test_log.dir, &progress, BATCH_SETTINGS);
    assert_eq!(fake.index, ids);
    assert_eq!((counts(&stats), done(&test_log.dir, &ids), progress.lag()), ([1000, 0, 0], 1000, 0));
    assert!(fake.log_lines.is_empty(), "{:?}", fake.log_lines);
    // Another agent begins where this one ended.
    let more = write(&mut writer, 1000, 5);
    let mut fake = FakeTransport::new(|request, index| answer(request, index, |_, _| None));
    run(&mut fake, &test_log.dir, &progress, BATCH_SETTINGS);
    assert_eq!(fake.index, more);
}

#[test]
fn only_records_that_failed_transiently_are_sent_again_and_hold_the_cursor() {
    let test_log = TestLog::new(1 << 20, 8 << 20);
    let mut writer = test_log.writer();
    let ids = write(&mut writer, 0, 6);
    let fates = [None, Some(429), Some(400), Some(409), Some(503), None];
    let mut seen = Vec::new();
    let (dir, all) = (test_log.dir.clone(), ids.clone());
    let mut fake = FakeTransport::new(move |request, index| {
        seen.push(request.sent.iter().map(|sent| sent.id.clone()).collect::<Vec<_>>());
        match request.before {
            0 => answer(request, index, |at, _| fates[at]),
            1 => {
                assert_eq!(seen[1], [all[1].clone(), all[4].clone()]);
                assert_eq!(done(&dir, &all), 1, "only the first is behind the cursor");
                answer(request, index, |at, _| (at == 1).then_some(503))
            }
            _ => {
                assert_eq!(seen[2], [all[4].clone()]);
                assert_eq!(done(&dir, &all), 4);
                answer(request, index, |_, _| None)
            }
        }
    });
    let stats = run(&mut fake, &test_log.dir, &writer.progress(OUTPUT.name), BATCH_SETTINGS);
    assert_eq!(counts(&stats), [4, 1, 1]);
    assert_eq!((OutputStats::get(&stats.retries), done(&test_log.dir, &ids)), (2, 6));
    let notes = rejected(&test_log.dir).unwrap();
    assert_eq!(notes.len(), 1);
    assert_eq!(
        (notes[0].id.as_str(), notes[0].status, notes[0].kind.as_str()),
        (ids[2].as_str(), 400, "fault_400")
    );
    assert!(
        fake.log_lines.iter().any(|line| line.contains("onset events --rejected")),
        "{:?}",
        fake.log_lines
    );
}

#[test]
fn each_kind_of_rejection_is_logged_once() {
    let test_log = TestLog::new(1 << 20, 8 << 20);
    let mut writer = test_log.writer();
    write(&mut writer, 0, 100);
    let mut fake = FakeTransport::new(|request, index| {
        answer(request, index, |at, _| Some(if at % 2 == 0 { 400 } else { 413 }))
    });
    let stats = run(&mut fake, &test_log.dir, &writer.progress(OUTPUT.name), BATCH_SETTINGS);
    assert_eq!(counts(&stats), [0, 0, 100]);
    assert_eq!(rejected(&test_log.dir).unwrap().len(), 100);
    assert_eq!(fake.log_lines.len(), 2, "{:?}", fake.log_lines);
}

#[test]
fn a_too_large_batch_is_halved_and_a_too_large_record_rejected() {
    let test_log = TestLog::new(1 << 20, 8 << 20);
    let mut writer = test_log.writer();
    let mut ids = write(&mut writer, 0, 20);
    let large = format!("{{\"number\":20,\"a\":\"{}\"}}", "x".repeat(3000));
    let id = writer.append(|_, to| {
        to[..large.len()].copy_from_slice(large.as_bytes());
        Some(large.len())
    });
    let large = id.unwrap().unwrap().to_string();
    ids.extend(write(&mut writer, 21, 20));
    let mut fake = FakeTransport::new(|request, index| {
        if request.bytes > 2000 {
            return Ok((413, None, "<html>Request Entity Too Large</html>".into()));
        }
        answer(request, index, |_, _| None)
    });
    let stats = run(&mut fake, &test_log.dir, &writer.progress(OUTPUT.name), BATCH_SETTINGS);
    assert_eq!(counts(&stats), [40, 0, 1]);
    assert_eq!(fake.index, ids);
    assert_eq!(rejected(&test_log.dir).unwrap()[0].id, large);
    assert!(fake.requests.len() < 60, "{} requests for 41 records", fake.requests.len());
}

#[test]
fn bad_credentials_are_logged_with_the_remedy_and_retried_slowly() {
    let test_log = TestLog::new(1 << 20, 8 << 20);
    let mut writer = test_log.writer();
    let ids = write(&mut writer, 0, 10);
    for (status, body) in [
        (
            401,
            "{\"error\":{\"type\":\"security_exception\",\"reason\":\"unable to authenticate user\"},\"status\":401}",
        ),
        (403, "forbidden"),
        (
            404,
            "{\"error\":{\"type\":\"index_not_found_exception\",\"reason\":\"no such index [onset]\"},\"status\":404}",
        ),
        (302, ""),
    ] {
        let mut fake = FakeTransport::new(move |_, _| Ok((status, None, body.into())));
        fake.leave_at = fake.clock + Duration::from_secs(3600);
        let stats = run(&mut fake, &test_log.dir, &writer.progress(OUTPUT.name), BATCH_SETTINGS);
        assert_eq!((counts(&stats), done(&test_log.dir, &ids)), ([0; 3], 0), "{status}");
        let attempts = fake.requests.len();
        assert!((55..=125).contains(&attempts), "{status}: {attempts} attempts in an hour");
        assert_eq!(fake.log_lines.len(), 1, "{:?}", fake.log_lines);
        assert!(
            fake.log_lines[0].contains(&status.to_string()) && fake.log_lines[0].contains("[elasticsearch]")
        );
    }
}

#[test]
fn retry_after_is_kept() {
    let test_log = TestLog::new(1 << 20, 8 << 20);
    let mut writer = test_log.writer();
    write(&mut writer, 0, 10);
    let mut fake = FakeTransport::new(|request, index| {
        if request.before < 3 {
            return Ok((429, Some("120"), String::new()));
        }
        answer(request, index, |_, _| None)
    });
    run(&mut fake, &test_log.dir, &writer.progress(OUTPUT.name), BATCH_SETTINGS);
    let pauses: Vec<Duration> = fake.requests.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert_eq!(pauses.len(), 3);
    assert!(pauses.iter().all(|pause| (120..=150).contains(&pause.as_secs())), "{pauses:?}");
    assert_eq!(fake.index.len(), 10);
    assert!(fake.log_lines.last().unwrap().contains("again"), "{:?}", fake.log_lines);
}

#[test]
fn an_invalid_bulk_reply_settles_no_record() {
    let test_log = TestLog::new(1 << 20, 8 << 20);
    let mut writer = test_log.writer();
    let ids = write(&mut writer, 0, 10);
    let lies = [
        "",
        "{}",
        "<html>welcome to the hotel</html>",
        "{\"took\":1,\"errors\":false,\"items\":[]}",
        "{\"errors\":false,\"items\":[{\"create\":{\"_id\":\"x\",\"status\":201}}]}",
        "{\"items\":[{\"create\":{\"_id\":\"00000000000000000000000000000001\",\"status\":201}}",
    ];
    let count = lies.len();
    let mut fake = FakeTransport::new(move |request, index| match lies.get(request.before) {
        Some(lie) => Ok((200, None, (*lie).into())),
        None => answer(request, index, |_, _| None),
    });
    let stats = run(&mut fake, &test_log.dir, &writer.progress(OUTPUT.name), BATCH_SETTINGS);
    assert_eq!(fake.index, ids);
    assert_eq!((counts(&stats), OutputStats::get(&stats.retries)), ([10, 0, 0], count as u64));
}

#[test]
fn a_bad_request_blames_the_record_only_if_others_are_taken() {
    let test_log = TestLog::new(1 << 20, 8 << 20);
    let mut writer = test_log.writer();
    let ids = write(&mut writer, 0, 50);
    let bad = "{\"error\":{\"type\":\"illegal_argument_exception\",\"reason\":\"no\"},\"status\":400}";
    let mut fake = FakeTransport::new(move |_, _| Ok((400, None, bad.into())));
    fake.leave_at = fake.clock + Duration::from_secs(3600);
    let stats = run(&mut fake, &test_log.dir, &writer.progress(OUTPUT.name), BATCH_SETTINGS);
    assert_eq!((counts(&stats), done(&test_log.dir, &ids)), ([0; 3], 0), "nothing is lost");
    assert!(fake.requests.len() < 1100, "{} attempts in an hour", fake.requests.len());
    let poison = ids[17].clone();
    let wrong = poison.clone();
    let mut fake = FakeTransport::new(move |request, index| {
        if request.sent.iter().any(|sent| sent.id == wrong) {
            return Ok((400, None, bad.into()));
        }
        answer(request, index, |_, _| None)
    });
    let stats = run(&mut fake, &test_log.dir, &writer.progress(OUTPUT.name), BATCH_SETTINGS);
    assert_eq!((counts(&stats), done(&test_log.dir, &ids)), ([49, 0, 1], 50));
    assert_eq!(rejected(&test_log.dir).unwrap()[0].id, poison);
}

#[test]
fn a_leaving_shipper_sends_the_rest_once_and_waits_for_no_dead_server() {
    let test_log = TestLog::new(1 << 20, 8 << 20);
    let mut writer = test_log.writer();
    let ids = write(&mut writer, 0, 10);
    let mut fake = FakeTransport::new(|_, _| Err("connection refused"));
    fake.leave_at = fake.clock + Duration::from_millis(100);
    run(&mut fake, &test_log.dir, &writer.progress(OUTPUT.name), BATCH_SETTINGS);
    assert_eq!((fake.requests.len(), fake.clock), (1, fake.leave_at), "before its time, and once");
    let mut fake = FakeTransport::new(|request, index| answer(request, index, |_, _| None));
    fake.leave_at = fake.clock + Duration::from_millis(100);
    run(&mut fake, &test_log.dir, &writer.progress(OUTPUT.name), BATCH_SETTINGS);
    assert_eq!((fake.index, fake.clock), (ids, fake.leave_at));
}

#[test]
fn a_record_waits_at_most_flush_for_others() {
    let test_log = TestLog::new(1 << 20, 8 << 20);
    let mut writer = test_log.writer();
    write(&mut writer, 0, 1);
    let progress = writer.progress(OUTPUT.name);
    let mut fake = FakeTransport::new(|request, index| answer(request, index, |_, _| None));
    let began = fake.clock;
    // Records come each 0.3 s: they do not put it off.
    let mut next = 1;
    fake.passes = Box::new(move |now, until| {
        let end = until.unwrap();
        let step = now + Duration::from_millis(300);
        if next < 10 && step <= end {
            write(&mut writer, next, 1);
            next += 1;
            return (step, true);
        }
        (end, false)
    });
    run(&mut fake, &test_log.dir, &progress, BATCH_SETTINGS);
    assert_eq!(fake.requests[0], (began + SECOND, 4));
    assert_eq!(fake.index.len(), 10);
}

/// Whatever a server does and whenever the agent is killed: each record is in the index once, or noted
/// as rejected.
#[test]
fn no_server_failure_and_no_kill_loses_or_doubles_a_record() {
    for seed in 1..=12_u64 {
        let test_log = TestLog::new(256 << 10, 8 << 20);
        let mut writer = test_log.writer();
        let (mut index, mut written, mut random) = (Vec::new(), Vec::new(), seed);
        let mut draw = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        // Documents that this server will never take.
        let doomed = |sent: &Sent| sent.document()["number"].as_u64().unwrap() % 37 == 5;
        for life in 0..8_u32 {
            let count = u32::try_from(draw(200)).unwrap();
            written.extend(write(&mut writer, life * 1000, count));
            let calm = life == 7;
            let mut inner = seed.wrapping_mul(977).wrapping_add(u64::from(life)) | 1;
            let mut fake = FakeTransport::new(move |request, index| {
                inner ^= inner << 13;
                inner ^= inner >> 7;
                inner ^= inner << 17;
                let choice = if calm { 9 } else { inner % 10 };
                match choice {
                    0 => Err("connection reset by peer"),
                    // It took them all, and the answer was lost.
                    1 => answer(request, index, |_, sent| doomed(sent).then_some(400)).and(Err("timed out")),
                    2 => Ok((503, None, String::new())),
                    3 => Ok((429, Some("1"), String::new())),
                    4 if request.sent.len() > 1 => Ok((413, None, String::new())),
                    5 => Ok((200, None, "{\"items\":[]}".into())),
                    6 => Ok((401, None, String::new())),
                    7 | 8 => answer(request, index, |at, sent| {
                        if (inner >> (at % 60)) & 1 == 1 { Some(429) } else { doomed(sent).then_some(400) }
                    }),
                    _ => answer(request, index, |_, sent| doomed(sent).then_some(400)),
                }
            });
            fake.index = index;
            if !calm {
                // Killed at any moment: what it did last may be nowhere but on the server.
                fake.leave_at = fake.clock + Duration::from_millis(draw(300_000));
            }
            run(&mut fake, &test_log.dir, &writer.progress(OUTPUT.name), BATCH_SETTINGS);
            index = fake.index;
        }
        let rejections: BTreeSet<String> =
            rejected(&test_log.dir).unwrap().into_iter().map(|note| note.id).collect();
        let have: BTreeSet<String> = index.iter().cloned().collect();
        assert_eq!(have.len(), index.len(), "seed {seed}: an id twice");
        assert!(have.is_disjoint(&rejections), "seed {seed}");
        let all: BTreeSet<String> = have.union(&rejections).cloned().collect();
        assert_eq!(all, written.iter().cloned().collect(), "seed {seed}");
        assert_eq!(writer.progress(OUTPUT.name).lag(), 0, "seed {seed}");
    }
}
