//! The writer. Opening it finds the end of the log, zeroes torn bytes there, and begins a new run of record numbers.
//! An append fills the current segment's mapping and waits for nothing.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::cursor;
use super::log_dir::{self, LogDir, NEXT, SegmentName};
use super::progress::{Progress, ProgressTable};
use super::record::{self, Header, SEQ_END};
use super::recovery::{RecoveryReport, ResumePoint};
use super::segment::{Appended, Segment};
use super::syncer::{self, LogLimits, Syncer};
use super::{Error, Id, RecordId, calls, retention};
use crate::config;

/// How long an append waits for a segment that is being created: the loop's longest turn.
const STALL_MAX: Duration = Duration::from_millis(8);
/// How often the current segment's name is checked: the events of a burst share one check.
pub(super) const LOOK: Duration = Duration::from_millis(1);
/// An agent that is told to leave has two seconds.
const FLUSH_MAX: Duration = Duration::from_millis(1500);

/// The log's counters, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records appended.
    pub records: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Records in segments that were deleted to keep the budget.
    pub dropped_by_budget: u64,
    /// Deleted records that a running output had not read yet: the count of the output that lost the most. 0 where no
    /// output runs.
    pub dropped_unshipped: u64,
    /// Appends that failed: their documents are lost.
    pub failed_appends: u64,
    /// Syncs that failed; each is tried again.
    pub sync_failures: u64,
    /// Segments that could not be made; each is tried again.
    pub create_failures: u64,
    /// Segments that were deleted or cut short while they were written.
    pub lost_segments: u64,
    /// Records that may not be on the disk yet.
    pub unsynced_records: u64,
}

/// The log's one writer.
#[derive(Debug)]
pub struct Writer {
    dir: Arc<Path>,
    /// The paths of the current and the next segment, and a buffer for the name that the next one gets.
    path: PathBuf,
    next_path: PathBuf,
    name_path: PathBuf,
    id: Id,
    seq: u64,
    segment: Segment,
    /// When its name was last checked.
    looked: Instant,
    /// The current segment was deleted or truncated, and there is no other yet.
    lost: bool,
    document: usize,
    inline_sync: bool,
    syncer: Syncer,
    progress: Arc<ProgressTable>,
    counters: Counters,
}

impl Writer {
    /// Opens or creates the log. Waits for the disk: call it at start only. The thread that it starts has the caller's
    /// signal mask.
    pub fn open(config: &config::Log) -> Result<(Writer, RecoveryReport), Error> {
        let log_dir = LogDir::lock(&config.dir)?;
        let limits = LogLimits { segment: config.segment, budget: config.budget, sync: config.sync };
        cursor::migrate_unnamed(log_dir.path())?;
        let cursors = cursor::list(log_dir.path())?;
        let (mut resume, recovered) = ResumePoint::find(&log_dir, &cursors)?;
        let first = resume.seq;
        let progress = Arc::new(ProgressTable::new(RecordId { log: resume.id, seq: first }, &cursors));
        let going_on = resume.end.take().filter(|end| end.takes(config));
        let (mut segment, name) = match going_on {
            Some(end) => {
                retention::reclaim(&log_dir, limits.budget, 0, Some(end.first), &progress)?;
                let path = log_dir::segment_path(log_dir.path(), end.first);
                let segment = Segment::reopen(&path, end.size, end.position, end.torn);
                (segment.map_err(Error::io("open", &path))?, end.first)
            }
            None => {
                syncer::next_room(&log_dir, &limits, None, &progress)?;
                let mut segment = syncer::make_next(&log_dir, &limits)?;
                segment.begin(&Header { log: resume.id, first, size: limits.segment });
                let path = log_dir::segment_path(log_dir.path(), first);
                std::fs::rename(log_dir.path().join(NEXT), &path).map_err(Error::io("name", &path))?;
                (segment, first)
            }
        };
        segment.append(RecordId { log: resume.id, seq: first }, 0, |_| Some(0));
        calls::sync_all(segment.file())
            .and_then(|()| log_dir.sync())
            .map_err(Error::io("sync", &config.dir))?;
        let syncer = Syncer::start(log_dir, limits, name, &segment, progress.clone())?;
        let writer = Writer {
            next_path: config.dir.join(NEXT),
            path: log_dir::segment_path(&config.dir, name),
            name_path: log_dir::segment_path(&config.dir, name),
            dir: config.dir.as_path().into(),
            id: resume.id,
            seq: first + 1, // below SEQ_END
            segment,
            looked: Instant::now(),
            lost: false,
            document: config.document,
            inline_sync: config.sync.is_zero(),
            syncer,
            progress,
            counters: Counters::default(),
        };
        Ok((writer, recovered))
    }

    /// The id that the next record gets.
    #[must_use]
    pub fn next_id(&self) -> RecordId {
        RecordId { log: self.id, seq: self.seq }
    }

