//! What captures cost while they are armed: nanoseconds a run of each program, beside one that does
//! nothing, and how much slower two threads pass a byte back and forth. Needs root: `make bench`.
#![allow(missing_docs, clippy::cast_precision_loss)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onset::bpf::{Meter, NoopProgram};
use onset::capture::{Captures, Hierarchy};
use onset::capture_data::{CaptureKind, Request, Scope, Ticket};
use onset::config::Config;
use onset::host::{Mode, Reader};
use onset::sys;
use onset::tracer::TRACERS;

/// Rounds with and without, in a random order.
const ROUNDS: usize = 16;

/// Bytes passed back and forth in a round, as `perf bench sched pipe -l` has them.
const LOOPS: u32 = 20_000;

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

fn main() {
    if !sys::is_root() {
        println!("armed: needs root");
        return;
    }
    let config = Config::parse("", TRACERS).expect("the defaults");
    let Ok(reader) = Reader::open(&config.paths, 128) else {
        println!("armed: no cgroups here");
        return;
    };
    let hierarchy = Hierarchy { root: reader.cgroup_id_root(), unified: reader.mode() == Mode::V2 };
    let mut captures = Captures::load(&config.paths, hierarchy, 128, Arc::new(|| ()));
    captures.begin_threads();
    pipes(&mut captures, &reader);
    costs(&mut captures, &reader);
}

/// Begins a capture of the host.
fn arm(captures: &mut Captures, reader: &Reader, ticket: u32, kind: CaptureKind, lasting: Duration) -> bool {
    let request = Request { kind, scope: Scope::Host, lasting };
    captures.begin(Ticket(ticket), request, reader.containers()).is_ok()
}

/// Waits until it is over.
fn over(captures: &mut Captures) {
    while captures.finished().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Keeps this thread, and those that it starts, on the first CPU: what is measured is the switch, and
/// not how an idle CPU is woken.
fn on_one_cpu(work: impl FnOnce()) {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let (mut before, mut one): (libc::cpu_set_t, libc::cpu_set_t) = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: both sets are ours and of this size.
    unsafe {
        libc::sched_getaffinity(0, size, &raw mut before);
        libc::CPU_SET(0, &mut one);
        libc::sched_setaffinity(0, size, &raw const one);
    }
    work();
    // SAFETY: the set is ours and of this size.
    unsafe { libc::sched_setaffinity(0, size, &raw const before) };
}

/// Seconds that two threads take to pass a byte back and forth so often.
fn pass() -> f64 {
    let (mut here, mut there) = (std::io::pipe().expect("a pipe"), std::io::pipe().expect("a pipe"));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut byte = [0];
            for _ in 0..LOOPS {
                here.0.read_exact(&mut byte).expect("a byte");
                there.1.write_all(&byte).expect("a byte");
            }
        });
        let began = Instant::now();
        let mut byte = [0];
        for _ in 0..LOOPS {
            here.1.write_all(&byte).expect("a byte");
            there.0.read_exact(&mut byte).expect("a byte");
        }
        began.elapsed().as_secs_f64()
    })
}

/// The end of the fastest quarter: whoever else is on the machine only ever slows a round down.
fn quarter(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 4).copied().unwrap_or(f64::NAN)
}

/// Seconds that `perf bench sched pipe`'s two processes take to pass a byte back and forth so often.
fn perf() -> Option<f64> {
    let loops = LOOPS.to_string();
    let ran =
        std::process::Command::new("perf").args(["bench", "sched", "pipe", "-l", &loops]).output().ok()?;
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let line = said.lines().find(|line| line.contains("usecs/op"))?;
    let each: f64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(each * f64::from(LOOPS) / 1e6)
}

fn pipes(captures: &mut Captures, reader: &Reader) {
    rounds(captures, reader, "pipe", || Some(pass()));
    if perf().is_none() {
        eprintln!(
            "MISSING: perf bench sched pipe cannot be run; deploy/dependencies tests installs it (linux-perf)"
        );
        return;
    }
    rounds(captures, reader, "perf bench sched pipe", perf);
}

/// Both kinds of rounds in a random order, and the fastest quarter of each.
fn rounds(captures: &mut Captures, reader: &Reader, what: &str, pass: impl Fn() -> Option<f64>) {
    let mut random = u64::from(std::process::id()) | 1;
    let mut order: Vec<bool> = (0..2 * ROUNDS).map(|round| round % 2 == 0).collect();
    for at in (1..order.len()).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        order.swap(at, usize::try_from(random >> 33).unwrap_or(0) % (at + 1));
    }
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for (ticket, armed) in (0..).zip(order) {
        if !armed {
            on_one_cpu(|| without.extend(pass()));
            continue;
        }
        if !arm(captures, reader, ticket, CaptureKind::Waits, Duration::from_secs(1)) {
            println!("armed: waits cannot be captured here");
            return;
        }
        // Armed within a millisecond; it outlasts the round.
        std::thread::sleep(Duration::from_millis(50));
        on_one_cpu(|| with.extend(pass()));
        over(captures);
    }
    let (with, without) = (quarter(with), quarter(without));
    let us = |seconds: f64| seconds * 1e6 / f64::from(LOOPS);
    println!("{what:<21}, there and back   {:8.3} us unarmed", us(without));
    println!("{what:<21}, waits armed      {:8.3} us, {:.3} x", us(with), with / without);
}

/// Switches, page faults and block I/O, until told to stop.
fn work(stop: &AtomicBool, folder: &Path) {
    let file = folder.join("direct");
    let block = 4096;
    while !stop.load(Ordering::Relaxed) {
        pass();
        let mut touched = vec![0_u8; 64 << 20];
        touched.iter_mut().step_by(block).for_each(|byte| *byte = 1);
        std::hint::black_box(&touched);
        let direct = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(libc::O_DIRECT)
            .open(&file);
        // O_DIRECT wants memory that is aligned: a page inside of twice as much.
        let start = touched.as_ptr().align_offset(block);
        if let (Ok(mut direct), Some(page)) = (direct, touched.get(start..start + block)) {
            for _ in 0..200 {
                let _ = direct.write_all(page);
            }
        }
    }
}

fn costs(captures: &mut Captures, reader: &Reader) {
    let before = std::fs::read_to_string(STATS).unwrap_or_default();
    if std::fs::write(STATS, "1").is_err() {
        println!("armed: {STATS} cannot be written");
        return;
    }
    // Not in memory: block I/O is meant.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("armed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    let mut meter = Meter::default();
    let noop = NoopProgram::attach(&mut meter).expect("a program that does nothing");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| work(&stop, &folder));
        for (ticket, kind) in
            (1000..).zip([CaptureKind::Waits, CaptureKind::Stacks, CaptureKind::Faults, CaptureKind::Io])
        {
            if arm(captures, reader, ticket, kind, Duration::from_secs(3)) {
                over(captures);
            } else {
                println!("armed: {} cannot be captured here", kind.name());
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let mut rows = BTreeMap::new();
    let mut note = |name: &str, time: Duration, runs: u64| {
        if runs > 0 {
            rows.insert(name.to_owned(), (time.as_nanos() as f64 / runs as f64, runs));
        }
    };
    meter.read(&mut note);
    captures.run_time(&mut note);
    let least = rows.get("nothing").map_or(f64::NAN, |(ns, _)| *ns);
    for (name, (ns, runs)) in &rows {
        println!("{name:<20} {ns:10.1} ns a run, {:10.1} above nothing, in {runs} runs", ns - least);
    }
    drop(noop);
    let _ = std::fs::write(STATS, before.trim());
    let _ = std::fs::remove_dir_all(&folder);
}
