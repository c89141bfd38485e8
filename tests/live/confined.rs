//! The agent with as few rights as its unit and its DaemonSet give it: a user of its own (or root
//! without root's rights), five capabilities, everything mounted read-only but its folder. All that
//! it is for still works, and what it is not for the kernel refuses.

mod attempts;
mod calls;
#[cfg(target_arch = "x86_64")]
mod refused;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::cpuidle::{share, spinner};
use crate::oom::{EATER, eat, small};
use crate::rig::{self, Agent, Folder, ONSET, SOON, await_that, command, compile, done, root, start, text};

/// Nobody's here.
const USER: u32 = 64_317;

/// As in the unit and the DaemonSet; tests/deploy holds both to it.
pub const CAPABILITIES: [&str; 5] =
    ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYSLOG"];

/// Their bits.
const SET: u64 = 1 << 39 | 1 << 38 | 1 << 19 | 1 << 2 | 1 << 34;

/// As ProtectSystem=strict does: nothing can be written but what is bound beforehand.
const READ_ONLY: &str = "set -e
mount --bind \"$0\" \"$0\"
mount -o remount,bind,ro /
if mountpoint -q /tmp; then mount -o remount,bind,ro /tmp; fi
";

/// As the DaemonSet mounts the host's cgroups, elsewhere and read-only.
const CGROUPS: &str = "mkdir -p \"$0/cgroup\"
mount --rbind /sys/fs/cgroup \"$0/cgroup\"
findmnt -rno TARGET | grep -F \"$0/cgroup\" | while read -r mount; do mount -o remount,bind,ro \"$mount\"; done
";

/// A command that runs another with the rights that the unit gives to its user, or the DaemonSet to a
/// container's root.
fn as_deployed(user: u32, folder: &Folder, program: &Path) -> Command {
    let list = CAPABILITIES.map(|name| format!("+{}", name[4..].to_lowercase())).join(",");
    let mut by = command("unshare");
    by.args(["--mount", "--propagation", "private"]);
    let pod = user == 0;
    if pod {
        by.arg("--cgroup");
    }
    by.args(["sh", "-c", &format!("{READ_ONLY}{}exec \"$@\"", if pod { CGROUPS } else { "" })]);
    by.arg(&folder.0);
    by.args(["setpriv", "--pdeathsig", "KILL", "--no-new-privs", "--clear-groups"]);
    by.arg(format!("--bounding-set=-all,{list}")).arg(format!("--inh-caps=-all,{list}"));
    if pod {
        // Root has what the bounding set leaves: no ambient set is needed.
        by.args(["--ambient-caps=-all"]);
    } else {
        by.arg(format!("--reuid={user}")).arg(format!("--regid={user}"));
        by.arg(format!("--ambient-caps=-all,{list}"));
    }
    by.arg(program);
    by
}

fn given_to(user: u32) -> Folder {
    let folder = Folder::new();
    chown(&folder.0, Some(user), Some(user)).unwrap();
    folder
}

/// A line of a status file, without its name.
fn status(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
}

/// Every thread has these rights, no more can come, and the filter is over it. Their names.
fn confined(pid: u32, set: u64, bound: Option<u64>) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).ok());
    let names = texts.map(|text| {
        let bits = |name: &str| u64::from_str_radix(&status(&text, name), 16).unwrap();
        let name = status(&text, "Name");
        assert_eq!((bits("CapEff"), bits("CapPrm")), (set, set), "{name}: {text}");
        assert_eq!((bits("CapInh"), bits("CapAmb")), (0, 0), "{name}: {text}");
        assert_eq!(bits("CapBnd"), bound.unwrap_or(set), "{name}: {text}");
        assert_eq!((&*status(&text, "NoNewPrivs"), &*status(&text, "Seccomp")), ("1", "2"), "{name}");
        name
    });
    names.collect()
}

