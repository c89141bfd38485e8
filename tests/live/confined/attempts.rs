//! What the agent is not for, tried under its own filter and rights, and without the filter to see that it
//! is the filter that refuses.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use super::{USER, as_deployed, given_to};
use crate::rig::{command, done, root, start};

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

/// Each refusal of `attempts` is counted under its call's name, but those that come without a signal.
fn all_counted() {
    let mut counted = BTreeMap::new();
    onset::confine::refused_calls(&mut |name, count| {
        counted.insert(name, count);
    });
    for name in ["execve", "ptrace", "kill", "mount", "unshare", "io_uring_setup", "bpf", "socket"] {
        assert_eq!(counted.get(name), Some(&1), "{name}: {counted:#?}");
    }
    assert!(!counted.contains_key("setuid") && !counted.contains_key("clone"), "{counted:#?}");
    assert_eq!(counted.values().sum::<u64>(), onset::confine::refused_calls_total());
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
fn the_kernel_refuses_what_the_agent_gave_up() {
    const THIS: &str = "confined::attempts::the_kernel_refuses_what_the_agent_gave_up";
    if let Some(folder) = std::env::var_os("ONSET_TEST_ATTEMPTS") {
        let target = std::env::var("ONSET_TEST_TARGET").unwrap().parse().unwrap();
        if std::env::var_os("ONSET_TEST_BARE").is_none() {
            let confined = onset::confine::apply(0, || true);
            assert_eq!(confined.complaint(), None);
        }
        let folder = Path::new(&folder);
        let seen = serde_json::to_string(&attempts(folder, target)).unwrap();
        if std::env::var_os("ONSET_TEST_BARE").is_none() {
            all_counted();
        }
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

#[test]
fn cap_sys_admin_is_kept_only_where_nothing_less_works() {
    use onset::confine::{SYS_ADMIN, apply, held};
    const THIS: &str = "confined::attempts::cap_sys_admin_is_kept_only_where_nothing_less_works";
    if let Some(works) = std::env::var_os("ONSET_TEST_WORKS") {
        let works = works == "yes";
        let mut tried = 0;
        let confined = apply(0, || {
            tried += 1;
            assert_eq!(held() & SYS_ADMIN, 0, "it is tried without");
            works
        });
        assert_eq!((confined.complaint(), tried), (None, 1));
        assert_eq!(held() & SYS_ADMIN != 0, !works);
        return;
    }
    if !root("rights to give away") {
        return;
    }
    for works in ["yes", "no"] {
        let this = std::env::current_exe().unwrap();
        done(command(this).args(["--exact", THIS, "--test-threads=1"]).env("ONSET_TEST_WORKS", works));
    }
}
