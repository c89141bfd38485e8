//! waitrate.
use crate::evidence::Waits;
pub(super) fn waits() -> Waits { Waits::default() }
