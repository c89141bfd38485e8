//! Run-queue waits, summed in the kernel by who waited and who ran meanwhile. The sums only grow while the programs are
//! attached; for a part of that time read them twice.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::time::{Duration, Instant};

use libbpf_rs::libbpf_sys::{self, BPF_F_TEST_RUN_ON_CPU, bpf_prog_test_run_opts, bpf_test_run_opts};
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Program};

use super::containers::Followed;
use super::error::{Error, attempt};
use super::failed::{Attached, Failed};
use super::lost::{Lost, number};
use super::meter::Meter;
use super::programs;
use super::skeletons::waits::{WaitsSkel, WaitsSkelBuilder};
use super::{btf, place};
use crate::capture_data::Waited;
use crate::host::Key;
use crate::layout::waits as layout;

const WHAT: &str = "the run-queue programs";

/// The programs' names in metrics.
const SWITCHED: &str = "waits_switched";
const MOVED: &str = "waits_moved";
/// Run on demand, never attached.
const LOOK_NOW: &str = "waits_look_now";

/// The first kernel that allocates task storage without a wake-up.
const TASKS_CARRY: (u32, u32) = (6, 4);

/// The loaded programs.
pub struct Waits {
    skeleton: WaitsSkel<'static>,
    runs: u64,
}

/// A group of tasks whose waits are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// A container, with all cgroups below its own.
    Container(Key),
    /// Another cgroup by its id, without the cgroups below it.
    Cgroup(u64),
}

impl Group {
    fn of(bits: u64) -> Group {
        Key::from_bits(bits).map_or(Group::Cgroup(bits), Group::Container)
    }

    fn parse(raw: &[u8]) -> Option<Group> {
        raw.first_chunk().map(|raw| Group::of(u64::from_ne_bytes(*raw)))
    }
}

/// All sums at one moment.
#[derive(Clone, Debug, Default)]
pub struct WaitSums {
    /// That moment: the mean of the CPUs' own times, since reading the sums may itself wait for a CPU.
    pub at: Option<Instant>,
    /// How each group ran and waited.
    pub groups: HashMap<Group, Waited>,
    /// For each pair, how long the first group waited while the second ran.
    pub interferers: HashMap<(Group, Group), Duration>,
    /// Waits and slices that found no room in a map, since the programs were loaded.
    pub lost: u64,
    /// Online CPUs whose latest sums are missing here.
    pub unread_cpus: u32,
}

impl WaitSums {
    /// Adds a group's `struct account` of each CPU.
    pub(super) fn add_waits(&mut self, key: &[u8], values: &mut dyn Iterator<Item = &[u8]>) {
        let sum = values.filter_map(parse).fold(Waited::default(), |sum, one| sum.and(&one));
        self.groups.extend(Group::parse(key).map(|group| (group, sum)));
    }

    /// Adds the times of each CPU in which one group waited while another ran.
    pub(super) fn add_interference(&mut self, key: &[u8], values: &mut dyn Iterator<Item = &[u8]>) {
        let number = |raw: &[u8]| Some(u64::from_ne_bytes(*raw.first_chunk()?));
        let sum = values.filter_map(number).fold(0_u64, u64::saturating_add);
        let pair = layout::Pair::read(key);
        let pair = pair.map(|(pair, _)| (Group::of(pair.victim), Group::of(pair.interferer)));
        self.interferers.extend(pair.map(|pair| (pair, Duration::from_nanos(sum))));
    }
}

impl Waits {
    /// Loads the programs for a kernel of this `release`.
    pub fn load(
        sys: &Path,
        followed: &Followed,
        unified: bool,
        release: Option<(u32, u32)>,
        meter: &mut Meter,
    ) -> Result<Waits, Error> {
        let in_tasks = release.is_some_and(|release| release >= TASKS_CARRY);
        let done = btf(sys).and_then(|()| load(followed, unified, in_tasks));
        let skeleton = programs::loaded(&[SWITCHED, MOVED, LOOK_NOW], done)?;
        meter.add(SWITCHED, skeleton.progs.switched.as_fd());
        meter.add(MOVED, skeleton.progs.moved.as_fd());
        Ok(Waits { skeleton, runs: 0 })
    }

    /// Attaches the programs, with all sums at zero.
    pub fn arm(&mut self) -> Result<WaitsArmed<'_>, Error> {
        self.runs += 1;
        let Waits { skeleton, runs } = self;
        attempt(WHAT, || {
            clear_maps(skeleton)?;
            skeleton.maps.current_run.update(&0_u32.to_ne_bytes(), &runs.to_ne_bytes(), MapFlags::ANY)
        })?;
        let progs = &skeleton.progs;
        let links = vec![
            Attached::of(SWITCHED, attempt(WHAT, || progs.switched.attach_trace()))?,
            Attached::of(MOVED, attempt(WHAT, || progs.moved.attach_trace()))?,
        ];
        let armed = WaitsArmed { program: self, _links: links };
        let _begun = armed.flush_cpus();
        Ok(armed)
    }

    /// The count of lost waits, to be read from any thread.
    pub fn lost(&self) -> Result<Lost, Error> {
        attempt(WHAT, || MapHandle::try_from(&self.skeleton.maps.lost)).map(Lost)
    }
}

