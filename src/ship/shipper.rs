//! The shipper reads records from the log and sends them in batches. A record is done when the server has it or will
//! never take it; every other record is sent again, without end, and the cursor moves only past records that are done.
//! The server, the clock and the loop are behind a trait, so that a test can simulate an hour of outage.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::backoff::{Backoff, Failure, RateLimit};
use super::batch::Batch;
use super::bulk_outcome::{BulkOutcome, classify};
use super::bulk_reply::{ErrorReason, ItemStatus};
use super::rejections::RejectionLog;
use crate::clock::Now;
use crate::log::{Error, Reader, RecordId};
use crate::net::client::Reply;
use crate::output::Position;

mod outcome;

/// A log that cannot be read is tried again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// A reply is longer than its request only if it lies.
const REPLY_BASE: usize = 64 << 10;
const REPLY_PER_RECORD: usize = 4 << 10;

/// The config's limits on when to send, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchSettings {
    /// How long a record may wait for others.
    pub(super) flush: Duration,
    /// When a batch is full, in bytes.
    pub(super) batch: usize,
    /// The longest pause after what passes.
    pub(super) retry: Duration,
    /// Bytes per second; 0 is no rate_limit.
    pub(super) catch_up: u64,
}

/// Why a wait ended.
#[derive(Debug, Default)]
pub(super) struct Wakeup {
    /// There are new records in the log.
    pub(super) records: bool,
    /// The config was read again.
    pub(super) batch_settings: Option<BatchSettings>,
    /// The agent leaves, or shipping was turned off.
    pub(super) leave: bool,
}

/// The server, the clock and the loop, as the shipper sees them.
pub(super) trait Transport {
    /// What time it is.
    fn now(&self) -> Now;
    /// Waits until `until`, or until there are new records or a changed config.
    fn wait(&mut self, until: Option<Duration>) -> Wakeup;
    /// Sends a bulk request. The error is words for a person.
    fn post(&mut self, body: &[u8], reply: &mut Vec<u8>, limit: usize) -> Result<Reply, String>;
    /// The server, for a person.
    fn name(&self) -> &str;
    /// Logs a line.
    fn say(&mut self, line: &str);
}

/// One shipping thread's state.
pub(super) struct Shipper<T> {
    transport: T,
    batch_settings: BatchSettings,
    position: Position,
    rejections: RejectionLog,
    reader: Option<Reader>,
    /// The last record that was read.
    read: Option<RecordId>,
    batch: Batch,
    /// When the oldest record came into the batch.
    began: Duration,
    /// Records at the front of the batch that the server called a bad request when each was sent alone. The records are
    /// bad if it takes another one; the config is wrong if it takes none.
    aside: usize,
    aside_why: ErrorReason,
    /// Bytes of a request that the server is believed to take.
    limit: usize,
    backoff: Backoff,
    rate_limit: RateLimit,
    not_before: Duration,
    /// The last attempt failed, so the next one is a retry.
    again: bool,
    look_at: Option<Duration>,
    /// The log may hold records that were not read yet.
    unread: bool,
    leaving: bool,
    reply: Vec<u8>,
    statuses: Vec<(ItemStatus, ErrorReason)>,
    kinds: Vec<(u16, String)>,
}

impl<T: Transport> Shipper<T> {
    /// Resumes at the cursor.
    pub(super) fn new(
        transport: T,
        position: Position,
        batch_settings: BatchSettings,
        seed: u64,
    ) -> Shipper<T> {
        Shipper {
            transport,
            batch_settings,
            rejections: RejectionLog::new(position.dir()),
            reader: None,
            read: position.done(),
            position,
            batch: Batch::new(batch_settings.batch),
            began: Duration::ZERO,
            aside: 0,
            aside_why: ErrorReason::default(),
            limit: usize::MAX,
            backoff: Backoff::new(seed, batch_settings.retry),
            rate_limit: RateLimit::new(batch_settings.catch_up),
            not_before: Duration::ZERO,
            again: false,
            look_at: None,
            unread: true,
            leaving: false,
            reply: Vec::new(),
            statuses: Vec::new(),
            kinds: Vec::new(),
        }
    }

    /// Ships until the agent leaves; then sends the remaining records once.
    pub(super) fn run(&mut self) {
        if self.position.was_bad() {
            let dir = self.position.dir().display();
            let line = format!(
                "the note in {dir} of what was shipped is unreadable: all of the log is sent again; what the server has, it keeps once"
            );
            self.transport.say(&line);
        }
        while self.step() {}
        self.position.sync();
    }

    fn step(&mut self) -> bool {
        self.fill();
        let now = self.transport.now().mono;
        match self.due() {
            Some(at) if at <= now || self.leaving => {
                let failed = !self.attempt();
                !(self.leaving && failed)
            }
            _ if self.leaving => false,
            at => {
                let until = [at, self.look_at].into_iter().flatten().min();
                let wakeup = self.transport.wait(until);
                self.apply(wakeup);
                true
            }
        }
    }

