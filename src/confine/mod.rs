//! Confinement: once its programs are loaded, the agent drops every capability that it no longer uses, gives up gaining
//! new ones, and installs a seccomp filter. A step that the kernel refuses is reported, and the agent continues.

use std::io;

mod calls;
mod capabilities;
mod filter;
mod refused;

pub use calls::{Allowance, allowances, is_guarded};
pub use capabilities::{CAPABILITIES, Capability, Host, KEPT, SYS_ADMIN, held};
pub use refused::{refused_calls, refused_calls_total};

/// The steps that the kernel refused.
#[derive(Debug, Default)]
pub struct Confined {
    refused: Vec<(&'static str, io::Error)>,
}

impl Confined {
    /// For a person; `None` if all went well.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let words: Vec<_> = self.refused.iter().map(|(what, error)| format!("{what}: {error}")).collect();
        (!words.is_empty()).then(|| {
            format!(
                "the kernel does not confine it as it should ({}); it goes on with more rights than it needs",
                words.join("; ")
            )
        })
    }

    fn note(&mut self, what: &'static str, done: io::Result<()>) {
        self.refused.extend(done.err().map(|error| (what, error)));
    }
}

/// Keeps, of the capabilities that this thread has, `KEPT` and `more`, and lays the filter over all
/// threads. Some kernels want CAP_SYS_ADMIN for what CAP_PERFMON is for: it is kept if, with what is kept
/// otherwise, `works` says no. Capabilities are each thread's own: to be called before another is started.
pub fn apply(more: u64, works: impl FnOnce() -> bool) -> Confined {
    let mut confined = Confined::default();
    match capabilities::permitted() {
        Ok(permitted) => {
            let mut keep = permitted & (KEPT | more | capabilities::stand_ins(permitted));
            let tried = capabilities::set(keep, permitted);
            let narrow = tried.is_ok() && permitted & SYS_ADMIN != 0 && !works();
            if narrow {
                keep |= SYS_ADMIN;
            }
            confined.note("effective set", tried.and_then(|()| capabilities::set(permitted, permitted)));
            // It takes CAP_SETPCAP, which a container may not have; then what it has is its bound.
            if permitted & capabilities::SETPCAP != 0 {
                confined.note("bounding set", capabilities::bound(keep));
            }
            confined.note("ambient set", capabilities::clear_ambient());
            confined.note("capabilities", capabilities::set(keep, keep));
        }
        Err(error) => confined.note("capabilities", Err(error)),
    }
    confined.note("no_new_privs", filter::no_new_privileges());
    confined.note("seccomp filter (CONFIG_SECCOMP_FILTER)", filter::install());
    confined
}
