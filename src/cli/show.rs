//! `onset show`: one event, for a person to read at 3 am. What a tracer's fields are called and
//! how they nest is all that is known of them here: a new tracer needs no line.

use std::io::Write;

use serde_json::{Map, Value};

use super::arguments::DIR;
use super::document::{Document, find};
use super::text::{columns, line, quantity};
use super::{Command, Exit, Failure, ParsedArgs};
use crate::stacks::Tree;

mod hottest;

pub(super) const COMMAND: Command = Command {
    name: "show",
    about: "Shows one event for a person to read; the beginning or end of its id will do",
    operands: &["ID"],
    options: &[DIR],
    run,
};

/// So many rows of a list are shown; the document has the rest.
const ROWS: usize = 20;

/// The envelope's fields, in the order that they are of use.
const ENVELOPE: [&str; 16] = [
    "hostname",
    "region",
    "container_id",
    "container_name",
    "container_hostname",
    "container_host_namespace",
    "pod",
    "pod_uid",
    "container_runtime",
    "container_type",
    "container_qos",
    "cgroup_path",
    "tracer_time",
    "tracer_type",
    "tracer_id",
    "onset_version",
];

fn run(args: &ParsedArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let (id, bytes) = find(&args.dir()?, args.operand(0)?)?;
    let document = Document::read(&bytes);
    let document = document.ok_or_else(|| Failure::Failed(format!("{id} is no document")))?;
    show(&document, out)?;
    Ok(Exit::Success)
}

pub(super) fn show(document: &Document, out: &mut dyn Write) -> Result<(), Failure> {
    let trigger = document.data().get("trigger").and_then(Value::as_str).unwrap_or("event");
    let (tracer, time) = (document.text("tracer_name"), document.text("tracer_time"));
    writeln!(out, "{}: {} at {}\n", line(tracer), line(trigger), line(time))?;
    for name in ENVELOPE {
        let text = document.text(name);
        if !text.is_empty() {
            writeln!(out, "{name:<26}{}", line(text))?;
        }
    }
    writeln!(out)?;
    let fields = document.in_order();
    let (plain, nested): (Vec<_>, Vec<_>) = fields.into_iter().partition(|(_, value)| is_plain(value));
    for (name, value) in plain {
        writeln!(out, "{:<32}{}", line(name), plain_text(name, value))?;
    }
    for (name, value) in nested {
        if name != "flamedata" {
            section(name, value, "", out)?;
        }
    }
    let nodes = super::flame::nodes(document);
    if Tree::check(&nodes).is_ok() {
        writeln!(out, "\nhottest paths (the whole: onset flame {})", line(document.text("tracer_id")))?;
        hottest::show(&nodes, out)?;
    }
    Ok(())
}

/// Whether a value fits on a line.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::Array(_) | Value::Object(_) => false,
        Value::String(text) => !text.trim_end().contains('\n'),
        _ => true,
    }
}

fn plain_text(name: &str, value: &Value) -> String {
    match value {
        Value::Number(number) => quantity(name, number),
        Value::String(text) => line(text.trim_end()).to_string(),
        other => other.to_string(),
    }
}

/// A value that does not fit on a line, under its name.
fn section(name: &str, value: &Value, indent: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let below = format!("{indent}  ");
    match value {
        Value::Array(items) if items.is_empty() => {}
        Value::Array(items) => {
            writeln!(out, "\n{indent}{} ({})", line(name), items.len())?;
            list(name, items, &below, out)?;
        }
        Value::Object(fields) => {
            writeln!(out, "\n{indent}{}", line(name))?;
            object(fields, &below, out)?;
        }
        Value::String(text) => {
            writeln!(out, "\n{indent}{}", line(name))?;
            for part in text.lines() {
                writeln!(out, "{below}{}", line(part))?;
            }
        }
        plain => writeln!(out, "{indent}{:<32}{}", line(name), plain_text(name, plain))?,
    }
    Ok(())
}

fn object(fields: &Map<String, Value>, indent: &str, out: &mut dyn Write) -> Result<(), Failure> {
    for (name, value) in fields.iter().filter(|(_, value)| is_plain(value)) {
        writeln!(out, "{indent}{:<32}{}", line(name), plain_text(name, value))?;
    }
    for (name, value) in fields.iter().filter(|(_, value)| !is_plain(value)) {
        section(name, value, indent, out)?;
    }
    Ok(())
}

fn list(name: &str, items: &[Value], indent: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let objects: Vec<&Map<String, Value>> = items.iter().filter_map(Value::as_object).collect();
    let shown = objects.get(..ROWS).unwrap_or(&objects);
    if objects.len() < items.len() {
        // Frames of a stack, most likely: each says something, so all are shown.
        for item in items {
            writeln!(out, "{indent}{}", plain_text(name, item))?;
        }
        return Ok(());
    }
    if objects.iter().all(|fields| fields.values().all(is_plain)) {
        table(shown, indent, out)?;
    } else {
        for fields in shown {
            row(fields, indent, out)?;
        }
    }
    if objects.len() > shown.len() {
        writeln!(out, "{indent}... and {} more in the document", objects.len() - shown.len())?;
    }
    Ok(())
}

/// Objects of plain values: a column for each name that one of them has.
fn table(rows: &[&Map<String, Value>], indent: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let mut names: Vec<&String> = Vec::new();
    for name in rows.iter().flat_map(|row| row.keys()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.sort_by_key(|name| rank(name));
    let cell = |row: &Map<String, Value>, name: &String| {
        row.get(name).map_or(String::new(), |value| plain_text(name, value))
    };
    let mut cells: Vec<Vec<String>> = vec![names.iter().map(|name| (*name).clone()).collect()];
    cells.extend(rows.iter().map(|row| names.iter().map(|name| cell(row, name)).collect()));
    let cells: Vec<&[String]> = cells.iter().map(Vec::as_slice).collect();
    columns(indent, &cells, out)?;
    Ok(())
}

/// An object with something nested: its plain values on a line, the rest below it.
fn row(fields: &Map<String, Value>, indent: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let mut plain: Vec<_> = fields.iter().filter(|(_, value)| is_plain(value)).collect();
    plain.sort_by_key(|(name, _)| rank(name));
    let words: Vec<String> =
        plain.iter().map(|(name, value)| format!("{} {}", line(name), plain_text(name, value))).collect();
    writeln!(out, "{indent}{}", words.join(", "))?;
    let below = format!("{indent}  ");
    for (name, value) in fields {
        match value {
            Value::Array(items) if name == "stack" => list(name, items, &below, out)?,
            value if !is_plain(value) => section(name, value, &below, out)?,
            _ => {}
        }
    }
    Ok(())
}

/// Who comes before what.
fn rank(name: &str) -> usize {
    let first = ["pid", "tid", "comm", "state", "container_id", "cgroup_path"];
    first.iter().position(|other| *other == name).unwrap_or(first.len())
}
