//! A walk over one segment, record by record, while it may still be written. What is rotten is
//! stepped over; what cannot be read is taken for zeros. The writer's start, the readers and
//! `verify` all walk here, so they cannot disagree.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{Ordering, fence};

use super::record::{self, ALIGN, HEAD, HEADER, Head, Header, Opening, Place};
use super::{Id, RecordId, calls};

/// What is read in one go, unless a record is longer.
const WINDOW: usize = 64 << 10;
/// Disks fail by blocks of this size or less.
const BLOCK: usize = 4096;
/// More bytes behind the last record than this are not read again each time that someone asks for more.
const TORN_READ: u64 = 64 << 10;
/// After this many looks in a row that found the end unchanged, the rest of the segment is walked again.
/// A follower looks ten times a second, and walks 16 MiB of zeros in 10 ms: 0.02 % of a core.
const BELIEVED: u32 = 512;

/// Where a segment's bytes come from.
pub(super) trait Source {
    /// As pread(2).
    fn read(&self, to: &mut [u8], offset: u64) -> io::Result<usize>;
    /// How many bytes there are.
    fn size(&self) -> io::Result<u64>;
    /// Where the next bytes are that may not be zero, at `offset` or behind it.
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
    /// Bytes that should have been so many records, with a record behind them.
    Bad { records: u64 },
    /// No further record for now; behind the last one are so many bytes that are none.
    End { torn: u64 },
}

/// A record that was met: where its head is, and what that says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Met {
    offset: u64,
    head: Head,
}

impl Met {
    /// Whether it is gone: it had rotted, and who opened the log for writing went on in its place.
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
        let place = Place { offset: self.offset, log: None, floor: 0 };
        Ok(bytes.get(..got).and_then(|bytes| Head::parse(bytes, place)) != Some(self.head))
    }
}

/// What is at one place.
enum Look {
    Record(Head),
    /// A sound head with another body.
    BadBody,
    Nothing,
}

/// The end of the records, as it was found: who follows it asks again and again, and the rest of the
/// segment is not walked as long as nothing changes. A writer goes on at the last record's end; behind
/// bytes that are no record only if there was one that has rotted, so these count too.
#[derive(Clone, Copy, Debug)]
struct End {
    offset: u64,
    torn: u64,
    /// Of the bytes there, read before the walk that found no record. `None`: no such walk yet.
    sum: Option<u32>,
    /// How often this was believed since.
    asked: u32,
}

/// A place in a segment.
#[derive(Debug, Default)]
pub(super) struct Scan {
    window: Window,
    size: u64,
    offset: u64,
    floor: u64,
    log: Option<Id>,
    last: Option<Met>,
    end: Option<End>,
}

impl Scan {
    /// Goes to the first record of a segment whose name says `first`.
    pub(super) fn begin(&mut self, source: &(impl Source + ?Sized), first: u64) -> io::Result<Opening> {
        self.window.forget();
        self.size = source.size()?;
        self.offset = HEADER as u64;
        (self.last, self.end) = (None, None);
        let opening = Header::parse(self.window.at(source, 0, HEADER, u64::MAX)?);
        (self.log, self.floor) = match opening {
            Opening::Sound(header) => (Some(header.log), header.first),
            _ => (None, first),
        };
        Ok(opening)
    }

    /// The end of the last record so far.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The number that comes next if none is missing.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Gives its memory back until the next step.
    pub(super) fn rest(&mut self) {
        self.window = Window::default();
    }

    /// The last record in this segment so far.
    pub(super) fn last(&self) -> Option<Met> {
        self.last
    }

    /// The log, once it is known.
    pub(super) fn log(&self) -> Option<Id> {
        self.log
    }

    /// The body that the last step told of.
    pub(super) fn body(&self, range: Range<usize>) -> &[u8] {
        self.window.bytes.get(range).unwrap_or(&[])
    }

    /// Has the next step walk to the end of the segment, whatever was found there before.
    pub(super) fn doubt(&mut self) {
        self.end = None;
    }

    /// Takes one step.
    pub(super) fn next(&mut self, source: &(impl Source + ?Sized)) -> io::Result<Step> {
        let Some(mut end) = self.end.filter(|end| end.offset == self.offset) else {
            let step = self.step(source)?;
            self.ended(&step, None);
            return Ok(step);
        };
        let sum = self.sum(source, end.torn)?;
        end.asked += 1;
        if end.sum == Some(sum) && end.asked < BELIEVED {
            self.end = Some(end);
            return Ok(Step::End { torn: end.torn });
        }
        self.window.forget();
        let step = self.step(source)?;
        // What was summed is all that was found behind the last record, or it is not enough.
        self.ended(&step, Some(sum).filter(|_| step == Step::End { torn: end.torn }));
        Ok(step)
    }

