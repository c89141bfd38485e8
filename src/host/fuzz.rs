//! The parsers as fuzz targets: each takes any bytes and must come back. A target's corpus is
//! `fuzz/corpus/NAME`; its files are also the unit tests' fixtures.

use std::hint::black_box;

use super::containers::path;
use super::{cgroup, proc};

/// A target: bytes in.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("proc_stat", proc_stat),
    ("meminfo", meminfo),
    ("loadavg", loadavg),
    ("diskstats", diskstats),
    ("pressure", pressure),
    ("task_stat", task_stat),
    ("task_cgroup", task_cgroup),
    ("mountinfo", mountinfo),
    ("cpuacct_stat", cpuacct_stat),
    ("cpu_stat", cpu_stat),
    ("cpu_max", cpu_max),
    ("cpuset", cpuset),
    ("memory_stat", memory_stat),
    ("cgroup_path", cgroup_path),
];

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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Every seventh place is cut or flipped: all would take longer than the rest of the tests.
    const STEP: usize = 7;

    #[test]
    fn every_target_comes_back_from_its_corpus_whole_cut_and_flipped() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, target) in TARGETS {
            let files = std::fs::read_dir(corpus.join(name)).expect("every target has a corpus");
            let mut seen = 0;
            for file in files {
                let data = std::fs::read(file.expect("an entry").path()).expect("a file");
                target(&data);
                for cut in (0..data.len()).step_by(STEP) {
                    target(&data[..cut]);
                }
                let mut flipped = data;
                for at in (0..flipped.len()).step_by(STEP) {
                    flipped[at] ^= 0x15;
                    target(&flipped);
                    flipped[at] ^= 0x15;
                }
                seen += 1;
            }
            assert!(seen > 0, "{name} has no corpus");
        }
    }
}
