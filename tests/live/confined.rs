//! The agent with as few rights as its unit and its DaemonSet give it: a user of its own (or root
//! without root's rights), five capabilities, everything mounted read-only but its folder. All that
//! it is for still works, and what it is not for the kernel refuses.

use std::collections::BTreeMap;
use std::fs;
use std::io;
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

/// As in the unit and the DaemonSet; `the_unit_and_the_daemonset_give_the_rights_that_are_tested` holds them to it.
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
fn hidden_spinner(folder: &Folder, cgroup: &Cgroup) -> rig::Killed {
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
    let mut by = as_deployed(user, &folder, Path::new(ONSET));
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
    agent.said.wait("a reload", SOON, |line| line.contains("config reloaded").then_some(()));
    confined(agent.pid(), SET, None);
    let unreadable = agent.metric("onset_faults_total{tracer=\"onset\",fault=\"file_unreadable\"}");
    assert_eq!(unreadable, Some(0.0));
    assert_eq!(agent.leave(), Some(0));
}

#[test]
fn as_a_user_of_its_own_with_five_capabilities_everything_works() {
    if root("the unit's rights") {
        all_works_as(USER);
    }
}

#[test]
fn as_a_containers_root_with_five_capabilities_everything_works() {
    if root("the DaemonSet's rights") {
        all_works_as(0);
    }
}

#[test]
fn started_by_root_it_gives_away_all_that_it_does_not_need() {
    if !root("rights to give away") {
        return;
    }
    let agent = Agent::start(&rig::only("dload", "every = \"1s\""));
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = u64::from_str_radix(&status(&own, "CapPrm"), 16).unwrap();
    let kept = own & onset::confine::KEPT;
    assert_ne!(kept, own);
    let names = confined(agent.pid(), kept, Some(kept));
    assert!(names.len() >= 2, "the loop and the log: {names:?}");
    assert_eq!(agent.leave(), Some(0));
}

/// What is tried under the filter, and the error that the kernel gave: 0 for none.
fn attempts(folder: &Path, target: libc::pid_t) -> BTreeMap<String, i32> {
    let mut seen = BTreeMap::new();
    let mut note = |what: &str, result: io::Result<()>| {
        seen.insert(what.to_owned(), result.err().map_or(0, |error| error.raw_os_error().unwrap_or(-1)));
    };
    let call = |result: libc::c_long| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    note("run a program", Command::new("true").status().map(drop));
    let nothing = std::ptr::null::<libc::c_char>();
    // SAFETY: null pointers and empty arguments: a kernel that allowed the call would only say EFAULT or EINVAL.
    unsafe {
        note("execve", call(libc::syscall(libc::SYS_execve, nothing, nothing, nothing)));
        note("execveat", call(libc::syscall(libc::SYS_execveat, -1, nothing, nothing, nothing, 0)));
        // PTRACE_SEIZE.
        note("ptrace", call(libc::syscall(libc::SYS_ptrace, 0x4206, target, 0, 0)));
        note(
            "process_vm_readv",
            call(libc::syscall(libc::SYS_process_vm_readv, target, nothing, 0, nothing, 0, 0)),
        );
        note(
            "process_vm_writev",
            call(libc::syscall(libc::SYS_process_vm_writev, target, nothing, 0, nothing, 0, 0)),
        );
        note("kill", call(libc::syscall(libc::SYS_kill, target, 0)));
        note("mount", call(libc::syscall(libc::SYS_mount, nothing, nothing, nothing, 0, nothing)));
        note("pivot_root", call(libc::syscall(libc::SYS_pivot_root, nothing, nothing)));
        note("unshare", call(libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER)));
        note("setns", call(libc::syscall(libc::SYS_setns, -1, 0)));
        note("init_module", call(libc::syscall(libc::SYS_init_module, nothing, 0, nothing)));
        note("kexec_load", call(libc::syscall(libc::SYS_kexec_load, 0, 0, nothing, 0)));
        note("keyctl", call(libc::syscall(libc::SYS_keyctl, 0, 0)));
        note("swapon", call(libc::syscall(libc::SYS_swapon, nothing, 0)));
        note("personality", call(libc::syscall(libc::SYS_personality, 0xffff_ffff_u64)));
        note("open_by_handle_at", call(libc::syscall(libc::SYS_open_by_handle_at, -1, nothing, 0)));
        note("io_uring_setup", call(libc::syscall(libc::SYS_io_uring_setup, 0, nothing)));
        note("setuid", call(libc::syscall(libc::SYS_setuid, 0)));
        // BPF_OBJ_PIN of nothing, and a socket for raw packets.
        note("bpf pin", call(libc::syscall(libc::SYS_bpf, 6, nothing, 0)));
        note("raw packets", call(libc::syscall(libc::SYS_socket, libc::AF_PACKET, libc::SOCK_RAW, 0)));
        note("a socket", call(libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0)));
    }
    let write = |path: &Path| fs::OpenOptions::new().write(true).open(path).map(drop);
    note("write to /etc", write(Path::new("/etc/passwd")));
    note("make a file in /etc", fs::write("/etc/onset-was-here", "").map(drop));
    note("write to another's memory", write(Path::new("/proc/1/mem")));
    note("write to a setting", write(Path::new("/proc/sys/kernel/core_pattern")));
    note("read what only root may", fs::read("/etc/shadow").map(drop));
    note("a file of its own", fs::write(folder.join("own"), "").map(drop));
    note(
        "a thread",
        std::thread::Builder::new()
            .spawn(|| ())
            .and_then(|thread| thread.join().map_err(|_| io::Error::other("it broke"))),
    );
    seen
}

