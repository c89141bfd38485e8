//! Which events are wanted, and whether there can be any at all.

use std::cell::Cell;

use serde_json::Value;

use crate::cli::document::{Document, Envelope};
use crate::cli::{Failure, ParsedArgs};
use crate::clock::Wall;
use crate::host::Reader as Host;
use crate::host::containers::NotFound;
use crate::tracer::{Spec, TRACERS, no_tracer};

/// What is asked for, and what of it was seen.
pub(super) struct EventFilter<'a> {
    tracer: Option<&'a str>,
    container: Option<&'a str>,
    since: Option<Wall>,
    /// Whether the log had an event of the tracer, and one that names the container.
    tracer_seen: Cell<bool>,
    container_seen: Cell<bool>,
}

impl<'a> EventFilter<'a> {
    pub(super) fn new(
        tracer: Option<&'a str>,
        container: Option<&'a str>,
        since: Option<Wall>,
    ) -> EventFilter<'a> {
        let unseen = || Cell::new(false);
        EventFilter { tracer, container, since, tracer_seen: unseen(), container_seen: unseen() }
    }

    /// Whether an event is wanted. What is no document has nothing to be chosen by: it is wanted where
    /// nothing is chosen.
    pub(super) fn takes(&self, bytes: &[u8]) -> bool {
        let envelope = Envelope::read(bytes).unwrap_or_default();
        let tracer = self.tracer.is_none_or(|wanted| envelope.tracer_name == wanted);
        if tracer {
            self.tracer_seen.set(true);
        }
        let container = self.container.is_none_or(|wanted| {
            envelope.container_id.as_deref().is_some_and(|id| id.starts_with(wanted)) || names(bytes, wanted)
        });
        if container {
            self.container_seen.set(true);
        }
        let since = || self.since.is_none_or(|since| envelope.time().is_some_and(|time| time >= since));
        tracer && container && since()
    }

    pub(super) fn is_everything(&self) -> bool {
        self.tracer.is_none() && self.container.is_none() && self.since.is_none()
    }

    /// Once all events were seen: why none can fit the container. An unknown tracer is a misuse.
    pub(super) fn nothing(&self, args: &ParsedArgs) -> Result<Option<String>, Failure> {
        if let Some(name) = self.tracer.filter(|_| !self.tracer_seen.get())
            && !specs(args).iter().any(|spec| spec.name == name)
        {
            return Err(Failure::Usage(no_tracer(name, specs(args))));
        }
        Ok(self.container.filter(|id| !self.container_seen.get() && !is_there(id, args)).map(|id| {
            format!("no event in the log names a container {id}, and there is none here; onset containers lists them")
        }))
    }
}

/// Whether a document's rows name this container: whose I/O it was, who waited or was waited for, whose
/// task was blocked, who was killed.
fn names(bytes: &[u8], wanted: &str) -> bool {
    fn any(value: &Value, wanted: &str) -> bool {
        match value {
            Value::Object(fields) => fields.iter().any(|(name, value)| match value {
                Value::String(id) => name == "container_id" && id.starts_with(wanted),
                other => any(other, wanted),
            }),
            Value::Array(rows) => rows.iter().any(|row| any(row, wanted)),
            _ => false,
        }
    }
    // Most documents name no container in their rows, and are not read whole for that.
    let key = b"\"container_id\"";
    bytes.windows(key.len()).any(|some| some == key)
        && Document::read(bytes)
            .is_some_and(|document| document.data().values().any(|value| any(value, wanted)))
}

/// The tracers that there are: those of the config, or of the program where none can be read.
fn specs(args: &ParsedArgs) -> Vec<&'static Spec> {
    match args.config() {
        Ok(config) => config.tracers.iter().map(|tracer| tracer.spec).collect(),
        Err(_) => TRACERS.to_vec(),
    }
}

/// Whether a container of this id is on this host now.
fn is_there(id: &str, args: &ParsedArgs) -> bool {
    let Ok(config) = args.config() else { return false };
    let Ok(host) = Host::open(&config.paths, config.containers) else { return false };
    !matches!(host.containers().find(id), Err(NotFound::None))
}
