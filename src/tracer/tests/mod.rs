//! Stories of tracers: events in, requests out.

mod captures;
mod cpuidle;
mod cpusys;
mod dload;
mod documents;
mod example;
mod filters;
mod iotracing;
mod memburst;
mod oom;
mod reconfigured;
mod specs;
mod uniform;
mod waitrate;
pub(crate) mod watch;

use std::time::Duration;

use super::Trigger;
use super::play::Play;
use crate::capture_data::{
    Capture, CaptureData, CaptureKind, Faults, FlameNode, Profile, Resident, Rows, Scope, StackNames, Task,
    TopProcess,
};
use crate::clock::{Now, Wall};

/// A document's usual size.
const SIZE: usize = 1 << 20;

const TEN: Duration = Duration::from_secs(10);

/// When captures begin in these stories: the longest before any rule fires.
const BEGAN: Now = Now { mono: Duration::from_secs(990), wall: Wall(1_699_999_990_000) };

/// What a capture of this kind brings in these stories.
fn capture(kind: CaptureKind, scope: Scope) -> Capture<'static> {
    let node = |level, value, own, label| FlameNode { level, value, own, label };
    let data = match kind {
        CaptureKind::Stacks => CaptureData::Stacks(Profile {
            hz: 99,
            samples: 5,
            flame: rows([node(0, 5, 0, "all"), node(1, 5, 1, "sh"), node(2, 4, 4, "spin_[k]")]),
            top: rows([TopProcess { pid: 7, comm: "sh", samples: 5 }]),
        }),
        CaptureKind::Tasks => {
            CaptureData::Tasks(rows([task(7, &["io_schedule", "rpc_wait"]), task(8, &["io_schedule"])]))
        }
        CaptureKind::Faults => CaptureData::Faults(Faults {
            flame: rows([node(0, 8192, 0, "all"), node(1, 8192, 8192, "sh")]),
            top: residents(),
        }),
        CaptureKind::Memory => CaptureData::Memory(residents()),
        CaptureKind::Waits => CaptureData::Waits(waitrate::waits()),
        CaptureKind::Probe => CaptureData::Probe(Rows::default()),
        CaptureKind::Io => CaptureData::Io(iotracing::found()),
        CaptureKind::Names => CaptureData::Names(StackNames {
            kernel: rows(["shrink_node", "vfs_write"]),
            user: rows(["write", "main"]),
        }),
    };
    Capture { scope, began: BEGAN, lasted: TEN, lost: 3, data }
}

/// Rows that are there for ever, of which nothing is left out.
fn rows<T>(list: impl IntoIterator<Item = T>) -> Rows<'static, T> {
    Rows::from(&*list.into_iter().collect::<Vec<_>>().leak())
}

fn residents() -> Rows<'static, Resident<'static>> {
    let one = |pid, comm, rss_bytes| Resident { pid, comm, rss_bytes };
    rows([one(7, "sh", 1 << 20), one(8, "cat", 4096)])
}

fn task(tid: u32, stack: &[&'static str]) -> Task<'static> {
    Task {
        pid: 7,
        tid,
        comm: "dd",
        state: 'D',
        blocked: Duration::from_millis(61_250),
        in_iowait: true,
        container: Some(Play::key(0)),
        stack: rows(stack.iter().copied()).list(),
    }
}

/// Answers all open captures with what they usually bring. Returns what events came of it.
fn answer_all(play: &mut Play) -> Vec<Option<Trigger>> {
    let open = play.seen.open.clone();
    let answer = |(ticket, request): (_, crate::capture_data::Request)| {
        play.answer(ticket, Ok(&capture(request.kind, request.scope)))
    };
    open.into_iter().map(answer).collect()
}
