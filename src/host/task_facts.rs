//! Tasks by state, as a look at all of them counts them.

use std::time::Duration;

use super::Key;

/// What a task does, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// R: on a CPU or waiting for one.
    Running,
    /// S, or an idle kernel thread (I).
    Sleeping,
    /// T or t.
    Stopped,
    /// D: cannot be interrupted.
    Uninterruptible,
    /// A zombie, or dying.
    Dead,
}

/// One task, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskSample {
    /// Its container, if it is in one.
    pub container: Option<Key>,
    /// What it does.
    pub state: TaskState,
    /// How long it has been in D state; zero in any other.
    pub blocked: Duration,
    /// Whether the kernel accounts its wait as iowait.
    pub in_iowait: bool,
}

/// How far a look at all tasks has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskLook {
    /// Every task was told of; the look was begun at this time of the monotonic clock.
    Whole(Duration),
    /// Some tasks were told of; the next ones can be had at once.
    Partial,
    /// Others look, and wake the loop when they are done.
    Elsewhere,
    /// It cannot be made, or broke off.
    Failed,
}

impl TaskLook {
    /// Whether more of it is to come.
    #[must_use]
    pub fn is_under_way(self) -> bool {
        matches!(self, TaskLook::Partial | TaskLook::Elsewhere)
    }
}

/// Tasks by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// When the look at them was begun, on the monotonic clock.
    pub at: Duration,
    /// R.
    pub running: u32,
    /// S and I.
    pub sleeping: u32,
    /// T and t.
    pub stopped: u32,
    /// D.
    pub uninterruptible: u32,
    /// Those of D that the kernel accounts as iowait.
    pub iowait: u32,
    /// How long the longest of D has been blocked.
    pub longest: Duration,
}

impl TaskCounts {
    /// Counts one more.
    pub fn add(&mut self, task: &TaskSample) {
        match task.state {
            TaskState::Running => self.running += 1,
            TaskState::Sleeping => self.sleeping += 1,
            TaskState::Stopped => self.stopped += 1,
            TaskState::Uninterruptible => {
                self.uninterruptible += 1;
                self.iowait += u32::from(task.in_iowait);
                self.longest = self.longest.max(task.blocked);
            }
            TaskState::Dead => {}
        }
    }
}
