//! One entry for a fuzzer: foreign bytes as a segment. Whoever walks them must see the same
//! records, opening the log for writing must keep them, and nothing may panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::record::{self, Head, Header, Opening};
use super::scan::{Scan, Step};
use super::{Error, Id, Reader, RecordId, Writer, folder, verify};
use crate::config;

const SEGMENT: usize = 64 << 10;

type Records = Vec<(RecordId, Vec<u8>)>;

/// Takes bytes as a segment. With an odd first byte they are changes to a sound one instead,
/// three bytes each, so that a fuzzer need not find checksums.
pub fn fuzz_segment(data: &[u8]) {
    let segment = match data.split_first() {
        Some((kind, rest)) if kind % 2 == 1 => changed(rest),
        Some((_, rest)) => rest.get(..SEGMENT).unwrap_or(rest).to_vec(),
        None => Vec::new(),
    };
    let scratch = Scratch::new();
    let path = folder::path(&scratch.0, 0);
    fs::write(&path, &segment).expect("the scratch folder can be written");
    if let Opening::Newer(_) = Header::parse(&segment) {
        assert!(matches!(verify(&scratch.0), Err(Error::Newer { .. })));
        assert!(matches!(Writer::open(&scratch.log()), Err(Error::Newer { .. })));
        return;
    }
    let before = in_memory(&segment);
    assert_eq!(read(&scratch.0), before, "the reader and the walk agree");
    let report = verify(&scratch.0).expect("what is readable is verified");
    assert_eq!(report.records, before.len() as u64, "verify and the walk agree");
    match Writer::open(&scratch.log()) {
        Err(Error::Exhausted { .. }) => {}
        Err(error) => panic!("{error}"),
        Ok((writer, recovered)) => {
            assert_eq!(recovered.records, before.len() as u64, "recovery and the walk agree");
            go_on(&scratch, writer, before);
        }
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

fn read(dir: &Path) -> Records {
    let mut reader = Reader::open(dir).expect("a folder");
    let mut records = Vec::new();
    while let Some(entry) = reader.next().expect("readable") {
        records.push((entry.id, entry.bytes.to_vec()));
    }
    records
}

/// A sound segment of a few records, with these changes: offset (two bytes), new byte.
fn changed(changes: &[u8]) -> Vec<u8> {
    let log = Id(*b"fuzzing!");
    let mut bytes = Header { log, first: 0, size: SEGMENT as u64 }.bytes().to_vec();
    for (seq, len) in (0..).zip([0, 1, 8, 100, 0, 33, 700]) {
        let body = vec![b'x'; len];
        let head = Head::new(RecordId { log, seq }, &body).bytes(bytes.len() as u64);
        let end = bytes.len() + record::footprint(len);
        bytes.extend(head.into_iter().flatten().chain(body));
        bytes.resize(end, 0);
    }
    let used = bytes.len();
    bytes.resize(SEGMENT, 0);
    for change in changes.chunks_exact(3) {
        if let [low, high, value] = *change
            && let Some(byte) = bytes.get_mut(usize::from(u16::from_le_bytes([low, high])) % (used + 64))
        {
            *byte = value;
        }
    }
    bytes
}

/// A folder that goes with the run.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let memory = Path::new("/dev/shm"); // else each round waits for a disk
        let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = root.join(format!("onset-fuzz-{}-{count}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).expect("a temporary folder can be made");
        Scratch(dir)
    }

    fn log(&self) -> config::Log {
        let (segment, sync) = (SEGMENT as u64, Duration::from_secs(3600));
        config::Log { dir: self.0.clone(), segment, budget: 4 * segment, document: 4096, sync }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_bytes_are_the_same_records_to_everyone() {
        for data in [&[][..], &[0], &[0; 70], &[2, 255, 255], &[1]] {
            fuzz_segment(data);
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
            fuzz_segment(&[&[1], &data[..]].concat());
            fuzz_segment(&[&[0], &changed(&data)[..]].concat());
        }
    }
}
