//! A look: facts are read for the tracers whose time has come, and handed to them. Where there are many containers or
//! tasks it takes several turns of the loop.

use crate::clock::Now;
use crate::host::{Facts, Scan};

use super::slot::{self, Slot};
use super::{Agent, Input};

impl Agent {
    /// Reads what the tracers whose time has come need, once for all, and feeds them. Returns the time that the
    /// facts are of; `None`: not all containers are read yet, and it goes on in the next turn.
    pub(super) fn look(&mut self, now: Now) -> Option<Now> {
        let at = self.looking.unwrap_or(now);
        // Who is told of tasks waits until all were looked at; the others do not.
        let counted = self.count_tasks(at);
        let looks = |slot: &Slot| slot.due && (counted || !slot.spec.facts.tasks);
        if !self.slots.all().any(looks) {
            self.looking = None;
            self.task_look.take_if(|_| counted);
            return Some(now);
        }
        let facts = self.slots.all().filter(|slot| looks(slot));
        let facts = facts.fold(Facts::NONE, |facts, slot| facts.and(slot.spec.facts));
        if self.reader.read_some(facts, at) == Scan::Partial {
            self.looking = Some(at);
            return None;
        }
        self.looking = None;
        self.task_look.take_if(|_| counted);
        for index in self.slots.places() {
            let Some(slot) = self.slots.get_mut(index).filter(|slot| looks(slot)) else { continue };
            slot.due = false;
            if !slot.state.ticks() {
                continue;
            }
            match slot::missing(slot.spec.facts, &self.reader.snapshot()) {
                None => {
                    slot.reads();
                    slot.counts.samples += 1;
                    self.feed(index, at, None, &Input::Tick);
                }
                Some(reason) => {
                    slot.fails(reason);
                    slot.counts.fault("facts_missing");
                }
            }
        }
        Some(at)
    }

    /// Goes on with the look at all tasks, if a tracer is due for one or it has begun. False: more of it is to come.
    fn count_tasks(&mut self, now: Now) -> bool {
        if self.task_look.is_some_and(|look| !look.is_under_way()) {
            return true; // Who is told of it waits for the containers.
        }
        let under_way = self.task_look.is_some();
        if !under_way && !self.slots.all().any(|slot| slot.due && slot.spec.facts.tasks) {
            return true;
        }
        let captures = &mut self.shared.captures;
        let look = self.reader.count_tasks(now, |containers, each| captures.sample_tasks(containers, each));
        self.task_look = Some(look);
        !look.is_under_way()
    }
}
