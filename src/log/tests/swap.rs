//! Segments that are deleted, cut, moved, replaced and exchanged while they are written and read.

use std::collections::BTreeSet;

use super::*;
use crate::log::cursor::peek;

/// A writer whose log has several segments, and all that was appended.
struct FilledLog {
    scratch: Scratch,
    writer: Writer,
    ids: Vec<RecordId>,
}

impl FilledLog {
    fn new(segments_there: usize) -> FilledLog {
        let scratch = Scratch::new();
        let config = config::Log { budget: 64 * SEGMENT, ..scratch.log() };
        let (writer, _) = Writer::open(&config).expect("opens");
        let mut filled = FilledLog { scratch, writer, ids: Vec::new() };
        while segments(&filled.scratch.0).len() < segments_there {
            filled.put(1);
        }
        filled.put(2);
        filled
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
fn a_follower_loses_nothing_when_a_segment_is_moved_or_replaced() {
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
            let mut filled = FilledLog::new(3);
            let mut reader = Reader::open(&filled.scratch.0).expect("a log");
            let mut seen = Vec::new();
            if read_before {
                seen = ids(&drain(&mut reader));
                assert_eq!(seen, filled.ids);
            } else {
                // It is in the middle of the first one.
                seen.push(reader.next().expect("readable").expect("a record").id);
            }
            let taken = last(&filled.scratch.0);
            take(&taken);
            a_look_later();
            seen.extend(ids(&drain(&mut reader)));
            filled.put(3);
            seen.extend(ids(&drain(&mut reader)));
            let distinct: BTreeSet<_> = seen.iter().copied().collect();
            assert_eq!(distinct.len(), seen.len(), "case {case}: none is shown twice");
            let new = &filled.ids[filled.ids.len() - 3..];
            assert!(seen.ends_with(new), "case {case}: what comes is seen");
            if read_before || case == 3 {
                assert_eq!(seen, filled.ids, "case {case}");
            }
            assert_eq!(filled.writer.counters().lost_segments, 1, "case {case}");
            assert!(ids(&read(&filled.scratch.0)).ends_with(new), "case {case}");
        }
    }
}

#[test]
fn swapped_segment_names_lose_no_record_and_repeat_no_number() {
    for (one, two) in [(0, 2), (0, 1), (1, 2)] {
        let mut filled = FilledLog::new(3);
        let mut reader = Reader::open(&filled.scratch.0).expect("a log");
        let mut seen = ids(&drain(&mut reader));
        let there = segments(&filled.scratch.0);
        exchange(&there[one], &there[two]);
        a_look_later();
        filled.put(3);
        seen.extend(ids(&drain(&mut reader)));
        assert_eq!(seen, filled.ids, "a follower sees all, once");
        let all: BTreeSet<_> = ids(&read(&filled.scratch.0)).into_iter().collect();
        assert!(filled.ids.iter().all(|id| all.contains(id)), "whoever comes later sees all");
        // The newest records of all runs may now be under an old name.
        let there = segments(&filled.scratch.0);
        exchange(&there[0], &there[there.len() - 1]);
        let (scratch, mut writer) = filled.again();
        let id = put(&mut writer, b"new");
        assert_eq!((all.contains(&id), id.seq), (false, (1 << 32) + 1));
        assert!(ids(&read(&scratch.0)).contains(&id));
    }
}

#[test]
fn a_run_found_under_a_wrong_segment_name_is_not_reused() {
    let mut filled = FilledLog::new(2);
    for _ in 0..3 {
        let FilledLog { scratch, writer, ids } = filled;
        drop(writer);
        let config = config::Log { budget: 64 * SEGMENT, ..scratch.log() };
        let (writer, _) = Writer::open(&config).expect("opens");
        filled = FilledLog { scratch, writer, ids };
        filled.put(1);
    }
    let there = segments(&filled.scratch.0);
    exchange(&there[0], &there[1]);
    let (_scratch, writer) = filled.again();
    assert_eq!(writer.next_id().seq, (4 << 32) + 1);
}

