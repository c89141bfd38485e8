//! Logs that are copied, and logs that are set back: whoever goes on with one gives out no id that
//! another has.

use std::collections::BTreeSet;

use super::*;
use crate::log::record::next_run;

/// A log with a few documents of two runs, the first of which are shipped.
fn original() -> (Scratch, Vec<RecordId>) {
    let scratch = Scratch::new();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
        ids.extend((0..3).map(|_| put(&mut writer, b"before")));
    }
    Cursor::named(OUTPUT, &scratch.0).expect("opens").0.set(ids[1]).expect("set");
    (scratch, ids)
}

fn copy(from: &Path) -> Scratch {
    let to = Scratch::new();
    fs::create_dir(&to.0).expect("made");
    for entry in fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry")) {
        fs::copy(entry.path(), to.0.join(entry.file_name())).expect("copied");
    }
    to
}

/// What there is to be shipped.
fn unshipped(writer: &Writer, dir: &Path) -> Vec<RecordId> {
    let (_, shipped) = Cursor::named(OUTPUT, dir).expect("opens");
    writer.progress(OUTPUT).begin(dir, shipped).expect("readable");
    let mut reader = writer.progress(OUTPUT).reader(dir, shipped).expect("a log");
    let ids: Vec<_> = drain(&mut reader).into_iter().map(|record| record.0).collect();
    assert_eq!(writer.progress(OUTPUT).lag(), ids.len() as u64);
    ids
}

#[test]
fn two_copies_of_a_log_never_give_out_the_same_new_id() {
    let (first, ids) = original();
    let copies = [copy(&first.0), copy(&first.0), first];
    let mut all: BTreeSet<_> = ids.iter().copied().collect();
    for round in 1..4 {
        for scratch in &copies {
            let (mut writer, recovered) = Writer::open(&scratch.log()).expect("opens");
            assert_eq!((recovered.records, recovered.torn_bytes), (6 + (round - 1) * 5, 0));
            for _ in 0..5 {
                assert!(all.insert(put(&mut writer, b"new")), "no id comes twice");
            }
            let there: Vec<_> = read(&scratch.0).into_iter().map(|record| record.0).collect();
            assert!(there.starts_with(&ids) && there.is_sorted_by_key(|id| id.seq), "what was there is read");
            assert!(unshipped(&writer, &scratch.0) == there[2..], "what was unshipped is shipped by each");
            assert!(there.iter().all(|id| get(&scratch.0, *id).expect("readable").is_some()));
            assert!(verify(&scratch.0).expect("readable").sound());
            assert_eq!(segments(&scratch.0).len(), 1, "it goes on where it was");
        }
    }
    assert_eq!(all.len(), 6 + 3 * 3 * 5);
}

#[test]
fn a_log_restored_from_a_backup_reuses_no_id() {
    let (scratch, ids) = original();
    let mut all: BTreeSet<_> = ids.into_iter().collect();
    let saved = copy(&scratch.0);
    let mut back = scratch;
    for _ in 0..4 {
        let (mut writer, _) = Writer::open(&back.log()).expect("opens");
        for _ in 0..3 {
            assert!(all.insert(put(&mut writer, b"of a future that is lost")));
        }
        drop(writer);
        back = copy(&saved.0);
    }
}

#[test]
fn a_follower_continues_into_the_next_run() {
    let (scratch, ids) = original();
    let mut follower = Reader::open(&scratch.0).expect("a log");
    assert_eq!(drain(&mut follower).len(), ids.len());
    for _ in 0..3 {
        let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
        let id = put(&mut writer, b"new");
        assert_eq!(drain(&mut follower), [(id, b"new".to_vec())]);
    }
}

#[test]
fn a_log_whose_last_run_is_only_a_header_is_continued() {
    for first in [0, 5, 1 << 32, (1 << 32) + 5] {
        let scratch = Scratch::new();
        fs::create_dir(&scratch.0).expect("made");
        let mut bytes = segment_of(Id(*b"the log!"), first, &[]);
        bytes.resize(usize::try_from(SEGMENT).expect("small"), 0);
        fs::write(log_dir::segment_path(&scratch.0, first), bytes).expect("written");
        let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
        let id = put(&mut writer, b"x");
        assert_eq!(read(&scratch.0), [(id, b"x".to_vec())], "{first}");
        assert_eq!((segments(&scratch.0).len(), Some(id.seq - 1)), (1, next_run(first)));
    }
}

#[test]
fn a_record_of_another_run_is_valid_only_behind_the_run_before_it() {
    let log = Id(*b"the log!");
    let (run, other) = (Id(*b"thereof!"), Id(*b"another!"));
    let at = |log, run: u64, number| RecordId { log, seq: (run << 32) + number };
    let one = at(log, 1, 1);
    for (id, counts) in [
        (at(log, 1, 2), true),
        (at(log, 2, 0), true),
        (at(run, 2, 0), true),
        (at(run, 7, 9), true), // whatever came before it is lost
        (at(run, 1, 2), false),
        (at(run, 0, 2), false),
        (at(other, 2, 0), false),
    ] {
        let scratch = Scratch::new();
        fs::create_dir(&scratch.0).expect("made");
        let bytes = segment_of_runs(log, one.seq, &[(one, b"one"), (id, b"two")]);
        fs::write(log_dir::segment_path(&scratch.0, one.seq), bytes).expect("written");
        let found: Vec<_> = read(&scratch.0).into_iter().map(|record| record.0).collect();
        assert_eq!(found, [one, id][..1 + usize::from(counts)], "{id}");
    }
}
