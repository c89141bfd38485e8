//! Rings of tracers that have a hook: the kernel wakes only a reader that had caught up, so a ring
//! whose drain was cut short stays on the backlog until it is empty, and the poll does not wait.

use crate::bpf::{Drained, Hook};
use crate::clock::Now;

use super::{Agent, Food};

/// Where records come from.
pub(super) trait Source {
    /// Hands out some records.
    fn drain(&mut self, each: &mut dyn FnMut(&[u8])) -> Drained;
    /// Records that found no room since this was last asked.
    fn newly_lost(&mut self) -> u64;
}

impl Source for Hook {
    fn drain(&mut self, each: &mut dyn FnMut(&[u8])) -> Drained {
        Hook::drain(self, each)
    }

    fn newly_lost(&mut self) -> u64 {
        Hook::newly_lost(self)
    }
}

/// One tracer's ring, as the loop sees it.
pub(super) struct Records<S> {
    pub(super) source: S,
    /// There may be records that the poll will not tell of again.
    waiting: bool,
}

impl<S: Source> Records<S> {
    /// A ring that may hold something already.
    pub(super) fn new(source: S) -> Records<S> {
        Records { source, waiting: true }
    }

    /// The poll said that there is something.
    pub(super) fn wake(&mut self) {
        self.waiting = true;
    }

    /// Whether it is on the backlog.
    pub(super) fn waits(&self) -> bool {
        self.waiting
    }

    /// Hands out some, and how many were lost; what is left waits for the next turn.
    pub(super) fn take(&mut self, each: &mut dyn FnMut(&[u8])) -> u64 {
        self.waiting = self.source.drain(each) == Drained::More;
        self.source.newly_lost()
    }
}

impl Agent {
    /// Whether records wait that the poll does not tell of.
    pub(super) fn records_wait(&self) -> bool {
        self.slots.iter().filter_map(|slot| slot.records.as_ref()).any(Records::waits)
    }

    /// Has the facts read in this turn that records are told with.
    pub(super) fn read_for_records(&mut self) {
        for slot in &mut self.slots {
            slot.due |= slot.records.as_ref().is_some_and(Records::waits);
        }
    }

    /// Hands the records that wait to their tracers, which have been fed with this turn's facts.
    pub(super) fn hand_out_records(&mut self, now: Now) {
        for index in 0..self.slots.len() {
            self.hand_out_some(now, index);
        }
    }

    /// Hands some of the records that wait to this tracer.
    fn hand_out_some(&mut self, now: Now, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Some(mut records) = slot.records.take_if(|records| records.waits()) else { return };
        let lost = records.take(&mut |record| {
            self.feed(index, now, None, &Food::Record(record));
        });
        if lost > 0 {
            self.feed(index, now, None, &Food::Lost(lost));
        }
        if let Some(slot) = self.slots.get_mut(index) {
            slot.records = Some(records);
        }
    }

    /// Detaches a tracer's hook, and hands it all that is in the ring: that happened before.
    pub(super) fn hand_out_last(&mut self, now: Now, index: usize) {
        let Some(records) = self.slots.get_mut(index).and_then(|slot| slot.records.as_mut()) else { return };
        records.source.detach();
        records.wake();
        self.read_for_records();
        self.look(now);
        while self.slots.get(index).and_then(|slot| slot.records.as_ref()).is_some_and(Records::waits) {
            self.hand_out_some(now, index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many records, of which a drain gives sixteen.
    struct Many(u8);

    impl Source for Many {
        fn drain(&mut self, each: &mut dyn FnMut(&[u8])) -> Drained {
            let now = self.0.min(16);
            (0..now).for_each(|left| each(&[self.0 - left]));
            self.0 -= now;
            if now == 16 { Drained::More } else { Drained::Empty }
        }

        fn newly_lost(&mut self) -> u64 {
            u64::from(self.0 == 0)
        }
    }

    #[test]
    fn a_ring_stays_on_the_backlog_until_it_is_empty_though_it_wakes_once() {
        for many in [0, 1, 15, 16, 17, 40, 48] {
            let mut records = Records::new(Many(0));
            assert_eq!((records.take(&mut |_| {}), records.waits()), (1, false), "what was there at start");
            records.source.0 = many;
            assert!(!records.waits(), "nobody has told of it yet");
            records.wake();
            let (mut turns, mut got) = (0, Vec::new());
            while records.waits() {
                records.take(&mut |record| got.extend_from_slice(record));
                turns += 1;
            }
            assert!(got.iter().copied().eq((1..=many).rev()), "{got:?}");
            assert_eq!(turns, many / 16 + 1, "and not once more");
        }
    }
}
