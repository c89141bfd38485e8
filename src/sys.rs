//! The system calls that std lacks, each behind a safe function: timerfd, signalfd, clocks,
//! fallocate. Errors are the kernel's own; the caller adds what it was doing.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use crate::clock::{Now, Wall};

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: libc::c_int) -> io::Result<OwnedFd> {
    let fd = checked(result)?;
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn clock(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours; the clocks asked for always exist.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The time on both clocks.
#[must_use]
pub fn now() -> Now {
    let wall = clock(libc::CLOCK_REALTIME);
    Now {
        mono: clock(libc::CLOCK_MONOTONIC),
        wall: Wall(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// The time on CLOCK_MONOTONIC alone, as BPF programs have it.
#[must_use]
pub fn monotonic() -> Duration {
    clock(libc::CLOCK_MONOTONIC)
}

/// The moment at which `instant` was taken.
#[must_use]
pub fn at(instant: Instant) -> Now {
    // In this order, it is never found to lie before itself.
    let past = instant.elapsed();
    now().minus(past)
}

/// The moment at which CLOCK_MONOTONIC was at `time`, which is past.
#[must_use]
pub fn at_monotonic(time: Duration) -> Now {
    let now = now();
    now.minus(now.mono.saturating_sub(time))
}

/// CPU time this whole process has used so far.
#[must_use]
pub fn process_cpu() -> Duration {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// A timer as a descriptor (timerfd_create(2)), on CLOCK_MONOTONIC.
#[derive(Debug)]
pub struct Timer(File);

impl Timer {
    /// A timer that is not set.
    pub fn new() -> io::Result<Timer> {
        // SAFETY: takes no pointers.
        let fd = owned(unsafe {
            libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK)
        })?;
        Ok(Timer(File::from(fd)))
    }

    /// Fires at `first` and then each `every`; an `every` of zero is once, a `first` of zero is never.
    pub fn set(&self, first: Duration, every: Duration) -> io::Result<()> {
        let spec = libc::itimerspec { it_interval: timespec(every), it_value: timespec(first) };
        // SAFETY: the new value is a valid itimerspec, and a null old value is allowed.
        checked(unsafe {
            libc::timerfd_settime(
                self.0.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME,
                &raw const spec,
                std::ptr::null_mut(),
            )
        })?;
        Ok(())
    }

    /// How often it fired since it was last asked.
    pub fn fired(&self) -> u64 {
        use std::io::Read as _;
        let mut count = [0; 8];
        match (&self.0).read(&mut count) {
            Ok(8) => u64::from_ne_bytes(count),
            _ => 0,
        }
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: time.as_secs().try_into().unwrap_or(i32::MAX.into()), // 68 years are for ever
        tv_nsec: libc::c_long::from(time.subsec_nanos()),
    }
}

/// Signals as a descriptor (signalfd(2)); blocked for this thread and those it starts later.
#[derive(Debug)]
pub struct Signals(File);

impl Signals {
    /// Takes these signals out of their usual delivery.
    pub fn take(signals: &[libc::c_int]) -> io::Result<Signals> {
        // SAFETY: an all-zero sigset_t is a valid value for sigemptyset to overwrite.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is ours, and the signal numbers are libc's.
        unsafe {
            libc::sigemptyset(&raw mut set);
            for signal in signals {
                libc::sigaddset(&raw mut set, *signal);
            }
        }
        // SAFETY: `set` was filled above; a null old set is allowed.
        checked(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) })?;
        // SAFETY: -1 asks for a new descriptor for a set of ours.
        let fd =
            owned(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
        Ok(Signals(File::from(fd)))
    }

    /// The next pending signal.
    pub fn next(&self) -> Option<libc::c_int> {
        use std::io::Read as _;
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        let whole = (&self.0).read(&mut info).ok()? == info.len();
        let number: [u8; 4] = info.first_chunk().copied()?;
        whole.then(|| libc::c_int::from_ne_bytes(number))
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Gives a file all its blocks now (fallocate(2)), so that a later write to its mapping cannot
/// find the disk full.
pub fn fallocate(file: &File, len: u64) -> io::Result<()> {
    let len = libc::off_t::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: takes no pointers.
    checked(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) })?;
    Ok(())
}

/// Lets this process open as many files as the system allows it to. Returns that number.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to an rlimit of ours.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to an rlimit of ours.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}

/// The kernel's page size.
#[must_use]
pub fn page_size() -> Option<u64> {
    // SAFETY: takes no pointers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()
}

/// Hands over the host's name (gethostname(2)); empty where there is none.
pub fn hostname<T>(take: impl FnOnce(&str) -> T) -> T {
    let mut name = [0_u8; 256];
    // SAFETY: the pointer and the length are those of a buffer of ours.
    let done = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) } == 0;
    let name = name.split(|byte| *byte == 0).next().filter(|_| done).unwrap_or_default();
    take(&String::from_utf8_lossy(name))
}

/// Whether this process is root's.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: takes no pointers and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// How many entries a folder has, `.` and `..` left out, without asking for memory (getdents64(2)).
pub fn entries(folder: &File) -> io::Result<u64> {
    /// Where `d_reclen` and `d_name` stand in `struct linux_dirent64`.
    const RECLEN: usize = 16;
    const NAME: usize = 19;
    // SAFETY: takes no pointers.
    if unsafe { libc::lseek(folder.as_raw_fd(), 0, libc::SEEK_SET) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut buffer = [0_u8; 4096];
    let mut count = 0;
    loop {
        // SAFETY: the pointer and the length are those of a buffer of ours.
        let read = unsafe {
            libc::syscall(libc::SYS_getdents64, folder.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
        };
        let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
        let mut rest = buffer.get(..read).unwrap_or_default();
        if rest.is_empty() {
            return Ok(count);
        }
        while let Some(length) = rest.get(RECLEN..).and_then(<[u8]>::first_chunk) {
            let name = rest.get(NAME..).unwrap_or_default();
            let own = name.starts_with(b".\0") || name.starts_with(b"..\0");
            count += u64::from(!own);
            let length = usize::from(u16::from_ne_bytes(*length)).max(1);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

/// Returns the whole pages in `memory` to the system (madvise(2)). Their content is lost: they are zeros, or unchanged
/// where the kernel refuses.
pub fn discard(memory: &mut [u8]) {
    // SAFETY: the memory is ours alone, and zeros are bytes too.
    unsafe { discard_within(memory.as_mut_ptr(), memory.len()) }
}

/// The same of memory that holds nothing.
pub fn discard_unset<T: Copy>(memory: &mut [MaybeUninit<T>]) {
    // SAFETY: the memory is ours alone, and what is unset may be zero.
    unsafe { discard_within(memory.as_mut_ptr().cast(), size_of_val(memory)) }
}

/// Discards the whole pages of this memory.
///
/// # Safety
///
/// The memory is the caller's alone, and may become zero.
unsafe fn discard_within(start: *mut u8, len: usize) {
    let page = page_size().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
    let skip = start.align_offset(page.max(1));
    let len = len.saturating_sub(skip).checked_div(page).unwrap_or(0) * page;
    if len > 0 {
        // SAFETY: whole pages inside memory that may become zero, as the caller promises.
        unsafe { libc::madvise(start.wrapping_add(skip).cast(), len, libc::MADV_DONTNEED) };
    }
}

/// Whether the kernel lets this process lock as much memory as it likes.
#[must_use]
pub fn memlock_is_free() -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to an rlimit of ours.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    got == 0 && limit.rlim_max == libc::RLIM_INFINITY
}

/// The user and the group of a unix socket's peer (unix(7), SO_PEERCRED).
pub fn peer(socket: &impl AsRawFd) -> io::Result<(u32, u32)> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    // SAFETY: the kernel writes at most `len` bytes to a ucred of ours.
    checked(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    })?;
    Ok((peer.uid, peer.gid))
}

/// Whether a unix socket's peer has `group` among its supplementary groups (SO_PEERGROUPS). False for a peer with more
/// groups than anyone needs.
#[must_use]
pub fn peer_is_in(socket: &impl AsRawFd, group: u32) -> bool {
    /// Of the 65,536 that the kernel allows.
    const GROUPS_MAX: usize = 1024;
    let mut groups = [0_u32; GROUPS_MAX];
    let mut len = libc::socklen_t::try_from(size_of_val(&groups)).unwrap_or(0);
    // SAFETY: the kernel writes at most `len` bytes to an array of ours.
    let got = checked(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut len,
        )
    });
    let count = usize::try_from(len).unwrap_or(0) / size_of::<u32>();
    got.is_ok() && groups.iter().take(count).any(|theirs| *theirs == group)
}

/// Waits for `patience`, or until the reading end of `to` is closed. Returns whether it is. A file always has a reader.
pub fn wait_unread(to: &impl AsRawFd, patience: Duration) -> bool {
    let ms = libc::c_int::try_from(patience.as_millis()).unwrap_or(libc::c_int::MAX);
    // No event is asked for: the kernel tells of errors and of the other end's going in any case.
    let mut poll = libc::pollfd { fd: to.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: the pointer is to one pollfd of ours.
    let told = unsafe { libc::poll(&raw mut poll, 1, ms) };
    if told > 0 && poll.revents & libc::POLLNVAL != 0 {
        std::thread::sleep(patience); // it is closed: writing will say so
        return false;
    }
    told > 0
}

/// The user that this process acts as.
#[must_use]
pub fn user() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}
