//! Symbolization: names for the addresses in sampled stacks, of the kernel, of programs and libraries, and of code from
//! just-in-time compilers.
//!
//! A [`Symbolizer`] lives for one capture, on a helper thread. While samples come in, it opens what may be gone later
//! (the mappings of a process, a deleted binary); at the end it finds all names, file by file, and closes everything. It
//! never reads a command line or an environment. An address that it cannot name for certain stays unknown: a wrong name
//! is worse than none.

mod elf;
#[doc(hidden)]
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod image;
mod kernel;
mod label;
mod lines;
#[cfg(test)]
mod live;
mod maps;
mod modules;
mod perf_map;
mod process;
mod start;
mod symtab;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::stacks::Row;
pub use image::{Image, Layout};
use modules::{MappingContent, Modules};
use process::Process;

/// The label of code that nothing names.
const UNKNOWN: &str = "[unknown]";

/// The label of code that was not named before the deadline.
const LATE: &str = "[no time to name it]";

/// Processes that one capture can symbolize. At 99 Hz for 10 s a CPU has 990 samples.
const PROCESSES_MAX: usize = 4096;

/// A build id, as the linker writes it into a file, padded with zeros to the kernel's 20 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId(pub [u8; 20]);

/// One frame of a user stack, as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UserFrame {
    /// In the file with this build id, at this offset in the file.
    File {
        /// Which file.
        id: BuildId,
        /// Where in it.
        offset: u64,
    },
    /// At this address of the process: its file has no build id, or it has no file.
    Address(u64),
}

impl UserFrame {
    /// How long the kernel's `struct bpf_stack_build_id` is.
    pub const SIZE: usize = 32;

    /// Reads a `struct bpf_stack_build_id`. `None` for one that is not filled in.
    #[must_use]
    pub fn parse(raw: &[u8; Self::SIZE]) -> Option<UserFrame> {
        const VALID: u32 = 1;
        const IP: u32 = 2;
        let (status, rest) = raw.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk()?;
        let number = u64::from_ne_bytes(*rest.first_chunk()?);
        match u32::from_ne_bytes(*status) {
            VALID => Some(UserFrame::File { id: BuildId(*id), offset: number }),
            IP => Some(UserFrame::Address(number)),
            _ => None,
        }
    }

    /// This frame as the code that is to be named: all but the innermost frame are return
    /// addresses, and a call may be the last instruction of its function.
    fn code(self, depth: usize) -> UserFrame {
        match self {
            UserFrame::File { id, offset } => UserFrame::File { id, offset: call_site(offset, depth) },
            UserFrame::Address(address) => UserFrame::Address(call_site(address, depth)),
        }
    }
}

fn call_site(address: u64, depth: usize) -> u64 {
    address.saturating_sub(u64::from(depth > 0))
}

/// One distinct stack of one program, both parts innermost frame first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack<'s> {
    /// Which program, of which process.
    pub image: Image,
    /// How many samples had it.
    pub weight: u64,
    /// The process's own code.
    pub user: &'s [UserFrame],
    /// The kernel's code that ran on its behalf.
    pub kernel: &'s [u64],
}

/// Opens the files that addresses will be named from.
pub struct Symbolizer {
    proc: PathBuf,
    processes: HashMap<Image, Process>,
    modules: Modules,
}

impl Symbolizer {
    /// For one capture. `proc` is where /proc is.
    #[must_use]
    pub fn new(proc: &Path) -> Symbolizer {
        Symbolizer { proc: proc.into(), processes: HashMap::new(), modules: Modules::default() }
    }

