//! Segments that are deleted, cut, moved, replaced and exchanged while they are written and read.

use std::collections::BTreeSet;

use super::*;
use crate::log::cursor::peek;

/// A writer whose log has several segments, and all that was appended.
struct Bench {
    scratch: Scratch,
    writer: Writer,
    ids: Vec<RecordId>,
}

impl Bench {
    fn new(segments_there: usize) -> Bench {
        let scratch = Scratch::new();
        let config = config::Log { budget: 64 * SEGMENT, ..scratch.log() };
        let (writer, _) = Writer::open(&config).expect("opens");
        let mut bench = Bench { scratch, writer, ids: Vec::new() };
        while segments(&bench.scratch.0).len() < segments_there {
            bench.put(1);
        }
        bench.put(2);
        bench
    }

    fn put(&mut self, records: usize) {
        for _ in 0..records {
            self.ids.push(put(&mut self.writer, &[6; 4000]));
        }
    }

    fn again(self) -> (Scratch, Writer) {
        let config = config::Log { budget: 64 * SEGMENT, ..self.scratch.log() };
        drop(self.writer);
        let (writer, _) = Writer::open(&config).expect("opens");
        (self.scratch, writer)
    }
}

fn ids(records: &[(RecordId, Vec<u8>)]) -> Vec<RecordId> {
    records.iter().map(|record| record.0).collect()
}

/// Both names are exchanged.
fn exchange(one: &Path, two: &Path) {
    let aside = one.with_extension("aside");
    fs::rename(one, &aside).expect("renamed");
    fs::rename(two, one).expect("renamed");
    fs::rename(aside, two).expect("renamed");
}

#[test]
fn a_segment_that_is_moved_away_or_replaced_costs_a_follower_nothing() {
    let takes: [fn(&Path); 4] = [
        |path| fs::remove_file(path).expect("deleted"),
        |path| fs::rename(path, path.with_extension("moved")).expect("renamed"),
        |path| {
            // A link keeps the file alive.
            fs::hard_link(path, path.with_extension("kept")).expect("linked");
            fs::write(path.with_extension("other"), vec![7; 70_000]).expect("written");
            fs::rename(path.with_extension("other"), path).expect("renamed");
        },
        |path| {
            let copy = path.with_extension("copy");
            fs::copy(path, &copy).expect("copied");
            fs::rename(copy, path).expect("renamed");
        },
    ];
    for (case, take) in takes.into_iter().enumerate() {
        for read_before in [true, false] {
            let mut bench = Bench::new(3);
            let mut reader = Reader::open(&bench.scratch.0).expect("a log");
            let mut seen = Vec::new();
            if read_before {
                seen = ids(&drain(&mut reader));
                assert_eq!(seen, bench.ids);
            } else {
                // It is in the middle of the first one.
                seen.push(reader.next().expect("readable").expect("a record").id);
            }
            let taken = last(&bench.scratch.0);
            take(&taken);
            a_look_later();
            seen.extend(ids(&drain(&mut reader)));
            bench.put(3);
            seen.extend(ids(&drain(&mut reader)));
            let distinct: BTreeSet<_> = seen.iter().copied().collect();
            assert_eq!(distinct.len(), seen.len(), "case {case}: none is shown twice");
            let new = &bench.ids[bench.ids.len() - 3..];
            assert!(seen.ends_with(new), "case {case}: what comes is seen");
            if read_before || case == 3 {
                assert_eq!(seen, bench.ids, "case {case}");
            }
            assert_eq!(bench.writer.counters().lost_segments, 1, "case {case}");
            assert!(ids(&read(&bench.scratch.0)).ends_with(new), "case {case}");
        }
    }
}

#[test]
fn names_that_are_exchanged_cost_nothing_and_no_number_comes_twice() {
    for (one, two) in [(0, 2), (0, 1), (1, 2)] {
        let mut bench = Bench::new(3);
        let mut reader = Reader::open(&bench.scratch.0).expect("a log");
        let mut seen = ids(&drain(&mut reader));
        let there = segments(&bench.scratch.0);
        exchange(&there[one], &there[two]);
        a_look_later();
        bench.put(3);
        seen.extend(ids(&drain(&mut reader)));
        assert_eq!(seen, bench.ids, "a follower sees all, once");
        let all: BTreeSet<_> = ids(&read(&bench.scratch.0)).into_iter().collect();
        assert!(bench.ids.iter().all(|id| all.contains(id)), "whoever comes later sees all");
        // The newest records of all runs may now be under an old name.
        let there = segments(&bench.scratch.0);
        exchange(&there[0], &there[there.len() - 1]);
        let (scratch, mut writer) = bench.again();
        let id = put(&mut writer, b"new");
        assert_eq!((all.contains(&id), id.seq), (false, (1 << 32) + 1));
        assert!(ids(&read(&scratch.0)).contains(&id));
    }
}

