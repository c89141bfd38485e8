//! A walk over one segment, record by record, while it may still be written. What is rotten is
//! stepped over; what cannot be read is taken for zeros. The writer's start, the readers and
//! `verify` all walk here, so they cannot disagree.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{Ordering, fence};

use super::record::{self, ALIGN, Expected, HEAD, HEADER, Head, Header, ParsedHeader};
use super::{Id, RecordId, calls};

/// What is read in one go, unless a record is longer.
const WINDOW: usize = 64 << 10;
/// Disks fail by blocks of this size or less.
const BLOCK: usize = 4096;
/// Of the bytes behind the last record, no more than this are read again each time that a follower polls.
const TORN_READ: u64 = 64 << 10;
/// After this many polls in a row that found the end unchanged, the rest of the segment is walked again.
/// A follower polls ten times a second, and walks 16 MiB of zeros in 10 ms: 0.02 % of a core.
const LOOKS_MAX: u32 = 512;

/// Where a segment's bytes come from.
pub(super) trait Source {
    /// As pread(2).
    fn read(&self, to: &mut [u8], offset: u64) -> io::Result<usize>;
    /// How many bytes there are.
    fn size(&self) -> io::Result<u64>;
    /// The range of the next bytes at or behind `offset` that may not be zero.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>>;
}

impl Source for File {
    fn read(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(to, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        calls::next_data(self, offset)
    }
}

impl Source for [u8] {
    fn read(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or(&[]);
        let len = from.len().min(to.len());
        to[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let end = self.len() as u64;
        Ok((offset < end).then_some(offset..end))
    }
}

/// One step of the walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A record; `Scan::body` has its body until the next step.
    Record { id: RecordId, body: Range<usize>, missing: u64 },
    /// Corrupt bytes in the place of `records` records, with a record behind them.
    Bad { records: u64 },
    /// No further record for now; `torn` bytes behind the last one are no record.
    End { torn: u64 },
}

/// The record that was read last: its offset and its head.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastRecord {
    offset: u64,
    head: Head,
}

impl LastRecord {
    /// Whether it is gone: it was corrupt, and a new writer appended in its place.
    pub(super) fn is_gone(&self, source: &(impl Source + ?Sized)) -> io::Result<bool> {
        let mut bytes = [0; HEAD];
        let got = loop {
            match source.read(&mut bytes, self.offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A block that cannot be read tells nothing.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(false),
                other => break other?,
            }
        };
        let expected = Expected { offset: self.offset, log: None, floor: 0 };
        Ok(bytes.get(..got).and_then(|bytes| Head::parse(bytes, expected)) != Some(self.head))
    }
}

/// What is at an offset.
enum HeadCheck {
    Record(Head),
    /// A sound head with another body.
    BadBody,
    Nothing,
}

/// The end of the records, as it was found. A follower polls it, and the rest of the segment is not walked as long as
/// the bytes there do not change. A writer appends at the end of the last record, or, where a record became corrupt,
/// behind its bytes, so these are compared too.
#[derive(Clone, Copy, Debug)]
struct FoundEnd {
    offset: u64,
    torn: u64,
    /// Checksum of the bytes there, from before the walk that found no record. `None`: no such walk yet.
    sum: Option<u32>,
    /// How many polls relied on it since.
    looks: u32,
}

/// A position in a segment.
#[derive(Debug, Default)]
pub(super) struct Scan {
    window: Window,
    size: u64,
    offset: u64,
    floor: u64,
    log: Option<Id>,
    last: Option<LastRecord>,
    end: Option<FoundEnd>,
}

impl Scan {
    /// Goes to the first record of a segment, which its name says is `first`.
    pub(super) fn begin(&mut self, source: &(impl Source + ?Sized), first: u64) -> io::Result<ParsedHeader> {
        self.window.clear();
        self.size = source.size()?;
        self.offset = HEADER as u64;
        (self.last, self.end) = (None, None);
        let header = Header::parse(self.window.bytes_at(source, 0, HEADER, u64::MAX)?);
        (self.log, self.floor) = match header {
            ParsedHeader::Sound(header) => (Some(header.log), header.first),
            _ => (None, first),
        };
        Ok(header)
    }

