//! Rings of tracers that have a hook: the kernel wakes only a reader that had caught up, so a ring
//! whose drain was cut short stays on the backlog until it is empty, and the poll does not wait.

use crate::bpf::{Drained, Hook};
use crate::clock::Now;

use super::elsewhere::drop_elsewhere;
use super::{Agent, Input};

/// Where records come from.
pub(super) trait Source {
    /// Hands out some records.
    fn drain(&mut self, each: &mut dyn FnMut(&[u8])) -> Drained;
    /// Records that found no room, since its start.
    fn lost(&self) -> u64;
    /// Soon sends no more: what it holds already can still be drained.
    fn stop(&mut self);
}

impl Source for Hook {
    fn drain(&mut self, each: &mut dyn FnMut(&[u8])) -> Drained {
        Hook::drain(self, each)
    }

    fn lost(&self) -> u64 {
        Hook::lost(self)
    }

    fn stop(&mut self) {
        drop_elsewhere(self.detach());
    }
}

/// One tracer's ring, as the loop sees it.
pub(super) struct Records<S> {
    source: S,
    /// Sources before this one that are not empty yet, the oldest first.
    replaced: Vec<S>,
    /// There may be records that the poll will not tell of again.
    waiting: bool,
    /// Records that found no room in sources that are gone.
    lost_before: u64,
    /// Of those that found no room, how many were handed out to the tracer.
    lost_handed_out: u64,
}

impl<S: Source> Records<S> {
    /// A ring that may hold something already.
    pub(super) fn new(source: S) -> Records<S> {
        Records { source, replaced: Vec::new(), waiting: true, lost_before: 0, lost_handed_out: 0 }
    }

    /// Goes on with `source`, which sends already: an event that comes meanwhile is handed out twice
    /// rather than never. What the source before it holds is handed out first.
    pub(super) fn replace(&mut self, source: S) {
        let mut before = std::mem::replace(&mut self.source, source);
        before.stop();
        self.replaced.push(before);
        self.waiting = true;
    }

    /// The source that sends.
    pub(super) fn source(&self) -> &S {
        &self.source
    }

    /// The poll said that there is something.
    pub(super) fn wake(&mut self) {
        self.waiting = true;
    }

    /// Whether it is on the backlog.
    pub(super) fn waits(&self) -> bool {
        self.waiting
    }

    /// Records that found no room, of all its sources.
    pub(super) fn lost(&self) -> u64 {
        self.replaced.iter().chain([&self.source]).map(S::lost).fold(self.lost_before, u64::saturating_add)
    }

    /// Hands out some, and how many were lost; what is left waits for the next turn.
    pub(super) fn take(&mut self, each: &mut dyn FnMut(&[u8])) -> u64 {
        let drained = self.replaced.first_mut().unwrap_or(&mut self.source).drain(each);
        self.waiting = drained == Drained::More || !self.replaced.is_empty();
        if drained == Drained::Empty && !self.replaced.is_empty() {
            self.lost_before = self.lost_before.saturating_add(self.replaced.remove(0).lost());
        }
        let lost = self.lost();
        lost.saturating_sub(std::mem::replace(&mut self.lost_handed_out, lost))
    }
}

impl Agent {
    /// Whether records wait that the poll does not tell of.
    pub(super) fn records_wait(&self) -> bool {
        self.slots.all().filter_map(|slot| slot.records.as_ref()).any(Records::waits)
    }

    /// Has the facts read in this turn that records are told with.
    pub(super) fn read_for_records(&mut self) {
        for slot in self.slots.all_mut() {
            slot.due |= slot.records.as_ref().is_some_and(Records::waits);
        }
    }

    /// Hands the records that wait to their tracers, which have been fed with this turn's facts.
    pub(super) fn hand_out_records(&mut self, now: Now) {
        for index in self.slots.places() {
            self.hand_out_some(now, index);
        }
    }

    /// Hands some of the records that wait to this tracer.
    fn hand_out_some(&mut self, now: Now, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Some(mut records) = slot.records.take_if(|records| records.waits()) else { return };
        let lost = records.take(&mut |record| {
            self.feed(index, now, None, &Input::Record(record));
        });
        if lost > 0 {
            self.feed(index, now, None, &Input::Lost(lost));
        }
        if let Some(slot) = self.slots.get_mut(index) {
            slot.records = Some(records);
        }
    }

    /// Hands a tracer all that is in its hook's ring, for that happened before, and closes it. A thread detaches the hook.
    pub(super) fn hand_out_last(&mut self, now: Now, index: usize) {
        let Some(records) = self.slots.get_mut(index).and_then(|slot| slot.records.as_mut()) else { return };
        records.source.stop();
        records.wake();
        self.read_for_records();
        let at = loop {
            if let Some(at) = self.look(now) {
                break at;
            }
        };
        while self.slots.get(index).and_then(|slot| slot.records.as_ref()).is_some_and(Records::waits) {
            self.hand_out_some(at, index);
        }
        if let Some(slot) = self.slots.get_mut(index) {
            // This takes it out of the poll, too.
            slot.records = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds this many records, of which a drain gives sixteen, and has lost that many.
    struct Many(u8, u64);

    impl Source for Many {
        fn drain(&mut self, each: &mut dyn FnMut(&[u8])) -> Drained {
            let now = self.0.min(16);
            (0..now).for_each(|left| each(&[self.0 - left]));
            self.0 -= now;
            if now == 16 { Drained::More } else { Drained::Empty }
        }

        fn lost(&self) -> u64 {
            self.1
        }

        fn stop(&mut self) {
            assert_eq!(self.1, 3, "it is still asked for what it lost");
        }
    }

    #[test]
    fn a_ring_stays_on_the_backlog_until_it_is_empty_though_it_wakes_once() {
        for many in [0, 1, 15, 16, 17, 40, 48] {
            let mut records = Records::new(Many(0, 1));
            assert_eq!((records.take(&mut |_| {}), records.waits()), (1, false), "what was there at start");
            records.source.0 = many;
            assert!(!records.waits(), "nobody has told of it yet");
            records.wake();
            let (mut turns, mut got) = (0, Vec::new());
            while records.waits() {
                assert_eq!(records.take(&mut |record| got.extend_from_slice(record)), 0, "told once");
                turns += 1;
            }
            assert!(got.iter().copied().eq((1..=many).rev()), "{got:?}");
            assert_eq!(turns, many / 16 + 1, "and not once more");
        }
    }

    #[test]
    fn a_replaced_hook_hands_out_what_its_ring_holds_before_the_new_one() {
        let mut records = Records::new(Many(20, 3));
        records.replace(Many(2, 3));
        records.replace(Many(1, 5));
        let (mut got, mut lost) = (Vec::new(), 0);
        while records.waits() {
            lost += records.take(&mut |record| got.extend_from_slice(record));
            assert_eq!(records.lost(), 11, "of all three, whichever are gone");
        }
        assert!(got.iter().copied().eq((1..=20).rev().chain([2, 1, 1])), "{got:?}");
        assert_eq!(lost, 11);
    }
}
