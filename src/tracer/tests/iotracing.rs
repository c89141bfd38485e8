//! iotracing: devices that are saturated or slow, told by who uses them.

use super::*;
use crate::capture_data::{Beyond, Device, DeviceIo, DiskIo, FileIo, IoObject, Latency, ProcessIo, Stall};
use crate::host::Disk;
use crate::tracer::play::Host;

mod counters;
mod nvme;

const FIVE: Duration = Duration::from_secs(5);

const SDA: Device = Device { major: 8, minor: 0 };

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn file(target: IoObject<'static>, read: u64, write: u64) -> FileIo<'static> {
    FileIo {
        target,
        direct: false,
        dirtied_earlier: false,
        shared: false,
        fs_write_bytes: None,
        read_bytes: read,
        write_bytes: write,
        finished: 4,
        in_flight: 1,
        whole: Latency { average: ms(2), max: ms(7) },
        device: Latency { average: ms(1), max: ms(3) },
    }
}

fn process(pid: u32, files: Vec<FileIo<'static>>) -> ProcessIo<'static> {
    let files = rows(files);
    ProcessIo { pid, comm: "dd", container: Some(Play::key(0)), files }
}

fn stall(tid: u32, blocked: Duration) -> Stall<'static> {
    Stall {
        pid: 7,
        tid,
        cpu: 1,
        comm: "dd",
        container: Some(Play::key(0)),
        blocked,
        in_iowait: true,
        stack: &["io_schedule", "vfs_write"],
    }
}

/// What a capture brings in these stories: ten seconds, in which a device wrote 1,000,000 bytes.
pub(super) fn found() -> DiskIo<'static> {
    let own = IoObject::File(SDA, 12, Some("/data/file"));
    let direct = FileIo { direct: true, ..file(own, 100_000, 500_000) };
    let cached = FileIo { fs_write_bytes: Some(200_000), dirtied_earlier: true, ..file(own, 0, 300_000) };
    let journal = ProcessIo {
        pid: 2,
        comm: "jbd2",
        container: None,
        files: rows([file(IoObject::Device(None), 0, 100_000)]),
    };
    let device = DeviceIo {
        device: SDA,
        name: "sda",
        read_bytes: Some(100_000),
        write_bytes: Some(1_000_000),
        processes: rows([process(7, vec![direct, cached]), journal]),
        beyond: Beyond::default(),
    };
    let stalls = rows([stall(8, ms(1500)), stall(9, ms(99))]);
    DiskIo { devices: rows([device]), stalls, not_attached: &[] }
}

/// A device that did so much until now.
fn disk(name: &str) -> Disk {
    let mut bytes = [0; 32];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Disk {
        major: 8,
        minor: 0,
        name: bytes,
        reads: 1000,
        read_bytes: 1 << 30,
        read_time: FIVE,
        writes: 1000,
        write_bytes: 1 << 30,
        write_time: FIVE,
        in_flight: 0,
        busy: FIVE,
        queued: FIVE,
    }
}

fn start(config: &str) -> Play {
    let mut play = Play::new("iotracing", &format!("[tracer.iotracing]\n{config}"), SIZE);
    play.containers(&[("a", "/a")]);
    play
}

fn tick(play: &mut Play, disks: &[Disk]) {
    play.pass(FIVE);
    play.tick(&Host { disks: Some(disks.to_vec()), ..Host::default() }, &[]);
}

/// Five seconds of this use.
#[derive(Clone, Copy, Default)]
struct Use {
    busy_ms: u64,
    reads: u64,
    read_ms: u64,
    read_mib: u64,
    writes: u64,
    write_ms: u64,
    write_mib: u64,
}

fn spend(disk: &mut Disk, used: Use) {
    disk.busy += ms(used.busy_ms);
    disk.reads += used.reads;
    disk.read_time += ms(used.read_ms);
    disk.read_bytes += used.read_mib << 20;
    disk.writes += used.writes;
    disk.write_time += ms(used.write_ms);
    disk.write_bytes += used.write_mib << 20;
    disk.queued += ms(used.read_ms + used.write_ms);
}

