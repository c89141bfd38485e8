//! Who may open a log, and what they find.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::log::record::SEQ_END;

#[test]
fn an_id_reads_back_as_it_is_shown() {
    for seq in [0, 1, 1 << 32, u64::MAX] {
        let id = RecordId { log: Id([0, 1, 2, 3, 250, 251, 252, 255]), seq };
        assert_eq!(id.to_string().len(), 32);
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    for text in
        ["", "12", "+0000000000000000000000000000001", "zz000000000000000000000000000001", "äääääääääääääääa"]
    {
        assert_eq!(text.parse::<RecordId>(), Err(NoId), "{text}");
    }
}

#[test]
fn a_second_writer_is_refused_with_the_pid_of_the_first() {
    let scratch = Scratch::new();
    let (writer, _) = Writer::open(&scratch.log()).expect("opens");
    let error = Writer::open(&scratch.log()).map(|_| ()).expect_err("refused").to_string();
    let (dir, pid) = (scratch.0.display(), std::process::id());
    assert!(error.starts_with(&format!("another onset holds {dir} (pid {pid})")), "{error}");
    drop(writer);
    Writer::open(&scratch.log()).expect("opens once the first is gone");
}

#[test]
fn only_its_owner_can_read_the_log() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    put(&mut writer, b"secret");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&scratch.0), 0o700);
    for entry in fs::read_dir(&scratch.0).expect("a folder") {
        assert_eq!(mode(&entry.expect("an entry").path()), 0o600);
    }
}

#[test]
fn a_later_format_is_refused_by_everyone_in_clear_words() {
    let scratch = Scratch::new();
    drop(Writer::open(&scratch.log()).expect("opens"));
    let path = last(&scratch.0);
    let mut bytes = fs::read(&path).expect("a segment");
    bytes[8] = 2;
    let sum = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&sum.to_le_bytes());
    fs::write(&path, bytes).expect("written");
    let refused = [
        Writer::open(&scratch.log()).map(|_| ()),
        Reader::open(&scratch.0).expect("a folder").next().map(|_| ()),
        verify(&scratch.0).map(|_| ()),
    ];
    for refused in refused {
        let error = refused.expect_err("refused").to_string();
        assert!(error.contains("has log format 2, but this onset only knows up to 1"), "{error}");
    }
}

#[test]
fn each_open_begins_a_new_run_so_that_no_id_repeats() {
    let scratch = Scratch::new();
    for run in 0..5 {
        let (mut writer, recovered) = Writer::open(&scratch.log()).expect("opens");
        assert_eq!(recovered.records, run);
        let id = put(&mut writer, b"x");
        assert_eq!(id.seq, (run << 32) + 1);
    }
    assert_eq!(segments(&scratch.0).len(), 1);
    assert!(verify(&scratch.0).expect("readable").sound());
}

#[test]
fn a_segment_left_unnamed_by_a_crash_is_renamed_at_the_next_open() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let id = put(&mut writer, b"first");
    drop(writer);
    let mut bytes = segment_of(id.log, 2, &[(2, b"second")]);
    bytes.resize(usize::try_from(SEGMENT).expect("small"), 0);
    fs::write(scratch.0.join("next"), bytes).expect("written");
    let (writer, recovered) = Writer::open(&scratch.log()).expect("opens");
    assert_eq!((recovered.segments, writer.next_id().seq), (2, (1 << 32) + 1));
    let bodies: Vec<_> = read(&scratch.0).into_iter().map(|record| record.1).collect();
    assert_eq!(bodies, [b"first".to_vec(), b"second".to_vec()]);
}

