//! The fields that all documents have in common, and lists of fields put together from parts.

use serde::Serialize;

use super::watch::Trigger;
use super::{Field, FieldKind};
use crate::evidence::Capture;

/// What all `tracer_data` begins with.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Head {
    trigger: Trigger,
    duration_ms: u64,
    lost_samples: u64,
}

impl Head {
    /// Of an event that has no capture.
    pub fn alone(trigger: Trigger) -> Head {
        Head { trigger, duration_ms: 0, lost_samples: 0 }
    }

    /// Of an event that this trigger and this capture made.
    pub fn new(trigger: Trigger, capture: &Capture) -> Head {
        let duration_ms = u64::try_from(capture.lasted.as_millis()).unwrap_or(u64::MAX);
        Head { trigger, duration_ms, lost_samples: capture.lost }
    }
}

/// `Head`, and what all documents end with.
pub const COMMON: [Field; 4] = [
    field(
        "trigger",
        FieldKind::Keyword,
        "The rule that fired: surge, sustained, stuck, predicted, kill, manual",
    ),
    field("duration_ms", FieldKind::Long, "How long the capture lasted, in milliseconds"),
    field("lost_samples", FieldKind::Long, "Samples that the kernel could not hand over"),
    field("truncated", FieldKind::Long, "Frames, rows and tasks left out so that the document fits"),
];

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