/// A device with a reading behind it, and then these samples.
fn watching(config: &str, name: &str, samples: &[Use]) -> (Play, Disk) {
    let (mut play, mut disk) = (start(config), disk(name));
    tick(&mut play, &[disk]);
    for used in samples {
        spend(&mut disk, *used);
        tick(&mut play, &[disk]);
    }
    (play, disk)
}

const CALM: Use =
    Use { busy_ms: 500, reads: 10, read_ms: 50, read_mib: 1, writes: 10, write_ms: 50, write_mib: 1 };

#[test]
fn it_fires_exactly_where_its_rules_say() {
    let busy = Use { busy_ms: 4505, ..CALM };
    let slow_reads = Use { reads: 10, read_ms: 1001, ..CALM };
    let slow_writes = Use { writes: 10, write_ms: 1001, ..CALM };
    for (name, used, reason) in [
        ("sda", busy, Some("io_util")),
        ("sda", Use { busy_ms: 4500, ..CALM }, None), // is at 90 %
        ("sda", slow_reads, Some("read_await")),
        ("sda", Use { read_ms: 1000, ..CALM }, None), // is at 100 ms
        ("sda", slow_writes, Some("write_await")),
        ("sda", Use { write_ms: 1000, ..CALM }, None),
        ("sda", Use { reads: 0, read_ms: 5000, ..CALM }, None), // of none
        ("nvme0n1", busy, None),
        ("nvme0n1", Use { read_mib: 10_001, ..busy }, Some("io_util")),
        ("nvme0n1", Use { read_mib: 10_000, ..busy }, None), // is at 2000 MiB/s
        ("nvme0n1", Use { write_mib: 7501, ..busy }, Some("io_util")),
        ("nvme0n1", Use { write_mib: 7500, ..busy }, None),
        ("nvme0n1", Use { write_mib: 7501, ..CALM }, None), // is not busy
        ("nvme0n1", slow_writes, Some("write_await")),
    ] {
        let (mut play, _) = watching("", name, &[CALM, used]);
        assert_eq!(play.seen.asked, [], "one sample of {name}");
        let (mut twice, _) = watching("", name, &[CALM, used, used]);
        assert_eq!(answer_all(&mut play), []);
        assert_eq!(answer_all(&mut twice).len(), usize::from(reason.is_some()), "{name} {reason:?}");
        if let Some(reason) = reason {
            assert_eq!(twice.seen.asked[0].scope, Scope::Device(SDA));
            assert_eq!(twice.seen.events[0].1["tracer_data"]["reason_snapshot"]["type"], reason);
        }
    }
}

