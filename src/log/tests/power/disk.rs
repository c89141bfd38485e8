//! The disk that is played, and the moment when its power fails.

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
pub(super) static DISKS: Mutex<Vec<Arc<Disk>>> = Mutex::new(Vec::new());

/// Files by name, each by its inode.
type Names = BTreeMap<String, u64>;
/// Files by name, with all their bytes.
pub(super) type Image = BTreeMap<String, Vec<u8>>;

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
enum SyncStart {
    Names(Names),
    Bytes(u64, Vec<u8>),
}

/// A file as the disk has it.
pub(super) struct DiskFile {
    file: File,
    /// What is certain; nothing was ever synced: none.
    pub(super) durable: Option<Vec<u8>>,
    /// What may have been written since without being asked for.
    written: Vec<Vec<u8>>,
    /// What a sync failed for: the kernel takes it for clean, and no later sync writes it.
    forsaken: BTreeMap<usize, Vec<u8>>,
}

pub(super) struct Platter {
    pub(super) files: HashMap<u64, DiskFile>,
    pub(super) durable: Names,
    later: Vec<Names>,
    random: Random,
    /// So many more events, and the power fails.
    pub(super) left: u32,
    /// One sync in so many fails; 0: none.
    pub(super) failing: usize,
    pub(super) truth: Truth,
    pub(super) failed: Option<(Image, Truth)>,
}

/// What the writer has said so far.
#[derive(Clone, Default)]
pub(super) struct Truth {
    /// Appended, in order; with the segment that each is in.
    pub(super) appended: Vec<(RecordId, u64)>,
    pub(super) synced: usize,
    pub(super) shipped: Vec<RecordId>,
    pub(super) segments: HashSet<u64>,
}

pub(super) struct Disk {
    pub(super) dir: PathBuf,
    platter: Mutex<Platter>,
}

impl Disk {
    /// A disk with what is in this folder on it.
    pub(super) fn insert(dir: &Path, seed: u64, left: u32, failing: usize) -> Arc<Disk> {
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

    pub(super) fn platter(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Something has happened. The power may fail here.
    pub(super) fn event(&self, tell: impl FnOnce(&mut Truth)) {
        let mut platter = self.platter();
        tell(&mut platter.truth);
        platter.event(&self.dir);
    }

    fn begin(&self, file: &File) -> SyncStart {
        let mut platter = self.platter();
        platter.event(&self.dir);
        let data = file.metadata().expect("open");
        if data.is_dir() {
            SyncStart::Names(platter.look(&self.dir))
        } else {
            SyncStart::Bytes(data.ino(), bytes(file))
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

    fn end(&self, begun: SyncStart, done: bool) {
        let mut platter = self.platter();
        match begun {
            SyncStart::Names(names) if done => {
                platter.durable = names;
                platter.later.clear();
            }
            SyncStart::Bytes(ino, bytes) if done => {
                if let Some(kept) = platter.files.get_mut(&ino) {
                    kept.synced(bytes);
                }
            }
            _ => {}
        }
        platter.event(&self.dir);
    }
}

impl DiskFile {
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
            let kept = || DiskFile { file, durable: None, written: Vec::new(), forsaken: BTreeMap::new() };
            self.files.entry(ino).or_insert_with(kept);
            names.insert(entry.file_name().into_string().expect("ours"), ino);
        }
        names
    }

    pub(super) fn event(&mut self, dir: &Path) {
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
