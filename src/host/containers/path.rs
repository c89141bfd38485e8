//! What a cgroup's path tells of the container in it. Only the last part of a path can be a
//! container, and only the nearest parts above it tell its pod: so of nested runtimes (kind, docker
//! in docker) the innermost counts, and a cgroup that a container makes for itself is none.

use crate::host::inline::Text;

/// A container, as its path shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'p> {
    /// The runtime's id for it: 64 hex digits for most.
    pub id: &'p str,
    /// `docker`, `containerd`, `crio`, `podman`, where the path tells.
    pub runtime: Option<&'static str>,
    /// The pod's QoS class: `guaranteed`, `burstable`, `besteffort`.
    pub qos: Option<&'static str>,
    /// The pod's uid with dashes; empty if it is in none.
    pub pod: Text<64>,
}

/// What the names of containers' cgroups begin with, and the runtime that so names them.
const PREFIXES: [(&str, &str); 6] = [
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "crio"),
    ("docker-", "docker"),
    ("libpod-payload-", "podman"),
    ("libpod-", "podman"),
];

/// Namespaces that containerd's own tools use; an id in them may be any name.
const NAMESPACES: [&str; 2] = ["default", "k8s.io"];

/// The container whose cgroup this is; the path begins with `/` at the hierarchy's mount point.
#[must_use]
pub fn recognise(path: &str) -> Option<Found<'_>> {
    let (above, name) = path.rsplit_once('/')?;
    let (id, runtime, slice) = named(name).or_else(|| in_namespace(above, name))?;
    let (qos, pod) = match slice.or_else(|| above.rsplit('/').next()) {
        Some(parent) => pod_slice(parent).or_else(|| pod_folder(above)),
        None => None,
    }
    .unzip();
    let runtime = runtime.or_else(|| match above.rsplit('/').next() {
        Some("docker") => Some("docker"),
        Some(namespace) if NAMESPACES.contains(&namespace) => Some("containerd"),
        _ => None,
    });
    Some(Found { id, runtime, qos, pod: pod.unwrap_or(Text::EMPTY) })
}

type Named<'p> = (&'p str, Option<&'static str>, Option<&'p str>);

/// By its own name: id, runtime, and the slice where the name holds that too.
fn named(name: &str) -> Option<Named<'_>> {
    if is_id(name) {
        return Some((name, None, None));
    }
    // A runtime for the systemd driver, run without systemd: `SLICE:PREFIX:ID` as one name.
    if let Some((slice, rest)) = name.split_once(':') {
        let (prefix, id) = rest.split_once(':')?;
        let runtime = PREFIXES.iter().find(|(known, _)| known.strip_suffix('-') == Some(prefix))?.1;
        return is_id(id).then_some((id, Some(runtime), Some(slice)));
    }
    let unit = name.strip_suffix(".scope").unwrap_or(name);
    PREFIXES.iter().find_map(|(prefix, runtime)| {
        // `crio-conmon-ID` and `libpod-conmon-ID` hold the runtime's monitor: no id, so no container.
        let id = unit.strip_prefix(prefix).filter(|id| is_id(id))?;
        Some((id, Some(*runtime), None))
    })
}

/// `/default/NAME`: the path that containerd's own tools give.
fn in_namespace<'p>(above: &str, name: &'p str) -> Option<Named<'p>> {
    let known = NAMESPACES.iter().any(|namespace| above.strip_prefix('/') == Some(namespace));
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let plain = name.starts_with(|first: char| first.is_ascii_alphanumeric()) && name.bytes().all(fits);
    let unit = [".slice", ".scope", ".service"].iter().any(|suffix| name.ends_with(suffix));
    (known && plain && !unit && name.len() <= 76).then_some((name, Some("containerd"), None))
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
mod tests {
    use super::*;

    const ID: &str = "4b1f0c1a2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8";
    const UID: &str = "9f1f8a52-8e51-4f0a-9c1f-0d6f5f1d2a3b";