    /// Appends one record. `fill` writes straight into `[log] document` bytes of the log, which
    /// hold anything before, and returns how many it used; with `None` or 0 nothing is written.
    pub fn append(
        &mut self,
        fill: impl FnOnce(RecordId, &mut [u8]) -> Option<usize>,
    ) -> Result<Option<RecordId>, Error> {
        let appended = self.try_append(fill);
        if appended.is_err() {
            self.counters.failed_appends += 1;
        }
        appended
    }

    fn try_append(
        &mut self,
        fill: impl FnOnce(RecordId, &mut [u8]) -> Option<usize>,
    ) -> Result<Option<RecordId>, Error> {
        let id = self.next_id();
        if id.seq >= SEQ_END {
            return Err(Error::Exhausted { dir: self.dir.clone() });
        }
        let reserve = self.document;
        let segment = self.room(reserve)?;
        let fill = |bytes: &mut [u8]| fill(id, bytes).filter(|used| *used > 0);
        let used = match segment.append(id, reserve, fill) {
            Appended::Record(used) => used,
            Appended::Nothing => return Ok(None),
            Appended::TooLong(used) => return Err(Error::TooLong { used, given: reserve }),
        };
        // While half of it is left, there is time to make the next one.
        let ahead = segment.left() < (segment.size() / 2).max(2 * record::footprint(reserve));
        self.progress.appended(id.seq);
        self.seq += 1;
        self.counters.records += 1;
        self.counters.bytes += used as u64;
        let synced = self.inline_sync && self.sync_inline();
        self.syncer.appended(self.segment.end(), synced, ahead);
        Ok(Some(id))
    }

    /// The log's counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let syncer = self.syncer.counters();
        Counters {
            dropped_by_budget: self.progress.dropped_records(),
            dropped_unshipped: self.progress.dropped_unshipped(),
            sync_failures: self.counters.sync_failures + syncer.sync_failures.load(Ordering::Relaxed),
            create_failures: syncer.create_failures.load(Ordering::Relaxed),
            unsynced_records: self.syncer.unsynced(),
            ..self.counters
        }
    }

    /// The progress of the output called `output`.
    #[must_use]
    pub fn progress(&self, output: &str) -> Arc<Progress> {
        self.progress.of_output(output)
    }

    /// Syncs everything to the disk before it returns. Waits for the disk for a bounded time.
    pub fn flush(&mut self) -> Result<(), Error> {
        match self.syncer.flush(FLUSH_MAX) {
            Some(outcome) => outcome.map_err(Error::io("sync", &self.dir)),
            None => Err(self.stalled(FLUSH_MAX)),
        }
    }

    /// The segment for the next record: the current one while it is whole and has room.
    fn room(&mut self, reserve: usize) -> Result<&mut Segment, Error> {
        if !self.lost && !self.intact() {
            self.counters.lost_segments += 1;
            self.lost = true;
        }
        if self.lost || self.segment.left() < record::footprint(reserve) {
            self.switch()?;
        }
        Ok(&mut self.segment)
    }

    /// Whether the current segment is still there and whole.
    fn intact(&mut self) -> bool {
        if !self.segment.whole() {
            return false;
        }
        let now = Instant::now();
        if now.saturating_duration_since(self.looked) < LOOK {
            return true;
        }
        self.looked = now;
        self.segment.named(&self.path)
    }

    /// Switches to the segment that was created ahead, and renames it.
    fn switch(&mut self) -> Result<(), Error> {
        let until = Instant::now() + STALL_MAX;
        loop {
            let Some(mut next) = self.syncer.take_next(until)? else {
                return Err(self.stalled(STALL_MAX));
            };
            if !next.whole() || !next.named(&self.next_path) {
                continue; // someone took it away: it is made once more, folder and all
            }
            next.begin(&Header { log: self.id, first: self.seq, size: next.size() as u64 });
            self.name_path.set_file_name(SegmentName::new(self.seq).as_str());
            match std::fs::rename(&self.next_path, &self.name_path) {
                Ok(()) => {
                    std::mem::swap(&mut self.path, &mut self.name_path);
                    let before = std::mem::replace(&mut self.segment, next);
                    self.syncer.switched(self.seq, &self.segment, before);
                    self.lost = false;
                    if self.inline_sync {
                        let synced = File::open(&self.dir).and_then(|dir| calls::sync_all(&dir));
                        self.note(synced.is_ok());
                    }
                    return Ok(());
                }
                // The folder is gone: it is made again with the next one.
                Err(error) if error.kind() == ErrorKind::NotFound && Instant::now() < until => {}
                Err(error) => return Err(Error::io("name", &self.name_path)(error)),
            }
        }
    }

    fn sync_inline(&mut self) -> bool {
        let synced = calls::sync_data(self.segment.file()).is_ok();
        self.note(synced);
        synced
    }

    fn note(&mut self, synced: bool) {
        if !synced {
            self.counters.sync_failures += 1;
            self.syncer.sync_failed();
        }
    }

    fn stalled(&self, waited: Duration) -> Error {
        Error::Stalled { dir: self.dir.clone(), ms: waited.as_millis() }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let flushed = self.syncer.flush(FLUSH_MAX).is_some();
        self.syncer.stop(flushed);
    }
}
