//! The real loop, one turn at a time, for tests that measure it: looks fall due when the test says
//! so, and records and requests come from the test. All else is the agent's own code.

use std::time::Duration;

use mio::Events;

use crate::sys;

use super::{Agent, EVENTS_MAX, Input};

/// An agent that turns when it is told to.
#[doc(hidden)]
pub struct TestHarness {
    agent: Agent,
    events: Events,
}

impl TestHarness {
    /// Of an agent that is ready.
    #[must_use]
    pub fn new(agent: Agent) -> TestHarness {
        TestHarness { agent, events: Events::with_capacity(EVENTS_MAX) }
    }

    /// One turn, without waiting, in which the tracers of these names look, besides those whose
    /// time has come. False: the agent is to leave.
    pub fn turn(&mut self, due: impl Fn(&str) -> bool) -> bool {
        for slot in self.agent.slots.all_mut() {
            slot.due |= slot.state.ticks() && due(slot.spec.name);
        }
        loop {
            let stays = self.agent.once(&mut self.events, Some(Duration::ZERO)).is_continue();
            // A look at many containers takes several turns.
            if !stays || self.agent.looking.is_none() {
                return stays;
            }
        }
    }

    /// Hands a record to a tracer, as one of its hook's ring is. False: there is no such tracer.
    pub fn record(&mut self, tracer: &str, record: &[u8]) -> bool {
        let Some(index) = self.agent.slots.place_of(tracer) else { return false };
        self.agent.feed(index, sys::now(), None, &Input::Record(record)).is_some()
    }

    /// Asks a tracer for a capture, of this container or of the host, as the socket would for a
    /// person who does not wait. False: there is no such tracer or container, or it asked for none.
    pub fn ask(&mut self, tracer: &str, container: Option<&str>, lasting: Duration) -> bool {
        let Some(index) = self.agent.slots.place_of(tracer) else { return false };
        let key = match container.map(|id| self.agent.reader.containers().find(id)) {
            None => None,
            Some(Ok(key)) => Some(key),
            Some(Err(_)) => return false,
        };
        let effects = self.agent.feed(index, sys::now(), None, &Input::Asked(key, lasting));
        effects.is_some_and(|effects| effects.asked > 0)
    }

    /// The agent leaves as it does for a signal.
    pub fn leave(self) -> Result<(), super::Error> {
        self.agent.leave()
    }
}
