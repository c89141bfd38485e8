//! System calls that the filter refuses: each is counted by its name, and logged the first time. The kernel sends
//! SIGSYS to the thread instead of making the call, and the handler returns from it with EPERM. It could
//! not let the call through; a supervisor (SECCOMP_RET_USER_NOTIF) in this process could.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::calls::{MANY, all};

static COUNTS: [AtomicU64; MANY] = [const { AtomicU64::new(0) }; MANY];

/// <asm-generic/siginfo.h>: SIGSYS comes from a filter.
const SYS_SECCOMP: libc::c_int = 1;

/// Calls that were refused since start, by name; those that never were are left out.
pub fn refused_calls(each: &mut dyn FnMut(&'static str, u64)) {
    for ((name, _), count) in all().zip(&COUNTS) {
        match count.load(Ordering::Relaxed) {
            0 => {}
            count => each(name, count),
        }
    }
}

/// How many were refused since start.
pub fn refused_calls_total() -> u64 {
    COUNTS.iter().map(|count| count.load(Ordering::Relaxed)).sum()
}

/// Installs the handler of SIGSYS, for this thread and those that it starts.
pub(super) fn listen() -> io::Result<()> {
    // SAFETY: an all-zero sigaction and sigset_t are valid values, which are filled in below.
    let (mut action, mut set): (libc::sigaction, libc::sigset_t) = unsafe { std::mem::zeroed() };
    action.sa_sigaction = refused as *const () as usize;
    // Other signals may come meanwhile, and a thread's own stack for signals is used if it has one.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: both sets are ours; the handler has the signature that SA_SIGINFO asks for, and calls
    // nothing that a signal handler may not.
    let done = unsafe {
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGSYS);
        libc::sigaction(libc::SIGSYS, &raw const action, ptr::null_mut()) == 0
            && libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut()) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The handler: makes the call that was interrupted return EPERM.
extern "C" fn refused(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands both to a handler that is installed with SA_SIGINFO.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    if info.si_code != SYS_SECCOMP {
        return; // someone sent it
    }
    returns(context, -libc::EPERM);
    // What the filter's answer carries.
    let Ok(place) = usize::try_from(info.si_errno) else { return };
    if COUNTS.get(place).is_some_and(|count| count.fetch_add(1, Ordering::Relaxed) == 0)
        && let Some((name, _)) = all().nth(place)
    {
        say(name);
    }
}

#[cfg(target_arch = "x86_64")]
fn returns(context: &mut libc::ucontext_t, value: libc::c_int) {
    if let Some(rax) = context.uc_mcontext.gregs.get_mut(libc::REG_RAX as usize) {
        *rax = value.into();
    }
}

#[cfg(target_arch = "aarch64")]
fn returns(context: &mut libc::ucontext_t, value: libc::c_int) {
    context.uc_mcontext.regs[0] = libc::c_long::from(value).cast_unsigned();
}

/// Logs the call without a lock, an allocation or a change of errno: the thread may be anywhere.
fn say(name: &'static str) {
    let words = [
        "onset: its own filter refused the system call ",
        name,
        ", which it is not known to make: please report this; further ones are counted as refused_syscall in onset_faults_total\n",
    ];
    let parts =
        words.map(|word| libc::iovec { iov_base: word.as_ptr().cast_mut().cast(), iov_len: word.len() });
    // SAFETY: the parts are those of static strings, which are only read; errno is this thread's own.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let _ = libc::writev(libc::STDERR_FILENO, parts.as_ptr(), 3);
        *errno = before;
    }
}
