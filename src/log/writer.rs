//! The one that appends. Opening it finds the end of the log, cuts off what is torn there, and
//! begins a new run of numbers. An append fills the current segment's mapping and waits for nothing.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::cursor;
use super::folder::{self, Folder, NEXT, Name};
use super::mark::Mark;
use super::record::{self, HEAD, HEADER, Header, Opening, SEQ_END};
use super::scan::{Scan, Step};
use super::segment::{Appended, Segment};
use super::syncer::{self, Plan, Syncer};
use super::{Error, Id, RecordId, calls};
use crate::config;

/// An append waits no longer for a segment that is being made: the loop's longest turn.
const STALL_MAX: Duration = Duration::from_millis(8);
/// An agent that is told to leave has two seconds.
const FLUSH_MAX: Duration = Duration::from_millis(1500);

/// What opening the log found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Segments, before a new one was made.
    pub segments: u64,
    /// Records in the last segment, where the walk was.
    pub records: u64,
    /// Bytes behind the last record, now zeroed.
    pub torn_bytes: u64,
    /// Records that had rotted in the last segment.
    pub bad_records: u64,
    /// Segments that held nothing at all and were deleted.
    pub empty_segments: u64,
}

/// What the log counts, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records appended.
    pub records: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Records in segments that were deleted to keep the budget.
    pub dropped_by_budget: u64,
    /// Those of them that were to be shipped and were not; 0 where nobody ships.
    pub dropped_unshipped: u64,
    /// Appends that failed: their documents are lost.
    pub failed_appends: u64,
    /// Syncs that failed; each is tried again.
    pub sync_failures: u64,
    /// Segments that could not be made; each is tried again.
    pub create_failures: u64,
    /// Segments that were deleted or cut short while they were written.
    pub lost_segments: u64,
    /// Records that are not known to be on the disk yet.
    pub unsynced_records: u64,
}

/// The log's one writer.
#[derive(Debug)]
pub struct Writer {
    dir: Arc<Path>,
    /// Where the next segment is, and a place for the name that it gets.
    next_path: PathBuf,
    name_path: PathBuf,
    id: Id,
    seq: u64,
    segment: Segment,
    /// Someone took the current segment away, and there is no other yet.
    lost: bool,
    document: usize,
    inline_sync: bool,
    syncer: Syncer,
    mark: Arc<Mark>,
    counters: Counters,
}

impl Writer {
    /// Opens the log, or makes it. Waits for the disk: call it at start only. The thread that
    /// it starts has the caller's signal mask.
    pub fn open(config: &config::Log) -> Result<(Writer, Recovered), Error> {
        let folder = Folder::take(&config.dir)?;
        let plan = Plan { segment: config.segment, budget: config.budget, sync: config.sync };
        let shipped = cursor::peek(folder.dir());
        let (mut found, recovered) = Found::look(&folder, shipped)?;
        let first = found.seq;
        let mark = Arc::new(Mark::new(RecordId { log: found.id, seq: first }, shipped));
        let going_on = found.end.take().filter(|end| end.takes(config));
        let (mut segment, name) = match going_on {
            Some(end) => {
                folder.reclaim(plan.budget, 0, Some(end.first), &mark)?;
                let path = folder::path(folder.dir(), end.first);
                let segment = Segment::reopen(&path, end.size, end.position, end.torn);
                (segment.map_err(Error::io("open", &path))?, end.first)
            }
            None => {
                syncer::next_room(&folder, &plan, None, &mark)?;
                let mut segment = syncer::make_next(&folder, &plan)?;
                segment.begin(&Header { log: found.id, first, size: plan.segment });
                let path = folder::path(folder.dir(), first);
                std::fs::rename(folder.dir().join(NEXT), &path).map_err(Error::io("name", &path))?;
                (segment, first)
            }
        };
        segment.append(RecordId { log: found.id, seq: first }, 0, |_| Some(0));
        calls::sync_all(segment.file()).and_then(|()| folder.sync()).map_err(Error::io("sync", &config.dir))?;
        let syncer = Syncer::start(folder, plan, name, &segment, mark.clone())?;
        let writer = Writer {
            next_path: config.dir.join(NEXT),
            name_path: folder::path(&config.dir, first),
            dir: config.dir.as_path().into(),
            id: found.id,
            seq: first + 1, // below SEQ_END
            segment,
            lost: false,
            document: config.document,
            inline_sync: config.sync.is_zero(),
            syncer,
            mark,
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
        self.mark.appended(id.seq);
        self.seq += 1;
        self.counters.records += 1;
        self.counters.bytes += used as u64;
        let synced = self.inline_sync && self.sync_inline();
        self.syncer.appended(self.segment.end(), synced, ahead);
        Ok(Some(id))
    }

    /// What the log counts.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let tally = self.syncer.tally();
        Counters {
            dropped_by_budget: self.mark.dropped_records(),
            dropped_unshipped: self.mark.dropped_unshipped(),
            sync_failures: self.counters.sync_failures + tally.sync_failures.load(Ordering::Relaxed),
            create_failures: tally.create_failures.load(Ordering::Relaxed),
            unsynced_records: self.syncer.unsynced(),
            ..self.counters
        }
    }

    /// Where the shipper says how far it is, and learns how far it is behind.
    #[must_use]
    pub fn mark(&self) -> Arc<Mark> {
        self.mark.clone()
    }