#[test]
fn an_event_says_why_and_its_rows_add_up_to_what_the_device_did() {
    let used =
        Use { busy_ms: 4900, reads: 5, read_ms: 50, read_mib: 5, writes: 50, write_ms: 6250, write_mib: 10 };
    let (mut play, _) = watching("", "sda", &[used, used]);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    let file = |direct: bool, earlier: bool, disk_read: u64, disk_write: u64| {
        serde_json::json!({
            "major": 8, "minor": 0, "dev_name": "sda", "inode": 12, "path": "/data/file", "is_direct": direct,
            "dirtied_earlier": earlier, "shared": false, "fs_write_bps": if direct { 50_000 } else { 20_000 },
            "disk_read_bps": disk_read, "disk_write_bps": disk_write, "in_flight": 1,
            "q2c_us": 2000, "d2c_us": 1000, "max_q2c_us": 7000, "max_d2c_us": 3000,
        })
    };
    let mut direct = file(true, false, 10_000, 50_000);
    direct["fs_read_bps"] = 10_000.into();
    let want = serde_json::json!({
        "trigger": "surge", "duration_ms": 10_000, "capture_began_ms": -25_000, "lost_samples": 3, "truncated": 0, "stalls_seen": 1,
        "reason_snapshot": {
            "type": "io_util", "device": "sda", "major_num": 8, "minor_num": 0,
            "iostatus": {
                "read_bps": 1 << 20, "read_iops": 1.0, "read_await": 10.0,
                "write_bps": 2 << 20, "write_iops": 10.0, "write_await": 125.0,
                "io_util": 98.0, "queue_size": 1.26,
            },
            "summary": "sda was busy for 98.0 % of the time; 1 reads/s, 1.0 MiB/s, 10.0 ms each; \
                        10 writes/s, 2.0 MiB/s, 125.0 ms each; past the limit of 90 %",
        },
        "device_io": [{ "device": "sda", "major": 8, "minor": 0, "read_bps": 10_000, "write_bps": 100_000 }],
        "process_file_io_stats": [
            { "device": "sda", "pid": 7, "comm": "dd", "container_id": "a", "dirtied_earlier": true, "shared": false,
              "total_fs_read_bps": 10_000, "total_fs_write_bps": 70_000,
              "total_disk_read_bps": 10_000, "total_disk_write_bps": 80_000, "total_file_count": 2,
              "total_files": [direct, file(false, true, 0, 30_000)] },
            { "device": "sda", "pid": 2, "comm": "jbd2", "dirtied_earlier": false, "shared": false,
              "total_disk_read_bps": 0, "total_disk_write_bps": 10_000, "total_file_count": 1,
              "total_files": [{
                  "dev_name": "sda", "path": "[metadata]", "is_direct": false, "dirtied_earlier": false, "shared": false,
                  "disk_read_bps": 0, "disk_write_bps": 10_000, "in_flight": 1,
                  "q2c_us": 2000, "d2c_us": 1000, "max_q2c_us": 7000, "max_d2c_us": 3000,
              }] },
            { "device": "sda", "comm": "[unattributed]", "dirtied_earlier": false, "shared": false,
              "total_disk_read_bps": 0, "total_disk_write_bps": 10_000, "total_file_count": 0, "total_files": [] },
        ],
        "io_schedule_timeout_stacks": [
            { "pid": 7, "tid": 8, "cpu": 1, "comm": "dd", "container_id": "a", "in_iowait": true,
              "schedule_latency_us": 1_500_000, "stack": ["io_schedule", "vfs_write"] },
        ],
    });
    assert_eq!(play.seen.events[0].1["tracer_data"], want);
    assert!(play.seen.events[0].1.get("container_id").is_none(), "it is about a device");
}

#[test]
fn what_is_beyond_the_limits_is_one_row_so_that_all_add_up_still() {
    let mut play = start("top = 2\nfiles = 1");
    let ticket = play.ask(None).expect("a capture");
    let one = |inode| file(IoObject::File(SDA, inode, None), 0, 1000);
    let device = DeviceIo {
        write_bytes: Some(10_000),
        processes: rows((0..5).map(|pid| process(pid, vec![one(1), one(2)]))),
        ..found().devices[0]
    };
    let stalls = rows((0..30).map(|tid| stall(tid, ms(1000 - u64::from(tid)))));
    let data = CaptureData::Io(DiskIo { devices: rows([device]), stalls, not_attached: &[] });
    let capture = Capture { data, ..capture(CaptureKind::Io, Scope::Host) };
    assert_eq!(play.answer(ticket, Ok(&capture)), Some(Trigger::Manual));
    let data = &play.seen.events[0].1["tracer_data"];
    let rows = data["process_file_io_stats"].as_array().expect("rows");
    let comms: Vec<_> = rows.iter().map(|row| row["comm"].as_str().expect("a name")).collect();
    assert_eq!(comms, ["dd", "dd", "[others]", "[unattributed]"]);
    let written: u64 = rows.iter().filter_map(|row| row["total_disk_write_bps"].as_u64()).sum();
    assert_eq!(written, 1000);
    assert_eq!((&rows[2]["total_file_count"], &rows[0]["total_file_count"]), (&6.into(), &2.into()));
    assert_eq!(rows[0]["total_files"].as_array().map(Vec::len), Some(1));
    assert_eq!(data["truncated"], 2 + 3, "files of the processes that are told, and the other processes");
    assert_eq!(data["io_schedule_timeout_stacks"].as_array().map(Vec::len), Some(10));
    assert_eq!(data["stalls_seen"], 30);
}

