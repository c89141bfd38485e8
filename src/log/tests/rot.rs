//! Rotten bytes anywhere: exactly the record that they are in is lost.

use std::ops::Range;

use super::*;
use crate::log::record::{HEAD, HEADER};
use crate::log::scan::{Scan, Step};

/// Bodies of three runs, and where each record is in the file.
fn sample() -> (Vec<u8>, Vec<(u64, Range<usize>)>) {
    let bodies: [&[u8]; 7] = [b"", b"a", b"{\"x\":1}", b"12345678", &[0; 20], b"oREC oREC oREC", &[255; 33]];
    let run = |log, first: u64| (first << 32..).map(move |seq| RecordId { log, seq });
    let first = Id(*b"the log!");
    let ids = run(first, 1).take(3).chain(run(Id(*b"thence.."), 2).take(1)).chain(run(Id(*b"thereof!"), 4));
    let records: Vec<(RecordId, &[u8])> = ids.zip(bodies).collect();
    let bytes = segment_of_runs(first, 1 << 32, &records);
    let mut at = HEADER;
    let mut places = Vec::new();
    for (id, body) in records {
        places.push((id.seq, at..at + HEAD + body.len()));
        at += record::footprint(body.len());
    }
    assert_eq!(at, bytes.len());
    (bytes, places)
}

fn walk(bytes: &[u8]) -> (Vec<u64>, u64, u64) {
    let mut scan = Scan::default();
    scan.begin(bytes, 1 << 32).expect("memory");
    let (mut seqs, mut bad) = (Vec::new(), 0);
    loop {
        match scan.next(bytes).expect("memory") {
            Step::Record { id, .. } => seqs.push(id.seq),
            Step::Bad { records } => bad += records,
            Step::End { torn } => return (seqs, bad, torn),
        }
    }
}

#[test]
fn a_flipped_bit_loses_only_its_own_record() {
    let (sound, places) = sample();
    assert_eq!(walk(&sound), (places.iter().map(|place| place.0).collect(), 0, 0));
    for bit in 0..sound.len() * 8 {
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let lost = places.iter().position(|place| place.1.contains(&(bit / 8)));
        let (seqs, bad, torn) = walk(&bytes);
        let left = places.iter().enumerate().filter(|(at, _)| Some(*at) != lost).map(|(_, place)| place.0);
        assert_eq!(seqs, left.collect::<Vec<_>>(), "bit {bit}");
        let at_the_end = lost == Some(places.len() - 1);
        assert_eq!(bad, u64::from(lost.is_some() && !at_the_end), "bit {bit}");
        assert_eq!(torn > 0, at_the_end, "bit {bit}");
    }
}

#[test]
fn records_behind_any_damaged_range_are_read() {
    let (sound, places) = sample();
    for from in 0..sound.len() {
        for len in [1, 8, 31, 64, 100] {
            let to = (from + len).min(sound.len());
            let mut bytes = sound.clone();
            bytes[from..to].fill(0);
            let whole = |place: &Range<usize>| bytes[place.clone()] == sound[place.clone()];
            let left: Vec<u64> = places.iter().filter(|place| whole(&place.1)).map(|place| place.0).collect();
            assert_eq!(walk(&bytes).0, left, "zeros from {from} to {to}");
        }
    }
}

#[test]
fn disk_corruption_is_counted_by_verify_and_survived_by_the_next_writer() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let ids: Vec<_> = (0..5).map(|_| put(&mut writer, b"0123456789")).collect();
    drop(writer);
    let path = last(&scratch.0);
    let sound = fs::read(&path).expect("a segment");
    for (spot, lost) in [(10, None), (HEADER + 3 * 48 + 4, Some(2)), (HEADER + 3 * 48 + 15, Some(2))] {
        let mut bytes = sound.clone();
        bytes[spot] ^= 4;
        fs::write(&path, &bytes).expect("written");
        let report = verify(&scratch.0).expect("readable");
        assert!(!report.sound());
        assert_eq!(report.bad_segments, u64::from(lost.is_none()));
        assert_eq!(report.bad_records, u64::from(lost.is_some()));
        let left: Vec<_> =
            ids.iter().enumerate().filter(|(at, _)| Some(*at) != lost).map(|(_, id)| *id).collect();
        assert_eq!(read(&scratch.0).iter().map(|record| record.0).collect::<Vec<_>>(), left);
    }
    let (mut writer, recovered) = Writer::open(&scratch.log()).expect("opens");
    assert_eq!((recovered.records, recovered.bad_records), (4, 1));
    let newest = put(&mut writer, b"new");
    assert_eq!(get(&scratch.0, newest).expect("readable").as_deref(), Some(&b"new"[..]));
    assert_eq!(get(&scratch.0, ids[2]).expect("readable"), None);
    assert_eq!(get(&scratch.0, ids[4]).expect("readable").as_deref(), Some(&b"0123456789"[..]));
}