    /// When the batch is to be sent; `None`: there is nothing in it.
    fn due(&self) -> Option<Duration> {
        if self.batch.is_empty() {
            return None;
        }
        let gathered = if self.batch.is_full() {
            Duration::ZERO
        } else {
            self.began.saturating_add(self.batch_settings.flush)
        };
        Some(gathered.max(self.not_before).max(self.rate_limit.free_at()))
    }

    fn apply(&mut self, wakeup: Wakeup) {
        self.unread |= wakeup.records;
        if let Some(batch_settings) = wakeup.batch_settings {
            if batch_settings.catch_up != self.batch_settings.catch_up {
                self.rate_limit = RateLimit::new(batch_settings.catch_up);
            }
            self.batch.set_full(batch_settings.batch);
            self.backoff.set_longest(batch_settings.retry);
            self.batch_settings = batch_settings;
            // Whoever changed the config wants to see what comes of it.
            self.not_before = Duration::ZERO;
        }
        if wakeup.leave {
            // What came with the last turn is sent too.
            (self.leaving, self.unread) = (true, true);
        }
    }

    /// Reads records into the batch until it is full or there are no more.
    fn fill(&mut self) {
        let now = self.transport.now().mono;
        if !self.unread || self.look_at.is_some_and(|at| at > now) {
            return;
        }
        if let Err(error) = self.read(now) {
            self.reader = None;
            if self.look_at.is_none() {
                self.transport.say(&format!("cannot read the log to ship it: {error}; it is tried again"));
            }
            self.look_at = Some(now.saturating_add(LOOK_AGAIN));
        } else {
            self.look_at = None;
        }
        self.advance();
    }

    fn read(&mut self, now: Duration) -> Result<(), Error> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.position.reader(self.read)?,
        };
        while !self.batch.is_full() {
            let before = reader.report();
            let Some(entry) = reader.next()? else {
                self.unread = false;
                break;
            };
            let (id, empty) = (entry.id, self.batch.is_empty());
            let pushed = self.batch.push(id, entry.bytes);
            let after = reader.report();
            let rotten = (after.bad_records + after.missing_records)
                .saturating_sub(before.bad_records + before.missing_records);
            self.position.stats().rotten.fetch_add(rotten, Ordering::Relaxed);
            if empty {
                self.began = now;
            }
            self.read = Some(id);
            if pushed.is_err() {
                let why = ErrorReason {
                    reason: "it is no JSON object on one line".into(),
                    ..ErrorReason::default()
                };
                self.reject(id, &why);
            }
        }
        self.reader = Some(reader);
        Ok(())
    }

    /// Moves the cursor past all records that are done.
    fn advance(&mut self) {
        let done = match self.batch.id(0) {
            // Numbers begin at 1: a run's own record is never sent.
            Some(first) => Some(RecordId { seq: first.seq.saturating_sub(1), ..first }),
            None => self.read,
        };
        if let Some(id) = done.filter(|_| done != self.position.done()) {
            self.position.advance(id);
        }
    }

    /// Sends as many records of the batch as fit into one request. Returns whether any record was done.
    fn attempt(&mut self) -> bool {
        let now = self.transport.now();
        if std::mem::replace(&mut self.again, false) {
            self.position.stats().retries.fetch_add(1, Ordering::Relaxed);
        }
        self.batch.stamp(now.wall);
        let (body, count) = self.batch.body(self.aside, self.limit);
        let bytes = body.len();
        let limit = count.saturating_mul(REPLY_PER_RECORD).saturating_add(REPLY_BASE);
        let answered = self.transport.post(body, &mut self.reply, limit);
        self.rate_limit.sent(self.transport.now().mono, bytes);
        let wall = self.transport.now().wall;
        let mut sent = (self.aside..self.aside + count).map_while(|index| self.batch.id(index));
        let well = match classify(answered, &self.reply, wall, &mut sent, &mut self.statuses) {
            BulkOutcome::Items => self.settle(count),
            BulkOutcome::TooLarge if count > 1 => self.halve(bytes),
            BulkOutcome::Bad(_) if count > 1 => self.halve(bytes),
            BulkOutcome::TooLarge => {
                let why = ErrorReason {
                    status: 413,
                    reason: "too large for the server even alone".into(),
                    ..ErrorReason::default()
                };
                self.reject_at(self.aside, &why);
                true
            }
            BulkOutcome::Bad(why) => self.set_aside(why),
            BulkOutcome::Failed(failure, retry_after, words) => self.back_off(failure, retry_after, &words),
        };
        self.reply = Vec::new();
        self.advance();
        well
    }
}

#[cfg(test)]
mod tests;