    /// Shows it a stack that came first at `first`, soon after it was sampled, with where its program lay
    /// then. Whether there is nothing more to learn of it; else it is to be shown again.
    ///
    /// The first stack of a program makes it open that process's files, and so does one with
    /// something unknown in it, at most once a second. Call it only for processes that were just on
    /// a CPU: looking at one that is stuck in the kernel can hang.
    pub fn observe(&mut self, image: Image, layout: Layout, user: &[UserFrame], first: Instant) -> bool {
        if user.is_empty() {
            return true;
        }
        let room = self.processes.len() < PROCESSES_MAX;
        match self.processes.get(&image) {
            None if !room => return true,
            Some(process) if process.was_looked_at_since(first) => return true,
            Some(process) if !process.is_stale() => return false,
            Some(process) if user.iter().all(|frame| self.knows(process, *frame)) => return true,
            _ => {}
        }
        let Some(now) = Process::look(&self.proc, image, layout, &mut self.modules) else { return true };
        match self.processes.get_mut(&image) {
            Some(process) => process.update(now),
            None => {
                self.processes.insert(image, now);
            }
        }
        true
    }

    fn knows(&self, process: &Process, frame: UserFrame) -> bool {
        match frame {
            UserFrame::File { id, .. } => self.modules.has_id(id),
            UserFrame::Address(address) => process.at(address).is_some(),
        }
    }

    /// Where to look up the name of `frame`. `None`: nothing names it. Of several files with one build id it is the
    /// program's own file, if that was opened.
    fn lookup(&self, image: Image, frame: UserFrame) -> Option<SymbolLookup> {
        let process = self.processes.get(&image);
        match frame {
            UserFrame::File { id, offset } => {
                let own = process.and_then(|process| process.file(id));
                Some(
                    own.map_or(SymbolLookup::ById(id, offset), |module| SymbolLookup::InFile(module, offset)),
                )
            }
            UserFrame::Address(address) => match process?.at(address) {
                Some(MappingContent::File { module, offset }) => Some(SymbolLookup::InFile(module, offset)),
                Some(MappingContent::KernelCode(name)) => Some(SymbolLookup::KernelCode(name)),
                Some(MappingContent::Unknown) => None,
                Some(MappingContent::Jit) | None => Some(SymbolLookup::InPerfMap(image, address)),
            },
        }
    }

