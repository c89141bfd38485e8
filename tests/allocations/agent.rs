//! The loop of the real agent: once it is ready its thread takes nothing from the heap, and frees nothing. The agent
//! runs in a process of its own, where nothing else happens; this one does to it what a host does.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{ChildStdin, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onset::agent::{Agent, TestHarness};
use onset::config::Config;
use onset::tracer::TRACERS;

use crate::cgroup::Cgroup;
use crate::rig::{self, Folder, KillOnDrop, Lines, SOON, await_that, get, root};
use crate::{ALLOCATIONS, FREES, TAKEN_IN_C, TO_SHOW, watch};

/// In the agent's process: which config it is for.
const DRILLED: &str = "ONSET_DRILLED";

/// What a busy machine may take for all of it.
const PATIENCE: Duration = Duration::from_secs(400);

const CONTAINERS: usize = 100;
const TICKS: f64 = 10_000.0;
const RECORDS: f64 = 100_000.0;
const DOCUMENTS: f64 = 1_000.0;
const SCRAPES: usize = 1_000;

const RECORDS_PER_TURN: u32 = 15;

/// Between turns in which one tracer looks, everything falls due at once so often.
const ALL_DUE_EACH: usize = 16;

/// Captures that are asked for: of which tracer, each how many turns, how long, and whether of a
/// container; else of the host.
const ASKED: [(&str, u64, u64, bool); 8] = [
    ("dload", 8, 0, false),
    ("dload", 12, 0, true),
    ("cpusys", 400, 50, false),
    ("cpuidle", 300, 50, true),
    ("memburst", 300, 50, true),
    ("waitrate", 200, 20, true),
    ("iotracing", 400, 50, false),
    ("oom", 50, 0, true),
];

/// An OOM kill as bpf/oom.bpf.c tells it, in a cgroup two levels down.
fn kill() -> Vec<u8> {
    let mut record = [0_u64.to_ne_bytes(); 4].concat();
    record.extend([77_u32.to_ne_bytes(), 78_u32.to_ne_bytes()].concat());
    record.extend(b"victim\0\0\0\0\0\0\0\0\0\0killer\0\0\0\0\0\0\0\0\0\0");
    record.extend(4_500_u64.to_ne_bytes());
    let names = b"inner\0outer\0";
    record.extend([u32::try_from(names.len()).expect("short names"), 0].map(u32::to_ne_bytes).concat());
    record.extend(names);
    record
}

/// The agent's process: turns until its input ends, and says what its loop took.
fn agent(config: &Path) {
    static OVER: AtomicBool = AtomicBool::new(false);
    let ids = std::fs::read_to_string(config.with_file_name("ids")).expect("the containers' ids");
    let ids: Vec<&str> = ids.lines().collect();
    let record = kill();
    let config = Config::load(Some(config), TRACERS).expect("valid");
    let mut harness = TestHarness::new(Agent::start(config, None).expect("ready"));
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        OVER.store(true, Ordering::Relaxed);
    });
    watch();
    let counts = || (ALLOCATIONS.get(), TAKEN_IN_C.get(), FREES.get());
    let before = counts();
    let mut turn = 0_usize;
    while !OVER.load(Ordering::Relaxed) {
        let in_turn = TRACERS.get(turn % TRACERS.len()).map_or("", |spec| spec.name);
        assert!(
            harness.turn(|name| turn.is_multiple_of(ALL_DUE_EACH) || name == in_turn),
            "nobody told it to leave"
        );
        for _ in 0..RECORDS_PER_TURN {
            assert!(harness.record("oom", &record));
        }
        for (tracer, each, ms, container) in ASKED {
            let each = usize::try_from(each).unwrap_or(1);
            if turn.is_multiple_of(each) {
                let of = ids.get(turn / each % ids.len()).copied().filter(|_| container);
                harness.ask(tracer, of, Duration::from_millis(ms));
            }
        }
        turn += 1;
    }
    let after = counts();
    TO_SHOW.set(0);
    harness.leave().expect("a log on the disk");
    let (taken, in_c, freed) = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
    println!(
        "\nthe loop took {taken} times in Rust and {in_c} times in C and freed {freed} times in {turn} turns"
    );
    assert_eq!((taken, in_c, freed), (0, 0, 0));
}

