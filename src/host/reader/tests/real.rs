//! Real cgroups, where this process may make some.

use super::*;

/// Cgroups on this very host, in each hierarchy that there is; gone when it is dropped.
struct RealGroups {
    hierarchies: Vec<PathBuf>,
    top: String,
}

impl RealGroups {
    /// `None` where this process may not make any.
    fn new(reader: &Reader) -> Option<RealGroups> {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = match reader.mode() {
            Mode::V2 => vec![reader.cgroup_id_root().to_owned()],
            Mode::V1 | Mode::Hybrid => {
                let mut all: Vec<_> = ["cpu", "cpuacct", "cpuset", "memory"]
                    .map(|name| root.join(name))
                    .into_iter()
                    .filter_map(|path| fs::canonicalize(path).ok())
                    .collect();
                all.dedup();
                all
            }
        };
        let groups = RealGroups { hierarchies, top: format!("onset-test-{}", std::process::id()) };
        groups.make("").then_some(groups)
    }

    fn make(&self, path: &str) -> bool {
        self.hierarchies.iter().all(|root| fs::create_dir_all(root.join(&self.top).join(path)).is_ok())
    }

    fn remove(&self) {
        for root in &self.hierarchies {
            remove_groups(&root.join(&self.top));
        }
    }

    fn write(&self, file: &str, text: &str) -> bool {
        let written = |root: &PathBuf| fs::write(root.join(&self.top).join(file), text).is_ok();
        self.hierarchies.iter().filter(|root| written(root)).count() > 0
    }
}

impl Drop for RealGroups {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Only the folders of a cgroup can be removed; the files go with them.
fn remove_groups(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

/// The inodes of the folders that are watched.
fn watched(reader: &Reader) -> Vec<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", reader.fd())).expect("an open descriptor");
    let inode = |line: &str| line.split_once(" ino:")?.1.split(' ').next().map(str::to_owned);
    info.lines().filter_map(inode).filter_map(|hex| u64::from_str_radix(&hex, 16).ok()).collect()
}

#[test]
fn a_real_cgroup_is_followed_read_and_forgotten() {
    let paths = Paths { proc: "/proc".into(), sys: "/sys".into(), cgroup: "/sys/fs/cgroup".into() };
    let Ok(mut reader) = Reader::open(&paths, 4096) else { return };
    let Some(groups) = RealGroups::new(&reader) else { return };
    assert_eq!(reader.changed(at(0)), Scan::Whole);
    let id = format!("{:064x}", std::process::id());
    let pod = format!("kubepods/pod{UID}");
    let container = format!("{pod}/{id}");
    let top = inode(&reader.cgroup_id_root().join(&groups.top));
    assert!(watched(&reader).contains(&top));
    assert!(groups.make(&container));
    assert_eq!(reader.changed(at(0)), Scan::Whole);
    let found = reader.containers().get(reader.containers().find(&id).expect("it is there"));
    assert_eq!(found.and_then(Container::qos), Some("guaranteed"));

    if reader.mode() != Mode::V2 {
        assert!(groups.write(&format!("{pod}/cpu.cfs_quota_us"), "20000"));
        assert!(groups.write(&format!("{pod}/memory.limit_in_bytes"), "67108864"));
        let joins: Vec<_> = groups
            .hierarchies
            .iter()
            .filter(|root| !root.ends_with("cpuset"))
            .map(|root| format!("echo $$ > {}/{}/{container}/cgroup.procs", root.display(), groups.top))
            .collect();
        let work = format!("{}; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done", joins.join(" && "));
        let done = std::process::Command::new("sh").arg("-c").arg(work).status().expect("a shell");
        assert!(done.success());
        reader.read(ALL, at(1));
        let read = reading(&reader, &id);
        assert_eq!(read.capacity_cores, Some(0.2), "the pod's quota");
        assert_eq!(read.memory.expect("read").limit_bytes, Some(64 << 20), "the pod's limit");
        let cpu = read.cpu.expect("read");
        assert!(cpu.total > Duration::from_millis(20), "{cpu:?}");
        assert!((cpu.user + cpu.system).abs_diff(cpu.total) < Duration::from_millis(40), "{cpu:?}");
        assert!(read.throttling.is_some());
    }

    remove_groups(&groups.hierarchies.first().expect("one").join(&groups.top).join("kubepods"));
    reader.read(ALL, at(2));
    assert_eq!(reader.snapshot().each().filter(|(it, _)| it.id() == id).count(), 1, "nobody has told yet");
    groups.remove();
    assert_eq!(reader.changed(at(3)), Scan::Whole);
    assert!(reader.containers().find(&id).is_err());
    assert!(!watched(&reader).contains(&top), "a cgroup that is gone keeps no watch");
    assert_eq!(reader.faults().unreadable + reader.faults().unparsable, 0, "cgroups that go are no fault");
}
