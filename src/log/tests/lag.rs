//! What is shipped, what is not yet, and what never will be.

use super::*;
use crate::log::cursor::peek;

/// A shipper without a server: reads, and has done what it has read.
struct Shipper {
    cursor: Cursor,
    reader: Reader,
    progress: std::sync::Arc<Progress>,
    done: u64,
}

impl Shipper {
    fn begin(writer: &Writer, dir: &Path) -> Shipper {
        Shipper::of(OUTPUT, writer, dir)
    }

    fn of(output: &str, writer: &Writer, dir: &Path) -> Shipper {
        let (cursor, shipped) = Cursor::named(output, dir).expect("opens");
        let progress = writer.progress(output);
        progress.begin(dir, shipped).expect("readable");
        let reader = shipped.map_or_else(|| Reader::open(dir), |id| Reader::after(dir, id));
        Shipper { cursor, reader: reader.expect("a log"), progress, done: 0 }
    }

    fn ship(&mut self, most: usize) {
        for _ in 0..most {
            let Some(id) = self.reader.next().expect("readable").map(|entry| entry.id) else { return };
            self.cursor.set(id).expect("set");
            self.progress.advance(id);
            self.done += 1;
        }
    }
}

/// How many records one would find who begins where shipping is.
fn left(dir: &Path) -> u64 {
    let reader = peek(OUTPUT, dir).map_or_else(|| Reader::open(dir), |id| Reader::after(dir, id));
    drain(&mut reader.expect("a log")).len() as u64
}

#[test]
fn without_an_output_lag_and_dropped_unshipped_stay_zero() {
    let scratch = Scratch::new();
    let config = config::Log { budget: 2 * SEGMENT, ..scratch.log() };
    let (mut writer, _) = Writer::open(&config).expect("opens");
    for _ in 0..100 {
        put(&mut writer, &[1; 4000]);
    }
    writer.flush().expect("synced");
    let counters = writer.counters();
    assert!(counters.dropped_by_budget > 0);
    assert_eq!((counters.dropped_unshipped, writer.progress(OUTPUT).lag()), (0, 0));
}

#[test]
fn the_lag_counts_records_of_earlier_runs_and_new_ones() {
    let scratch = Scratch::new();
    let mut ids = Vec::new();
    for _ in 0..5 {
        let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
        ids.extend((0..7).map(|_| put(&mut writer, &[1; 3000])));
    }
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let mut shipper = Shipper::begin(&writer, &scratch.0);
    assert_eq!(writer.progress(OUTPUT).lag(), 35);
    shipper.ship(10);
    assert_eq!((writer.progress(OUTPUT).lag(), peek(OUTPUT, &scratch.0)), (25, Some(ids[9])));
    put(&mut writer, b"one more");
    assert_eq!(writer.progress(OUTPUT).lag(), 26);
    drop((writer, shipper));
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let mut shipper = Shipper::begin(&writer, &scratch.0);
    assert_eq!(writer.progress(OUTPUT).lag(), 26);
    shipper.ship(25);
    put(&mut writer, b"and another");
    assert_eq!(writer.progress(OUTPUT).lag(), 2);
    shipper.ship(9);
    assert_eq!((writer.progress(OUTPUT).lag(), shipper.done), (0, 27));
    let foreign = RecordId { log: Id(*b"another!"), seq: u64::MAX };
    put(&mut writer, b"the last");
    writer.progress(OUTPUT).advance(foreign);
    assert_eq!(writer.progress(OUTPUT).lag(), 1);
    writer.progress(OUTPUT).end();
    assert_eq!(writer.progress(OUTPUT).lag(), 0);
    writer.progress(OUTPUT).begin(&scratch.0, peek(OUTPUT, &scratch.0)).expect("readable");
    assert_eq!(writer.progress(OUTPUT).lag(), 1);
}

#[test]
fn records_deleted_by_retention_before_they_are_shipped_are_counted() {
    let scratch = Scratch::new();
    let config = config::Log { budget: 4 * SEGMENT, ..scratch.log() };
    let (mut writer, _) = Writer::open(&config).expect("opens");
    let mut shipper = Shipper::begin(&writer, &scratch.0);
    for _ in 0..10 {
        put(&mut writer, &[1; 4000]);
    }
    shipper.ship(10);
    for _ in 0..150 {
        put(&mut writer, &[1; 4000]);
    }
    writer.flush().expect("synced");
    let counters = writer.counters();
    assert_eq!(counters.dropped_by_budget, counters.dropped_unshipped + 10);
    assert_eq!(writer.progress(OUTPUT).lag() + counters.dropped_unshipped, 150);
    assert_eq!(writer.progress(OUTPUT).lag(), left(&scratch.0));
    drop((writer, shipper));
    // Less budget at the next start: what that costs is told once someone ships.
    let before = left(&scratch.0);
    let less = config::Log { budget: 2 * SEGMENT, ..scratch.log() };
    let (writer, _) = Writer::open(&less).expect("opens");
    assert_eq!(writer.counters().dropped_unshipped, 0);
    let _shipper = Shipper::begin(&writer, &scratch.0);
    assert_eq!(writer.counters().dropped_unshipped + left(&scratch.0), before);
    assert_eq!(writer.progress(OUTPUT).lag(), left(&scratch.0));
}

