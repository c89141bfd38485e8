//! Counts the tasks of a look at all of them, which may take several turns.

use std::time::Duration;

use crate::host::{Containers, Key, Reading, TaskCounts, TaskLook, TaskSample};

/// The counts of a look that is under way.
#[derive(Debug)]
pub(super) struct TaskCounter {
    all: TaskCounts,
    /// By the container's slot.
    counted: Vec<Counted>,
    under_way: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// Whose tasks these are: a slot may change hands during a look.
    key: Option<Key>,
    counts: TaskCounts,
}

impl Counted {
    fn of(self, key: Key) -> TaskCounts {
        if self.key == Some(key) { self.counts } else { TaskCounts::default() }
    }
}

impl TaskCounter {
    /// One for as many slots as there will ever be.
    pub(super) fn with_capacity(slots: usize) -> TaskCounter {
        TaskCounter { all: TaskCounts::default(), counted: Vec::with_capacity(slots), under_way: false }
    }

    /// Goes on with the look, or begins one. `sample` is given a counter to tell of each task.
    pub(super) fn count(
        &mut self,
        containers: &Containers,
        sample: impl FnOnce(&Containers, &mut dyn FnMut(TaskSample)) -> TaskLook,
    ) -> TaskLook {
        if !std::mem::replace(&mut self.under_way, true) {
            self.all = TaskCounts::default();
            self.counted.clear();
        }
        // Containers may have come since the look began.
        self.counted.resize(containers.slots().max(self.counted.len()), Counted::default());
        let look = sample(containers, &mut |task| self.add(containers, &task));
        self.under_way = look.is_under_way();
        look
    }

    fn add(&mut self, containers: &Containers, task: &TaskSample) {
        self.all.add(task);
        let Some(key) = task.container.filter(|key| containers.get(*key).is_some()) else { return };
        let Some(counted) = self.counted.get_mut(usize::from(key.slot)) else { return };
        if counted.key != Some(key) {
            *counted = Counted { key: Some(key), counts: TaskCounts::default() };
        }
        counted.counts.add(task);
    }

    /// Puts the counts of a whole look, which was begun at `at`, into the containers' readings. The host's.
    pub(super) fn store(
        &self,
        at: Duration,
        containers: &Containers,
        readings: &mut [Reading],
    ) -> TaskCounts {
        for container in containers.iter() {
            let key = container.key();
            let slot = usize::from(key.slot);
            if let Some(reading) = readings.get_mut(slot) {
                let counts =
                    self.counted.get(slot).map_or_else(TaskCounts::default, |counted| counted.of(key));
                reading.tasks = Some(TaskCounts { at, ..counts });
            }
        }
        TaskCounts { at, ..self.all }
    }
}
