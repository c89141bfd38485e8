//! Power failures. A disk is played between the real writer and the filesystem: what a finished
//! sync began with is there afterwards; of the rest, each sector and each name is as it was at
//! any time since. The log is opened on what is left, again and again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::*;
use disk::{DISKS, Disk, Image};

pub(in crate::log) use disk::{rewritten, watch};

mod disk;

/// Life on one disk, through power failures.
struct Machine {
    random: Random,
    log: fn(&Scratch) -> config::Log,
    failing: usize,
    bodies: HashMap<RecordId, Vec<u8>>,
    shipped: HashSet<RecordId>,
    /// What must be there.
    safe: Vec<RecordId>,
    shown: u64,
    lost: u64,
}

impl Machine {
    /// From one start to the power failure. Returns what is left.
    fn live(&mut self, image: &Image) -> Image {
        let scratch = Scratch::new();
        fs::create_dir(&scratch.0).expect("made");
        for (name, bytes) in image {
            fs::write(scratch.0.join(name), bytes).expect("written");
        }
        let found = self.look(&scratch.0);
        let firsts: Vec<_> =
            log_dir::list(&scratch.0).expect("a folder").iter().map(|listed| listed.first).collect();
        let events = 1 + u32::try_from(self.random.below(120)).expect("small");
        let disk = Disk::insert(&scratch.0, self.random.next(), events, self.failing);
        let opened = self.open(&(self.log)(&scratch));
        let after: HashMap<_, _> = read(&scratch.0).into_iter().collect();
        // The budget may have cost some of the oldest.
        let stay: Vec<_> = found.iter().skip_while(|record| !after.contains_key(&record.0)).collect();
        assert!(
            stay.iter().all(|record| after.get(&record.0) == Some(&record.1)),
            "opening keeps what is there"
        );
        disk.event(|truth| truth.appended.clear());
        if let Some(mut writer) = opened {
            self.work(&mut writer, &scratch.0, &disk);
        }
        let mut platter = disk.platter();
        platter.left = 1;
        platter.event(&scratch.0);
        let (image, truth) = platter.failed.take().expect("it has failed");
        drop(platter);
        DISKS.lock().expect("no test fails here").retain(|other| !Arc::ptr_eq(other, &disk));
        let old = found.iter().map(|(id, _)| (*id, firsts.iter().copied().rfind(|first| *first <= id.seq)));
        let new = truth.appended.iter().take(truth.synced).map(|(id, segment)| (*id, Some(*segment)));
        let kept = |segment: Option<u64>| segment.is_some_and(|first| truth.segments.contains(&first));
        self.safe = old.chain(new).filter(|(_, segment)| kept(*segment)).map(|(id, _)| id).collect();
        image
    }

