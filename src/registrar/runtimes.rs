//! What the runtimes' own files tell of a container. They are written before its cgroup is made, but
//! for runc's own: one of which nothing is found is looked for a little longer.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Office, Wanted};
use crate::config::Names;
use crate::host::identity::state;
use crate::host::{Identity, Role, Text};
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
        match (find(&office.names, &wanted.id), AGAIN.get(tried)) {
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

/// What there is in any file, the first source's word first.
pub(super) fn find(names: &Names, id: &str) -> Option<Identity> {
    let sources: [fn(&Names, &str) -> Option<Identity>; 4] = [docker, containerd, storage, runc];
    let mut found: Option<Identity> = None;
    for source in sources {
        let Some(mut told) = source(names, id) else { continue };
        if let Some(first) = &found {
            told.learn(first);
        }
        found = Some(told);
        if !told.name.is_empty() || told.role == Some(Role::Sandbox) {
            break;
        }
    }
    found
}

fn docker(names: &Names, id: &str) -> Option<Identity> {
    let file = |folder: &PathBuf| read(&folder.join("containers").join(id).join("config.v2.json"));
    names.docker.iter().find_map(|folder| state::docker(&file(folder)?))
}

/// A folder a namespace: `k8s.io`, `moby`, `default`. Its own tools call a container by its id.
fn containerd(names: &Names, id: &str) -> Option<Identity> {
    let tasks = names.containerd.iter().map(|folder| folder.join("io.containerd.runtime.v2.task"));
    let spaces = tasks.flat_map(|folder| folders(&folder));
    let mut told =
        spaces.into_iter().find_map(|space| state::oci(&read(&space.join(id).join("config.json"))?))?;
    if told.name.is_empty() && told.pod.is_empty() && !is_made_up(id) {
        told.name = Text::cut(id);
    }
    Some(told)
}

/// Podman's and CRI-O's: a folder a storage driver.
fn storage(names: &Names, id: &str) -> Option<Identity> {
    let drivers = names.storage.iter().flat_map(|folder| folders(folder));
    let drivers = drivers.filter(|folder| {
        folder.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(b"-containers"))
    });
    let mut found: Option<Identity> = None;
    for driver in drivers {
        let spec = read(&driver.join(id).join("userdata/config.json")).and_then(|spec| state::oci(&spec));
        if let Some(spec) = spec {
            found = Some(spec);
        }
        if found.is_none_or(|told| told.name.is_empty() && told.pod.is_empty())
            && let Some(name) =
                read(&driver.join("containers.json")).and_then(|list| state::podman(&list, id))
        {
            found.get_or_insert(Identity::UNKNOWN).name = name;
        }
        if found.is_some_and(|told| !told.name.is_empty() && !told.hostname.is_empty()) {
            break;
        }
    }
    found
}

fn runc(names: &Names, id: &str) -> Option<Identity> {
    let roots = names.runc.iter().flat_map(|folder| match starred(folder) {
        Some(above) => folders(above),
        None => vec![folder.clone()],
    });
    let mut told =
        roots.into_iter().find_map(|root| state::runc(&read(&root.join(id).join("state.json"))?))?;
    if told.name.is_empty() && told.pod.is_empty() && !is_made_up(id) {
        told.name = Text::cut(id);
    }
    Some(told)
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

/// A file, whole. `None`: it is not there, or not for us, or too long.
fn read(path: &Path) -> Option<Vec<u8>> {
    let file = File::open(path).ok()?;
    let size = file.metadata().ok().filter(|about| about.is_file() && about.len() <= FILE_MAX)?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(size).ok()?);
    file.take(FILE_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
