//! The counters of many cgroups in one run of a program, which writes them into memory that is mapped
//! here. Nothing is attached: it costs only while it runs.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;

use libbpf_rs::libbpf_sys::{self, bpf_prog_test_run_opts, bpf_test_run_opts};
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use memmap2::{MmapMut, MmapOptions};

use super::error::{Error, attempt};
use super::failed::Failed;
use super::meter::Meter;
use super::programs::{self, Standing};
use super::skeletons::cgroups::CgroupsSkelBuilder;
use super::{Site, btf, place};
use crate::host::cgroup_source::{CgroupCounters, CgroupRequest, CgroupSource, CpuSum, HIERARCHIES, Told};
use crate::host::{Limit, Quota, Throttling, Unreclaimable};
use crate::layout::cgroups::CgroupRecord;
use crate::layout::numbers;

const WHAT: &str = "the program that reads cgroups";

/// The programs, as metrics have them.
const CGROUPS: &str = "cgroups";
const CPU_PARTS: &str = "cgroups_cpu_parts";

/// The first kernel whose programs can loop without a bound, and look at another CPU's part of a map.
const LOOPS: (u32, u32) = (5, 19);

/// What is counted by CPU is added up over all of them: past this, the kernel's own sums are cheaper to
/// read, though they are text. A mask of CPUs has as many bits.
const CPUS_MAX: usize = 64;

/// `BATCH` of bpf/cgroups.bpf.c.
const BATCH: usize = 64;

/// A number that is none.
const NONE: u64 = u64::MAX;

/// `enum wanted` and `enum told` of bpf/cgroups.bpf.c.
const WANT_CPU: u64 = 1 << 0;
const WANT_MEMORY: u64 = 1 << 1;
const TIME: u64 = 1 << 0;
const THROTTLING: u64 = 1 << 1;
const QUOTA: u64 = 1 << 2;
const CPUS: u64 = 1 << 3;
const USAGE: u64 = 1 << 4;
const PAGES: u64 = 1 << 5;
const SAME_TIME: u64 = 1 << 6;
const SAME_USAGE: u64 = 1 << 7;
const NO_CPU: u64 = 1 << 8;

/// What is asked for and told of one cgroup, in bytes.
pub(super) const RECORD: usize = CgroupRecord::SIZE;

/// The loaded program and the records that it fills in.
pub struct Cgroups {
    program: OwnedFd,
    records: MmapMut,
    page_bytes: u64,
}

impl Cgroups {
    /// Loads the programs, for a kernel of this release.
    pub fn load(site: &Site<'_>, release: Option<(u32, u32)>, meter: &mut Meter) -> Result<Cgroups, Error> {
        let unneeded = |why: Error| {
            [CGROUPS, CPU_PARTS].into_iter().for_each(|name| programs::stands(name, Standing::Unneeded));
            Err(why)
        };
        if release.is_some_and(|release| release < LOOPS) {
            return unneeded(Error::TooOld(WHAT, "5.19"));
        }
        let cpus = libbpf_rs::num_possible_cpus().unwrap_or(usize::MAX);
        if cpus > CPUS_MAX {
            return unneeded(Error::ManyCpus(WHAT, CPUS_MAX));
        }
        let done = btf(site.sys).and_then(|()| load(site, cpus, meter));
        programs::loaded(&[CGROUPS, CPU_PARTS], done)
    }

    fn record(&self, index: usize) -> Option<&[u8; RECORD]> {
        self.records.get(index * RECORD..)?.first_chunk()
    }
}

fn load(site: &Site<'_>, cpus: usize, meter: &mut Meter) -> Result<Cgroups, Error> {
    attempt(WHAT, || {
        let mut open = CgroupsSkelBuilder::default().open(place())?;
        open.maps.containers.reuse_fd(site.followed.as_fd())?;
        let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
        open.maps.cpu_parts.set_max_entries(cpus)?;
        if let Some(knobs) = &mut open.maps.rodata_data {
            knobs.unified = site.unified;
            knobs.possible_cpus = cpus;
        }
        let loaded = open.load()?;
        meter.add(CGROUPS, loaded.progs.read_cgroups.as_fd());
        run(&loaded.progs.find_cpu_parts.as_fd().try_clone_to_owned()?, 0)?;
        let records = &loaded.maps.records;
        // SAFETY: the memory is the map's, and is neither cut nor moved; only the program that `read` runs
        // writes there but for us.
        let records = unsafe { MmapOptions::new().len(BATCH * RECORD).map_mut(&records.as_fd())? };
        let program = loaded.progs.read_cgroups.as_fd().try_clone_to_owned()?;
        // The mapping and the program keep what they need; the rest of the object is not needed any more.
        Ok(Cgroups { program, records, page_bytes: crate::sys::page_size().unwrap_or(4096) })
    })
}

