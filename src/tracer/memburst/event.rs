//! What an event of memburst says.

use std::io;

use serde::Serialize;

use super::rules::Growth;
use crate::capture_data::{CaptureData, CaptureKind, Faults, Resident};
use crate::tracer::detector::{Completed, EventSink};
use crate::tracer::fields::{EventHead, Truncated};
use crate::tracer::flame::Flame;
use crate::tracer::profile::{CAPTURED, FRAMES, NODES_MAX, node_size};
use crate::tracer::{Data, Shrink};

/// Makes an event of a capture, also of one without a fault: it says who holds the memory anyway.
pub(super) fn build_event(
    completed: &Completed<'_, Option<Growth>>,
    top: usize,
    sink: &mut EventSink<'_, '_>,
) -> bool {
    let CaptureData::Faults(faults) = &completed.capture.data else { return sink.foreign() };
    let scope = if completed.pending.subject.is_some() { "container" } else { "host" };
    let head = EventHead::new(completed.pending, completed.capture);
    sink.emit(&MemburstEvent { head, scope, growth: completed.pending.readings, faults, top })
}

struct MemburstEvent<'a> {
    head: EventHead,
    scope: &'static str,
    growth: Option<Growth>,
    faults: &'a Faults<'a>,
    /// Processes that are named at most.
    top: usize,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    head: EventHead,
    scope: &'static str,
    #[serde(flatten)]
    numbers: Option<Numbers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    faulted_bytes: Option<u64>,
    #[serde(flatten)]
    truncated: Truncated,
    top_memory_usage: &'a [Resident<'a>],
    flamedata: Flame<'a>,
}

#[derive(Serialize)]
struct Numbers {
    unreclaimable_bytes: u64,
    unreclaimable_bytes_before: u64,
    anon_bytes: u64,
    anon_bytes_before: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    shmem_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shmem_bytes_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locked_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locked_bytes_before: Option<u64>,
    window_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_to_limit: Option<f64>,
}

impl From<Growth> for Numbers {
    fn from(growth: Growth) -> Numbers {
        let (now, before) = (growth.held, growth.before.held);
        Numbers {
            unreclaimable_bytes: now.all_bytes,
            unreclaimable_bytes_before: before.all_bytes,
            anon_bytes: now.anon_bytes,
            anon_bytes_before: before.anon_bytes,
            shmem_bytes: now.shmem_bytes,
            shmem_bytes_before: before.shmem_bytes,
            locked_bytes: now.locked_bytes,
            locked_bytes_before: before.locked_bytes,
            window_ms: u64::try_from(growth.window.as_millis()).unwrap_or(u64::MAX),
            total_bytes: growth.total_bytes,
            limit_bytes: growth.limit_bytes,
            // Tenths: more would claim to know more.
            seconds_to_limit: growth.to_limit.map(|time| (time.as_secs_f64() * 10.0).round() / 10.0),
        }
    }
}

impl Data for MemburstEvent<'_> {
    fn write(&self, shrink: Shrink, to: &mut dyn io::Write) -> serde_json::Result<()> {
        let Faults { flame, top } = self.faults;
        let flamedata = Flame::cut(flame, shrink.keep_of(flame.len().min(NODES_MAX), node_size(flame)));
        let named = top.get(..self.top.min(top.len())).unwrap_or_default();
        let top_memory_usage = named.get(..shrink.keep(named.len())).unwrap_or_default();
        let truncated = Truncated::of(shrink, CaptureKind::Faults)
            .and("flamedata", flame, FRAMES, flame.len() - flamedata.truncated())
            .and("top_memory_usage", named.len(), CAPTURED, top_memory_usage.len());
        let body = Body {
            head: self.head,
            scope: self.scope,
            numbers: self.growth.map(Numbers::from),
            faulted_bytes: flame.first().map(|root| root.value),
            truncated,
            top_memory_usage,
            flamedata,
        };
        serde_json::to_writer(to, &body)
    }
}