/// A server that takes every document.
mod server {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener, TcpStream};

    fn answer(stream: TcpStream) -> Option<()> {
        let mut from = BufReader::new(stream.try_clone().ok()?);
        let mut to = stream;
        loop {
            let mut length = 0;
            loop {
                let mut line = String::new();
                from.read_line(&mut line).ok().filter(|read| *read > 0)?;
                let line = line.trim_end().to_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().ok()?;
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            from.read_exact(&mut body).ok()?;
            let actions = body.split(|byte| *byte == b'\n').step_by(2).filter(|line| !line.is_empty());
            let items: Vec<_> = actions
                .map(|line| {
                    let action: serde_json::Value = serde_json::from_slice(line).unwrap();
                    serde_json::json!({"create": {"_id": action["create"]["_id"], "status": 201}})
                })
                .collect();
            let reply = serde_json::json!({"errors": false, "items": items}).to_string();
            write!(
                to,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{reply}",
                reply.len()
            )
            .ok()?;
        }
    }

    pub fn start() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || answer(stream));
            }
        });
        address
    }
}

/// A program that only its own mount namespace has, for its owner's eyes alone.
fn hidden_spinner(folder: &Folder, cgroup: &Cgroup) -> rig::KillOnDrop {
    let binary = spinner(folder, "burn_in_a_container");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o700)).unwrap();
    let there = folder.0.join("there");
    fs::create_dir(&there).unwrap();
    let words = "mount -t tmpfs -o mode=700 none \"$1\" && cp \"$0\" \"$1/hidden\" && exec \"$1/hidden\"";
    let child = cgroup.start(
        command("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", words])
            .arg(&binary)
            .arg(&there),
    );
    let pid = child.0.id();
    await_that("the hidden program", SOON, || {
        fs::read_to_string(format!("/proc/{pid}/comm")).ok().filter(|comm| comm.trim() == "hidden")
    });
    child
}

/// Asks for a capture of each tracer and gives the events, by tracer.
fn trigger_all(agent: &Agent, cgroup: &Cgroup) -> BTreeMap<&'static str, Value> {
    let per_container = ["cpuidle", "waitrate", "memburst"];
    let tracers = onset::tracer::TRACERS.iter().map(|spec| spec.name).filter(|name| *name != "oom");
    let asked = tracers.map(|tracer| {
        let mut arguments = vec!["trigger", tracer];
        if tracer != "dload" {
            arguments.extend(["--seconds", "2"]);
        }
        if per_container.contains(&tracer) {
            arguments.extend(["--container", &cgroup.id]);
        }
        let id = done(&mut agent.onset(&arguments));
        let event = agent.events().into_iter().find(|event| event["tracer_id"] == id.trim());
        (tracer, event.unwrap_or_else(|| panic!("{tracer}'s event {id} is in the log")))
    });
    asked.collect()
}

