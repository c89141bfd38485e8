//! Resolves the names of containers: from the files of their runtimes when a container first appears, and from the
//! kubelet. Threads that exist only while there are requests read both, so neither a slow disk nor a dead kubelet blocks
//! the loop.

mod kubelet;
mod opened;
mod runtimes;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::config::Names;
use crate::host::{Container, Containers, Key, NameReport, Text};
use crate::thread_spawner::{ThreadSpawner, Worker};
use crate::work_queue::{WorkQueue, WorkerGuard};

/// Wakes the loop.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Reports that wait for the loop; a thread with more of them waits for room.
const REPORTS_MAX: usize = 64;

/// A container whose names are wanted.
#[derive(Clone, Copy, Debug)]
struct NameRequest {
    key: Key,
    id: Text<76>,
    pod_uid: Text<64>,
    /// Whether its runtime's record of its cgroup is wanted, too.
    proof: bool,
    /// The stamp of the file that told its name, if the name may have changed since; else 0.
    stamp: u64,
}

impl NameRequest {
    fn of(container: Container<'_>) -> NameRequest {
        NameRequest {
            key: container.key(),
            id: Text::cut(container.id()),
            pod_uid: Text::cut(container.pod_uid()),
            proof: container.needs_proof(),
            stamp: 0,
        }
    }
}

/// What the threads share.
struct Shared {
    names: Names,
    files: WorkQueue<NameRequest>,
    pods: WorkQueue<NameRequest>,
    kubelet_state: Mutex<kubelet::KubeletState>,
    tell: SyncSender<(Key, NameReport)>,
    wake: Wake,
    kubelet_failures: AtomicU64,
    dropped: AtomicU64,
}

impl Shared {
    /// Hands a report to the loop. False: the loop takes no more.
    fn tell(&self, key: Key, report: NameReport) -> bool {
        let request = self.tell.send((key, report)).is_ok();
        (self.wake)();
        request
    }
}

/// The worker that reads the runtimes' files.
struct Files(Arc<Shared>);

/// The worker that asks the kubelet.
struct Pods(Arc<Shared>);

impl Worker for Files {
    type Job = NameRequest;

    fn name(&self) -> &'static str {
        "onset-names"
    }

    fn queue(&self) -> &WorkQueue<NameRequest> {
        &self.0.files
    }

    fn work(&self, jobs: &mut WorkerGuard<'_, NameRequest>) {
        runtimes::work(&self.0, jobs);
    }

    fn not_started(&self) {
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl Worker for Pods {
    type Job = NameRequest;

    fn name(&self) -> &'static str {
        "onset-kubelet"
    }

    fn queue(&self) -> &WorkQueue<NameRequest> {
        &self.0.pods
    }

    fn work(&self, jobs: &mut WorkerGuard<'_, NameRequest>) {
        kubelet::work(&self.0, jobs);
    }

    fn not_started(&self) {
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Resolves the names of containers on threads of its own.
pub struct NameResolver {
    shared: Arc<Shared>,
    files: Arc<Files>,
    pods: Arc<Pods>,
    spawner: ThreadSpawner,
    report: Receiver<(Key, NameReport)>,
}

/// The faults so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Times that the kubelet gave no list of pods.
    pub kubelet: u64,
    /// Containers that were not asked about: no thread could be started, or there are too many.
    pub dropped: u64,
}

impl NameResolver {
    /// A resolver for `capacity` containers at once.
    #[must_use]
    pub fn new(names: &Names, capacity: usize, wake: Wake, spawner: ThreadSpawner) -> NameResolver {
        let (tell, report) = sync_channel(REPORTS_MAX);
        let room = Containers::slots_for(capacity);
        let shared = Shared {
            names: names.clone(),
            files: WorkQueue::new(room),
            pods: WorkQueue::new(room),
            kubelet_state: Mutex::default(),
            tell,
            wake,
            kubelet_failures: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        };
        let shared = Arc::new(shared);
        let (files, pods) = (Arc::new(Files(Arc::clone(&shared))), Arc::new(Pods(Arc::clone(&shared))));
        NameResolver { shared, files, pods, spawner, report }
    }

    /// Requests the names of `container`; `next_report` returns them later, if there are any.
    pub fn resolve(&self, container: Container<'_>) {
        let NameResolver { shared, files, pods, spawner, .. } = self;
        if !container.has_files() {
            return;
        }
        let request = NameRequest::of(container);
        let mut brought = spawner.push(files, request);
        if shared.names.kubelet.is_some() {
            brought &= spawner.push(pods, request);
        }
        if !brought {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Has it found out whether `containers` have other names by now. Only names that can change are
    /// looked at, and of their files only whether they changed. Returns the first container for which there is
    /// no room now: it keeps its name, and is to be brought again with those after it.
    #[must_use]
    pub fn recheck<'c>(&self, containers: impl Iterator<Item = Container<'c>>) -> Option<Key> {
        let NameResolver { files, spawner, .. } = self;
        for container in containers.filter(|container| container.stamp() != 0) {
            let request = NameRequest { stamp: container.stamp(), ..NameRequest::of(container) };
            if !spawner.push(files, request) {
                return Some(container.key());
            }
        }
        None
    }

    /// The next report. A container may have several: each knows more than the one before, or knows better.
    pub fn next_report(&self) -> Option<(Key, NameReport)> {
        self.report.try_recv().ok()
    }

    /// The faults so far.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults {
            kubelet: self.shared.kubelet_failures.load(Ordering::Relaxed),
            dropped: self.shared.dropped.load(Ordering::Relaxed),
        }
    }
}

impl Drop for NameResolver {
    fn drop(&mut self) {
        // A thread that waits for the kubelet is not waited for: it holds nothing that is to be saved.
        self.shared.files.close(Instant::now());
        self.shared.pods.close(Instant::now());
    }
}

/// Resolves the names of all `containers` now. Also returns why the kubelet gave none, if it failed.
#[must_use]
pub fn resolve_all(names: &Names, containers: &Containers) -> (Vec<(Key, NameReport)>, Option<String>) {
    let all: Vec<NameRequest> = containers.iter().filter(|it| it.has_files()).map(NameRequest::of).collect();
    let found = all
        .iter()
        .filter_map(|request| Some((request.key, runtimes::find(names, &request.id, request.proof)?)));
    let mut found: Vec<_> = found.collect();
    let Some(source) = &names.kubelet else { return (found, None) };
    match kubelet::pods(source, &all) {
        Ok(report) => {
            let report = all.iter().zip(report);
            found.extend(report.filter_map(|(request, report)| Some((request.key, report.report()?))));
            (found, None)
        }
        Err(error) => (found, Some(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
