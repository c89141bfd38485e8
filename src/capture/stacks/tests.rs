//! Sessions whose thread comes late, as on a host without a CPU to spare.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::super::arenas::ArenaPool;
use super::super::open_request::Answered;
use super::*;
use crate::bpf::tests::{alone, root};
use crate::capture_data::{CaptureKind, Request, Ticket};

fn job(lasting: Duration, to: SyncSender<Answered>) -> Job {
    let request = Request { kind: CaptureKind::Stacks, scope: Scope::Host, lasting };
    let arenas = ArenaPool::new(request.kind.arena_bytes());
    let open = OpenRequest::new(Ticket(1), request, to, Arc::new(|| {}), arenas);
    Job { open, members: Members::HOST }
}

/// When each of these ends that begin one after the other, and when each turn ended what it read, where no
/// turn is taken until all of them are over.
fn ends_of_late_turns(lasting: &[Duration]) -> (Vec<Duration>, Vec<Option<Duration>>) {
    let followed = bpf::Followed::create(16).expect("a map");
    let site = bpf::Site { sys: Path::new("/sys"), followed: &followed, unified: false, cpus: &[0, 1] };
    let program = bpf::Stacks::by_clock(&site, &mut bpf::Meter::default()).expect("this kernel has BTF");
    let sampler = Sampler::new(program, Sampled::Running, Path::new("/proc"), false).expect("a count");
    let (to, _answers): (_, Receiver<Answered>) = sync_channel(lasting.len());
    let mut program = sampler.program.lock().expect("nobody broke");
    let armed = program.arm().expect("armed");
    let mut session =
        StacksSession { armed, running: Vec::new(), known: Known::default(), sampler: &sampler };
    for lasting in lasting {
        session.accept(job(*lasting, to.clone()));
    }
    let untils: Vec<Duration> = session.running.iter().map(|running| running.until).collect();
    std::thread::sleep(lasting.iter().sum());
    let mut ends = Vec::new();
    while !session.running.is_empty() {
        assert!(ends.len() < 10, "{ends:?} end none of {untils:?}");
        ends.push(session.turn_at(sys::monotonic(), None));
    }
    (untils, ends)
}

#[test]
fn a_thread_that_comes_after_all_of_the_first_period_ends_the_request_when_it_was_to_end() {
    if !root() {
        return;
    }
    let _alone = alone();
    let (untils, ends) = ends_of_late_turns(&[Duration::from_millis(300)]);
    assert_eq!(ends, [untils.first().copied()]);
}

#[test]
fn a_thread_that_comes_after_the_ends_of_two_requests_ends_each_when_it_was_to_end() {
    if !root() {
        return;
    }
    let _alone = alone();
    let (untils, ends) = ends_of_late_turns(&[Duration::from_millis(300), Duration::from_millis(600)]);
    assert_eq!(ends, untils.into_iter().map(Some).collect::<Vec<_>>());
}

#[test]
fn a_request_that_begins_while_others_are_over_is_sampled() {
    if !root() {
        return;
    }
    let _alone = alone();
    let followed = bpf::Followed::create(16).expect("a map");
    let site = bpf::Site { sys: Path::new("/sys"), followed: &followed, unified: false, cpus: &[0, 1] };
    let program = bpf::Stacks::by_clock(&site, &mut bpf::Meter::default()).expect("this kernel has BTF");
    let sampler = Sampler::new(program, Sampled::Running, Path::new("/proc"), false).expect("a count");
    let (to, _answers): (_, Receiver<Answered>) = sync_channel(3);
    let mut program = sampler.program.lock().expect("nobody broke");
    let armed = program.arm().expect("armed");
    let mut session =
        StacksSession { armed, running: Vec::new(), known: Known::default(), sampler: &sampler };
    for (millis, rest) in [(100, 0), (200, 300), (10_000, 0)] {
        session.accept(job(Duration::from_millis(millis), to.clone()));
        std::thread::sleep(Duration::from_millis(rest));
    }
    assert_eq!(session.running.len(), 1, "the others are over");
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(500) {
        std::hint::spin_loop();
    }
    session.turn_at(sys::monotonic(), None);
    assert!(session.running.iter().all(|running| !running.counts.is_empty()), "this thread was on a CPU");
}

#[test]
fn stacks_whose_frames_find_no_room_are_not_kept_and_a_known_one_takes_none() {
    let sent = |hash| bpf::StackRecord {
        hash,
        image: crate::symbol::Image { pid: 7, id: 1 },
        layout: crate::symbol::Layout::default(),
        comm: "deep".into(),
        execs: false,
        user: Box::default(),
        kernel: vec![0; 127].into(),
    };
    let mut known = Known::default();
    let each = 127 * 8;
    for hash in 0..40_000 {
        known.keep(sent(hash));
        known.keep(sent(hash));
    }
    assert_eq!(known.stacks.len(), FRAMES_MAX / each);
    assert_eq!(known.bytes, FRAMES_MAX / each * each);
}
