//! Files that code runs from, held open. The device and inode numbers in /proc/PID/maps do not identify a file:
//! subvolumes of btrfs share them, and a filesystem reuses those of a deleted file. An open file keeps its numbers, so
//! fstat(2) of the opened file tells it from all others.

use std::fs::{self, File, Metadata, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::elf::{self, Elf};
use super::maps::Mapping;
use super::{BuildId, label, symtab};

/// Files kept open in all.
const FILES_MAX: usize = 256;

/// Bytes of code compared between two files with one build id.
const CODE_COMPARED: usize = 64;

/// The content of an executable mapping.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MappingContent {
    /// Bytes of a module, from an offset on.
    File { module: usize, offset: u64 },
    /// The kernel's own: `[vdso]`.
    KernelCode(&'static str),
    /// Memory that a just-in-time compiler may have written, which only its perf map names: anonymous memory, named or
    /// not, or a file that is no program (memfd, SysV memory, /dev/zero, huge pages).
    Jit,
    /// A file that could not be opened, or a mapping that changed between two reads: its content at a sample is not
    /// known.
    Unknown,
}

/// A file that code runs from.
pub(super) struct Module {
    pub(super) file: File,
    /// Its file name, for code that has no symbol.
    pub(super) name: Box<str>,
    pub(super) id: Option<BuildId>,
    identity: FileIdentity,
}

/// Identifies a file and its content when it was opened.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
    len: u64,
    written: (i64, i64),
}

impl FileIdentity {
    fn of(meta: &Metadata) -> FileIdentity {
        let written = (meta.mtime(), meta.mtime_nsec());
        FileIdentity { device: meta.dev(), inode: meta.ino(), len: meta.len(), written }
    }
}

impl Module {
    /// `None` if it is no ELF file.
    pub(super) fn open(file: File, line: &Mapping<'_>) -> Option<Module> {
        let identity = FileIdentity::of(&file.metadata().ok()?);
        let id = Elf::open(&file)?.build_id();
        Some(Module { id, file, name: label::plain(line.basename()), identity })
    }

    /// Whether its content is unchanged: an overwritten file would name other code.
    fn is_unchanged(&self) -> bool {
        self.file.metadata().is_ok_and(|now| FileIdentity::of(&now) == self.identity)
    }

    /// Whether both files hold the same bytes at an offset and after it, as far as they go.
    fn has_code_of(&self, other: &Module, offset: u64) -> bool {
        let read = |file: &File| {
            let mut code = [0; CODE_COMPARED];
            file.read_at(&mut code, offset).ok().map(|len| (len, code))
        };
        read(&self.file).is_some_and(|code| read(&other.file) == Some(code))
    }

    /// Looks up sorted `offsets` in its symbols.
    pub(super) fn names(&self, offsets: &[u64]) -> Vec<SymbolMatch> {
        let elf = Elf::open(&self.file);
        let segments = elf.as_ref().and_then(Elf::segments).unwrap_or_default();
        let places: Vec<Option<u64>> =
            offsets.iter().map(|offset| elf::address_of(&segments, *offset)).collect();
        let mut addresses: Vec<u64> = places.iter().flatten().copied().collect();
        addresses.sort_unstable();
        let names = elf.map(|elf| symtab::names(&elf, &addresses)).unwrap_or_default();
        // Last: it may have been written over while it was read.
        if !self.is_unchanged() {
            return offsets.iter().map(|_| SymbolMatch::Nothing).collect();
        }
        let found = |address: u64| {
            let index = addresses.binary_search(&address).ok();
            match index.and_then(|index| names.get(index)).cloned().flatten() {
                Some(name) => SymbolMatch::Symbol(name),
                None => SymbolMatch::Address(address),
            }
        };
        places.into_iter().map(|place| place.map_or(SymbolMatch::Nothing, found)).collect()
    }
}

/// Fills in the symbols that `twin` has and `module` lacks, where both have the same code at the offset.
fn fill_from_twin(found: &mut [SymbolMatch], module: &Module, twin: &Module, offsets: &[u64]) {
    for ((have, other), offset) in found.iter_mut().zip(twin.names(offsets)).zip(offsets) {
        if !matches!(have, SymbolMatch::Symbol(_))
            && matches!(other, SymbolMatch::Symbol(_))
            && module.has_code_of(twin, *offset)
        {
            *have = other;
        }
    }
}

/// What a file's symbols give for an offset in it.
pub(super) enum SymbolMatch {
    /// A symbol.
    Symbol(Box<str>),
    /// Its virtual address alone.
    Address(u64),
    Nothing,
}

impl SymbolMatch {
    fn label(self, file: &str) -> Box<str> {
        match self {
            SymbolMatch::Symbol(name) => name,
            SymbolMatch::Address(address) => format!("{file}+{address:#x}").into(),
            SymbolMatch::Nothing => file.into(),
        }
    }
}