fn all_works_as(user: u32) {
    let folder = given_to(user);
    let work = Folder::new();
    let shipped_to = server::start();
    let paths = format!("[paths]\ncgroup = \"{}/cgroup\"\n", folder.0.display());
    let config = rig::config(
        &folder,
        "",
        &format!(
            "{}[elasticsearch]\nurl = \"http://{shipped_to}\"\ncompress = false\n[capture]\nbudget_percent = 100\n",
            if user == 0 { &paths } else { "" }
        ),
    );
    chown(&config, Some(0), Some(0)).unwrap();
    let (burning, eaten) = (Cgroup::new("confined"), Cgroup::new("eaten"));
    small(&eaten);
    let _spinner = hidden_spinner(&work, &burning);
    // So that the host's flame has frames of the kernel.
    let _calls = start(command("dd").args(["if=/dev/zero", "of=/dev/null", "bs=1", "status=none"]));
    let mut by = as_deployed(user, &folder, Path::new(&ONSET));
    // Its namespace of cgroups begins at its own: it sees those of others from there.
    let own = Cgroup::new("agent");
    own.hold(&mut by);
    let agent = Agent::start_by(&mut by, folder, config);
    let said = agent.said.come();
    assert!(said.iter().all(|line| !line.contains("confine") && !line.contains(" off: ")), "{said:?}");
    assert_eq!(agent.get("/readyz").0, 200);
    for spec in onset::tracer::TRACERS {
        let active = format!("onset_tracer_state{{tracer=\"{}\",state=\"active\"}}", spec.name);
        assert_eq!(agent.metric(&active), Some(1.0), "{active}");
    }
    let names = confined(agent.pid(), SET, None);
    assert!(names.iter().any(|name| name.contains("ship")) && names.len() >= 3, "{names:?}");

    let events = trigger_all(&agent, &burning);
    let flame = &events["cpuidle"];
    assert!(share(flame, "burn_in_a_container") > 0.8, "in another mount namespace: {flame:#}");
    let largest = events["memburst"]["tracer_data"]["top_memory_usage"].as_array().unwrap();
    assert!(largest.iter().any(|one| one["comm"] == "hidden"), "its processes are known: {largest:?}");
    let id = text(&events["cpusys"], "/tracer_id");
    let folded = done(&mut agent.onset(&["flame", id, "--format", "folded"]));
    let kernel = ["SYSCALL_64", "el0_svc"].iter().any(|name| folded.contains(name));
    assert!(kernel, "frames of the kernel have names: {folded}");
    let victim = eat(&eaten, &mut command(compile(&work, "eater", EATER)));
    agent.event("the kill", SOON, |event| event["tracer_data"]["victim"]["pid"] == victim);
    let all = events.len() as f64 + 1.0;
    await_that("all events at the server", SOON, || {
        agent.metric("onset_ship_documents_total{outcome=\"created\"}").filter(|created| *created >= all)
    });
    // Threads that came later, too, and whoever reads the config again.
    agent.signal(libc::SIGHUP);
    agent.said.wait("a reload", SOON, |line| line.contains("config unchanged").then_some(()));
    confined(agent.pid(), SET, None);
    for fault in ["bpf_flush", "bpf_attach", "bpf_detach", "bpf_read", "bpf_write"] {
        let sample = format!("onset_faults_total{{tracer=\"onset\",fault=\"{fault}\"}}");
        assert_eq!(agent.metric(&sample), Some(0.0), "{sample}");
    }
    let unreadable = agent.metric("onset_faults_total{tracer=\"onset\",fault=\"file_unreadable\"}");
    assert_eq!(unreadable, Some(0.0));
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn everything_works_as_an_own_user_with_five_capabilities() {
    if root("the unit's rights") {
        all_works_as(USER);
    }
}

#[test]
fn everything_works_as_a_containers_root_with_five_capabilities() {
    if root("the DaemonSet's rights") {
        all_works_as(0);
    }
}

#[test]
fn an_agent_started_by_root_drops_capabilities_it_does_not_need() {
    if !root("rights to give away") {
        return;
    }
    let agent = Agent::start(&rig::only("dload", "every = \"1s\""));
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = u64::from_str_radix(&status(&own, "CapPrm"), 16).unwrap();
    // Debian's kernels let nobody sample without the right to everything, unless they are told to.
    let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap();
    let guarded = level.trim().parse::<i32>().unwrap() > 2;
    let kept = own & (onset::confine::KEPT | if guarded { onset::confine::SYS_ADMIN } else { 0 });
    assert_ne!(kept, own);
    let names = confined(agent.pid(), kept, Some(kept));
    assert!(names.len() >= 2, "the loop and the log: {names:?}");
    assert_eq!(agent.leave(), Some(0));
}

/// Whether this host asks for no more rights than the unit gives: docs/privileges.md names the hosts that do.
fn the_kept_capabilities_on_this_host_are_those_of_the_unit() -> bool {
    let knob = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
    let guarded = knob.ok().and_then(|text| text.trim().parse().ok()).is_some_and(|level: i32| level > 2);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let release = (numbers.next().unwrap(), numbers.next().unwrap());
    !guarded && release >= (6, 5)
}

#[test]
fn doctor_names_missing_capabilities_and_what_they_cost() {
    if !root("doctor with few rights") {
        return;
    }
    let folder = given_to(USER);
    let config = rig::config(&folder, "", "");
    let ask = |by: &mut Command, json: bool| -> (Option<i32>, String) {
        let output = rig::run(by.args(["doctor", "--config"]).arg(&config).args(json.then_some("--json")));
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = ask(&mut as_deployed(USER, &folder, Path::new(&ONSET)), true);
    let findings: Value = serde_json::from_str(&said).unwrap();
    let named = |held: bool| -> Vec<&str> {
        let all = findings["capabilities"].as_array().unwrap().iter();
        let those = all.filter(|one| one["needed"] == true && one["held"] == held);
        those.map(|one| one["name"].as_str().unwrap()).collect()
    };
    assert_eq!((code, &findings["root"]), (Some(0), &false.into()), "{findings:#}");
    assert_eq!(named(true), CAPABILITIES);
    // A 5.10 of Debian's asks for more than the unit gives, and doctor says what helps.
    let modern = the_kept_capabilities_on_this_host_are_those_of_the_unit();
    assert!(named(false).is_empty() || !modern, "{findings:#}");
    let (_, said) = ask(&mut as_deployed(USER, &folder, Path::new(&ONSET)), false);
    assert!(said.contains("optional: CAP_CHECKPOINT_RESTORE, which opens"), "{said}");
    assert!(!said.contains("missing: CAP_") || !modern, "{said}");
    let mut nobody = command("setpriv");
    nobody
        .args(["--clear-groups", "--bounding-set=-all"])
        .arg(format!("--reuid={USER}"))
        .arg(format!("--regid={USER}"));
    // Nobody may not read root's home.
    let program = folder.0.join("onset");
    fs::copy(ONSET, &program).unwrap();
    let (code, said) = ask(nobody.arg(&program), false);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("not root, with no capability") && said.contains("missing: CAP_BPF, which loads"),
        "{said}"
    );
    assert!(said.contains("cannot run"), "{said}");
}

/// How many programs bpf/ has, those of a hook counted as one; the benchmarks' is not the agent's.
fn programs_of_the_source() -> usize {
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf")).unwrap();
    let sources = files.map(|file| file.unwrap().path()).filter(|path| {
        path.to_str().unwrap().ends_with(".bpf.c") && path.file_name().unwrap() != "noop.bpf.c"
    });
    let count = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let entries = text.lines().filter(|line| line.starts_with("SEC(\"")).count();
        if text.contains("} events SEC(\".maps\");") { 1 } else { entries }
    };
    sources.map(count).sum()
}

