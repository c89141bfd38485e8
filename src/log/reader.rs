//! Readers: from the oldest record to the newest and on, while the log is written or after its
//! writer died. They lock nothing, map nothing, and a file that shrinks is a short read to them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::log_dir::{self, SegmentFile, UnchangedDir};
use super::record::{self, HEADER, Header, ParsedHeader};
use super::scan::Step;
use super::segment_reader::{GapCause, Jump, OtherLogs, SegmentReader, SegmentState};
use super::{Error, Id, RecordId, calls};

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRecord<'a> {
    /// Its id.
    pub id: RecordId,
    /// Its body: a document.
    pub bytes: &'a [u8],
}

/// What a reader has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadReport {
    /// Segments.
    pub segments: u64,
    /// Segments whose header has rotted. Their records are read all the same.
    pub bad_segments: u64,
    /// Records.
    pub records: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Bytes behind the last record of a segment: a record that was being written when its writer died.
    pub torn_bytes: u64,
    /// Records that have rotted.
    pub bad_records: u64,
    /// Records that are not there although later records are.
    pub missing_records: u64,
    /// Records that were deleted by the budget before this reader came to them.
    pub dropped_records: u64,
}

impl ReadReport {
    /// Whether every record that was finished is there. A torn tail is no fault.
    #[must_use]
    pub fn sound(&self) -> bool {
        self.bad_segments == 0 && self.bad_records == 0 && self.missing_records == 0
    }
}

/// Reads a log, record by record.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    /// Records up to this one are not wanted.
    after: Option<RecordId>,
    /// Segments of other logs are passed over.
    only: Option<Id>,
    /// The last record that was given.
    given: Option<RecordId>,
    current: Option<SegmentReader>,
    /// Positions in segments of other logs.
    others: OtherLogs,
    /// The directory as it was when no segment followed the current one.
    unchanged: Option<UnchangedDir>,
    report: ReadReport,
}

/// The name of the segment that a reader is in.
#[derive(Clone, Copy)]
struct CurrentName {
    first: u64,
    /// Another file has the name by now, or none.
    taken: bool,
}

impl Reader {
    /// Begins with the oldest record.
    pub fn open(dir: &Path) -> Result<Reader, Error> {
        log_dir::list(dir)?;
        Ok(Reader {
            dir: dir.to_owned(),
            after: None,
            only: None,
            given: None,
            current: None,
            others: OtherLogs::default(),
            unchanged: None,
            report: ReadReport::default(),
        })
    }

    /// Begins with the record after `id`; with the oldest one where `id` is deleted or of another log.
    pub fn after(dir: &Path, id: RecordId) -> Result<Reader, Error> {
        let mut reader = Reader::open(dir)?;
        let segments = log_dir::list(dir)?;
        if let Some(listed) = segments.iter().rfind(|listed| listed.first <= id.seq) {
            reader.enter(*listed, GapCause::Unknown)?;
            if reader.log().is_some_and(|log| !log.same_log(id.log)) {
                reader = Reader::open(dir)?;
            }
        }
        reader.after = Some(id);
        Ok(reader)
    }

    /// Begins with the record of `log` after `after`, and skips records of other logs.
    pub(super) fn of(dir: &Path, log: Id, after: Option<RecordId>) -> Result<Reader, Error> {
        let mut reader = match after {
            Some(id) => Reader::after(dir, id)?,
            None => Reader::open(dir)?,
        };
        reader.only = Some(log);
        Ok(reader)
    }

