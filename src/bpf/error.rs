//! Why a program cannot run here, as a sentence with a remedy. libbpf's own words never reach
//! stderr: what it warns of while something loads becomes part of that sentence.

use std::cell::RefCell;
use std::io;

use libbpf_rs::{ErrorKind, PrintLevel};

/// What this kernel, or these rights, do not allow.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No BTF.
    #[error("kernel has no BTF (CONFIG_DEBUG_INFO_BTF); see onset doctor")]
    NoBtf,
    /// Refused for want of rights.
    #[error(
        "{0} is not permitted: onset needs root, or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE; see onset doctor"
    )]
    NotPermitted(&'static str),
    /// A tracer names a hook that is not there.
    #[error("there is no hook {0}: bpf/{0}.bpf.c is missing, or has no ring buffer `events`")]
    NoHook(&'static str),
    /// A tracer's spec sets a variable that its hook has not.
    #[error("the hook {hook} has no `const volatile` variable {knob} of one number that its program uses")]
    NoKnob {
        /// The hook.
        hook: &'static str,
        /// The variable.
        knob: &'static str,
    },
    /// A variable of a hook is too narrow for its value.
    #[error("{value} is too large for the variable {knob} of the hook {hook}")]
    NarrowKnob {
        /// The hook.
        hook: &'static str,
        /// The variable.
        knob: &'static str,
        /// What it was to be set to.
        value: u64,
    },
    /// Refused for another reason.
    #[error("this kernel does not take {what}: {words}; onset needs Linux 5.10 or later, see onset doctor")]
    Refused {
        /// What was to be loaded.
        what: &'static str,
        /// What libbpf or the kernel said of it.
        words: String,
    },
    /// A kernel that lacks what is needed.
    #[error("{0} needs Linux {1} or later")]
    TooOld(&'static str, &'static str),
    /// More CPUs than it pays for.
    #[error("{0} is for hosts of at most {1} CPUs")]
    ManyCpus(&'static str, usize),
    /// /sys does not tell which CPUs are online.
    #[error(
        "the list of CPUs that are online cannot be read: {0}; onset needs /sys, and a descriptor to read it"
    )]
    Cpus(#[source] io::Error),
    /// Samples cannot be taken.
    #[error(
        "perf_event_open of {event} failed: {source}; it takes CAP_PERFMON, and on Debian and its kin kernel.perf_event_paranoid=2 or CAP_SYS_ADMIN too; a seccomp filter may also forbid it; see onset doctor"
    )]
    Perf {
        /// What was to be sampled by.
        event: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
}

/// More of a verifier's log would not help anyone at a glance.
const WORDS_MAX: usize = 200;

/// What libbpf warns of for every program of a release: build.rs took the source's lines out of it.
const NO_LINES: &str = "missing .BTF.ext line info for the main program";

thread_local! {
    /// libbpf warns on the thread that loads; others may load something else meanwhile.
    static WORDS: RefCell<String> = const { RefCell::new(String::new()) };
}

fn keep(_: PrintLevel, line: String) {
    WORDS.with_borrow_mut(|words| {
        if words.is_empty() {
            words.extend(reason(&line).chars().take(WORDS_MAX));
        }
    });
}

/// The part of a warning that tells why a program is refused; nothing where it does not.
fn reason(warning: &str) -> &str {
    let line = warning.trim().trim_start_matches("libbpf: ").lines().next().unwrap_or_default();
    if line.contains(NO_LINES) { "" } else { line }
}

/// Does what libbpf may warn of, and makes a sentence of its failure.
pub(super) fn attempt<T>(
    what: &'static str,
    act: impl FnOnce() -> Result<T, libbpf_rs::Error>,
) -> Result<T, Error> {
    libbpf_rs::set_print(Some((PrintLevel::Warn, keep)));
    WORDS.with_borrow_mut(String::clear);
    act().map_err(|error| {
        let said = WORDS.take();
        match error.kind() {
            // The verifier answers EACCES to what it does not accept: only the kernel's EPERM is about rights.
            ErrorKind::PermissionDenied if !said.contains("load failed: -EACCES") => {
                Error::NotPermitted(what)
            }
            _ if said.is_empty() => Error::Refused { what, words: format!("{error:#}") },
            _ => Error::Refused { what, words: said },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_message_is_kept_without_its_statistics() {
        let absent = "libbpf: prog 'switched': missing .BTF.ext line info for the main program, skipping all of .BTF.ext line info.\n";
        assert_eq!(reason(absent), "");
        let refused = "libbpf: prog 'switched': BPF program load failed: -EACCES\nlibbpf: more\n";
        assert_eq!(reason(refused), "prog 'switched': BPF program load failed: -EACCES");
    }
}