#[test]
fn a_lost_end_of_a_full_segment_and_a_lost_segment_count_as_missing() {
    let scratch = Scratch::new();
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    let body = [7; 4000];
    while segments(&scratch.0).len() < 3 {
        put(&mut writer, &body);
    }
    drop(writer);
    let all = segments(&scratch.0);
    let records = read(&scratch.0).len() as u64;
    let kept = fs::read(&all[0]).expect("a segment");
    fs::write(&all[0], &kept[..kept.len() / 2]).expect("written");
    let report = verify(&scratch.0).expect("readable");
    assert_eq!(report.records + report.missing_records, records);
    assert!(report.missing_records > 0 && !report.sound());
    fs::write(&all[0], &kept).expect("written");
    fs::remove_file(&all[1]).expect("deleted");
    let report = verify(&scratch.0).expect("readable");
    assert_eq!(report.records + report.missing_records, records);
    assert!(report.missing_records > 0 && !report.sound());
}

/// Where each record is in a segment's file: head and body. A run's first one has no body.
fn places(bytes: &[u8], first: u64) -> Vec<(RecordId, Range<usize>)> {
    let mut scan = Scan::default();
    scan.begin(bytes, first).expect("memory");
    let mut places = Vec::new();
    while let Step::Record { id, body, .. } = scan.next(bytes).expect("memory") {
        let end = usize::try_from(scan.offset()).expect("small");
        let begin = end - record::footprint(body.len());
        places.push((id, begin..begin + HEAD + body.len()));
    }
    places
}

#[test]
fn a_corrupt_byte_anywhere_loses_only_its_record_and_verify_reports_it() {
    let scratch = Scratch::new();
    let small = config::Log { segment: 16 << 10, document: 1 << 10, ..scratch.log() };
    let mut random = Random(5);
    let (mut writer, _) = Writer::open(&small).expect("opens");
    while segments(&scratch.0).len() < 4 {
        let len = 1 + random.below(900);
        let body = random.bytes(len);
        put(&mut writer, &body);
    }
    put(&mut writer, b"the last");
    drop(writer);
    let all = read(&scratch.0);
    let there = segments(&scratch.0);
    let last = there.len() - 1;
    let mut lost_some = 0;
    for (number, path) in there.iter().enumerate() {
        let sound = fs::read(path).expect("a segment");
        let places = places(&sound, log_dir::list(&scratch.0).expect("a folder")[number].first);
        let end = places[places.len() - 1].1.end;
        let spots = (0..HEADER + HEAD).chain((HEADER..end).step_by(53)).chain(end - 1..end + 20);
        for spot in spots {
            let mut bytes = sound.clone();
            bytes[spot] ^= 1 << random.below(8);
            fs::write(path, &bytes).expect("written");
            let what = format!("segment {number}, byte {spot}");
            let lost = places.iter().position(|place| place.1.contains(&spot));
            let id = lost.map(|at| places[at].0);
            let left: Vec<_> = all.iter().filter(|record| Some(record.0) != id).cloned().collect();
            assert_eq!(read(&scratch.0), left, "{what}");
            let report = verify(&scratch.0).expect("readable");
            let at_the_end = number == last && lost == Some(places.len() - 1);
            let records = u64::from(lost.is_some() && !at_the_end);
            assert_eq!(report.bad_records + report.missing_records, records, "{what}");
            assert_eq!(report.bad_segments, u64::from(spot < HEADER), "{what}");
            assert_eq!(report.sound(), records == 0 && spot >= HEADER, "{what}");
            // The very last record cannot be told from one that was being written.
            assert!(!at_the_end || report.torn_bytes > 0, "{what}");
            lost_some += records;
        }
        fs::write(path, &sound).expect("written");
    }
    assert!(lost_some > 700, "{lost_some}");
}
