//! What an event of oom says.

use std::io;

use serde::Serialize;

use super::Known;
use super::kill::{Kill, Party};
use crate::evidence::{Capture, Resident, Seen};
use crate::host::containers::path::recognise;
use crate::host::{Containers, Memory, Unreclaimable};
use crate::tracer::fields::{Head, Truncated};
use crate::tracer::profile::CAPTURED;
use crate::tracer::watch::Trigger;
use crate::tracer::{Data, Shrink};

/// One event.
pub(super) struct Told<'a> {
    head: Head,
    known: &'a Known,
    containers: Option<&'a Containers>,
    top: &'a [Resident],
}

impl<'a> Told<'a> {
    /// With so many of those who hold most memory, if they were captured.
    pub(super) fn new(
        trigger: Trigger,
        known: &'a Known,
        found: Option<(&'a Capture, &'a Containers)>,
        top: usize,
    ) -> Told<'a> {
        let residents = match found {
            Some((Capture { seen: Seen::Memory(residents), .. }, _)) => residents.as_slice(),
            _ => &[],
        };
        Told {
            head: found.map_or_else(|| Head::alone(trigger), |(capture, _)| Head::new(trigger, capture)),
            known,
            containers: found.map(|(_, containers)| containers),
            top: residents.get(..top.min(residents.len())).unwrap_or_default(),
        }
    }

    fn kill<'s>(&'s self, kill: &'s Kill) -> Kills<'s> {
        // The path is the victim's: it names the killer's container only if they share it.
        let shared = kill.victim.container == kill.killer.container;
        Kills {
            victim: One { rss_bytes: kill.victim_rss_bytes, ..self.one(&kill.victim, &kill.cgroup_path) },
            killer: self.one(&kill.killer, if shared { &kill.cgroup_path } else { "" }),
            oom_cgroup_path: &kill.cgroup_path,
            oom_cgroup_path_cut: kill.cut,
            limit_bytes: kill.limit_bytes,
            usage_bytes: kill.usage_bytes,
        }
    }

    fn one<'s>(&'s self, party: &'s Party, path: &'s str) -> One<'s> {
        let known = party.container.and_then(|key| self.containers?.get(key));
        One {
            pid: party.pid,
            comm: &party.comm,
            rss_bytes: None,
            container_id: known.map(|container| container.id()).or_else(|| container_above(path)),
        }
    }
}

/// The id of the innermost container that this cgroup is in.
fn container_above(path: &str) -> Option<&str> {
    let mut paths = std::iter::successors(Some(path), |path| Some(path.rsplit_once('/')?.0));
    paths.find_map(|path| Some(recognise(path)?.id))
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    head: Head,
    #[serde(flatten)]
    kill: Option<Kills<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_memory: Option<HostMemory>,
    #[serde(flatten)]
    truncated: Truncated,
    top_memory_usage: &'a [Resident],
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

impl Data for Told<'_> {
    fn write(&self, shrink: Shrink, to: &mut dyn io::Write) -> serde_json::Result<()> {
        let top_memory_usage = self.top.get(..shrink.keep(self.top.len())).unwrap_or_default();
        let body = Body {
            head: self.head,
            kill: self.known.kill.as_ref().map(|kill| self.kill(kill)),
            host_memory: self.known.memory.map(HostMemory::from),
            truncated: Truncated::of(shrink).and(
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
