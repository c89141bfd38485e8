//! The part of a document that holds blocked tasks: each of them, and each distinct stack once as
//! a text with the tasks that are in it.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

use serde::{Serialize, Serializer};

use super::fields::{EventHead, Listed, Most, Truncated, field};
use super::{Data, Field, FieldKind, KnownIssue, Shrink};
use crate::capture_data::{CaptureKind, Rows as Captured, Task};
use crate::host::Containers;

/// More blocked tasks than this tell nothing new.
const TASKS_MAX: usize = 1024;

/// What it adds to a document.
pub const FIELDS: [Field; 10] = [
    field("known_issue", FieldKind::Keyword, "The first configured known issue that a stack is of"),
    field("stack", FieldKind::Text, "Each distinct kernel stack with its tasks"),
    field("tasks.pid", FieldKind::Long, "Process id on the host; longest blocked first"),
    field("tasks.tid", FieldKind::Long, "Thread id on the host"),
    field("tasks.comm", FieldKind::Keyword, "Name of the thread"),
    field("tasks.state", FieldKind::Keyword, "Its state, as ps(1) shows it"),
    field("tasks.blocked_ms", FieldKind::Long, "For how long it has been blocked, in milliseconds"),
    field("tasks.in_iowait", FieldKind::Boolean, "Whether the kernel accounts its wait as iowait"),
    field("tasks.container_id", FieldKind::Keyword, "Its container"),
    field("tasks.stack", FieldKind::Keyword, "Its kernel frames, innermost first"),
];

/// An event of blocked tasks.
pub struct Blocked<'a, R> {
    head: EventHead,
    readings: R,
    tasks: &'a [Task<'a>],
    all: Listed,
    containers: &'a Containers,
    known_issue: Option<&'a str>,
    stacks: Stacks,
}

impl<'a, R> Blocked<'a, R> {
    /// Of these tasks.
    pub fn new(
        head: EventHead,
        readings: R,
        tasks: &Captured<'a, Task<'a>>,
        containers: &'a Containers,
        known_issues: &'a [KnownIssue],
    ) -> Blocked<'a, R> {
        let all = Listed::from(tasks);
        let tasks = tasks.list();
        let tasks = tasks.get(..TASKS_MAX).unwrap_or(tasks);
        let stacks = Stacks::of(tasks);
        let seen = |issue: &&KnownIssue| stacks.distinct(tasks).any(|task| issue.matches(task.stack));
        let known_issue = known_issues.iter().find(seen).map(|issue| issue.name.as_str());
        Blocked { head, readings, tasks, all, containers, known_issue, stacks }
    }
}

/// Which tasks have the same stack: for each, the first task with its stack.
struct Stacks([u16; TASKS_MAX]);

impl Stacks {
    fn of(tasks: &[Task<'_>]) -> Stacks {
        let mut hashes = [0; TASKS_MAX];
        let mut first = [0; TASKS_MAX];
        for (index, task) in tasks.iter().enumerate().take(TASKS_MAX) {
            let mut hasher = DefaultHasher::new();
            task.stack.hash(&mut hasher);
            let hash = hasher.finish();
            let mut before = hashes.iter().zip(tasks).take(index);
            let same = before.position(|(other, leader)| *other == hash && leader.stack == task.stack);
            let same = same.unwrap_or(index);
            if let (Some(slot), Some(place)) = (hashes.get_mut(index), first.get_mut(index)) {
                *slot = hash;
                *place = u16::try_from(same).unwrap_or(u16::MAX);
            }
        }
        Stacks(first)
    }

    fn first(&self, index: usize) -> usize {
        self.0.get(index).map_or(index, |first| usize::from(*first))
    }

    /// A task for each distinct stack.
    fn distinct<'t>(&self, tasks: &'t [Task<'t>]) -> impl Iterator<Item = &'t Task<'t>> {
        tasks.iter().enumerate().filter(|(index, _)| self.first(*index) == *index).map(|(_, task)| task)
    }
}

/// The text: the tasks of a stack in a line, and its frames below.
struct Text<'a> {
    tasks: &'a [Task<'a>],
    stacks: &'a Stacks,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, leader) in self.tasks.iter().enumerate() {
            if self.stacks.first(index) != index {
                continue;
            }
            let mut between = "";
            for (other, task) in self.tasks.iter().enumerate().skip(index) {
                if self.stacks.first(other) == index {
                    let Task { comm, tid, blocked, .. } = task;
                    write!(f, "{between}{comm}[{tid}] blocked {:.1} s", blocked.as_secs_f64())?;
                    between = ", ";
                }
            }
            f.write_str("\n")?;
            for frame in leader.stack {
                writeln!(f, "    {frame}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[derive(Serialize)]
struct Body<'a, R> {
    #[serde(flatten)]
    head: EventHead,
    #[serde(flatten)]
    readings: &'a R,
    #[serde(skip_serializing_if = "Option::is_none")]
    known_issue: Option<&'a str>,
    #[serde(flatten)]
    truncated: Truncated,
    stack: Text<'a>,
    tasks: Rows<'a>,
}

struct Rows<'a>(&'a [Task<'a>], &'a Containers);

#[derive(Serialize)]
struct Row<'a> {
    pid: u32,
    tid: u32,
    comm: &'a str,
    state: char,
    blocked_ms: u64,
    in_iowait: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_id: Option<&'a str>,
    stack: &'a [&'a str],
}

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|task| Row {
            pid: task.pid,
            tid: task.tid,
            comm: task.comm,
            state: task.state,
            blocked_ms: u64::try_from(task.blocked.as_millis()).unwrap_or(u64::MAX),
            in_iowait: task.in_iowait,
            container_id: task.container.and_then(|key| self.1.get(key)).map(|container| container.id()),
            stack: task.stack,
        }))
    }
}

impl<R: Serialize> Data for Blocked<'_, R> {
    fn write(&self, shrink: Shrink, to: &mut dyn io::Write) -> serde_json::Result<()> {
        let tasks = self.tasks.get(..shrink.keep(self.tasks.len())).unwrap_or_default();
        serde_json::to_writer(
            to,
            &Body {
                head: self.head,
                readings: &self.readings,
                known_issue: self.known_issue,
                truncated: Truncated::of(shrink, CaptureKind::Tasks).and(
                    "tasks",
                    self.all,
                    Most("rows", TASKS_MAX),
                    tasks.len(),
                ),
                stack: Text { tasks, stacks: &self.stacks },
                tasks: Rows(tasks, self.containers),
            },
        )
    }
}
