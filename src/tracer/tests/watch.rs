//! A rule of a user's over one reading: each `[[watch]]` of a config makes a tracer, whose name, facts, capture and metric
//! nobody knew before.

use std::io;

use serde::Serialize;

use super::*;
use crate::config::{Config, ConfiguredTracer};
use crate::host::{Facts, Key, Load, Snapshot, Watched};
use crate::knob::{Knob, Value};
use crate::metric::{MetricKind, Scrape};
use crate::tracer::detector::{Completed, Detector, DetectorTracer, EventSink, Sampler};
use crate::tracer::fields::{COMMON, EventHead, Truncated, all, field};
use crate::tracer::play::Host;
use crate::tracer::trigger::TriggerState;
use crate::tracer::{
    Capacity, Data, Description, Field, FieldKind, MetricDescription, Registry, Settings, Shrink, Spec,
    TRACERS, Tracer, TracerTemplate,
};

/// What `[[watch]]` makes.
pub(crate) static TEMPLATE: TracerTemplate = TracerTemplate {
    section: "watch",
    base: Spec {
        name: "watch",
        about: "A rule over one reading",
        facts: Facts::NONE,
        captures: &[CaptureKind::Tasks, CaptureKind::Memory],
        containers: false,
        hook: None,
        pressure: None,
        every: Duration::from_secs(1),
        knobs: &[
            Knob { key: "reading", default: Value::Text(""), about: "What is read" },
            Knob { key: "above", default: Value::Number(0.0), about: "It is high past this" },
            Knob { key: "evidence", default: Value::Text("memory"), about: "The capture: memory, tasks" },
            Knob { key: "metric", default: Value::Text(""), about: "Its metric; empty: named like itself" },
        ],
        metrics: &[],
        fields: &FIELDS,
        build,
    },
    describe,
};

const FIELDS: [Field; COMMON.len() + 4] = all(&[
    &COMMON,
    &[
        field("reading", FieldKind::Keyword, "What was read"),
        field("value", FieldKind::Double, "Its value, in its own unit"),
        field("above", FieldKind::Double, "What it is past"),
        field("found", FieldKind::Long, "Tasks or processes that the capture brought"),
    ],
]);

