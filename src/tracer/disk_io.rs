//! The part of a document that holds block I/O: who did it to which files, so that the rows of a
//! device add up to all that it did, and the longest waits for it.

use std::io;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::fields::{Head, field};
use super::judge::Found;
use super::{Data, Field, FieldKind, Shrink};
use crate::evidence::{Device, DeviceIo, DiskIo, FileIo, ProcessIo, Scope, Stall, Target};
use crate::host::{Containers, Key};

/// The longest waits are told, so many.
const STALLS_MAX: usize = 10;

/// Devices that one document tells of: those around one are few.
const DEVICES_MAX: usize = 16;

const P: FieldKind = FieldKind::Long;

/// What it adds to a document.
pub const FIELDS: [Field; 42] = [
    field("process_file_io_stats.device", FieldKind::Keyword, "The device; the one that fired comes first"),
    field("process_file_io_stats.pid", P, "Process id on the host; most bytes first"),
    field(
        "process_file_io_stats.comm",
        FieldKind::Keyword,
        "Name of the process; [others]: the rest of them; [unattributed]: what nobody was seen to do",
    ),
    field("process_file_io_stats.container_id", FieldKind::Keyword, "Its container"),
    field("process_file_io_stats.container_hostname", FieldKind::Keyword, "Host name inside the container"),
    field(
        "process_file_io_stats.dirtied_earlier",
        FieldKind::Boolean,
        "Whether it writes what someone else made dirty before the capture",
    ),
    field("process_file_io_stats.total_fs_read_bps", P, "Bytes a second read from filesystems, where known"),
    field(
        "process_file_io_stats.total_fs_write_bps",
        P,
        "Bytes a second written to filesystems, where known",
    ),
    field("process_file_io_stats.total_disk_read_bps", P, "Bytes a second read from the device"),
    field("process_file_io_stats.total_disk_write_bps", P, "Bytes a second written to the device"),
    field("process_file_io_stats.total_file_count", P, "Files, those left out included"),
    field("process_file_io_stats.total_files.major", P, "Number of the filesystem's device"),
    field("process_file_io_stats.total_files.minor", P, "Number of the filesystem's device"),
    field("process_file_io_stats.total_files.dev_name", FieldKind::Keyword, "The device that it went to"),
    field("process_file_io_stats.total_files.inode", P, "The file's inode"),
    field(
        "process_file_io_stats.total_files.path",
        FieldKind::Keyword,
        "Its path with its mount point; [metadata]: the filesystem's own, its journal included",
    ),
    field("process_file_io_stats.total_files.is_direct", FieldKind::Boolean, "Past the page cache"),
    field(
        "process_file_io_stats.total_files.dirtied_earlier",
        FieldKind::Boolean,
        "Made dirty before the capture, so by whom is not known",
    ),
    field("process_file_io_stats.total_files.fs_read_bps", P, "Bytes a second read from the filesystem"),
    field("process_file_io_stats.total_files.fs_write_bps", P, "Bytes a second written to the filesystem"),
    field("process_file_io_stats.total_files.disk_read_bps", P, "Bytes a second read from the device"),
    field("process_file_io_stats.total_files.disk_write_bps", P, "Bytes a second written to the device"),
    field("process_file_io_stats.total_files.in_flight", P, "Requests still under way at the end"),
    field("process_file_io_stats.total_files.q2c_us", P, "From the queue to the end, on average"),
    field("process_file_io_stats.total_files.d2c_us", P, "From the device to the end, on average"),
    field("process_file_io_stats.total_files.max_q2c_us", P, "The longest from the queue to the end"),
    field("process_file_io_stats.total_files.max_d2c_us", P, "The longest from the device to the end"),
    field("device_io.device", FieldKind::Keyword, "Name of a device; the one that fired comes first"),
    field("device_io.major", P, "Its driver's number"),
    field("device_io.minor", P, "Its own number"),
    field("device_io.read_bps", P, "Bytes a second that it read meanwhile, of diskstats"),
    field("device_io.write_bps", P, "Bytes a second that it wrote meanwhile, of diskstats"),
    field("io_schedule_timeout_stacks.pid", P, "Process id on the host; longest wait first"),
    field("io_schedule_timeout_stacks.tid", P, "Thread id on the host"),
    field("io_schedule_timeout_stacks.cpu", P, "The CPU that it was last on"),
    field("io_schedule_timeout_stacks.comm", FieldKind::Keyword, "Name of the thread"),
    field("io_schedule_timeout_stacks.container_id", FieldKind::Keyword, "Its container"),
    field("io_schedule_timeout_stacks.container_hostname", FieldKind::Keyword, "Host name inside it"),
    field("io_schedule_timeout_stacks.in_iowait", FieldKind::Boolean, "Whether its wait counts as iowait"),
    field("io_schedule_timeout_stacks.schedule_latency_us", P, "How long it waited, in microseconds"),
    field("io_schedule_timeout_stacks.stack", FieldKind::Keyword, "Its kernel frames, innermost first"),
    field("stalls_seen", P, "Waits over the limit, those left out included"),
];

