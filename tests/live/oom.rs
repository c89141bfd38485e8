//! OOM kills in a cgroup of 64 MiB: one event for each, with the victim and the limit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::rig::{
    Agent, Folder, KillOnDrop, SOON, await_that, command, compile, lab, number, only, root, start, text,
};

const MIB: u64 = 1 << 20;

/// Takes memory until it is killed.
pub const EATER: &str = r#"
#include <sys/mman.h>
int main(void)
{
	unsigned long all = 256UL << 20;
	char *at = mmap(0, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (unsigned long i = 0; i < all; i += 4096)
		at[i] = 1;
	return 0;
}
"#;

pub fn small(cgroup: &Cgroup) {
    let bytes = (64 * MIB).to_string();
    assert!(cgroup.write("memory.limit_in_bytes", &bytes) || cgroup.write("memory.max", &bytes));
    // Without this it would be swapped out instead, where there is swap.
    let _ = cgroup.write("memory.swappiness", "0") || cgroup.write("memory.swap.max", "0");
}

/// Runs it until it is killed. Its id.
pub fn eat(cgroup: &Cgroup, eater: &mut Command) -> u32 {
    use std::os::unix::process::ExitStatusExt;
    let mut eater = cgroup.start(eater);
    let status = await_that("the kill", SOON, || eater.0.try_wait().unwrap());
    assert_eq!(status.signal(), Some(libc::SIGKILL));
    eater.0.id()
}

fn victims(agent: &Agent) -> Vec<Value> {
    agent.events().iter().map(|event| event["tracer_data"]["victim"]["pid"].clone()).collect()
}

#[test]
fn each_kill_is_one_event_that_names_its_victim_and_the_limit() {
    if !root("an OOM kill") {
        return;
    }
    let folder = Folder::new();
    let eater = compile(&folder, "eater", EATER);
    let cgroup = Cgroup::new("oom");
    small(&cgroup);
    let agent = Agent::start(&only("oom", ""));
    let pids = [eat(&cgroup, &mut command(&eater)), eat(&cgroup, &mut command(&eater))];
    for pid in pids {
        let event = agent.event("the kill", SOON, |event| event["tracer_data"]["victim"]["pid"] == pid);
        assert_eq!((text(&event, "/tracer_name"), text(&event, "/tracer_type")), ("oom", "event"));
        assert_eq!(text(&event, "/container_id"), cgroup.id.as_str());
        assert_eq!(text(&event, "/tracer_data/victim/comm"), "eater");
        assert_eq!(text(&event, "/tracer_data/victim/container_id"), cgroup.id.as_str());
        let held = number(&event, "/tracer_data/victim/rss_bytes") / MIB as f64;
        assert!((50.0..=66.0).contains(&held), "about all of it: {held} MiB");
        assert_eq!(number(&event, "/tracer_data/killer/pid"), f64::from(pid), "it asked for it itself");
        assert_eq!(text(&event, "/tracer_data/oom_cgroup_path"), cgroup.path());
        assert_eq!(number(&event, "/tracer_data/limit_bytes"), (64 * MIB) as f64);
        let usage = number(&event, "/tracer_data/usage_bytes");
        assert!((60.0..=64.0).contains(&(usage / MIB as f64)), "{usage}");
        assert!(number(&event, "/tracer_data/host_memory/total_bytes") > (128 * MIB) as f64, "the host's");
    }
    assert_eq!(victims(&agent), pids, "one event for each kill, in their order");
    assert_eq!(agent.metric("onset_oom_kills_total"), Some(2.0));
    assert_eq!(agent.metric("onset_lost_records_total{source=\"oom\"}"), Some(0.0));
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn an_oom_kill_of_a_container_that_is_gone_is_reported() {
    if !root("an OOM kill in a container that goes") {
        return;
    }
    let folder = Folder::new();
    let eater = compile(&folder, "eater", EATER);
    let agent = Agent::start(&only("oom", ""));
    let mut told = Vec::new();
    for _ in 0..5 {
        // Made, killed in and removed in a moment.
        let cgroup = Cgroup::new("gone");
        small(&cgroup);
        let pid = eat(&cgroup, &mut command(&eater));
        told.push((pid, cgroup.id.clone()));
    }
    for (pid, id) in told {
        let event = agent.event("the kill", SOON, |event| event["tracer_data"]["victim"]["pid"] == pid);
        assert_eq!(text(&event, "/tracer_data/victim/container_id"), id);
        assert_eq!(number(&event, "/tracer_data/limit_bytes"), (64 * MIB) as f64);
    }
    assert_eq!(agent.events().len(), 5);
}

#[test]
fn the_oom_hook_is_attached_only_while_oom_is_enabled() {
    if !root("the hook of oom") {
        return;
    }
    let folder = Folder::new();
    let eater = compile(&folder, "eater", EATER);
    let cgroup = Cgroup::new("off");
    small(&cgroup);
    let agent = Agent::start(&only("oom", "enabled = false"));
    let links = || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().flatten();
        let link = |file: &std::fs::DirEntry| {
            std::fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:bpf_link")
        };
        files.filter(link).count()
    };
    let off = links();
    eat(&cgroup, &mut command(&eater));
    let text = std::fs::read_to_string(&agent.config).unwrap();
    std::fs::write(&agent.config, text.replace("enabled = false", "enabled = true")).unwrap();
    // All tracers are on now; none of the others sees anything here.
    agent.signal(libc::SIGHUP);
    await_that("the hook", SOON, || (links() == off + 2).then_some(()));
    let pid = eat(&cgroup, &mut command(&eater));
    agent.event("the kill", SOON, |event| event["tracer_data"]["victim"]["pid"] == pid);
    std::fs::write(&agent.config, text).unwrap();
    agent.signal(libc::SIGHUP);
    await_that("the end of the hook", SOON, || (links() == off).then_some(()));
    let oom = agent.events().into_iter().filter(|event| event["tracer_name"] == "oom").count();
    assert_eq!(oom, 1, "what happened while it was off is not told");
}

/// Where a container's memory is counted.
fn memory_folder(cgroup: &Cgroup) -> PathBuf {
    let v1 = Path::new("/sys/fs/cgroup/memory");
    let root = if v1.is_dir() { v1 } else { Path::new("/sys/fs/cgroup") };
    root.join(cgroup.path().trim_start_matches('/'))
}

/// Cgroups below another, one in the other; gone when this is dropped.
struct Nested(Vec<PathBuf>);

impl Nested {
    fn below(top: PathBuf, names: impl Iterator<Item = String>) -> Nested {
        let mut nested = Nested(Vec::new());
        let mut at = top;
        for name in names {
            // On v2 only; v1 has all that it has in all.
            let _ = fs::write(at.join("cgroup.subtree_control"), "+memory");
            at = at.join(name);
            fs::create_dir(&at).unwrap();
            nested.0.push(at.clone());
        }
        nested
    }

    fn innermost(&self) -> &Path {
        self.0.last().unwrap()
    }

    /// Starts a program in the innermost of them.
    fn start(&self, program: &Path, arguments: &[&str]) -> KillOnDrop {
        let mut sh = command("sh");
        sh.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(self.innermost()).arg(program);
        start(sh.args(arguments))
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        for folder in self.0.iter().rev() {
            (0..200).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(5));
                fs::remove_dir(folder).is_ok() || !folder.exists()
            });
        }
    }
}

