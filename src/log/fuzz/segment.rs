//! Foreign bytes as a segment. Whoever walks them must see the same records, opening the log for
//! writing must keep them, and each is found by its id and by what comes before it.

use std::fs;
use std::path::Path;

use super::{BYTES, Records, SEGMENT, Scratch, read};
use crate::log::record::{self, Head, Header, ParsedHeader};
use crate::log::scan::{Scan, Step};
use crate::log::{Error, Id, Reader, RecordId, Writer, get, log_dir, verify};

/// So many records are looked for by their ids: each look reads the segment up to there.
const SOUGHT: usize = 8;

/// Takes bytes as a segment. With an odd first byte they are changes to a sound one instead,
/// three bytes each, so that a fuzzer need not find checksums.
pub fn segment(data: &[u8]) {
    let segment = match data.split_first() {
        Some((kind, rest)) if kind % 2 == 1 => changed(rest),
        Some((_, rest)) => rest.get(..BYTES).unwrap_or(rest).to_vec(),
        None => Vec::new(),
    };
    adopted(&segment);
    let scratch = Scratch::new();
    let path = log_dir::segment_path(&scratch.0, 0);
    fs::write(&path, &segment).expect("the scratch folder can be written");
    if let ParsedHeader::Newer(_) = Header::parse(&segment) {
        assert!(matches!(verify(&scratch.0), Err(Error::Newer { .. })));
        assert!(matches!(Writer::open(&scratch.log()), Err(Error::Newer { .. })));
        return;
    }
    let before = in_memory(&segment);
    assert_eq!(read(&scratch.0), before, "the reader and the walk agree");
    let report = verify(&scratch.0).expect("what is readable is verified");
    assert_eq!(report.records, before.len() as u64, "verify and the walk agree");
    assert_eq!(report.bytes, before.iter().map(|(_, body)| body.len() as u64).sum::<u64>());
    sought(&scratch.0, &before);
    match Writer::open(&scratch.log()) {
        Err(Error::Exhausted { .. }) => {}
        Err(error) => panic!("{error}"),
        Ok((writer, recovered)) => {
            assert_eq!(recovered.records, before.len() as u64, "recovery and the walk agree");
            go_on(&scratch, writer, before);
        }
    }
}

/// The same bytes, left by a writer that died before it had named its new segment: whole they are
/// taken into the log, else they were never there.
fn adopted(segment: &[u8]) {
    let scratch = Scratch::new();
    fs::write(scratch.0.join(log_dir::NEXT), segment).expect("the scratch folder can be written");
    assert_eq!(read(&scratch.0), [], "it has no name");
    let records = match Header::parse(segment) {
        ParsedHeader::Newer(_) => {
            assert!(matches!(Writer::open(&scratch.log()), Err(Error::Newer { .. })));
            return;
        }
        ParsedHeader::Sound(_) => in_memory(segment),
        ParsedHeader::Blank | ParsedHeader::Bad => Vec::new(),
    };
    match Writer::open(&scratch.log()) {
        Err(Error::Exhausted { .. }) => {}
        Err(error) => panic!("{error}"),
        Ok((writer, _)) => go_on(&scratch, writer, records),
    }
}

/// Each record is found by its id, and the rest by what comes before it.
fn sought(dir: &Path, records: &Records) {
    for (place, (id, body)) in records.iter().enumerate().take(SOUGHT) {
        assert_eq!(get(dir, *id).expect("readable").as_deref(), Some(&**body), "{id} is found");
        let mut reader = Reader::after(dir, *id).expect("a folder");
        let rest = records.get(place + 1..).unwrap_or_default();
        assert_eq!(super::drain(&mut reader), rest, "behind {id} is the rest");
    }
}

/// What was there stays, and what comes is behind it.
fn go_on(scratch: &Scratch, mut writer: Writer, before: Records) {
    let appended = writer.append(|_, to| {
        to.get_mut(..3)?.copy_from_slice(b"new");
        Some(3)
    });
    let id = appended.expect("there is room").expect("there is a body");
    drop(writer);
    let mut after = before;
    after.push((id, b"new".to_vec()));
    assert_eq!(read(&scratch.0), after, "recovery keeps all records");
    let (_, again) = Writer::open(&scratch.log()).expect("opens again");
    assert_eq!((again.torn_bytes, again.empty_segments), (0, 0), "the end is clean now");
}

fn in_memory(segment: &[u8]) -> Records {
    let mut scan = Scan::default();
    scan.begin(segment, 0).expect("memory can be read");
    let mut records = Vec::new();
    loop {
        match scan.next(segment).expect("memory can be read") {
            Step::Record { id, body, .. } if !body.is_empty() => records.push((id, scan.body(body).to_vec())),
            Step::Record { .. } | Step::Bad { .. } => {}
            Step::End { .. } => return records,
        }
    }
}

/// A sound segment of a few records, with these changes: offset (two bytes), new byte.
fn changed(changes: &[u8]) -> Vec<u8> {
    let log = Id(*b"fuzzing!");
    let mut bytes = Header { log, first: 0, size: SEGMENT }.bytes().to_vec();
    for (seq, len) in (0..).zip([0, 1, 8, 100, 0, 33, 700]) {
        let body = vec![b'x'; len];
        let head = Head::new(RecordId { log, seq }, &body).bytes(bytes.len() as u64);
        let end = bytes.len() + record::footprint(len);
        bytes.extend(head.into_iter().flatten().chain(body));
        bytes.resize(end, 0);
    }
    let used = bytes.len();
    bytes.resize(BYTES, 0);
    for change in changes.chunks_exact(3) {
        if let [low, high, value] = *change
            && let Some(byte) = bytes.get_mut(usize::from(u16::from_le_bytes([low, high])) % (used + 64))
        {
            *byte = value;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writer_reader_and_verify_find_the_same_records_in_any_bytes() {
        for data in [&[][..], &[0], &[0; 70], &[2, 255, 255], &[1]] {
            segment(data);
        }
        let mut seed: u64 = 0x6f6e_7365_7421;
        for round in 0..60 {
            let data: Vec<u8> = (0..1 + round % 13 * 3)
                .map(|_| {
                    seed =
                        seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    seed.to_be_bytes()[1]
                })
                .collect();
            segment(&[&[1], &data[..]].concat());
            segment(&[&[0], &changed(&data)[..]].concat());
        }
    }
}
