//! Power failures. A disk is played between the real writer and the filesystem: what a finished
//! sync began with is there afterwards; of the rest, each sector and each name is as it was at
//! any time since. The log is opened on what is left, again and again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::{Arc, Mutex, MutexGuard};

use super::*;

const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// All disks that are played in this process.
static DISKS: Mutex<Vec<Arc<Disk>>> = Mutex::new(Vec::new());

/// Files by name, each by its inode.
type Names = BTreeMap<String, u64>;
/// Files by name, with all their bytes.
type Image = BTreeMap<String, Vec<u8>>;

/// Every sync of the log goes through here.
pub(in crate::log) fn watch(file: &File, sync: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("an open file has a path");
    let disks = DISKS.lock().expect("no test fails here");
    let found = disks.iter().find(|disk| path.starts_with(&disk.dir)).cloned();
    drop(disks);
    let Some(disk) = found else { return sync(file) };
    let begun = disk.begin(file);
    let outcome = if disk.fails(file) { Err(io::Error::from_raw_os_error(libc::EIO)) } else { sync(file) };
    disk.end(begun, outcome.is_ok());
    outcome
}

/// The log has written these bytes again.
pub(in crate::log) fn rewritten(file: &File, end: u64) {
    let ino = file.metadata().expect("open").ino();
    for disk in DISKS.lock().expect("no test fails here").iter() {
        if let Some(kept) = disk.platter().files.get_mut(&ino) {
            let end = usize::try_from(end).expect("small");
            kept.forsaken.retain(|at, _| *at >= end);
        }
    }
}

/// What a sync is to make last.
enum Begun {
    Names(Names),
    Bytes(u64, Vec<u8>),
}

/// A file as the disk has it.
struct Kept {
    file: File,
    /// What is certain; nothing was ever synced: none.
    durable: Option<Vec<u8>>,
    /// What may have been written since without being asked for.
    written: Vec<Vec<u8>>,
    /// What a sync failed for: the kernel takes it for clean, and no later sync writes it.
    forsaken: BTreeMap<usize, Vec<u8>>,
}

struct Platter {
    files: HashMap<u64, Kept>,
    durable: Names,
    later: Vec<Names>,
    random: Random,
    /// So many more events, and the power fails.
    left: u32,
    /// One sync in so many fails; 0: none.
    failing: usize,
    truth: Truth,
    failed: Option<(Image, Truth)>,
}

/// What the writer has said so far.
#[derive(Clone, Default)]
struct Truth {
    /// Appended, in order; with the segment that each is in.
    appended: Vec<(RecordId, u64)>,
    synced: usize,
    shipped: Vec<RecordId>,
    segments: HashSet<u64>,
}

struct Disk {
    dir: PathBuf,
    platter: Mutex<Platter>,
}

impl Disk {
    /// A disk with what is in this folder on it.
    fn insert(dir: &Path, seed: u64, left: u32, failing: usize) -> Arc<Disk> {
        let platter = Platter {
            files: HashMap::new(),
            durable: Names::new(),
            later: Vec::new(),
            random: Random(seed),
            left,
            failing,
            truth: Truth::default(),
            failed: None,
        };
        let disk = Arc::new(Disk { dir: dir.to_owned(), platter: Mutex::new(platter) });
        let mut platter = disk.platter();
        platter.durable = platter.look(dir);
        for kept in platter.files.values_mut() {
            kept.durable = Some(bytes(&kept.file));
        }
        drop(platter);
        DISKS.lock().expect("no test fails here").push(disk.clone());
        disk
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Something has happened. The power may fail here.
    fn event(&self, tell: impl FnOnce(&mut Truth)) {
        let mut platter = self.platter();
        tell(&mut platter.truth);
        platter.event(&self.dir);
    }

    fn begin(&self, file: &File) -> Begun {
        let mut platter = self.platter();
        platter.event(&self.dir);
        let data = file.metadata().expect("open");
        if data.is_dir() {
            Begun::Names(platter.look(&self.dir))
        } else {
            Begun::Bytes(data.ino(), bytes(file))
        }
    }

    fn fails(&self, file: &File) -> bool {
        let mut platter = self.platter();
        let one_in = platter.failing;
        let fails = one_in > 0 && platter.random.below(one_in) == 0;
        let ino = file.metadata().expect("open").ino();
        if fails && let Some(kept) = platter.files.get_mut(&ino) {
            let bytes = bytes(&kept.file);
            kept.forsaken =
                bytes.chunks(PAGE).enumerate().map(|(at, page)| (at * PAGE, page.to_vec())).collect();
        }
        fails
    }

    fn end(&self, begun: Begun, done: bool) {
        let mut platter = self.platter();
        match begun {
            Begun::Names(names) if done => {
                platter.durable = names;
                platter.later.clear();
            }
            Begun::Bytes(ino, bytes) if done => {
                if let Some(kept) = platter.files.get_mut(&ino) {
                    kept.synced(bytes);
                }
            }
            _ => {}
        }
        platter.event(&self.dir);
    }
}

impl Kept {
    /// Pages that have not changed since a sync failed for them are not written.
    fn synced(&mut self, mut bytes: Vec<u8>) {
        let before = self.durable.take().unwrap_or_default();
        for (at, page) in bytes.chunks_mut(PAGE).enumerate() {
            let old = before.get(at * PAGE..).unwrap_or(&[]);
            if self.forsaken.get(&(at * PAGE)).is_some_and(|forsaken| forsaken == page) {
                let len = old.len().min(page.len());
                page[..len].copy_from_slice(&old[..len]);
                page[len..].fill(0);
            }
        }
        self.durable = Some(bytes);
        self.written.clear();
    }
}

impl Platter {
    /// The folder as programs see it now. The handles keep what is deleted.
    fn look(&mut self, dir: &Path) -> Names {
        let mut names = Names::new();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(file) = File::open(entry.path()) else { continue };
            let ino = file.metadata().expect("open").ino();
            let kept = || Kept { file, durable: None, written: Vec::new(), forsaken: BTreeMap::new() };
            self.files.entry(ino).or_insert_with(kept);
            names.insert(entry.file_name().into_string().expect("ours"), ino);
        }
        names
    }

