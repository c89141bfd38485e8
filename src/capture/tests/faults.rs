//! Captures of real page faults: their stacks, weighed in bytes, and who holds most memory.

use super::*;
use crate::capture_data::Faults;

const MIB: u64 = 1 << 20;

/// What it writes to: three parts in one function for each part in the other.
const PARTS: [(&str, u64); 2] = [("three_parts", 192 * MIB), ("one_part", 64 * MIB)];

/// Waits until its file `go` is there; then writes to memory for the first time, in turns.
const TOUCHER: &str = r#"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static void touch(char *at, unsigned long bytes) { for (unsigned long i = 0; i < bytes; i += 4096) at[i] = 1; }
__attribute__((noinline)) void three_parts(char *at, unsigned long bytes) { touch(at, bytes); }
__attribute__((noinline)) void one_part(char *at, unsigned long bytes) { touch(at, bytes); }
int main(int argc, char **argv)
{
	unsigned long part = 2UL << 20, all = 256UL << 20, aligned;
	char *at = mmap(NULL, all + part, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	aligned = ((unsigned long)at + part - 1) & ~(part - 1);
	at = (char *)aligned;
	madvise(at, all, strcmp(argv[2], "huge") ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
	while (access(argv[1], F_OK))
		usleep(1000);
	for (char *end = at + all; at < end; at += 4 * part) {
		three_parts(at, 3 * part);
		one_part(at + 3 * part, part);
	}
	for (;;)
		pause();
}
"#;

/// A folder with the program in it, which goes away with the test.
struct Toucher(PathBuf);

impl Toucher {
    fn new(name: &str) -> Toucher {
        let folder = std::env::temp_dir().join(format!("onset-touch-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("touch.c"), TOUCHER).expect("a file");
        let toucher = Toucher(folder);
        let compiled = Command::new("cc")
            .args(["-O0", "-fno-omit-frame-pointer", "-Wl,--build-id", "-o"])
            .args([toucher.0.join("toucher"), toucher.0.join("touch.c")])
            .status();
        assert!(compiled.is_ok_and(|status| status.success()), "cc is needed");
        toucher
    }

    /// Starts it in a cgroup. Its id.
    fn start(&self, cgroup: &mut Cgroup, pages: &str) -> u32 {
        let at = self.0.display();
        cgroup.run(&format!("exec {at}/toucher {at}/go {pages}"))
    }

    fn go(&self) {
        fs::write(self.0.join("go"), "").expect("a file");
    }
}

impl Drop for Toucher {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn faults<'c>(capture: &'c Capture<'c>) -> &'c Faults<'c> {
    match &capture.data {
        CaptureData::Faults(faults) => faults,
        other => panic!("faults were asked for, not {other:?}"),
    }
}

fn of_faults(scope: Scope, lasting: Duration) -> Request {
    Request { kind: CaptureKind::Faults, scope, lasting }
}

/// Begins a capture as the agent does, which knows the containers' paths.
fn begin_at(captures: &mut Captures, cgroup: &Cgroup, key: Key, lasting: Duration) {
    let path = cgroup.path.strip_prefix(V1).expect("a v1 cgroup").display().to_string();
    let path = format!("/{path}");
    let request = of_faults(Scope::Container(key), lasting);
    captures.start(Ticket(1), request, &|each| each(&path, key)).expect("nothing else of this scope runs");
}

fn both_functions_are_seen_with_their_bytes(pages: &str) {
    let _alone = alone();
    let toucher = Toucher::new(pages);
    let (mut mine, mut other) = (Cgroup::new(V1, "touch"), Cgroup::new(V1, "still"));
    let (pid, _) = (toucher.start(&mut mine, pages), toucher.start(&mut other, pages));
    let mut captures = load(false);
    captures.follow(mine.id(), key(4));
    begin_at(&mut captures, &mine, key(4), Duration::from_secs(4));
    until("the sampling to begin", || (open("anon_inode:[perf_event]") > 0).then_some(()));
    // Its program and its libraries have been read by now; let it aim.
    std::thread::sleep(Duration::from_millis(300));
    toucher.go();
    let (_, capture) = answer(&mut captures);
    let faults = faults(&capture);
    assert_eq!((capture.scope, capture.lost), (Scope::Container(key(4)), 0));
    let of = |label: &str| -> u64 {
        faults.flame.iter().filter(|node| node.label == label).map(|node| node.value).sum()
    };
    for (label, bytes) in PARTS {
        let off = (of(label) as f64 - bytes as f64).abs() / bytes as f64;
        eprintln!("{pages} {label}: {} of {bytes} bytes", of(label));
        assert!(off < 0.1, "{label}: {} of {bytes} bytes: {:#?}", of(label), faults.flame);
    }
    assert!(of("all") <= (of("three_parts") + of("one_part")) * 101 / 100, "{:#?}", faults.flame);
    assert_eq!(faults.flame.get(1).map(|node| node.label), Some("toucher"));
    let top: Vec<_> = faults.top.iter().map(|one| (one.pid, one.comm)).collect();
    assert_eq!(top, [(pid, "toucher")], "those of the container only");
    assert!((4096..64 * MIB).contains(&faults.top[0].rss_bytes), "as it was before: {:?}", faults.top);
}

#[test]
fn faults_of_small_pages_are_weighed_by_where_they_come_from() {
    if root() {
        both_functions_are_seen_with_their_bytes("small");
    }
}

#[test]
fn a_huge_page_weighs_all_of_its_bytes() {
    let huge = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    if root() && huge.contains("[never]") | huge.is_empty() {
        return eprintln!("no huge pages on this kernel: nothing to see");
    }
    if root() {
        both_functions_are_seen_with_their_bytes("huge");
    }
}

#[test]
fn nothing_stays_attached_and_a_second_capture_works() {
    if !root() {
        return;
    }
    let _alone = alone();
    let mut captures = load(false);
    let attached = || (open("anon_inode:[perf_event]"), open("anon_inode:bpf_link"));
    let idle = attached();
    for ticket in [1, 2] {
        begin(&mut captures, ticket, of_faults(Scope::Host, Duration::from_millis(300)));
        assert_eq!(
            captures.begin(Ticket(9), of_faults(Scope::Host, Duration::from_secs(1)), &Containers::default()),
            Err(Refusal::Busy)
        );
        let (answered, capture) = answer(&mut captures);
        assert_eq!(answered, Ticket(ticket));
        let top = &faults(&capture).top;
        assert!(top.len() > 1 && top.is_sorted_by_key(|one| std::cmp::Reverse(one.rss_bytes)), "{top:?}");
        until("the threads' end", || (threads("onset-faults") == 0).then_some(()));
        assert_eq!(attached(), idle);
    }
}

#[test]
fn both_kinds_of_stacks_are_sampled_at_the_same_time() {
    if !root() {
        return;
    }
    let _alone = alone();
    let mut captures = load(false);
    begin(&mut captures, 1, of_faults(Scope::Host, Duration::from_millis(500)));
    begin(&mut captures, 2, of_stacks(Scope::Host, Duration::from_millis(500)));
    let mut kinds: Vec<_> = [answer(&mut captures), answer(&mut captures)]
        .into_iter()
        .map(|(ticket, capture)| (ticket, matches!(capture.data, CaptureData::Faults(_))))
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds, [(Ticket(1), true), (Ticket(2), false)]);
}

#[test]
fn a_look_at_memory_is_over_at_once_and_leaves_no_thread() {
    let mut captures = load_from(&without_btf(), false);
    assert_eq!(captures.support(CaptureKind::Memory), Ok(Method { name: "/proc", degraded: None }));
    let request =
        Request { kind: CaptureKind::Memory, scope: Scope::Host, lasting: Duration::from_secs(600) };
    begin(&mut captures, 1, request);
    begin(&mut captures, 2, request);
    for ticket in [1, 2] {
        let (answered, capture) = answer(&mut captures);
        assert_eq!(answered, Ticket(ticket));
        let CaptureData::Memory(all) = &capture.data else { panic!("{capture:?}") };
        let own = all.iter().find(|one| one.pid == std::process::id()).expect("this very process");
        assert!(own.rss_bytes > MIB && all.is_sorted_by_key(|one| std::cmp::Reverse(one.rss_bytes)));
    }
    until("the thread's end", || (threads("onset-memory") == 0).then_some(()));
}