/// What a program is given, in bytes.
const ARGUMENTS: u32 = u64::BITS / 8;

/// Runs a program once, here, with one argument.
fn run(program: &OwnedFd, argument: u64) -> io::Result<()> {
    let arguments: [u64; 1] = [argument];
    let mut opts = bpf_test_run_opts {
        ctx_in: (&raw const arguments).cast(),
        ctx_size_in: ARGUMENTS,
        ..Default::default()
    };
    opts.sz = size_of_val(&opts) as libbpf_sys::size_t;
    // SAFETY: `opts` is ours, says how long it and `arguments` are, and all its other pointers are null with
    // lengths of zero.
    let error = unsafe { bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut opts) };
    // libbpf gives errors as negative numbers.
    if error < 0 { Err(io::Error::from_raw_os_error(-error)) } else { Ok(()) }
}

impl CgroupSource for Cgroups {
    fn most(&self) -> usize {
        BATCH
    }

    fn ask(&mut self, index: usize, request: &CgroupRequest) {
        let known_total = request.known_total.and_then(|total| u64::try_from(total.as_nanos()).ok());
        let known_usage = request.known_usage.and_then(|bytes| bytes.checked_div(self.page_bytes));
        let wanted = if request.cpu { WANT_CPU } else { 0 } | if request.memory { WANT_MEMORY } else { 0 };
        let Some(record) = self.records.get_mut(index * RECORD..).and_then(<[u8]>::first_chunk_mut) else {
            return;
        };
        // What was told before is gone.
        let Some((mut asked, _)) = CgroupRecord::read(&[0; RECORD]) else { return };
        asked
            .folders
            .as_chunks_mut()
            .0
            .iter_mut()
            .zip(request.folders.descriptors)
            .for_each(|(to, folder): (&mut [u8; 4], i32)| *to = folder.to_ne_bytes());
        asked
            .nodes
            .as_chunks_mut()
            .0
            .iter_mut()
            .zip(request.folders.nodes)
            .for_each(|(to, node): (&mut [u8; 8], u64)| *to = node.to_ne_bytes());
        asked.wanted = wanted;
        asked.known_total_ns = known_total.unwrap_or(NONE);
        asked.known_usage = known_usage.unwrap_or(NONE);
        *record = asked.bytes();
    }

    fn read(&mut self, count: usize) -> bool {
        let done = run(&self.program, count.min(BATCH) as u64);
        done.inspect_err(|why| Failed::Read.count(WHAT, why)).is_ok()
    }

    fn counters(&self, index: usize) -> CgroupCounters {
        self.record(index).map_or(CgroupCounters::NONE, |record| parse(record, self.page_bytes))
    }
}

/// What a record tells.
pub(super) fn parse(record: &[u8; RECORD], page_bytes: u64) -> CgroupCounters {
    #[cfg(test)]
    crate::fuzz::record::note("bpf_cgroup", &[record]);
    let Some((record, _)) = CgroupRecord::read(record) else { return CgroupCounters::NONE };
    let mut nodes = [0; HIERARCHIES];
    nodes.iter_mut().zip(numbers(&record.nodes)).for_each(|(to, node)| *to = node);
    let tells = |what: u64| record.told & what != 0;
    let time = Duration::from_nanos;
    let sum = CpuSum {
        total: time(record.total_ns),
        user: time(record.user_ns),
        system: time(record.system_ns),
        last: [time(record.last_user_ns), time(record.last_system_ns)],
    };
    let limit = match record.limit.checked_mul(page_bytes) {
        Some(bytes) => Limit::of(bytes),
        None => Limit::Unlimited,
    };
    CgroupCounters {
        nodes,
        cpu: told_of(tells(SAME_TIME), tells(TIME).then_some(sum)),
        uncontrolled: tells(NO_CPU),
        throttling: tells(THROTTLING).then_some(Throttling {
            periods: record.periods,
            throttled_periods: record.throttled_periods,
            throttled: time(record.throttled_ns),
        }),
        quota: if tells(QUOTA) { quota_of(record.quota_us, record.period_us) } else { None },
        cpus: tells(CPUS).then_some(record.cpus.count_ones()),
        memory: told_of(
            tells(SAME_USAGE),
            tells(USAGE).then_some((record.usage.saturating_mul(page_bytes), limit)),
        ),
        held: if tells(PAGES) { held(&record, page_bytes) } else { None },
    }
}

