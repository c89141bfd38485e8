//! What both ways to capture the tasks in D state share: by the kernel's iterator and by a walk over /proc.

use std::io;

use super::open_request::OpenRequest;
use crate::bpf;
use crate::capture_data::{Refusal, Scope};
use crate::host::Key;

/// Tasks that one capture keeps. More cannot be read by anyone; what is beyond counts as lost.
pub(super) const TASKS_MAX: usize = 4096;

/// Answers that a look broke off.
pub(super) fn refuse(open: OpenRequest, error: &io::Error) {
    bpf::Failed::Read.count("the list of tasks", error);
    open.refuse(Refusal::Failed("the kernel's list of tasks could not be read to its end"));
}

/// Whether a task of `container` is in this scope.
pub(super) fn is_within(scope: Scope, container: Option<Key>) -> bool {
    match scope {
        Scope::Host | Scope::Device(_) => true,
        Scope::Container(key) => container == Some(key),
    }
}
