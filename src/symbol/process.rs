//! What must be taken from a process while it lives: which file is mapped where, and open
//! descriptors of those files and of its perf map.

use std::collections::HashMap;
use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use super::BuildId;
use super::image::{Image, Layout};
use super::lines::each_line;
use super::maps::{Mapping, namespace_pid};
use super::modules::{MappedFile, MappingContent, Modules, open_regular};

/// Files that one process may add to those that are open.
const FILES_EACH: usize = 64;

/// Executable mappings kept of a process: those of hundreds of libraries and of a compiler.
const MAPPINGS_MAX: usize = 1024;

/// A map of the 65,530 mappings that a process may have, each with a long path.
const MAPS_MAX: u64 = 32 << 20;

/// Something unknown in a stack is a reason to look again, but not at every stack.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What of a process's memory is the kernel's own code, whatever else has a name there. (A name that a
/// process gives to its memory stands behind `[anon:`.)
const SPECIAL: [&str; 3] = ["[vdso]", "[vsyscall]", "[uprobes]"];

/// A program of a process as it was last looked at.
pub(super) struct Process {
    pub(super) perf_map: Option<File>,
    mappings: Vec<(Range<u64>, MappingContent)>,
    /// Its files that have a build id.
    files: HashMap<BuildId, usize>,
    looked: Instant,
}

impl Process {
    /// Looks at a process. `None` if it is gone, or runs another program than that of this layout.
    pub(super) fn look(proc: &Path, image: Image, layout: Layout, modules: &mut Modules) -> Option<Process> {
        let is_it = || Layout::now(proc, image.pid) == Some(layout);
        if !is_it() {
            return None;
        }
        let dir = proc.join(image.pid.to_string());
        // Before the first line: what is mapped from now on may be missing.
        let looked = Instant::now();
        let mut mappings = Vec::new();
        let mut room = FILES_EACH;
        if let Ok(maps) = File::open(dir.join("maps")) {
            // A process that exits meanwhile leaves what was read.
            let _ = each_line(maps, MAPS_MAX, |line| {
                let Some(line) = Mapping::parse(line) else { return };
                if mappings.len() < MAPPINGS_MAX {
                    let holds = holds(&dir, &line, modules, &mut room);
                    mappings.push((line.range, holds));
                }
            });
        }
        let perf_map = perf_map(&dir);
        // An exec meanwhile would have mixed two programs. No layout comes twice.
        is_it().then(|| {
            let files = mappings.iter().filter_map(|(_, holds)| modules.build_id(*holds)).collect();
            Process { perf_map, mappings, files, looked }
        })
    }

    /// Whether another look is due.
    pub(super) fn is_stale(&self) -> bool {
        self.looked.elapsed() >= LOOK_AGAIN
    }

    /// Whether all that was mapped at a time was seen.
    pub(super) fn was_looked_at_since(&self, time: Instant) -> bool {
        self.looked >= time
    }

    /// Takes a later look at the same program. What it no longer shows may still be in stacks.
    pub(super) fn update(&mut self, now: Process) {
        let mut mappings = now.mappings;
        for (range, holds) in self.mappings.drain(..) {
            let mut replaced = false;
            for (new, now_holds) in &mut mappings {
                let (from, to) = (new.start.max(range.start), new.end.min(range.end));
                if from < to {
                    replaced = true;
                    if at(&range, &holds, from) != at(new, now_holds, from) {
                        *now_holds = MappingContent::Unknown;
                    }
                }
            }
            if !replaced && mappings.len() < MAPPINGS_MAX {
                mappings.push((range, holds));
            }
        }
        self.files.extend(now.files);
        let (perf_map, files) = (now.perf_map.or(self.perf_map.take()), std::mem::take(&mut self.files));
        *self = Process { mappings, perf_map, files, ..now };
    }

    /// What is at an address; an offset is the address's own.
    pub(super) fn at(&self, address: u64) -> Option<MappingContent> {
        let (range, holds) = self.mappings.iter().find(|(range, _)| range.contains(&address))?;
        at(range, holds, address)
    }

    /// Its own file with this build id.
    pub(super) fn file(&self, id: BuildId) -> Option<usize> {
        self.files.get(&id).copied()
    }
}

/// What a mapping holds at an address in it.
fn at(range: &Range<u64>, holds: &MappingContent, address: u64) -> Option<MappingContent> {
    Some(match holds {
        MappingContent::File { module, offset } => MappingContent::File {
            module: *module,
            offset: offset.checked_add(address.checked_sub(range.start)?)?,
        },
        other => *other,
    })
}

/// What this mapping holds, with its file opened if none has done so yet.
fn holds(dir: &Path, line: &Mapping<'_>, modules: &mut Modules, room: &mut usize) -> MappingContent {
    if line.file.1 == 0 {
        let special = SPECIAL.into_iter().find(|name| name.as_bytes() == line.name);
        return special.map_or(MappingContent::Jit, MappingContent::KernelCode);
    }
    match modules.find(dir, line, room) {
        MappedFile::Module(module) => MappingContent::File { module, offset: line.offset },
        MappedFile::NotElf => MappingContent::Jit,
        MappedFile::Unopened => MappingContent::Unknown,
    }
}

/// The map of a just-in-time compiler, which is named by the pid that the process itself sees.
fn perf_map(dir: &Path) -> Option<File> {
    let status = fs::read_to_string(dir.join("status")).ok()?;
    let name = format!("root/tmp/perf-{}.map", namespace_pid(&status)?);
    open_regular(&dir.join(name), libc::O_NOFOLLOW)
}
