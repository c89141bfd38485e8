//! SIGHUP: the config is read again. A bad one is refused whole; a good one takes effect at once,
//! but for the keys that only a start reads, which are named. Nothing is built anew: a tracer whose
//! keys changed keeps what it remembers, and the others are not touched.

use std::time::Duration;

use crate::clock::Now;
use crate::config::Config;
use crate::tracer::{Settings, TRACERS};

use super::elsewhere::drop_elsewhere;
use super::hooks::order_hook;
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
        let mut changed = self.config.changed_at_once(&config);
        for (index, settings) in config.tracers.iter().enumerate() {
            let Some(slot) = self.slots.get(index) else { continue };
            if slot.settings.values() != settings.values() {
                changed.push(slot.spec.name);
            }
            if slot.settings != *settings {
                self.reconfigure(now, index, settings);
            }
        }
        self.shared.budget.set(config.capture_percent);
        self.config.capture_percent = config.capture_percent;
        // Even where it is the same: the secrets' files are read again.
        self.outputs.configure(&config);
        self.config.elasticsearch = config.elasticsearch;
        self.config.tracers = config.tracers;
        // One before it may still wait for a hook: it is this one's to wait for now.
        if let Some(before) = self.reloaded.take() {
            eprintln!("onset: {before}");
        }
        self.reloaded = Some(if !changed.is_empty() {
            format!("config reloaded; changed: {}", changed.join(", "))
        } else if fixed.is_empty() {
            "config unchanged".to_owned()
        } else {
            "config reloaded; nothing else changed".to_owned()
        });
        self.say_reloaded();
    }

    /// Says what the last reload did, once all of it holds.
    pub(super) fn say_reloaded(&mut self) {
        if !self.slots.iter().any(|slot| slot.loading)
            && let Some(words) = self.reloaded.take()
        {
            eprintln!("onset: {words}");
        }
    }

    /// Gives one tracer other settings. It goes on with all that it remembers, and its captures with it:
    /// those of one that is disabled end in events, too.
    fn reconfigure(&mut self, now: Now, index: usize, settings: &Settings) {
        let Some(slot) = self.slots.get(index) else { return };
        let (before, every) = (slot.state.clone(), slot.settings.every());
        let ran = before.ticks();
        if ran && !settings.enabled() {
            self.hand_out_last(now, index);
        }
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.tracer.reconfigure(settings);
        slot.settings = settings.clone();
        if settings.enabled() {
            if !ran {
                slot.state = support::state(slot.spec, settings, &self.shared.captures);
            }
            // One that is attached is loaded anew only where its knobs changed.
            order_hook(&mut self.shared.captures, index, slot);
        } else {
            slot.state = State::Disabled;
        }
        if slot.state != before
            && slot.state != State::Loading
            && let Some(reason) = slot.state.reason()
        {
            eprintln!("onset: {} off: {reason}", slot.spec.name);
        }
        if (slot.state.ticks(), slot.settings.every()) != (ran, every) {
            self.begin_or_end_looks(now, index, ran);
        }
    }

    /// Arms a tracer's timer as its settings and its state say; `ran` is whether it looked until now.
    pub(super) fn begin_or_end_looks(&mut self, now: Now, index: usize, ran: bool) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.arm(now.mono).is_err() {
            self.faults.timers += 1;
        }
        if slot.state.ticks() {
            if !ran {
                slot.due = true;
                start::watch_pressure(&self.poll, &self.config.paths.proc, index, slot);
            }
            return;
        }
        (slot.due, slot.misses) = (false, 0);
        if let Some(pressure) = slot.pressure.take() {
            drop_elsewhere(pressure);
        }
        // A hook that could not be loaded anew leaves the one before it.
        self.hand_out_last(now, index);
    }
}
