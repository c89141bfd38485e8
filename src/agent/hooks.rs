//! Hooks of tracers: loaded with what their tracer's settings say, attached while the tracer runs,
//! and loaded anew when that changes.

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};

use crate::bpf::{Hook, KnobValue};
use crate::capture::Captures;
use crate::sys;
use crate::tracer::{HookSpec, Settings};

use super::HOOKS;
use super::rings::Records;
use super::slot::{Slot, State};

/// What a hook's variables are set to under these settings.
pub(super) fn knobs(hook: &HookSpec, settings: &Settings) -> Vec<KnobValue> {
    let page_bytes = sys::page_size().and_then(|bytes| u32::try_from(bytes).ok());
    hook.values(settings, page_bytes.unwrap_or(4096))
}

/// Attaches the hook that a tracer is fed by, while it runs, with what its settings say.
pub(super) fn attach_hook(poll: &Poll, captures: &mut Captures, index: usize, slot: &mut Slot) {
    let Some(hook) = slot.spec.hook else { return };
    if !slot.state.ticks() {
        // Dropping it detaches it, and takes it out of the poll.
        slot.records = None;
        return;
    }
    let knobs = knobs(&hook, &slot.settings);
    if slot.records.as_ref().is_some_and(|records| records.source().knobs() == knobs) {
        return;
    }
    let attached = captures.hook(hook.name, knobs).and_then(|hook| register(poll, index, hook));
    match (attached, &mut slot.records) {
        (Ok(hook), Some(records)) => records.replace(hook),
        (Ok(hook), None) => slot.records = Some(Records::new(hook)),
        (Err(reason), _) => {
            slot.records = None;
            slot.state = State::Unsupported(reason);
        }
    }
}

/// Has the poll tell of a hook's records.
fn register(poll: &Poll, index: usize, hook: Hook) -> Result<Hook, &'static str> {
    poll.registry()
        .register(&mut SourceFd(&hook.fd()), Token(HOOKS + index), Interest::READABLE)
        .map_err(|_| "its ring cannot be polled; the limit on open files may be too low (ulimit -n)")?;
    Ok(hook)
}
