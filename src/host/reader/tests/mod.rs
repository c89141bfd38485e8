//! The reader over trees that are written for each test, and over this host's own.

mod follow;
mod idle;
mod layouts;
mod read;
mod real;
mod source;

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::clock::Wall;
use crate::host::{Reading, TaskState, Throttling};

const UID: &str = "9f1f8a52-8e51-4f0a-9c1f-0d6f5f1d2a3b";

const ALL: Facts = Facts {
    cpu: true,
    load: true,
    memory: true,
    disks: true,
    tasks: true,
    container_cpu: true,
    container_memory: true,
    cpu_pressure: true,
};

/// A host's trees, written by hand; gone when it is dropped.
struct Host {
    root: PathBuf,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Host {
    fn new() -> Host {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let host =
            Host { root: std::env::temp_dir().join(format!("onset-host-{}-{number}", std::process::id())) };
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (file, from) in [
            ("stat", "proc_stat/6.18"),
            ("loadavg", "loadavg/6.18"),
            ("meminfo", "meminfo/6.1"),
            ("diskstats", "diskstats/6.18"),
        ] {
            host.write(&format!("proc/{file}"), &fs::read(corpus.join(from)).expect("a corpus file"));
        }
        host.write("sys/devices/system/cpu/online", b"0-7\n");
        host.make("cgroup");
        host
    }

    fn v2() -> Host {
        let host = Host::new();
        host.write("cgroup/cgroup.controllers", b"cpuset cpu io memory pids\n");
        host
    }

    fn v1() -> Host {
        let host = Host::new();
        for controllers in ["cpu,cpuacct", "cpuset", "memory"] {
            host.make(&format!("cgroup/{controllers}"));
        }
        host
    }

    fn paths(&self) -> Paths {
        let below = |name: &str| self.root.join(name);
        Paths { proc: below("proc"), sys: below("sys"), cgroup: below("cgroup") }
    }

    fn open(&self) -> Reader {
        Reader::open(&self.paths(), 16).expect("a host")
    }

    fn make(&self, path: &str) {
        fs::create_dir_all(self.root.join(path)).expect("a folder");
    }

    fn remove(&self, path: &str) {
        fs::remove_dir_all(self.root.join(path)).expect("a folder");
    }

    fn write(&self, path: &str, text: &[u8]) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    /// A container of v2, with its files.
    fn v2_container(&self, path: &str) {
        let path = format!("cgroup{path}");
        self.write(&format!("{path}/cpu.stat"), include_bytes!("../../../../fuzz/corpus/cpu_stat/v2-6.12"));
        self.write(&format!("{path}/cpu.max"), b"max 100000\n");
        self.write(
            &format!("{path}/cpu.pressure"),
            b"some avg10=0.00 avg60=0.00 avg300=0.00 total=123456\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
        );
        self.write(
            &format!("{path}/memory.stat"),
            include_bytes!("../../../../fuzz/corpus/memory_stat/v2-6.1"),
        );
        self.write(&format!("{path}/memory.current"), b"50331648\n");
        self.write(&format!("{path}/memory.max"), b"max\n");
    }

    /// A container of v1, with its files in each hierarchy.
    fn v1_container(&self, path: &str) {
        let in_cpu = |file: &str| format!("cgroup/cpu,cpuacct{path}/{file}");
        self.write(&in_cpu("cpuacct.stat"), include_bytes!("../../../../fuzz/corpus/cpuacct_stat/6.18"));
        self.write(&in_cpu("cpuacct.usage"), b"270123456789\n");
        self.write(&in_cpu("cpu.stat"), include_bytes!("../../../../fuzz/corpus/cpu_stat/v1-6.18"));
        self.write(&in_cpu("cpu.cfs_quota_us"), b"-1\n");
        self.write(&in_cpu("cpu.cfs_period_us"), b"100000\n");
        self.write(&format!("cgroup/cpuset{path}/cpuset.effective_cpus"), b"0-3\n");
        self.v1_memory(path);
    }

    fn v1_memory(&self, path: &str) {
        let path = format!("cgroup/memory{path}");
        self.write(
            &format!("{path}/memory.stat"),
            include_bytes!("../../../../fuzz/corpus/memory_stat/v1-6.18"),
        );
        self.write(&format!("{path}/memory.usage_in_bytes"), b"58720256\n");
        self.write(&format!("{path}/memory.limit_in_bytes"), b"9223372036854771712\n");
    }
}

fn id(number: u32) -> String {
    format!("{number:064x}")
}

fn pod(number: u32) -> String {
    format!("/kubepods/burstable/pod{UID}/{}", id(number))
}

fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect("a folder"))
}

fn at(ms: u64) -> Now {
    let mono = crate::sys::now().mono + Duration::from_millis(ms);
    Now { mono, wall: Wall(0) }
}

fn reading(reader: &Reader, id: &str) -> Reading {
    let key = reader.containers().find(id).expect("it is there");
    let snapshot = reader.snapshot();
    *snapshot.readings.get(usize::from(key.slot)).expect("each slot has a reading")
}

fn ids(reader: &Reader) -> Vec<String> {
    let mut ids: Vec<_> = reader.containers().iter().map(|container| container.id().to_owned()).collect();
    ids.sort();
    ids
}
