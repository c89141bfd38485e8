//! The kubelet's `/pods`: a list of pods, read pod by pod as it comes in, so that a node's hundred
//! pods never stand in memory at once.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use super::{Identity, Role, qos};
use crate::host::inline::Text;

/// Whom something is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodOrContainer<'a> {
    /// The container of this id.
    Container(&'a str),
    /// Every container of the pod with this uid: what they share.
    Pod(&'a str),
}

/// Hands over what is told of each pod and each container. An error: what came is no list of pods.
pub fn read(body: impl io::Read, each: &mut dyn FnMut(PodOrContainer<'_>, &Identity)) -> Result<(), Error> {
    let mut json = serde_json::Deserializer::from_reader(body);
    List(each).deserialize(&mut json)?;
    Ok(json.end()?)
}

/// Why there are no names in it.
#[derive(Debug, thiserror::Error)]
#[error("the answer is no list of pods: {0}")]
pub struct Error(#[from] serde_json::Error);

impl Error {
    /// What was wrong with reading, and not with what was read.
    #[must_use]
    pub fn is_io(&self) -> bool {
        self.0.is_io()
    }
}

struct List<'e>(&'e mut dyn FnMut(PodOrContainer<'_>, &Identity));

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of pods")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "items" => {
                    found = true;
                    map.next_value_seed(Items(&mut *self.0))?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if found { Ok(()) } else { Err(de::Error::missing_field("items")) }
    }
}

struct Items<'e>(&'e mut dyn FnMut(PodOrContainer<'_>, &Identity));

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pods")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(pod) = seq.next_element::<Pod>()? {
            pod.report(self.0);
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    uid: String,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    hostname: Option<String>,
    node_name: Option<String>,
    #[serde(default)]
    host_network: bool,
    init_containers: Option<Vec<Init>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Init {
    #[serde(default)]
    name: String,
    restart_policy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    qos_class: Option<String>,
    container_statuses: Option<Vec<Container>>,
    init_container_statuses: Option<Vec<Container>>,
    ephemeral_container_statuses: Option<Vec<Container>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    name: String,
    #[serde(rename = "containerID")]
    id: Option<String>,
    state: Option<States>,
    last_state: Option<States>,
}

/// One that is over is told of here, until its pod is gone.
#[derive(Deserialize)]
struct States {
    terminated: Option<Terminated>,
}

#[derive(Deserialize)]
struct Terminated {
    #[serde(rename = "containerID")]
    id: Option<String>,
}

/// A static pod's own uid, and that of its mirror: its cgroup has the one or the other.
const STATIC_UIDS: [&str; 2] = ["kubernetes.io/config.hash", "kubernetes.io/config.mirror"];

impl Pod {
    fn report(&self, each: &mut dyn FnMut(PodOrContainer<'_>, &Identity)) {
        let shared = Identity {
            pod: Text::cut(&self.metadata.name),
            namespace: Text::cut(&self.metadata.namespace),
            hostname: Text::cut(self.hostname()),
            qos: self.status.qos_class.as_deref().and_then(qos),
            ..Identity::UNKNOWN
        };
        let annotations = self.metadata.annotations.as_ref();
        let other = STATIC_UIDS.iter().filter_map(|key| annotations?.get(*key).map(String::as_str));
        for uid in [self.metadata.uid.as_str()].into_iter().chain(other).filter(|uid| !uid.is_empty()) {
            each(PodOrContainer::Pod(uid), &shared);
        }
        let Status { container_statuses, init_container_statuses, ephemeral_container_statuses, .. } =
            &self.status;
        for (list, role) in [
            (container_statuses, Role::Container),
            (init_container_statuses, Role::Init),
            (ephemeral_container_statuses, Role::Ephemeral),
        ] {
            for container in list.iter().flatten() {
                let role = if self.is_sidecar(&container.name) { Role::Sidecar } else { role };
                let told = Identity { name: Text::cut(&container.name), role: Some(role), ..shared };
                container.ids().for_each(|id| each(PodOrContainer::Container(id), &told));
            }
        }
    }

    fn hostname(&self) -> &str {
        match (&self.spec.hostname, &self.spec.node_name) {
            (_, Some(node)) if self.spec.host_network => node,
            (Some(own), _) if !own.is_empty() => own,
            // As the kubelet makes it of the pod's name.
            _ => {
                let name = self.metadata.name.as_str();
                name.get(..63).unwrap_or(name).trim_end_matches(['-', '.'])
            }
        }
    }

    fn is_sidecar(&self, name: &str) -> bool {
        let mut inits = self.spec.init_containers.iter().flatten();
        inits.any(|init| init.name == name && init.restart_policy.as_deref() == Some("Always"))
    }
}

impl States {
    fn ended(states: Option<&States>) -> Option<&str> {
        states?.terminated.as_ref()?.id.as_deref()
    }
}

impl Container {
    /// Its ids without the runtime before them: that of now, and that of the run before.
    fn ids(&self) -> impl Iterator<Item = &str> {
        let ended = [&self.state, &self.last_state].map(|states| States::ended(states.as_ref()));
        let all = [self.id.as_deref()].into_iter().chain(ended).flatten();
        all.map(|id| id.split_once("://").map_or(id, |(_, id)| id)).filter(|id| !id.is_empty())
    }
}

#[cfg(test)]
mod tests;