fn load(followed: &Followed, unified: bool, in_tasks: bool) -> Result<WaitsSkel<'static>, Error> {
    attempt(WHAT, || {
        let cpus = u32::try_from(libbpf_rs::num_possible_cpus()?).unwrap_or(u32::MAX);
        let mut open = WaitsSkelBuilder::default().open(place())?;
        open.maps.containers.reuse_fd(followed.as_fd())?;
        open.maps.cpus.set_max_entries(cpus)?;
        open.maps.memories.set_autocreate(in_tasks)?;
        open.maps.memories_by_pid.set_autocreate(!in_tasks)?;
        if let Some(knobs) = &mut open.maps.rodata_data {
            knobs.unified = unified;
            knobs.in_tasks = in_tasks;
        }
        open.load()
    })
}

/// Deletes the sums of an earlier run.
fn clear_maps(skeleton: &WaitsSkel<'_>) -> Result<(), libbpf_rs::Error> {
    let maps = &skeleton.maps;
    let fresh = vec![0; layout::Cpu::WHOLE];
    for cpu in 0..maps.cpus.max_entries() {
        maps.cpus.update(&cpu.to_ne_bytes(), &fresh, MapFlags::ANY)?;
    }
    for map in [&maps.accounts, &maps.interferers, &maps.throttles] {
        let old: Vec<_> = map.keys().collect();
        for key in old {
            map.delete(&key)?;
        }
    }
    Ok(())
}

/// The programs while they are attached; they stop when this is dropped.
pub struct WaitsArmed<'p> {
    program: &'p mut Waits,
    _links: Vec<Attached>,
}

impl WaitsArmed<'_> {
    /// Brings the sums of each CPU up to now: a sum otherwise grows only at the next switch.
    fn flush_cpus(&self) -> CpuFlush {
        let mut flush = CpuFlush::default();
        for cpu in 0..self.program.skeleton.maps.cpus.max_entries() {
            match run_on(cpu, &self.program.skeleton.progs.look_now) {
                // It is offline, and runs nothing.
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {}
                Err(error) => {
                    flush.failed += 1;
                    Failed::Flush.count("the run-queue sums of a CPU", &error);
                }
                Ok(at) => flush.at.push(moment(at)),
            }
        }
        flush
    }

    /// The sums so far. Those of interferers cost more to read and are left out unless `interferers`.
    pub fn read(&self, interferers: bool) -> Result<WaitSums, Error> {
        let flush = self.flush_cpus();
        let maps = &self.program.skeleton.maps;
        let (at, unread_cpus) = (mean(&flush.at), flush.failed);
        let mut sums = WaitSums { at, lost: number(&maps.lost), unread_cpus, ..WaitSums::default() };
        attempt("reading waits", || {
            each_value(&maps.accounts, |key, values| sums.add_waits(key, values))?;
            if !interferers {
                return Ok(());
            }
            each_value(&maps.interferers, |key, values| sums.add_interference(key, values))
        })?;
        Ok(sums)
    }
}

/// The result of bringing the CPUs' sums up to now.
#[derive(Default)]
struct CpuFlush {
    /// When, on each CPU.
    at: Vec<Instant>,
    /// On how many CPUs it failed.
    failed: u32,
}

/// The moment a short while ago that a program returned as the low 32 bits of microseconds since boot.
fn moment(low: u32) -> Instant {
    let (now, since_boot) = (Instant::now(), crate::sys::monotonic());
    // Of both, what fits into 32 bits.
    let ago = u32::try_from(since_boot.as_micros() & u128::from(u32::MAX)).unwrap_or(low).wrapping_sub(low);
    now.checked_sub(Duration::from_micros(ago.into())).unwrap_or(now)
}

fn mean(all: &[Instant]) -> Option<Instant> {
    let first = *all.iter().min()?;
    let after: Duration = all.iter().map(|at| at.saturating_duration_since(first)).sum();
    Some(first + after / u32::try_from(all.len()).ok()?)
}

/// Runs a program once on `cpu` and gives its return value. libbpf-rs would not give the error.
fn run_on(cpu: u32, program: &Program<'_>) -> io::Result<u32> {
    let mut opts = bpf_test_run_opts { cpu, flags: BPF_F_TEST_RUN_ON_CPU, ..Default::default() };
    opts.sz = size_of_val(&opts) as libbpf_sys::size_t;
    // SAFETY: `opts` is ours, says how long it is, and all pointers in it are null with lengths of zero.
    let error = unsafe { bpf_prog_test_run_opts(program.as_fd().as_raw_fd(), &raw mut opts) };
    // libbpf gives errors as negative numbers.
    if error < 0 { Err(io::Error::from_raw_os_error(-error)) } else { Ok(opts.retval) }
}

/// Calls `each` with each key and its values, one of each CPU.
fn each_value(
    map: &impl MapCore,
    mut each: impl FnMut(&[u8], &mut dyn Iterator<Item = &[u8]>),
) -> Result<(), libbpf_rs::Error> {
    for key in map.keys() {
        if let Some(values) = map.lookup_percpu(&key, MapFlags::ANY)? {
            #[cfg(test)]
            crate::fuzz::record::note(
                "bpf_sums",
                &[&[if key.len() == 8 { 1 } else { 2 }], &key, &values.concat()],
            );
            each(&key, &mut values.iter().map(Vec::as_slice));
        }
    }
    Ok(())
}

/// Reads a `struct account`.
fn parse(raw: &[u8]) -> Option<Waited> {
    let (account, _) = layout::Account::read(raw)?;
    let time = Duration::from_nanos;
    Some(Waited {
        ran: time(account.ran),
        all: time(account.waited),
        inner: time(account.inner),
        external: time(account.external),
        throttled: time(account.throttled),
        unheld: time(account.unheld),
        waits: account.waits,
    })
}
