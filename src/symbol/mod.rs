//! Names for the addresses in sampled stacks: the kernel's, those of programs and libraries, and
//! those of just-in-time compilers.
//!
//! A [`Symbolizer`] lives for one capture, on a helper thread. While samples come in it holds on
//! to what may be gone later (a process, a deleted binary); at the end it finds all names at once,
//! file by file, and gives everything back. It never reads a command line or an environment.

mod elf;
#[doc(hidden)]
pub mod fuzz;
mod kernel;
mod label;
mod lines;
#[cfg(test)]
mod live;
mod maps;
mod perf_map;
mod process;
mod symtab;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::stacks::Row;
use elf::Elf;
use process::{Holds, Module, Process};

/// The label of code that nothing names.
const UNKNOWN: &str = "[unknown]";

/// The label of a process that was gone before it was looked at.
pub const EXITED: &str = "[exited]";

/// Processes that one capture can tell names of. At 99 Hz for 10 s a CPU has 990 samples.
const PROCESSES_MAX: usize = 4096;

/// What a linker marks its output with, filled up with zeros to the kernel's 20 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId(pub [u8; 20]);

/// One frame of a user stack, as the kernel could tell it.
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

/// One distinct stack of one process, both parts innermost frame first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The process, in the host's pid namespace.
    pub pid: u32,
    /// How many samples had it.
    pub weight: u64,
    /// The process's own code.
    pub user: Vec<UserFrame>,
    /// What of the kernel ran on its behalf.
    pub kernel: Vec<u64>,
}

/// Holds on to what names will be made of.
pub struct Symbolizer {
    proc: PathBuf,
    processes: HashMap<u32, Process>,
    modules: Vec<Module>,
    by_id: HashMap<BuildId, usize>,
}

impl Symbolizer {
    /// For one capture. `proc` is where /proc is.
    #[must_use]
    pub fn new(proc: &Path) -> Symbolizer {
        Symbolizer {
            proc: proc.into(),
            processes: HashMap::new(),
            modules: Vec::new(),
            by_id: HashMap::new(),
        }
    }

    /// Shows it a stack that was not seen before, soon after it was sampled.
    ///
    /// The first stack of a process makes it open that process's files, and so does one with
    /// something unknown in it, at most once a second. Call it only for processes that were just on
    /// a CPU: looking at one that is stuck in the kernel can hang.
    pub fn sight(&mut self, pid: u32, user: &[UserFrame]) {
        let room = self.processes.len() < PROCESSES_MAX;
        match self.processes.get(&pid) {
            None if !room => return,
            Some(process) if !process.is_stale() || user.iter().all(|frame| self.knows(process, *frame)) => {
                return;
            }
            _ => {}
        }
        let seen = self.modules.len();
        let Some(now) = Process::look(&self.proc, pid, &mut self.modules) else { return };
        for (index, module) in self.modules.iter().enumerate().skip(seen) {
            if let Some(id) = module.id {
                self.by_id.entry(id).or_insert(index);
            }
        }
        match self.processes.get_mut(&pid) {
            Some(process) => process.update(now),
            None => {
                self.processes.insert(pid, now);
            }
        }
    }

    fn knows(&self, process: &Process, frame: UserFrame) -> bool {
        match frame {
            UserFrame::File { id, .. } => self.by_id.contains_key(&id),
            UserFrame::Address(address) => process.perf_map.is_some() || process.at(address).is_some(),
        }
    }

    /// Finds the names of everything in `stacks`, and lets go of all files.
    #[must_use]
    pub fn resolve(mut self, stacks: &[Stack]) -> Names {
        let mut wanted: Wanted = Wanted::default();
        for stack in stacks {
            for (depth, frame) in stack.user.iter().enumerate() {
                let frame = frame.code(depth);
                wanted.add(&self, stack.pid, frame);
            }
        }
        let mut user = wanted.named;
        for (module, wanted) in wanted.in_files {
            if let Some(module) = self.modules.get(module) {
                let offsets: Vec<u64> = wanted.keys().copied().collect();
                assign(&mut user, wanted, file_names(module, &offsets));
            }
        }
        for (pid, wanted) in wanted.in_perf_maps {
            if let Some(map) = self.processes.get_mut(&pid).and_then(|process| process.perf_map.take()) {
                let addresses: Vec<u64> = wanted.keys().copied().collect();
                assign(&mut user, wanted, perf_map::names(map, &addresses));
            }
        }
        Names {
            user,
            kernel: self.kernel_names(stacks),
            comms: self.processes.into_iter().map(|(pid, process)| (pid, process.comm)).collect(),
        }
    }

