//! The agent's unix socket: one JSON request a line, one JSON line back, then it closes. Only
//! root, the agent's own user and the members of one group, if one is configured, may speak.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::{Registry, Token};
use serde::{Deserialize, Serialize};

mod client;
mod peer_credentials;
mod socket;
mod status;

pub use client::ask;
pub use status::{
    BudgetStatus, EventCaptureStatus, LastEvent, LogStatus, LoopStatus, OpenCaptureStatus, Outcome,
    OutputStatus, ProgramStatus, ReadingStatus, ShipStatus, Status, TracerStatus,
};

use crate::fixed_buf::FixedBuf;
pub use crate::net::ConnectionId;
use crate::net::{Limits, Response, Slots};
use peer_credentials::CheckedListener;
use socket::Socket;

/// A longer request is refused.
const REQUEST_MAX: usize = 4 << 10;

/// The state of many tracers is a fraction of this.
const REPLY_MAX: usize = 256 << 10;

/// A request has to come, and a reply to be taken, within this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest capture takes a minute; then its stacks are symbolized and its event is written.
const REPLY_WITHIN: Duration = Duration::from_secs(120);

const FULL: &[u8] = b"{\"refused\":\"too many ask at once: try again\"}\n";
const TOO_LARGE: &[u8] = b"{\"refused\":\"the reply is too long for one line\"}\n";

/// A request to a running agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum ControlRequest {
    /// Asks for its state. The reply is a `Status`.
    Status {},
    /// Asks for a capture now. The reply, once the event is in the log, is an `Outcome`.
    Trigger {
        /// The tracer that captures.
        tracer: String,
        /// The container to capture, by its id or a prefix of it; else the host.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        container: Option<String>,
        /// The capture's length; else as configured.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<u64>,
    },
}

/// Why the socket cannot be created, or the agent cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// another agent runs
    #[error("another onset answers on {0}; stop it first, or set `socket` to another path")]
    Live(PathBuf),
    /// a file that is not ours to remove
    #[error("{0} is there and is no socket; remove it, or set `socket` to another path")]
    NotSocket(PathBuf),
    /// the kernel takes 107 bytes, and some are needed beside it
    #[error("{0} is too long for a socket; set `socket` to a path of at most 100 bytes")]
    TooLong(PathBuf),
    /// it cannot be made
    #[error("cannot make the socket {0}: {1}; see `socket` in the config")]
    Make(PathBuf, io::Error),
    /// a group that is not there
    #[error("{0} names no group \"{1}\"; see `socket_group` in the config, which also takes a number")]
    NoGroup(PathBuf, String),
    /// a group that is not ours to give
    #[error(
        "cannot give the socket {0} to group {1}: {2}; onset's user has to be in that group, see `socket_group` in the config"
    )]
    Give(PathBuf, String, io::Error),
    /// no agent runs
    #[error(
        "no onset answers on {0}: is it running? If it has another `socket`, name its config with --config"
    )]
    Silent(PathBuf),
    /// not for this user
    #[error("only root, onset's own user and members of its `socket_group` may ask it on {0}")]
    NotAllowed(PathBuf),
    /// the agent is there but does not answer
    #[error(
        "onset on {0} did not answer within {1:?}; what it was asked for may still end: see onset events"
    )]
    Late(PathBuf, Duration),
    /// the agent went away meanwhile
    #[error(
        "onset on {0} hung up: it ended (its journal may say why), or was asked for more than it could do in two minutes (see onset events)"
    )]
    HungUp(PathBuf),
    /// anything else
    #[error("cannot talk with onset on {0}: {1}")]
    Talk(PathBuf, io::Error),
}

/// The agent's server. Its owner passes it the events of its tokens, calls `resume` in every turn that begins with
/// `pending` (such a turn must not wait for events), and `expire` at its `deadline`. Dropping it removes the socket's
/// file.
#[derive(Debug)]
pub struct Server {
    slots: Slots<CheckedListener>,
    _socket: Socket,
}

