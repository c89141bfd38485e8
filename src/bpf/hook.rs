//! Programs that stay attached and tell of events through a ring of their own. A hook is a file in
//! bpf/ that has a ring `events`, a count `lost`, the map `containers` and knobs `unified` and
//! `page_bytes`; build.rs finds it, and a tracer names it in its spec. Nothing is added here.

use std::any::Any;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use libbpf_rs::MapHandle;
use libbpf_rs::skel::{OpenSkel as _, Skel as _, SkelBuilder as _};

use super::error::{Error, attempt};
use super::meter::Meter;
use super::ring::{Drained, Ring};
use super::stacks::{Site, number};
use super::{btf, place, skeletons};

/// A record is no longer than this; memory for so many of them is set aside at start.
pub(super) const RECORD_BYTES: usize = 4608;

/// Records that one drain takes at most.
pub const RECORDS_MAX: u32 = 16;

macro_rules! by_name {
    ($($hook:ident: $builder:ident,)*) => {
        /// Loads and attaches the hook of this name.
        fn by_name(
            name: &'static str,
            site: &Site<'_>,
            page_bytes: u32,
            meter: &mut Meter,
        ) -> Result<Hook, Error> {
            match name {
                $(stringify!($hook) => attempt(concat!("the ", stringify!($hook), " program"), || {
                    let mut open = skeletons::$hook::$builder::default().open(place())?;
                    open.maps.containers.reuse_fd(site.followed.as_fd())?;
                    if let Some(knobs) = &mut open.maps.rodata_data {
                        knobs.unified = site.unified;
                        knobs.page_bytes = page_bytes;
                    }
                    let mut programs = open.load()?;
                    meter.add_all(name, programs.object().progs());
                    let records = MapHandle::try_from(&programs.maps.events)?;
                    let lost = MapHandle::try_from(&programs.maps.lost)?;
                    let mut ring = Ring::open(&records)?;
                    ring.reserve(usize::try_from(RECORDS_MAX).unwrap_or(0), RECORD_BYTES);
                    // Last, so that the ring is there for the first event.
                    programs.attach()?;
                    Ok(Hook { name, records, ring, lost, told: 0, programs: Box::new(programs) })
                }),)*
                _ => Err(Error::NoHook(name)),
            }
        }
    };
}
skeletons::each_hook!(by_name);

/// An attached program with its ring.
pub struct Hook {
    name: &'static str,
    records: MapHandle,
    ring: Ring,
    lost: MapHandle,
    told: u64,
    /// Its programs are attached while this is kept.
    programs: Box<dyn Any>,
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
        by_name(name, site, page_bytes, meter)
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

    /// Detaches its programs. What they told of is still in the ring, and nothing is added to it.
    pub fn detach(&mut self) {
        self.programs = Box::new(());
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
