//! Programs that execute others, are renamed, or get the id of one that ended, while they are sampled.

use super::*;
use crate::capture_data::Profile;

/// Burns in a function until a file is there; then does what it is told to. Each such program lies at the
/// same addresses as the others, and has no build id: only what it is tells its code from theirs.
const BURNER: &str = r#"
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
volatile unsigned long sink;
__attribute__((noinline)) void FUNCTION(const char *until)
{
	while (access(until, F_OK))
		for (int i = 0; i < 10000000; i++)
			sink += i;
}
int main(int argc, char **argv)
{
	PADDING
	FUNCTION(argv[1]);
	if (argc > 3 && !strcmp(argv[2], "exec"))
		execl(argv[3], argv[3], "/nonexistent", (char *)0);
	if (argc > 3 && !strcmp(argv[2], "name"))
		prctl(PR_SET_NAME, argv[3], 0, 0, 0);
	FUNCTION("/nonexistent");
}
"#;

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("onset-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    /// A program that burns in a function of its own name, `padding` bytes into its code.
    fn burner(&self, name: &str, padding: usize) -> String {
        let (source, binary) = (self.0.join(format!("{name}.c")), self.0.join(name));
        fs::write(&source, BURNER).expect("a file");
        let compiled = Command::new("cc")
            .args(["-O1", "-fno-omit-frame-pointer", "-no-pie", "-static", "-Wl,--build-id=none", "-o"])
            .args([&binary, &source])
            .arg(format!("-DFUNCTION={name}_burns"))
            .arg(format!("-DPADDING=__asm__ volatile(\".skip {padding}, 0x90\");"))
            .status();
        assert!(compiled.is_ok_and(|status| status.success()), "cc is needed");
        binary.display().to_string()
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn go(&self) {
        fs::write(self.0.join("go"), "").expect("a file");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn profile(capture: Capture<'static>) -> Profile<'static> {
    match capture.data {
        CaptureData::Stacks(profile) => profile,
        other => panic!("stacks were asked for, not {other:?}"),
    }
}

/// The samples below a process's name that have a function in them.
fn below(profile: &Profile<'_>, comm: &str, function: &str) -> u64 {
    let (mut within, mut samples) = (false, 0);
    for node in &profile.flame {
        if node.level == 1 {
            within = node.label == comm;
        }
        if within && node.label == function {
            samples += node.value;
        }
    }
    samples
}

fn top<'p>(profile: &Profile<'p>) -> Vec<(u32, &'p str)> {
    let mut top: Vec<_> = profile.top.iter().map(|process| (process.pid, process.comm)).collect();
    top.sort_unstable();
    top
}

/// Captures what is in a cgroup for three seconds, with something done in the middle.
fn capture(cgroup: &Cgroup, middle: impl FnOnce()) -> Profile<'static> {
    let mut captures = load(false);
    captures.follow(cgroup.id(), key(1));
    let request = of_stacks(Scope::Container(key(1)), Duration::from_secs(3));
    begin(&mut captures, 1, request);
    until("the sampling to begin", || (open("anon_inode:[perf_event]") > 0).then_some(()));
    std::thread::sleep(Duration::from_millis(1200));
    middle();
    profile(answer(&mut captures).1)
}

#[test]
fn each_sample_of_a_process_that_executes_another_program_belongs_to_the_one_that_ran() {
    if !root() {
        return;
    }
    let _alone = alone();
    let folder = Folder::new("exec");
    let (first, second) = (folder.burner("first", 16), folder.burner("second", 100_000));
    let mut cgroup = Cgroup::new(V1, "exec");
    let pid = cgroup.run(&format!("exec {first} {} exec {second}", folder.file("go")));
    let profile = capture(&cgroup, || folder.go());
    assert_eq!(top(&profile), [(pid, "first"), (pid, "second")]);
    for (comm, own, other) in
        [("first", "first_burns", "second_burns"), ("second", "second_burns", "first_burns")]
    {
        assert!(below(&profile, comm, own) > 0, "{comm} burns: {:#?}", profile.flame);
        assert_eq!(below(&profile, comm, other), 0, "{comm}: {:#?}", profile.flame);
    }
}

#[test]
fn a_renamed_process_shows_its_newest_name_with_all_of_its_samples() {
    if !root() {
        return;
    }
    let _alone = alone();
    let folder = Folder::new("rename");
    let program = folder.burner("before", 16);
    let mut cgroup = Cgroup::new(V1, "rename");
    let pid = cgroup.run(&format!("exec {program} {} name after", folder.file("go")));
    let profile = capture(&cgroup, || folder.go());
    assert_eq!(top(&profile), [(pid, "after")]);
    assert!(below(&profile, "after", "before_burns") > 0, "{:#?}", profile.flame);
}

#[test]
fn a_process_that_gets_the_id_of_one_that_ended_has_its_own_name_and_code() {
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";
    if !root() || !Path::new(LAST).exists() {
        return;
    }
    let _alone = alone();
    let folder = Folder::new("pid");
    let (first, second) = (folder.burner("older", 16), folder.burner("younger", 100_000));
    let mut old = Cgroup::new(V1, "pid");
    let mut new = old.below("new");
    let pid = old.run(&format!("exec {first} /nonexistent"));
    let mut running = std::mem::take(&mut old.children);
    let profile = capture(&old, || {
        for child in &mut running {
            child.kill().expect("it runs");
            child.wait().expect("it is ours");
        }
        until("its id to be given out again", || {
            fs::write(LAST, (pid - 1).to_string()).expect("root may");
            let next = new.run(&format!("exec {second} /nonexistent"));
            if next != pid {
                for child in &mut new.children {
                    let _ = child.kill().and_then(|()| child.wait());
                }
            }
            (next == pid).then_some(())
        });
    });
    drop(new);
    assert!(top(&profile).contains(&(pid, "older")) && top(&profile).contains(&(pid, "younger")));
    assert_eq!(below(&profile, "older", "younger_burns") + below(&profile, "younger", "older_burns"), 0);
    assert!(below(&profile, "older", "older_burns") > 0 && below(&profile, "younger", "younger_burns") > 0);
}
