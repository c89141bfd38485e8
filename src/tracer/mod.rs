//! Tracers: pure machines that turn events into requests. A tracer sees no fd, clock or file;
//! the loop feeds it and carries out what it asks for. `TRACERS` is the registry of the program's own, and `TEMPLATES`
//! make others of what the config says.

use std::time::Duration;

use crate::capture_data::{Capture, CaptureKind, Refusal, Ticket};
use crate::host::{Containers, Facts, Filter, Key, Snapshot, Watched};
use crate::knob::{Check, Knob, Value, Values};
use crate::metric::{Metric, Scrape};

mod blocked;
mod cpuidle;
mod cpusys;
mod detector;
mod disk_io;
mod disk_rates;
mod dload;
pub mod document;
mod fields;
mod flame;
#[doc(hidden)]
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod history;
mod hook;
mod iotracing;
mod known;
mod mapping;
mod memburst;
mod oom;
mod out;
mod pending;
mod percents;
#[doc(hidden)]
#[cfg(any(test, feature = "fuzz"))]
pub mod play;
mod profile;
mod subjects;
mod template;
mod trigger;
mod waiting;
mod waitrate;
mod windowed_min;

pub use hook::{HookKnob, HookSpec, KnobSource};
pub use known::KnownIssue;
pub use mapping::{Conflict, mapping};
pub use out::{About, CaptureCause, Data, Emitted, Executor, Out, Shrink, TICKETS_MAX, Tickets};
pub use pending::PENDING_MAX;
pub use template::{Description, MetricDescription, NAME, TracerTemplate};
pub use trigger::Trigger;

use crate::clock::Now;

/// Every tracer there is: adding one is its file, its BPF file if it has a hook, and a line here. A static, for a spec is
/// known by its address.
pub static TRACERS: &[&Spec] = &[
    &cpuidle::SPEC,
    &cpusys::SPEC,
    &dload::SPEC,
    &waitrate::SPEC,
    &memburst::SPEC,
    &iotracing::SPEC,
    &oom::SPEC,
];

/// What makes tracers of what the config says.
pub static TEMPLATES: &[&TracerTemplate] = &[];

/// All tracers that there may be.
pub static REGISTRY: Registry<'static> = Registry { tracers: TRACERS, templates: TEMPLATES };

/// Tracers that there may be at once: each has a timer, counters and lines on each page.
pub const TRACERS_MAX: usize = 64;

/// The tracers that a program has, and what makes others of its config.
#[derive(Clone, Copy, Debug)]
pub struct Registry<'a> {
    /// Its own.
    pub tracers: &'a [&'static Spec],
    /// What makes others.
    pub templates: &'a [&'static TracerTemplate],
}

impl<'a> Registry<'a> {
    /// What documents may be of: its own tracers, and what all tracers of each template are.
    pub fn kinds(self) -> impl Iterator<Item = &'static Spec> + 'a {
        self.tracers.iter().copied().chain(self.templates.iter().map(|template| &template.base))
    }
}

/// Without templates.
impl<'a> From<&'a [&'static Spec]> for Registry<'a> {
    fn from(tracers: &'a [&'static Spec]) -> Registry<'a> {
        Registry { tracers, templates: &[] }
    }
}

/// Without templates.
impl<'a, const N: usize> From<&'a [&'static Spec; N]> for Registry<'a> {
    fn from(tracers: &'a [&'static Spec; N]) -> Registry<'a> {
        Registry::from(&tracers[..])
    }
}

/// Turns events into requests. Must not block, read a clock, or touch the OS.
pub trait Tracer {
    /// Takes one event in. Cannot fail: what is wrong is counted by `out.fault`.
    fn on(&mut self, now: Now, event: Event<'_>, out: &mut Out<'_>);
    /// Judges by other settings from now on, and remembers all that it did: cooldowns, baselines, histories
    /// and the captures that it waits for. May take memory, as `Spec::build` may.
    fn reconfigure(&mut self, settings: &Settings);
    /// Shows its live state, of the containers that it watches: exactly the families that its spec declares.
    fn scrape(&self, containers: Watched<'_>, scrape: &mut Scrape<'_>);
}

/// The error for a tracer `name` that is not among `specs`.
pub fn no_tracer<'a>(name: &str, specs: impl IntoIterator<Item = &'a Spec>) -> String {
    let names: Vec<_> = specs.into_iter().map(|spec| spec.name).collect();
    format!("there is no tracer {name}; there are {}", names.join(", "))
}

