//! Which BPF program tells a tracer of events, and which of the tracer's config keys it filters by:
//! what is below a threshold never leaves the kernel.

use super::Settings;

/// A hook, as a tracer's spec declares it.
#[derive(Clone, Copy, Debug)]
pub struct HookSpec {
    /// Its file: `bpf/NAME.bpf.c`.
    pub name: &'static str,
    /// What it is given before it is loaded. When a value changes, the hook is loaded anew.
    pub knobs: &'static [HookKnob],
}

/// A `const volatile` variable of a hook's BPF object.
#[derive(Clone, Copy, Debug)]
pub struct HookKnob {
    /// The variable's name.
    pub variable: &'static str,
    /// Where its value comes from.
    pub source: KnobSource,
}

/// Where the value of a hook's variable comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnobSource {
    /// A config key of the tracer: a time in nanoseconds, a size in bytes, a flag as 0 or 1.
    Key(&'static str),
    /// The bytes of one page of memory on this host.
    PageBytes,
}

impl HookSpec {
    /// The value of each variable, under these settings. A key that the tracer does not declare, or
    /// that holds no whole number, is a mistake in the program and panics, at start and in every test.
    #[must_use]
    pub fn values(&self, settings: &Settings, page_bytes: u32) -> Vec<(&'static str, u64)> {
        let value = |knob: &HookKnob| match knob.source {
            KnobSource::Key(key) => settings.values().whole_number(key),
            KnobSource::PageBytes => page_bytes.into(),
        };
        self.knobs.iter().map(|knob| (knob.variable, value(knob))).collect()
    }
}
