//! What an event of oom says.

use std::io;

use serde::Serialize;

use super::Known;
use super::kill::{Kill, Party};
use crate::capture_data::{CaptureData, CaptureKind, Resident};
use crate::host::containers::path::recognise;
use crate::host::{Containers, Memory, Unreclaimable};
use crate::tracer::detector::Completed;
use crate::tracer::fields::{COMMON, EventHead, Truncated, all, field};
use crate::tracer::pending::PendingCapture;
use crate::tracer::profile::CAPTURED;

use crate::tracer::{Data, Field, FieldKind, Shrink};

/// What it says, field by field.
pub(super) const FIELDS: [Field; COMMON.len() + OWN.len()] = all(&[&COMMON, &OWN]);

const OWN: [Field; 19] = [
    field("victim.pid", FieldKind::Long, "The killed process's id on the host"),
    field("victim.comm", FieldKind::Keyword, "Its name"),
    field("victim.rss_bytes", FieldKind::Long, "Its resident memory when it was chosen, about"),
    field("victim.container_id", FieldKind::Keyword, "Its container"),
    field("killer.pid", FieldKind::Long, "The process that asked for memory when there was none"),
    field("killer.comm", FieldKind::Keyword, "Its name"),
    field("killer.container_id", FieldKind::Keyword, "Its container"),
    field("oom_cgroup_path", FieldKind::Keyword, "The cgroup with least room above the victim"),
    field(
        "oom_cgroup_path_cut",
        FieldKind::Boolean,
        "Whether names are missing at the path's beginning, which is `...` then; left out if not",
    ),
    field("limit_bytes", FieldKind::Long, "Its limit, if there is one"),
    field("usage_bytes", FieldKind::Long, "What it used"),
    field("host_memory.total_bytes", FieldKind::Long, "Memory of the host"),
    field("host_memory.available_bytes", FieldKind::Long, "What of it was available"),
    field("host_memory.anon_bytes", FieldKind::Long, "What of it was anonymous, locked or not"),
    field(
        "host_memory.shmem_bytes",
        FieldKind::Long,
        "What of it was shared memory and tmpfs, locked or not",
    ),
    field(
        "host_memory.locked_bytes",
        FieldKind::Long,
        "What of it was locked, be it anonymous, shared or of files",
    ),
    field("top_memory_usage.pid", FieldKind::Long, "Process id on the host; most memory first"),
    field("top_memory_usage.comm", FieldKind::Keyword, "Name of the process"),
    field("top_memory_usage.rss_bytes", FieldKind::Long, "Its resident memory just after the kill"),
];

/// One event.
pub(super) struct OomEvent<'a> {
    head: EventHead,
    known: &'a Known,
    containers: Option<&'a Containers>,
    top: &'a [Resident<'a>],
}

impl<'a> OomEvent<'a> {
    /// With the `top` processes that hold most memory. `None`: those were not captured.
    pub(super) fn of(completed: &Completed<'a, Known>, top: usize) -> Option<OomEvent<'a>> {
        let Completed { pending, capture, containers } = *completed;
        let CaptureData::Memory(residents) = &capture.data else { return None };
        Some(OomEvent {
            head: EventHead::new(pending, capture),
            known: &pending.readings,
            containers: Some(containers),
            top: residents.get(..top.min(residents.len())).unwrap_or_default(),
        })
    }

    /// Of what the kernel's record of a kill says.
    pub(super) fn without_capture(pending: &'a PendingCapture<Known>) -> OomEvent<'a> {
        let head = EventHead::alone(pending.trigger);
        OomEvent { head, known: &pending.readings, containers: None, top: &[] }
    }

    fn kill<'s>(&'s self, kill: &'s Kill) -> Kills<'s> {
        let path = if kill.cut { "" } else { &*kill.cgroup_path };
        // The path is the victim's: it names the killer's container only if the two are one process.
        let shared = kill.victim.pid == kill.killer.pid;
        Kills {
            victim: One { rss_bytes: kill.victim_rss_bytes, ..self.one(&kill.victim, path) },
            killer: self.one(&kill.killer, if shared { path } else { "" }),
            oom_cgroup_path: &kill.cgroup_path,
            oom_cgroup_path_cut: kill.cut,
            limit_bytes: kill.limit_bytes,
            usage_bytes: kill.usage_bytes,
        }
    }

    fn one<'s>(&'s self, party: &'s Party, path: &'s str) -> One<'s> {
        let known = party.container.and_then(|key| self.containers?.get(key));
        let by_path = || container_above(path, self.containers?);
        One {
            pid: party.pid,
            comm: &party.comm,
            rss_bytes: None,
            container_id: known.map(|container| container.id()).or_else(by_path),
        }
    }
}

/// The id of the container that holds this cgroup, as far as a path alone is to be believed: a user or a
/// container gives the cgroups that it makes any name, also with a neighbour's id.
fn container_above<'p>(path: &'p str, containers: &Containers) -> Option<&'p str> {
    let mut above = std::iter::successors(Some(path), |path| Some(path.rsplit_once('/')?.0));
    let (own, found) = above.by_ref().find_map(|path| Some((path, recognise(path)?)))?;
    let nested = above.any(|path| recognise(path).is_some());
    let users = path.split('/').any(|part| part.starts_with("user@") && part.ends_with(".service"));
    let taken = containers.rival(own.as_bytes(), found.id).is_some();
    (!nested && !users && !taken).then_some(found.id)
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    head: EventHead,
    #[serde(flatten)]
    kill: Option<Kills<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_memory: Option<HostMemory>,
    #[serde(flatten)]
    truncated: Truncated,
    top_memory_usage: &'a [Resident<'a>],
}

#[derive(Serialize)]
struct Kills<'a> {
    victim: One<'a>,
    killer: One<'a>,
    oom_cgroup_path: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    oom_cgroup_path_cut: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_bytes: Option<u64>,
    usage_bytes: u64,
}

#[derive(Serialize)]
struct One<'a> {
    pid: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    comm: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rss_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_id: Option<&'a str>,
}

#[derive(Serialize)]
struct HostMemory {
    total_bytes: u64,
    available_bytes: u64,
    anon_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    shmem_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locked_bytes: Option<u64>,
}

impl From<Memory> for HostMemory {
    fn from(memory: Memory) -> HostMemory {
        let Memory { total_bytes, available_bytes, held } = memory;
        let Unreclaimable { anon_bytes, shmem_bytes, locked_bytes, .. } = held;
        HostMemory { total_bytes, available_bytes, anon_bytes, shmem_bytes, locked_bytes }
    }
}

impl Data for OomEvent<'_> {
    fn write(&self, shrink: Shrink, to: &mut dyn io::Write) -> serde_json::Result<()> {
        let top_memory_usage = self.top.get(..shrink.keep(self.top.len())).unwrap_or_default();
        let body = Body {
            head: self.head,
            kill: self.known.kill.as_ref().map(|kill| self.kill(kill)),
            host_memory: self.known.memory.map(HostMemory::from),
            truncated: Truncated::of(shrink, CaptureKind::Memory).and(
                "top_memory_usage",
                self.top.len(),
                CAPTURED,
                top_memory_usage.len(),
            ),
            top_memory_usage,
        };
        serde_json::to_writer(to, &body)
    }
}
