//! What the runtimes' own files tell of a container. They are written before its cgroup is made, but
//! for runc's own: one of which nothing is found is looked for a little longer.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Office, Wanted};
use crate::config::Names;
use crate::host::identity::state::{self, Noted};
use crate::host::{Identity, Record, Role, Teller, Text, Told};
use crate::inbox::Found;

/// A longer file is none of theirs: a spec is of some 20 KiB, podman's list of 2 KiB a container.
const FILE_MAX: u64 = 16 << 20;

/// When one of which nothing was found is looked for again.
const AGAIN: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(250), Duration::from_millis(1000)];

/// How long a thread waits for more before it leaves.
const LINGER: Duration = Duration::from_millis(200);

/// A thread's life: until nothing is to be found out.
pub(super) fn work(office: &Office) {
    let mut shift = office.files.shift();
    let mut again: VecDeque<(Instant, usize, Wanted)> = VecDeque::new();
    loop {
        let now = Instant::now();
        let due = again.iter().map(|(due, ..)| *due).min();
        let wait = due.map_or(LINGER, |due| due.saturating_duration_since(now));
        let (tried, wanted) = match shift.next(wait) {
            Found::Closed => return,
            Found::Job(wanted) => (0, wanted),
            Found::Nothing => match again.iter().position(|(due, ..)| *due <= Instant::now()) {
                Some(place) => match again.remove(place) {
                    Some((_, tried, wanted)) => (tried, wanted),
                    None => continue,
                },
                None if again.is_empty() && shift.leave() => return,
                None => continue,
            },
        };
        if wanted.stamp != 0 && stamp(&office.names, &wanted.id) == wanted.stamp {
            continue;
        }
        match (find(&office.names, &wanted.id, wanted.proof), AGAIN.get(tried)) {
            (Some(told), _) => {
                if !office.tell(wanted.key, told) {
                    return;
                }
            }
            (None, Some(wait)) => again.push_back((Instant::now() + *wait, tried + 1, wanted)),
            (None, None) => {}
        }
    }
}

/// What there is in any file, the first source's word first. `proof`: also how the runtime noted the
/// container's cgroup, if any has that.
pub(super) fn find(names: &Names, id: &str, proof: bool) -> Option<Told> {
    let sources: [fn(&Names, &str) -> Option<Told>; 4] = [docker, containerd, storage, runc];
    let mut found: Option<Told> = None;
    for source in sources {
        let Some(told) = source(names, id) else { continue };
        found = Some(match found {
            None => told,
            Some(first) => join(first, told),
        });
        let known = |told: &Told| !told.identity.name.is_empty() || told.identity.role == Some(Role::Sandbox);
        if found.as_ref().is_some_and(|told| known(told) && (!proof || record(told).cgroup.is_some())) {
            break;
        }
    }
    found
}

/// What the first source says, and what it leaves open. Users' files add nothing to what others say.
fn join(first: Told, more: Told) -> Told {
    let (known, other) = (record(&first).clone(), record(&more).clone());
    if other.owner != 0 && other.owner != known.owner {
        return first;
    }
    let mut identity = more.identity;
    identity.learn(&first.identity);
    let stamp = if known.stamp == 0 { other.stamp } else { known.stamp };
    told(identity, Record { cgroup: known.cgroup.or(other.cgroup), owner: known.owner, stamp })
}

fn record(told: &Told) -> &Record {
    const NONE: &Record = &Record { cgroup: None, owner: 0, stamp: 0 };
    match &told.by {
        Teller::Runtime(record) => record,
        Teller::Kubelet => NONE,
    }
}

fn told(identity: Identity, record: Record) -> Told {
    Told { identity, by: Teller::Runtime(record) }
}

/// What the files that may tell a container's name look like now, if a name in there can change; else 0.
pub(super) fn stamp(names: &Names, id: &str) -> u64 {
    let docker = dockers(names).find_map(|folder| File::open(config(&folder, id)).ok());
    match docker {
        Some(file) => stamp_of([file]),
        None => stamp_of(
            drivers(names).flat_map(|driver| lists(&driver)).filter_map(|list| File::open(list).ok()),
        ),
    }
}

/// 0 is of none.
fn stamp_of(files: impl IntoIterator<Item = File>) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut any = false;
    for about in files.into_iter().filter_map(|file| file.metadata().ok()) {
        (about.ino(), about.size(), about.mtime(), about.mtime_nsec()).hash(&mut hasher);
        any = true;
    }
    if any { hasher.finish().max(1) } else { 0 }
}

/// Docker's folders: with user namespaces there is one for each pair of ids below its own, `100000.100000`.
fn dockers(names: &Names) -> impl Iterator<Item = PathBuf> {
    let remapped = |folder: &PathBuf| {
        let pair = |path: &PathBuf| {
            let (user, group) = path.file_name()?.to_str()?.split_once('.')?;
            let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            (number(user) && number(group)).then_some(())
        };
        folders(folder).into_iter().filter(move |path| pair(path).is_some())
    };
    names.docker.iter().flat_map(move |folder| [folder.clone()].into_iter().chain(remapped(folder)))
}

