//! The parsers as fuzz targets: each takes any bytes and must come back, with numbers that are such.
//! Those that the loop calls take no memory. A target's corpus is `fuzz/corpus/NAME`; its files are
//! also the unit tests' fixtures.

use std::hint::black_box;

use super::calls::{entries, events};
use super::cgroup::quota::Quota;
use super::containers::{claim, path};
use super::identity::{pods, state};
use super::proc::pressure::Stall;
use super::{cgroup, proc};
use crate::fuzz::heap::untouched;

/// /proc/stat.
pub fn proc_stat(data: &[u8]) {
    if let Some(cpu) = untouched(|| proc::stat::parse(data)) {
        assert!(cpu.cpus as usize <= data.len() / 4, "a line for each CPU");
    }
}

/// /proc/meminfo.
pub fn meminfo(data: &[u8]) {
    black_box(untouched(|| proc::meminfo::parse(data)));
}

/// /proc/loadavg.
pub fn loadavg(data: &[u8]) {
    if let Some(load) = untouched(|| proc::loadavg::parse(data)) {
        assert!([load.one, load.five, load.fifteen].into_iter().all(is_amount), "{load:?}");
    }
}

/// /proc/diskstats.
pub fn diskstats(data: &[u8]) {
    untouched(|| {
        for disk in proc::diskstats::disks(data).flatten() {
            assert!(disk.name().len() <= disk.name.len());
        }
    });
}

/// /proc/pressure/* and *.pressure.
pub fn pressure(data: &[u8]) {
    let Some(stalls) = untouched(|| proc::pressure::parse(data)) else { return };
    for Stall { avg10, avg60, avg300, .. } in [Some(stalls.some), stalls.full].into_iter().flatten() {
        assert!([avg10, avg60, avg300].into_iter().all(is_amount), "{stalls:?}");
    }
}

/// /proc/PID/stat.
pub fn task_stat(data: &[u8]) {
    if let Some(task) = untouched(|| proc::task::parse(data)) {
        assert!(task.comm.len() <= data.len());
    }
}

/// /proc/PID/cgroup.
pub fn task_cgroup(data: &[u8]) {
    untouched(|| {
        for line in proc::cgroups::memberships(data).flatten() {
            assert!(line.path.starts_with(b"/"));
            assert!(!line.is_unified() || !line.has("cpu"), "the unified one names no controller");
        }
    });
}

/// /proc/PID/mountinfo.
pub fn mountinfo(data: &[u8]) {
    for mount in proc::mounts::mounts(data).flatten() {
        assert!(!mount.is_v1("cpu") || !mount.is_unified(), "one or the other");
    }
}

/// cpuacct.stat and cpuacct.usage.
pub fn cpuacct_stat(data: &[u8]) {
    black_box(untouched(|| (cgroup::cpu::v1_modes(data), cgroup::cpu::v1_total(data))));
}

/// cpu.stat, v1 and v2.
pub fn cpu_stat(data: &[u8]) {
    black_box(untouched(|| (cgroup::cpu::v1_throttling(data), cgroup::cpu::v2_stat(data))));
}

/// cpu.max and cpu.cfs_quota_us.
pub fn cpu_max(data: &[u8]) {
    let (v2, v1) = untouched(|| (cgroup::quota::v2(data), cgroup::quota::v1_quota(data)));
    let v1 = v1.flatten().and_then(|quota| cgroup::quota::cores(quota, 100_000));
    for quota in [v2, v1].into_iter().flatten() {
        assert!(
            matches!(quota, Quota::Unlimited) || matches!(quota, Quota::Cores(cores) if is_amount(cores))
        );
    }
}

/// Lists of CPUs.
pub fn cpuset(data: &[u8]) {
    black_box(untouched(|| cgroup::cpuset::count(data)));
}

/// memory.stat and the limits.
pub fn memory_stat(data: &[u8]) {
    use cgroup::memory::{limit, v1_stat, v2_stat};
    black_box(untouched(|| (v1_stat(data), v2_stat(data), limit(data))));
}

/// Paths of cgroups: what is found lies within the path.
pub fn cgroup_path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for line in text.lines() {
        if let Some(found) = untouched(|| path::recognise(line)) {
            assert!(line.contains(found.id) && !found.id.is_empty());
        }
    }
}

/// What a runtime noted of a cgroup, and after a newline that cgroup's path.
pub fn cgroup_claim(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((noted, path)) = text.split_once('\n') else { return };
    let record_match = untouched(|| claim::compare(noted, path));
    if record_match == Some(claim::RecordMatch::Same) {
        let name = noted.rsplit([':', '/']).find(|part| !part.is_empty()).unwrap_or_default();
        assert!(path.contains(name), "the same has the same name");
    }
}

/// What a folder's listing (getdents64(2)) and its watch (inotify(7)) hand over: names without a NUL,
/// and no more of them than there is room for.
pub fn folder_records(data: &[u8]) {
    /// Bytes of each record before its name.
    const ENTRY: usize = 19;
    const EVENT: usize = 16;
    untouched(|| {
        let (mut bytes, mut plain) = (0, true);
        for name in entries(data) {
            bytes += ENTRY + name.len();
            plain &= !name.is_empty() && !name.contains(&0) && name != b"." && name != b"..";
        }
        assert!(plain && bytes <= data.len(), "entries that are not there");
        bytes = 0;
        for event in events(data) {
            bytes += EVENT + event.name.len();
            plain &= !event.name.contains(&0);
        }
        assert!(plain && bytes <= data.len(), "events that are not there");
    });
}

/// The kubelet's /pods, and whatever else a server may answer.
pub fn kubelet_pods(data: &[u8]) {
    black_box(pods::read(data, &mut |whose, told| {
        black_box((whose, told.role));
    }))
    .ok();
}

/// `config.json` of a bundle.
pub fn oci_spec(data: &[u8]) {
    black_box(state::oci(data));
}

/// Docker's `config.v2.json`.
pub fn docker_config(data: &[u8]) {
    black_box(state::docker(data));
}

/// Podman's `containers.json`.
pub fn podman_containers(data: &[u8]) {
    black_box(state::podman(data, "id"));
}

/// Crun's `status`.
pub fn crun_status(data: &[u8]) {
    black_box(state::crun(data));
}

/// Runc's `state.json`.
pub fn runc_state(data: &[u8]) {
    black_box(state::runc(data));
}

/// A number that can be compared, and is not below nothing.
fn is_amount(number: f64) -> bool {
    number.is_finite() && number >= 0.0
}
