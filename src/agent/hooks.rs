//! Hooks of tracers: loaded with what their tracer's settings say, attached while the tracer runs,
//! and loaded anew when that changes. After start a thread loads them, and the loop takes them.

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};

use crate::bpf::{Hook, KnobValue};
use crate::capture::{Captures, LoadedHook};
use crate::clock::Now;
use crate::sys;
use crate::tracer::{HookSpec, Settings};

use super::elsewhere::drop_elsewhere;
use super::rings::Records;
use super::slot::{Slot, State};
use super::{Agent, HOOKS};

/// What a hook's variables are set to under these settings.
pub(super) fn knobs(hook: &HookSpec, settings: &Settings) -> Vec<KnobValue> {
    let page_bytes = sys::page_size().and_then(|bytes| u32::try_from(bytes).ok());
    hook.values(settings, page_bytes.unwrap_or(4096))
}

/// The hook that a tracer is fed by, if it is to run, and the values that its settings give it.
fn wanted(slot: &Slot) -> Option<(&'static str, Vec<KnobValue>)> {
    let runs = slot.state.ticks() || slot.state == State::Loading;
    slot.spec.hook.filter(|_| runs).map(|hook| (hook.name, knobs(&hook, &slot.settings)))
}

/// Attaches the hook that a tracer is fed by, on this thread: for the start, where nothing waits.
pub(super) fn attach_hook(poll: &Poll, captures: &mut Captures, index: usize, slot: &mut Slot) {
    let Some((name, knobs)) = wanted(slot) else { return };
    take(poll, index, slot, captures.hook(name, knobs));
}

/// Orders the hook that a tracer's settings ask for, unless it is attached, or another one is still to come: what
/// is asked for then is seen to when it does. Until it comes, the hook before it goes on.
pub(super) fn order_hook(captures: &mut Captures, index: usize, slot: &mut Slot) {
    let Some((name, knobs)) = wanted(slot) else { return };
    match &slot.records {
        Some(records) if records.source().knobs() == knobs => return,
        Some(_) => {}
        None => slot.state = State::Loading,
    }
    if !std::mem::replace(&mut slot.loading, true) {
        captures.order_hook(index, name, knobs);
    }
}

/// Feeds a tracer by this hook from now on. Without one it is off, and its records are still to be closed.
fn take(poll: &Poll, index: usize, slot: &mut Slot, hook: Result<Hook, &'static str>) {
    match (hook.and_then(|hook| register(poll, index, hook)), &mut slot.records) {
        (Ok(hook), Some(records)) => records.replace(hook),
        (Ok(hook), None) => {
            slot.records = Some(Records::new(hook));
            slot.state = State::Active;
        }
        (Err(reason), _) => slot.state = State::Unsupported(reason),
    }
}

impl Agent {
    /// Takes the hooks that have come, each if its tracer still wants it.
    pub(super) fn take_hooks(&mut self, now: Now) {
        while let Some(loaded) = self.shared.captures.loaded_hook() {
            self.take_hook(now, loaded);
        }
    }

    fn take_hook(&mut self, now: Now, loaded: LoadedHook) {
        let LoadedHook { slot: index, knobs, hook, .. } = loaded;
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.loading = false;
        let ran = slot.state.ticks();
        if wanted(slot).is_some_and(|(_, wanted)| wanted == knobs) {
            take(&self.poll, index, slot, hook);
            if let State::Unsupported(reason) = slot.state {
                eprintln!("onset: {} off: {reason}", slot.spec.name);
            }
        } else {
            // The config changed meanwhile.
            drop_elsewhere(hook);
            order_hook(&mut self.shared.captures, index, slot);
        }
        if slot.state.ticks() != ran {
            self.begin_or_end_looks(now, index, ran);
        }
        self.say_reloaded();
    }
}

/// Has the poll tell of a hook's records.
fn register(poll: &Poll, index: usize, hook: Hook) -> Result<Hook, &'static str> {
    poll.registry()
        .register(&mut SourceFd(&hook.fd()), Token(HOOKS + index), Interest::READABLE)
        .map_err(|_| "its ring cannot be polled; the limit on open files may be too low (ulimit -n)")?;
    Ok(hook)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Value};
    use crate::tracer::{HookKnob, KnobSource, RECLAIM, Spec, TRACERS};

    fn settings(spec: &'static Spec, config: &str) -> Settings {
        Config::parse(config, &[spec]).expect("valid").tracers.remove(0).settings
    }

    /// The largest value that a variable can be given.
    fn largest(spec: &Spec, knob: &HookKnob) -> u64 {
        let KnobSource::Key(key) = knob.source else { return 1 << 20 };
        let common = spec.common_knobs();
        let declared = common.iter().chain(spec.knobs).find(|knob| knob.key == key);
        match declared.unwrap_or_else(|| panic!("{} has no config key {key}", spec.name)).default {
            Value::Flag(_) => 1,
            Value::Count(_, _, most) | Value::Size(_, _, most) => most,
            Value::Time(_, _, most) => u64::try_from(most.as_nanos()).expect("some centuries at most"),
            other => panic!("{} of {} is {other:?}, which is no whole number", key, spec.name),
        }
    }

    #[test]
    fn every_hook_has_the_variables_that_its_tracer_sets_and_they_hold_all_that_can_be_configured() {
        let mut hooks = 0;
        for spec in TRACERS.iter().copied().chain([&RECLAIM]) {
            let Some(hook) = spec.hook else { continue };
            hooks += 1;
            let knobs: Vec<_> = hook.knobs.iter().map(|knob| (knob.variable, largest(spec, knob))).collect();
            Hook::check(hook.name, &knobs).expect("the spec and bpf/ agree");
            let names: Vec<_> = super::knobs(&hook, &settings(spec, "")).iter().map(|knob| knob.0).collect();
            assert!(names.iter().eq(knobs.iter().map(|(name, _)| name)));
        }
        assert!(hooks >= 2, "{hooks}");
    }

    #[test]
    fn a_configured_threshold_is_what_its_hook_is_given() {
        let settings = settings(&RECLAIM, "[tracer.reclaim]\nslow = \"7ms\"\n");
        let hook = RECLAIM.hook.expect("a hook");
        assert_eq!(knobs(&hook, &settings), [("slow_ns", 7_000_000)]);
    }

    #[test]
    fn a_variable_that_a_hook_has_not_or_that_is_too_narrow_is_named() {
        let said = |name, knob| Hook::check(name, &[knob]).expect_err("wrong").to_string();
        let unknown = said("oom", ("slow_ns", 1));
        assert!(unknown.contains("hook oom") && unknown.contains("variable slow_ns"), "{unknown}");
        let narrow = said("oom", ("page_bytes", 1 << 32));
        assert!(narrow.contains("4294967296 is too large for the variable page_bytes"), "{narrow}");
        Hook::check("oom", &[("page_bytes", u64::from(u32::MAX))]).expect("it holds this");
        assert!(said("io", ("page_bytes", 1)).contains("no hook io"), "a capture is none");
    }

    #[test]
    #[should_panic(expected = "config key percent is not declared")]
    fn a_config_key_that_the_tracer_does_not_declare_is_named() {
        let knobs = &[HookKnob { variable: "slow_ns", source: KnobSource::Key("percent") }];
        let _ = super::knobs(&HookSpec { name: "reclaim", knobs }, &settings(&RECLAIM, ""));
    }
}
