//! Captures of real spinners.

use super::*;
use crate::capture_data::Profile;

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

fn profile<'c>(capture: &'c Capture<'c>) -> &'c Profile<'c> {
    match &capture.data {
        CaptureData::Stacks(profile) => profile,
        other => panic!("stacks were asked for, not {other:?}"),
    }
}

/// A process that has but a share of a CPU is on it or not when a sample falls due: that is chance.
fn assert_near(samples: u64, want: f64, percent: f64, lasted: Duration) {
    let share = (want / lasted.as_secs_f64() / f64::from(bpf::HZ)).min(1.0);
    let chance = 3.0 * (want * (1.0 - share)).sqrt();
    eprintln!("{samples} samples, {want:.1} expected, give or take {chance:.1}");
    let off = (samples as f64 - want).abs();
    assert!(off <= want * percent / 100.0 + chance, "{samples} samples, not about {want:.1}");
}

fn pids(profile: &Profile<'_>) -> Vec<u32> {
    profile.top.iter().map(|process| process.pid).collect()
}

fn a_scoped_spinner_is_sampled_at_99_hz_and_only_it(hierarchy: &str) {
    let _alone = alone();
    let (mut inside, mut outside) = (Cgroup::new(hierarchy, "in"), Cgroup::new(hierarchy, "out"));
    let (pid, _) = (inside.spin(), outside.spin());
    let mut captures = load(hierarchy == V2);
    captures.follow(inside.id(), key(4));
    captures.follow(outside.id(), key(5));
    let share = Share::begin(pid);
    begin(&mut captures, 7, of_stacks(Scope::Container(key(4)), Duration::from_secs(3)));
    let (ticket, capture) = answer(&mut captures);
    assert_eq!((ticket, capture.scope, capture.lost), (Ticket(7), Scope::Container(key(4)), 0));
    assert_eq!(capture.lasted, Duration::from_secs(3), "the kernel ends it");
    let profile = profile(&capture);
    assert_near(profile.samples, share.samples(capture.lasted), 10.0, capture.lasted);
    assert_eq!(pids(profile), [pid]);
    assert_eq!(profile.flame.get(1).map(|node| node.label), Some("sh"));
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
    begin(&mut captures, 1, of_stacks(Scope::Container(key(1)), Duration::from_secs(1)));
    let mut seen = pids(profile(&answer(&mut captures).1));
    seen.sort_unstable();
    assert_eq!(seen, pids_inside);
    captures.unfollow(container.id());
    begin(&mut captures, 2, of_stacks(Scope::Container(key(1)), Duration::from_millis(500)));
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
    begin(&mut captures, 1, of_stacks(Scope::Container(key(1)), Duration::from_secs(4)));
    begin(&mut captures, 2, of_stacks(Scope::Host, Duration::from_secs(2)));
    let (ticket, host) = answer(&mut captures);
    assert_eq!((ticket, host.scope), (Ticket(2), Scope::Host));
    assert!(pids(profile(&host)).contains(&first) && pids(profile(&host)).contains(&second));
    // It begins while the first one runs, and ends after it.
    begin(&mut captures, 3, of_stacks(Scope::Container(key(2)), Duration::from_secs(3)));
    assert_eq!(captures.running(), 2);
    let (ticket, capture) = answer(&mut captures);
    assert_eq!((ticket, pids(profile(&capture))), (Ticket(1), vec![first]));
    assert_near(profile(&capture).samples, shares[0].samples(capture.lasted), 15.0, capture.lasted);
    let (ticket, capture) = answer(&mut captures);
    assert_eq!((ticket, pids(profile(&capture))), (Ticket(3), vec![second]));
    assert_near(profile(&capture).samples, shares[1].samples(capture.lasted), 15.0, capture.lasted);
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
    let request = of_stacks(Scope::Host, Duration::from_millis(300));
    begin(&mut captures, 1, request);
    assert_eq!(captures.begin(Ticket(2), request, &Containers::default()), Err(Refusal::Busy));
    let gone = of_stacks(Scope::Container(key(9)), Duration::from_millis(300));
    assert_eq!(captures.begin(Ticket(3), gone, &Containers::default()), Err(Refusal::Gone));
    assert_eq!(answer(&mut captures).0, Ticket(1));
    assert_eq!(captures.begin(Ticket(4), request, &Containers::default()), Ok(()));
    assert_eq!(answer(&mut captures).0, Ticket(4));
    assert!(captures.running() == 0 && captures.finished().is_none());
}

#[test]
fn dropping_captures_stops_a_long_one_within_a_second() {
    if !root() {
        return;
    }
    let _alone = alone();
    let mut captures = load(false);
    begin(&mut captures, 1, of_stacks(Scope::Host, Duration::from_secs(600)));
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
    begin(&mut captures, 1, of_stacks(Scope::Container(key(1)), Duration::from_secs(2)));
    let (_, capture) = answer(&mut captures);
    let names: Vec<_> = profile(&capture).top.iter().map(|process| process.comm).collect();
    assert!(names.contains(&"true"), "{names:?}");
    assert!(names.iter().all(|name| ["true", "sh"].contains(name)), "{names:?}");
}
