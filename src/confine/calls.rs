//! The system calls that the agent never makes, by name: some whatever their arguments, some with all
//! arguments but a few.

/// A call: its name and its number.
pub(super) type Call = (&'static str, i64);

/// Calls from 424 on have the same number everywhere; libc does not know all of them.
pub(super) mod new {
    pub(in crate::confine) const OPEN_TREE: i64 = 428;
    pub(in crate::confine) const MOVE_MOUNT: i64 = 429;
    pub(in crate::confine) const FSOPEN: i64 = 430;
    pub(in crate::confine) const FSCONFIG: i64 = 431;
    pub(in crate::confine) const FSMOUNT: i64 = 432;
    pub(in crate::confine) const FSPICK: i64 = 433;
    pub(in crate::confine) const CLONE3: i64 = 435;
    pub(in crate::confine) const PIDFD_GETFD: i64 = 438;
    pub(in crate::confine) const PROCESS_MADVISE: i64 = 440;
    pub(in crate::confine) const MOUNT_SETATTR: i64 = 442;
    pub(in crate::confine) const QUOTACTL_FD: i64 = 443;
    pub(in crate::confine) const LSM_SET_SELF_ATTR: i64 = 460;
    pub(in crate::confine) const OPEN_TREE_ATTR: i64 = 467;
    /// file_setattr of Linux 6.17: the last that was looked at for this list.
    pub(in crate::confine) const LAST_KNOWN: i64 = 469;
}

/// Calls that are never made, whatever their arguments.
pub(super) const FORBIDDEN: &[Call] = &[
    // No other program is run.
    ("execve", libc::SYS_execve),
    ("execveat", libc::SYS_execveat),
    // Nobody's memory, registers or files are taken by force, and nobody is signalled.
    ("ptrace", libc::SYS_ptrace),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("process_madvise", new::PROCESS_MADVISE),
    ("pidfd_getfd", new::PIDFD_GETFD),
    ("kcmp", libc::SYS_kcmp),
    ("kill", libc::SYS_kill),
    ("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo),
    ("rt_tgsigqueueinfo", libc::SYS_rt_tgsigqueueinfo),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    // The kernel stays as it is.
    ("kexec_load", libc::SYS_kexec_load),
    ("init_module", libc::SYS_init_module),
    ("finit_module", libc::SYS_finit_module),
    ("delete_module", libc::SYS_delete_module),
    ("reboot", libc::SYS_reboot),
    ("swapon", libc::SYS_swapon),
    ("swapoff", libc::SYS_swapoff),
    ("acct", libc::SYS_acct),
    ("quotactl", libc::SYS_quotactl),
    ("quotactl_fd", new::QUOTACTL_FD),
    ("syslog", libc::SYS_syslog),
    ("settimeofday", libc::SYS_settimeofday),
    ("clock_settime", libc::SYS_clock_settime),
    ("clock_adjtime", libc::SYS_clock_adjtime),
    ("adjtimex", libc::SYS_adjtimex),
    ("sethostname", libc::SYS_sethostname),
    ("setdomainname", libc::SYS_setdomainname),
    ("vhangup", libc::SYS_vhangup),
    // Nothing is mounted, and no namespace is left.
    ("mount", libc::SYS_mount),
    ("umount2", libc::SYS_umount2),
    ("pivot_root", libc::SYS_pivot_root),
    ("chroot", libc::SYS_chroot),
    ("open_tree", new::OPEN_TREE),
    ("open_tree_attr", new::OPEN_TREE_ATTR),
    ("move_mount", new::MOVE_MOUNT),
    ("fsopen", new::FSOPEN),
    ("fsconfig", new::FSCONFIG),
    ("fsmount", new::FSMOUNT),
    ("fspick", new::FSPICK),
    ("mount_setattr", new::MOUNT_SETATTR),
    ("setns", libc::SYS_setns),
    ("unshare", libc::SYS_unshare),
    // With CAP_DAC_READ_SEARCH it opens any file of a filesystem, past what is mounted.
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("mknodat", libc::SYS_mknodat),
    ("fanotify_init", libc::SYS_fanotify_init),
    // The user and the groups stay.
    ("setuid", libc::SYS_setuid),
    ("setgid", libc::SYS_setgid),
    ("setreuid", libc::SYS_setreuid),
    ("setregid", libc::SYS_setregid),
    ("setresuid", libc::SYS_setresuid),
    ("setresgid", libc::SYS_setresgid),
    ("setfsuid", libc::SYS_setfsuid),
    ("setfsgid", libc::SYS_setfsgid),
    ("setgroups", libc::SYS_setgroups),
    ("personality", libc::SYS_personality),
    ("lsm_set_self_attr", new::LSM_SET_SELF_ATTR),
    ("keyctl", libc::SYS_keyctl),
    ("add_key", libc::SYS_add_key),
    ("request_key", libc::SYS_request_key),
    // What io_uring does, no filter sees.
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("userfaultfd", libc::SYS_userfaultfd),
];

/// Further ones, which only one architecture has, or which libc knows only there.
#[cfg(target_arch = "x86_64")]
pub(super) const FORBIDDEN_HERE: &[Call] = &[
    ("fork", libc::SYS_fork),
    ("vfork", libc::SYS_vfork),
    ("mknod", libc::SYS_mknod),
    ("kexec_file_load", libc::SYS_kexec_file_load),
    ("iopl", libc::SYS_iopl),
    ("ioperm", libc::SYS_ioperm),
    ("modify_ldt", libc::SYS_modify_ldt),
    ("uselib", libc::SYS_uselib),
    ("lookup_dcookie", libc::SYS_lookup_dcookie),
];
#[cfg(target_arch = "aarch64")]
pub(super) const FORBIDDEN_HERE: &[Call] = &[("kexec_file_load", 294)];

/// A call that is allowed only with certain arguments.
pub(super) struct Bounded {
    pub(super) call: Call,
    /// Which argument; of its 64 bits the lower 32 hold all that the kernel looks at.
    pub(super) argument: u32,
    pub(super) allowed: Allowed,
}

pub(super) enum Allowed {
    /// One of these values.
    OneOf(&'static [Value]),
    /// This process's id.
    OwnPid,
    /// A set of bits that has one of the first and none of the second.
    Bits(u32, u32),
}

/// A value of an argument: what it is called, and its number.
type Value = (&'static str, u32);

/// From <linux/bpf.h>: what libbpf does to load, attach, read and write what is ours. A tracer that is
/// enabled by SIGHUP loads its hook then. Not there: pinning, and opening other people's maps and programs
/// by their ids. tests/live/confined/calls.rs holds each line of this table and the next to be needed.
const BPF_COMMANDS: &[Value] = &[
    ("BPF_MAP_CREATE", 0),
    ("BPF_MAP_LOOKUP_ELEM", 1),
    ("BPF_MAP_UPDATE_ELEM", 2),
    ("BPF_MAP_DELETE_ELEM", 3),
    ("BPF_MAP_GET_NEXT_KEY", 4),
    ("BPF_PROG_LOAD", 5),
    // Run-queue sums are brought up to date by a program that runs on each CPU.
    ("BPF_PROG_TEST_RUN", 10),
    ("BPF_OBJ_GET_INFO_BY_FD", 15),
    ("BPF_RAW_TRACEPOINT_OPEN", 17),
    ("BPF_BTF_LOAD", 18),
    // For a type that the kernel itself has not, libbpf looks through those of modules; without CAP_SYS_ADMIN
    // the kernel refuses the first of these, and libbpf goes on.
    ("BPF_BTF_GET_NEXT_ID", 23),
    ("BPF_BTF_GET_FD_BY_ID", 19),
    ("BPF_MAP_FREEZE", 22),
    ("BPF_MAP_LOOKUP_AND_DELETE_BATCH", 25),
    ("BPF_LINK_CREATE", 28),
    ("BPF_ITER_CREATE", 33),
    ("BPF_PROG_BIND_MAP", 35),
    // libbpf asks for the rights that /sys/fs/bpf may delegate to a user namespace; outside one there are none.
    ("BPF_TOKEN_CREATE", 36),
];

/// glibc's resolver asks nscd(8) over the first, and the last for the host's addresses.
const FAMILIES: &[Value] = &[("AF_UNIX", 1), ("AF_INET", 2), ("AF_INET6", 10), ("AF_NETLINK", 16)];

pub(super) const CLONE_THREAD: u32 = 0x0001_0000;
/// Every CLONE_NEW flag: new namespaces.
const CLONE_NEW: u32 = 0x7e02_0080;

pub(super) const BOUNDED: [Bounded; 6] = [
    // Threads, but no processes.
    Bounded {
        call: ("clone", libc::SYS_clone),
        argument: 0,
        allowed: Allowed::Bits(CLONE_THREAD, CLONE_NEW),
    },
    Bounded { call: ("bpf", libc::SYS_bpf), argument: 0, allowed: Allowed::OneOf(BPF_COMMANDS) },
    Bounded { call: ("socket", libc::SYS_socket), argument: 0, allowed: Allowed::OneOf(FAMILIES) },
    // How glibc's abort(3) signals its own process.
    Bounded { call: ("tgkill", libc::SYS_tgkill), argument: 0, allowed: Allowed::OwnPid },
    // musl's signals its own thread, whose id a filter cannot know before that thread is there: so the
    // signal is bound, and the kernel holds it to processes of the same user.
    Bounded {
        call: ("tkill", libc::SYS_tkill),
        argument: 1,
        allowed: Allowed::OneOf(&[("SIGABRT", libc::SIGABRT.cast_unsigned())]),
    },
    Bounded {
        call: ("prlimit64", libc::SYS_prlimit64),
        argument: 0,
        allowed: Allowed::OneOf(&[("this process", 0)]),
    },
];

/// What the filter lets through of a call whose argument it looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// The call.
    pub call: &'static str,
    /// What is let through, in words.
    pub what: &'static str,
    /// Of the argument's lower half these bits ...
    pub mask: u32,
    /// ... are to be these; none: any of them is to be set.
    pub value: Option<u32>,
}

/// Each argument that the filter lets through, of this process or of another with this id.
pub fn allowances(pid: u32, each: &mut dyn FnMut(Allowance)) {
    for Bounded { call: (call, _), allowed, .. } in &BOUNDED {
        let mut is = |what, value| each(Allowance { call, what, mask: u32::MAX, value: Some(value) });
        match *allowed {
            Allowed::OneOf(values) => values.iter().for_each(|(what, value)| is(what, *value)),
            Allowed::OwnPid => is("this process", pid),
            Allowed::Bits(one, _) => each(Allowance { call, what: "a thread", mask: one, value: None }),
        }
    }
}

/// Refused without a signal, and so not counted: a libc makes them with all signals blocked (to start a
/// process or a thread, to raise a signal, to change the user of all threads), and a SIGSYS that cannot be
/// delivered ends the process.
const BLOCKED_SIGNALS: &[i64] = &[
    libc::SYS_clone,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    libc::SYS_tgkill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
];

/// How many calls are refused, always or with some arguments.
pub(super) const MANY: usize = FORBIDDEN.len() + FORBIDDEN_HERE.len() + BOUNDED.len();

/// All of them; their places here are what refusals are counted by.
pub(super) fn all() -> impl Iterator<Item = Call> {
    let whole = FORBIDDEN.iter().chain(FORBIDDEN_HERE).copied();
    whole.chain(BOUNDED.iter().map(|bounded| bounded.call))
}

/// Whether a call of this name is refused, always or with some arguments.
#[must_use]
pub fn is_guarded(name: &str) -> bool {
    all().any(|call| call.0 == name)
}

/// The place of a call whose refusal can be counted.
pub(super) fn counted(number: i64) -> Option<usize> {
    if BLOCKED_SIGNALS.contains(&number) { None } else { all().position(|call| call.1 == number) }
}
