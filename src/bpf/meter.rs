//! What the programs cost, as the kernel counts it.

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::time::Duration;

use libbpf_rs::libbpf_sys;

/// Reads the run time of programs that were loaded.
#[derive(Debug, Default)]
pub struct Meter(Vec<(&'static str, Vec<OwnedFd>)>);

impl Meter {
    /// Counts this program in, in place of one of that name that was there before.
    pub(super) fn add(&mut self, name: &'static str, program: impl AsFd) {
        self.add_all(name, [program]);
    }

    /// Counts these programs in, as one.
    pub(super) fn add_all(&mut self, name: &'static str, programs: impl IntoIterator<Item = impl AsFd>) {
        self.0.retain(|(other, _)| *other != name);
        // Out of descriptors: their cost will not be shown.
        let fds = programs.into_iter().map(|program| program.as_fd().try_clone_to_owned());
        self.0.extend(fds.collect::<Result<Vec<_>, _>>().map(|fds| (name, fds)));
    }

    /// Counts in what `other` does, each in place of one of that name that was there before.
    pub fn take_in(&mut self, other: &mut Meter) {
        self.0.retain(|(name, _)| !other.0.iter().any(|(new, _)| new == name));
        self.0.append(&mut other.0);
    }

    /// Each name, with the run time and the runs of its programs; zero unless the kernel counts them
    /// (kernel.bpf_stats_enabled).
    pub fn read(&self, each: &mut dyn FnMut(&'static str, Duration, u64)) {
        for (name, programs) in &self.0 {
            let (mut time, mut runs) = (Duration::ZERO, 0_u64);
            for (ran, count) in programs.iter().filter_map(run_of) {
                (time, runs) = (time.saturating_add(ran), runs.saturating_add(count));
            }
            each(name, time, runs);
        }
    }
}

/// How long a program has run, and how often.
fn run_of(program: &OwnedFd) -> Option<(Duration, u64)> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut len = u32::try_from(size_of_val(&info)).ok()?;
    // SAFETY: `info` is ours, `len` is its length, and all pointers in it are null with lengths of
    // zero, so the kernel fills in nothing else.
    let result =
        unsafe { libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut len) };
    (result == 0).then(|| (Duration::from_nanos(info.run_time_ns), info.run_cnt))
}
