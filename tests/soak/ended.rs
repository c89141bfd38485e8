//! What must hold when it is over.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::COOLDOWN;
use crate::index::Index;
use crate::rig::{Agent, SOON, await_that, done, number, text};
use crate::workloads::{Work, device};

/// What would grow if something leaked.
#[derive(Clone, Copy, Debug)]
pub struct ResourceUse {
    files: usize,
    anonymous_kib: u64,
    resident_kib: u64,
    threads: usize,
}

impl ResourceUse {
    /// Of an agent that has nothing open: captures and what looks for names are waited for.
    pub fn of(agent: &Agent) -> ResourceUse {
        idle(agent);
        let proc = format!("/proc/{}", agent.pid());
        let memory = fs::read_to_string(format!("{proc}/smaps_rollup")).unwrap();
        let kib = |name: &str| -> u64 {
            let line = memory.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let count = |folder: &str| fs::read_dir(format!("{proc}/{folder}")).unwrap().count();
        ResourceUse {
            files: count("fd"),
            anonymous_kib: kib("Anonymous:"),
            resident_kib: kib("Rss:"),
            threads: count("task"),
        }
    }

    /// The bounds do not depend on how long it went on: what leaks a little each round passes them.
    pub fn is_no_more_than(&self, before: &ResourceUse) {
        // A connection to the server, and a thread that is about to end.
        assert!(self.files <= before.files + 16, "files: {before:?}, then {self:?}");
        assert!(self.threads <= before.threads + 2, "threads: {before:?}, then {self:?}");
        // What allocators keep of a capture; each thread's own, so it differs.
        assert!(self.anonymous_kib <= before.anonymous_kib + 3072, "memory: {before:?}, then {self:?}");
        // The log's two segments of 4 MiB are mapped, and resident as far as they are written.
        assert!(self.resident_kib <= before.resident_kib + 3072 + 8192, "memory: {before:?}, then {self:?}");
    }
}

/// Waits until no capture is open, and no thread names things for one.
fn idle(agent: &Agent) {
    await_that("captures to end", SOON * 3, || {
        let status: Value = serde_json::from_str(&done(&mut agent.onset(&["status", "--json"]))).unwrap();
        (status["captures_open"] == 0).then_some(())
    });
}

/// The samples of a family: what is before the value, and the value.
fn family(page: &str, name: &str) -> Vec<(String, f64)> {
    let mine =
        page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let sample = |line: &str| {
        let (what, value) = line.rsplit_once(' ')?;
        Some((what.to_owned(), value.parse().ok()?))
    };
    mine.filter_map(sample).collect()
}

/// Each record of the log is at the server, once, or counted; nothing else went wrong than the
/// reloads that were refused. How many records there are.
pub fn shipped(agent: &Agent, index: &Index, refused: u64) -> usize {
    idle(agent);
    let all: fn(&str) -> Option<String> = |page| {
        let lag = family(page, "onset_ship_lag_records");
        (lag.first()?.1 == 0.0).then(|| page.to_owned())
    };
    let page = await_that("all to be shipped", SOON * 3, || {
        std::thread::sleep(Duration::from_millis(100));
        all(&agent.get("/metrics").1)
    });
    let value = |name: &str| family(&page, name).first().unwrap_or_else(|| panic!("no {name}")).1;
    let outcome = |name: &str| value(&format!("onset_ship_documents_total{{outcome=\"{name}\"}}"));
    let dropped = value("onset_log_dropped_records_total{reason=\"unshipped\"}");
    let records = value("onset_log_records_total");
    assert_eq!(outcome("rejected"), 0.0);
    assert_eq!(outcome("created") + outcome("duplicate") + dropped, records, "each has one outcome");
    assert_eq!(dropped, 0.0, "the log is large enough for every outage");
    let taken = index.taken();
    assert_eq!(taken.len() as f64, records, "each is at the server once");
    for event in agent.events() {
        assert!(taken.contains(text(&event, "/tracer_id")), "{event:#}");
    }
    assert!(value("onset_ship_retries_total") > 0.0, "the outages were met");
    // The maps of `io` are bounded, and what else this host writes to the disk below the loop device
    // meanwhile fills them too: then a document has to say so. Of all else nothing may be lost.
    let said = |event: &Value| number(event, "/tracer_data/lost_samples") > 0.0;
    for (source, lost) in family(&page, "onset_lost_records_total") {
        let told = source.contains("\"io\"")
            && agent.events().iter().any(|event| text(event, "/tracer_name") == "iotracing" && said(event));
        assert!(lost == 0.0 || told, "{lost} of {source}, and no document says so");
    }
    let faults: BTreeMap<String, f64> =
        family(&page, "onset_faults_total").into_iter().filter(|(_, count)| *count > 0.0).collect();
    let expected = "onset_faults_total{tracer=\"onset\",fault=\"reload_refused\"}".to_owned();
    assert_eq!(faults, BTreeMap::from([(expected, refused as f64)]));
    records as usize
}

/// The loop's longest turn since start.
pub fn longest_turn(agent: &Agent) -> Duration {
    Duration::from_secs_f64(agent.metric("onset_loop_longest_turn_seconds").unwrap())
}

/// Events are of what happened: no calm container, one for each kill, and no more than the cooldown
/// lets through, however often the config is reloaded.
pub fn explained(agent: &Agent, work: &Work, lasted: Duration) {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let events = agent.events();
    for event in &events {
        let tracer = text(event, "/tracer_name");
        let container = event["container_id"].as_str();
        if let Some(id) = container {
            assert!(work.busy.contains(id), "nothing happened there: {event:#}");
        }
        let subject = container.or_else(|| device(event)).unwrap_or("host");
        *counts.entry((tracer.to_owned(), subject.to_owned())).or_default() += 1;
    }
    let most = (lasted.as_secs() / COOLDOWN.as_secs() + 1) as usize;
    for ((tracer, subject), count) in &counts {
        assert!(*count <= most, "{count} events of {tracer} about {subject} in {lasted:?}");
    }
    let of = |name: &str| events.iter().filter(|event| event["tracer_name"] == name).count();
    // A kill elsewhere on this machine is told too, but of no container of ours.
    let ours = |event: &&Value| event["tracer_name"] == "oom" && event.get("container_id").is_some();
    assert_eq!(events.iter().filter(ours).count(), work.kills, "one for each kill");
    let by_tracer: BTreeMap<&str, usize> =
        onset::tracer::TRACERS.iter().map(|spec| (spec.name, of(spec.name))).collect();
    println!("events: {by_tracer:?}");
    assert!(by_tracer.values().all(|count| *count > 0), "each tracer told something: {by_tracer:?}");
}
