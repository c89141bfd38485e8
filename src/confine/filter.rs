//! The seccomp filter: system calls that the agent never makes are refused with EPERM, in all its
//! threads and for ever. It names what is forbidden, not what is allowed: a libc or a resolver that
//! starts to use another harmless call must not break an agent in the field. What is newer than this
//! list does not exist for us (ENOSYS), so that nothing new is allowed unseen.

use std::io;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;
#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), target_endian = "little")))]
compile_error!("the numbers of system calls differ on this architecture: see src/confine/filter.rs");

/// Calls from 424 on have the same number everywhere; libc does not know all of them.
mod new {
    pub(super) const OPEN_TREE: i64 = 428;
    pub(super) const MOVE_MOUNT: i64 = 429;
    pub(super) const FSOPEN: i64 = 430;
    pub(super) const FSCONFIG: i64 = 431;
    pub(super) const FSMOUNT: i64 = 432;
    pub(super) const FSPICK: i64 = 433;
    pub(super) const CLONE3: i64 = 435;
    pub(super) const PIDFD_GETFD: i64 = 438;
    pub(super) const PROCESS_MADVISE: i64 = 440;
    pub(super) const MOUNT_SETATTR: i64 = 442;
    pub(super) const QUOTACTL_FD: i64 = 443;
    pub(super) const LSM_SET_SELF_ATTR: i64 = 460;
    pub(super) const OPEN_TREE_ATTR: i64 = 467;
    /// file_setattr of Linux 6.17: the last that was looked at for this list.
    pub(super) const LAST_KNOWN: i64 = 469;
}

/// Never made, whatever their arguments.
const FORBIDDEN: &[i64] = &[
    // No other program is run.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Nobody's memory, registers or files are taken by force, and nobody is signalled.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    new::PROCESS_MADVISE,
    new::PIDFD_GETFD,
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
    // The kernel stays as it is.
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    new::QUOTACTL_FD,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    // Nothing is mounted, and no namespace is left.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    new::OPEN_TREE,
    new::OPEN_TREE_ATTR,
    new::MOVE_MOUNT,
    new::FSOPEN,
    new::FSCONFIG,
    new::FSMOUNT,
    new::FSPICK,
    new::MOUNT_SETATTR,
    libc::SYS_setns,
    libc::SYS_unshare,
    // With CAP_DAC_READ_SEARCH it opens any file of a filesystem, past what is mounted.
    libc::SYS_open_by_handle_at,
    libc::SYS_mknodat,
    libc::SYS_fanotify_init,
    // The user and the groups stay.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_personality,
    new::LSM_SET_SELF_ATTR,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // What io_uring does, no filter sees.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
];

/// Those of them that only one architecture has, or that libc knows of only there.
#[cfg(target_arch = "x86_64")]
const FORBIDDEN_HERE: &[i64] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_mknod,
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_lookup_dcookie,
];
#[cfg(target_arch = "aarch64")]
const FORBIDDEN_HERE: &[i64] = &[294 /* kexec_file_load */];

/// A call that is made, but not with every argument.
struct Bounded {
    call: i64,
    /// Which argument; of its 64 bits the lower 32 hold all that the kernel looks at.
    argument: u32,
    allowed: Allowed,
}

