//! What the runtimes' own files tell of a container. They are written before its cgroup is made, but
//! for runc's own: one of which nothing is found is looked for a little longer.

use std::collections::VecDeque;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::opened::{Opened, open};
use super::{NameRequest, Shared};
use crate::config::Names;
use crate::host::identity::state::{self, RuntimeRecord};
use crate::host::{Identity, NameReport, NameSource, Record, Role, Text};
use crate::work_queue::{Next, WorkerGuard};

/// Entries of a folder that are looked at: a runtime's has some ten.
const ENTRIES_MAX: usize = 4096;

/// When one of which nothing was found is looked for again.
const AGAIN: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(250), Duration::from_millis(1000)];

/// How long a thread waits for more before it leaves.
const LINGER: Duration = Duration::from_millis(200);

/// A thread's life: until nothing is to be found out.
pub(super) fn work(shared: &Shared, jobs: &mut WorkerGuard<'_, NameRequest>) {
    let mut again: VecDeque<(Instant, usize, NameRequest)> = VecDeque::new();
    loop {
        let now = Instant::now();
        let due = again.iter().map(|(due, ..)| *due).min();
        let wait = due.map_or(LINGER, |due| due.saturating_duration_since(now));
        let (tried, request) = match jobs.next(wait) {
            Next::Closed => return,
            Next::Job(request) => (0, request),
            Next::Nothing => match again.iter().position(|(due, ..)| *due <= Instant::now()) {
                Some(place) => match again.remove(place) {
                    Some((_, tried, request)) => (tried, request),
                    None => continue,
                },
                None if again.is_empty() && jobs.leave() => return,
                None => continue,
            },
        };
        if request.stamp != 0 && stamp(&shared.names, &request.id) == request.stamp {
            continue;
        }
        match (find(&shared.names, &request.id, request.proof), AGAIN.get(tried)) {
            (Some(report), _) => {
                if !shared.tell(request.key, report) {
                    return;
                }
            }
            (None, Some(wait)) => again.push_back((Instant::now() + *wait, tried + 1, request)),
            (None, None) => {}
        }
    }
}

/// What there is in any file, the first source's word first. `proof`: also how the runtime noted the
/// container's cgroup, if any has that.
pub(super) fn find(names: &Names, id: &str, proof: bool) -> Option<NameReport> {
    let sources: [fn(&Names, &str) -> Option<NameReport>; 4] = [docker, containerd, storage, runc];
    let mut found: Option<NameReport> = None;
    for source in sources {
        let Some(report) = source(names, id) else { continue };
        found = Some(match found {
            None => report,
            Some(first) => join(first, report),
        });
        let known = |report: &NameReport| {
            !report.identity.name.is_empty() || report.identity.role == Some(Role::Sandbox)
        };
        // After what a user's file tells, root's may follow.
        let whole = |report: &NameReport| known(report) && record(report).owner == 0;
        if found.as_ref().is_some_and(|report| whole(report) && (!proof || record(report).cgroup.is_some())) {
            break;
        }
    }
    found
}

/// What the first source says, and what it leaves open. Users' files add nothing to what others say, and what
/// root's say comes before all that they do.
fn join(first: NameReport, more: NameReport) -> NameReport {
    let (known, other) = (record(&first).clone(), record(&more).clone());
    if other.owner != known.owner {
        return if other.owner == 0 { more } else { first };
    }
    let mut identity = more.identity;
    identity.learn(&first.identity);
    let stamp = if known.stamp == 0 { other.stamp } else { known.stamp };
    report(identity, Record { cgroup: known.cgroup.or(other.cgroup), owner: known.owner, stamp })
}

/// The first that is root's; else the first.
fn root_first<T>(all: impl Iterator<Item = T>, owner: impl Fn(&T) -> u32) -> Option<T> {
    let mut first = None;
    for it in all {
        if owner(&it) == 0 {
            return Some(it);
        }
        first = first.or(Some(it));
    }
    first
}

