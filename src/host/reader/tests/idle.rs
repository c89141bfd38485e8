//! An idle container: what cannot have changed is read once a minute.

use super::*;

/// The files of one container that a test writes, under either version of cgroups.
struct Files<'h> {
    host: &'h Host,
    v2: bool,
}

impl Files<'_> {
    fn create(&self) {
        if self.v2 {
            self.host.v2_container(&pod(1));
            self.write("memory", "memory.max", format!("{}\n", 100 << 20));
        } else {
            self.host.v1_container(&pod(1));
        }
    }

    fn write(&self, controller: &str, file: &str, text: String) {
        let cgroup =
            if self.v2 { format!("cgroup{}", pod(1)) } else { format!("cgroup/{controller}{}", pod(1)) };
        self.host.write(&format!("{cgroup}/{file}"), text.as_bytes());
    }

    fn quota(&self, cores: u32) {
        match self.v2 {
            true => self.write("cpu,cpuacct", "cpu.max", format!("{cores}00000 100000\n")),
            false => self.write("cpu,cpuacct", "cpu.cfs_quota_us", format!("{cores}00000\n")),
        }
    }

    fn used(&self, ms: u32) {
        let stat = format!("usage_usec {ms}000\nuser_usec {ms}000\nsystem_usec 0\n");
        match self.v2 {
            true => self.write("cpu,cpuacct", "cpu.stat", stat),
            false => self.write("cpu,cpuacct", "cpuacct.usage", format!("{ms}000000\n")),
        }
    }

    fn anon(&self, mib: u64) {
        let v1 = format!("total_rss {}\nhierarchical_memory_limit {}\n", mib << 20, 100 << 20);
        let text = if self.v2 { format!("anon {}\n", mib << 20) } else { v1 };
        self.write("memory", "memory.stat", text);
    }

    fn usage(&self, mib: u64) {
        let file = if self.v2 { "memory.current" } else { "memory.usage_in_bytes" };
        self.write("memory", file, format!("{}\n", mib << 20));
    }
}

#[test]
fn quota_and_memory_of_an_idle_container_are_a_minute_old_at_most() {
    for v2 in [true, false] {
        let host = if v2 { Host::v2() } else { Host::v1() };
        let files = Files { host: &host, v2 };
        files.create();
        let mut reader = host.open();
        let start = at(0).mono.as_secs() / 60 * 60 + 120;
        let mut read = |seconds: u64| {
            reader.read(ALL, Now { mono: Duration::from_secs(start + seconds), wall: Wall(0) });
            let read = reading(&reader, &id(1));
            (read.capacity_cores, read.memory.map(|memory| memory.held.anon_bytes >> 20))
        };
        files.quota(1);
        files.used(7);
        files.anon(10);
        files.usage(50);
        assert_eq!(read(0), (Some(1.0), Some(10)));
        // Nothing was used, and its usage is the same.
        files.quota(2);
        files.anon(20);
        assert_eq!(read(10), (Some(1.0), Some(10)));
        files.used(8);
        assert_eq!(read(20), (Some(2.0), Some(10)), "it worked");
        files.usage(51);
        assert_eq!(read(30), (Some(2.0), Some(20)), "its usage is another");
        files.quota(3);
        files.anon(30);
        assert_eq!(read(50), (Some(2.0), Some(20)));
        assert_eq!(read(60), (Some(3.0), Some(30)), "a minute has passed");
        // At its limit page cache makes room for anonymous memory, and its usage stays.
        files.usage(90);
        assert_eq!(read(70), (Some(3.0), Some(30)));
        files.anon(40);
        assert_eq!(read(80), (Some(3.0), Some(40)), "at its limit");
    }
}
