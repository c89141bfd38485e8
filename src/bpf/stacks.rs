//! Sampled stacks. The kernel counts them by container, process and hash; the frames of each
//! come once. Two maps take turns: one counts while the other is read, so each count belongs to
//! the time between two turns.

use std::collections::BTreeSet;
use std::mem::offset_of;
use std::os::fd::{AsFd as _, AsRawFd as _, IntoRawFd as _};

use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle};

use super::containers::{Followed, pack, unpack};
use super::error::{Error, attempt};
use super::meter::Meter;
use super::ring::{Drained, Ring};
use super::skeletons::stacks::{StacksSkel, StacksSkelBuilder, types};
use super::{btf, comm, perf, place};
use crate::host::Key;
use crate::symbol::UserFrame;

/// Samples a second on each CPU: not 100, so that what happens each 10 ms is neither always nor
/// never seen.
pub const HZ: u32 = 99;

const WHAT: &str = "the stacks program";

/// Counts that each CPU may add in a second without a turn.
const COUNTS_EACH: u32 = 128;
const COUNTS_LEAST: u32 = 1024;

/// Stacks of each CPU that need not be sent again.
const KNOWN_EACH: u32 = 256;
const KNOWN_LEAST: u32 = 4096;

/// Ring for the new stacks of each CPU: a usual one takes 800 bytes, the longest 5 KiB.
const RING_EACH: u32 = 16 << 10;
const RING_LEAST: u32 = 512 << 10;
const RING_MOST: u32 = 16 << 20;

/// The loaded program.
pub struct Stacks {
    skeleton: StacksSkel<'static>,
    cpus: Vec<u32>,
    runs: u64,
}

/// A stack, when it is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Names it, together with its process.
    pub hash: u64,
    /// The process, in the initial pid namespace.
    pub pid: u32,
    /// The name of the process's main thread.
    pub comm: Box<str>,
    /// Frames of the process, innermost first.
    pub user: Box<[UserFrame]>,
    /// Frames of the kernel, innermost first.
    pub kernel: Box<[u64]>,
}

/// How often a stack was seen between two turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Of which container.
    pub container: Option<Key>,
    /// The stack's hash.
    pub hash: u64,
    /// The stack's process.
    pub pid: u32,
    /// How often.
    pub samples: u64,
}

impl Stacks {
    /// Loads the program for these CPUs.
    pub fn load(
        sys: &std::path::Path,
        followed: &Followed,
        unified: bool,
        cpus: Vec<u32>,
        meter: &mut Meter,
    ) -> Result<Stacks, Error> {
        btf(sys)?;
        // Whether samples can be taken is to be known now, not at the first anomaly.
        drop(perf::clock(cpus.first().copied().unwrap_or(0), HZ).map_err(Error::Perf)?);
        let many = u32::try_from(cpus.len()).unwrap_or(u32::MAX);
        let each = |each: u32, least: u32| many.saturating_mul(each).max(least);
        let ring = each(RING_EACH, RING_LEAST).min(RING_MOST).next_power_of_two();
        let skeleton = attempt(WHAT, || {
            let mut open = StacksSkelBuilder::default().open(place())?;
            open.maps.containers.reuse_fd(followed.as_fd())?;
            open.maps.counts_even.set_max_entries(each(COUNTS_EACH, COUNTS_LEAST))?;
            open.maps.counts_odd.set_max_entries(each(COUNTS_EACH, COUNTS_LEAST))?;
            open.maps.known.set_max_entries(each(KNOWN_EACH, KNOWN_LEAST))?;
            open.maps.frames.set_max_entries(ring)?;
            if let Some(knobs) = &mut open.maps.rodata_data {
                knobs.unified = unified;
            }
            open.load()
        })?;
        meter.add("stacks", skeleton.progs.sample_stack.as_fd());
        Ok(Stacks { skeleton, cpus, runs: 0 })
    }

    /// Begins to sample, nothing at first.
    pub fn arm(&mut self) -> Result<Armed<'_>, Error> {
        self.runs += 1;
        let ring = attempt(WHAT, || Ring::open(&self.skeleton.maps.frames))?;
        let mut armed =
            Armed { program: self, ring, links: Vec::new(), side: 0, host: false, targets: BTreeSet::new() };
        armed.forget_old();
        armed.control()?;
        for cpu in armed.program.cpus.clone() {
            let clock = match perf::clock(cpu, HZ) {
                Ok(clock) => clock,
                // A CPU that went offline has nothing to sample.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
                Err(error) => return Err(Error::Perf(error)),
            };
            let link = attempt(WHAT, || {
                armed.program.skeleton.progs.sample_stack.attach_perf_event(clock.as_raw_fd())
            })?;
            // The link closes it.
            let _ = clock.into_raw_fd();
            armed.links.push(link);
        }
        Ok(armed)
    }

    /// The count of samples that the kernel could not keep, to be read from any thread.
    pub fn lost(&self) -> Result<Lost, Error> {
        attempt(WHAT, || MapHandle::try_from(&self.skeleton.maps.lost)).map(Lost)
    }
}

/// Samples that the kernel could not keep.
#[derive(Debug)]
pub struct Lost(pub(super) MapHandle);

impl Lost {
    /// How many, since the program was loaded.
    #[must_use]
    pub fn samples(&self) -> u64 {
        number(&self.0)
    }
}

/// The program while it samples; it stops when this is dropped.
pub struct Armed<'p> {
    program: &'p mut Stacks,
    ring: Ring,
    links: Vec<Link>,
    side: u32,
    host: bool,
    targets: BTreeSet<u64>,
}

