//! Finds out what containers are called: at first sight from the files of their runtimes, and from
//! the kubelet. Both are asked by threads that are there only while something is to be found out, so
//! neither a slow disk nor a dead kubelet holds anything up.

mod kubelet;
mod opened;
mod runtimes;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::config::Names;
use crate::host::{Container, Containers, Key, Text, Told};
use crate::thread_spawner::{ThreadSpawner, Worker};
use crate::work_queue::{WorkQueue, WorkerGuard};

/// Wakes the loop.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Answers that wait for the loop; a thread with more of them waits for room.
const TOLD_MAX: usize = 64;

/// Whose names are wanted.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    key: Key,
    id: Text<76>,
    pod_uid: Text<64>,
    /// Its runtime's record of its cgroup is wanted, too.
    proof: bool,
    /// What told its name when that was last found out, if it may have another by now; else 0.
    stamp: u64,
}

impl Wanted {
    fn of(container: Container<'_>) -> Wanted {
        Wanted {
            key: container.key(),
            id: Text::cut(container.id()),
            pod_uid: Text::cut(container.pod_uid()),
            proof: container.needs_proof(),
            stamp: 0,
        }
    }
}

/// What the threads share.
struct Office {
    names: Names,
    files: WorkQueue<Wanted>,
    pods: WorkQueue<Wanted>,
    standing: Mutex<kubelet::Standing>,
    tell: SyncSender<(Key, Told)>,
    wake: Wake,
    kubelet_failures: AtomicU64,
    dropped: AtomicU64,
}

impl Office {
    /// Hands an answer to the loop. False: nobody wants any more.
    fn tell(&self, key: Key, told: Told) -> bool {
        let wanted = self.tell.send((key, told)).is_ok();
        (self.wake)();
        wanted
    }
}

/// Whose thread reads the runtimes' files.
struct Files(Arc<Office>);

/// Whose thread asks the kubelet.
struct Pods(Arc<Office>);

impl Worker for Files {
    type Job = Wanted;

    fn name(&self) -> &'static str {
        "onset-names"
    }

    fn queue(&self) -> &WorkQueue<Wanted> {
        &self.0.files
    }

    fn work(&self, jobs: &mut WorkerGuard<'_, Wanted>) {
        runtimes::work(&self.0, jobs);
    }

    fn not_started(&self) {
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl Worker for Pods {
    type Job = Wanted;

    fn name(&self) -> &'static str {
        "onset-kubelet"
    }

    fn queue(&self) -> &WorkQueue<Wanted> {
        &self.0.pods
    }

    fn work(&self, jobs: &mut WorkerGuard<'_, Wanted>) {
        kubelet::work(&self.0, jobs);
    }

    fn not_started(&self) {
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// The one who finds out.
pub struct Registrar {
    office: Arc<Office>,
    files: Arc<Files>,
    pods: Arc<Pods>,
    spawner: ThreadSpawner,
    told: Receiver<(Key, Told)>,
}

/// What went wrong so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Times that the kubelet gave no list of pods.
    pub kubelet: u64,
    /// Containers that were not asked about: no thread could be started, or there are too many.
    pub dropped: u64,
}

impl Registrar {
    /// For `capacity` containers at once.
    #[must_use]
    pub fn new(names: &Names, capacity: usize, wake: Wake, spawner: ThreadSpawner) -> Registrar {
        let (tell, told) = sync_channel(TOLD_MAX);
        let room = Containers::slots_for(capacity);
        let office = Office {
            names: names.clone(),
            files: WorkQueue::new(room),
            pods: WorkQueue::new(room),
            standing: Mutex::default(),
            tell,
            wake,
            kubelet_failures: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        };
        let office = Arc::new(office);
        let (files, pods) = (Arc::new(Files(Arc::clone(&office))), Arc::new(Pods(Arc::clone(&office))));
        Registrar { office, files, pods, spawner, told }
    }

    /// Has the names of a container found out; `told` has them later, if there are any.
    pub fn find(&self, container: Container<'_>) {
        let Registrar { office, files, pods, spawner, .. } = self;
        if !container.has_files() {
            return;
        }
        let wanted = Wanted::of(container);
        let mut brought = spawner.push(files, wanted);
        if office.names.kubelet.is_some() {
            brought &= spawner.push(pods, wanted);
        }
        if !brought {
            self.office.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Has it seen to whether these containers have other names by now. Only names that can change are
    /// looked at, and of their files only whether they changed. Returns the first container for which there is
    /// no room now: it keeps its name, and is to be brought again with those after it.
    #[must_use]
    pub fn look_again<'c>(&self, containers: impl Iterator<Item = Container<'c>>) -> Option<Key> {
        let Registrar { files, spawner, .. } = self;
        for container in containers.filter(|container| container.stamp() != 0) {
            let wanted = Wanted { stamp: container.stamp(), ..Wanted::of(container) };
            if !spawner.push(files, wanted) {
                return Some(container.key());
            }
        }
        None
    }

    /// The next answer. Of one container there may be several: each knows more, or knows better.
    pub fn told(&self) -> Option<(Key, Told)> {
        self.told.try_recv().ok()
    }

    /// What went wrong so far.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults {
            kubelet: self.office.kubelet_failures.load(Ordering::Relaxed),
            dropped: self.office.dropped.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        // A thread that waits for the kubelet is not waited for: it holds nothing that is to be saved.
        self.office.files.close(Instant::now());
        self.office.pods.close(Instant::now());
    }
}

/// Finds out at once what all of these are called, and why the kubelet does not help, if it does not.
#[must_use]
pub fn look_up(names: &Names, containers: &Containers) -> (Vec<(Key, Told)>, Option<String>) {
    let all: Vec<Wanted> = containers.iter().filter(|it| it.has_files()).map(Wanted::of).collect();
    let found =
        all.iter().filter_map(|wanted| Some((wanted.key, runtimes::find(names, &wanted.id, wanted.proof)?)));
    let mut found: Vec<_> = found.collect();
    let Some(source) = &names.kubelet else { return (found, None) };
    match kubelet::pods(source, &all) {
        Ok(told) => {
            let told = all.iter().zip(told);
            found.extend(told.filter_map(|(wanted, told)| Some((wanted.key, told.told()?))));
            (found, None)
        }
        Err(error) => (found, Some(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
