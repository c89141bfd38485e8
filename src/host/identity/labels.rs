//! The labels and annotations that runtimes put names into. Each runtime has its own keys; the first
//! that is there counts.

use super::{Identity, Role};
use crate::host::inline::Text;

const NAME: [&str; 3] = ["io.kubernetes.cri.container-name", "io.kubernetes.container.name", "nerdctl/name"];
const POD: [&str; 2] = ["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"];
const POD_UID: [&str; 2] = ["io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"];
const NAMESPACE: [&str; 2] = ["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"];
const HOSTNAME: [&str; 2] = ["io.kubernetes.cri-o.HostName", "nerdctl/hostname"];
const TYPE: [&str; 3] =
    ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType", "io.kubernetes.docker.type"];

/// What they tell.
pub(super) fn read<'l>(label: impl Fn(&str) -> Option<&'l str>) -> Identity {
    let first = |keys: &[&str]| keys.iter().find_map(|key| label(key)).unwrap_or_default();
    let pod: Text<253> = Text::cut(first(&POD));
    let role = match first(&TYPE) {
        "sandbox" | "podsandbox" => Some(Role::Sandbox),
        // Of a pod it may be an init container as well: only the kubelet knows.
        _ if pod.is_empty() => Some(Role::Container),
        _ => None,
    };
    // A sandbox is called `POD`, or after its pod: no name of its own.
    let name = if role == Some(Role::Sandbox) { Text::EMPTY } else { Text::cut(first(&NAME)) };
    Identity {
        name,
        pod,
        pod_uid: Text::cut(first(&POD_UID)),
        namespace: Text::cut(first(&NAMESPACE)),
        hostname: Text::cut(first(&HOSTNAME)),
        role,
        qos: None,
    }
}
