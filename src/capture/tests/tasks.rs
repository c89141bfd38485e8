//! Looks at real sleepers and stuck writers.

use super::*;
use crate::capture::backend::TASKS_AT_ONCE;
use crate::capture_data::Task;
use crate::host::{TaskCounts, TaskState};

const STUCK: Request = Request { kind: CaptureKind::Tasks, scope: Scope::Host, lasting: Duration::ZERO };

fn tasks(captures: &mut Captures, containers: Cgroups<'_>) -> Vec<Task<'static>> {
    captures.start(Ticket(1), STUCK, containers).expect("there is room");
    match answer(captures).1.data {
        CaptureData::Tasks(tasks) => tasks.to_vec(),
        other => panic!("tasks were asked for, not {other:?}"),
    }
}

/// All tasks there are, by one look of the iterator; and how long that took.
fn sample(captures: &mut Captures) -> (Vec<TaskSample>, Duration) {
    let mut seen = Vec::with_capacity(100_000);
    let began = Instant::now();
    let look = whole_look(captures, |task| seen.push(task));
    assert!(matches!(look, TaskLook::Whole(_)), "{look:?}");
    (seen, began.elapsed())
}

/// A look at all tasks, of which each call hands out some.
pub(super) fn whole_look(captures: &mut Captures, mut each: impl FnMut(TaskSample)) -> TaskLook {
    until("the look's end", || {
        let mut count = 0;
        let look = captures.sample_tasks(&Containers::default(), &mut |task| {
            count += 1;
            each(task);
        });
        assert!(count <= TASKS_AT_ONCE, "{count} tasks in one turn of the loop");
        assert!(look != TaskLook::Partial || count == TASKS_AT_ONCE, "a turn for {count} tasks alone");
        (!look.is_under_way()).then_some(look)
    })
}

#[test]
fn on_v1_the_detectors_look_counts_every_task_by_its_state() {
    if root() {
        the_detectors_look_counts_every_task_by_its_state(V1);
    }
}

#[test]
fn on_v2_the_detectors_look_counts_every_task_by_its_state() {
    if root() {
        the_detectors_look_counts_every_task_by_its_state(V2);
    }
}

fn the_detectors_look_counts_every_task_by_its_state(hierarchy: &str) {
    let _alone = alone();
    let mut cgroup = Cgroup::new(hierarchy, "count");
    let stopped = cgroup.run("kill -STOP $$");
    for _ in 0..3 {
        cgroup.run("exec sleep 600");
    }
    cgroup.spin();
    let state = |pid: u32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    until("the stop", || state(stopped).contains(") T ").then_some(()));
    let mut captures = load(hierarchy == V2);
    assert_eq!(captures.support(CaptureKind::Tasks), Ok(Method { name: "iter/task", degraded: None }));
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
    captures.run_time(&mut |name, time, runs| eprintln!("{name}: {time:?} in {runs} runs"));
}

/// An ext4 on a loop device that is frozen, and thawed again whatever happens.
struct Frozen(PathBuf);

impl Frozen {
    fn new(name: &str) -> Frozen {
        let frozen = Frozen(std::env::temp_dir().join(format!("onset-{name}-{}", std::process::id())));
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

/// A shell that is stuck in writing to a frozen filesystem.
struct Writer {
    // What stands first goes first: the thaw, then the writer's end.
    frozen: Frozen,
    cgroup: Cgroup,
    pid: u32,
    /// It has been stuck since some moment between these.
    since: (Instant, Instant),
}

impl Writer {
    fn new(name: &str) -> Writer {
        let mut cgroup = Cgroup::new(V1, name);
        let frozen = Frozen::new(name);
        let began = Instant::now();
        let pid = cgroup.run(&format!("echo x > {}/file", frozen.mount().display()));
        until("the writer to be stuck", || {
            fs::read_to_string(format!("/proc/{pid}/stat")).ok()?.contains(") D ").then_some(())
        });
        Writer { frozen, cgroup, pid, since: (began, Instant::now()) }
    }

    fn among<'t>(&self, tasks: &'t [Task<'t>]) -> &'t Task<'t> {
        tasks.iter().find(|task| task.tid == self.pid).expect("the writer")
    }
}

#[test]
fn a_writer_to_a_frozen_filesystem_is_found_with_its_stack_and_its_time() {
    if !root() {
        return;
    }
    let _alone = alone();
    let writer = Writer::new("stuck");
    let mut captures = load(false);
    captures.follow(writer.cgroup.id(), key(8));
    let found = tasks(&mut captures, &|_| ());
    let task = writer.among(&found);
    assert_eq!((task.comm, task.state, task.container), ("sh", 'D', Some(key(8))));
    let functions = task.stack.join(" ");
    assert!(functions.contains("percpu") || functions.contains("mnt_want_write"), "{functions}");
    assert!(found.is_sorted_by(|one, two| one.blocked >= two.blocked));

    // The clock must run, at the right speed, from the right moment.
    let (began, stuck) = writer.since;
    until("a second", || (stuck.elapsed() > Duration::from_secs(1)).then_some(()));
    let at_least = stuck.elapsed();
    let (samples, _) = sample(&mut captures);
    let seen = samples.iter().find(|task| task.container == Some(key(8))).expect("the writer");
    assert_eq!((seen.state, seen.in_iowait), (TaskState::Uninterruptible, false));
    eprintln!("blocked {:?}, stuck for at least {at_least:?}", seen.blocked);
    let slack = Duration::from_millis(50);
    assert!(seen.blocked + slack >= at_least && seen.blocked <= began.elapsed() + slack);
    assert!(writer.frozen.mount().exists());
}

#[test]
fn the_walk_over_proc_finds_the_same_writer_with_the_same_stack() {
    if !root() {
        return;
    }
    let _alone = alone();
    let writer = Writer::new("walk");
    let mut captures = load(false);
    captures.follow(writer.cgroup.id(), key(8));
    let by_iterator = tasks(&mut captures, &|_| ());
    let mut walking = load_from(&without_btf(), false);
    let path = writer.cgroup.path.strip_prefix(V1).expect("it is below");
    let path = format!("/{}", path.display());
    let containers: Cgroups<'_> = &|each| each(&path, key(8));
    let walked = tasks(&mut walking, containers);
    let (one, two) = (writer.among(&by_iterator), writer.among(&walked));
    assert_eq!(two, &Task { blocked: Duration::ZERO, ..*one }, "how long is not known at first");
    assert!(writer.among(&tasks(&mut walking, containers)).blocked > Duration::ZERO);
    let ids = |tasks: &[Task]| {
        let inside = tasks.iter().filter(|task| task.container == Some(key(8)));
        inside.map(|task| task.tid).collect::<Vec<_>>()
    };
    assert_eq!((ids(&by_iterator), ids(&walked)), (vec![writer.pid], vec![writer.pid]));
}
