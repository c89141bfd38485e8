//! `onset events`: lists the log.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::arguments::{DIR, JSON};
use super::document::{Document, Envelope, short};
use super::text::{line, quantity};
use super::{Command, Exit, Failure, Opt, ParsedArgs};
use crate::clock::Wall;
use crate::config;
use crate::log::{LogRecord, Reader, RecordId};
use crate::ship::{self, Rejection};
use crate::sys;
use event_filter::EventFilter;

mod event_filter;

/// How often `--follow` polls the log.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

pub(super) const COMMAND: Command = Command {
    name: "events",
    about: "Lists the log: one line an event, in the order they were kept",
    operands: &[],
    options: &[
        DIR,
        Opt { long: "tracer", short: None, value: Some("TRACER"), about: "Only those of this tracer" },
        Opt {
            long: "container",
            short: None,
            value: Some("ID"),
            about: "Only those about this container, or that name it as one to blame; the beginning of its id will do",
        },
        Opt { long: "since", short: None, value: Some("TIME"), about: "Only those of the last 1h, 30m, 2d" },
        Opt {
            long: "sort",
            short: None,
            value: Some("ORDER"),
            about: "log (the default): as they were kept, each once its capture was over; time: as their rules fired",
        },
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

/// The order of the list.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    /// The order of the log.
    Log,
    /// The time when their rules fired: `tracer_time`.
    Time,
}

fn order(text: &str) -> Option<Order> {
    match text {
        "log" => Some(Order::Log),
        "time" => Some(Order::Time),
        _ => None,
    }
}

fn run(args: &ParsedArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let since = args.read("since", config::time)?.map(|time| {
        let before = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Wall(sys::now().wall.0.saturating_sub(before))
    });
    let order = args.read("sort", order)?.unwrap_or(Order::Log);
    let choice = EventFilter::new(args.text("tracer")?, args.text("container")?, since);
    let (dir, json, follow) = (args.dir()?, args.flag("json"), args.flag("follow"));
    if args.flag("rejected") {
        if follow || order == Order::Time {
            let words = "--rejected lists what there is, as it was kept: it goes without --follow and --sort";
            return Err(Failure::Usage(words.into()));
        }
        list_rejected(&dir, &choice, json, out)?;
        return Ok(choice.nothing(args)?.map_or(Exit::Success, Exit::Note));
    }
    match order {
        Order::Time if follow => {
            let words = "--sort time needs all there is: it goes without --follow";
            return Err(Failure::Usage(words.into()));
        }
        Order::Time => by_time(&dir, &choice, json, out)?,
        Order::Log => list(&dir, &choice, json, follow, args, out)?,
    }
    Ok(choice.nothing(args)?.map_or(Exit::Success, Exit::Note))
}

/// Lists rejected events with the server's reason. An event that is no longer in the log is listed by its reason alone.
fn list_rejected(
    dir: &Path,
    choice: &EventFilter<'_>,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let notes = ship::rejected(dir)
        .map_err(|error| Failure::Failed(format!("cannot read {}: {error}", dir.display())))?;
    let mut notes: HashMap<String, Rejection> =
        notes.into_iter().map(|note| (note.id.clone(), note)).collect();
    let mut reader = Reader::open(dir)?;
    while let Some(entry) = reader.next()? {
        let wanted = choice.takes(entry.bytes); // of each: it notes what there is
        let Some(note) = notes.remove(&entry.id.to_string()) else { continue };
        if wanted {
            print(entry.id, entry.bytes, json, out)?;
            if !json {
                writeln!(out, "    {}", words(&note))?;
            }
        }
    }
    if choice.is_everything() && !json {
        let mut gone: Vec<_> = notes.into_values().collect();
        gone.sort_by(|a, b| a.id.cmp(&b.id));
        for note in gone {
            writeln!(out, "{}  no longer in the log  {}", line(&note.id), words(&note))?;
        }
    }
    Ok(())
}

pub(super) fn words(note: &Rejection) -> String {
    let status = if note.status == 0 { "not sent".to_owned() } else { format!("HTTP {}", note.status) };
    format!("rejected {}: {status} {}: {}", line(&note.time), line(&note.kind), line(&note.reason))
}

/// Lists events in the order of the log. With `--follow`, says once at the log's end if the filter matched nothing so
/// far.
fn list(
    dir: &Path,
    choice: &EventFilter<'_>,
    json: bool,
    follow: bool,
    args: &ParsedArgs,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut reader = Reader::open(dir)?;
    let mut told = false;
    loop {
        while let Some(LogRecord { id, bytes }) = reader.next()? {
            if choice.takes(bytes) {
                print(id, bytes, json, out)?;
            }
        }
        if !follow {
            return Ok(());
        }
        out.flush()?;
        if !std::mem::replace(&mut told, true)
            && let Some(words) = choice.nothing(args)?
        {
            eprintln!("onset: {}", line(&words));
        }
        // A reader that goes away while nothing happens would never be noticed by writing.
        if sys::wait_unread(&io::stdout(), FOLLOW_EVERY) {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
        }
    }
}

/// Lists events by the time when their rules fired; equal and missing times keep the order of the log. The log is read
/// twice. Only events that were written before their turn are held in memory: those of the last minutes, or, where the
/// clock was set back, those since.
fn by_time(dir: &Path, choice: &EventFilter<'_>, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let mut reader = Reader::open(dir)?;
    let (mut kept, mut last) = (Vec::new(), Wall(0));
    while let Some(LogRecord { id, bytes }) = reader.next()? {
        if choice.takes(bytes) {
            last = Envelope::read(bytes).and_then(|envelope| envelope.time()).unwrap_or(last);
            kept.push((last, id));
        }
    }
    let places: HashMap<RecordId, usize> =
        kept.iter().enumerate().map(|(place, (_, id))| (*id, place)).collect();
    let mut order: Vec<usize> = (0..kept.len()).collect();
    order.sort_by_key(|place| kept.get(*place).map(|(time, _)| *time));
    let mut order = order.into_iter().peekable();
    let mut early: HashMap<usize, (RecordId, Vec<u8>)> = HashMap::new();
    let mut reader = Reader::open(dir)?;
    while let Some(LogRecord { id, bytes }) = reader.next()? {
        // What came after the first reading is not listed.
        let Some(place) = places.get(&id) else { continue };
        early.insert(*place, (id, bytes.to_vec()));
        while let Some(next) = order.peek() {
            match early.remove(next) {
                Some((id, bytes)) => print(id, &bytes, json, out)?,
                // It was deleted meanwhile: those behind it in the log are here.
                None if next < place => {}
                None => break,
            }
            order.next();
        }
    }
    for (id, bytes) in order.filter_map(|place| early.remove(&place)) {
        print(id, &bytes, json, out)?;
    }
    Ok(())
}

/// Prints an event.
fn print(id: RecordId, bytes: &[u8], json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    if json {
        out.write_all(bytes)?;
        if !bytes.ends_with(b"\n") {
            out.write_all(b"\n")?;
        }
        return Ok(());
    }
    match Document::read(bytes) {
        Some(document) => writeln!(out, "{}", one_line(&id.to_string(), &document))?,
        None => writeln!(out, "{:<24}  {:<10}  no document  {id}", "", "")?,
    }
    Ok(())
}

/// One line: time, tracer, rule, subject, id and the most telling fields.
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
