//! What the programs cost, as the kernel counts it.

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::time::Duration;

use libbpf_rs::libbpf_sys;

/// Reads the run time of programs that were loaded.
#[derive(Debug, Default)]
pub struct Meter(Vec<(&'static str, OwnedFd)>);

impl Meter {
    /// Counts this program in, in place of one of that name that was there before.
    pub(super) fn add(&mut self, name: &'static str, program: impl AsFd) {
        self.0.retain(|(other, _)| *other != name);
        // Out of descriptors: its cost will not be shown.
        self.0.extend(program.as_fd().try_clone_to_owned().map(|fd| (name, fd)));
    }

    /// Each program's name, run time and runs; zero unless the kernel counts them (kernel.bpf_stats_enabled).
    pub fn read(&self, each: &mut dyn FnMut(&str, Duration, u64)) {
        for (name, program) in &self.0 {
            let mut info = libbpf_sys::bpf_prog_info::default();
            let Ok(mut len) = u32::try_from(size_of_val(&info)) else { return };
            // SAFETY: `info` is ours, `len` is its length, and all pointers in it are null with
            // lengths of zero, so the kernel fills in nothing else.
            let result = unsafe {
                libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut len)
            };
            if result == 0 {
                each(name, Duration::from_nanos(info.run_time_ns), info.run_cnt);
            }
        }
    }
}
