//! What people ask the running agent for, through its socket.

use std::time::Duration;

use crate::clock::Now;
use crate::control::{self, ConnectionId, ControlRequest, Outcome};
use crate::host::containers::NotFound;
use crate::log::RecordId;
use crate::tracer::no_tracer;

use super::slot::State;
use super::{Agent, Input};

/// A capture asked for by hand lasts no longer than this: whoever asked waits for it.
const SECONDS_MAX: u64 = 60;

impl Agent {
    /// Takes the requests that arrived on the socket, and answers at once those that can be.
    pub(super) fn take_requests(
        &mut self,
        now: Now,
        take: impl FnOnce(&mut control::Server, &mut dyn FnMut(ConnectionId, ControlRequest)),
    ) {
        let mut requests = std::mem::take(&mut self.requests);
        take(&mut self.control, &mut |caller, request| requests.push((caller, request)));
        for (caller, request) in requests.drain(..) {
            match request {
                ControlRequest::Status {} => {
                    let status = self.status(now);
                    self.reply(now, caller, &status);
                }
                ControlRequest::Trigger { tracer, container, seconds } => {
                    if let Err(why) = self.trigger(now, caller, &tracer, container.as_deref(), seconds) {
                        self.reply(now, caller, &Outcome::Refused(why));
                    }
                }
            }
        }
        self.requests = requests;
    }

    /// Begins what was asked for; the reply follows with its answer.
    fn trigger(
        &mut self,
        now: Now,
        caller: ConnectionId,
        tracer: &str,
        container: Option<&str>,
        seconds: Option<u64>,
    ) -> Result<(), String> {
        let Some(index) = self.slots.place_of(tracer) else {
            return Err(no_tracer(tracer, self.slots.named().map(|slot| slot.spec)));
        };
        let Some(slot) = self.slots.get(index) else { return Err("there is no such tracer".into()) };
        match &slot.state {
            State::Active | State::Loading | State::Failed(_) => {}
            State::Disabled => {
                return Err(format!("{tracer} is disabled in the config ([tracer.{tracer}] enabled)"));
            }
            State::Unsupported(reason) => return Err(format!("{tracer} is unsupported here: {reason}")),
        }
        let key = match container {
            None => None,
            Some(_) if !slot.spec.containers => {
                return Err(format!("{tracer} is about the host: it takes no container"));
            }
            Some(id) => Some(self.reader.containers().find(id).map_err(|why| match why {
                NotFound::None => format!(
                    "no container {id} is known; onset follows {}",
                    self.reader.containers().iter().count()
                ),
                NotFound::Several => format!("several containers begin with {id}; give more of the id"),
            })?),
        };
        let lasting = match seconds {
            None => slot.settings.capture(),
            Some(seconds @ 1..=SECONDS_MAX) => Duration::from_secs(seconds),
            Some(seconds) => return Err(format!("--seconds must be from 1 to {SECONDS_MAX}, not {seconds}")),
        };
        let effects = self.feed(index, now, Some(caller), &Input::Asked(key, lasting));
        match effects {
            Some(effects) if effects.asked > 0 => Ok(()),
            Some(super::Effects { kept: Some(id), .. }) => {
                self.answer_caller(now, Some(caller), Ok(id));
                Ok(())
            }
            _ => Err(format!("{tracer} has too many captures under way; try again when they are over")),
        }
    }

    /// Answers whoever waits for a capture: the id of its event, or why there is none.
    pub(super) fn answer_caller(
        &mut self,
        now: Now,
        caller: Option<ConnectionId>,
        result: Result<RecordId, String>,
    ) {
        let Some(caller) = caller else { return };
        let reply = match result {
            Ok(id) => Outcome::Id(id.to_string()),
            Err(why) => Outcome::Refused(why),
        };
        self.reply(now, caller, &reply);
    }

    fn reply(&mut self, now: Now, caller: ConnectionId, reply: &impl serde::Serialize) {
        // Whoever asked may be gone by now; then nobody waits for it.
        let _ = self.control.reply(caller, now.mono, |buf| serde_json::to_writer(buf, reply));
    }
}
