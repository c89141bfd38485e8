//! The table of backends, with its own lines and with that of docs/how-to-add-a-capture.md.

use super::*;
use crate::capture::offcpu;
use crate::tracer::TRACERS;

/// A table with the example in place of a capture.
const WITH_EXAMPLE: &[Registration] = &[Registration { kinds: &[CaptureKind::Stacks], load: offcpu::load }];

fn load_example(paths: &config::Paths) -> Captures {
    let hierarchy = Hierarchy { root: &paths.cgroup, unified: false };
    let captures = Captures::of(WITH_EXAMPLE, paths, hierarchy, 16, Arc::new(|| {}));
    captures.begin_threads();
    captures
}

#[test]
fn each_kind_of_capture_that_a_tracer_asks_for_has_exactly_one_backend() {
    for kind in TRACERS.iter().flat_map(|spec| spec.captures) {
        let lines = BACKENDS.iter().filter(|line| line.kinds.contains(kind)).count();
        assert_eq!(lines, 1, "{kind:?}");
    }
}

#[test]
fn the_example_backend_answers_with_where_a_process_sleeps() {
    if !root() {
        return;
    }
    let mut captures = load_example(&paths());
    assert_eq!(captures.support(CaptureKind::Stacks), Ok(Method { name: "/proc wchan", degraded: None }));
    let mut child = Command::new("sleep").arg("600").spawn().expect("a process");
    let sleeps = || {
        let wchan = fs::read_to_string(format!("/proc/{}/wchan", child.id())).unwrap_or_default();
        (wchan.contains("sleep")).then_some(wchan)
    };
    let function = until("the process to sleep", sleeps);
    begin(&mut captures, 1, of_stacks(Scope::Host, Duration::from_secs(1)));
    begin(&mut captures, 2, of_stacks(Scope::Host, Duration::from_millis(300)));
    let answers = [answer(&mut captures), answer(&mut captures)];
    assert_eq!(answers.each_ref().map(|(ticket, _)| *ticket), [Ticket(2), Ticket(1)]);
    for (ticket, capture) in answers {
        let CaptureData::Stacks(profile) = capture.data else { panic!("{ticket:?} asked for stacks") };
        let process = profile.top.iter().find(|process| process.pid == child.id()).expect("it slept");
        let looks = capture.lasted.as_millis() / 100;
        assert!((1..=looks).contains(&u128::from(process.samples)), "{process:?} in {looks} looks");
        let label = format!("{function}_[k]");
        assert!(profile.flame.iter().any(|node| node.label == label), "{label} is not in {profile:?}");
    }
    assert_eq!(captures.running(), 0);
    until("the thread's end", || (threads("onset-offcpu") == 0).then_some(()));
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

#[test]
fn a_kind_whose_backend_cannot_be_loaded_or_is_in_no_table_is_refused_with_the_reason() {
    let mut captures = load_example(&config::Paths { proc: "/nonexistent".into(), ..paths() });
    for (kind, words) in [(CaptureKind::Stacks, "CONFIG_KALLSYMS"), (CaptureKind::Io, NO_BACKEND)] {
        let reason = unsupported(&captures, kind).expect("it cannot be made");
        assert!(reason.contains(words), "{reason}");
        let request = Request { kind, scope: Scope::Host, lasting: Duration::ZERO };
        let refused = captures.begin(Ticket(1), request, &Containers::default());
        assert_eq!(refused, Err(Refusal::Unsupported(reason)));
    }
    let look = captures.sample_tasks(&Containers::default(), &mut |_| {});
    assert_eq!(look, TaskLook::Failed, "it is no backend of tasks");
    assert_eq!(captures.running(), 0);
}

#[test]
fn an_example_whose_thread_cannot_be_started_is_answered_as_broken() {
    let mut captures = load_example(&paths());
    captures.spawner.close(Instant::now() + PATIENCE);
    begin(&mut captures, 1, of_stacks(Scope::Host, Duration::ZERO));
    let (ticket, result) = captures.finished().expect("an answer is given at once");
    assert!(matches!((ticket, result), (Ticket(1), Err(Refusal::Failed(_)))));
}

#[test]
fn the_page_shows_the_code_that_is_compiled() {
    let page = include_str!("../../../docs/how-to-add-a-capture.md");
    let code = include_str!("../../../docs/example/offcpu.rs");
    let blocks: Vec<&str> =
        page.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 3, "{}", blocks.len());
    for block in blocks {
        assert!(code.contains(block.trim_end()), "not in docs/example/offcpu.rs:\n{block}");
    }
}