#[test]
fn the_log_directory_may_be_moved_away_under_a_running_writer() {
    let mut filled = FilledLog::new(2);
    let mut reader = Reader::open(&filled.scratch.0).expect("a log");
    let mut seen = ids(&drain(&mut reader));
    let aside = Scratch::new();
    fs::rename(&filled.scratch.0, &aside.0).expect("renamed");
    a_look_later();
    let before = filled.ids.len();
    filled.put(2);
    assert_eq!(ids(&read(&filled.scratch.0)), filled.ids[before..]);
    assert_eq!(ids(&read(&aside.0)), filled.ids[..before]);
    seen.extend(ids(&drain(&mut reader)));
    assert_eq!(seen, filled.ids);
    assert!(matches!(Writer::open(&filled.scratch.log()), Err(Error::Held { .. })));
}

#[test]
fn segments_of_another_log_are_not_shipped_and_the_writer_keeps_its_own() {
    let foreign = FilledLog::new(2);
    for first in [0_u64, 7, 9 << 32] {
        let mut filled = FilledLog::new(3);
        let progress = filled.writer.progress(OUTPUT);
        let (mut cursor, _) = Cursor::named(OUTPUT, &filled.scratch.0).expect("opens");
        let mut reader = progress.reader(&filled.scratch.0, None).expect("a log");
        let mut seen = ids(&drain(&mut reader));
        let name = log_dir::segment_path(&filled.scratch.0, first);
        if first == 0 {
            fs::remove_file(&name).expect("deleted");
        }
        fs::copy(last(&foreign.scratch.0), &name).expect("copied");
        seen.extend(ids(&drain(&mut reader)));
        while segments(&filled.scratch.0).len() < 6 {
            filled.put(1);
        }
        seen.extend(ids(&drain(&mut reader)));
        assert_eq!(seen, filled.ids, "first {first}");
        cursor.set(seen[seen.len() - 1]).expect("set");
        let own = seen[0].log;
        let done = peek(OUTPUT, &filled.scratch.0);
        let (scratch, mut writer) = filled.again();
        writer.progress(OUTPUT).begin(&scratch.0, done).expect("readable");
        assert_eq!(writer.progress(OUTPUT).lag(), 0);
        let id = put(&mut writer, b"new");
        assert!(id.log.same_log(own), "first {first}");
        assert!(id.seq > first, "it is behind all names");
        let mut reader = writer.progress(OUTPUT).reader(&scratch.0, done).expect("a log");
        assert_eq!(ids(&drain(&mut reader)), [id]);
        assert_eq!(ids(&read(&scratch.0)).last(), Some(&id));
    }
}

#[test]
fn a_log_recreated_twice_between_two_polls_is_read_from_its_beginning() {
    let mut filled = FilledLog::new(1);
    let mut reader = Reader::open(&filled.scratch.0).expect("a log");
    assert_eq!(ids(&drain(&mut reader)), filled.ids);
    for headers in [true, false] {
        let FilledLog { scratch, writer, .. } = filled;
        drop(writer);
        for segment in segments(&scratch.0) {
            fs::remove_file(segment).expect("deleted");
        }
        // A new log, and a second segment of it.
        let (writer, _) = Writer::open(&scratch.log()).expect("opens");
        filled = FilledLog { scratch, writer, ids: Vec::new() };
        filled.put(3);
        if !headers {
            let file = fs::OpenOptions::new().write(true).open(last(&filled.scratch.0)).expect("it is there");
            std::os::unix::fs::FileExt::write_all_at(&file, b"rotten", 0).expect("written");
        }
        while segments(&filled.scratch.0).len() < 2 {
            filled.put(1);
        }
        assert_eq!(ids(&drain(&mut reader)), filled.ids, "headers {headers}");
    }
}

#[test]
fn a_log_recreated_under_the_same_segment_names_is_followed() {
    let mut filled = FilledLog::new(1);
    let mut reader = Reader::open(&filled.scratch.0).expect("a log");
    assert_eq!(ids(&drain(&mut reader)), filled.ids);
    let aside = Scratch::new();
    fs::rename(&filled.scratch.0, &aside.0).expect("renamed");
    let new = FilledLog { writer: Writer::open(&filled.scratch.log()).expect("opens").0, ..filled };
    filled = new;
    let first = segments(&filled.scratch.0);
    assert_eq!(first, [log_dir::segment_path(&filled.scratch.0, 0)], "of the old log's name");
    let before = filled.ids.len();
    filled.put(3);
    assert_ne!(filled.ids[0].log, filled.ids[before].log);
    assert_eq!(ids(&drain(&mut reader)), filled.ids[before..]);
}

