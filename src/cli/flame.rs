//! `onset flame`: an event's stacks, for a viewer of flame graphs.

use std::fs;
use std::io::Write;

use super::arguments::DIR;
use super::document::{Document, find, short};
use super::{Command, Exit, Failure, Opt, ParsedArgs};
use crate::capture_data::FlameNode;
use crate::stacks::{Tree, TreeError, formats};

pub(super) const COMMAND: Command = Command {
    name: "flame",
    about: "Draws an event's stacks as a flame graph",
    operands: &["ID"],
    options: &[
        DIR,
        Opt {
            long: "format",
            short: None,
            value: Some("FORMAT"),
            about: "svg (the default), folded or speedscope",
        },
        Opt { long: "output", short: Some('o'), value: Some("FILE"), about: "Into this file" },
    ],
    run,
};

#[derive(Clone, Copy)]
pub(super) enum Format {
    Svg,
    Folded,
    Speedscope,
}

fn format(text: &str) -> Option<Format> {
    match text {
        "svg" => Some(Format::Svg),
        "folded" => Some(Format::Folded),
        "speedscope" => Some(Format::Speedscope),
        _ => None,
    }
}

fn run(args: &ParsedArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let format = args.read("format", format)?.unwrap_or(Format::Svg);
    let (id, bytes) = find(&args.dir()?, args.operand(0)?)?;
    let document = Document::read(&bytes);
    let document = document.ok_or_else(|| Failure::Failed(format!("{id} is no document")))?;
    let nodes = nodes(&document);
    let tree = Tree::check(&nodes).map_err(|error| match error {
        TreeError::Empty => Failure::Failed(format!("{id} has no stacks")),
        other => Failure::Failed(format!("{id}: {other}")),
    })?;
    let subject = match document.text("container_id") {
        "" => "host",
        container => short(container),
    };
    let title = format!("{} {} {subject}", document.text("tracer_name"), document.text("tracer_time"));
    let drawn = draw(format, &tree, &title)?;
    match args.path("output") {
        None => out.write_all(&drawn)?,
        Some(path) => fs::write(&path, &drawn)
            .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", path.display())))?,
    }
    Ok(Exit::Success)
}

/// Made whole before any of it goes out: half a picture is worse than none.
pub(super) fn draw(format: Format, tree: &Tree<'_>, title: &str) -> std::io::Result<Vec<u8>> {
    let mut drawn = Vec::new();
    match format {
        Format::Svg => formats::svg(tree, title, &mut drawn)?,
        Format::Folded => formats::folded(tree, &mut drawn)?,
        Format::Speedscope => formats::speedscope(tree, title, &mut drawn)?,
    }
    Ok(drawn)
}

/// The nodes of an event's flame graph; none if it has none, or something else in that place.
pub(super) fn nodes(document: &Document) -> Vec<FlameNode<'_>> {
    let found = document.data().get("flamedata");
    found.and_then(|value| serde::Deserialize::deserialize(value).ok()).unwrap_or_default()
}