#[test]
fn rows_that_are_left_out_are_counted_in_the_list_that_leaves_them_out() {
    // Devices, processes of each and files of each process; the lists that are not whole, and their limits.
    for (devices, processes, files, want) in [
        (16_u32, 2, 1, serde_json::json!(null)),
        (17, 2, 1, serde_json::json!([["device_io", 1, "rows", 16]])),
        (1, 3, 1, serde_json::json!([["process_file_io_stats", 1, "top", 2]])),
        (1, 2, 2, serde_json::json!([["process_file_io_stats.total_files", 2, "files", 1]])),
    ] {
        let mut play = start("top = 2\nfiles = 1");
        let ticket = play.ask(None).expect("a capture");
        let device = |major| DeviceIo {
            device: Device { major, minor: 0 },
            processes: rows((0..processes).map(|pid| {
                process(pid, (0..files).map(|it| file(IoObject::File(SDA, it, None), 0, 1)).collect())
            })),
            ..found().devices[0]
        };
        let devices = rows((0..devices).map(device));
        let data = CaptureData::Io(DiskIo { devices, stalls: Rows::default(), not_attached: &[] });
        let capture = Capture { data, ..capture(CaptureKind::Io, Scope::Host) };
        assert_eq!(play.answer(ticket, Ok(&capture)), Some(Trigger::Manual));
        let lists = play.seen.events[0].1["tracer_data"].get("truncated_lists").map(|lists| {
            let parts = |list: &serde_json::Value| {
                serde_json::json!([list["list"], list["left_out"], list["limited_by"], list["limit"]])
            };
            lists.as_array().expect("a list").iter().map(parts).collect::<Vec<_>>()
        });
        assert_eq!(serde_json::json!(lists), want);
    }
}

#[test]
fn partitions_ram_and_devices_without_use_are_passed_over() {
    let mut play = start("");
    let unused = Disk { reads: 0, writes: 0, ..disk("sdc") };
    let ram = Disk { major: 1, ..disk("ram0") };
    let mut disks = [disk("sda"), disk("sda1"), Disk { minor: 16, ..disk("sdb") }, unused, ram];
    for _ in 0..4 {
        tick(&mut play, &disks);
        disks.iter_mut().for_each(|disk| disk.busy += FIVE);
    }
    let scopes: Vec<Scope> = play.seen.asked.iter().map(|request| request.scope).collect();
    assert_eq!(
        scopes,
        [Scope::Device(SDA), Scope::Device(Device { major: 8, minor: 16 })],
        "both in one tick"
    );
    let page = play.scrape();
    let util: Vec<&str> = page.lines().filter(|line| line.starts_with("onset_disk_util_ratio{")).collect();
    assert_eq!(util, ["onset_disk_util_ratio{device=\"sda\"} 1", "onset_disk_util_ratio{device=\"sdb\"} 1"]);
}

#[test]
fn its_metrics_are_of_the_last_sample_and_go_with_the_device() {
    let (mut play, _) =
        watching("", "sda", &[Use { busy_ms: 1250, reads: 10, read_ms: 25, ..Use::default() }]);
    let page = play.scrape();
    assert!(page.contains("onset_disk_util_ratio{device=\"sda\"} 0.25\n"), "{page}");
    assert!(page.contains("onset_disk_await_seconds{device=\"sda\",op=\"read\"} 0.0025\n"), "{page}");
    assert!(!page.contains("op=\"write\""), "there was none: {page}");
    tick(&mut play, &[]);
    assert!(!play.scrape().contains("device="), "it is gone");
}

#[test]
fn each_device_has_a_cooldown_of_its_own_and_a_level_that_held_is_told_after_it() {
    let busy = Use { busy_ms: 5000, ..CALM };
    let (mut play, mut one) = watching("cooldown = \"60s\"", "sda", &[busy, busy]);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    let mut two = Disk { minor: 16, ..disk("sdb") };
    for _ in 0..3 {
        spend(&mut one, busy);
        spend(&mut two, busy);
        tick(&mut play, &[one, two]);
    }
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)], "the other one's");
    assert_eq!(play.seen.asked[1].scope, Scope::Device(Device { major: 8, minor: 16 }));
    for _ in 0..9 {
        spend(&mut one, busy);
        tick(&mut play, &[one]);
    }
    assert_eq!(answer_all(&mut play), [Some(Trigger::Sustained)]);
}

