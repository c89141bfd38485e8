//! A tracepoint of a filesystem, which need not be there: its module may not be loaded yet.

use libbpf_rs::{ErrorKind, Link};

use super::failed::{Attached, Failed};
use super::programs::{self, Standing};

/// The result of attaching it.
pub(super) enum Tracepoint {
    /// It is attached for as long as this is kept.
    Attached(#[allow(dead_code)] Attached),
    /// The kernel has none of this name: its module is not loaded.
    Absent,
    /// The kernel has it and refused to attach it.
    Refused,
}

impl Tracepoint {
    /// Notes the result of attaching the tracepoint `name`.
    pub(super) fn of(name: &'static str, result: Result<Link, libbpf_rs::Error>) -> Tracepoint {
        match Attached::of(name, result) {
            Ok(attached) => Tracepoint::Attached(attached),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                programs::stands(name, Standing::Absent);
                Tracepoint::Absent
            }
            Err(error) => {
                Failed::Attach.count(name, &error);
                Tracepoint::Refused
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tracepoint_is_distinguished_from_a_failed_attach() {
        let of = |number| Tracepoint::of("one", Err(libbpf_rs::Error::from_raw_os_error(number)));
        assert!(matches!(of(libc::ENOENT), Tracepoint::Absent));
        for number in [libc::EPERM, libc::EMFILE, libc::ENOMEM, libc::EINVAL] {
            assert!(matches!(of(number), Tracepoint::Refused), "{number}");
        }
    }
}
