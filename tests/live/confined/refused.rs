//! A call that the filter refuses while the agent runs: it is made by the loop's own thread, which
//! ptrace(2) has go back over its last `syscall` instruction with another number. x86_64 only.

use std::io;
use std::ptr;

use crate::rig::{self, Agent, SOON, await_that, done, root};

/// What the kernel gives when it says no.
fn checked(result: libc::c_long) -> libc::c_long {
    assert!(result != -1, "{}", io::Error::last_os_error());
    result
}

/// Waits until the thread stops, and gives the signal that stopped it.
fn stopped(tid: libc::pid_t) -> libc::c_int {
    let mut status = 0;
    // SAFETY: the status is ours.
    let waited = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
    assert_eq!(waited, tid);
    assert!(libc::WIFSTOPPED(status), "{status:#x}");
    libc::WSTOPSIG(status)
}

/// `syscall`, as it lies in memory.
const SYSCALL: libc::c_long = 0x050f;

/// Has a process's first thread make a system call with whatever arguments its wait had, once.
fn make_call(pid: u32, number: libc::c_long) {
    let tid = pid.cast_signed();
    let none = ptr::null_mut::<libc::c_void>();
    await_that("its wait for events", SOON, || {
        // SAFETY: an all-zero user_regs_struct is a valid value, which the kernel overwrites.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        // SAFETY: the thread is stopped between these calls, and they write to `registers` alone.
        unsafe {
            checked(libc::ptrace(libc::PTRACE_SEIZE, tid, none, none));
            checked(libc::ptrace(libc::PTRACE_INTERRUPT, tid, none, none));
            stopped(tid);
            checked(libc::ptrace(libc::PTRACE_GETREGS, tid, none, &raw mut registers));
            let before = registers.rip - 2;
            let code = libc::ptrace(libc::PTRACE_PEEKTEXT, tid, before as *mut libc::c_void, none);
            let waits = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait];
            if code & 0xffff != SYSCALL || !waits.contains(&registers.orig_rax.cast_signed()) {
                checked(libc::ptrace(libc::PTRACE_DETACH, tid, none, none));
                return None;
            }
            // The kernel must not take it for a call to be restarted.
            (registers.rip, registers.rax, registers.orig_rax) = (before, number.cast_unsigned(), u64::MAX);
            checked(libc::ptrace(libc::PTRACE_SETREGS, tid, none, &raw const registers));
            checked(libc::ptrace(libc::PTRACE_CONT, tid, none, none));
            let signal = stopped(tid);
            checked(libc::ptrace(libc::PTRACE_DETACH, tid, none, libc::c_long::from(signal)));
            assert_eq!(signal, libc::SIGSYS);
        }
        Some(())
    });
}

#[test]
fn a_call_refused_by_seccomp_is_counted_and_named() {
    if !root("ptrace") {
        return;
    }
    let agent = Agent::start(&rig::only("dload", "every = \"1s\""));
    let counted = || agent.metric("onset_faults_total{tracer=\"onset\",fault=\"refused_syscall\"}");
    assert_eq!(counted(), Some(0.0), "it makes none by itself");
    let named = |name: &str| {
        let words = format!("refused the system call {name},");
        agent.said.wait("the call's name", SOON, |line| line.contains(&words).then_some(()));
    };
    make_call(agent.pid(), libc::SYS_mount);
    named("mount");
    assert_eq!(counted(), Some(1.0));
    make_call(agent.pid(), libc::SYS_mount);
    make_call(agent.pid(), libc::SYS_ptrace);
    // Lines come in order: this one is the second, as the call before it was not said again.
    agent.said.wait("the next name", SOON, |line| {
        assert!(!line.contains("call mount,"), "once is enough: {line}");
        line.contains("refused the system call ptrace,").then_some(())
    });
    assert_eq!(counted(), Some(3.0));
    let status: serde_json::Value =
        serde_json::from_str(&done(&mut agent.onset(&["status", "--json"]))).unwrap();
    assert_eq!(status["faults"]["refused_syscall"], 3, "{status:#}");
    done(&mut agent.onset(&["trigger", "dload"]));
    assert_eq!(agent.leave(), Some(0));
}