type Read = fn(&Snapshot<'_>) -> Option<f64>;

/// What can be read, and from which facts.
const READINGS: [(&str, Facts, Read); 2] = [
    ("host_load", Facts { load: true, ..Facts::NONE }, |snapshot| Some(snapshot.load?.one)),
    ("host_memory_used_percent", Facts { memory: true, ..Facts::NONE }, |snapshot| {
        let memory = snapshot.memory?;
        #[allow(clippy::cast_precision_loss)] // a share of some GiB
        let share = |part: u64| 100.0 * part as f64 / memory.total_bytes as f64;
        Some(share(memory.total_bytes.saturating_sub(memory.available_bytes)))
    }),
];

fn evidence(settings: &Settings) -> Result<CaptureKind, String> {
    let name = settings.values().text("evidence");
    let mut kinds = TEMPLATE.base.captures.iter().copied();
    kinds.find(|kind| kind.name() == name).ok_or_else(|| format!("evidence: there is no {name}"))
}

fn describe(settings: &Settings) -> Result<Description, String> {
    let values = settings.values();
    let reading = values.text("reading");
    let found = READINGS.iter().find(|(name, ..)| *name == reading);
    let (_, facts, _) = found.ok_or_else(|| format!("reading: there is no \"{reading}\""))?;
    let metric = if values.text("metric").is_empty() { values.text("name") } else { values.text("metric") };
    Ok(Description {
        about: format!("{reading} past its limit"),
        facts: *facts,
        captures: vec![evidence(settings)?],
        metrics: vec![MetricDescription {
            name: format!("onset_watch_{metric}"),
            help: format!("What {reading} reads."),
            kind: MetricKind::Gauge,
            labels: &[],
        }],
    })
}

struct Watch {
    reading: Box<str>,
    read: Option<Read>,
    above: f64,
    evidence: CaptureKind,
    trigger_state: TriggerState,
    value: Option<f64>,
}

fn build(settings: &Settings, _: Capacity) -> Box<dyn Tracer> {
    let mut watch = Watch {
        reading: "".into(),
        read: None,
        above: 0.0,
        evidence: CaptureKind::Memory,
        trigger_state: TriggerState::default(),
        value: None,
    };
    watch.reconfigure(settings);
    Box::new(DetectorTracer::new(watch, settings))
}

impl Detector for Watch {
    type Readings = Option<f64>;
    const CAPTURE: CaptureKind = CaptureKind::Memory;

    fn capture(&self) -> CaptureKind {
        self.evidence
    }

    fn reconfigure(&mut self, settings: &Settings) {
        let values = settings.values();
        self.reading = values.text("reading").into();
        self.read = READINGS.iter().find(|(name, ..)| *name == &*self.reading).map(|(_, _, read)| *read);
        self.above = values.number("above");
        self.evidence = evidence(settings).unwrap_or(Self::CAPTURE);
    }

    fn tick(&mut self, _: Now, snapshot: &Snapshot<'_>, sampler: &mut Sampler<'_, '_, Option<f64>>) {
        let before = self.value;
        self.value = self.read.and_then(|read| read(snapshot));
        let Some(value) = self.value else { return };
        let high = value > self.above;
        let edge = (high && before.is_some_and(|before| before <= self.above)).then_some(Trigger::Surge);
        sampler.sample(&mut self.trigger_state, None, edge, high, Some(value));
    }

    fn readings(&self, _: Option<Key>) -> Option<f64> {
        self.value
    }

    fn trigger_state(&mut self, _: Option<Key>, _: &Option<f64>) -> Option<&mut TriggerState> {
        Some(&mut self.trigger_state)
    }

    fn build_event(&self, completed: &Completed<'_, Option<f64>>, sink: &mut EventSink<'_, '_>) -> bool {
        let found = match &completed.capture.data {
            CaptureData::Memory(residents) => residents.len(),
            CaptureData::Tasks(tasks) => tasks.len(),
            _ => return sink.foreign(),
        };
        let head = EventHead::new(completed.pending, completed.capture);
        let value = completed.pending.readings;
        sink.emit(&WatchEvent { head, reading: &self.reading, value, above: self.above, found })
    }

    fn scrape(&self, _: Watched<'_>, scrape: &mut Scrape<'_>) {
        scrape.nth(0, |family| self.value.into_iter().for_each(|value| family.value(value)));
    }
}

#[derive(Serialize)]
struct WatchEvent<'a> {
    #[serde(flatten)]
    head: EventHead,
    reading: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    above: f64,
    found: usize,
}

#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    event: &'a WatchEvent<'a>,
    #[serde(flatten)]
    truncated: Truncated,
}

impl Data for WatchEvent<'_> {
    fn write(&self, shrink: Shrink, to: &mut dyn io::Write) -> serde_json::Result<()> {
        serde_json::to_writer(
            to,
            &Whole { event: self, truncated: Truncated::of(shrink, CaptureKind::Memory) },
        )
    }
}

/// What a program has that has this template beside its own tracers.
pub(crate) static REGISTRY: Registry<'static> = Registry { tracers: TRACERS, templates: &[&TEMPLATE] };

/// What a config makes, beside the program's own tracers.
fn made(text: &str) -> Vec<ConfiguredTracer> {
    let config = Config::parse(text, REGISTRY).unwrap_or_else(|error| panic!("{error}"));
    config.tracers.into_iter().skip(TRACERS.len()).collect()
}

const TWO: &str = "[[watch]]\nname = \"busy\"\nreading = \"host_load\"\nabove = 5\nsustained_samples = 2\n\
                   [[watch]]\nname = \"full\"\nreading = \"host_memory_used_percent\"\nabove = 90\n\
                   evidence = \"tasks\"\n";

#[test]
fn two_tracers_that_a_config_makes_have_names_facts_captures_and_metrics_of_their_own() {
    let [busy, full] = made(TWO).try_into().expect("two");
    assert_eq!([busy.spec.name, full.spec.name], ["busy", "full"]);
    assert_eq!(busy.spec.about, "host_load past its limit");
    assert!(busy.spec.facts.load && !busy.spec.facts.memory && full.spec.facts.memory);
    assert_eq!([busy.spec.captures, full.spec.captures], [[CaptureKind::Memory], [CaptureKind::Tasks]]);
    let again = made(TWO);
    assert!(std::ptr::eq(again[0].spec, busy.spec) && again[0] == busy, "it is made once");
    let mut play = Play::configured(busy, SIZE);
    for one in [1.0, 6.0] {
        play.pass(TEN);
        play.tick(&Host { load: Some(Load { one, ..Load::default() }), ..Host::default() }, &[]);
    }
    assert_eq!(
        play.scrape(),
        "# HELP onset_watch_busy What host_load reads.\n# TYPE onset_watch_busy gauge\nonset_watch_busy 6\n"
    );
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)]);
    let document = &play.seen.events[0].1;
    assert_eq!((&document["tracer_name"], &document["tracer_type"]), (&"busy".into(), &"autotracing".into()));
    let data = &document["tracer_data"];
    assert_eq!((&data["reading"], &data["value"]), (&"host_load".into(), &6.0.into()));
    assert_eq!((&data["above"], &data["found"]), (&5.0.into(), &2.into()));
}

