//! The agent's state as `onset status` shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bpf;
use crate::clock::{Now, Wall};
use crate::confine;
use crate::control::{
    BudgetStatus, LastEvent, LogStatus, LoopStatus, ProgramStatus, ReadingStatus, ShipStatus, Status,
    TracerStatus,
};
use crate::host::ReadingMethod;
use crate::output::OutputStats;
use crate::ship;

use super::Agent;
use super::budget::Budget;
use super::slot::OUTCOMES;

/// Faults of the agent, each with its name and count.
pub(super) type NamedFaults = [(&'static str, u64); 17];

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn program_statuses() -> Vec<ProgramStatus> {
    let mut all = Vec::new();
    bpf::each_program(&mut |program| {
        all.push(ProgramStatus {
            program: program.program.into(),
            state: program.standing.name().into(),
            reason: program.reason.as_deref().map(Into::into),
        });
    });
    all
}

impl Agent {
    pub(super) fn status(&self, now: Now) -> Status {
        let log = self.shared.log.counters();
        let tracers = self.slots.iter().zip(&self.shared.counts).map(|(slot, counts)| TracerStatus {
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
                time: last.time.to_string(),
                container_id: last.container.map(|id| id.to_string()),
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
            outputs: self.outputs.status(),
            turns: LoopStatus { turns: self.turns.count(), longest_turn_ms: millis(self.turns.max()) },
            tracers: tracers.collect(),
            faults: self.all_agent_faults(),
            readings: self.readings(),
            programs: program_statuses(),
            captures_open: self.shared.open() as u64,
            capture_budget: self.budget_status(now),
            containers: self.reader.containers().len() as u64,
            endpoint: self.http.address().to_string(),
        }
    }

    fn readings(&self) -> Vec<ReadingStatus> {
        let status = |one: ReadingMethod| ReadingStatus {
            readings: one.readings.into(),
            method: one.method,
            reason: one.reason.map(Into::into),
        };
        self.reader.methods().map(status).collect()
    }

    fn budget_status(&self, now: Now) -> BudgetStatus {
        let budget = &self.shared.budget;
        let free = budget.free_at(now.mono).map(|at| millis(at.saturating_sub(now.mono)));
        BudgetStatus {
            used_ms: millis(budget.used(now.mono)),
            whole_ms: millis(budget.whole()),
            window_ms: millis(Budget::window()),
            free_at: free.map(|ms| Wall(now.wall.0.saturating_add(ms)).to_string()),
        }
    }

    fn ship_status(&self) -> ShipStatus {
        let url = self.config.elasticsearch.text("url").to_owned();
        let Some(output) = self.outputs.named(ship::OUTPUT.name) else { return ShipStatus::default() };
        let stats = output.stats();
        ShipStatus {
            url,
            state: stats.state().name().into(),
            trouble: stats.trouble(),
            lag: output.mark().lag(),
            created: OutputStats::get(&stats.created),
            duplicates: OutputStats::get(&stats.duplicates),
            rejected: OutputStats::get(&stats.rejected),
            retries: OutputStats::get(&stats.retries),
        }
    }

    /// What went wrong in the agent itself and in its programs, by name; what never did is left out.
    fn all_agent_faults(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::from(self.agent_faults());
        bpf::failures(&mut |fault, count| {
            all.insert(fault, count);
        });
        let those = all.into_iter().filter(|(_, count)| *count > 0);
        those.map(|(fault, count)| (fault.to_owned(), count)).collect()
    }

    /// What went wrong in the agent itself, by name.
    pub(super) fn agent_faults(&self) -> NamedFaults {
        let host = self.reader.faults();
        let names = self.resolver.faults();
        let log = self.shared.log.counters();
        let outputs = |counter: fn(&OutputStats) -> u64| self.outputs.sum(counter);
        [
            ("poll", self.faults.polls),
            ("reload_refused", self.faults.reloads),
            ("timer", self.faults.timers),
            ("refused_syscall", confine::refused_calls_total()),
            ("containers_beyond_capacity", host.beyond_capacity),
            ("file_unreadable", host.unreadable),
            ("file_unparsable", host.unparsable),
            ("cgroup_unwatched", host.unwatched),
            ("cgroup_claims_id", host.claimed_twice),
            ("kubelet", names.kubelet),
            ("container_not_named", names.dropped),
            ("log_append", log.failed_appends),
            ("log_sync", log.sync_failures),
            ("log_segment_not_made", log.create_failures),
            ("log_segment_lost", log.lost_segments),
            ("ship_cursor", outputs(|stats| OutputStats::get(&stats.cursor_failures))),
            ("ship_reject_not_noted", outputs(|stats| OutputStats::get(&stats.note_failures))),
        ]
    }
}
