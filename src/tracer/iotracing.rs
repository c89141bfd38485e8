//! iotracing: a block device that is saturated or slow. Judged by /proc/diskstats, two samples in
//! a row; told with who reads and writes which files on it, and where tasks wait for it.

use std::time::Duration;

use super::detector::{Completed, Detector, DetectorTracer, EventSink, Sampler};
use super::disk_io::{self, DiskEvent, Limits as RowLimits};
use super::disk_rates::{Limits, MIB, Name, Passed, Rates, Readings, Reason, Sample, Snap, is_partition};
use super::fields::{COMMON, EventHead, all, field};
use super::trigger::{Trigger, TriggerState};
use super::{Capacity, Field, FieldKind, Settings, Spec};
use crate::capture_data::{CaptureData, CaptureKind, Device, Scope};
use crate::clock::Now;
use crate::host::{Disk, Facts, Key, Snapshot, Watched};
use crate::knob::{Knob, Value};
use crate::metric::{Metric, MetricKind, Scrape};

/// Devices that are watched at once; a host with more has its first ones watched.
const DEVICES_MAX: usize = 512;

/// Samples in a row that make a surge: one alone may be a single large write.
const IN_A_ROW: u32 = 2;

/// The major number of RAM disks, which nobody waits for.
const RAM: u32 = 1;

const UTIL: Metric = Metric {
    name: "onset_disk_util_ratio",
    help: "Share of the time since the sample before in which the device had requests in flight.",
    kind: MetricKind::Gauge,
    labels: &["device"],
};

const AWAIT: Metric = Metric {
    name: "onset_disk_await_seconds",
    help: "Average time that requests took since the sample before, waiting in the queue included.",
    kind: MetricKind::Gauge,
    labels: &["device", "op"],
};

/// The tracer.
pub const SPEC: Spec = Spec {
    name: "iotracing",
    about: "Block devices that are saturated or slow, and who uses them",
    facts: Facts { disks: true, ..Facts::NONE },
    captures: &[CaptureKind::Io],
    containers: true,
    hook: None,
    pressure: None,
    every: Duration::from_secs(5),
    knobs: &[
        Knob {
            key: "util_percent",
            default: Value::Number(90.0),
            about: "A surge is a device that is busy for more of the time, two samples in a row ...",
        },
        Knob {
            key: "nvme_read_mib",
            default: Value::Number(2000.0),
            about: "... and, if it is an nvme, reads more MiB in a second than this ...",
        },
        Knob { key: "nvme_write_mib", default: Value::Number(1500.0), about: "... or writes more," },
        Knob {
            key: "await",
            default: Value::Time(
                Duration::from_millis(100),
                Duration::from_millis(1),
                Duration::from_secs(3600),
            ),
            about: "or whose reads or writes take longer on average",
        },
        Knob {
            key: "stall",
            default: Value::Time(
                Duration::from_millis(100),
                Duration::from_millis(10),
                Duration::from_secs(60),
            ),
            about: "Tasks that wait for longer are shown with their stacks",
        },
        Knob { key: "top", default: Value::Count(10, 1, 1000), about: "Processes shown of each device" },
        Knob { key: "files", default: Value::Count(5, 1, 1000), about: "Files shown of each process" },
    ],
    metrics: &[UTIL, AWAIT],
    fields: &FIELDS,
    build,
};

const FIELDS: [Field; COMMON.len() + OWN.len() + disk_io::FIELDS.len()] =
    all(&[&COMMON, &OWN, &disk_io::FIELDS]);