#[test]
fn absurd_numbers_end_the_log_but_overflow_nothing() {
    let log = Id(*b"absurd!!");
    for (first, seq, readable) in
        [(SEQ_END - 1, SEQ_END - 1, 1), (7, SEQ_END - 1, 1), (7, SEQ_END, 0), (7, u64::MAX, 0)]
    {
        let scratch = Scratch::new();
        fs::create_dir(&scratch.0).expect("made");
        fs::write(log_dir::segment_path(&scratch.0, first), segment_of(log, first, &[(seq, b"x")]))
            .expect("written");
        assert_eq!(verify(&scratch.0).expect("readable").records, readable);
        for id in [0, SEQ_END, u64::MAX] {
            assert_eq!(get(&scratch.0, RecordId { log, seq: id }).expect("readable"), None);
        }
        match Writer::open(&scratch.log()) {
            Err(Error::Exhausted { .. }) => assert_eq!(readable, 1),
            Ok(_) => assert_eq!(readable, 0),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_document_longer_than_its_reserve_writes_nothing() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    for claim in [4097, usize::MAX] {
        assert!(matches!(writer.append(|_, _| Some(claim)), Err(Error::TooLong { .. })));
    }
    assert!(matches!(writer.append(|_, _| None), Ok(None)));
    assert!(matches!(writer.append(|_, _| Some(0)), Ok(None)));
    assert_eq!(writer.counters(), Counters { failed_appends: 2, ..Counters::default() });
    let id = put(&mut writer, &[8; 4096]);
    assert_eq!(read(&scratch.0), [(id, vec![8; 4096])]);
}

#[test]
fn a_segment_under_a_later_name_is_never_written_over() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let old = put(&mut writer, b"old");
    drop(writer);
    let moved = log_dir::segment_path(&scratch.0, 1 << 32);
    fs::rename(last(&scratch.0), moved).expect("renamed");
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let new = put(&mut writer, b"new");
    assert_eq!(read(&scratch.0), [(old, b"old".to_vec()), (new, b"new".to_vec())]);
}

#[test]
fn an_all_zero_segment_is_deleted() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let old = put(&mut writer, b"old");
    drop(writer);
    fs::write(log_dir::segment_path(&scratch.0, 9 << 32), [0; 70_000]).expect("written");
    assert!(verify(&scratch.0).expect("readable").sound());
    let (mut writer, recovered) = Writer::open(&scratch.log()).expect("opens");
    assert_eq!((recovered.segments, recovered.empty_segments, recovered.records), (2, 1, 1));
    assert!(put(&mut writer, b"new").log.same_log(old.log));
    assert_eq!(read(&scratch.0).len(), 2);
}

#[test]
fn one_segment_of_a_later_format_is_enough_to_refuse_the_log() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    while segments(&scratch.0).len() < 4 {
        put(&mut writer, &[1; 4000]);
    }
    put(&mut writer, b"the last");
    drop(writer);
    let all = read(&scratch.0).len();
    for path in segments(&scratch.0) {
        let sound = fs::read(&path).expect("a segment");
        let mut bytes = sound.clone();
        bytes[8..12].copy_from_slice(&7_u32.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&sum.to_le_bytes());
        fs::write(&path, &bytes).expect("written");
        let says = format!("{} has log format 7, but this onset only knows up to 1", path.display());
        let mut reader = Reader::open(&scratch.0).expect("a folder");
        let mut seen = 0;
        let refused = loop {
            match reader.next() {
                Ok(Some(_)) => seen += 1,
                Ok(None) => panic!("the reader takes it for the end"),
                Err(error) => break error,
            }
        };
        assert!(seen < all && refused.to_string().starts_with(&says), "{refused}");
        let again = reader.next().map(|_| ()).expect_err("refused again");
        assert!(again.to_string().starts_with(&says), "{again}");
        for refused in [Writer::open(&scratch.log()).map(|_| ()), verify(&scratch.0).map(|_| ())] {
            let error = refused.expect_err("refused").to_string();
            assert!(error.starts_with(&says) && error.ends_with("or move the folder away"), "{error}");
        }
        assert_eq!(fs::read(&path).expect("a segment"), bytes, "nothing was written into it");
        fs::write(&path, sound).expect("written");
    }
    let next = scratch.0.join("next");
    let mut bytes = Header { log: Id(*b"a later!"), first: 1 << 40, size: SEGMENT }.bytes();
    bytes[8] = 2;
    let sum = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&sum.to_le_bytes());
    fs::write(&next, bytes).expect("written");
    let error = Writer::open(&scratch.log()).map(|_| ()).expect_err("refused").to_string();
    assert!(error.contains("next has log format 2"), "{error}");
    fs::remove_file(next).expect("deleted");
    Writer::open(&scratch.log()).expect("opens");
    assert_eq!(read(&scratch.0).len(), all);
}

#[test]
fn the_log_depends_on_no_wall_clock() {
    // Documents carry times; that a clock is stepped cannot matter to numbers, order or budget.
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/log");
    let mut files = 0;
    for entry in fs::read_dir(sources).expect("sources").map(|entry| entry.expect("an entry").path()) {
        let Ok(text) = fs::read_to_string(&entry) else { continue };
        files += 1;
        for clock in ["SystemTime", "UNIX_EPOCH", "clock::", "sys::now", "modified()", "mtime", "REALTIME"] {
            assert!(!text.contains(clock), "{} uses {clock}", entry.display());
        }
    }
    assert!(files > 10, "the sources are where this test looks for them");
}
