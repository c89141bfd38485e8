//! The names of a container in its runtime's files and in the kubelet's list. Pure: bytes in, names out. Names are cut
//! to a bounded size, so that a table of them is allocated once.

mod labels;
pub mod pods;
pub mod state;

use super::inline::Text;

/// A container's role in its pod; `container_type` in documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// One that does the pod's work, or that is in no pod.
    Container,
    /// Runs to its end before the pod's work begins.
    Init,
    /// Begins like an init container and then runs beside the pod's work.
    Sidecar,
    /// Was put into a running pod, to look into it.
    Ephemeral,
    /// Holds the pod's namespaces and does nothing.
    Sandbox,
}

impl Role {
    /// As documents say it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Container => "container",
            Role::Init => "init",
            Role::Sidecar => "sidecar",
            Role::Ephemeral => "ephemeral",
            Role::Sandbox => "sandbox",
        }
    }
}

/// The names of one container; unknown ones are empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: Text<128>,
    /// Its pod's name.
    pub pod: Text<253>,
    /// Its pod's uid.
    pub pod_uid: Text<64>,
    /// Its pod's namespace.
    pub namespace: Text<64>,
    /// Its host name.
    pub hostname: Text<64>,
    /// What it is to its pod.
    pub role: Option<Role>,
    /// Its pod's QoS class: `guaranteed`, `burstable`, `besteffort`.
    pub qos: Option<&'static str>,
}

impl Identity {
    /// Nothing is known.
    pub const UNKNOWN: Identity = Identity {
        name: Text::EMPTY,
        pod: Text::EMPTY,
        pod_uid: Text::EMPTY,
        namespace: Text::EMPTY,
        hostname: Text::EMPTY,
        role: None,
        qos: None,
    };

    /// Takes the names that `other` knows; the rest stays.
    pub fn learn(&mut self, other: &Identity) {
        fn text<const N: usize>(known: &mut Text<N>, told: &Text<N>) {
            if !told.is_empty() {
                *known = *told;
            }
        }
        text(&mut self.name, &other.name);
        text(&mut self.pod, &other.pod);
        text(&mut self.pod_uid, &other.pod_uid);
        text(&mut self.namespace, &other.namespace);
        text(&mut self.hostname, &other.hostname);
        self.role = other.role.or(self.role);
        self.qos = other.qos.or(self.qos);
    }
}

/// The names of a container from one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameReport {
    /// Its names.
    pub identity: Identity,
    /// The source.
    pub by: NameSource,
}

/// Where names come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameSource {
    /// The kubelet: by the id alone.
    Kubelet,
    /// A runtime, by its files.
    Runtime(Record),
}

/// What a runtime's files contain beside the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The container's cgroup, as the runtime noted it.
    pub cgroup: Option<Box<str>>,
    /// The user who owns the files.
    pub owner: u32,
    /// What the file looks like that holds a name which may change; 0: none does.
    pub stamp: u64,
}

/// `Burstable` and its like, as paths and documents have them.
fn qos(class: &str) -> Option<&'static str> {
    ["guaranteed", "burstable", "besteffort"].into_iter().find(|known| known.eq_ignore_ascii_case(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_source_does_not_erase_what_the_first_knew() {
        let mut known = Identity {
            name: Text::cut("web"),
            hostname: Text::cut("web-0"),
            qos: Some("burstable"),
            ..Identity::UNKNOWN
        };
        known.learn(&Identity {
            hostname: Text::cut("web-1"),
            role: Some(Role::Init),
            namespace: Text::cut("shop"),
            ..Identity::UNKNOWN
        });
        assert_eq!((&*known.name, &*known.hostname, &*known.namespace), ("web", "web-1", "shop"));
        assert_eq!((known.role, known.qos), (Some(Role::Init), Some("burstable")));
        let before = known;
        known.learn(&Identity::UNKNOWN);
        assert_eq!(known, before);
    }

    #[test]
    fn qos_classes_are_parsed_as_kubernetes_writes_them() {
        assert_eq!(
            ["Guaranteed", "Burstable", "BestEffort"].map(qos).map(Option::unwrap_or_default),
            ["guaranteed", "burstable", "besteffort"]
        );
        assert_eq!(qos("Best Effort"), None);
    }
}