    /// Runtime, QoS class and pod of a path, in which ID and UID stand for those above.
    fn seen(path: &str) -> Option<(Option<&'static str>, Option<&'static str>, String)> {
        let path = path.replace("ID", ID).replace("PUU", &UID.replace('-', "_")).replace("PU", UID);
        recognise(&path).map(|found| {
            assert_eq!(found.id, ID, "{path}");
            (found.runtime, found.qos, found.pod.to_string())
        })
    }

    #[test]
    fn the_cgroupfs_drivers_paths_tell_class_and_pod() {
        for (path, runtime, qos) in [
            ("/kubepods/burstable/podPU/ID", None, "burstable"),
            ("/kubepods/besteffort/podPU/ID", None, "besteffort"),
            ("/kubepods/podPU/ID", None, "guaranteed"),
            ("/kubepods/podPU/crio-ID", Some("crio"), "guaranteed"),
            ("/docker/ID/kubelet/kubepods/burstable/podPU/ID", None, "burstable"),
        ] {
            assert_eq!(seen(path), Some((runtime, Some(qos), UID.to_owned())), "{path}");
        }
    }

    #[test]
    fn the_systemd_drivers_paths_tell_runtime_class_and_pod() {
        for (path, runtime, qos) in [
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podPUU.slice/cri-containerd-ID.scope",
                "containerd",
                "burstable",
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podPUU.slice/crio-ID.scope",
                "crio",
                "besteffort",
            ),
            ("/kubepods.slice/kubepods-podPUU.slice/docker-ID.scope", "docker", "guaranteed"),
            (
                "/docker/ID/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podPUU.slice/cri-containerd-ID.scope",
                "containerd",
                "guaranteed",
            ),
            (
                "/system.slice/containerd.service/kubepods-burstable-podPUU.slice:cri-containerd:ID",
                "containerd",
                "burstable",
            ),
        ] {
            assert_eq!(seen(path), Some((Some(runtime), Some(qos), UID.to_owned())), "{path}");
        }
    }

    #[test]
    fn runtimes_without_pods_are_known_too() {
        for (path, runtime) in [
            ("/docker/ID", Some("docker")),
            ("/system.slice/docker-ID.scope", Some("docker")),
            ("/default/ID", Some("containerd")),
            ("/k8s.io/ID", Some("containerd")),
            ("/system.slice/nerdctl-ID.scope", Some("containerd")),
            ("/machine.slice/libpod-ID.scope", Some("podman")),
            ("/machine.slice/machine-libpod_pod_0.slice/libpod-ID.scope", Some("podman")),
            ("/libpod_parent/libpod-ID", Some("podman")),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope", Some("podman")),
            ("/my-parent/ID", None),
            ("/ID", None),
        ] {
            assert_eq!(seen(path), Some((runtime, None, String::new())), "{path}");
        }
        let redis = recognise("/default/redis").expect("any name will do there");
        assert_eq!((redis.id, redis.runtime), ("redis", Some("containerd")));
    }

    #[test]
    fn what_is_no_container_is_not_taken_for_one() {
        for path in [
            "",
            "/",
            "ID",
            "/kubepods/burstable/podPU",
            "/kubepods.slice/kubepods-podPUU.slice",
            "/kubepods.slice/kubepods-podPUU.slice/crio-conmon-ID.scope",
            "/libpod_parent/libpod-conmon-ID",
            "/docker/ID/init.scope",
            "/docker/ID/docker",
            "/system.slice/docker.service",
            "/system.slice/ssh.service",
            "/process_api/8751e16cb310d735f8d8aee808833b1f",
            "/default/user.slice",
            "/other/default/redis",
            "/default/\u{e9}",
        ] {
            assert_eq!(seen(path), None, "{path}");
        }
        assert_eq!(recognise(&format!("/docker/{}", ID.to_uppercase())), None);
    }

    #[test]
    fn a_pod_needs_kubepods_above_it() {
        assert_eq!(seen("/burstable/podPU/ID"), Some((None, None, String::new())));
        assert_eq!(seen("/x/notkubepods-podPUU.slice/ID"), Some((None, None, String::new())));
        assert_eq!(seen("/kubepods/pod../ID"), Some((None, None, String::new())));
    }
}
