//! A hundred containers are read, followed and looked through without one heap allocation.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use onset::clock::{Now, Wall};
use onset::host::Paths;
use onset::host::{Facts, Identity, NameReport, NameSource, Reader, Record, Scan, TaskLook, Text};

use crate::allocations;

struct Tree(PathBuf);

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Tree {
    fn container(&self, number: u32) -> PathBuf {
        self.0.join(format!("kubepods/burstable/pod{number:08x}/{number:064x}"))
    }

    fn make(&self, number: u32) {
        let folder = self.container(number);
        fs::create_dir_all(&folder).expect("a folder");
        for (file, text) in [
            ("cpu.stat", "usage_usec 3\nuser_usec 1\nsystem_usec 2\n"),
            ("cpu.max", "50000 100000\n"),
            ("memory.stat", "anon 4096\nfile 8192\n"),
            ("memory.current", "12288\n"),
            ("memory.max", "max\n"),
        ] {
            fs::write(folder.join(file), text).expect("a file");
        }
    }
}

#[test]
fn a_hundred_containers_cost_no_heap_allocation() {
    let tree = Tree(std::env::temp_dir().join(format!("onset-allocations-{}", std::process::id())));
    fs::create_dir_all(&tree.0).expect("a folder");
    fs::write(tree.0.join("cgroup.controllers"), "cpu memory\n").expect("a file");
    for number in 0..100 {
        tree.make(number);
    }
    let paths = Paths { proc: "/proc".into(), sys: "/sys".into(), cgroup: tree.0.clone() };
    let mut reader = Reader::open(&paths, 128).expect("a host");
    assert_eq!(reader.containers().len(), 100);
    let all = Facts {
        cpu: true,
        load: true,
        memory: true,
        disks: true,
        container_cpu: true,
        container_memory: true,
        ..Facts::NONE
    };
    let named = NameReport {
        identity: Identity { name: Text::cut(&"n".repeat(200)), ..Identity::UNKNOWN },
        by: NameSource::Runtime(Record { cgroup: Some("a.slice:b:c".into()), owner: 0, stamp: 1 }),
    };
    for turn in 0..60 {
        let now = Now { mono: Duration::from_secs(turn), wall: Wall(0) };
        // Five go and five come each turn, so that slots, watches and files are used again.
        let first = u32::try_from(turn).expect("small") * 5;
        for number in first..first + 5 {
            fs::remove_dir_all(tree.container(number).parent().unwrap_or(Path::new("/none"))).expect("gone");
            tree.make(number + 100);
        }
        // And a cgroup comes whose path is long and no text, and one that has another's id.
        let odd =
            tree.0.join(std::ffi::OsStr::from_bytes(b"odd-\xff")).join("x".repeat(200)).join("y".repeat(200));
        let user = |turn: u64| tree.0.join(format!("user@{turn}.service"));
        for folder in [&odd, &user(turn.saturating_sub(1))] {
            let _ = fs::remove_dir_all(folder);
        }
        for folder in [odd, user(turn).join(format!("docker-{:064x}.scope", first + 50))] {
            fs::create_dir_all(folder).expect("a folder");
        }
        let mut told = 0;
        let key = reader.containers().iter().next().expect("a hundred").key();
        let made = allocations(|| {
            assert!(reader.changed(now) == Scan::Whole);
            reader.read(all, now);
            reader.count_tasks(now, |_, _| TaskLook::Partial);
            reader.count_tasks(now, |_, _| TaskLook::Whole(now.mono));
            reader.changes(|_| told += 1);
            reader.learn(key, &named);
            assert!(reader.rescan(now) == Scan::Whole);
        });
        assert_eq!(made, 0, "in turn {turn}");
        // The one whose id is claimed is told of once more.
        assert_eq!(told, if turn == 0 { 105 } else { 11 });
        assert_eq!(reader.containers().len(), 100);
        let snapshot = reader.snapshot();
        assert_eq!(snapshot.each().filter(|(_, it)| it.cpu.is_some() && it.memory.is_some()).count(), 100);
    }
}
