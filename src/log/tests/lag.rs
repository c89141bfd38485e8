//! What is shipped, what is not yet, and what never will be.

use super::*;
use crate::log::cursor::peek;

/// A shipper without a server: reads, and has done what it has read.
struct Shipper {
    cursor: Cursor,
    reader: Reader,
    mark: std::sync::Arc<Mark>,
    done: u64,
}

impl Shipper {
    fn begin(writer: &Writer, dir: &Path) -> Shipper {
        let (cursor, shipped) = Cursor::open(dir).expect("opens");
        let mark = writer.mark();
        mark.begin(dir, shipped).expect("readable");
        let reader = shipped.map_or_else(|| Reader::open(dir), |id| Reader::after(dir, id));
        Shipper { cursor, reader: reader.expect("a log"), mark, done: 0 }
    }

    fn ship(&mut self, most: usize) {
        for _ in 0..most {
            let Some(id) = self.reader.next().expect("readable").map(|entry| entry.id) else { return };
            self.cursor.set(id).expect("set");
            self.mark.shipped(id);
            self.done += 1;
        }
    }
}

/// How many records one would find who begins where shipping is.
fn left(dir: &Path) -> u64 {
    let reader = peek(dir).map_or_else(|| Reader::open(dir), |id| Reader::after(dir, id));
    drain(&mut reader.expect("a log")).len() as u64
}

#[test]
fn where_nobody_ships_nothing_is_behind_and_nothing_is_dropped_unshipped() {
    let scratch = Scratch::new();
    let config = config::Log { budget: 2 * SEGMENT, ..scratch.log() };
    let (mut writer, _) = Writer::open(&config).expect("opens");
    for _ in 0..100 {
        put(&mut writer, &[1; 4000]);
    }
    writer.flush().expect("synced");
    let counters = writer.counters();
    assert!(counters.dropped_by_budget > 0);
    assert_eq!((counters.dropped_unshipped, writer.mark().lag()), (0, 0));
}

#[test]
fn the_lag_counts_what_earlier_runs_left_and_what_comes() {
    let scratch = Scratch::new();
    let mut ids = Vec::new();
    for _ in 0..5 {
        let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
        ids.extend((0..7).map(|_| put(&mut writer, &[1; 3000])));
    }
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let mut shipper = Shipper::begin(&writer, &scratch.0);
    assert_eq!(writer.mark().lag(), 35);
    shipper.ship(10);
    assert_eq!((writer.mark().lag(), peek(&scratch.0)), (25, Some(ids[9])));
    put(&mut writer, b"one more");
    assert_eq!(writer.mark().lag(), 26);
    drop((writer, shipper));
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let mut shipper = Shipper::begin(&writer, &scratch.0);
    assert_eq!(writer.mark().lag(), 26);
    shipper.ship(25);
    put(&mut writer, b"and another");
    assert_eq!(writer.mark().lag(), 2);
    shipper.ship(9);
    assert_eq!((writer.mark().lag(), shipper.done), (0, 27));
    let foreign = RecordId { log: Id(*b"another!"), seq: u64::MAX };
    put(&mut writer, b"the last");
    writer.mark().shipped(foreign);
    assert_eq!(writer.mark().lag(), 1);
    writer.mark().end();
    assert_eq!(writer.mark().lag(), 0);
    writer.mark().begin(&scratch.0, peek(&scratch.0)).expect("readable");
    assert_eq!(writer.mark().lag(), 1);
}

#[test]
fn records_that_the_budget_forces_out_before_they_are_shipped_are_counted() {
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
    assert_eq!(writer.mark().lag() + counters.dropped_unshipped, 150);
    assert_eq!(writer.mark().lag(), left(&scratch.0));
    drop((writer, shipper));
    // Less budget at the next start: what that costs is told once someone ships.
    let before = left(&scratch.0);
    let less = config::Log { budget: 2 * SEGMENT, ..scratch.log() };
    let (writer, _) = Writer::open(&less).expect("opens");
    assert_eq!(writer.counters().dropped_unshipped, 0);
    let _shipper = Shipper::begin(&writer, &scratch.0);
    assert_eq!(writer.counters().dropped_unshipped + left(&scratch.0), before);
    assert_eq!(writer.mark().lag(), left(&scratch.0));
}

#[test]
fn whatever_the_order_of_things_each_record_is_shipped_or_behind_or_dropped() {
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
            assert_eq!(writer.mark().lag(), left(&scratch.0), "seed {seed}");
            // A reader that has a deleted segment open ships it all the same.
            let sum = done + shipper.done + dropped + writer.counters().dropped_unshipped;
            assert!(sum + writer.mark().lag() >= appended, "seed {seed}");
        }
        shipper.ship(usize::MAX);
        assert_eq!(writer.mark().lag(), 0, "seed {seed}");
    }
}

#[test]
fn where_nothing_but_what_was_shipped_is_left_new_records_are_behind_it() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let ids: Vec<_> = (0..9).map(|_| put(&mut writer, b"old")).collect();
    drop(writer);
    Cursor::open(&scratch.0).expect("opens").0.set(ids[8]).expect("set");
    fs::remove_file(last(&scratch.0)).expect("deleted");
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let new = put(&mut writer, b"new");
    assert!(new.log.same_log(ids[0].log) && new.log != ids[0].log);
    assert_eq!(new.seq, (1 << 32) + 1);
    let mut reader = writer.mark().reader(&scratch.0, peek(&scratch.0)).expect("a log");
    assert_eq!(drain(&mut reader), [(new, b"new".to_vec())]);
}

#[test]
fn a_number_that_was_shipped_is_not_given_out_again_even_if_its_segment_is_lost() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    while segments(&scratch.0).len() < 2 {
        put(&mut writer, &[1; 4000]);
    }
    drop(writer);
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let id = put(&mut writer, b"shipped");
    Cursor::open(&scratch.0).expect("opens").0.set(id).expect("set");
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
    fs::rename(last(&scratch.0), folder::path(&scratch.0, 5 << 32)).expect("renamed");
    let (mut writer, recovered) = Writer::open(&scratch.log()).expect("opens");
    assert_eq!((recovered.empty_segments, put(&mut writer, b"x").seq), (1, (6 << 32) + 1));
}
