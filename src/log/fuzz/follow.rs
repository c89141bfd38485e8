//! A life of a log as a script: written, reopened, shipped, harmed and deleted from, while a reader
//! follows. Whoever reads gets each record that nobody harmed, once, whole and in order.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::{SEGMENT, Scratch, drain, read};
use crate::fuzz::heap::untouched;
use crate::log::record::{self, HEADER};
use crate::log::scan::{Scan, Step};
use crate::log::{Cursor, Error, ReadReport, Reader, RecordId, Writer, get, log_dir, verify};

/// The output that follows.
const OUTPUT: &str = "follower";

/// The longest body.
const BODY: usize = 4096;

/// A script goes no further: it has been everywhere by then.
const STEPS: usize = 200;

/// So many records are looked for one by one at the end.
const SOUGHT: usize = 16;

/// Plays the script that these bytes are.
pub fn follow(data: &[u8]) {
    let mut model = LogModel::begin();
    for step in data.chunks(3).take(STEPS) {
        if model.forgotten {
            return;
        }
        let [what, one, two] = [0, 1, 2].map(|at| step.get(at).copied().unwrap_or(0));
        let number = usize::from(u16::from_le_bytes([one, two]));
        match what % 16 {
            0 => model.reopen(),
            1 => model.harm(number),
            2 => model.delete(),
            3 | 4 => model.ship(number % 8),
            5..=7 => model.look(),
            8..=10 => model.append(number % BODY + 1),
            11 => model.give_up(number % BODY),
            _ => model.append(number % 100 + 1),
        }
    }
    if !model.forgotten {
        model.end();
    }
}

/// A record that was appended.
struct ExpectedRecord {
    id: RecordId,
    body: Vec<u8>,
    /// The number of its segment.
    segment: u64,
}

struct LogModel {
    scratch: Scratch,
    writer: Option<Writer>,
    kept: Vec<ExpectedRecord>,
    /// Records that were harmed: what becomes of them is nobody's promise.
    harmed: BTreeSet<RecordId>,
    /// No harm was done to anything at all, and no one deleted a segment.
    sound: bool,
    reader: Reader,
    seen: Vec<RecordId>,
    cursor: Cursor,
    shipped: Option<RecordId>,
    /// A run was harmed so that its numbers were given out again: there is no telling any more.
    forgotten: bool,
}

impl LogModel {
    fn begin() -> LogModel {
        let scratch = Scratch::new();
        let (writer, _) = Writer::open(&scratch.log()).expect("opens");
        let (cursor, shipped) = Cursor::named(OUTPUT, &scratch.0).expect("opens");
        writer.progress(OUTPUT).begin(&scratch.0, shipped).expect("readable");
        let reader = Reader::open(&scratch.0).expect("a folder");
        LogModel {
            writer: Some(writer),
            kept: Vec::new(),
            harmed: BTreeSet::new(),
            sound: true,
            reader,
            seen: Vec::new(),
            cursor,
            shipped,
            forgotten: false,
            scratch,
        }
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("one is open")
    }

    /// The segments' numbers, oldest first.
    fn segments(&self) -> Vec<u64> {
        log_dir::list(&self.scratch.0).expect("a folder").iter().map(|listed| listed.first).collect()
    }

    fn path(&self, segment: u64) -> PathBuf {
        log_dir::segment_path(&self.scratch.0, segment)
    }

