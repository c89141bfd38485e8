//! The consequences of a reply: which records are done or rejected, the pause before the next attempt, and the log
//! lines.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{ErrorReason, Failure, ItemStatus, Shipper, Transport};
use crate::log::RecordId;
use crate::output::OutputState;

/// After this many bad requests with one record each, and none that was taken, the records are not to blame.
const ASIDE_MAX: usize = 8;
/// Kinds of rejection that are logged, each once.
const KINDS_MAX: usize = 64;

impl<T: Transport> Shipper<T> {
    /// Applies the statuses of the `count` records that were sent.
    pub(super) fn settle(&mut self, count: usize) -> bool {
        let statuses = std::mem::take(&mut self.statuses);
        let mut worst: Option<(Failure, String)> = None;
        let mut accepted = false;
        for (index, (status, why)) in statuses.iter().enumerate() {
            match status {
                ItemStatus::Created => self.position.stats().created.fetch_add(1, Ordering::Relaxed),
                ItemStatus::Duplicate => self.position.stats().duplicates.fetch_add(1, Ordering::Relaxed),
                ItemStatus::Rejected => {
                    if let Some(id) = self.batch.id(self.aside + index) {
                        self.reject(id, why);
                    }
                    continue;
                }
                ItemStatus::Busy | ItemStatus::Refused => {
                    let failure =
                        if *status == ItemStatus::Busy { Failure::Transient } else { Failure::Persistent };
                    if worst.as_ref().is_none_or(|(have, _)| *have == Failure::Transient && failure != *have)
                    {
                        worst = Some((failure, why.to_string()));
                    }
                    continue;
                }
            };
            accepted = true;
        }
        let done = |index: usize| {
            statuses
                .get(index)
                .is_some_and(|(status, _)| !matches!(status, ItemStatus::Busy | ItemStatus::Refused))
        };
        self.batch.settle(self.aside, count, done);
        if accepted {
            self.backoff.reset();
            let why = std::mem::take(&mut self.aside_why);
            (0..std::mem::take(&mut self.aside)).for_each(|_| self.reject_at(0, &why));
            self.limit = self.limit.saturating_mul(2);
        }
        self.statuses = statuses;
        match worst {
            Some((failure, words)) => {
                self.back_off(failure, None, &words);
                accepted
            }
            None if self.aside > 0 && self.aside >= self.batch.len() => self.all_aside(),
            None => {
                self.report_recovery();
                true
            }
        }
    }

    /// The request was too large: the next one has half of its `bytes`.
    pub(super) fn halve(&mut self, bytes: usize) -> bool {
        self.limit = bytes / 2;
        true
    }

    /// A request with one record was called bad. The next requests show whether the record is bad or the config.
    pub(super) fn set_aside(&mut self, why: ErrorReason) -> bool {
        self.aside += 1;
        self.aside_why = why;
        if self.aside < self.batch.len().min(ASIDE_MAX) {
            return true;
        }
        self.all_aside()
    }

    fn all_aside(&mut self) -> bool {
        self.aside = 0;
        let words = format!("{}; look at [elasticsearch] url and index", self.aside_why);
        self.back_off(Failure::Persistent, None, &words)
    }

    pub(super) fn back_off(&mut self, failure: Failure, retry_after: Option<Duration>, words: &str) -> bool {
        let pause = self.backoff.pause(failure, retry_after);
        self.not_before = self.transport.now().mono.saturating_add(pause);
        self.again = true;
        let state = match failure {
            Failure::Transient => OutputState::Waiting,
            Failure::Persistent => OutputState::Refused,
        };
        if self.position.stats().change(state, words) {
            let name = self.transport.name();
            let line = match state {
                OutputState::Refused => {
                    format!(
                        "{name} does not take events: {words}. They stay in the log; it is tried again each minute"
                    )
                }
                _ => format!("cannot ship to {name}: {words}. Events stay in the log, and it is tried again"),
            };
            self.transport.say(&line);
        }
        false
    }

    fn report_recovery(&mut self) {
        let stood = matches!(self.position.stats().state(), OutputState::Waiting | OutputState::Refused);
        if self.position.stats().change(OutputState::Shipping, "") && stood {
            let line =
                format!("ships to {} again; {} documents to go", self.transport.name(), self.position.lag());
            self.transport.say(&line);
        }
    }

    /// Rejects the record at `index` of the batch.
    pub(super) fn reject_at(&mut self, index: usize, why: &ErrorReason) {
        if let Some(id) = self.batch.id(index) {
            self.reject(id, why);
        }
        self.batch.settle(index, 1, |_| true);
    }

    pub(super) fn reject(&mut self, id: RecordId, why: &ErrorReason) {
        self.position.stats().rejected.fetch_add(1, Ordering::Relaxed);
        if self.rejections.add(id, self.transport.now().wall, why).is_err() {
            self.position.stats().note_failures.fetch_add(1, Ordering::Relaxed);
        }
        let known = self.kinds.iter().any(|(status, kind)| *status == why.status && *kind == why.kind);
        if !known && self.kinds.len() < KINDS_MAX {
            self.kinds.push((why.status, why.kind.clone()));
            let line = format!(
                "{} will not take event {id}: {why}. Others of this kind are only counted; all are in onset events --rejected",
                self.transport.name()
            );
            self.transport.say(&line);
        }
    }
}
