//! What must be taken from a process while it lives: its name, which file is mapped where, and
//! open descriptors of those files and of its perf map.

use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::elf::Elf;
use super::lines::each_line;
use super::maps::{Line, namespace_pid};
use super::{BuildId, label};

/// Files kept open in all, and those that one process may add.
const FILES_MAX: usize = 256;
const FILES_EACH: usize = 64;

/// Executable mappings kept of a process. Only files and the vdso count, so this is plenty.
const MAPPINGS_MAX: usize = 1024;

/// A map of the 65,530 mappings that a process may have, each with a long path.
const MAPS_MAX: u64 = 32 << 20;

/// Something unknown in a stack is a reason to look again, but not at every stack.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A file that code runs from.
pub(super) struct Module {
    pub(super) file: File,
    /// Its file name, for code that has no symbol.
    pub(super) name: Box<str>,
    pub(super) id: Option<BuildId>,
    device: Box<[u8]>,
    inode: u64,
}

impl Module {
    /// `None` if it is no ELF file.
    pub(super) fn open(file: File, line: &Line<'_>) -> Option<Module> {
        let id = Elf::open(&file)?.build_id();
        let (device, inode) = line.file;
        Some(Module { id, file, name: label::plain(line.basename()), device: device.into(), inode })
    }
}

/// What an executable mapping holds.
#[derive(Clone)]
pub(super) enum Holds {
    /// Bytes of `modules[module]`, from an offset on.
    File { module: usize, offset: u64 },
    /// The kernel's own: `[vdso]`.
    Special(Box<str>),
}

/// A process as it was last looked at.
pub(super) struct Process {
    pub(super) comm: Box<str>,
    pub(super) perf_map: Option<File>,
    mappings: Vec<(Range<u64>, Holds)>,
    looked: Instant,
}

impl Process {
    /// Looks at a process. `None` if it is gone.
    pub(super) fn look(proc: &Path, pid: u32, modules: &mut Vec<Module>) -> Option<Process> {
        let dir = proc.join(pid.to_string());
        let comm = fs::read(dir.join("comm")).ok()?;
        let mut mappings = Vec::new();
        let mut added = 0;
        if let Ok(maps) = File::open(dir.join("maps")) {
            // A process that exits meanwhile leaves what was read.
            let _ = each_line(maps, MAPS_MAX, |line| {
                let Some(line) = Line::parse(line) else { return };
                if mappings.len() < MAPPINGS_MAX
                    && let Some(holds) = holds(&dir, &line, modules, &mut added)
                {
                    mappings.push((line.range, holds));
                }
            });
        }
        Some(Process {
            comm: label::plain(comm.trim_ascii_end()),
            perf_map: perf_map(&dir),
            mappings,
            looked: Instant::now(),
        })
    }

    /// Whether another look is due.
    pub(super) fn is_stale(&self) -> bool {
        self.looked.elapsed() >= LOOK_AGAIN
    }

    /// Takes a later look at the same process. What it no longer shows may still be in stacks.
    pub(super) fn update(&mut self, now: Process) {
        let mut mappings = now.mappings;
        for (range, holds) in self.mappings.drain(..) {
            let replaced = mappings.iter().any(|(new, _)| new.start < range.end && range.start < new.end);
            if !replaced && mappings.len() < MAPPINGS_MAX {
                mappings.push((range, holds));
            }
        }
        let perf_map = now.perf_map.or(self.perf_map.take());
        *self = Process { mappings, perf_map, ..now };
    }

    /// What is at an address; an offset is the address's own.
    pub(super) fn at(&self, address: u64) -> Option<Holds> {
        let (range, holds) = self.mappings.iter().find(|(range, _)| range.contains(&address))?;
        Some(match holds {
            Holds::File { module, offset } => {
                Holds::File { module: *module, offset: offset.checked_add(address - range.start)? }
            }
            special => special.clone(),
        })
    }
}

/// What this mapping holds, with its file opened if none has done so yet.
fn holds(dir: &Path, line: &Line<'_>, modules: &mut Vec<Module>, added: &mut usize) -> Option<Holds> {
    let (device, inode) = line.file;
    if inode == 0 {
        return line.name.starts_with(b"[").then(|| Holds::Special(label::plain(line.name)));
    }
    let known = modules.iter().position(|module| *module.device == *device && module.inode == inode);
    let module = match known {
        Some(module) => module,
        None if modules.len() >= FILES_MAX || *added >= FILES_EACH => return None,
        None => {
            let module = Module::open(open(dir, line)?, line)?;
            *added += 1;
            modules.push(module);
            modules.len() - 1
        }
    };
    Some(Holds::File { module, offset: line.offset })
}

/// Opens a mapping's file. The links in map_files lead to it even if it was deleted or lies in
/// another mount namespace; without the right to follow those, its path may still do.
fn open(dir: &Path, line: &Line<'_>) -> Option<File> {
    let link = dir.join(format!("map_files/{:x}-{:x}", line.range.start, line.range.end));
    let same = |file: &File| file.metadata().is_ok_and(|meta| meta.ino() == line.file.1);
    open_regular(&link, 0)
        .or_else(|| {
            let path = line.path()?;
            let within: PathBuf = dir.join("root").join(path.strip_prefix("/").ok()?);
            open_regular(&within, 0).filter(same)
        })
        .or_else(|| open_regular(&dir.join("exe"), 0).filter(same))
}

/// Opens a regular file, and nothing whose opening has effects or waits.
fn open_regular(path: &Path, flags: libc::c_int) -> Option<File> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let flags = flags | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

/// The map of a just-in-time compiler, which is named by the pid that the process itself sees.
fn perf_map(dir: &Path) -> Option<File> {
    let status = fs::read_to_string(dir.join("status")).ok()?;
    let name = format!("root/tmp/perf-{}.map", namespace_pid(&status)?);
    open_regular(&dir.join(name), libc::O_NOFOLLOW)
}
