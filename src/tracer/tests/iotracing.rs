//! iotracing: devices that are saturated or slow, told by who uses them.

use super::*;
use crate::evidence::{Device, DeviceIo, DiskIo, FileIo, ProcessIo, Stall, Target, Times};

/// What a capture brings in these stories.
pub(super) fn found() -> DiskIo {
    DiskIo::default()
}
