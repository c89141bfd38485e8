//! The hot paths beside what they are measured against, as one table: `make bench`. Medians of many
//! rounds; ratios can be compared between machines, times cannot.
#![allow(missing_docs, clippy::cast_precision_loss)]

use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use onset::config::Config;
use onset::host::{Facts, Reader, proc};
use onset::log::Writer;
use onset::metric::{Kind, Metric, Scrape};
use onset::page::Page;
use onset::sys;
use onset::tracer::TRACERS;

const ROUNDS: usize = 101;

/// The median time of one call, out of rounds of `calls` each.
fn median(calls: u32, mut call: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..calls {
                call();
            }
            began.elapsed() / calls
        })
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

fn row(what: &str, time: Duration, beside: Option<(&str, Duration)>) {
    let beside = beside.map_or(String::new(), |(name, other)| {
        format!("{:8.2} x {name}", time.as_nanos() as f64 / other.as_nanos().max(1) as f64)
    });
    println!("{what:<44} {:>10.3} us  {beside}", time.as_nanos() as f64 / 1000.0);
}

fn main() {
    // cargo passes --bench; there is nothing else to say.
    let folder = std::env::temp_dir().join(format!("onset-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    log(&folder);
    parsers();
    host();
    page();
    std::fs::remove_dir_all(&folder).expect("the scratch folder goes");
}

fn log(folder: &std::path::Path) {
    let text = format!("[log]\ndir = \"{}\"\nsegment = \"64MiB\"\n", folder.join("log").display());
    let config = Config::parse(&text, TRACERS).expect("a config");
    let (mut writer, _) = Writer::open(&config.log).expect("a log");
    let document = vec![b'x'; 4096];
    let append = median(50, || {
        writer
            .append(|_, to| {
                to.get_mut(..document.len())?.copy_from_slice(&document);
                Some(document.len())
            })
            .expect("an append");
    });
    let mut to = vec![0_u8; 16 << 20];
    let mut at = 0;
    let copy = median(50, || {
        at = (at + document.len()) % (to.len() - document.len());
        to[at..at + document.len()].copy_from_slice(black_box(&document));
    });
    black_box(&to);
    let mut file = std::fs::File::create(folder.join("plain")).expect("a file");
    let write = median(50, || file.write_all(&document).expect("a write"));
    row("log: a document of 4 KiB appended", append, Some(("memcpy to cold memory", copy)));
    row("log: the same", append, Some(("write(2) without a sync", write)));
}

fn parsers() {
    let stat = std::fs::read("/proc/stat").expect("/proc/stat");
    let read = median(50, || {
        black_box(std::fs::read("/proc/stat").expect("/proc/stat"));
    });
    let parse = median(200, || {
        black_box(proc::stat::parse(black_box(&stat)));
    });
    row("/proc/stat parsed", parse, Some(("reading it", read)));
    let meminfo = std::fs::read("/proc/meminfo").expect("/proc/meminfo");
    let parse = median(200, || {
        black_box(proc::meminfo::parse(black_box(&meminfo)));
    });
    row("/proc/meminfo parsed", parse, None);
}

fn host() {
    let config = Config::parse("", TRACERS).expect("the defaults");
    let Ok(mut reader) = Reader::open(&config.paths, 128) else {
        println!("host: no cgroups here to read");
        return;
    };
    let facts = TRACERS.iter().fold(Facts::NONE, |facts, spec| facts.and(spec.facts));
    let count = reader.containers().len();
    let tick = median(5, || reader.read(facts, sys::now()));
    row(&format!("host: all facts read, {count} containers"), tick, None);
}

fn page() {
    const FAMILY: Metric = Metric {
        name: "bench_ratio",
        help: "A family.",
        kind: Kind::Gauge,
        labels: &["container_id", "mode"],
    };
    let ids: Vec<String> = (0..300).map(|number| format!("{number:064x}")).collect();
    let mut page = Page::new(1 << 20);
    let render = median(5, || {
        page.clear();
        let metrics = [FAMILY];
        Scrape::new(&mut page, &metrics).family(&FAMILY, |to| {
            for (number, id) in ids.iter().enumerate() {
                to.sample(&[id.as_str(), "user"], number as f64 / 7.0);
            }
        });
    });
    row("scrape: 300 samples with two labels written", render, None);
}