/// How many rows are told, and which waits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Processes of each device.
    pub processes: usize,
    /// Files of each process.
    pub files: usize,
    /// Waits that are told are longer.
    pub stall: Duration,
}

/// An event of block I/O.
pub struct Told<'a, R> {
    head: Head,
    readings: R,
    io: &'a DiskIo,
    stalls: &'a [Stall],
    containers: &'a Containers,
    limits: Limits,
    lasted: Duration,
    /// Rows are all that there was, not one container's.
    whole: bool,
}

impl<'a, R> Told<'a, R> {
    /// Of what was found.
    pub fn new<T>(
        head: Head,
        readings: R,
        io: &'a DiskIo,
        found: &Found<'a, T>,
        limits: Limits,
    ) -> Told<'a, R> {
        // The longest come first.
        let long = io.stalls.iter().take_while(|stall| stall.blocked >= limits.stall).count();
        Told {
            head,
            readings,
            io,
            stalls: io.stalls.get(..long).unwrap_or_default(),
            containers: found.containers,
            limits,
            lasted: found.capture.lasted,
            whole: !matches!(found.capture.scope, Scope::Container(_)),
        }
    }
}

/// What of it is written.
#[derive(Clone, Copy)]
struct View<'a> {
    devices: &'a [DeviceIo],
    processes: usize,
    files: usize,
    containers: &'a Containers,
    lasted: Duration,
    whole: bool,
}

impl<'a> View<'a> {
    fn told(&self, device: &'a DeviceIo) -> &'a [ProcessIo] {
        first(&device.processes, self.processes)
    }

    fn files(&self, process: &'a ProcessIo) -> &'a [FileIo] {
        first(&process.files, self.files)
    }

    /// Rows that are not written.
    fn truncated(&self, io: &DiskIo) -> usize {
        let all = |device: &DeviceIo| {
            1 + device.processes.iter().map(|process| 1 + process.files.len()).sum::<usize>()
        };
        let written = |device: &DeviceIo| {
            let told = first(&device.processes, self.processes).iter();
            1 + told.map(|process| 1 + first(&process.files, self.files).len()).sum::<usize>()
        };
        io.devices.iter().map(all).sum::<usize>() - self.devices.iter().map(written).sum::<usize>()
    }

    fn bps(&self, bytes: u64) -> u64 {
        let nanos = self.lasted.as_nanos().max(1);
        u64::try_from(u128::from(bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
    }
}

fn first<T>(list: &[T], most: usize) -> &[T] {
    list.get(..most).unwrap_or(list)
}

#[derive(Serialize)]
struct Body<'a, R> {
    #[serde(flatten)]
    head: Head,
    #[serde(flatten)]
    readings: &'a R,
    truncated: usize,
    stalls_seen: usize,
    device_io: Devices<'a>,
    process_file_io_stats: Processes<'a>,
    io_schedule_timeout_stacks: Stalls<'a>,
}

impl<R: Serialize> Data for Told<'_, R> {
    fn write(&self, shrink: Shrink, to: &mut dyn io::Write) -> serde_json::Result<()> {
        let DiskIo { devices, .. } = self.io;
        let view = View {
            devices: first(devices, shrink.keep(devices.len().min(DEVICES_MAX))),
            processes: shrink.keep(self.limits.processes),
            files: shrink.keep(self.limits.files),
            containers: self.containers,
            lasted: self.lasted,
            whole: self.whole,
        };
        let stalls = first(self.stalls, shrink.keep(self.stalls.len().min(STALLS_MAX)));
        serde_json::to_writer(
            to,
            &Body {
                head: self.head,
                readings: &self.readings,
                truncated: view.truncated(self.io) + self.stalls.len().min(STALLS_MAX) - stalls.len(),
                stalls_seen: self.stalls.len(),
                device_io: Devices(view),
                process_file_io_stats: Processes(view),
                io_schedule_timeout_stacks: Stalls(stalls, self.containers),
            },
        )
    }
}

struct Devices<'a>(View<'a>);

#[derive(Serialize)]
struct DeviceRow<'a> {
    device: &'a str,
    major: u32,
    minor: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_bps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_bps: Option<u64>,
}