#[test]
fn in_any_order_of_events_each_record_is_shipped_lagging_or_dropped() {
    for seed in 0..8 {
        let mut random = Random(seed);
        let scratch = Scratch::new();
        let config = config::Log { budget: 3 * SEGMENT, ..scratch.log() };
        let (mut writer, _) = Writer::open(&config).expect("opens");
        let mut shipper = Shipper::begin(&writer, &scratch.0);
        let (mut appended, mut dropped, mut done) = (0, 0, 0);
        for _ in 0..200 {
            match random.below(20) {
                0 => {
                    done += shipper.done;
                    writer.flush().expect("synced");
                    drop(shipper);
                    dropped += writer.counters().dropped_unshipped;
                    drop(writer);
                    writer = Writer::open(&config).expect("opens").0;
                    shipper = Shipper::begin(&writer, &scratch.0);
                }
                1..5 => shipper.ship(random.below(12)),
                _ => {
                    put(&mut writer, &[1; 4000]);
                    appended += 1;
                }
            }
            // The helper thread may be between deleting and counting; a flush is behind both.
            writer.flush().expect("synced");
            assert_eq!(writer.progress(OUTPUT).lag(), left(&scratch.0), "seed {seed}");
            // A reader that has a deleted segment open ships it all the same.
            let sum = done + shipper.done + dropped + writer.counters().dropped_unshipped;
            assert!(sum + writer.progress(OUTPUT).lag() >= appended, "seed {seed}");
        }
        shipper.ship(usize::MAX);
        assert_eq!(writer.progress(OUTPUT).lag(), 0, "seed {seed}");
    }
}

#[test]
fn new_records_of_a_deleted_log_have_numbers_behind_the_cursor() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let ids: Vec<_> = (0..9).map(|_| put(&mut writer, b"old")).collect();
    drop(writer);
    Cursor::named(OUTPUT, &scratch.0).expect("opens").0.set(ids[8]).expect("set");
    fs::remove_file(last(&scratch.0)).expect("deleted");
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let new = put(&mut writer, b"new");
    assert!(new.log.same_log(ids[0].log) && new.log != ids[0].log);
    assert_eq!(new.seq, (1 << 32) + 1);
    let mut reader = writer.progress(OUTPUT).reader(&scratch.0, peek(OUTPUT, &scratch.0)).expect("a log");
    assert_eq!(drain(&mut reader), [(new, b"new".to_vec())]);
}

#[test]
fn a_shipped_record_number_is_never_reused_even_if_its_segment_is_lost() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    while segments(&scratch.0).len() < 2 {
        put(&mut writer, &[1; 4000]);
    }
    drop(writer);
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let id = put(&mut writer, b"shipped");
    Cursor::named(OUTPUT, &scratch.0).expect("opens").0.set(id).expect("set");
    drop(writer);
    fs::remove_file(last(&scratch.0)).expect("deleted");
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let new = put(&mut writer, b"new");
    assert!(new.log.same_log(id.log));
    assert_eq!(new.seq, (2 << 32) + 1);
    let mut reader = Reader::after(&scratch.0, id).expect("a log");
    assert_eq!(drain(&mut reader), [(new, b"new".to_vec())]);
    // A segment of which nothing is left still has its name.
    drop(writer);
    fs::write(last(&scratch.0), [1; 70_000]).expect("written");
    fs::rename(last(&scratch.0), log_dir::segment_path(&scratch.0, 5 << 32)).expect("renamed");
    let (mut writer, recovered) = Writer::open(&scratch.log()).expect("opens");
    assert_eq!((recovered.empty_segments, put(&mut writer, b"x").seq), (1, (6 << 32) + 1));
}

#[test]
fn shipping_resumes_in_a_log_written_by_an_earlier_onset() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let ids: Vec<_> = (0..20).map(|_| put(&mut writer, b"old")).collect();
    let mut shipper = Shipper::begin(&writer, &scratch.0);
    shipper.ship(10);
    drop((writer, shipper));
    // As it left it: the one cursor had no output's name.
    let unnamed = scratch.0.join("shipped");
    fs::rename(scratch.0.join("elasticsearch.cursor"), &unnamed).expect("renamed");
    let (writer, _) = Writer::open(&scratch.log()).expect("opens");
    assert!(!unnamed.exists());
    assert_eq!(peek(OUTPUT, &scratch.0), Some(ids[9]));
    let mut shipper = Shipper::begin(&writer, &scratch.0);
    assert_eq!(writer.progress(OUTPUT).lag(), 10);
    shipper.ship(usize::MAX);
    assert_eq!((shipper.done, writer.progress(OUTPUT).lag()), (10, 0), "nothing is sent again");
}

