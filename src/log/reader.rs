//! Readers: from the oldest record to the newest and on, while the log is written or after its
//! writer died. They lock nothing, map nothing, and a file that shrinks is a short read to them.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::folder::{self, Listed};
use super::record::{self, HEADER, Header, Opening};
use super::scan::{Scan, Step};
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

/// The segment that is read.
#[derive(Debug)]
struct Current {
    listed: Listed,
    path: PathBuf,
    file: File,
    /// Its device and inode.
    inode: (u64, u64),
    follow: Follow,
}

impl Current {
    /// Whether another file has its name, or none.
    fn is_gone(&self) -> bool {
        match std::fs::symlink_metadata(&self.path) {
            Ok(there) => (there.dev(), there.ino()) != self.inode,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// What comes behind the current segment.
#[derive(Clone, Copy, Debug)]
enum Follow {
    /// Nothing yet.
    Live,
    /// Another segment: once this one is read to its end, it is done.
    Sealed(Jump),
}

/// The way to another segment.
#[derive(Clone, Copy, Debug)]
struct Jump {
    to: Listed,
    /// How the records in between went.
    between: Between,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    /// There should be none.
    Missing,
    /// The budget took them, and this segment too.
    Dropped,
    /// Another log began: nobody knows.
    Unknown,
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
    current: Option<Current>,
    scan: Scan,
    report: Report,
    torn: u64,
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
            scan: Scan::default(),
            report: Report::default(),
            torn: 0,
        })
    }

    /// Begins with the record after this one; with the oldest where that is gone, or of another log.
    pub fn after(dir: &Path, id: RecordId) -> Result<Reader, Error> {
        let mut reader = Reader::open(dir)?;
        let segments = folder::list(dir)?;
        if let Some(listed) = segments.iter().rfind(|listed| listed.first <= id.seq) {
            reader.enter(*listed, Between::Unknown)?;
            if reader.scan.log().is_some_and(|log| log != id.log) {
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
        loop {
            let Some(current) = &self.current else {
                if self.first()? {
                    continue;
                }
                return Ok(None);
            };
            let (last, expected) = (self.scan.last(), self.scan.floor());
            let step = self.scan.next(&current.file).map_err(Error::io("read", &current.path))?;
            let follows = matches!(&step, Step::Record { id, .. } if id.seq == expected);
            if let Some(last) = last.filter(|_| !follows)
                && last.is_gone(&current.file).map_err(Error::io("read", &current.path))?
            {
                self.again()?;
                continue;
            }
            match step {
                Step::Record { id, body, missing } => {
                    self.report.missing_records = self.report.missing_records.saturating_add(missing);
                    let wanted = self.after.is_none_or(|after| id.log != after.log || id.seq > after.seq)
                        && self.only.is_none_or(|only| id.log == only);
                    if body.is_empty() || !wanted {
                        continue; // a run's first record, or one that is known
                    }
                    self.given = Some(id);
                    self.report.records += 1;
                    self.report.bytes += body.len() as u64;
                    return Ok(Some(Entry { id, bytes: self.scan.body(body) }));
                }
                Step::Bad { records } => {
                    self.report.bad_records = self.report.bad_records.saturating_add(records);
                }
                Step::End { torn } => {
                    self.torn = torn;
                    if !self.onward()? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// What it met so far. All that is dropped before it was read is in here.
    #[must_use]
    pub fn report(&self) -> Report {
        Report { torn_bytes: self.report.torn_bytes.saturating_add(self.torn), ..self.report }
    }

    /// What was read last is not there any more, and other records may be in its place: reads the
    /// segment once more, but for what was given. What is rotten in it is counted again.
    fn again(&mut self) -> Result<(), Error> {
        let Some(current) = &self.current else { return Ok(()) };
        (self.after, self.torn) = (self.given.or(self.after), 0);
        // The same file: another one may have its name by now, or none.
        let begun = self.scan.begin(&current.file, current.listed.first);
        begun.map(drop).map_err(Error::io("read", &current.path))
    }

    /// Enters the oldest segment, if there is one.
    fn first(&mut self) -> Result<bool, Error> {
        let segments = self.segments()?;
        let Some(oldest) = segments.iter().find(|listed| self.takes(listed)) else { return Ok(false) };
        let entered = self.enter(*oldest, Between::Unknown)?;
        if let (Some(after), Some(_)) = (self.after, &self.current)
            && self.scan.log() == Some(after.log)
        {
            let gap = record::gap(after.seq.saturating_add(1), self.scan.floor());
            self.report.dropped_records = self.report.dropped_records.saturating_add(gap);
        }
        Ok(entered)
    }

    /// At the end of a segment: goes on where there is more. A segment with another behind it is
    /// looked at once more first, because it may have grown just before that one began.
    fn onward(&mut self) -> Result<bool, Error> {
        let Some(current) = &self.current else { return Ok(false) };
        if let Follow::Sealed(jump) = current.follow {
            if jump.between == Between::Unknown {
                self.after = self.given.or(self.after); // the same records may be there again
            }
            return self.enter(jump.to, jump.between);
        }
        let Some(jump) = self.jump(current)? else { return Ok(false) };
        if let Some(current) = &mut self.current {
            current.follow = Follow::Sealed(jump);
        }
        Ok(true)
    }

    fn jump(&self, current: &Current) -> Result<Option<Jump>, Error> {
        let segments = self.segments()?;
        let first = current.listed.first;
        if let Some(later) = segments.iter().find(|listed| listed.first > first && self.takes(listed)) {
            let oldest = segments.first() == Some(later);
            let between = if oldest { Between::Dropped } else { Between::Missing };
            return Ok(Some(Jump { to: *later, between }));
        }
        if !current.is_gone() {
            return Ok(None);
        }
        let another = segments.iter().find(|listed| self.takes(listed));
        Ok(another.map(|oldest| Jump { to: *oldest, between: Between::Unknown }))
    }

    /// Whether a segment is of a log that is read. One that does not say is.
    fn takes(&self, listed: &Listed) -> bool {
        let Some(only) = self.only else { return true };
        let mut bytes = [0; HEADER];
        let path = folder::path(&self.dir, listed.first);
        let read = File::open(path).and_then(|file| file.read_exact_at(&mut bytes, 0));
        match Header::parse(&bytes) {
            Opening::Sound(header) if read.is_ok() => header.log == only,
            _ => true,
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
        let (log, expected) = (self.scan.log(), self.scan.floor());
        let mut scan = Scan::default(); // an error leaves this reader where it was
        match scan.begin(&file, listed.first).map_err(Error::io("read", &path))? {
            Opening::Newer(version) => return Err(Error::Newer { path, version }),
            Opening::Bad => self.report.bad_segments += 1,
            Opening::Sound(_) | Opening::Blank => {}
        }
        let data = file.metadata().map_err(Error::io("look at", &path))?;
        let inode = (data.dev(), data.ino());
        self.scan = scan;
        let same = self.scan.log().is_none_or(|new| log.is_none_or(|old| old == new));
        if same && self.current.is_some() {
            let gap = record::gap(expected, self.scan.floor());
            match between {
                Between::Missing => {
                    self.report.missing_records = self.report.missing_records.saturating_add(gap)
                }
                Between::Dropped => {
                    self.report.dropped_records = self.report.dropped_records.saturating_add(gap)
                }
                Between::Unknown => {}
            }
        }
        self.report.segments += 1;
        self.report.torn_bytes = self.report.torn_bytes.saturating_add(std::mem::take(&mut self.torn));
        self.current = Some(Current { listed, path, file, inode, follow: Follow::Live });
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