/// A segment with two records of another log.
fn stranger(log: u64) -> (Vec<u8>, [RecordId; 2]) {
    let log = Id((0x6c6f67 + log).to_le_bytes());
    let mut bytes = segment_of(log, 5, &[(5, b"one"), (6, b"two")]);
    bytes.resize(usize::try_from(SEGMENT).expect("small"), 0);
    (bytes, [5, 6].map(|seq| RecordId { log, seq }))
}

#[test]
fn a_follower_stays_with_its_log_when_foreign_segments_are_copied_behind_it() {
    // Before the reader came, or while it follows; one, or one of each of several logs.
    for (before, logs) in [(true, 1), (false, 1), (true, 3), (false, 3)] {
        let mut filled = FilledLog::new(2);
        let mut reader = Reader::open(&filled.scratch.0).expect("a log");
        let mut seen = if before { Vec::new() } else { ids(&drain(&mut reader)) };
        let mut foreign = Vec::new();
        for log in 1..=logs {
            let (bytes, records) = stranger(log);
            fs::write(log_dir::segment_path(&filled.scratch.0, (8 + log) << 32), bytes).expect("written");
            foreign.extend(records);
        }
        seen.extend(ids(&drain(&mut reader)));
        for there in [2, 3, 5] {
            while segments(&filled.scratch.0).len() < foreign.len() / 2 + there {
                filled.put(1);
            }
            filled.put(2);
            seen.extend(ids(&drain(&mut reader)));
        }
        let own: Vec<_> = seen.iter().copied().filter(|id| id.log == filled.ids[0].log).collect();
        assert_eq!(own, filled.ids, "what is written is seen, in order and once ({before}, {logs})");
        let others: Vec<_> = seen.iter().copied().filter(|id| id.log != filled.ids[0].log).collect();
        assert_eq!(others, foreign, "and the copied ones too, once ({before}, {logs})");
        let report = reader.report();
        assert!(report.sound() && report.dropped_records == 0, "{report:?}");
        // The next run is behind all names; the reader is there too.
        let (_scratch, mut writer) = filled.again();
        let id = put(&mut writer, b"new");
        assert_eq!(ids(&drain(&mut reader)), [id]);
    }
}

#[test]
fn a_foreign_segment_with_a_corrupt_header_blocks_neither_follower_nor_shipper() {
    let mut filled = FilledLog::new(2);
    let (mut bytes, records) = stranger(1);
    bytes[20] ^= 1;
    fs::write(log_dir::segment_path(&filled.scratch.0, 9 << 32), bytes).expect("written");
    let mut follower = Reader::open(&filled.scratch.0).expect("a log");
    let mut shipper = filled.writer.progress(OUTPUT).reader(&filled.scratch.0, None).expect("a log");
    let (mut shown, mut shipped) = (ids(&drain(&mut follower)), ids(&drain(&mut shipper)));
    while segments(&filled.scratch.0).len() < 5 {
        filled.put(1);
    }
    filled.put(1);
    shown.extend(ids(&drain(&mut follower)));
    shipped.extend(ids(&drain(&mut shipper)));
    assert_eq!(shipped, filled.ids);
    shown.retain(|id| !records.contains(id));
    assert_eq!(shown, filled.ids);
}

#[test]
fn a_follower_survives_the_deletion_of_foreign_segments_and_of_the_directory() {
    let mut filled = FilledLog::new(2);
    let mut reader = Reader::open(&filled.scratch.0).expect("a log");
    let foreign = log_dir::segment_path(&filled.scratch.0, 9 << 32);
    fs::write(&foreign, stranger(1).0).expect("written");
    assert_eq!(drain(&mut reader).len(), filled.ids.len() + 2);
    let mut before = filled.ids.len();
    filled.put(1);
    fs::remove_file(&foreign).expect("deleted");
    while segments(&filled.scratch.0).len() < 4 {
        filled.put(1);
    }
    assert_eq!(ids(&drain(&mut reader)), filled.ids[before..]);
    fs::write(&foreign, stranger(2).0).expect("written");
    assert_eq!(drain(&mut reader).len(), 2);
    fs::remove_dir_all(&filled.scratch.0).expect("deleted");
    before = filled.ids.len();
    filled.put(2);
    assert_eq!(ids(&drain(&mut reader)), filled.ids[before..]);
}
