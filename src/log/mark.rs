//! How far the log is shipped, as its parts tell one another while they run: the writer says what
//! is appended, the budget what is gone, the shipper what is done. Without locks: the loop asks.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::folder::Held;
use super::{Error, Id, Reader, RecordId};

/// Records of earlier runs whose numbers follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    first: u64,
    last: u64,
    /// Records in all later ones.
    later: u64,
}

/// What is shipped of a log, and what is not.
#[derive(Debug)]
pub struct Mark {
    log: Id,
    /// The first number of the writer's run; no document has it.
    run: u64,
    /// Someone ships.
    on: AtomicBool,
    /// The last record that was appended, that is shipped, and that the budget took.
    appended: AtomicU64,
    shipped: AtomicU64,
    gone: AtomicU64,
    /// Records that the budget took, and those of them that were not shipped.
    dropped: AtomicU64,
    unshipped: AtomicU64,
    /// What earlier runs left, once it is counted.
    left: OnceLock<Box<[Stretch]>>,
}

impl Mark {
    /// For a writer that begins this run, where `shipped` is known to be.
    pub(super) fn new(run: RecordId, shipped: Option<RecordId>) -> Mark {
        let shipped = shipped.filter(|id| id.log.same_log(run.log)).map_or(0, |id| id.seq);
        Mark {
            log: run.log,
            run: run.seq,
            on: AtomicBool::new(false),
            appended: AtomicU64::new(run.seq),
            shipped: AtomicU64::new(shipped),
            gone: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            unshipped: AtomicU64::new(0),
            left: OnceLock::new(),
        }
    }

    /// Shipping begins, after this record. Before that nothing counts as unshipped. Reads what
    /// earlier runs left, to count it: call it once, on the thread that ships.
    pub fn begin(&self, dir: &Path, shipped: Option<RecordId>) -> Result<(), Error> {
        let shipped = shipped.filter(|id| id.log.same_log(self.log));
        self.shipped.store(shipped.map_or(0, |id| id.seq), Ordering::Relaxed);
        self.on.store(true, Ordering::Relaxed);
        let mut reader = self.reader(dir, shipped)?;
        let mut left: Vec<Stretch> = Vec::new();
        while let Some(entry) = reader.next()? {
            if entry.id.seq >= self.run {
                break;
            }
            match left.last_mut() {
                Some(stretch) if entry.id.seq == stretch.last + 1 => stretch.last = entry.id.seq,
                Some(stretch) if entry.id.seq <= stretch.last => {} // under a wrong name: numbers only grow
                _ => left.push(Stretch { first: entry.id.seq, last: entry.id.seq, later: 0 }),
            }
        }
        let mut later = 0;
        for stretch in left.iter_mut().rev() {
            stretch.later = later;
            later += stretch.last - stretch.first + 1;
        }
        let _ = self.left.set(left.into()); // a second begin: the first has counted
        Ok(())
    }

    /// Nobody ships any more, until the next `begin`.
    pub fn end(&self) {
        self.on.store(false, Ordering::Relaxed);
    }

    /// Reads what is to be shipped: this log's records after that one. Segments of another log
    /// that were copied into the folder are not ours to ship, and are passed over.
    pub fn reader(&self, dir: &Path, shipped: Option<RecordId>) -> Result<Reader, Error> {
        Reader::of(dir, self.log, shipped.filter(|id| id.log.same_log(self.log)))
    }

    /// Everything up to this record is done. A record of another log that was copied in counts for nothing.
    pub fn shipped(&self, id: RecordId) {
        if id.log.same_log(self.log) {
            self.shipped.fetch_max(id.seq, Ordering::Relaxed);
        }
    }

    /// How many records of the log are still to be shipped; 0 where nobody ships. Records that
    /// were lost within this writer's run count until shipping has passed them.
    #[must_use]
    pub fn lag(&self) -> u64 {
        if !self.on() {
            return 0;
        }
        let passed = self.shipped.load(Ordering::Relaxed).max(self.gone.load(Ordering::Relaxed));
        let new = self.appended.load(Ordering::Relaxed).saturating_sub(passed.max(self.run));
        let left = self.left.get().map_or(&[][..], |left| left);
        let at = left.partition_point(|stretch| stretch.last <= passed);
        let old = left.get(at).map_or(0, |stretch| {
            stretch.later + stretch.last.saturating_sub(passed.max(stretch.first.saturating_sub(1)))
        });
        old + new
    }

    /// Whether the record with this number is done. Readers go by numbers, whosever they are.
    pub(super) fn is_shipped(&self, seq: u64) -> bool {
        seq <= self.shipped.load(Ordering::Relaxed)
    }

    /// This record is there.
    pub(super) fn appended(&self, seq: u64) {
        self.appended.store(seq, Ordering::Relaxed);
    }

    /// The budget took this.
    pub(super) fn dropped(&self, held: &Held) {
        self.gone.fetch_max(held.last, Ordering::Relaxed);
        self.dropped.fetch_add(held.records, Ordering::Relaxed);
        self.unshipped.fetch_add(held.unshipped, Ordering::Relaxed);
    }

    /// Records that the budget took.
    pub(super) fn dropped_records(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Those of them that were to be shipped.
    pub(super) fn dropped_unshipped(&self) -> u64 {
        if self.on() { self.unshipped.load(Ordering::Relaxed) } else { 0 }
    }

    fn on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }
}
