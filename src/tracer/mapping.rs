//! The mapping of an index that holds documents: rendered from the specs, so each declared field has
//! its type there, and none has two. What is not declared is kept and not looked into, so a document
//! of a newer agent is not refused for it. Pure.

use serde_json::{Map, Value, json};

use super::{Field, FieldKind, Spec, document};

/// Longer texts are kept, but not found as a whole: Lucene takes terms of 32,766 bytes, and refuses
/// the document otherwise. A character is four bytes at most.
const KEYWORD_MAX: usize = 32_766 / 4;

/// Where a tracer's own fields are.
const DATA: &str = "tracer_data";

/// Two declarations that no index could hold both.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is declared twice: once as {once}, once as {again}")]
pub struct Conflict {
    field: String,
    once: String,
    again: String,
}

/// The mapping for the documents of all these tracers.
pub fn mapping<'s>(specs: impl IntoIterator<Item = &'s Spec>) -> Result<Value, Conflict> {
    let mut root = Map::new();
    for field in document::FIELDS {
        place(&mut root, field.name, field)?;
    }
    for spec in specs {
        for field in spec.fields {
            place(&mut root, &format!("{DATA}.{}", field.name), field)?;
        }
    }
    Ok(json!({ "dynamic": false, "properties": root }))
}

/// Lists of rows are mapped as what they hold: `nested` rows would be documents of their own, of which
/// a server takes a limited number, and refuses the event that has more.
fn place(mut into: &mut Map<String, Value>, path: &str, field: &Field) -> Result<(), Conflict> {
    let conflict = |once: &Value, again: &str| Conflict {
        field: path.to_owned(),
        once: once.get("type").and_then(Value::as_str).unwrap_or("an object").to_owned(),
        again: again.to_owned(),
    };
    let mut rest = path;
    while let Some((outer, inner)) = rest.split_once('.') {
        let holder = into.entry(outer).or_insert_with(|| json!({ "properties": {} }));
        let once = conflict(holder, "an object");
        into = holder.get_mut("properties").and_then(Value::as_object_mut).ok_or(once)?;
        rest = inner;
    }
    let leaf = leaf(path, field.kind);
    match into.get(rest) {
        Some(once) if *once != leaf => {
            Err(conflict(once, leaf.get("type").and_then(Value::as_str).unwrap_or_default()))
        }
        _ => {
            into.insert(rest.to_owned(), leaf);
            Ok(())
        }
    }
}

/// Numbers and times that a server cannot hold are kept unsearched, not refused: a count of the
/// kernel's may be larger than any `long`. A data stream wants its `@timestamp` strict.
fn leaf(path: &str, kind: FieldKind) -> Value {
    match kind {
        FieldKind::Date if path == "@timestamp" => json!({ "type": "date" }),
        FieldKind::Date => json!({ "type": "date", "ignore_malformed": true }),
        FieldKind::Keyword => json!({ "type": "keyword", "ignore_above": KEYWORD_MAX }),
        FieldKind::Text => json!({ "type": "text" }),
        FieldKind::Long => json!({ "type": "long", "ignore_malformed": true }),
        FieldKind::Double => json!({ "type": "double", "ignore_malformed": true }),
        FieldKind::Boolean => json!({ "type": "boolean" }),
        FieldKind::Opaque => json!({ "type": "object", "enabled": false }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracer::TRACERS;
    use crate::tracer::fields::field;

    /// Each field's path and type, of what is mapped.
    fn leaves(path: &str, of: &Value, out: &mut Vec<(String, String)>) {
        for (name, value) in of["properties"].as_object().expect("properties") {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match value.get("type") {
                Some(kind) => out.push((path, kind.as_str().expect("a name").to_owned())),
                None => leaves(&path, value, out),
            }
        }
    }

    #[test]
    fn every_field_that_a_tracer_declares_has_its_type_and_no_other_has_one() {
        let mapping = mapping(TRACERS.iter().copied()).expect("no field has two types");
        assert_eq!(mapping["dynamic"], false);
        let mut found = Vec::new();
        leaves("", &mapping, &mut found);
        let mut want: Vec<(String, String)> = Vec::new();
        let kind = |kind| match kind {
            FieldKind::Date => "date",
            FieldKind::Keyword => "keyword",
            FieldKind::Text => "text",
            FieldKind::Long => "long",
            FieldKind::Double => "double",
            FieldKind::Boolean => "boolean",
            FieldKind::Opaque => "object",
        };
        want.extend(
            document::FIELDS.iter().map(|field| (field.name.to_owned(), kind(field.kind).to_owned())),
        );
        for field in TRACERS.iter().flat_map(|spec| spec.fields) {
            want.push((format!("tracer_data.{}", field.name), kind(field.kind).to_owned()));
        }
        want.sort();
        want.dedup();
        found.sort();
        assert_eq!(found, want);
        // The default of both servers is 1000, holders included.
        assert!(found.len() < 500, "{} fields", found.len());
    }

    #[test]
    fn no_index_is_rendered_that_could_not_hold_all_documents() {
        let of = |pairs: &[(&'static str, FieldKind)]| {
            let mut root = Map::new();
            pairs.iter().try_for_each(|(name, kind)| place(&mut root, name, &field(name, *kind, "a")))
        };
        assert_eq!(of(&[("a", FieldKind::Long), ("a", FieldKind::Long)]), Ok(()), "once is enough");
        for (pairs, says) in [
            ([("a", FieldKind::Long), ("a", FieldKind::Double)], "once as long, once as double"),
            ([("a.b", FieldKind::Long), ("a.b", FieldKind::Keyword)], "a.b is declared twice"),
            ([("a", FieldKind::Long), ("a.b", FieldKind::Long)], "once as long, once as an object"),
            ([("a.b", FieldKind::Long), ("a", FieldKind::Text)], "once as an object, once as text"),
            ([("a", FieldKind::Opaque), ("a.b", FieldKind::Long)], "once as object, once as an object"),
        ] {
            let words = of(&pairs).expect_err("a conflict").to_string();
            assert!(words.contains(says), "{words}");
        }
    }
}
