//! Files that code runs from, held open. Numbers of devices and inodes in /proc/PID/maps are no
//! identity: subvolumes of btrfs share them all, and a filesystem gives a deleted file's to the next
//! one. A file that is open keeps its own, so what the opened file says tells it from all others.

use std::fs::{self, File, Metadata, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::elf::{self, Elf};
use super::maps::Line;
use super::{BuildId, label, symtab};

/// Files kept open in all.
const FILES_MAX: usize = 256;

/// Bytes of code compared between two files with one build id.
const CODE: usize = 64;

/// What an executable mapping holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// Bytes of a module, from an offset on.
    File { module: usize, offset: u64 },
    /// The kernel's own: `[vdso]`.
    Special(&'static str),
    /// What a compiler may have written there, which only its perf map names: memory without a file,
    /// whatever its name is, or with one that is no program (memfd, SysV memory, /dev/zero, huge pages).
    Compiled,
    /// A file that could not be opened; or one thing at one look and another at the next: nobody knows at
    /// which sample what.
    Unsure,
}

/// A file that code runs from.
pub(super) struct Module {
    pub(super) file: File,
    /// Its file name, for code that has no symbol.
    pub(super) name: Box<str>,
    pub(super) id: Option<BuildId>,
    identity: Identity,
}

/// Which file, and what was in it when it was opened.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    len: u64,
    written: (i64, i64),
}

impl Identity {
    fn of(meta: &Metadata) -> Identity {
        let written = (meta.mtime(), meta.mtime_nsec());
        Identity { device: meta.dev(), inode: meta.ino(), len: meta.len(), written }
    }
}

impl Module {
    /// `None` if it is no ELF file.
    pub(super) fn open(file: File, line: &Line<'_>) -> Option<Module> {
        let identity = Identity::of(&file.metadata().ok()?);
        let id = Elf::open(&file)?.build_id();
        Some(Module { id, file, name: label::plain(line.basename()), identity })
    }

    /// Whether it still holds what it did: a file that was written over names other code.
    fn is_unchanged(&self) -> bool {
        self.file.metadata().is_ok_and(|now| Identity::of(&now) == self.identity)
    }

    /// Whether both files hold the same bytes at an offset and after it, as far as they go.
    fn has_code_of(&self, other: &Module, offset: u64) -> bool {
        let read = |file: &File| {
            let mut code = [0; CODE];
            file.read_at(&mut code, offset).ok().map(|len| (len, code))
        };
        read(&self.file).is_some_and(|code| read(&other.file) == Some(code))
    }

    /// What its symbols say of sorted offsets.
    pub(super) fn names(&self, offsets: &[u64]) -> Vec<Found> {
        let elf = Elf::open(&self.file);
        let segments = elf.as_ref().and_then(Elf::segments).unwrap_or_default();
        let places: Vec<Option<u64>> =
            offsets.iter().map(|offset| elf::address_of(&segments, *offset)).collect();
        let mut addresses: Vec<u64> = places.iter().flatten().copied().collect();
        addresses.sort_unstable();
        let names = elf.map(|elf| symtab::names(&elf, &addresses)).unwrap_or_default();
        // Last: it may have been written over while it was read.
        if !self.is_unchanged() {
            return offsets.iter().map(|_| Found::Nothing).collect();
        }
        let found = |address: u64| {
            let index = addresses.binary_search(&address).ok();
            match index.and_then(|index| names.get(index)).cloned().flatten() {
                Some(name) => Found::Symbol(name),
                None => Found::Address(address),
            }
        };
        places.into_iter().map(|place| place.map_or(Found::Nothing, found)).collect()
    }
}

/// Fills in what a twin has symbols for, where both hold the same code at the same place.
fn complete(found: &mut [Found], module: &Module, twin: &Module, offsets: &[u64]) {
    for ((have, other), offset) in found.iter_mut().zip(twin.names(offsets)).zip(offsets) {
        if !matches!(have, Found::Symbol(_))
            && matches!(other, Found::Symbol(_))
            && module.has_code_of(twin, *offset)
        {
            *have = other;
        }
    }
}