#[test]
fn a_run_that_began_in_a_segment_under_a_wrong_name_is_not_begun_again() {
    let mut bench = Bench::new(2);
    for _ in 0..3 {
        let Bench { scratch, writer, ids } = bench;
        drop(writer);
        let config = config::Log { budget: 64 * SEGMENT, ..scratch.log() };
        let (writer, _) = Writer::open(&config).expect("opens");
        bench = Bench { scratch, writer, ids };
        bench.put(1);
    }
    let there = segments(&bench.scratch.0);
    exchange(&there[0], &there[1]);
    let (_scratch, writer) = bench.again();
    assert_eq!(writer.next_id().seq, (4 << 32) + 1);
}

#[test]
fn the_folder_may_be_moved_away_under_a_running_writer() {
    let mut bench = Bench::new(2);
    let mut reader = Reader::open(&bench.scratch.0).expect("a log");
    let mut seen = ids(&drain(&mut reader));
    let aside = Scratch::new();
    fs::rename(&bench.scratch.0, &aside.0).expect("renamed");
    a_look_later();
    let before = bench.ids.len();
    bench.put(2);
    assert_eq!(ids(&read(&bench.scratch.0)), bench.ids[before..]);
    assert_eq!(ids(&read(&aside.0)), bench.ids[..before]);
    seen.extend(ids(&drain(&mut reader)));
    assert_eq!(seen, bench.ids);
    assert!(matches!(Writer::open(&bench.scratch.log()), Err(Error::Held { .. })));
}

#[test]
fn the_shipper_passes_over_segments_of_another_log_and_the_writer_keeps_its_own() {
    let foreign = Bench::new(2);
    for first in [0_u64, 7, 9 << 32] {
        let mut bench = Bench::new(3);
        let mark = bench.writer.mark(OUTPUT);
        let (mut cursor, _) = Cursor::named(OUTPUT, &bench.scratch.0).expect("opens");
        let mut reader = mark.reader(&bench.scratch.0, None).expect("a log");
        let mut seen = ids(&drain(&mut reader));
        let name = folder::path(&bench.scratch.0, first);
        if first == 0 {
            fs::remove_file(&name).expect("deleted");
        }
        fs::copy(last(&foreign.scratch.0), &name).expect("copied");
        seen.extend(ids(&drain(&mut reader)));
        while segments(&bench.scratch.0).len() < 6 {
            bench.put(1);
        }
        seen.extend(ids(&drain(&mut reader)));
        assert_eq!(seen, bench.ids, "first {first}");
        cursor.set(seen[seen.len() - 1]).expect("set");
        let own = seen[0].log;
        let done = peek(OUTPUT, &bench.scratch.0);
        let (scratch, mut writer) = bench.again();
        writer.mark(OUTPUT).begin(&scratch.0, done).expect("readable");
        assert_eq!(writer.mark(OUTPUT).lag(), 0);
        let id = put(&mut writer, b"new");
        assert!(id.log.same_log(own), "first {first}");
        assert!(id.seq > first, "it is behind all names");
        let mut reader = writer.mark(OUTPUT).reader(&scratch.0, done).expect("a log");
        assert_eq!(ids(&drain(&mut reader)), [id]);
        assert_eq!(ids(&read(&scratch.0)).last(), Some(&id));
    }
}

#[test]
fn a_log_that_is_made_anew_twice_before_anyone_looks_is_read_from_its_beginning() {
    let mut bench = Bench::new(1);
    let mut reader = Reader::open(&bench.scratch.0).expect("a log");
    assert_eq!(ids(&drain(&mut reader)), bench.ids);
    for headers in [true, false] {
        let Bench { scratch, writer, .. } = bench;
        drop(writer);
        for segment in segments(&scratch.0) {
            fs::remove_file(segment).expect("deleted");
        }
        // A new log, and a second segment of it.
        let (writer, _) = Writer::open(&scratch.log()).expect("opens");
        bench = Bench { scratch, writer, ids: Vec::new() };
        bench.put(3);
        if !headers {
            let file = fs::OpenOptions::new().write(true).open(last(&bench.scratch.0)).expect("it is there");
            std::os::unix::fs::FileExt::write_all_at(&file, b"rotten", 0).expect("written");
        }
        while segments(&bench.scratch.0).len() < 2 {
            bench.put(1);
        }
        assert_eq!(ids(&drain(&mut reader)), bench.ids, "headers {headers}");
    }
}

