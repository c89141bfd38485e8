//! The fields that all documents have in common, and lists of fields put together from parts.

use serde::{Serialize, Serializer};

use super::pending::PendingCapture;
use super::trigger::Trigger;
use super::{Field, FieldKind, Shrink};
use crate::capture_data::Capture;

/// What all `tracer_data` begins with.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EventHead {
    trigger: Trigger,
    duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    capture_began_ms: Option<i64>,
    lost_samples: u64,
}

impl EventHead {
    /// Of an event that has no capture.
    pub fn alone(trigger: Trigger) -> EventHead {
        EventHead { trigger, duration_ms: 0, capture_began_ms: None, lost_samples: 0 }
    }

    /// Of an event that `capture` made, which was asked for as `pending` says and may have begun before that.
    pub fn new<T>(pending: &PendingCapture<T>, capture: &Capture) -> EventHead {
        let duration_ms = u64::try_from(capture.lasted.as_millis()).unwrap_or(u64::MAX);
        let capture_began_ms = Some(capture.began.ms_after(pending.fired));
        EventHead { trigger: pending.trigger, duration_ms, capture_began_ms, lost_samples: capture.lost }
    }
}

/// `EventHead`, and what all documents end with.
pub const COMMON: [Field; 9] = [
    field(
        "trigger",
        FieldKind::Keyword,
        "The rule that fired: surge, sustained, stuck, predicted, kill, manual",
    ),
    field("duration_ms", FieldKind::Long, "How long the capture lasted, in milliseconds"),
    field(
        "capture_began_ms",
        FieldKind::Long,
        "When the capture began, in milliseconds after tracer_time; less than 0: before it",
    ),
    field("lost_samples", FieldKind::Long, "Samples that the kernel could not hand over"),
    field("truncated", FieldKind::Long, "Frames, rows and tasks that were left out"),
    field("truncated_lists.list", FieldKind::Keyword, "A list that is not whole"),
    field("truncated_lists.left_out", FieldKind::Long, "How much of it was left out: the least goes first"),
    field(
        "truncated_lists.limited_by",
        FieldKind::Keyword,
        "What limits it: log.document, which is in bytes; a key of the tracer's, frames or rows, in rows",
    ),
    field("truncated_lists.limit", FieldKind::Long, "That limit"),
];

/// A list's own limit: its name, and how many are told at most.
#[derive(Clone, Copy, Debug)]
pub struct Most(pub &'static str, pub usize);

/// What was left out of a document's lists, and what limits them.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Truncated {
    truncated: usize,
    #[serde(skip_serializing_if = "Cuts::is_empty")]
    truncated_lists: Cuts,
    #[serde(skip)]
    shrink: Shrink,
}

/// No document has more lists.
const LISTS_MAX: usize = 4;

#[derive(Clone, Copy, Debug, Default)]
struct Cuts([Option<Cut>; LISTS_MAX]);

/// One list that is not whole.
#[derive(Clone, Copy, Debug, Serialize)]
struct Cut {
    list: &'static str,
    left_out: usize,
    limited_by: &'static str,
    limit: usize,
}

impl Truncated {
    /// Nothing, of a document that is shrunk like this.
    pub fn of(shrink: Shrink) -> Truncated {
        Truncated { truncated: 0, truncated_lists: Cuts::default(), shrink }
    }

    /// And of this list all but `kept` of `all`. Where its own limit leaves out no more, that is why;
    /// else the document had no room.
    pub fn and(mut self, list: &'static str, all: usize, own: Most, kept: usize) -> Truncated {
        let left_out = all.saturating_sub(kept);
        let Most(name, most) = own;
        let (limited_by, limit) =
            if kept >= all.min(most) { (name, most) } else { ("log.document", self.shrink.room()) };
        self.truncated += left_out;
        let place = self.truncated_lists.0.iter_mut().find(|place| place.is_none());
        if let Some(place) = place.filter(|_| left_out > 0) {
            *place = Some(Cut { list, left_out, limited_by, limit });
        }
        self
    }
}

impl Cuts {
    fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

impl Serialize for Cuts {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().flatten())
    }
}

/// One field.
pub const fn field(name: &'static str, kind: FieldKind, about: &'static str) -> Field {
    Field { name, kind, about }
}

/// All parts as one list. `N` must be the sum of their lengths.
pub const fn all<const N: usize>(parts: &[&[Field]]) -> [Field; N] {
    let mut all = [field("", FieldKind::Opaque, ""); N];
    let (mut part, mut at) = (0, 0);
    while part < parts.len() {
        let mut index = 0;
        while index < parts[part].len() {
            all[at] = parts[part][index];
            at += 1;
            index += 1;
        }
        part += 1;
    }
    assert!(at == N, "N is not the sum of the parts' lengths");
    all
}
