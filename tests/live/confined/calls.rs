//! Every system call that the agent makes under its filter, as strace(1) sees them, while it does all that it
//! is for. None is refused; and what the filter lets through of the arguments that it looks at is needed.

use std::collections::BTreeSet;
use std::fs;

use onset::confine::{Allowance, allowances, is_guarded};

use super::{hidden_spinner, server, trigger_all};
use crate::cgroup::Cgroup;
use crate::oom::{EATER, eat, small};
use crate::rig::{self, Agent, Folder, ONSET, SOON, await_that, command, compile, done, root, run};

/// What is let through though this run cannot show it, and why.
const UNSEEN: &[(&str, &str, &str)] = &[
    ("bpf", "BPF_BTF_GET_FD_BY_ID", "follows BPF_BTF_GET_NEXT_ID where CAP_SYS_ADMIN is kept"),
    (
        "socket",
        "AF_UNIX",
        "glibc's resolver, which asks nscd(8); the agent's own socket is made before the filter",
    ),
    ("socket", "AF_NETLINK", "glibc's resolver, of a name with several addresses"),
    ("tgkill", "this process", "glibc's abort(3)"),
    ("tkill", "SIGABRT", "musl's abort(3)"),
    ("prlimit64", "this process", "libbpf, which before Linux 5.11 locks memory for the maps of a hook"),
];

/// A call that was made: its name and its first argument that the filter may look at.
fn call(line: &str) -> Option<(&str, u32)> {
    let (name, arguments) =
        line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().split_once('(')?;
    let place = match name {
        "clone" => arguments.split_once("flags=")?.1,
        "tkill" => arguments.split_once(", ")?.1,
        _ => arguments,
    };
    let number = place.split(|c: char| !c.is_ascii_alphanumeric()).next()?;
    let value = match number.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => number.parse(),
    };
    Some((name, u32::try_from(value.ok()? & u64::from(u32::MAX)).ok()?))
}

/// Whether a call is one that it lets through.
fn covers(allowance: &Allowance, (name, value): (&str, u32)) -> bool {
    let Allowance { call, mask, value: wanted, .. } = *allowance;
    call == name && wanted.map_or(value & mask != 0, |wanted| value & mask == wanted)
}

/// Whether the filter refused a call: at once, or by a signal whose handler returns with EPERM. The kernel
/// refuses others (links in /proc/PID/map_files), and BPF_BTF_GET_NEXT_ID, which takes CAP_SYS_ADMIN: libbpf
/// does without.
fn is_refused(line: &str) -> bool {
    let words =
        line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().trim_start_matches("<... ");
    let name = words.split(['(', ' ']).next().unwrap_or_default();
    line.contains("EPERM") && (name == "rt_sigreturn" || is_guarded(name)) && call(line) != Some(("bpf", 23))
}

/// What the trace says of the time when the filter lay over all threads.
fn under_the_filter(trace: &str) -> Vec<&str> {
    // SECCOMP_SET_MODE_FILTER.
    let laid = trace.find("seccomp(0x1, ").expect("the filter is laid");
    trace[laid..].lines().skip(1).collect()
}

/// What the agent does at all: it looks, captures, answers, logs, ships, is given other configs, and leaves.
fn everything(agent: &Agent) {
    let (burning, eaten) = (Cgroup::new("traced"), Cgroup::new("traced-eaten"));
    small(&eaten);
    let work = Folder::new();
    let _spinner = hidden_spinner(&work, &burning);
    let mut made: Vec<_> = trigger_all(agent, &burning).into_keys().collect();
    let eater = compile(&work, "eater", EATER);
    eat(&eaten, &mut command(&eater));
    agent.event("the kill", SOON, |event| event["tracer_name"] == "oom");
    made.push("oom");
    assert_eq!(made.len(), onset::tracer::TRACERS.len(), "a capture of each kind: {made:?}");
    await_that("all at the server", SOON, || {
        agent.metric("onset_ship_documents_total{outcome=\"created\"}").filter(|created| *created >= 7.0)
    });
    // A hook is taken away, and loaded again under the filter.
    let config = fs::read_to_string(&agent.config).unwrap();
    let issue = "[[known_issue]]\nname = \"one\"\nframes = [\"f\"]\n";
    for more in ["[tracer.oom]\nenabled = false\n", &format!("[tracer.oom]\ntop = 5\n{issue}")] {
        let next = agent.folder.file("next.toml", &format!("{config}{more}"));
        fs::rename(next, &agent.config).unwrap();
        agent.signal(libc::SIGHUP);
        agent.said.wait("a reload", SOON, |line| line.contains("reloaded; changed: ").then_some(()));
    }
    eat(&eaten, &mut command(&eater));
    await_that("a kill that the new hook tells of", SOON, || {
        agent.metric("onset_oom_kills_total").filter(|kills| *kills >= 2.0)
    });
    agent.signal(libc::SIGHUP);
    agent.said.wait("a reload", SOON, |line| line.contains("config unchanged").then_some(()));
    for page in ["/", "/metrics", "/healthz", "/readyz", "/none"] {
        agent.get(page);
    }
    for words in [&["status"][..], &["events"], &["verify"]] {
        done(&mut agent.onset(words));
    }
    assert!(!run(&mut agent.onset(&["trigger", "none"])).status.success());
    // Nobody answers where the config says that the kubelet is.
    assert!(!run(&mut agent.onset(&["containers"])).status.success());
    rotate(agent);
}