    fn event(&mut self, dir: &Path) {
        let now = self.look(dir);
        if self.later.last().unwrap_or(&self.durable) != &now {
            self.later.push(now.clone());
        }
        if self.random.below(8) == 0
            && let Some(ino) = now.values().nth(self.random.below(now.len()))
            && let Some(kept) = self.files.get_mut(ino)
        {
            kept.written.push(bytes(&kept.file)); // the kernel writes as it likes
        }
        self.left = self.left.saturating_sub(1);
        if self.left == 0 && self.failed.is_none() {
            let segment = |name: &String| u64::from_str_radix(name.strip_suffix(".seg")?, 16).ok();
            let segments = now.keys().filter_map(segment).collect();
            let truth = Truth { segments, ..self.truth.clone() };
            self.failed = Some((self.fail(), truth));
        }
    }

    /// What is left when the power fails now.
    fn fail(&mut self) -> Image {
        let at = self.random.below(self.later.len() + 1);
        let names = at.checked_sub(1).map_or(&self.durable, |at| &self.later[at]).clone();
        let grain = [SECTOR, PAGE, 1 << 30][self.random.below(3)];
        let newer = [0, 1, 5, 9, 10][self.random.below(5)]; // so many of ten
        let mut image = Image::new();
        for (name, ino) in names {
            let kept = &self.files[&ino];
            let durable = kept.durable.clone().unwrap_or_default();
            let versions: Vec<_> = kept.written.iter().cloned().chain([bytes(&kept.file)]).collect();
            let grown = self.random.below(2) == 0;
            let len = if grown { versions.iter().map(Vec::len).max().unwrap_or(0) } else { durable.len() };
            let mut left = durable;
            left.resize(len, 0);
            for from in (0..len).step_by(grain) {
                if self.random.below(10) >= newer {
                    continue;
                }
                let version = &versions[self.random.below(versions.len())];
                let to = len.min(from + grain).min(version.len());
                if let Some(part) = version.get(from..to) {
                    left[from..to].copy_from_slice(part);
                }
            }
            image.insert(name, left);
        }
        image
    }
}

fn bytes(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().expect("open").len()).expect("small")];
    let got = file.read_at(&mut bytes, 0).expect("readable");
    bytes.truncate(got);
    bytes
}

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
            folder::list(&scratch.0).expect("a folder").iter().map(|listed| listed.first).collect();
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
                let segment = folder::list(dir).expect("a folder").pop().expect("a segment").first;
                disk.event(|truth| truth.appended.push((id, segment)));
            }
            Err(Error::Stalled { .. }) => drop(self.bodies.remove(&next)),
            other => panic!("{other:?}"),
        }
    }

    fn ship(&mut self, shipper: &mut Option<(Cursor, Reader)>, dir: &Path, disk: &Disk) {
        let (cursor, reader) = shipper.get_or_insert_with(|| {
            let (cursor, id) = Cursor::open(dir).expect("opens");
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
        let (_, shipped) = Cursor::open(dir).expect("opens");
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
fn with_a_sync_for_each_record_none_is_lost_that_append_returned() {
    lives(100..110, 0, |scratch| config::Log { sync: Duration::ZERO, ..scratch.log() });
}

#[test]
fn without_syncs_a_power_failure_leaves_what_it_leaves_and_no_id_comes_twice() {
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
