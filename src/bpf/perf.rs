//! Perf events: what samples are taken by.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use libbpf_rs::libbpf_sys::{
    PERF_COUNT_SW_CPU_CLOCK, PERF_COUNT_SW_PAGE_FAULTS, PERF_FLAG_FD_CLOEXEC, PERF_TYPE_SOFTWARE,
    perf_event_attr,
};

/// What happens on a CPU, and how much of it makes a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A clock that ticks so many times a second while the CPU is not idle. It is the software
    /// clock: the hardware's counters are missing in most virtual machines.
    Clock {
        /// Ticks a second.
        hz: u32,
    },
    /// One page fault in so many.
    Faults {
        /// So many.
        each: u32,
    },
}

impl Event {
    /// What it is called.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Event::Clock { .. } => "cpu-clock",
            Event::Faults { .. } => "page-faults",
        }
    }
}

/// This event on one CPU, once it is enabled.
pub(super) fn open(cpu: u32, event: Event) -> io::Result<OwnedFd> {
    let mut attr = perf_event_attr { type_: PERF_TYPE_SOFTWARE, ..Default::default() };
    attr.size = u32::try_from(size_of_val(&attr)).unwrap_or(0);
    match event {
        Event::Clock { hz } => {
            attr.config = u64::from(PERF_COUNT_SW_CPU_CLOCK);
            attr.__bindgen_anon_1.sample_freq = u64::from(hz);
            attr.set_freq(1);
            attr.set_exclude_idle(1);
        }
        Event::Faults { each } => {
            attr.config = u64::from(PERF_COUNT_SW_PAGE_FAULTS);
            attr.__bindgen_anon_1.sample_period = u64::from(each);
        }
    }
    attr.set_disabled(1);
    let cpu = libc::c_int::try_from(cpu).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (all_tasks, no_group): (libc::pid_t, libc::c_int) = (-1, -1);
    let flags = libc::c_ulong::from(PERF_FLAG_FD_CLOEXEC);
    // SAFETY: `attr` is a perf_event_attr of ours, and its size says how long it is.
    let fd =
        unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attr, all_tasks, cpu, no_group, flags) };
    let fd = libc::c_int::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
