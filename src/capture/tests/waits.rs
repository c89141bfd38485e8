//! Captures of real tasks that wait for a CPU, held against what the kernel itself counts.

use super::*;
use crate::capture_data::{TaskGroup, Waits};

fn of_waits(scope: Scope, seconds: u64) -> Request {
    Request { kind: CaptureKind::Waits, scope, lasting: Duration::from_secs(seconds) }
}

fn waits<'c>(capture: &Capture<'c>) -> Waits<'c> {
    match capture.data {
        CaptureData::Waits(waits) => waits,
        other => panic!("waits were asked for: {other:?}"),
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// How long these processes have waited for a CPU, as the kernel counts it.
fn delay(pids: &[u32]) -> Duration {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("schedstat");
        let delay: u64 = text.split(' ').nth(1).expect("three numbers").parse().expect("a number");
        Duration::from_nanos(delay)
    };
    pids.iter().map(of).sum()
}

fn assert_near(what: &str, got: Duration, want: Duration, percent: f64) {
    let off = (seconds(got) - seconds(want)) / seconds(want) * 100.0;
    eprintln!("{what}: {got:?}, {want:?} expected: {off:.2} % off");
    assert!(off.abs() <= percent, "{what}: {got:?}, not {want:?}");
}

/// On the second CPU alone, in place of the shell.
const PINNED: &str = "exec taskset -c 1 sh -c 'while :; do :; done'";

/// A cgroup that whatever else runs on this machine hardly disturbs: what is in it outweighs that.
fn heavy(name: &str) -> Cgroup {
    let cgroup = Cgroup::new(V1, name);
    set(&cgroup, "cpu.shares", "262144");
    cgroup
}

fn set(cgroup: &Cgroup, file: &str, value: &str) {
    fs::write(cgroup.path.join(file), value).expect("a cgroup's file");
}

/// Captures these containers at the same time. In between, what `meanwhile` does.
fn captured(
    captures: &mut Captures,
    slots: &[u16],
    lasting: u64,
    meanwhile: impl FnOnce(),
) -> Vec<Waits<'static>> {
    for slot in slots {
        begin(captures, u32::from(*slot), of_waits(Scope::Container(key(*slot)), lasting));
    }
    meanwhile();
    let mut found: Vec<_> = slots.iter().map(|_| answer(captures)).collect();
    found.sort_by_key(|(ticket, _)| *ticket);
    for (_, capture) in &found {
        assert_eq!(capture.lost, 0);
        let time = waits(capture).whole;
        let parts = time.inner + time.external + time.throttled + time.unheld;
        assert!(parts <= time.all + Duration::from_millis(1), "parts are of the whole: {time:?}");
    }
    found.into_iter().map(|(_, capture)| waits(&capture)).collect()
}

/// How much of a container's wait this group is to blame for.
fn blamed(waits: &Waits<'_>, group: &TaskGroup<'_>) -> f64 {
    let held = waits.interferers.iter().filter(|one| one.group == *group).map(|one| one.held);
    seconds(held.sum()) / seconds(waits.whole.all)
}

#[test]
fn two_cgroups_on_one_cpu_blame_each_other_for_what_the_kernel_says_they_waited() {
    if !root() {
        return;
    }
    let _alone = alone();
    let parent = heavy("contend");
    let (mut strong, mut weak) = (parent.below("strong"), parent.below("weak"));
    set(&strong, "cpu.shares", "1024");
    set(&weak, "cpu.shares", "128");
    let pids = [strong.run(PINNED), weak.run(PINNED)];
    let mut captures = load_in(&paths(), Hierarchy { root: Path::new(V1), unified: false });
    captures.follow(weak.id(), key(2));
    let before = pids.map(|pid| delay(&[pid]));
    begin(&mut captures, 1, of_waits(Scope::Host, 4));
    begin(&mut captures, 2, of_waits(Scope::Container(key(2)), 4));
    let mut found = [answer(&mut captures), answer(&mut captures)];
    let after = pids.map(|pid| delay(&[pid]));
    found.sort_by_key(|(ticket, _)| *ticket);
    let [host, victim] = found.each_ref().map(|(_, capture)| waits(capture));
    let path = format!("/{}", strong.path.strip_prefix(V1).expect("it is there").display());
    let interferer = TaskGroup::Cgroup(Some(&path));
    let waiter = |group: &TaskGroup<'_>| {
        host.waiters.iter().find(|waiter| waiter.group == *group).expect("it waited").time
    };
    assert_near("strong", waiter(&interferer).all, after[0] - before[0], 5.0);
    assert_near("weak", victim.whole.all, after[1] - before[1], 5.0);
    // The two may begin one after the other.
    assert_near("in both", waiter(&TaskGroup::Container(key(2))).all, victim.whole.all, 2.0);
    assert!(blamed(&victim, &interferer) > 0.9, "{victim:?}");
    // Whatever else runs here has interferers of its own.
    let of_host = host.interferers.iter().find(|one| one.group == interferer).expect("it is blamed").held;
    assert!(of_host >= victim.whole.all.mul_f64(0.9), "{of_host:?} of {victim:?}");
    assert!(host.whole.all >= (victim.whole.all + waiter(&interferer).all).mul_f64(0.98));
}