#[test]
fn a_log_that_is_made_anew_under_the_same_names_is_followed() {
    let mut bench = Bench::new(1);
    let mut reader = Reader::open(&bench.scratch.0).expect("a log");
    assert_eq!(ids(&drain(&mut reader)), bench.ids);
    let aside = Scratch::new();
    fs::rename(&bench.scratch.0, &aside.0).expect("renamed");
    let new = Bench { writer: Writer::open(&bench.scratch.log()).expect("opens").0, ..bench };
    bench = new;
    let first = segments(&bench.scratch.0);
    assert_eq!(first, [folder::path(&bench.scratch.0, 0)], "of the old log's name");
    let before = bench.ids.len();
    bench.put(3);
    assert_ne!(bench.ids[0].log, bench.ids[before].log);
    assert_eq!(ids(&drain(&mut reader)), bench.ids[before..]);
}

/// A segment with two records of another log.
fn stranger(log: u64) -> (Vec<u8>, [RecordId; 2]) {
    let log = Id((0x6c6f67 + log).to_le_bytes());
    let mut bytes = segment_of(log, 5, &[(5, b"one"), (6, b"two")]);
    bytes.resize(usize::try_from(SEGMENT).expect("small"), 0);
    (bytes, [5, 6].map(|seq| RecordId { log, seq }))
}

#[test]
fn following_goes_on_with_the_own_log_whatever_foreign_segments_are_copied_behind_it() {
    // Before the reader came, or while it follows; one, or one of each of several logs.
    for (before, logs) in [(true, 1), (false, 1), (true, 3), (false, 3)] {
        let mut bench = Bench::new(2);
        let mut reader = Reader::open(&bench.scratch.0).expect("a log");
        let mut seen = if before { Vec::new() } else { ids(&drain(&mut reader)) };
        let mut foreign = Vec::new();
        for log in 1..=logs {
            let (bytes, records) = stranger(log);
            fs::write(folder::path(&bench.scratch.0, (8 + log) << 32), bytes).expect("written");
            foreign.extend(records);
        }
        seen.extend(ids(&drain(&mut reader)));
        for there in [2, 3, 5] {
            while segments(&bench.scratch.0).len() < foreign.len() / 2 + there {
                bench.put(1);
            }
            bench.put(2);
            seen.extend(ids(&drain(&mut reader)));
        }
        let own: Vec<_> = seen.iter().copied().filter(|id| id.log == bench.ids[0].log).collect();
        assert_eq!(own, bench.ids, "what is written is seen, in order and once ({before}, {logs})");
        let others: Vec<_> = seen.iter().copied().filter(|id| id.log != bench.ids[0].log).collect();
        assert_eq!(others, foreign, "and the copied ones too, once ({before}, {logs})");
        let report = reader.report();
        assert!(report.sound() && report.dropped_records == 0, "{report:?}");
        // The next run is behind all names; the reader is there too.
        let (_scratch, mut writer) = bench.again();
        let id = put(&mut writer, b"new");
        assert_eq!(ids(&drain(&mut reader)), [id]);
    }
}

#[test]
fn a_foreign_segment_whose_header_has_rotted_holds_up_neither_follower_nor_shipper() {
    let mut bench = Bench::new(2);
    let (mut bytes, records) = stranger(1);
    bytes[20] ^= 1;
    fs::write(folder::path(&bench.scratch.0, 9 << 32), bytes).expect("written");
    let mut follower = Reader::open(&bench.scratch.0).expect("a log");
    let mut shipper = bench.writer.mark(OUTPUT).reader(&bench.scratch.0, None).expect("a log");
    let (mut shown, mut shipped) = (ids(&drain(&mut follower)), ids(&drain(&mut shipper)));
    while segments(&bench.scratch.0).len() < 5 {
        bench.put(1);
    }
    bench.put(1);
    shown.extend(ids(&drain(&mut follower)));
    shipped.extend(ids(&drain(&mut shipper)));
    assert_eq!(shipped, bench.ids);
    shown.retain(|id| !records.contains(id));
    assert_eq!(shown, bench.ids);
}

#[test]
fn a_foreign_segment_may_go_again_and_so_may_the_whole_folder() {
    let mut bench = Bench::new(2);
    let mut reader = Reader::open(&bench.scratch.0).expect("a log");
    let foreign = folder::path(&bench.scratch.0, 9 << 32);
    fs::write(&foreign, stranger(1).0).expect("written");
    assert_eq!(drain(&mut reader).len(), bench.ids.len() + 2);
    let mut before = bench.ids.len();
    bench.put(1);
    fs::remove_file(&foreign).expect("deleted");
    while segments(&bench.scratch.0).len() < 4 {
        bench.put(1);
    }
    assert_eq!(ids(&drain(&mut reader)), bench.ids[before..]);
    fs::write(&foreign, stranger(2).0).expect("written");
    assert_eq!(drain(&mut reader).len(), 2);
    fs::remove_dir_all(&bench.scratch.0).expect("deleted");
    before = bench.ids.len();
    bench.put(2);
    assert_eq!(ids(&drain(&mut reader)), bench.ids[before..]);
}