    /// Has everything on the disk before it returns. Waits for the disk, but not for ever.
    pub fn flush(&mut self) -> Result<(), Error> {
        match self.syncer.flush(FLUSH_MAX) {
            Some(outcome) => outcome.map_err(Error::io("sync", &self.dir)),
            None => Err(self.stalled(FLUSH_MAX)),
        }
    }

    /// The segment for the next record: the current one while it is whole and has room.
    fn room(&mut self, reserve: usize) -> Result<&mut Segment, Error> {
        if !self.lost && !self.segment.intact() {
            self.counters.lost_segments += 1;
            self.lost = true;
        }
        if self.lost || self.segment.left() < record::footprint(reserve) {
            self.switch()?;
        }
        Ok(&mut self.segment)
    }

    /// Takes the segment that was made ahead, and gives it its name.
    fn switch(&mut self) -> Result<(), Error> {
        let until = Instant::now() + STALL_MAX;
        loop {
            let Some(mut next) = self.syncer.take_next(until)? else {
                return Err(self.stalled(STALL_MAX));
            };
            if !next.intact() {
                continue; // someone deleted it: it is made once more, folder and all
            }
            next.begin(&Header { log: self.id, first: self.seq, size: next.size() as u64 });
            self.name_path.set_file_name(Name::new(self.seq).as_str());
            match std::fs::rename(&self.next_path, &self.name_path) {
                Ok(()) => {
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
            self.syncer.doubt();
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

/// Where the log ends.
struct End {
    first: u64,
    size: u64,
    position: u64,
    torn: u64,
}

impl End {
    /// Whether the segment has room for a record of the largest kind, and the size that is configured.
    fn takes(&self, config: &config::Log) -> bool {
        let need = record::footprint(config.document).saturating_add(HEAD) as u64;
        self.size == config.segment && self.size.saturating_sub(self.position) >= need
    }
}

/// What is in the folder.
struct Found {
    id: Id,
    /// The first number of the run that begins now.
    seq: u64,
    /// The last segment, if it can be gone on with.
    end: Option<End>,
}

impl Found {
    fn look(folder: &Folder, shipped: Option<RecordId>) -> Result<(Found, Recovered), Error> {
        adopt(folder)?;
        // Numbers that are known to have been given out, whatever is left of their records.
        let mut least = 0;
        let mut recovered = Recovered::default();
        let mut segments = folder::list(folder.dir())?;
        recovered.segments = segments.len() as u64;
        while let Some(last) = segments.pop() {
            let path = folder::path(folder.dir(), last.first);
            let file = calls::open(&path).map_err(Error::io("open", &path))?;
            let mut scan = Scan::default();
            let opening = scan.begin(&file, last.first).map_err(Error::io("read", &path))?;
            if let Opening::Newer(version) = opening {
                return Err(Error::Newer { path, version });
            }
            let torn = walk(&mut scan, &file, &mut recovered).map_err(Error::io("read", &path))?;
            let Some(id) = scan.log() else {
                folder::remove(&path)?;
                recovered.empty_segments += 1;
                least = least.max(last.first + 1);
                continue;
            };
            recovered.torn_bytes = torn;
            let end = End { first: last.first, size: last.size, position: scan.offset(), torn };
            let whole = matches!(opening, Opening::Sound(header) if header.size == last.size);
            // Someone may have renamed the file: what is in it is not written over.
            least = least.max(last.first + u64::from(scan.offset() > HEADER as u64));
            least =
                least.max(shipped.filter(|shipped| shipped.log == id).map_or(0, |shipped| shipped.seq + 1));
            let seq = match scan.floor().max(least) {
                0 => Some(0), // a log in which nothing was ever written
                floor => record::next_run(floor - 1),
            };
            let seq = seq.ok_or_else(|| Error::Exhausted { dir: folder.dir().into() })?;
            return Ok((Found { id, seq, end: whole.then_some(end) }, recovered));
        }
        let id = Id(calls::random().map_err(Error::io("make an id for", folder.dir()))?);
        Ok((Found { id, seq: 0, end: None }, recovered))
    }
}

/// Walks to the end. Returns how many bytes are torn there.
fn walk(scan: &mut Scan, file: &File, recovered: &mut Recovered) -> std::io::Result<u64> {
    loop {
        match scan.next(file)? {
            Step::Record { body, missing, .. } => {
                recovered.records += u64::from(!body.is_empty());
                recovered.bad_records = recovered.bad_records.saturating_add(missing);
            }
            Step::Bad { records } => recovered.bad_records = recovered.bad_records.saturating_add(records),
            Step::End { torn } => return Ok(torn),
        }
    }
}

/// A writer that died between a new segment's header and its name left it without one.
fn adopt(folder: &Folder) -> Result<(), Error> {
    let next = folder.dir().join(NEXT);
    let Ok(file) = File::open(&next) else { return Ok(()) };
    let mut bytes = [0; HEADER];
    let read = std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0);
    let path = match Header::parse(&bytes) {
        Opening::Sound(header) if read.is_ok() => folder::path(folder.dir(), header.first),
        Opening::Newer(version) => return Err(Error::Newer { path: next, version }),
        _ => return folder::remove(&next),
    };
    if path.exists() {
        return folder::remove(&next);
    }
    std::fs::rename(&next, &path).map_err(Error::io("name", &path))
}
