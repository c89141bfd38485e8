//! The seccomp filter: system calls that the agent never makes are refused with EPERM, in all its
//! threads and for ever. It names what is forbidden, not what is allowed: a libc or a resolver that
//! starts to use another harmless call must not break an agent in the field. What is newer than this
//! list does not exist for us (ENOSYS), so that nothing new is allowed unseen. What is refused is counted.

use std::io;

use super::calls::{Allowed, BOUNDED, Bounded, Call, FORBIDDEN, FORBIDDEN_HERE, counted, new};
use super::refused;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;
#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), target_endian = "little")))]
compile_error!("the numbers of system calls differ on this architecture: see src/confine/calls.rs");

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

/// Who returns from a refused call with EPERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RefusedBy {
    Kernel,
    /// A signal handler, which counts it.
    Signal,
}

/// What the kernel answers to a call that is refused.
fn refusal(call: Call, by: RefusedBy) -> u32 {
    // The lower half comes to the handler.
    let place =
        counted(call.1).and_then(|place| u16::try_from(place).ok()).filter(|_| by == RefusedBy::Signal);
    place.map_or(REFUSED, |place| libc::SECCOMP_RET_TRAP | u32::from(place))
}

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

    fn bound(&mut self, call: &Bounded, pid: u32, by: RefusedBy) {
        let refused = refusal(call.call, by);
        let mut body = Program(Vec::new());
        body.load(ARGUMENTS + 8 * call.argument);
        match call.allowed {
            Allowed::OneOf(values) => {
                values.iter().for_each(|(_, value)| body.when(IF_EQUAL, *value, libc::SECCOMP_RET_ALLOW));
            }
            Allowed::OwnPid => body.when(IF_EQUAL, pid, libc::SECCOMP_RET_ALLOW),
            Allowed::Bits(one, none) => {
                body.when(IF_ANY, none, refused);
                body.when(IF_ANY, one, libc::SECCOMP_RET_ALLOW);
            }
        }
        body.end(refused);
        let skip = u8::try_from(body.0.len()).unwrap_or(u8::MAX);
        self.push(IF_EQUAL, number(call.call.1), skip);
        self.0.extend(body.0);
    }
}

fn number(call: i64) -> u32 {
    // One that is no number of a call is no call that could be made.
    u32::try_from(call).unwrap_or(u32::MAX)
}

fn program(pid: u32, by: RefusedBy) -> Vec<libc::sock_filter> {
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
        program.when(IF_EQUAL, number(call.1), refusal(*call, by));
    }
    for call in &BOUNDED {
        program.bound(call, pid, by);
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

/// Lays the filter over all threads of this process, and those to come. Where no handler can be had refusals
/// are not counted.
pub(super) fn install() -> io::Result<()> {
    let by = refused::listen().map_or(RefusedBy::Kernel, |()| RefusedBy::Signal);
    let mut program = program(std::process::id(), by);
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
    use super::super::calls::{CLONE_THREAD, MANY, all};
    use super::*;

    const PID: u32 = 4321;

    /// What the kernel would answer to a call with these two arguments.
    fn answer(arch: u32, call: i64, first: u32) -> u32 {
        answer_to(arch, call, [first, 0])
    }

    fn answer_to(arch: u32, call: i64, arguments: [u32; 2]) -> u32 {
        run(&program(PID, RefusedBy::Kernel), arch, call, arguments)
    }

    fn run(program: &[libc::sock_filter], arch: u32, call: i64, arguments: [u32; 2]) -> u32 {
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
    fn calls_outside_the_table_are_refused_and_the_rest_allowed() {
        for call in FORBIDDEN.iter().chain(FORBIDDEN_HERE) {
            assert_eq!(answer(ARCH, call.1, 0), REFUSED, "{}", call.0);
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
    fn calls_of_another_architecture_kill_and_unknown_numbers_give_enosys() {
        const I386: u32 = 0x4000_0003;
        assert_eq!(answer(I386, libc::SYS_read, 0), libc::SECCOMP_RET_KILL_PROCESS);
        assert_eq!(answer(ARCH, new::LAST_KNOWN + 1, 0), UNKNOWN);
        assert_eq!(answer(ARCH, new::CLONE3, 0), UNKNOWN);
        // The 32-bit pointers' set of calls on x86_64.
        assert_eq!(answer(ARCH, 0x4000_0000 | libc::SYS_execve, 0), UNKNOWN);
    }

    #[test]
    fn some_calls_are_allowed_only_with_certain_arguments() {
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

    #[test]
    fn a_refused_call_is_counted_unless_a_libc_makes_it_with_all_signals_blocked() {
        let program = program(PID, RefusedBy::Signal);
        let silent = ["clone", "fork", "vfork", "tgkill", "tkill", "setuid", "setgroups"];
        let mut kinds = [0; 2];
        for (place, (name, number)) in all().enumerate() {
            // With these arguments none of them is allowed.
            let answer = run(&program, ARCH, number, [u32::MAX, 0]);
            match answer & libc::SECCOMP_RET_ACTION_FULL {
                libc::SECCOMP_RET_TRAP => {
                    assert_eq!(
                        answer & libc::SECCOMP_RET_DATA,
                        u32::try_from(place).expect("there are few"),
                        "{name}"
                    );
                    assert!(!silent.contains(&name), "{name}");
                    kinds[0] += 1;
                }
                _ => {
                    assert_eq!(answer, REFUSED, "{name}");
                    kinds[1] += 1;
                }
            }
        }
        assert!(kinds[0] > 50 && kinds[1] >= silent.len() - 2, "{kinds:?}");
        let names: std::collections::BTreeSet<_> = all().map(|call| call.0).collect();
        assert_eq!((names.len(), all().count()), (MANY, MANY), "each has a name of its own");
        assert_eq!(run(&program, ARCH, new::CLONE3, [0, 0]), UNKNOWN, "a libc tries it for each thread");
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