/// The file of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MappedFile {
    /// An open module.
    Module(usize),
    /// It is no ELF file: a compiler may have written code into it.
    NotElf,
    /// It could not be opened, so its content is not known.
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

    /// The build id of a mapping's file.
    pub(super) fn build_id(&self, holds: MappingContent) -> Option<(BuildId, usize)> {
        let MappingContent::File { module, .. } = holds else { return None };
        Some((self.all.get(module)?.id?, module))
    }

    /// The names of sorted offsets in a file; without a symbol, the file's name and the virtual address. Where the file has
    /// no symbol, another file with its build id may have one, because one of them was stripped. Such files are read
    /// while `in_time`.
    pub(super) fn names(
        &self,
        index: usize,
        offsets: &[u64],
        in_time: impl Fn() -> bool,
    ) -> Vec<Option<Box<str>>> {
        let Some(module) = self.all.get(index) else { return Vec::new() };
        let mut found = module.names(offsets);
        for twin in module.id.into_iter().flat_map(|id| self.with_id(id)) {
            if !in_time() || found.iter().all(|found| matches!(found, SymbolMatch::Symbol(_))) {
                break;
            }
            if !std::ptr::eq(twin, module) {
                fill_from_twin(&mut found, module, twin, offsets);
            }
        }
        found.into_iter().map(|found| Some(found.label(&module.name))).collect()
    }

    /// The names of sorted offsets in any file with the build id `id`, for a program whose own file is not known. A build
    /// id can be forged, so where the code of such files differs no name is given. `None`: not all of them were compared
    /// `in_time`.
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
            fill_from_twin(&mut found, first, twin, offsets);
            for (agreed, offset) in agreed.iter_mut().zip(offsets) {
                *agreed &= first.has_code_of(twin, *offset);
            }
        }
        let named = |(found, agreed): (SymbolMatch, bool)| agreed.then(|| found.label(&first.name));
        Some(found.into_iter().zip(agreed).map(named).collect())
    }

    /// Finds the file of a mapping, and opens it as long as there is `room`. The links in map_files lead to it even if it
    /// was deleted or lies in another mount namespace; without the right to follow them, its path may still lead there.
    pub(super) fn find(&mut self, dir: &Path, line: &Mapping<'_>, room: &mut usize) -> MappedFile {
        let link = dir.join(format!("map_files/{:x}-{:x}", line.range.start, line.range.end));
        let looked = self.open_at(&link, line, room, |_| true).or_else(|| {
            let within: PathBuf = dir.join("root").join(line.path()?.strip_prefix("/").ok()?);
            self.open_at(&within, line, room, |meta| is_mapped(meta, line))
        });
        let looked = looked.or_else(|| {
            let exe = dir.join("exe");
            let same = fs::read_link(&exe).ok()?.as_os_str().as_bytes() == line.name;
            if same { self.open_at(&exe, line, room, |meta| meta.ino() == line.file.1) } else { None }
        });
        // Without the right to open it, a file of memory is recognised by its name.
        looked.unwrap_or(if line.is_memory() { MappedFile::NotElf } else { MappedFile::Unopened })
    }

    /// Opens the file at `path` if it `is_it`. A device is memory, too.
    fn open_at(
        &mut self,
        path: &Path,
        line: &Mapping<'_>,
        room: &mut usize,
        is_it: impl Fn(&Metadata) -> bool,
    ) -> Option<MappedFile> {
        let found = fs::metadata(path).ok().filter(&is_it)?;
        if !found.is_file() {
            return Some(MappedFile::NotElf);
        }
        if let Some(known) = self.known(&found) {
            return Some(MappedFile::Module(known));
        }
        if self.all.len() >= FILES_MAX || *room == 0 {
            return Some(MappedFile::Unopened);
        }
        let file = open_regular(path, 0)?;
        // Another file may have come to this path since.
        let opened = file.metadata().ok().filter(is_it)?;
        if let Some(known) = self.known(&opened) {
            return Some(MappedFile::Module(known));
        }
        let Some(module) = Module::open(file, line) else { return Some(MappedFile::NotElf) };
        *room -= 1;
        let index = self.all.len();
        self.all.push(module);
        Some(MappedFile::Module(index))
    }

    fn known(&self, meta: &Metadata) -> Option<usize> {
        let wanted = FileIdentity::of(meta);
        self.all.iter().position(|module| module.identity == wanted)
    }
}

/// Whether what a path leads to is what was mapped from it. A filesystem without a device of its own
/// shows one number in maps and others in stat: subvolumes and layers have their own.
fn is_mapped(meta: &Metadata, line: &Mapping<'_>) -> bool {
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
            is_mapped(&meta, &Mapping::parse(line.as_bytes()).expect("a mapping"))
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
        let lines = maps.split(|byte| *byte == b'\n').filter_map(Mapping::parse);
        let lines: Vec<Mapping<'_>> = lines.filter(|line| line.path() == Some(&exe)).collect();
        let line = lines.first().expect("this program is mapped");
        let mut modules = Modules::default();
        assert_eq!(modules.find(&proc, line, &mut 0), MappedFile::Unopened);
        let mut room = 2;
        assert_eq!(modules.find(&proc, line, &mut room), MappedFile::Module(0));
        assert_eq!((modules.find(&proc, line, &mut room), room), (MappedFile::Module(0), 1));
    }
}
