//! The slots of a server and its listener: who gets in, whose turn it is, who is cut.

use std::io;
use std::ops::Range;
use std::time::Duration;

use mio::{Interest, Registry, Token};

use super::slot::{Budget, Slot, turn_away};
use super::{Caller, Limits, Listen, Speak};
use crate::fixed_buf::FixedBuf;

/// Connections that are accepted in one turn.
const ACCEPTS: u32 = 32;

/// After a failed accept (out of files, say) comes no event: it is tried again this much later.
const RETRY: Duration = Duration::from_secs(1);

/// Connections that wait in the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Calls {
    /// None: an event will tell of the next.
    None,
    /// Perhaps some: a turn's number of them was taken.
    More,
    /// Perhaps some, which could not be taken; from this time they may be.
    Retry(Duration),
}

/// A listener and its connections.
#[derive(Debug)]
pub struct Slots<L: Listen> {
    listener: L,
    registry: Registry,
    /// The listener's token; those of the slots follow.
    token: usize,
    slots: Vec<Slot<L::Stream>>,
    limits: Limits,
    calls: Calls,
    budget: Budget,
    /// The slot that is gone on with first.
    first: usize,
}

impl<L: Listen> Slots<L> {
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
        let (calls, budget) = (Calls::None, Budget::TURN);
        Ok(Slots { listener, registry, token: tokens.start, slots, limits, calls, budget, first: 0 })
    }

    /// The listener itself.
    pub fn listener(&self) -> &L {
        &self.listener
    }

    /// Takes an event for one of its tokens.
    pub fn ready(&mut self, token: Token, now: Duration, speak: &mut Speak<'_>) {
        match token.0.checked_sub(self.token) {
            Some(0) => self.accept(now),
            Some(place) => self.turn(place - 1, now, speak),
            None => {}
        }
    }

    /// Whether a turn's budget ran out before its work: `resume` is to be called in the next.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.calls == Calls::More || self.slots.iter().any(tired)
    }

    /// Goes on with what was pending, fairly, within a new budget.
    pub fn resume(&mut self, now: Duration, speak: &mut Speak<'_>) {
        self.budget = Budget::TURN;
        if self.calls == Calls::More {
            self.accept(now);
        }
        let count = self.slots.len();
        let first = self.first;
        for place in (first..count).chain(0..first) {
            if self.slots.get(place).is_some_and(tired) {
                if self.budget.is_spent() {
                    self.first = place;
                    return;
                }
                self.turn(place, now, speak);
            }
        }
    }

    /// When `expire` is next to be called, on the clock that `now` is of.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let retry = if let Calls::Retry(at) = self.calls { Some(at) } else { None };
        let cuts = self.slots.iter().filter_map(|slot| Some(slot.line.as_ref()?.deadline));
        cuts.chain(retry).min()
    }

    /// Cuts every connection whose time is up.
    pub fn expire(&mut self, now: Duration) {
        if matches!(self.calls, Calls::Retry(at) if at <= now) {
            self.calls = Calls::More;
        }
        for slot in &mut self.slots {
            if slot.line.as_ref().is_some_and(|line| line.deadline <= now) {
                slot.end(&self.registry);
            }
        }
    }

    /// Gives a caller that waits the reply that it waits for. False: it is gone.
    pub fn reply(&mut self, caller: Caller, now: Duration, write: impl FnOnce(&mut FixedBuf)) -> bool {
        let deadline = now.saturating_add(self.limits.patience);
        match self.slots.get_mut(caller.place) {
            Some(slot) if slot.waits_for(caller) => slot.answer(deadline, write),
            _ => return false,
        }
        // Nothing is asked of it any more: it only takes its reply and leaves.
        self.turn(caller.place, now, &mut |_, _, _| super::Next::Listen);
        true
    }

    fn accept(&mut self, now: Duration) {
        self.calls = Calls::More;
        for _ in 0..ACCEPTS {
            match self.listener.take() {
                Ok(stream) => self.admit(stream, now),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.calls = Calls::None;
                        return;
                    }
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        self.calls = Calls::Retry(now.saturating_add(RETRY));
                        return;
                    }
                },
            }
        }
    }

    fn admit(&mut self, mut stream: L::Stream, now: Duration) {
        use super::Stream as _;
        if let Err(words) = stream.admit() {
            return turn_away(stream, words);
        }
        let Some(place) = self.slots.iter().position(|slot| slot.line.is_none()) else {
            return turn_away(stream, self.limits.full);
        };
        let token = Token(self.token + 1 + place);
        let both = Interest::READABLE | Interest::WRITABLE;
        // One that cannot be registered is dropped, which closes it.
        if self.registry.register(&mut stream, token, both).is_ok()
            && let Some(slot) = self.slots.get_mut(place)
        {
            slot.begin(stream, now.saturating_add(self.limits.patience));
        }
    }

    fn turn(&mut self, place: usize, now: Duration, speak: &mut Speak<'_>) {
        let Some(slot) = self.slots.get_mut(place) else { return };
        if !slot.turn(place, now, self.limits.patience, &mut self.budget, speak) {
            slot.end(&self.registry);
        }
    }
}

fn tired<S>(slot: &Slot<S>) -> bool {
    slot.line.as_ref().is_some_and(|line| line.more)
}

#[cfg(test)]
mod tests;
