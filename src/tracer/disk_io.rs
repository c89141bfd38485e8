//! The part of a document that holds block I/O: who did it to which files, so that the rows of a
//! device add up to all that it did, and the longest waits for it.

use std::io;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::detector::Completed;
use super::fields::{EventHead, Listed, Most, Truncated};
use super::profile::CAPTURED;
use super::{Data, Shrink};
use crate::capture_data::{CaptureKind, DeviceIo, DiskIo, FileIo, ProcessIo, Scope, Stall};
use crate::host::Containers;

pub use fields::FIELDS;
use rows::{Processes, Stalls};

mod fields;
mod rows;

/// Waits that one document tells of, the longest first.
const STALLS_MAX: usize = 10;

/// Devices that one document tells of: those around one are few.
const DEVICES_MAX: usize = 16;

/// How many rows are shown, and which waits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Processes of each device.
    pub processes: usize,
    /// Files of each process.
    pub files: usize,
    /// Waits that are shown are longer.
    pub stall: Duration,
}

/// An event of block I/O.
pub struct DiskEvent<'a, R> {
    head: EventHead,
    readings: R,
    io: &'a DiskIo<'a>,
    stalls: &'a [Stall<'a>],
    containers: &'a Containers,
    limits: Limits,
    lasted: Duration,
    /// Rows are all that there was, not one container's.
    whole: bool,
}

impl<'a, R> DiskEvent<'a, R> {
    /// Of what was found.
    pub fn new<T>(
        head: EventHead,
        readings: R,
        io: &'a DiskIo<'a>,
        completed: &Completed<'a, T>,
        limits: Limits,
    ) -> DiskEvent<'a, R> {
        // The longest come first.
        let long = io.stalls.iter().take_while(|stall| stall.blocked >= limits.stall).count();
        DiskEvent {
            head,
            readings,
            io,
            stalls: io.stalls.get(..long).unwrap_or_default(),
            containers: completed.containers,
            limits,
            lasted: completed.capture.lasted,
            whole: !matches!(completed.capture.scope, Scope::Container(_)),
        }
    }
}

/// What of it is written.
#[derive(Clone, Copy)]
struct View<'a> {
    devices: &'a [DeviceIo<'a>],
    processes: usize,
    files: usize,
    containers: &'a Containers,
    lasted: Duration,
    whole: bool,
}

impl<'a> View<'a> {
    fn shown(&self, device: &'a DeviceIo<'a>) -> &'a [ProcessIo<'a>] {
        first(&device.processes, self.processes)
    }

    fn files(&self, process: &'a ProcessIo<'a>) -> &'a [FileIo<'a>] {
        first(&process.files, self.files)
    }

    /// What is left out of the rows: processes of the devices that are shown, files of the processes that are shown.
    fn truncated(&self, io: &DiskIo, limits: Limits, shrink: Shrink) -> Truncated {
        let (mut processes, mut files) = (Listed::from(0), Listed::from(0));
        let mut kept = (0, 0);
        for device in self.devices {
            let shown = self.shown(device);
            processes = processes.and(Listed::from(&device.processes));
            files = shown.iter().fold(files, |files, process| files.and(Listed::from(&process.files)));
            kept.0 += shown.len();
            kept.1 += shown.iter().map(|process| self.files(process).len()).sum::<usize>();
        }
        // Where the document has room, each device and each process has as many as its key says.
        let own = |name, most| Most(name, if shrink.is_whole() { most } else { usize::MAX });
        Truncated::of(shrink, CaptureKind::Io)
            .and("device_io", &io.devices, Most("rows", DEVICES_MAX), self.devices.len())
            .and("process_file_io_stats", processes, own("top", limits.processes), kept.0)
            .and("process_file_io_stats.total_files", files, own("files", limits.files), kept.1)
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
    head: EventHead,
    #[serde(flatten)]
    readings: &'a R,
    #[serde(flatten)]
    truncated: Truncated,
    stalls_seen: usize,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    not_attached: &'a [&'static str],
    device_io: Devices<'a>,
    process_file_io_stats: Processes<'a>,
    io_schedule_timeout_stacks: Stalls<'a>,
}

impl<R: Serialize> Data for DiskEvent<'_, R> {
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
        let long = self.stalls.len().min(STALLS_MAX);
        let truncated = view.truncated(self.io, self.limits, shrink).and(
            "io_schedule_timeout_stacks",
            long,
            CAPTURED,
            stalls.len(),
        );
        serde_json::to_writer(
            to,
            &Body {
                head: self.head,
                readings: &self.readings,
                truncated,
                stalls_seen: self.stalls.len(),
                not_attached: self.io.not_attached,
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
            device: device.name,
            major: device.device.major,
            minor: device.device.minor,
            read_bps: device.read_bytes.map(|bytes| self.0.bps(bytes)),
            write_bps: device.write_bytes.map(|bytes| self.0.bps(bytes)),
        }))
    }
}
