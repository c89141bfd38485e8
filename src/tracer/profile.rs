//! The part of a document that holds sampled stacks: what tracers that ask for `CaptureKind::Stacks` share.

use std::io;

use serde::Serialize;

use super::detector::{Completed, EventSink};
use super::fields::{EventHead, Most, Truncated, field};
use super::flame::Flame;
use super::trigger::Trigger;
use super::{Data, Field, FieldKind, Shrink};
use crate::capture_data::{CaptureData, CaptureKind, FlameNode, Profile, TopProcess};

/// More nodes are never written, for that must not hold up the loop: 2 MiB and more of JSON.
pub const NODES_MAX: usize = 1 << 15;

/// The nodes whose size is looked at.
const LOOKED_AT: usize = 1024;

/// Bytes that a node of this flame graph takes as JSON, on average and a little more: what cannot fit is
/// not written in vain, for writing it twice would hold up the loop for twice as long.
pub fn node_size(flame: &[FlameNode<'_>]) -> usize {
    /// Names, quotes, colons and commas.
    const FRAME: usize = r#"{"level":,"value":,"self":,"label":""},"#.len();
    let digits = |number: u64| number.checked_ilog10().map_or(1, |log| log as usize + 1);
    let size = |node: &FlameNode<'_>| {
        FRAME + digits(node.level.into()) + digits(node.value) + digits(node.own) + node.label.len()
    };
    let (count, sum) = flame
        .iter()
        .step_by(flame.len() / LOOKED_AT + 1)
        .fold((0, 0), |(count, sum), node| (count + 1, sum + size(node)));
    let average = sum / usize::max(count, 1) + 1;
    average + average / 32
}

/// A flame graph's own limit.
pub const FRAMES: Most = Most("frames", NODES_MAX);

/// A list that is written as it was captured.
pub const CAPTURED: Most = Most("rows", usize::MAX);

/// What it adds to a document.
pub const FIELDS: [Field; 6] = [
    field("sampling_hz", FieldKind::Long, "Samples a second on each CPU"),
    field("samples", FieldKind::Long, "Samples taken"),
    field("flamedata", FieldKind::Opaque, "The flame graph in pre-order: level, value, self, label"),
    field("top_processes.pid", FieldKind::Long, "Process id on the host; most samples first"),
    field("top_processes.comm", FieldKind::Keyword, "Name of the process"),
    field("top_processes.samples", FieldKind::Long, "Samples that fell on it"),
];

/// Makes an event of sampled stacks and what was read when they were asked for. Without a sample
/// there is nothing to show, unless someone asked.
pub fn build_event<T>(
    completed: &Completed<'_, T>,
    readings: impl Serialize,
    sink: &mut EventSink<'_, '_>,
) -> bool {
    let CaptureData::Stacks(profile) = &completed.capture.data else { return sink.foreign() };
    let trigger = completed.pending.trigger;
    if profile.samples == 0 && trigger != Trigger::Manual {
        return false;
    }
    sink.emit(&Profiled { head: EventHead::new(completed.pending, completed.capture), readings, profile })
}

struct Profiled<'a, R> {
    head: EventHead,
    readings: R,
    profile: &'a Profile<'a>,
}

#[derive(Serialize)]
struct Body<'a, R> {
    #[serde(flatten)]
    head: EventHead,
    #[serde(flatten)]
    readings: &'a R,
    sampling_hz: u32,
    samples: u64,
    #[serde(flatten)]
    truncated: Truncated,
    top_processes: &'a [TopProcess<'a>],
    flamedata: Flame<'a>,
}

impl<R: Serialize> Data for Profiled<'_, R> {
    fn write(&self, shrink: Shrink, to: &mut dyn io::Write) -> serde_json::Result<()> {
        let Profile { hz, samples, flame, top } = self.profile;
        let flamedata = Flame::cut(flame, shrink.keep_of(flame.len().min(NODES_MAX), node_size(flame)));
        let top_processes = top.get(..shrink.keep(top.len())).unwrap_or_default();
        let truncated = Truncated::of(shrink, CaptureKind::Stacks)
            .and("flamedata", flame, FRAMES, flame.len() - flamedata.truncated())
            .and("top_processes", top, CAPTURED, top_processes.len());
        serde_json::to_writer(
            to,
            &Body {
                head: self.head,
                readings: &self.readings,
                sampling_hz: *hz,
                samples: *samples,
                truncated,
                top_processes,
                flamedata,
            },
        )
    }
}