#[test]
fn in_the_unified_hierarchy_cgroups_are_told_apart_as_well() {
    if !root() {
        return;
    }
    let _alone = alone();
    let (mut one, mut other) = (Cgroup::new(V2, "one"), Cgroup::new(V2, "other"));
    let pids = [one.run(PINNED), other.run(PINNED)];
    let mut captures = load_in(&paths(), Hierarchy { root: Path::new(V2), unified: true });
    captures.follow(one.id(), key(7));
    let before = delay(&pids[..1]);
    let found = captured(&mut captures, &[7], 3, || {});
    assert_near("waited", found[0].whole.all, delay(&pids[..1]) - before, 5.0);
    let path = format!("/{}", other.path.strip_prefix(V2).expect("it is there").display());
    // Whatever else runs on this machine has its share of the blame: it weighs as much here.
    let other = TaskGroup::Cgroup(Some(&path));
    assert!(blamed(&found[0], &other) > 0.2, "{:?}", found[0]);
}

#[test]
fn a_container_that_contends_with_itself_is_its_own_interferer_however_its_cgroups_are_nested() {
    if !root() {
        return;
    }
    let _alone = alone();
    let container = heavy("inner");
    let (mut one, mut other) = (container.below("one"), container.below("other"));
    let pids = [one.run(PINNED), one.run(PINNED), other.run(PINNED)];
    let mut captures = load(false);
    captures.follow(container.id(), key(3));
    let before = delay(&pids);
    let found = captured(&mut captures, &[3], 3, || {});
    assert_near("waited", found[0].whole.all, delay(&pids) - before, 5.0);
    assert!(seconds(found[0].whole.inner) > 0.9 * seconds(found[0].whole.all), "{:?}", found[0]);
    assert!(
        !found[0].interferers.iter().any(|one| one.group == TaskGroup::Container(key(3))),
        "{:?}",
        found[0]
    );
}

fn throttled_time(cgroup: &Cgroup) -> Duration {
    let text = fs::read(cgroup.path.join("cpu.stat")).expect("cpu.stat");
    crate::host::cgroup::cpu::v1_throttling(&text).expect("throttling").throttled
}

fn a_quota_is_told_from_contention(own: bool) {
    let _alone = alone();
    let limited = heavy("quota");
    set(&limited, "cpu.cfs_quota_us", "20000");
    let mut below = limited.below("below");
    below.run(PINNED);
    let mut captures = load(false);
    captures.follow(if own { limited.id() } else { below.id() }, key(4));
    let before = throttled_time(&limited);
    let found = captured(&mut captures, &[4], 4, || {});
    let want = throttled_time(&limited) - before;
    assert_near("throttled", found[0].whole.throttled, want, 15.0);
    let others = found[0].whole.all - found[0].whole.throttled;
    assert!(seconds(others) < 0.15 * seconds(found[0].whole.all), "{:?}", found[0]);
}

#[test]
fn what_a_quota_takes_is_throttled_and_nobodys_fault() {
    if root() {
        a_quota_is_told_from_contention(true);
        a_quota_is_told_from_contention(false);
    }
}