const OWN: [Field; 14] = [
    field("reason_snapshot.type", FieldKind::Keyword, "What fired: io_util, read_await, write_await; manual"),
    field("reason_snapshot.device", FieldKind::Keyword, "The device"),
    field("reason_snapshot.major_num", FieldKind::Long, "Its driver's number"),
    field("reason_snapshot.minor_num", FieldKind::Long, "Its own number"),
    field(
        "reason_snapshot.paths",
        FieldKind::Long,
        "Hidden paths of it whose counts were added up, for the kernel counts nothing of the device itself; io_util is the busiest one's",
    ),
    field("reason_snapshot.iostatus.read_bps", FieldKind::Long, "Bytes read in a second"),
    field("reason_snapshot.iostatus.read_iops", FieldKind::Double, "Reads in a second"),
    field(
        "reason_snapshot.iostatus.read_await",
        FieldKind::Double,
        "Average time of a read, in milliseconds",
    ),
    field("reason_snapshot.iostatus.write_bps", FieldKind::Long, "Bytes written in a second"),
    field("reason_snapshot.iostatus.write_iops", FieldKind::Double, "Writes in a second"),
    field(
        "reason_snapshot.iostatus.write_await",
        FieldKind::Double,
        "Average time of a write, in milliseconds",
    ),
    field("reason_snapshot.iostatus.io_util", FieldKind::Double, "Time with requests in flight, in percent"),
    field("reason_snapshot.iostatus.queue_size", FieldKind::Double, "Requests in flight on average"),
    field("reason_snapshot.summary", FieldKind::Text, "The same in words, with the limits"),
];

fn build(settings: &Settings, _: Capacity) -> Box<dyn super::Tracer> {
    let (limits, row_limits, shortest) = rules(settings);
    let detector = Iotracing { limits, row_limits, shortest, disks: Vec::with_capacity(DEVICES_MAX) };
    Box::new(DetectorTracer::new(detector, settings))
}

/// The limits, how many rows are shown, and the shortest sample.
fn rules(settings: &Settings) -> (Limits, RowLimits, Duration) {
    let values = settings.values();
    let limits = Limits {
        util_percent: values.number("util_percent"),
        nvme_read: values.number("nvme_read_mib") * MIB,
        nvme_write: values.number("nvme_write_mib") * MIB,
        slow: values.time("await"),
    };
    let row_limits =
        RowLimits { processes: values.len("top"), files: values.len("files"), stall: values.time("stall") };
    (limits, row_limits, settings.every() / 2)
}

struct Iotracing {
    limits: Limits,
    row_limits: RowLimits,
    /// A sample of less time than this is more noise than use.
    shortest: Duration,
    disks: Vec<Subject>,
}

/// What is remembered of a device.
#[derive(Debug)]
struct Subject {
    name: Name,
    /// `None`: the kernel hides it.
    device: Option<Device>,
    trigger_state: TriggerState,
    baseline: Option<(Duration, Disk)>,
    /// What passed until this tick, and in which time.
    passed: Option<(Passed, Duration)>,
    rates: Option<Rates>,
    /// Samples in a row that were past a limit.
    in_a_row: u32,
    /// It is in the last snapshot.
    present: bool,
}

/// Its numbers, if it has any.
fn device_of(disk: &Disk) -> Option<Device> {
    (!disk.is_hidden()).then_some(Device { major: disk.major, minor: disk.minor })
}

/// Whether it ever had a request.
fn is_used(disk: &Disk) -> bool {
    disk.reads > 0 || disk.writes > 0 || disk.in_flight > 0
}

/// Disks that can be saturated: whole ones, and not of memory.
fn whole_disks(disks: &[Disk]) -> impl Iterator<Item = &Disk> {
    let mut whole = "";
    disks.iter().filter(move |disk| {
        if is_partition(disk.name(), whole) {
            return false;
        }
        whole = disk.name();
        disk.major != RAM && !whole.is_empty()
    })
}

impl Subject {
    fn new(name: Name, device: Option<Device>) -> Subject {
        let trigger_state = TriggerState::default();
        let (baseline, passed, rates) = (None, None, None);
        Subject { name, device, trigger_state, baseline, passed, rates, in_a_row: 0, present: true }
    }