fn record(report: &NameReport) -> &Record {
    const NONE: &Record = &Record { cgroup: None, owner: 0, stamp: 0 };
    match &report.by {
        NameSource::Runtime(record) => record,
        NameSource::Kubelet => NONE,
    }
}

fn report(identity: Identity, record: Record) -> NameReport {
    NameReport { identity, by: NameSource::Runtime(record) }
}

/// What the files that may tell a container's name look like now, if a name in there can change; else 0.
pub(super) fn stamp(names: &Names, id: &str) -> u64 {
    match docker_file(names, id) {
        Some(file) => stamp_of([file]),
        None => stamp_of_lists(names),
    }
}

fn stamp_of_lists(names: &Names) -> u64 {
    stamp_of(drivers(names).flat_map(|driver| driver.lists()).filter_map(|(base, list)| open(&base, &list)))
}

/// 0 is of none.
fn stamp_of(files: impl IntoIterator<Item = Opened>) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut any = false;
    for Opened { about, .. } in files {
        (about.ino(), about.size(), about.mtime(), about.mtime_nsec()).hash(&mut hasher);
        any = true;
    }
    if any { hasher.finish().max(1) } else { 0 }
}

/// Docker's folders, and whose each is but root's: with user namespaces there is one for each pair of ids below
/// its own, `100000.100000`, which older ones of docker give to that user.
fn dockers(names: &Names) -> impl Iterator<Item = (PathBuf, u32)> {
    let remapped = |folder: &PathBuf| {
        let roots = fs::metadata(folder).is_ok_and(|about| about.uid() == 0);
        let user = |path: &PathBuf| -> Option<u32> {
            let (user, group) = path.file_name()?.to_str()?.split_once('.')?;
            group.parse::<u32>().ok()?;
            user.parse().ok()
        };
        let pairs = folders(folder).into_iter().filter_map(move |path| Some((user(&path)?, path)));
        pairs.map(move |(user, path)| (path, if roots { user } else { 0 }))
    };
    names.docker.iter().flat_map(move |folder| [(folder.clone(), 0)].into_iter().chain(remapped(folder)))
}

fn docker_file(names: &Names, id: &str) -> Option<Opened> {
    let files = dockers(names).filter_map(|(folder, user)| {
        let mut file = open(&folder, &folder.join("containers").join(id).join("config.v2.json"))?;
        file.owner = if file.owner == user { 0 } else { file.owner };
        Some(file)
    });
    root_first(files, |file| file.owner)
}

fn docker(names: &Names, id: &str) -> Option<NameReport> {
    let file = docker_file(names, id)?;
    let (noted, owner) = (state::docker(&file.bytes()?)?, file.owner);
    Some(report(noted.identity, Record { cgroup: None, owner, stamp: stamp_of([file]) }))
}

/// A folder a namespace: `k8s.io`, `moby`, `default`. Its own tools call a container by its id.
fn containerd(names: &Names, id: &str) -> Option<NameReport> {
    let tasks = names.containerd.iter().map(|folder| (folder, folder.join("io.containerd.runtime.v2.task")));
    let spec = |base: &Path, space: &Path, id: &str| {
        let (bytes, owner) = read(base, &space.join(id).join("config.json"))?;
        Some((state::oci(&bytes)?, owner))
    };
    let spaces = tasks.flat_map(|(base, tasks)| folders(&tasks).into_iter().map(move |space| (base, space)));
    let found = spaces.filter_map(|(base, space)| {
        let (mut noted, owner) = spec(base, &space, id)?;
        // A pod's containers share the host name of its sandbox, which alone has it as such.
        if noted.identity.hostname.is_empty()
            && let Some((sandbox, _)) =
                noted.sandbox.as_deref().and_then(|sandbox| spec(base, &space, plain(sandbox)?))
        {
            noted.identity.hostname = sandbox.identity.hostname;
        }
        Some(called(noted, owner, id))
    });
    root_first(found, |report| record(report).owner)
}

/// An id that is the name of a file, and no way to another.
fn plain(id: &str) -> Option<&str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (id.bytes().all(fits) && !id.starts_with('.')).then_some(id)
}

