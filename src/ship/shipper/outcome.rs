//! What comes of an answer: records that are done or never will be, the pause before the next
//! attempt, and what is said of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Setback, Shipper, Transport, Verdict, Why};
use crate::log::RecordId;
use crate::output::OutputState;

/// So many bad requests of one record each, and none that was taken: then it is not the records.
const ASIDE_MAX: usize = 8;
/// Kinds of rejection that are said, each once.
const KINDS_MAX: usize = 64;

impl<T: Transport> Shipper<T> {
    /// Carries out the verdicts on the records that were sent.
    pub(super) fn settle(&mut self, count: usize) -> bool {
        let heard = std::mem::take(&mut self.heard);
        let mut worst: Option<(Setback, String)> = None;
        let mut accepted = false;
        for (index, (verdict, why)) in heard.iter().enumerate() {
            match verdict {
                Verdict::Created => self.position.stats().created.fetch_add(1, Ordering::Relaxed),
                Verdict::Duplicate => self.position.stats().duplicates.fetch_add(1, Ordering::Relaxed),
                Verdict::Rejected => {
                    if let Some(id) = self.batch.id(self.aside + index) {
                        self.reject(id, why);
                    }
                    continue;
                }
                Verdict::Busy | Verdict::Refused => {
                    let setback = if *verdict == Verdict::Busy { Setback::Passing } else { Setback::Lasting };
                    if worst.as_ref().is_none_or(|(have, _)| *have == Setback::Passing && setback != *have) {
                        worst = Some((setback, why.to_string()));
                    }
                    continue;
                }
            };
            accepted = true;
        }
        let done = |index: usize| {
            heard.get(index).is_some_and(|(verdict, _)| !matches!(verdict, Verdict::Busy | Verdict::Refused))
        };
        self.batch.settle(self.aside, count, done);
        if accepted {
            self.pace.well();
            let why = std::mem::take(&mut self.aside_why);
            (0..std::mem::take(&mut self.aside)).for_each(|_| self.reject_at(0, &why));
            self.limit = self.limit.saturating_mul(2);
        }
        self.heard = heard;
        match worst {
            Some((setback, words)) => {
                self.setback(setback, None, &words);
                accepted
            }
            None if self.aside > 0 && self.aside >= self.batch.len() => self.all_aside(),
            None => {
                self.goes_well();
                true
            }
        }
    }

    /// Too much at once: half of it is sent next.
    pub(super) fn halve(&mut self, bytes: usize) -> bool {
        self.limit = bytes / 2;
        true
    }

    /// One record alone is a bad request. Whether the record is bad or all requests are is seen by the next ones.
    pub(super) fn set_aside(&mut self, why: Why) -> bool {
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
        self.setback(Setback::Lasting, None, &words)
    }

    pub(super) fn setback(&mut self, setback: Setback, retry_after: Option<Duration>, words: &str) -> bool {
        let pause = self.pace.pause(setback, retry_after);
        self.not_before = self.transport.now().mono.saturating_add(pause);
        self.again = true;
        let state = match setback {
            Setback::Passing => OutputState::Waiting,
            Setback::Lasting => OutputState::Refused,
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

    fn goes_well(&mut self) {
        let stood = matches!(self.position.stats().state(), OutputState::Waiting | OutputState::Refused);
        if self.position.stats().change(OutputState::Shipping, "") && stood {
            let line =
                format!("ships to {} again; {} documents to go", self.transport.name(), self.position.lag());
            self.transport.say(&line);
        }
    }

    /// The record at this place of the batch will never be taken.
    pub(super) fn reject_at(&mut self, index: usize, why: &Why) {
        if let Some(id) = self.batch.id(index) {
            self.reject(id, why);
        }
        self.batch.settle(index, 1, |_| true);
    }

    pub(super) fn reject(&mut self, id: RecordId, why: &Why) {
        self.position.stats().rejected.fetch_add(1, Ordering::Relaxed);
        if self.rejects.add(id, self.transport.now().wall, why).is_err() {
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