    fn ended(&mut self, step: &Step, sum: Option<u32>) {
        self.end = match step {
            Step::End { torn } => Some(End { offset: self.offset, torn: *torn, sum, asked: 0 }),
            _ => None,
        };
    }

    /// The bytes where the next record is to come: behind the last one, and behind what is torn there.
    fn sum(&mut self, source: &(impl Source + ?Sized), torn: u64) -> io::Result<u32> {
        let mut sum = crc32fast::Hasher::new();
        let torn = torn.next_multiple_of(ALIGN as u64);
        let behind = self.offset.saturating_add(torn);
        for (from, len) in [(self.offset, torn.min(TORN_READ)), (behind, 0)] {
            self.window.forget();
            let want = usize::try_from(len).unwrap_or(0) + HEAD;
            let bytes = self.window.at(source, from, want, from.saturating_add(want as u64))?;
            sum.update(bytes);
            sum.update(&bytes.len().to_le_bytes());
            if torn == 0 {
                break; // both are one place
            }
        }
        self.window.forget();
        Ok(sum.finalize())
    }

    fn step(&mut self, source: &(impl Source + ?Sized)) -> io::Result<Step> {
        if let Look::Record(head) = self.look(source, self.offset)? {
            return Ok(self.take(head));
        }
        self.window.forget(); // it may be older than the record
        let (found, torn) = self.ahead(source)?;
        let Some(found) = found else { return Ok(Step::End { torn }) };
        // A writer publishes in order: with one further on in sight, this one is there or is lost.
        fence(Ordering::Acquire);
        self.window.forget();
        if let Look::Record(head) = self.look(source, self.offset)? {
            return Ok(self.take(head));
        }
        let Look::Record(head) = self.look(source, found)? else { return Ok(Step::End { torn }) };
        let most = (found.saturating_sub(self.offset) / HEAD as u64).max(1);
        let records = record::gap(self.floor, head.id.seq).clamp(1, most);
        self.offset = found;
        self.log = Some(head.id.log);
        self.floor = head.id.seq;
        Ok(Step::Bad { records })
    }

    fn take(&mut self, head: Head) -> Step {
        let missing = record::gap(self.floor, head.id.seq);
        let body = self.window.range(self.offset + HEAD as u64, head.len);
        self.last = Some(Met { offset: self.offset, head });
        self.log = Some(head.id.log);
        self.floor = head.id.seq + 1; // below SEQ_END
        self.offset += record::footprint(head.len) as u64;
        Step::Record { id: head.id, body, missing }
    }

    fn place(&self, offset: u64) -> Place {
        Place { offset, log: self.log, floor: self.floor }
    }

    fn look(&mut self, source: &(impl Source + ?Sized), offset: u64) -> io::Result<Look> {
        let place = self.place(offset);
        let Some(head) = Head::parse(self.window.at(source, offset, HEAD, u64::MAX)?, place) else {
            return Ok(Look::Nothing);
        };
        let whole = HEAD + head.len;
        if offset.saturating_add(whole as u64) > self.size {
            return Ok(Look::Nothing);
        }
        let body = self.window.at(source, offset, whole, u64::MAX)?.get(HEAD..whole);
        Ok(match body {
            Some(body) if head.matches(body) => Look::Record(head),
            Some(_) => Look::BadBody,
            None => Look::Nothing,
        })
    }

    /// The first record from here on, and how many bytes from here on are not zero at their end.
    fn ahead(&mut self, source: &(impl Source + ?Sized)) -> io::Result<(Option<u64>, u64)> {
        let mut at = self.offset;
        let mut used = self.offset;
        while let Some(data) = source.next_data(at)? {
            at = at.max(data.start / ALIGN as u64 * ALIGN as u64);
            let place = self.place(at);
            let bytes = self.window.at(source, at, HEAD, data.end)?;
            let (seen, head) = match record::find(bytes, place) {
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
            at += match self.look(source, at)? {
                Look::Record(_) => return Ok((Some(at), 0)),
                Look::BadBody => record::footprint(head.len) as u64,
                Look::Nothing => ALIGN as u64,
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
    fn forget(&mut self) {
        self.filled = 0;
    }

    /// The bytes from `offset` on: at least `want` where the segment has them below `end`.
    fn at(
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