impl Serialize for Devices<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.devices.iter().map(|device| DeviceRow {
            device: &device.name,
            major: device.device.major,
            minor: device.device.minor,
            read_bps: device.read_bytes.map(|bytes| self.0.bps(bytes)),
            write_bps: device.write_bytes.map(|bytes| self.0.bps(bytes)),
        }))
    }
}

/// Bytes, and files that they are of.
#[derive(Clone, Copy, Default)]
struct Sum {
    fs_read: Option<u64>,
    fs_written: Option<u64>,
    read: u64,
    written: u64,
    files: usize,
    earlier: bool,
}

impl Sum {
    fn of<'f>(files: impl Iterator<Item = &'f FileIo>) -> Sum {
        let more = |sum: Option<u64>, bytes: Option<u64>| match (sum, bytes) {
            (Some(sum), Some(bytes)) => Some(sum.saturating_add(bytes)),
            (sum, bytes) => sum.or(bytes),
        };
        files.fold(Sum::default(), |sum, file| Sum {
            fs_read: more(sum.fs_read, fs_read(file)),
            fs_written: more(sum.fs_written, fs_written(file)),
            read: sum.read.saturating_add(file.read_bytes),
            written: sum.written.saturating_add(file.write_bytes),
            files: sum.files.saturating_add(1),
            earlier: sum.earlier || file.dirtied_earlier,
        })
    }
}

/// Past the page cache both are the same; from it, nobody counts what is read.
fn fs_read(file: &FileIo) -> Option<u64> {
    file.direct.then_some(file.read_bytes)
}

fn fs_written(file: &FileIo) -> Option<u64> {
    if file.direct { Some(file.write_bytes) } else { file.fs_write_bytes }
}

struct Processes<'a>(View<'a>);

#[derive(Serialize)]
struct ProcessRow<'a> {
    device: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    comm: &'a str,
    #[serde(flatten)]
    container: Inside<'a>,
    dirtied_earlier: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_fs_read_bps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_fs_write_bps: Option<u64>,
    total_disk_read_bps: u64,
    total_disk_write_bps: u64,
    total_file_count: usize,
    total_files: Files<'a>,
}

/// The container of a row.
#[derive(Clone, Copy, Default, Serialize)]
struct Inside<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    container_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_hostname: Option<&'a str>,
}

impl<'a> Inside<'a> {
    fn of(key: Option<Key>, containers: &'a Containers) -> Inside<'a> {
        let Some(container) = key.and_then(|key| containers.get(key)) else { return Inside::default() };
        let hostname = container.hostname();
        Inside {
            container_id: Some(container.id()),
            container_hostname: (!hostname.is_empty()).then_some(hostname),
        }
    }
}

impl<'a> Processes<'a> {
    fn row(
        &self,
        device: &'a DeviceIo,
        process: Option<&'a ProcessIo>,
        comm: &'a str,
        sum: Sum,
    ) -> ProcessRow<'a> {
        let view = self.0;
        let bps = |bytes: u64| view.bps(bytes);
        ProcessRow {
            device: &device.name,
            pid: process.map(|process| process.pid),
            comm,
            container: Inside::of(process.and_then(|process| process.container), view.containers),
            dirtied_earlier: sum.earlier,
            total_fs_read_bps: sum.fs_read.map(bps),
            total_fs_write_bps: sum.fs_written.map(bps),
            total_disk_read_bps: bps(sum.read),
            total_disk_write_bps: bps(sum.written),
            total_file_count: sum.files,
            total_files: Files(
                view,
                &device.name,
                process.map(|process| view.files(process)).unwrap_or_default(),
            ),
        }
    }