    fn kernel_names(&self, stacks: &[Stack]) -> BTreeMap<u64, Box<str>> {
        let sites = stacks.iter().flat_map(|stack| stack.kernel.iter().enumerate());
        let mut addresses: Vec<u64> = sites.map(|(depth, address)| call_site(*address, depth)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() {
            return BTreeMap::new();
        }
        match File::open(self.proc.join("kallsyms")) {
            Ok(kallsyms) => addresses.iter().copied().zip(kernel::names(kallsyms, &addresses)).collect(),
            Err(_) => BTreeMap::new(),
        }
    }
}

/// Whose code a frame is: an address means something in its own process only.
type Code = (u32, UserFrame);

/// Codes by the number to be looked up.
type ByNumber = BTreeMap<u64, Vec<Code>>;

/// Frames sorted by where their names are to be found.
#[derive(Default)]
struct Wanted {
    in_files: BTreeMap<usize, ByNumber>,
    in_perf_maps: BTreeMap<u32, ByNumber>,
    named: BTreeMap<Code, Box<str>>,
}

impl Wanted {
    fn add(&mut self, from: &Symbolizer, pid: u32, frame: UserFrame) {
        let code = code_of(pid, frame);
        if self.named.contains_key(&code) {
            return;
        }
        let mut label = UNKNOWN.into();
        match frame {
            UserFrame::File { id, offset } => {
                if let Some(module) = from.by_id.get(&id) {
                    self.in_files.entry(*module).or_default().entry(offset).or_default().push(code);
                }
            }
            UserFrame::Address(address) => {
                match from.processes.get(&pid).and_then(|process| process.at(address)) {
                    Some(Holds::File { module, offset }) => {
                        self.in_files.entry(module).or_default().entry(offset).or_default().push(code);
                    }
                    Some(Holds::Special(name)) => label = name,
                    None => self.in_perf_maps.entry(pid).or_default().entry(address).or_default().push(code),
                }
            }
        }
        self.named.insert(code, label);
    }
}

/// Code in a file with a build id is the same in every process.
fn code_of(pid: u32, frame: UserFrame) -> Code {
    (if matches!(frame, UserFrame::File { .. }) { 0 } else { pid }, frame)
}

fn assign(named: &mut BTreeMap<Code, Box<str>>, wanted: ByNumber, names: Vec<Option<Box<str>>>) {
    for (codes, name) in wanted.into_values().zip(names) {
        for code in codes {
            if let Some(name) = &name {
                named.insert(code, name.clone());
            }
        }
    }
}

/// The names of sorted file offsets; without a symbol, the file and the virtual address in it.
fn file_names(module: &Module, offsets: &[u64]) -> Vec<Option<Box<str>>> {
    let elf = Elf::open(&module.file);
    let segments = elf.as_ref().and_then(Elf::segments).unwrap_or_default();
    let place = |offset: &u64| elf::address_of(&segments, *offset);
    let mut addresses: Vec<u64> = offsets.iter().filter_map(place).collect();
    addresses.sort_unstable();
    let names = elf.map(|elf| symtab::names(&elf, &addresses)).unwrap_or_default();
    let label = |offset: &u64| {
        let address = place(offset);
        let found = address.and_then(|address| addresses.binary_search(&address).ok());
        let name = found.and_then(|index| names.get(index).cloned().flatten());
        Some(name.unwrap_or_else(|| match address {
            Some(address) => format!("{}+{address:#x}", module.name).into(),
            None => module.name.clone(),
        }))
    };
    offsets.iter().map(label).collect()
}

/// The names of everything in the stacks that were resolved.
pub struct Names {
    user: BTreeMap<Code, Box<str>>,
    kernel: BTreeMap<u64, Box<str>>,
    comms: HashMap<u32, Box<str>>,
}

impl Names {
    /// A stack with its names in place of its addresses.
    #[must_use]
    pub fn row(&self, stack: &Stack) -> Row<'_> {
        let user = |(depth, frame): (usize, &UserFrame)| {
            self.user.get(&code_of(stack.pid, frame.code(depth))).map_or(UNKNOWN, |name| &**name)
        };
        let kernel = |(depth, address): (usize, &u64)| {
            self.kernel.get(&call_site(*address, depth)).map_or(UNKNOWN, |name| &**name)
        };
        Row {
            pid: stack.pid,
            comm: self.comms.get(&stack.pid).map_or(EXITED, |comm| &**comm),
            weight: stack.weight,
            user: stack.user.iter().enumerate().map(user).collect(),
            kernel: stack.kernel.iter().enumerate().map(kernel).collect(),
        }
    }
}