/// Moves each of these tasks to the other CPU, again and again.
fn moved_about(pids: &[u32], during: Duration) {
    let began = Instant::now();
    for cpu in [0_usize, 1].into_iter().cycle() {
        if began.elapsed() > during {
            return;
        }
        for (index, pid) in pids.iter().enumerate() {
            // SAFETY: a cpu_set_t is plain bits, for which zeros are no CPU.
            let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
            // SAFETY: both CPUs are within the set.
            unsafe { libc::CPU_SET((cpu + index) % 2, &mut set) };
            // SAFETY: the set is ours and its size is given; the process is a child of ours.
            let done =
                unsafe { libc::sched_setaffinity(pid.cast_signed(), size_of_val(&set), &raw const set) };
            assert_eq!(done, 0);
        }
        std::thread::sleep(Duration::from_millis(7));
    }
}

#[test]
fn tasks_that_are_moved_while_they_wait_lose_nothing() {
    if !root() {
        return;
    }
    let _alone = alone();
    let mut container = Cgroup::new(V1, "moved");
    let pids: Vec<u32> = (0..5).map(|_| container.spin()).collect();
    let mut captures = load(false);
    captures.follow(container.id(), key(5));
    // They leave this test little of both CPUs, so it looks late: what can be held against each
    // other is how much was waited in a second.
    let (before, began) = (delay(&pids), Instant::now());
    begin(&mut captures, 5, of_waits(Scope::Container(key(5)), 3));
    moved_about(&pids, Duration::from_secs(3));
    let capture = answer(&mut captures).1;
    let want = (delay(&pids) - before).div_f64(seconds(began.elapsed()));
    let time = waits(&capture).whole;
    assert_near("waited in a second", time.all.div_f64(seconds(capture.lasted)), want, 5.0);
    assert!(seconds(time.inner + time.external) > 0.9 * seconds(time.all), "the old CPU is known: {time:?}");
}

#[test]
fn a_kernel_whose_tasks_carry_nothing_is_served_as_well() {
    if !root() {
        return;
    }
    let _alone = alone();
    let mut cgroup = Cgroup::new(V1, "by-pid");
    let pids: Vec<u32> = (0..4).map(|_| cgroup.spin()).collect();
    let followed = bpf::Followed::create(16).expect("a map");
    let mut meter = Meter::default();
    let old = Some((5, 10));
    let mut program =
        bpf::Waits::load(Path::new("/sys"), &followed, false, old, &mut meter).expect("it loads");
    let armed = program.arm().expect("attached");
    let before = delay(&pids);
    moved_about(&pids, Duration::from_secs(2));
    let tally = armed.read(true).expect("sums");
    let want = delay(&pids) - before;
    let group = bpf::Group::Cgroup(cgroup.id());
    assert_near("waited", tally.groups[&group].all, want, 5.0);
    assert_eq!(tally.lost, 0);
}

#[test]
fn nothing_stays_attached_and_a_second_capture_begins_at_zero() {
    if !root() {
        return;
    }
    let _alone = alone();
    let mut container = heavy("again");
    let mut captures = load(false);
    captures.follow(container.id(), key(6));
    container.run(PINNED);
    let links = open("anon_inode:bpf_link") + open("anon_inode:bpf-tracing");
    for _ in 0..2 {
        let found = captured(&mut captures, &[6], 1, || {});
        let ran = seconds(found[0].whole.ran);
        assert!((0.7..1.1).contains(&ran), "one CPU for a second: {:?}", found[0]);
        assert_eq!(open("anon_inode:bpf_link") + open("anon_inode:bpf-tracing"), links);
        until("no thread", || (threads("onset-waits") == 0).then_some(()));
    }
    begin(&mut captures, 9, Request { kind: CaptureKind::Probe, ..of_waits(Scope::Host, 1) });
    let CaptureData::Probe(seen) = answer(&mut captures).1.data else { panic!("a probe was asked for") };
    let [(key, time)] = seen[..] else { panic!("one container is followed: {seen:?}") };
    assert_eq!(key, self::key(6));
    assert!((0.7..1.1).contains(&seconds(time.ran)), "{time:?}");
}