impl Server {
    /// Listens, with one token for that and one for each caller. The socket of an agent that died
    /// is replaced, that of one that lives is an error. Members of the group may ask too.
    pub fn bind(
        path: &Path,
        group: Option<&str>,
        registry: &Registry,
        tokens: Range<usize>,
    ) -> Result<Server, Error> {
        let group = group.map(|name| Ok((name, peer_credentials::group(name)?))).transpose()?;
        let (listener, socket) = Socket::bind(path, group)?;
        let listener = CheckedListener::new(listener, group.map(|(_, number)| number));
        let limits = Limits { request: REQUEST_MAX, reply: REPLY_MAX, patience: PATIENCE, full: FULL };
        let slots = Slots::new(listener, registry, tokens, limits);
        Ok(Server { slots: slots.map_err(|error| Error::Make(path.to_owned(), error))?, _socket: socket })
    }

    /// Handles an event of one of its tokens. Each request that `each` gets needs one `reply` later.
    pub fn ready(&mut self, token: Token, now: Duration, each: &mut dyn FnMut(ConnectionId, ControlRequest)) {
        self.slots.ready(token, now, &mut |caller, received, reply| hear(caller, received, reply, each));
    }

    /// Whether there is work left that no event will announce.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.slots.pending()
    }

    /// Continues the pending work.
    pub fn resume(&mut self, now: Duration, each: &mut dyn FnMut(ConnectionId, ControlRequest)) {
        self.slots.resume(now, &mut |caller, received, reply| hear(caller, received, reply, each));
    }

    /// Replies to `caller` with one line of JSON. False: its connection is closed.
    pub fn reply(
        &mut self,
        caller: ConnectionId,
        now: Duration,
        json: impl FnOnce(&mut FixedBuf) -> serde_json::Result<()>,
    ) -> bool {
        self.slots.reply(caller, now, |buf| {
            if json(buf).is_err() || buf.push(b"\n").is_err() {
                buf.clear();
                // Cannot fail: the buffer is empty.
                let _ = buf.push(TOO_LARGE);
            }
        })
    }

    /// When `expire` is next to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.slots.deadline()
    }

    /// Closes every connection whose deadline has passed.
    pub fn expire(&mut self, now: Duration) {
        self.slots.expire(now);
    }
}

fn hear(
    caller: ConnectionId,
    received: &[u8],
    reply: &mut FixedBuf,
    each: &mut dyn FnMut(ConnectionId, ControlRequest),
) -> Response {
    let Some(end) = received.iter().position(|byte| *byte == b'\n') else {
        if received.len() < REQUEST_MAX {
            return Response::Incomplete;
        }
        return refuse(received, reply, "a request is one line of JSON of at most 4 KiB");
    };
    match serde_json::from_slice(received.get(..end).unwrap_or_default()) {
        Ok(request) => {
            each(caller, request);
            Response::Deferred(REPLY_WITHIN)
        }
        Err(error) => refuse(received, reply, &format!("not understood: {error}")),
    }
}

/// Requests as a fuzz target: each line is accepted, or refused with a reason.
#[doc(hidden)]
#[cfg(any(test, feature = "fuzz"))]
pub fn fuzz(data: &[u8]) {
    let mut reply = FixedBuf::new(REPLY_MAX);
    let mut asked = 0;
    let next = hear(ConnectionId::default(), data, &mut reply, &mut |_, _| asked += 1);
    match next {
        Response::Deferred(_) => assert_eq!((asked, reply.len()), (1, 0)),
        Response::Reply { .. } => assert!(asked == 0 && reply.ends_with(b"\n")),
        _ => assert_eq!((asked, reply.len()), (0, 0)),
    }
}

/// /etc/group as a fuzz target.
#[doc(hidden)]
#[cfg(any(test, feature = "fuzz"))]
pub fn fuzz_groups(data: &[u8]) {
    peer_credentials::fuzz(data);
}

fn refuse(received: &[u8], reply: &mut FixedBuf, why: &str) -> Response {
    let outcome = Outcome::Refused(why.to_owned());
    // The buffer holds what is said of a request, which is shorter than it.
    let _ = serde_json::to_writer(&mut *reply, &outcome);
    let _ = reply.push(b"\n");
    Response::Reply { consumed: received.len(), last: true }
}

#[cfg(test)]
mod tests;
