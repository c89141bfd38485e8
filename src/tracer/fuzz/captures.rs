//! What captures bring: of each kind, also what was not asked for.

use super::bytes::Bytes;
use crate::capture_data::{
    Capture, CaptureData, CaptureKind, Culprit, Device, DeviceIo, DiskIo, Faults, FileIo, FlameNode,
    IoObject, ProcessIo, Profile, Resident, Scope, StackNames, Stall, Task, Times, TopProcess, Waited,
    Waiter, Waits, Who,
};
use crate::clock::{Now, Wall};
use crate::host::Key;

impl Bytes<'_> {
    pub(super) fn capture(&mut self, kind: CaptureKind, scope: Scope) -> Capture {
        let many = if self.byte() < 8 { 200 } else { 1 };
        let seen = match kind {
            CaptureKind::Stacks => CaptureData::Stacks(self.profile(many)),
            CaptureKind::Tasks => {
                CaptureData::Tasks((0..self.below(8) * many).map(|_| self.task()).collect())
            }
            CaptureKind::Faults => CaptureData::Faults(self.faults(many)),
            CaptureKind::Memory => CaptureData::Memory(self.faults(many).top),
            CaptureKind::Waits => CaptureData::Waits(self.waits(many)),
            CaptureKind::Probe => {
                CaptureData::Probe((0..self.below(16)).map(|_| (self.key(), self.waited())).collect())
            }
            CaptureKind::Io => CaptureData::Io(self.disk_io(many)),
            CaptureKind::Names => {
                let kernel = (0..self.below(16) * many).map(|_| self.text()).collect();
                CaptureData::Names(StackNames { kernel, user: vec![self.text()] })
            }
        };
        // Some begin before whatever they are asked for, some long after it.
        let lasted = self.time();
        let began = Now { mono: lasted, wall: Wall(0) };
        Capture { scope, began, lasted, lost: self.number(), seen }
    }

    /// Mostly no tree at all.
    fn profile(&mut self, many: usize) -> Profile {
        let flame = (0..self.below(16) * many).map(|_| FlameNode {
            level: u32::from(self.byte() % 8),
            value: self.number(),
            own: self.number(),
            label: self.text(),
        });
        let flame = flame.collect();
        let top = (0..self.below(8) * many).map(|_| TopProcess {
            pid: self.small(),
            comm: self.text(),
            samples: self.number(),
        });
        let top = top.collect();
        Profile { hz: self.small(), samples: self.number(), flame, top }
    }

    fn faults(&mut self, many: usize) -> Faults {
        let flame = self.profile(many).flame;
        let top = (0..self.below(8) * many).map(|_| Resident {
            pid: self.small(),
            comm: self.text(),
            rss_bytes: self.number(),
        });
        Faults { top: top.collect(), flame }
    }

    fn key(&mut self) -> Key {
        Key { slot: u16::from(self.byte() % 12), generation: u32::from(self.byte() % 3) }
    }

    fn waited(&mut self) -> Waited {
        Waited {
            ran: self.time(),
            all: self.time(),
            inner: self.time(),
            external: self.time(),
            throttled: self.time(),
            unheld: self.time(),
            waits: self.number(),
        }
    }

    fn waits(&mut self, many: usize) -> Waits {
        let culprits = (0..self.below(8) * many).map(|_| Culprit { who: self.who(), held: self.time() });
        let culprits = culprits.collect();
        let waiters = (0..self.below(8) * many).map(|_| Waiter { who: self.who(), time: self.waited() });
        let waiters = waiters.collect();
        Waits { whole: self.waited(), unread_cpus: u32::from(many > 1), culprits, waiters }
    }

    fn who(&mut self) -> Who {
        if self.flag() { Who::Container(self.key()) } else { Who::Cgroup(self.maybe(Self::text)) }
    }

    fn disk_io(&mut self, many: usize) -> DiskIo {
        let devices = (0..self.below(4)).map(|_| self.device_io(many)).collect();
        let stalls = (0..self.below(4) * many).map(|_| self.stall()).collect();
        DiskIo { devices, stalls, not_attached: Vec::new() }
    }

    fn device(&mut self) -> Device {
        Device { major: self.small(), minor: self.small() }
    }

    fn device_io(&mut self, many: usize) -> DeviceIo {
        DeviceIo {
            device: self.device(),
            name: self.text(),
            read_bytes: self.maybe(Self::number),
            write_bytes: self.maybe(Self::number),
            processes: (0..self.below(4) * many).map(|_| self.process_io()).collect(),
        }
    }

    fn process_io(&mut self) -> ProcessIo {
        ProcessIo {
            pid: self.small(),
            comm: self.text(),
            container: self.maybe(|b| Key { slot: u16::from(b.byte() % 10), generation: 1 }),
            files: (0..self.below(8)).map(|_| self.file_io()).collect(),
        }
    }

    fn file_io(&mut self) -> FileIo {
        let target = match self.below(3) {
            0 => IoObject::File(self.device(), self.number(), self.maybe(Self::text)),
            1 => IoObject::Device(self.maybe(Self::text)),
            _ => IoObject::Unknown,
        };
        let times = |b: &mut Self| Times { average: b.time(), most: b.time() };
        FileIo {
            target,
            direct: self.flag(),
            dirtied_earlier: self.flag(),
            shared: self.flag(),
            fs_write_bytes: self.maybe(Self::number),
            read_bytes: self.number(),
            write_bytes: self.number(),
            finished: self.number(),
            in_flight: self.number(),
            whole: times(self),
            device: times(self),
        }
    }

    fn stall(&mut self) -> Stall {
        let Task { pid, tid, comm, blocked, in_iowait, container, stack, .. } = self.task();
        Stall { pid, tid, cpu: self.small(), comm, container, blocked, in_iowait, stack }
    }

    fn task(&mut self) -> Task {
        Task {
            pid: self.small(),
            tid: self.small(),
            comm: self.text(),
            state: char::from(self.byte()),
            blocked: self.time(),
            in_iowait: self.flag(),
            container: self.maybe(|b| Key { slot: u16::from(b.byte() % 10), generation: 1 }),
            stack: (0..self.below(12)).map(|_| self.text()).collect(),
        }
    }
}
