//! The agent's state as `onset status` shows it.

use std::time::Duration;

use crate::clock::Now;
use crate::control::{LastEvent, LogStatus, LoopStatus, ShipStatus, Status, TracerStatus};
use crate::ship::Tally;

use super::Agent;
use super::slot::OUTCOMES;

/// By name.
pub(super) type OwnFaults = [(&'static str, u64); 16];

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Agent {
    pub(super) fn status(&self, now: Now) -> Status {
        let log = self.desk.log.counters();
        let tracers = self.slots.iter().zip(&self.desk.counts).map(|(slot, counts)| TracerStatus {
            name: slot.spec.name.into(),
            state: slot.state.name().into(),
            reason: slot.state.reason().map(Into::into),
            samples: counts.samples,
            events: counts.events,
            captures: OUTCOMES
                .iter()
                .zip(counts.captures)
                .map(|(name, count)| ((*name).into(), count))
                .collect(),
            refused: counts.captures.iter().skip(1).sum(),
            faults: counts.faults.iter().map(|(_, count)| count).sum(),
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
            uptime_ms: millis(now.mono.saturating_sub(self.started.mono)),
            config: self.config_file.as_ref().map(|path| path.display().to_string()),
            log: LogStatus {
                dir: self.config.log.dir.display().to_string(),
                records: log.records,
                bytes: log.bytes,
                dropped: log.dropped_by_budget,
            },
            ship: self.ship_status(),
            turns: LoopStatus { turns: self.turns.count(), longest_turn_ms: millis(self.turns.max()) },
            tracers: tracers.collect(),
            captures_open: self.desk.open() as u64,
            containers: self.reader.containers().len() as u64,
            endpoint: self.http.address().to_string(),
        }
    }

    fn ship_status(&self) -> ShipStatus {
        let tally = self.shipping.shipper.tally();
        ShipStatus {
            url: self.config.elasticsearch.text("url").to_owned(),
            state: tally.course().name().into(),
            trouble: tally.trouble(),
            lag: self.shipping.shipper.lag(),
            created: Tally::get(&tally.created),
            duplicates: Tally::get(&tally.duplicates),
            rejected: Tally::get(&tally.rejected),
            retries: Tally::get(&tally.retries),
        }
    }

    /// What went wrong in the agent itself, by name.
    pub(super) fn own_faults(&self) -> OwnFaults {
        let host = self.reader.faults();
        let names = self.registrar.faults();
        let log = self.desk.log.counters();
        let tally = self.shipping.shipper.tally();
        [
            ("poll", self.own.polls),
            ("reload_refused", self.own.reloads),
            ("timer", self.own.timers),
            ("containers_beyond_capacity", host.beyond_capacity),
            ("file_unreadable", host.unreadable),
            ("file_unparsable", host.unparsable),
            ("cgroup_unwatched", host.unwatched),
            ("kubelet", names.kubelet),
            ("container_not_named", names.dropped),
            ("log_append", log.failed_appends),
            ("log_sync", log.sync_failures),
            ("log_segment_not_made", log.create_failures),
            ("log_segment_lost", log.lost_segments),
            ("io_not_attached", self.desk.captures.not_attached()),
            ("ship_cursor", Tally::get(&tally.cursor_failures)),
            ("ship_reject_not_noted", Tally::get(&tally.note_failures)),
        ]
    }
}
