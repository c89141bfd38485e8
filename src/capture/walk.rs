//! Tasks where there is no task iterator: a walk over /proc. It takes 10 us a task and more, so
//! it has a thread of its own. How long a task has been stuck is not in /proc: it is counted
//! from the first walk that saw it there, for as long as it is not put on a CPU in between.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::backend::Cgroups;
use super::proc_task::{self, Stat};
use crate::host::containers::paths;
use crate::host::proc::cgroups;
use crate::host::{Key, TaskSample, TaskState};

/// The containers by their cgroups' paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths {
    text: String,
    ends: Vec<(usize, Key)>,
}

impl Paths {
    /// With room for this many `containers`, so that filling it needs no memory. Room that is never written to
    /// costs nothing.
    pub(super) fn with_capacity(containers: usize) -> Paths {
        Paths {
            text: String::with_capacity(paths::PathTable::room(containers)),
            ends: Vec::with_capacity(containers),
        }
    }

    /// Takes the containers that are there in place of those it had.
    pub(super) fn fill(&mut self, containers: Cgroups<'_>) {
        self.text.clear();
        self.ends.clear();
        containers(&mut |path, key| self.push(path, key));
    }

    fn push(&mut self, path: &str, key: Key) {
        self.text.push_str(path);
        self.ends.push((self.text.len(), key));
    }

    fn iter(&self) -> impl Iterator<Item = (&str, Key)> {
        let mut start = 0;
        self.ends.iter().filter_map(move |(end, key)| {
            let path = self.text.get(start..*end)?;
            start = *end;
            Some((path, *key))
        })
    }
}

/// Remembers what the walks before saw.
pub(super) struct Walker {
    proc: PathBuf,
    unified: bool,
    stuck: HashMap<u32, Stay>,
}

/// A task that was seen in D state.
struct Stay {
    started: u64,
    switches: u64,
    since: Instant,
}

/// A task in D state, with its name and its stack.
#[derive(Debug)]
pub(super) struct StuckTask {
    pub(super) pid: u32,
    pub(super) tid: u32,
    pub(super) comm: Box<str>,
    pub(super) sample: TaskSample,
    /// Kernel frames, innermost first.
    pub(super) stack: Vec<Box<str>>,
}

/// A task of a walk.
pub(super) struct Walked<'w> {
    pub(super) pid: u32,
    pub(super) tid: u32,
    pub(super) stat: &'w Stat,
    pub(super) sample: TaskSample,
    dir: &'w Path,
}

impl Walked<'_> {
    /// All that can be told of it. Only root may read its stack.
    pub(super) fn stuck(&self) -> StuckTask {
        StuckTask {
            pid: self.pid,
            tid: self.tid,
            comm: self.stat.comm.clone(),
            sample: self.sample,
            stack: proc_task::stack(&fs::read(self.dir.join("stack")).unwrap_or_default()),
        }
    }
}

impl Walker {
    pub(super) fn new(proc: &Path, unified: bool) -> Walker {
        Walker { proc: proc.into(), unified, stuck: HashMap::new() }
    }

    /// Walks over all tasks. A task that ends meanwhile is left out.
    pub(super) fn walk(
        &mut self,
        containers: &Paths,
        mut each: impl FnMut(&Walked<'_>),
    ) -> std::io::Result<()> {
        let by_path: HashMap<&str, Key> = containers.iter().collect();
        let mut still = HashSet::new();
        for process in numbered(&self.proc)? {
            let Ok(threads) = numbered(&process.1.join("task")) else { continue };
            for (tid, dir) in threads {
                let Some(stat) = fs::read(dir.join("stat")).ok().and_then(|text| proc_task::stat(&text))
                else {
                    continue;
                };
                let mut blocked = Duration::ZERO;
                if stat.state == TaskState::Uninterruptible {
                    blocked = self.stay(tid, &stat, &dir);
                    still.insert(tid);
                }
                let container = fs::read(dir.join("cgroup")).ok().and_then(|text| {
                    nearest(&by_path, proc_task::cgroup(&paths::shown(&text), self.unified)?)
                });
                // /proc does not tell whether a wait is accounted as iowait.
                let sample = TaskSample { container, state: stat.state, blocked, in_iowait: false };
                each(&Walked { pid: process.0, tid, stat: &stat, sample, dir: &dir });
            }
        }
        self.stuck.retain(|tid, _| still.contains(tid));
        Ok(())
    }

    /// For how long it is known to have been in D state.
    fn stay(&mut self, tid: u32, stat: &Stat, dir: &Path) -> Duration {
        let status = fs::read_to_string(dir.join("status")).unwrap_or_default();
        let switches = proc_task::switches(&status).unwrap_or(0);
        let now = Instant::now();
        let new = Stay { started: stat.started, switches, since: now };
        let stay = self.stuck.entry(tid).or_insert(Stay { ..new });
        if stay.started != new.started || stay.switches != new.switches {
            *stay = new;
        }
        now.saturating_duration_since(stay.since)
    }
}

/// The entries of a directory whose names are numbers.
fn numbered(dir: &Path) -> std::io::Result<impl Iterator<Item = (u32, PathBuf)> + use<>> {
    let number = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))
    };
    Ok(fs::read_dir(dir)?.filter_map(number))
}

