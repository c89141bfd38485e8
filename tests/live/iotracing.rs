//! A saturated block device: fio on an ext4 on a loop device, in a cgroup that looks like a container.

use std::time::Duration;

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::frozen::{Disk, Stutter};
use crate::rig::{Agent, SOON, command, done, number, only, root, text};

fn rows<'v>(event: &'v Value, device: &str) -> Vec<&'v Value> {
    let all = event["tracer_data"]["process_file_io_stats"].as_array().unwrap();
    all.iter().filter(|row| row["device"] == device).collect()
}

fn sum(rows: &[&Value], field: &str) -> f64 {
    rows.iter().map(|row| row[field].as_f64().unwrap()).sum()
}

#[test]
fn a_saturated_device_is_reported_with_writers_files_and_waiters() {
    if !root("a saturated device") {
        return;
    }
    let cgroup = Cgroup::new("writer");
    let (disk, other) = (Disk::new(), Disk::new());
    let (busy, calm) = (disk.device(), other.device());
    let agent = Agent::start(&only(
        "iotracing",
        // On a busy machine a loop device waits for a CPU as well.
        "every = \"1s\"\nutil_percent = 50\ncapture = \"3s\"\nstall = \"10ms\"",
    ));
    let _fio = cgroup.start(&mut disk.saturate(60));
    let event = agent.event("an event of the device", Duration::from_secs(40), |event| {
        event.pointer("/tracer_data/reason_snapshot/device").is_some_and(|device| *device == busy.as_str())
    });
    assert_eq!(text(&event, "/tracer_type"), "autotracing");
    assert_eq!(text(&event, "/tracer_data/trigger"), "surge");
    assert_eq!(number(&event, "/tracer_data/lost_samples"), 0.0);
    assert!(event.get("container_id").is_none(), "it is about the device");
    let status = &event["tracer_data"]["reason_snapshot"]["iostatus"];
    assert!(status["write_iops"].as_f64() > Some(10.0), "{status}");

    let mine = rows(&event, &busy);
    let writers: Vec<_> = mine.iter().filter(|row| row["comm"] == "fio").collect();
    assert_eq!(writers.len(), 4, "{event:#}");
    for writer in &writers {
        assert_eq!(writer["container_id"], cgroup.id.as_str());
        // What ext4 wipes for its own sake belongs to no file.
        let files = writer["total_files"].as_array().unwrap().iter();
        let own = format!("{}/w.", disk.path().display());
        let files: Vec<_> = files.filter(|file| text(file, "/path").starts_with(&own)).collect();
        // With O_SYNC, what is written to the file is written to the disk at once.
        let to_disk: f64 = files.iter().map(|file| number(file, "/disk_write_bps")).sum();
        let fs = number(writer, "/total_fs_write_bps");
        assert!(fs > 0.0 && (fs - to_disk).abs() < 0.05 * fs, "{writer:#}");
        let file = files[0];
        assert_eq!((&file["is_direct"], &file["dirtied_earlier"]), (&false.into(), &false.into()));
        assert!(number(file, "/q2c_us") > 0.0 && number(file, "/max_q2c_us") >= number(file, "/q2c_us"));
    }
    let journal = mine.iter().find(|row| text(row, "/comm").starts_with("jbd2/")).expect("the journal");
    assert_eq!(journal["total_files"][0]["path"], "[metadata]");

    let told = event["tracer_data"]["device_io"].as_array().unwrap();
    assert_eq!(told[0]["device"], busy.as_str(), "it comes first");
    assert!(!told.iter().any(|device| device["device"] == calm.as_str()), "another disk is absent");
    let whole = number(&told[0], "/write_bps");
    assert!((sum(&mine, "total_disk_write_bps") - whole).abs() <= whole * 0.02, "{event:#}");
    let seen: Vec<&Value> = mine.into_iter().filter(|row| row["comm"] != "[unattributed]").collect();
    assert!((sum(&seen, "total_disk_write_bps") - whole).abs() <= whole * 0.02, "{event:#}");

    let page = agent.get("/metrics").1;
    assert!(page.contains(&format!("onset_disk_await_seconds{{device=\"{busy}\",op=\"write\"}}")), "{page}");
    assert!(
        agent.metric(&format!("onset_disk_util_ratio{{device=\"{busy}\"}}")).is_some_and(|util| util > 0.0)
    );
    let shown = done(&mut agent.onset(&["show", text(&event, "/tracer_id")]));
    assert!(shown.contains("process_file_io_stats") && shown.contains(&busy), "{shown}");
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn a_manual_iotracing_of_a_container_shows_only_its_files() {
    if !root("a wish") {
        return;
    }
    let cgroup = Cgroup::new("asked");
    let disk = Disk::new();
    let agent = Agent::start(&only("iotracing", "every = \"1h\""));
    let words = format!(
        "while :; do dd if=/dev/zero of={}/own bs=64k count=16 oflag=direct status=none; done",
        disk.path().display()
    );
    let _own = cgroup.start(command("sh").arg("-c").arg(&words));
    let _noise = crate::rig::start(command("sh").arg("-c").arg(words.replace("/own", "/noise")));
    let id = done(&mut agent.onset(&["trigger", "iotracing", "--container", &cgroup.id, "--seconds", "2"]));
    let event = agent.event("the event", SOON, |event| event["tracer_id"] == id.trim());
    assert_eq!((text(&event, "/tracer_type"), text(&event, "/container_id")), ("manual", &*cgroup.id));
    let all = event["tracer_data"]["process_file_io_stats"].as_array().unwrap();
    let files: Vec<_> = all.iter().flat_map(|row| row["total_files"].as_array().unwrap()).collect();
    let own = disk.path().join("own");
    assert!(files.iter().any(|file| file["path"] == own.to_str().unwrap()), "{event:#}");
    assert!(!files.iter().any(|file| text(file, "/path").ends_with("/noise")), "{event:#}");
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn a_slow_disk_is_reported_by_its_await_with_stacks_of_the_waiting_tasks() {
    if !root("a slow disk") {
        return;
    }
    let cgroup = Cgroup::new("waiter");
    let below = Disk::new();
    let disk = Disk::on(&below);
    let slow = disk.device();
    // Being busy is no reason here: util cannot pass 100 %.
    let agent = Agent::start(&only("iotracing", "every = \"1s\"\nutil_percent = 100\ncapture = \"3s\""));
    let words = format!(
        "while :; do dd if=/dev/zero of={}/slow bs=4k count=1 oflag=direct conv=notrunc status=none; sleep 0.05; done",
        disk.path().display()
    );
    let _writer = cgroup.start(command("sh").arg("-c").arg(&words));
    // The last one made, so that it is the first to end.
    let stutter = Stutter::of(&below);
    let event = agent.event("an event of the slow disk", Duration::from_secs(40), |event| {
        event.pointer("/tracer_data/reason_snapshot/device").is_some_and(|device| *device == slow.as_str())
    });
    drop(stutter);
    let status = &event["tracer_data"]["reason_snapshot"]["iostatus"];
    assert!(status["write_await"].as_f64() > Some(100.0), "{status}");
    let stalls = event["tracer_data"]["io_schedule_timeout_stacks"].as_array().unwrap();
    // It may have waited for others, too.
    let mine = |stall: &&Value| {
        let stack = stall["stack"].to_string();
        stall["comm"] == "dd" && (stack.contains("iomap_dio") || stack.contains("ext4"))
    };
    let waiter = stalls.iter().find(mine).unwrap_or_else(|| panic!("{event:#}"));
    let waited = number(waiter, "/schedule_latency_us");
    assert!((100_000.0..2_000_000.0).contains(&waited), "{waiter:#}");
    assert_eq!(agent.leave(), Some(0));
}
