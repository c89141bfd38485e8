//! SIGHUP: the config is read again. A bad one is refused whole; a good one takes effect at once,
//! but for the keys that only a start reads, which are named. Nothing is built anew: a tracer whose
//! keys changed keeps what it remembers, and the others are not touched. Tracers that the config makes come and go with it.

use std::time::Duration;

use crate::clock::Now;
use crate::config::{Config, ConfiguredTracer};

use super::elsewhere::drop_elsewhere;
use super::hooks::order_hook;
use super::slot::State;
use super::{Agent, start, support};

impl Agent {
    pub(super) fn reload(&mut self, now: Now) {
        self.shared.hostname.follow();
        // Who asks for the config to be read anew has names looked at, too.
        self.rescan = Duration::ZERO;
        match Config::load(self.config_file.as_deref(), self.registry) {
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
        self.retire_unnamed(now, &config, &mut changed);
        for tracer in &config.tracers {
            if self.take_up(now, tracer) {
                changed.push(tracer.spec.name);
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
        if !self.slots.all().any(|slot| slot.loading)
            && let Some(words) = self.reloaded.take()
        {
            eprintln!("onset: {words}");
        }
    }

    /// Tracers that the config names no more ask for nothing more; they are there until their captures are over.
    fn retire_unnamed(&mut self, now: Now, config: &Config, changed: &mut Vec<&'static str>) {
        for index in self.slots.places() {
            let Some(slot) = self.slots.get_mut(index).filter(|slot| !slot.retired) else { continue };
            if config.tracers.iter().any(|tracer| slot.is(tracer.spec)) {
                continue;
            }
            changed.push(slot.spec.name);
            let ran = slot.state.ticks();
            if ran {
                self.hand_out_last(now, index);
            }
            if let Some(slot) = self.slots.get_mut(index) {
                (slot.state, slot.retired) = (State::Disabled, true);
            }
            self.begin_or_end_looks(now, index, ran);
        }
    }

    /// Lets go of those whose captures are over by now, and whose hook has come if one was ordered.
    pub(super) fn remove_retired(&mut self) {
        for index in self.slots.places() {
            let retired = self.slots.get(index).is_some_and(|slot| slot.retired && !slot.loading);
            if retired && !self.shared.ledger.waits(index) {
                self.slots.take(index);
            }
        }
    }

    /// Gives a tracer its settings, be it there already or not. Returns whether its own keys are other ones now.
    fn take_up(&mut self, now: Now, tracer: &ConfiguredTracer) -> bool {
        let Some(index) = self.slots.place_of_same(tracer) else {
            self.add(now, tracer);
            return true;
        };
        let Some(slot) = self.slots.get(index) else { return false };
        let other = slot.retired || !std::ptr::eq(slot.spec, tracer.spec);
        let changed = other || slot.settings.values() != tracer.settings.values();
        if other || slot.settings != tracer.settings {
            self.reconfigure(now, index, tracer);
        }
        changed
    }

    /// One more tracer.
    fn add(&mut self, now: Now, tracer: &ConfiguredTracer) {
        let Agent { slots, shared, poll, config, .. } = self;
        let Some(place) = slots.free_place() else {
            self.faults.reloads += 1;
            eprintln!(
                "onset: {} is not added: others wait for their last captures; reload again when they are over",
                tracer.spec.name
            );
            return;
        };
        let order = |_: &_, captures: &mut _, place, slot: &mut _| order_hook(captures, place, slot);
        match start::open_slot(config, &mut shared.captures, poll, place, tracer, now.mono, order) {
            Ok(slot) => {
                if slot.state != State::Loading
                    && let Some(reason) = slot.state.reason()
                {
                    eprintln!("onset: {} off: {reason}", slot.spec.name);
                }
                slots.put(place, slot);
                shared.ledger.make_room(slots.places().len());
            }
            Err(error) => {
                self.faults.reloads += 1;
                eprintln!("onset: {} is not added: {error}", tracer.spec.name);
            }
        }
    }

    /// Gives one tracer other settings. It goes on with all that it remembers, and its captures with it:
    /// those of one that is disabled end in events, too.
    fn reconfigure(&mut self, now: Now, index: usize, tracer: &ConfiguredTracer) {
        let ConfiguredTracer { spec, settings } = tracer;
        let Some(slot) = self.slots.get(index) else { return };
        let (before, every) = (slot.state.clone(), slot.settings.every());
        let ran = before.ticks();
        if ran && !settings.enabled() {
            self.hand_out_last(now, index);
        }
        let Some(slot) = self.slots.get_mut(index) else { return };
        // What it is may need other captures.
        let other = !std::ptr::eq(slot.spec, *spec);
        slot.tracer.reconfigure(settings);
        (slot.spec, slot.settings, slot.retired) = (spec, settings.clone(), false);
        if settings.enabled() {
            if !ran || other {
                slot.state = support::state(spec, settings, &self.shared.captures);
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