#[test]
fn doctor_reports_whether_each_bpf_program_loads_and_attaches() {
    if !root("BPF programs") {
        return;
    }
    let folder = Folder::new();
    let config = rig::config(&folder, "", "");
    let said = done(command(ONSET).args(["doctor", "--json", "--config"]).arg(&config));
    let findings: Value = serde_json::from_str(&said).unwrap();
    let programs = findings["programs"].as_array().unwrap();
    let states: BTreeMap<&str, &str> =
        programs.iter().map(|one| (text(one, "/program"), text(one, "/state"))).collect();
    assert_eq!(states.len(), programs_of_the_source(), "{states:#?}");
    assert!(states.values().all(|state| *state != "refused"), "{findings:#}");
    assert_eq!((states["bio_queued"], states["oom"], states["tasks"]), ("loaded", "loaded", "attached"));
    // Without a descriptor to spare for the perf events and links of a capture.
    let few = done(
        command("sh")
            .args(["-c", "ulimit -n 90; \"$0\" doctor --json --config \"$1\" || true"])
            .arg(ONSET)
            .arg(&config),
    );
    let findings: Value = serde_json::from_str(&few).unwrap();
    let refused = |one: &&Value| one["state"] == "refused" && one["reason"].is_string();
    assert!(findings["programs"].as_array().unwrap().iter().any(|one| refused(&one)), "{findings:#}");
}
