//! How far each output has read the log, as its parts tell one another while they run: the writer says what
//! is appended, the budget what is gone, each output what is done. The loop asks without waiting for any of them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::{Error, Id, Reader, RecordId};

/// What the log holds, for all outputs.
#[derive(Debug)]
struct Extent {
    log: Id,
    /// The first number of the writer's run; no document has it.
    run: u64,
    /// The last record that was appended, and the last that the budget took.
    appended: AtomicU64,
    gone: AtomicU64,
    /// Records that the budget took.
    dropped: AtomicU64,
}

/// The marks of all outputs in one log.
#[derive(Debug)]
pub(super) struct Marks {
    extent: Arc<Extent>,
    all: Mutex<Vec<Arc<Mark>>>,
}

impl Marks {
    /// For a writer that begins this run, with what the cursors in the folder say.
    pub(super) fn new(run: RecordId, cursors: &[(String, Option<RecordId>)]) -> Marks {
        let extent = Arc::new(Extent {
            log: run.log,
            run: run.seq,
            appended: AtomicU64::new(run.seq),
            gone: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let marks = cursors.iter().map(|(name, done)| Mark::new(name, extent.clone(), *done));
        let all = Mutex::new(marks.map(Arc::new).collect());
        Marks { extent, all }
    }

    /// The mark of the output with this name. An output that the folder has no cursor of has read nothing.
    pub(super) fn of(&self, name: &str) -> Arc<Mark> {
        let mut all = self.all();
        if let Some(mark) = all.iter().find(|mark| *mark.name == *name) {
            return mark.clone();
        }
        let mark = Arc::new(Mark::new(name, self.extent.clone(), None));
        mark.unshipped.store(self.dropped_records(), Ordering::Relaxed);
        all.push(mark.clone());
        mark
    }

    /// This record is there.
    pub(super) fn appended(&self, seq: u64) {
        self.extent.appended.store(seq, Ordering::Relaxed);
    }

    /// Counts the records of a segment that the budget is about to take.
    pub(super) fn count(&self) -> Dropped {
        let marks: Vec<_> = self.all().clone();
        Dropped { unshipped: vec![0; marks.len()], marks, records: 0, last: 0 }
    }

    /// The budget took these.
    pub(super) fn dropped(&self, dropped: &Dropped) {
        let all = self.all();
        self.extent.gone.fetch_max(dropped.last, Ordering::Relaxed);
        self.extent.dropped.fetch_add(dropped.records, Ordering::Relaxed);
        for (at, mark) in all.iter().enumerate() {
            // A mark that was made since then is of an output that had read none of them.
            let unshipped = dropped.unshipped.get(at).copied().unwrap_or(dropped.records);
            mark.unshipped.fetch_add(unshipped, Ordering::Relaxed);
        }
    }

    /// Records that the budget took.
    pub(super) fn dropped_records(&self) -> u64 {
        self.extent.dropped.load(Ordering::Relaxed)
    }

    /// Those of them that an output that runs had not read yet: the most that any of these outputs lost.
    pub(super) fn dropped_unshipped(&self) -> u64 {
        self.all().iter().map(|mark| mark.dropped_unshipped()).max().unwrap_or(0)
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Mark>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a segment holds, counted for each output.
#[derive(Debug)]
pub(super) struct Dropped {
    marks: Vec<Arc<Mark>>,
    /// Records that were not shipped, by mark.
    unshipped: Vec<u64>,
    records: u64,
    /// The last number.
    last: u64,
}

impl Dropped {
    /// A record with this number is in the segment.
    pub(super) fn record(&mut self, seq: u64) {
        self.records += 1;
        self.last = seq;
        for (mark, unshipped) in self.marks.iter().zip(&mut self.unshipped) {
            *unshipped += u64::from(!mark.is_shipped(seq));
        }
    }
}

/// Records of earlier runs whose numbers follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    first: u64,
    last: u64,
    /// Records in all later ones.
    later: u64,
}

/// What one output has done of the log, and what it has not.
#[derive(Debug)]
pub struct Mark {
    name: Box<str>,
    extent: Arc<Extent>,
    /// The output runs.
    on: AtomicBool,
    /// The last record that is done.
    shipped: AtomicU64,
    /// Records that the budget took before they were done.
    unshipped: AtomicU64,
    /// What earlier runs left, once it is counted.
    left: OnceLock<Box<[Stretch]>>,
}

impl Mark {
    fn new(name: &str, extent: Arc<Extent>, done: Option<RecordId>) -> Mark {
        let done = done.filter(|id| id.log.same_log(extent.log)).map_or(0, |id| id.seq);
        Mark {
            name: name.into(),
            extent,
            on: AtomicBool::new(false),
            shipped: AtomicU64::new(done),
            unshipped: AtomicU64::new(0),
            left: OnceLock::new(),
        }
    }

    /// The output's name, which is its cursor's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The output begins after this record. Before that nothing counts as unshipped. Reads what
    /// earlier runs left, to count it: call it once, on the output's thread.
    pub fn begin(&self, dir: &Path, shipped: Option<RecordId>) -> Result<(), Error> {
        let shipped = shipped.filter(|id| id.log.same_log(self.extent.log));
        self.shipped.store(shipped.map_or(0, |id| id.seq), Ordering::Relaxed);
        self.on.store(true, Ordering::Relaxed);
        let mut reader = self.reader(dir, shipped)?;
        let mut left: Vec<Stretch> = Vec::new();
        while let Some(entry) = reader.next()? {
            if entry.id.seq >= self.extent.run {
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

    /// The output runs no more, until the next `begin`.
    pub fn end(&self) {
        self.on.store(false, Ordering::Relaxed);
    }

    /// Reads what the output is to take: this log's records after that one. Segments of another log
    /// that were copied into the folder are not ours to ship, and are passed over.
    pub fn reader(&self, dir: &Path, shipped: Option<RecordId>) -> Result<Reader, Error> {
        Reader::of(dir, self.extent.log, shipped.filter(|id| id.log.same_log(self.extent.log)))
    }

    /// Everything up to this record is done. A record of another log that was copied in counts for nothing.
    pub fn shipped(&self, id: RecordId) {
        if id.log.same_log(self.extent.log) {
            self.shipped.fetch_max(id.seq, Ordering::Relaxed);
        }
    }

    /// How many records of the log are still to be done; 0 while the output does not run. Records that
    /// were lost within this writer's run count until the output has passed them.
    #[must_use]
    pub fn lag(&self) -> u64 {
        if !self.on() {
            return 0;
        }
        let passed = self.shipped.load(Ordering::Relaxed).max(self.extent.gone.load(Ordering::Relaxed));
        let new = self.extent.appended.load(Ordering::Relaxed).saturating_sub(passed.max(self.extent.run));
        let left = self.left.get().map_or(&[][..], |left| left);
        let at = left.partition_point(|stretch| stretch.last <= passed);
        let old = left.get(at).map_or(0, |stretch| {
            stretch.later + stretch.last.saturating_sub(passed.max(stretch.first.saturating_sub(1)))
        });
        old + new
    }

    /// Whether the record with this number is done. Readers go by numbers, whosever they are.
    fn is_shipped(&self, seq: u64) -> bool {
        seq <= self.shipped.load(Ordering::Relaxed)
    }

    /// Records that the budget took before this output had done them; 0 while it does not run.
    #[must_use]
    pub fn dropped_unshipped(&self) -> u64 {
        if self.on() { self.unshipped.load(Ordering::Relaxed) } else { 0 }
    }

    fn on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }
}