#[test]
fn each_output_reads_at_its_own_pace_and_resumes_at_its_own_cursor() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let ids: Vec<_> = (0..12).map(|_| put(&mut writer, b"x")).collect();
    let (mut fast, mut slow) =
        (Shipper::begin(&writer, &scratch.0), Shipper::of("slow", &writer, &scratch.0));
    fast.ship(12);
    slow.ship(5);
    assert_eq!((fast.progress.lag(), slow.progress.lag()), (0, 7));
    drop((writer, fast, slow));
    let (writer, _) = Writer::open(&scratch.log()).expect("opens");
    assert_eq!((peek(OUTPUT, &scratch.0), peek("slow", &scratch.0)), (Some(ids[11]), Some(ids[4])));
    let fast = Shipper::begin(&writer, &scratch.0);
    let mut slow = Shipper::of("slow", &writer, &scratch.0);
    let late = Shipper::of("late", &writer, &scratch.0);
    assert_eq!([fast.progress.lag(), slow.progress.lag(), late.progress.lag()], [0, 7, 12]);
    slow.progress.end();
    assert_eq!([fast.progress.lag(), slow.progress.lag(), late.progress.lag()], [0, 0, 12]);
    slow.ship(usize::MAX);
    assert_eq!(slow.done, 7);
}

#[test]
fn dropped_records_are_counted_for_each_output_that_had_not_read_them() {
    let scratch = Scratch::new();
    let config = config::Log { budget: 4 * SEGMENT, ..scratch.log() };
    let (mut writer, _) = Writer::open(&config).expect("opens");
    let (mut fast, mut slow) =
        (Shipper::begin(&writer, &scratch.0), Shipper::of("slow", &writer, &scratch.0));
    for _ in 0..150 {
        put(&mut writer, &[1; 4000]);
        fast.ship(1);
    }
    writer.flush().expect("synced");
    let dropped = writer.counters().dropped_by_budget;
    assert!(dropped > 0);
    assert_eq!([fast.progress.dropped_unshipped(), slow.progress.dropped_unshipped()], [0, dropped]);
    // An output that nobody knew of when they went has read none of them either.
    let late = Shipper::of("late", &writer, &scratch.0);
    assert_eq!(late.progress.dropped_unshipped(), dropped);
    late.progress.end();
    assert_eq!(writer.counters().dropped_unshipped, dropped, "the slowest one counts");
    assert_eq!(slow.progress.lag(), 150 - dropped, "what is gone is behind nobody");
    slow.ship(usize::MAX);
    slow.progress.end();
    assert_eq!(writer.counters().dropped_unshipped, 0, "one that does not run misses nothing");
    drop((writer, fast, slow, late));
    // What a smaller budget costs at the next start is counted against the cursors in the folder.
    let mut before = Shipper::of("slow", &Writer::open(&config).expect("opens").0, &scratch.0);
    before.ship(usize::MAX);
    let (writer, _) = Writer::open(&config::Log { budget: 2 * SEGMENT, ..config }).expect("opens");
    let dropped = writer.counters().dropped_by_budget;
    let (fast, slow, late) = (
        Shipper::begin(&writer, &scratch.0),
        Shipper::of("slow", &writer, &scratch.0),
        Shipper::of("late", &writer, &scratch.0),
    );
    let unshipped = [&fast, &slow, &late].map(|output| output.progress.dropped_unshipped());
    assert!(dropped > 0);
    assert_eq!(unshipped, [0, 0, dropped]);
}

#[test]
fn a_new_run_begins_behind_every_cursor() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let ids: Vec<_> = (0..9).map(|_| put(&mut writer, b"old")).collect();
    drop(writer);
    let further = RecordId { seq: (3 << 32) + 7, ..ids[0] };
    let foreign = RecordId { log: Id(*b"another!"), seq: 9 << 32 };
    for (output, id) in [(OUTPUT, ids[8]), ("further", further), ("foreign", foreign)] {
        Cursor::named(output, &scratch.0).expect("opens").0.set(id).expect("set");
    }
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let new = put(&mut writer, b"new");
    assert!(new.log.same_log(ids[0].log));
    assert_eq!(new.seq, (4 << 32) + 1);
    let foreign = Shipper::of("foreign", &writer, &scratch.0);
    assert_eq!(foreign.progress.lag(), 10, "of this log it has read nothing");
}