/// How often the kernel killed for want of memory since boot.
fn kills_of_the_host() -> u64 {
    let text = fs::read_to_string("/proc/vmstat").unwrap();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap().parse().unwrap()
}

#[test]
fn an_oom_events_cgroup_path_is_whole_at_any_depth() {
    if !root("deep cgroups") {
        return;
    }
    let folder = Folder::new();
    let eater = compile(&folder, "eater", EATER);
    let agent = Agent::start(&only("oom", ""));
    for (levels, bytes) in [(1, 144), (20, 3), (15, 200)] {
        let cgroup = Cgroup::new("deep");
        let names = (0..levels).map(|level| format!("{level:l>bytes$}"));
        let nested = Nested::below(memory_folder(&cgroup), names.clone());
        let limit = (64 * MIB).to_string();
        let limited = ["memory.limit_in_bytes", "memory.max"]
            .iter()
            .any(|file| fs::write(nested.innermost().join(file), &limit).is_ok());
        assert!(limited, "{}", nested.innermost().display());
        let _ = fs::write(nested.innermost().join("memory.swap.max"), "0");
        let mut eater = nested.start(&eater, &[]);
        let pid = eater.0.id();
        await_that("the kill", SOON, || eater.0.try_wait().unwrap());
        let event = agent.event("the kill", SOON, |event| event["tracer_data"]["victim"]["pid"] == pid);
        let path = format!("{}/{}", cgroup.path(), names.collect::<Vec<_>>().join("/"));
        assert_eq!(text(&event, "/tracer_data/oom_cgroup_path"), path, "{levels} levels of {bytes} bytes");
        assert_eq!(text(&event, "/tracer_data/victim/container_id"), cgroup.id, "it is in that container");
        assert_eq!(number(&event, "/tracer_data/limit_bytes"), (64 * MIB) as f64);
        assert!(event["tracer_data"].get("oom_cgroup_path_cut").is_none(), "{event:#}");
    }
    assert_eq!(agent.metric("onset_oom_kills_total"), Some(3.0));
}

