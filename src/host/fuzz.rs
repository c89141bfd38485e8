//! The parsers as fuzz targets: each takes any bytes and must come back. A target's corpus is
//! `fuzz/corpus/NAME`; its files are also the unit tests' fixtures.

use std::hint::black_box;

use super::containers::path;
use super::identity::{pods, state};
use super::{cgroup, proc};

/// /proc/stat.
pub fn proc_stat(data: &[u8]) {
    black_box(proc::stat::parse(data));
}

/// /proc/meminfo.
pub fn meminfo(data: &[u8]) {
    black_box(proc::meminfo::parse(data));
}

/// /proc/loadavg.
pub fn loadavg(data: &[u8]) {
    black_box(proc::loadavg::parse(data));
}

/// /proc/diskstats.
pub fn diskstats(data: &[u8]) {
    for disk in proc::diskstats::disks(data).flatten() {
        black_box(disk.name());
    }
}

/// /proc/pressure/* and *.pressure.
pub fn pressure(data: &[u8]) {
    black_box(proc::pressure::parse(data));
}

/// /proc/PID/stat.
pub fn task_stat(data: &[u8]) {
    black_box(proc::task::parse(data));
}

/// /proc/PID/cgroup.
pub fn task_cgroup(data: &[u8]) {
    for line in proc::cgroups::memberships(data).flatten() {
        black_box((line.has("cpu"), line.is_unified()));
    }
}

/// /proc/PID/mountinfo.
pub fn mountinfo(data: &[u8]) {
    for mount in proc::mounts::mounts(data).flatten() {
        black_box((mount.is_v1("cpu"), mount.is_unified()));
    }
}

/// cpuacct.stat and cpuacct.usage.
pub fn cpuacct_stat(data: &[u8]) {
    black_box((cgroup::cpu::v1_modes(data), cgroup::cpu::v1_total(data)));
}

/// cpu.stat, v1 and v2.
pub fn cpu_stat(data: &[u8]) {
    black_box((cgroup::cpu::v1_throttling(data), cgroup::cpu::v2_stat(data)));
}

/// cpu.max and cpu.cfs_quota_us.
pub fn cpu_max(data: &[u8]) {
    black_box((cgroup::quota::v2(data), cgroup::quota::v1_quota(data)));
}

/// Lists of CPUs.
pub fn cpuset(data: &[u8]) {
    black_box(cgroup::cpuset::count(data));
}

/// memory.stat and the limits.
pub fn memory_stat(data: &[u8]) {
    black_box((cgroup::memory::v1_anon(data), cgroup::memory::v2_anon(data), cgroup::memory::limit(data)));
}

/// Paths of cgroups: what is found lies within the path.
pub fn cgroup_path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for line in text.lines() {
        if let Some(found) = path::recognise(line) {
            assert!(line.contains(found.id) && !found.id.is_empty());
        }
    }
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

/// Runc's `state.json`.
pub fn runc_state(data: &[u8]) {
    black_box(state::runc(data));
}
