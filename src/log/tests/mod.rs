//! The log as a whole, on a real filesystem.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::record::{Head, Header};
use super::*;
use crate::config;

mod copies;
mod disk;
mod follow;
mod lag;
mod model;
mod opening;
pub(super) mod power;
mod rot;
mod swap;

/// An output that reads the log.
const OUTPUT: &str = "elasticsearch";
const SEGMENT: u64 = 64 << 10;
const HOUR: Duration = Duration::from_secs(3600);

/// A folder for one test, gone when the test is.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let shared = Path::new("/dev/shm");
        let root = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Scratch(root.join(format!("onset-log-{}-{count}", std::process::id())))
    }

    fn log(&self) -> config::Log {
        let dir = self.0.clone();
        config::Log { dir, segment: SEGMENT, budget: 8 * SEGMENT, document: 4 << 10, sync: HOUR }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A small generator of numbers (splitmix64), so that a seed is all that a failure needs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).expect("below a usize")
    }

    /// Bytes of which none is zero, so that zeroing one changes it.
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| u8::try_from(self.below(255) + 1).expect("a byte")).collect()
    }
}

/// Appends; where the machine is too slow to have made the next segment yet, once more.
/// Until the writer looks at its segment's name again.
fn a_look_later() {
    std::thread::sleep(super::writer::LOOK);
}

fn put(writer: &mut Writer, body: &[u8]) -> RecordId {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match writer.append(|_, to| fill(to, body)) {
            Ok(Some(id)) => return id,
            Err(Error::Stalled { .. }) if Instant::now() < until => {}
            other => panic!("append: {other:?}"),
        }
    }
}

fn fill(to: &mut [u8], body: &[u8]) -> Option<usize> {
    to.get_mut(..body.len())?.copy_from_slice(body);
    Some(body.len())
}

fn drain(reader: &mut Reader) -> Vec<(RecordId, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(entry) = reader.next().expect("readable") {
        all.push((entry.id, entry.bytes.to_vec()));
    }
    all
}

fn read(dir: &Path) -> Vec<(RecordId, Vec<u8>)> {
    drain(&mut Reader::open(dir).expect("a log"))
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    log_dir::list(dir)
        .expect("a folder")
        .iter()
        .map(|listed| log_dir::segment_path(dir, listed.first))
        .collect()
}

fn last(dir: &Path) -> PathBuf {
    segments(dir).pop().expect("a segment")
}

/// What all files of the log take on the disk.
fn used(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).expect("a folder").filter_map(|entry| entry.ok()?.metadata().ok());
    files.map(|data| data.len()).sum()
}

/// A segment of these records, as bytes.
fn segment_of(log: Id, first: u64, records: &[(u64, &[u8])]) -> Vec<u8> {
    let records: Vec<_> = records.iter().map(|(seq, body)| (RecordId { log, seq: *seq }, *body)).collect();
    segment_of_runs(log, first, &records)
}

/// As `segment_of`, with records of any run.
fn segment_of_runs(log: Id, first: u64, records: &[(RecordId, &[u8])]) -> Vec<u8> {
    let mut bytes = Header { log, first, size: SEGMENT }.bytes().to_vec();
    for (id, body) in records {
        let head = Head::new(*id, body).bytes(bytes.len() as u64);
        bytes.extend(head.expect("a short body"));
        bytes.extend(*body);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}
