//! The files in which runtimes keep what they know of a container: an OCI spec (containerd, CRI-O,
//! podman), docker's config.v2.json, podman's containers.json, runc's state.json.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Identity, labels};
use crate::host::inline::Text;

type Str<'a> = Cow<'a, str>;
type Labels<'a> = BTreeMap<Str<'a>, Str<'a>>;

/// An OCI runtime spec: `config.json` of a bundle.
#[must_use]
pub fn oci(spec: &[u8]) -> Option<Identity> {
    #[derive(Deserialize)]
    struct Spec<'a> {
        #[serde(borrow)]
        hostname: Option<Str<'a>>,
        #[serde(borrow)]
        annotations: Option<Labels<'a>>,
        #[serde(borrow)]
        process: Option<Process<'a>>,
    }
    #[derive(Deserialize)]
    struct Process<'a> {
        #[serde(borrow)]
        env: Option<Vec<Str<'a>>>,
    }
    let spec: Spec<'_> = serde_json::from_slice(spec).ok()?;
    let annotations = spec.annotations.unwrap_or_default();
    let mut told = labels::read(|key| annotations.get(key).map(|value| &**value));
    // Only a pod's sandbox has its host name as such; the pod's other containers share it.
    let shared = spec.process.and_then(|process| process.env).unwrap_or_default();
    let shared = shared.iter().find_map(|variable| variable.strip_prefix("HOSTNAME="));
    let own = spec.hostname.as_deref().filter(|name| !name.is_empty()).or(shared);
    if let Some(name) = own {
        told.hostname = Text::cut(name);
    }
    Some(told)
}

/// Docker's `config.v2.json`.
#[must_use]
pub fn docker(config: &[u8]) -> Option<Identity> {
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
    Some(told)
}

/// The name of a container in podman's `containers.json`, the list of all.
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
pub fn runc(state: &[u8]) -> Option<Identity> {
    #[derive(Deserialize)]
    struct State<'a> {
        #[serde(borrow)]
        config: Option<Config<'a>>,
    }
    #[derive(Deserialize)]
    struct Config<'a> {
        #[serde(borrow)]
        hostname: Option<Str<'a>>,
        #[serde(borrow)]
        labels: Option<Vec<Str<'a>>>,
    }
    let config = serde_json::from_slice::<State<'_>>(state).ok()?.config?;
    let list = config.labels.unwrap_or_default();
    let label = |key: &str| list.iter().find_map(|label| label.strip_prefix(key)?.strip_prefix('='));
    let mut told = labels::read(label);
    if let Some(hostname) = config.hostname.as_deref().filter(|name| !name.is_empty()) {
        told.hostname = Text::cut(hostname);
    }
    Some(told)
}

#[cfg(test)]
mod tests;
