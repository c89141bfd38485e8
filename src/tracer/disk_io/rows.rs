//! The rows: each process of a device with its files, what is left over of them, and the waits.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::View;
use crate::capture_data::{Beyond, Device, DeviceIo, FileIo, IoObject, ProcessIo, Stall};
use crate::host::{Containers, Key};

/// Bytes, and files that they are of.
#[derive(Clone, Copy, Default)]
struct Sum {
    fs_read: Option<u64>,
    fs_written: Option<u64>,
    read: u64,
    written: u64,
    files: usize,
    earlier: bool,
    shared: bool,
}

impl Sum {
    fn of<'f>(files: impl Iterator<Item = &'f FileIo<'f>>) -> Sum {
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
            shared: sum.shared || file.shared,
        })
    }
}

impl Sum {
    /// And what is known of no single file.
    fn and(self, beyond: Beyond) -> Sum {
        Sum {
            read: self.read.saturating_add(beyond.read_bytes),
            written: self.written.saturating_add(beyond.write_bytes),
            files: self.files.saturating_add(beyond.files),
            ..self
        }
    }
}

/// Past the page cache both are the same; from it, nobody counts what is read.
fn fs_read(file: &FileIo<'_>) -> Option<u64> {
    file.direct.then_some(file.read_bytes)
}

fn fs_written(file: &FileIo<'_>) -> Option<u64> {
    if file.direct { Some(file.write_bytes) } else { file.fs_write_bytes }
}

pub(super) struct Processes<'a>(pub(super) View<'a>);

#[derive(Serialize)]
struct ProcessRow<'a> {
    device: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    comm: &'a str,
    #[serde(flatten)]
    container: Inside<'a>,
    dirtied_earlier: bool,
    shared: bool,
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
        device: &'a DeviceIo<'a>,
        process: Option<&'a ProcessIo<'a>>,
        comm: &'a str,
        sum: Sum,
    ) -> ProcessRow<'a> {
        let view = self.0;
        let bps = |bytes: u64| view.bps(bytes);
        ProcessRow {
            device: device.name,
            pid: process.map(|process| process.pid),
            comm,
            container: Inside::of(process.and_then(|process| process.container), view.containers),
            dirtied_earlier: sum.earlier,
            shared: sum.shared,
            total_fs_read_bps: sum.fs_read.map(bps),
            total_fs_write_bps: sum.fs_written.map(bps),
            total_disk_read_bps: bps(sum.read),
            total_disk_write_bps: bps(sum.written),
            total_file_count: sum.files,
            total_files: Files(
                view,
                device.name,
                process.map(|process| view.files(process)).unwrap_or_default(),
            ),
        }
    }

    /// Processes that are not shown one by one, and files that the arena had no room for, as one row.
    fn others(&self, device: &'a DeviceIo<'a>) -> Option<ProcessRow<'a>> {
        let rest = device.processes.get(self.0.shown(device).len()..).unwrap_or_default();
        let sum = Sum::of(rest.iter().flat_map(|process| &process.files)).and(device.beyond);
        (!rest.is_empty() || device.beyond.files > 0).then(|| self.row(device, None, "[others]", sum))
    }

    /// What the device did and no row has: it was under way when the capture began, or was lost.
    fn unattributed(&self, device: &'a DeviceIo<'a>) -> Option<ProcessRow<'a>> {
        let seen = Sum::of(device.processes.iter().flat_map(|process| &process.files)).and(device.beyond);
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
            let shown = self.0.shown(device).iter().map(move |process| {
                self.row(device, Some(process), process.comm, Sum::of(process.files.iter()))
            });
            shown.chain(self.others(device)).chain(self.unattributed(device))
        }))
    }
}

struct Files<'a>(View<'a>, &'a str, &'a [FileIo<'a>]);

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
    shared: bool,
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
            let (filesystem, inode, path) = place(file.target);
            FileRow {
                major: filesystem.map(|device| device.major),
                minor: filesystem.map(|device| device.minor),
                dev_name,
                inode,
                path,
                is_direct: file.direct,
                dirtied_earlier: file.dirtied_earlier,
                shared: file.shared,
                fs_read_bps: fs_read(file).map(|bytes| view.bps(bytes)),
                fs_write_bps: fs_written(file).map(|bytes| view.bps(bytes)),
                disk_read_bps: view.bps(file.read_bytes),
                disk_write_bps: view.bps(file.write_bytes),
                in_flight: file.in_flight,
                q2c_us: micros(file.whole.average),
                d2c_us: micros(file.device.average),
                max_q2c_us: micros(file.whole.max),
                max_d2c_us: micros(file.device.max),
            }
        }))
    }
}

/// Where a file is: its filesystem, its inode, its path.
fn place(target: IoObject<'_>) -> (Option<Device>, Option<u64>, Option<&str>) {
    match target {
        IoObject::File(filesystem, inode, path) => (Some(filesystem), Some(inode), path),
        IoObject::Device(node) => (None, None, Some(node.unwrap_or("[metadata]"))),
        IoObject::Unknown => (None, None, Some("[unattributed]")),
    }
}

pub(super) struct Stalls<'a>(pub(super) &'a [Stall<'a>], pub(super) &'a Containers);

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
    stack: &'a [&'a str],
}

impl Serialize for Stalls<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|stall| StallRow {
            pid: stall.pid,
            tid: stall.tid,
            cpu: stall.cpu,
            comm: stall.comm,
            container: Inside::of(stall.container, self.1),
            in_iowait: stall.in_iowait,
            schedule_latency_us: micros(stall.blocked),
            stack: stall.stack,
        }))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