#[test]
fn what_is_wrong_with_a_tracer_of_the_config_is_named_by_its_table_and_key() {
    let one = |name: &str| format!("[[watch]]\nname = \"{name}\"\nreading = \"host_load\"\n");
    let many = |count: usize| (0..count).map(|number| one(&format!("w{number}"))).collect::<String>();
    for (text, says) in [
        ("watch = 5".to_owned(), "watch: must be a list ([[watch]]), not integer"),
        ("watch = [5]".to_owned(), "watch[0]: must be a table, not integer"),
        ("[[watch]]\nreading = \"host_load\"".to_owned(), "watch[0].name: must be a to z"),
        (one("Busy"), "watch[0].name: must be a to z"),
        (one("9th"), "watch[0].name: must be a to z"),
        (one("onset"), "watch[0].name: onset is the agent itself"),
        (one("dload"), "watch[0].name: there is a tracer dload already"),
        (one("a") + &one("a"), "watch[1].name: there is a tracer a already"),
        (
            one("a") + &one("b") + "metric = \"a\"",
            "watch[1].name: it would make the metric onset_watch_a for a",
        ),
        (one("a") + "metric = \"a-b\"", "watch[0].name: it makes a metric onset_watch_a-b"),
        ("[[watch]]\nname = \"a\"\nreading = \"moon\"".to_owned(), "watch[0].reading: there is no \"moon\""),
        (one("a") + "evidence = \"io\"", "watch[0].evidence: there is no io"),
        (one("a") + "abve = 1", "watch[0].abve: unknown key; here are name, enabled, every"),
        (one("a") + "every = \"x\"", "watch[0].every: must be a duration"),
        ("[tracer.a]\n".to_owned() + &one("a"), "tracer.a: there is no such tracer"),
        (many(64), "watch[57].name: there may be 64 tracers in all"),
        ("wach = 1".to_owned(), "wach: unknown key; here are hostname"),
    ] {
        let error = Config::parse(&text, REGISTRY).expect_err("wrong").to_string();
        assert!(error.lines().any(|line| line.starts_with(says)), "{says:?} is not in\n{error}");
    }
    let refused = Config::parse(TWO, TRACERS).expect_err("there is no such template").to_string();
    assert!(refused.starts_with("watch: unknown key"), "{refused}");
}

#[test]
fn the_printed_config_shows_how_to_make_a_tracer_and_makes_none() {
    let text = Config::default_text(REGISTRY);
    assert_eq!(made(&text), []);
    let example = text.split("# A rule over one reading\n").nth(1).expect("it is there");
    let example: String =
        example.lines().map(|line| line.trim_start_matches("# ").to_owned() + "\n").collect();
    assert!(example.starts_with("[[watch]]\nname = \"\""), "{example}");
    let example =
        example.replace("name = \"\"", "name = \"a\"").replace("reading = \"\"", "reading = \"host_load\"");
    assert_eq!(made(&example).len(), 1);
}

#[test]
fn a_made_tracer_whose_rule_changes_goes_on_with_what_it_remembers() {
    let mut play = Play::configured(made(TWO).swap_remove(0), SIZE);
    let tick = |play: &mut Play, one: f64| {
        play.pass(TEN);
        play.tick(&Host { load: Some(Load { one, ..Load::default() }), ..Host::default() }, &[]);
    };
    tick(&mut play, 6.0);
    let changed = made(&TWO.replacen("above = 5\n", "above = 7\n", 1));
    assert!(std::ptr::eq(changed[0].spec, play.spec), "a threshold is no other tracer");
    play.reconfigure(&changed[0].settings);
    tick(&mut play, 6.5);
    assert!(play.seen.asked.is_empty(), "it is not high any more");
    tick(&mut play, 7.5);
    assert_eq!(answer_all(&mut play), [Some(Trigger::Surge)], "it remembers that it was below");
}
