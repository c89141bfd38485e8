//! `onset status`: how the running agent is.

use std::io::Write;
use std::time::Duration;

use super::arguments::JSON;
use super::text::{self, line, quantity};
use super::{Command, Exit, Failure, ParsedArgs};
use crate::control::{
    self, BudgetStatus, ControlRequest, OpenCaptureStatus, Outcome, OutputStatus, ShipStatus, Status,
    TracerStatus,
};

/// The agent answers within a turn of its loop.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) const COMMAND: Command = Command {
    name: "status",
    about: "Asks the running agent how it is: tracers, states, counters, last events",
    operands: &[],
    options: &[JSON],
    run,
};

fn run(args: &ParsedArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let reply = control::ask(&args.config()?.socket, &ControlRequest::Status {}, PATIENCE)?;
    if let Ok(Outcome::Refused(why)) = serde_json::from_str(&reply) {
        return Err(Failure::Failed(format!("refused: {why}")));
    }
    let status: Status = serde_json::from_str(&reply)
        .map_err(|error| Failure::Failed(format!("the agent is of another version: {error}")))?;
    if args.flag("json") {
        writeln!(out, "{reply}")?;
    } else {
        show(&status, out)?;
    }
    Ok(Exit::Success)
}

fn ship(ship: &ShipStatus, out: &mut dyn Write) -> Result<(), Failure> {
    if ship.url.is_empty() {
        writeln!(out, "shipping    off: [elasticsearch] url is empty")?;
        return Ok(());
    }
    let ShipStatus { lag, created, duplicates, rejected, retries, .. } = ship;
    let (state, url) = (line(&ship.state), line(&ship.url));
    writeln!(
        out,
        "shipping    {state}, {url}: {lag} to go, {created} created, {duplicates} duplicates, {rejected} rejected, {retries} retries"
    )?;
    if let Some(trouble) = &ship.trouble {
        writeln!(out, "            {}", line(trouble))?;
    }
    if *rejected > 0 {
        writeln!(out, "            what was rejected, and why: onset events --rejected")?;
    }
    Ok(())
}

/// An output beside Elasticsearch, which has its line already.
fn output(output: &OutputStatus, out: &mut dyn Write) -> Result<(), Failure> {
    let OutputStatus { lag, created, rejected, dropped, .. } = output;
    let [name, state, target] = [&output.name, &output.state, &output.target].map(|text| line(text));
    writeln!(
        out,
        "output      {name} {state}, {target}: {lag} to go, {created} created, {rejected} rejected, {dropped} dropped"
    )?;
    if let Some(trouble) = &output.trouble {
        writeln!(out, "            {}", line(trouble))?;
    }
    Ok(())
}

/// What is captured now, and what asked for it.
fn open_captures(captures: &[OpenCaptureStatus], out: &mut dyn Write) -> Result<(), Failure> {
    if captures.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let mut rows = vec![["capture", "of", "container", "for", "trigger", "since", "until"].map(String::from)];
    rows.extend(captures.iter().map(|open| {
        let container = open.container_id.as_deref().map_or("", super::document::short).to_owned();
        let trigger = open.trigger.clone().unwrap_or_else(|| "none yet".into());
        let [kind, scope, tracer, since, until] =
            [&open.kind, &open.scope, &open.tracer, &open.since, &open.until].map(Clone::clone);
        [kind, scope, container, tracer, trigger, since, until]
    }));
    text::table("", &rows, out)?;
    Ok(())
}

pub(super) fn show(status: &Status, out: &mut dyn Write) -> Result<(), Failure> {
    agent(status, out)?;
    ship(&status.ship, out)?;
    for other in status.outputs.iter().filter(|output| output.name != crate::ship::OUTPUT.name) {
        output(other, out)?;
    }
    captures(&status.capture_budget, out)?;
    let longest = milliseconds(status.turns.longest_turn_ms);
    writeln!(out, "loop        {} turns, the longest took {longest}", status.turns.turns)?;
    let faults: Vec<_> = status.faults.iter().map(|(name, n)| format!("{} {n}", line(name))).collect();
    if !faults.is_empty() {
        writeln!(out, "faults      {}", faults.join(", "))?;
    }
    writeln!(out)?;
    tracers(&status.tracers, out)?;
    open_captures(&status.open_captures, out)?;
    for program in &status.programs {
        if let Some(reason) = &program.reason {
            writeln!(out, "{}: {}: {}", line(&program.program), line(&program.state), line(reason))?;
        }
    }
    for tracer in &status.tracers {
        if let Some(reason) = &tracer.reason {
            writeln!(out, "{}: {}", line(&tracer.name), line(reason))?;
        }
    }
    Ok(())
}

fn milliseconds(ms: u64) -> String {
    quantity("ms", &ms.into())
}

/// The agent itself and its log.
fn agent(status: &Status, out: &mut dyn Write) -> Result<(), Failure> {
    let config = status.config.as_deref().unwrap_or("the built-in defaults");
    let up = milliseconds(status.uptime_ms);
    writeln!(out, "onset {}, pid {}, up {up}", line(&status.version), status.pid)?;
    writeln!(out, "started     {}", line(&status.started))?;
    writeln!(out, "config      {}", line(config))?;
    writeln!(out, "endpoint    {}", line(&status.endpoint))?;
    writeln!(out, "containers  {}", status.containers)?;
    for reading in &status.readings {
        let reason = reading.reason.as_ref().map_or(String::new(), |why| format!(": {}", line(why)));
        writeln!(out, "readings    {} by {}{reason}", line(&reading.readings), line(&reading.method))?;
    }
    let (log, dir) = (&status.log, line(&status.log.dir));
    let (kept, dropped) = (text::bytes(log.bytes), log.dropped);
    writeln!(out, "log         {dir}: {} records, {kept}, {dropped} dropped", log.records)?;
    Ok(())
}

fn captures(budget: &BudgetStatus, out: &mut dyn Write) -> Result<(), Failure> {
    let again = budget
        .free_at
        .as_ref()
        .map_or(String::new(), |at| format!("; one was refused, which has room again from {} on", line(at)));
    let [used, whole, window] = [budget.used_ms, budget.whole_ms, budget.window_ms].map(milliseconds);
    writeln!(out, "captures    {used} of {whole} that they may run in {window}{again}")?;
    Ok(())
}

/// A table with a row for each tracer.
fn tracers(tracers: &[TracerStatus], out: &mut dyn Write) -> Result<(), Failure> {
    // The reply may come from another program: no number in it may overflow.
    let captures =
        |tracer: &TracerStatus| tracer.captures.values().fold(0, |sum: u64, n| sum.saturating_add(*n));
    let mut rows =
        vec![["tracer", "state", "events", "captures", "refused", "faults", "last event"].map(String::from)];
    rows.extend(tracers.iter().map(|tracer| {
        let counts = [tracer.events, captures(tracer), tracer.refused, tracer.faults].map(|n| n.to_string());
        let [events, captures, refused, faults] = counts;
        let last = tracer.last_event.as_ref().map_or("none".into(), |last| {
            let subject = last.container_id.as_deref().map_or("host", super::document::short);
            format!("{} {subject} {}", last.time, last.id)
        });
        [tracer.name.clone(), tracer.state.clone(), events, captures, refused, faults, last]
    }));
    Ok(text::table("", &rows, out)?)
}
