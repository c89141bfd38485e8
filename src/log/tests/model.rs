//! Random lives of a log against a list: whatever happens at its end, what was whole stays.

use std::collections::HashSet;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use super::*;

#[derive(Clone, Copy, Debug)]
enum Action {
    Append(usize),
    /// The document is given up half way.
    GiveUp(usize),
    Reopen,
    /// The last segment's end is zeros from some byte on.
    LoseTail,
    /// The last segment ends at some byte.
    CutTail,
    /// The last segment's end is noise from some byte on.
    TearTail,
    Read,
}

impl Action {
    fn any(random: &mut Random) -> Action {
        match random.below(40) {
            0 => Action::LoseTail,
            1 => Action::CutTail,
            2 => Action::TearTail,
            3 => Action::Reopen,
            4 => Action::GiveUp(random.below(4096) + 1),
            5..10 => Action::Read,
            10..20 => Action::Append(random.below(4096) + 1),
            _ => Action::Append(random.below(60) + 1),
        }
    }
}

/// A record as the list has it; a run's first one has no body.
struct ExpectedRecord {
    id: RecordId,
    body: Vec<u8>,
    segment: PathBuf,
    end: usize,
}

struct LogModel {
    scratch: Scratch,
    random: Random,
    writer: Option<Writer>,
    kept: Vec<ExpectedRecord>,
    ids: HashSet<RecordId>,
    dropped: u64,
    counted: u64,
    /// Where the next record begins.
    segment: PathBuf,
    inode: u64,
    at: usize,
}

impl LogModel {
    fn begin(seed: u64) -> LogModel {
        let mut model = LogModel {
            scratch: Scratch::new(),
            random: Random(seed),
            writer: None,
            kept: Vec::new(),
            ids: HashSet::new(),
            dropped: 0,
            counted: 0,
            segment: PathBuf::new(),
            inode: 0,
            at: 0,
        };
        model.open();
        model
    }

    fn config(&self) -> config::Log {
        config::Log { budget: 4 * SEGMENT, ..self.scratch.log() }
    }

    fn open(&mut self) {
        let (writer, recovered) = Writer::open(&self.config()).expect("opens");
        let here = last(&self.scratch.0);
        self.forget_deleted();
        if inode(&here) == self.inode {
            let mut in_last = self.kept.iter().filter(|kept| kept.segment == here);
            let records = in_last.clone().filter(|kept| !kept.body.is_empty());
            assert_eq!(recovered.records, records.count() as u64);
            self.at = in_last.next_back().map_or(record::HEADER, |kept| kept.end).next_multiple_of(8);
        }
        assert_eq!(recovered.bad_records, 0);
        let next = writer.next_id();
        self.writer = Some(writer);
        self.settle(here);
        self.keep(RecordId { seq: next.seq - 1, ..next }, Vec::new());
    }

    fn keep(&mut self, id: RecordId, body: Vec<u8>) {
        assert!(self.ids.insert(id), "{id} was given out twice");
        let end = self.at + record::HEAD + body.len();
        self.at = end.next_multiple_of(8);
        self.kept.push(ExpectedRecord { id, body, segment: self.segment.clone(), end });
    }

    fn close(&mut self) {
        let writer = self.writer.take().expect("one is open");
        let counters = writer.counters();
        self.counted += counters.dropped_by_budget;
        drop(writer);
    }

    /// The current segment is this one.
    fn settle(&mut self, segment: PathBuf) {
        if inode(&segment) != self.inode {
            self.inode = inode(&segment);
            (self.segment, self.at) = (segment, record::HEADER);
        }
    }

    fn forget_deleted(&mut self) {
        let there = segments(&self.scratch.0);
        let gone = |kept: &&ExpectedRecord| !there.contains(&kept.segment) && !kept.body.is_empty();
        self.dropped += self.kept.iter().filter(gone).count() as u64;
        self.kept.retain(|kept| there.contains(&kept.segment));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Append(len) => {
                let body = self.random.bytes(len);
                let writer = self.writer.as_mut().expect("one is open");
                let next = writer.next_id();
                let id = put(writer, &body);
                assert_eq!(id, next);
                self.settle(last(&self.scratch.0));
                self.keep(id, body);
            }
            Action::GiveUp(len) => {
                let body = self.random.bytes(len);
                let writer = self.writer.as_mut().expect("one is open");
                let given_up = writer.append(|_, to| fill(to, &body).and(None));
                assert!(matches!(given_up, Ok(None) | Err(Error::Stalled { .. })), "{given_up:?}");
                self.settle(last(&self.scratch.0));
            }
            Action::Reopen => {
                self.close();
                self.open();
            }
            Action::LoseTail | Action::CutTail | Action::TearTail => {
                self.close();
                self.damage(action);
                self.open();
            }
            Action::Read => self.check(),
        }
    }

    fn damage(&mut self, action: Action) {
        self.forget_deleted();
        let file = fs::OpenOptions::new().write(true).open(&self.segment).expect("the last segment");
        let from = self.random.below(self.at + 1);
        match action {
            Action::CutTail => file.set_len(from as u64).expect("cut"),
            _ => {
                let mut tail = vec![0; usize::try_from(SEGMENT).expect("small") - from];
                if matches!(action, Action::TearTail) {
                    let noisy = self.random.below(tail.len() + 1);
                    tail[..noisy].copy_from_slice(&self.random.bytes(noisy));
                }
                file.write_all_at(&tail, from as u64).expect("written");
            }
        }
        let segment = self.segment.clone();
        let lost = |kept: &ExpectedRecord| kept.segment == segment && kept.end > from;
        self.kept.retain(|kept| !lost(kept));
        // No power failure takes a run's first record: with that lost too, its ids may come again.
        let run = self.kept.last().map_or(0, |kept| kept.id.seq >> 32);
        self.ids.retain(|id| id.seq >> 32 <= run && !self.kept.is_empty());
        self.at = self.at.min(from);
    }

    fn check(&mut self) {
        let counters = self.writer.as_ref().expect("one is open").counters();
        self.forget_deleted();
        let found = read(&self.scratch.0);
        // The helper thread may be deleting the oldest segment right now.
        self.forget_deleted();
        let kept: Vec<_> = self.kept.iter().filter(|kept| !kept.body.is_empty()).collect();
        let skip = found.len().checked_sub(kept.len()).expect("all that is kept is found");
        for (found, kept) in found[skip..].iter().zip(kept) {
            assert_eq!((found.0, &found.1), (kept.id, &kept.body));
        }
        assert!(self.counted + counters.dropped_by_budget <= self.dropped);
        assert!(used(&self.scratch.0) <= 4 * SEGMENT + 16, "{}", used(&self.scratch.0));
    }
}

/// A segment that held nothing may be followed by another of the same name.
fn inode(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |data| data.ino())
}

#[test]
fn damage_to_the_end_of_the_log_never_loses_a_whole_record() {
    for seed in 0..50 {
        let story = std::panic::catch_unwind(|| {
            let mut model = LogModel::begin(seed);
            for _ in 0..150 {
                let action = Action::any(&mut model.random);
                model.act(action);
            }
            model.close();
            model.open();
            model.check();
            assert_eq!(
                model.counted + model.writer.as_ref().map_or(0, |writer| writer.counters().dropped_by_budget),
                model.dropped
            );
        });
        assert!(story.is_ok(), "seed {seed}");
    }
}
