//! SIGHUP: the config is read again. A bad one is refused whole; a good one takes effect at once,
//! but for the keys that only a start reads, which are named.

use std::time::Duration;

use crate::clock::Now;
use crate::config::Config;
use crate::host::Containers;
use crate::tracer::{Capacity, TRACERS};

use super::hooks::attach_hook;
use super::slot::State;
use super::{Agent, start, support};

impl Agent {
    pub(super) fn reload(&mut self, now: Now) {
        self.shared.hostname.follow();
        // Who asks for the config to be read anew has names looked at, too.
        self.rescan = Duration::ZERO;
        match Config::load(self.config_file.as_deref(), TRACERS) {
            Ok(config) => self.adopt(now, config),
            Err(error) => {
                self.faults.reloads += 1;
                let lines = error.to_string().replace('\n', "\n  ");
                eprintln!("onset: the new config is refused, the old one is kept:\n  {lines}");
            }
        }
    }

    fn adopt(&mut self, now: Now, config: Config) {
        let fixed = self.config.fixed_at_start(&config);
        if !fixed.is_empty() {
            eprintln!("onset: these changes need a restart: {}", fixed.join(", "));
        }
        self.shared.budget.set(config.capture_percent);
        let capacity = Capacity { containers: Containers::slots_for(self.config.containers) };
        let mut changed = Vec::new();
        if config.capture_percent != self.config.capture_percent {
            changed.push("[capture]");
        }
        if config.elasticsearch != self.config.elasticsearch {
            changed.push("[elasticsearch]");
        }
        for (index, settings) in config.tracers.iter().enumerate() {
            let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.settings != *settings) else {
                continue;
            };
            changed.push(slot.spec.name);
            slot.settings = settings.clone();
            slot.epoch = slot.epoch.wrapping_add(1);
            slot.tracer = (slot.spec.build)(settings, capacity);
            slot.state = support::state(slot.spec, settings, &self.shared.captures);
            attach_hook(&self.poll, &mut self.shared.captures, index, slot);
            let armed = slot.arm(now.mono);
            if slot.state != State::Active {
                slot.pressure = None;
            }
            start::watch_pressure(&self.poll, &self.config.paths.proc, index, slot);
            if armed.is_err() {
                self.faults.timers += 1;
            }
        }
        self.config.capture_percent = config.capture_percent;
        // Even where it is the same: the secrets' files are read again.
        self.outputs.configure(&config);
        self.config.elasticsearch = config.elasticsearch;
        self.config.tracers = config.tracers;
        if !changed.is_empty() {
            eprintln!("onset: config reloaded; changed: {}", changed.join(", "));
        } else if fixed.is_empty() {
            eprintln!("onset: config unchanged");
        } else {
            eprintln!("onset: config reloaded; nothing else changed");
        }
    }
}