    /// It is not in this snapshot. What became of its capture and its quiet is remembered: it may
    /// come again.
    fn leave(&mut self) {
        (self.baseline, self.passed, self.rates, self.in_a_row) = (None, None, None, 0);
    }

    /// Takes a reading in, if enough time passed.
    fn take(&mut self, now: Duration, disk: &Disk, shortest: Duration) {
        self.passed = None;
        let before = self.baseline.filter(|(at, _)| now >= *at);
        if before.is_some_and(|(at, _)| now - at < shortest) {
            return;
        }
        self.baseline = Some((now, *disk));
        self.passed = before.map(|(at, before)| (Passed::between(&before, disk), now - at));
        self.rates = None;
    }

    fn sample(&self, reason: Reason) -> Option<Sample> {
        Some(Sample { name: self.name, device: self.device, rates: self.rates?, reason })
    }
}

impl Iotracing {
    /// The subject that this device is. `None`: there is no room for another.
    fn subject(&mut self, disk: &Disk) -> Option<&mut Subject> {
        let name = Name::cut(disk.name());
        let device = device_of(disk);
        let known = self.disks.iter().position(|subject| *subject.name == *name);
        let place = match known {
            Some(place) => place,
            None if self.disks.len() < DEVICES_MAX => {
                self.disks.push(Subject::new(name, device));
                self.disks.len() - 1
            }
            None => {
                let gone = self.disks.iter().position(|subject| !subject.present)?;
                *self.disks.get_mut(gone)? = Subject::new(name, device);
                gone
            }
        };
        let subject = self.disks.get_mut(place)?;
        if subject.device != device {
            // Another one came under this name.
            subject.device = device;
            subject.leave();
        }
        subject.present = true;
        Some(subject)
    }

    /// What passed on the hidden paths of a device, all together, in which time, and how many they are.
    fn on_paths(&self, head: &str) -> Option<(Passed, Duration, u32)> {
        let paths = self.disks.iter().filter(|subject| {
            subject.device.is_none() && subject.baseline.is_some_and(|(_, disk)| disk.is_path_of(head))
        });
        paths.filter_map(|path| path.passed).fold(None, |sum, (passed, elapsed)| match sum {
            None => Some((passed, elapsed, 1)),
            Some((before, longest, count)) => Some((before.and(passed), elapsed.max(longest), count + 1)),
        })
    }

    /// Until Linux 6.1 an nvme with several paths counts nothing itself.
    fn rates(&self, disk: &Disk, own: Option<(Passed, Duration)>) -> Option<Rates> {
        let own_rates = || own.map(|(passed, elapsed)| Rates::of(passed, elapsed, 0));
        if own.is_some_and(|(passed, _)| passed.is_use()) || !disk.name().starts_with("nvme") {
            return own_rates();
        }
        match self.on_paths(disk.name()).filter(|(passed, ..)| passed.is_use()) {
            Some((passed, elapsed, paths)) => Some(Rates::of(passed, elapsed, paths)),
            None => own_rates(),
        }
    }

    fn judge(&mut self, disk: &Disk, sampler: &mut Sampler<'_, '_, Option<Sample>>) {
        let Some(own) = self.subject(disk).map(|subject| subject.passed) else { return };
        let (limits, rates) = (self.limits, self.rates(disk, own));
        let (Some(subject), Some(rates)) = (self.subject(disk), rates) else { return };
        subject.rates = Some(rates);
        let reason = limits.passed(&subject.name, &rates);
        // What is not known was not calm.
        if reason.is_none() && !rates.whole {
            return;
        }
        subject.in_a_row = if reason.is_some() { subject.in_a_row.saturating_add(1) } else { 0 };
        let edge = (subject.in_a_row == IN_A_ROW).then_some(Trigger::Surge);
        let sample = subject.sample(reason.unwrap_or(Reason::Manual));
        sampler.sample(&mut subject.trigger_state, None, edge, reason.is_some(), sample);
    }
}

impl Detector for Iotracing {
    type Readings = Option<Sample>;
    const CAPTURE: CaptureKind = CaptureKind::Io;

