//! OOM kills in a cgroup of 64 MiB: one event for each, with the victim and the limit.

use std::process::Command;

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::rig::{Agent, Folder, SOON, await_that, command, compile, number, only, root, text};

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
fn a_container_that_is_gone_with_its_victim_is_told_of() {
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
fn it_is_attached_only_while_it_is_enabled() {
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
