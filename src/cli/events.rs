//! `onset events`: lists the log.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::arguments::{DIR, JSON};
use super::document::{Document, Envelope, short};
use super::text::{line, quantity};
use super::{Command, Done, Failure, Given, Opt};
use crate::clock::Wall;
use crate::config;
use crate::log::{Entry, Reader};
use crate::ship::{self, Reject};
use crate::sys;

/// The log is looked at so often for what is new.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

pub(super) const COMMAND: Command = Command {
    name: "events",
    about: "Lists the log: one line an event, oldest first",
    operands: &[],
    options: &[
        DIR,
        Opt { long: "tracer", short: None, value: Some("TRACER"), about: "Only those of this tracer" },
        Opt {
            long: "container",
            short: None,
            value: Some("ID"),
            about: "Only those about this container; the beginning of its id will do",
        },
        Opt { long: "since", short: None, value: Some("TIME"), about: "Only those of the last 1h, 30m, 2d" },
        Opt {
            long: "rejected",
            short: None,
            value: None,
            about: "Only those that the server will never take, and why",
        },
        Opt { long: "follow", short: Some('f'), value: None, about: "Wait for more until interrupted" },
        JSON,
    ],
    run,
};

/// Which events are wanted.
struct Choice<'a> {
    tracer: Option<&'a str>,
    container: Option<&'a str>,
    since: Option<Wall>,
}

impl Choice<'_> {
    fn takes(&self, envelope: &Envelope) -> bool {
        let container =
            |wanted: &str| envelope.container_id.as_deref().is_some_and(|id| id.starts_with(wanted));
        self.tracer.is_none_or(|wanted| envelope.tracer_name == wanted)
            && self.container.is_none_or(container)
            && self.since.is_none_or(|since| envelope.time().is_some_and(|time| time >= since))
    }
}

fn run(given: &Given, out: &mut dyn Write) -> Result<Done, Failure> {
    let since = given.read("since", config::time)?.map(|time| {
        let before = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Wall(sys::now().wall.0.saturating_sub(before))
    });
    let choice = Choice { tracer: given.text("tracer")?, container: given.text("container")?, since };
    let (dir, json) = (given.dir()?, given.flag("json"));
    if given.flag("rejected") {
        if given.flag("follow") {
            return Err(Failure::Usage("--rejected lists what there is: it goes without --follow".into()));
        }
        return list_rejected(&dir, &choice, json, out);
    }
    list(&dir, &choice, json, given.flag("follow"), out)
}

/// What the server will never take, as far as it is still in the log, each with the server's words. The
/// words alone where the event is gone.
fn list_rejected(dir: &Path, choice: &Choice<'_>, json: bool, out: &mut dyn Write) -> Result<Done, Failure> {
    let notes = ship::rejected(dir)
        .map_err(|error| Failure::Failed(format!("cannot read {}: {error}", dir.display())))?;
    let mut notes: HashMap<String, Reject> = notes.into_iter().map(|note| (note.id.clone(), note)).collect();
    let mut reader = Reader::open(dir)?;
    while let Some(entry) = reader.next()? {
        let Some(note) = notes.remove(&entry.id.to_string()) else { continue };
        if print(&entry, choice, json, out)? && !json {
            writeln!(out, "    {}", words(&note))?;
        }
    }
    let everything = choice.tracer.is_none() && choice.container.is_none() && choice.since.is_none();
    if everything && !json {
        let mut gone: Vec<_> = notes.into_values().collect();
        gone.sort_by(|a, b| a.id.cmp(&b.id));
        for note in gone {
            writeln!(out, "{}  no longer in the log  {}", line(&note.id), words(&note))?;
        }
    }
    Ok(Done::Well)
}

pub(super) fn words(note: &Reject) -> String {
    let status = if note.status == 0 { "not sent".to_owned() } else { format!("HTTP {}", note.status) };
    format!("rejected {}: {status} {}: {}", line(&note.time), line(&note.kind), line(&note.reason))
}

fn list(
    dir: &Path,
    choice: &Choice<'_>,
    json: bool,
    follow: bool,
    out: &mut dyn Write,
) -> Result<Done, Failure> {
    let mut reader = Reader::open(dir)?;
    loop {
        while let Some(entry) = reader.next()? {
            print(&entry, choice, json, out)?;
        }
        if !follow {
            return Ok(Done::Well);
        }
        out.flush()?;
        thread::sleep(FOLLOW_EVERY);
    }
}

/// Prints an event, if it is chosen. Returns whether it is.
fn print(entry: &Entry<'_>, choice: &Choice<'_>, json: bool, out: &mut dyn Write) -> Result<bool, Failure> {
    // What is no document has no envelope to be chosen by: it is shown where nothing is chosen.
    let envelope = Envelope::read(entry.bytes).unwrap_or_default();
    if !choice.takes(&envelope) {
        return Ok(false);
    }
    if json {
        out.write_all(entry.bytes)?;
        if !entry.bytes.ends_with(b"\n") {
            out.write_all(b"\n")?;
        }
        return Ok(true);
    }
    match Document::read(entry.bytes) {
        Some(document) => writeln!(out, "{}", one_line(&entry.id.to_string(), &document))?,
        None => writeln!(out, "{:<24}  {:<10}  no document  {}", "", "", entry.id)?,
    }
    Ok(true)
}

/// Time, tracer, rule, subject, id and what says most.
pub(super) fn one_line(id: &str, document: &Document) -> String {
    let data = document.data();
    let trigger = data.get("trigger").and_then(Value::as_str).unwrap_or_default();
    let subject = match document.text("container_id") {
        "" => "host",
        id => short(id),
    };
    let mut gist = String::new();
    if let Some(issue) = data.get("known_issue").and_then(Value::as_str).filter(|issue| !issue.is_empty()) {
        gist = format!("\"{}\"", line(issue));
    }
    for (name, value) in document.telling() {
        let name = name.rsplit('.').next().unwrap_or(name);
        gist.push_str(if gist.is_empty() { "" } else { ", " });
        gist.push_str(&match value {
            Value::Number(number) => format!("{} {}", line(name), quantity(name, number)),
            other => format!("{} {}", line(name), line(other.as_str().unwrap_or_default())),
        });
    }
    let (time, tracer) = (line(document.text("tracer_time")), line(document.text("tracer_name")));
    let (trigger, subject) = (line(trigger), line(subject));
    let text = format!("{time:<24}  {tracer:<10}  {trigger:<9}  {subject:<12}  {id}  {gist}");
    text.trim_end().to_owned()
}