    /// Finds the names of all frames in `stacks`. Files that are not read by `until` name nothing, and the frames in them
    /// are labelled so.
    #[must_use]
    pub fn resolve(mut self, stacks: &[Stack<'_>], until: Instant) -> Names {
        let kernel = self.kernel_names(stacks);
        let (mut in_files, mut by_id, mut in_perf_maps) = Default::default();
        for stack in stacks {
            for (depth, frame) in stack.user.iter().enumerate() {
                match self.lookup(stack.image, frame.code(depth)) {
                    Some(SymbolLookup::InFile(module, offset)) => add(&mut in_files, module, offset),
                    Some(SymbolLookup::ById(id, offset)) => add(&mut by_id, id, offset),
                    Some(SymbolLookup::InPerfMap(image, address)) => add(&mut in_perf_maps, image, address),
                    Some(SymbolLookup::KernelCode(_)) | None => {}
                }
            }
        }
        let in_time = || Instant::now() < until;
        let modules = &self.modules;
        let files =
            resolve_each(in_files, in_time, |module, offsets| Some(modules.names(module, offsets, in_time)));
        let by_build_id =
            resolve_each(by_id, in_time, |id, offsets| modules.names_by_id(id, offsets, in_time));
        let processes = &mut self.processes;
        let perf_maps = resolve_each(in_perf_maps, in_time, |image, addresses| {
            let map = processes.get_mut(&image).and_then(|process| process.perf_map.take());
            Some(map.map(|map| perf_map::names(map, addresses)).unwrap_or_default())
        });
        Names { from: self, files, by_build_id, perf_maps, kernel }
    }

    fn kernel_names(&self, stacks: &[Stack<'_>]) -> NameTable {
        let sites = stacks.iter().flat_map(|stack| stack.kernel.iter().enumerate());
        let addresses: BTreeSet<u64> = sites.map(|(depth, address)| call_site(*address, depth)).collect();
        let numbers: Vec<u64> = addresses.into_iter().collect();
        let names = match File::open(self.proc.join("kallsyms")) {
            Ok(kallsyms) if !numbers.is_empty() => {
                kernel::names(kallsyms, &numbers).into_iter().map(Some).collect()
            }
            _ => Vec::new(),
        };
        NameTable { numbers, names }
    }
}

/// Where to look up a name.
enum SymbolLookup {
    /// At an offset of a file.
    InFile(usize, u64),
    /// At an offset of whichever file has this build id.
    ById(BuildId, u64),
    /// At an address, in the map that the program's compiler writes.
    InPerfMap(Image, u64),
    /// It is the kernel's own code, called so.
    KernelCode(&'static str),
}

/// Finds the names under each key, while `in_time`, and while `find` is in time too.
fn resolve_each<K: Ord + Copy>(
    wanted: BTreeMap<K, BTreeSet<u64>>,
    in_time: impl Fn() -> bool,
    mut find: impl FnMut(K, &[u64]) -> Option<Vec<Option<Box<str>>>>,
) -> BTreeMap<K, NameTable> {
    let named = |(key, numbers): (K, BTreeSet<u64>)| {
        let numbers: Vec<u64> = numbers.into_iter().collect();
        let names = in_time().then(|| find(key, &numbers))??;
        Some((key, NameTable { numbers, names }))
    };
    wanted.into_iter().map_while(named).collect()
}

fn add<K: Ord>(numbers: &mut BTreeMap<K, BTreeSet<u64>>, under: K, number: u64) {
    numbers.entry(under).or_default().insert(number);
}

/// Sorted offsets or addresses, with their names.
struct NameTable {
    numbers: Vec<u64>,
    names: Vec<Option<Box<str>>>,
}

impl NameTable {
    fn get(&self, number: u64) -> Option<&str> {
        let index = self.numbers.binary_search(&number).ok()?;
        self.names.get(index)?.as_deref()
    }
}

/// The names of everything in the stacks that were resolved.
pub struct Names {
    from: Symbolizer,
    files: BTreeMap<usize, NameTable>,
    by_build_id: BTreeMap<BuildId, NameTable>,
    perf_maps: BTreeMap<Image, NameTable>,
    kernel: NameTable,
}

impl Names {
    /// Puts a stack, with its names in place of its addresses, into `row`; the name of its process is the caller's.
    pub fn fill<'n>(&'n self, stack: Stack<'_>, row: &mut Row<'n>) {
        (row.pid, row.weight) = (stack.image.pid, stack.weight);
        row.user.clear();
        let frames = stack.user.iter().enumerate();
        row.user.extend(frames.map(|(depth, frame)| self.user(stack.image, frame.code(depth))));
        row.user.truncate(start::calls(&row.user));
        row.kernel.clear();
        row.kernel.extend(self.kernel(stack));
    }

    /// A stack with its names in place of its addresses, of a process that is called `comm`.
    #[must_use]
    pub fn row<'n>(&'n self, stack: Stack<'_>, comm: &'n str) -> Row<'n> {
        let mut row = Row { comm, ..Row::default() };
        self.fill(stack, &mut row);
        row
    }

    /// The names of its kernel part.
    pub fn kernel<'n>(&'n self, stack: Stack<'_>) -> impl ExactSizeIterator<Item = &'n str> {
        let name =
            |(depth, address): (usize, &u64)| self.kernel.get(call_site(*address, depth)).unwrap_or(UNKNOWN);
        stack.kernel.iter().enumerate().map(name)
    }

    fn user(&self, image: Image, frame: UserFrame) -> &str {
        let named = match self.from.lookup(image, frame) {
            Some(SymbolLookup::InFile(module, offset)) => {
                self.files.get(&module).map(|named| named.get(offset))
            }
            Some(SymbolLookup::ById(id, offset)) => self.by_build_id.get(&id).map(|named| named.get(offset)),
            Some(SymbolLookup::InPerfMap(image, address)) => {
                self.perf_maps.get(&image).map(|named| named.get(address))
            }
            Some(SymbolLookup::KernelCode(name)) => Some(Some(name)),
            None => Some(None),
        };
        named.map_or(LATE, |name| name.unwrap_or(UNKNOWN))
    }
}
