//! What captures bring: of each kind, also what was not asked for, in an arena that may be too small for it.

use super::bytes::Bytes;
use crate::capture_data::{
    Arena, Beyond, Capture, CaptureData, CaptureKind, Device, DeviceIo, DiskIo, Faults, FileIo, FlameNode,
    Interferer, IoObject, Latency, ProcessIo, Profile, Resident, Rows, Scope, StackNames, Stall, Task,
    TaskGroup, TopProcess, Waited, Waiter, Waits,
};
use crate::clock::{Now, Wall};
use crate::host::Key;

/// What most captures fit into.
pub(super) const ARENA_BYTES: usize = 64 << 10;

/// A list of up to this many rows, each drawn by itself; what the arena has no room for is left out.
fn rows<'a, 'b, T: Copy>(
    bytes: &mut Bytes<'b>,
    arena: &'a Arena,
    len: usize,
    each: impl Fn(&mut Bytes<'b>, &'a Arena) -> Option<T>,
) -> Rows<'a, T> {
    arena.rows(0..len, |_| each(bytes, arena))
}

impl Bytes<'_> {
    pub(super) fn capture<'a>(&mut self, arena: &'a Arena, kind: CaptureKind, scope: Scope) -> Capture<'a> {
        let many = if self.byte() < 8 { 200 } else { 1 };
        let data = match kind {
            CaptureKind::Stacks => CaptureData::Stacks(self.profile(arena, many)),
            CaptureKind::Tasks => {
                let len = self.below(8) * many;
                CaptureData::Tasks(rows(self, arena, len, Bytes::task))
            }
            CaptureKind::Faults => CaptureData::Faults(self.faults(arena, many)),
            CaptureKind::Memory => CaptureData::Memory(self.faults(arena, many).top),
            CaptureKind::Waits => CaptureData::Waits(self.waits(arena, many)),
            CaptureKind::Probe => {
                let len = self.below(16);
                CaptureData::Probe(rows(self, arena, len, |b, _| Some((b.key(), b.waited()))))
            }
            CaptureKind::Io => CaptureData::Io(self.disk_io(arena, many)),
            CaptureKind::Names => {
                let frames: Vec<Box<str>> = (0..self.below(16) * many).map(|_| self.text()).collect();
                let list = |frames: &[Box<str>]| arena.rows(frames.iter(), |name| arena.text(name));
                CaptureData::Names(StackNames { kernel: list(&frames), user: list(&[self.text()]) })
            }
        };
        // Some begin before whatever they are asked for, some long after it.
        let lasted = self.time();
        let began = Now { mono: lasted, wall: Wall(0) };
        Capture { scope, began, lasted, lost: self.number(), data }
    }

    /// Mostly no tree at all.
    fn profile<'a>(&mut self, arena: &'a Arena, many: usize) -> Profile<'a> {
        let len = self.below(16) * many;
        let flame = rows(self, arena, len, |b, arena| {
            Some(FlameNode {
                level: u32::from(b.byte() % 8),
                value: b.number(),
                own: b.number(),
                label: arena.text(&b.text())?,
            })
        });
        let len = self.below(8) * many;
        let top = rows(self, arena, len, |b, arena| {
            Some(TopProcess { pid: b.small(), comm: arena.text(&b.text())?, samples: b.number() })
        });
        Profile { hz: self.small(), samples: self.number(), flame, top }
    }

    fn faults<'a>(&mut self, arena: &'a Arena, many: usize) -> Faults<'a> {
        let flame = self.profile(arena, many).flame;
        let len = self.below(8) * many;
        let top = rows(self, arena, len, |b, arena| {
            Some(Resident { pid: b.small(), comm: arena.text(&b.text())?, rss_bytes: b.number() })
        });
        Faults { top, flame }
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

    fn waits<'a>(&mut self, arena: &'a Arena, many: usize) -> Waits<'a> {
        let len = self.below(8) * many;
        let interferers =
            rows(self, arena, len, |b, arena| Some(Interferer { group: b.group(arena)?, held: b.time() }));
        let len = self.below(8) * many;
        let waiters =
            rows(self, arena, len, |b, arena| Some(Waiter { group: b.group(arena)?, time: b.waited() }));
        Waits { whole: self.waited(), unread_cpus: u32::from(many > 1), interferers, waiters }
    }

    fn group<'a>(&mut self, arena: &'a Arena) -> Option<TaskGroup<'a>> {
        Some(if self.flag() {
            TaskGroup::Container(self.key())
        } else {
            TaskGroup::Cgroup(self.maybe_text(arena)?)
        })
    }

    /// `None`: the arena has no room for it.
    fn maybe_text<'a>(&mut self, arena: &'a Arena) -> Option<Option<&'a str>> {
        match self.maybe(Self::text) {
            Some(text) => arena.text(&text).map(Some),
            None => Some(None),
        }
    }

    fn disk_io<'a>(&mut self, arena: &'a Arena, many: usize) -> DiskIo<'a> {
        let len = self.below(4);
        let devices = rows(self, arena, len, |b, arena| b.device_io(arena, many));
        let len = self.below(4) * many;
        let stalls = rows(self, arena, len, Bytes::stall);
        DiskIo { devices, stalls, not_attached: &[] }
    }

    fn device(&mut self) -> Device {
        Device { major: self.small(), minor: self.small() }
    }

    fn device_io<'a>(&mut self, arena: &'a Arena, many: usize) -> Option<DeviceIo<'a>> {
        let (device, name) = (self.device(), arena.text(&self.text())?);
        let (read_bytes, write_bytes) = (self.maybe(Self::number), self.maybe(Self::number));
        let len = self.below(4) * many;
        let processes = rows(self, arena, len, Bytes::process_io);
        Some(DeviceIo { device, name, read_bytes, write_bytes, processes, beyond: Beyond::default() })
    }

    fn process_io<'a>(&mut self, arena: &'a Arena) -> Option<ProcessIo<'a>> {
        let (pid, comm) = (self.small(), arena.text(&self.text())?);
        let container = self.maybe(|b| Key { slot: u16::from(b.byte() % 10), generation: 1 });
        let len = self.below(8);
        let files = rows(self, arena, len, Bytes::file_io);
        Some(ProcessIo { pid, comm, container, files })
    }

    fn file_io<'a>(&mut self, arena: &'a Arena) -> Option<FileIo<'a>> {
        let target = match self.below(3) {
            0 => IoObject::File(self.device(), self.number(), self.maybe_text(arena)?),
            1 => IoObject::Device(self.maybe_text(arena)?),
            _ => IoObject::Unknown,
        };
        let latency = |b: &mut Self| Latency { average: b.time(), max: b.time() };
        Some(FileIo {
            target,
            direct: self.flag(),
            dirtied_earlier: self.flag(),
            shared: self.flag(),
            fs_write_bytes: self.maybe(Self::number),
            read_bytes: self.number(),
            write_bytes: self.number(),
            finished: self.number(),
            in_flight: self.number(),
            whole: latency(self),
            device: latency(self),
        })
    }

    fn stall<'a>(&mut self, arena: &'a Arena) -> Option<Stall<'a>> {
        let Task { pid, tid, comm, blocked, in_iowait, container, stack, .. } = self.task(arena)?;
        Some(Stall { pid, tid, cpu: self.small(), comm, container, blocked, in_iowait, stack })
    }

    fn task<'a>(&mut self, arena: &'a Arena) -> Option<Task<'a>> {
        let (pid, tid, comm) = (self.small(), self.small(), arena.text(&self.text())?);
        let (state, blocked) = (char::from(self.byte()), self.time());
        let (in_iowait, container) =
            (self.flag(), self.maybe(|b| Key { slot: u16::from(b.byte() % 10), generation: 1 }));
        let len = self.below(12);
        let stack = arena.whole(0..len, |_| arena.text(&self.text()))?;
        Some(Task { pid, tid, comm, state, blocked, in_iowait, container, stack })
    }
}
