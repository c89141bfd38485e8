//! Captures of real spinners, sleepers and stuck writers on this kernel, which takes root.

#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::bpf::tests::{alone, root};
use crate::capture_data::{Capture, CaptureData};
use crate::config;
use crate::host::TaskCounts;
use crate::sys;

mod faults;
mod images;
mod io;
mod names;
mod stacks;
mod table;
mod tasks;
mod waits;

/// What any waiting here is cut off at.
const PATIENCE: Duration = Duration::from_secs(30);

const V1: &str = "/sys/fs/cgroup/cpu";
const V2: &str = "/sys/fs/cgroup/unified";

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A cgroup with processes in it; all of it goes away with the test.
struct Cgroup {
    path: PathBuf,
    children: Vec<Child>,
}

impl Cgroup {
    fn new(hierarchy: &str, name: &str) -> Cgroup {
        let path = Path::new(hierarchy).join(format!("onset-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a cgroup");
        Cgroup { path, children: Vec::new() }
    }

    fn below(&self, name: &str) -> Cgroup {
        let path = self.path.join(name);
        fs::create_dir(&path).expect("a cgroup");
        Cgroup { path, children: Vec::new() }
    }

    fn id(&self) -> u64 {
        fs::metadata(&self.path).expect("a cgroup").ino()
    }

    /// Runs a shell's words in it. Its id, once it is there.
    fn run(&mut self, words: &str) -> u32 {
        let procs = self.path.join("cgroup.procs");
        let words = format!("echo $$ > {} && {words}", procs.display());
        let child = Command::new("sh").args(["-c", &words]).stdin(Stdio::null()).spawn().expect("a shell");
        let pid = child.id();
        self.children.push(child);
        until("the process in its cgroup", || {
            let members = fs::read_to_string(&procs).ok()?;
            members.lines().any(|line| line == pid.to_string()).then_some(())
        });
        pid
    }

    fn spin(&mut self) -> u32 {
        self.run("while :; do :; done")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let began = Instant::now();
        while fs::remove_dir(&self.path).is_err() && began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn paths() -> config::Paths {
    config::Paths { proc: "/proc".into(), sys: "/sys".into(), cgroup: "/sys/fs/cgroup".into() }
}

fn without_btf() -> config::Paths {
    config::Paths { sys: "/nonexistent".into(), ..paths() }
}

fn load(unified: bool) -> Captures {
    load_from(&paths(), unified)
}

fn load_from(paths: &config::Paths, unified: bool) -> Captures {
    load_in(paths, Hierarchy { root: &paths.cgroup, unified })
}

fn load_in(paths: &config::Paths, hierarchy: Hierarchy<'_>) -> Captures {
    let captures = Captures::load(paths, hierarchy, 16, Arc::new(|| {}));
    captures.begin_threads();
    captures
}

/// Why this kind of capture cannot be made.
fn unsupported(captures: &Captures, kind: CaptureKind) -> Option<&'static str> {
    captures.support(kind).err()
}

fn key(slot: u16) -> Key {
    Key { slot, generation: 3 }
}

fn of_stacks(scope: Scope, lasting: Duration) -> Request {
    Request { kind: CaptureKind::Stacks, scope, lasting }
}

fn begin(captures: &mut Captures, ticket: u32, request: Request) {
    captures.start(Ticket(ticket), request, &|_| ()).expect("nothing else of this scope runs");
}

/// The next answer; what it brought is kept for ever, so that a test may hold any number.
fn answer(captures: &mut Captures) -> (Ticket, Capture<'static>) {
    let (ticket, result) = until("an answer", || captures.finished());
    (ticket, result.expect("a capture").keep())
}

fn threads(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("procfs").flatten();
    let comm = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.map(comm).filter(|comm| comm.trim() == name).count()
}

fn open(what: &str) -> usize {
    let files = fs::read_dir("/proc/self/fd").expect("procfs").flatten();
    files.filter_map(|file| fs::read_link(file.path()).ok()).filter(|link| link.as_os_str() == what).count()
}

#[test]
fn without_btf_stacks_are_refused_with_the_remedy_and_tasks_are_walked_over() {
    let mut captures = load_from(&without_btf(), false);
    let reason = unsupported(&captures, CaptureKind::Stacks).expect("there is no BTF");
    assert!(reason.contains("CONFIG_DEBUG_INFO_BTF") && reason.contains("onset doctor"), "{reason}");
    let request = of_stacks(Scope::Host, Duration::from_secs(1));
    let refused = captures.begin(Ticket(1), request, &Containers::default());
    assert_eq!(refused, Err(Refusal::Unsupported(reason)));
    let walk = Method { name: "/proc walk", degraded: Some(reason) };
    assert_eq!(captures.support(CaptureKind::Tasks), Ok(walk));
    for _ in 0..2 {
        let mut counts = TaskCounts::default();
        let began = crate::sys::now().mono;
        let first = captures.sample_tasks(&Containers::default(), &mut |_| {});
        assert_eq!(first, TaskLook::Elsewhere, "the walk is only begun");
        let TaskLook::Whole(at) = tasks::whole_look(&mut captures, |task| counts.add(&task)) else {
            panic!("/proc can be read")
        };
        assert!(at >= began && at <= crate::sys::now().mono, "it is a walk that was asked for");
        assert!(counts.sleeping > 0 && counts.running > 0, "{counts:?}");
    }
    let began = Instant::now();
    drop(captures);
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[test]
fn the_release_is_read() {
    assert!(release(Path::new("/proc")).is_some_and(|release| release >= (5, 10)));
    assert_eq!(release(Path::new("/nonexistent")), None);
}

#[test]
fn programs_are_metered_and_losses_told() {
    if !root() {
        return;
    }
    let captures = load(false);
    let mut names = Vec::new();
    captures.run_time(&mut |name, _, _| names.push(name.to_owned()));
    let all = [
        ["stacks", "faults", "large_pages", "tasks", "stuck_tasks"].as_slice(),
        &["waits_switched", "waits_moved", "bio_queued", "rq_issued", "rq_completed", "task_wakes"],
    ];
    assert_eq!(names, all.concat());
    let mut lost = Vec::new();
    captures.lost(&mut |source, count| lost.push((source, count)));
    assert_eq!(lost, [("stacks", 0), ("faults", 0), ("waits", 0), ("io", 0), ("containers", 0)]);
}

#[test]
fn a_container_that_finds_no_room_is_counted() {
    if !root() {
        return;
    }
    let paths = paths();
    let hierarchy = Hierarchy { root: &paths.cgroup, unified: false };
    let mut captures = Captures::load(&paths, hierarchy, 2, Arc::new(|| {}));
    for id in 1..=5 {
        captures.follow(id, key(1));
    }
    let mut lost = Vec::new();
    captures.lost(&mut |source, count| lost.push((source, count)));
    assert_eq!(lost.last(), Some(&("containers", 3)));
}

/// Runs a test of this binary as a user without rights.
fn as_nobody(test: &str) -> Option<std::process::Output> {
    use std::os::unix::process::CommandExt as _;
    const NOBODY: u32 = 65_534;
    // Not by its path: nobody may not look into the folders that it lies in.
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", test, "--nocapture"]).env("ONSET_AS_NOBODY", "1").uid(NOBODY).gid(NOBODY);
    command.current_dir("/").output().ok()
}

#[test]
fn without_rights_the_reason_says_which_are_needed() {
    if std::env::var_os("ONSET_AS_NOBODY").is_none() {
        if root() {
            let name = "capture::tests::without_rights_the_reason_says_which_are_needed";
            match as_nobody(name) {
                Some(output) => assert!(output.status.success(), "{output:?}"),
                None => eprintln!("SKIPPED: nobody may not run this binary where it lies"),
            }
        }
        return;
    }
    let captures = load(false);
    let reason = unsupported(&captures, CaptureKind::Stacks).expect("nobody may not");
    assert!(reason.contains("needs root, or CAP_BPF"), "{reason}");
    assert_eq!(
        captures.support(CaptureKind::Tasks),
        Ok(Method { name: "/proc walk", degraded: Some(reason) })
    );
}

#[test]
fn more_requests_than_there_is_room_for_answers_are_refused_as_busy() {
    if !root() {
        return;
    }
    let _alone = alone();
    let mut captures = load(false);
    let kinds = [CaptureKind::Memory, CaptureKind::Tasks, CaptureKind::Waits, CaptureKind::Probe];
    let requests = kinds.into_iter().flat_map(|kind| std::iter::repeat_n(kind, OPEN_MAX));
    for (ticket, kind) in (0..).zip(requests) {
        let request = Request { kind, scope: Scope::Host, lasting: Duration::from_millis(200) };
        captures.start(Ticket(ticket), request, &|_| ()).expect("there is room");
    }
    assert_eq!(captures.running(), OPEN_ALL_MAX);
    let more = captures.start(Ticket(999), of_stacks(Scope::Host, Duration::ZERO), &|_| ());
    assert_eq!(more, Err(Refusal::Busy));
    until("an answer to each", || {
        while captures.finished().is_some() {}
        (captures.running() == 0).then_some(())
    });
}

#[test]
fn every_capture_says_when_it_began_between_its_request_and_its_answer() {
    if !root() {
        return;
    }
    let mut captures = load(false);
    let mut seen = 0;
    for kind in BACKENDS.iter().flat_map(|line| line.kinds).copied() {
        if unsupported(&captures, kind).is_some() {
            continue;
        }
        let asked = sys::now();
        begin(&mut captures, 1, Request { kind, scope: Scope::Host, lasting: Duration::from_millis(200) });
        let (_, Capture { began, lasted, .. }) = answer(&mut captures);
        let answered = sys::now();
        assert!(asked.mono <= began.mono, "{kind:?} began {began:?} before {asked:?}");
        assert!(
            began.mono + lasted <= answered.mono,
            "{kind:?} began {began:?}, lasted {lasted:?}: {answered:?}"
        );
        let (wall, mono) = (began.wall.0.abs_diff(asked.wall.0), began.ms_after(asked).unsigned_abs());
        assert!(wall.abs_diff(mono) <= 2, "{kind:?} began {began:?}: its two clocks disagree");
        seen += 1;
    }
    assert!(seen >= 2, "what is walked over can be had everywhere");
}
