//! Programs that stay attached and tell of events through a ring of their own. A hook's object has
//! by convention a ring `records`, a count `lost` and knobs `unified` and `page_bytes`.

use std::mem::offset_of;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{Link, MapHandle};

use super::error::{Error, attempt};
use super::meter::Meter;
use super::ring::{Drained, Ring};
use super::skeletons::oom::{OomSkelBuilder, types};
use super::stacks::{Site, number};
use super::{btf, place};

/// A record is no longer than this; memory for so many of them is set aside at start.
const RECORD_BYTES: usize = 4096;

/// Records that one drain takes at most.
pub const RECORDS_MAX: u32 = 16;

// The tracer reads it, field by field.
const _: () = assert!(
    offset_of!(types::kill, victim_pid) == 32
        && offset_of!(types::kill, victim_comm) == 40
        && offset_of!(types::kill, victim_rss_bytes) == 72
        && offset_of!(types::kill, levels) == 80
        && offset_of!(types::kill, names) == 88
        && size_of::<types::kill>() <= RECORD_BYTES
);

/// An attached program with its ring.
pub struct Hook {
    name: &'static str,
    records: MapHandle,
    ring: Ring,
    lost: MapHandle,
    told: u64,
    /// It is attached while this is kept.
    _link: Link,
}

impl Hook {
    /// Loads and attaches the program of this name.
    pub fn attach(
        name: &'static str,
        site: &Site<'_>,
        page_bytes: u32,
        meter: &mut Meter,
    ) -> Result<Hook, Error> {
        btf(site.sys)?;
        match name {
            "oom" => attempt("the oom program", || {
                let mut open = OomSkelBuilder::default().open(place())?;
                open.maps.containers.reuse_fd(site.followed.as_fd())?;
                if let Some(knobs) = &mut open.maps.rodata_data {
                    knobs.unified = site.unified;
                    knobs.page_bytes = page_bytes;
                }
                let loaded = open.load()?;
                meter.add(name, loaded.progs.mark_victim.as_fd());
                let records = MapHandle::try_from(&loaded.maps.records)?;
                let lost = MapHandle::try_from(&loaded.maps.lost)?;
                let mut ring = Ring::open(&records)?;
                ring.reserve(usize::try_from(RECORDS_MAX).unwrap_or(0), RECORD_BYTES);
                // Last, so that the ring is there for the first event.
                let link = loaded.progs.mark_victim.attach()?;
                Ok(Hook { name, records, ring, lost, told: 0, _link: link })
            }),
            _ => Err(Error::NoHook(name)),
        }
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// For the poll: readable when records came to a reader that had caught up.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.records.as_fd().as_raw_fd()
    }

    /// Hands out what is in the ring, at most `RECORDS_MAX`.
    pub fn drain(&mut self, each: impl FnMut(&[u8])) -> Drained {
        self.ring.drain(RECORDS_MAX, each)
    }

    /// Records that found no room since this was last asked.
    pub fn newly_lost(&mut self) -> u64 {
        let lost = self.lost();
        lost.saturating_sub(std::mem::replace(&mut self.told, lost))
    }

    /// Records that found no room since the program was loaded.
    #[must_use]
    pub fn lost(&self) -> u64 {
        number(&self.lost)
    }
}
