//! Captures of real spinners, sleepers and stuck writers on this kernel, which takes root.

#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{MutexGuard, PoisonError};

use super::*;
use crate::evidence::{Profile, Seen, Task};
use crate::host::{TaskCounts, TaskState};

/// What any waiting here is cut off at.
const PATIENCE: Duration = Duration::from_secs(30);

const V1: &str = "/sys/fs/cgroup/cpu";
const V2: &str = "/sys/fs/cgroup/unified";

/// Whether this test can run. Says so loudly where it cannot.
pub(crate) fn root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("SKIPPED: BPF programs need root");
    }
    root
}

/// Tests that count samples or threads do not run beside each other.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

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

/// A process's CPU time and the time, to tell its share from.
struct Share {
    pid: u32,
    cpu: u64,
    at: Instant,
}

impl Share {
    fn begin(pid: u32) -> Share {
        Share { pid, cpu: Share::cpu(pid), at: Instant::now() }
    }

    fn cpu(pid: u32) -> u64 {
        let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("schedstat");
        text.split(' ').next().expect("three numbers").parse().expect("a number")
    }

    /// How many samples its CPU time was worth.
    fn samples(&self, lasted: Duration) -> f64 {
        let share = (Share::cpu(self.pid) - self.cpu) as f64 / self.at.elapsed().as_nanos() as f64;
        share * lasted.as_secs_f64() * f64::from(bpf::HZ)
    }
}

fn paths() -> config::Paths {
    config::Paths { proc: "/proc".into(), sys: "/sys".into(), cgroup: "/sys/fs/cgroup".into() }
}

fn load(unified: bool) -> Captures {
    Captures::load(&paths(), unified, 16, Arc::new(|| {}))
}

fn key(slot: u16) -> Key {
    Key { slot, generation: 3 }
}

fn stacks(scope: Scope, lasting: Duration) -> Request {
    Request { kind: Kind::Stacks, scope, lasting }
}

const STUCK: Request = Request { kind: Kind::Tasks, scope: Scope::Host, lasting: Duration::ZERO };

fn begin(captures: &mut Captures, ticket: u32, request: Request) {
    captures.start(Ticket(ticket), request, Paths::default).expect("nothing else of this scope runs");
}

fn answer(captures: &mut Captures) -> (Ticket, Capture) {
    let (ticket, result) = until("an answer", || captures.finished());
    (ticket, result.expect("a capture"))
}

fn profile(capture: &Capture) -> &Profile {
    match &capture.seen {
        Seen::Stacks(profile) => profile,
        Seen::Tasks(_) => panic!("stacks were asked for"),
    }
}

fn tasks(captures: &mut Captures, paths: Paths) -> Vec<Task> {
    captures.start(Ticket(1), STUCK, || paths).expect("there is room");
    match answer(captures).1.seen {
        Seen::Tasks(tasks) => tasks,
        Seen::Stacks(_) => panic!("tasks were asked for"),
    }
}

fn assert_near(samples: u64, want: f64, percent: f64) {
    let off = (samples as f64 - want).abs() / want * 100.0;
    eprintln!("{samples} samples, {want:.1} expected");
    assert!(off <= percent, "{samples} samples, not about {want:.1}");
}

