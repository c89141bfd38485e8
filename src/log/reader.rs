//! Readers: from the oldest record to the newest and on, while the log is written or after its
//! writer died. They lock nothing, map nothing, and a file that shrinks is a short read to them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::folder::{self, Calm, Listed};
use super::record::{self, HEADER, Header, Opening};
use super::scan::Step;
use super::tail::{Between, Follow, Jump, Others, Tail};
use super::{Error, Id, RecordId, calls};

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its id.
    pub id: RecordId,
    /// Its body: a document.
    pub bytes: &'a [u8],
}

/// What a reader met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments.
    pub segments: u64,
    /// Segments whose header has rotted. Their records are read all the same.
    pub bad_segments: u64,
    /// Records.
    pub records: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Bytes behind a segment's last record that are none: what was being written when it ended.
    pub torn_bytes: u64,
    /// Records that have rotted.
    pub bad_records: u64,
    /// Records that are not there although later ones are.
    pub missing_records: u64,
    /// Records that were deleted by the budget before this reader came to them.
    pub dropped_records: u64,
}

impl Report {
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
    current: Option<Tail>,
    /// Where it left segments of other logs.
    others: Others,
    /// The folder when nothing was found in it behind the end.
    calm: Option<Calm>,
    report: Report,
}

/// The name of the segment that a reader is in.
#[derive(Clone, Copy)]
struct Name {
    first: u64,
    /// It is another file's by now, or nobody's.
    taken: bool,
}

impl Reader {
    /// Begins with the oldest record.
    pub fn open(dir: &Path) -> Result<Reader, Error> {
        folder::list(dir)?;
        Ok(Reader {
            dir: dir.to_owned(),
            after: None,
            only: None,
            given: None,
            current: None,
            others: Others::default(),
            calm: None,
            report: Report::default(),
        })
    }

    /// Begins with the record after this one; with the oldest where that is gone, or of another log.
    pub fn after(dir: &Path, id: RecordId) -> Result<Reader, Error> {
        let mut reader = Reader::open(dir)?;
        let segments = folder::list(dir)?;
        if let Some(listed) = segments.iter().rfind(|listed| listed.first <= id.seq) {
            reader.enter(*listed, Between::Unknown)?;
            if reader.log().is_some_and(|log| !log.same_log(id.log)) {
                reader = Reader::open(dir)?;
            }
        }
        reader.after = Some(id);
        Ok(reader)
    }

    /// Begins with the record of this log after that one, and reads no other that was copied in.
    pub(super) fn of(dir: &Path, log: Id, after: Option<RecordId>) -> Result<Reader, Error> {
        let mut reader = match after {
            Some(id) => Reader::after(dir, id)?,
            None => Reader::open(dir)?,
        };
        reader.only = Some(log);
        Ok(reader)
    }