#[test]
fn a_process_that_was_already_dying_is_no_oom_kill() {
    let freezer = Path::new("/sys/fs/cgroup/freezer");
    if !root("a dying victim") || !freezer.join("tasks").exists() {
        println!("SKIPPED: a killed process is held by cgroup v1's freezer, which is not mounted here");
        return;
    }
    let folder = Folder::new();
    let hog = compile(
        &folder,
        "hog",
        "#include <stdlib.h>\n#include <unistd.h>\nint main(int c, char **v)\n{\n\tlong all = atol(v[1]) << 20;\n\tchar *at = malloc(all);\n\n\tfor (long i = 0; i < all; i += 4096)\n\t\tat[i] = 1;\n\tpause();\n}\n",
    );
    let agent = Agent::start(&only("oom", ""));
    let cgroup = Cgroup::new("dying");
    assert!(cgroup.write("memory.limit_in_bytes", &(100 * MIB).to_string()));
    let frozen = Nested::below(freezer.into(), std::iter::once(format!("onset-live-{}", std::process::id())));
    let state = frozen.innermost().join("freezer.state");
    let thaw = Thaw(state.clone());
    let hold = |mib: &str| cgroup.start(command(&hog).arg(mib));
    let mut dying = hold("70");
    let usage = || {
        let file = memory_folder(&cgroup).join("memory.usage_in_bytes");
        fs::read_to_string(file).unwrap().trim().parse::<u64>().unwrap()
    };
    await_that("its memory", SOON, || (usage() > 70 * MIB).then_some(()));
    fs::write(frozen.innermost().join("cgroup.procs"), dying.0.id().to_string()).unwrap();
    fs::write(&state, "FROZEN").unwrap();
    await_that("it is frozen", SOON, || {
        (fs::read_to_string(&state).unwrap().trim() == "FROZEN").then_some(())
    });
    // A person's kill: it is dying from here on, but cannot.
    dying.0.kill().unwrap();
    let before = kills_of_the_host();
    assert!(dying.0.try_wait().unwrap().is_none(), "it is still there");
    let mut asks = hold("60");
    // Marked by the kernel as its victim it is let go, and its memory is what the other asks for.
    await_that("the dying one's end", SOON, || dying.0.try_wait().unwrap());
    await_that("the other's memory", SOON, || (usage() > 60 * MIB).then_some(()));
    assert!(asks.0.try_wait().unwrap().is_none());
    let oom_control = fs::read_to_string(memory_folder(&cgroup).join("memory.oom_control")).unwrap();
    assert!(oom_control.contains("oom_kill 0\n"), "the kernel counts no kill: {oom_control}");
    // What it does count comes after, through the same ring: whatever it tells of was told before that.
    let small_one = Cgroup::new("after");
    small(&small_one);
    let pid = eat(&small_one, &mut command(compile(&folder, "eater", EATER)));
    agent.event("the kill", SOON, |event| event["tracer_data"]["victim"]["pid"] == pid);
    assert_eq!(victims(&agent), [pid], "only that one was killed");
    assert_eq!(agent.metric("onset_oom_kills_total"), Some((kills_of_the_host() - before) as f64));
    drop(thaw);
}

/// Lets go of what is frozen there.
struct Thaw(PathBuf);

impl Drop for Thaw {
    fn drop(&mut self) {
        let _ = fs::write(&self.0, "THAWED");
    }
}

#[test]
#[ignore = "it wants cgroup v2 with its controllers: `make lab` runs it in VMs"]
fn every_victim_of_an_oom_group_kill_is_named() {
    lab();
    let folder = Folder::new();
    let eater = compile(&folder, "eater", EATER);
    let cgroup = Cgroup::new("group");
    small(&cgroup);
    assert!(cgroup.write("memory.oom.group", "1"));
    let agent = Agent::start(&only("oom", ""));
    let mut others = [(); 3].map(|()| cgroup.start(command("sleep").arg("1000")));
    let mut killed = vec![eat(&cgroup, &mut command(&eater))];
    for other in &mut others {
        await_that("its end with the group", SOON, || other.0.try_wait().unwrap());
        killed.push(other.0.id());
    }
    for pid in &killed {
        let event = agent.event("its kill", SOON, |event| event["tracer_data"]["victim"]["pid"] == *pid);
        let comm = if *pid == killed[0] { "eater" } else { "sleep" };
        assert_eq!(text(&event, "/tracer_data/victim/comm"), comm);
        assert_eq!(text(&event, "/tracer_data/victim/container_id"), cgroup.id);
        assert_eq!(text(&event, "/tracer_data/oom_cgroup_path"), cgroup.path());
    }
    assert_eq!(victims(&agent).len(), killed.len(), "each of them once");
    assert_eq!(agent.metric("onset_oom_kills_total"), Some(killed.len() as f64));
}