/// The container of a cgroup, or of the nearest one above it.
fn nearest(by_path: &HashMap<&str, Key>, cgroup: &str) -> Option<Key> {
    if cgroup.starts_with("/..") {
        // Seen from a cgroup namespace of our own.
        let above = by_path.iter().filter(|(path, _)| cgroups::is_below(cgroup, path));
        return above.max_by_key(|(path, _)| path.len()).map(|(_, key)| *key);
    }
    let mut path = cgroup.strip_suffix('/').unwrap_or(cgroup);
    loop {
        if let Some(key) = by_path.get(path) {
            return Some(*key);
        }
        path = path.rsplit_once('/')?.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Key = Key { slot: 1, generation: 1 };
    const B: Key = Key { slot: 2, generation: 1 };

    #[test]
    fn a_cgroup_below_a_container_is_the_containers_and_a_longer_name_is_not() {
        let mut paths = Paths::default();
        paths.push("/pod/a", A);
        paths.push("/pod/a/b", B);
        let by_path = paths.iter().collect();
        assert_eq!(nearest(&by_path, "/pod/a"), Some(A));
        assert_eq!(nearest(&by_path, "/pod/a/x/y"), Some(A));
        assert_eq!(nearest(&by_path, "/pod/a/b/c"), Some(B));
        assert_eq!(nearest(&by_path, "/pod/ab"), None);
        assert_eq!(nearest(&by_path, "/pod"), None);
        assert_eq!(nearest(&by_path, "/"), None);
        assert_eq!(nearest(&by_path, "/../a/x"), Some(A), "seen from a namespace of its own");
        assert_eq!(nearest(&by_path, "/../../pod/a/b"), Some(B));
        assert_eq!(nearest(&by_path, "/../c"), None);
    }

    /// A tree that looks like /proc, with one task.
    struct Tree(PathBuf);

    impl Tree {
        fn new() -> Tree {
            let path = std::env::temp_dir().join(format!("onset-walk-{}", std::process::id()));
            fs::create_dir_all(path.join("7/task/8")).expect("a directory");
            Tree(path)
        }

        fn put(&self, state: char, started: u64, switches: u64) {
            let dir = self.0.join("7/task/8");
            let zeros = "0 ".repeat(18);
            fs::write(dir.join("stat"), format!("8 (io) {state} {zeros}{started} 0")).expect("stat");
            let status = format!("voluntary_ctxt_switches:\t{switches}\nnonvoluntary_ctxt_switches:\t0\n");
            fs::write(dir.join("status"), status).expect("status");
            fs::write(dir.join("cgroup"), "3:cpu:/pod/a/x\n").expect("cgroup");
            fs::write(dir.join("stack"), "[<0>] wait+0x1/0x2\n").expect("stack");
        }

        fn walk(&self, walker: &mut Walker) -> StuckTask {
            let mut paths = Paths::default();
            paths.push("/pod/a", A);
            let mut tasks = Vec::new();
            walker.walk(&paths, |walked| tasks.push(walked.stuck())).expect("a tree");
            assert_eq!(tasks.len(), 1);
            tasks.remove(0)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_task_is_stuck_from_the_first_look_on_until_it_ran_or_is_another() {
        let tree = Tree::new();
        let mut walker = Walker::new(&tree.0, false);
        tree.put('D', 5, 1);
        let first = tree.walk(&mut walker);
        assert_eq!(
            (first.pid, first.tid, first.sample.blocked, first.sample.container),
            (7, 8, Duration::ZERO, Some(A))
        );
        assert_eq!(first.stack, [Box::from("wait")]);
        let second = tree.walk(&mut walker).sample.blocked;
        assert!(second > Duration::ZERO);
        assert!(tree.walk(&mut walker).sample.blocked > second);
        tree.put('D', 5, 2);
        assert_eq!(tree.walk(&mut walker).sample.blocked, Duration::ZERO, "it ran");
        tree.put('D', 6, 2);
        assert_eq!(tree.walk(&mut walker).sample.blocked, Duration::ZERO, "it is another");
        tree.put('S', 6, 2);
        tree.walk(&mut walker);
        assert!(walker.stuck.is_empty(), "what is no longer stuck is forgotten");
    }
}
