//! What a cgroup's path tells of the container in it. Only the last part of a path can be a
//! container, and only the nearest parts above it tell its pod: so of nested runtimes (kind, docker
//! in docker) the innermost counts, and a cgroup that a container makes for itself is none.

mod kinds;

use crate::host::inline::Text;

/// A container, as its path shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathInfo<'p> {
    /// The runtime's id for it: 64 hex digits for most.
    pub id: &'p str,
    /// What made it, where the path tells; one of those in docs/containers.md.
    pub runtime: Option<&'static str>,
    /// The pod's QoS class: `guaranteed`, `burstable`, `besteffort`.
    pub qos: Option<&'static str>,
    /// The pod's uid with dashes; empty if it is in none.
    pub pod: Text<64>,
    /// Its name, where its runtime makes its cgroup's name of that; else empty.
    pub name: Text<128>,
}

/// What the names of containers' cgroups begin with, and the runtime that so names them.
const PREFIXES: [(&str, &str); 7] = [
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "crio"),
    ("docker-", "docker"),
    ("libpod-payload-", "podman"),
    ("libpod-", "podman"),
    ("kata_", "kata"),
];

/// Namespaces that containerd's own tools use; an id in them may be any name.
const NAMESPACES: [&str; 2] = ["default", "k8s.io"];

/// A longer id is none.
pub(crate) const ID_MAX: usize = 76;

/// The container whose cgroup this is; the path begins with `/` at the hierarchy's mount point.
#[must_use]
pub fn recognise(path: &str) -> Option<PathInfo<'_>> {
    let (above, leaf) = path.rsplit_once('/')?;
    if is_id(leaf) && above == "/kata_overhead" {
        // What a sandbox of kata's costs beside its pod: its cgroup in the pod has the same id.
        return None;
    }
    let named = named(leaf).or_else(|| in_namespace(above, leaf)).or_else(|| kinds::of(above, leaf))?;
    let parent = above.rsplit('/').next();
    let pod = named.slice.or(parent).and_then(|parent| pod_slice(parent).or_else(|| pod_folder(above)));
    let (qos, pod) = pod.unzip();
    let runtime = named.runtime.or_else(|| match parent {
        Some("docker") => Some("docker"),
        Some(namespace) if NAMESPACES.contains(&namespace) => Some("containerd"),
        _ if above.starts_with("/ecs/") => Some("ecs"),
        _ => None,
    });
    Some(PathInfo { id: named.id, runtime, qos, pod: pod.unwrap_or(Text::EMPTY), name: named.name })
}

/// Whether no files of this runtime tell a container's names.
pub(super) fn has_no_files(runtime: &str) -> bool {
    matches!(runtime, "lxc" | "nspawn" | "nomad" | "garden" | "buildkit")
}

/// What a container's own name tells, and where it is.
struct LeafName<'p> {
    id: &'p str,
    runtime: Option<&'static str>,
    /// The pod's slice, where the name holds that too.
    slice: Option<&'p str>,
    name: Text<128>,
}

impl<'p> LeafName<'p> {
    fn by(id: &'p str, runtime: Option<&'static str>) -> LeafName<'p> {
        LeafName { id, runtime, slice: None, name: Text::EMPTY }
    }
}

/// By its own name.
fn named(leaf: &str) -> Option<LeafName<'_>> {
    if is_id(leaf) {
        return Some(LeafName::by(leaf, None));
    }
    // A runtime for the systemd driver, run without systemd: `SLICE:PREFIX:ID` as one name.
    if let Some((slice, rest)) = leaf.split_once(':') {
        let (prefix, id) = rest.split_once(':')?;
        let runtime = PREFIXES.iter().find(|(known, _)| known.strip_suffix('-') == Some(prefix))?.1;
        return is_id(id).then_some(LeafName { slice: Some(slice), ..LeafName::by(id, Some(runtime)) });
    }
    let unit = leaf.strip_suffix(".scope").unwrap_or(leaf);
    PREFIXES.iter().find_map(|(prefix, runtime)| {
        // `crio-conmon-ID` and `libpod-conmon-ID` hold the runtime's monitor: no id, so no container.
        let id = unit.strip_prefix(prefix).filter(|id| is_id(id))?;
        Some(LeafName::by(id, Some(*runtime)))
    })
}

/// `/default/NAME`: the path that containerd's own tools give.
fn in_namespace<'p>(above: &str, leaf: &'p str) -> Option<LeafName<'p>> {
    let known = NAMESPACES.iter().any(|namespace| above.strip_prefix('/') == Some(namespace));
    (known && is_plain(leaf)).then_some(LeafName::by(leaf, Some("containerd")))
}

/// Whether people call containers so, and systemd no unit.
fn is_plain(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let plain = name.starts_with(|first: char| first.is_ascii_alphanumeric()) && name.bytes().all(fits);
    let unit = [".slice", ".scope", ".service"].iter().any(|suffix| name.ends_with(suffix));
    plain && !unit && name.len() <= ID_MAX
}

fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The cgroupfs driver's `.../kubepods[/burstable|/besteffort]/podUID`.
fn pod_folder(above: &str) -> Option<(&'static str, Text<64>)> {
    let mut parts = above.rsplit('/');
    let pod = parts.next()?.strip_prefix("pod")?;
    let qos = match parts.next()? {
        "kubepods" => "guaranteed",
        "burstable" if parts.next()? == "kubepods" => "burstable",
        "besteffort" if parts.next()? == "kubepods" => "besteffort",
        _ => return None,
    };
    Some((qos, uid(pod)?))
}

/// The systemd driver's `[ROOT-]kubepods[-burstable|-besteffort]-podUID.slice`.
fn pod_slice(slice: &str) -> Option<(&'static str, Text<64>)> {
    let name = slice.strip_suffix(".slice")?;
    let (root, rest) = name.rsplit_once("kubepods-")?;
    if !root.is_empty() && !root.ends_with('-') {
        return None;
    }
    let (qos, rest) = if let Some(rest) = rest.strip_prefix("burstable-") {
        ("burstable", rest)
    } else if let Some(rest) = rest.strip_prefix("besteffort-") {
        ("besteffort", rest)
    } else {
        ("guaranteed", rest)
    };
    Some((qos, uid(rest.strip_prefix("pod")?)?))
}

/// A pod's uid, or a static pod's hash. In a slice's name `_` stands for `-`.
fn uid(text: &str) -> Option<Text<64>> {
    let fits = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'_');
    if text.is_empty() || !text.bytes().all(fits) {
        return None;
    }
    Some(Text::new(text)?.replaced(b'_', b'-'))
}

#[cfg(test)]
mod tests;
