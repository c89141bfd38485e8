//! Documents read from the log: foreign JSON, in which any field may be missing.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Failure;
use crate::clock::Wall;
use crate::log::{self, Reader, RecordId};
use crate::tracer::{FieldKind, TRACERS};

/// How many events an error names when an id is ambiguous.
const NAMED: usize = 3;

/// How many digits of a container's id are enough on one host.
const SHORT: usize = 12;

/// The fields that documents are filtered by, parsed without the rest.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Envelope {
    pub(super) tracer_name: String,
    tracer_time: String,
    pub(super) container_id: Option<String>,
}

impl Envelope {
    /// `None`: no document.
    pub(super) fn read(bytes: &[u8]) -> Option<Envelope> {
        serde_json::from_slice(bytes).ok()
    }

    pub(super) fn time(&self) -> Option<Wall> {
        Wall::parse(&self.tracer_time)
    }
}

/// A whole document.
#[derive(Clone, Debug)]
pub(super) struct Document {
    fields: Map<String, Value>,
    nothing: Map<String, Value>,
}

impl Document {
    /// `None`: no document.
    pub(super) fn read(bytes: &[u8]) -> Option<Document> {
        let fields = serde_json::from_slice(bytes).ok()?;
        Some(Document { fields, nothing: Map::new() })
    }

    /// A text of the envelope; empty where there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.fields.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The tracer's own fields.
    pub(super) fn data(&self) -> &Map<String, Value> {
        self.fields.get("tracer_data").and_then(Value::as_object).unwrap_or(&self.nothing)
    }

    /// The tracer's own fields in the order of its spec; those that it does not name come last.
    pub(super) fn in_order(&self) -> Vec<(&str, &Value)> {
        let spec = TRACERS.iter().find(|spec| spec.name == self.text("tracer_name"));
        let mut order: Vec<&str> = vec!["trigger", "known_issue"];
        for field in spec.map_or(&[][..], |spec| spec.fields) {
            order.push(field.name.split('.').next().unwrap_or_default());
        }
        let place = |name: &str| order.iter().position(|other| *other == name).unwrap_or(order.len());
        let mut fields: Vec<_> = self.data().iter().map(|(name, value)| (name.as_str(), value)).collect();
        fields.sort_by_key(|(name, _)| place(name));
        fields
    }

    /// The fields that the tracer's spec names for one line.
    pub(super) fn telling(&self) -> Vec<(&str, &Value)> {
        let is_plain = |value: &Value| value.is_number() || value.is_string();
        let spec = TRACERS.iter().find(|spec| spec.name == self.text("tracer_name"));
        let Some(spec) = spec else {
            let fields = self.in_order().into_iter();
            return fields.filter(|(name, value)| is_plain(value) && !is_minor(name)).take(4).collect();
        };
        let numbers = spec
            .fields
            .iter()
            .filter(|field| matches!(field.kind, FieldKind::Long | FieldKind::Double | FieldKind::Keyword));
        let found = numbers.filter_map(|field| Some((field.name, self.at(field.name)?)));
        found.filter(|(name, value)| is_plain(value) && !is_minor(name)).take(4).collect()
    }

    /// A field by its name with dots.
    fn at(&self, name: &str) -> Option<&Value> {
        let mut parts = name.split('.');
        let first = self.data().get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    }
}

/// Fields that explain others, and those that are shown elsewhere.
fn is_minor(name: &str) -> bool {
    const ELSEWHERE: [&str; 6] =
        ["trigger", "known_issue", "duration_ms", "capture_began_ms", "lost_samples", "stack"];
    name.ends_with("_threshold") || name.ends_with("_delta") || ELSEWHERE.contains(&name)
}

/// A container's id, shortened for people.
pub(super) fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

/// The event with an id, or with an unambiguous prefix or suffix of one.
pub(super) fn find(dir: &Path, text: &str) -> Result<(RecordId, Vec<u8>), Failure> {
    let wanted = text.to_ascii_lowercase();
    let none = || Failure::Failed(format!("there is no event {text} in {}", dir.display()));
    if let Ok(id) = wanted.parse::<RecordId>() {
        return Ok((id, log::get(dir, id)?.ok_or_else(none)?));
    }
    if wanted.is_empty() || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::Failed(log::NoId.to_string()));
    }
    let mut reader = Reader::open(dir)?;
    let mut found = None;
    let mut names = Vec::new();
    while let Some(entry) = reader.next()? {
        let name = entry.id.to_string();
        if name.starts_with(&wanted) || name.ends_with(&wanted) {
            found = Some((entry.id, entry.bytes.to_vec()));
            names.push(name);
        }
    }
    if names.len() > 1 {
        let some = names.get(..NAMED).unwrap_or(&names).join(", ");
        let words =
            format!("{} events have {text} in their ids, such as {some}: give more of it", names.len());
        return Err(Failure::Failed(words));
    }
    found.ok_or_else(none)
}
