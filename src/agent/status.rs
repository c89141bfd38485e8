//! The agent's state as `onset status` shows it.

use crate::clock::Now;
use crate::control::status::{LastEvent, LogStatus, LoopStatus, Status, TracerStatus};

use super::Agent;
use super::slot::OUTCOMES;

impl Agent {
    pub(super) fn status(&self, now: Now) -> Status {
        let log = self.desk.log.counters();
        let tracers = self.slots.iter().zip(&self.desk.counts).map(|(slot, counts)| TracerStatus {
            name: slot.spec.name.into(),
            state: slot.state.name().into(),
            reason: slot.state.reason().map(Into::into),
            samples: counts.samples,
            events: counts.events,
            captures: OUTCOMES.iter().zip(counts.captures).map(|(name, count)| ((*name).into(), count)).collect(),
            faults: counts.faults.iter().map(|(name, count)| ((*name).into(), *count)).collect(),
            last_event: counts.last.map(|last| LastEvent {
                id: last.id.to_string(),
                time: last.at.to_string(),
                container_id: last
                    .subject
                    .and_then(|key| self.reader.containers().get(key))
                    .map(|container| container.id().to_owned()),
            }),
        });
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started: self.started.wall.to_string(),
            uptime_ms: u64::try_from(now.mono.saturating_sub(self.started.mono).as_millis()).unwrap_or(u64::MAX),
            config: self.config_file.as_ref().map(|path| path.display().to_string()),
            log: LogStatus {
                dir: self.config.log.dir.display().to_string(),
                records: log.records,
                bytes: log.bytes,
                dropped: log.dropped_by_budget,
            },
            r#loop: LoopStatus {
                turns: self.turns.count(),
                longest_turn_ms: self.turns.max().as_secs_f64() * 1000.0,
            },
            tracers: tracers.collect(),
            captures_open: self.desk.open(),
            containers: self.reader.containers().iter().count(),
            endpoint: format!("http://{}/metrics", self.http.address()),
            faults: self.own_faults().iter().map(|(name, count)| ((*name).into(), *count)).collect(),
        }
    }

    /// What went wrong in the agent itself, by name.
    pub(super) fn own_faults(&self) -> [(&'static str, u64); 4] {
        let host = self.reader.faults();
        [
            ("poll", self.own.polls),
            ("reload_refused", self.own.reloads),
            ("timer", self.own.timers),
            ("containers_over_capacity", host.over_capacity),
        ]
    }
}