impl Armed<'_> {
    /// Samples the whole host, or these containers only.
    pub fn aim(&mut self, host: bool, containers: impl IntoIterator<Item = Key>) -> Result<(), Error> {
        let wanted: BTreeSet<u64> = containers.into_iter().map(pack).collect();
        let targets = &self.program.skeleton.maps.targets;
        attempt("a target of the stacks program", || {
            for gone in self.targets.difference(&wanted) {
                targets.delete(&gone.to_ne_bytes())?;
            }
            for new in wanted.difference(&self.targets) {
                targets.update(&new.to_ne_bytes(), &1_u64.to_ne_bytes(), MapFlags::ANY)?;
            }
            Ok(())
        })?;
        self.targets = wanted;
        self.host = host;
        self.control()
    }

    /// Ends the time that the next `counts` are of, and begins another.
    pub fn turn(&mut self) -> Result<(), Error> {
        self.side ^= 1;
        self.control()
    }

    /// Hands out stacks that are new, at most `budget`.
    pub fn stacks(&mut self, budget: u32, mut each: impl FnMut(Sent)) -> Drained {
        self.ring.drain(budget, |record| {
            if let Some(stack) = Sent::parse(record) {
                each(stack);
            }
        })
    }

    /// Hands out what was counted between the last two turns.
    pub fn counts(&mut self, mut each: impl FnMut(Count)) -> Result<(), Error> {
        let maps = &self.program.skeleton.maps;
        let before = if self.side == 0 { &maps.counts_odd } else { &maps.counts_even };
        let all = before.max_entries();
        attempt("reading counts", || before.lookup_and_delete_batch(all, MapFlags::ANY, MapFlags::ANY))?
            .filter_map(|(key, samples)| Count::parse(&key, &samples))
            .for_each(&mut each);
        Ok(())
    }

    /// Samples that the kernel could not keep, since the program was loaded.
    #[must_use]
    pub fn lost(&self) -> u64 {
        number(&self.program.skeleton.maps.lost)
    }

    /// What an earlier run left behind.
    fn forget_old(&mut self) {
        while self.ring.drain(u32::MAX, |_| {}) == Drained::More {}
        for _ in 0..2 {
            self.side ^= 1;
            // Should it stay, it names stacks that nobody knows, and counts as lost.
            let _ = self.counts(|_| {});
        }
        let targets = &self.program.skeleton.maps.targets;
        let old: Vec<_> = targets.keys().collect();
        for key in old {
            let _ = targets.delete(&key);
        }
    }

    fn control(&self) -> Result<(), Error> {
        let mut value = [0; size_of::<types::control>()];
        let fields = [self.side.to_ne_bytes(), u32::from(self.host).to_ne_bytes()];
        for (to, from) in
            value.iter_mut().zip(fields.iter().flatten().chain(&self.program.runs.to_ne_bytes()))
        {
            *to = *from;
        }
        let control = &self.program.skeleton.maps.control;
        attempt("steering the stacks program", || control.update(&0_u32.to_ne_bytes(), &value, MapFlags::ANY))
    }
}

/// The only value of an array.
pub(super) fn number(map: &impl MapCore) -> u64 {
    let mut value = [0; 8];
    match map.lookup_into(&0_u32.to_ne_bytes(), &mut value, MapFlags::ANY) {
        Ok(true) => u64::from_ne_bytes(value),
        _ => 0,
    }
}

// The parsers below read these, field by field.
const _: () = assert!(
    size_of::<types::counted>() == 24
        && size_of::<types::control>() == 16
        && offset_of!(types::stack, words) == 32
        && offset_of!(types::stack, comm) == 16
);

impl Sent {
    /// Reads a `struct stack`.
    #[must_use]
    pub fn parse(record: &[u8]) -> Option<Sent> {
        let (hash, rest) = record.split_first_chunk()?;
        let (pid, rest) = rest.split_first_chunk()?;
        let (kernel_bytes, rest) = rest.split_first_chunk()?;
        let (user_bytes, rest) = rest.split_first_chunk()?;
        let (name, rest) = rest.split_first_chunk()?;
        let (kernel, rest) = rest.split_at_checked(usize::from(u16::from_ne_bytes(*kernel_bytes)))?;
        let user = rest.get(..usize::from(u16::from_ne_bytes(*user_bytes)))?;
        let address = |raw: &[u8]| raw.first_chunk().map(|raw| u64::from_ne_bytes(*raw));
        let frame = |raw: &[u8]| raw.first_chunk().and_then(UserFrame::parse);
        Some(Sent {
            hash: u64::from_ne_bytes(*hash),
            pid: u32::from_ne_bytes(*pid),
            comm: comm(name),
            user: user.chunks_exact(UserFrame::SIZE).filter_map(frame).collect(),
            kernel: kernel.chunks_exact(8).filter_map(address).collect(),
        })
    }
}

impl Count {
    fn parse(key: &[u8], samples: &[u8]) -> Option<Count> {
        let (container, rest) = key.split_first_chunk()?;
        let (hash, rest) = rest.split_first_chunk()?;
        Some(Count {
            container: unpack(u64::from_ne_bytes(*container)),
            hash: u64::from_ne_bytes(*hash),
            pid: u32::try_from(u64::from_ne_bytes(*rest.first_chunk()?)).ok()?,
            samples: u64::from_ne_bytes(*samples.first_chunk()?),
        })
    }
}