/// An agent's process, seen from outside.
struct TestAgent {
    child: KillOnDrop,
    input: Option<ChildStdin>,
    said: Lines,
    printed: Lines,
    address: SocketAddr,
    _folder: Folder,
}

impl TestAgent {
    fn start(test: &str, cgroups: &[Cgroup], capacity: usize) -> TestAgent {
        let folder = Folder::new();
        let cooldowns: String =
            TRACERS.iter().map(|spec| format!("[tracer.{}]\ncooldown = \"1s\"\n", spec.name)).collect();
        // Nobody listens on port 1.
        let rest = format!(
            "[elasticsearch]\nurl = \"http://127.0.0.1:1\"\n[containers]\ncapacity = {capacity}\n\
             [capture]\nbudget_percent = 100\n{cooldowns}"
        );
        let config = rig::config(&folder, "", &rest);
        folder.file("ids", &cgroups.iter().map(|it| format!("{}\n", it.id)).collect::<String>());
        let mut command = rig::command(std::env::current_exe().expect("this program"));
        command.args(["--exact", test, "--nocapture"]).env(DRILLED, config);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = rig::start(&mut command);
        let said = Lines::of(child.0.stderr.take().expect("a pipe"));
        let printed = Lines::of(child.0.stdout.take().expect("a pipe"));
        let input = child.0.stdin.take();
        let address = said.wait("ready line", SOON, |line| {
            let (_, rest) = line.split_once(" ready: ")?;
            rest.split_once("http://")?.1.split('/').next()?.parse().ok()
        });
        TestAgent { child, input, said, printed, address, _folder: folder }
    }

    fn page(&self) -> String {
        let (status, page) = get(self.address, "/metrics");
        assert_eq!(status, 200);
        page
    }

    /// Has it leave, and shows what it said: its loop must have taken nothing, and freed nothing.
    fn leave(mut self) {
        drop(self.input.take());
        let counts = self
            .printed
            .wait("the counts", SOON, |line| line.starts_with("the loop took ").then(|| line.to_owned()));
        println!("{counts}\n{}", self.said.come().join("\n"));
        let status = self.child.0.wait().expect("a child");
        assert!(status.success(), "{counts}: {status}");
        assert!(
            counts.starts_with("the loop took 0 times in Rust and 0 times in C and freed 0 times "),
            "{counts}"
        );
    }
}

/// The sum of all samples of this family whose labels hold these words.
fn sum(page: &str, family: &str, words: &str) -> f64 {
    let value = |line: &str| {
        let (labels, value) = line.strip_prefix(family)?.rsplit_once(' ')?;
        let ours = (labels.is_empty() || labels.starts_with('{')) && labels.contains(words);
        if ours { value.parse::<f64>().ok() } else { None }
    };
    page.lines().filter_map(value).sum()
}

/// A connection that stays.
struct KeepAliveClient(BufReader<TcpStream>);

impl KeepAliveClient {
    fn get(&mut self, path: &str) -> String {
        write!(self.0.get_mut(), "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a connection");
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("a connection");
            assert!(!line.is_empty(), "it was cut");
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().expect("a number");
            } else if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("all of it");
        String::from_utf8(body).expect("text")
    }
}