enum Allowed {
    /// One of these values.
    OneOf(&'static [u32]),
    /// This process's id, or none.
    Ourselves,
    /// A set of bits that has one of the first and none of the second.
    Bits(u32, u32),
}

/// From <linux/bpf.h>: what libbpf does to load, attach, read and write what is ours. A tracer that is
/// enabled by SIGHUP loads its hook then. Not there: pinning, and opening other people's maps and programs
/// by their ids.
const BPF_COMMANDS: &[u32] = &[
    0,  // BPF_MAP_CREATE
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    5,  // BPF_PROG_LOAD
    10, // BPF_PROG_TEST_RUN: run-queue sums are brought up to date by a program that runs on each CPU
    15, // BPF_OBJ_GET_INFO_BY_FD
    17, // BPF_RAW_TRACEPOINT_OPEN
    18, // BPF_BTF_LOAD
    21, // BPF_MAP_LOOKUP_AND_DELETE_ELEM
    22, // BPF_MAP_FREEZE
    24, // BPF_MAP_LOOKUP_BATCH
    25, // BPF_MAP_LOOKUP_AND_DELETE_BATCH
    26, // BPF_MAP_UPDATE_BATCH
    27, // BPF_MAP_DELETE_BATCH
    28, // BPF_LINK_CREATE
    33, // BPF_ITER_CREATE
    34, // BPF_LINK_DETACH
    35, // BPF_PROG_BIND_MAP
];

/// AF_UNIX, AF_INET, AF_INET6, and AF_NETLINK: a resolver asks it for the host's addresses.
const FAMILIES: &[u32] = &[1, 2, 10, 16];

const CLONE_THREAD: u32 = 0x0001_0000;
/// Every CLONE_NEW flag: new namespaces.
const CLONE_NEW: u32 = 0x7e02_0080;

const BOUNDED: [Bounded; 6] = [
    // Threads, but no processes.
    Bounded { call: libc::SYS_clone, argument: 0, allowed: Allowed::Bits(CLONE_THREAD, CLONE_NEW) },
    Bounded { call: libc::SYS_bpf, argument: 0, allowed: Allowed::OneOf(BPF_COMMANDS) },
    Bounded { call: libc::SYS_socket, argument: 0, allowed: Allowed::OneOf(FAMILIES) },
    // How glibc's abort(3) signals its own process.
    Bounded { call: libc::SYS_tgkill, argument: 0, allowed: Allowed::Ourselves },
    // musl's signals its own thread, whose id a filter cannot know before that thread is there: so the
    // signal is bound, and the kernel holds it to processes of the same user.
    Bounded { call: libc::SYS_tkill, argument: 1, allowed: Allowed::OneOf(&[libc::SIGABRT.cast_unsigned()]) },
    Bounded { call: libc::SYS_prlimit64, argument: 0, allowed: Allowed::Ourselves },
];

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH_AT: u32 = 4;
const ARGUMENTS: u32 = 16;

const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_ABOVE: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
const IF_ANY: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;

/// A program in the making. Every condition stands before one return, which it skips if it fails:
/// no jump is long.
struct Program(Vec<libc::sock_filter>);

impl Program {
    fn push(&mut self, code: u32, value: u32, skip: u8) {
        // The codes have eight bits.
        let code = u16::try_from(code).unwrap_or(0);
        self.0.push(libc::sock_filter { code, jt: 0, jf: skip, k: value });
    }

    fn load(&mut self, offset: u32) {
        self.push(LOAD, offset, 0);
    }

    fn end(&mut self, answer: u32) {
        self.push(RETURN, answer, 0);
    }

    fn when(&mut self, condition: u32, value: u32, answer: u32) {
        self.push(condition, value, 1);
        self.end(answer);
    }