/// What a spec or a state tells of a container; where nobody made its id up, that is its name.
fn called(noted: RuntimeRecord, owner: u32, id: &str) -> NameReport {
    let RuntimeRecord { mut identity, cgroup, .. } = noted;
    if identity.name.is_empty() && identity.pod.is_empty() && !is_made_up(id) {
        identity.name = Text::cut(id);
    }
    report(identity, Record { cgroup, owner, stamp: 0 })
}

/// Podman's and CRI-O's: a folder a storage driver.
struct Driver<'n> {
    /// The folder that the configuration names.
    base: &'n Path,
    folder: PathBuf,
}

fn drivers(names: &Names) -> impl Iterator<Item = Driver<'_>> {
    let all = names.storage.iter();
    let all = all.flat_map(|base| folders(base).into_iter().map(move |folder| Driver { base, folder }));
    all.filter(|driver| {
        driver.folder.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(b"-containers"))
    })
}

impl Driver<'_> {
    /// The lists of its containers, each with its base; those that do not outlast a boot have one of their own.
    fn lists(&self) -> [(PathBuf, PathBuf); 2] {
        ["containers.json", "volatile-containers.json"]
            .map(|list| (self.base.to_owned(), self.folder.join(list)))
    }

    fn spec(&self, id: &str) -> Option<NameReport> {
        let (bytes, owner) = read(self.base, &self.folder.join(id).join("userdata/config.json"))?;
        let noted = state::oci(&bytes)?;
        Some(report(noted.identity, Record { cgroup: noted.cgroup, owner, stamp: 0 }))
    }
}

fn storage(names: &Names, id: &str) -> Option<NameReport> {
    // It is of before the lists are read: one that changes meanwhile is read once more.
    let stamp = stamp_of_lists(names);
    let spec = root_first(drivers(names).filter_map(|driver| driver.spec(id)), |report| record(report).owner);
    let named = drivers(names).flat_map(|driver| driver.lists()).filter_map(|(base, list)| {
        let (bytes, owner) = read(&base, &list)?;
        Some((state::podman(&bytes, id)?, owner))
    });
    let Some((name, owner)) = root_first(named, |(_, owner)| *owner) else { return spec };
    let list = report(Identity { name, ..Identity::UNKNOWN }, Record { cgroup: None, owner, stamp });
    Some(match spec {
        // CRI-O's list has names that it made up.
        Some(spec) if !spec.identity.pod.is_empty() && record(&spec).owner == owner => spec,
        Some(spec) => join(list, spec),
        None => list,
    })
}

/// Runc's state, and in the same way crun's, which has no names.
fn runc(names: &Names, id: &str) -> Option<NameReport> {
    let roots = names.runc.iter().flat_map(|folder| {
        let (base, roots) = match starred(folder) {
            Some(above) => (above, folders(above)),
            None => (&**folder, vec![folder.clone()]),
        };
        roots.into_iter().map(move |root| (base, root))
    });
    let found = roots.filter_map(|(base, root)| {
        let file = |name: &str| read(base, &root.join(id).join(name));
        if let Some((bytes, owner)) = file("state.json") {
            return Some(called(state::runc(&bytes)?, owner, id));
        }
        let (bytes, owner) = file("status")?;
        Some(report(Identity::UNKNOWN, Record { cgroup: state::crun(&bytes)?.cgroup, owner, stamp: 0 }))
    });
    root_first(found, |report| record(report).owner)
}

/// The folder above, if the last part of a path is `*`.
fn starred(path: &Path) -> Option<&Path> {
    path.parent().filter(|_| path.file_name().is_some_and(|name| name == "*"))
}

/// Whether a runtime made this id up, and nobody would call the container so.
fn is_made_up(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn folders(above: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(above).into_iter().flatten().flatten().take(ENTRIES_MAX);
    let mut found: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

/// A file below `base`, whole, and whose it is.
fn read(base: &Path, path: &Path) -> Option<(Vec<u8>, u32)> {
    let file = open(base, path)?;
    Some((file.bytes()?, file.owner))
}
