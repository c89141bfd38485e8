//! The files in which runtimes keep what they know of a container: an OCI spec (containerd, CRI-O,
//! podman), docker's config.v2.json, podman's containers.json, runc's state.json, crun's status.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Identity, labels};
use crate::host::inline::Text;

type Str<'a> = Cow<'a, str>;
type Labels<'a> = BTreeMap<Str<'a>, Str<'a>>;

/// What one file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeRecord {
    /// The names in it.
    pub identity: Identity,
    /// The container's cgroup, as `claim::compare` reads it.
    pub cgroup: Option<Box<str>>,
    /// The id of the pod's sandbox, which has the pod's host name.
    pub sandbox: Option<Box<str>>,
}

impl RuntimeRecord {
    fn names(identity: Identity) -> RuntimeRecord {
        RuntimeRecord { identity, cgroup: None, sandbox: None }
    }
}

/// The annotation in which containerd has the id of a container's sandbox.
const SANDBOX: &str = "io.kubernetes.cri.sandbox-id";

/// An OCI runtime spec: `config.json` of a bundle. Its environment is the application's, so nothing in
/// there is a name.
#[must_use]
pub fn oci(spec: &[u8]) -> Option<RuntimeRecord> {
    #[derive(Deserialize)]
    struct Spec<'a> {
        #[serde(borrow)]
        hostname: Option<Str<'a>>,
        #[serde(borrow)]
        annotations: Option<Labels<'a>>,
        #[serde(borrow)]
        linux: Option<Linux<'a>>,
    }
    #[derive(Deserialize)]
    struct Linux<'a> {
        #[serde(borrow, rename = "cgroupsPath")]
        cgroup: Option<Str<'a>>,
    }
    let spec: Spec<'_> = serde_json::from_slice(spec).ok()?;
    let annotations = spec.annotations.unwrap_or_default();
    let mut identity = labels::read(|key| annotations.get(key).map(|value| &**value));
    if let Some(name) = spec.hostname.as_deref().filter(|name| !name.is_empty()) {
        identity.hostname = Text::cut(name);
    }
    let cgroup = spec.linux.and_then(|linux| linux.cgroup).map(|path| (*path).into());
    Some(RuntimeRecord { identity, cgroup, sandbox: annotations.get(SANDBOX).map(|id| (**id).into()) })
}

/// Docker's `config.v2.json`.
#[must_use]
pub fn docker(config: &[u8]) -> Option<RuntimeRecord> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct File<'a> {
        #[serde(borrow)]
        name: Option<Str<'a>>,
        #[serde(borrow)]
        config: Option<Config<'a>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Config<'a> {
        #[serde(borrow)]
        hostname: Option<Str<'a>>,
        #[serde(borrow)]
        labels: Option<Labels<'a>>,
    }
    let file: File<'_> = serde_json::from_slice(config).ok()?;
    let (hostname, named) = file.config.map_or((None, None), |config| (config.hostname, config.labels));
    let named = named.unwrap_or_default();
    let mut told = labels::read(|key| named.get(key).map(|value| &**value));
    told.hostname = Text::cut(hostname.as_deref().unwrap_or_default());
    // Of a pod's container the label is the name; docker's own is made up of all that is in labels.
    if told.pod.is_empty() && told.name.is_empty() {
        let name = file.name.as_deref().unwrap_or_default();
        told.name = Text::cut(name.strip_prefix('/').unwrap_or(name));
    }
    Some(RuntimeRecord::names(told))
}

/// The name of a container in podman's `containers.json`, the list of all, or in the list of those that do not
/// outlast a boot, `volatile-containers.json`.
#[must_use]
pub fn podman(list: &[u8], id: &str) -> Option<Text<128>> {
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(borrow)]
        id: Str<'a>,
        #[serde(borrow)]
        names: Option<Vec<Str<'a>>>,
    }
    let list: Vec<Entry<'_>> = serde_json::from_slice(list).ok()?;
    let entry = list.into_iter().find(|entry| entry.id == id)?;
    Some(Text::cut(entry.names?.first()?))
}

/// Runc's `state.json`: its labels hold the annotations, each as `key=value`.
#[must_use]
pub fn runc(state: &[u8]) -> Option<RuntimeRecord> {
    #[derive(Deserialize)]
    struct State<'a> {
        #[serde(borrow)]
        config: Option<Config<'a>>,
        #[serde(borrow)]
        cgroup_paths: Option<Labels<'a>>,
    }
    #[derive(Deserialize)]
    struct Config<'a> {
        #[serde(borrow)]
        hostname: Option<Str<'a>>,
        #[serde(borrow)]
        labels: Option<Vec<Str<'a>>>,
    }
    let state = serde_json::from_slice::<State<'_>>(state).ok()?;
    let config = state.config?;
    let list = config.labels.unwrap_or_default();
    let label = |key: &str| list.iter().find_map(|label| label.strip_prefix(key)?.strip_prefix('='));
    let mut identity = labels::read(label);
    if let Some(hostname) = config.hostname.as_deref().filter(|name| !name.is_empty()) {
        identity.hostname = Text::cut(hostname);
    }
    let paths = state.cgroup_paths.unwrap_or_default();
    let cgroup = paths.iter().find_map(|(controller, path)| below_mount(controller, path)).map(Box::from);
    let sandbox = label(SANDBOX).map(Box::from);
    Some(RuntimeRecord { identity, cgroup, sandbox })
}

/// A cgroup's path below its hierarchy's mount point. The controller is empty on v2.
fn below_mount<'p>(controller: &str, path: &'p str) -> Option<&'p str> {
    let path = path.strip_prefix("/sys/fs/cgroup")?;
    if controller.is_empty() {
        return Some(path.strip_prefix("/unified").unwrap_or(path)).filter(|path| path.starts_with('/'));
    }
    let (mount, below) = path.strip_prefix('/')?.split_once('/')?;
    let known = ["cpu", "memory"].contains(&controller) && mount.split(',').any(|name| name == controller);
    known.then(|| path.get(path.len() - below.len() - 1..)).flatten()
}

/// The container's cgroup in crun's `status`.
#[must_use]
pub fn crun(status: &[u8]) -> Option<RuntimeRecord> {
    #[derive(Deserialize)]
    struct Status<'a> {
        #[serde(borrow, rename = "cgroup-path")]
        cgroup: Str<'a>,
    }
    let status: Status<'_> = serde_json::from_slice(status).ok()?;
    Some(RuntimeRecord { cgroup: Some((*status.cgroup).into()), ..RuntimeRecord::names(Identity::UNKNOWN) })
}

#[cfg(test)]
mod tests;