    /// The next record; `None` at the end of the log: call it again later to follow.
    #[allow(clippy::should_implement_trait)] // an entry borrows the reader's buffer
    pub fn next(&mut self) -> Result<Option<LogRecord<'_>>, Error> {
        let mut asked = 0;
        loop {
            let Some(current) = &mut self.current else {
                if self.enter_oldest()? {
                    continue;
                }
                return Ok(None);
            };
            let (last, expected) = (current.scan.last(), current.scan.floor());
            let step = current.scan.next(&current.file).map_err(Error::io("read", current.path()))?;
            let follows = matches!(&step, Step::Record { id, .. } if id.seq == expected);
            if let Some(last) = last.filter(|_| !follows)
                && last.is_gone(&current.file).map_err(Error::io("read", current.path()))?
            {
                self.reread()?;
                continue;
            }
            match step {
                Step::Record { id, body, missing } => {
                    self.report.missing_records = self.report.missing_records.saturating_add(missing);
                    let wanted =
                        self.after.is_none_or(|after| !id.log.same_log(after.log) || id.seq > after.seq)
                            && self.only.is_none_or(|only| id.log.same_log(only));
                    if body.is_empty() || !wanted {
                        continue; // a run's first record, or one that is known
                    }
                    self.given = Some(id);
                    self.report.records += 1;
                    self.report.bytes += body.len() as u64;
                    let bytes = self.current.as_ref().map_or(&[][..], |current| current.scan.body(body));
                    return Ok(Some(LogRecord { id, bytes }));
                }
                Step::Bad { records } => {
                    self.report.bad_records = self.report.bad_records.saturating_add(records);
                }
                Step::End { torn } => {
                    current.torn = torn;
                    if self.advance()? {
                        asked = 0;
                    } else if asked < self.others.len() {
                        asked += 1; // another log may be the one that is written
                        let current = self.current.take();
                        self.current = self.others.rotate(current);
                    } else {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// What the reader has counted so far, records that were deleted before it came to them included.
    #[must_use]
    pub fn report(&self) -> ReadReport {
        let torn = self.open_segments().map(|tail| tail.torn);
        ReadReport { torn_bytes: torn.fold(self.report.torn_bytes, u64::saturating_add), ..self.report }
    }

    /// Whether it relies on the directory's change time.
    #[cfg(test)]
    pub(super) fn trusts_dir(&self) -> bool {
        self.unchanged.as_ref().is_some_and(UnchangedDir::is_sure)
    }

    /// The segments that may still grow.
    fn open_segments(&self) -> impl Iterator<Item = &SegmentReader> {
        self.current.iter().chain(self.others.iter())
    }

    /// The log that is read, once it is known.
    fn log(&self) -> Option<Id> {
        self.current.as_ref().and_then(|current| current.scan.log())
    }

    /// The record that was read last is gone, and other records may be in its place: reads the segment again, but
    /// skips records that were given. Corrupt records in it are counted again.
    fn reread(&mut self) -> Result<(), Error> {
        self.after = self.given.or(self.after);
        match &mut self.current {
            Some(current) => current.restart(),
            None => Ok(()),
        }
    }

    /// Enters the oldest segment, if there is one.
    fn enter_oldest(&mut self) -> Result<bool, Error> {
        let segments = self.segments()?;
        let Some(oldest) = segments.iter().find(|listed| self.is_wanted(listed)) else { return Ok(false) };
        let entered = self.enter(*oldest, GapCause::Unknown)?;
        if let (Some(after), Some(current)) = (self.after, &self.current)
            && current.is_of(after.log)
        {
            let gap = record::gap(after.seq.saturating_add(1), current.scan.floor());
            self.report.dropped_records = self.report.dropped_records.saturating_add(gap);
        }
        Ok(entered)
    }

    /// At the end of a segment: continues with the next one. A segment that another one follows is read once more
    /// first, because it may have grown just before the next one began.
    fn advance(&mut self) -> Result<bool, Error> {
        let Some(current) = &self.current else { return Ok(false) };
        self.report.torn_bytes = self.report.torn_bytes.saturating_add(self.others.drop_before(current));
        if let SegmentState::Sealed(jump) = current.state {
            if matches!(jump.cause, GapCause::Unknown | GapCause::Replaced) {
                self.after = self.given.or(self.after); // the same records may be there again
            }
            return self.enter(jump.to, jump.cause);
        }
        let alone = self.others.len() == 0;
        if alone && UnchangedDir::is_unchanged(&mut self.unchanged, &self.dir) {
            return Ok(false);
        }
        let jump = self.next_segment(current)?;
        if jump.is_some() || !alone {
            self.unchanged = None;
        }
        let Some(jump) = jump else { return Ok(false) };
        if let Some(current) = &mut self.current {
            current.state = SegmentState::Sealed(jump);
            // Nobody looks here again: a record behind one that has rotted is found now or never.
            current.scan.forget_end();
        }
        // One that does not tell its log may be of this one, and come before: they are all asked first.
        if self.others.iter().any(|other| other.scan.log().is_none()) {
            let current = self.current.take();
            self.current = self.others.rotate(current);
        }
        Ok(true)
    }

    /// The segment after `current`. Another log has begun only where every segment that was read is gone.
    fn next_segment(&self, current: &SegmentReader) -> Result<Option<Jump>, Error> {
        let segments = self.segments()?;
        let there = self.open_segments().filter(|tail| !tail.is_gone());
        let passed = there.map(|tail| tail.listed.first).max();
        let from = CurrentName { first: current.listed.first, taken: current.is_gone() };
        let later = segments.iter().find(|listed| self.is_behind(current, from, listed, passed.unwrap_or(0)));
        let ours = |listed: &SegmentFile| {
            self.log_of(listed).is_none_or(|log| self.open_segments().any(|tail| tail.is_of(log)))
        };
        if let Some(later) = later.filter(|later| passed.is_some() || ours(later)) {
            let cause = if later.first == from.first {
                GapCause::Replaced
            } else if segments.first() == Some(later) {
                GapCause::Dropped
            } else {
                GapCause::Missing
            };
            return Ok(Some(Jump { to: *later, cause }));
        }
        if passed.is_some() {
            return Ok(None);
        }
        let another = segments.iter().find(|listed| self.is_wanted(listed));
        Ok(another.map(|oldest| Jump { to: *oldest, cause: GapCause::Unknown }))
    }

    /// Whether `listed` is to be read after `current`. A log with a kept position continues from there; of a log that
    /// was never read, only segments behind the number `passed` are new.
    fn is_behind(
        &self,
        current: &SegmentReader,
        from: CurrentName,
        listed: &SegmentFile,
        passed: u64,
    ) -> bool {
        let before = if from.taken { listed.first < from.first } else { listed.first <= from.first };
        if before || !self.is_wanted(listed) {
            return false;
        }
        if self.others.len() == 0 {
            return true;
        }
        match self.log_of(listed) {
            Some(log) if current.is_of(log) => true,
            _ if self.is_kept(listed) => false,
            Some(log) if self.others.iter().any(|other| other.is_of(log)) => false,
            _ => listed.first > passed,
        }
    }

    /// Whether one of the other positions is in `listed`: its header may not say so.
    fn is_kept(&self, listed: &SegmentFile) -> bool {
        self.others.iter().any(|other| other.listed.first == listed.first && !other.is_gone())
    }

    /// Whether `listed` belongs to the log that is read, or does not say to which log it belongs.
    fn is_wanted(&self, listed: &SegmentFile) -> bool {
        self.only.is_none_or(|only| self.log_of(listed).is_none_or(|log| log.same_log(only)))
    }

    /// The log in the header of `listed`.
    fn log_of(&self, listed: &SegmentFile) -> Option<Id> {
        let mut bytes = [0; HEADER];
        let file = File::open(log_dir::segment_path(&self.dir, listed.first)).ok()?;
        file.read_exact_at(&mut bytes, 0).ok()?;
        match Header::parse(&bytes) {
            ParsedHeader::Sound(header) => Some(header.log),
            _ => None,
        }
    }

    /// The segments; a directory that is gone has none, and may come back.
    fn segments(&self) -> Result<Vec<SegmentFile>, Error> {
        match log_dir::list(&self.dir) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    /// Opens the segment `listed`. One that was deleted meanwhile is skipped, and one that is read already.
    fn enter(&mut self, listed: SegmentFile, cause: GapCause) -> Result<bool, Error> {
        self.unchanged = None;
        let path = log_dir::segment_path(&self.dir, listed.first);
        // Two positions can lead to one segment: it is read from one of them.
        let kept = self.is_kept(&listed);
        let file = match calls::open(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("open", &path)(error));
            }
            Ok(file) if !kept => file,
            _ => {
                if let Some(current) = &mut self.current {
                    current.state = SegmentState::Live;
                }
                return Ok(!kept);
            }
        };
        let (tail, header) = SegmentReader::begin(listed, &path, file)?; // an error leaves this reader where it was
        match header {
            ParsedHeader::Newer(version) => return Err(Error::Newer { path, version }),
            ParsedHeader::Bad => self.report.bad_segments += 1,
            ParsedHeader::Sound(_) | ParsedHeader::Blank => {}
        }
        self.report.segments += 1;
        let new = tail.scan.log();
        let Some(left) = self.current.replace(tail) else { return Ok(true) };
        if new.is_none_or(|new| left.scan.log().is_none_or(|old| old.same_log(new))) {
            let floor = self.current.as_ref().map_or(0, |entered| entered.scan.floor());
            let gap = record::gap(left.scan.floor(), floor);
            match cause {
                GapCause::Missing => {
                    self.report.missing_records = self.report.missing_records.saturating_add(gap)
                }
                GapCause::Dropped => {
                    self.report.dropped_records = self.report.dropped_records.saturating_add(gap)
                }
                GapCause::Unknown | GapCause::Replaced => {}
            }
        }
        let torn = match cause {
            GapCause::Replaced => left.torn,
            GapCause::Unknown => std::mem::take(&mut self.others).torn().saturating_add(left.torn),
            _ => self.others.keep(left),
        };
        self.report.torn_bytes = self.report.torn_bytes.saturating_add(torn);
        Ok(true)
    }
}

/// The body of the record `id`; `None`: the log does not hold it.
pub fn get(dir: &Path, id: RecordId) -> Result<Option<Vec<u8>>, Error> {
    let mut reader = match id.seq.checked_sub(1) {
        Some(before) => Reader::after(dir, RecordId { seq: before, ..id })?,
        None => Reader::open(dir)?,
    };
    while let Some(entry) = reader.next()? {
        if entry.id == id {
            return Ok(Some(entry.bytes.to_vec()));
        }
        if entry.id.log == id.log && entry.id.seq > id.seq {
            break;
        }
    }
    Ok(None)
}

/// Reads the whole log and counts what is wrong with it.
pub fn verify(dir: &Path) -> Result<ReadReport, Error> {
    let mut reader = Reader::open(dir)?;
    while reader.next()?.is_some() {}
    Ok(reader.report())
}