    /// The end of the last record so far.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The number that comes next if no record is missing.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Frees the read buffer until the next step.
    pub(super) fn drop_buffer(&mut self) {
        self.window = Window::default();
    }

    /// The last record in this segment so far.
    pub(super) fn last(&self) -> Option<LastRecord> {
        self.last
    }

    /// The log, once it is known.
    pub(super) fn log(&self) -> Option<Id> {
        self.log
    }

    /// The body of the record that the last step returned.
    pub(super) fn body(&self, range: Range<usize>) -> &[u8] {
        self.window.bytes.get(range).unwrap_or(&[])
    }

    /// Makes the next step walk to the end of the segment, whatever was found there before.
    pub(super) fn forget_end(&mut self) {
        self.end = None;
    }

    /// Takes one step.
    pub(super) fn next(&mut self, source: &(impl Source + ?Sized)) -> io::Result<Step> {
        let Some(mut end) = self.end.filter(|end| end.offset == self.offset) else {
            let step = self.step(source)?;
            self.remember_end(&step, None);
            return Ok(step);
        };
        let sum = self.sum_behind_end(source, end.torn)?;
        end.looks += 1;
        if end.sum == Some(sum) && end.looks < LOOKS_MAX {
            self.end = Some(end);
            return Ok(Step::End { torn: end.torn });
        }
        self.window.clear();
        let step = self.step(source)?;
        // What was summed is all that was found behind the last record, or it is not enough.
        self.remember_end(&step, Some(sum).filter(|_| step == Step::End { torn: end.torn }));
        Ok(step)
    }

    fn remember_end(&mut self, step: &Step, sum: Option<u32>) {
        self.end = match step {
            Step::End { torn } => Some(FoundEnd { offset: self.offset, torn: *torn, sum, looks: 0 }),
            _ => None,
        };
    }

    /// Checksum of the bytes where the next record will be: behind the last one, and behind the `torn` bytes there.
    fn sum_behind_end(&mut self, source: &(impl Source + ?Sized), torn: u64) -> io::Result<u32> {
        let mut sum = crc32fast::Hasher::new();
        let torn = torn.next_multiple_of(ALIGN as u64);
        let behind = self.offset.saturating_add(torn);
        for (from, len) in [(self.offset, torn.min(TORN_READ)), (behind, 0)] {
            self.window.clear();
            let want = usize::try_from(len).unwrap_or(0) + HEAD;
            let bytes = self.window.bytes_at(source, from, want, from.saturating_add(want as u64))?;
            sum.update(bytes);
            sum.update(&bytes.len().to_le_bytes());
            if torn == 0 {
                break; // both are one place
            }
        }
        self.window.clear();
        Ok(sum.finalize())
    }

    fn step(&mut self, source: &(impl Source + ?Sized)) -> io::Result<Step> {
        if let HeadCheck::Record(head) = self.check_head(source, self.offset)? {
            return Ok(self.accept(head));
        }
        self.window.clear(); // it may be older than the record
        let (found, torn) = self.find_next(source)?;
        let Some(found) = found else { return Ok(Step::End { torn }) };
        // A writer publishes in order: with one further on in sight, this one is there or is lost.
        fence(Ordering::Acquire);
        self.window.clear();
        if let HeadCheck::Record(head) = self.check_head(source, self.offset)? {
            return Ok(self.accept(head));
        }
        let HeadCheck::Record(head) = self.check_head(source, found)? else { return Ok(Step::End { torn }) };
        let most = (found.saturating_sub(self.offset) / HEAD as u64).max(1);
        let records = record::gap(self.floor, head.id.seq).clamp(1, most);
        self.offset = found;
        self.log = Some(head.id.log);
        self.floor = head.id.seq;
        Ok(Step::Bad { records })
    }

    fn accept(&mut self, head: Head) -> Step {
        let missing = record::gap(self.floor, head.id.seq);
        let body = self.window.range(self.offset + HEAD as u64, head.len);
        self.last = Some(LastRecord { offset: self.offset, head });
        self.log = Some(head.id.log);
        self.floor = head.id.seq + 1; // below SEQ_END
        self.offset += record::footprint(head.len) as u64;
        Step::Record { id: head.id, body, missing }
    }

