//! Who holds most memory. Read from stat and statm alone: what would take a process's mmap_lock
//! hangs with a process that is stuck for want of memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::backend::{Backend, Cgroups, Loaded, Loader, Method, OPEN_MAX, Submission};
use super::load::page_bytes;
use super::open_request::OpenRequest;
use super::proc_task;
use crate::capture_data::{Arena, CaptureData, Resident, Rows, Scope};
use crate::host::Text;
use crate::host::containers::paths::{self, PATH_MAX};
use crate::host::proc::cgroups;
use crate::sys;
use crate::thread_spawner::Worker;
use crate::work_queue::{WorkQueue, WorkerGuard};

/// Processes that are kept: no document shows more.
const KEPT: usize = 100;

/// Whose memory is looked at. All of it inside: the loop hands it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Members {
    /// Those in this cgroup and in those below it, by its path below the mount point; `None`:
    /// every process of the host.
    cgroup: Option<Text<PATH_MAX>>,
    /// Whether it is in the unified hierarchy, else in v1's cpu hierarchy.
    unified: bool,
}

impl Members {
    /// Every process of the host.
    pub(super) const HOST: Members = Members { cgroup: None, unified: false };

    /// Those in the cgroup of this path.
    fn of(path: &str, unified: bool) -> Members {
        // What is too long is nobody's: a part of it would be another cgroup.
        Members { cgroup: Some(Text::new(path).unwrap_or_else(|| Text::cut("\0"))), unified }
    }

    /// Those of a capture of this scope.
    pub(super) fn of_scope(scope: Scope, containers: Cgroups<'_>, unified: bool) -> Members {
        let Scope::Container(key) = scope else { return Members::HOST };
        // Of a container that is not there, the root's members: every process of the host.
        let mut members = Members::of("", unified);
        containers(&mut |path, other| {
            if other == key {
                members = Members::of(path, unified);
            }
        });
        members
    }

    fn hold(&self, process: &Path) -> bool {
        let Some(path) = &self.cgroup else { return true };
        let text = fs::read(process.join("cgroup")).unwrap_or_default();
        proc_task::cgroup(&paths::shown(&text), self.unified)
            .is_some_and(|cgroup| cgroups::is_below(cgroup, path))
    }
}

/// One look at who holds most memory.
struct Job {
    open: OpenRequest,
    members: Members,
}

/// Looks at processes' memory, on a thread that is there while looks are asked for.
struct Residents {
    queue: WorkQueue<Job>,
    proc: Box<Path>,
    unified: bool,
}

/// Needs nothing but /proc.
pub(super) fn load(loader: &mut Loader<'_>) -> Loaded {
    let (proc, unified) = (loader.paths.proc.as_path().into(), loader.hierarchy.unified);
    Ok(Arc::new(Residents { queue: WorkQueue::new(OPEN_MAX), proc, unified }))
}

impl Backend for Residents {
    fn method(&self) -> Method {
        Method { name: "/proc", degraded: None }
    }

    fn submit(self: Arc<Self>, open: OpenRequest, from: &Submission<'_>) {
        let members = Members::of_scope(open.scope(), from.containers, self.unified);
        from.spawner.push(&self, Job { open, members });
    }

    fn close(&self, deadline: Instant) {
        self.queue.close(deadline);
    }
}

impl Worker for Residents {
    type Job = Job;

    fn name(&self) -> &'static str {
        "onset-memory"
    }

    fn queue(&self) -> &WorkQueue<Job> {
        &self.queue
    }

    fn work(&self, jobs: &mut WorkerGuard<'_, Job>) {
        jobs.each(|Job { open, members }| {
            let began = Instant::now();
            let top = top(&self.proc, &members, page_bytes().into());
            open.finish(sys::at(began), began.elapsed(), 0, |arena| CaptureData::Memory(rows(&top, arena)));
        });
    }
}

/// A process with its resident memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pid: u32,
    comm: Box<str>,
    rss_bytes: u64,
}

/// As many of the first of these as the arena has room for.
pub(super) fn rows<'a>(holders: &[Holder], arena: &'a Arena) -> Rows<'a, Resident<'a>> {
    arena.rows(holders.iter(), |Holder { pid, comm, rss_bytes }| {
        Some(Resident { pid: *pid, comm: arena.text(comm)?, rss_bytes: *rss_bytes })
    })
}

