//! All backends there are.

use super::backend::Registration;
use super::{io, names, resident, stacks, tasks, waits};
use crate::capture_data::CaptureKind;

/// A line for each backend, with the kinds of capture that it makes. They are loaded in this order.
pub(super) const BACKENDS: &[Registration] = &[
    Registration { kinds: &[CaptureKind::Stacks], load: stacks::by_clock },
    Registration { kinds: &[CaptureKind::Faults], load: stacks::by_faults },
    Registration { kinds: &[CaptureKind::Tasks], load: tasks::load },
    Registration { kinds: &[CaptureKind::Memory], load: resident::load },
    Registration { kinds: &[CaptureKind::Waits, CaptureKind::Probe], load: waits::load },
    Registration { kinds: &[CaptureKind::Io], load: io::load },
    Registration { kinds: &[CaptureKind::Names], load: names::load },
];
