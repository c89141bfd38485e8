//! What the kernel refused to do for programs that are loaded: counted by kind, for metrics and status,
//! and said in words the first time. A number that lacks a part for it says so in its document, too.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering};

use libbpf_rs::{AsRawLibbpf as _, Link, libbpf_sys};

use super::programs;

/// The kinds that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// What a CPU has summed up could not be brought into the sums that are read.
    Flush,
    /// A program, or the event that drives it, could not be attached.
    Attach,
    /// A program could not be detached: it goes on costing time.
    Detach,
    /// A map could not be read.
    Read,
    /// A map could not be written, or what is old in it could not be deleted.
    Write,
}

/// Each with its name in `onset_faults_total` and what it costs.
const KINDS: [(Failed, &str, &str); 5] = [
    (Failed::Flush, "bpf_flush", "documents of waits say of how many CPUs they lack the last"),
    (Failed::Attach, "bpf_attach", "captures that need it are refused, or say what they lack"),
    (Failed::Detach, "bpf_detach", "it goes on until the agent is started again"),
    (Failed::Read, "bpf_read", "captures that need it are refused"),
    (Failed::Write, "bpf_write", "captures that need it are refused, or lose samples"),
];

static COUNTS: [AtomicU64; KINDS.len()] = [const { AtomicU64::new(0) }; KINDS.len()];

impl Failed {
    /// Counts one, of this thing, for this reason.
    pub fn count(self, what: &str, why: &dyn Display) {
        let Some((place, (_, name, cost))) = KINDS.iter().enumerate().find(|(_, kind)| kind.0 == self) else {
            return;
        };
        let before = COUNTS.get(place).map_or(1, |count| count.fetch_add(1, Ordering::Relaxed));
        if before == 0 {
            // Whoever read stderr may be gone, which is no reason to end.
            let _ = writeln!(
                io::stderr(),
                "onset: {name}: {what}: {why}; {cost}; further ones are counted in onset_faults_total"
            );
        }
    }
}

/// Hands on what was done; what failed is counted.
pub(super) fn counted<T, E: Display>(kind: Failed, what: &str, done: Result<T, E>) -> Option<T> {
    done.inspect_err(|why| kind.count(what, why)).ok()
}

/// How many of each kind since start, by name.
pub fn failures(each: &mut dyn FnMut(&'static str, u64)) {
    for ((_, name, _), count) in KINDS.iter().zip(&COUNTS) {
        each(name, count.load(Ordering::Relaxed));
    }
}

/// A program that is attached until this is dropped. libbpf-rs would not tell of a failure.
pub(super) struct Attached {
    program: &'static str,
    link: ManuallyDrop<Link>,
}

impl Attached {
    /// Notes what became of attaching this program.
    pub(super) fn of<E: Display>(program: &'static str, done: Result<Link, E>) -> Result<Attached, E> {
        match &done {
            Ok(_) => programs::attached(program),
            Err(why) => programs::refused(program, why),
        }
        done.map(|link| Attached { program, link: ManuallyDrop::new(link) })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        programs::detached(self.program);
        // SAFETY: the link is ours, and as it is not dropped itself nothing uses it after this.
        let error = unsafe { libbpf_sys::bpf_link__destroy(self.link.as_libbpf_object().as_ptr()) };
        // With a CPU that went offline its events went, too.
        if error < 0 && ![libc::ENXIO, libc::ENODEV].contains(&-error) {
            Failed::Detach.count("detaching a program", &io::Error::from_raw_os_error(-error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_counted_under_its_own_name() {
        let all = || {
            let mut all = Vec::new();
            failures(&mut |name, count| all.push((name, count)));
            all
        };
        let before = all();
        // No other test makes one of these fail.
        assert_eq!(counted(Failed::Detach, "a program", Err::<(), _>("no")), None);
        assert_eq!(counted(Failed::Detach, "a program", Ok::<_, &str>(7)), Some(7));
        let grown: Vec<_> = all().iter().zip(&before).map(|(now, then)| now.1 - then.1).collect();
        let place = all().iter().position(|(name, _)| *name == "bpf_detach").expect("it is shown");
        assert_eq!(grown.get(place), Some(&1), "{grown:?}");
    }
}
