//! How far each output has read the log while the agent runs: the writer stores what is appended, retention what is
//! deleted, each output what it has done. The loop reads these counters without waiting for any of them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::{Error, Id, Reader, RecordId};

/// The first and last record numbers of the log, shared by all outputs.
#[derive(Debug)]
struct LogExtent {
    log: Id,
    /// The first number of the writer's run; no document has it.
    run: u64,
    /// The last record that was appended, and the last that retention deleted.
    appended: AtomicU64,
    gone: AtomicU64,
    /// Records that retention deleted.
    dropped: AtomicU64,
}

/// The progress of all outputs in one log.
#[derive(Debug)]
pub(super) struct ProgressTable {
    extent: Arc<LogExtent>,
    all: Mutex<Vec<Arc<Progress>>>,
}

impl ProgressTable {
    /// For a writer that begins `run`, with what `cursors` say.
    pub(super) fn new(run: RecordId, cursors: &[(String, Option<RecordId>)]) -> ProgressTable {
        let extent = Arc::new(LogExtent {
            log: run.log,
            run: run.seq,
            appended: AtomicU64::new(run.seq),
            gone: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let outputs = cursors.iter().map(|(name, done)| Progress::new(name, extent.clone(), *done));
        let all = Mutex::new(outputs.map(Arc::new).collect());
        ProgressTable { extent, all }
    }

    /// The progress of the output called `name`. An output without a cursor has read nothing.
    pub(super) fn of_output(&self, name: &str) -> Arc<Progress> {
        let mut all = self.all();
        if let Some(output) = all.iter().find(|output| *output.name == *name) {
            return output.clone();
        }
        let output = Arc::new(Progress::new(name, self.extent.clone(), None));
        output.unshipped.store(self.dropped_records(), Ordering::Relaxed);
        all.push(output.clone());
        output
    }

    /// The record `seq` was appended.
    pub(super) fn appended(&self, seq: u64) {
        self.extent.appended.store(seq, Ordering::Relaxed);
    }

    /// Begins to count the records of a segment that retention is about to delete.
    pub(super) fn count(&self) -> DropCount {
        let outputs: Vec<_> = self.all().clone();
        DropCount { unshipped: vec![0; outputs.len()], outputs, records: 0, last: 0 }
    }

    /// Retention deleted the segment that `dropped` counts.
    pub(super) fn dropped(&self, dropped: &DropCount) {
        let all = self.all();
        self.extent.gone.fetch_max(dropped.last, Ordering::Relaxed);
        self.extent.dropped.fetch_add(dropped.records, Ordering::Relaxed);
        for (at, output) in all.iter().enumerate() {
            // An output that was added since then had read none of them.
            let unshipped = dropped.unshipped.get(at).copied().unwrap_or(dropped.records);
            output.unshipped.fetch_add(unshipped, Ordering::Relaxed);
        }
    }

    /// Records that retention deleted.
    pub(super) fn dropped_records(&self) -> u64 {
        self.extent.dropped.load(Ordering::Relaxed)
    }

    /// Deleted records that a running output had not read yet: the count of the output that lost the most.
    pub(super) fn dropped_unshipped(&self) -> u64 {
        self.all().iter().map(|output| output.dropped_unshipped()).max().unwrap_or(0)
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Progress>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The records of one segment, counted for each output.
#[derive(Debug)]
pub(super) struct DropCount {
    outputs: Vec<Arc<Progress>>,
    /// Records that the output at the same index had not done.
    unshipped: Vec<u64>,
    records: u64,
    /// The number of the last record.
    last: u64,
}

impl DropCount {
    /// Counts the record `seq` of the segment.
    pub(super) fn record(&mut self, seq: u64) {
        self.records += 1;
        self.last = seq;
        for (output, unshipped) in self.outputs.iter().zip(&mut self.unshipped) {
            *unshipped += u64::from(!output.is_done(seq));
        }
    }
}

/// Consecutive record numbers that earlier runs left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SeqRange {
    first: u64,
    last: u64,
    /// Records in all later ranges.
    later: u64,
}

/// How far one output has read the log, and what it lost.
#[derive(Debug)]
pub struct Progress {
    name: Box<str>,
    extent: Arc<LogExtent>,
    /// The output runs.
    running: AtomicBool,
    /// The last record that is done.
    done: AtomicU64,
    /// Records that retention deleted before they were done.
    unshipped: AtomicU64,
    /// Records of earlier runs, once they are counted.
    left: OnceLock<Box<[SeqRange]>>,
}

impl Progress {
    fn new(name: &str, extent: Arc<LogExtent>, done: Option<RecordId>) -> Progress {
        let done = done.filter(|id| id.log.same_log(extent.log)).map_or(0, |id| id.seq);
        Progress {
            name: name.into(),
            extent,
            running: AtomicBool::new(false),
            done: AtomicU64::new(done),
            unshipped: AtomicU64::new(0),
            left: OnceLock::new(),
        }
    }

    /// The output's name, which is its cursor's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The output begins after the record `done`; until now nothing counted as unshipped. Reads and counts the
    /// records of earlier runs: call it once, on the output's thread.
    pub fn begin(&self, dir: &Path, done: Option<RecordId>) -> Result<(), Error> {
        let done = done.filter(|id| id.log.same_log(self.extent.log));
        self.done.store(done.map_or(0, |id| id.seq), Ordering::Relaxed);
        self.running.store(true, Ordering::Relaxed);
        let mut reader = self.reader(dir, done)?;
        let mut left: Vec<SeqRange> = Vec::new();
        while let Some(entry) = reader.next()? {
            if entry.id.seq >= self.extent.run {
                break;
            }
            match left.last_mut() {
                Some(range) if entry.id.seq == range.last + 1 => range.last = entry.id.seq,
                Some(range) if entry.id.seq <= range.last => {} // under a wrong name: numbers only grow
                _ => left.push(SeqRange { first: entry.id.seq, last: entry.id.seq, later: 0 }),
            }
        }
        let mut later = 0;
        for range in left.iter_mut().rev() {
            range.later = later;
            later += range.last - range.first + 1;
        }
        let _ = self.left.set(left.into()); // a second begin: the first has counted
        Ok(())
    }

    /// The output stops until the next `begin`.
    pub fn end(&self) {
        self.running.store(false, Ordering::Relaxed);
    }

    /// Reads this log's records after `done`. Segments of another log that were copied into the directory are skipped.
    pub fn reader(&self, dir: &Path, done: Option<RecordId>) -> Result<Reader, Error> {
        Reader::of(dir, self.extent.log, done.filter(|id| id.log.same_log(self.extent.log)))
    }

    /// Everything up to the record `id` is done. A record of another log changes nothing.
    pub fn advance(&self, id: RecordId) {
        if id.log.same_log(self.extent.log) {
            self.done.fetch_max(id.seq, Ordering::Relaxed);
        }
    }

    /// How many records the output has still to do; 0 while it does not run. Records that
    /// were lost within this writer's run count until the output has passed them.
    #[must_use]
    pub fn lag(&self) -> u64 {
        if !self.is_running() {
            return 0;
        }
        let passed = self.done.load(Ordering::Relaxed).max(self.extent.gone.load(Ordering::Relaxed));
        let new = self.extent.appended.load(Ordering::Relaxed).saturating_sub(passed.max(self.extent.run));
        let left = self.left.get().map_or(&[][..], |left| left);
        let at = left.partition_point(|range| range.last <= passed);
        let old = left.get(at).map_or(0, |range| {
            range.later + range.last.saturating_sub(passed.max(range.first.saturating_sub(1)))
        });
        old + new
    }

    /// Whether the record `seq` is done.
    fn is_done(&self, seq: u64) -> bool {
        seq <= self.done.load(Ordering::Relaxed)
    }

    /// Records that retention deleted before this output had done them; 0 while it does not run.
    #[must_use]
    pub fn dropped_unshipped(&self) -> u64 {
        if self.is_running() { self.unshipped.load(Ordering::Relaxed) } else { 0 }
    }

    fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }
}
