//! The tracers that there are, each in its place. Descriptors and captures name a tracer by that, so it stays there until
//! its last capture is answered; the place that it leaves is the next one's.

use std::ops::Range;

use crate::config::ConfiguredTracer;
use crate::tracer::TRACERS_MAX;

use super::slot::Slot;

/// Places that there may be: tracers that the config names no more may keep theirs for as long as a capture.
pub(super) const SLOTS_MAX: usize = 2 * TRACERS_MAX;

/// All tracers.
#[derive(Default)]
pub(super) struct TracerSlots(Vec<Option<Slot>>);

impl TracerSlots {
    /// The place for one more. `None`: there is none.
    pub(super) fn free_place(&self) -> Option<usize> {
        let place = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        (place < SLOTS_MAX).then_some(place)
    }

    /// A tracer comes to a free place.
    pub(super) fn put(&mut self, place: usize, slot: Slot) {
        if place >= self.0.len() {
            self.0.resize_with(place.saturating_add(1), || None);
        }
        if let Some(free) = self.0.get_mut(place) {
            *free = Some(slot);
        }
    }

    /// The tracer of this place goes.
    pub(super) fn take(&mut self, place: usize) -> Option<Slot> {
        self.0.get_mut(place)?.take()
    }

    /// All places, be there a tracer or not.
    pub(super) fn places(&self) -> Range<usize> {
        0..self.0.len()
    }

    /// The tracer of this place.
    pub(super) fn get(&self, place: usize) -> Option<&Slot> {
        self.0.get(place)?.as_ref()
    }

    /// The tracer of this place, to change it.
    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut Slot> {
        self.0.get_mut(place)?.as_mut()
    }

    /// Each, those included that only wait for their last captures.
    pub(super) fn all(&self) -> impl Iterator<Item = &Slot> {
        self.0.iter().flatten()
    }

    /// Each, to change it.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.0.iter_mut().flatten()
    }

    /// Each that the config names: what is shown. No two of them have one name.
    pub(super) fn named(&self) -> impl Iterator<Item = &Slot> {
        self.all().filter(|slot| !slot.retired)
    }

    /// The place of the tracer that has this name.
    pub(super) fn place_of(&self, name: &str) -> Option<usize> {
        self.place(|slot| !slot.retired && slot.spec.name == name)
    }

    /// The place of the tracer that this one is: of the same name, and built in the same way.
    pub(super) fn place_of_same(&self, tracer: &ConfiguredTracer) -> Option<usize> {
        self.place(|slot| slot.is(tracer.spec))
    }

    fn place(&self, is_it: impl Fn(&Slot) -> bool) -> Option<usize> {
        self.0.iter().position(|slot| slot.as_ref().is_some_and(&is_it))
    }
}