/// What can happen to a tracer.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The host facts named in its spec, at its interval, or early when its pressure rose.
    Tick(&'a Snapshot<'a>),
    /// One record of its own BPF ring.
    Record(&'a [u8]),
    /// Records that its ring could not hold.
    Lost(u64),
    /// Someone asks for a capture now, past thresholds and cooldown; of the host where no
    /// container is named.
    Asked(Option<Key>, Duration),
    /// A capture that it asked for is over. The answer to its ticket.
    Captured(Ticket, &'a Capture<'a>, &'a Containers),
    /// ... or could not start, or broke. The answer to its ticket.
    Refused(Ticket, Refusal),
}

/// What a tracer is and needs: all that is said about it anywhere is rendered from here.
#[derive(Debug)]
pub struct Spec {
    /// Its name in config, documents and metrics.
    pub name: &'static str,
    /// What it is for: one sentence.
    pub about: &'static str,
    /// What it reads at each tick.
    pub facts: Facts,
    /// The captures it may ask for. Without them it is unsupported here.
    pub captures: &'static [CaptureKind],
    /// Whether someone may ask it about one container: a tracer of the host alone takes none.
    pub containers: bool,
    /// The BPF program whose records it is fed with, right after a tick of the same turn.
    pub hook: Option<HookSpec>,
    /// Pressure that calls for a tick before its time.
    pub pressure: Option<Pressure>,
    /// Default interval.
    pub every: Duration,
    /// Its own config keys.
    pub knobs: &'static [Knob],
    /// The metrics it scrapes.
    pub metrics: &'static [Metric],
    /// The fields of its `tracer_data`.
    pub fields: &'static [Field],
    /// Makes one.
    pub build: fn(&Settings, Capacity) -> Box<dyn Tracer>,
}

/// How large the host may be: what a tracer sets memory aside for.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Slots of the table of containers: no key's slot is at or above it.
    pub containers: usize,
}

/// A PSI trigger (Documentation/accounting/psi.rst): `some` stall of `stall` in each `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// `cpu`, `io` or `memory`.
    pub resource: &'static str,
    /// Time stalled.
    pub stall: Duration,
    /// Within this time; without CAP_SYS_RESOURCE the kernel takes only multiples of 2 s.
    pub window: Duration,
}

/// A field of `tracer_data`.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name; a nested field's with dots.
    pub name: &'static str,
    /// Its type in an index.
    pub kind: FieldKind,
    /// What it says, with its unit.
    pub about: &'static str,
}

/// Types of document fields, as an index maps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// A time in RFC 3339.
    Date,
    /// Matched whole.
    Keyword,
    /// Searched by words.
    Text,
    /// A whole number.
    Long,
    /// A number.
    Double,
    /// Yes or no.
    Boolean,
    /// Kept, not searched.
    Opaque,
}

impl Spec {
    /// The keys that every tracer has, with this one's defaults.
    #[must_use]
    pub const fn common_knobs(&self) -> [Knob; 7] {
        const HOUR: Duration = Duration::from_secs(3600);
        let every = Value::Time(self.every, Duration::from_millis(100), HOUR);
        let cooldown =
            Value::Time(Duration::from_secs(1800), Duration::ZERO, Duration::from_secs(7 * 86_400));
        let capture =
            Value::Time(Duration::from_secs(10), Duration::from_millis(100), Duration::from_secs(60));
        [
            Knob { key: "enabled", default: Value::Flag(true), about: "Whether it runs" },
            Knob { key: "every", default: every, about: "Sampling interval" },
            Knob {
                key: "cooldown",
                default: cooldown,
                about: "After an event, per container, device or host",
            },
            Knob { key: "capture", default: capture, about: "How long a capture lasts" },
            Knob {
                key: "sustained_samples",
                default: Value::Count(6, 0, 100_000),
                about: "Samples in a row that are high until the `sustained` rule fires; 0: never",
            },
            Knob {
                key: "include",
                default: Value::Texts(&[], Check::Pattern),
                about: "Containers that it watches, as [\"namespace:shop\", \"container:web-*\"]; empty: all",
            },
            Knob {
                key: "exclude",
                default: Value::Texts(&[], Check::Pattern),
                about: "... but for these; of namespace, container, pod, qos, type, runtime and id",
            },
        ]
    }
}

/// One tracer's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    values: Values,
    known_issues: Vec<KnownIssue>,
    filter: Filter,
}

impl Settings {
    /// From a table's values.
    #[must_use]
    pub fn new(values: Values, known_issues: Vec<KnownIssue>) -> Settings {
        let filter = Filter::new(values.texts("include"), values.texts("exclude"));
        Settings { values, known_issues, filter }
    }

    /// Its keys' values.
    #[must_use]
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Whether it is to run.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.values.flag("enabled")
    }

    /// Its sampling interval.
    #[must_use]
    pub fn every(&self) -> Duration {
        self.values.time("every")
    }

    /// How long a capture lasts.
    #[must_use]
    pub fn capture(&self) -> Duration {
        self.values.time("capture")
    }

    /// Which containers it watches.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// What is known to go wrong.
    #[must_use]
    pub fn known_issues(&self) -> &[KnownIssue] {
        &self.known_issues
    }

    fn rule(&self) -> trigger::Rule {
        let sustained = u32::try_from(self.values.count("sustained_samples")).unwrap_or(u32::MAX);
        trigger::Rule { cooldown: self.values.time("cooldown"), sustained }
    }
}

/// The tracers that docs/how-to-add-a-tracer.md makes: they are compiled and played to like the others.
#[cfg(test)]
#[path = "../../docs/example/iowait.rs"]
mod iowait;
#[cfg(test)]
#[path = "../../docs/example/reclaim.rs"]
mod reclaim;
#[cfg(test)]
pub(crate) use reclaim::SPEC as RECLAIM;
#[cfg(test)]
pub(crate) mod tests;