    fn append(&mut self, len: usize) {
        let place = self.kept.len().to_le_bytes();
        let body: Vec<u8> = (0..len).map(|at| place[at % 2] | 1).collect();
        let writer = self.writer();
        let next = writer.next_id();
        let id = loop {
            let appended = untouched(|| {
                writer.append(|_, to| {
                    to.get_mut(..len)?.copy_from_slice(&body);
                    Some(len)
                })
            });
            match appended {
                Ok(id) => break id.expect("there is a body"),
                Err(Error::Stalled { .. }) => {} // the machine is busy: once more
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(id, next);
        if self.kept.last().is_some_and(|last| !is_before(last.id, id)) {
            // Every record of the last run was harmed: nothing tells that there was one.
            assert!(!self.sound, "{id} is given out again");
            self.forgotten = true;
            return;
        }
        let segment = self.segments().pop().expect("it is in one");
        self.kept.push(ExpectedRecord { id, body, segment });
    }

    /// A document that is begun and not finished never was.
    fn give_up(&mut self, len: usize) {
        let writer = self.writer();
        let next = writer.next_id();
        let appended = writer.append(|_, to| {
            to.get_mut(..len)?.fill(b'?');
            None
        });
        assert!(matches!(appended, Ok(None) | Err(Error::Stalled { .. })), "{appended:?}");
        assert_eq!(writer.next_id(), next);
    }

    fn reopen(&mut self) {
        drop(self.writer.take());
        self.forget_deleted(); // another segment may get such a name now
        let (writer, recovered) = Writer::open(&self.scratch.log()).expect("opens");
        assert!(!self.sound || recovered.bad_records == 0, "nothing was harmed: {recovered:?}");
        let (cursor, shipped) = Cursor::named(OUTPUT, &self.scratch.0).expect("opens");
        assert_eq!(shipped, self.shipped, "the cursor says what it was told");
        writer.progress(OUTPUT).begin(&self.scratch.0, shipped).expect("readable");
        // Where nothing at all was left another log begins, and gives the same names to its segments.
        let log = writer.next_id().log;
        self.kept
            .iter_mut()
            .filter(|kept| !kept.id.log.same_log(log))
            .for_each(|kept| kept.segment = u64::MAX);
        (self.writer, self.cursor) = (Some(writer), cursor);
    }

    /// Records in segments that are gone are nowhere.
    fn forget_deleted(&mut self) {
        let there = self.segments();
        let gone = self.kept.iter_mut().filter(|kept| !there.contains(&kept.segment));
        gone.for_each(|kept| kept.segment = u64::MAX);
    }

    /// Changes one byte of a header or of a record that is there.
    fn harm(&mut self, number: usize) {
        let segments = self.segments();
        let Some(segment) = segments.get(number % segments.len().max(1)).copied() else { return };
        let file = OpenOptions::new().read(true).write(true).open(self.path(segment)).expect("it is there");
        let mut scan = Scan::default();
        scan.begin(&file, segment).expect("readable");
        let mut places = vec![(0..HEADER as u64, None)];
        while let Step::Record { id, body, .. } = scan.next(&file).expect("readable") {
            let end = scan.offset();
            let bytes = (record::HEAD + body.len()) as u64;
            let begin = end - record::footprint(body.len()) as u64;
            places.push((begin..begin + bytes, Some(id)));
        }
        let Some((place, id)) = places.get(number / 8 % places.len()) else { return };
        let at = place.start + number as u64 * 31 % (place.end - place.start);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("it is there");
        file.write_all_at(&[byte[0] ^ 0x15], at).expect("it can be written");
        self.harmed.extend(*id);
        self.sound = false;
    }

    /// Someone deletes the oldest segment, but not the one that is written.
    fn delete(&mut self) {
        if let [oldest, _, ..] = self.segments()[..] {
            std::fs::remove_file(self.path(oldest)).expect("it is there");
            self.sound = false;
        }
    }

    /// The reader that follows goes on to the end.
    fn look(&mut self) {
        for (id, body) in drain(&mut self.reader) {
            let kept = self.kept.iter().find(|kept| kept.id == id);
            let kept = kept.unwrap_or_else(|| panic!("{id} was never appended"));
            assert!(kept.body == body, "{id} was given with another body");
            assert!(self.seen.last().is_none_or(|last| is_before(*last, id)), "{id} comes too late");
            assert!(!self.seen.contains(&id), "{id} is given again");
            self.seen.push(id);
        }
        if let Some(last) = self.kept.last()
            && !self.harmed.contains(&last.id)
            && self.segments().contains(&last.segment)
        {
            assert_eq!(self.seen.last(), Some(&last.id), "what is appended is there for every reader");
        }
    }

    /// So many records are sent, and noted as done.
    fn ship(&mut self, count: usize) {
        let progress = self.writer().progress(OUTPUT);
        let mut reader = progress.reader(&self.scratch.0, self.shipped).expect("readable");
        for _ in 0..count {
            let Some(entry) = reader.next().expect("readable") else { break };
            assert!(self.shipped.is_none_or(|shipped| is_before(shipped, entry.id)), "it is sent twice");
            self.shipped = Some(entry.id);
            self.cursor.set(entry.id).expect("there is room");
            progress.advance(entry.id);
        }
        if self.sound && self.dropped() == 0 {
            let left =
                self.kept.iter().filter(|kept| self.shipped.is_none_or(|done| is_before(done, kept.id)));
            assert_eq!(progress.lag(), left.count() as u64, "records that are still to be shipped");
        }
    }

    fn dropped(&self) -> usize {
        let there = self.segments();
        self.kept.iter().filter(|kept| !there.contains(&kept.segment)).count()
    }

    fn end(mut self) {
        self.look();
        drop(self.writer.take());
        let (dir, there) = (&self.scratch.0, self.segments());
        let left = |kept: &&ExpectedRecord| there.contains(&kept.segment) && !self.harmed.contains(&kept.id);
        let all = read(dir);
        let in_order = |pair: &[(RecordId, Vec<u8>)]| is_before(pair[0].0, pair[1].0);
        assert!(all.windows(2).all(in_order), "records are read in their order");
        for kept in self.kept.iter().filter(left) {
            let same = all.iter().any(|(id, body)| *id == kept.id && *body == kept.body);
            assert!(same, "{} is lost, though nobody harmed it", kept.id);
        }
        let report = verify(dir).expect("readable");
        assert_eq!(report.records, all.len() as u64, "verify and the reader agree");
        let ReadReport { records, dropped_records, .. } = self.reader.report();
        assert_eq!(records, self.seen.len() as u64);
        if self.sound {
            assert!(report.sound() && self.reader.report().sound(), "nothing was harmed: {report:?}");
            assert_eq!(
                records + dropped_records,
                self.kept.len() as u64,
                "given or dropped: one or the other"
            );
        }
        let step = self.kept.len() / SOUGHT + 1;
        for kept in self.kept.iter().step_by(step) {
            let got = get(dir, kept.id).expect("readable");
            assert!(!left(&kept) || got.as_ref() == Some(&kept.body), "{} is not found", kept.id);
            assert!(there.contains(&kept.segment) || got.is_none(), "{} is gone", kept.id);
        }
        assert!(there.len() as u64 * SEGMENT <= self.scratch.log().budget + SEGMENT, "more than the budget");
    }
}

/// Whether a record comes before another. One of which nothing at all was left is another log.
fn is_before(one: RecordId, other: RecordId) -> bool {
    !one.log.same_log(other.log) || one.seq < other.seq
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_every_undamaged_record_of_any_scripted_log() {
        let mut seed: u64 = 0x6f6e_7365_7421;
        let mut byte = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed.to_be_bytes()[1]
        };
        for round in 0..40 {
            let len = usize::from(byte()) * 6;
            // In every other life nothing is harmed or deleted.
            let harmless = |(at, byte): (usize, u8)| {
                let harm = at % 3 == 0 && matches!(byte % 16, 1 | 2);
                if harm && round % 2 == 0 { 9 } else { byte }
            };
            follow(&(0..len).map(|_| byte()).enumerate().map(harmless).collect::<Vec<u8>>());
        }
    }
}
