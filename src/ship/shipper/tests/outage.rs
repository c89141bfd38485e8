//! An hour without a server at 50 events a second.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;

const RATE: u32 = 50;
const HOUR: Duration = Duration::from_secs(3600);
const SEGMENT: u64 = 1 << 20;
const BUDGET: u64 = 16 << 20;

fn disk_use(dir: &Path) -> u64 {
    fs::read_dir(dir).unwrap().filter_map(|entry| entry.unwrap().metadata().ok()).map(|data| data.len()).sum()
}

/// A server that takes every record without looking for duplicates.
fn take_all(request: &FakeRequest<'_>, index: &mut Vec<String>) -> (u16, Option<&'static str>, String) {
    index.extend(request.sent.iter().map(|sent| sent.id.clone()));
    let item = |sent: &Sent| format!("{{\"create\":{{\"_id\":\"{}\",\"status\":201}}}}", sent.id);
    let items: Vec<String> = request.sent.iter().map(item).collect();
    (200, None, format!("{{\"items\":[{}]}}", items.join(",")))
}

/// Writes `RATE` events a second into the log from `began` to `ends`, while the shipper waits.
fn load(
    writer: &Rc<RefCell<Writer>>,
    ids: &Rc<RefCell<Vec<String>>>,
    dir: &Path,
    began: Duration,
    ends: Duration,
) -> Passes {
    let (writer, ids, dir) = (writer.clone(), ids.clone(), dir.to_owned());
    Box::new(move |now, until| {
        let end = until.unwrap();
        if now >= ends {
            return (end, false);
        }
        let to = (now + SECOND).min(end);
        // By absolute time, so that steps of any length add up to the rate.
        let due = |at: Duration| u32::try_from((at - began).as_millis() * u128::from(RATE) / 1000).unwrap();
        ids.borrow_mut().extend(write(&mut writer.borrow_mut(), due(now), due(to) - due(now)));
        let used = disk_use(&dir);
        // `next` is made ahead, the cursor and the rejections are small.
        assert!(used <= BUDGET + SEGMENT + (64 << 10), "{used} bytes of log");
        (to, true)
    })
}

/// The first attempt after the server is back comes soon, and catching up keeps to its rate.
fn check_catching_up(fake: &FakeTransport, back: Duration) {
    let first = fake.requests.iter().find(|(at, _)| *at >= back).unwrap().0;
    assert!(first - back <= Duration::from_secs(60), "{:?}", first - back);
    let catching_up = fake.requests.iter().filter(|(at, count)| *at >= back && *count > 500);
    let times: Vec<Duration> = catching_up.map(|(at, _)| *at).collect();
    assert!(times.len() > 30, "{} large batches", times.len());
    let took = *times.last().unwrap() - times[0];
    assert!(
        took >= Duration::from_secs(times.len() as u64 / 4 - 1),
        "{} batches of 256 KiB in {took:?}",
        times.len()
    );
}

#[test]
fn after_an_hour_of_outage_the_log_is_bounded_drops_are_counted_and_the_rest_is_shipped_in_order() {
    let test_log = TestLog::new(SEGMENT, BUDGET);
    let writer = Rc::new(RefCell::new(test_log.writer()));
    let progress = writer.borrow().progress(OUTPUT.name);
    let ids = Rc::new(RefCell::new(Vec::new()));
    let began = Duration::from_secs(1000);
    let back = began + HOUR;
    let mut fake = FakeTransport::new(move |request, index| {
        if request.at < back { Err("connection refused") } else { Ok(take_all(request, index)) }
    });
    // The host goes on for ten minutes after the server is back.
    let ends = back + Duration::from_secs(600);
    fake.leave_at = ends + Duration::from_secs(600);
    fake.passes = load(&writer, &ids, &test_log.dir, began, ends);
    let batch_settings = BatchSettings { batch: 256 << 10, catch_up: 1 << 20, ..BATCH_SETTINGS };
    let stats = run(&mut fake, &test_log.dir, &progress, batch_settings);
    let (written, counters) = (ids.borrow().len() as u64, writer.borrow().counters());
    assert!(written >= u64::from(RATE) * 4199, "{written} written");
    let created = fake.index.len() as u64;
    assert_eq!((counts(&stats), progress.lag()), ([created, 0, 0], 0), "all caught up");
    assert!(fake.index.is_sorted() && fake.index.windows(2).all(|pair| pair[0] != pair[1]), "in order, once");
    // What the reader still had open is shipped though the budget took it: a segment's worth.
    let dropped = counters.dropped_unshipped;
    assert!(dropped > written / 2, "{dropped} dropped of {written}");
    let per_segment = SEGMENT / 250;
    assert!(
        created + dropped >= written && created + dropped <= written + per_segment,
        "{created} created and {dropped} dropped are not {written} written"
    );
    // From the end of the outage on there is no gap.
    let newest: Vec<String> = ids.borrow().iter().rev().take(30_000).rev().cloned().collect();
    assert_eq!(fake.index[fake.index.len() - 30_000..], newest[..]);
    check_catching_up(&fake, back);
    let said = |word: &str| fake.log_lines.iter().filter(|line| line.contains(word)).count();
    assert_eq!((said("cannot ship"), said("again;")), (1, 1), "{:?}", fake.log_lines);
}
