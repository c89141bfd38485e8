//! A server's listener and its slots: accepts connections, serves them in turn, closes them at their deadline.

use std::io;
use std::ops::Range;
use std::time::Duration;

use mio::{Interest, Registry, Token};

use super::slot::{Budget, Slot, reject};
use super::{ConnectionId, Limits, Listener, Respond};
use crate::fixed_buf::FixedBuf;

/// Connections that are accepted in one turn.
const ACCEPTS: u32 = 32;

/// After a failed accept (out of files, say) comes no event: it is tried again this much later.
const RETRY: Duration = Duration::from_secs(1);

/// Whether connections wait in the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptState {
    /// No: an event will announce the next one.
    Idle,
    /// Perhaps: the most that one turn accepts were accepted.
    More,
    /// Perhaps, but accept failed; it is tried again at this time.
    Retry(Duration),
}

/// A listener and its connections.
#[derive(Debug)]
pub struct Slots<L: Listener> {
    listener: L,
    registry: Registry,
    /// The listener's token; those of the slots follow.
    token: usize,
    slots: Vec<Slot<L::Stream>>,
    limits: Limits,
    accept_state: AcceptState,
    budget: Budget,
    /// The slot that `resume` begins with.
    first: usize,
}

impl<L: Listener> Slots<L> {
    /// Serves a listener with one token for it and one for each connection.
    pub fn new(
        mut listener: L,
        registry: &Registry,
        tokens: Range<usize>,
        limits: Limits,
    ) -> io::Result<Slots<L>> {
        let registry = registry.try_clone()?;
        registry.register(&mut listener, Token(tokens.start), Interest::READABLE)?;
        let slots = (0..tokens.len().saturating_sub(1)).map(|place| Slot::new(place, &limits)).collect();
        let (accept_state, budget) = (AcceptState::Idle, Budget::TURN);
        Ok(Slots { listener, registry, token: tokens.start, slots, limits, accept_state, budget, first: 0 })
    }

    /// The listener itself.
    pub fn listener(&self) -> &L {
        &self.listener
    }

    /// Takes an event for one of its tokens.
    pub fn ready(&mut self, token: Token, now: Duration, respond: &mut Respond<'_>) {
        match token.0.checked_sub(self.token) {
            Some(0) => self.accept(now),
            Some(slot_index) => self.turn(slot_index - 1, now, respond),
            None => {}
        }
    }

    /// Whether a turn's budget ran out before its work: `resume` is to be called in the next.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.accept_state == AcceptState::More || self.slots.iter().any(out_of_budget)
    }

    /// Goes on with what was pending, fairly, within a new budget.
    pub fn resume(&mut self, now: Duration, respond: &mut Respond<'_>) {
        self.budget = Budget::TURN;
        if self.accept_state == AcceptState::More {
            self.accept(now);
        }
        let count = self.slots.len();
        let first = self.first;
        for slot_index in (first..count).chain(0..first) {
            if self.slots.get(slot_index).is_some_and(out_of_budget) {
                if self.budget.is_spent() {
                    self.first = slot_index;
                    return;
                }
                self.turn(slot_index, now, respond);
            }
        }
    }

    /// When `expire` is next to be called, on the clock that `now` is of.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let retry = if let AcceptState::Retry(at) = self.accept_state { Some(at) } else { None };
        let cuts = self.slots.iter().filter_map(|slot| Some(slot.connection.as_ref()?.deadline));
        cuts.chain(retry).min()
    }

    /// Closes every connection whose deadline has passed.
    pub fn expire(&mut self, now: Duration) {
        if matches!(self.accept_state, AcceptState::Retry(at) if at <= now) {
            self.accept_state = AcceptState::More;
        }
        for slot in &mut self.slots {
            if slot.connection.as_ref().is_some_and(|connection| connection.deadline <= now) {
                slot.end(&self.registry);
            }
        }
    }

    /// Sends the reply that the connection `caller` waits for. False: it is closed.
    pub fn reply(&mut self, caller: ConnectionId, now: Duration, write: impl FnOnce(&mut FixedBuf)) -> bool {
        let deadline = now.saturating_add(self.limits.patience);
        match self.slots.get_mut(caller.slot_index) {
            Some(slot) if slot.waits_for(caller) => slot.answer(deadline, write),
            _ => return false,
        }
        // Nothing is asked of it any more: it only takes its reply and leaves.
        self.turn(caller.slot_index, now, &mut |_, _, _| super::Response::Incomplete);
        true
    }

    fn accept(&mut self, now: Duration) {
        self.accept_state = AcceptState::More;
        for _ in 0..ACCEPTS {
            match self.listener.accept_stream() {
                Ok(stream) => self.admit(stream, now),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.accept_state = AcceptState::Idle;
                        return;
                    }
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        self.accept_state = AcceptState::Retry(now.saturating_add(RETRY));
                        return;
                    }
                },
            }
        }
    }

    fn admit(&mut self, mut stream: L::Stream, now: Duration) {
        use super::Stream as _;
        if let Err(words) = stream.authorize() {
            return reject(stream, words);
        }
        let Some(slot_index) = self.slots.iter().position(|slot| slot.connection.is_none()) else {
            return reject(stream, self.limits.full);
        };
        let token = Token(self.token + 1 + slot_index);
        let both = Interest::READABLE | Interest::WRITABLE;
        // One that cannot be registered is dropped, which closes it.
        if self.registry.register(&mut stream, token, both).is_ok()
            && let Some(slot) = self.slots.get_mut(slot_index)
        {
            slot.begin(stream, now.saturating_add(self.limits.patience));
        }
    }

    fn turn(&mut self, slot_index: usize, now: Duration, respond: &mut Respond<'_>) {
        let Some(slot) = self.slots.get_mut(slot_index) else { return };
        if !slot.turn(slot_index, now, self.limits.patience, &mut self.budget, respond) {
            slot.end(&self.registry);
        }
    }
}

fn out_of_budget<S>(slot: &Slot<S>) -> bool {
    slot.connection.as_ref().is_some_and(|connection| connection.pending)
}

#[cfg(test)]
mod tests;