/// What a file says of an offset in it.
pub(super) enum Found {
    /// A symbol.
    Symbol(Box<str>),
    /// Its virtual address alone.
    Address(u64),
    Nothing,
}

impl Found {
    fn label(self, file: &str) -> Box<str> {
        match self {
            Found::Symbol(name) => name,
            Found::Address(address) => format!("{file}+{address:#x}").into(),
            Found::Nothing => file.into(),
        }
    }
}

/// What a file that is mapped is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mapped {
    /// An open module.
    Module(usize),
    /// It is no program: a compiler may have written code into it.
    NoModule,
    /// It was not opened, so nobody knows what is in it.
    Unopened,
}

/// All files that were opened.
#[derive(Default)]
pub(super) struct Modules {
    all: Vec<Module>,
}

impl Modules {
    /// Whether a file with this build id is open.
    pub(super) fn has_id(&self, id: BuildId) -> bool {
        self.with_id(id).next().is_some()
    }

    fn with_id(&self, id: BuildId) -> impl Iterator<Item = &Module> {
        self.all.iter().filter(move |module| module.id == Some(id))
    }

    /// What a file that is mapped has for a build id.
    pub(super) fn build_id(&self, holds: Holds) -> Option<(BuildId, usize)> {
        let Holds::File { module, .. } = holds else { return None };
        Some((self.all.get(module)?.id?, module))
    }

    /// The names of sorted offsets of a file; without a symbol, the file and the virtual address in it. What
    /// the file has no symbol for another one with its build id may: one of them was stripped. Such files are
    /// read while it is `in_time`.
    pub(super) fn names(
        &self,
        index: usize,
        offsets: &[u64],
        in_time: impl Fn() -> bool,
    ) -> Vec<Option<Box<str>>> {
        let Some(module) = self.all.get(index) else { return Vec::new() };
        let mut found = module.names(offsets);
        for twin in module.id.into_iter().flat_map(|id| self.with_id(id)) {
            if !in_time() || found.iter().all(|found| matches!(found, Found::Symbol(_))) {
                break;
            }
            if !std::ptr::eq(twin, module) {
                complete(&mut found, module, twin, offsets);
            }
        }
        found.into_iter().map(|found| Some(found.label(&module.name))).collect()
    }

    /// The names of sorted offsets in any file with a build id: who ran it was not seen. A build id is what
    /// its file says it is, so where such files differ nothing is known. `None` if it was no longer `in_time`
    /// before all of them were compared.
    pub(super) fn names_by_id(
        &self,
        id: BuildId,
        offsets: &[u64],
        in_time: impl Fn() -> bool,
    ) -> Option<Vec<Option<Box<str>>>> {
        let Some(first) = self.with_id(id).next() else { return Some(Vec::new()) };
        let mut found = first.names(offsets);
        let mut agreed = vec![true; offsets.len()];
        for twin in self.with_id(id).skip(1) {
            if !in_time() {
                return None;
            }
            complete(&mut found, first, twin, offsets);
            for (agreed, offset) in agreed.iter_mut().zip(offsets) {
                *agreed &= first.has_code_of(twin, *offset);
            }
        }
        let named = |(found, agreed): (Found, bool)| agreed.then(|| found.label(&first.name));
        Some(found.into_iter().zip(agreed).map(named).collect())
    }

    /// The file of a process's mapping, which is opened if it was not, as long as there is `room`. The
    /// links in map_files lead to it even if it was deleted or lies in another mount namespace; without
    /// the right to follow those, its path may still do.
    pub(super) fn find(&mut self, dir: &Path, line: &Line<'_>, room: &mut usize) -> Mapped {
        let link = dir.join(format!("map_files/{:x}-{:x}", line.range.start, line.range.end));
        let looked = self.look(&link, line, room, |_| true).or_else(|| {
            let within: PathBuf = dir.join("root").join(line.path()?.strip_prefix("/").ok()?);
            self.look(&within, line, room, |meta| is_mapped(meta, line))
        });
        let looked = looked.or_else(|| {
            let exe = dir.join("exe");
            let same = fs::read_link(&exe).ok()?.as_os_str().as_bytes() == line.name;
            if same { self.look(&exe, line, room, |meta| meta.ino() == line.file.1) } else { None }
        });
        // Without the right to open it, what holds memory alone is told by its name.
        looked.unwrap_or(if line.is_memory() { Mapped::NoModule } else { Mapped::Unopened })
    }