    fn expected_at(&self, offset: u64) -> Expected {
        Expected { offset, log: self.log, floor: self.floor }
    }

    fn check_head(&mut self, source: &(impl Source + ?Sized), offset: u64) -> io::Result<HeadCheck> {
        let expected = self.expected_at(offset);
        let Some(head) = Head::parse(self.window.bytes_at(source, offset, HEAD, u64::MAX)?, expected) else {
            return Ok(HeadCheck::Nothing);
        };
        let whole = HEAD + head.len;
        if offset.saturating_add(whole as u64) > self.size {
            return Ok(HeadCheck::Nothing);
        }
        let body = self.window.bytes_at(source, offset, whole, u64::MAX)?.get(HEAD..whole);
        Ok(match body {
            Some(body) if head.matches(body) => HeadCheck::Record(head),
            Some(_) => HeadCheck::BadBody,
            None => HeadCheck::Nothing,
        })
    }

    /// The offset of the next record, if there is one; else how many bytes behind the position end with a byte that is not
    /// zero.
    fn find_next(&mut self, source: &(impl Source + ?Sized)) -> io::Result<(Option<u64>, u64)> {
        let mut at = self.offset;
        let mut used = self.offset;
        while let Some(data) = source.next_data(at)? {
            at = at.max(data.start / ALIGN as u64 * ALIGN as u64);
            let expected = self.expected_at(at);
            let bytes = self.window.bytes_at(source, at, HEAD, data.end)?;
            let (seen, head) = match record::find(bytes, expected) {
                Ok((seen, head)) => (seen, Some(head)),
                Err(0) => (bytes.len(), None), // the last bytes, too few for a head
                Err(seen) => (seen, None),
            };
            if let Some(last) = bytes.iter().take(seen).rposition(|byte| *byte != 0) {
                used = at + last as u64 + 1;
            }
            let Some(head) = head else {
                at += seen.max(1).next_multiple_of(ALIGN) as u64;
                continue;
            };
            at += seen as u64;
            at += match self.check_head(source, at)? {
                HeadCheck::Record(_) => return Ok((Some(at), 0)),
                HeadCheck::BadBody => record::footprint(head.len) as u64,
                HeadCheck::Nothing => ALIGN as u64,
            };
            used = at;
        }
        Ok((None, used.min(self.size).saturating_sub(self.offset)))
    }
}

/// A piece of the segment in memory.
#[derive(Debug, Default)]
struct Window {
    bytes: Vec<u8>,
    start: u64,
    filled: usize,
}

impl Window {
    fn clear(&mut self) {
        self.filled = 0;
    }

    /// The bytes from `offset` on: at least `want` where the segment has them below `end`.
    fn bytes_at(
        &mut self,
        source: &(impl Source + ?Sized),
        offset: u64,
        want: usize,
        end: u64,
    ) -> io::Result<&[u8]> {
        let inside = self.skip(offset).is_some_and(|skip| self.filled.saturating_sub(skip) >= want);
        if !inside {
            let most = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
            self.load(source, offset, want.max(WINDOW).min(most))?;
        }
        let skip = self.skip(offset).unwrap_or(0);
        Ok(self.bytes.get(skip..self.filled).unwrap_or(&[]))
    }

    fn range(&self, offset: u64, len: usize) -> Range<usize> {
        let skip = self.skip(offset).unwrap_or(self.filled);
        skip..skip.saturating_add(len)
    }

    fn skip(&self, offset: u64) -> Option<usize> {
        usize::try_from(offset.checked_sub(self.start)?).ok()
    }

    fn load(&mut self, source: &(impl Source + ?Sized), offset: u64, want: usize) -> io::Result<()> {
        if self.bytes.len() < want {
            self.bytes.resize(want, 0);
        }
        (self.start, self.filled) = (offset, 0);
        while let Some(to) = self.bytes.get_mut(self.filled..want)
            && !to.is_empty()
        {
            let from = offset.saturating_add(self.filled as u64);
            match source.read(to, from) {
                Ok(0) => break,
                Ok(got) => self.filled += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                    let into = usize::try_from(from % BLOCK as u64).unwrap_or(0);
                    let lost = to.len().min(BLOCK - into);
                    to[..lost].fill(0);
                    self.filled += lost;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
