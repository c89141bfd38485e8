//! Readers beside a writer.

use std::os::unix::fs::FileExt as _;

use super::*;
use crate::log::record::HEAD;

#[test]
fn a_reader_sees_records_while_they_are_written_and_across_segments() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&config::Log { budget: 1 << 30, ..scratch.log() }).expect("opens");
    let mut reader = Reader::open(&scratch.0).expect("a log");
    let write = std::thread::spawn(move || {
        let mut random = Random(1);
        let bodies = (0..3000).map(|_| 1 + random.below(600)).collect::<Vec<_>>();
        bodies.iter().map(|len| (put(&mut writer, &vec![42; *len]), *len)).collect::<Vec<_>>()
    });
    let until = Instant::now() + Duration::from_secs(60);
    let mut seen = Vec::new();
    while seen.len() < 3000 && Instant::now() < until {
        match reader.next().expect("readable") {
            Some(entry) => seen.push((entry.id, entry.bytes.len())),
            None => std::thread::yield_now(),
        }
    }
    assert_eq!(seen, write.join().expect("the writer lives"));
    assert!(segments(&scratch.0).len() > 5 && reader.report().sound());
}

#[test]
fn a_record_is_visible_to_every_reader_once_append_returns() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let mut follower = Reader::open(&scratch.0).expect("a log");
    for len in 1..200 {
        let id = put(&mut writer, &vec![1; len * 20]);
        assert_eq!(follower.next().expect("readable").map(|entry| entry.id), Some(id));
        assert!(follower.next().expect("readable").is_none());
    }
}

#[test]
fn a_reader_continues_when_its_segment_is_deleted() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let mut ids = vec![put(&mut writer, b"one"), put(&mut writer, b"two")];
    let mut reader = Reader::open(&scratch.0).expect("a log");
    assert_eq!(reader.next().expect("readable").map(|entry| entry.id), Some(ids[0]));
    while segments(&scratch.0).len() < 4 {
        ids.push(put(&mut writer, &[9; 4000]));
    }
    let there = segments(&scratch.0);
    fs::remove_file(&there[0]).expect("deleted");
    fs::remove_file(&there[1]).expect("deleted");
    let rest: Vec<_> = drain(&mut reader).into_iter().map(|record| record.0).collect();
    let report = reader.report();
    let held = rest.iter().take_while(|id| rest[0].seq + 20 > id.seq).count();
    assert!(held > 1 && ids.ends_with(&rest[rest.len() - 2..]));
    assert_eq!(report.records + report.dropped_records, ids.len() as u64);
    assert!(report.dropped_records > 0 && report.sound());
}

#[test]
fn a_reader_follows_into_a_recreated_log() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    put(&mut writer, b"old");
    drop(writer);
    drop(Writer::open(&scratch.log()).expect("opens"));
    let mut reader = Reader::open(&scratch.0).expect("a log");
    assert_eq!(drain(&mut reader).len(), 1);
    fs::remove_dir_all(&scratch.0).expect("deleted");
    assert!(reader.next().expect("readable").is_none());
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let id = put(&mut writer, b"new");
    assert_eq!(drain(&mut reader), [(id, b"new".to_vec())]);
}

#[test]
fn reading_starts_after_any_given_record_id() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let ids: Vec<_> = (0..60).map(|_| put(&mut writer, &[5; 3000])).collect();
    for at in [0, 1, 20, 40, 59] {
        let mut reader = Reader::after(&scratch.0, ids[at]).expect("a log");
        let rest: Vec<_> = drain(&mut reader).into_iter().map(|record| record.0).collect();
        assert_eq!(rest, ids[at + 1..]);
    }
    let foreign = RecordId { log: Id(*b"another!"), seq: ids[30].seq };
    assert_eq!(drain(&mut Reader::after(&scratch.0, foreign).expect("a log")).len(), 60);
    fs::remove_file(&segments(&scratch.0)[0]).expect("deleted");
    let mut reader = Reader::after(&scratch.0, ids[2]).expect("a log");
    let read = drain(&mut reader).len() as u64;
    assert!(read < 57);
    assert_eq!(reader.report().dropped_records, 57 - read);
}

#[test]
fn a_truncated_segment_is_a_short_read() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let ids = [put(&mut writer, &[1; 100]), put(&mut writer, &[2; 100]), put(&mut writer, &[3; 100])];
    let mut reader = Reader::open(&scratch.0).expect("a log");
    assert_eq!(reader.next().expect("readable").map(|entry| entry.id), Some(ids[0]));
    drop(writer);
    for len in [300, 200, 64, 10, 0] {
        fs::OpenOptions::new()
            .write(true)
            .open(last(&scratch.0))
            .and_then(|file| file.set_len(len))
            .expect("cut");
        assert!(verify(&scratch.0).expect("readable").records < 3);
        drain(&mut reader);
    }
}

#[test]
fn a_follower_of_an_idle_log_sees_what_is_written_later() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    put(&mut writer, b"one");
    let mut reader = Reader::open(&scratch.0).expect("a log");
    let settle = |reader: &mut Reader| {
        let until = Instant::now() + Duration::from_secs(20);
        while !reader.trusts_dir() && Instant::now() < until {
            assert_eq!(drain(reader), []);
        }
        assert!(reader.trusts_dir(), "the folder settles");
        assert_eq!(drain(reader), []);
    };
    drain(&mut reader);
    settle(&mut reader);
    // In the same segment, in later ones, in one under another's name, in a folder that was made anew.
    let id = put(&mut writer, b"two");
    assert_eq!(drain(&mut reader), [(id, b"two".to_vec())]);
    settle(&mut reader);
    let ids: Vec<_> = (0..40).map(|_| put(&mut writer, &[7; 4000])).collect();
    assert!(segments(&scratch.0).len() > 2);
    assert_eq!(drain(&mut reader).into_iter().map(|record| record.0).collect::<Vec<_>>(), ids);
    settle(&mut reader);
    drop(writer);
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let id = put(&mut writer, b"three");
    assert_eq!(drain(&mut reader), [(id, b"three".to_vec())]);
    settle(&mut reader);
    drop(writer);
    fs::remove_dir_all(&scratch.0).expect("deleted");
    assert_eq!(drain(&mut reader), []);
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let id = put(&mut writer, b"four");
    assert_eq!(drain(&mut reader), [(id, b"four".to_vec())]);
}

#[test]
fn a_follower_reads_a_record_behind_a_corrupt_head_before_the_next_segment() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    put(&mut writer, b"one");
    let mut reader = Reader::open(&scratch.0).expect("a log");
    // It finds the end, and finds it unchanged.
    (0..3).for_each(|_| drop(drain(&mut reader)));
    put(&mut writer, b"rotten");
    let mut ids = vec![put(&mut writer, b"behind it")];
    let bytes = fs::read(last(&scratch.0)).expect("a segment");
    let body = bytes.windows(6).position(|some| some == b"rotten").expect("it is there");
    let file = fs::OpenOptions::new().write(true).open(last(&scratch.0)).expect("a segment");
    file.write_all_at(&[0; HEAD], (body - HEAD) as u64).expect("written");
    ids.extend((0..40).map(|_| put(&mut writer, &[7; 4000])));
    assert!(segments(&scratch.0).len() > 2);
    assert_eq!(drain(&mut reader).into_iter().map(|record| record.0).collect::<Vec<_>>(), ids);
    assert_eq!(reader.report().dropped_records, 0, "the rotten one is a bad record, not a dropped one");
}
