//! Whether a tracer can run here, and if not, why: what the agent starts by and `onset doctor` shows.

use crate::capture::Captures;
use crate::config::ConfiguredTracer;
use crate::tracer::{Settings, Spec};

use super::hooks::knobs;
use super::slot::State;

/// Whether and how one tracer can run on this host.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Support {
    /// Which tracer.
    pub tracer: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Whether the config has it run.
    pub enabled: bool,
    /// Whether it can run.
    pub runs: bool,
    /// How it would: its captures and by which hooks.
    pub modes: Vec<String>,
    /// What is missing, and what that costs.
    pub missing: Vec<String>,
}

/// Looks at every tracer. `pressure` says whether the kernel has PSI, `of_cgroups` whether it tells
/// that of each cgroup.
#[must_use]
pub fn supports(
    tracers: &[ConfiguredTracer],
    captures: &mut Captures,
    pressure: bool,
    of_cgroups: bool,
) -> Vec<Support> {
    tracers.iter().map(|tracer| Support::of(tracer, captures, pressure, of_cgroups)).collect()
}

impl Support {
    fn of(
        ConfiguredTracer { spec, settings }: &ConfiguredTracer,
        captures: &mut Captures,
        pressure: bool,
        of_cgroups: bool,
    ) -> Support {
        let mut support = Support {
            tracer: spec.name,
            about: spec.about,
            enabled: settings.enabled(),
            runs: true,
            modes: Vec::new(),
            missing: Vec::new(),
        };
        support.captures(spec, captures);
        if spec.facts.cpu_pressure {
            let by = match (of_cgroups, pressure) {
                (true, _) => "when cpu.pressure tells of waits",
                (false, true) => "when the host's pressure tells of waits",
                (false, false) => "always: there is no PSI",
            };
            support.modes.push(format!("probed {by}"));
        }
        if let Some(hook) = &spec.hook {
            match captures.hook(hook.name, knobs(hook, settings)) {
                Ok(_) => support.modes.push(format!("events: {} by tp_btf", hook.name)),
                Err(reason) => support.lacks(hook.name, reason),
            }
        }
        match spec.pressure {
            Some(wanted) if pressure => support.modes.push(format!("early look: PSI {}", wanted.resource)),
            Some(_) => support.missing.push(
                "PSI is off (CONFIG_PSI, psi=1): it looks at its interval only, up to that much later".into(),
            ),
            None => {}
        }
        support
    }

    fn captures(&mut self, spec: &Spec, captures: &Captures) {
        for kind in spec.captures {
            match captures.support(*kind) {
                Ok(method) => {
                    self.modes.push(format!("{}: {}", kind.name(), method.name));
                    self.missing.extend(method.degraded.map(|why| format!("{}: {why}", kind.name())));
                }
                Err(reason) => self.lacks(kind.name(), reason),
            }
        }
    }

    /// It cannot run: this is not to be had, for this reason.
    fn lacks(&mut self, what: &str, reason: &str) {
        self.runs = false;
        self.missing.push(format!("{what}: {reason}"));
    }
}

/// The state that a tracer starts in.
pub(super) fn state(spec: &Spec, settings: &Settings, captures: &Captures) -> State {
    if !settings.enabled() {
        return State::Disabled;
    }
    match spec.captures.iter().find_map(|kind| captures.support(*kind).err()) {
        Some(reason) => State::Unsupported(reason),
        None => State::Active,
    }
}
