//! A written tree of cgroup v2, with as many containers as wanted; their files are of a real kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use onset::clock::{Now, Wall};
use onset::host::Paths;
use onset::host::{Facts, Reader, TaskLook, TaskSample, TaskState};

/// All that is read of a container.
pub const OF_CONTAINERS: Facts =
    Facts { container_cpu: true, container_memory: true, cpu_pressure: true, ..Facts::NONE };

/// The folder and the reader over it.
pub struct Tree {
    root: PathBuf,
    pub reader: Reader,
    turn: u64,
}

/// A real file of the parsers' corpora.
pub fn corpus(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn folder(root: &Path, number: usize) -> PathBuf {
    let id = format!("{:032x}{number:032x}", 0x9f1f_8a52_u32);
    root.join(format!("kubepods/burstable/pod{number:08x}-8e51-4f0a-9c1f-0d6f5f1d2a3b/{id}"))
}

fn container(root: &Path, number: usize) {
    let folder = folder(root, number);
    fs::create_dir_all(&folder).expect("a folder");
    for (file, text) in [
        ("cpu.stat", corpus("cpu_stat/v2-6.12")),
        ("cpu.max", b"50000 100000\n".to_vec()),
        ("cpuset.cpus.effective", b"0-3\n".to_vec()),
        ("cpu.pressure", corpus("pressure/cpu-5.10")),
        ("memory.stat", corpus("memory_stat/v2-6.1")),
        ("memory.current", b"50331648\n".to_vec()),
        ("memory.max", b"268435456\n".to_vec()),
    ] {
        fs::write(folder.join(file), text).expect("a file");
    }
}

impl Tree {
    /// One of so many containers.
    pub fn new(scratch: &Path, count: usize) -> Tree {
        let root = scratch.join(format!("cgroup-{count}"));
        fs::create_dir_all(&root).expect("a folder");
        fs::write(root.join("cgroup.controllers"), "cpuset cpu io memory pids\n").expect("a file");
        (0..count).for_each(|number| container(&root, number));
        let paths = Paths { proc: "/proc".into(), sys: "/sys".into(), cgroup: root.clone() };
        let reader = Reader::open(&paths, count.next_power_of_two()).expect("a host");
        assert_eq!(reader.containers().len(), count, "all are found");
        // A new container's files are looked at whatever it does, for a while.
        Tree { root, reader, turn: onset::sys::now().mono.as_secs() / 10 + 10 }
    }

    /// The next sampling, ten seconds on, of all files: as if each container had worked.
    pub fn read(&mut self, facts: Facts) -> Now {
        self.reader.forget();
        self.idle(facts)
    }

    /// The same, where no container did anything since the last one.
    pub fn idle(&mut self, facts: Facts) -> Now {
        self.turn += 1;
        let now = self.now();
        self.reader.read(facts, now);
        now
    }

    fn now(&self) -> Now {
        Now { mono: Duration::from_secs(self.turn * 10), wall: Wall(1_795_452_413_007) }
    }

    /// Each container has worked, waited and grown since it was last read, each as it does.
    pub fn works(&self) {
        for number in 0..self.reader.containers().len() {
            let folder = folder(&self.root, number);
            let used = self.turn * 1_000_003 + number as u64 * 7001 * self.turn;
            let stat = format!(
                "usage_usec {used}\nuser_usec {}\nsystem_usec {}\nnr_periods {}\nnr_throttled {}\nthrottled_usec {}\n",
                used / 3 * 2,
                used / 3,
                self.turn * 100,
                self.turn * 9,
                used / 11
            );
            let stall = format!("some avg10=0.00 avg60=0.00 avg300=0.00 total={}\n", used / 13);
            let memory = format!("anon {}\nfile 8192\n", 1_000_000 + used % 65_536 * 64);
            for (file, text) in [("cpu.stat", stat), ("cpu.pressure", stall), ("memory.stat", memory)] {
                fs::write(folder.join(file), text).expect("a file");
            }
        }
    }

    /// Some tasks in each container, as the look at all tasks finds them.
    pub fn count_tasks(&mut self) {
        let now = self.now();
        let _ = self.reader.count_tasks(now, |containers, count| {
            for container in containers.iter() {
                for (state, seconds) in [(TaskState::Running, 0), (TaskState::Uninterruptible, 2)] {
                    let blocked = Duration::from_secs(seconds);
                    count(TaskSample { container: Some(container.key()), state, blocked, in_iowait: false });
                }
            }
            TaskLook::Whole(now.mono)
        });
    }
}