    /// The next record; `None` is the end for now: ask again later to follow.
    #[allow(clippy::should_implement_trait)] // an entry borrows the reader's buffer
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, Error> {
        let mut asked = 0;
        loop {
            let Some(current) = &mut self.current else {
                if self.first()? {
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
                self.again()?;
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
                    return Ok(Some(Entry { id, bytes }));
                }
                Step::Bad { records } => {
                    self.report.bad_records = self.report.bad_records.saturating_add(records);
                }
                Step::End { torn } => {
                    current.torn = torn;
                    if self.onward()? {
                        asked = 0;
                    } else if asked < self.others.len() {
                        asked += 1; // another log may be the one that is written
                        let current = self.current.take();
                        self.current = self.others.turn(current);
                    } else {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// What it met so far. All that is dropped before it was read is in here.
    #[must_use]
    pub fn report(&self) -> Report {
        let torn = self.tails().map(|tail| tail.torn);
        Report { torn_bytes: torn.fold(self.report.torn_bytes, u64::saturating_add), ..self.report }
    }

    /// Whether it trusts the folder to tell of changes.
    #[cfg(test)]
    pub(super) fn is_calm(&self) -> bool {
        self.calm.as_ref().is_some_and(Calm::is_sure)
    }

    /// The segments that may still grow.
    fn tails(&self) -> impl Iterator<Item = &Tail> {
        self.current.iter().chain(self.others.iter())
    }

    /// The log that is read, once it is known.
    fn log(&self) -> Option<Id> {
        self.current.as_ref().and_then(|current| current.scan.log())
    }

    /// What was read last is not there any more, and other records may be in its place: reads the
    /// segment once more, but for what was given. What is rotten in it is counted again.
    fn again(&mut self) -> Result<(), Error> {
        self.after = self.given.or(self.after);
        match &mut self.current {
            Some(current) => current.again(),
            None => Ok(()),
        }
    }

    /// Enters the oldest segment, if there is one.
    fn first(&mut self) -> Result<bool, Error> {
        let segments = self.segments()?;
        let Some(oldest) = segments.iter().find(|listed| self.takes(listed)) else { return Ok(false) };
        let entered = self.enter(*oldest, Between::Unknown)?;
        if let (Some(after), Some(current)) = (self.after, &self.current)
            && current.is_of(after.log)
        {
            let gap = record::gap(after.seq.saturating_add(1), current.scan.floor());
            self.report.dropped_records = self.report.dropped_records.saturating_add(gap);
        }
        Ok(entered)
    }

    /// At the end of a segment: goes on where there is more. A segment with another behind it is
    /// looked at once more first, because it may have grown just before that one began.
    fn onward(&mut self) -> Result<bool, Error> {
        let Some(current) = &self.current else { return Ok(false) };
        self.report.torn_bytes = self.report.torn_bytes.saturating_add(self.others.done(current));
        if let Follow::Sealed(jump) = current.follow {
            if matches!(jump.between, Between::Unknown | Between::Replaced) {
                self.after = self.given.or(self.after); // the same records may be there again
            }
            return self.enter(jump.to, jump.between);
        }
        let alone = self.others.len() == 0;
        if alone && Calm::is_still(&mut self.calm, &self.dir) {
            return Ok(false);
        }
        let jump = self.jump(current)?;
        if jump.is_some() || !alone {
            self.calm = None;
        }
        let Some(jump) = jump else { return Ok(false) };
        if let Some(current) = &mut self.current {
            current.follow = Follow::Sealed(jump);
            // Nobody looks here again: a record behind one that has rotted is found now or never.
            current.scan.doubt();
        }
        // One that does not tell its log may be of this one, and come before: they are all asked first.
        if self.others.iter().any(|other| other.scan.log().is_none()) {
            let current = self.current.take();
            self.current = self.others.turn(current);
        }
        Ok(true)
    }

    /// Where to go on from here. Only once all that was read is gone, another log began.
    fn jump(&self, current: &Tail) -> Result<Option<Jump>, Error> {
        let segments = self.segments()?;
        let there = self.tails().filter(|tail| !tail.is_gone());
        let passed = there.map(|tail| tail.listed.first).max();
        let from = Name { first: current.listed.first, taken: current.is_gone() };
        let later = segments.iter().find(|listed| self.is_behind(current, from, listed, passed.unwrap_or(0)));
        let ours =
            |listed: &Listed| self.log_of(listed).is_none_or(|log| self.tails().any(|tail| tail.is_of(log)));
        if let Some(later) = later.filter(|later| passed.is_some() || ours(later)) {
            let between = if later.first == from.first {
                Between::Replaced
            } else if segments.first() == Some(later) {
                Between::Dropped
            } else {
                Between::Missing
            };
            return Ok(Some(Jump { to: *later, between }));
        }
        if passed.is_some() {
            return Ok(None);
        }
        let another = segments.iter().find(|listed| self.takes(listed));
        Ok(another.map(|oldest| Jump { to: *oldest, between: Between::Unknown }))
    }

    /// Whether a segment is to be read when this one is at its end. A log that was left elsewhere goes
    /// on from there; of a log that was not met yet, only what is behind all that was passed is new.
    fn is_behind(&self, current: &Tail, from: Name, listed: &Listed, passed: u64) -> bool {
        let before = if from.taken { listed.first < from.first } else { listed.first <= from.first };
        if before || !self.takes(listed) {
            return false;
        }
        if self.others.len() == 0 {
            return true;
        }
        match self.log_of(listed) {
            Some(log) if current.is_of(log) => true,
            Some(log) if self.others.iter().any(|other| other.is_of(log)) => false,
            _ => listed.first > passed,
        }
    }

    /// Whether a segment is of a log that is read. One that does not say is.
    fn takes(&self, listed: &Listed) -> bool {
        self.only.is_none_or(|only| self.log_of(listed).is_none_or(|log| log.same_log(only)))
    }

    /// The log that a segment says it is of.
    fn log_of(&self, listed: &Listed) -> Option<Id> {
        let mut bytes = [0; HEADER];
        let file = File::open(folder::path(&self.dir, listed.first)).ok()?;
        file.read_exact_at(&mut bytes, 0).ok()?;
        match Header::parse(&bytes) {
            Opening::Sound(header) => Some(header.log),
            _ => None,
        }
    }

    /// The segments; a folder that is gone has none, and may come back.
    fn segments(&self) -> Result<Vec<Listed>, Error> {
        match folder::list(&self.dir) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    /// Goes to a segment. Deleted meanwhile, it is passed over.
    fn enter(&mut self, listed: Listed, between: Between) -> Result<bool, Error> {
        self.calm = None;
        let path = folder::path(&self.dir, listed.first);
        let file = match calls::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(current) = &mut self.current {
                    current.follow = Follow::Live;
                }
                return Ok(true);
            }
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        let (tail, opening) = Tail::begin(listed, &path, file)?; // an error leaves this reader where it was
        match opening {
            Opening::Newer(version) => return Err(Error::Newer { path, version }),
            Opening::Bad => self.report.bad_segments += 1,
            Opening::Sound(_) | Opening::Blank => {}
        }
        self.report.segments += 1;
        let new = tail.scan.log();
        let Some(left) = self.current.replace(tail) else { return Ok(true) };
        if new.is_none_or(|new| left.scan.log().is_none_or(|old| old.same_log(new))) {
            let floor = self.current.as_ref().map_or(0, |entered| entered.scan.floor());
            let gap = record::gap(left.scan.floor(), floor);
            match between {
                Between::Missing => {
                    self.report.missing_records = self.report.missing_records.saturating_add(gap)
                }
                Between::Dropped => {
                    self.report.dropped_records = self.report.dropped_records.saturating_add(gap)
                }
                Between::Unknown | Between::Replaced => {}
            }
        }
        let torn = match between {
            Between::Replaced => left.torn,
            Between::Unknown => std::mem::take(&mut self.others).torn().saturating_add(left.torn),
            _ => self.others.keep(left),
        };
        self.report.torn_bytes = self.report.torn_bytes.saturating_add(torn);
        Ok(true)
    }
}

/// One record's body; `None`: it is not in this log, or not any more.
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

/// Reads everything there is, and tells what is wrong with it.
pub fn verify(dir: &Path) -> Result<Report, Error> {
    let mut reader = Reader::open(dir)?;
    while reader.next()?.is_some() {}
    Ok(reader.report())
}