/// The processes with most resident memory, most first. A process that ends meanwhile is left out.
pub(super) fn top(proc: &Path, members: &Members, page_bytes: u64) -> Vec<Holder> {
    let mut kept = BinaryHeap::new();
    for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let process = entry.path();
        let Some(pages) = fs::read(process.join("statm")).ok().and_then(|text| resident_pages(&text)) else {
            continue;
        };
        // Kernel threads have none.
        let small = kept.len() >= KEPT && kept.peek().is_some_and(|Reverse((least, _))| pages <= *least);
        if pages == 0 || small || !members.hold(&process) {
            continue;
        }
        kept.push(Reverse((pages, pid)));
        if kept.len() > KEPT {
            kept.pop();
        }
    }
    let named = |Reverse((pages, pid)): Reverse<(u64, u32)>| {
        let stat = fs::read(proc.join(pid.to_string()).join("stat")).ok()?;
        let comm = proc_task::stat(&stat)?.comm;
        Some(Holder { pid, comm, rss_bytes: pages.saturating_mul(page_bytes) })
    };
    kept.into_sorted_vec().into_iter().filter_map(named).collect()
}

/// The second number of a statm file (proc_pid_statm(5)).
pub(super) fn resident_pages(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A /proc with these processes: id, resident pages, cgroup.
    struct Proc(std::path::PathBuf);

    impl Proc {
        fn new(name: &str, processes: &[(u32, u64, &str)]) -> Proc {
            let path = std::env::temp_dir().join(format!("onset-resident-{name}-{}", std::process::id()));
            for (pid, pages, cgroup) in processes {
                let process = path.join(pid.to_string());
                fs::create_dir_all(&process).expect("a folder");
                let stat = format!("{pid} (p {pid}) S 1 {pid} 1 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 98 11 12\n");
                fs::write(process.join("stat"), stat).expect("a file");
                fs::write(process.join("statm"), format!("9999 {pages} 1 1 0 1 0\n")).expect("a file");
                fs::write(process.join("cgroup"), format!("4:cpu:{cgroup}\n0::/none\n")).expect("a file");
            }
            fs::create_dir_all(path.join("self")).expect("a folder");
            Proc(path)
        }

        fn pids(&self, members: &Members) -> Vec<u32> {
            top(&self.0, members, 4096).iter().map(|process| process.pid).collect()
        }
    }

    impl Drop for Proc {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_largest_come_first_and_kernel_threads_not_at_all() {
        let proc = Proc::new("largest", &[(1, 5, "/"), (2, 0, "/"), (30, 700, "/a"), (4, 60, "/a/b")]);
        assert_eq!(proc.pids(&Members::HOST), [30, 4, 1]);
        let largest = top(&proc.0, &Members::HOST, 4096).remove(0);
        assert_eq!(largest, Holder { pid: 30, comm: "p 30".into(), rss_bytes: 700 * 4096 });
    }

    #[test]
    fn a_cgroup_holds_its_own_processes_and_those_below_it() {
        let proc = Proc::new("cgroup", &[(1, 5, "/"), (3, 7, "/a"), (4, 6, "/a/b"), (5, 9, "/ab")]);
        let members = |unified| Members::of("/a", unified);
        assert_eq!(proc.pids(&members(false)), [3, 4]);
        assert!(proc.pids(&members(true)).is_empty());
    }

    #[test]
    fn only_the_processes_with_most_memory_are_kept() {
        let many: Vec<_> = (1..=300).map(|pid| (pid, u64::from(pid * 7919 % 1009) + 1, "/")).collect();
        let proc = Proc::new("many", &many);
        let mut want = many.clone();
        want.sort_by_key(|(_, pages, _)| Reverse(*pages));
        let want: Vec<u64> = want.iter().take(KEPT).map(|(_, pages, _)| pages * 4096).collect();
        let rss: Vec<_> = top(&proc.0, &Members::HOST, 4096).iter().map(|one| one.rss_bytes).collect();
        assert_eq!(rss, want);
    }

    #[test]
    fn without_a_proc_nobody_is_told_of() {
        assert!(top(Path::new("/nonexistent"), &Members::HOST, 4096).is_empty());
        assert_eq!(resident_pages(b""), None);
        assert_eq!(resident_pages(b"1"), None);
        assert_eq!(resident_pages(b"1 -2"), None);
        assert_eq!(resident_pages(b"\xff 1"), None);
    }
}
