//! BPF programs and everything else that speaks to libbpf. A program is loaded once, attached
//! only while someone looks, and gives plain values. What a kernel lacks becomes a sentence.

mod cgroups;
mod containers;
pub(crate) mod cpus;
mod error;
mod failed;
#[doc(hidden)]
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod hook;
mod io;
mod io_kernel;
mod io_record;
mod io_tracepoint;
mod lost;
mod meter;
mod noop;
mod perf;
mod programs;
mod ring;
mod sent;
mod site;
mod stacks;
mod sums;
mod tasks;
mod waits;

pub use cgroups::Cgroups;
pub use containers::Followed;
pub use error::Error;
pub use failed::{Failed, failures};
pub use hook::{Attachment, Hook, KnobValue};
pub use io::{Io, IoArmed, IoLost, SLOTS as IO_SLOTS, Watched};
pub use io_record::{IoFile, IoKey, IoRecord, IoRow, IoStall, IoTarget};
pub use lost::Lost;
pub use meter::Meter;
pub use noop::NoopProgram;
pub use programs::{Program, Standing, each_program};
pub use ring::{Drained, Ring};
pub use sent::{Count, StackRecord};
pub use site::Site;
pub use stacks::{Armed, FAULTS_EACH, HZ, Stacks};
pub use tasks::{Stuck, StuckTasks, TaskSummaries, TaskSummary, Tasks};
pub use waits::{Group, WaitSums, Waits, WaitsArmed};

/// What build.rs made of bpf/*.bpf.c.
mod skeletons {
    include!(concat!(env!("OUT_DIR"), "/skeletons.rs"));
}

use std::fmt::Write as _;
use std::mem::MaybeUninit;
use std::path::Path;

use libbpf_rs::OpenObject;

/// Whether this kernel describes its types: without that no program can be fitted to it.
pub fn btf(sys: &Path) -> Result<(), Error> {
    if sys.join("kernel/btf/vmlinux").exists() { Ok(()) } else { Err(Error::NoBtf) }
}

/// Whether this thread may sample a CPU: false only where rights are missing for it.
#[must_use]
pub fn may_sample(cpu: u32) -> bool {
    !perf::open(cpu, perf::Event::Clock { hz: HZ })
        .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// Where a skeleton keeps its object. Each program is loaded once in a process's life, so these
/// eight bytes may stay behind.
fn place() -> &'static mut MaybeUninit<OpenObject> {
    Box::leak(Box::new(MaybeUninit::uninit()))
}

/// A thread's name as people may see it: no control characters, and what is no UTF-8 replaced.
#[must_use]
pub fn comm(raw: &[u8; 16]) -> Box<str> {
    let name = raw.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut text = String::with_capacity(name.len());
    for letter in String::from_utf8_lossy(name).chars() {
        let _ = if letter.is_control() { text.write_char('?') } else { text.write_char(letter) };
    }
    text.into_boxed_str()
}

#[cfg(test)]
pub(crate) mod tests;
