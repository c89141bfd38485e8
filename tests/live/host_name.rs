//! The host's name in documents, in a namespace where it can be changed without harm.

use std::process::Command;

use serde_json::Value;

use crate::rig::{self, Agent, Folder, ONSET, SOON, command, done, only, root};

/// A command that runs another where the host has this name.
fn named(name: &str) -> Command {
    let mut by = command("unshare");
    by.args(["--uts", "sh", "-c", "hostname \"$0\" && exec \"$@\"", name]).arg(ONSET);
    by
}

fn rename(agent: &Agent, name: &str) {
    done(command("nsenter").args(["--uts", "-t", &agent.pid().to_string(), "hostname", name]));
}

/// The name in the document of a capture that is asked for now.
fn told(agent: &Agent) -> Value {
    let id = done(&mut agent.onset(&["trigger", "dload"])).trim().to_owned();
    agent.event("the asked-for event", SOON, |event| event["tracer_id"] == id.as_str())["hostname"].clone()
}

#[test]
fn documents_have_the_host_name_of_their_time() {
    if !root("unshare --uts") {
        return;
    }
    let folder = Folder::new();
    let config = rig::config(&folder, "", &only("dload", ""));
    let agent = Agent::start_by(&mut named("early-name"), folder, config);
    assert_eq!(told(&agent), "early-name");
    for name in ["late-name", "later.example.org"] {
        rename(&agent, name);
        agent.said.wait("the new name", SOON, |line| line.contains(name).then_some(()));
        assert_eq!(told(&agent), name);
    }
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn a_configured_host_name_overrides_the_kernels() {
    if !root("unshare --uts") {
        return;
    }
    let folder = Folder::new();
    let config = rig::config(&folder, "hostname = \"node-1\"", &only("dload", ""));
    let agent = Agent::start_by(&mut named("early-name"), folder, config);
    rename(&agent, "late-name");
    agent.signal(libc::SIGHUP);
    agent.said.wait("a reload", SOON, |line| line.contains("config unchanged").then_some(()));
    assert_eq!(told(&agent), "node-1");
    assert_eq!(agent.leave(), Some(0));
}
