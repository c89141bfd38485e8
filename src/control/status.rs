//! The replies of a running agent: what it writes and `onset status` and `trigger` read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What became of a trigger; or of any request, when it is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Its event is in the log, under this id.
    Id(String),
    /// It was refused, and this is why.
    Refused(String),
}

/// The state of the whole agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started, in RFC 3339.
    pub started: String,
    /// For how long it has been running.
    pub uptime_ms: u64,
    /// The config file it read; `None`: the built-in defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Its log.
    pub log: LogStatus,
    /// Its way to the server.
    #[serde(default)]
    pub ship: ShipStatus,
    /// Its outputs, each under its name; Elasticsearch is among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<OutputStatus>,
    /// Its loop.
    #[serde(rename = "loop")]
    pub turns: LoopStatus,
    /// Its tracers, in the order of the docs.
    pub tracers: Vec<TracerStatus>,
    /// What went wrong in the agent itself, by its name in `onset_faults_total`; what never did is left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub faults: BTreeMap<String, u64>,
    /// In which way each group of containers' readings is had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readings: Vec<ReadingStatus>,
    /// Its BPF programs, in the order in which they were loaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<ProgramStatus>,
    /// Captures that are under way.
    #[serde(default)]
    pub captures_open: u64,
    /// Each of them, with what asked for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_captures: Vec<OpenCaptureStatus>,
    /// How much of their time captures have had.
    #[serde(default)]
    pub capture_budget: BudgetStatus,
    /// How many containers it follows.
    pub containers: u64,
    /// Address and port of its HTTP endpoint.
    pub endpoint: String,
}

/// A group of what is read of containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadingStatus {
    /// The group.
    pub readings: String,
    /// `bpf`, `text`, or both with the containers that are read from text.
    pub method: String,
    /// Why they are read from text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The log, as the agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatus {
    /// Its folder.
    pub dir: String,
    /// Records written since the agent started.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records that could not be kept, or went before they were shipped.
    pub dropped: u64,
}

/// The way to Elasticsearch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShipStatus {
    /// The server; empty: none is configured.
    pub url: String,
    /// `off`, `shipping`, `waiting` (it is tried again) or `refused` (someone must change something).
    pub state: String,
    /// What is wrong, if something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Records that are still to be shipped.
    pub lag: u64,
    /// Documents that the server took.
    pub created: u64,
    /// Documents that it had already.
    pub duplicates: u64,
    /// Documents that it will never take.
    pub rejected: u64,
    /// Requests that were sent again.
    pub retries: u64,
}

/// One output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputStatus {
    /// Its name.
    pub name: String,
    /// Where it takes records; empty: it is off.
    pub target: String,
    /// `off`, `shipping`, `waiting` (it is tried again) or `refused` (someone must change something).
    pub state: String,
    /// What is wrong, if something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Records that it has still to read.
    pub lag: u64,
    /// Documents that the other side took.
    pub created: u64,
    /// Documents that it had already.
    pub duplicates: u64,
    /// Documents that it will never take.
    pub rejected: u64,
    /// Requests that were sent again.
    pub retries: u64,
    /// Records that were deleted to keep the log's budget before it had read them.
    pub dropped: u64,
}

/// The time that captures may run ([capture] budget_percent).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetStatus {
    /// What they had of the window.
    pub used_ms: u64,
    /// What they may have.
    pub whole_ms: u64,
    /// The window.
    pub window_ms: u64,
    /// When the capture that was refused last would be granted, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_at: Option<String>,
}

/// The loop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoopStatus {
    /// How often it woke up.
    pub turns: u64,
    /// The longest that it was busy at once.
    pub longest_turn_ms: u64,
}

/// One BPF program. What it measures is unknown where it is refused or absent, and not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramStatus {
    /// Its name.
    pub program: String,
    /// A label of `onset_bpf_program_state`.
    pub state: String,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One tracer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracerStatus {
    /// Its name.
    pub name: String,
    /// `active`, or why not: a label of `onset_tracer_state`.
    pub state: String,
    /// What it lacks where it is not active, and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Looks that it took at the host.
    #[serde(default)]
    pub samples: u64,
    /// Events it made since the agent started.
    pub events: u64,
    /// Its captures by outcome.
    #[serde(default)]
    pub captures: BTreeMap<String, u64>,
    /// Captures that it asked for and did not get.
    pub refused: u64,
    /// What went wrong in it.
    pub faults: u64,
    /// The last event it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event: Option<LastEvent>,
}

/// A capture that is under way, and what asked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenCaptureStatus {
    /// What is captured.
    pub kind: String,
    /// Of what: the host, a container, or a device by its numbers.
    pub scope: String,
    /// The container that is looked at, or that the event will be about; `None`: the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Which tracer asked for it.
    pub tracer: String,
    /// The rule that fired; `None`: the tracer looks closer before it judges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// When that was, in RFC 3339.
    pub since: String,
    /// When it will be over, in RFC 3339.
    pub until: String,
}

/// A capture that an event was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCaptureStatus {
    /// What was captured.
    pub kind: String,
    /// Of what.
    pub scope: String,
    /// How it ended: a label of `onset_captures_total`.
    pub outcome: String,
    /// When it began, in RFC 3339: it may be before the rule fired. `None`: it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<String>,
    /// How long it lasted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasted_ms: Option<u64>,
}

/// An event by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEvent {
    /// Its id, for `onset show`.
    pub id: String,
    /// When it happened, in RFC 3339.
    pub time: String,
    /// The container it was about; `None`: the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// The rule that fired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// The captures that it was made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub captures: Vec<EventCaptureStatus>,
}