    fn reconfigure(&mut self, settings: &Settings) {
        (self.limits, self.row_limits, self.shortest) = rules(settings);
    }

    fn scope(subject: Option<Key>, sample: &Option<Sample>) -> Scope {
        match (subject, sample) {
            (Some(key), _) => Scope::Container(key),
            // The sample is of a hidden path to a device that is not known, or there is no sample.
            (None, Some(Sample { device: None, .. }) | None) => Scope::Host,
            (None, Some(Sample { device: Some(device), .. })) => Scope::Device(*device),
        }
    }

    fn tick(&mut self, now: Now, snapshot: &Snapshot<'_>, sampler: &mut Sampler<'_, '_, Option<Sample>>) {
        let Some(disks) = snapshot.disks else { return };
        self.disks.iter_mut().for_each(|subject| subject.present = false);
        let shortest = self.shortest;
        for disk in whole_disks(disks).filter(|disk| is_used(disk)) {
            if let Some(subject) = self.subject(disk) {
                subject.take(now.mono, disk, shortest);
            }
        }
        let hidden = disks.iter().any(Disk::is_hidden);
        let any = |is: &dyn Fn(&Disk) -> bool| hidden && whole_disks(disks).any(is);
        for disk in whole_disks(disks) {
            let headed = disk.is_hidden() && any(&|head| disk.is_path_of(head.name()));
            if !headed && (is_used(disk) || any(&|path| path.is_path_of(disk.name()))) {
                self.judge(disk, sampler);
            }
        }
        self.disks.iter_mut().filter(|subject| !subject.present).for_each(Subject::leave);
    }

    /// Who asks of the host gets its busiest device, or all if none is known yet.
    fn readings(&self, subject: Option<Key>) -> Option<Sample> {
        if subject.is_some() {
            return None;
        }
        let samples = self.disks.iter().filter_map(|subject| subject.sample(Reason::Manual));
        let busy = |sample: &Sample| {
            let Rates { read, write, util, .. } = sample.rates;
            let bytes = read.bytes.unwrap_or(0.0) + write.bytes.unwrap_or(0.0);
            (util, bytes)
        };
        samples.max_by(|one, two| busy(one).partial_cmp(&busy(two)).unwrap_or(std::cmp::Ordering::Equal))
    }

    fn trigger_state(&mut self, _: Option<Key>, readings: &Option<Sample>) -> Option<&mut TriggerState> {
        let sample = readings.as_ref()?;
        let mut all = self.disks.iter_mut();
        all.find(|subject| *subject.name == *sample.name).map(|subject| &mut subject.trigger_state)
    }

    fn build_event(&self, completed: &Completed<'_, Option<Sample>>, sink: &mut EventSink<'_, '_>) -> bool {
        let CaptureData::Io(io) = &completed.capture.data else { return sink.foreign() };
        let head = EventHead::new(completed.pending, completed.capture);
        let reason_snapshot = completed.pending.readings.map(|sample| Snap::new(sample, self.limits));
        let readings = Readings { reason_snapshot };
        // Even if nothing was seen: a device that hangs has nothing to show.
        sink.emit(&DiskEvent::new(head, readings, io, completed, self.row_limits))
    }

    fn scrape(&self, _: Watched<'_>, scrape: &mut Scrape<'_>) {
        let known = || self.disks.iter().filter_map(|subject| Some((&*subject.name, subject.rates?)));
        scrape.family(&UTIL, |family| {
            for (name, rates) in known() {
                if let Some(util) = rates.util {
                    family.sample(&[name], util.ratio());
                }
            }
        });
        scrape.family(&AWAIT, |family| {
            for (name, rates) in known() {
                for (op, rate) in [("read", rates.read), ("write", rates.write)] {
                    if let Some(took) = rate.took {
                        family.sample(&[name, op], took);
                    }
                }
            }
        });
    }
}