/// Fills the segment that is written to, until there is another one.
fn rotate(agent: &Agent) {
    let segments = || {
        let files = fs::read_dir(agent.log()).unwrap().flatten();
        files.filter(|file| file.path().extension().is_some_and(|end| end == "seg")).count()
    };
    let before = segments();
    await_that("the next segment", SOON * 3, || {
        done(&mut agent.onset(&["trigger", "cpusys", "--seconds", "1"]));
        (segments() > before).then_some(())
    });
}

#[test]
fn no_call_that_the_agent_makes_is_refused_by_its_own_filter_and_no_allowance_is_needless() {
    if !root("strace") {
        return;
    }
    let folder = Folder::new();
    let trace = folder.0.join("trace");
    let port = server::start().port();
    let rest = format!(
        "[tracer.waitrate]\nprobe_every = \"1s\"\nevery = \"1s\"\n\
         [elasticsearch]\nurl = \"http://localhost:{port}\"\ncompress = false\n\
         [containers]\nkubelet = \"http://[::1]:1/pods\"\n\
         [capture]\nbudget_percent = 100\n"
    );
    let config = rig::config(&folder, "", &rest);
    let small = fs::read_to_string(&config).unwrap().replace("\"4MiB\"", "\"64KiB\"\ndocument = \"16KiB\"");
    fs::write(&config, small).unwrap();
    let mut by = command("strace");
    by.args(["-D", "-f", "-qq", "-X", "raw", "--signal=none", "-e", "trace=all", "-o"])
        .arg(&trace)
        .arg(ONSET);
    let agent = Agent::start_by(&mut by, folder, config);
    everything(&agent);
    let counted = agent.metric("onset_faults_total{tracer=\"onset\",fault=\"refused_syscall\"}");
    let pid = agent.pid();
    agent.signal(libc::SIGTERM);
    let text = await_that("its last call", SOON, || {
        fs::read_to_string(&trace).ok().filter(|text| text.contains("exit_group("))
    });
    let lines = under_the_filter(&text);
    // The lines before are of the call that a signal came in place of, and of what its handler said.
    let refused: Vec<_> = lines.windows(4).filter(|lines| is_refused(lines[3])).collect();
    assert!(refused.is_empty() && counted == Some(0.0), "{counted:?} were counted: {refused:#?}");
    let made: BTreeSet<(&str, u32)> = lines.iter().filter_map(|line| call(line)).collect();
    let names: BTreeSet<&str> = made.iter().map(|(name, _)| *name).collect();
    println!("{} system calls under the filter: {names:?}", names.len());
    let (mut needless, mut excuses) = (Vec::new(), UNSEEN.to_vec());
    allowances(pid, &mut |allowance| {
        let known = excuses.len();
        excuses.retain(|(call, what, _)| (*call, *what) != (allowance.call, allowance.what));
        if excuses.len() == known && !made.iter().any(|call| covers(&allowance, *call)) {
            needless.push((allowance.call, allowance.what));
        }
    });
    assert!(
        needless.is_empty(),
        "let through, and not needed: take it out of src/confine/calls.rs, or say in UNSEEN who makes it: {needless:#?}"
    );
    assert!(excuses.is_empty(), "not let through at all: {excuses:#?}");
}
