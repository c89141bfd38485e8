//! Programs that stay attached and tell of events through a ring of their own. A hook is a file in
//! bpf/ that has a ring buffer `events`, a count `lost` (lost.h) and the map `containers` (common.h);
//! build.rs lists it in `HOOKS`, and a tracer names it in its spec. Nothing is added here.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use libbpf_rs::{Link, MapCore as _, MapHandle, Object, ObjectBuilder};

use super::btf;
use super::error::{Error, attempt};
use super::lost::number;
use super::meter::Meter;
use super::programs;
use super::ring::{Drained, Ring};
use super::site::Site;
use super::skeletons::HOOKS;

/// Records that one drain takes at most; memory for this number of the longest is set aside at start.
pub const RECORDS_MAX: u32 = 16;

/// Whether cgroup ids are those of v2: a variable of common.h, which comes with `containers`.
const UNIFIED: &str = "unified";

/// A hook as build.rs compiled it.
pub(super) struct Program {
    pub(super) name: &'static str,
    /// What an error calls it.
    pub(super) what: &'static str,
    /// The ELF file.
    pub(super) object: &'static [u8],
    /// What it can be given before it is loaded.
    pub(super) variables: &'static [Variable],
    /// The longest record.
    pub(super) record_bytes: usize,
}

/// A `const volatile` variable of a hook: `size` bytes at `offset` in its section.
pub(super) struct Variable {
    pub(super) name: &'static str,
    pub(super) offset: usize,
    pub(super) size: usize,
}

/// A variable's name, and the value that it is given.
pub type KnobValue = (&'static str, u64);

impl Program {
    fn of(name: &'static str) -> Result<&'static Program, Error> {
        HOOKS.iter().find(|program| program.name == name).ok_or(Error::NoHook(name))
    }

    /// Where a value goes, which is sure to fit.
    fn place(&self, (knob, value): KnobValue) -> Result<&Variable, Error> {
        let hook = self.name;
        let variable = self.variables.iter().find(|variable| variable.name == knob);
        let variable = variable.ok_or(Error::NoKnob { hook, knob })?;
        let bytes = size_of::<u64>() - value.leading_zeros() as usize / 8;
        if bytes > variable.size { Err(Error::NarrowKnob { hook, knob, value }) } else { Ok(variable) }
    }
}

impl Variable {
    /// Writes a value to its place in the section's bytes.
    fn set(&self, value: u64, section: &mut [u8]) {
        let value = value.to_ne_bytes();
        // Its low bytes come first or last.
        let skipped = if cfg!(target_endian = "little") { 0 } else { value.len() - self.size };
        let place = section.get_mut(self.offset..).and_then(|rest| rest.get_mut(..self.size));
        if let Some((place, low)) = place.zip(value.get(skipped..).and_then(|low| low.get(..self.size))) {
            place.copy_from_slice(low);
        }
    }
}

/// An attached program with its ring.
pub struct Hook {
    name: &'static str,
    knobs: Vec<KnobValue>,
    records: MapHandle,
    ring: Ring,
    lost: MapHandle,
    /// Its programs are attached while these are kept.
    links: Vec<Link>,
    _object: Object,
}

/// Keeps the programs of a hook attached. The kernel may take milliseconds to detach them, as each CPU must have
/// seen it.
pub struct Attachment(#[allow(dead_code, reason = "it is there to be dropped")] Vec<Link>);

impl Hook {
    /// Whether there is a hook of this name that can be given these values.
    pub fn check(name: &'static str, knobs: &[KnobValue]) -> Result<(), Error> {
        let program = Program::of(name)?;
        knobs.iter().try_for_each(|knob| program.place(*knob).map(drop))
    }

    /// Loads the hook of this name with these values, and attaches it.
    pub fn attach(
        name: &'static str,
        site: &Site<'_>,
        knobs: Vec<KnobValue>,
        meter: &mut Meter,
    ) -> Result<Hook, Error> {
        btf(site.sys)?;
        let program = Program::of(name)?;
        let given = knobs.iter().copied().chain([(UNIFIED, site.unified.into())]);
        let given: Vec<(&Variable, u64)> =
            given.map(|knob| Ok((program.place(knob)?, knob.1))).collect::<Result<_, Error>>()?;
        let (object, records, lost) = programs::loaded(
            &[name],
            attempt(program.what, || {
                let mut open = ObjectBuilder::default().name(name)?.open_memory(program.object)?;
                for mut map in open.maps_mut() {
                    if map.name() == "containers" {
                        map.reuse_fd(site.followed.as_fd())?;
                    } else if map.name().to_str().is_some_and(|name| name.ends_with(".rodata"))
                        && let Some(section) = map.initial_value_mut()
                    {
                        given.iter().for_each(|(variable, value)| variable.set(*value, section));
                    }
                }
                let object = open.load()?;
                meter.add_all(name, object.progs());
                let (records, lost) = (handle(&object, "events")?, handle(&object, "lost")?);
                Ok((object, records, lost))
            }),
        )?;
        let (ring, links) = attempt(program.what, || {
            let mut ring = Ring::open(&records)?;
            ring.reserve(usize::try_from(RECORDS_MAX).unwrap_or(0), program.record_bytes);
            // Last, so that the ring is there for the first event.
            let links = object.progs_mut().map(|program| program.attach()).collect::<Result<_, _>>()?;
            Ok((ring, links))
        })?;
        programs::attached(name);
        Ok(Hook { name, knobs, records, ring, lost, links, _object: object })
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The values that it was loaded with.
    #[must_use]
    pub fn knobs(&self) -> &[KnobValue] {
        &self.knobs
    }

    /// Gives away what keeps its programs attached: when that is dropped no new record comes. Those in the ring can
    /// still be drained.
    pub fn detach(&mut self) -> Attachment {
        Attachment(std::mem::take(&mut self.links))
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

    /// Records that found no room since the program was loaded.
    #[must_use]
    pub fn lost(&self) -> u64 {
        number(&self.lost)
    }
}

/// A descriptor of the map of this name.
fn handle(object: &Object, name: &str) -> Result<MapHandle, libbpf_rs::Error> {
    let map = object.maps().find(|map| map.name() == name);
    let map =
        map.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("it has no map {name}")))?;
    MapHandle::try_from(&map)
}

impl Drop for Hook {
    fn drop(&mut self) {
        programs::detached(self.name);
    }
}