    fn bound(&mut self, call: &Bounded, pid: u32) {
        let mut body = Program(Vec::new());
        body.load(ARGUMENTS + 8 * call.argument);
        match call.allowed {
            Allowed::OneOf(values) => {
                values.iter().for_each(|value| body.when(IF_EQUAL, *value, libc::SECCOMP_RET_ALLOW));
            }
            Allowed::Ourselves => {
                [0, pid].iter().for_each(|value| body.when(IF_EQUAL, *value, libc::SECCOMP_RET_ALLOW));
            }
            Allowed::Bits(one, none) => {
                body.when(IF_ANY, none, REFUSED);
                body.when(IF_ANY, one, libc::SECCOMP_RET_ALLOW);
            }
        }
        body.end(REFUSED);
        let skip = u8::try_from(body.0.len()).unwrap_or(u8::MAX);
        self.push(IF_EQUAL, number(call.call), skip);
        self.0.extend(body.0);
    }
}

fn number(call: i64) -> u32 {
    // One that is no number of a call is no call that could be made.
    u32::try_from(call).unwrap_or(u32::MAX)
}

fn program(pid: u32) -> Vec<libc::sock_filter> {
    let mut program = Program(Vec::new());
    program.load(ARCH_AT);
    program.push(IF_EQUAL, ARCH, 1);
    program.push(libc::BPF_JMP | libc::BPF_JA, 1, 0);
    // Calls of another architecture have other numbers: nobody makes them but to get past this.
    program.end(libc::SECCOMP_RET_KILL_PROCESS);
    program.load(NR);
    program.when(IF_ABOVE, number(new::LAST_KNOWN), UNKNOWN);
    // Its flags are in memory, where no filter sees them; without it every libc takes clone(2).
    program.when(IF_EQUAL, number(new::CLONE3), UNKNOWN);
    for call in FORBIDDEN.iter().chain(FORBIDDEN_HERE) {
        program.when(IF_EQUAL, number(*call), REFUSED);
    }
    for call in &BOUNDED {
        program.bound(call, pid);
    }
    program.end(libc::SECCOMP_RET_ALLOW);
    program.0
}

/// From now on nothing that this thread starts can gain rights.
pub(super) fn no_new_privileges() -> io::Result<()> {
    // SAFETY: takes no pointers.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lays the filter over all threads of this process, and those to come.
pub(super) fn install() -> io::Result<()> {
    let mut program = program(std::process::id());
    let len = libc::c_ushort::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // Before 5.16 a filter also switched off speculative stores, for sandboxes that run foreign code;
    // here is none, and it costs CPU on every load.
    let flags = libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: the program's pointer and length are those of a vector that outlives the call.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    match done {
        0 => Ok(()),
        1.. => Err(io::Error::other("a thread has a filter of its own")),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PID: u32 = 4321;

    /// What the kernel would answer to a call with these two arguments.
    fn answer(arch: u32, call: i64, first: u32) -> u32 {
        answer_to(arch, call, [first, 0])
    }

    fn answer_to(arch: u32, call: i64, arguments: [u32; 2]) -> u32 {
        let program = program(PID);
        let (mut at, mut held) = (0, 0);
        loop {
            let step = program[at];
            let taken = match u32::from(step.code) {
                RETURN => return step.k,
                LOAD => {
                    held = match step.k {
                        NR => number(call),
                        ARCH_AT => arch,
                        ARGUMENTS => arguments[0],
                        at if at == ARGUMENTS + 8 => arguments[1],
                        other => panic!("nothing is at {other}"),
                    };
                    true
                }
                IF_EQUAL => held == step.k,
                IF_ABOVE => held > step.k,
                IF_ANY => held & step.k != 0,
                other => {
                    assert_eq!(other, libc::BPF_JMP | libc::BPF_JA);
                    at += step.k as usize;
                    true
                }
            };
            at += 1 + usize::from(if taken { step.jt } else { step.jf });
        }
    }

    #[test]
    fn what_is_never_done_is_refused_and_the_rest_is_allowed() {
        for call in FORBIDDEN.iter().chain(FORBIDDEN_HERE) {
            assert_eq!(answer(ARCH, *call, 0), REFUSED, "{call}");
        }
        for call in [
            libc::SYS_read,
            libc::SYS_openat,
            libc::SYS_perf_event_open,
            libc::SYS_mmap,
            libc::SYS_exit_group,
            libc::SYS_futex,
            libc::SYS_connect,
            libc::SYS_fallocate,
            439, // faccessat2
        ] {
            assert_eq!(answer(ARCH, call, 0), libc::SECCOMP_RET_ALLOW, "{call}");
        }
    }

    #[test]
    fn calls_of_another_architecture_kill_and_newer_ones_do_not_exist() {
        const I386: u32 = 0x4000_0003;
        assert_eq!(answer(I386, libc::SYS_read, 0), libc::SECCOMP_RET_KILL_PROCESS);
        assert_eq!(answer(ARCH, new::LAST_KNOWN + 1, 0), UNKNOWN);
        assert_eq!(answer(ARCH, new::CLONE3, 0), UNKNOWN);
        // The 32-bit pointers' set of calls on x86_64.
        assert_eq!(answer(ARCH, 0x4000_0000 | libc::SYS_execve, 0), UNKNOWN);
    }

    #[test]
    fn some_calls_are_held_to_some_arguments() {
        let cases = [
            (libc::SYS_clone, CLONE_THREAD | 0x3d0f00, libc::SECCOMP_RET_ALLOW),
            (libc::SYS_clone, 17, REFUSED),
            (libc::SYS_clone, CLONE_THREAD | 0x0002_0000, REFUSED),
            (libc::SYS_bpf, 28, libc::SECCOMP_RET_ALLOW),
            (libc::SYS_bpf, 10, libc::SECCOMP_RET_ALLOW),
            (libc::SYS_bpf, 6, REFUSED),
            (libc::SYS_bpf, 13, REFUSED),
            (libc::SYS_socket, 2, libc::SECCOMP_RET_ALLOW),
            (libc::SYS_socket, 17, REFUSED),
            (libc::SYS_tgkill, PID, libc::SECCOMP_RET_ALLOW),
            (libc::SYS_tgkill, 1, REFUSED),
            (libc::SYS_prlimit64, 0, libc::SECCOMP_RET_ALLOW),
            (libc::SYS_prlimit64, 1, REFUSED),
        ];
        for (call, first, want) in cases {
            assert_eq!(answer(ARCH, call, first), want, "{call} {first:#x}");
        }
        for (signal, want) in [
            (libc::SIGABRT, libc::SECCOMP_RET_ALLOW),
            (libc::SIGKILL, REFUSED),
            (libc::SIGTERM, REFUSED),
            (0, REFUSED),
        ] {
            assert_eq!(answer_to(ARCH, libc::SYS_tkill, [PID, signal.cast_unsigned()]), want, "{signal}");
        }
    }

    /// Ends itself from a thread other than its first, as `with` says, under the filter.
    fn dies_under_the_filter(with: &str) -> std::process::ExitStatus {
        let test = std::env::current_exe().expect("this test");
        let mut child = std::process::Command::new(test);
        child.args(["--exact", "confine::filter::tests::child_that_aborts", "--ignored"]);
        child.env(DIES_BY, with).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        child.status().expect("it runs")
    }

    const DIES_BY: &str = "ONSET_DIES_BY";

    #[test]
    #[ignore = "it is the child of another test"]
    fn child_that_aborts() {
        // Asked for by name alone it has nothing to do.
        let Ok(with) = std::env::var(DIES_BY) else { return };
        no_new_privileges().expect("any process may");
        install().expect("the kernel has seccomp");
        let die = move || match with.as_str() {
            "abort" => std::process::abort(),
            // As musl's abort(3) does, whatever libc this test has.
            // SAFETY: the calls take no pointers.
            "tkill" => unsafe {
                libc::syscall(libc::SYS_tkill, libc::syscall(libc::SYS_gettid), libc::SIGABRT);
            },
            other => panic!("{other}: no way to die"),
        };
        std::thread::spawn(die).join().expect("it is gone before");
    }

    #[test]
    fn an_agent_that_aborts_dies_by_sigabrt_under_any_libc() {
        use std::os::unix::process::ExitStatusExt as _;
        for way in ["abort", "tkill"] {
            assert_eq!(dies_under_the_filter(way).signal(), Some(libc::SIGABRT), "{way}");
        }
    }
}
