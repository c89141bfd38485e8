//! What every document and every scrape must be, whatever happened before.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Spec;
use crate::clock::Wall;
use crate::tracer::{Field, FieldKind, document};

/// What every document says, whatever it is about.
const ALWAYS: [&str; 11] = [
    "@timestamp",
    "hostname",
    "region",
    "time",
    "tracer_name",
    "tracer_id",
    "tracer_time",
    "tracer_type",
    "onset_version",
    "tracer_data.trigger",
    "tracer_data.duration_ms",
];

/// Percent of something, though their names do not say so.
const SHARES: [&str; 4] = ["curr_waitrate", "mean", "std", "reason_snapshot.iostatus.io_util"];

/// Reads a document and holds it against the envelope's and the tracer's declared fields.
pub fn document(spec: &Spec, bytes: &[u8]) -> Value {
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else {
        panic!("no JSON: {}", String::from_utf8_lossy(bytes))
    };
    let Value::Object(mut envelope) = document.clone() else { panic!("no object: {document}") };
    let data = envelope.remove("tracer_data").unwrap_or_default();
    assert!(data.is_object(), "tracer_data: {data}");
    walk("", &Value::Object(envelope), document::FIELDS);
    walk("", &data, spec.fields);
    for name in ALWAYS {
        let value = name.split('.').try_fold(&document, |value, key| value.get(key));
        assert!(value.is_some(), "{name} is missing in {document}");
    }
    for name in ["lost_samples", "truncated"] {
        assert!(data.get(name).is_some_and(Value::is_u64), "{name} in {data}");
    }
    assert_eq!(document.get("tracer_name").and_then(Value::as_str), Some(spec.name));
    assert!(document.get("uploaded_time").is_none(), "the shipper's field");
    document
}

/// Each value below `path`: a row's fields are named with dots, lists are of what they hold.
fn walk(path: &str, value: &Value, fields: &[Field]) {
    if let Some(field) = fields.iter().find(|field| field.name == path) {
        return leaf(field, value);
    }
    match value {
        Value::Array(rows) => rows.iter().for_each(|row| walk(path, row, fields)),
        Value::Object(object) => {
            for (key, value) in object {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(&below, value, fields);
            }
        }
        _ => panic!("{path} is not declared"),
    }
    let known = path.is_empty() || fields.iter().any(|field| parent_of(field.name, path));
    assert!(known, "{path} is not declared");
}

fn parent_of(name: &str, path: &str) -> bool {
    name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
}

fn leaf(field: &Field, value: &Value) {
    if let (Value::Array(values), false) = (value, field.kind == FieldKind::Opaque) {
        return values.iter().for_each(|value| leaf(field, value));
    }
    let fits = match field.kind {
        FieldKind::Date => value.as_str().is_some_and(|text| Wall::parse(text).is_some()),
        FieldKind::Keyword | FieldKind::Text => value.is_string(),
        FieldKind::Long => value.is_u64() || value.is_i64(),
        FieldKind::Double => value.is_number(),
        FieldKind::Boolean => value.is_boolean(),
        FieldKind::Opaque => value.is_array() || value.is_object(),
    };
    assert!(fits, "{} is a {:?} but says {value}", field.name, field.kind);
    let range = match field.name {
        name if name.ends_with("percent") || SHARES.contains(&name) => Some(0.0..=100.0),
        name if name.ends_with("_percent_delta") => Some(-100.0..=100.0),
        _ => None,
    };
    if let Some((range, value)) = range.zip(value.as_f64()) {
        assert!(range.contains(&value), "{} is {value}", field.name);
    }
}

/// Reads a scrape: no sample twice, none that is not a finite number or that is a share of over 1.
pub fn scrape(page: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(page) else { panic!("a scrape is UTF-8") };
    let mut seen = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((sample, value)) = line.rsplit_once(' ') else { panic!("no sample: {line}") };
        assert!(seen.insert(sample), "{sample} is there twice");
        let Ok(value) = value.parse::<f64>() else { panic!("no number: {line}") };
        // Nothing that is shown can be less than nothing.
        assert!(value.is_finite() && value >= 0.0, "{line}");
        assert!(!sample.contains("_ratio") || value <= 1.0, "more than all: {line}");
    }
    text.to_owned()
}
