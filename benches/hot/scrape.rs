//! A scrape of every family that tracers have, with 100 containers; beside it the `prometheus` crate's
//! encoder with the same families and values, registered once as its users do.

use std::hint::black_box;

use onset::capture_data::{Request, Ticket};
use onset::config::{Config, ConfiguredTracer};
use onset::fixed_buf::FixedBuf;
use onset::host::{Facts, Watched};
use onset::metric::{MetricKind, Mishaps, Scrape};
use onset::tracer::{About, Capacity, CaptureCause, Data, Emitted, Event, Executor, Out, TRACERS, Tracer};
use prometheus::{CounterVec, Encoder as _, GaugeVec, Opts, Registry, TextEncoder};

use crate::Scratch;
use crate::table::{Budget, head, line, ns};
use crate::tree::{OF_CONTAINERS, Tree};

const CONTAINERS: usize = 100;

/// Of the whole page; what the agent adds of its own is one in ten of its lines.
const BUDGET: Budget = Budget::Us(1000.0);

/// Captures are begun and never over; events are kept.
struct DiscardingExecutor(u32);

impl Executor for DiscardingExecutor {
    fn capture(&mut self, _: Request, _: CaptureCause) -> Ticket {
        self.0 += 1;
        Ticket(self.0)
    }

    fn emit(&mut self, _: &About, _: &dyn Data) -> Emitted {
        Emitted::Unwatched
    }

    fn fault(&mut self, _: &'static str) {}
}

/// All tracers, fed with a few samplings of containers that work.
pub struct WarmTracers {
    tree: Tree,
    tracers: Vec<Box<dyn Tracer>>,
    config: Config,
    page: FixedBuf,
}

impl WarmTracers {
    pub fn new(scratch: &Scratch) -> WarmTracers {
        let config = Config::parse("", TRACERS).expect("the defaults");
        let capacity = Capacity { containers: CONTAINERS };
        let mut tracers: Vec<Box<dyn Tracer>> =
            config.tracers.iter().map(|it| (it.spec.build)(&it.settings, capacity)).collect();
        let mut tree = Tree::new(&scratch.0, CONTAINERS);
        let facts = TRACERS
            .iter()
            .fold(OF_CONTAINERS, |facts, spec| facts.and(spec.facts))
            .and(Facts { cpu: true, ..Facts::NONE });
        let mut world = DiscardingExecutor(0);
        for _ in 0..4 {
            tree.works();
            let now = tree.read(facts);
            tree.count_tasks();
            let snapshot = tree.reader.snapshot();
            for tracer in &mut tracers {
                tracer.on(now, Event::Tick(&snapshot), &mut Out::new(&mut world));
            }
        }
        WarmTracers { tree, tracers, config, page: FixedBuf::new(4 << 20) }
    }

    /// One scrape. How long the page is.
    pub fn scrape(&mut self) -> usize {
        let WarmTracers { tree, tracers, config, page } = self;
        page.clear();
        for (tracer, ConfiguredTracer { spec, settings }) in tracers.iter().zip(&config.tracers) {
            let mut scrape = Scrape::new(page, spec.metrics);
            tracer.scrape(Watched::new(tree.reader.containers(), settings.filter()), &mut scrape);
            assert_eq!(scrape.mishaps(), Mishaps::default());
        }
        page.len()
    }
}

pub fn lines(scratch: &Scratch) {
    let mut fed = WarmTracers::new(scratch);
    let bytes = fed.scrape();
    let text = String::from_utf8_lossy(&fed.page).into_owned();
    let families = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
    let samples = text.lines().filter(|line| !line.starts_with('#')).count();
    let declared: usize = TRACERS.iter().map(|spec| spec.metrics.len()).sum();
    head("a scrape, the tracers' families, 100 containers");
    println!("{families} of {declared} families have samples: {samples}, {bytes} bytes");
    let ours = ns(|| _ = black_box(fed.scrape()));
    let registry = registered(&text);
    let mut page = Vec::new();
    let mut encode = || {
        page.clear();
        TextEncoder::new().encode(&registry.gather(), &mut page).expect("memory");
        page.len()
    };
    assert_eq!(encode_samples(&mut encode, &registry), samples, "the same samples");
    let theirs = ns(|| _ = black_box(encode()));
    line("rendered", ours, Some(("prometheus crate", theirs)), BUDGET);
    line(
        "a sample",
        ours / samples as f64,
        Some(("prometheus crate", theirs / samples as f64)),
        Budget::None,
    );
}

/// How many samples its page has.
fn encode_samples(encode: &mut impl FnMut() -> usize, registry: &Registry) -> usize {
    assert!(encode() > 0);
    registry.gather().iter().map(|family| family.get_metric().len()).sum()
}

/// The labels' values and the value of a sample; no label here has an escape in it.
fn sample(line: &str) -> Option<(Vec<&str>, f64)> {
    let (name, value) = line.rsplit_once(' ')?;
    let labels = name.split_once('{').map_or("", |(_, labels)| labels);
    Some((labels.split('"').skip(1).step_by(2).collect(), value.parse().ok()?))
}

/// What is on our page, as a program with the crate would have it.
fn registered(text: &str) -> Registry {
    let registry = Registry::new();
    for metric in TRACERS.iter().flat_map(|spec| spec.metrics) {
        let mine =
            |line: &&str| line.strip_prefix(metric.name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let samples = text.lines().filter(mine).filter_map(sample);
        let options = Opts::new(metric.name, metric.help);
        if metric.kind == MetricKind::Counter {
            let all = CounterVec::new(options, metric.labels).expect("a family");
            samples.for_each(|(labels, value)| all.with_label_values(&labels).inc_by(value));
            registry.register(Box::new(all)).expect("once");
        } else {
            let all = GaugeVec::new(options, metric.labels).expect("a family");
            samples.for_each(|(labels, value)| all.with_label_values(&labels).set(value));
            registry.register(Box::new(all)).expect("once");
        }
    }
    registry
}
