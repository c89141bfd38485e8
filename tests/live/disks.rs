//! Disks that are slow by themselves, and a device mapped onto one: they are made of the kernel's own
//! test drivers, so these tests run in the VMs of `make lab` alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::rig::{Agent, Folder, KillOnDrop, SOON, await_that, command, done, lab, number, only, run, text};

const MADE: &str = "/sys/kernel/config/nullb/slow";

/// How long each of its requests takes.
const TAKES: Duration = Duration::from_millis(150);

/// A disk that keeps what is written to it in memory, and takes its time.
struct Slow {
    name: String,
}

impl Slow {
    fn new() -> Slow {
        let before = disks();
        fs::create_dir(MADE).unwrap();
        let slow = TAKES.as_nanos().to_string();
        // Megabytes; requests that a timer completes.
        for (file, value) in [
            ("size", "32"),
            ("memory_backed", "1"),
            ("irqmode", "2"),
            ("completion_nsec", &slow),
            ("power", "1"),
        ] {
            fs::write(Path::new(MADE).join(file), value).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
        let name =
            await_that("the slow disk", SOON, || disks().into_iter().find(|name| !before.contains(name)));
        Slow { name }
    }

    fn device(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = fs::write(Path::new(MADE).join("power"), "0");
        let _ = fs::remove_dir(MADE);
    }
}

fn disks() -> Vec<String> {
    let entries = fs::read_dir("/sys/block").unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A device that hands all that it gets on to another one.
struct Mapped {
    name: String,
}

impl Mapped {
    fn on(below: &Path) -> Mapped {
        let sectors = done(command("blockdev").arg("--getsz").arg(below));
        let table = format!("0 {} linear {} 0", sectors.trim(), below.display());
        done(command("dmsetup").args(["create", "lab", "--noudevsync", "--noudevrules", "--table", &table]));
        // Nobody there makes the link that has this name.
        let name = done(command("dmsetup").args(["info", "-c", "--noheadings", "-o", "blkdevname", "lab"]));
        Mapped { name: name.trim().to_owned() }
    }

    fn device(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        run(command("dmsetup").args(["remove", "--force", "--noudevsync", "--noudevrules", "lab"]));
    }
}

/// An ext4 on a device.
struct Mounted(PathBuf, #[allow(dead_code)] Folder);

impl Mounted {
    fn new(device: &Path) -> Mounted {
        let folder = Folder::new();
        let point = folder.0.join("mount");
        fs::create_dir(&point).unwrap();
        done(command("mkfs.ext4").args(["-q", "-E", "nodiscard"]).arg(device));
        done(command("mount").args(["-t", "ext4"]).arg(device).arg(&point));
        Mounted(point, folder)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run(command("umount").arg(&self.0));
    }
}

/// Writes 4 KiB to a file, past the cache, again and again.
fn writer(cgroup: &Cgroup, file: &Path) -> KillOnDrop {
    let words =
        "while :; do dd if=/dev/zero of=\"$0\" bs=4k count=1 oflag=direct conv=notrunc status=none; done";
    cgroup.start(command("sh").arg("-c").arg(words).arg(file))
}

/// Being busy is no reason here: util cannot pass 100 %.
fn agent() -> Agent {
    Agent::start(&only("iotracing", "every = \"1s\"\nutil_percent = 100\ncapture = \"3s\""))
}

fn event_of(agent: &Agent, disk: &str) -> Value {
    agent.event(&format!("an event of {disk}"), Duration::from_secs(60), |event| {
        event.pointer("/tracer_data/reason_snapshot/device").is_some_and(|device| *device == disk)
    })
}

/// What dd wrote to this file on this disk, in bytes a second.
fn written(event: &Value, disk: &str, cgroup: &Cgroup, file: &Path) -> f64 {
    let rows = event["tracer_data"]["process_file_io_stats"].as_array().unwrap();
    let mine = rows.iter().filter(|row| {
        row["device"] == disk && row["comm"] == "dd" && row["container_id"] == cgroup.id.as_str()
    });
    let files = mine.flat_map(|row| row["total_files"].as_array().unwrap());
    let same = files.filter(|row| row["path"] == file.to_str().unwrap());
    same.map(|row| row["disk_write_bps"].as_f64().unwrap()).sum()
}

#[test]
#[ignore = "it makes a disk: `make lab` runs it in VMs"]
fn a_slow_disk_is_reported_by_its_await_with_stacks_of_its_waiters() {
    lab();
    let cgroup = Cgroup::new("waiter");
    let slow = Slow::new();
    let mounted = Mounted::new(&slow.device());
    let file = mounted.0.join("file");
    let agent = agent();
    let _writer = writer(&cgroup, &file);
    let event = event_of(&agent, &slow.name);
    let status = &event["tracer_data"]["reason_snapshot"]["iostatus"];
    let least = TAKES.as_millis() as f64;
    assert!((0.95 * least..10.0 * least).contains(&number(status, "/write_await")), "{status}");
    assert!(written(&event, &slow.name, &cgroup, &file) > 0.0, "{event:#}");
    let stalls = event["tracer_data"]["io_schedule_timeout_stacks"].as_array().unwrap();
    // It may have waited for others, too.
    let mine = |stall: &&Value| {
        let stack = stall["stack"].to_string();
        stall["comm"] == "dd" && (stack.contains("iomap_dio") || stack.contains("ext4"))
    };
    let waiter = stalls.iter().find(mine).unwrap_or_else(|| panic!("{event:#}"));
    let waited = number(waiter, "/schedule_latency_us") / 1000.0;
    assert!((0.9 * least..10.0 * least).contains(&waited), "{waiter:#}");
    assert_eq!(agent.leave(), Some(0));
}

#[test]
#[ignore = "it makes disks: `make lab` runs it in VMs"]
fn io_of_a_device_mapper_device_belongs_to_the_same_file_on_the_disk_below() {
    lab();
    let cgroup = Cgroup::new("mapper");
    let below = Slow::new();
    let above = Mapped::on(&below.device());
    let mounted = Mounted::new(&above.device());
    let file = mounted.0.join("file");
    let agent = agent();
    let _writer = writer(&cgroup, &file);
    // Both are slow, and each is told with the other.
    for (disk, other) in [(&above.name, &below.name), (&below.name, &above.name)] {
        let event = event_of(&agent, disk);
        let devices = event["tracer_data"]["device_io"].as_array().unwrap();
        let mut told: Vec<&str> = devices.iter().map(|device| text(device, "/device")).collect();
        assert_eq!(told[0], disk, "it comes first");
        told.sort_unstable();
        let mut both = [&**disk, &**other];
        both.sort_unstable();
        assert_eq!(told, both, "{event:#}");
        let (own, others) = (written(&event, disk, &cgroup, &file), written(&event, other, &cgroup, &file));
        assert!(own > 0.0, "{event:#}");
        // One of them may be under way between the two when the capture ends.
        assert!((own - others).abs() <= 2.0 * 4096.0, "{own} on {disk}, {others} on {other}: {event:#}");
    }
    assert_eq!(agent.leave(), Some(0));
}
