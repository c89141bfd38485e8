//! The log as fuzz targets: its segments, its cursor, and whoever reads while it is written and harmed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::log_dir::SegmentName;
use super::{Reader, RecordId};
use crate::config;

mod cursor;
mod follow;
mod segment;

pub use cursor::cursor;
pub use follow::follow;
pub use segment::segment;

/// Of a segment.
const BYTES: usize = 64 << 10;
const SEGMENT: u64 = BYTES as u64;

/// Records with their bodies.
type Records = Vec<(RecordId, Vec<u8>)>;

/// Names of records, as people give them, and of segments: one that is taken is written so again.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(id) = text.parse::<RecordId>() {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
    if let Some(first) = SegmentName::parse(&text) {
        assert_eq!(SegmentName::new(first).as_str(), text);
    }
}

fn drain(reader: &mut Reader) -> Records {
    let mut records = Vec::new();
    while let Some(entry) = reader.next().expect("readable") {
        records.push((entry.id, entry.bytes.to_vec()));
    }
    records
}

fn read(dir: &Path) -> Records {
    drain(&mut Reader::open(dir).expect("a folder"))
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
        let (segment, sync) = (SEGMENT, Duration::from_secs(3600));
        config::Log { dir: self.0.clone(), segment, budget: 4 * segment, document: 4096, sync }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
