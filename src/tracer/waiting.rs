//! The part of a document that holds run-queue waits: how long, why, and who held the CPUs.

use std::io;
use std::time::Duration;

use serde::Serialize;

use super::fields::{EventHead, Most, Truncated, field};
use super::percents::{Nanos, Percent};
use super::{Data, Field, FieldKind, Shrink};
use crate::capture_data::{CaptureKind, Interferer, TaskGroup, Waited, Waiter, Waits};
use crate::host::Containers;

/// More rows than this tell nothing new.
const ROWS_MAX: usize = 1024;

/// What it adds to a document.
pub const FIELDS: [Field; 18] = [
    field("warn_type", FieldKind::Keyword, "What most of the wait was: inner, external or throttled"),
    field("wait_percent", FieldKind::Double, "Time waited for a CPU, in percent of waited and run time"),
    field("wait_ms", FieldKind::Long, "Time waited, of all tasks together, in milliseconds"),
    field("run_ms", FieldKind::Long, "Time run, of all tasks together, in milliseconds"),
    field(
        "unread_cpus",
        FieldKind::Long,
        "CPUs whose last sums could not be read: run_ms and wait_ms are too low by what was last there; left out if none",
    ),
    field("inner_percent", FieldKind::Double, "Of the wait: while its own tasks had the CPU"),
    field("external_percent", FieldKind::Double, "Of the wait: while others had the CPU"),
    field("throttled_percent", FieldKind::Double, "Of the wait: while its quota held it back"),
    field("unheld_percent", FieldKind::Double, "Of the wait: while nobody had the CPU"),
    field("unsplit_percent", FieldKind::Double, "Of the wait: too short, or too long ago, to look into"),
    field("interferer_list.container_id", FieldKind::Keyword, "A container that had the CPU meanwhile"),
    field("interferer_list.cgroup_path", FieldKind::Keyword, "Its cgroup, or one that is no container's"),
    field("interferer_list.wait_ms", FieldKind::Long, "For how long it was waited for, in milliseconds"),
    field("interferer_list.percent", FieldKind::Double, "Percent of the wait; most first"),
    field("waiters.container_id", FieldKind::Keyword, "Of the whole host: a container that waited"),
    field("waiters.cgroup_path", FieldKind::Keyword, "Its cgroup, or one that is no container's"),
    field("waiters.wait_ms", FieldKind::Long, "For how long it waited, in milliseconds"),
    field("waiters.percent", FieldKind::Double, "Percent of the host's wait; most first"),
];

/// An event of waits.
pub struct Waiting<'a, R> {
    /// What all events begin with.
    pub head: EventHead,
    /// What was read when it was asked for.
    pub readings: R,
    /// What was seen.
    pub waits: &'a Waits<'a>,
    /// To name those in it.
    pub containers: &'a Containers,
}

#[derive(Serialize)]
struct Body<'a, R> {
    #[serde(flatten)]
    head: EventHead,
    #[serde(flatten)]
    readings: &'a R,
    #[serde(skip_serializing_if = "Option::is_none")]
    warn_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_percent: Option<Percent>,
    wait_ms: u64,
    run_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    unread_cpus: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inner_percent: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_percent: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttled_percent: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unheld_percent: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsplit_percent: Option<Percent>,
    #[serde(flatten)]
    truncated: Truncated,
    interferer_list: Cut<'a, Interferer<'a>>,
    #[serde(skip_serializing_if = "Cut::is_empty")]
    waiters: Cut<'a, Waiter<'a>>,
}

impl<R: Serialize> Data for Waiting<'_, R> {
    fn write(&self, shrink: Shrink, to: &mut dyn io::Write) -> serde_json::Result<()> {
        let Waits { whole, unread_cpus, interferers, waiters } = self.waits;
        let share = |part| Percent::of(part, Nanos::from(whole.all));
        let interferer_list = Cut::of(interferers, shrink, whole.all, self.containers);
        let rows = Cut::of(waiters, shrink, whole.all, self.containers);
        let most = Most("rows", ROWS_MAX);
        let truncated = Truncated::of(shrink, CaptureKind::Waits)
            .and("interferer_list", interferers, most, interferer_list.rows.len())
            .and("waiters", waiters, most, rows.rows.len());
        serde_json::to_writer(
            to,
            &Body {
                head: self.head,
                readings: &self.readings,
                warn_type: warn_type(whole),
                wait_percent: Percent::of(whole.all, Nanos::from(whole.all.saturating_add(whole.ran))),
                wait_ms: ms(whole.all),
                run_ms: ms(whole.ran),
                unread_cpus: Some(*unread_cpus).filter(|cpus| *cpus > 0),
                inner_percent: share(whole.inner),
                external_percent: share(whole.external),
                throttled_percent: share(whole.throttled),
                unheld_percent: share(whole.unheld),
                unsplit_percent: share(unsplit(whole)),
                truncated,
                interferer_list,
                waiters: rows,
            },
        )
    }
}

/// What its parts leave of a wait.
pub fn unsplit(waited: &Waited) -> Duration {
    let parts = [waited.inner, waited.external, waited.throttled, waited.unheld];
    parts.into_iter().fold(waited.all, Duration::saturating_sub)
}

/// The largest part that has a cause. `None`: no wait has a cause.
fn warn_type(waited: &Waited) -> Option<&'static str> {
    let causes = [("inner", waited.inner), ("external", waited.external), ("throttled", waited.throttled)];
    let (name, most) = causes.into_iter().max_by_key(|(_, part)| *part)?;
    (!most.is_zero()).then_some(name)
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A group with its time.
trait Timed {
    fn group(&self) -> TaskGroup<'_>;
    fn time(&self) -> Duration;
}

impl Timed for Interferer<'_> {
    fn group(&self) -> TaskGroup<'_> {
        self.group
    }
    fn time(&self) -> Duration {
        self.held
    }
}

impl Timed for Waiter<'_> {
    fn group(&self) -> TaskGroup<'_> {
        self.group
    }
    fn time(&self) -> Duration {
        self.time.all
    }
}

struct Cut<'a, T> {
    rows: &'a [T],
    whole: Duration,
    containers: &'a Containers,
}

impl<'a, T> Cut<'a, T> {
    fn of(all: &'a [T], shrink: Shrink, whole: Duration, containers: &'a Containers) -> Cut<'a, T> {
        let rows = all.get(..shrink.keep(all.len().min(ROWS_MAX))).unwrap_or_default();
        Cut { rows, whole, containers }
    }

    fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    container_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_path: Option<&'a str>,
    wait_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<Percent>,
}

impl<T: Timed> Serialize for Cut<'_, T> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.rows.iter().map(|row| {
            let (container_id, cgroup_path) = match row.group() {
                TaskGroup::Container(key) => {
                    let container = self.containers.get(key);
                    (container.map(|it| it.id()), container.map(|it| it.cgroup_path()))
                }
                TaskGroup::Cgroup(path) => (None, path),
            };
            let percent = Percent::of(row.time(), Nanos::from(self.whole));
            Row { container_id, cgroup_path, wait_ms: ms(row.time()), percent }
        }))
    }
}