#[test]
fn a_device_that_hangs_is_told_though_nothing_was_seen() {
    let hung = Use { busy_ms: 5000, ..Use::default() };
    let (mut play, _) = watching("", "sda", &[hung, hung]);
    let ticket = play.seen.open[0].0;
    let nothing =
        Capture { data: CaptureData::Io(DiskIo::default()), ..capture(CaptureKind::Io, Scope::Device(SDA)) };
    assert_eq!(play.answer(ticket, Ok(&nothing)), Some(Trigger::Surge));
    let status = &play.seen.events[0].1["tracer_data"]["reason_snapshot"]["iostatus"];
    assert!(status.get("read_await").is_none() && status["io_util"] == 100.0, "{status}");
}

#[test]
fn who_asks_gets_the_busiest_device_or_all_or_one_containers_use() {
    let mut play = start("");
    play.ask(None).expect("a capture");
    let mut disks = [disk("sda"), Disk { minor: 16, ..disk("sdb") }];
    tick(&mut play, &disks);
    spend(&mut disks[0], CALM);
    spend(&mut disks[1], Use { busy_ms: 600, ..CALM });
    tick(&mut play, &disks);
    play.ask(None).expect("a capture");
    play.ask(Some(Play::key(0))).expect("a capture");
    let scopes: Vec<Scope> = play.seen.asked.iter().map(|request| request.scope).collect();
    let busiest = Scope::Device(Device { major: 8, minor: 16 });
    assert_eq!(scopes, [Scope::Host, busiest, Scope::Container(Play::key(0))]);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Manual); 3]);
    let data = |index: usize| &play.seen.events[index].1["tracer_data"];
    assert_eq!(data(1)["reason_snapshot"]["type"], "manual");
    assert!(data(0).get("reason_snapshot").is_none() && data(2).get("reason_snapshot").is_none());
    assert_eq!(play.seen.events[2].1["container_id"], "a");
    let comms = |index: usize| data(index)["process_file_io_stats"].as_array().map(Vec::len);
    assert_eq!((comms(1), comms(2)), (Some(3), Some(2)), "a container's rows are not all there are");
}

#[test]
fn files_that_the_arena_had_no_room_for_are_in_the_row_of_all_others() {
    let mut play = Play::new("iotracing", "", SIZE);
    let ticket = play.ask(None).expect("a capture");
    let whole = found().devices[0];
    let beyond = Beyond { files: 11, read_bytes: 70_000, write_bytes: 50_000 };
    let device = DeviceIo {
        processes: whole.processes.with_left_out(4),
        read_bytes: whole.read_bytes.map(|bytes| bytes + 70_000),
        write_bytes: whole.write_bytes.map(|bytes| bytes + 50_000),
        beyond,
        ..whole
    };
    let data =
        CaptureData::Io(DiskIo { devices: rows([device]), stalls: Rows::default(), not_attached: &[] });
    let capture = Capture { data, ..capture(CaptureKind::Io, Scope::Host) };
    assert_eq!(play.answer(ticket, Ok(&capture)), Some(Trigger::Manual));
    let data = &play.seen.events[0].1["tracer_data"];
    let rows = data["process_file_io_stats"].as_array().expect("rows");
    let others = rows.iter().find(|row| row["comm"] == "[others]").expect("what is left out");
    assert_eq!((&others["total_file_count"], &others["total_disk_read_bps"]), (&11.into(), &7000.into()));
    assert_eq!(others["total_disk_write_bps"], 5000);
    // Ten seconds: what all rows did is what the device did.
    let sum = |key: &str| rows.iter().filter_map(|row| row[key].as_u64()).sum::<u64>();
    assert_eq!(Some(sum("total_disk_read_bps") * 10), device.read_bytes);
    assert_eq!(data["truncated_lists"][0]["limited_by"], "arena");
}