#[test]
fn the_real_agents_loop_never_allocates_once_ready() {
    if let Some(config) = std::env::var_os(DRILLED) {
        return agent(Path::new(&config));
    }
    if !root("the real agent's loop") {
        return;
    }
    let cgroups: Vec<Cgroup> = (0..CONTAINERS).map(|_| Cgroup::new("heap")).collect();
    let test = "agent::the_real_agents_loop_never_allocates_once_ready";
    let agent = TestAgent::start(test, &cgroups, 256);
    let mut guests: Vec<Cgroup> = Vec::new();
    let (began, mut scrapes) = (Instant::now(), 0);
    let page = loop {
        let page = agent.page();
        scrapes += 1;
        let ticks = sum(&page, "onset_samples_total", "") >= TICKS;
        let records = sum(&page, "onset_oom_kills_total", "") >= RECORDS;
        // Of records there are documents anyway.
        let events = sum(&page, "onset_events_total", "") - sum(&page, "onset_events_total", "\"oom\"");
        if ticks && records && events >= DOCUMENTS && scrapes >= SCRAPES {
            break page;
        }
        assert!(began.elapsed() < PATIENCE, "{scrapes} scrapes until\n{page}");
        // One comes, one goes, and some stay for a while.
        guests.push(Cgroup::new("guest"));
        if guests.len() > 16 {
            guests.remove(0);
        }
        let others = ["/healthz", "/readyz", "/", "/none"];
        others.get(scrapes % 16).map(|path| get(agent.address, path));
    };
    let count = |family: &str, words: &str| sum(&page, family, words);
    println!("{scrapes} scrapes, {:?}", began.elapsed());
    for (family, words) in [
        ("onset_samples_total", ""),
        ("onset_oom_kills_total", ""),
        ("onset_log_records_total", ""),
        ("onset_log_dropped_records_total", "unshipped"),
        ("onset_loop_turn_seconds_count", ""),
        ("process_cpu_seconds_total", ""),
    ] {
        println!("{family} {words} {}", count(family, words));
    }
    for spec in TRACERS {
        let name = format!("\"{}\"", spec.name);
        println!("{}: {} documents", spec.name, count("onset_events_total", &name));
        assert!(count("onset_events_total", &name) > 0.0, "none of {name}");
        assert_eq!(count("onset_tracer_state", &format!("{name},state=\"active\"")), 1.0);
    }
    assert!(count("onset_containers", "") >= CONTAINERS as f64);
    assert_eq!(count("onset_faults_total", "beyond_capacity"), 0.0);
    assert_eq!(count("onset_captures_total", "\"failed\""), 0.0);
    let ship = ["retries_total", "lag_records", "documents_total"]
        .map(|name| count(&format!("onset_ship_{name}"), ""));
    assert!(ship[0] > 0.0 && ship[1] > DOCUMENTS && ship[2] == 0.0, "an outage: {ship:?}");
    agent.leave();
}

/// How many descriptors a process may have at most.
fn limit(pid: u32, files: u64) {
    let limit = libc::rlimit { rlim_cur: files, rlim_max: 4096 };
    // SAFETY: the new limit is a valid rlimit, and no old one is asked for.
    let done = unsafe {
        libc::prlimit(pid.cast_signed(), libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut())
    };
    assert_eq!(done, 0);
}

#[test]
fn containers_beyond_the_capacity_are_counted_without_allocating() {
    if let Some(config) = std::env::var_os(DRILLED) {
        return agent(Path::new(&config));
    }
    if !root("the real agent beyond its capacity") {
        return;
    }
    let mut cgroups: Vec<Cgroup> = (0..10).map(|_| Cgroup::new("few")).collect();
    let test = "agent::containers_beyond_the_capacity_are_counted_without_allocating";
    let agent = TestAgent::start(test, &cgroups, 64);
    let mut kept = KeepAliveClient(BufReader::new(TcpStream::connect(agent.address).expect("it listens")));
    kept.get("/healthz");
    // What is open stays; nothing more can be opened.
    limit(agent.child.0.id(), 16);
    let before = sum(&kept.get("/metrics"), "onset_faults_total", "file_unreadable");
    cgroups.extend((0..10).map(|_| Cgroup::new("more")));
    await_that("files that cannot be opened", SOON, || {
        let page = kept.get("/metrics");
        let unreadable = sum(&page, "onset_faults_total", "file_unreadable") > before + 10.0;
        let refused = sum(&page, "onset_captures_total", "\"failed\"") > 0.0;
        (unreadable && refused).then_some(())
    });
    limit(agent.child.0.id(), 4096);
    cgroups.extend((0..80).map(|_| Cgroup::new("many")));
    let page = await_that("containers beyond its capacity", SOON, || {
        let page = agent.page();
        (sum(&page, "onset_faults_total", "beyond_capacity") >= 36.0).then_some(page)
    });
    let containers = sum(&page, "onset_containers", "");
    // Of others' containers some may have gone since then.
    assert!((32.0..=64.0).contains(&containers), "{containers}");
    agent.leave();
}