    /// The file at a path if it `is_it`; a device's is memory, too.
    fn look(
        &mut self,
        path: &Path,
        line: &Line<'_>,
        room: &mut usize,
        is_it: impl Fn(&Metadata) -> bool,
    ) -> Option<Mapped> {
        let found = fs::metadata(path).ok().filter(&is_it)?;
        if !found.is_file() {
            return Some(Mapped::NoModule);
        }
        if let Some(known) = self.known(&found) {
            return Some(Mapped::Module(known));
        }
        if self.all.len() >= FILES_MAX || *room == 0 {
            return Some(Mapped::Unopened);
        }
        let file = open_regular(path, 0)?;
        // Another file may have come to this path since.
        let opened = file.metadata().ok().filter(is_it)?;
        if let Some(known) = self.known(&opened) {
            return Some(Mapped::Module(known));
        }
        let Some(module) = Module::open(file, line) else { return Some(Mapped::NoModule) };
        *room -= 1;
        let index = self.all.len();
        self.all.push(module);
        Some(Mapped::Module(index))
    }

    fn known(&self, meta: &Metadata) -> Option<usize> {
        let wanted = Identity::of(meta);
        self.all.iter().position(|module| module.identity == wanted)
    }
}

/// Whether what a path leads to is what was mapped from it. A filesystem without a device of its own
/// shows one number in maps and others in stat: subvolumes and layers have their own.
fn is_mapped(meta: &Metadata, line: &Line<'_>) -> bool {
    let (device, inode) = line.file;
    let (major, minor) = (libc::major(meta.dev()), libc::minor(meta.dev()));
    meta.ino() == inode && (major == 0 || format!("{major:02x}:{minor:02x}").as_bytes() == device)
}

/// Opens a regular file, and nothing whose opening has effects or waits.
pub(super) fn open_regular(path: &Path, flags: libc::c_int) -> Option<File> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let flags = flags | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_mapped_file_only_if_device_and_inode_agree() {
        let meta = fs::metadata("/proc/self/exe").expect("this program");
        let (major, minor) = (libc::major(meta.dev()), libc::minor(meta.dev()));
        let is = |major: u32, minor: u32, inode: u64| {
            let line = format!("1000-2000 r-xp 00000000 {major:02x}:{minor:02x} {inode} /x");
            is_mapped(&meta, &Line::parse(line.as_bytes()).expect("a mapping"))
        };
        assert!(is(major, minor, meta.ino()));
        assert!(!is(major, minor, meta.ino() + 1), "another file of it");
        // Without a device of its own a filesystem shows another number in maps than in stat.
        assert_eq!(is(major, minor + 1, meta.ino()), major == 0);
    }

    #[test]
    fn a_file_is_opened_once_and_only_while_descriptors_are_left() {
        let proc = PathBuf::from(format!("/proc/{}", std::process::id()));
        let maps = fs::read(proc.join("maps")).expect("procfs");
        let exe = fs::read_link("/proc/self/exe").expect("this program");
        let lines = maps.split(|byte| *byte == b'\n').filter_map(Line::parse);
        let lines: Vec<Line<'_>> = lines.filter(|line| line.path() == Some(&exe)).collect();
        let line = lines.first().expect("this program is mapped");
        let mut modules = Modules::default();
        assert_eq!(modules.find(&proc, line, &mut 0), Mapped::Unopened);
        let mut room = 2;
        assert_eq!(modules.find(&proc, line, &mut room), Mapped::Module(0));
        assert_eq!((modules.find(&proc, line, &mut room), room), (Mapped::Module(0), 1));
    }
}