fn pids(profile: &Profile) -> Vec<u32> {
    profile.top.iter().map(|process| process.pid).collect()
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

fn a_scoped_spinner_is_sampled_at_99_hz_and_only_it(hierarchy: &str) {
    let _alone = alone();
    let (mut inside, mut outside) = (Cgroup::new(hierarchy, "in"), Cgroup::new(hierarchy, "out"));
    let (pid, _) = (inside.spin(), outside.spin());
    let mut captures = load(hierarchy == V2);
    captures.follow(inside.id(), key(4));
    captures.follow(outside.id(), key(5));
    let share = Share::begin(pid);
    begin(&mut captures, 7, stacks(Scope::Container(key(4)), Duration::from_secs(3)));
    let (ticket, capture) = answer(&mut captures);
    assert_eq!((ticket, capture.scope, capture.lost), (Ticket(7), Scope::Container(key(4)), 0));
    assert!(capture.lasted >= Duration::from_secs(3) && capture.lasted < Duration::from_millis(3500));
    let profile = profile(&capture);
    assert_near(profile.samples, share.samples(capture.lasted), 10.0);
    assert_eq!(pids(profile), [pid]);
    assert_eq!(profile.flame.get(1).map(|node| &*node.label), Some("sh"));
    assert!(profile.flame.len() > 3, "{:?}", profile.flame);
}

#[test]
fn on_v1_a_scoped_spinner_is_sampled_at_99_hz_and_only_it() {
    if root() {
        a_scoped_spinner_is_sampled_at_99_hz_and_only_it(V1);
    }
}

#[test]
fn on_v2_a_scoped_spinner_is_sampled_at_99_hz_and_only_it() {
    if root() {
        a_scoped_spinner_is_sampled_at_99_hz_and_only_it(V2);
    }
}

#[test]
fn a_process_in_a_cgroup_below_the_containers_is_the_containers() {
    if !root() {
        return;
    }
    let _alone = alone();
    let container = Cgroup::new(V1, "nest");
    let (above, mut within) = (container.below("a"), container.below("b"));
    let mut deep = above.below("deep");
    let pids_inside = [deep.spin(), within.spin()];
    let mut captures = load(false);
    captures.follow(container.id(), key(1));
    begin(&mut captures, 1, stacks(Scope::Container(key(1)), Duration::from_secs(1)));
    let mut seen = pids(profile(&answer(&mut captures).1));
    seen.sort_unstable();
    assert_eq!(seen, pids_inside);
    captures.unfollow(container.id());
    begin(&mut captures, 2, stacks(Scope::Container(key(1)), Duration::from_millis(500)));
    assert_eq!(profile(&answer(&mut captures).1).samples, 0, "it is no container any more");
    drop((deep, above, within));
}

#[test]
fn requests_that_overlap_each_get_their_own_time_and_scope() {
    if !root() {
        return;
    }
    let _alone = alone();
    let (mut one, mut two) = (Cgroup::new(V1, "one"), Cgroup::new(V1, "two"));
    let (first, second) = (one.spin(), two.spin());
    let mut captures = load(false);
    captures.follow(one.id(), key(1));
    captures.follow(two.id(), key(2));
    let shares = [Share::begin(first), Share::begin(second)];
    begin(&mut captures, 1, stacks(Scope::Container(key(1)), Duration::from_secs(4)));
    begin(&mut captures, 2, stacks(Scope::Host, Duration::from_secs(2)));
    let (ticket, host) = answer(&mut captures);
    assert_eq!((ticket, host.scope), (Ticket(2), Scope::Host));
    assert!(pids(profile(&host)).contains(&first) && pids(profile(&host)).contains(&second));
    // It begins while the first one runs, and ends after it.
    begin(&mut captures, 3, stacks(Scope::Container(key(2)), Duration::from_secs(3)));
    assert_eq!(captures.running(), 2);
    let (ticket, capture) = answer(&mut captures);
    assert_eq!((ticket, pids(profile(&capture))), (Ticket(1), vec![first]));
    assert_near(profile(&capture).samples, shares[0].samples(capture.lasted), 15.0);
    let (ticket, capture) = answer(&mut captures);
    assert_eq!((ticket, pids(profile(&capture))), (Ticket(3), vec![second]));
    assert_near(profile(&capture).samples, shares[1].samples(capture.lasted), 15.0);
    until("the threads' end", || (threads("onset-stacks") + threads("onset-names") == 0).then_some(()));
    assert_eq!(open("anon_inode:[perf_event]"), 0, "an idle agent samples nothing");
}

#[test]
fn a_second_request_of_a_scope_is_refused_and_so_is_one_of_a_container_that_went() {
    if !root() {
        return;
    }
    let _alone = alone();
    let mut captures = load(false);
    let request = stacks(Scope::Host, Duration::from_millis(300));
    begin(&mut captures, 1, request);
    assert_eq!(captures.begin(Ticket(2), request, &Containers::default()), Err(Refusal::Busy));
    let gone = stacks(Scope::Container(key(9)), Duration::from_millis(300));
    assert_eq!(captures.begin(Ticket(3), gone, &Containers::default()), Err(Refusal::Gone));
    assert_eq!(answer(&mut captures).0, Ticket(1));
    assert_eq!(captures.begin(Ticket(4), request, &Containers::default()), Ok(()));
    assert_eq!(answer(&mut captures).0, Ticket(4));
    assert_eq!((captures.running(), captures.finished()), (0, None));
}

#[test]
fn dropping_captures_stops_a_long_one_within_a_second() {
    if !root() {
        return;
    }
    let _alone = alone();
    let mut captures = load(false);
    begin(&mut captures, 1, stacks(Scope::Host, Duration::from_secs(600)));
    until("the sampling to begin", || (open("anon_inode:[perf_event]") > 0).then_some(()));
    let began = Instant::now();
    drop(captures);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(open("anon_inode:[perf_event]"), 0);
    until("the thread's end", || (threads("onset-stacks") == 0).then_some(()));
}

#[test]
fn a_process_too_short_lived_to_be_looked_at_still_has_its_name() {
    if !root() {
        return;
    }
    let _alone = alone();
    let mut cgroup = Cgroup::new(V1, "short");
    cgroup.run("while :; do /bin/true; /bin/true; done");
    let mut captures = load(false);
    captures.follow(cgroup.id(), key(1));
    begin(&mut captures, 1, stacks(Scope::Container(key(1)), Duration::from_secs(2)));
    let (_, capture) = answer(&mut captures);
    let names: Vec<_> = profile(&capture).top.iter().map(|process| &*process.comm).collect();
    assert!(names.contains(&"true"), "{names:?}");
    assert!(names.iter().all(|name| ["true", "sh"].contains(name)), "{names:?}");
}

#[test]
fn without_btf_stacks_are_refused_with_the_remedy_and_tasks_are_walked_over() {
    let paths = config::Paths { sys: "/nonexistent".into(), ..paths() };
    let mut captures = Captures::load(&paths, false, 16, Arc::new(|| {}));
    let reason = captures.unsupported(Kind::Stacks).expect("there is no BTF");
    assert!(reason.contains("CONFIG_DEBUG_INFO_BTF") && reason.contains("onset doctor"), "{reason}");
    let request = stacks(Scope::Host, Duration::from_secs(1));
    let refused = captures.begin(Ticket(1), request, &Containers::default());
    assert_eq!(refused, Err(Refusal::Unsupported(reason)));
    assert_eq!((captures.unsupported(Kind::Tasks), captures.mode(Kind::Tasks)), (None, "/proc walk"));
    assert_eq!(captures.lesser(Kind::Tasks), Some(reason));
    assert!(!captures.sample_tasks(&Containers::default(), &mut |_| {}), "the first walk is only begun");
    let counts = until("a walk", || {
        let mut counts = TaskCounts::default();
        captures.sample_tasks(&Containers::default(), &mut |task| counts.add(&task)).then_some(counts)
    });
    assert!(counts.sleeping > 0 && counts.running > 0, "{counts:?}");
    let began = Instant::now();
    drop(captures);
    assert!(began.elapsed() < Duration::from_secs(1));
}

/// All tasks there are, by one look of the iterator; and how long that took.
fn sample(captures: &mut Captures) -> (Vec<TaskSample>, Duration) {
    let mut seen = Vec::with_capacity(100_000);
    let began = Instant::now();
    assert!(captures.sample_tasks(&Containers::default(), &mut |task| seen.push(task)));
    (seen, began.elapsed())
}

#[test]
fn the_detectors_look_counts_every_task_by_its_state() {
    if !root() {
        return;
    }
    let _alone = alone();
    let mut cgroup = Cgroup::new(V1, "count");
    let stopped = cgroup.run("kill -STOP $$");
    for _ in 0..3 {
        cgroup.run("exec sleep 600");
    }
    cgroup.spin();
    let state = |pid: u32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    until("the stop", || state(stopped).contains(") T ").then_some(()));
    let mut captures = load(false);
    assert_eq!(captures.mode(Kind::Tasks), "iter/task");
    captures.follow(cgroup.id(), key(6));
    // A process may still be on its way to sleep.
    let counts = until("all to settle", || {
        let mut counts = TaskCounts::default();
        let (tasks, _) = sample(&mut captures);
        tasks.iter().filter(|task| task.container == Some(key(6))).for_each(|task| counts.add(task));
        (counts.sleeping == 3).then_some(counts)
    });
    assert_eq!((counts.running, counts.stopped, counts.uninterruptible), (1, 1, 0));
    // Others come and go meanwhile: one of several tries must meet a still moment.
    until("agreement with /proc", || {
        let threads = |process: fs::DirEntry| {
            // A virtual machine's monitor may hide its own process 1 from iterators.
            process.file_name().to_str()?.parse::<u32>().ok().filter(|pid| *pid != 1)?;
            Some(fs::read_dir(process.path().join("task")).ok()?.count())
        };
        let count = || fs::read_dir("/proc").expect("procfs").flatten().filter_map(threads).sum::<usize>();
        let first = fs::read_dir("/proc/1/task").expect("procfs").count();
        let before = count();
        let (tasks, took) = sample(&mut captures);
        let each = took / u32::try_from(tasks.len()).ok()?;
        eprintln!("{} tasks in {took:?}, {each:?} each; in /proc {before}", tasks.len());
        let agreed = tasks.len() == before || tasks.len() == before + first;
        (agreed && count() == before).then_some(())
    });
    captures.run_time(&mut |name, time| eprintln!("{name}: {time:?}"));
}

/// An ext4 on a loop device that is frozen, and thawed again whatever happens.
struct Frozen(PathBuf);

impl Frozen {
    fn new() -> Frozen {
        let frozen = Frozen(std::env::temp_dir().join(format!("onset-frozen-{}", std::process::id())));
        let (image, mount) = (frozen.0.join("image"), frozen.mount());
        fs::create_dir_all(&mount).expect("a directory");
        fs::File::create(&image).and_then(|file| file.set_len(16 << 20)).expect("an image");
        run("mkfs.ext4", &["-q".as_ref(), &image]);
        run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &mount]);
        run("fsfreeze", &["-f".as_ref(), &mount]);
        frozen
    }

    fn mount(&self) -> PathBuf {
        self.0.join("mount")
    }
}