    /// Processes that are not told one by one, as one row.
    fn others(&self, device: &'a DeviceIo) -> Option<ProcessRow<'a>> {
        let rest = device.processes.get(self.0.told(device).len()..).unwrap_or_default();
        let sum = Sum::of(rest.iter().flat_map(|process| &process.files));
        (!rest.is_empty()).then(|| self.row(device, None, "[others]", sum))
    }

    /// What the device did and no row has: it was under way when the capture began, or was lost.
    fn unattributed(&self, device: &'a DeviceIo) -> Option<ProcessRow<'a>> {
        let seen = Sum::of(device.processes.iter().flat_map(|process| &process.files));
        let sum = Sum {
            read: device.read_bytes?.saturating_sub(seen.read),
            written: device.write_bytes?.saturating_sub(seen.written),
            ..Sum::default()
        };
        (self.0.whole && sum.read.saturating_add(sum.written) > 0)
            .then(|| self.row(device, None, "[unattributed]", sum))
    }
}

impl Serialize for Processes<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.devices.iter().flat_map(|device| {
            let told = self.0.told(device).iter().map(move |process| {
                self.row(device, Some(process), &process.comm, Sum::of(process.files.iter()))
            });
            told.chain(self.others(device)).chain(self.unattributed(device))
        }))
    }
}

struct Files<'a>(View<'a>, &'a str, &'a [FileIo]);

#[derive(Serialize)]
struct FileRow<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    major: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    minor: Option<u32>,
    dev_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    inode: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    is_direct: bool,
    dirtied_earlier: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fs_read_bps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fs_write_bps: Option<u64>,
    disk_read_bps: u64,
    disk_write_bps: u64,
    in_flight: u64,
    q2c_us: u64,
    d2c_us: u64,
    max_q2c_us: u64,
    max_d2c_us: u64,
}

impl Serialize for Files<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Files(view, dev_name, files) = *self;
        to.collect_seq(files.iter().map(|file| {
            let (filesystem, inode, path) = place(&file.target);
            FileRow {
                major: filesystem.map(|device| device.major),
                minor: filesystem.map(|device| device.minor),
                dev_name,
                inode,
                path,
                is_direct: file.direct,
                dirtied_earlier: file.dirtied_earlier,
                fs_read_bps: fs_read(file).map(|bytes| view.bps(bytes)),
                fs_write_bps: fs_written(file).map(|bytes| view.bps(bytes)),
                disk_read_bps: view.bps(file.read_bytes),
                disk_write_bps: view.bps(file.write_bytes),
                in_flight: file.in_flight,
                q2c_us: micros(file.whole.average),
                d2c_us: micros(file.device.average),
                max_q2c_us: micros(file.whole.most),
                max_d2c_us: micros(file.device.most),
            }
        }))
    }
}

/// Where a file is: its filesystem, its inode, its path.
fn place(target: &Target) -> (Option<Device>, Option<u64>, Option<&str>) {
    match target {
        Target::File(filesystem, inode, path) => (Some(*filesystem), Some(*inode), path.as_deref()),
        Target::Device(node) => (None, None, Some(node.as_deref().unwrap_or("[metadata]"))),
        Target::Unknown => (None, None, Some("[unattributed]")),
    }
}

struct Stalls<'a>(&'a [Stall], &'a Containers);

#[derive(Serialize)]
struct StallRow<'a> {
    pid: u32,
    tid: u32,
    cpu: u32,
    comm: &'a str,
    #[serde(flatten)]
    container: Inside<'a>,
    in_iowait: bool,
    schedule_latency_us: u64,
    stack: &'a [Box<str>],
}

impl Serialize for Stalls<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|stall| StallRow {
            pid: stall.pid,
            tid: stall.tid,
            cpu: stall.cpu,
            comm: &stall.comm,
            container: Inside::of(stall.container, self.1),
            in_iowait: stall.in_iowait,
            schedule_latency_us: micros(stall.blocked),
            stack: &stall.stack,
        }))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