/// Calls that only the filter refuses, where no right is missing.
const HARMLESS: [&str; 9] = [
    "run a program",
    "execve",
    "execveat",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "kill",
    "personality",
    "io_uring_setup",
];

#[test]
fn what_it_is_not_for_the_kernel_refuses() {
    const THIS: &str = "confined::what_it_is_not_for_the_kernel_refuses";
    if let Some(folder) = std::env::var_os("ONSET_TEST_ATTEMPTS") {
        let target = std::env::var("ONSET_TEST_TARGET").unwrap().parse().unwrap();
        if std::env::var_os("ONSET_TEST_BARE").is_none() {
            let confined = onset::confine::apply(0);
            assert_eq!(confined.complaint(), None);
        }
        let folder = Path::new(&folder);
        let seen = serde_json::to_string(&attempts(folder, target)).unwrap();
        fs::write(folder.join("seen"), seen).unwrap();
        return;
    }
    if !root("attempts under the filter") {
        return;
    }
    let this = std::env::current_exe().unwrap();
    let attempt = |user: u32, bare: bool| -> BTreeMap<String, i32> {
        let folder = given_to(user);
        let mut sleeper = command("setpriv");
        sleeper.args(["--pdeathsig", "KILL", "--clear-groups", "--bounding-set=-all"]);
        sleeper.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).args(["sleep", "600"]);
        let sleeper = start(&mut sleeper);
        let mut by = as_deployed(user, &folder, &this);
        by.args(["--exact", THIS, "--test-threads=1"]).env("ONSET_TEST_ATTEMPTS", &folder.0);
        by.env("ONSET_TEST_TARGET", sleeper.0.id().to_string());
        if bare {
            by.env("ONSET_TEST_BARE", "1");
        }
        done(&mut by);
        serde_json::from_slice(&fs::read(folder.0.join("seen")).unwrap()).unwrap()
    };
    for user in [USER, 0] {
        let (bare, seen) = (attempt(user, true), attempt(user, false));
        for (what, error) in &seen {
            let want = match what.as_str() {
                "a socket" | "a file of its own" | "a thread" | "read what only root may" => &[0][..],
                "write to /etc" | "make a file in /etc" => &[libc::EACCES, libc::EROFS],
                // The container's root is stopped by what the runtime mounts, which is not to be had here.
                "write to another's memory" | "write to a setting" if user == 0 => continue,
                "write to another's memory" | "write to a setting" => &[libc::EACCES],
                _ => &[libc::EPERM],
            };
            assert!(want.contains(error), "user {user}: {what}: {error}; all: {seen:#?}");
        }
        for what in HARMLESS {
            assert_ne!(bare[what], libc::EPERM, "it is the filter that refuses: {what}: {bare:#?}");
        }
        assert_eq!((bare["run a program"], bare["kill"]), (0, 0), "{bare:#?}");
    }
}
