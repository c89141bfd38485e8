//! NVMe devices of several paths.

use super::*;

/// A path of an nvme, which the kernel hides.
fn path(name: &str) -> Disk {
    Disk { major: 0, minor: 0, ..disk(name) }
}

const HEAD: Device = Device { major: 259, minor: 1 };

fn head(counted: bool) -> Disk {
    let head = Disk { major: HEAD.major, minor: HEAD.minor, ..disk("nvme0n1") };
    let nothing = Duration::ZERO;
    let uncounted = Disk { reads: 0, read_bytes: 0, writes: 0, write_bytes: 0, ..head };
    let uncounted =
        Disk { read_time: nothing, write_time: nothing, busy: nothing, queued: nothing, ..uncounted };
    if counted { head } else { uncounted }
}

#[test]
fn an_nvme_of_several_paths_is_told_by_its_head_with_the_rates_of_its_paths() {
    let mut play = start("");
    let mut disks = [path("nvme0c0n1"), path("nvme0c1n1"), head(false)];
    for _ in 0..3 {
        tick(&mut play, &disks);
        spend(
            &mut disks[0],
            Use { busy_ms: 4900, reads: 100, read_ms: 2000, read_mib: 8000, ..Use::default() },
        );
        spend(
            &mut disks[1],
            Use { busy_ms: 1000, reads: 50, read_ms: 1000, read_mib: 4000, ..Use::default() },
        );
    }
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)], "one of them alone reads less than the limit");
    assert_eq!(play.seen.asked[0].scope, Scope::Device(HEAD));
    let snap = &play.seen.events[0].1["tracer_data"]["reason_snapshot"];
    assert_eq!(
        (&snap["device"], &snap["major_num"], &snap["minor_num"], &snap["paths"]),
        (&"nvme0n1".into(), &259.into(), &1.into(), &2.into()),
        "{snap}"
    );
    let status = &snap["iostatus"];
    assert_eq!((&status["read_bps"], &status["read_iops"]), (&(2400_u64 << 20).into(), &30.0.into()));
    assert_eq!((&status["read_await"], &status["io_util"]), (&20.0.into(), &98.0.into()), "of the busiest");
    assert!(snap["summary"].as_str().is_some_and(|said| said.contains("its 2 hidden paths")), "{snap}");
    let page = play.scrape();
    let util: Vec<&str> = page.lines().filter(|line| line.starts_with("onset_disk_util_ratio{")).collect();
    assert_eq!(util, ["onset_disk_util_ratio{device=\"nvme0n1\"} 0.98"], "under one name");
}

#[test]
fn an_nvme_that_counts_for_itself_is_not_counted_twice() {
    let mut play = start("");
    let used = Use { busy_ms: 2500, reads: 100, read_ms: 2000, read_mib: 500, ..Use::default() };
    let mut disks = [head(true), path("nvme0c0n1")];
    for _ in 0..2 {
        tick(&mut play, &disks);
        disks.iter_mut().for_each(|disk| spend(disk, used));
    }
    play.ask(None).expect("a capture");
    assert_eq!(answer_all(&mut play), [Some(Trigger::Manual)]);
    let snap = &play.seen.events[0].1["tracer_data"]["reason_snapshot"];
    assert_eq!(
        (&snap["device"], &snap["iostatus"]["read_bps"]),
        (&"nvme0n1".into(), &(100_u64 << 20).into())
    );
    assert!(snap.get("paths").is_none(), "{snap}");
}

#[test]
fn a_hidden_device_of_nobody_known_is_told_without_numbers_and_all_are_captured() {
    let mut play = start("");
    let mut lone = path("nvme7c0n1");
    for _ in 0..3 {
        tick(&mut play, &[lone, head(true)]);
        spend(&mut lone, Use { reads: 1, read_ms: 5000, ..Use::default() });
    }
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    assert_eq!(play.seen.asked[0].scope, Scope::Host);
    let snap = &play.seen.events[0].1["tracer_data"]["reason_snapshot"];
    assert!(snap["device"] == "nvme7c0n1" && snap.get("major_num").is_none(), "{snap}");
}