fn config(folder: &Path, id: &str) -> PathBuf {
    folder.join("containers").join(id).join("config.v2.json")
}

fn docker(names: &Names, id: &str) -> Option<Told> {
    dockers(names).find_map(|folder| {
        let file = File::open(config(&folder, id)).ok()?;
        let (bytes, owner) = whole(&file)?;
        let noted = state::docker(&bytes)?;
        Some(told(noted.identity, Record { cgroup: None, owner, stamp: stamp_of([file]) }))
    })
}

/// A folder a namespace: `k8s.io`, `moby`, `default`. Its own tools call a container by its id.
fn containerd(names: &Names, id: &str) -> Option<Told> {
    let tasks = names.containerd.iter().map(|folder| folder.join("io.containerd.runtime.v2.task"));
    let spec = |space: &Path, id: &str| {
        let (bytes, owner) = read(&space.join(id).join("config.json"))?;
        Some((state::oci(&bytes)?, owner))
    };
    let mut spaces = tasks.flat_map(|folder| folders(&folder));
    spaces.find_map(|space| {
        let (mut noted, owner) = spec(&space, id)?;
        // A pod's containers share the host name of its sandbox, which alone has it as such.
        if noted.identity.hostname.is_empty()
            && let Some((sandbox, _)) =
                noted.sandbox.as_deref().and_then(|sandbox| spec(&space, plain(sandbox)?))
        {
            noted.identity.hostname = sandbox.identity.hostname;
        }
        Some(called(noted, owner, id))
    })
}

/// An id that is the name of a file, and no way to another.
fn plain(id: &str) -> Option<&str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (id.bytes().all(fits) && !id.starts_with('.')).then_some(id)
}

/// What a spec or a state tells of a container; where nobody made its id up, that is its name.
fn called(noted: Noted, owner: u32, id: &str) -> Told {
    let Noted { mut identity, cgroup, .. } = noted;
    if identity.name.is_empty() && identity.pod.is_empty() && !is_made_up(id) {
        identity.name = Text::cut(id);
    }
    told(identity, Record { cgroup, owner, stamp: 0 })
}

/// Podman's and CRI-O's: a folder a storage driver.
fn drivers(names: &Names) -> impl Iterator<Item = PathBuf> {
    let drivers = names.storage.iter().flat_map(|folder| folders(folder));
    drivers.filter(|folder| {
        folder.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(b"-containers"))
    })
}

/// The lists of a driver's containers; those that do not outlast a boot have one of their own.
fn lists(driver: &Path) -> [PathBuf; 2] {
    ["containers.json", "volatile-containers.json"].map(|list| driver.join(list))
}

fn storage(names: &Names, id: &str) -> Option<Told> {
    let (mut found, mut named): (Option<Told>, Option<(Text<128>, u32)>) = (None, None);
    for driver in drivers(names) {
        let spec = read(&driver.join(id).join("userdata/config.json"));
        if let Some((noted, owner)) = spec.and_then(|(bytes, owner)| Some((state::oci(&bytes)?, owner))) {
            found = Some(told(noted.identity, Record { cgroup: noted.cgroup, owner, stamp: 0 }));
        }
        let mut read = lists(&driver).into_iter().filter_map(|list| read(&list));
        named = named.or_else(|| read.find_map(|(list, owner)| Some((state::podman(&list, id)?, owner))));
    }
    let pods = found.as_ref().is_some_and(|told| !told.identity.pod.is_empty());
    let Some((name, owner)) = named.filter(|_| !pods) else { return found };
    let stamp =
        stamp_of(drivers(names).flat_map(|driver| lists(&driver)).filter_map(|list| File::open(list).ok()));
    let list = told(Identity { name, ..Identity::UNKNOWN }, Record { cgroup: None, owner, stamp });
    Some(match found {
        Some(spec) => join(list, spec),
        None => list,
    })
}

/// Runc's state, and in the same way crun's, which has no names.
fn runc(names: &Names, id: &str) -> Option<Told> {
    let roots = names.runc.iter().flat_map(|folder| match starred(folder) {
        Some(above) => folders(above),
        None => vec![folder.clone()],
    });
    roots.into_iter().find_map(|root| {
        let file = |name: &str| read(&root.join(id).join(name));
        if let Some((bytes, owner)) = file("state.json") {
            return Some(called(state::runc(&bytes)?, owner, id));
        }
        let (bytes, owner) = file("status")?;
        Some(told(Identity::UNKNOWN, Record { cgroup: state::crun(&bytes)?.cgroup, owner, stamp: 0 }))
    })
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
    let entries = fs::read_dir(above).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

/// A file, whole, and whose it is. `None`: it is not there, or not for us, or too long.
fn read(path: &Path) -> Option<(Vec<u8>, u32)> {
    whole(&File::open(path).ok()?)
}

fn whole(file: &File) -> Option<(Vec<u8>, u32)> {
    let about = file.metadata().ok().filter(|about| about.is_file() && about.len() <= FILE_MAX)?;
    let mut bytes = Vec::with_capacity(usize::try_from(about.len()).ok()?);
    file.take(FILE_MAX).read_to_end(&mut bytes).ok()?;
    Some((bytes, about.uid()))
}
