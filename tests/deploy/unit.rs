//! The systemd unit: how hard it is, that it gives the rights that were tested, and that every system
//! call of the agent passes its filter.

use std::collections::BTreeSet;

use crate::rig::{self, Agent, Folder, ONSET, SOON, command, done, root, run};
use crate::{file, read};

const UNIT: &str = "deploy/systemd/onset.service";

/// As tests/live/confined.rs runs the agent.
pub const CAPABILITIES: [&str; 5] =
    ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYSLOG"];

/// All values of a key, in their order.
fn values(key: &str) -> Vec<String> {
    let text = read(UNIT);
    text.lines().filter_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.to_owned())).collect()
}

#[test]
fn the_units_systemd_exposure_is_under_three() {
    let said =
        done(command("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(file(UNIT)));
    let line = said.lines().find(|line| line.contains("Overall exposure level")).unwrap();
    let level: f64 = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    assert!(level < 3.0, "{line}");
}

#[test]
fn systemd_analyze_accepts_the_unit() {
    // Where it is not installed, its program is not there: one that is stands in.
    let folder = Folder::new();
    let unit = read(UNIT).replace("/usr/local/bin/onset", std::path::Path::new(&ONSET).to_str().unwrap());
    let path = folder.file("onset.service", &unit);
    let output = run(command("systemd-analyze").arg("verify").arg(path));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_unit_grants_the_tested_capabilities_and_the_configs_paths() {
    let set = |key: &str| -> BTreeSet<String> {
        values(key).iter().flat_map(|value| value.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect()
    };
    let tested: BTreeSet<String> = CAPABILITIES.map(str::to_owned).into();
    assert_eq!(set("CapabilityBoundingSet"), tested);
    assert_eq!(set("AmbientCapabilities"), tested);
    assert!(
        read("tests/live/confined.rs").contains(&CAPABILITIES.map(|name| format!("{name:?}")).join(", "))
    );
    assert_eq!(
        (values("NoNewPrivileges"), values("ProtectSystem")),
        (vec!["yes".into()], vec!["strict".into()])
    );
    assert_eq!(
        (values("StateDirectory"), values("RuntimeDirectory")),
        (vec!["onset".into()], vec!["onset".into()])
    );
}

#[test]
fn the_unit_starts_after_the_host_name_is_set() {
    let after = values("After").join(" ");
    for unit in ["cloud-init.service", "cloud-init-network.service", "systemd-hostnamed.service"] {
        assert!(after.split(' ').any(|name| name == unit), "{unit} in {after}");
    }
    for strong in ["Requires", "Wants", "BindsTo", "Requisite"] {
        assert!(values(strong).is_empty(), "it also starts where there is none of these");
    }
    let own = ["ProtectHostname", "PrivateIPC", "PrivateUsers"].map(values);
    assert!(own.iter().all(|value| value.is_empty()), "no namespace of its own has the host's name: {own:?}");
    assert!(!allowed().contains("sethostname"), "and it cannot set one");
}

/// What doctor finds needed on a host: names of capabilities.
pub fn needed(host: &onset::confine::Host) -> BTreeSet<String> {
    let rights = onset::confine::CAPABILITIES.iter();
    rights.filter(|right| right.needed(host)).map(|right| right.name.to_owned()).collect()
}

/// A host as the unit makes it, with the sysctl that is installed beside it.
pub const HOST: onset::confine::Host = onset::confine::Host {
    release: (5, 10),
    btf: true,
    triggers_refused: false,
    sampling_guarded: false,
    memlock: true,
    open_symbols: false,
};

#[test]
fn doctor_needs_exactly_the_capabilities_of_the_unit() {
    assert_eq!(values("LimitMEMLOCK"), ["infinity"], "so maps ask for no capability before 5.11");
    assert!(read("deploy/systemd/sysctl.conf").contains("kernel.perf_event_paranoid = 2"));
    for key in ["CapabilityBoundingSet", "AmbientCapabilities"] {
        let given: BTreeSet<String> = values(key)[0].split(' ').map(str::to_owned).collect();
        assert_eq!(given, needed(&HOST), "{key}");
    }
    // Its comment tells what each is for, and the docs have a row for each.
    let (unit, docs) = (read(UNIT), read("docs/privileges.md"));
    for right in &onset::confine::CAPABILITIES {
        let row =
            docs.lines().find(|line| line.starts_with("| ") && line.contains(&format!("`{}`", right.name)));
        let row = row.unwrap_or_else(|| panic!("{} is not in docs/privileges.md", right.name));
        assert_eq!(row.contains("optional"), right.optional, "{row}");
        let told = unit.lines().any(|line| line.starts_with('#') && line.contains(right.name));
        assert_eq!(told, right.needed(&HOST), "{}", right.name);
    }
}

/// The names in a set of systemd's, and in the sets that it has in it.
fn expand(name: &str, into: &mut BTreeSet<String>) {
    let Some(set) = name.strip_prefix('@') else {
        into.insert(name.to_owned());
        return;
    };
    let said = done(command("systemd-analyze").arg("syscall-filter").arg(format!("@{set}")));
    let names = said.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    names.for_each(|name| expand(name, into));
}

fn allowed() -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for line in values("SystemCallFilter") {
        let mut names = BTreeSet::new();
        let plain = line.trim_start_matches('~');
        plain.split(' ').for_each(|name| expand(name, &mut names));
        if plain.len() < line.len() {
            allowed.retain(|name| !names.contains(name));
        } else {
            allowed.append(&mut names);
        }
    }
    allowed
}

/// The calls that were made after the last program was started, as strace(1) wrote them.
fn calls(trace: &str) -> BTreeSet<String> {
    let started = trace.rfind("execve(").unwrap();
    let lines = trace[started..].lines().skip(1);
    let name = |line: &str| {
        let (_pid, call) = line.split_once(' ')?;
        let (name, _) = call.trim_start().trim_start_matches("<... ").split_once(['(', ' '])?;
        name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_').then(|| name.to_owned())
    };
    lines.filter_map(name).collect()
}

#[test]
fn every_system_call_of_the_agent_passes_its_filter() {
    if !root("strace") {
        return;
    }
    let folder = Folder::new();
    // Nobody listens there: it is resolved, and tried.
    let config = rig::config(
        &folder,
        "socket_group = \"0\"",
        "[elasticsearch]\nurl = \"http://localhost:1\"\n[capture]\nbudget_percent = 100\n",
    );
    let trace = folder.0.join("trace");
    let mut by = command("strace");
    by.args(["-D", "-f", "-qq", "--signal=none", "-e", "trace=all", "-o"]).arg(&trace).arg(ONSET);
    let agent = Agent::start_by(&mut by, folder, config);
    for spec in onset::tracer::TRACERS.iter().filter(|spec| spec.name != "oom") {
        let mut arguments = vec!["trigger", spec.name];
        if spec.name != "dload" {
            arguments.extend(["--seconds", "1"]);
        }
        done(&mut agent.onset(&arguments));
    }
    assert_eq!(agent.get("/metrics").0, 200);
    agent.signal(libc::SIGHUP);
    agent.said.wait("a reload", SOON, |line| line.contains("config unchanged").then_some(()));
    agent.signal(libc::SIGTERM);
    let text = rig::await_that("its last call", SOON, || {
        std::fs::read_to_string(&trace).ok().filter(|text| text.contains("exit_group("))
    });
    let (calls, allowed) = (calls(&text), allowed());
    for name in
        ["bpf", "perf_event_open", "fallocate", "connect", "accept4", "epoll_wait", "seccomp", "capset"]
    {
        assert!(calls.contains(name), "it was seen to call {name}: {calls:?}");
    }
    let refused: Vec<_> = calls.difference(&allowed).collect();
    assert!(refused.is_empty(), "the unit refuses {refused:?}");
}