fn told_of<T>(same: bool, new: Option<T>) -> Told<T> {
    match new {
        _ if same => Told::Same,
        Some(new) => Told::New(new),
        None => Told::Unknown,
    }
}

fn quota_of(quota_us: u64, period_us: u64) -> Option<Quota> {
    if quota_us == NONE {
        Some(Quota::Unlimited)
    } else {
        crate::host::cgroup::quota::cores(quota_us, period_us)
    }
}

/// Counts of pages may be below zero for a moment, which the kernel shows as zero.
fn held(record: &CgroupRecord, page_bytes: u64) -> Option<Unreclaimable> {
    let bytes = |pages: i64| Some(u64::try_from(pages).unwrap_or(0).saturating_mul(page_bytes));
    let lists = [bytes(record.active_anon), bytes(record.inactive_anon)];
    Unreclaimable::of(bytes(record.anon), bytes(record.shmem), bytes(record.unevictable), lists)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::{Path, PathBuf};

    use super::super::tests::root;
    use super::*;
    use crate::bpf::Followed;
    use crate::host::cgroup_source::CgroupFolders;

    /// A cgroup of this test alone; gone when it is dropped.
    struct Own(PathBuf);

    impl Drop for Own {
        fn drop(&mut self) {
            let _ = fs::remove_dir(&self.0);
        }
    }

    fn source(unified: bool) -> Cgroups {
        let followed = Followed::create(16).expect("a map");
        let site = Site { sys: Path::new("/sys"), followed: &followed, unified, cpus: &[] };
        Cgroups::load(&site, None, &mut Meter::default()).expect("this kernel takes it")
    }

    fn read(source: &mut Cgroups, folder: &File) -> CgroupCounters {
        let folders = CgroupFolders { descriptors: [folder.as_raw_fd(); HIERARCHIES], ..CgroupFolders::NONE };
        let all = CgroupRequest { folders, cpu: true, memory: true, known_total: None, known_usage: None };
        source.ask(0, &all);
        assert!(source.read(1));
        source.counters(0)
    }

    #[test]
    fn a_new_cgroup_has_counters_and_none_once_it_is_removed() {
        if !root() {
            return;
        }
        let v1 = Path::new("/sys/fs/cgroup/cpuacct");
        let unified = !v1.exists();
        let above = if unified { Path::new("/sys/fs/cgroup") } else { v1 };
        let own = Own(above.join(format!("onset-counters-{}", std::process::id())));
        fs::create_dir(&own.0).expect("a cgroup");
        let (mut source, folder) = (source(unified), File::open(&own.0).expect("its folder"));
        let told = read(&mut source, &folder);
        assert!(matches!(told.cpu, Told::New(sum) if sum.total.is_zero()), "{told:?}");
        assert_ne!(told.nodes[0], 0);
        drop(own);
        // The kernel lets go of it a moment after, which nothing tells of but this.
        let began = std::time::Instant::now();
        while read(&mut source, &folder).cpu != Told::Unknown {
            assert!(began.elapsed() < Duration::from_secs(10), "its memory is read though it is gone");
        }
    }

    #[test]
    fn a_folder_that_is_no_cgroup_tells_nothing() {
        if !root() {
            return;
        }
        let mut source = source(false);
        for path in ["/", "/proc", "/sys", "/dev", "/tmp"] {
            let told = read(&mut source, &File::open(path).expect("a folder"));
            assert_eq!((told.nodes, told.cpu, told.memory), ([0; 4], Told::Unknown, Told::Unknown), "{path}");
        }
    }
}