    /// With a disk that fails, the start may be refused; then it is tried once more.
    fn open(&self, log: &config::Log) -> Option<Writer> {
        match Writer::open(log) {
            Ok((writer, _)) => Some(writer),
            Err(error) if self.failing > 0 => {
                assert!(error.to_string().starts_with("cannot sync"), "{error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn work(&mut self, writer: &mut Writer, dir: &Path, disk: &Disk) {
        let mut shipper = None;
        while disk.platter().failed.is_none() {
            match self.random.below(40) {
                0 => drop(writer.flush()),
                1 => drop(writer.append(|_, to| fill(to, &[9; 700]).and(None))),
                2..7 => self.ship(&mut shipper, dir, disk),
                7 => {
                    std::thread::yield_now();
                    disk.event(|_| ());
                }
                _ => self.append(writer, dir, disk),
            }
            let counters = writer.counters();
            let synced = usize::try_from(counters.records - counters.unsynced_records).expect("small");
            disk.event(|truth| truth.synced = synced);
        }
    }

    fn append(&mut self, writer: &mut Writer, dir: &Path, disk: &Disk) {
        let most = [60, 4096][self.random.below(2)];
        let len = self.random.below(most) + 1;
        let body = self.random.bytes(len);
        let next = writer.next_id();
        // It may be seen before it is told of.
        if disk.platter().failed.is_none() {
            assert_eq!(self.bodies.insert(next, body.clone()), None, "{next} was given out twice");
        }
        match writer.append(|_, to| fill(to, &body)) {
            Ok(Some(id)) => {
                let segment = log_dir::list(dir).expect("a folder").pop().expect("a segment").first;
                disk.event(|truth| truth.appended.push((id, segment)));
            }
            Err(Error::Stalled { .. }) => drop(self.bodies.remove(&next)),
            other => panic!("{other:?}"),
        }
    }

    fn ship(&mut self, shipper: &mut Option<(Cursor, Reader)>, dir: &Path, disk: &Disk) {
        let (cursor, reader) = shipper.get_or_insert_with(|| {
            let (cursor, id) = Cursor::named(OUTPUT, dir).expect("opens");
            (cursor, id.map_or_else(|| Reader::open(dir), |id| Reader::after(dir, id)).expect("a log"))
        });
        if let Some(entry) = reader.next().expect("readable") {
            self.shipped.insert(entry.id);
            cursor.set(entry.id).expect("set");
            disk.event(|truth| truth.shipped.push(entry.id));
        }
    }

    /// What is there: nothing that never was, in order, and all that is safe.
    fn look(&mut self, dir: &Path) -> Vec<(RecordId, Vec<u8>)> {
        verify(dir).expect("readable");
        let found = read(dir);
        assert!(found.is_sorted_by(|one, two| one.0.seq < two.0.seq), "in order");
        for (id, body) in &found {
            assert_eq!(self.bodies.get(id), Some(body), "{id} is shown but never was");
        }
        let there: HashSet<_> = found.iter().map(|record| record.0).collect();
        for id in &self.safe {
            assert!(there.contains(id), "{id} was synced and is lost");
        }
        let (_, shipped) = Cursor::named(OUTPUT, dir).expect("opens");
        assert!(shipped.is_none_or(|id| self.shipped.contains(&id)), "{shipped:?} was never set");
        self.shown += found.len() as u64;
        self.lost += (self.bodies.len() - there.len()) as u64;
        found
    }
}

fn lives(seeds: std::ops::Range<u64>, failing: usize, log: fn(&Scratch) -> config::Log) {
    let (mut shown, mut lost) = (0, 0);
    for seed in seeds {
        let story = std::panic::catch_unwind(|| {
            let mut machine = Machine {
                random: Random(seed),
                log,
                failing,
                bodies: HashMap::new(),
                shipped: HashSet::new(),
                safe: Vec::new(),
                shown: 0,
                lost: 0,
            };
            let mut image = Image::new();
            for _ in 0..12 {
                image = machine.live(&image);
            }
            (machine.shown, machine.lost)
        });
        DISKS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).retain(|disk| disk.dir.exists());
        let counts = story.unwrap_or_else(|_| panic!("seed {seed}"));
        (shown, lost) = (shown + counts.0, lost + counts.1);
    }
    assert!(shown > 1000 && lost > 0, "{shown} shown, {lost} lost: the disk is neither dead nor perfect");
}

#[test]
fn after_a_power_failure_every_record_that_was_synced_is_there() {
    lives(0..15, 0, |scratch| config::Log { sync: Duration::from_millis(1), ..scratch.log() });
}

#[test]
fn with_a_sync_per_record_a_power_failure_loses_no_appended_record() {
    lives(100..110, 0, |scratch| config::Log { sync: Duration::ZERO, ..scratch.log() });
}

#[test]
fn without_syncs_no_id_repeats_after_a_power_failure() {
    lives(200..210, 0, Scratch::log);
}

#[test]
fn a_record_whose_sync_failed_is_never_reported_as_synced() {
    lives(300..308, 4, |scratch| config::Log { sync: Duration::from_millis(1), ..scratch.log() });
    lives(400..415, 4, |scratch| config::Log { sync: Duration::ZERO, ..scratch.log() });
    lives(500..508, 3, Scratch::log);
}

#[test]
fn a_full_segment_whose_sync_failed_is_synced_again() {
    let scratch = Scratch::new();
    fs::create_dir(&scratch.0).expect("made");
    let disk = Disk::insert(&scratch.0, 0, u32::MAX, 0);
    let (mut writer, _) = Writer::open(&scratch.log()).expect("opens");
    writer.flush().expect("synced");
    let mut ids = Vec::new();
    while segments(&scratch.0).len() < 3 {
        ids.push(put(&mut writer, &[1; 4000]));
    }
    disk.platter().failing = 1;
    writer.flush().expect_err("every sync fails");
    assert!(writer.counters().unsynced_records > 0 && writer.counters().sync_failures > 0);
    disk.platter().failing = 0;
    writer.flush().expect("synced");
    assert_eq!(writer.counters().unsynced_records, 0);
    let left = Scratch::new();
    fs::create_dir(&left.0).expect("made");
    let platter = disk.platter();
    for (name, ino) in &platter.durable {
        let durable = platter.files[ino].durable.clone().unwrap_or_default();
        fs::write(left.0.join(name), durable).expect("written");
    }
    drop(platter);
    DISKS.lock().expect("no test fails here").retain(|other| !Arc::ptr_eq(other, &disk));
    assert_eq!(read(&left.0).iter().map(|record| record.0).collect::<Vec<_>>(), ids);
}
