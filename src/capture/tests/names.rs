//! Names of a stack that a hook's record brings: the tracer of docs/example, its program and its captures,
//! on reclaims of a real process.

use super::*;
use crate::bpf::{Drained, Followed, Hook, Meter, Site};
use crate::capture_data::{ProgramPlace, RecordStack, StackNames};
use crate::layout::reclaim::Reclaim;
use crate::tracer::play::Play;
use crate::tracer::{Event, RECLAIM, Trigger};

/// Writes to a file of its own for ever: in a small cgroup, each page takes the place of another one.
const FILLER: &str = r#"
#include <fcntl.h>
#include <unistd.h>
static char block[1 << 16];
/* write(2) has no frame of its own, so the caller of its caller is the first that is seen. */
__attribute__((noinline)) int put(int file) { return write(file, block, sizeof(block)) > 0; }
__attribute__((noinline)) int fill_the_cache(int file) { return put(file) && lseek(file, 0, SEEK_CUR) < (64 << 20); }
int main(int argc, char **argv)
{
	for (;;) {
		int file = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
		while (fill_the_cache(file));
		close(file);
	}
}
"#;

/// The filler in a cgroup of 16 MiB; all of it goes away with the test.
struct Filler {
    folder: PathBuf,
    _cgroup: Cgroup,
    pid: u32,
}

impl Filler {
    fn start() -> Filler {
        let folder = std::env::temp_dir().join(format!("onset-filler-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("filler.c"), FILLER).expect("a file");
        let mut cc = Command::new("cc");
        // A static one: its write(2) is no stub of a library without frame pointers in between.
        cc.args(["-O0", "-fno-omit-frame-pointer", "-static", "-o"]);
        let compiled = cc.args([folder.join("filler"), folder.join("filler.c")]).status();
        assert!(compiled.is_ok_and(|status| status.success()), "cc is needed");
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (root, limit) = if v1.is_dir() {
            (v1, "memory.limit_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup"), "memory.max")
        };
        let mut cgroup = Cgroup::new(&root.display().to_string(), "filler");
        fs::write(cgroup.path.join(limit), "16777216").expect("a limit");
        let at = folder.display();
        let pid = cgroup.run(&format!("exec {at}/filler {at}/file"));
        Filler { folder, _cgroup: cgroup, pid }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The next record of this process.
fn record_of(hook: &mut Hook, pid: u32) -> Vec<u8> {
    until("a reclaim of it", || {
        let mut own = None;
        while hook.drain(|record| {
            let is = Reclaim::read(record).is_some_and(|(one, _)| one.pid == pid);
            own = own.take().or(is.then(|| record.to_vec()));
        }) == Drained::More
        {}
        own
    })
}

#[test]
fn a_records_addresses_are_named_before_its_document_is_made() {
    if !root() {
        return;
    }
    let _alone = alone();
    let followed = Followed::create(16).expect("a map");
    let site = Site { sys: Path::new("/sys"), followed: &followed, unified: false, cpus: &[] };
    let mut hook =
        Hook::attach("reclaim", &site, vec![("slow_ns", 0)], &mut Meter::default()).expect("a hook");
    let filler = Filler::start();
    let record = record_of(&mut hook, filler.pid);
    let mut play = Play::of(&RECLAIM, "", 1 << 20);
    play.event(Event::Record(&record));
    let (asked, stack) = (play.seen.open[0], play.seen.stacks[0]);
    let mut captures = load(false);
    let begun = crate::fuzz::heap::untouched(|| captures.name(asked.0, asked.1, &stack));
    begun.expect("nothing else runs");
    let (ticket, capture) = answer(&mut captures);
    assert_eq!(play.answer(ticket, Ok(&capture)), Some(Trigger::Stuck));
    let data = &play.seen.events[0].1["tracer_data"];
    eprintln!("{data:#}");
    let frames = |list: &str| -> Vec<&str> {
        data[list].as_array().expect("frames").iter().filter_map(serde_json::Value::as_str).collect()
    };
    let (kernel, user) = (frames("kernel_stack"), frames("user_stack"));
    assert!(kernel.iter().any(|name| name.contains("try_to_free")), "what reclaims: {kernel:?}");
    assert!(kernel.iter().any(|name| name.contains("write")), "what asked for memory: {kernel:?}");
    assert!(user.contains(&"fill_the_cache") && user.contains(&"main"), "who called the kernel: {user:?}");
    // Another program has the process's id now, as far as its place tells.
    let place = ProgramPlace { start_stack: stack.program.start_stack ^ 0x1000, ..stack.program };
    let other =
        RecordStack::new(filler.pid, place, stack.kernel().iter().copied(), stack.user().iter().copied());
    let StackNames { kernel: again, user: unknown } = names(&mut captures, &other);
    assert!(again.iter().copied().eq(kernel), "the kernel is the same");
    assert!(unknown.iter().all(|name| *name == "[unknown]"), "no name is better than another's: {unknown:?}");
    assert_eq!(names(&mut captures, &RecordStack::default()), StackNames::default(), "nothing to be named");
}

/// What is answered to a stack.
fn names(captures: &mut Captures, stack: &RecordStack) -> StackNames<'static> {
    let request = Request { kind: CaptureKind::Names, scope: Scope::Host, lasting: Duration::ZERO };
    captures.name(Ticket(1), request, stack).expect("nothing else runs");
    match answer(captures).1.data {
        CaptureData::Names(names) => names,
        other => panic!("{other:?}"),
    }
}
