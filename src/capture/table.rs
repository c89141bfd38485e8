//! All backends there are.

use super::backend::Registration;
use super::{io, resident, stacks, tasks, waits};
use crate::evidence::Kind;

/// A line for each backend, with the kinds of capture that it makes. They are loaded in this order.
pub(super) const BACKENDS: &[Registration] = &[
    Registration { kinds: &[Kind::Stacks], load: stacks::by_clock },
    Registration { kinds: &[Kind::Faults], load: stacks::by_faults },
    Registration { kinds: &[Kind::Tasks], load: tasks::load },
    Registration { kinds: &[Kind::Memory], load: resident::load },
    Registration { kinds: &[Kind::Waits, Kind::Probe], load: waits::load },
    Registration { kinds: &[Kind::Io], load: io::load },
];