fn run(program: &str, args: &[&Path]) {
    assert!(Command::new(program).args(args).status().expect(program).success(), "{program} {args:?}");
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let mount = self.mount();
        let _ = Command::new("fsfreeze").arg("-u").arg(&mount).status();
        let began = Instant::now();
        // The writers may still be at it.
        while !Command::new("umount")
            .arg(&mount)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|done| done.success())
            && began.elapsed() < Duration::from_secs(10)
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn writers_to_a_frozen_filesystem_are_found_with_their_stacks_and_their_time() {
    if !root() {
        return;
    }
    let _alone = alone();
    // What is declared last goes first: the thaw, then the writers' end.
    let mut cgroup = Cgroup::new(V1, "stuck");
    let frozen = Frozen::new();
    let file = frozen.mount().join("file");
    let began = Instant::now();
    let writer = cgroup.run(&format!("echo x > {}", file.display()));
    until("the writer to be stuck", || {
        fs::read_to_string(format!("/proc/{writer}/stat")).ok()?.contains(") D ").then_some(())
    });
    let truth = Instant::now();
    let mut captures = load(false);
    captures.follow(cgroup.id(), key(8));

    let found = tasks(&mut captures, Paths::default());
    let task = found.iter().find(|task| task.tid == writer).expect("the writer");
    assert_eq!((&*task.comm, task.state, task.container), ("sh", 'D', Some(key(8))));
    let functions = task.stack.join(" ");
    assert!(functions.contains("percpu") || functions.contains("mnt_want_write"), "{functions}");
    assert!(found.is_sorted_by(|one, two| one.blocked >= two.blocked));

    // Two looks at known times: the clock must run, at the right speed, from the right moment.
    until("a second", || (truth.elapsed() > Duration::from_secs(1)).then_some(()));
    let (samples, _) = sample(&mut captures);
    let sample = samples.iter().find(|task| task.container == Some(key(8))).expect("the writer");
    assert_eq!((sample.state, sample.in_iowait), (TaskState::Uninterruptible, false));
    let slack = Duration::from_millis(50);
    eprintln!("blocked {:?}, stuck for at least {:?}", sample.blocked, truth.elapsed());
    assert!(sample.blocked + slack >= truth.elapsed() && sample.blocked <= began.elapsed() + slack);

    // The walk over /proc sees the same.
    let mut walking =
        Captures::load(&config::Paths { sys: "/nonexistent".into(), ..paths() }, false, 16, Arc::new(|| {}));
    let mut paths = Paths::default();
    let path = cgroup.path.strip_prefix(V1).expect("it is below");
    paths.push(&format!("/{}", path.display()), key(8));
    let walked = tasks(&mut walking, paths.clone());
    let ids = |tasks: &[Task]| tasks.iter().map(|task| task.tid).collect::<std::collections::BTreeSet<_>>();
    let lasting = |tasks: &[Task]| ids(tasks).contains(&writer);
    assert!(lasting(&walked) && lasting(&tasks(&mut captures, Paths::default())));
    let task = walked.iter().find(|task| task.tid == writer).expect("the writer");
    assert_eq!((&*task.comm, task.container, task.blocked), ("sh", Some(key(8)), Duration::ZERO));
    assert_eq!(task.stack.join(" "), functions, "the kernel's own words");
    let again = tasks(&mut walking, paths);
    let task = again.iter().find(|task| task.tid == writer).expect("the writer");
    assert!(task.blocked > Duration::ZERO);
}

#[test]
fn the_lists_of_cpus_and_releases_are_read() {
    assert_eq!(cpu_list("0-3,8\n"), [0, 1, 2, 3, 8]);
    assert_eq!(cpu_list("0\n"), [0]);
    assert!(cpu_list("").is_empty() && cpu_list("x-y,").is_empty());
    assert!(cpu_list("0-4294967295").len() < 10_000);
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
    captures.run_time(&mut |name, _| names.push(name.to_owned()));
    assert_eq!(names, ["stacks", "tasks", "stuck_tasks"]);
    let mut lost = Vec::new();
    captures.lost(&mut |source, count| lost.push((source, count)));
    assert_eq!(lost, [("stacks", 0), ("containers", 0)]);
}

#[test]
fn a_container_that_finds_no_room_is_counted() {
    if !root() {
        return;
    }
    let mut captures = Captures::load(&paths(), false, 2, Arc::new(|| {}));
    for id in 1..=5 {
        captures.follow(id, key(1));
    }
    let mut lost = Vec::new();
    captures.lost(&mut |source, count| lost.push((source, count)));
    assert_eq!(lost[1], ("containers", 3));
}
